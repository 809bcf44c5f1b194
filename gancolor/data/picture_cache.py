"""Pictures decoded and reduced to what a training needs of them, cached so that an epoch reads no
files.

A cache is memory-mapped (LMDB), on disk or in memory, and all processes of a machine share it. Each
record carries its own checksum. On disk what a commit wrote is synced before the file's root points
to it: a killed process or a power cut costs the last pictures, never the others.

Every run that uses a cache's folder holds its `users.lock` locked, together with the others (a lock
ends with its processes, however they end). Only who is alone there removes anything: a damaged
cache, or one in memory at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import struct
import time
import weakref
import zlib
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from gancolor.data.folder import FolderSource
from gancolor.data.source import PictureSource
from gancolor.data.still_life.composition import StillLife
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime import store
from gancolor.runtime.files import cache_root

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

MEMORY = Path("/dev/shm")
GROUP = Path("/sys/fs/cgroup")  # a container's own limits

_LOCK, _DAMAGED, _SAID = "users.lock", "damaged", ".said-"

BATCH = 16 << 20  # bytes that a process gathers before it writes them to a disk
DELAY = 0.25  # seconds after which it writes them anyway

FORMAT = 2  # raised when the pixels of a reduced picture, or of a generated one, change

# A record: CRC-32 of all that follows, stamp, height, width; then the pixels.
_HEADER = struct.Struct("<I16sII")
_DAMAGE = (*store.DAMAGE, lmdb.PanicError)
_WITHOUT = "decoded pictures in %s cannot be kept (%s); going on without"

log = logging.getLogger("gancolor")

_opened: weakref.WeakValueDictionary[Path, PictureCache] = weakref.WeakValueDictionary()


def disk_folder() -> Path:
    """Where caches on disk lie: beside the cached embeddings, in $GANCOLOR_CACHE or the user's
    cache folder.
    """
    return cache_root() / "pictures"


def memory_folder() -> Path | None:
    """This user's own folder for caches in memory; None where the system has no such place."""
    if fcntl is None or not MEMORY.is_dir():
        return None
    with contextlib.suppress(OSError):
        _in_memory().mkdir(mode=0o700, exist_ok=True)
    return _in_memory() if _is_own(_in_memory()) else None


def available_memory() -> int:
    """Bytes of memory that programs may still take on this system, or in this container."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(
            int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")
        )
        with contextlib.suppress(OSError, ValueError):
            limit, used = (
                int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current")
            )
            kept = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
            # given back when memory is short
            files = int(kept["active_file"]) + int(kept["inactive_file"])
            available = min(available, limit - used + files)
        return available
    return 0


def join(folder: Path) -> tuple[int, bool]:
    """Make the folder where need be, and lock it; the open lock, and whether nobody else uses the
    folder. OSError.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # removed between the two lines
            continue
        alone = _lock(lock)
        if not alone:
            _share(lock)
        if _is_open(folder, lock):
            if alone:
                _forget_said(folder, "")
            return lock, alone
        os.close(lock)


def stay(folder: Path, lock: int) -> int:
    """Go on using the folder together with others."""
    _share(lock)
    if _is_open(folder, lock):
        return lock
    os.close(lock)  # another process removed it while the lock changed
    return stay(folder, join(folder)[0])


def leave(folder: Path, run: str, lock: int, *, remove: bool) -> None:
    """End the use of the folder; `remove` it if nobody else uses it."""
    with contextlib.suppress(OSError):
        _forget_said(folder, run)
        if remove and _lock(lock) and _is_open(folder, lock):
            shutil.rmtree(folder)
    os.close(lock)


def empty(folder: Path) -> None:
    """Remove a cache's files, but not its lock. Only for who is alone there."""
    for entry in folder.iterdir():
        if entry.name != _LOCK:
            entry.unlink()


def remove_leftovers() -> None:
    """Remove caches in memory that no process uses: their runs were killed."""
    if fcntl is None or not _is_own(_in_memory()):
        return
    for folder in list(_in_memory().iterdir()):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _lock(lock):
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def mark_damaged(folder: Path, reason: str) -> None:
    """Let the next run that is alone in the folder make the cache anew."""
    (folder / _DAMAGED).write_text(reason, encoding="utf-8")


def read_damage(folder: Path) -> str:
    """What `mark_damaged` left; empty if nothing."""
    try:
        return (folder / _DAMAGED).read_text(
            encoding="utf-8", errors="replace"
        ) or "no reason given"
    except FileNotFoundError:
        return ""


def is_first(folder: Path, run: str, what: str) -> bool:
    """Whether this is the first process of a run that asks this."""
    try:
        (folder / f"{_SAID}{run}-{what}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a full or lost disk: rather say it twice
        pass
    return True


def _in_memory() -> Path:
    return MEMORY / f"gancolor-pictures-{os.getuid()}"


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this user: anybody may make one there."""
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()


def _forget_said(folder: Path, run: str) -> None:
    for path in folder.glob(f"{_SAID}{run}*"):
        path.unlink(missing_ok=True)


def _lock(lock: int) -> bool:
    """Lock for this run alone; whether that was possible."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _share(lock: int) -> None:
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _is_open(folder: Path, lock: int) -> bool:
    """Whether the folder still is the one whose lock this is."""
    try:
        return fcntl is None or os.path.samestat(os.stat(folder / _LOCK), os.fstat(lock))
    except FileNotFoundError:
        return False


def open_reduced(source: PictureSource, side: int, cache: str) -> PictureSource:
    """The pictures of `source`, their shorter side reduced to `side` pixels; smaller ones are as
    they are.

    `cache`: "ram" or "disk" keeps what was decoded for all processes that open the same dataset,
    "none" decodes each time. The pixels are the same with all three. Where nothing can be kept, the
    log says so. ConfigError for pictures that are neither a folder's nor generated.
    """
    remove_leftovers()
    if cache == "none":
        return ReducedPictures(source, side)
    files = _of_files(source, cache)
    opened = open_cache(_cache_name(files, side), in_memory=cache == "ram")
    return ReducedPictures(source, side) if opened is None else CachedPictures(files, side, opened)


def flush(source: PictureSource) -> None:
    """Write what this process has decoded and not yet kept."""
    if isinstance(source, CachedPictures):
        source.cache.flush()


def describe_need(source: PictureSource, side: int, cache: str) -> str:
    """One line: about how much `cache`, "ram" or "disk", would take, and how much there is. Errors
    of `open_reduced`.

    A few pictures are read for it.
    """
    need = _expected_bytes(_of_files(source, cache), side)
    free = room(in_memory=cache == "ram")
    where = "in memory" if cache == "ram" else "on disk"
    fits = "" if need <= free else "; the rest is read from files in every epoch"
    return (
        f"about {need / 2**30:.2f} GiB of decoded pictures {where}, of {max(free, 0) / 2**30:.2f}"
        f" GiB free for it{fits}"
    )


def reduce(rgb: Picture, side: int) -> Picture:
    """A picture, uint8 RGB (H, W, 3), whose shorter side is at most `side` pixels; areas are
    averaged.
    """
    height, width = rgb.shape[:2]
    if min(height, width) <= side:
        return rgb
    scale = side / min(height, width)
    return arrays.resize(rgb, (max(side, round(height * scale)), max(side, round(width * scale))))


class ReducedPictures:
    """A source whose pictures have a shorter side of at most `side` pixels."""

    def __init__(self, source: PictureSource, side: int) -> None:
        self.source, self.side = source, side

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """What the source calls the picture."""
        return self.source.name(index)

    def read(self, index: int) -> Picture:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""
        return reduce(self.source.read(index), self.side)


class CachedPictures(ReducedPictures):
    """Reduced pictures, each of which is decoded once and then comes from `cache`, until its file
    changes.
    """

    def __init__(self, source: FolderSource | StillLife, side: int, cache: PictureCache) -> None:
        super().__init__(source, side)
        self.files, self.cache = source, cache

    def read(self, index: int) -> Picture:
        """The picture as uint8 RGB (H, W, 3), an array of its own. DataError if it is broken."""
        name = self.name(index)
        try:
            made_of = _state(self.files, name)
        except OSError:  # the source has the words
            return super().read(index)
        key = _digest(name)
        stamp = _digest(repr((name, made_of, self.side, FORMAT, cv2.__version__)))
        picture = self.cache.get(key, stamp)
        if picture is None:
            picture = super().read(index)
            self.cache.put(key, stamp, picture)
        return picture


class PictureCache:
    """Pictures by their keys, each with a stamp that says of what it was made. Opened anew in each
    process.

    `run` tells the runs that use the cache apart. Not for several threads at once.
    """

    def __init__(self, folder: Path, in_memory: bool, run: str) -> None:
        self.folder, self.in_memory, self.run = folder, in_memory, run
        # By process: an environment must not be used, nor closed, on the other side of a fork.
        self.environments: dict[int, Any] = {}
        self._pending: dict[bytes, bytes] = {}
        self._waiting, self._written_at = 0, 0.0
        self._readable = self._writable = True

    def __reduce__(self) -> tuple[Any, ...]:
        return PictureCache, (self.folder, self.in_memory, self.run)

    def get(self, key: bytes, stamp: bytes) -> Picture | None:
        """The picture, uint8 (H, W, 3), an array of its own; None if it is not here, of another
        stamp, or damaged.
        """
        if (record := self._find(key)) is None:
            return None
        if len(record) < _HEADER.size or zlib.crc32(memoryview(record)[4:]) != int.from_bytes(
            record[:4], "little"
        ):
            self._say_once(
                "record", "damaged records in %s are left out and made anew", shown(self.folder)
            )
            return None
        _, made_of, height, width = _HEADER.unpack_from(record)
        if made_of != stamp:
            return None
        return np.frombuffer(record, np.uint8, offset=_HEADER.size).reshape(height, width, 3)

    def put(self, key: bytes, stamp: bytes, picture: Picture) -> None:
        """Keep a picture, uint8 (H, W, 3), in place of what the key had; written at once or soon.

        Where there is no room any more, the log says it once, and the cache keeps what it has.
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
            environment = self.environments[os.getpid()] = store.open_environment(
                self.folder, sync=not self.in_memory
            )
        return environment

    def _stop_writing(self) -> None:
        self._writable = False
        message = (
            "no room for more decoded pictures in %s; it keeps what it has, the others are read"
            " from their files"
        )
        self._say_once("full", message, shown(self.folder))

    def _give_up(self, error: Exception) -> None:
        self._readable = self._writable = False
        if isinstance(error, _DAMAGE):
            with contextlib.suppress(OSError):
                mark_damaged(self.folder, str(error))
        # the error itself would hold the cache
        self._say_once("given up", _WITHOUT, shown(self.folder), str(error))

    def _say_once(self, what: str, message: str, *values: object) -> None:
        """Log it unless another process of this run has."""
        if is_first(self.folder, self.run, what):
            log.warning(message, *values)


def open_cache(name: str, in_memory: bool) -> PictureCache | None:
    """The cache of that name; None, with a line in the log, where there can be none.

    `in_memory`: in the system's memory-backed folder, removed when the last run that uses it ends;
    else in $GANCOLOR_CACHE, kept for later runs. A damaged one is removed and made anew.
    """
    base = memory_folder() if in_memory else disk_folder()
    if base is None:
        log.warning(
            "this system has no folder in memory for decoded pictures; going on without, try"
            " --cache disk"
        )
        return None
    folder = base / name
    if (known := _opened.get(folder)) is not None:
        return known
    try:
        lock = _join(folder)
    except (OSError, lmdb.Error) as error:
        log.warning(_WITHOUT, shown(folder), str(error))
        return None
    cache = PictureCache(folder, in_memory, secrets.token_hex(4))
    weakref.finalize(
        cache, _end, os.getpid(), cache.folder, cache.run, in_memory, lock, cache.environments
    )
    _opened[folder] = cache
    return cache


def room(in_memory: bool) -> int:
    """Bytes that the pictures of a new cache may take; negative where nothing is left."""
    folder = MEMORY if in_memory else disk_folder().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return 0 if in_memory and there != folder else room_in(there, in_memory)


def room_in(folder: Path, in_memory: bool) -> int:
    """Bytes that pictures may still take: a tenth of a disk stays free, and in memory as much as
    the cache holds.
    """
    usage = shutil.disk_usage(folder)
    if not in_memory:
        return usage.free - usage.total // 10
    file = folder / "data.mdb"
    held = file.stat().st_size if file.exists() else 0
    return (min(usage.free, available_memory()) - held) // 2


def _of_files(source: PictureSource, cache: str) -> FolderSource | StillLife:
    if not isinstance(source, FolderSource | StillLife):
        raise ConfigError(f"--cache must be none with shards, got {cache}; leave it out")
    return source


def _expected_bytes(source: PictureSource, side: int, looked_at: int = 16) -> int:
    sizes = []
    for index in range(0, len(source), max(1, len(source) // looked_at)):
        with contextlib.suppress(DataError):
            sizes.append(reduce(source.read(index), side).size)
    return round(len(source) * sum(sizes) / max(1, len(sizes)))


def _cache_name(source: FolderSource | StillLife, side: int) -> str:
    """A folder's name for the pictures of a dataset at that side."""
    if isinstance(source, StillLife):
        return f"still-life-{side}"
    root = str(source.root.resolve())
    label = re.sub(r"[^\w.-]+", "_", os.path.basename(root), flags=re.ASCII)[:40]
    return f"{label or 'set'}-{_digest(root).hex()[:8]}-{side}"


def _state(source: FolderSource | StillLife, name: str) -> tuple[object, ...]:
    """What changes when the picture does. OSError if its file is not there."""
    if isinstance(source, StillLife):
        return (source.seed, source.size)
    status = os.stat(source.root / name)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _join(folder: Path) -> int:
    """Begin to use a folder, its cache made anew if it is damaged and nobody else uses it; the lock
    that says so.
    """
    lock, alone = join(folder)
    try:
        if alone and (reason := _damage(folder)):
            log.warning(
                "decoded pictures in %s are damaged (%s): removed and made anew",
                shown(folder),
                reason,
            )
            empty(folder)
    except BaseException:
        os.close(lock)  # others wait for it
        raise
    return stay(folder, lock)


def _damage(folder: Path) -> str:
    """Why a cache must be made anew; empty if it need not."""
    if not (folder / "data.mdb").exists():
        return ""
    if reason := read_damage(folder):
        return reason
    try:
        environment = store.open_environment(folder)
    except _DAMAGE as error:
        return str(error)
    except lmdb.Error as error:
        if "not supported by this build" in str(error):
            return str(error)
        raise
    try:
        return "its file is cut off" if store.is_cut_off(environment, folder) else ""
    finally:
        environment.close()


def _end(
    owner: int, folder: Path, run: str, in_memory: bool, lock: int, environments: dict[int, Any]
) -> None:
    if os.getpid() != owner:  # a forked worker: its parent still uses the cache
        return
    if environment := environments.pop(owner, None):
        environment.close()
    leave(folder, run, lock, remove=in_memory)
