"""Open only what is a regular file: whatever a list names, no device is read and no pipe waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 1 << 29
"""Larger files are not taken for training: a picture of so many bytes would not fit into every process's memory."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read. OSError as `open` has it, ValueError for a device, pipe or socket: it is not waited for."""
    _check(os.stat(path).st_mode, path)  # first: to open a device may already do something
    # And again when it is open, so that nothing can have taken its place; a pipe without a writer opens at once so.
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | Path, most: int | None = None) -> bytes:
    """The bytes of a file. Raises what `open_regular` does, ValueError for more than `most` (default `MOST_BYTES`)."""
    with open_regular(path) as file:
        check_size(os.fstat(file.fileno()).st_size, most)
        data = file.read((MOST_BYTES if most is None else most) + 1)
    check_size(len(data), most)
    return data


def read_head(path: str | Path, size: int) -> bytes:
    """The first bytes of a file; none of one that cannot be read, or is no regular file."""
    try:
        with open_regular(path) as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def check_size(size: int, most: int | None = None) -> None:
    """ValueError if a file of `size` bytes is too large to be read."""
    most = MOST_BYTES if most is None else most
    if size > most:
        raise ValueError(f"it has more than {most >> 20} MiB")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise ValueError("it is no regular file")
