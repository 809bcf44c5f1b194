"""The manifest of a picture set: which pictures it takes, and the split of each."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from gancolor.errors import DataError, shown

FILE = "manifest.csv"
SPLITS = ("train", "val", "test")
REJECTED, UNDECIDED = 3, 4  # beside 0, 1 and 2 for the splits

_COLUMNS = ("path", "split", "reject")
_DOCTORED = (
    b"path,sha256,"  # `gancolor data prepare` writes names as they are: with blanks, with bytes that are no UTF-8
)


def read(path: Path) -> dict[str, int]:
    """What a manifest says of each picture: the number of its split in SPLITS, REJECTED or UNDECIDED.

    By path: with forward slashes and relative to the manifest's folder, absolute for pictures outside of it. The last
    row of a picture counts. Empty without a manifest; DataError for one that cannot be understood.
    """
    if not path.is_file():
        return {}
    here = {os.path.join(folder, "") for folder in (os.path.abspath(path.parent), os.path.realpath(path.parent))}
    rows = {}
    try:
        for name, code in _read_rows(path):
            if os.path.isabs(name):
                inside = next((name[len(folder) :] for folder in here if name.startswith(folder)), None)
                name = name if inside is None else inside.replace(os.sep, "/")
            rows[name] = code
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{shown(path)} must be a readable CSV file in UTF-8, got: {error}; mend or remove it"
        ) from None
    return rows


def _read_rows(path: Path) -> Iterator[tuple[str, int]]:
    with path.open("rb") as start:
        exact = start.readline(100).removeprefix(b"\xef\xbb\xbf").startswith(_DOCTORED)
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape" if exact else "strict") as file:
        table = csv.reader(file)
        columns = next(table, [])
        if "path" not in columns:
            names = ", ".join(columns) or "none"
            raise DataError(f"{shown(path)} must have a column named path, got the columns: {names}; mend it")
        pick = itemgetter(*(columns.index(name) if name in columns else -1 for name in _COLUMNS))
        for row in table:
            name, split, reject = pick([*row, *[""] * (len(columns) - len(row)), ""])
            split = split.strip()
            if split and split not in SPLITS:
                place = f"line {table.line_num} of {shown(path)}"
                raise DataError(f"split must be train, val or test, got {split!r}; mend {place}")
            if "\0" in name:
                raise DataError(f"path must be a file's name, got {shown(name)}; mend {shown(path)}")
            if name:
                code = REJECTED if reject.strip() else SPLITS.index(split) if split else UNDECIDED
                yield name if exact else name.strip(), code
