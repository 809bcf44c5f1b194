"""The manifest of a dataset: which pictures it takes, and the split of each."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from gancolor.data.source import SPELLINGS, SPLITS
from gancolor.errors import DataError, shown
from gancolor.runtime.files import read_head, stat_regular, written
from gancolor.runtime.remote_files import is_address

MANIFEST = "manifest.csv"
COLUMNS = ("path", "sha256", "width", "height", "colorfulness", "split", "reject")
REJECTED, UNDECIDED = 3, 4  # beside 0, 1 and 2 for the splits

UNFINISHED = ".prepare/unfinished"
"""A file in a dataset's folder while pictures are copied into it: the manifest tells of copies that
may not be there.
"""

_READ = ("path", "split", "reject")  # the columns that count
_SHOWN = 60  # characters of a header in a message
# What `write` wrote has names as they are: with blanks around them, with bytes that are no UTF-8.
_EXACT = b"path,sha256,"


def read(path: Path) -> dict[str, int]:
    """What a manifest says of each picture: the number of its split in SPLITS, REJECTED or
    UNDECIDED.

    By path: with forward slashes and relative to the manifest's folder, absolute for pictures
    outside of it, and as it stands there where it is an address. The last row of a picture counts.
    Empty without a manifest; DataError for one that cannot be understood.
    """
    if path.is_dir() or not os.path.lexists(path):
        return {}
    here = {
        os.path.join(folder, "")
        for folder in (os.path.abspath(path.parent), os.path.realpath(path.parent))
    }
    codes = {}
    for name, split, reject in read_rows(path):
        if os.path.isabs(name):
            name = os.path.normpath(name)
            inside = next((name[len(folder) :] for folder in here if name.startswith(folder)), None)
            name = name if inside is None else inside.replace(os.sep, "/")
        elif not is_address(name):
            name = posixpath.normpath(name)
        codes[name] = REJECTED if reject else SPLITS.index(split) if split else UNDECIDED
    return codes


def read_rows(path: Path, *, foreign: bool = False) -> Iterator[tuple[str, str, str]]:
    """The rows of a manifest, one at a time: a picture's path as it stands there, its split (""
    where it has none), and why it is rejected ("" where it is not).

    `foreign`: of a list that a set is yet to be made of. There `valid` and `validation` mean val,
    and a name may have any bytes, also such as no file's name can have. DataError for a manifest
    that cannot be understood.
    """
    exact = read_head(path, 100).removeprefix(b"\xef\xbb\xbf").startswith(_EXACT)
    known = SPELLINGS if foreign else {split: split for split in SPLITS}
    for line, (name, split, reject) in read_cells(path, *_READ, strict=not (exact or foreign)):
        split = split.strip()
        if split and split not in known:
            raise DataError(
                f"split must be train, val or test, got {split!r}; mend line {line} of {shown(path)}"
            )
        if "\0" in name and not foreign:
            raise DataError(f"path must be a file's name, got {shown(name)}; mend {shown(path)}")
        if name := name if exact else name.strip():
            yield name.removeprefix("./"), known.get(split, ""), reject.strip()


def read_cells(
    path: Path, *columns: str, strict: bool = False
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The cells of at least two `columns` of a manifest, row by row, with the number of the line
    that the row ends at; "" for a cell that is not there.

    DataError for a file that is no CSV file, for one without the column `path` if it is asked for,
    and if `strict` for bytes that are no UTF-8, which are kept as surrogates else.
    """
    try:
        stat_regular(path)
        with path.open(
            newline="", encoding="utf-8-sig", errors="strict" if strict else "surrogateescape"
        ) as file:
            table = csv.reader(file)
            header = next(table, [])
            if "path" in columns and "path" not in header:
                names = shown(", ".join(header or ["none"])[:_SHOWN])  # it may be no text at all
                raise DataError(
                    f"{shown(path)} must have a column named path, got the columns: {names}; mend"
                    " it"
                )
            pick = itemgetter(*(header.index(name) if name in header else -1 for name in columns))
            for row in table:
                yield table.line_num, pick([*row, *[""] * (len(header) - len(row)), ""])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error, " in UTF-8" if strict else "") from None


def unreadable(path: Path, error: Exception, how: str = "") -> DataError:
    """What to raise for a manifest that cannot be read, which must be CSV `how`."""
    return DataError(
        f"{shown(path)} must be a readable CSV file{how}, got: {error}; mend or remove it"
    )


def write(path: Path, rows: Iterable[Sequence[str]]) -> int:
    """Write a manifest, whole or not at all; returns how many rows it has.

    `rows`: the cells of each picture, in the order of COLUMNS and "" for what is not known. Names
    of any bytes are written as they are. OSError as the system raises it.
    """
    count = 0
    with written(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        plain, quoted = (
            csv.writer(text, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        plain.writerow(COLUMNS)
        for row in rows:
            (quoted if "\r" in row[0] else plain).writerow(row)  # a bare \r would end the row
            count += 1
        text.detach()  # which flushes it, and leaves the file open
    return count


def match(rows: dict[str, int], found: Sequence[str]) -> list[str]:
    """Find what a manifest says of the pictures `found` under another spelling of their names, and
    add it to `rows`.

    Accented letters may be composed or not (NFC, NFD), and backslashes stand between folders.
    Returns the relative names in `rows` that no picture has.
    """
    unknown = rows.keys() - found
    lost = {
        name: _spell(posixpath.normpath(name.replace("\\", "/")))
        for name in rows
        if name in unknown and not os.path.isabs(name)
    }
    # the last row of a picture counts
    codes = {spelled: rows[name] for name, spelled in lost.items()}
    matched = set()
    for name in found if codes else ():
        if name not in rows and (spelled := _spell(name)) in codes:
            rows[name] = codes[spelled]
            matched.add(spelled)
    return [name for name, spelled in lost.items() if spelled not in matched]


def _spell(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
