"""A photograph, and how a file's picture becomes one: turned upright and brought to sRGB, a band of
rows at a time.

Each format's module tells of a file in a `Header`, decodes it into a `Stored`, and `develop` makes
the `Photograph` of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gancolor.images.metadata import Metadata, turned, upright_sides
from gancolor.images.pixels import Pixels, bands
from gancolor.images.profiles import conversion

Band = tuple[Pixels, Pixels | None]
"""Some rows: colours (n, W) or (n, W, channels), and alpha (n, W) or None."""


@dataclass(kw_only=True)
class Photograph:
    """A picture file's content, upright and in sRGB.

    `pixels`: (H, W) gray or (H, W, 3) red, green, blue; uint8, uint16, or float32 in [0, 1],
    encoded as sRGB is. `alpha`: (H, W) of the same type, or None. `format`: a title of
    `formats.KINDS` (JPEG, PNG, ...). `lossless`: a WebP file without loss. `damage`: what is broken
    in it although it could be read, or "". `notes`: what the user should know of this file, a
    sentence each ("the first of 3 pages"), the damage among them.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    lossless: bool = False
    damage: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


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
    to_srgb, notes = conversion(stored.profile, stored.space, stored.dtype)
    width, height = upright_sides(stored.width, stored.height, stored.orientation)
    sides = (height, width)
    pixels = np.empty(sides if stored.space == "gray" else (*sides, 3), stored.dtype)
    alpha = np.empty(sides, stored.dtype) if stored.has_alpha else None
    is_float = stored.dtype.kind == "f"
    _fill(stored, pixels, alpha, None if is_float else to_srgb)
    notes_of_floats = []
    if is_float:
        notes_of_floats = _to_unit_range(pixels)
        if alpha is not None:
            _to_unit_range(alpha)
        if to_srgb is not None:
            for rows in bands(pixels):
                rows[:] = to_srgb(rows)
    metadata, lost = turned(
        stored.metadata,
        max(stored.orientation, stored.turned),
        *upright_sides(stored.width, stored.height, stored.turned),  # as the file has them
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
    stored: Stored, pixels: Pixels, alpha: Pixels | None, to_srgb: Callable[[Pixels], Pixels] | None
) -> None:
    """Put all bands where they belong."""
    # Views through which the rows as stored land where they belong: turning costs no second copy.
    into, into_alpha = _as_stored(pixels, stored.orientation), None
    if alpha is not None:
        into_alpha = _as_stored(alpha, stored.orientation)
    top = 0
    for colors, opacity in stored.bands:
        bottom = top + len(colors)
        into[top:bottom] = colors if to_srgb is None else to_srgb(colors)
        if into_alpha is not None:
            into_alpha[top:bottom] = opacity
        top = bottom
    if top != stored.height:
        raise ValueError(f"{top} of {stored.height} rows could be decoded")


def _as_stored(upright: Pixels, orientation: int) -> Pixels:
    """A view of the upright picture in the order of the stored one; the meanings are EXIF's."""
    if orientation in (5, 7):
        mirrored = upright.swapaxes(0, 1)
        return mirrored if orientation == 5 else np.rot90(mirrored, 2)
    if orientation in (2, 4):
        return upright[:, ::-1] if orientation == 2 else upright[::-1]
    return np.rot90(upright, {3: 2, 6: 1, 8: 3}.get(orientation, 0))


def _to_unit_range(pixels: Pixels) -> list[str]:
    """Bring floats to [0, 1] in place: NaN is black, and where values pass 1 the largest is white."""
    largest = 0.0
    for rows in bands(pixels):
        np.nan_to_num(rows, copy=False, nan=0.0, posinf=np.inf, neginf=0.0)
        np.maximum(rows, 0, out=rows)
        largest = max(largest, float(np.max(rows, where=np.isfinite(rows), initial=0.0)))
    top = max(largest, 1.0)
    for rows in bands(pixels):
        np.minimum(rows, top, out=rows)  # infinity
        if top > 1:
            rows /= top
    return [f"values above 1: the largest, {largest:.6g}, counts as white"] if top > 1 else []
