"""One picture's variants side by side, gray first: small copies, so that a sheet is quick to look through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color, images
from gancolor.photographs.depths import convert

_SIDE = 640  # pixels of a cell's longer side at most
_WIDTH = 8192  # pixels of a sheet at most


def cell(picture: NDArray[Any], cells: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of any depth as one of so many cells beside each other: uint8 RGB, small."""
    side = min(_SIDE, max(1, _WIDTH // cells))
    scale = min(1.0, side / max(picture.shape[:2]))
    height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
    return images.resize(convert(picture, np.uint8), (height, width))


def sheet(cells: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The gray of the first cell, then all cells, in a row with their numbers above."""
    lightness, _ = color.split(torch.from_numpy(cells[0]).permute(2, 0, 1)[None])
    gray = (color.gray(lightness)[0, 0] * 255).round().byte().numpy()
    return images.sheet([[gray, *cells]], ["gray", *(str(number) for number in range(1, len(cells) + 1))])
