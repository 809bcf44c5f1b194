"""Where shards are written: a folder, or an address in object storage; a file appears there whole or
not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from gancolor.runtime import remote_files
from gancolor.runtime.files import cache_root, locked, write_whole, written

_LOCK = ".packing.lock"


class ShardFolder(Protocol):
    """What packing asks of the place that it writes to. OSError or DataError where it fails."""

    def names(self) -> list[str]:
        """What is there."""

    def size(self, name: str, /) -> int | None:
        """The bytes of a file; None of one that is not there."""

    def read(self, name: str, /) -> str:
        """The text of a file; "" of one that is not there."""

    def write(self, name: str, text: str, /) -> None:
        """Write a text."""

    def append(self, name: str, line: str, /) -> None:
        """Add a line to a text."""

    def writing(self, name: str, /) -> AbstractContextManager[BinaryIO]:
        """A file, open for writing, that is there when the block has ended well."""

    def remove(self, name: str, /) -> None:
        """Remove a file, if it is there."""

    def tidy(self) -> None:
        """Remove what a call that was killed left half written."""

    def locked(self, message: str, /) -> AbstractContextManager[None]:
        """Keep other processes of this machine away; DataError(`message`) if one is at it."""


class FolderOfShards:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.exists() else []

    def size(self, name: str) -> int | None:
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def write(self, name: str, text: str) -> None:
        write_whole(self.folder / name, text)

    def append(self, name: str, line: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(line)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        return written(self.folder / name)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        for aside in self.folder.glob(".*.part"):
            aside.unlink()

    def locked(self, message: str) -> AbstractContextManager[None]:
        return locked(self.folder / _LOCK, message)


class AddressOfShards:
    """A folder in object storage. One file at a time is written in the cache folder, then sent.

    Two machines are not kept apart; as the same pictures give the same bytes, they only do the work
    twice.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        digest = hashlib.sha256(address.encode()).hexdigest()
        self._aside = FolderOfShards(cache_root() / "packing" / digest[:16])

    def __str__(self) -> str:
        return self.address

    def names(self) -> list[str]:
        return [entry.name for entry in remote_files.entries(self.address)]

    def size(self, name: str) -> int | None:
        found = remote_files.find(self._of(name))
        return None if found is None else found.size

    def read(self, name: str) -> str:
        return remote_files.read_text(self._of(name))

    def write(self, name: str, text: str) -> None:
        self._aside.write(name, text)
        self._send(name)

    def append(self, name: str, line: str) -> None:
        self.write(name, self.read(name) + line)  # nothing there can be added to

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with written(self._aside.folder / name, durable=False) as file:
            yield file
        self._send(name)

    def remove(self, name: str) -> None:
        remote_files.remove(self._of(name))

    def tidy(self) -> None:
        self._aside.tidy()

    def locked(self, message: str) -> AbstractContextManager[None]:
        return self._aside.locked(message)

    def _of(self, name: str) -> str:
        return remote_files.joined(self.address, name)

    def _send(self, name: str) -> None:
        try:
            remote_files.upload(self._aside.folder / name, self._of(name))
        finally:
            self._aside.remove(name)


def open_folder_of(out: Path | str) -> ShardFolder:
    """The place that is meant by a path, or by an address (a string). ConfigError for one that
    cannot be written to.
    """
    if isinstance(out, Path):
        return FolderOfShards(out)
    remote_files.check(out, "--out", written=True)
    return AddressOfShards(out)
