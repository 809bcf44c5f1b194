"""Files that somebody else named: whether they may be opened, and names that file systems take."""

from __future__ import annotations

import errno
import os
import stat

LONGEST_NAME = 255
"""Bytes that a file's name may have on the usual file systems."""

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Look at a file without opening it; returns its status. OSError, with the reason, unless it is a regular one.

    To open a pipe waits for its other end, and a device is read until memory is full.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a name with a NUL, or with characters that the system's names cannot have
        raise OSError(errno.EINVAL, f"its name cannot be one of a file ({error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
    return status


def fitted(stem: str, ending: str) -> str:
    """A file's name of a stem and an ending (`-2.jpg`), the stem cut where the name would be too long."""
    while len(os.fsencode(stem + ending)) > LONGEST_NAME:
        stem = stem[:-1]  # whole characters
    return stem + ending
