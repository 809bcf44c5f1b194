"""Files in object storage: found, read, written whole and removed by their addresses.

An address is `s3://bucket/key`, `gs://bucket/key` or `hf://datasets/owner/name[@revision]/path`.
This module alone knows fsspec, whose libraries speak to the storage. They find credentials in their
own ways (environment, files, roles of the machine), and no address and no option of ours holds any.
Files on web servers are `download`'s, which reads those in object storage through this module too.

A process that was forked makes its own connections: fsspec keeps none across a fork.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import posixpath
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gancolor.errors import ConfigError, DataError, MissingExtra, shown

RETRIES = 4
"""Tries after the first one, where a failure may pass."""
BACKOFF = 0.5
"""Seconds before the second try; twice that before the next, and so on."""

_BLOCK = 4 << 20  # bytes that are read ahead of what is asked for
_LONGEST = 300  # characters of a reason that are shown

_INSTALLS = {  # what speaks to each kind of storage, and the line that installs it
    "s3": ("s3fs", "pip install 'gancolor[s3]'"),
    "gs": ("gcsfs", "pip install gcsfs"),
    "hf": ("huggingface_hub", "pip install 'gancolor[hub]'"),
}
_OPTIONS: dict[str, dict[str, Any]] = {  # parts that are sent at once: each takes 50 MB
    "s3": {"max_concurrency": 2}
}
_MARKS = ("ETag", "etag", "generation", "blob_id")  # what different kinds call a file's version

_Given = TypeVar("_Given")
_log = logging.getLogger("gancolor")


class Refused(Exception):
    """Object storage did not do what it was asked for. `passing`: whether to try again makes sense."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def is_address(text: str) -> bool:
    """Whether a text is meant as an address, of whatever kind, and not as a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def is_web(address: str) -> bool:
    """Whether an address is that of a file on a web server."""
    return address.lower().startswith(("http://", "https://"))


def is_stored(address: str) -> bool:
    """Whether an address is one in object storage."""
    return address.partition("://")[0] in _INSTALLS and "://" in address


def is_remote(address: str) -> bool:
    """Whether an address can be read from: in object storage or on a web server."""
    return is_web(address) or is_stored(address)


def check(address: str, flag: str, *, written: bool = False) -> None:
    """ConfigError, naming the option `flag`, for an address that cannot be read, or `written` to."""
    kinds = "s3:// or gs://" if written else "s3://, gs://, hf://datasets/ or https://"
    fits = address.startswith(("s3://", "gs://")) if written else is_remote(address)
    if not fits or (address.startswith("hf://") and not address.startswith("hf://datasets/")):
        raise ConfigError(f"{flag} must be a path, or begin with {kinds}, got {shown(address)}")
    if not address.partition("://")[2].strip("/"):
        raise ConfigError(f"{flag} must name a bucket behind {kinds}, got {shown(address)}")
    if is_stored(address) and "@" in address.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            f"{flag} must hold no credentials, got {shown(address)}; give them as the storage's own"
            " tools do, for example by ~/.aws/credentials"
        )


def joined(folder: str, name: str) -> str:
    """The address of what is called so, or lies there, below a folder's address."""
    return f"{folder.rstrip('/')}/{name}" if name not in ("", ".") else folder.rstrip("/")


@dataclass(frozen=True)
class StoredEntry:
    """What a folder in object storage holds: its `name` there, its bytes, when it was last changed
    (seconds since 1970, None where that is not told), and the `mark` of its version ("" for none).
    """

    name: str
    size: int
    is_folder: bool = False
    modified: float | None = None
    mark: str = ""


def entries(folder: str) -> list[StoredEntry]:
    """What is in a folder, sorted by name; nothing where nothing is. DataError as `attempt`."""
    system, path = _system(folder)

    def listed() -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            return list(system.ls(path + "/", detail=True))
        with contextlib.suppress(FileNotFoundError):  # of an empty bucket, or none at all
            if path == "" or system.exists(path.split("/")[0]):
                return []
        raise FileNotFoundError(f"no bucket {path.split('/')[0]}")

    found = []
    for each in attempt(folder, "listed", listed):
        name = posixpath.basename(str(each["name"]).rstrip("/"))
        if str(each["name"]).strip("/") != path.strip("/") and name:
            is_folder = each["type"] == "directory"
            size, mark = int(each["size"] or 0), _mark(each)
            found.append(StoredEntry(name, size, is_folder, _modified(each), mark))
    return sorted(found, key=lambda entry: entry.name)


def walk(folder: str) -> Iterator[tuple[str, StoredEntry]]:
    """The files under a folder, sorted in each, without hidden ones: by their paths below it.

    One folder's list is held in memory at a time. DataError as `attempt`.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        deeper = []
        for entry in entries(joined(folder, inside)):
            if entry.name.startswith("."):
                continue
            if entry.is_folder:
                deeper.append(posixpath.join(inside, entry.name))
            else:
                yield posixpath.join(inside, entry.name), entry
        waiting += reversed(deeper)


def find(address: str) -> StoredEntry | None:
    """What is at an address; None where nothing is. DataError as `attempt`."""
    system, path = _system(address)

    def asked() -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            return dict(system.info(path))
        return None

    if (found := attempt(address, "asked for", asked)) is None:
        return None
    name = posixpath.basename(path)
    size, is_folder = int(found["size"] or 0), found["type"] == "directory"
    return StoredEntry(name, size, is_folder, _modified(found), _mark(found))


def read_text(address: str) -> str:
    """The text (UTF-8) of a file; "" where nothing is. DataError as `attempt`."""
    system, path = _system(address)

    def read() -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return bytes(system.cat_file(path))
        return b""

    return attempt(address, "read", read).decode("utf-8", "replace")


def read_bytes(address: str, size: int) -> bytes:
    """All bytes of a file that has so many, in one request; one byte more where it has grown.

    Refused with the reason alone when it cannot be had.
    """
    system, path = _system(address)
    if size == 0:  # storage refuses a part of nothing
        return b""
    # Asked for a part, s3fs does not ask for the size first.
    return _insist(address, lambda: bytes(system.cat_file(path, start=0, end=size + 1)))


def upload(path: Path, address: str) -> None:
    """Write a file to an address, whole or not at all. DataError as `attempt`.

    It appears when all of it has arrived; what was there is replaced. S3 compares the checksum that
    botocore sends along; here its length is compared.
    """
    system, target = _system(address)
    size = path.stat().st_size

    def put() -> None:
        system.put_file(str(path), target)
        there = int(system.info(target)["size"])
        if there != size:
            raise Refused(f"{there} of its {size} bytes arrived", passing=True)

    attempt(address, "written", put)


def remove(address: str) -> None:
    """Remove a file, if it is there. DataError as `attempt`."""
    system, path = _system(address)

    def removed() -> None:
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(path)

    attempt(address, "removed", removed)


def attempt(address: str, done: str, action: Callable[[], _Given]) -> _Given:
    """What `action` returns, which is tried again, and said, as long as its failures may pass.

    `done`: what is to be done with the address, in a word. DataError with the reason when it cannot
    be done.
    """
    try:
        return _insist(address, action)
    except Refused as refused:
        raise DataError(f"{shown(address)} could not be {done}: {refused}") from None


def _insist(address: str, action: Callable[[], _Given]) -> _Given:
    """What `action` returns, as `attempt` has it. Refused, with the reason in a line, at last."""
    tries = 0
    while True:
        try:
            with _translated():
                return action()
        except Refused as refused:
            if tries == RETRIES or not refused.passing:
                tried = f" (tried {tries + 1} times)" if tries else ""
                raise Refused(f"{_line(refused)}{tried}", refused.passing) from None
            _log.warning("%s: %s; trying again", shown(address), _line(refused))
            time.sleep(BACKOFF * 2**tries)
            tries += 1


class StoredFile:
    """A file in object storage as if a server had answered: its bytes from `position` on.

    `validator`: the mark of the version that is to be gone on with; another one is begun at 0.
    `status`: 200, or 206 from a position on. `headers`: as an HTTP server has them. Refused when it
    cannot be had.
    """

    def __init__(self, address: str, position: int = 0, validator: str = "") -> None:
        system, path = _system(address)
        with _translated():
            self._file = system.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
            about = self._file.details
            size = int(self._file.size)
            mark = _mark(about)
            if position and ((validator and mark != validator) or position > size):
                position = 0
            self._file.seek(position)
        self.status = 206 if position else 200
        self.headers = {"Content-Length": str(size - position), "ETag": mark}
        if position:
            self.headers["Content-Range"] = f"bytes {position}-{size - 1}/{size}"

    def read1(self, most: int) -> bytes:
        """Up to so many bytes, b"" at the end. OSError when the connection fails."""
        try:
            with _translated():
                return bytes(self._file.read(most))
        except Refused as refused:
            raise OSError(str(refused)) from refused

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def _system(address: str) -> tuple[Any, str]:
    """What speaks to an address's storage, and the path of the address there. MissingExtra where
    its library is not installed.
    """
    scheme, _, path = address.partition("://")
    library, line = _INSTALLS[scheme]
    missing = f"addresses with {scheme}:// need {library}; install it: {line}"
    try:
        import fsspec

        # Its own list of what it has seen would hide what others write.
        system = fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except ImportError:
        raise MissingExtra(missing) from None
    return system, path.rstrip("/")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what fsspec's libraries raise, which is almost anything, into Refused."""
    try:
        yield
    except (Refused, MissingExtra, MemoryError):
        raise
    except Exception as error:
        raise Refused(*_explained(error)) from error


def _explained(error: Exception) -> tuple[str, bool]:
    """What went wrong, and whether it may pass."""
    name, words = type(error).__name__, " ".join(str(error).split())
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"access is denied ({words}); look at the rights and the credentials", False
    if "Credentials" in name or "Token" in name:
        return (
            f"there are no valid credentials ({words}); see the storage's own documentation",
            False,
        )
    if "bucket" in words.lower() and isinstance(error, FileNotFoundError):
        return "there is no such bucket", False
    if isinstance(error, FileNotFoundError) or status == 404:
        return "nothing is there", False
    if isinstance(error, ValueError | TypeError | NotImplementedError | IsADirectoryError):
        return words or name, False
    return words or name, True


def _modified(about: dict[str, Any]) -> float | None:
    told = about.get("LastModified") or about.get("mtime") or about.get("updated")
    return told.timestamp() if isinstance(told, datetime.datetime) else None


def _mark(about: dict[str, Any]) -> str:
    return next((str(about[key]) for key in _MARKS if about.get(key)), "")


def _line(refused: Refused) -> str:
    return shown(str(refused)[:_LONGEST])
