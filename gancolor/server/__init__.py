"""`gancolor serve`: pictures coloured for other programs over HTTP."""
