"""What a source of pictures is, and which split a picture falls into where nobody has said it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Literal, Protocol

from gancolor.images.arrays import Picture

Split = Literal["train", "val", "test", "all"]

SPLITS = ("train", "val", "test")

SPELLINGS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What others call a split, and what it is called here."""

BORROWS = {
    "train": ("train",),
    "val": ("val", "test", "train"),
    "test": ("test", "val", "train"),
    "all": ("all",),
}
"""Where the pictures of a split come from, in this order, when it has none: never does training get
pictures of val or test.
"""


class PictureSource(Protocol):
    """A list of pictures that are read one at a time."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """What to call the picture: for files, the path relative to the root."""

    def read(self, index: int, /) -> Picture:
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


def donor_of(split: str, sizes: Mapping[str, int], free: Mapping[str, int]) -> str | None:
    """The split that gives one picture to `split`, so that no split stays empty; None if that one
    is not empty, or none can.

    `sizes`: pictures of each split. `free`: those of them that only the hash of their names put
    there. The split with most free pictures gives, train before val before test; its last picture
    it gives to train alone.
    """
    donor = max(SPLITS, key=lambda name: (free[name], sizes[name]))
    if sizes[split] or not free[donor] or (split != "train" and sizes[donor] < 2):
        return None
    return donor
