"""Colours pictures with trained networks: what they see, what they say, and the full-size result."""
