"""How far a hint reaches: it is kept at its place, spreads to what is alike around it, and ends at
strong edges.

Edges are found in the lightness that the network sees. A network's answer to hints counts only
where a way leads from a hint that crosses none: beyond, its answer without them stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.color import AB_SCALE, LIGHTNESS_SCALE
from gancolor.hints import Hint, ab_of, squares

REACH = 6.0
"""Pixels of the network's view: how far a hint's correction goes beyond its square."""

_TONE = 0.15  # of lightness in [-1, 1]: how different a pixel may be to share a correction

# Of L*: by how much lightness must change more within three pixels than it does around to hinder a
# hint, and by how much more to hold back most of it; and pixels around that count.
_FREE, _STRONG, _AROUND = 3.0, 5.5, 15
_USUAL = 1.25  # times the mean change around that counts as none
_SAME = 0.35  # of an edge's height: how little two neighbours differ that lie on the same side
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)

_NEAR = 0.5  # of a hint's weight: what has more of it is to have its colour
_CONTRARY = 30.0  # CIE units of ab: hints that differ by more say different things

_Map = NDArray[np.float32]


def permeability(guide: _Map) -> _Map:
    """How well colours pass each pixel of a view with the lightness `guide` (h, w) in [-1, 1]: from
    1, where nothing stands out, to 0 at a strong edge.
    """
    light = guide * np.float32(LIGHTNESS_SCALE)
    window = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(light, window) - cv2.erode(light, window)
    usual = cv2.blur(steps, (_AROUND, _AROUND), borderType=cv2.BORDER_REFLECT)
    standing_out = steps - _USUAL * usual  # in foliage edges are usual
    passing: _Map = np.exp(-(((standing_out - _FREE).clip(0) / _STRONG) ** 2)).astype(np.float32)
    return passing


def reached(passing: _Map, guide: _Map, begin: NDArray[np.bool_]) -> _Map:
    """How much of what is known at the pixels `begin` reaches each pixel, (h, w) in [0, 1]: what the
    worst pixel of the best way lets pass.

    A pixel at an edge has what its neighbour of the same lightness has.
    """
    result = begin.astype(np.float32)
    bound = np.maximum(passing, result)
    while True:
        further = np.minimum(bound, cv2.dilate(result, _CROSS))
        if np.array_equal(further, result):
            break
        result = np.asarray(further, np.float32)
    light = guide * np.float32(LIGHTNESS_SCALE)
    window = np.ones((3, 3), np.uint8)
    same = _SAME * (cv2.dilate(light, window) - cv2.erode(light, window)) + 1
    for _ in range(2):  # an edge is as wide on each of its sides
        best = result.copy()
        for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            apart = light[first] - light[second]
            alike = np.exp(-((apart / np.maximum(same[first], same[second])) ** 2))
            np.maximum(best[first], result[second] * alike, out=best[first])
            np.maximum(best[second], result[first] * alike, out=best[second])
        result = best
    return result


def confine(told: _Map, plain: _Map, guide: _Map, drawn: _Map) -> _Map:
    """A network's colours (h, w, C): those that it `told` of a view with the hint map `drawn` (h, w,
    3) as far as the hints reach, and the `plain` ones, without hints, beyond.
    """
    share = reached(permeability(guide), guide, drawn[..., 2] > 0)
    return plain + share[..., None] * (told - plain)


def in_view(hints: Sequence[Hint], height: int, width: int, shape: tuple[int, int]) -> list[Hint]:
    """Hints in pixels of a view of `shape` = (h, w) of a picture of height x width."""
    down, across = shape[0] / height, shape[1] / width
    return [
        Hint(
            (hint.x + 0.5) * across - 0.5,
            (hint.y + 0.5) * down - 0.5,
            hint.rgb,
            max(0.0, (hint.radius + 0.5) * min(down, across) - 0.5),
        )
        for hint in hints
    ]


def correct(hints: Sequence[Hint], height: int, width: int, guide: _Map, colors: _Map) -> _Map:
    """What must be added to the ab `colors` (h, w, 2) of a view for hints in a picture of height x
    width, around them too, not beyond strong edges.
    """
    held = colors.copy()
    holder = Holder(
        in_view(hints, height, width, guide.shape[:2]),
        (guide.shape[0], guide.shape[1]),
        REACH,
        [(0, guide, colors)],
        permeability(guide),
    )
    holder.hold(0, guide, held)
    return held - colors


def contradictions(
    hints: Sequence[Hint], height: int, width: int, guide: _Map
) -> list[tuple[int, int]]:
    """The pairs of hints, by their places in the list, that say quite different things of what is
    alike, close together and not parted by a strong edge.
    """
    seen = in_view(hints, height, width, guide.shape[:2])
    x, y, radius = (np.array([getattr(each, key) for each in seen]) for key in ("x", "y", "radius"))
    ab, passing = ab_of(hints) * np.float32(AB_SCALE), permeability(guide)
    rows, columns = (
        np.clip(np.rint(place).astype(int), 0, size - 1)
        for place, size in ((y, guide.shape[0]), (x, guide.shape[1]))
    )
    tone, margin = guide[rows, columns], math.ceil(2 * REACH)
    pairs = []
    for at in range(len(seen)):
        apart = radius[at] + radius[at + 1 :] + 1
        gap = np.hypot(
            (np.abs(x[at + 1 :] - x[at]) - apart).clip(0),
            (np.abs(y[at + 1 :] - y[at]) - apart).clip(0),
        )
        weight = np.exp(
            -(gap**2) / (2 * REACH**2) - (tone[at + 1 :] - tone[at]) ** 2 / (2 * _TONE**2)
        )
        contrary = np.linalg.norm(ab[at + 1 :] - ab[at], axis=1) > _CONTRARY
        others = np.flatnonzero(contrary & (weight > _NEAR)) + at + 1
        if not len(others):
            continue
        far = margin + math.ceil(radius[at] + radius[others].max())
        top, left = max(0, rows[at] - far), max(0, columns[at] - far)
        part = np.s_[top : rows[at] + far + 1, left : columns[at] + far + 1]
        begin = np.zeros(guide[part].shape, bool)
        begin[rows[at] - top, columns[at] - left] = True
        share = reached(passing[part], guide[part], begin)
        pairs += [
            (at, int(other))
            for other in others
            if weight[other - at - 1] * share[rows[other] - top, columns[other] - left] > _NEAR
        ]
    return pairs


class Holder:
    """Keeps hints at their places in a picture's colours, which are made in strips of rows.

    What is missing at a hint is added around it too, falling off over `reach` pixels and across
    changes of lightness, so that no dot is seen; but not in the squares of other hints, which
    follow their own alone. In a square what differs from the hint fades towards its place. `strips`
    are the first row, lightness (n, W) and ab (n, W, 2) of all parts of the picture. `passing`: its
    `permeability`, where the picture is one strip, or None to heed no edges.
    """

    def __init__(
        self,
        hints: Sequence[Hint],
        shape: tuple[int, int],
        reach: float,
        strips: Iterable[tuple[int, _Map, _Map]],
        passing: _Map | None = None,
    ) -> None:
        self._reach, self._passing = max(1.0, reach), passing
        covered = squares(hints, *shape, shape)
        sums = np.zeros((len(hints), 4))  # of lightness and ab over each square, and their number
        for start, lightness, ab in strips:
            for own, (rows, columns) in zip(sums, covered, strict=True):
                inside = slice(max(0, rows.start - start), max(0, rows.stop - start))
                if (tone := lightness[inside, columns]).size:
                    own += (tone.sum(), *ab[inside, columns].sum((0, 1)), tone.size)
        means = (sums[:, :3] / sums[:, 3:]).astype(np.float32)
        self._spots = [
            _Spot(hint, *square, float(mean[0]), target, target - mean[1:])
            for hint, square, target, mean in zip(hints, covered, ab_of(hints), means, strict=True)
        ]

    def hold(self, start: int, lightness: _Map, ab: _Map) -> None:
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
        lightness: _Map,
        taken: NDArray[np.bool_],
    ) -> _Map:
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
        if self._passing is not None:
            height, width = lightness.shape
            passing = self._passing[top : top + height, left : left + width]
            near = near * reached(passing, lightness, own)
        return np.where(own, 1, np.where(taken, 0, near * alike)).astype(np.float32)

    @staticmethod
    def _fading(spot: _Spot, top: int, shape: tuple[int, int]) -> _Map:
        """How much what differs in a square is taken out, (h, w) of its rows from `top` on: from 1
        at the hint to 0.
        """
        down = np.abs(top + np.arange(shape[0])[:, None] - spot.hint.y)
        right = np.abs(spot.columns.start + np.arange(shape[1])[None] - spot.hint.x)
        share = np.minimum(1, np.maximum(down, right) / (spot.hint.radius + 0.5))
        fading: _Map = (np.cos(share * np.pi / 2) ** 2).astype(np.float32)
        return fading


class _Spot(NamedTuple):
    """A hint in a picture: the rows and columns of its square, their mean lightness, the ab wanted
    there, and by how much it is to change on the whole.
    """

    hint: Hint
    rows: slice
    columns: slice
    tone: float
    target: _Map
    change: _Map
