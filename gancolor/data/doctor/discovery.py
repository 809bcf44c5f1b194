"""Names of a set's pictures: whatever a source calls them, copies lie inside the set and training
finds them.

Find pictures: in folders, archives and manifests, one at a time, so that memory does not grow with
their number.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import logging
import os
import sqlite3
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gancolor.data.doctor import examination
from gancolor.data.doctor.entries import (
    OTHER,
    SPLITS,
    Check,
    Entry,
    FileReader,
    Reader,
    Source,
    Stream,
    Tar,
    Zip,
)
from gancolor.data.doctor.journal import encoded
from gancolor.data.walk import kind_of
from gancolor.errors import DataError, shown
from gancolor.images import formats
from gancolor.images.formats import HEAD, is_litter
from gancolor.runtime.files import open_regular, read_head, regular

_JPEG = (".jpg", ".jpeg")  # of JPEG's suffixes, those that training takes
_LONGEST = 255  # bytes of a file's name
_RESERVED = '<>:"|?*'  # characters that Windows does not allow


def copy_name(label: str, name: str, kind: str, resized: bool) -> str:
    """Where the copy of a picture goes, relative to the set: always inside it, and found by
    training.

    `label/name` without hidden parts and `..`, in UTF-8. The suffix stays if it is right, else the
    right one is appended: .jpg for a resized copy, that of `kind` otherwise. A folder never has the
    name of a picture (`a.jpg/b.jpg` becomes `a.jpg_/b.jpg`), so that no copy is where another one
    needs a folder.
    """
    parts = [
        _safe(part)
        for part in f"{label}/{name}".replace("\\", "/").split("/")
        if part not in ("", ".")
    ]
    suffix = os.path.splitext(parts[-1])[1].lower()
    if suffix not in (_JPEG if resized else formats.SUFFIXES):
        parts[-1] += ".jpg" if resized else examination.SUFFIXES[kind][0]
    folders = [
        f"{part}_" if os.path.splitext(part)[1].lower() in formats.SUFFIXES else part
        for part in parts[:-1]
    ]
    return "/".join(_fit(part) for part in (*folders, parts[-1]))


def other_name(copy: str, id: int) -> str:
    """Where the copy of the picture `id` goes if another picture has the name `copy`."""
    folder, slash, name = copy.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return folder + slash + _fit(f"{stem}~{id}{suffix}")


def addresses(folder: Path) -> Callable[[bytes, str, bytes, bytes | None], bytes]:
    """What a picture's path in the manifest of the set in `folder` is, as a function for SQL.

    It takes the path and kind of the picture's source, its name, and its copy or NULL. All are
    bytes, for functions get no text that is not UTF-8.
    """
    inside = os.path.join(os.path.abspath(folder), "")

    def address(source: bytes, kind: str, name: bytes, copy: bytes | None) -> bytes:
        if copy is not None:
            return copy
        path = os.path.abspath(_decoded(source))
        if kind in ("folder", "manifest"):
            root = os.path.dirname(path) if kind == "manifest" else path
            path = os.path.normpath(os.path.join(root, _decoded(name)))
        else:
            path = f"{path}/{_decoded(name)}"
        return encoded(
            path[len(inside) :].replace(os.sep, "/") if path.startswith(inside) else path
        )

    return address


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _safe(part: str) -> str:
    text = (
        part.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .replace("\\x", "%")
    )
    if os.name == "nt":
        text = "".join(
            "_" if character in _RESERVED or ord(character) < 32 else character
            for character in text
        )
    return f"_{text}" if text.startswith(".") else text


def _fit(part: str) -> str:
    """A name that file systems take: what is too long ends in a hash of the whole."""
    if len(part.encode()) <= _LONGEST:
        return part
    stem, suffix = os.path.splitext(part)
    mark = f"~{hashlib.sha256(part.encode()).hexdigest()[:12]}{suffix}"
    return stem.encode()[: _LONGEST - len(mark.encode())].decode("utf-8", "ignore") + mark


__all__ = ["Entry", "Reader", "Source", "open_source"]

_ZIP = (b"PK\3\4", b"PK\5\6")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_REJECTED = "rejected by the manifest"
_OURS = (
    "manifest.csv",
    "manifest-before.csv",
    "set.json",
)  # what a set's own folder holds beside pictures
_SHOWN = 60  # characters of a header in a message

log = logging.getLogger("gancolor")


def open_source(
    path: Path,
    *,
    by_folder: bool = False,
    manifest: str = "manifest.csv",
    without: Path | None = None,
    exclude: tuple[str, ...] = (),
) -> Source:
    """Open a folder, a .zip or .tar archive (also .gz, .bz2, .xz), or a manifest (.csv).

    by_folder: top folders called train, val (valid, validation) and test give their pictures'
    split. manifest: of a folder, relative to it: its splits are given, its rejected pictures left
    out, the absolute paths in it belong to the folder; "" for none. without: a folder that is left
    out, such as the set that is being written. exclude: patterns of names that are left out.
    DataError if the path is none of these.
    """
    source = _opened(path, by_folder, manifest, without)
    source.exclude = exclude
    return source


def _opened(path: Path, by_folder: bool, manifest: str, without: Path | None) -> Source:
    if path.is_dir():
        return Folder(path, by_folder, manifest, without)
    try:
        with open_regular(path) as file:
            head = file.read(6)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"source must be a folder, an archive or a manifest, got {shown(path)}: {reason}"
        ) from None
    if path.suffix.lower() == ".csv":
        return Manifest(path, by_folder)
    if head.startswith(_ZIP):
        return Zip(path, by_folder)
    kind = Stream if head.startswith(_COMPRESSED) else Tar
    try:
        tarfile.open(path, kind.mode).close()
    except (*kind.errors, OSError):
        raise DataError(
            "source must be a folder, a .zip or .tar archive (also .gz .bz2 .xz) or a manifest"
            f" (.csv), got {shown(path)}; unpack it, or give the folder that it lies in"
        ) from None
    return kind(path, by_folder)


class Folder(Source):
    """All pictures under a folder. Hidden files and folders are skipped; links are followed, each
    real folder once.
    """

    kind = "folder"

    def __init__(self, path: Path, by_folder: bool, manifest: str, without: Path | None) -> None:
        super().__init__(path, by_folder)
        self._manifest, self._without = manifest, without

    def _entries(self, check: Check) -> Iterator[Entry]:
        manifest = self.path / self._manifest
        if not self._manifest or manifest.is_dir() or not os.path.lexists(manifest):
            yield from self._found(check)
            return
        with _Table(manifest) as table:
            for entry in self._found(check):
                split, reject = table.look_up(entry.name)
                if reject:
                    self.skipped[_REJECTED] += 1
                else:
                    yield Entry(entry.name, entry.size, entry.stamp, split or entry.given)
            for name, split in table.absolute():
                check()
                yield _entry(self.path, name, split)

    def reader(self) -> Reader:
        """What reads the entries."""
        return FileReader(self.path)

    def _found(self, check: Check) -> Iterator[Entry]:
        seen: set[tuple[int, int]] = set()
        if self._without is not None and self._without.is_dir():
            seen.add(_identity(self._without))
        folders, links = [""], deque[str]()
        while folders or links:
            prefix = (
                folders.pop() if folders else links.popleft()
            )  # links last: they never rename a real folder's files
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
                self._note_unreadable(folder, error)
                continue
            folders += [f"{name}/" for name in sorted(inside[False])]
            links += [f"{name}/" for name in sorted(inside[True])]

    def _list(
        self, listing: Iterator[os.DirEntry[str]], prefix: str, inside: dict[bool, list[str]]
    ) -> Iterator[Entry]:
        """A folder's pictures, unsorted: there may be millions. `inside` gets its folders and links
        to folders.
        """
        for found in listing:
            name, kind = prefix + found.name, kind_of(found)
            if found.name.startswith(".") or name in _OURS or is_litter(found.name):
                continue
            if kind == "folder":
                inside[found.is_symlink()].append(name)
            elif kind == "other":
                self.skipped[OTHER] += 1
            elif self.takes(name, functools.partial(read_head, found.path, HEAD)):
                yield _entry(self.path, name, self.given(name))

    def _note_unreadable(self, folder: str, error: OSError) -> None:
        if folder == os.path.join(self.path, ""):
            raise DataError(
                f"source must be a readable folder, got {shown(self.path)}: {error.strerror}"
            ) from None
        self.skipped["folder(s) that cannot be read"] += 1
        log.warning("folder %s left out: %s", shown(folder), error.strerror)


class Manifest(Source):
    """The pictures that a CSV file lists in its column `path`, relative to its folder or absolute,
    in its order.

    The columns `split` and `reject` may be there; rejected rows are left out.
    """

    kind = "manifest"

    def _entries(self, check: Check) -> Iterator[Entry]:
        for row in read_rows(self.path):
            check()
            if row.reject:
                self.skipped[_REJECTED] += 1
            else:
                yield _entry(self.path.parent, row.path, row.split or self.given(row.path))

    def reader(self) -> Reader:
        """What reads the entries."""
        return FileReader(self.path.parent)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a manifest: "" where it says nothing."""

    path: str
    split: str
    reject: str


def read_rows(manifest: Path) -> Iterator[Row]:
    """The rows of a manifest, one at a time. DataError if it cannot be understood."""
    try:
        regular(manifest)
        with manifest.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            table = csv.DictReader(file)
            if "path" not in (table.fieldnames or ()):
                columns = shown(
                    ", ".join(table.fieldnames or ["none"])[:_SHOWN]
                )  # it may be no text at all
                raise DataError(
                    f"{shown(manifest)} must have a column named path, got the columns: {columns};"
                    " mend it"
                )
            exact = "sha256" in (
                table.fieldnames or ()
            )  # `prepare` wrote it: blanks around a name belong to it
            for row in table:
                path, split, reject = (row.get(key) or "" for key in ("path", "split", "reject"))
                path, split, reject = path if exact else path.strip(), split.strip(), reject.strip()
                if split and split not in SPLITS:
                    place = f"line {table.line_num} of {shown(manifest)}"
                    raise DataError(
                        f"split must be train, val or test, got {split!r}; mend {place}"
                    )
                if path:
                    yield Row(path.removeprefix("./"), SPLITS.get(split, ""), reject)
    except (OSError, csv.Error) as error:
        raise DataError(
            f"{shown(manifest)} must be a readable CSV file, got: {error}; mend or remove it"
        ) from None


class _Table:
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
                (os.fsencode(name), row.split, row.reject, os.path.isabs(name))
                for row in read_rows(manifest)
                for name in (row.path.removeprefix(root),)
            ),
        )

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def look_up(self, path: str) -> tuple[str, str]:
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


def _entry(root: Path, name: str, split: str) -> Entry:
    """A listed file, whether it exists or not: one that is missing is a broken picture."""
    try:
        status = os.stat(os.path.join(root, name))
    except (OSError, ValueError):
        return Entry(name, 0, 0, split)
    return Entry(name, status.st_size, status.st_mtime_ns, split)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
