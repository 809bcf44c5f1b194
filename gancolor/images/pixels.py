"""Pixels of any depth: brought from one depth to another, and taken a few rows at a time, so that
memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Pixels = NDArray[Any]
"""Pixels (H, W) or (H, W, channels): uint8, uint16, or float32 in [0, 1]."""

BAND_PIXELS = 2**20
"""About how many pixels are converted at a time."""


def convert(values: Pixels, dtype: DTypeLike) -> Pixels:
    """Convert between uint8, uint16 and float32 [0, 1], rounding to the nearest; what is no number
    becomes 0.
    """
    wanted = np.dtype(dtype)
    if values.dtype == wanted:
        return values
    if values.dtype.kind == "f":
        if wanted.kind == "f":
            return values.astype(wanted)
        limit = np.iinfo(wanted).max
        bounded = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(
            0, 1
        )
        return (bounded * np.float32(limit) + np.float32(0.5)).astype(wanted)
    if wanted.kind == "f":
        scaled: Pixels = values.astype(wanted) / wanted.type(np.iinfo(values.dtype).max)
        return scaled
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(wanted)
    return values.astype(wanted) * wanted.type(257)


def strips(
    rgb: Pixels, alpha: Pixels | None, dtype: DTypeLike, *, size: int = 1 << 20
) -> Iterator[tuple[int, Pixels]]:
    """Yield (first row, rows (n, W, 3), or (n, W, 4) with alpha), contiguous, of `dtype`, about
    `size` bytes at a time.

    `rgb` is (H, W, 3), `alpha` (H, W); uint8, uint16 or float32 [0, 1] each. The rows may share
    memory with `rgb`.
    """
    height, width = rgb.shape[:2]
    channels = 3 if alpha is None else 4
    count = max(1, size // (width * channels * np.dtype(dtype).itemsize))
    for start in range(0, height, count):
        rows = convert(rgb[start : start + count], dtype)
        if alpha is not None:
            rows = np.dstack((rows, convert(alpha[start : start + count], dtype)))
        yield start, np.ascontiguousarray(rows)


def sixteen_bits(values: Pixels, top: int) -> NDArray[np.uint16]:
    """Spread whole numbers from 0 to `top`, which is white, over 16 bits, rounding to the nearest;
    what is above is white too.
    """
    if top == 65535:
        return values.astype(np.uint16, copy=False)
    wide = np.minimum(values, top).astype(np.uint64)
    return ((wide * 65535 + top // 2) // top).astype(np.uint16)


def bands(pixels: Pixels) -> Iterator[Pixels]:
    """Yield views of the rows from the top, about `BAND_PIXELS` pixels each."""
    step = max(1, BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), step):
        yield pixels[top : top + step]
