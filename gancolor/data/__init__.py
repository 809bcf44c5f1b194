"""Datasets: named ones, folders, shards and the generated one, and the pictures of a training."""
