"""Generated colour pictures that look different from each other, for the tests of the doctor."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEPIA = np.array(((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131)))


def scene(seed: int, height: int = 192, width: int = 256) -> NDArray[np.uint8]:
    """A colourful picture with edges and textures, uint8 RGB (height, width, 3)."""
    random = np.random.default_rng(seed)
    pixels = cv2.resize(
        random.uniform(20, 235, (5, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(12):
        center = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(
            pixels,
            center,
            int(random.integers(6, 40)),
            random.uniform(0, 255, 3).tolist(),
            -1,
            cv2.LINE_AA,
        )
    return (pixels + random.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)


def gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture in black and white, with three channels."""
    return np.repeat((rgb @ (0.299, 0.587, 0.114)).astype(np.uint8)[..., None], 3, axis=2)


def file(rgb: NDArray[Any], format: str = "JPEG", **options: object) -> bytes:
    """The bytes of a picture file; values are clipped to 0-255."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(rgb).clip(0, 255).astype(np.uint8)).save(stream, format, **options)
    return stream.getvalue()
