"""Photographs as files hold them: every depth, alpha, profile and metadata, read and written
without loss.

`images` is the plain sister for pictures that a network trains on: uint8 RGB arrays and nothing
beside them.
"""
