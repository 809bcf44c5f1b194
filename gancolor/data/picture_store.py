"""Decoded pictures in a memory-mapped store (LMDB) that all processes of a machine share, on disk or in memory.

Each record carries its own checksum. On disk what a commit wrote is synced before the store's root points to it: a
killed process or a power cut costs the last pictures, never the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import struct
import sys
import time
import weakref
import zlib
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from gancolor.data import store_folder
from gancolor.data.store_folder import log
from gancolor.errors import shown

Picture = NDArray[np.uint8]

BATCH = 16 << 20  # bytes that a process gathers before it writes them to a disk
DELAY = 0.25  # seconds after which it writes them anyway

_HEADER = struct.Struct("<I16sII")  # CRC-32 of all that follows, stamp, height, width; then the pixels
_DAMAGE = (
    *(lmdb.InvalidError, lmdb.VersionMismatchError),
    *(lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError),
)
_WITHOUT = "decoded pictures in %s cannot be kept (%s); going on without"

_opened: weakref.WeakValueDictionary[Path, Store] = weakref.WeakValueDictionary()


def open_store(name: str, in_memory: bool) -> Store | None:
    """The store of that name; None, with a line in the log, where there can be none.

    `in_memory`: in the system's memory-backed folder, removed when the last run that uses it ends; else in
    $GANCOLOR_CACHE, kept for later runs. A damaged store is removed and made anew.
    """
    base = store_folder.memory_folder() if in_memory else store_folder.disk_folder()
    if base is None:
        log.warning("this system has no folder in memory for decoded pictures; going on without, try --cache disk")
        return None
    folder = base / name
    if (known := _opened.get(folder)) is not None:
        return known
    try:
        lock = _join(folder)
    except (OSError, lmdb.Error) as error:
        log.warning(_WITHOUT, shown(folder), str(error))
        return None
    store = Store(folder, in_memory, secrets.token_hex(4))
    weakref.finalize(store, _end, os.getpid(), store.folder, store.run, in_memory, lock, store.environments)
    _opened[folder] = store
    return store


class Store:
    """Pictures by their keys, each with a stamp that says of what it was made. Opened anew in each process.

    `run` tells the runs that use the store apart. Not for several threads at once.
    """

    def __init__(self, folder: Path, in_memory: bool, run: str) -> None:
        self.folder, self.in_memory, self.run = folder, in_memory, run
        # By process: an environment must not be used, nor closed, on the other side of a fork.
        self.environments: dict[int, Any] = {}
        self._pending: dict[bytes, bytes] = {}
        self._waiting, self._written_at = 0, 0.0
        self._readable = self._writable = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder, self.in_memory, self.run)

    def get(self, key: bytes, stamp: bytes) -> Picture | None:
        """The picture, uint8 (H, W, 3), an array of its own; None if it is not here, of another stamp, or damaged."""
        if (record := self._find(key)) is None:
            return None
        if len(record) < _HEADER.size or zlib.crc32(memoryview(record)[4:]) != int.from_bytes(record[:4], "little"):
            self._say_once("record", "damaged records in %s are left out and made anew", shown(self.folder))
            return None
        _, made_of, height, width = _HEADER.unpack_from(record)
        if made_of != stamp:
            return None
        return np.frombuffer(record, np.uint8, offset=_HEADER.size).reshape(height, width, 3)

    def put(self, key: bytes, stamp: bytes, picture: Picture) -> None:
        """Keep a picture, uint8 (H, W, 3), in place of what the key had; written at once or soon.

        Where there is no room any more, the log says it once, and the store keeps what it has.
        """
        if not self._writable:
            return
        rest = struct.pack("<16sII", stamp, *picture.shape[:2]) + picture.tobytes()
        self._pending[key] = zlib.crc32(rest).to_bytes(4, "little") + rest
        self._waiting += len(rest)
        if self.in_memory or self._waiting >= BATCH or time.monotonic() - self._written_at >= DELAY:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        records, self._pending = self._pending, {}
        waiting, self._waiting = self._waiting, 0
        try:
            if not records or not self._writable:
                return
            if room_in(self.folder, self.in_memory) < waiting:
                self._stop_writing()
                return
            with self._environment().begin(write=True, buffers=True) as transaction:
                for key, record in records.items():
                    if transaction.get(key) != record:  # else another run was faster
                        transaction.put(key, record)
        except (lmdb.MapFullError, lmdb.DiskError):
            self._stop_writing()
        except (OSError, lmdb.Error) as error:
            self._give_up(error)
        finally:
            self._written_at = time.monotonic()

    def _find(self, key: bytes) -> bytearray | None:
        if key in self._pending:
            return bytearray(self._pending[key])
        if not self._readable:
            return None
        try:
            with self._environment().begin(buffers=True) as transaction:
                found = transaction.get(key)
                return None if found is None else bytearray(found)
        except (OSError, lmdb.Error) as error:
            self._give_up(error)
        return None

    def _environment(self) -> Any:
        if (environment := self.environments.get(os.getpid())) is None:
            environment = self.environments[os.getpid()] = _open(self.folder, self.in_memory)
        return environment

    def _stop_writing(self) -> None:
        self._writable = False
        message = "no room for more decoded pictures in %s; it keeps what it has, the others are read from their files"
        self._say_once("full", message, shown(self.folder))

    def _give_up(self, error: Exception) -> None:
        self._readable = self._writable = False
        if isinstance(error, _DAMAGE):
            with contextlib.suppress(OSError):
                store_folder.mark_damaged(self.folder, str(error))
        self._say_once("given up", _WITHOUT, shown(self.folder), str(error))  # the error itself would hold the store

    def _say_once(self, what: str, message: str, *values: object) -> None:
        """Log it unless another process of this run has."""
        if store_folder.is_first(self.folder, self.run, what):
            log.warning(message, *values)


def room(in_memory: bool) -> int:
    """Bytes that the pictures of a new store may take; negative where nothing is left."""
    folder = store_folder.MEMORY if in_memory else store_folder.disk_folder().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return 0 if in_memory and there != folder else room_in(there, in_memory)


def room_in(folder: Path, in_memory: bool) -> int:
    """Bytes that pictures may still take: a tenth of a disk stays free, and in memory as much as the store holds."""
    usage = shutil.disk_usage(folder)
    if not in_memory:
        return usage.free - usage.total // 10
    file = folder / "data.mdb"
    held = file.stat().st_size if file.exists() else 0
    return (min(usage.free, store_folder.available_memory()) - held) // 2


def _join(folder: Path) -> int:
    """Begin to use a folder, its store made anew if it is damaged and nobody else uses it; the lock that says so."""
    lock, alone = store_folder.join(folder)
    try:
        if alone and (reason := _damage(folder)):
            log.warning("decoded pictures in %s are damaged (%s): removed and made anew", shown(folder), reason)
            store_folder.empty(folder)
    except BaseException:
        os.close(lock)  # others wait for it
        raise
    return store_folder.stay(folder, lock)


def _open(folder: Path, in_memory: bool) -> Any:
    usage = shutil.disk_usage(folder)
    environment = lmdb.open(
        str(folder),
        # The same in all processes, and only addresses; but Windows makes the file so large at once.
        map_size=usage.total if sys.platform != "win32" else usage.free // 4,
        metasync=False,  # a power cut may then take back the last commit
        sync=not in_memory,
        meminit=False,
        max_readers=1024,
    )
    environment.reader_check()  # killed processes' places
    return environment


def _damage(folder: Path) -> str:
    """Why a store must be made anew; empty if it need not."""
    if not (folder / "data.mdb").exists():
        return ""
    if reason := store_folder.read_damage(folder):
        return reason
    try:
        environment = _open(folder, in_memory=False)
    except _DAMAGE as error:
        return str(error)
    except lmdb.Error as error:
        if "not supported by this build" in str(error):
            return str(error)
        raise
    try:
        whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        return "its file is cut off" if (folder / "data.mdb").stat().st_size < whole else ""
    finally:
        environment.close()


def _end(owner: int, folder: Path, run: str, in_memory: bool, lock: int, environments: dict[int, Any]) -> None:
    if os.getpid() != owner:  # a forked worker: its parent still uses the store
        return
    if environment := environments.pop(owner, None):
        environment.close()
    store_folder.leave(folder, run, lock, remove=in_memory)
