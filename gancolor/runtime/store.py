"""A dictionary on disk that any number of processes read and write at once, kept by LMDB.

Each record carries a checksum. A store whose file is damaged is removed, so that the next process
begins it anew: it is for what can be made again.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import weakref
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import lmdb

from gancolor.runtime.files import locked

DAMAGE = (
    *(lmdb.InvalidError, lmdb.VersionMismatchError),
    *(lmdb.CorruptedError, lmdb.PageNotFoundError),
)
"""What LMDB raises of a damaged file."""

_CHECKSUM = 4  # bytes before each record

# A process opens a folder only once, whatever the number of stores that use it.
_opened: weakref.WeakValueDictionary[Path, Any] = weakref.WeakValueDictionary()


class RecordStore:
    """Records, bytes, by keys of 1 to 511 bytes, in a folder that is made with the first of them.

    `damaged` counts the records and files found damaged so far. Whatever the disk refuses is an
    OSError, and so is damage that is met while the file is in use. Not for several threads at once,
    and not for a process that was forked while the store was in use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0
        self._handle: Any = None  # LMDB's

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the records of those of `keys` that are here and whole."""
        found: dict[bytes, bytes] = {}
        if not (self.folder / "data.mdb").exists():
            return found
        try:
            with self._environment().begin() as transaction:
                for key in keys:
                    if (content := transaction.get(key)) is None:
                        continue
                    record = content[_CHECKSUM:]
                    if content[:_CHECKSUM] == _checksum(record):
                        found[key] = record
                    else:
                        self.damaged += 1
        except lmdb.Error as error:
            self._refuse(error)
        return found

    def put(self, records: Mapping[bytes, bytes]) -> None:
        """Keep records in place of what their keys had: all of them or, with an OSError, none."""
        try:
            with self._environment().begin(write=True) as transaction:
                for key, record in records.items():
                    content = _checksum(record) + record
                    if transaction.get(key) != content:  # else another process was faster
                        transaction.put(key, content)
        except lmdb.Error as error:
            self._refuse(error)

    def _environment(self) -> Any:
        if self._handle is None:
            place = self.folder.resolve()
            self._handle = _opened.get(place)
            if self._handle is None:
                with self._alone():
                    self._handle = _opened[place] = self._open()
        return self._handle

    def _open(self) -> Any:
        """Open the folder; one whose file is no store, or cut off, is emptied first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            environment = open_environment(self.folder)
            if not is_cut_off(environment, self.folder):
                return environment
            environment.close()
        except DAMAGE:
            pass
        self.damaged += 1
        shutil.rmtree(self.folder)
        return self._open()

    def _refuse(self, error: lmdb.Error) -> NoReturn:
        if isinstance(error, DAMAGE):
            self._handle = None
            _opened.pop(self.folder.resolve(), None)
            with self._alone():
                shutil.rmtree(self.folder, ignore_errors=True)
        full = isinstance(error, lmdb.MapFullError | lmdb.DiskError)
        raise OSError(*([errno.ENOSPC, os.strerror(errno.ENOSPC)] if full else [str(error)]))

    def _alone(self) -> AbstractContextManager[None]:
        """Keep others from opening or removing the folder: LMDB opens its two files in turn."""
        return locked(self.folder.with_name(f"{self.folder.name}.lock"), None)


def open_environment(folder: Path, *, sync: bool = True) -> Any:
    """LMDB's environment of an existing folder, for any number of processes. `sync`: whether a
    commit waits for the disk. OSError, lmdb.Error.
    """
    usage = shutil.disk_usage(folder)
    environment = lmdb.open(
        str(folder),
        # The same in all processes, and only addresses; but Windows makes the file so large at
        # once.
        map_size=usage.total if sys.platform != "win32" else usage.free // 4,
        metasync=False,  # a power cut may then take back the last commit
        sync=sync,
        meminit=False,
        max_readers=1024,
    )
    environment.reader_check()  # frees the places of killed processes
    return environment


def is_cut_off(environment: Any, folder: Path) -> bool:
    """Whether the file is shorter than its own pages say."""
    size: int = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    return (folder / "data.mdb").stat().st_size < size


def _checksum(record: bytes) -> bytes:
    return zlib.crc32(record).to_bytes(_CHECKSUM, "little")
