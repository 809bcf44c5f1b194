"""Where each picture's record is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

NOWHERE = -1

_RECENT = 4096  # places kept in a dict before they are merged into the sorted arrays


class Index:
    """Where records are: the key folded to 8 bytes -> shard << 32 | record, 16 bytes a picture.

    Of two keys that fold alike the first is known, the other never: it is computed each time.
    """

    def __init__(self) -> None:
        self._folded = np.empty(0, np.uint64)  # sorted
        self._places = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}  # not yet in the arrays

    def __len__(self) -> int:
        return len(self._folded) + len(self._recent)

    def find(self, folded: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the place of each, or nowhere."""
        recent = self._recent
        places = np.array([recent.get(short, NOWHERE) for short in folded.tolist()], np.int64)
        if len(self._folded):
            at = np.searchsorted(self._folded, folded).clip(max=len(self._folded) - 1)
            places = np.where(self._folded[at] == folded, self._places[at], places)
        return places

    def add(self, folded: NDArray[np.uint64], places: NDArray[np.int64]) -> None:
        """Add those that are not known."""
        new = self.find(folded) == NOWHERE
        for short, place in zip(folded[new].tolist(), places[new].tolist(), strict=True):
            self._recent.setdefault(short, place)
        if len(self._recent) > max(_RECENT, len(self._folded) // 8):
            self._merge()

    def forget(self, folded: NDArray[np.uint64]) -> None:
        """Take them out again."""
        self._merge()
        stay = ~np.isin(self._folded, folded)
        self._folded, self._places = self._folded[stay], self._places[stay]

    def forget_shards(self, numbers: Sequence[int]) -> None:
        """Take out whatever is in these shards."""
        self._merge()
        stay = ~np.isin(self._places >> 32, numbers)
        self._folded, self._places = self._folded[stay], self._places[stay]

    def _merge(self) -> None:
        count = len(self._recent)
        folded = np.concatenate([self._folded, np.fromiter(self._recent.keys(), np.uint64, count)])
        places = np.concatenate([self._places, np.fromiter(self._recent.values(), np.int64, count)])
        order = np.argsort(folded)
        self._folded, self._places, self._recent = folded[order], places[order], {}


def digests_of(keys: Iterable[str]) -> NDArray[np.uint8]:
    """Return keys as (N, 32) bytes."""
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, 32)


def fold(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return digests (N, 32) folded to 8 bytes each."""
    words = np.ascontiguousarray(digests).view("<u8").astype(np.uint64)
    return words[:, 0] ^ words[:, 1] ^ words[:, 2] ^ words[:, 3]
