"""`gancolor serve`: photographs and films coloured for other programs over HTTP."""
