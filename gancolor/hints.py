"""Colours that a user knows at points of a picture: checked, drawn for a network, and held in what
it answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.errors import ConfigError

MOST = 10_000  # in one picture
REACH = 6.0  # pixels of the network's view: how far a hint's correction goes beyond its square
_SHOWN = 512  # pixels of the shorter side of a picture of hints at least
_TONE = 0.15  # of lightness in [-1, 1]: how different a pixel may be to share a correction


@dataclass(frozen=True)
class Hint:
    """A known colour: at column `x` and row `y` of the upright picture, in pixels from 0, `rgb` in
    0 to 255.

    It counts for the square of `radius` pixels around that place. Only its hue and saturation
    count: lightness is the picture's own.
    """

    x: float
    y: float
    rgb: tuple[float, float, float]
    radius: float = 0.0


def check(
    hints: Sequence[Hint],
    height: int,
    width: int,
    *,
    name: Callable[[int], str] = "hint {}".format,
) -> None:
    """Raise ConfigError unless all `hints` lie in a picture of that size and have a colour; `name`
    says how the first that is wrong, counted from 1, is called.
    """
    if len(hints) > MOST:
        raise ConfigError(
            f"hints must be at most {MOST}, got {len(hints)}; leave out those that say the same"
        )
    for number, hint in enumerate(hints, start=1):
        numbers = (hint.x, hint.y, hint.radius, *hint.rgb)
        if len(hint.rgb) != 3 or not all(map(_is_finite, numbers)):
            raise ConfigError(
                f"{name(number)} must be of finite numbers x, y, (red, green, blue), radius, got"
                f" {hint}"
            )
        if not (-0.5 <= hint.x <= width - 0.5 and -0.5 <= hint.y <= height - 0.5):
            raise ConfigError(
                f"{name(number)} must lie in the picture of {width}x{height} pixels, got"
                f" x={hint.x:g}, y={hint.y:g}"
            )
        if not all(0 <= value <= 255 for value in hint.rgb):
            raise ConfigError(f"{name(number)} must have a colour from 0 to 255, got {hint.rgb}")
        if hint.radius < 0:
            raise ConfigError(
                f"{name(number)} must have a radius of 0 or more pixels, got {hint.radius:g}"
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)  # NumPy's numbers too


def draw(
    hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a map of hints for a view of `shape` = (h, w), float32 (h, w, 3): the known ab and a
    mask of 0 and 1.

    `height` and `width`: of the picture whose pixels the hints count in. A hint covers at least one
    pixel of the view; where several meet, their mean is drawn.
    """
    sums = np.zeros((*shape, 3), np.float32)
    for square, ab in zip(_squares(hints, height, width, shape), _ab(hints), strict=True):
        sums[square] += (*ab, 1)
    covered = sums[..., 2:] > 0
    return np.where(covered, sums / np.maximum(sums[..., 2:], 1), 0).astype(np.float32)


class Holder:
    """Keeps hints at their places in a picture's colours at full size, which are made in strips of
    rows.

    What is missing at a hint is added around it too, falling off over `reach` pixels and across
    changes of lightness, so that no dot is seen; but not in the squares of other hints, which
    follow their own alone. In a square what differs from the hint fades towards its place. `strips`
    are the first row, lightness (n, W) and ab (n, W, 2) of all parts of the picture.
    """

    def __init__(
        self,
        hints: Sequence[Hint],
        shape: tuple[int, int],
        reach: float,
        strips: Iterable[tuple[int, NDArray[np.float32], NDArray[np.float32]]],
    ) -> None:
        self._reach = max(1.0, reach)
        squares = _squares(hints, *shape, shape)
        sums = np.zeros((len(hints), 4))  # of lightness and ab over each square, and their number
        for start, lightness, ab in strips:
            for own, (rows, columns) in zip(sums, squares, strict=True):
                inside = slice(max(0, rows.start - start), max(0, rows.stop - start))
                if (tone := lightness[inside, columns]).size:
                    own += (tone.sum(), *ab[inside, columns].sum((0, 1)), tone.size)
        means = (sums[:, :3] / sums[:, 3:]).astype(np.float32)
        self._spots = [
            _Spot(hint, *square, float(mean[0]), target, target - mean[1:])
            for hint, square, target, mean in zip(hints, squares, _ab(hints), means, strict=True)
        ]

    def hold(self, start: int, lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> None:
        """Move the colours `ab` (n, W, 2) of the rows from `start` on, in place."""
        moved = np.zeros_like(ab)
        weights = np.zeros((*ab.shape[:2], 1), np.float32)
        taken = np.zeros(ab.shape[:2], bool)
        for spot in self._spots:
            taken[self._rows(spot, start, 0), spot.columns] = True
        margin = math.ceil(3 * self._reach)
        for spot in self._spots:
            rows = self._rows(spot, start, margin)
            columns = slice(max(0, spot.columns.start - margin), spot.columns.stop + margin)
            if (near := lightness[rows, columns]).size:
                weight = self._weights(
                    spot, start + rows.start, columns.start, near, taken[rows, columns]
                )[..., None]
                moved[rows, columns] += weight * spot.change
                weights[rows, columns] += weight
            square = (self._rows(spot, start, 0), spot.columns)
            if (own := ab[square]).size:
                fading = self._fading(spot, start + square[0].start, own.shape[:2])[..., None]
                moved[square] += fading * (spot.target - own - spot.change)
        ab += moved / np.maximum(weights, 1)

    @staticmethod
    def _rows(spot: _Spot, start: int, margin: int) -> slice:
        """The rows of a hint's square and `margin` more, counted from row `start`."""
        return slice(
            max(0, spot.rows.start - margin - start), max(0, spot.rows.stop + margin - start)
        )

    def _weights(
        self,
        spot: _Spot,
        top: int,
        left: int,
        lightness: NDArray[np.float32],
        taken: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """How much the pixels of a part (h, w) share a hint's change, in [0, 1]: 1 in its square, 0
        in others'.
        """
        y, x = (
            top + np.arange(lightness.shape[0])[:, None],
            left + np.arange(lightness.shape[1])[None],
        )
        down = np.maximum(np.maximum(spot.rows.start - y, y - (spot.rows.stop - 1)), 0)
        right = np.maximum(np.maximum(spot.columns.start - x, x - (spot.columns.stop - 1)), 0)
        near = np.exp(-(down**2 + right**2) / (2 * self._reach**2))
        alike = np.exp(-((lightness - spot.tone) ** 2) / (2 * _TONE**2))
        own = (down == 0) & (right == 0)
        return np.where(own, 1, np.where(taken, 0, near * alike)).astype(np.float32)

    @staticmethod
    def _fading(spot: _Spot, top: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        """How much what differs in a square is taken out, (h, w) of its rows from `top` on: from 1
        at the hint to 0.
        """
        down = np.abs(top + np.arange(shape[0])[:, None] - spot.hint.y)
        right = np.abs(spot.columns.start + np.arange(shape[1])[None] - spot.hint.x)
        share = np.minimum(1, np.maximum(down, right) / (spot.hint.radius + 0.5))
        fading: NDArray[np.float32] = (np.cos(share * np.pi / 2) ** 2).astype(np.float32)
        return fading


class _Spot(NamedTuple):
    """A hint in a picture: the rows and columns of its square, their mean lightness, the ab wanted
    there, and by how much it is to change on the whole.
    """

    hint: Hint
    rows: slice
    columns: slice
    tone: float
    target: NDArray[np.float32]
    change: NDArray[np.float32]


def _squares(
    hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """The rows and columns of a view that each hint covers."""

    def covered(place: float, radius: float, whole: int, size: int) -> slice:
        scale = size / whole
        begin, end = (place + 0.5 - radius) * scale, (place + 0.5 + radius) * scale
        first = min(size - 1, max(0, math.floor(begin)))
        return slice(first, min(size, max(first + 1, math.ceil(end))))

    return [
        (
            covered(hint.y, hint.radius, height, shape[0]),
            covered(hint.x, hint.radius, width, shape[1]),
        )
        for hint in hints
    ]


def _ab(hints: Sequence[Hint]) -> NDArray[np.float32]:
    """The hints' ab, (N, 2)."""
    rgb = (
        torch.tensor([hint.rgb for hint in hints], dtype=torch.float32).view(len(hints), 3, 1, 1)
        / 255
    )
    ab: NDArray[np.float32] = color.split(rgb)[1].flatten(1).numpy()
    return ab


def show(rgb: NDArray[np.uint8], drawn: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """What a network was told, as a picture uint8 (k h, k w, 3): the gray view with the squares of
    its hint map (`draw`) in their colours, framed.

    `rgb`: uint8 (h, w, 3), the view. The whole number k makes its shorter side at least 512 pixels.
    """
    lightness, _ = color.split(color.to_tensor(rgb))
    result = color.to_arrays(color.gray(lightness).expand(-1, 3, -1, -1))[0]
    scale = math.ceil(_SHOWN / min(rgb.shape[:2]))
    large: NDArray[np.uint8] = result.repeat(scale, 0).repeat(scale, 1)
    if drawn is None or not drawn[..., 2].any():
        return large
    ab = torch.from_numpy(drawn[..., :2]).permute(2, 0, 1)[None]
    bright = lightness.clamp(-0.3, 0.4)  # where sRGB has colours to show
    colors = color.to_arrays(color.merge_in_gamut(bright, ab))[0]
    covered = drawn[..., 2] > 0
    result[covered] = colors[covered]
    large = result.repeat(scale, 0).repeat(scale, 1)
    inside = covered.repeat(scale, 0).repeat(scale, 1).astype(np.uint8)
    window = np.ones((3, 3), np.uint8)
    for value in (0, 255):  # a frame of both is seen on anything
        outside = cv2.dilate(inside, window)
        large[(outside > 0) & (inside == 0)] = value
        inside = np.asarray(outside, np.uint8)
    return large
