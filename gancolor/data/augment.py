"""Random crop (zoom) and horizontal flip by albumentations. Never colour jitter: colour is what the network learns."""

from __future__ import annotations

import os
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_RATIO = (3 / 4, 4 / 3)  # width / height of the crop before it is resized to a square


class Augment:
    """A random square of a picture; the same for the same seed and position, whatever ran before it or beside it."""

    def __init__(self, image_size: int, zoom: float, flip: bool) -> None:
        self.image_size, self.zoom, self.flip = image_size, zoom, flip
        self._pipeline: Any = None

    def __call__(self, rgb: NDArray[np.uint8], seed: int, position: int) -> NDArray[np.uint8]:
        """Square of side `image_size` from a uint8 RGB (H, W, 3) picture of any size; a new, contiguous array."""
        if self._pipeline is None:
            self._pipeline = _compose(self.image_size, self.zoom, self.flip)
        numbers = np.random.default_rng([seed, position])
        # One shared generator: given only a seed, albumentations starts every transform with the same numbers,
        # and the flip would follow the crop.
        self._pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        return np.array(self._pipeline(image=rgb)["image"], order="C")  # a copy: a full crop is a view of `rgb`

    def __reduce__(self) -> tuple[Any, ...]:
        return build, (self.image_size, self.zoom, self.flip)  # a new process builds its own pipeline


def build(image_size: int, zoom: float, flip: bool) -> Augment:
    """The training augmentation: a random crop resized to a square, flipped left to right half of the time if `flip`.

    The crop keeps `zoom` to 1 of the picture's area; pictures smaller than `image_size` are enlarged.
    """
    return Augment(image_size, zoom, flip)


def _compose(image_size: int, zoom: float, flip: bool) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # read by its import, which otherwise asks PyPI for a newer version
    import albumentations

    crop = albumentations.RandomResizedCrop(
        size=(image_size, image_size),
        scale=(zoom, 1.0),
        ratio=CROP_RATIO,
        interpolation=cv2.INTER_LINEAR,
        area_for_downscale="image",  # else shrinking aliases
    )
    return albumentations.Compose([crop, albumentations.HorizontalFlip(p=0.5 if flip else 0.0)])
