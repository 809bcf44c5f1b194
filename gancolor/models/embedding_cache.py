"""Where each picture's record is.

Shard files: their checksums, their lock, and how a damaged one is mended.

Embeddings of pictures, kept on disk: what a frozen network says of a picture never changes.

A folder holds the embeddings of one network. Each process appends to a shard file of its own, so
that any number of them write at once, and reads what all have finished. A shard is a header, one
line of JSON, and records of equal size: the picture's key (32 bytes), its scores (float16), and
their CRC-32.

A shard in which a whole record or the header is damaged is mended by the process that finds it
(`shards.mend`): a new shard with the good records takes its place. Who appends and who mends locks
the file meanwhile (where there are no locks, only a file that nobody wrote for ten minutes is
mended), a process whose own shard is gone begins another, and one that knows places in a file that
is gone looks for the records in the others. A last record that ends too soon is being written, or
its process was killed: that is no damage. Another network's shard is left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.runtime.files import json_of

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


fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SUFFIX = ".features"
BLOCK = 1 << 22  # bytes read at once

_SET_ASIDE = ".damaged"
_IDLE = (
    600.0  # seconds since the last write after which nobody writes, where files cannot be locked
)
_NEAR = 4  # bytes in which a damaged header may differ from the right one


def checksums(records: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record's key and scores."""
    size = records.dtype.itemsize
    view = memoryview(records.tobytes())
    sums = (zlib.crc32(view[start : start + size - 4]) for start in range(0, len(view), size))
    return np.fromiter(sums, np.uint32, len(records))


def lock(file: IO[bytes], *, wait: bool) -> bool:
    """Lock an open shard until it is closed; say whether this process may change it.

    Where nothing can be locked, one that waits may, and another only when the file was not written
    for ten minutes.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # some network disks
            pass
    return wait or time.time() - os.fstat(file.fileno()).st_mtime > _IDLE


def is_foreign(found: bytes, header: bytes) -> bool:
    """Whether what begins a file is a whole header of another format, width or network, and no
    damaged one of ours.

    An identity that differs in few bytes is taken for damage: a folder holds one network's shards.
    """
    told, right = _read_header(found), json_of(header)
    if told is None:
        return False
    return not _is_near(found, header) or {**told, "identity": right["identity"]} != right


def mend(path: Path, header: bytes, record: np.dtype[Any]) -> bool:
    """Put a shard of the good records in place of a damaged one; say whether it was done.

    Not while another process appends to it or mends it. The new one is there, whole, before the old
    one goes; its name comes from its content, so that a second attempt after a kill makes no second
    copy. A file whose header does not tell whose scores it holds is set aside as *.damaged. OSError
    where the disk refuses: then all is as it was.
    """
    with path.open("r+b") as file:
        if not lock(file, wait=False) or not path.exists():
            return False
        found = file.read(len(header))
        ours = found == header or (_is_near(found, header) and _read_header(found) is None)
        aside = path.with_name(f"{secrets.token_hex(8)}.new")
        new = None
        try:
            if ours:
                name, kept, lost = _copy_good(file, aside, header, record)
                if not lost and found == header:  # it was being written when it looked damaged
                    return False
                if kept:
                    new = aside.replace(path.with_name(name))
                    _flush_folder(path.parent)
            if fcntl is None:
                file.close()  # Windows removes no open file
            path.unlink() if ours else path.replace(path.with_name(path.name + _SET_ASIDE))
        except OSError:
            if new is not None:
                new.unlink(missing_ok=True)
            raise
        finally:
            aside.unlink(missing_ok=True)
    return True


def _copy_good(
    source: IO[bytes], target: Path, header: bytes, record: np.dtype[Any]
) -> tuple[str, int, int]:
    """Write the good records that follow to a new shard; return a name for it, how many they are,
    how many are not.
    """
    kept = lost = 0
    digest = hashlib.sha256(header)
    with target.open("xb") as file:
        file.write(header)
        while (
            whole := len(content := source.read(max(1, BLOCK // record.itemsize) * record.itemsize))
            // record.itemsize
        ):
            records = np.frombuffer(content, record, whole)
            good = records[checksums(records) == records["crc"]]
            kept, lost = kept + len(good), lost + whole - len(good)
            digest.update(good.tobytes())
            file.write(good.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()[:16] + SUFFIX, kept, lost


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _is_near(found: bytes, header: bytes) -> bool:
    return (
        len(found) == len(header)
        and sum(a != b for a, b in zip(found, header, strict=True)) <= _NEAR
    )


def _read_header(found: bytes) -> dict[str, Any] | None:
    """Return what a whole header says; nothing of it where it is longer than `found`; None if it is
    no header.
    """
    line, end, _ = found.partition(b"\n")
    if not end and found.startswith(b'{"gancolor embeddings": '):
        return {}
    try:
        told = json_of(line)
    except ValueError:
        return None
    return (
        told
        if isinstance(told, dict) and set(told) == {"gancolor embeddings", "identity", "width"}
        else None
    )


FORMAT = 1  # raised when records or what the scores are of (gray conversion, normalization) change
LARGEST = float(np.finfo(np.float16).max)  # 65504

_DAMAGED = (
    "embeddings in %s: %d damaged or foreign records or files are left out and computed again"
)
_BROKEN = (
    "embeddings in %s cannot be kept (%s); going on without, set $GANCOLOR_CACHE to a folder that"
    " can be written"
)

log = logging.getLogger("gancolor")


@dataclass
class _Shard:
    """A file of records; `taken` of them have been looked at. A `closed` one is not looked at
    again.
    """

    path: Path
    taken: int = 0
    closed: bool = False
    foreign: bool = False


class FeatureCache:
    """The scores, float16 (width,), of pictures by their keys, SHA-256 in hexadecimal.

    `identity` names the network and its weights; files of another identity, width or format are
    left out. So are damaged records: the log says it once, their shard is mended if the disk allows
    it, and the next `put` of their keys brings them back. Where the disk cannot be read or written,
    the log says it once, and the cache goes on without. Not for several threads at once.
    """

    def __init__(self, folder: Path, width: int, identity: str) -> None:
        self.folder = folder
        self._record = np.dtype([("key", "u1", (32,)), ("scores", "<f2", (width,)), ("crc", "<u4")])
        line = json.dumps({"gancolor embeddings": FORMAT, "identity": identity, "width": width})
        self._header = line.encode() + b"\n"
        self._index = Index()
        self._shards: list[_Shard] = []
        self._numbers: dict[str, int] = {}  # of the shards, by file name
        self._owner, self._own = 0, NOWHERE  # the process that writes, and its shard
        self._writable = True
        self._said: set[str] = set()
        self._catch_up()

    def __len__(self) -> int:
        """How many pictures are known."""
        return len(self._index)

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        """Return the scores of those of `keys` that are known, finished records of other processes
        included.
        """
        found = self._read(keys)
        missing = [key for key in keys if key not in found]
        if missing and self._catch_up():
            found |= self._read(missing)
        return found

    def put(self, features: Mapping[str, NDArray[Any]]) -> None:
        """Keep scores (width,) by key; a known key is left as it is. ValueError for scores that
        float16 cannot hold.
        """
        digests = digests_of(features)
        known = self._index.find(fold(digests)) != NOWHERE
        if not (fresh := [key for key, there in zip(features, known, strict=True) if not there]):
            return
        with np.errstate(over="ignore"):
            scores = np.stack([features[key] for key in fresh]).astype(np.float16)
        if not np.isfinite(scores).all():
            raise ValueError(f"scores to be cached must be finite and at most {LARGEST:.0f}")
        records = np.zeros(len(fresh), self._record)
        records["key"], records["scores"] = digests[~known], scores
        records["crc"] = checksums(records)
        first = self._append(records.tobytes())
        if first != NOWHERE:
            self._index.add(fold(records["key"]), first + np.arange(len(fresh)))

    def close(self) -> None:
        """End the shard that this process writes, if any; a later `put` begins another."""
        if self._own != NOWHERE:
            self._shards[self._own].closed = self._owner == os.getpid()
            self._owner, self._own = 0, NOWHERE

    def _read(self, keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        digests = digests_of(keys)
        folded = fold(digests)
        places = self._index.find(folded)
        found: dict[str, NDArray[np.float16]] = {}
        gone, damaged = list[int](), list[int]()
        for number in np.unique(places[places != NOWHERE] >> 32).tolist():
            rows = np.flatnonzero(places >> 32 == number).tolist()
            try:
                records = self._read_records(self._shards[number].path, places[rows] & 0xFFFFFFFF)
            except (
                FileNotFoundError
            ):  # mended by another process, or deleted: `_catch_up` looks elsewhere
                gone += rows
                continue
            for row, record in zip(rows, records, strict=True):
                if record is None:
                    damaged.append(row)
                elif (record["key"][0] == digests[row]).all():  # else another key that folds alike
                    found[keys[row]] = record["scores"][0]
        if gone or damaged:
            self._index.forget(folded[gone + damaged])
            self._say(_DAMAGED, len(damaged))
            for number in np.unique(places[damaged] >> 32).tolist():
                self._mend(number)
        return found

    def _read_records(self, path: Path, positions: NDArray[np.int64]) -> list[NDArray[Any] | None]:
        """Return records of a shard; None for one that is damaged. FileNotFoundError if the shard
        is gone.
        """
        records: list[NDArray[Any] | None] = []
        size = self._record.itemsize
        try:
            with path.open("rb", buffering=0) as file:
                for position in positions.tolist():
                    file.seek(len(self._header) + position * size)
                    content = file.read(size)
                    record = np.frombuffer(content, self._record, len(content) // size)
                    records.append(
                        record if len(record) and checksums(record)[0] == record["crc"][0] else None
                    )
        except FileNotFoundError:
            raise
        except OSError:
            records += [None] * (len(positions) - len(records))
        return records

    def _catch_up(self) -> bool:
        """Take in what processes have finished since the last time; say whether there was anything."""
        try:
            files = self._list()
        except OSError as error:
            self._say(_BROKEN, error.strerror or str(error))
            return False
        self._forget_gone(set(files))
        before, damaged, mended = len(self._index), 0, False
        for name, size in files.items():
            if name not in self._numbers:
                self._numbers[name] = len(self._shards)
                self._shards.append(_Shard(self.folder / name))
            number = self._numbers[name]
            if not self._shards[number].closed and number != self._own:
                bad = self._take_in(number, size)
                damaged += bad
                mended |= bad > 0 and self._mend(number)
        self._say(_DAMAGED, damaged)
        if mended:
            self._catch_up()  # each turn removes a damaged file, so that this ends
        return len(self._index) > before

    def _list(self) -> dict[str, int]:
        """Return the sizes of the shards by file name."""
        sizes = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # mended just now
                        if entry.name.endswith(SUFFIX) and entry.is_file():
                            sizes[entry.name] = entry.stat().st_size
        except FileNotFoundError:  # not begun
            return {}
        return dict(sorted(sizes.items()))

    def _forget_gone(self, there: set[str]) -> None:
        """Forget what shards held that are gone, and go through all others again: it may have moved
        there.
        """
        if not (gone := self._numbers.keys() - there):
            return
        numbers = [self._numbers.pop(name) for name in gone]
        self._index.forget_shards(numbers)
        for number, shard in enumerate(self._shards):
            if number in numbers:
                shard.closed = True
            elif not shard.closed and number != self._own:
                shard.taken = 0

    def _mend(self, number: int) -> bool:
        shard = self._shards[number]
        try:
            return not shard.foreign and mend(shard.path, self._header, self._record)
        except OSError:  # that it is damaged is said; not to be able to mend it changes nothing
            return False

    def _take_in(self, number: int, size: int) -> int:
        """Index the new whole records of a shard of `size` bytes; return how many are damaged, 1
        for a foreign file.

        A record that ends too soon is being written, or its process was killed: it is waited for
        without a word.
        """
        shard, record = self._shards[number], self._record.itemsize
        if shard.taken and (size - len(self._header)) // record <= shard.taken:
            return 0
        damaged, block = 0, max(1, BLOCK // record) * record
        try:
            with shard.path.open("rb") as file:
                if (begin := file.read(len(self._header))) != self._header:
                    shard.closed, shard.foreign = True, is_foreign(begin, self._header)
                    return 1
                file.seek(shard.taken * record, os.SEEK_CUR)
                while whole := len(content := file.read(block)) // record:
                    records = np.frombuffer(content, self._record, whole)
                    good = checksums(records) == records["crc"]
                    places = (number << 32) + shard.taken + np.flatnonzero(good)
                    self._index.add(fold(records["key"][good]), places)
                    shard.taken += len(records)
                    damaged += len(records) - len(places)
                    if (
                        len(content) < block
                    ):  # it may have grown since: the next read would begin within a record
                        break
        except OSError as error:
            if isinstance(error, FileNotFoundError):  # mended by another process just now
                return damaged
            self._say(_BROKEN, error.strerror or str(error))
        return damaged

    def _append(self, content: bytes) -> int:
        """Write records to this process's shard; return the place of the first, or nowhere if the
        disk refuses.
        """
        if not self._writable:
            return NOWHERE
        try:
            with self._open_own() as file:
                file.seek(0, os.SEEK_END)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            self._writable = False  # a part of a record may be there: nothing may follow it
            self._say(_BROKEN, error.strerror or str(error))
            return NOWHERE
        self._shards[self._own].taken += len(content) // self._record.itemsize
        return (
            (self._own << 32)
            + self._shards[self._own].taken
            - len(content) // self._record.itemsize
        )

    def _open_own(self) -> IO[bytes]:
        """Return this process's shard, open and locked.

        A forked process begins its own, and so does one whose shard is gone, deleted or mended by
        another.
        """
        while True:
            if self._owner != os.getpid() or not self._shards[self._own].path.exists():
                self._begin()
            path = self._shards[self._own].path
            try:
                file = path.open("r+b", buffering=0)
            except FileNotFoundError:
                continue
            if lock(file, wait=True) and path.exists():  # else it went while this process waited
                return file
            file.close()

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
