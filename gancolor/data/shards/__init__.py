"""Datasets as sharded tar files in WebDataset's convention: written, and read as a stream."""
