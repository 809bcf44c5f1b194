"""What the doctor's sources have in common: entries, readers, and which files are taken."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from gancolor import files
from gancolor.errors import DataError
from gancolor.photographs import kinds

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What sources call a split, and what it is called here."""

OTHER = "other file(s)"
"""Words for what is no picture."""

EXCLUDED = "left out by --exclude"
"""Words for what a pattern leaves out."""

_ARCHIVES = frozenset(".zip .tar .tgz .tbz2 .txz .gz .bz2 .xz .zst .7z .rar".split())
_LARGEST = 2**63 - 1  # that SQLite keeps


Check = Callable[[], None]


def go_on() -> None:
    """Stop nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in a source.

    `name`: relative to the source, with forward slashes; absolute where a manifest says so. `size` in bytes. `stamp`
    changes with the content: mtime in ns, or in archives the checksum or mtime. `given`: the split that the source
    states, or "". `offset`: where it lies in an archive.
    """

    name: str
    size: int
    stamp: int
    given: str = ""
    offset: int | None = None


class Reader(Protocol):
    """Reads a source's pictures in any order, also in another process."""

    def read(self, entry: Entry, /) -> bytes:
        """The file's bytes. DataError with the reason alone: the caller knows the name."""


class Source(ABC):
    """Where pictures come from.

    `exclude`: patterns of names that are left out, see `kinds.is_excluded`. Of the last walk: `skipped` counts, by
    words for it, what was left out, `passed` those of them that are other files, by suffix. `sorted_in` and `loose`
    count the pictures with and without a given split where `by_folder` asks for one. `incomplete`: it ended before the
    source's end.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, by_folder: bool) -> None:
        self.path, self.by_folder = path, by_folder
        self.exclude: tuple[str, ...] = ()
        self.skipped: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.sorted_in = self.loose = 0
        self.incomplete = False

    def walk(self, check: Check = go_on) -> Iterator[Entry]:
        """All pictures, found as they are asked for. DataError if the source cannot be read at all.

        `check` is called now and then, also where there are no pictures, and may raise to stop.
        """
        self.skipped.clear()
        self.passed.clear()
        self.sorted_in = self.loose = 0
        self.incomplete = False
        for entry in self._entries(check):
            if kinds.is_excluded(entry.name, self.exclude):
                self.skipped[EXCLUDED] += 1
                continue
            if self.by_folder:
                self.sorted_in += bool(entry.given)
                self.loose += not entry.given
            yield entry

    @abstractmethod
    def _entries(self, check: Check) -> Iterator[Entry]:
        """See `walk`."""

    @abstractmethod
    def reader(self) -> Reader:
        """What reads the entries; it can be sent to other processes."""

    def takes(self, name: str, head: Callable[[], bytes]) -> bool:
        """Whether a file counts as a picture; if not, it is counted. `head` returns its first `kinds.HEAD` bytes.

        The suffix of a kind decides whatever the file holds, of others the first bytes do.
        """
        suffix = kinds.suffix_of(name)
        kind = kinds.by_suffix(name) or kinds.kind_of(head(), name)
        if kind is not None and kind.readable:
            return True
        if suffix in _ARCHIVES:
            self.skipped["archive(s) inside, not opened"] += 1
        else:
            self.skipped[OTHER] += 1
            self.passed[suffix] += 1
        return False

    def given(self, name: str) -> str:
        """The split that the top folder stands for, where folders are to say so; else ""."""
        top, slash, _ = name.partition("/")
        return SPLITS.get(top.lower(), "") if self.by_folder and slash else ""


class FileReader:
    """Reads files below a folder, or by their absolute names."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def read(self, entry: Entry) -> bytes:
        """The file's bytes. DataError with the reason alone."""
        check_size(entry.size)
        path = os.path.join(self._root, entry.name)
        if "\0" in path:  # a list can hold such
            raise DataError("its name cannot be one of a file (it has a NUL)")
        try:
            return files.read_regular(path)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from None
        except ValueError as error:
            raise DataError(str(error)) from None


def check_size(size: int) -> None:
    """DataError if a file of `size` bytes is too large to be read."""
    try:
        files.check_size(size)
    except ValueError as error:
        raise DataError(str(error)) from None


def bounded(value: float) -> int:
    """A size or time as SQLite can keep it: archives may state any number."""
    return int(min(max(value, -_LARGEST), _LARGEST))
