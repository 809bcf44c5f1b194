"""Training squares: a random crop (zoom) by albumentations or a fixed framing, and a horizontal flip.

Never colour jitter: colour is what the network learns.
"""

from __future__ import annotations

import math
import os
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import images

Picture = NDArray[np.uint8]

CROP_RATIO = (3 / 4, 4 / 3)  # width / height of the crop before it is resized to a square


class Augment:
    """A square of a picture; the same for the same seed and position, whatever ran before it or beside it."""

    def __init__(
        self, image_size: int, zoom: float, flip: bool, framing: str = "random", embedding_size: int | None = None
    ) -> None:
        self.image_size, self.zoom, self.flip = image_size, zoom, flip
        self.framing, self.embedding_size = framing, embedding_size
        self._pipelines: dict[int, Any] = {}

    def __call__(self, rgb: Picture, seed: int, position: int) -> Picture:
        """Square of side `image_size` from a uint8 RGB (H, W, 3) picture of any size; a new, contiguous array."""
        return self._square(rgb, seed, position, self.image_size)

    def views(self, rgb: Picture, seed: int, position: int) -> tuple[Picture, Picture | None]:
        """The square, and the copy of the same part for the embedding, at its own size; None without an embedding."""
        square = self(rgb, seed, position)
        if self.embedding_size is None:
            return square, None
        if self.embedding_size == self.image_size:
            return square, square.copy()
        return square, self._square(rgb, seed, position, self.embedding_size)

    def _square(self, rgb: Picture, seed: int, position: int, size: int) -> Picture:
        numbers = np.random.default_rng([seed, position])
        if self.framing != "random":
            square = images.square(rgb, size, self.framing)
            flipped = self.flip and numbers.random() < 0.5
            return np.array(square[:, ::-1] if flipped else square, order="C")
        if size not in self._pipelines:
            self._pipelines[size] = _compose(size, self.zoom, self.flip)
        # One shared generator: given only a seed, albumentations starts every transform with the same numbers,
        # and the flip would follow the crop. Crop and flip do not depend on the size.
        self._pipelines[size].set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        return np.array(self._pipelines[size](image=rgb)["image"], order="C")  # a copy: a full crop is a view of `rgb`

    def __reduce__(self) -> tuple[Any, ...]:  # a new process builds its own pipelines
        return build, (self.image_size, self.zoom, self.flip, self.framing, self.embedding_size)


def build(
    image_size: int, zoom: float, flip: bool, framing: str = "random", embedding_size: int | None = None
) -> Augment:
    """The training augmentation: a square by `framing`, flipped left to right half of the time if `flip`.

    "random": a crop that keeps `zoom` to 1 of the picture's area; "center", "white" and "stretch": see
    `images.square`. Pictures smaller than `image_size` are enlarged. `embedding_size`: side of the copies that a
    fusion network's embedding sees (`Augment.views`).
    """
    return Augment(image_size, zoom, flip, framing, embedding_size)


def needed_side(image_size: int, zoom: float, framing: str = "random", embedding_size: int | None = None) -> int:
    """Shorter side, in pixels, to which a picture may be reduced beforehand: no square is enlarged because of it."""
    largest = max(image_size, embedding_size or 0)
    if framing != "random":
        return largest
    return math.ceil(largest * math.sqrt(CROP_RATIO[1] / zoom))  # the flattest crop of the smallest area


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
