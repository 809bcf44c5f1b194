"""Photographs as files hold them: every depth, alpha, profile and metadata, read and written
without loss.

`reader` and `writer` are for all formats; what concerns a single one is in the module of its name.
`arrays` is their plain sister for pictures that a network trains on: uint8 RGB arrays and nothing
beside them.
"""
