"""Colours that a user knows at points of a picture: checked, drawn for a network, and held in what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.errors import ConfigError

MOST = 10_000  # in one picture
_REACH = 2.0  # pixels of the view: how far a hint's correction goes beyond its square
_TONE = 0.15  # of lightness in [-1, 1]: how different a pixel may be to share a correction
_ROUNDS = 4  # of correction, in which hints whose squares overlap settle

_Place = tuple[slice, slice]  # rows and columns of a view


@dataclass(frozen=True)
class Hint:
    """A known colour: at column `x` and row `y` of the upright picture, in pixels from 0, `rgb` in 0 to 255.

    It counts for the square of `radius` pixels around that place. Only its hue and saturation count: lightness is the
    picture's own.
    """

    x: float
    y: float
    rgb: tuple[int, int, int]
    radius: float = 0.0


def check(hints: Sequence[Hint], height: int, width: int) -> None:
    """Raise ConfigError, naming the first of `hints` that is wrong, unless all lie in a picture of that size."""
    if len(hints) > MOST:
        raise ConfigError(f"hints must be at most {MOST}, got {len(hints)}; leave out those that say the same")
    for number, hint in enumerate(hints, start=1):
        numbers = (hint.x, hint.y, hint.radius, *hint.rgb)
        if len(hint.rgb) != 3 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ConfigError(f"hint {number} must be of finite numbers x, y, (red, green, blue), radius, got {hint}")
        if not (-0.5 <= hint.x <= width - 0.5 and -0.5 <= hint.y <= height - 0.5):
            raise ConfigError(
                f"hint {number} must lie in the picture of {width}x{height} pixels, got x={hint.x:g}, y={hint.y:g}"
            )
        if not all(0 <= value <= 255 for value in hint.rgb):
            raise ConfigError(f"hint {number} must have a colour from 0 to 255, got {hint.rgb}")
        if hint.radius < 0:
            raise ConfigError(f"hint {number} must have a radius of 0 or more pixels, got {hint.radius:g}")


def draw(hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map of hints for a view of `shape` = (h, w), float32 (h, w, 3): the known ab and a mask of 0 and 1.

    `height` and `width`: of the picture whose pixels the hints count in. A hint covers at least one pixel of the view;
    where several meet, their mean is drawn.
    """
    sums = np.zeros((*shape, 3), np.float32)
    for square, ab in zip(_squares(hints, height, width, shape), _ab(hints), strict=True):
        sums[square] += (*ab, 1)
    covered = sums[..., 2:] > 0
    return np.where(covered, sums / np.maximum(sums[..., 2:], 1), 0).astype(np.float32)


def hold(
    colors: NDArray[np.float32], guide: NDArray[np.float32], hints: Sequence[Hint], height: int, width: int
) -> NDArray[np.float32]:
    """Return a network's colours (h, w, 2 or 3), moved so that each hint is kept at its place.

    What is missing there is added around it too, falling off over a few pixels and across changes of the lightness
    `guide` (h, w), so that no dot is seen.
    """
    result = colors.copy()
    shape = colors.shape[:2]
    targets = _ab(hints)
    squares = _squares(hints, height, width, shape)
    taken = np.zeros(shape, bool)
    for square in squares:
        taken[square] = True
    spots = [_spot(square, guide, taken) for square in squares]
    for _ in range(_ROUNDS):
        moved = np.zeros((*shape, 2), np.float32)
        weights = np.zeros((*shape, 1), np.float32)
        for (square, around, weight), target in zip(spots, targets, strict=True):
            moved[around] += weight * (target - result[square][..., -2:].mean((0, 1)))
            weights[around] += weight
        result[..., -2:] += moved / np.maximum(weights, 1)
    return result


def _spot(
    square: _Place, guide: NDArray[np.float32], taken: NDArray[np.bool_]
) -> tuple[_Place, _Place, NDArray[np.float32]]:
    """A hint's square, the place around it that is corrected with it, and how much each pixel (h, w, 1) of that is.

    `taken` (h, w): the squares of all hints, each of which follows its own alone.
    """
    margin = math.ceil(3 * _REACH)
    rows, columns = (slice(max(0, part.start - margin), part.stop + margin) for part in square)
    near = guide[rows, columns]
    down, right = (
        np.maximum(np.maximum(part.start - axis, axis - (part.stop - 1)), 0)
        for part, axis in zip(
            square, (rows.start + np.arange(near.shape[0]), columns.start + np.arange(near.shape[1])), strict=True
        )
    )
    weight = np.exp(-(down[:, None] ** 2 + right[None] ** 2) / (2 * _REACH**2))
    inside = weight == 1
    weight = weight * np.exp(-((near - guide[square].mean()) ** 2) / (2 * _TONE**2))
    weight[taken[rows, columns]] = 0
    weight[inside] = 1
    return square, (rows, columns), weight[..., None].astype(np.float32)


def _squares(hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]) -> list[_Place]:
    """The rows and columns of a view that each hint covers."""

    def covered(place: float, radius: float, whole: int, size: int) -> slice:
        scale = size / whole
        begin, end = (place + 0.5 - radius) * scale, (place + 0.5 + radius) * scale
        first = min(size - 1, max(0, math.floor(begin)))
        return slice(first, min(size, max(first + 1, math.ceil(end))))

    return [
        (covered(hint.y, hint.radius, height, shape[0]), covered(hint.x, hint.radius, width, shape[1]))
        for hint in hints
    ]


def _ab(hints: Sequence[Hint]) -> NDArray[np.float32]:
    """The hints' ab, (N, 2)."""
    rgb = torch.tensor([hint.rgb for hint in hints], dtype=torch.float32).view(len(hints), 3, 1, 1) / 255
    ab: NDArray[np.float32] = color.split(rgb)[1].flatten(1).numpy()
    return ab
