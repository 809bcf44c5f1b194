"""Where colours may go: a picture of the photograph's shape, white or opaque where they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import reader
from gancolor.images.pixels import Pixels, convert

Mask = NDArray[np.uint8]
"""(H, W): 255 where a photograph is coloured, 0 where it stays as it is, between them a share."""

_COLORED = 24  # by how much red, green and blue of a gray picture may differ, as JPEG leaves them


def read(path: Path, height: int, width: int, *, max_pixels: int = reader.MAX_PIXELS) -> Mask:
    """Read the mask of a photograph of that size (upright): of a picture with transparency its
    opacity, else its gray; brought to that size when it has another.

    DataError, naming the file, for what `reader.read` refuses, another shape, colours, and a mask
    that leaves nothing to colour.
    """
    picture = reader.read(path, max_pixels=max_pixels)
    _check_shape(path, *picture.size, height, width)
    if picture.alpha is not None and (opacity := _bytes(picture.alpha)).min() < 255:
        mask = opacity
    elif picture.pixels.ndim == 2:
        mask = _bytes(picture.pixels)
    else:
        rgb = convert(picture.pixels, np.uint8)
        mask = rgb.max(2)
        if int((mask - rgb.min(2)).max()) > _COLORED:
            raise DataError(f"mask must be gray or transparent, got colours in {shown(path)}")
    if not mask.any():
        raise DataError(
            "mask must be white or opaque where the photograph is to be coloured, got"
            f" {shown(path)}, black or transparent everywhere"
        )
    if mask.shape == (height, width):
        return mask
    way = cv2.INTER_AREA if mask.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(mask, (width, height), interpolation=way), np.uint8)


def check(path: Path, height: int, width: int) -> None:
    """Raise what `read` does, as far as can be told without decoding the pixels."""
    own_width, own_height, _ = reader.probe(path)
    _check_shape(path, own_height, own_width, height, width)


def is_shape(own_height: int, own_width: int, height: int, width: int) -> bool:
    """Whether a picture has the shape of another, to the pixel that is lost to rounding."""
    across = abs(own_width - width * own_height / height)
    return min(across, abs(own_height - height * own_width / width)) <= 1


def _check_shape(path: Path, own_height: int, own_width: int, height: int, width: int) -> None:
    if not is_shape(own_height, own_width, height, width):
        raise DataError(
            f"mask must have the photograph's shape, which is {width}x{height} pixels upright, got"
            f" {own_width}x{own_height} in {shown(path)}; save it with the whole picture's size"
        )


def of_array(values: NDArray[Any], height: int, width: int) -> Mask:
    """A mask of an array (H, W), bool, uint8, or float in [0, 1]. ConfigError for others, of another
    size, and for one that leaves nothing to colour.
    """
    if not isinstance(values, np.ndarray) or values.shape != (height, width):
        found = getattr(values, "shape", type(values).__name__)
        raise ConfigError(
            f"mask must be a path or an array of the picture's size ({height}, {width}), got {found}"
        )
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):  # also catches NaN
            raise ConfigError(
                f"a float mask must lie in [0, 1], got [{values.min():g}, {values.max():g}]"
            )
        values = convert(values, np.uint8)
    elif values.dtype != np.uint8:
        raise ConfigError(f"mask must be bool, uint8 or float in [0, 1], got {values.dtype}")
    if not values.any():
        raise ConfigError("mask must be above 0 where the picture is to be coloured, got 0 only")
    return values


def _bytes(values: Pixels) -> Mask:
    """Values of any depth in 8 bits; what is not 0 stays so."""
    small: Mask = convert(values, np.uint8)
    return np.maximum(small, (values > 0).astype(np.uint8))
