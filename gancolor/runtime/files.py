"""Files: read with care when somebody else named them, written whole or not at all, and locked.

Only regular files are opened, and read up to a size. Whatever is wrong with a JSON or TOML text is
a ValueError. A file is written beside its place and takes its name when it is whole. A lock is a
locked file, which the system releases even when its holder is killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gancolor.errors import DataError

if sys.platform != "win32":  # there two processes at once are not kept apart
    import fcntl


Progress = Callable[[int, int | None], None]
"""What is told how far a job is: bytes or frames done, and in all (None where that is not known)."""

StageProgress = Callable[[str, int, int | None], None]
"""The same for a job of several stages; the first argument says which one it is in."""

LONGEST_NAME = 255
"""Bytes that a file's name may have on the usual file systems."""

MOST_BYTES = 1 << 29
"""Larger files are not taken for training: a picture of so many bytes would not fit into every
process's memory.
"""

_OTHERS = {  # what is no regular file
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # a file system without locks

_LOOK_AGAIN = 0.2  # seconds between two tries of a lock

_descriptors: set[int] = set()  # of the locks that this process holds


def stat_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Look at a file without opening it; returns its status. OSError, with the reason, unless it is
    a regular one.

    To open a pipe waits for its other end, and a device is read until memory is full.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a NUL in it, or characters that the system's names cannot have
        raise OSError(errno.EINVAL, f"its name cannot be one of a file ({error})") from None
    try:
        _check(status, path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    return status


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read. OSError as `open` has it, ValueError for a device, pipe or socket: it is
    not waited for.
    """
    _check(os.stat(path), path)  # first: to open a device may already do something
    # And again when it is open, so that nothing can have taken its place; a pipe without a writer
    # opens at once so.
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | Path, most: int | None = None) -> bytes:
    """The bytes of a file. Raises what `open_regular` does, ValueError for more than `most`
    (default `MOST_BYTES`).
    """
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
    """Open without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _OTHERS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"it is {kind}, not a regular file")


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError if it is none, or nested deeper than can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def toml_of(text: str) -> dict[str, Any]:
    """The table of a TOML text. ValueError if it is none, or nested deeper than can be read."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def fitted(stem: str, ending: str) -> str:
    """A file's name of a stem and an ending (`-2.jpg`), the stem cut where the name would be too
    long.
    """
    while len(os.fsencode(stem + ending)) > LONGEST_NAME:
        stem = stem[:-1]  # whole characters
    return stem + ending


def cache_root() -> Path:
    """The folder of whatever can be made again: $GANCOLOR_CACHE, else `gancolor` in the user's
    cache folder.
    """
    if given := os.environ.get("GANCOLOR_CACHE"):
        return Path(given)
    own = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        user = (
            Path(own)
            if own
            else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        )
    except RuntimeError:  # a user without a home, as in some containers
        user = Path(tempfile.gettempdir())
    return user / "gancolor"


@contextlib.contextmanager
def written(path: Path, *, keep: Path | None = None, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a new file for writing that takes the name `path` when the block has ended well.

    It is written beside `path` under a hidden name and renamed, so that a reader sees the old file
    or the new one, also after a kill. `durable`: also after a power cut, for which the disk is
    waited for; what can be made again does without. When the block or the writing raises, the new
    file is removed and `path` is as it was. `keep`: where the file that is replaced moves to. The
    folder must exist. OSError as the system raises it.
    """
    aside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb", buffering=1 << 18) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(aside, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a text (as UTF-8) or bytes by way of `written`. OSError as the system raises it."""
    with written(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX only; elsewhere the rename alone must do)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, message: str | None, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards.

    If another process holds it still after `patience` seconds: DataError(`message`); where
    `message` is None it is waited for. Its folder is made where it is missing. OSError if the file
    cannot be written. Processes that are forked meanwhile do not hold it on. On Windows, and on
    disks without locks, processes are not kept apart.
    """
    if sys.platform == "win32":
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        return
    descriptor = _take(path, message, time.monotonic() + patience)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # its folder may be gone, or closed to writing
            path.unlink()
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _take(path: Path, message: str | None, deadline: float) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(
                descriptor, fcntl.LOCK_EX if message is None else fcntl.LOCK_EX | fcntl.LOCK_NB
            )
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in _NO_LOCKS:
                os.close(descriptor)
                if not isinstance(error, BlockingIOError):
                    raise
                if time.monotonic() >= deadline:
                    raise DataError(message or "") from None
                time.sleep(_LOOK_AGAIN)
                continue
        if _is_at(path, descriptor):
            _descriptors.add(descriptor)
            return descriptor
        os.close(descriptor)  # its holder has just removed it: the next must be the same for all


def _let_go() -> None:
    """In a forked process: a copy of a descriptor would hold the lock after its holder was killed."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that is open is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
