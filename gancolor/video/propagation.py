"""Colours without flicker: the network looks at key frames, and their colours are carried along the
motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancolor import fields
from gancolor.video.film_settings import FilmSettings
from gancolor.video.flow import FloatMap, MotionEstimator, warp
from gancolor.video.grouping import Group, GroupedFrame, Grouper, Way, ways_to_last
from gancolor.video.planes import Plane
from gancolor.video.tracking import (
    Known,
    KnownFrame,
    Track,
    TracksAhead,
    Truth,
    firm,
    known_of,
    way_from,
)

MOST_TRACKS = 4
"""So many known frames are carried at once from one side."""

_LEAST_TRUST = 1e-3  # keeps a weighted mean defined where neither side is trusted
_NONE: Mapping[int, KnownFrame] = {}
_KNOWN_LOOKS = 4.0  # of so many of the network's looks a known colour counts as the mean


@dataclass(frozen=True, eq=False)
class ColoredFrame:
    """The colours of the frame `index`: `ab` (h, w, 2) in [-1, 1].

    `key`: the network saw this frame. `cut`: a shot begins here. `truths`: the known frames whose
    colours are in `ab`, to be taken once more at full size.
    """

    index: int
    ab: FloatMap
    key: bool
    cut: bool
    truths: tuple[Truth, ...] = ()


@dataclass
class _Key:
    """The last key frame. `evidence` (h, w): of how many of the network's looks each pixel's
    colours are the mean.
    """

    gray: Plane
    ab: FloatMap
    evidence: FloatMap


class Stabilizer:
    """Colours a film frame by frame, in order, so that colours stay where the motion takes them.

    The network sees key frames: every `key_interval`-th frame of a shot, its first and its last,
    and frames that the last key frame shows too little of. A key frame's colours are the mean of
    the network's and of those carried there from the key frame before, which weigh up to `strength`
    (less where they are the mean of few looks, and nothing where the pixel was hidden). Frames
    between get the mean of both key frames' colours carried there, weighed by nearness and trust.
    Cuts are found, and nothing is carried over them; a change of shape is a cut. A frame or two of
    something else, such as a flash, get the network's own colours.

    Known frames (see `feed`) become key frames. Their colours are carried over the shot, forwards
    and, as far as `expect` says how, backwards. They count for more than the network's, as far as
    the motion is trusted; beside them the network is told of them by hints.

    `predict`: gray (h, w) uint8 -> ab (h, w, 2) float32; where something is known, it is given a
    map (h, w, 3) of hints too. `strength`: 0 to 1; 0 is the network alone on every frame.
    `key_interval`: at least 1, the network on every frame. Memory: about `key_interval` frames.
    ConfigError for other settings.
    """

    def __init__(
        self,
        predict: Callable[..., NDArray[np.float32]],
        *,
        strength: float = FilmSettings.strength,
        key_interval: int = FilmSettings.key_interval,
    ) -> None:
        fields.check_values(FilmSettings, {"strength": strength, "key_interval": key_interval})
        self._predict = predict
        self._strength = strength
        self._most_evidence = strength / (1 - strength) if strength < 1 else np.inf
        self._grouper = Grouper(key_interval)
        self._motion = MotionEstimator()
        self._next = 0
        self._key: _Key | None = None
        self._known: dict[int, KnownFrame] = {}  # of frames that wait for their colours
        self._past: list[Track] = []  # from the last key frame, the nearest first
        self._ahead: Sequence[TracksAhead] = ()

    def feed(self, index: int, gray: Plane, known: KnownFrame | None = None) -> list[ColoredFrame]:
        """Take the next frame, (h, w) uint8, with what is `known` of its colours; returns the
        frames that are done by now, in order, which often are none.

        With `strength` 0 nothing is carried, known colours neither.
        """
        if self._strength == 0:
            self._next = index + 1
            return [ColoredFrame(index, self._look(gray), True, False)]
        if known is not None:
            self._known[index] = known
        return self._colored(self._grouper.take(GroupedFrame(index, gray, known is not None)))

    def flush(self) -> list[ColoredFrame]:
        """Return the frames that are left, at the end of the film."""
        return self._colored(self._grouper.flush())

    def expect(self, ahead: Sequence[TracksAhead]) -> None:
        """Take the tracks from the key frames that come to the next known frames, the nearest
        first.
        """
        self._ahead = ahead

    def state(self) -> dict[str, NDArray[Any] | int]:
        """What `restore` needs to go on behind the last frame returned.

        "next" is the index of the frame to feed then, and "known" the times of the known frames
        whose colours are carried; the rest are arrays.
        """
        state: dict[str, NDArray[Any] | int] = {"next": self._next}
        if self._key is not None:
            state |= {"gray": self._key.gray, "ab": self._key.ab, "evidence": self._key.evidence}
        if self._past:
            past = self._past
            state["known"] = np.array([(track.known.pts, track.frames) for track in past], np.int64)
            state["tracks"] = np.stack(  # (tracks, h, w, 5)
                [np.dstack((track.flow, track.back, track.trust)) for track in past]
            )
        return state

    def restore(self, state: Mapping[str, Any], known: Mapping[int, KnownFrame] = _NONE) -> None:
        """Go on from a `state`, also one that `numpy.load` has read, as if never interrupted.

        `known`: the frames of the times `state["known"]`.
        """
        self._next = int(state["next"])
        self._key = _Key(state["gray"], state["ab"], state["evidence"]) if "gray" in state else None
        self._grouper.restart(None if self._key is None else self._key.gray)
        self._known, self._past = {}, []
        for (pts, frames), maps in zip(
            state.get("known", np.empty((0, 2))).tolist(), state.get("tracks", ()), strict=True
        ):
            flow, back = (np.ascontiguousarray(x) for x in (maps[..., :2], maps[..., 2:4]))
            trust = np.ascontiguousarray(maps[..., 4])
            self._past.append(Track(known[pts], flow, back, trust, frames))

    def _look(self, gray: Plane, known: Known | None = None) -> FloatMap:
        hints = None if known is None else known.hints()
        said = self._predict(gray) if hints is None else self._predict(gray, hints)
        ab = np.asarray(said, np.float32)
        return ab if known is None else known.mended(ab, gray)

    def _colored(self, groups: list[Group]) -> list[ColoredFrame]:
        done: list[ColoredFrame] = []
        for group in groups:
            done += [self._begin(group.frames[0])] if group.cut else self._close(group.frames)
        return done

    def _begin(self, frame: GroupedFrame) -> ColoredFrame:
        self._past = []
        known = self._known_key(frame)
        self._key = self._blend(None, frame, known)
        self._next = frame.index + 1
        return _made(frame.index, self._key.ab, known, key=True, cut=True)

    def _close(self, group: list[GroupedFrame]) -> list[ColoredFrame]:
        """Colour the frames since the last key frame; the last of them is the next key frame."""
        start, last, before = self._key, group[-1], self._past
        assert start is not None
        if before and last.behind is not None:
            there, here = last.behind.flow, way_from(start.gray, group).flow
            steps = last.index + 1 - self._next
            self._past = [
                track.advanced(last.gray, there, here, steps, self._motion) for track in before
            ]
        known = self._known_key(last)
        key = self._blend(start, last, known)
        ahead = self._tracks_ahead(last.index)
        shown = [frame for frame in group if frame.behind is not None]
        ways = dict(zip((frame.index for frame in shown[:-1]), ways_to_last(shown), strict=True))
        times = {frame.index: time / len(shown) for time, frame in enumerate(shown, 1)}
        done = []
        for frame in group[:-1]:
            if frame.behind is None:
                own = self._known.pop(frame.index, None)
                odd = known_of([] if own is None else [Track.at(own)], [])
                ab = self._look(frame.gray, odd)
                done.append(_made(frame.index, ab if odd is None else odd.over(ab), odd, key=True))
                continue
            way = ways[frame.index]
            steps = frame.index + 1 - self._next
            between = known_of(
                [track.reached(frame.behind, steps) for track in before],
                [track.reached(way, last.index - frame.index) for track in ahead],
            )
            ab = _mix(start.ab, frame.behind, key.ab, way, times[frame.index])
            ab = ab if between is None else between.over(ab)
            done.append(_made(frame.index, ab, between))
        self._key, self._next = key, last.index + 1
        return [*done, _made(last.index, key.ab, known, key=True)]

    def _known_key(self, frame: GroupedFrame) -> Known | None:
        """What is known of a key frame, by itself and by the known frames before and behind it."""
        own = self._known.pop(frame.index, None)
        if own is not None:
            earlier = [] if own.opaque else self._past[: MOST_TRACKS - 1]
            self._past = [Track.at(own), *earlier]
        return known_of(self._past, self._tracks_ahead(frame.index))

    def _tracks_ahead(self, index: int) -> list[Track]:
        """The tracks from a key frame to known frames behind it, or at it."""
        return [track for ahead in self._ahead if (track := ahead.track(index)) is not None]

    def _blend(self, start: _Key | None, frame: GroupedFrame, known: Known | None) -> _Key:
        """The next key frame: the network's colours mixed with those that are carried there."""
        ab, evidence = self._look(frame.gray, known), np.zeros(frame.gray.shape, np.float32)
        if start is not None and frame.behind is not None:
            flow, _, seen = frame.behind
            evidence = np.minimum(warp(start.evidence, flow), self._most_evidence)  # (h, w)
            evidence *= firm(seen) * _share_of_contrast(start.gray, frame.gray)
            ab = ab + (warp(start.ab, flow) - ab) * (evidence / (evidence + 1))[..., None]
        evidence = evidence + 1
        if known is not None:
            ab = known.over(ab)
            evidence = np.maximum(evidence, known.cover * _KNOWN_LOOKS)
        return _Key(frame.gray, ab, np.asarray(evidence, np.float32))


def _made(
    index: int, ab: FloatMap, known: Known | None, *, key: bool = False, cut: bool = False
) -> ColoredFrame:
    return ColoredFrame(index, ab, key, cut, () if known is None else known.truths)


def _share_of_contrast(first: Plane, second: Plane) -> float:
    """The smaller contrast of two frames over the larger.

    What is carried through a fade was seen in worse light and counts less.
    """
    low, high = sorted((float(first.std()) + 1, float(second.std()) + 1))
    return low / high


def _mix(first: FloatMap, behind: Way, last: FloatMap, ahead: Way, time: float) -> FloatMap:
    """Colours of a frame at `time` (0 to 1) from those of the key frames at 0 and 1."""
    near, far = (1 - time) * (behind.seen + _LEAST_TRUST), time * (ahead.seen + _LEAST_TRUST)
    past, future = warp(first, behind.flow), warp(last, ahead.flow)
    return np.asarray(past + (future - past) * (far / (near + far))[..., None], np.float32)
