"""The generated dataset: still lifes that are painted from numbers."""
