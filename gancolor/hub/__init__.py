"""Models that lie elsewhere: their addresses, and how their files are fetched, checked and kept."""
