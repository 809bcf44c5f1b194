"""The pictures that lie in and below a folder, and an index of them beside a large dataset.

With the index a start lists only the folders that changed since, and no process holds all names.
The index is a folder of flat files. `index.json` holds the stamps of all folders as they were when
they were listed, and says in which file the pictures' names are. That file is called after its own
SHA-256, so a torn or foreign one is found out and made anew, and processes that build an index at
once write the same files. Names are read out of the file where it is mapped into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gancolor.data import manifest, source
from gancolor.errors import DataError, shown
from gancolor.images import formats
from gancolor.images.formats import is_litter
from gancolor.runtime.files import cache_root, json_of, write_whole

SETTLED = 2 * 10**9
"""Nanoseconds. Two changes may fall on one tick of a file system's clock, up to 2 s apart."""

INDEX_FOLDER = ".gancolor-index"
SMALLEST = 10_000
"""Pictures of a dataset that gets an index; the names of fewer are found as quickly without one."""
PARTS = (*source.SPLITS, "all")

_FORMAT = 1
_FACTS = "index.json"
_STAY = 3  # newest files of names: a process that is starting its workers may need an older one
_HEAD = 1 + len(PARTS)
BLOCK = 10_000  # names that are found together

AssignSplits = Callable[[list[str]], tuple[list[str], NDArray[np.uint8]]]
"""Of the sorted names that were found in a folder: which ones the dataset has, sorted, and for each
the number of its split or manifest.REJECTED (`folder.assign_splits`).
"""

log = logging.getLogger("gancolor")


class FolderState(NamedTuple):
    """A folder as it was when it was listed: its stamp, and its folders and links to follow, by
    name.

    `stamp` is None for a folder that had changed only just before: it must be listed again.
    """

    stamp: list[int] | None
    folders: list[str]
    links: list[str]


@dataclass(frozen=True, slots=True)
class Scan:
    """All `folders` by relative path, and the names of the pictures in those that were read,
    relative to the root.
    """

    folders: dict[str, FolderState]
    fresh: dict[str, list[str]]

    def names(self) -> list[str]:
        """The names of the pictures in the folders that were read, sorted."""
        return sorted(name for names in self.fresh.values() for name in names)


def scan(root: Path, known: Mapping[str, FolderState]) -> Scan:
    """List a folder and all below it, but for those that are still as they were in `known`.

    Hidden files and folders are skipped. Links to folders are followed, each folder once, so that
    loops end and no picture appears twice. DataError if the folder cannot be listed.
    """
    if not root.is_dir():
        raise DataError(
            f"dataset must be a folder of pictures, got {shown(root)}; it does not exist or is not"
            " a folder"
        )
    found = Scan({}, {})
    seen: set[tuple[int, int]] = set()
    folders, links = [""], deque[str]()
    while folders or links:
        linked = not folders  # real folders first: a link never renames their pictures
        path = links.popleft() if linked else folders.pop()
        place, prefix = os.path.join(root, path), path and f"{path}/"
        if linked and not os.path.isdir(place):  # a link to nothing or to some file; it may change
            continue
        try:
            began, status = time.time_ns(), os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            stamp = stamp_of(status, began)
            if path not in known or known[path].stamp != stamp or stamp is None:
                found.folders[path], found.fresh[path] = _list(place, prefix, stamp)
            else:
                found.folders[path] = known[path]
        except OSError as error:
            if not path:
                raise DataError(
                    f"dataset must be a readable folder, got {shown(root)}: {error.strerror}"
                ) from None
            log.warning("folder %s left out: %s", shown(place), error.strerror)
            continue
        folders += [prefix + name for name in found.folders[path].folders]
        links += [prefix + name for name in found.folders[path].links]
    return found


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "missing", "other"]:
    """What an entry of a folder is, or what it leads to.

    "missing": a link to nothing, to itself, or to where nobody may look. "other": a pipe, a device,
    a socket.
    """
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:
        return "missing"
    return "other"


def stamp_of(status: os.stat_result, now: int) -> list[int] | None:
    """What changes whenever a folder or file does; None if it had changed only just before `now`,
    nanoseconds.

    The time of the last change of its data can be set back, as tar and rsync do; that of its record
    cannot.
    """
    if now - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:
        return None
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size]


def _list(place: str, prefix: str, stamp: list[int] | None) -> tuple[FolderState, list[str]]:
    listed, found = FolderState(stamp, [], []), []
    with os.scandir(place) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or is_litter(name):
                continue
            kind = kind_of(entry)
            if kind == "folder":
                (listed.links if entry.is_symlink() else listed.folders).append(name)
            elif name[name.rfind(".") :].lower() not in formats.SUFFIXES:
                if entry.is_symlink():
                    listed.links.append(name)
            elif kind != "other":  # a missing one is a broken picture
                found.append(prefix + name)
    listed.folders.sort()
    listed.links.sort()
    return listed, found


class Names(Sequence[str]):
    """Names of one of PARTS in a memory-mapped file, sorted; pickled as the file's place. DataError
    if it is gone.

    The file holds little-endian numbers: how many names there are, how many each part has (u64),
    where each name ends (u64), the numbers of each part's names (u32); then the names, each ended
    by a zero byte.
    """

    def __init__(self, file: Path, part: str) -> None:
        self.file, self.part = file, part
        try:
            with file.open("rb") as opened:
                self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DataError(
                f"index must stay while it is in use, got {shown(file)}: {error}; start again"
            ) from None
        count, *sizes = np.frombuffer(self._map, "<u8", _HEAD).tolist()
        number, orders = PARTS.index(part), 8 * (_HEAD + count + 1)
        self._ends = np.frombuffer(self._map, "<u8", count + 1, 8 * _HEAD)
        self._order = np.frombuffer(
            self._map, "<u4", sizes[number], orders + 4 * sum(sizes[:number])
        )
        self._text = orders + 4 * sum(sizes)

    def __reduce__(self) -> tuple[type[Names], tuple[Path, str]]:
        return Names, (self.file, self.part)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), BLOCK):  # in blocks: one number at a time is slow
            order = self._order[first : first + BLOCK].astype(np.int64)
            begins, ends = (
                self._ends[order + more].astype(np.int64) + self._text for more in (0, 1)
            )
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                yield self._map[begin : end - 1].decode("utf-8", "surrogateescape")

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = int(self._order[index])
        first, end = self._text + int(self._ends[place]), self._text + int(self._ends[place + 1])
        return self._map[first : end - 1].decode("utf-8", "surrogateescape")

    def in_folders(self) -> list[str]:
        """Names of all pictures that were found in the dataset's folder, also of rejected ones."""
        names = self._map[self._text : -1].decode("utf-8", "surrogateescape").split("\0")
        return [name for name in names if not os.path.isabs(name)]


@dataclass(frozen=True, kw_only=True)
class _Index:
    """An index as it was found: where it lies, its file of names, and the folders.

    `rules`: the stamp of the manifest, empty without one, None for one that had changed only just
    before.
    """

    place: Path
    file: str
    rules: list[int] | None
    folders: dict[str, FolderState]

    def open(self) -> dict[str, Sequence[str]]:
        return {part: Names(self.place / self.file, part) for part in PARTS}


def open_names(root: Path, assign_splits: AssignSplits) -> dict[str, Sequence[str]]:
    """Sorted names of a folder's pictures, by PARTS; those of a large dataset stay on disk, in its
    index.

    `assign_splits` may depend on the folder's manifest and on nothing else. DataError if the folder
    cannot be listed.
    """
    rules = _stamp_manifest(root)
    index = next(filter(None, (_read(place, root) for place in reversed(_places(root)))), None)
    if index is None:
        scanned = scan(root, {})
        found = scanned.names()
    else:
        scanned = scan(root, index.folders)
        settled = rules is not None and rules == index.rules
        if settled and not scanned.fresh and scanned.folders.keys() == index.folders.keys():
            return index.open()
        before = Names(index.place / index.file, "all").in_folders()
        same = scanned.folders.keys() - scanned.fresh.keys()
        found = [name for name in before if name.rpartition("/")[0] in same]
        found = sorted(found + scanned.names())
        if settled and found == before:  # listed again for nothing: new stamps, the same names
            with contextlib.suppress(OSError):
                _describe(index.place, root, index.file, rules, scanned.folders)
            return index.open()
    names, codes = assign_splits(found)
    kept = _keep(root, names, codes, rules, scanned.folders) if len(names) >= SMALLEST else None
    return kept.open() if kept else by_part(names, codes)


def by_part(names: list[str], codes: NDArray[np.uint8]) -> dict[str, Sequence[str]]:
    """Names by PARTS. `codes`: the number of each one's split, or manifest.REJECTED."""
    numbered = list(zip(names, codes.tolist(), strict=True))
    parts: dict[str, Sequence[str]] = {
        split: [name for name, code in numbered if code == number]
        for number, split in enumerate(source.SPLITS)
    }
    return parts | {"all": [name for name, code in numbered if code != manifest.REJECTED]}


def _places(root: Path) -> list[Path]:
    """Where an index may be: beside the pictures, else (they may be read-only) in the user's
    cache.
    """
    name = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape")).hexdigest()[
        :32
    ]
    return [root.absolute() / INDEX_FOLDER, cache_root().absolute() / "indexes" / name]


def _stamp_manifest(root: Path) -> list[int] | None:
    now = time.time_ns()
    try:
        return stamp_of(os.stat(root / manifest.MANIFEST), now)
    except OSError:
        return []


def _read(place: Path, root: Path) -> _Index | None:
    """The index in a folder; None if there is none that is whole and of these pictures."""
    try:
        facts = json_of((place / _FACTS).read_bytes())
        if facts["gancolor index"] != _FORMAT or facts["root"] != os.path.realpath(root):
            return None
        folders = {path: FolderState(*listed) for path, listed in facts["folders"].items()}
        index = _Index(place=place, file=facts["file"], rules=facts["rules"], folders=folders)
        return index if _is_whole(place / index.file) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _is_whole(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.stem
    except OSError:
        return False


def _keep(
    root: Path,
    names: list[str],
    codes: NDArray[np.uint8],
    rules: list[int] | None,
    folders: dict[str, FolderState],
) -> _Index | None:
    """Write an index where that is possible; None where it is not, which the log says."""
    content = pack_names(names, codes)
    file = f"{hashlib.sha256(content).hexdigest()}.names"
    reasons = []
    for place in _places(root):
        try:
            place.mkdir(parents=True, exist_ok=True)
            if not _is_whole(place / file):
                write_whole(place / file, content)
            _describe(place, root, file, rules, folders)
        except OSError as error:
            reasons.append(f"{shown(place)}: {error.strerror}")
            continue
        for other in _places(root):
            if other != place:  # it is older now
                with contextlib.suppress(OSError):
                    (other / _FACTS).unlink()
        _tidy(place)
        return _Index(place=place, file=file, rules=rules, folders=folders)
    log.warning(
        "index of %s cannot be kept (%s): every start lists all pictures",
        shown(root),
        "; ".join(reasons),
    )
    return None


def pack_names(names: list[str], codes: NDArray[np.uint8]) -> bytes:
    """The content of a file for `Names`: sorted `names`, and for each the number of its split or
    manifest.REJECTED.
    """
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.zeros(len(encoded) + 1, "<u8")
    np.cumsum(
        np.fromiter((len(name) + 1 for name in encoded), np.uint64, len(encoded)), out=ends[1:]
    )
    orders = [np.flatnonzero(codes == number).astype("<u4") for number in range(len(source.SPLITS))]
    orders.append(np.flatnonzero(codes != manifest.REJECTED).astype("<u4"))
    head = np.array([len(encoded), *(len(order) for order in orders)], "<u8")
    return b"".join(
        [
            head.tobytes(),
            ends.tobytes(),
            *(order.tobytes() for order in orders),
            b"\0".join(encoded),
            b"\0",
        ]
    )


def _describe(
    place: Path, root: Path, file: str, rules: list[int] | None, folders: dict[str, FolderState]
) -> None:
    facts = {
        "gancolor index": _FORMAT,
        "root": os.path.realpath(root),
        "file": file,
        "rules": rules,
    }
    write_whole(place / _FACTS, json.dumps(facts | {"folders": folders}, separators=(",", ":")))


def _tidy(place: Path) -> None:
    """Remove old files of names, and what a killed process left an hour ago."""
    # OSError: another process removes the file, or still maps it (Windows).
    with contextlib.suppress(OSError):
        newest = sorted(place.glob("*.names"), key=lambda file: file.stat().st_mtime_ns)
        parts = [file for file in place.glob("*.part") if time.time() - file.stat().st_mtime > 3600]
        for file in newest[:-_STAY] + parts:
            file.unlink()
