"""Generated colour pictures that look different from each other, for the tests of the doctor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.images import arrays

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


def fill(place: Path, count: int, first: int = 0) -> Path:
    """Write so many scenes as JPEG files."""
    place.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (place / f"{number:02d}.jpg").write_bytes(file(scene(number, 96, 128), quality=92))
    return place


def plant(place: Path) -> dict[str, str]:
    """Add pictures with every fault to a folder of scenes; returns the reason of each."""
    first = arrays.read_rgb(place / "00.jpg")
    files = {
        "cut.jpg": ("broken", (place / "01.jpg").read_bytes()[:900]),
        "empty.jpg": ("broken", b""),
        "text.png": ("broken", b"no picture"),
        "misnamed.jpg": ("extension", file(scene(50, 96, 128), "PNG")),
        "icon.png": ("small", file(cv2.resize(scene(51), (32, 24)), "PNG")),
        "strip.png": ("shape", file(scene(52, 70, 300), "PNG")),
        "black.png": ("blank", file(np.zeros((90, 120, 3)), "PNG")),
        "gray.jpg": ("gray", file(gray(scene(53, 96, 128)))),
        "sepia.jpg": ("single-tone", file(scene(54, 96, 128) @ SEPIA.T)),
        "zcopy.jpg": ("duplicate", (place / "02.jpg").read_bytes()),
        "zsmall.jpg": (
            "near-duplicate",
            file(cv2.resize(first, (96, 72), interpolation=cv2.INTER_AREA)),
        ),
        "zmirrored.jpg": (
            "near-duplicate",
            file(arrays.read_rgb(place / "03.jpg")[:, ::-1], quality=60),
        ),
    }
    for name, (_, data) in files.items():
        (place / name).write_bytes(data)
    return {name: reason for name, (reason, _) in files.items()}
