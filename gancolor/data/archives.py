"""Unpacks a downloaded archive whole or not at all, and nothing outside its folder.

A damaged tar archive is told from a whole one: tarfile alone takes a damaged header for the end.
"""

from __future__ import annotations

import bz2
import errno
import fnmatch
import gzip
import lzma
import os
import re
import secrets
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

from gancolor.errors import DataError, shown
from gancolor.runtime.files import Progress

BLOCK = 1 << 20  # bytes

_DAMAGED_HEADER = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
_OPENERS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    b"\xfd7zXZ\0": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),
}
# What zipfile, tarfile and the decompressors raise for bytes that make no sense.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)
_SENSELESS = (ValueError, struct.error, OverflowError, IndexError)


class BadArchive(DataError):
    """An archive is damaged, of an unknown kind, or holds what it must not hold."""


@dataclass(frozen=True)
class Limits:
    """What an archive may become: above `ratio` times its own bytes (and `spare` bytes) it counts
    as a bomb.
    """

    bytes: int = 1 << 40
    files: int = 20_000_000
    ratio: float = 50.0
    spare: int = 100_000_000


@dataclass(frozen=True)
class Unpacked:
    """How much came out of an archive."""

    files: int
    bytes: int


def unpack(
    archive: Path,
    folder: Path,
    *,
    keep: Sequence[str] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack a zip or tar (.gz, .bz2, .xz) archive into `folder`, which must not exist or be empty.

    `keep`: globs over the names in the archive (`*` also matches `/`); none: everything. The folder
    appears when it is whole. BadArchive in one line, and nothing left behind, if the archive is
    damaged, encrypted, too large for `limits`, or holds a link, a device, or a name that leads out
    of the folder; DataError if the disk has no room.
    """
    aside = folder.with_name(f".{folder.name}.unpacking-{secrets.token_hex(4)}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(
                f"folder to unpack into must be empty, got {shown(folder)}; move what it holds"
            )
        aside.mkdir(parents=True)
        try:
            job = _Job(archive, aside, keep, limits or Limits(), progress)
            job.run()
            if folder.exists():
                folder.rmdir()
            os.rename(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except _Refused as error:
        raise BadArchive(
            f"archive must {error}, got {shown(archive)}; nothing was unpacked"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot unpack {shown(archive)} into {shown(folder)}: {error.strerror or error}"
        ) from error
    return Unpacked(job.files, job.bytes)


class StrictInfo(tarfile.TarInfo):
    """For `tarfile.open(..., tarinfo=StrictInfo)`: a header that is damaged or cut off raises
    tarfile.ReadError.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:  # tarfile gives it by position
        """The next member of an archive."""
        try:
            return super().fromtarfile(tarfile_)
        except _DAMAGED_HEADER as error:
            raise tarfile.ReadError(f"a member's header is damaged or cut off: {error}") from None


class _Refused(Exception):
    """The archive is not what it must be; the message ends the sentence "archive must"."""


class _Job:
    def __init__(
        self,
        archive: Path,
        folder: Path,
        keep: Sequence[str],
        limits: Limits,
        progress: Progress | None,
    ):
        self.archive, self.folder, self.limits, self.progress = archive, folder, limits, progress
        self.wanted = (
            re.compile("|".join(fnmatch.translate(glob) for glob in keep)) if keep else None
        )
        self.size = archive.stat().st_size
        self.most = min(limits.bytes, int(limits.ratio * self.size) + limits.spare)
        self.files = self.bytes = 0
        self.made: set[Path] = {folder}

    def run(self) -> None:
        with self.archive.open("rb") as raw, _damage_in_words():
            begin = raw.read(8)
            raw.seek(0)
            opener = next(
                (opener for magic, opener in _OPENERS.items() if begin.startswith(magic)), None
            )
            if opener is not None:
                with opener(raw) as unpacked:
                    self._tar(raw, unpacked)
            elif begin[:4] in (b"PK\3\4", b"PK\5\6"):
                self._zip(raw)
            elif tarfile.is_tarfile(raw):
                raw.seek(0)
                self._tar(raw, raw)
            else:
                raise _Refused(
                    f"be a zip or a tar file (.gz, .bz2, .xz), not one that begins with {begin!r}"
                )
        if not self.files:
            raise _Refused("hold a file that is wanted")

    def _zip(self, raw: IO[bytes]) -> None:
        with zipfile.ZipFile(raw) as pack:
            items = [
                item for item in pack.infolist() if not item.is_dir() and self._wants(item.filename)
            ]
            self._check(sum(item.file_size for item in items), len(items))
            self._check_space(sum(item.file_size for item in items))
            for item in items:
                kind = stat.S_IFMT(item.external_attr >> 16)
                if item.flag_bits & 1:
                    raise _Refused(
                        f"be without a password (its {shown(item.filename)} is encrypted)"
                    )
                if kind not in (0, stat.S_IFREG):
                    raise _Refused(
                        f"hold only files and folders (its {shown(item.filename)} is a link or a"
                        " device)"
                    )
                with pack.open(item) as source:
                    self._write(item.filename, source, item.file_size)
                self._tell(raw)

    def _tar(self, raw: IO[bytes], unpacked: IO[bytes]) -> None:
        self._check_space(self.size if self.wanted is None else 0)
        stream = _Counted(unpacked, self.most)
        pack: Any  # its list of members is no part of the annotations
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=StrictInfo) as pack:
            while (item := pack.next()) is not None:
                pack.members.clear()  # else memory grows with the number of files
                if item.isdir() or not self._wants(item.name):
                    continue
                if not item.isreg() or item.issparse():
                    raise _Refused(
                        f"hold only files and folders (its {shown(item.name)} is a link or a"
                        " device)"
                    )
                self._check(self.bytes + item.size, self.files + 1)
                self._write(item.name, pack.extractfile(item), item.size)
                self._tell(raw)
            if stream.ended:
                raise _Refused("be whole (it is cut off)")
        while stream.read(BLOCK):  # the checksum comes last
            pass

    def _wants(self, name: str) -> bool:
        return self.wanted is None or self.wanted.match(name.removeprefix("./")) is not None

    def _write(self, name: str, source: IO[bytes], size: int) -> None:
        target = self.folder.joinpath(*_parts(name))
        try:
            if target.parent not in self.made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self.made.add(target.parent)
            with target.open("xb") as file:
                shutil.copyfileobj(source, file, BLOCK)
                done = file.tell()
        except (FileExistsError, NotADirectoryError):
            raise _Refused(f"hold every name once (it has {shown(name)} twice)") from None
        if done != size:
            raise _Refused(f"be whole (its {shown(name)} has {done} of {size} bytes)")
        self.files += 1
        self.bytes += size

    def _check(self, size: int, files: int) -> None:
        if size > self.most or files > self.limits.files:
            raise _too_much(self.most, self.limits.files)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            words = f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; make room"
            raise OSError(errno.ENOSPC, words)

    def _tell(self, raw: IO[bytes]) -> None:
        if self.progress is not None:
            self.progress(raw.tell(), self.size)


class _Counted:
    """What tarfile reads from: a stream that ends a bomb, and knows whether its end was reached."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.most, self.ended = stream, most, False

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""
        block = self.stream.read(size)
        self.most -= len(block)
        self.ended = self.ended or not block
        if self.most < -BLOCK:
            raise _too_much(0, 0)
        return block


def _too_much(most: int, files: int) -> _Refused:
    room = f" (at most {most / 1e6:,.0f} MB in {files:,} files)" if most else ""
    return _Refused(f"unpack to an amount that fits its size{room}: it looks like a bomb")


def _parts(name: str) -> list[str]:
    """Parts of a safe path. _Refused if the name leads out of the folder, on this system or on
    another.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = any(
        part == ".." or "\\" in part or "\0" in part or re.match("[A-Za-z]:", part)
        for part in parts
    )
    if outside or not parts or name.startswith("/"):
        raise _Refused(f"hold only names inside the folder, not {shown(name)}")
    return parts


@contextmanager
def _damage_in_words() -> Iterator[None]:
    try:
        yield
    except (*_DAMAGED, *_SENSELESS) as error:
        raise _Refused(
            f"be whole (it is damaged: {' '.join(str(error).split()) or type(error).__name__})"
        ) from None
    except OSError as error:
        # Those of gzip and bz2 have no number; EINVAL comes from seeking to a place that cannot be,
        # or from a name.
        if error.errno in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise _Refused(f"be whole (it is damaged: {error.strerror or error})") from None
        raise
