"""What the doctor's sources have in common: entries, readers, and which files are taken.

Pictures in zip and tar archives: read where they are, nothing is unpacked and no member's name
becomes a path.
"""

from __future__ import annotations

import bz2
import functools
import logging
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Literal, Protocol

from gancolor.data.archives import StrictInfo
from gancolor.errors import DataError, shown
from gancolor.images import formats
from gancolor.images.formats import HEAD, is_litter
from gancolor.runtime import files

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What sources call a split, and what it is called here."""

OTHER = "other file(s)"
"""Words for what is no picture."""

EXCLUDED = "left out by --exclude"
"""Words for what a pattern leaves out."""

_ARCHIVES = frozenset(".zip .tar .tgz .tbz2 .txz .gz .bz2 .xz .zst .7z .rar".split())
_LARGEST = 2**63 - 1  # that SQLite keeps


Check = Callable[[], None]


def go_on() -> None:
    """Stop nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in a source.

    `name`: relative to the source, with forward slashes; absolute where a manifest says so. `size`
    in bytes. `stamp` changes with the content: mtime in ns, or in archives the checksum or mtime.
    `given`: the split that the source states, or "". `offset`: where it lies in an archive.
    """

    name: str
    size: int
    stamp: int
    given: str = ""
    offset: int | None = None


class Reader(Protocol):
    """Reads a source's pictures in any order, also in another process."""

    def read(self, entry: Entry, /) -> bytes:
        """The file's bytes. DataError with the reason alone: the caller knows the name."""


class Source(ABC):
    """Where pictures come from.

    `exclude`: patterns of names that are left out, see `kinds.is_excluded`. Of the last walk:
    `skipped` counts, by words for it, what was left out, `passed` those of them that are other
    files, by suffix. `sorted_in` and `loose` count the pictures with and without a given split
    where `by_folder` asks for one. `incomplete`: it ended before the source's end.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, by_folder: bool) -> None:
        self.path, self.by_folder = path, by_folder
        self.exclude: tuple[str, ...] = ()
        self.skipped: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.sorted_in = self.loose = 0
        self.incomplete = False

    def walk(self, check: Check = go_on) -> Iterator[Entry]:
        """All pictures, found as they are asked for. DataError if the source cannot be read at all.

        `check` is called now and then, also where there are no pictures, and may raise to stop.
        """
        self.skipped.clear()
        self.passed.clear()
        self.sorted_in = self.loose = 0
        self.incomplete = False
        for entry in self._entries(check):
            if formats.is_excluded(entry.name, self.exclude):
                self.skipped[EXCLUDED] += 1
                continue
            if self.by_folder:
                self.sorted_in += bool(entry.given)
                self.loose += not entry.given
            yield entry

    @abstractmethod
    def _entries(self, check: Check) -> Iterator[Entry]:
        """See `walk`."""

    @abstractmethod
    def reader(self) -> Reader:
        """What reads the entries; it can be sent to other processes."""

    def takes(self, name: str, head: Callable[[], bytes]) -> bool:
        """Whether a file counts as a picture; if not, it is counted. `head` returns its first
        `kinds.HEAD` bytes.

        The suffix of a kind decides whatever the file holds, of others the first bytes do.
        """
        suffix = formats.suffix_of(name)
        kind = formats.by_suffix(name) or formats.kind_of(head(), name)
        if kind is not None and kind.readable:
            return True
        if suffix in _ARCHIVES:
            self.skipped["archive(s) inside, not opened"] += 1
        else:
            self.skipped[OTHER] += 1
            self.passed[suffix] += 1
        return False

    def given(self, name: str) -> str:
        """The split that the top folder stands for, where folders are to say so; else ""."""
        top, slash, _ = name.partition("/")
        return SPLITS.get(top.lower(), "") if self.by_folder and slash else ""


class FileReader:
    """Reads files below a folder, or by their absolute names."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def read(self, entry: Entry) -> bytes:
        """The file's bytes. DataError with the reason alone."""
        check_size(entry.size)
        path = os.path.join(self._root, entry.name)
        if "\0" in path:  # a list can hold such
            raise DataError("its name cannot be one of a file (it has a NUL)")
        try:
            return files.read_regular(path)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from None
        except ValueError as error:
            raise DataError(str(error)) from None


def check_size(size: int) -> None:
    """DataError if a file of `size` bytes is too large to be read."""
    try:
        files.check_size(size)
    except ValueError as error:
        raise DataError(str(error)) from None


def bounded(value: float) -> int:
    """A size or time as SQLite can keep it: archives may state any number."""
    return int(min(max(value, -_LARGEST), _LARGEST))


_LOCAL = struct.Struct(
    "<4s2xHH16xHH"
)  # a zip's header before each member: flags, method, lengths of name and extra
_BLOCK = 1 << 16
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12

_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)

log = logging.getLogger("gancolor")


class _Archive(Source):
    """What zip and tar have in common."""

    def _take(
        self, name: str, kind: int, size: int, stamp: float, offset: int, head: Callable[[], bytes]
    ) -> Entry | None:
        """The entry of a member of some `kind` (stat's, 0 where it is not told), None if it is no
        picture.
        """
        name = member_name(name)
        if (
            kind == stat.S_IFDIR
            or not name
            or _is_hidden(name)
            or any(map(is_litter, name.split("/")))
        ):
            return None
        if kind not in (0, stat.S_IFREG):
            self.skipped["link(s) in archives" if kind == stat.S_IFLNK else OTHER] += 1
            return None
        if not self.takes(name, head):
            return None
        return Entry(name, bounded(size), bounded(stamp), self.given(name), offset)


class Zip(_Archive):
    """The pictures in a zip archive, in the order of its directory, which alone is held in memory
    meanwhile.
    """

    kind = "zip"

    def _entries(self, check: Check) -> Iterator[Entry]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    check()
                    if entry := self._entry(archive, info):
                        yield entry
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise DataError(
                f"archive must be readable, got {shown(self.path)}: {error}; fetch it again"
            ) from None

    def reader(self) -> Reader:
        """What reads the entries; it does not need the archive's directory."""
        return ZipReader(self.path)

    def _entry(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry | None:
        name = info.filename.replace("\\", "/")
        kind = stat.S_IFDIR if info.is_dir() else stat.S_IFMT(info.external_attr >> 16)
        head = functools.partial(_head, archive, info)
        entry = self._take(name, kind, info.file_size, info.CRC, info.header_offset, head)
        if entry and info.flag_bits & 1:
            raise DataError(
                f"archive must not be encrypted, got {shown(self.path)}; unpack it first"
            )
        return entry


class ZipReader:
    """Reads members where they begin. A reader that opens the directory would need it in every
    process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, entry: Entry) -> bytes:
        """The member's bytes, checked against its checksum. DataError with the reason alone."""
        check_size(entry.size)
        try:
            with self._path.open("rb") as file:
                data = _read_member(file, entry)
        except (OSError, EOFError, zlib.error, struct.error) as error:
            raise DataError(f"the archive is damaged ({error})") from None
        if len(data) != entry.size or zlib.crc32(data) != entry.stamp:
            raise DataError("its bytes in the archive do not have the checksum that they should")
        return data


class Tar(_Archive):
    """The pictures in a plain tar archive, in its order; one that is cut off or damaged ends there,
    with a warning.
    """

    kind = "tar"
    mode: ClassVar[Literal["r:", "r|*"]] = "r:"
    errors = _ERRORS

    def _entries(self, check: Check) -> Iterator[Entry]:
        for entry, _ in self.members(check):
            yield entry

    def reader(self) -> Reader:
        """What reads the entries."""
        return TarReader(self.path)

    def members(self, check: Check = go_on) -> Iterator[tuple[Entry, Callable[[], bytes]]]:
        """Every picture with what reads it, which works until the next one is asked for. `check`:
        see `walk`.
        """
        self.skipped.clear()
        try:
            with tarfile.open(self.path, self.mode, tarinfo=StrictInfo) as archive:
                while (info := archive.next()) is not None:
                    check()
                    archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
                    member = _Member(archive, info)
                    if entry := self._entry(info, member):
                        yield entry, member.read
                if archive.fileobj is None or archive.fileobj.tell() <= archive.offset:
                    raise tarfile.ReadError("it ends without the mark of the end")
        except (*self.errors, OSError) as error:
            self.incomplete = True
            self.skipped["archive(s) cut off or damaged"] += 1
            log.warning(
                "archive %s is cut off or damaged, what lies behind is left out if it is new: %s",
                shown(self.path),
                error,
            )

    def _entry(self, info: tarfile.TarInfo, member: _Member) -> Entry | None:
        if info.isdir():
            kind = stat.S_IFDIR
        elif info.issym() or info.islnk():
            kind = stat.S_IFLNK
        else:
            kind = stat.S_IFREG if info.isfile() and not info.issparse() else stat.S_IFBLK
        return self._take(info.name, kind, info.size, info.mtime, info.offset_data, member.head)


class _Member:
    """A file in a tar that is read once, from its beginning: a compressed one cannot go back."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._archive, self._info = archive, info
        self._head = b""

    def head(self) -> bytes:
        """The first bytes, which tell the kind."""
        self._head = self._read(HEAD)
        return self._head

    def read(self) -> bytes:
        """All bytes. DataError with the reason alone."""
        check_size(self._info.size)
        try:
            data = self._head + self._read()
        except (*_ERRORS, OSError) as error:
            raise DataError(f"the archive is damaged ({error})") from None
        if len(data) < self._info.size:
            raise DataError("the archive is cut off")
        return data

    @functools.cached_property
    def _file(self) -> IO[bytes] | None:
        return self._archive.extractfile(self._info)

    def _read(self, size: int = -1) -> bytes:
        return b"" if self._file is None else self._file.read(size)


class TarReader:
    """Reads members by their place in a plain tar."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, entry: Entry) -> bytes:
        """The member's bytes. DataError with the reason alone."""
        check_size(entry.size)
        try:
            with self._path.open("rb") as file:
                file.seek(entry.offset or 0)
                data = file.read(entry.size)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from None
        if len(data) < entry.size:
            raise DataError("the archive is cut off")
        return data


class Stream(Tar):
    """The pictures in a compressed tar archive, which can only be read from its beginning."""

    kind = "stream"
    mode = "r|*"

    def reader(self) -> Reader:
        """What reads the entries: slowly, unless they are asked for in the archive's order."""
        return StreamReader(self)


class StreamReader:
    """Reads members of a compressed tar, from the beginning again for each that lies before the
    last one.
    """

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._members: Iterator[tuple[Entry, Callable[[], bytes]]] = iter(())

    def __getstate__(self) -> dict[str, object]:
        return {"_source": self._source, "_members": iter(())}

    def read(self, entry: Entry) -> bytes:
        """The member's bytes. DataError with the reason alone."""
        for again in (False, True):
            if again:
                self._members = self._source.members()
            for found, read in self._members:
                if found.offset == entry.offset:
                    return read()
        raise DataError("it is no longer in the archive, or the archive is cut off")


def member_name(name: str) -> str:
    """A member's name without empty parts, so that ./a.jpg and /a.jpg are a.jpg. It may still hold
    `..`.
    """
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.split("/"))


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            return file.read(HEAD)
    except Exception:  # encrypted, damaged, or compressed in a way that is not known: zipfile raises almost anything
        return b""


def _read_member(file: IO[bytes], entry: Entry) -> bytes:
    """The bytes of a zip's member, where its own header says so and how."""
    file.seek(entry.offset or 0)
    start, _, method, *lengths = _LOCAL.unpack(file.read(_LOCAL.size))
    if start != b"PK\3\4":
        raise DataError("the archive is damaged: no member begins where its directory says so")
    file.seek(sum(lengths), 1)
    if method == _STORED:
        return file.read(entry.size)
    if method not in (_DEFLATED, _BZIP2):
        raise DataError(
            f"it is compressed by a method (number {method}) that is not known here; unpack it"
            " first"
        )
    return _expand(
        file, zlib.decompressobj(-15) if method == _DEFLATED else bz2.BZ2Decompressor(), entry.size
    )


def _expand(file: IO[bytes], expander: zlib._Decompress | bz2.BZ2Decompressor, size: int) -> bytes:
    """Decompress up to one byte more than `size`: a member may not become larger than it says."""
    parts, left = [], size + 1
    while left > 0 and not expander.eof:
        block = file.read(_BLOCK)
        if not block:
            raise EOFError("it is cut off")
        part = expander.decompress(block, left)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
