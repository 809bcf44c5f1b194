"""What is the whole process's, such as its stderr, changed only as long as it is needed.

Libraries write to stderr what is raised anyway, and there alone what is not: they are kept silent,
or heard.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

_MOST_HEARD = 1 << 16  # bytes

_lock = threading.Lock()


class Meanwhile:
    """Gives an attribute another value while any thread is in here (`with`); the last one to leave
    sets it back.
    """

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self._owner, self._name, self._value = owner, name, value
        self._own, self._users, self._lock = value, 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._own = getattr(self._owner, self._name)
                setattr(self._owner, self._name, self._value)
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                setattr(self._owner, self._name, self._own)


@contextmanager
def stderr_closed() -> Iterator[None]:
    """Send what is written to stderr to nowhere, in all threads: for short calls whose error is
    raised anyway.

    libtiff and libpng write to the process's own stderr, whatever Python's is.
    """
    with open(os.devnull, "wb") as nowhere, _stderr_sent(nowhere):
        yield


@contextmanager
def stderr_heard() -> Iterator[list[str]]:
    """Catch what is written to the process's own stderr, of all threads: the list holds its lines
    afterwards.

    libjpeg tells only there that it made up a part of the picture.
    """
    lines: list[str] = []
    with _memory() as heard:
        try:
            with _stderr_sent(heard):
                yield lines
        finally:
            heard.seek(0)
            lines += heard.read(_MOST_HEARD).decode(errors="replace").splitlines()


@contextmanager
def stdout_kept() -> Iterator[int]:
    """Keep the process's own standard output for what is written to this file descriptor; all else
    that is printed in here goes to stderr.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is None:  # closed: no other file is to get its number
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield kept
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _stderr_sent(file: IO[bytes]) -> Iterator[None]:
    """Send what is written to the process's own stderr into a file."""
    with _lock:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, ValueError):  # there is no stderr
            yield
            return
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _memory() -> IO[bytes]:
    """A new file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("gancolor"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
