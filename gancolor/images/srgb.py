"""sRGB's curve and CIE Lab on arrays: for pictures that are looked at without a network, by
processes that do not load torch.

`gancolor.color` has them on tensors, with gradients; it takes its numbers from here.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating[Any])

# IEC 61966-2-1 and CIE 15 (2 degrees).
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)
"""X, Y and Z of the D65 white."""

TO_WHITE = tuple(
    tuple(c / white for c in row) for row, white in zip(_XYZ_FROM_RGB, WHITE, strict=True)
)
"""The matrix from linear sRGB to XYZ as shares of the white."""

SRGB_KNEE = 0.04045
"""Below it sRGB's curve is a line."""

CIE_KNEE = 6 / 29
"""Below it CIE's cube root is its tangent."""


def to_light(values: NDArray[_Float]) -> NDArray[_Float]:
    """Linear light of sRGB, both in [0, 1]; float32 or float64, as given."""
    light: NDArray[_Float] = np.where(
        values <= SRGB_KNEE, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    return light


def from_light(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB of linear light, which is clipped to [0, 1]; float32."""
    light = np.clip(light, 0, 1).astype(np.float32, copy=False)
    high = np.float32(1.055) * np.power(light, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), light * np.float32(12.92), high).astype(
        np.float32, copy=False
    )


LIGHT = to_light(np.arange(256) / 255).astype(np.float32)
"""Linear light of the 256 levels of sRGB, for `cv2.LUT`."""


def lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIE L*a*b* of uint8 RGB, (H, W, 3) float32, to 0.001 units.

    OpenCV has it too, but the first call in every process takes 0.16 s to build its tables.
    """
    knee = np.float32(CIE_KNEE**3)
    tristimulus = cv2.transform(cv2.LUT(rgb, LIGHT), np.array(TO_WHITE, np.float32))
    x, y, z = cv2.split(
        cv2.pow(np.maximum(tristimulus, knee), 1 / 3)
        + np.minimum(tristimulus - knee, 0) * np.float32(1 / (3 * CIE_KNEE**2))
    )
    result: NDArray[np.float32] = np.dstack((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    return result
