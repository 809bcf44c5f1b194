"""Rows of a photograph in the depth a file holds, a strip at a time so that memory stays bounded.

A picture as its file stores it, and how it is developed: turned upright, brought to sRGB, a band at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gancolor.images import metadata as turning
from gancolor.images.metadata import Metadata, Photograph
from gancolor.images.profiles import conversion


def convert(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
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
        scaled: NDArray[Any] = values.astype(wanted) / wanted.type(np.iinfo(values.dtype).max)
        return scaled
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(wanted)
    return values.astype(wanted) * wanted.type(257)


def strips(
    rgb: NDArray[Any], alpha: NDArray[Any] | None, dtype: DTypeLike, *, size: int = 1 << 20
) -> Iterator[tuple[int, NDArray[Any]]]:
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


Pixels = NDArray[Any]
Band = tuple[Pixels, Pixels | None]
"""Some rows: colours (n, W) or (n, W, channels), and alpha (n, W) or None."""

BAND_PIXELS = 2**20
"""About how many pixels are converted at a time."""


@dataclass(kw_only=True)
class Header:
    """What a file says before it is decoded. `width` and `height` are as stored, before
    `orientation` (EXIF, 1-8); `decode` reads the rest.
    """

    width: int
    height: int
    format: str
    decode: Callable[[], Stored]
    orientation: int = 1


@dataclass(kw_only=True)
class Stored:
    """Pixels as stored, from the top to the bottom, and what belongs to them.

    `space`: gray, rgb, cmyk or lab (the last two uint8 only). `dtype`: uint8, uint16 or float32;
    float may leave [0, 1] and hold NaN. `bands` together hold `height` rows. `damage`, `lossless`:
    as in `Photograph`. `turned`: where a library has turned the pixels already, by which
    orientation.
    """

    width: int
    height: int
    format: str
    space: str
    dtype: np.dtype[Any]
    has_alpha: bool
    bands: Iterator[Band]
    orientation: int = 1
    profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: list[str] = field(default_factory=list)
    turned: int = 1
    damage: str = ""
    lossless: bool = False


def develop(stored: Stored) -> Photograph:
    """Decode all bands into one upright sRGB picture; beside it, only a band is in memory.
    ValueError if rows lack.
    """
    convert, notes = conversion(stored.profile, stored.space, stored.dtype)
    sides = (
        (stored.height, stored.width) if stored.orientation < 5 else (stored.width, stored.height)
    )
    pixels = np.empty(sides if stored.space == "gray" else (*sides, 3), stored.dtype)
    alpha = np.empty(sides, stored.dtype) if stored.has_alpha else None
    is_float = stored.dtype.kind == "f"
    _fill(stored, pixels, alpha, None if is_float else convert)
    notes_of_floats = []
    if is_float:
        notes_of_floats = _to_unit_range(pixels)
        if alpha is not None:
            _to_unit_range(alpha)
        if convert is not None:
            for rows in _rows(pixels):
                rows[:] = convert(rows)
    sides_as_stored = (
        (stored.width, stored.height) if stored.turned < 5 else (stored.height, stored.width)
    )
    metadata, lost = turning.turned(
        stored.metadata, max(stored.orientation, stored.turned), *sides_as_stored
    )
    return Photograph(
        pixels=pixels,
        alpha=alpha,
        metadata=metadata,
        format=stored.format,
        notes=[*stored.notes, *notes_of_floats, *notes, *lost],
        lossless=stored.lossless,
        damage=stored.damage,
    )


def _fill(
    stored: Stored, pixels: Pixels, alpha: Pixels | None, convert: Callable[[Pixels], Pixels] | None
) -> None:
    # Views through which the rows as stored land where they belong: turning costs no second copy.
    into, into_alpha = _as_stored(pixels, stored.orientation), None
    if alpha is not None:
        into_alpha = _as_stored(alpha, stored.orientation)
    top = 0
    for colors, opacity in stored.bands:
        bottom = top + len(colors)
        into[top:bottom] = colors if convert is None else convert(colors)
        if into_alpha is not None:
            into_alpha[top:bottom] = opacity
        top = bottom
    if top != stored.height:
        raise ValueError(f"{top} of {stored.height} rows could be decoded")


def _as_stored(upright: Pixels, orientation: int) -> Pixels:
    """A view of the upright picture in the order of the stored one; the meanings are EXIF's."""
    if orientation in (5, 7):
        turned = upright.swapaxes(0, 1)
        return turned if orientation == 5 else np.rot90(turned, 2)
    if orientation in (2, 4):
        return upright[:, ::-1] if orientation == 2 else upright[::-1]
    return np.rot90(upright, {3: 2, 6: 1, 8: 3}.get(orientation, 0))


def _to_unit_range(pixels: Pixels) -> list[str]:
    """Bring floats to [0, 1] in place: NaN is black, and where values pass 1 the largest is white."""
    largest = 0.0
    for rows in _rows(pixels):
        np.nan_to_num(rows, copy=False, nan=0.0, posinf=np.inf, neginf=0.0)
        np.maximum(rows, 0, out=rows)
        largest = max(largest, float(np.max(rows, where=np.isfinite(rows), initial=0.0)))
    top = max(largest, 1.0)
    for rows in _rows(pixels):
        np.minimum(rows, top, out=rows)  # infinity
        if top > 1:
            rows /= top
    return [f"values above 1: the largest, {largest:.6g}, counts as white"] if top > 1 else []


def _rows(pixels: Pixels) -> Iterator[Pixels]:
    step = max(1, BAND_PIXELS // pixels.shape[1])
    for top in range(0, pixels.shape[0], step):
        yield pixels[top : top + step]
