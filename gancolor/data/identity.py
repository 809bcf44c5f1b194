"""Which pictures a set has, in a few letters: what tells it from another one wherever it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.data.folder import FolderSource
from gancolor.data.shards.listing import is_remote
from gancolor.data.shards.reading import ShardSource
from gancolor.data.source import PictureSource

_LOOKED_INTO = 16  # pictures, spread over the set, whose bytes count beside all names


@dataclass(frozen=True)
class Identity:
    """How many `pictures` a source has, where it lies (`place`, "" if that is nowhere), and its `fingerprint`.

    The fingerprint is a SHA-256 of the names in their order and of the bytes of a few pictures, not of the place.
    """

    pictures: int
    place: str
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


def identify(source: PictureSource) -> Identity:
    """The identity of a source. It reads all names and a few pictures' bytes; shards are known by their list."""
    if isinstance(source, FolderSource):
        return Identity(len(source), os.path.realpath(source.root), _digest(_of_folder(source)))
    if isinstance(source, ShardSource):
        first = source.shards[0].file
        place = first.rpartition("/")[0] if is_remote(first) else os.path.realpath(Path(first).parent)
        return Identity(len(source), place, _digest(_of_shards(source)))
    return Identity(len(source), "", _digest([type(source).__name__.encode()]))  # painted: it is as its settings say


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\0")
    return digest.hexdigest()


def _of_folder(source: FolderSource) -> Iterable[bytes]:
    outside = []
    for name in source.paths:
        if os.path.isabs(name):
            outside.append(name)
        else:
            yield name.encode("utf-8", "surrogateescape")
    common = os.path.commonpath([os.path.dirname(name) for name in outside]) if outside else ""
    for name in outside:  # they may have moved together
        yield os.path.relpath(name, common).encode("utf-8", "surrogateescape")
    count = min(len(source), _LOOKED_INTO)
    for place in range(count):
        yield _sha256(source.root / source.paths[place * len(source) // count])


def _sha256(path: Path) -> bytes:
    """Of a file's bytes; nothing for one that cannot be read."""
    if not path.is_file():  # a pipe would be waited for
        return b""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _of_shards(source: ShardSource) -> Iterable[bytes]:
    for shard in source.shards:
        name = os.path.basename(shard.file)
        yield f"{name}\t{shard.split}\t{shard.pictures}\t{shard.bytes}\t{shard.sha256}".encode(
            "utf-8", "surrogateescape"
        )
