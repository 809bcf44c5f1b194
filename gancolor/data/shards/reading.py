"""Single pictures of a set in shards, for validation and evaluation; training reads them as a stream (`streaming`)."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gancolor import images
from gancolor.data.folder import Split
from gancolor.data.shards import listing
from gancolor.data.shards.listing import Shard
from gancolor.data.shards.members import Member, cache_folder
from gancolor.download import fetch
from gancolor.errors import DataError, shown

is_shards = listing.is_shards

# As in folders: never val or test pictures in training.
_BORROW = {"train": ("train",), "val": ("val", "test", "train"), "test": ("test", "val", "train"), "all": ("all",)}
_KEPT_OPEN = 16  # shards whose members are held in memory

log = logging.getLogger("gancolor")


class ShardSource:
    """Pictures of one split in shards. Remote shards are fetched into the cache folder when a picture is read."""

    def __init__(self, shards: Sequence[Shard], split: str) -> None:
        self.shards, self.split = tuple(shards), split
        self._ends = np.cumsum([shard.pictures for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        """The path that the picture had when it was packed, else its shard and key."""
        shard, path, member = self._find(index)
        text = _bytes(path, member.text_offset, member.text_size) if member.text_size else None
        return title(shard, member.key, member.suffix, text)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken or its shard cannot be had."""
        _, path, member = self._find(index)
        name = f"{path}/{member.key}.{member.suffix}"
        return images.decode_rgb(_bytes(path, member.offset, member.size), name)

    def identity(self, index: int) -> str:
        """What is the same only for the same picture; reads no shard."""
        number, position = self._locate(index)
        return f"{self.shards[number].sha256 or self.shards[number].file}:{self.split}:{position}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + self.shards[number].pictures

    def _find(self, index: int) -> tuple[Shard, Path, Member]:
        number, position = self._locate(index)
        shard = self.shards[number]
        path, members = _open(shard)
        if position >= len(members):
            raise DataError(
                f"shard must hold {shard.pictures} pictures, got {len(members)} in {shown(path)}; pack the set again"
            )
        return shard, path, members[position]


def open_shards(dataset: str, split: Split) -> ShardSource:
    """Pictures of one split of shards: a path or address, with braces for several of them, or a folder of them.

    A split without pictures borrows another one's, as in folders. DataError if there are none, or a shard is missing.
    """
    found = listing.find(dataset)
    for wanted in _BORROW[split]:
        if shards := listing.choose(found.shards, wanted):
            if wanted != split:
                log.warning("%s has no pictures of the split %s: it uses those of %s", dataset, split, wanted)
            return ShardSource(shards, wanted)
    raise DataError(f"split {split} must have a picture, got none in {shown(dataset)}; name more shards")


def title(shard: Shard, key: str, suffix: str, text: bytes | None) -> str:
    """What to call a picture: by the `path` in the JSON file beside it, else by its shard and key."""
    try:
        return str(json.loads(text or b"{}")["path"])
    except (ValueError, KeyError, TypeError):  # none, or another kind of text
        return f"{shard.file.rpartition('/')[2]}/{key}.{suffix}"


@functools.lru_cache(maxsize=_KEPT_OPEN)
def _open(shard: Shard) -> tuple[Path, list[Member]]:
    if listing.is_remote(shard.file):
        folder = hashlib.sha256(shard.file.encode()).hexdigest()[:16]
        path = fetch(shard.file, cache_folder() / folder / f"{shard.sha256[:16]}.tar", shard.sha256)
    else:
        path = Path(shard.file)
    return path, listing.members_of(path, shard.split, shard.hashed)


def _bytes(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"shard must be readable, got {shown(path)}: {error.strerror}; is its disk there?") from None
