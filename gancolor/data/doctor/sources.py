"""Find the pictures of a source: of a folder, a zip or tar archive, or a manifest.

They are found one at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from gancolor.data.doctor.readers import (
    TAR_ERRORS,
    Candidate,
    CompressedTarReader,
    FileReader,
    Reader,
    TarMode,
    TarReader,
    ZipReader,
    tar_members,
)
from gancolor.data.doctor.set_files import EARLIER, SET
from gancolor.data.manifest import MANIFEST, read_rows
from gancolor.data.source import SPELLINGS
from gancolor.data.walk import kind_of
from gancolor.errors import DataError, shown
from gancolor.images import formats
from gancolor.images.formats import HEAD, is_litter
from gancolor.runtime.files import open_regular, read_head

ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")
"""Suffixes of the archives that can be a source."""

OTHER = "other file(s)"
"""Words for what is no picture."""

OURS = (MANIFEST, EARLIER, SET)
"""What a set's own folder holds beside pictures."""

_INNER = frozenset((*ARCHIVES, ".zst", ".7z", ".rar"))  # archives in a source are not opened
_EXCLUDED = "left out by --exclude"
_REJECTED = "rejected by the manifest"
_ZIP = (b"PK\3\4", b"PK\5\6")  # what such a file begins with
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # gzip, bzip2, xz
_LARGEST = 2**63 - 1  # that SQLite keeps

log = logging.getLogger("gancolor")

Check = Callable[[], None]


def go_on() -> None:
    """Stop nothing: a check that always passes."""


class Source(ABC):
    """Where pictures come from.

    `by_folder`: top folders that are called like a split give it to their pictures. `exclude`:
    patterns of names that are left out, see `formats.is_excluded`. Of the last walk: `skipped`
    counts, by words for it, what was left out, `passed` those of them that are other files, by
    suffix. `sorted_in` and `loose` count the pictures with and without a given split where
    `by_folder` asks for one. `incomplete`: it ended before the source's end.
    """

    kind: ClassVar[str]

    def __init__(self, by_folder: bool, exclude: tuple[str, ...]) -> None:
        self.by_folder, self.exclude = by_folder, exclude
        self.skipped: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.sorted_in = self.loose = 0
        self.incomplete = False

    def walk(self, check: Check = go_on) -> Iterator[Candidate]:
        """All pictures, found as they are asked for. DataError if the source cannot be read at all.

        `check` is called now and then, also where there are no pictures, and may raise to stop.
        """
        self.skipped.clear()
        self.passed.clear()
        self.sorted_in = self.loose = 0
        self.incomplete = False
        for found in self._candidates(check):
            if formats.is_excluded(found.name, self.exclude):
                self.skipped[_EXCLUDED] += 1
                continue
            if self.by_folder:
                self.sorted_in += bool(found.given)
                self.loose += not found.given
            yield found

    @abstractmethod
    def _candidates(self, check: Check) -> Iterator[Candidate]:
        """All pictures, also those that `exclude` leaves out; see `walk`."""

    @abstractmethod
    def reader(self) -> Reader:
        """What reads the pictures; it can be sent to other processes."""

    def _takes(self, name: str, head: Callable[[], bytes]) -> bool:
        """Whether a file counts as a picture; if not, it is counted as skipped.

        `head` returns its first `formats.HEAD` bytes. A suffix that belongs to a kind of pictures
        decides, whatever the file holds; where it belongs to none, the first bytes decide.
        """
        suffix = formats.suffix_of(name)
        kind = formats.by_suffix(name) or formats.kind_of(head(), name)
        if kind is not None and kind.readable:
            return True
        if suffix in _INNER:
            self.skipped["archive(s) inside, not opened"] += 1
        else:
            self.skipped[OTHER] += 1
            self.passed[suffix] += 1
        return False

    def _given(self, name: str) -> str:
        """The split that the top folder stands for, where folders are to say so; else ""."""
        top, slash, _ = name.partition("/")
        return SPELLINGS.get(top.lower(), "") if self.by_folder and slash else ""


class LocalSource(Source):
    """A source that lies at a path here."""

    def __init__(self, path: Path, by_folder: bool, exclude: tuple[str, ...]) -> None:
        super().__init__(by_folder, exclude)
        self.path = path


def open_source(
    path: Path,
    *,
    by_folder: bool = False,
    manifest: str = MANIFEST,
    without: Path | None = None,
    exclude: tuple[str, ...] = (),
) -> LocalSource:
    """Open a folder, a .zip or .tar archive (also .gz, .bz2, .xz), or a manifest (.csv).

    by_folder: top folders called train, val (valid, validation) and test give their pictures'
    split. manifest: of a folder, relative to it: its splits are given, its rejected pictures left
    out, the absolute paths in it belong to the folder; "" for none. without: a folder that is left
    out, such as the set that is being written. exclude: patterns of names that are left out.
    DataError if the path is none of these.
    """
    if path.is_dir():
        return Folder(path, by_folder, exclude, manifest, without)
    try:
        with open_regular(path) as file:
            head = file.read(6)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"source must be a folder, an archive or a manifest, got {shown(path)}: {reason}"
        ) from None
    if path.suffix.lower() == ".csv":
        return Manifest(path, by_folder, exclude)
    if head.startswith(_ZIP):
        return Zip(path, by_folder, exclude)
    kind = CompressedTar if head.startswith(_COMPRESSED) else Tar
    try:
        tarfile.open(path, kind.mode).close()
    except (*TAR_ERRORS, OSError):
        raise DataError(
            "source must be a folder, a .zip or .tar archive (also .gz .bz2 .xz) or a manifest"
            f" (.csv), got {shown(path)}; unpack it, or give the folder that it lies in"
        ) from None
    return kind(path, by_folder, exclude)


class Folder(LocalSource):
    """All pictures under a folder. Hidden files and folders are skipped; links are followed, each
    real folder once.
    """

    kind = "folder"

    def __init__(
        self,
        path: Path,
        by_folder: bool,
        exclude: tuple[str, ...],
        manifest: str,
        without: Path | None,
    ) -> None:
        super().__init__(path, by_folder, exclude)
        self._manifest, self._without = manifest, without

    def _candidates(self, check: Check) -> Iterator[Candidate]:
        manifest = self.path / self._manifest
        if not self._manifest or manifest.is_dir() or not os.path.lexists(manifest):
            yield from self._found(check)
            return
        with ManifestTable(manifest) as table:
            yield from table.sift(self._found(check), self.skipped)
            for name, split in table.absolute():
                check()
                yield _listed(self.path, name, split)

    def reader(self) -> Reader:
        """What reads the pictures."""
        return FileReader(self.path)

    def _found(self, check: Check) -> Iterator[Candidate]:
        """The pictures in all folders; those of links to folders last, so that a link never renames
        the files of a real folder.
        """
        seen: set[tuple[int, int]] = set()
        if self._without is not None and self._without.is_dir():
            seen.add(_identity(self._without))
        folders, links = [""], deque[str]()
        while folders or links:
            prefix = folders.pop() if folders else links.popleft()
            folder = os.path.join(self.path, prefix)
            check()
            try:
                identity = _identity(folder)
                if identity in seen:
                    continue
                seen.add(identity)
                with os.scandir(folder) as listing:
                    inside: dict[bool, list[str]] = {False: [], True: []}
                    yield from self._list(listing, prefix, inside)
            except OSError as error:
                if not prefix:
                    raise DataError(
                        f"source must be a readable folder, got {shown(self.path)}:"
                        f" {error.strerror}"
                    ) from None
                self.skipped["folder(s) that cannot be read"] += 1
                log.warning("folder %s left out: %s", shown(folder), error.strerror)
                continue
            folders += [f"{name}/" for name in sorted(inside[False])]
            links += [f"{name}/" for name in sorted(inside[True])]

    def _list(
        self, listing: Iterator[os.DirEntry[str]], prefix: str, inside: dict[bool, list[str]]
    ) -> Iterator[Candidate]:
        """A folder's pictures, unsorted: there may be millions. `inside` gets its folders (False)
        and its links to folders (True).
        """
        for found in listing:
            name, kind = prefix + found.name, kind_of(found)
            if found.name.startswith(".") or name in OURS or is_litter(found.name):
                continue
            if kind == "folder":
                inside[found.is_symlink()].append(name)
            elif kind == "other":
                self.skipped[OTHER] += 1
            elif self._takes(name, functools.partial(read_head, found.path, HEAD)):
                yield _listed(self.path, name, self._given(name))


class Manifest(LocalSource):
    """The pictures that a CSV file lists in its column `path`, relative to its folder or absolute,
    in its order.

    The columns `split` and `reject` may be there; rejected rows are left out.
    """

    kind = "manifest"

    def _candidates(self, check: Check) -> Iterator[Candidate]:
        for name, split, reject in read_rows(self.path, foreign=True):
            check()
            if reject:
                self.skipped[_REJECTED] += 1
            else:
                yield _listed(self.path.parent, name, split or self._given(name))

    def reader(self) -> Reader:
        """What reads the pictures."""
        return FileReader(self.path.parent)


class _Archive(LocalSource):
    """What zip and tar have in common."""

    def _candidate(
        self, name: str, kind: int, size: int, stamp: float, offset: int, head: Callable[[], bytes]
    ) -> Candidate | None:
        """A member of some `kind` (stat's, 0 where it is not told) as a picture, None if it is none.

        Its name has no empty parts, so that ./a.jpg and /a.jpg are a.jpg, but may have `..`.
        """
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if (
            kind == stat.S_IFDIR
            or not parts
            or any(part.startswith(".") and part != ".." for part in parts)
            or any(map(is_litter, parts))
        ):
            return None
        if kind not in (0, stat.S_IFREG):
            self.skipped["link(s) in archives" if kind == stat.S_IFLNK else OTHER] += 1
            return None
        name = "/".join(parts)
        if not self._takes(name, head):
            return None
        return Candidate(name, _bounded(size), _bounded(stamp), self._given(name), offset)


class Zip(_Archive):
    """The pictures in a zip archive, in the order of its directory, which alone is held in memory
    meanwhile.
    """

    kind = "zip"

    def _candidates(self, check: Check) -> Iterator[Candidate]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    check()
                    name = info.filename.replace("\\", "/")
                    kind = stat.S_IFDIR if info.is_dir() else stat.S_IFMT(info.external_attr >> 16)
                    head = functools.partial(_zipped_head, archive, info)
                    found = self._candidate(
                        name, kind, info.file_size, info.CRC, info.header_offset, head
                    )
                    if found and info.flag_bits & 1:
                        raise DataError(
                            f"archive must not be encrypted, got {shown(self.path)}; unpack it"
                            " first"
                        )
                    if found:
                        yield found
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise DataError(
                f"archive must be readable, got {shown(self.path)}: {error}; fetch it again"
            ) from None

    def reader(self) -> Reader:
        """What reads the pictures; it does not need the archive's directory."""
        return ZipReader(self.path)


class Tar(_Archive):
    """The pictures in a plain tar archive, in its order; one that is cut off or damaged ends there,
    with a warning.
    """

    kind = "tar"
    mode: ClassVar[TarMode] = "r:"

    def _candidates(self, check: Check) -> Iterator[Candidate]:
        for found, _ in self.members(check):
            yield found

    def reader(self) -> Reader:
        """What reads the pictures."""
        return TarReader(self.path)

    def members(self, check: Check = go_on) -> Iterator[tuple[Candidate, Callable[[], bytes]]]:
        """Every picture with what reads it, which works until the next one is asked for. `check`:
        see `walk`.
        """
        self.skipped.clear()
        try:
            for member in tar_members(self.path, self.mode):
                check()
                info = member.info
                if info.isdir():
                    kind = stat.S_IFDIR
                elif info.issym() or info.islnk():
                    kind = stat.S_IFLNK
                else:
                    kind = stat.S_IFREG if info.isfile() and not info.issparse() else stat.S_IFBLK
                found = self._candidate(
                    info.name, kind, info.size, info.mtime, info.offset_data, member.head
                )
                if found:
                    yield found, member.read
        except (*TAR_ERRORS, OSError) as error:
            self.incomplete = True
            self.skipped["archive(s) cut off or damaged"] += 1
            log.warning(
                "archive %s is cut off or damaged, what lies behind is left out if it is new: %s",
                shown(self.path),
                error,
            )


class CompressedTar(Tar):
    """The pictures in a compressed tar archive, which can only be read from its beginning."""

    kind = "stream"
    mode = "r|*"

    def reader(self) -> Reader:
        """What reads the pictures: slowly, unless they are asked for in the archive's order."""
        return CompressedTarReader(self.path)


class ManifestTable:
    """A manifest's rows by their path, in a temporary file that SQLite keeps: there may be
    millions.
    """

    def __init__(self, manifest: Path) -> None:
        root = os.path.join(os.path.abspath(manifest.parent), "")
        self._rows = sqlite3.connect("")
        self._rows.execute(
            "CREATE TABLE rows (path BLOB PRIMARY KEY, split TEXT, reject TEXT, outside INTEGER)"
        )
        self._rows.executemany(
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)",
            (
                (os.fsencode(name), split, reject, os.path.isabs(name))
                for path, split, reject in read_rows(manifest, foreign=True)
                for name in (path.removeprefix(root),)
            ),
        )

    def __enter__(self) -> ManifestTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def sift(self, found: Iterable[Candidate], skipped: Counter[str]) -> Iterator[Candidate]:
        """The pictures that it does not reject, with the splits that it gives; rejected ones are
        counted as skipped.
        """
        for one in found:
            split, reject = self._look_up(one.name)
            if reject:
                skipped[_REJECTED] += 1
            else:
                yield Candidate(one.name, one.size, one.stamp, split or one.given)

    def _look_up(self, path: str) -> tuple[str, str]:
        """Split and reject of a path; both "" for one that it does not list."""
        row = self._rows.execute(
            "SELECT split, reject FROM rows WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        return row or ("", "")

    def absolute(self) -> Iterator[tuple[str, str]]:
        """The absolute paths that are not rejected, and their splits."""
        for path, split in self._rows.execute(
            "SELECT path, split FROM rows WHERE outside AND reject = ''"
        ):
            yield os.fsdecode(path), split


def _listed(root: Path, name: str, split: str) -> Candidate:
    """A listed file, whether it exists or not: one that is missing is a broken picture."""
    try:
        status = os.stat(os.path.join(root, name))
    except (OSError, ValueError):
        return Candidate(name, 0, 0, split)
    return Candidate(name, status.st_size, status.st_mtime_ns, split)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _zipped_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            return file.read(HEAD)
    except Exception:  # encrypted, damaged, or oddly compressed: zipfile raises almost anything
        return b""


def _bounded(value: float) -> int:
    """A size or time as SQLite can keep it: archives may state any number."""
    return int(min(max(value, -_LARGEST), _LARGEST))
