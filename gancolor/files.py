"""Files that somebody else named: only regular ones are opened, up to a size; names that file systems take."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 255
"""Bytes that a file's name may have on the usual file systems."""

MOST_BYTES = 1 << 29
"""Larger files are not taken for training: a picture of so many bytes would not fit into every process's memory."""

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Look at a file without opening it; returns its status. OSError, with the reason, unless it is a regular one.

    To open a pipe waits for its other end, and a device is read until memory is full.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a name with a NUL, or with characters that the system's names cannot have
        raise OSError(errno.EINVAL, f"its name cannot be one of a file ({error})") from None
    try:
        _check(status, path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    return status


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read. OSError as `open` has it, ValueError for a device, pipe or socket: it is not waited for."""
    _check(os.stat(path), path)  # first: to open a device may already do something
    # And again when it is open, so that nothing can have taken its place; a pipe without a writer opens at once so.
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()), path)
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


def fitted(stem: str, ending: str) -> str:
    """A file's name of a stem and an ending (`-2.jpg`), the stem cut where the name would be too long."""
    while len(os.fsencode(stem + ending)) > LONGEST_NAME:
        stem = stem[:-1]  # whole characters
    return stem + ending


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"it is {kind}, not a regular file")


def cache_root() -> Path:
    """The folder of whatever can be made again: $GANCOLOR_CACHE, else `gancolor` in the user's cache folder."""
    if given := os.environ.get("GANCOLOR_CACHE"):
        return Path(given)
    own = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        user = Path(own) if own else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:  # a user without a home, as in some containers
        user = Path(tempfile.gettempdir())
    return user / "gancolor"
