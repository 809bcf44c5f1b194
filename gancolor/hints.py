"""Colours that a user knows at points of a picture: checked, drawn for a network, and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.errors import ConfigError

MOST = 10_000  # in one picture
_SHOWN = 512  # pixels of the shorter side of a picture of hints at least


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
    for square, ab in zip(squares(hints, height, width, shape), ab_of(hints), strict=True):
        sums[square] += (*ab, 1)
    covered = sums[..., 2:] > 0
    return np.where(covered, sums / np.maximum(sums[..., 2:], 1), 0).astype(np.float32)


def squares(
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


def ab_of(hints: Sequence[Hint]) -> NDArray[np.float32]:
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
