"""Embeddings of pictures, kept on disk: what a frozen network says of a picture never changes.

A folder holds the embeddings of one network. Each process appends to a shard file of its own, so that any number of
them write at once without a lock, and reads what all have finished. A shard is a header, one line of JSON, and records
of equal size: the picture's key (32 bytes), its scores (float16), and their CRC-32.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1  # raised when records or what the scores are of (gray conversion, normalization) change
LARGEST = float(np.finfo(np.float16).max)  # 65504
SUFFIX = ".features"

_BLOCK = 1 << 22  # bytes read at once
_NOWHERE = -1
_RECENT = 4096  # places kept in a dict before they are merged into the sorted arrays

_DAMAGED = "embeddings in %s: %d damaged or foreign records or files are left out and computed again"
_BROKEN = "embeddings in %s cannot be kept (%s); going on without, set $GANCOLOR_CACHE to a folder that can be written"

log = logging.getLogger("gancolor")


def default_folder() -> Path:
    """Return where embeddings are kept: in $GANCOLOR_CACHE, else in `gancolor` in the user's cache folder."""
    if given := os.environ.get("GANCOLOR_CACHE"):
        return Path(given) / "embeddings"
    own = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        user = Path(own) if own else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:  # a user without a home, as in some containers
        user = Path(tempfile.gettempdir())
    return user / "gancolor" / "embeddings"


@dataclass
class _Shard:
    """A file of records; `taken` of them have been looked at. A `closed` one is not looked at again."""

    path: Path
    taken: int = 0
    closed: bool = False


class FeatureCache:
    """The scores, float16 (width,), of pictures by their keys, SHA-256 in hexadecimal.

    `identity` names the network and its weights; files of another identity, width or format are left out. So are
    damaged records: the log says it once, and the next `put` of their keys mends it. Where the disk cannot be read or
    written, the log says it once, and the cache goes on without. Not for several threads at once.
    """

    def __init__(self, folder: Path, width: int, identity: str) -> None:
        self.folder = folder
        self._record = np.dtype([("key", "u1", (32,)), ("scores", "<f2", (width,)), ("crc", "<u4")])
        line = json.dumps({"gancolor embeddings": FORMAT, "identity": identity, "width": width})
        self._header = line.encode() + b"\n"
        self._index = _Index()
        self._shards: list[_Shard] = []
        self._numbers: dict[str, int] = {}  # of the shards, by file name
        self._owner, self._own = 0, _NOWHERE  # the process that writes, and its shard
        self._writable = True
        self._said: set[str] = set()
        self._catch_up()

    def __len__(self) -> int:
        """How many pictures are known."""
        return len(self._index)

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        """Return the scores of those of `keys` that are known, finished records of other processes included."""
        found = self._read(keys)
        missing = [key for key in keys if key not in found]
        if missing and self._catch_up():
            found |= self._read(missing)
        return found

    def put(self, features: Mapping[str, NDArray[Any]]) -> None:
        """Keep scores (width,) by key; a known key is left as it is. ValueError for scores that float16 cannot hold."""
        digests = _digests(features)
        known = self._index.find(_fold(digests)) != _NOWHERE
        if not (fresh := [key for key, there in zip(features, known, strict=True) if not there]):
            return
        with np.errstate(over="ignore"):
            scores = np.stack([features[key] for key in fresh]).astype(np.float16)
        if not np.isfinite(scores).all():
            raise ValueError(f"scores to be cached must be finite and at most {LARGEST:.0f}")
        records = np.zeros(len(fresh), self._record)
        records["key"], records["scores"] = digests[~known], scores
        records["crc"] = _checksums(records)
        first = self._append(records.tobytes())
        if first != _NOWHERE:
            self._index.add(_fold(records["key"]), first + np.arange(len(fresh)))

    def close(self) -> None:
        """End the shard that this process writes, if any; a later `put` begins another."""
        if self._own != _NOWHERE:
            self._shards[self._own].closed = self._owner == os.getpid()
            self._owner, self._own = 0, _NOWHERE

    def _read(self, keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        digests = _digests(keys)
        folded = _fold(digests)
        places = self._index.find(folded)
        found: dict[str, NDArray[np.float16]] = {}
        damaged: list[int] = []
        for number in np.unique(places[places != _NOWHERE] >> 32).tolist():
            rows = np.flatnonzero(places >> 32 == number).tolist()
            records = self._read_records(self._shards[number].path, places[rows] & 0xFFFFFFFF)
            for row, record in zip(rows, records, strict=True):
                if record is None:
                    damaged.append(row)
                elif (record["key"][0] == digests[row]).all():  # else another key that folds alike
                    found[keys[row]] = record["scores"][0]
        if damaged:
            self._index.forget(folded[damaged])
            self._say(_DAMAGED, len(damaged))
        return found

    def _read_records(self, path: Path, positions: NDArray[np.int64]) -> list[NDArray[Any] | None]:
        """Return records of a shard; None for one that is gone or damaged."""
        records: list[NDArray[Any] | None] = []
        size = self._record.itemsize
        try:
            with path.open("rb", buffering=0) as file:
                for position in positions.tolist():
                    file.seek(len(self._header) + position * size)
                    content = file.read(size)
                    record = np.frombuffer(content, self._record, len(content) // size)
                    records.append(record if len(record) and _checksums(record)[0] == record["crc"][0] else None)
        except OSError:
            records += [None] * (len(positions) - len(records))
        return records

    def _catch_up(self) -> bool:
        """Take in what processes have finished since the last time; say whether there was anything."""
        before, damaged = len(self._index), 0
        try:
            with os.scandir(self.folder) as entries:
                files = sorted((e.name, e.stat().st_size) for e in entries if e.name.endswith(SUFFIX) and e.is_file())
        except FileNotFoundError:  # not begun
            return False
        except OSError as error:
            self._say(_BROKEN, error.strerror or str(error))
            return False
        for name, size in files:
            if name not in self._numbers:
                self._numbers[name] = len(self._shards)
                self._shards.append(_Shard(self.folder / name))
            number = self._numbers[name]
            if not self._shards[number].closed and number != self._own:
                damaged += self._take_in(number, size)
        self._say(_DAMAGED, damaged)
        return len(self._index) > before

    def _take_in(self, number: int, size: int) -> int:
        """Index the new whole records of a shard of `size` bytes; return how many are damaged, 1 for a foreign file.

        A record that ends too soon is being written, or its process was killed: it is waited for without a word.
        """
        shard, record = self._shards[number], self._record.itemsize
        if shard.taken and (size - len(self._header)) // record <= shard.taken:
            return 0
        damaged, block = 0, max(1, _BLOCK // record) * record
        try:
            with shard.path.open("rb") as file:
                if file.read(len(self._header)) != self._header:
                    shard.closed = True
                    return 1
                file.seek(shard.taken * record, os.SEEK_CUR)
                while whole := len(content := file.read(block)) // record:
                    records = np.frombuffer(content, self._record, whole)
                    good = _checksums(records) == records["crc"]
                    places = (number << 32) + shard.taken + np.flatnonzero(good)
                    self._index.add(_fold(records["key"][good]), places)
                    shard.taken += len(records)
                    damaged += len(records) - len(places)
                    if len(content) < block:  # it may have grown since: the next read would begin within a record
                        break
        except OSError as error:
            self._say(_BROKEN, error.strerror or str(error))
        return damaged

    def _append(self, content: bytes) -> int:
        """Write records to this process's shard; return the place of the first, or nowhere if the disk refuses."""
        if not self._writable:
            return _NOWHERE
        try:
            if self._owner != os.getpid() or not self._shards[self._own].path.exists():
                self._begin()  # a forked process begins its own shard, and so does one whose folder was deleted
            with self._shards[self._own].path.open("r+b", buffering=0) as file:
                file.seek(0, os.SEEK_END)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            self._writable = False  # a part of a record may be there: nothing may follow it
            self._say(_BROKEN, error.strerror or str(error))
            return _NOWHERE
        self._shards[self._own].taken += len(content) // self._record.itemsize
        return (self._own << 32) + self._shards[self._own].taken - len(content) // self._record.itemsize

    def _begin(self) -> None:
        """Make a new shard; others see it with its header whole, or not at all."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
        aside = path.with_suffix(".new")
        aside.write_bytes(self._header)
        aside.rename(path)
        self._numbers[path.name] = self._own = len(self._shards)
        self._shards.append(_Shard(path))
        self._owner = os.getpid()

    def _say(self, message: str, what: int | str) -> None:
        if what and message not in self._said:
            self._said.add(message)
            log.warning(message, self.folder, what)


class _Index:
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
        places = np.array([recent.get(short, _NOWHERE) for short in folded.tolist()], np.int64)
        if len(self._folded):
            at = np.searchsorted(self._folded, folded).clip(max=len(self._folded) - 1)
            places = np.where(self._folded[at] == folded, self._places[at], places)
        return places

    def add(self, folded: NDArray[np.uint64], places: NDArray[np.int64]) -> None:
        """Add those that are not known."""
        new = self.find(folded) == _NOWHERE
        for short, place in zip(folded[new].tolist(), places[new].tolist(), strict=True):
            self._recent.setdefault(short, place)
        if len(self._recent) > max(_RECENT, len(self._folded) // 8):
            self._merge()

    def forget(self, folded: NDArray[np.uint64]) -> None:
        """Take them out again."""
        self._merge()
        stay = ~np.isin(self._folded, folded)
        self._folded, self._places = self._folded[stay], self._places[stay]

    def _merge(self) -> None:
        count = len(self._recent)
        folded = np.concatenate([self._folded, np.fromiter(self._recent.keys(), np.uint64, count)])
        places = np.concatenate([self._places, np.fromiter(self._recent.values(), np.int64, count)])
        order = np.argsort(folded)
        self._folded, self._places, self._recent = folded[order], places[order], {}


def _digests(keys: Iterable[str]) -> NDArray[np.uint8]:
    """Return keys as (N, 32) bytes."""
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, 32)


def _fold(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    words = np.ascontiguousarray(digests).view("<u8").astype(np.uint64)
    return words[:, 0] ^ words[:, 1] ^ words[:, 2] ^ words[:, 3]


def _checksums(records: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record's key and scores."""
    size = records.dtype.itemsize
    view = memoryview(records.tobytes())
    sums = (zlib.crc32(view[start : start + size - 4]) for start in range(0, len(view), size))
    return np.fromiter(sums, np.uint32, len(records))
