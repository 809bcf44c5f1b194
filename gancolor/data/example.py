"""One training example: a picture is read, cropped to a square, flipped, aged, and given the places
of its colour hints, as tensors.

Squares are a random crop (zoom) by albumentations or a fixed framing. Under the framing "mixed" the
crops of each step have a size and an aspect of their own, as the pictures that will be coloured do,
and "square" below means any such rectangle. There is no colour jitter:
colour is what the network learns. Of hints only numbered squares are made here, whose colours the
training step fills in.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gancolor.config import CROPPING, LEAST_SIDE, TrainConfig
from gancolor.data import aging
from gancolor.data.source import PictureSource
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.images.arrays import Picture

CROP_RATIO = (3 / 4, 4 / 3)  # width / height of the crop before it is resized to a square

# Under the framing "mixed": a step's pictures have the area of a square of one of these sides, as
# shares of the image size, and one of these ratios width / height, from which a crop's own departs
# by at most `MIXED_STRETCH`.
MIXED_SIDES = (0.75, 1.0, 1.25)  # on average the pixels of squares of the image size
MIXED_RATIOS = (2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2)
MIXED_STRETCH = 1.15

MOST_HINTS = 128  # hints in a picture
_WHOLE = 256  # pixels: the side from which a picture may have as many; below, in proportion
_GEOMETRIC = 1 / 8  # Zhang et al. (2017): the mean is 7, and none is common
_LARGEST = 9  # pixels: side of a square
_SPREAD = 1 / 4  # of the side: deviation of places around the centre
_FOR_HINTS = 5  # tells their random numbers from those of crops
_FOR_SHAPES = 11  # and those of mixed shapes


class TrainingPictures(Dataset[dict[str, Any]]):
    """Augmented pictures by (position, index): where in the run, which picture of the source."""

    def __init__(self, source: PictureSource, augmentation: Augment, config: TrainConfig) -> None:
        self.source, self.augmentation, self.config = source, augmentation, config
        # Broken pictures that this process has met, by index: what they are called, and why.
        self._broken: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """`rgb`: uint8 (3, H, W); where asked for, `edges` and `squares`: uint8 (1, H, W), `copy`:
        uint8 (3, E, E) with its `key`, and `aged`: uint8 (1, H, W) with `is_aged`; `broken`,
        `reasons`: see `Batch`. A broken picture is replaced by the next good one; DataError if
        there is none.
        """
        position, index = key
        picture, broken = self.read_good(index)
        square, copy = self.augmentation.views(picture, self.config.seed, position)
        item: dict[str, Any] = {"rgb": to_tensor(square)}
        if self.config.condition == "edges":
            item["edges"] = to_tensor(arrays.edges(square))
        if self.config.hints > 0:
            random = np.random.default_rng([self.config.seed, position, _FOR_HINTS])
            item["squares"] = to_tensor(draw_squares(square.shape[:2], self.config.hints, random))
        if copy is not None:
            item |= {"copy": to_tensor(copy), "key": content_key(copy)}
        if self.config.old_photos > 0:
            aged = aging.draw(square, self.config.old_photos, self.config.seed, position)
            item["is_aged"] = torch.tensor(aged is not None)
            item["aged"] = to_tensor(np.zeros(square.shape[:2], np.uint8) if aged is None else aged)
        return item | {
            "broken": [name for name, _ in broken],
            "reasons": [reason for _, reason in broken],
        }

    def read_good(self, index: int) -> tuple[Picture, list[tuple[str, str]]]:
        """The picture at `index`, or the next one that can be read, as uint8 RGB (H, W, 3); and the
        broken ones before it, as (name, reason). DataError if there is none.
        """
        broken: list[tuple[str, str]] = []
        for candidate in (
            (index + offset) % len(self.source) for offset in range(len(self.source))
        ):
            if candidate not in self._broken:
                try:
                    return self.source.read(candidate), broken
                except DataError as error:
                    self._broken[candidate] = (self.source.name(candidate), str(error))
            broken.append(self._broken[candidate])
        raise DataError(
            f"dataset must keep a picture that can be read, got none of {len(self.source)}; is its"
            " disk there?"
        )


def to_tensor(picture: Picture) -> Tensor:
    """A picture, uint8 (H, W) or (H, W, 3), as a tensor with its channels first, (1 or 3, H, W)."""
    channels_first = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(channels_first))


def content_key(copy: Picture) -> str:
    """SHA-256 of a picture's shape and bytes: what the embedding of exactly these pixels is kept
    under.
    """
    return hashlib.sha256(
        repr(copy.shape).encode() + np.ascontiguousarray(copy).tobytes()
    ).hexdigest()


class Augment:
    """The training augmentation: a square of a picture, flipped left to right half of the time if
    `flip`.

    `framing`: "random" takes a crop that keeps `zoom` to 1 of the picture's area; "mixed" does, and
    all of the `batch_size` pictures of a step have one of the shapes of `mixed_shape`; "center",
    "white" and "stretch": see `arrays.square`. Pictures smaller than `image_size` are enlarged.
    `embedding_size`: side of the copies that a fusion network's embedding sees (`views`). The same
    seed and position give the same square, whatever ran before it or beside it.
    """

    def __init__(
        self,
        image_size: int,
        zoom: float,
        flip: bool,
        framing: str = "random",
        embedding_size: int | None = None,
        batch_size: int = 1,
    ) -> None:
        self.image_size, self.zoom, self.flip = image_size, zoom, flip
        self.framing, self.embedding_size = framing, embedding_size
        self.batch_size = batch_size
        self._pipelines: dict[tuple[int, int], Any] = {}

    def __call__(self, rgb: Picture, seed: int, position: int) -> Picture:
        """Square of side `image_size` from a uint8 RGB (H, W, 3) picture of any size, or its step's
        shape; a new, contiguous array.
        """
        shape = (self.image_size, self.image_size)
        if self.framing == "mixed":
            shape = mixed_shape(self.image_size, seed, position // self.batch_size)
        return self._square(rgb, seed, position, shape)

    def views(self, rgb: Picture, seed: int, position: int) -> tuple[Picture, Picture | None]:
        """The square, and the copy of the same part for the embedding, at its own size; None
        without an embedding.
        """
        square = self(rgb, seed, position)
        if self.embedding_size is None:
            return square, None
        if self.embedding_size == self.image_size:
            return square, square.copy()
        return square, self._square(rgb, seed, position, (self.embedding_size, self.embedding_size))

    def _square(self, rgb: Picture, seed: int, position: int, shape: tuple[int, int]) -> Picture:
        numbers = np.random.default_rng([seed, position])
        if self.framing not in CROPPING:
            square = arrays.square(rgb, shape[0], self.framing)
            flipped = self.flip and numbers.random() < 0.5
            return np.array(square[:, ::-1] if flipped else square, order="C")
        if shape not in self._pipelines:
            ratio = CROP_RATIO
            if self.framing == "mixed":
                own = shape[1] / shape[0]
                ratio = (own / MIXED_STRETCH, own * MIXED_STRETCH)
            self._pipelines[shape] = _compose(shape, self.zoom, ratio, self.flip)
        # One shared generator: given only a seed, albumentations starts every transform with the
        # same numbers, and the flip would follow the crop. Crop and flip do not depend on the size.
        pipeline = self._pipelines[shape]
        pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        # A copy: a full crop is a view of `rgb`.
        return np.array(pipeline(image=rgb)["image"], order="C")

    def __reduce__(self) -> tuple[Any, ...]:  # a new process builds its own pipelines
        return Augment, (
            self.image_size,
            self.zoom,
            self.flip,
            self.framing,
            self.embedding_size,
            self.batch_size,
        )


def mixed_shape(image_size: int, seed: int, step: int) -> tuple[int, int]:
    """Height and width of the pictures of a step under the framing "mixed", multiples of 32 pixels.
    The same seed and step give the same shape in every process.
    """
    numbers = np.random.default_rng([seed, step, _FOR_SHAPES])
    side = image_size * MIXED_SIDES[int(numbers.integers(len(MIXED_SIDES)))]
    ratio = MIXED_RATIOS[int(numbers.integers(len(MIXED_RATIOS)))]
    return _mixed(side, ratio)


def largest_shape(image_size: int, framing: str) -> tuple[int, int]:
    """Height and width of the largest pictures that a step may have."""
    if framing != "mixed":
        return image_size, image_size
    return max(_largest_shapes(image_size), key=math.prod)


def _largest_shapes(image_size: int) -> list[tuple[int, int]]:
    return [_mixed(image_size * MIXED_SIDES[-1], ratio) for ratio in MIXED_RATIOS]


def _mixed(side: float, ratio: float) -> tuple[int, int]:
    """Multiples of `LEAST_SIDE` near a rectangle of the area of a square of this side."""
    height, width = (
        LEAST_SIDE * max(1, round(length / LEAST_SIDE))
        for length in (side / math.sqrt(ratio), side * math.sqrt(ratio))
    )
    return height, width


def needed_side(
    image_size: int, zoom: float, framing: str = "random", embedding_size: int | None = None
) -> int:
    """Shorter side, in pixels, to which a picture may be reduced beforehand: no square is enlarged
    because of it.
    """
    largest = max(image_size, embedding_size or 0)
    if framing == "mixed":
        shapes = _largest_shapes(image_size)
        area = max(math.prod(shape) for shape in shapes)
        longest = max(max(shape) for shape in shapes)
        return max(longest, math.ceil(math.sqrt(area * MIXED_STRETCH / zoom)))
    if framing != "random":
        return largest
    # The flattest crop of the smallest area decides.
    return math.ceil(largest * math.sqrt(CROP_RATIO[1] / zoom))


def most_hints(side: int) -> int:
    """Return the largest number of hints in a picture of this side: more would cover it, and teach
    copying only.
    """
    return min(MOST_HINTS, round(MOST_HINTS * side / _WHOLE))


def draw_squares(shape: tuple[int, int], share: float, random: np.random.Generator) -> Picture:
    """Return a picture of zeros, of this height and width, in which the k-th hint's square is k;
    `share` of them have any.

    Half of these have few hints (their number geometric), half any number up to `most_hints`.
    Places lie around the centre or anywhere, squares are 1 to 9 pixels wide, and later ones cover
    earlier ones.
    """
    squares = np.zeros(shape, np.uint8)
    side = min(shape)
    if random.random() >= share:
        return squares
    few = random.random() < 0.5
    count = min(
        most_hints(side),
        int(random.geometric(_GEOMETRIC)) - 1
        if few
        else int(random.integers(0, most_hints(side) + 1)),
    )
    central = random.random(count) < 0.5
    anywhere = random.random((count, 2))
    around = random.normal(0.5, _SPREAD, (count, 2))
    places = np.clip(
        np.where(central[:, None], around, anywhere) * shape, 0, np.array(shape) - 1
    ).astype(int)
    sizes = random.integers(1, min(_LARGEST, side) + 1, count)
    for number, ((row, column), size) in enumerate(
        zip(places.tolist(), sizes.tolist(), strict=True), start=1
    ):
        top, left = max(0, row - size // 2), max(0, column - size // 2)
        squares[top : top + size, left : left + size] = number
    return squares


def _compose(shape: tuple[int, int], zoom: float, ratio: tuple[float, float], flip: bool) -> Any:
    # Read by its import, which otherwise asks PyPI for a newer version.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    crop = albumentations.RandomResizedCrop(
        size=shape,
        scale=(zoom, 1.0),
        ratio=ratio,
        interpolation=cv2.INTER_LINEAR,
        area_for_downscale="image",  # else shrinking aliases
    )
    return albumentations.Compose([crop, albumentations.HorizontalFlip(p=0.5 if flip else 0.0)])
