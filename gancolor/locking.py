"""One process at a time: a locked file, which the system lets go of even when its holder is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gancolor.errors import DataError

if sys.platform != "win32":  # there two processes at once are not kept apart
    import fcntl


_UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # a file system without locks

_descriptors: set[int] = set()  # of the locks that this process holds


@contextlib.contextmanager
def held(path: Path, message: str | None) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards.

    If another process holds it: DataError(`message`), or wait for it where `message` is None.
    Its folder is made where it is missing. OSError if the file cannot be written. Processes that are forked meanwhile
    do not hold it on. On Windows, and on disks without locks, processes are not kept apart.
    """
    if sys.platform == "win32":
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        return
    descriptor = _take(path, message)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # of a folder that is gone, or that may not be written to any more
            path.unlink()
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _take(path: Path, message: str | None) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if message is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in _UNKNOWN:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    raise DataError(message or "") from None
                raise
        if _is(path, descriptor):
            _descriptors.add(descriptor)
            return descriptor
        os.close(descriptor)  # its holder has just removed it: the next one must be the same for all


def _let_go() -> None:
    """In a forked process: a copy of a descriptor would hold the lock after its holder was killed."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
