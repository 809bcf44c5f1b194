"""Colours without flicker: the network looks at key frames, and their colours are carried along the
motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancolor import fields
from gancolor.video.film_settings import FilmSettings
from gancolor.video.flow import (
    CUT,
    FloatMap,
    Motion,
    MotionEstimator,
    chain,
    likeness,
    resemblance,
    warp,
)
from gancolor.video.planes import Plane

# So many odd frames (a flash, a splice, dirt) are stepped over rather than taken for a cut.
_PATIENCE = 2
_SEEN = 0.3  # trust from which a key frame counts as showing a pixel
# Share of a frame that the last key frame must show; else the frame becomes a key frame.
_LEAST_SHARE = 0.5
_LEAST_TRUST = 1e-3  # keeps a weighted mean defined where neither side is trusted


@dataclass(frozen=True, eq=False)
class ColoredFrame:
    """The colours of the frame `index`: `ab` (h, w, 2) in [-1, 1].

    `key`: the network saw this frame. `cut`: a shot begins here.
    """

    index: int
    ab: FloatMap
    key: bool
    cut: bool


class _Path(NamedTuple):
    """The way from a frame to a key frame: the flow, the trust in it, and `seen`, which is that
    trust less what looks different there.
    """

    flow: FloatMap
    trust: FloatMap
    seen: FloatMap


@dataclass
class _Frame:
    """A frame that waits for its colours.

    `motion`: from the frame before it. `behind`: the way to the last key frame. Both are None where
    it shows another scene.
    """

    index: int
    gray: Plane
    motion: Motion | None = None
    behind: _Path | None = None


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

    `predict`: gray (h, w) uint8 -> ab (h, w, 2) float32. `strength`: 0 to 1; 0 is the network alone
    on every frame. `key_interval`: at least 1, the network on every frame. Memory: about
    `key_interval` frames. ConfigError for other settings.
    """

    def __init__(
        self,
        predict: Callable[[Plane], NDArray[np.float32]],
        *,
        strength: float = FilmSettings.strength,
        key_interval: int = FilmSettings.key_interval,
    ) -> None:
        fields.check_values(FilmSettings, {"strength": strength, "key_interval": key_interval})
        self._predict = predict
        self._interval = key_interval
        self._strength = strength
        self._most_evidence = strength / (1 - strength) if strength < 1 else np.inf
        self._motion = MotionEstimator()
        self._next = 0
        self._key: _Key | None = None
        self._group: list[_Frame] = []
        self._doubtful: list[_Frame] = []

    def feed(self, index: int, gray: Plane) -> list[ColoredFrame]:
        """Take the next frame, (h, w) uint8; returns the frames that are done by now, in order,
        which often are none.
        """
        if self._strength == 0:
            self._next = index + 1
            return [ColoredFrame(index, self._look(gray), True, False)]
        return self._take(_Frame(index, gray))

    def flush(self) -> list[ColoredFrame]:
        """Return the frames that are left, at the end of the film."""
        done = self._close()
        while self._doubtful:
            done += self._cut()
            done += self._close()
        return done

    def state(self) -> dict[str, NDArray[Any] | int]:
        """What `restore` needs to go on behind the last frame returned.

        "next" is the index of the frame to feed then; the rest are arrays.
        """
        state: dict[str, NDArray[Any] | int] = {"next": self._next}
        if self._key is not None:
            state |= {"gray": self._key.gray, "ab": self._key.ab, "evidence": self._key.evidence}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, also one that `numpy.load` has read, as if never interrupted."""
        self._next = int(state["next"])
        self._key = _Key(state["gray"], state["ab"], state["evidence"]) if "gray" in state else None
        self._group, self._doubtful = [], []

    def _look(self, gray: Plane) -> FloatMap:
        return np.asarray(self._predict(gray), np.float32)

    def _take(self, frame: _Frame) -> list[ColoredFrame]:
        if self._key is None:
            return [self._begin(frame)]
        if not self._follow(frame, self._key):
            self._doubtful.append(frame)
            return self._cut() if len(self._doubtful) > _PATIENCE else []
        self._group += [*self._doubtful, frame]
        self._doubtful = []
        return self._close() if len(self._group) >= self._interval or _is_spent(frame) else []

    def _follow(self, frame: _Frame, key: _Key) -> bool:
        """Find the frame's way to the key frame; False where it shows another scene than the frame
        before it.
        """
        before = self._group[-1] if self._group else None
        gray = key.gray if before is None else before.gray
        if gray.shape != frame.gray.shape:
            return False
        motion = self._motion.between(gray, frame.gray)
        if likeness(gray, frame.gray, motion) < CUT:
            return False
        flow, trust = motion.backward, motion.seen_before
        if before is not None and before.behind is not None:
            flow, trust = chain(flow, before.behind.flow), trust * warp(before.behind.trust, flow)
        frame.motion = motion
        frame.behind = _Path(flow, trust, trust * resemblance(key.gray, frame.gray, flow))
        return True

    def _cut(self) -> list[ColoredFrame]:
        """End the shot before the doubtful frames, and begin another with them."""
        done = self._close()
        first, *rest = self._doubtful
        self._doubtful = []
        done.append(self._begin(first))
        for frame in rest:
            done += self._take(frame)
        return done

    def _begin(self, frame: _Frame) -> ColoredFrame:
        ab = self._look(frame.gray)
        self._key = _Key(frame.gray, ab, np.ones(frame.gray.shape, np.float32))
        self._next = frame.index + 1
        return ColoredFrame(frame.index, ab, True, True)

    def _close(self) -> list[ColoredFrame]:
        """Colour the frames since the last key frame; the last of them is the next key frame."""
        group, start = self._group, self._key
        if not group or start is None:
            return []
        last = group[-1]
        key = self._blend(start, last)
        shown = [frame for frame in group if frame.behind is not None]
        between = {
            frame.index: _mix(start.ab, frame.behind, key.ab, ahead, time / len(shown))
            for time, (frame, ahead) in enumerate(
                zip(shown[:-1], _ways_to_last(shown), strict=True), 1
            )
            if frame.behind is not None
        }
        done = [
            ColoredFrame(frame.index, between[frame.index], False, False)
            if frame.index in between
            else ColoredFrame(frame.index, self._look(frame.gray), True, False)
            for frame in group[:-1]
        ]
        self._key, self._group, self._next = key, [], last.index + 1
        return [*done, ColoredFrame(last.index, key.ab, True, False)]

    def _blend(self, start: _Key, frame: _Frame) -> _Key:
        """The next key frame: the network's colours mixed with those that are carried there."""
        ab, evidence = self._look(frame.gray), np.zeros(frame.gray.shape, np.float32)
        if frame.behind is not None:
            flow, _, seen = frame.behind
            evidence = np.minimum(warp(start.evidence, flow), self._most_evidence)  # (h, w)
            evidence *= _firm(seen) * _share_of_contrast(start.gray, frame.gray)
            ab = ab + (warp(start.ab, flow) - ab) * (evidence / (evidence + 1))[..., None]
        return _Key(frame.gray, ab, np.asarray(evidence + 1, np.float32))


def _is_spent(frame: _Frame) -> bool:
    """Whether the last key frame shows too little of this frame."""
    return frame.behind is not None and float((frame.behind.seen > _SEEN).mean()) < _LEAST_SHARE


def _ways_to_last(frames: list[_Frame]) -> list[_Path]:
    """For each frame but the last: the way to the last."""
    last = frames[-1]
    ways: list[_Path] = []
    for frame, after in zip(frames[-2::-1], frames[:0:-1], strict=True):
        if after.motion is None:
            raise ValueError("frames of a shot must be linked by their motion")
        flow, trust = after.motion.forward, after.motion.seen_again
        if ways:
            flow, trust = chain(flow, ways[-1].flow), trust * warp(ways[-1].trust, flow)
        ways.append(_Path(flow, trust, trust * resemblance(last.gray, frame.gray, flow)))
    return ways[::-1]


def _firm(seen: FloatMap) -> FloatMap:
    """Trust made firm: 0 below 0.2 and 1 above 0.8.

    Without this, much evidence at little trust would still outweigh one look.
    """
    share = ((seen - 0.2) / 0.6).clip(0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _share_of_contrast(first: Plane, second: Plane) -> float:
    """The smaller contrast of two frames over the larger.

    What is carried through a fade was seen in worse light and counts less.
    """
    low, high = sorted((float(first.std()) + 1, float(second.std()) + 1))
    return low / high


def _mix(first: FloatMap, behind: _Path, last: FloatMap, ahead: _Path, time: float) -> FloatMap:
    """Colours of a frame at `time` (0 to 1) from those of the key frames at 0 and 1."""
    near, far = (1 - time) * (behind.seen + _LEAST_TRUST), time * (ahead.seen + _LEAST_TRUST)
    past, future = warp(first, behind.flow), warp(last, ahead.flow)
    return np.asarray(past + (future - past) * (far / (near + far))[..., None], np.float32)
