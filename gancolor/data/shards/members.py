"""Where the pictures of a tar file lie in it, found by its headers alone and kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gancolor import images
from gancolor.data.strict_tar import StrictInfo
from gancolor.errors import DataError, shown
from gancolor.files import cache_root, regular
from gancolor.photographs import kinds
from gancolor.texts import json_of

_FORMAT = 1  # raised when what is kept of a shard changes
_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in kinds.SUFFIXES)
# WebDataset's rule: a sample's key is all before the first dot of the file's name; files named __x__ are not looked at.
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"__[^/]*__($|/)")


class Member(NamedTuple):
    """A picture in a shard: its key and suffix (without the dot, in lower case), and where it lies, in bytes.

    `start`: header of its sample's first file; `offset`, `size`: the picture's bytes; `text_offset`, `text_size`: those
    of the JSON file beside it, 0 if there is none.
    """

    key: str
    suffix: str
    start: int
    offset: int
    size: int
    text_offset: int
    text_size: int


def cache_folder() -> Path:
    """Where shards from elsewhere, and what is known of foreign ones, are kept."""
    return cache_root() / "shards"


def picture_suffix(suffixes: Any) -> str | None:
    """The suffix of a sample's picture among those of its files, in their order; None for a sample without one."""
    return next((suffix for suffix in suffixes if suffix in _SUFFIXES), None)


def find_members(path: Path) -> list[Member]:
    """The pictures of a shard in their order. DataError if it is no whole, plain tar file."""
    try:
        status = regular(path)
        stamp = [_FORMAT, status.st_size, status.st_mtime_ns]
        place = cache_folder() / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json")
        if (kept := _kept(place, stamp)) is not None:
            return kept
        found = list(_scan(path, status.st_size))
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"shard must be a readable tar file, got {shown(path)}: {error}; replace it") from None
    with contextlib.suppress(DataError):  # without a cache it is found again each time
        images.write_file(place, json.dumps({"shard": stamp, "members": found}).encode())
    return found


def _kept(place: Path, stamp: list[int]) -> list[Member] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json_of(place.read_text(encoding="utf-8"))
        if known["shard"] == stamp:
            return [Member(*row) for row in known["members"]]
    return None


def _scan(path: Path, size: int) -> Iterator[Member]:
    key, start = "", 0
    files: dict[str, tuple[int, int]] = {}  # of the sample so far: where each suffix's bytes lie
    with tarfile.open(path, "r:", tarinfo=StrictInfo) as shard:
        while (member := shard.next()) is not None:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError("it is cut off")
            named = _NAME.match(member.name)
            if not member.isreg() or _META.match(member.name) or named is None:
                continue
            if named[1] != key:
                yield from _sample(key, start, files)
                key, start, files = named[1], member.offset, {}
            files[named[2].lower()] = (member.offset_data, member.size)
    yield from _sample(key, start, files)


def _sample(key: str, start: int, files: dict[str, tuple[int, int]]) -> Iterator[Member]:
    suffix = picture_suffix(files)
    if suffix is not None:
        yield Member(key, suffix, start, *files[suffix], *files.get("json", (0, 0)))
