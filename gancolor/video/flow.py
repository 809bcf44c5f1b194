"""Motion between two frames of a film, and whether they show one scene.

Frames are gray, (h, w) uint8, at the size at which the network sees them. A flow is a float32 array
(h, w, 2): pixel (y, x) of one frame shows what is at (y + flow[y, x, 1], x + flow[y, x, 0]) of the
other, in pixels. Trust is a float32 array (h, w) in [0, 1]: 0 where the other frame does not show
the pixel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.video.planes import Plane

FloatMap = NDArray[np.float32]
"""A number or more for each pixel of a frame, (h, w) or (h, w, C)."""

CUT = 0.37
"""Frames whose `likeness` is lower belong to different shots.

Measured at 64 and 128 pixels, clean and with heavy grain and flicker: 85 cuts (of three films, and
between photographs) reach at most 0.34; 820 pairs of neighbouring frames at least 0.43, one of a
van that fills the picture in three frames.
"""

_SMALLEST = 48  # pixels a side: smaller frames are padded; of those below 46 DIS finds no motion
# Half size: at 128 pixels a sixth of the time of full size, and a residual 3 % larger.
_FINEST_SCALE = 1
_REFINEMENTS = 3
# Squared pixels that the two flows may disagree by: so much whatever their length, and a share of
# their squared lengths on top of it.
_LEAST_TOLERANCE, _TOLERANCE = 0.5, 0.01
_GRAIN = 1.0  # pixels: finer structure of the gray is taken for noise
_SHADING = 6.0  # pixels: coarser structure is taken for light, which may flicker
_BLANK = 1.5  # gray levels: weaker structure is none
_LEAST_DIFFERENCE = 4.0  # gray levels that always pass


@dataclass(frozen=True)
class Motion:
    """Motion between a first and a second frame, both ways.

    `forward` (h, w, 2): the flow from the first frame's pixels into the second; `backward`: from
    the second's into the first. `seen_again` (h, w): trust in `forward`, for each pixel of the
    first; `seen_before`: trust in `backward`, for each of the second.
    """

    forward: FloatMap
    backward: FloatMap
    seen_again: FloatMap
    seen_before: FloatMap


class MotionEstimator:
    """Finds motion by dense inverse search both ways (DIS, Kroeger et al. 2016).

    It is trusted where both ways agree (Sundaram et al. 2010) and what they join looks alike.
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._search.setFinestScale(_FINEST_SCALE)
        self._search.setVariationalRefinementIterations(_REFINEMENTS)

    def between(self, first: Plane, second: Plane) -> Motion:
        """Find the motion between two frames, (h, w) uint8 of any size. ValueError if their shapes
        differ.
        """
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(
                f"both frames must have one shape (h, w), got {first.shape} and {second.shape}"
            )
        forward, backward = self._flow(first, second), self._flow(second, first)
        again = agreement(forward, backward) * resemblance(second, first, forward)
        before = agreement(backward, forward) * resemblance(first, second, backward)
        return Motion(forward, backward, again, before)

    def refined(self, first: Plane, second: Plane, flow: FloatMap) -> FloatMap:
        """Search the flow from the first frame's pixels into the second once more, near `flow`."""
        return self._flow(first, second, flow)

    def _flow(self, first: Plane, second: Plane, near: FloatMap | None = None) -> FloatMap:
        height, width = first.shape
        pad = (0, max(0, _SMALLEST - height), 0, max(0, _SMALLEST - width))
        if any(pad):
            first, second = (
                np.asarray(cv2.copyMakeBorder(x, *pad, cv2.BORDER_REPLICATE), np.uint8)
                for x in (first, second)
            )
            if near is not None:
                near = np.asarray(cv2.copyMakeBorder(near, *pad, cv2.BORDER_REPLICATE), np.float32)
        if near is not None:
            near = near.copy()  # the search writes into it
        flow = self._search.calc(first, second, near)  # type: ignore[arg-type]  # None: nowhere to start from
        return np.ascontiguousarray(flow[:height, :width], np.float32)


def likeness(first: Plane, second: Plane, motion: Motion) -> float:
    """How much of the second frame's structure is the first's, moved along.

    About 0 for another scene, 1 for the same. It is the mean of two numbers, each blind to a change
    of brightness or contrast: the mean trust in the motion, and the correlation of the second frame
    with the first brought there along the motion, both without grain and shading.
    """
    before, after = warp(_structure(first), motion.backward), _structure(second)
    alike = _correlation(before, after)
    if alike is None:
        return float(max(before.std(), after.std()) < _BLANK)  # two blank frames are alike
    trust = (float(motion.seen_again.mean()) + float(motion.seen_before.mean())) / 2
    return (alike + trust) / 2


def correlation(first: Plane, second: Plane) -> float | None:
    """How much the structure of two frames is the same at the same places: about 0 for different
    ones, 1 for equal ones; None where one of them is blank.
    """
    return _correlation(_structure(first), _structure(second))


def warp(values: NDArray[np.generic], flow: FloatMap) -> FloatMap:
    """Bring another frame's values, (h, w) or (h, w, C), to this frame along its flow, as float32.

    Beyond its edges a frame goes on with its last pixels.
    """
    height, width = flow.shape[:2]
    target = _grid(height, width) + flow
    moved = cv2.remap(  # type: ignore[call-overload]  # both maps are in one array; the stub asks for two
        np.asarray(values, np.float32),
        target,
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.float32).reshape(values.shape)


def chain(near: FloatMap, far: FloatMap) -> FloatMap:
    """Join the flow into a neighbour and the neighbour's flow into a third frame to one into the
    third.
    """
    return near + warp(far, near)


def resemblance(there: Plane, here: Plane, flow: FloatMap) -> FloatMap:
    """How well this frame's gray agrees with another's along its flow, (h, w) in [0, 1].

    This is needed because flows also agree where one thing took another's place on a flat surface,
    as a sign before the sky: there any flow is as good as another. The difference that is allowed
    grows with the film's grain and with the structure around; a change of the whole light counts
    for nothing.
    """
    smooth = np.asarray(cv2.GaussianBlur(here, (0, 0), _GRAIN), np.float32)
    difference = warp(cv2.GaussianBlur(there, (0, 0), _GRAIN), flow) - smooth
    difference = np.abs(difference - _median(difference))
    structure = cv2.blur(np.abs(smooth - cv2.blur(smooth, (9, 9))), (9, 9))
    allowed = _LEAST_DIFFERENCE + 2 * _median(difference) + structure / 2
    return np.asarray(np.exp(-np.square(cv2.blur(difference, (3, 3)) / allowed)), np.float32)


def agreement(flow: FloatMap, other: FloatMap) -> FloatMap:
    """How well `other` leads back from where `flow` leads, (h, w): 1 exactly, 0 far off or outside
    the frame.
    """
    back = warp(other, flow)
    allowed = _LEAST_TOLERANCE + _TOLERANCE * (lengths(flow) + lengths(back))
    height, width = flow.shape[:2]
    target = _grid(height, width) + flow
    x, y = target[..., 0], target[..., 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return np.asarray(np.exp(-lengths(flow + back) / allowed) * inside, np.float32)


def lengths(flow: FloatMap) -> FloatMap:
    """Squared length of each vector of a flow, (h, w)."""
    x, y = flow[..., 0], flow[..., 1]  # numpy takes ten times as long to sum over so short an axis
    return np.asarray(x * x + y * y, np.float32)


def _structure(gray: Plane) -> FloatMap:
    """What a frame shows, without its grain and its shading, (h, w)."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _GRAIN)
    return np.asarray(smooth - cv2.GaussianBlur(smooth, (0, 0), _SHADING), np.float32)


def _correlation(first: FloatMap, second: FloatMap) -> float | None:
    """The correlation of two frames' structures; None where one of them is none."""
    strengths = float(first.std()), float(second.std())
    if min(strengths) < _BLANK:
        return None
    return float((first * second).mean()) / (strengths[0] * strengths[1])


def _median(values: FloatMap) -> float:
    """The median of every ninth pixel: all pixels would take ten times as long."""
    return float(np.median(values[::3, ::3]))


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> FloatMap:
    """The place (x, y) of each pixel, (h, w, 2)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))
