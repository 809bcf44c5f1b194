"""Colours that a user knows at points of a picture: checked, drawn for a network, and held in what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.errors import ConfigError

MOST = 10_000  # in one picture
REACH = 2.0  # pixels of the network's view: how far a hint's correction goes beyond its square
_TONE = 0.15  # of lightness in [-1, 1]: how different a pixel may be to share a correction
_ROUNDS = 8  # in which neighbouring hints settle
_MOST_SETTLED = 1000  # hints of which each is compared with each
_ROWS = 9  # of a hint's square that are looked at


@dataclass(frozen=True)
class Hint:
    """A known colour: at column `x` and row `y` of the upright picture, in pixels from 0, `rgb` in 0 to 255.

    It counts for the square of `radius` pixels around that place. Only its hue and saturation count: lightness is the
    picture's own.
    """

    x: float
    y: float
    rgb: tuple[float, float, float]
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


class Holder:
    """Keeps hints at their places in a picture's colours at full size, which are made in strips of rows.

    What is missing at a hint is added around it too, falling off over `reach` pixels and across changes of lightness,
    so that no dot is seen. `colors_of` gives the lightness (n, W) and ab (n, W, 2) of some rows.
    """

    def __init__(
        self,
        hints: Sequence[Hint],
        shape: tuple[int, int],
        reach: float,
        colors_of: Callable[[slice], tuple[NDArray[np.float32], NDArray[np.float32]]],
    ) -> None:
        self._reach = max(1.0, reach)
        self._spots: list[_Spot] = []
        squares = _squares(hints, *shape, shape)
        for (rows, columns), target in zip(squares, _ab(hints), strict=True):
            step = max(1, (rows.stop - rows.start) // _ROWS)
            tones, found = zip(*(colors_of(slice(y, y + 1)) for y in range(rows.start, rows.stop, step)), strict=True)
            tone = np.concatenate([line[:, columns] for line in tones])
            ab = np.concatenate([line[:, columns] for line in found])
            self._spots.append(_Spot(rows, columns, float(tone.mean()), target - ab.mean((0, 1))))
        self._settle()

    def hold(self, start: int, lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> None:
        """Move the colours `ab` (n, W, 2) of the rows from `start` on, in place."""
        moved = np.zeros_like(ab)
        weights = np.zeros((*ab.shape[:2], 1), np.float32)
        margin = math.ceil(3 * self._reach)
        for spot in self._spots:
            rows = slice(max(0, spot.rows.start - margin - start), max(0, spot.rows.stop + margin - start))
            columns = slice(max(0, spot.columns.start - margin), spot.columns.stop + margin)
            near = lightness[rows, columns]
            if near.size == 0:
                continue
            down = np.arange(start + rows.start, start + rows.start + near.shape[0])
            right = np.arange(columns.start, columns.start + near.shape[1])
            weight = self._weight(spot, down[:, None], right[None], near)[..., None]
            moved[rows, columns] += weight * spot.change
            weights[rows, columns] += weight
        ab += moved / np.maximum(weights, 1)

    def _weight(self, spot: _Spot, y: NDArray[Any], x: NDArray[Any], lightness: NDArray[Any]) -> NDArray[np.float32]:
        """How much a pixel shares a hint's change, in [0, 1]; 1 in its square."""
        down = np.maximum(np.maximum(spot.rows.start - y, y - (spot.rows.stop - 1)), 0)
        right = np.maximum(np.maximum(spot.columns.start - x, x - (spot.columns.stop - 1)), 0)
        near = np.exp(-(down**2 + right**2) / (2 * self._reach**2))
        alike = np.exp(-((lightness - spot.tone) ** 2) / (2 * _TONE**2))
        return np.where(near == 1, 1, near * alike).astype(np.float32)

    def _settle(self) -> None:
        """Let neighbouring hints take each other's changes into account."""
        if not 1 < len(self._spots) <= _MOST_SETTLED:
            return
        y = np.array([(spot.rows.start + spot.rows.stop - 1) / 2 for spot in self._spots])
        x = np.array([(spot.columns.start + spot.columns.stop - 1) / 2 for spot in self._spots])
        tone = np.array([spot.tone for spot in self._spots])
        weights = np.stack([self._weight(spot, y, x, tone) for spot in self._spots], axis=1)  # [at, of]
        weights /= np.maximum(weights.sum(1, keepdims=True), 1)
        wanted = np.stack([spot.change for spot in self._spots])
        change = wanted.copy()
        for _ in range(_ROUNDS):
            change += wanted - weights @ change
        self._spots = [spot._replace(change=value) for spot, value in zip(self._spots, change, strict=True)]


class _Spot(NamedTuple):
    """A hint in a picture: the rows and columns of its square, their lightness, and by how much ab is to change."""

    rows: slice
    columns: slice
    tone: float
    change: NDArray[np.float32]


def _squares(hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]) -> list[tuple[slice, slice]]:
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
