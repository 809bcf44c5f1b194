"""Frames put into groups along the motion, in order: from a key frame to the next, and from cut to
cut.

Nothing of colour is known here, so that shots and key frames can be found before anything is
coloured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class Way(NamedTuple):
    """The way from a frame to a key frame: the `flow` (h, w, 2), the `trust` in it (h, w), and
    `seen`, which is that trust less what looks different there.
    """

    flow: FloatMap
    trust: FloatMap
    seen: FloatMap


@dataclass
class GroupedFrame:
    """A frame, (h, w) uint8, on its way through a group.

    `motion`: from the frame before it. `behind`: the way to the last key frame. Both are None where
    it shows another scene. `ends`: it is to be a key frame whatever it shows.
    """

    index: int
    gray: Plane
    ends: bool = False
    motion: Motion | None = None
    behind: Way | None = None


class Group(NamedTuple):
    """Frames behind a key frame, up to the next one, which is the last of them; or the first frame
    of a shot alone, behind a `cut`.
    """

    frames: list[GroupedFrame]
    cut: bool


class Grouper:
    """Finds the key frames and the cuts of a film, frame by frame, in order.

    Key frames are every `interval`-th frame of a shot, its first and its last, and frames that the
    last key frame shows too little of. A cut is where motion cannot explain the change, and a
    change of shape. A frame or two of something else, such as a flash, stay in the group as they
    are. Memory: about `interval` frames. `gray`: the last key frame's, None before the first frame.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._motion = MotionEstimator()
        self.restart(None)

    def restart(self, gray: Plane | None) -> None:
        """Go on behind a key frame, (h, w) uint8; None is before the first frame."""
        self.gray = gray
        self._group: list[GroupedFrame] = []
        self._doubtful: list[GroupedFrame] = []

    def take(self, frame: GroupedFrame) -> list[Group]:
        """Take the next frame; returns the groups that are whole by now, in order."""
        if self.gray is None:
            return [self._begin(frame)]
        if not self._follow(frame, self.gray):
            self._doubtful.append(frame)
            return self._cut() if len(self._doubtful) > _PATIENCE else []
        self._group += [*self._doubtful, frame]
        self._doubtful = []
        full = len(self._group) >= self._interval or frame.ends or _is_spent(frame)
        return self._close() if full else []

    def flush(self) -> list[Group]:
        """Return what is left, at the end of the film."""
        done = self._close()
        while self._doubtful:
            done += self._cut()
            done += self._close()
        return done

    def _follow(self, frame: GroupedFrame, key: Plane) -> bool:
        """Find the frame's way to the key frame; False where it shows another scene than the frame
        before it.
        """
        before = self._group[-1] if self._group else None
        gray = key if before is None else before.gray
        if gray.shape != frame.gray.shape:
            return False
        motion = self._motion.between(gray, frame.gray)
        if likeness(gray, frame.gray, motion) < CUT:
            return False
        flow, trust = motion.backward, motion.seen_before
        if before is not None and before.behind is not None:
            flow, trust = chain(flow, before.behind.flow), trust * warp(before.behind.trust, flow)
        frame.motion = motion
        frame.behind = Way(flow, trust, trust * resemblance(key, frame.gray, flow))
        return True

    def _cut(self) -> list[Group]:
        """End the shot before the doubtful frames, and begin another with them."""
        done = self._close()
        first, *rest = self._doubtful
        self._doubtful = []
        done.append(self._begin(first))
        for frame in rest:
            done += self.take(frame)
        return done

    def _begin(self, frame: GroupedFrame) -> Group:
        self.gray = frame.gray
        return Group([frame], True)

    def _close(self) -> list[Group]:
        """End the group; its last frame is the next key frame."""
        if not self._group:
            return []
        group, self._group = self._group, []
        self.gray = group[-1].gray
        return [Group(group, False)]


def ways_to_last(frames: list[GroupedFrame]) -> list[Way]:
    """For each frame of a shot but the last: the way to the last."""
    last = frames[-1]
    ways: list[Way] = []
    for frame, after in zip(frames[-2::-1], frames[:0:-1], strict=True):
        if after.motion is None:
            raise ValueError("frames of a shot must be linked by their motion")
        flow, trust = after.motion.forward, after.motion.seen_again
        if ways:
            flow, trust = chain(flow, ways[-1].flow), trust * warp(ways[-1].trust, flow)
        ways.append(Way(flow, trust, trust * resemblance(last.gray, frame.gray, flow)))
    return ways[::-1]


def _is_spent(frame: GroupedFrame) -> bool:
    """Whether the last key frame shows too little of this frame."""
    return frame.behind is not None and float((frame.behind.seen > _SEEN).mean()) < _LEAST_SHARE
