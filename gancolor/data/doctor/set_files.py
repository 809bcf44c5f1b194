"""The files that `gancolor data prepare` writes beside a set's pictures: manifest.csv with a row for
every picture, and set.json with what the set is.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any

from gancolor import __version__
from gancolor.data import manifest
from gancolor.data.doctor.journal import Journal, decoded, encoded
from gancolor.data.doctor.rules import Rules
from gancolor.data.source import split_of
from gancolor.errors import DataError, shown
from gancolor.runtime.files import json_of, write_whole

SET = "set.json"
"""The file that says what a set is and how it was made."""

EARLIER = "manifest-before.csv"
"""Where a manifest that somebody else wrote goes when a set is prepared in its own folder."""

_QUERY = """
SELECT CAST(address(CAST(s.path AS BLOB), s.kind, CAST(p.name AS BLOB), p.done) AS TEXT) AS place,
    LOWER(HEX(IIF(p.done IS NULL, sha256, copy_sha256))), IIF(p.done IS NULL, width, copy_width),
    IIF(p.done IS NULL, height, copy_height), IIF(p.done IS NULL, colorfulness, copy_colorfulness), p.split, p.reject
FROM (SELECT *, IIF(copy_sha256 IS NULL, NULL, CAST(copy AS BLOB)) AS done FROM pictures) p
JOIN sources s ON s.id = p.source WHERE s.other = 0 AND p.examined = 1 ORDER BY place, p.reject <> ''
"""


def addresses(folder: Path) -> Callable[[bytes, str, bytes, bytes | None], bytes]:
    """What a picture's path in the manifest of the set in `folder` is, as a function for SQL.

    It takes the path (or address) and kind of the picture's source, its name, and its copy or NULL. All are
    bytes, for functions get no text that is not UTF-8.
    """
    inside = os.path.join(os.path.abspath(folder), "")

    def address(source: bytes, kind: str, name: bytes, copy: bytes | None) -> bytes:
        if copy is not None:
            return copy
        if kind == "stored":
            return source + b"/" + name
        path = os.path.abspath(decoded(source))
        if kind in ("folder", "manifest"):
            root = os.path.dirname(path) if kind == "manifest" else path
            path = os.path.normpath(os.path.join(root, decoded(name)))
        else:
            path = f"{path}/{decoded(name)}"
        return encoded(
            path[len(inside) :].replace(os.sep, "/") if path.startswith(inside) else path
        )

    return address


def write_manifest(journal: Journal, path: Path, others: Iterable[tuple[str, str]] = ()) -> int:
    """Write the manifest `path` of the set in its folder, sorted by path, whole or not at all;
    returns its rows.

    A picture's path is that of its copy, else of the file in its source (in an archive
    `<archive>/<member>`, in object storage its address): relative to the set's folder if it lies
    inside, else absolute. A file that several sources hold has one row, that of the kept picture if
    there is one. Names of any bytes are written as they are. Broken pictures have no size and no
    colorfulness. `others`: paths and reasons of pictures that were not even looked at, rejected by
    somebody before; they come last. DataError if it cannot be written.
    """
    journal.connection.create_function("address", 4, addresses(path.parent))
    known = _rows(journal.connection.execute(_QUERY))
    unknown = ((name, "", "", "", "", split_of(name), reason) for name, reason in others)
    with _refused(path):
        return manifest.write(path, itertools.chain(known, unknown))


def _rows(found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, ...]]:
    for place, pictures in itertools.groupby(found, itemgetter(0)):
        _, sha256, width, height, colorfulness, split, reject = next(pictures)
        known = (str(width), str(height), f"{colorfulness:.2f}") if width else ("", "", "")
        yield place, sha256, *known, split, reject


def write_set(
    path: Path,
    *,
    name: str,
    title: str,
    sources: list[str],
    licence: str,
    rules: Rules,
    resize: int | None,
    counts: Mapping[str, int],
) -> None:
    """Write set.json, whole or not at all. `resize`: pixels or None. `counts`: pictures by split,
    and rejected ones by reason. DataError if it cannot be written.
    """
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
        "counts": dict(counts),
    }
    with _refused(path):
        write_whole(path, json.dumps(about, indent=2) + "\n")


def read_set(folder: Path) -> dict[str, Any]:
    """What set.json in a set's folder says; empty without one that prepare has written."""
    with contextlib.suppress(OSError, ValueError):
        about = json_of((folder / SET).read_text(encoding="utf-8"))
        if isinstance(about, dict):
            return about
    return {}


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in words that a file cannot be written: OSError becomes DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path.name} must be writable, got {shown(path)}: {error.strerror or error}"
        ) from error
