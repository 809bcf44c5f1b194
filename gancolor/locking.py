"""One process at a time: a locked file, which the system lets go of even when its holder is killed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gancolor.errors import DataError

if sys.platform != "win32":  # there two processes at once are not kept apart
    import fcntl


@contextlib.contextmanager
def held(path: Path, message: str | None) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards.

    If another process holds it: DataError(`message`), or wait for it where `message` is None.
    Its folder is made where it is missing. OSError if the file cannot be written.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":
            yield
            return
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if message is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(message) from None
            if not _is(path, file.fileno()):  # its holder has just removed it: the next one must be the same for all
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
