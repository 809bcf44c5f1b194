"""Films: read, coloured without flicker, and written with everything else as it was. Needs the
extra `video`.
"""
