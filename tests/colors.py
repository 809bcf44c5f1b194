"""Colours of a test's own choice."""

from __future__ import annotations

from torch import Tensor

from gancolor import color


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """CIE Lab to sRGB, (B, 3, H, W) both, by way of `color.merge`."""
    return color.merge(lab[:, :1] / color.LIGHTNESS_SCALE - 1, lab[:, 1:] / color.AB_SCALE, clip)
