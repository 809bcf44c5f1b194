"""Write what was decided: manifest.csv with a row for every picture of a set, and set.json with what the set is."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from operator import itemgetter
from pathlib import Path

from gancolor import __version__
from gancolor.data.doctor.deciding import Decision
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.naming import addresses
from gancolor.data.doctor.rules import Rules
from gancolor.data.source import split_of
from gancolor.errors import DataError, shown

COLUMNS = ("path", "sha256", "width", "height", "colorfulness", "split", "reject")
"""Columns of manifest.csv."""

SET = "set.json"
"""The file that says what a set is and how it was made."""

_QUERY = """
SELECT CAST(address(CAST(s.path AS BLOB), s.kind, CAST(p.name AS BLOB), p.done) AS TEXT) AS place,
    LOWER(HEX(IIF(p.done IS NULL, sha256, copy_sha256))), IIF(p.done IS NULL, width, copy_width),
    IIF(p.done IS NULL, height, copy_height), IIF(p.done IS NULL, colorfulness, copy_colorfulness), p.split, p.reject
FROM (SELECT *, IIF(copy_sha256 IS NULL, NULL, CAST(copy AS BLOB)) AS done FROM pictures) p
JOIN sources s ON s.id = p.source WHERE s.other = 0 AND p.examined = 1 ORDER BY place, p.reject <> ''
"""


def write_manifest(journal: Journal, path: Path, others: Iterable[tuple[str, str]] = ()) -> int:
    """Write the manifest `path` of the set in its folder, sorted by path, whole or not at all; returns its rows.

    A picture's path is that of its copy, else of the file in its source (in an archive `<archive>/<member>`): relative
    to the set's folder if it lies inside, else absolute. A file that several sources hold has one row, that of the kept
    picture if there is one. Names of any bytes are written as they are. Broken pictures have no size and no
    colorfulness. `others`: paths and reasons of pictures that were not even looked at, rejected by
    somebody before; they come last. DataError if it cannot be written.
    """
    journal.connection.create_function("address", 4, addresses(path.parent))
    rows = 0
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            plain = csv.writer(file, lineterminator="\n")
            quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare \r would end the row
            plain.writerow(COLUMNS)
            found = journal.connection.execute(_QUERY)
            for place, pictures in itertools.groupby(found, itemgetter(0)):
                row = next(pictures)
                (quoted if "\r" in place else plain).writerow(_cells(*row))
                rows += 1
            for name, reason in others:
                quoted.writerow([name, *[""] * (len(COLUMNS) - 3), split_of(name), reason])
                rows += 1
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        aside.unlink(missing_ok=True)
    return rows


def write_set(
    path: Path,
    *,
    name: str,
    title: str,
    sources: list[str],
    licence: str,
    rules: Rules,
    resize: int | None,
    decision: Decision,
) -> None:
    """Write set.json, whole or not at all. `resize`: pixels or None. DataError if it cannot be written."""
    about = {
        "gancolor set": 1,
        "name": name,
        "title": title,
        "made": date.today().isoformat(),
        "version": __version__,
        "sources": sources,
        "licence": licence,
        "rules": {**asdict(rules), "keep": sorted(rules.keep)},
        "resize": resize,
        "counts": {**decision.splits, **decision.reasons},
    }
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _cells(
    path: str, sha256: str, width: int, height: int, colorfulness: float, split: str, reject: str
) -> tuple[str, ...]:
    known = (str(width), str(height), f"{colorfulness:.2f}") if width else ("", "", "")
    return (path, sha256, *known, split, reject)


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path.name} must be writable, got {shown(path)}: {error.strerror or error}")
