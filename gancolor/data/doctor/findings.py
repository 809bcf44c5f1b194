"""What the doctor found, as a table for the terminal and as a contact sheet of examples.

Write what was decided: manifest.csv with a row for every picture of a set, and set.json with what
the set is.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import textwrap
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import __version__, tables
from gancolor.data.doctor import examination, likeness
from gancolor.data.doctor.discovery import addresses
from gancolor.data.doctor.entries import Entry, Reader, Source
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.source import split_of
from gancolor.errors import DataError, GancolorError, shown
from gancolor.images import arrays

Picture = NDArray[np.uint8]
_Cell = tuple[Picture, str]  # with its caption

_SIDE = 150  # pixels of a cell
_PAPER, _GRAY, _INK = 232, 205, (40, 40, 40)  # behind pictures, of a tile with words, of the words
_FRAME = (150, 150, 150)  # round each picture
_LETTERS = 21  # that fit below a cell
_NAME = 48  # letters of a name in the table
_OWN = "source NOT IN (SELECT id FROM sources WHERE other)"


def table(journal: Journal, rules: Rules, decision: Decision) -> str:
    """How many pictures were rejected for each reason, by which threshold, with an example; and how
    many were kept.
    """
    query = f"SELECT reject, MIN(name) FROM pictures WHERE reject <> '' AND {_OWN} GROUP BY reject"
    examples = dict(journal.connection.execute(query))
    counts = decision.reasons | {"kept": decision.kept, "all": decision.pictures}
    words = (
        conditions(rules)
        | {"kept": "none of these"}
        | dict.fromkeys(rules.keep, "not asked: these are kept")
    )
    rows: list[tables.Row] = [
        {
            "reason": key,
            "pictures": counts.get(key, 0),
            "%": 100 * counts.get(key, 0) / max(decision.pictures, 1),
            "if": words.get(key, ""),
            "for example": _cut(shown(examples.get(key, "")), _NAME),
        }
        for key in [*REASONS, "kept", "all"]
    ]
    lines = ["kept: " + ", ".join(f"{split} {count:,}" for split, count in decision.splits.items())]
    for (given, other), count in decision.crossings.items():
        ones = f"is the same as or much like a picture of {other}, and counts there"
        many = f"are the same as or much like pictures of {other}, and count there"
        lines.append(f"{count:,} of the pictures given as {given} {ones if count == 1 else many}")
    if decision.against:
        what = (
            "is a picture of another set"
            if decision.against == 1
            else "are pictures of another set"
        )
        lines.append(f"{decision.against:,} of the duplicates {what}")
    return "\n".join([tables.terminal(rows, digits=1), "", *lines])


def conditions(rules: Rules) -> dict[str, str]:
    """When a picture is rejected, by reason, with the thresholds."""
    return {
        "broken": "it cannot be read",
        "extension": "its format is not that of its name, or its name is none of a picture",
        "small": f"shorter side < {rules.min_size}",
        "shape": f"longer side > {rules.max_aspect:g} x the shorter",
        "blank": f"range of L* and spread of a*b* < {rules.blank_contrast:g}",
        "gray": f"chroma < {rules.gray_chroma:g} or colorfulness < {rules.gray_colorfulness:g}",
        "single-tone": (
            f"spread of a*b* < {rules.single_tone_spread:g} and < {rules.single_tone_share:g} x"
            " chroma"
        ),
        "duplicate": "same bytes as another",
        "near-duplicate": (
            f"<= {rules.near_distance} of 64 bits differ and likeness >= {rules.near_likeness:g}"
        ),
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """A picture of the journal."""

    id: int
    source: int
    name: str
    size: int
    stamp: int
    offset: int | None
    kind: str
    width: int
    height: int
    colorfulness: float
    chroma: float
    spread: float
    contrast: float
    hash: int
    signature: bytes
    problem: str
    twin: int | None


def sheet(journal: Journal, sources: Mapping[int, Source], rules: Rules, most: int = 8) -> bytes:
    """A contact sheet of the rejected pictures as a PNG file; empty if there are none.

    A row for each reason with up to `most` evenly chosen examples, below each its name and the
    numbers that it was rejected for. Below duplicates a row of the pictures that were kept instead.
    `sources`: by their ids, all.
    """
    found = _find(journal)
    chosen = {
        reason: [ids[place] for place in spread_evenly(len(ids), most)]
        for reason, ids in found.items()
    }
    examples = _load(journal, [id for ids in chosen.values() for id in ids])
    kept = _load(journal, [row.twin for row in examples.values() if row.twin])
    pictures = _read(sources, examples | kept)
    lines: list[tuple[str, list[_Cell]]] = []
    for reason, condition in conditions(rules).items():
        rows = [examples[id] for id in chosen.get(reason, ())]
        if rows:
            cells = [(pictures[row.id], _caption(row, _figures(row, reason, kept))) for row in rows]
            lines.append((f"{reason}: {len(found[reason]):,} ({condition})", cells))
        twins = [kept.get(row.twin or 0) for row in rows]
        if any(twins):
            lines.append(
                ("kept instead of the one above:", [_show_kept(twin, pictures) for twin in twins])
            )
    if not lines:
        return b""
    from gancolor import (
        charts,
    )  # matplotlib takes longer to load than a small set to be looked through

    figure = charts.draw_sheet([""] * max(len(cells) for _, cells in lines), lines)
    return charts.to_png(figure, figure.dpi)


def _show_kept(twin: _Row | None, pictures: Mapping[int, Picture]) -> _Cell:
    return (
        (pictures[twin.id], _caption(twin, f"{twin.width} x {twin.height}"))
        if twin
        else (_words(""), "")
    )


def _find(journal: Journal) -> dict[str, array[int]]:
    """Ids of the rejected pictures by reason, in the order of their names: eight bytes of memory
    for each.
    """
    found: dict[str, array[int]] = {}
    # The signs keep SQLite from going through all pictures by the index, which would read the file
    # back and forth.
    query = f"SELECT id, reject FROM pictures WHERE reject <> '' AND {_OWN} ORDER BY +source, +name"
    for id, reason in journal.connection.execute(query):
        found.setdefault(reason, array("q")).append(id)
    return found


def _load(journal: Journal, ids: Iterable[int]) -> dict[int, _Row]:
    columns = ", ".join(_Row.__slots__)
    query = f"SELECT {columns} FROM pictures WHERE id IN (SELECT value FROM json_each(?))"
    return {
        row[0]: _Row(*row) for row in journal.connection.execute(query, (json.dumps(list(ids)),))
    }


def _read(sources: Mapping[int, Source], rows: Mapping[int, _Row]) -> dict[int, Picture]:
    """The pictures as square cells; what cannot be read is a tile with the reason."""
    # In the order of the archives: a compressed one can only be read from its beginning.
    order = sorted(rows.values(), key=lambda row: (row.source, row.offset or 0, row.id))
    readers = {id: source.reader() for id, source in sources.items()}
    return {row.id: _cell(readers[row.source], row) for row in order}


def _cell(reader: Reader, row: _Row) -> Picture:
    if row.problem and not row.width:
        return _words(row.problem)
    try:
        data = reader.read(Entry(row.name, row.size, row.stamp, "", row.offset))
        return _fit(arrays.decode_rgb(data, row.name))
    except GancolorError as error:
        return _words(str(error))
    except (
        Exception
    ) as error:  # of another format's library, on a file that changed since it was examined
        return _words(f"it cannot be read ({error})")


def _fit(rgb: Picture) -> Picture:
    """Show all of the picture on a square of paper; small ones keep their size."""
    height, width = rgb.shape[:2]
    scale = min(1, _SIDE / max(height, width))
    small = arrays.resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
    cell = np.full((_SIDE, _SIDE, 3), _PAPER, np.uint8)
    top, left = (_SIDE - small.shape[0]) // 2, (_SIDE - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    # A frame, on the picture's own border where there is no room beside it: so that white ones are
    # seen.
    corners = [
        (max(x, 0), max(y, 0))
        for x, y in ((left - 1, top - 1), (left + small.shape[1], top + small.shape[0]))
    ]
    cv2.rectangle(
        cell, corners[0], (min(corners[1][0], _SIDE - 1), min(corners[1][1], _SIDE - 1)), _FRAME, 1
    )
    return cell


def _words(text: str) -> Picture:
    """A gray tile with words on it."""
    tile = np.full((_SIDE, _SIDE, 3), _GRAY, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    for number, line in enumerate(textwrap.wrap(plain, 20)[:8]):
        cv2.putText(
            tile, line, (5, 18 + 17 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA
        )
    return tile


def _caption(row: _Row, figures: str) -> str:
    return f"{_cut(os.path.basename(shown(row.name)), _LETTERS)}\n{figures}"


def _figures(row: _Row, reason: str, kept: Mapping[int, _Row]) -> str:
    """The numbers that a picture was rejected for."""
    size = f"{row.width} x {row.height}"
    figures = {
        "broken": f"{row.size:,} bytes",
        "extension": f"{row.kind.upper() or 'unknown format'} inside",
        "small": size,
        "shape": size,
        "blank": f"L* range {row.contrast:.1f}",
        "gray": f"chroma {row.chroma:.1f}, M {row.colorfulness:.1f}",
        "single-tone": f"spread {row.spread:.1f}",
    }
    twin = kept.get(row.twin or 0)
    return figures.get(reason) or (
        _compare(row, twin) if twin and reason == "near-duplicate" else size
    )


def _compare(row: _Row, twin: _Row) -> str:
    """How many bits of the hashes differ, and the correlation of the small gray copies."""
    differing = examination.to_unsigned(row.hash) ^ examination.to_unsigned(twin.hash)
    mirrored = (differing ^ examination.MIRROR).bit_count() < differing.bit_count()
    if mirrored:
        differing ^= examination.MIRROR
    ours, theirs = (
        np.frombuffer(levels, np.uint8)[None] for levels in (row.signature, twin.signature)
    )
    alike = likeness.correlation(ours, theirs, np.array([mirrored]))[0]
    return f"{differing.bit_count()} bits, {alike:.3f}{', mirrored' if mirrored else ''}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


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
    """Write the manifest `path` of the set in its folder, sorted by path, whole or not at all;
    returns its rows.

    A picture's path is that of its copy, else of the file in its source (in an archive
    `<archive>/<member>`): relative to the set's folder if it lies inside, else absolute. A file
    that several sources hold has one row, that of the kept picture if there is one. Names of any
    bytes are written as they are. Broken pictures have no size and no colorfulness. `others`: paths
    and reasons of pictures that were not even looked at, rejected by somebody before; they come
    last. DataError if it cannot be written.
    """
    journal.connection.create_function("address", 4, addresses(path.parent))
    rows = 0
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            plain = csv.writer(file, lineterminator="\n")
            quoted = csv.writer(
                file, lineterminator="\n", quoting=csv.QUOTE_ALL
            )  # a bare \r would end the row
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
    """Write set.json, whole or not at all. `resize`: pixels or None. DataError if it cannot be
    written.
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


def spread_evenly(count: int, most: int) -> Sequence[int]:
    """At most `most` of the positions 0 to count - 1, evenly spread, each once."""
    return (
        range(count)
        if count <= most
        else [round(place) for place in np.linspace(0, count - 1, most)]
    )
