"""One training picture: read, cropped, aged, with the places of its hints, as tensors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gancolor import images
from gancolor.config import TrainConfig
from gancolor.data import aging
from gancolor.data.augment import Augment
from gancolor.data.hint_squares import draw_squares
from gancolor.data.source import PictureSource
from gancolor.errors import DataError

_FOR_HINTS = 5  # tells their random numbers from those of crops


class TrainingPictures(Dataset[dict[str, Any]]):
    """Augmented pictures by (position, index): where in the run, which picture of the source."""

    def __init__(self, source: PictureSource, augmentation: Augment, config: TrainConfig) -> None:
        self.source, self.augmentation, self.config = source, augmentation, config
        self._broken: dict[int, tuple[str, str]] = {}  # pictures met by this process: their names, and why

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """`rgb`: uint8 (3, S, S); where asked for, `edges` and `squares`: uint8 (1, S, S), `copy`: uint8 (3, E, E) with
        its `key`, and `aged`: uint8 (1, S, S) with `is_aged`; `broken`, `reasons`: see `Batch`. A broken picture is
        replaced by the next good one; DataError if there is none.
        """
        position, index = key
        picture, broken = self._read_good(index)
        square, copy = self.augmentation.views(picture, self.config.seed, position)
        item: dict[str, Any] = {"rgb": to_tensor(square)}
        if self.config.condition == "edges":
            item["edges"] = to_tensor(images.edges(square))
        if self.config.hints > 0:
            random = np.random.default_rng([self.config.seed, position, _FOR_HINTS])
            item["squares"] = to_tensor(draw_squares(len(square), self.config.hints, random))
        if copy is not None:
            item |= {"copy": to_tensor(copy), "key": content_key(copy)}
        if self.config.old_photos > 0:
            aged = aging.draw(square, self.config.old_photos, self.config.seed, position)
            item["is_aged"] = torch.tensor(aged is not None)
            item["aged"] = to_tensor(np.zeros(square.shape[:2], np.uint8) if aged is None else aged)
        return item | {"broken": [name for name, _ in broken], "reasons": [reason for _, reason in broken]}

    def _read_good(self, index: int) -> tuple[NDArray[np.uint8], list[tuple[str, str]]]:
        broken: list[tuple[str, str]] = []
        for candidate in ((index + offset) % len(self.source) for offset in range(len(self.source))):
            if candidate not in self._broken:
                try:
                    return self.source.read(candidate), broken
                except DataError as error:
                    self._broken[candidate] = (self.source.name(candidate), str(error))
            broken.append(self._broken[candidate])
        raise DataError(
            f"dataset must keep a picture that can be read, got none of {len(self.source)}; is its disk there?"
        )


def content_key(copy: NDArray[np.uint8]) -> str:
    """SHA-256 of a picture's shape and bytes: what the embedding of exactly these pixels is kept under."""
    return hashlib.sha256(repr(copy.shape).encode() + np.ascontiguousarray(copy).tobytes()).hexdigest()


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """A picture, uint8 (H, W) or (H, W, 3), as a tensor with its channels first, (1 or 3, H, W)."""
    channels_first = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(channels_first))
