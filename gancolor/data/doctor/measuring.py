"""Numbers that tell how much colour a picture has."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import images
from gancolor.data.doctor.rules import Rules

Pixels = NDArray[Any]

SIDE = 96
"""Of the square copy in sRGB that all figures are taken from: there grain and the noise of JPEG count little."""

_TONES = 48  # steps of lightness, of as many pixels each, within which a single tone has one colour
_SIDE = 48  # of the copy that tones are taken from


def measure(rgb: Pixels) -> tuple[float, float, float, float]:
    """Return colorfulness, chroma, spread and contrast of uint8 RGB (96, 96, 3): see `examining.Findings`."""
    red, green, blue = rgb.reshape(-1, 3).T.astype(np.float32)
    opponents = np.stack((red - green, (red + green) / 2 - blue))
    # As metrics.colorfulness, which needs torch: worker processes do not load it.
    colorfulness = np.sqrt(opponents.var(axis=1).sum()) + 0.3 * np.sqrt(np.square(opponents.mean(axis=1)).sum())
    lab = _lab(rgb)
    darkest, lightest = np.percentile(lab[:, 0], (1, 99))
    chroma = np.linalg.norm(lab[:, 1:], axis=1).mean()
    return float(colorfulness), float(chroma), _spread(rgb), float(lightest - darkest)


def has_colors(rgb: Pixels) -> bool:
    """Whether uint8 RGB (H, W, 3) is a picture in colour, and neither black and white nor of one tone such as sepia.

    It is judged by the thresholds with which `gancolor data prepare` leaves out gray and toned pictures.
    """
    rules = Rules()
    colorfulness, chroma, spread, _ = measure(images.resize(rgb, SIDE))
    return not rules.is_gray(chroma, colorfulness) and not rules.is_single_tone(chroma, spread)


def _lab(rgb: Pixels) -> Pixels:
    """CIE Lab of uint8 RGB, (n, 3) float32."""
    return cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB).reshape(-1, 3)


def _spread(rgb: Pixels) -> float:
    """How far colours lie from a single tone, in units of a*b*.

    Two deviations together: within pixels of nearly the same lightness from their mean, the farthest tenth (stamps,
    borders) left out, and of all hues from one. The copy is reduced once more, because what JPEG does to the colours of
    edges is no second tone.
    """
    lab = _lab(images.resize(rgb, _SIDE))
    steps = lab[lab[:, 0].argsort(kind="stable"), 1:].reshape(_TONES, -1, 2)
    distances = np.linalg.norm(steps - steps.mean(axis=1, keepdims=True), axis=2).ravel()
    kept = len(distances) * 9 // 10
    within = np.partition(distances, kept)[:kept].mean()
    opposed = np.linalg.norm(lab[:, 1:], axis=1).mean() - np.linalg.norm(lab[:, 1:].mean(axis=0))
    return float(np.hypot(within, opposed))
