"""Read the pictures that a source holds: files, members of zip and tar archives, and files in
object storage.

Archives are read where they are: nothing is unpacked, and no member's name becomes a path. A reader
can be sent to another process. Where a picture cannot be read, a DataError tells the reason alone,
because the caller knows the name.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from gancolor.data.archives import StrictInfo
from gancolor.errors import DataError
from gancolor.images.formats import HEAD
from gancolor.runtime import files, remote_files
from gancolor.runtime.remote_files import Refused

TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a tar archive raises, beside OSError, where it is cut off or damaged."""

TarMode = Literal["r:", "r|*"]
"""How `tarfile.open` opens a plain tar, and a compressed one."""

# The header before each member of a zip: start, flags, method, lengths of name and extra.
_ZIP_HEADER = struct.Struct("<4s2xHH16xHH")
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12  # methods
_BLOCK = 1 << 16  # bytes that are decompressed at once


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture in a source, which may become one of the set.

    `name`: relative to the source, with forward slashes; absolute where a manifest says so. `size`
    in bytes. `stamp` changes with the content: mtime in ns, in archives the checksum or mtime, in
    object storage a hash of the version's mark.
    `given`: the split that the source states, or "". `offset`: where it lies in an archive.
    """

    name: str
    size: int
    stamp: int
    given: str = ""
    offset: int | None = None


class Reader(Protocol):
    """Reads a source's pictures in any order, also in another process."""

    def read(self, candidate: Candidate, /) -> bytes:
        """The file's bytes. DataError with the reason alone."""


class FileReader:
    """Reads files below a folder, or by their absolute names."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def read(self, candidate: Candidate) -> bytes:
        """The file's bytes. DataError with the reason alone."""
        _check_size(candidate.size)
        path = os.path.join(self._root, candidate.name)
        if "\0" in path:  # a list can hold such
            raise DataError("its name cannot be one of a file (it has a NUL)")
        try:
            return files.read_regular(path)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from None
        except ValueError as error:
            raise DataError(str(error)) from None


class StoredReader:
    """Reads files below a folder in object storage, each in one request."""

    def __init__(self, address: str) -> None:
        self._address = address

    def read(self, candidate: Candidate) -> bytes:
        """The file's bytes. DataError with the reason alone, MissingExtra without the storage's
        library.
        """
        _check_size(candidate.size)
        try:
            data = remote_files.read_bytes(
                remote_files.joined(self._address, candidate.name), candidate.size
            )
        except Refused as refused:
            raise DataError(str(refused)) from None
        if len(data) != candidate.size:
            raise DataError(f"it no longer has the {candidate.size} bytes that it was listed with")
        return data


class ZipReader:
    """Reads members of a zip where they begin, without the archive's directory, which would lie in
    the memory of every process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, candidate: Candidate) -> bytes:
        """The member's bytes, checked against its checksum. DataError with the reason alone."""
        _check_size(candidate.size)
        try:
            with self._path.open("rb") as file:
                data = _read_zipped(file, candidate)
        except (OSError, EOFError, zlib.error, struct.error) as error:
            raise DataError(f"the archive is damaged ({error})") from None
        if len(data) != candidate.size or zlib.crc32(data) != candidate.stamp:
            raise DataError("its bytes in the archive do not have the checksum that they should")
        return data


def _read_zipped(file: IO[bytes], candidate: Candidate) -> bytes:
    """The bytes of a zip's member, where its own header says that they are, and how compressed."""
    file.seek(candidate.offset or 0)
    start, _, method, *lengths = _ZIP_HEADER.unpack(file.read(_ZIP_HEADER.size))
    if start != b"PK\3\4":
        raise DataError("the archive is damaged: no member begins where its directory says so")
    file.seek(sum(lengths), 1)
    if method == _STORED:
        return file.read(candidate.size)
    if method not in (_DEFLATED, _BZIP2):
        raise DataError(
            f"it is compressed by a method (number {method}) that is not known here; unpack it"
            " first"
        )
    expander: zlib._Decompress | bz2.BZ2Decompressor = (
        zlib.decompressobj(-15) if method == _DEFLATED else bz2.BZ2Decompressor()
    )
    # Up to one byte more than the size is decompressed: a member may not become larger than it says.
    parts, left = [], candidate.size + 1
    while left > 0 and not expander.eof:
        block = file.read(_BLOCK)
        if not block:
            raise EOFError("it is cut off")
        part = expander.decompress(block, left)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class TarReader:
    """Reads members of a plain tar where they lie."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, candidate: Candidate) -> bytes:
        """The member's bytes. DataError with the reason alone."""
        _check_size(candidate.size)
        try:
            with self._path.open("rb") as file:
                file.seek(candidate.offset or 0)
                data = file.read(candidate.size)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from None
        if len(data) < candidate.size:
            raise DataError("the archive is cut off")
        return data


class CompressedTarReader:
    """Reads members of a compressed tar, from the archive's beginning again for each that lies
    before the last one: slowly, unless they are asked for in the archive's order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: Iterator[TarMember] = iter(())

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_members": iter(())}

    def read(self, candidate: Candidate) -> bytes:
        """The member's bytes. DataError with the reason alone."""
        for again in (False, True):
            if again:
                self._members = tar_members(self._path, "r|*")
            with contextlib.suppress(*TAR_ERRORS, OSError):  # as where the archive ends
                for member in self._members:
                    if member.info.offset_data == candidate.offset:
                        return member.read()
        raise DataError("it is no longer in the archive, or the archive is cut off")


class TarMember:
    """A member of a tar that is read once, from its beginning: a compressed tar cannot go back."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self.info = info
        self._archive, self._head = archive, b""

    def head(self) -> bytes:
        """The first bytes, which tell the kind of a picture."""
        self._head = self._read(HEAD)
        return self._head

    def read(self) -> bytes:
        """All bytes. DataError with the reason alone."""
        _check_size(self.info.size)
        try:
            data = self._head + self._read()
        except (*TAR_ERRORS, OSError) as error:
            raise DataError(f"the archive is damaged ({error})") from None
        if len(data) < self.info.size:
            raise DataError("the archive is cut off")
        return data

    @functools.cached_property
    def _file(self) -> IO[bytes] | None:
        return self._archive.extractfile(self.info)

    def _read(self, size: int = -1) -> bytes:
        return b"" if self._file is None else self._file.read(size)


def tar_members(path: Path, mode: TarMode) -> Iterator[TarMember]:
    """The members of a tar in its order, each of which can be read until the next is asked for.

    TAR_ERRORS or OSError where the archive is cut off or damaged.
    """
    with tarfile.open(path, mode, tarinfo=StrictInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
            yield TarMember(archive, info)
        if archive.fileobj is None or archive.fileobj.tell() <= archive.offset:
            raise tarfile.ReadError("it ends without the mark of the end")


def _check_size(size: int) -> None:
    """DataError if a file of `size` bytes is too large to be read."""
    try:
        files.check_size(size)
    except ValueError as error:
        raise DataError(str(error)) from None
