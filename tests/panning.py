"""Makes small films of known motion and known colours: a camera pans over a still scene."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]

HEIGHT, WIDTH = 48, 72
SPEED = 2  # pixels a frame


def scene(seed: int, width: int = 200, height: int = HEIGHT) -> tuple[Gray, Floats]:
    """Gray (height, width) with structure of all sizes, and its ab: patches of colour that the
    structure shares.
    """
    random = np.random.default_rng(seed)
    layers = [
        cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), s)
        for s in (1.5, 4, 10)
    ]
    gray = sum(layer / layer.std() for layer in layers) * 45 / 3**0.5 + 128
    patches = cv2.GaussianBlur(
        random.normal(size=(height, width, 2)).astype(np.float32), (0, 0), 10
    )
    return gray.clip(0, 255).astype(np.uint8), np.asarray(patches / patches.std() * 0.1, np.float32)


def pan(picture: NDArray[np.generic], frames: int, speed: int = SPEED) -> list[NDArray[np.generic]]:
    """What a camera of WIDTH pixels sees that moves to the right by `speed` pixels a frame."""
    return [np.ascontiguousarray(picture[:, i * speed : i * speed + WIDTH]) for i in range(frames)]


def flat(color: tuple[float, float]) -> Floats:
    """One colour everywhere, (HEIGHT, WIDTH, 2)."""
    return np.broadcast_to(np.array(color, np.float32), (HEIGHT, WIDTH, 2)).copy()


def distance(colors: Sequence[Floats], truth: Sequence[Floats]) -> list[float]:
    """Mean distance of the colours of each frame, in units of ab."""
    return [float(np.linalg.norm(a - b, axis=2).mean()) for a, b in zip(colors, truth, strict=True)]
