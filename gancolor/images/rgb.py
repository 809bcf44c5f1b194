"""Pictures as networks are trained on them: uint8 RGB, upright, in sRGB. Which are damaged,
`reading` says.

JPEG files go through OpenCV, which can decode large ones to a fraction of their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.errors import MissingExtra
from gancolor.images import plain, profiles, reader
from gancolor.images.formats import HEAD, kind_of
from gancolor.images.photograph import convert
from gancolor.runtime.files import read_regular

MAX_PIXELS = 250_000_000
"""Pictures with more are refused: decoded, they would not fit into the memory of every process that
reads.
"""

_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


class Rgb(NamedTuple):
    """Pixels (H, W, 3), uint8, and the sides of the whole picture, upright."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def read(path: str | Path) -> Rgb:
    """Read a picture file. Gray and CMYK become RGB, alpha is dropped.

    Raises DataError naming the file and the reason if it is missing, no regular file, empty, cut
    off, damaged, of a kind that cannot be read, or too large: more than 512 MiB or `MAX_PIXELS`.
    """
    with reader.guarded(Path(path)):
        data = read_regular(path)
    return decode(data, str(path))


def decode(data: bytes, name: str, least: int | None = None) -> Rgb:
    """Decode the bytes of a picture file as `read` does.

    With `least`, large JPEG files come reduced, their shorter side not below so many pixels.
    """
    try:
        with reader.guarded(Path(name)):
            kind = kind_of(data[:HEAD], name)
            if (
                kind is not None
                and kind.name == "jpeg"
                and (found := _decode_jpeg(data, least)) is not None
            ):
                return found
        photograph = reader.decode(data, name, max_pixels=MAX_PIXELS)
    except MissingExtra as error:
        raise reader.unreadable(Path(name), str(error).split(": ", 1)[-1]) from error
    if photograph.damage:
        raise reader.unreadable(Path(name), f"the file is damaged ({photograph.damage})")
    pixels = convert(photograph.pixels, np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Rgb(np.ascontiguousarray(pixels), pixels.shape[1], pixels.shape[0])


def _decode_jpeg(data: bytes, least: int | None) -> Rgb | None:
    """Decode what OpenCV reads as it is meant; None for another. ValueError if it is cut off,
    damaged or too large.
    """
    of = plain.outline(data)
    reader.check_pixels(of.width, of.height, MAX_PIXELS)
    if of.bits != 8 or of.components not in (1, 3) or (of.components == 1 and of.profile):
        return None
    data, mended = plain.ended(data, of)
    flag: int = cv2.IMREAD_COLOR_RGB
    if least is not None:
        small = min(of.width, of.height)
        flag = next((each for factor, each in _REDUCED.items() if small >= factor * least), flag)
    pixels, damage = plain.decode(data, flag)
    if damage:
        raise ValueError(f"the file is {'cut off' if mended else 'damaged'} ({damage})")
    if pixels is None:
        return None
    if flag != cv2.IMREAD_COLOR_RGB:  # it cannot reduce and give RGB at once
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    turned = (
        (pixels.shape[0] > pixels.shape[1]) != (of.height > of.width)
        if of.width != of.height
        else False
    )
    to_srgb = (
        profiles.conversion(of.profile, "rgb", np.dtype(np.uint8)).apply if of.profile else None
    )
    if to_srgb is not None:
        pixels = np.ascontiguousarray(to_srgb(pixels))
    return Rgb(pixels, *((of.height, of.width) if turned else (of.width, of.height)))
