"""What a source of pictures is, and the split that a picture falls into by its name."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test", "all"]

SPLITS = ("train", "val", "test")


class PictureSource(Protocol):
    """A list of pictures that are read one at a time."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """What to call the picture: for files, the path relative to the root."""

    def read(self, index: int, /) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""


def position_of(relative: str) -> float:
    """Where in [0, 1) a relative path falls by its SHA-256: what decides its split.

    Accented letters count the same however the file system spells them (Unicode NFC).
    """
    spelled = relative if relative.isascii() else unicodedata.normalize("NFC", relative)
    return (
        int.from_bytes(
            hashlib.sha256(spelled.encode("utf-8", "surrogateescape")).digest()[:7], "big"
        )
        / 2**56
    )


def split_of(relative: str, val: float = 0.1, test: float = 0.1) -> Literal["train", "val", "test"]:
    """Split of a relative path; it depends on nothing else, so it is stable when pictures are
    added.

    `val`, `test`: their shares in [0, 1].
    """
    place = position_of(relative)
    return "test" if place < test else "val" if place < test + val else "train"
