"""Motion between two frames of a film, found on their gray at the size at which the network sees
them.

A flow is a float32 array (h, w, 2): pixel (y, x) of one frame shows what is at (y + flow[y, x, 1],
x + flow[y, x, 0]) of the other, in pixels. Trust is a float32 array (h, w) in [0, 1]: 0 where the
other frame does not show it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SMALLEST = 32  # pixels a side: smaller frames are padded, DIS refuses fewer than 12
_FINEST_SCALE = (
    1  # half size: at 128 pixels a sixth of the time of full size, and a residual 3 % larger
)
_REFINEMENTS = 3
_LEAST_TOLERANCE = (
    0.5  # squared pixels that the two flows may disagree by, whatever their length ...
)
_TOLERANCE = 0.01  # ... and the share of their squared lengths on top of it
_GRAIN = 1.0  # pixels: finer structure of the gray is taken for noise
_LEAST_DIFFERENCE = 4.0  # gray levels that always pass


@dataclass(frozen=True)
class Motion:
    """Motion between a first and a second frame, both ways.

    `forward`: the flow from the first frame's pixels into the second; `backward`: from the second's
    into the first. `seen_again`: trust in `forward`, per pixel of the first; `seen_before`: trust
    in `backward`, of the second.
    """

    forward: Floats
    backward: Floats
    seen_again: Floats
    seen_before: Floats


class MotionEstimator:
    """Dense inverse search both ways (DIS, Kroeger et al. 2016), trusted where they agree (Sundaram
    et al. 2010) and where what they join looks alike.
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._search.setFinestScale(_FINEST_SCALE)
        self._search.setVariationalRefinementIterations(_REFINEMENTS)

    def between(self, first: Gray, second: Gray) -> Motion:
        """Find the motion between two frames, uint8 (h, w) of one shape, of any size; ValueError on
        other shapes.
        """
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(
                f"both frames must have one shape (h, w), got {first.shape} and {second.shape}"
            )
        forward, backward = self._flow(first, second), self._flow(second, first)
        again = _agreement(forward, backward) * resemblance(second, first, forward)
        before = _agreement(backward, forward) * resemblance(first, second, backward)
        return Motion(forward, backward, again, before)

    def _flow(self, first: Gray, second: Gray) -> Floats:
        height, width = first.shape
        pad = (0, max(0, _SMALLEST - height), 0, max(0, _SMALLEST - width))
        if any(pad):
            first, second = (
                np.asarray(cv2.copyMakeBorder(x, *pad, cv2.BORDER_REPLICATE), np.uint8)
                for x in (first, second)
            )
        flow = self._search.calc(first, second, None)  # type: ignore[call-overload]  # no flow to start from
        return np.ascontiguousarray(flow[:height, :width], np.float32)


def warp(values: npt.NDArray[np.generic], flow: Floats) -> Floats:
    """Bring another frame's values, (h, w) or (h, w, C), to this frame along its flow; float32,
    edges repeated.
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


def chain(near: Floats, far: Floats) -> Floats:
    """Join the flow into a neighbouring frame and that frame's flow into a third: the flow into the
    third.
    """
    return near + warp(far, near)


def resemblance(there: Gray, here: Gray, flow: Floats) -> Floats:
    """How well this frame's gray agrees with another's along its flow, (h, w) in [0, 1].

    The two flows agree too where one thing took another's place on a flat surface, a sign before
    the sky: there any flow is as good as another. The difference allowed grows with the film's
    grain and with the structure around; a change of the whole light counts for none.
    """
    smooth = np.asarray(cv2.GaussianBlur(here, (0, 0), _GRAIN), np.float32)
    difference = warp(cv2.GaussianBlur(there, (0, 0), _GRAIN), flow) - smooth
    difference = np.abs(difference - _median(difference))
    structure = cv2.blur(np.abs(smooth - cv2.blur(smooth, (9, 9))), (9, 9))
    allowed = _LEAST_DIFFERENCE + 2 * _median(difference) + structure / 2
    return np.asarray(np.exp(-np.square(cv2.blur(difference, (3, 3)) / allowed)), np.float32)


def lengths(flow: Floats) -> Floats:
    """Squared length of each vector of a flow, (h, w)."""
    x, y = flow[..., 0], flow[..., 1]  # numpy takes ten times as long to sum over so short an axis
    return np.asarray(x * x + y * y, np.float32)


def _agreement(flow: Floats, other: Floats) -> Floats:
    """1 where following `flow` and then `other` leads back, towards 0 the farther it leads astray
    or off the frame.
    """
    back = warp(other, flow)
    allowed = _LEAST_TOLERANCE + _TOLERANCE * (lengths(flow) + lengths(back))
    height, width = flow.shape[:2]
    target = _grid(height, width) + flow
    x, y = target[..., 0], target[..., 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return np.asarray(np.exp(-lengths(flow + back) / allowed) * inside, np.float32)


def _median(values: Floats) -> float:
    return float(np.median(values[::3, ::3]))  # all pixels would take ten times as long


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Floats:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))
