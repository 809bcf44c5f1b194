"""Single pictures of a dataset in shards, for validation and evaluation; training reads them as a
stream (`shard_stream`).
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gancolor.data import shard_listing
from gancolor.data.shard_listing import Member, Shard, shard_cache
from gancolor.data.source import BORROWS, Split
from gancolor.errors import DataError, shown
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.download import fetch
from gancolor.runtime.files import json_of
from gancolor.runtime.remote_files import is_remote

_KEPT_OPEN = 16  # shards whose members are held in memory

log = logging.getLogger("gancolor")


class ShardSource:
    """Pictures of one split in shards. Remote shards are fetched into the cache folder when a
    picture is read.

    `origin`: what tells the pack that they are of: its plan, or the checksums or files of all its
    shards. Identities tell the pictures of packs apart whose origins are parts of one another.
    """

    def __init__(
        self, shards: Sequence[Shard], split: str, origin: frozenset[str] = frozenset()
    ) -> None:
        self.shards, self.split, self.origin = tuple(shards), split, origin
        self._ends = np.cumsum([shard.pictures for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        """The path that the picture had when it was packed, else its shard and key."""
        return self._about(index).name

    def read(self, index: int) -> Picture:
        """The picture as uint8 RGB (H, W, 3). DataError if it or its shard cannot be read."""
        _, path, member = self._find(index)
        name = f"{path}/{member.key}.{member.suffix}"
        return decode(_bytes(path, member.offset, member.size), name, self._about(index).sha256)

    def identity(self, index: int) -> str:
        """What only the same picture has, in whatever split; reads no shard that is listed."""
        number, position = self._locate(index)
        shard = self.shards[number]
        return f"{_place(shard)}:{self._find(index)[2].key if shard.hashed else position}"

    def _about(self, index: int) -> About:
        shard, path, member = self._find(index)
        text = _bytes(path, member.text_offset, member.text_size) if member.text_size else None
        return about(shard, member.key, member.suffix, text)

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + self.shards[number].pictures

    def _find(self, index: int) -> tuple[Shard, Path, Member]:
        number, position = self._locate(index)
        shard = self.shards[number]
        path, members = open_shard(shard)
        if position >= len(members):
            raise DataError(
                f"shard must hold {shard.pictures} pictures, got {len(members)} in {shown(path)};"
                " pack the set again"
            )
        return shard, path, members[position]


def open_shards(dataset: str, split: Split) -> ShardSource:
    """Pictures of one split of shards: a path or address, with braces for several of them, or a
    folder of them.

    A split without pictures borrows another one's, as in folders. DataError if there are none, or a
    shard is missing.
    """
    found = shard_listing.find(dataset)
    for wanted in BORROWS[split]:
        if shards := shard_listing.choose(found.shards, wanted):
            if wanted != split:
                where = shard_listing.say_elsewhere(found, split)
                log.warning(
                    "%s has no pictures of the split %s: it uses those of %s%s",
                    shown(dataset),
                    split,
                    wanted,
                    where,
                )
            origin = (
                [found.plan]
                if found.plan
                else [_place(shard) for shard in (*found.shards, *found.others)]
            )
            return ShardSource(shards, wanted, frozenset(origin))
    where = shard_listing.say_elsewhere(found, split) or "; name more shards"
    raise DataError(f"split {split} must have a picture, got none in {shown(dataset)}{where}")


class About(NamedTuple):
    """What to call a picture in a shard, and the checksum of its file; "" if none is known."""

    name: str
    sha256: str


def about(shard: Shard, key: str, suffix: str, text: bytes | None) -> About:
    """What the JSON file beside a picture tells of it; without a `path` it is called by its shard
    and key.
    """
    try:
        told = json_of(text or b"{}")
        told = told if isinstance(told, dict) else {}
    except ValueError:
        told = {}
    # In the shards of others it may be the checksum of what the picture was made of.
    checksum = told.get("sha256", "") if shard.sha256 else ""
    return About(
        str(told.get("path") or f"{shard.file.rpartition('/')[2]}/{key}.{suffix}"), str(checksum)
    )


def decode(data: bytes, name: str, sha256: str) -> Picture:
    """A picture's file as uint8 RGB (H, W, 3). DataError if it is broken, or not the one that was
    packed.
    """
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(
            f"picture must be readable, got {shown(name)}: it is not as it was packed; copy its"
            " shard again"
        )
    return arrays.decode_rgb(data, name)


def _place(shard: Shard) -> str:
    return shard.sha256 or os.path.realpath(shard.file)


@functools.lru_cache(maxsize=_KEPT_OPEN)
def open_shard(shard: Shard) -> tuple[Path, list[Member]]:
    """Return a shard's file, fetched if it is remote, and its pictures; the last few are known for
    the next call. DataError if the file cannot be had.
    """
    if is_remote(shard.file):
        folder = hashlib.sha256(shard.file.encode()).hexdigest()[:16]
        path = fetch(shard.file, shard_cache() / folder / f"{shard.sha256[:16]}.tar", shard.sha256)
    else:
        path = Path(shard.file)
    return path, shard_listing.members_of(path, shard.split, shard.hashed)


def _bytes(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(
            f"shard must be readable, got {shown(path)}: {error.strerror}; is its disk there?"
        ) from None
