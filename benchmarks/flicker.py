"""Measures of a coloured film: is colour steady along the motion, steady where nothing moves, and
right?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from gancolor import color, metrics
from gancolor.video.flow import CUT, FloatMap, Motion, MotionEstimator, likeness, warp
from gancolor.video.planes import Plane

_SEEN = 0.5  # trust from which a pixel counts as shown by both frames
_STILL = 0.5  # pixels: what moves less from frame to frame is still


def film_motion(grays: Sequence[Plane]) -> list[Motion | None]:
    """Motion from each frame to the next, uint8 (h, w) each: one fewer than frames, None at a cut."""
    estimator = MotionEstimator()
    found: list[Motion | None] = []
    for before, after in zip(grays[:-1], grays[1:], strict=True):
        motion = estimator.between(before, after)
        found.append(motion if likeness(before, after, motion) >= CUT else None)
    return found


def warping_error(colors: Sequence[FloatMap], motions: Sequence[Motion | None]) -> float:
    """Mean change of colour along the motion, in CIE a*b* units (after E_warp of Lai et al. 2018,
    there squared).

    colors: ab (h, w, 2) of each frame; motions: `film_motion` of its gray. Pixels that the frame
    before does not show are left out, and so are cuts. NaN without any pair of frames.
    """
    total, pixels = 0.0, 0
    for before, after, motion in zip(colors[:-1], colors[1:], motions, strict=True):
        if motion is not None:
            seen = motion.seen_before > _SEEN
            change = np.linalg.norm(after - warp(before, motion.backward), axis=2)[seen]
            total, pixels = total + float(change.sum()) * color.AB_SCALE, pixels + change.size
    return total / pixels if pixels else float("nan")


def still_variance(
    colors: Sequence[FloatMap], motions: Sequence[Motion | None], window: int = 8
) -> float:
    """Mean variance of colour (a* and b* together, squared CIE units) over `window` frames, where
    nothing moves.

    Arguments as for `warping_error`. NaN where no pixel is still for so long.
    """
    total, pixels = 0.0, 0
    for start in range(0, len(colors) - window + 1, window // 2):
        moves = motions[start : start + window - 1]
        if any(motion is None for motion in moves):
            continue
        still = np.all(
            [np.linalg.norm(m.backward, axis=2) < _STILL for m in moves if m is not None], axis=0
        )
        spread = np.stack(colors[start : start + window])[:, still].var(axis=0).sum(axis=1)
        total, pixels = total + float(spread.sum()) * color.AB_SCALE**2, pixels + spread.size
    return total / pixels if pixels else float("nan")


@torch.inference_mode()
def color_error(frames: Sequence[npt.NDArray[np.uint8]], colors: Sequence[FloatMap]) -> float:
    """Mean CIEDE2000 between true frames, uint8 RGB (h, w, 3), and ab (h, w, 2) on their lightness;
    NaN without any.
    """
    errors = []
    for rgb, ab in zip(frames, colors, strict=True):
        truth = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
        guess = torch.from_numpy(np.array(ab)).permute(2, 0, 1)[None]
        made = color.merge_in_gamut(color.split(truth)[0], guess)
        errors.append(
            float(metrics.ciede2000(color.rgb_to_lab(made), color.rgb_to_lab(truth)).mean())
        )
    return float(np.mean(errors)) if errors else float("nan")
