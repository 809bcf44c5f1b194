"""The doctor of picture sets: finds what does not belong into a training set, and writes which
pictures do.
"""
