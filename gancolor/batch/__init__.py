"""Any number of files: found, shared among processes, coloured, reported."""
