"""Where a training picture's colour hints are: numbered squares, whose colours the training step fills in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 128  # hints in a picture
_WHOLE = 256  # pixels: side from which a picture may have as many; smaller ones have fewer in proportion
_GEOMETRIC = 1 / 8  # Zhang et al. (2017): the mean is 7, and none is common
_LARGEST = 9  # pixels: side of a square
_SPREAD = 1 / 4  # of the side: deviation of places around the centre


def most(side: int) -> int:
    """Return the largest number of hints in a picture of this side: more would cover it, and teach copying only."""
    return min(MOST, round(MOST * side / _WHOLE))


def draw_squares(side: int, share: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture (side, side) of zeros in which the k-th hint's square is k; `share` of them have any.

    Half of these have few hints (their number geometric), half any number up to `most`. Places lie around the centre or
    anywhere, squares are 1 to 9 pixels wide, and later ones cover earlier ones.
    """
    squares = np.zeros((side, side), np.uint8)
    if random.random() >= share:
        return squares
    few = random.random() < 0.5
    count = min(most(side), int(random.geometric(_GEOMETRIC)) - 1 if few else int(random.integers(0, most(side) + 1)))
    central = random.random(count) < 0.5
    anywhere = random.random((count, 2))
    around = random.normal(0.5, _SPREAD, (count, 2))
    places = np.clip(np.where(central[:, None], around, anywhere) * side, 0, side - 1).astype(int)
    sizes = random.integers(1, min(_LARGEST, side) + 1, count)
    for number, ((row, column), size) in enumerate(zip(places.tolist(), sizes.tolist(), strict=True), start=1):
        top, left = max(0, row - size // 2), max(0, column - size // 2)
        squares[top : top + size, left : left + size] = number
    return squares
