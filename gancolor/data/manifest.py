"""The manifest of a picture set: which pictures it takes, and the split of each."""

from __future__ import annotations

import csv
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from gancolor.data.source import SPLITS
from gancolor.errors import DataError, shown
from gancolor.runtime.files import stat_regular

FILE = "manifest.csv"
REJECTED, UNDECIDED = 3, 4  # beside 0, 1 and 2 for the splits

UNFINISHED = ".prepare/unfinished"
"""A file in a set's folder while pictures are copied into it: the manifest tells of copies that may
not be there.
"""

_COLUMNS = ("path", "split", "reject")
# `gancolor data prepare` writes names as they are: with blanks, with bytes that are no UTF-8
_DOCTORED = b"path,sha256,"


def read(path: Path) -> dict[str, int]:
    """What a manifest says of each picture: the number of its split in SPLITS, REJECTED or
    UNDECIDED.

    By path: with forward slashes and relative to the manifest's folder, absolute for pictures
    outside of it. The last row of a picture counts. Empty without a manifest; DataError for one
    that cannot be understood.
    """
    if path.is_dir() or not os.path.lexists(path):
        return {}
    here = {
        os.path.join(folder, "")
        for folder in (os.path.abspath(path.parent), os.path.realpath(path.parent))
    }
    rows = {}
    try:
        stat_regular(path)
        for name, code in _read_rows(path):
            if os.path.isabs(name):
                name = os.path.normpath(name)
                inside = next(
                    (name[len(folder) :] for folder in here if name.startswith(folder)), None
                )
                name = name if inside is None else inside.replace(os.sep, "/")
            else:
                name = posixpath.normpath(name)
            rows[name] = code
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{shown(path)} must be a readable CSV file in UTF-8, got: {error}; mend or remove it"
        ) from None
    return rows


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
    codes = {
        spelled: rows[name] for name, spelled in lost.items()
    }  # the last row of a picture counts
    matched = set()
    for name in found if codes else ():
        if name not in rows and (spelled := _spell(name)) in codes:
            rows[name] = codes[spelled]
            matched.add(spelled)
    return [name for name, spelled in lost.items() if spelled not in matched]


def _spell(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _read_rows(path: Path) -> Iterator[tuple[str, int]]:
    with path.open("rb") as start:
        exact = start.readline(100).removeprefix(b"\xef\xbb\xbf").startswith(_DOCTORED)
    with path.open(
        newline="", encoding="utf-8-sig", errors="surrogateescape" if exact else "strict"
    ) as file:
        table = csv.reader(file)
        columns = next(table, [])
        if "path" not in columns:
            names = ", ".join(columns) or "none"
            raise DataError(
                f"{shown(path)} must have a column named path, got the columns: {names}; mend it"
            )
        pick = itemgetter(*(columns.index(name) if name in columns else -1 for name in _COLUMNS))
        for row in table:
            name, split, reject = pick([*row, *[""] * (len(columns) - len(row)), ""])
            split = split.strip()
            if split and split not in SPLITS:
                place = f"line {table.line_num} of {shown(path)}"
                raise DataError(f"split must be train, val or test, got {split!r}; mend {place}")
            if "\0" in name:
                raise DataError(
                    f"path must be a file's name, got {shown(name)}; mend {shown(path)}"
                )
            if name:
                code = REJECTED if reject.strip() else SPLITS.index(split) if split else UNDECIDED
                yield name if exact else name.strip(), code
