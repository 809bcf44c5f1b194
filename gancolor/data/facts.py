"""What is known of a dataset as a whole: its name, where it comes from, under what terms it may be
used, and what tells its pictures from those of another one, wherever they lie.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.data import catalog, shard_listing
from gancolor.data.folder import FolderSource
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import PictureSource
from gancolor.errors import DataError, MissingExtra, shown
from gancolor.runtime.files import json_of
from gancolor.runtime.remote_files import is_remote

FILES = (shard_listing.LISTING, "set.json")
"""Files that say what a dataset is, beside shards and beside the manifest; the first that is there
counts.
"""

UNKNOWN = "unknown"
"""The licence of a dataset that nothing is known of."""

_LOOKED_INTO = 16  # pictures, spread over the dataset, whose bytes count beside all names


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a dataset.

    `folder`: where its own files are, None if it has none here. `made`: a date. `troubles`: what is
    wrong with its files, in sentences.
    """

    name: str
    title: str
    folder: Path | None
    made: str
    licence: str
    sources: tuple[str, ...]
    troubles: tuple[str, ...]


def find(dataset: str, datasets_root: Path | str | None = None) -> Facts:
    """The facts of a dataset by its own files, else by the catalog. `dataset` as for
    `dataset.open_source`.
    """
    named = (
        catalog.find(dataset, datasets_root) if dataset in catalog.names(datasets_root) else None
    )
    folder = None if named and named.generated else _folder(dataset, datasets_root)
    held, troubles = _ask(dataset) if is_remote(dataset) else _read(folder)
    sources = held.get("sources") or ([named.source] if named else [])
    return Facts(
        name=str(held.get("name") or (dataset if named else _call(dataset, folder))),
        title=str(held.get("title") or (named.title if named else "")),
        folder=folder,
        made=str(held.get("made") or ""),
        licence=str(held.get("licence") or (named.licence if named else UNKNOWN)),
        sources=tuple(map(str, sources)) if isinstance(sources, list) else (str(sources),),
        troubles=troubles,
    )


@dataclass(frozen=True)
class Identity:
    """How many `pictures` a source has, where it lies (`place`, "" if that is nowhere), and its
    `fingerprint`.

    The fingerprint is a SHA-256 of the names in their order and of the bytes of a few pictures, not
    of the place.
    """

    pictures: int
    place: str
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


def identify(source: PictureSource) -> Identity:
    """The identity of a source. It reads all names and a few pictures' bytes; shards are known by
    their list.
    """
    if isinstance(source, FolderSource):
        return Identity(len(source), os.path.realpath(source.root), _digest(_of_folder(source)))
    if isinstance(source, ShardSource):
        first = source.shards[0].file
        place = (
            first.rpartition("/")[0] if is_remote(first) else os.path.realpath(Path(first).parent)
        )
        return Identity(len(source), place, _digest(_of_shards(source)))
    # Painted: it is as its settings say.
    return Identity(len(source), "", _digest([type(source).__name__.encode()]))


def _folder(dataset: str, datasets_root: Path | str | None) -> Path | None:
    try:
        return catalog.locate(dataset, datasets_root)
    except DataError:
        beside = Path(dataset).expanduser().parent  # of a pattern of shards
        return beside if (beside / shard_listing.LISTING).is_file() else None


def _call(dataset: str, folder: Path | None) -> str:
    if folder is None and shard_listing.is_shards(dataset) and not is_remote(dataset):
        folder = Path(dataset).expanduser().parent
    return dataset if folder is None else folder.resolve().name


@functools.lru_cache(maxsize=8)
def _ask(address: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the `shards.json` of remote shards says."""
    try:
        found = shard_listing.find(address)
    except (DataError, MissingExtra) as error:
        return {}, (str(error),)
    return {"name": found.name, "licence": found.licence}, ()


def _read(folder: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    for path in [folder / name for name in FILES] if folder else []:
        try:
            held = json_of(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return {}, (f"{shown(path)} cannot be read: {error}",)
        return (
            (held, ()) if isinstance(held, dict) else ({}, (f"{shown(path)} holds no JSON object",))
        )
    return {}, ()


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
