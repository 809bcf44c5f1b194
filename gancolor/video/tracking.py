"""Known colours carried through a shot: from a frame that has them to any other, straight along one
flow, so that they do not blur on the way.

The flow is joined from key frame to key frame, forwards and backwards. At each of them it is
searched once more between the two frames themselves, which removes what has summed up.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.video.flow import FloatMap, MotionEstimator, agreement, chain, resemblance, warp
from gancolor.video.grouping import Group, GroupedFrame, Grouper, Way, ways_to_last
from gancolor.video.planes import Plane

_OPAQUE = 0.99
_LEAST = 1e-3  # of a weight: keeps means defined where nothing is known

# What a network is off by at known places counts so many pixels around, in so many layers of
# lightness, and less where the sum of its weights is below this.
_NEAR, _LAYERS, _FAINT = 8.0, 8, 0.02

# Hints for the network: at most one in each square of so many pixels of its view, each so wide, and
# only where colours are known at least so surely.
_CELL, _WIDTH, _SURE = 12, 3, 0.5


@dataclass(frozen=True, eq=False)
class KnownFrame:
    """A frame whose colours are known in part or in whole.

    `pts`: its time, in the film's time base. `gray`: what the network sees of it, (h, w). `alpha`:
    (h, w) in [0, 1], how surely each pixel's colour is known. `colors`: ab times alpha, (h, w, 2).
    `half_colors` and `half_alpha` are the same at half the film's size, (ceil(H / 2), ceil(W / 2)).
    """

    pts: int
    gray: Plane
    colors: FloatMap
    alpha: FloatMap
    half_colors: FloatMap
    half_alpha: FloatMap

    @functools.cached_property
    def opaque(self) -> bool:
        """Whether all pixels are known, which hides the known frames behind it."""
        return float(self.alpha.min()) >= _OPAQUE


class Track(NamedTuple):
    """The way from a frame to a known one, and back: `flow` and `back` (h, w, 2), and the `trust` in
    the flow, (h, w). `frames`: how far apart they are.
    """

    known: KnownFrame
    flow: FloatMap
    back: FloatMap
    trust: FloatMap
    frames: int

    @classmethod
    def at(cls, known: KnownFrame) -> Self:
        """The track of the known frame itself."""
        still = np.zeros((*known.gray.shape, 2), np.float32)
        return cls(known, still, still, np.ones(known.gray.shape, np.float32), 0)

    def reached(self, way: Way, frames: int) -> Track:
        """The track of a frame from which `way` leads to this track's frame."""
        flow, trust = chain(way.flow, self.flow), way.seen * warp(self.trust, way.flow)
        return Track(self.known, flow, self.back, trust, self.frames + frames)

    def advanced(
        self, gray: Plane, there: FloatMap, here: FloatMap, frames: int, motion: MotionEstimator
    ) -> Track:
        """The track of the next key frame, searched once more.

        `gray`: that frame. `there`: the flow from it to this track's frame, `here`: the flow back.
        """
        known = self.known.gray
        flow, back = chain(there, self.flow), chain(self.back, here)
        again, back_again = motion.refined(gray, known, flow), motion.refined(known, gray, back)
        trust = agreement(flow, back) * resemblance(known, gray, flow)
        new = agreement(again, back_again) * resemblance(known, gray, again)
        flow = np.where((new >= trust)[..., None], again, flow)
        return Track(self.known, flow, back_again, np.maximum(trust, new), self.frames + frames)


class Truth(NamedTuple):
    """What one known frame says of a frame: take its colour along `flow` (h, w, 2), with the weight
    `share` (h, w) in [0, 1], times how surely it is known there.
    """

    known: KnownFrame
    flow: FloatMap
    share: FloatMap


class Known(NamedTuple):
    """What is known of a frame: the `colors`, ab times cover, (h, w, 2), and how much they `cover`,
    (h, w) in [0, 1], put together from `truths`.
    """

    colors: FloatMap
    cover: FloatMap
    truths: tuple[Truth, ...]

    def mended(self, ab: FloatMap, gray: Plane) -> FloatMap:
        """Colours (h, w, 2) that a network said of a frame, `gray` (h, w), moved by what they are
        off at known places nearby of about the same lightness (a joint bilateral filter, by layers
        of lightness as in Durand and Dorsey 2002).

        So a sky of which a part is lost stays one sky. Where all known frames are transparent in
        part nothing is moved: beside what was painted, the network's colours are wanted.
        """
        if not any(truth.known.opaque for truth in self.truths):
            return ab
        off = self.colors - self.cover[..., None] * ab
        light = gray.astype(np.float32) / 255 * (_LAYERS - 1)
        moved = np.zeros_like(ab)
        for layer in range(_LAYERS):
            like = np.exp(-np.square(light - layer))
            parts = np.dstack((off * like[..., None], self.cover * like))
            near = cv2.GaussianBlur(parts, (0, 0), _NEAR)
            share = np.maximum(1 - np.abs(light - layer), 0)[..., None]
            moved += share * near[..., :2] / (near[..., 2:] + _FAINT)
        return np.asarray(ab + moved, np.float32)

    def over(self, ab: FloatMap) -> FloatMap:
        """Other colours (h, w, 2) with the known ones over them."""
        return ab + self.colors - self.cover[..., None] * ab

    def hints(self) -> FloatMap | None:
        """A map (h, w, 3) of hints for the network, as `hints.draw` makes it; None without any.

        They are at the surest places, spread over the frame.
        """
        height, width = self.cover.shape
        found = np.zeros((height, width, 3), np.float32)
        for top in range(0, height, _CELL):
            for left in range(0, width, _CELL):
                cell = self.cover[top : top + _CELL, left : left + _CELL]
                row, column = np.unravel_index(int(cell.argmax()), cell.shape)
                y, x = top + int(row), left + int(column)
                if self.cover[y, x] >= _SURE:
                    square = (
                        slice(max(0, y - _WIDTH // 2), y + _WIDTH // 2 + 1),
                        slice(max(0, x - _WIDTH // 2), x + _WIDTH // 2 + 1),
                    )
                    found[square] = (*(self.colors[y, x] / self.cover[y, x]), 1)
        return found if found.any() else None


def known_of(past: Sequence[Track], ahead: Sequence[Track]) -> Known | None:
    """What is known of a frame by its tracks to known frames before and behind it; None without any.

    On each side the nearest comes first, and the others count where it is transparent or not seen.
    From one side to the other colours change evenly with time, as far as both are seen.
    """
    sides = [_Side.of(tracks) for tracks in (past, ahead) if tracks]
    if not sides:
        return None
    weights = [side.cover / (side.frames + _LEAST) for side in sides]
    whole, most = np.sum(weights, axis=0), np.maximum.reduce([side.cover for side in sides])
    truths, colors, cover = [], np.zeros_like(sides[0].colors), np.zeros_like(most)
    for side in sides:
        share = np.minimum(most / np.maximum((side.frames + _LEAST) * whole, 1e-9), 1)
        truths += [Truth(known, flow, own * share) for known, flow, own in side.truths]
        colors += side.colors * share[..., None]
        cover += side.cover * share
    return Known(colors, cover, tuple(truths))


class _Side(NamedTuple):
    """What is known from one side of a frame, as `Known`; its nearest known frame is so many
    `frames` away.
    """

    colors: FloatMap
    cover: FloatMap
    truths: list[Truth]
    frames: int

    @classmethod
    def of(cls, tracks: Sequence[Track]) -> _Side:
        """Put tracks together, the nearest first."""
        rest = np.ones_like(tracks[0].trust)
        truths, colors = [], np.zeros_like(tracks[0].flow)
        for known, flow, _, trust, _ in tracks:
            share = np.asarray(firm(trust) * rest, np.float32)
            truths.append(Truth(known, flow, share))
            colors += share[..., None] * warp(known.colors, flow)
            rest = rest - share * warp(known.alpha, flow)
        return cls(colors, 1 - rest, truths, tracks[0].frames)


def firm(trust: FloatMap) -> FloatMap:
    """Trust made firm: 0 below 0.2 and 1 above 0.8.

    Without this, much evidence at little trust would still outweigh one look.
    """
    share = ((trust - 0.2) / 0.6).clip(0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


class TracksAhead:
    """The tracks from the key frames that come to a known frame behind them: a context manager.

    `frames` are those behind a key frame, `start`, or from the first of a shot (None), up to the
    known frame, and those that are known end a group. What is found is kept in a file without a name, in `folder`:
    memory stays bounded however far away the known frame is. OSError if there is no room.
    """

    def __init__(
        self,
        known: KnownFrame,
        frames: Iterable[GroupedFrame],
        start: tuple[int, Plane] | None,
        interval: int,
        folder: Path,
    ) -> None:
        self._known, self._folder = known, folder
        self._stack = contextlib.ExitStack()
        self._at: dict[int, int] = {}  # the place of each key frame's track in the file
        self._maps: NDArray[np.float32] | None = None
        self._find(frames, start, interval)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps = None
        self._stack.close()

    def track(self, index: int) -> Track | None:
        """The track of the key frame `index`; None where no way leads to the known frame."""
        if self._maps is None or index not in self._at:
            return None
        place = self._at[index]
        if place == len(self._at) - 1:
            return Track.at(self._known)
        maps = np.array(self._maps[place])  # (5, h, w): flow, back, trust
        flow, back = (np.ascontiguousarray(x.transpose(1, 2, 0)) for x in (maps[:2], maps[2:4]))
        last = max(self._at)
        return Track(self._known, flow, back, maps[4], last - index)

    def _find(
        self,
        frames: Iterable[GroupedFrame],
        start: tuple[int, Plane] | None,
        interval: int,
    ) -> None:
        """Walk to the known frame, and back from it."""
        file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
        shape = self._known.gray.shape
        indices: list[int] = [] if start is None else [start[0]]
        grays: list[Plane] = [] if start is None else [start[1]]
        grouper, count, goal = Grouper(interval), 0, -1
        grouper.restart(None if start is None else start[1])
        for frame in frames:
            goal = frame.index
            for group in grouper.take(frame):
                if not group.cut:
                    file.write(_ways_across(group, grays[-1]).tobytes())
                    count += 1
                elif indices:
                    return  # the shot ends before the known frame
                indices.append(group.frames[-1].index)
                grays.append(group.frames[-1].gray)
        if not indices or indices[-1] != goal:
            return  # the known frame is an odd one, to which no way leads
        file.flush()
        self._at = {index: place for place, index in enumerate(indices)}
        if not count:
            self._maps = np.empty((0, 5, *shape), np.float32)
            return
        self._maps = np.memmap(file, np.float32, "r+", shape=(count, 5, *shape))
        motion, track = MotionEstimator(), Track.at(self._known)
        for place in range(count - 1, -1, -1):
            there, here = (
                np.ascontiguousarray(self._maps[place, first : first + 2].transpose(1, 2, 0))
                for first in (0, 2)
            )
            steps = indices[place + 1] - indices[place]
            track = track.advanced(grays[place], there, here, steps, motion)
            self._maps[place, :2] = track.flow.transpose(2, 0, 1)
            self._maps[place, 2:4] = track.back.transpose(2, 0, 1)
            self._maps[place, 4] = track.trust


def way_from(key: Plane, frames: Sequence[GroupedFrame]) -> Way:
    """The way from the key frame before a group to the last frame of it."""
    shown = [frame for frame in frames if frame.behind is not None]
    first = GroupedFrame(-1, key)
    return ways_to_last([first, *shown])[0]


def _ways_across(group: Group, key: Plane) -> NDArray[np.float32]:
    """The flows from the key frame to the group's last frame and back, and room for a trust, (5, h,
    w).
    """
    last = group.frames[-1]
    assert last.behind is not None  # only the frames of a group before the last may be odd ones
    there, here = way_from(key, group.frames).flow, last.behind.flow
    room = np.zeros(key.shape, np.float32)
    return np.stack((there[..., 0], there[..., 1], here[..., 0], here[..., 1], room))
