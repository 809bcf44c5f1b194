"""Where caches of decoded pictures lie, who uses them, and how they are removed.

Every run that uses a cache's folder holds its `users.lock` locked, together with the others (a lock
ends with its processes, however they end). Only who is alone there removes anything: a damaged
cache, or one in memory at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from gancolor.runtime.files import cache_root

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

MEMORY = Path("/dev/shm")
GROUP = Path("/sys/fs/cgroup")  # a container's own limits

_LOCK, _DAMAGED, _SAID = "users.lock", "damaged", ".said-"


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
            files = int(kept["active_file"]) + int(
                kept["inactive_file"]
            )  # given back when memory is short
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
