"""What was decided about the pictures of a set, to look at: a table for the terminal, and a contact
sheet of examples.
"""

from __future__ import annotations

import json
import os
import textwrap
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gancolor import tables
from gancolor.data.doctor import examination, likeness
from gancolor.data.doctor.journal import OWN, Journal
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.readers import Candidate, Reader
from gancolor.data.doctor.reserve import NOTHING, Reserve
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.doctor.sources import Source
from gancolor.errors import GancolorError, shown
from gancolor.images import arrays
from gancolor.images.arrays import Picture

_CELL = 150  # pixels of a cell
_PAPER, _GRAY, _INK = 232, 205, (40, 40, 40)  # behind pictures, of a tile with words, of the words
_FRAME = (150, 150, 150)  # round each picture
_LETTERS = 21  # that fit below a cell
_NAME = 48  # letters of a name in the table


def table(journal: Journal, rules: Rules, decision: Decision) -> str:
    """How many pictures were rejected for each reason, by which threshold, with an example; and how
    many were kept.
    """
    query = f"SELECT reject, MIN(name) FROM pictures WHERE reject <> '' AND {OWN} GROUP BY reject"
    examples = dict(journal.connection.execute(query))
    counts = decision.reasons | {"kept": decision.kept, "all": decision.pictures}
    words = (
        rules.conditions()
        | {"kept": "none of these"}
        | dict.fromkeys(rules.keep, "not asked: these are kept")
    )
    rows: list[tables.TableRow] = [
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
        what = "is a picture" if decision.against == 1 else "are pictures"
        lines.append(f"{decision.against:,} of the duplicates {what} of another set")
    return "\n".join([tables.terminal(rows, digits=1), "", *lines])


@dataclass(frozen=True, slots=True)
class _Example:
    """A picture of the journal, whose columns these are."""

    id: int
    source: int
    name: str
    size: int
    stamp: int
    offset: int | None
    sha256: bytes | None
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


def sheet(
    journal: Journal,
    sources: Mapping[int, Source],
    rules: Rules,
    most: int = 8,
    reserve: Reserve = NOTHING,
) -> bytes:
    """A contact sheet of the rejected pictures as a PNG file; empty if there are none.

    A row for each reason with up to `most` evenly chosen examples, below each its name and the
    numbers that it was rejected for. Below duplicates a row of the pictures that were kept instead.
    `sources`: by their ids, all. `reserve`: where pictures from addresses may be.
    """
    found = _find(journal)
    chosen = {
        reason: [ids[place] for place in spread_evenly(len(ids), most)]
        for reason, ids in found.items()
    }
    examples = _load(journal, [id for ids in chosen.values() for id in ids])
    kept = _load(journal, [row.twin for row in examples.values() if row.twin])
    pictures = _read(sources, examples | kept, reserve)
    lines: list[tuple[str, list[tuple[Picture, str]]]] = []
    for reason, condition in rules.conditions().items():
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
    # matplotlib takes longer to load than a small set takes to be looked through.
    from gancolor import charts

    figure = charts.draw_sheet([""] * max(len(cells) for _, cells in lines), lines)
    return charts.to_png(figure, figure.dpi)


def _show_kept(twin: _Example | None, pictures: Mapping[int, Picture]) -> tuple[Picture, str]:
    if twin is None:
        return _words(""), ""
    return pictures[twin.id], _caption(twin, f"{twin.width} x {twin.height}")


def _find(journal: Journal) -> dict[str, array[int]]:
    """Ids of the rejected pictures by reason, in the order of their names: eight bytes of memory
    for each.
    """
    found: dict[str, array[int]] = {}
    # The signs keep SQLite from going through all pictures by the index, which would read the file
    # back and forth.
    query = f"SELECT id, reject FROM pictures WHERE reject <> '' AND {OWN} ORDER BY +source, +name"
    for id, reason in journal.connection.execute(query):
        found.setdefault(reason, array("q")).append(id)
    return found


def _load(journal: Journal, ids: Iterable[int]) -> dict[int, _Example]:
    columns = ", ".join(_Example.__slots__)
    query = f"SELECT {columns} FROM pictures WHERE id IN (SELECT value FROM json_each(?))"
    return {
        row[0]: _Example(*row)
        for row in journal.connection.execute(query, (json.dumps(list(ids)),))
    }


def _read(
    sources: Mapping[int, Source], rows: Mapping[int, _Example], reserve: Reserve
) -> dict[int, Picture]:
    """The pictures as square cells; what cannot be read is a tile with the reason."""
    # In the order of the archives: a compressed one can only be read from its beginning.
    order = sorted(rows.values(), key=lambda row: (row.source, row.offset or 0, row.id))
    readers = {id: source.reader() for id, source in sources.items()}
    return {row.id: _cell(readers[row.source], row, reserve) for row in order}


def _cell(reader: Reader, row: _Example, reserve: Reserve) -> Picture:
    if row.problem and not row.width:
        return _words(row.problem)
    try:
        data = reserve.take(row.source, row.sha256 or b"")
        if data is None:
            data = reader.read(Candidate(row.name, row.size, row.stamp, "", row.offset))
        return _fit(arrays.decode_rgb(data, row.name))
    except GancolorError as error:
        return _words(str(error))
    except Exception as error:  # a format's library, on a file that changed since it was examined
        return _words(f"it cannot be read ({error})")


def _fit(rgb: Picture) -> Picture:
    """Show all of the picture on a square of paper; small ones keep their size."""
    height, width = rgb.shape[:2]
    scale = min(1, _CELL / max(height, width))
    small = arrays.resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
    cell = np.full((_CELL, _CELL, 3), _PAPER, np.uint8)
    top, left = (_CELL - small.shape[0]) // 2, (_CELL - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    # A frame, so that white ones are seen: on the picture's own border where there is no room beside.
    first = (max(left - 1, 0), max(top - 1, 0))
    last = (min(left + small.shape[1], _CELL - 1), min(top + small.shape[0], _CELL - 1))
    cv2.rectangle(cell, first, last, _FRAME, 1)
    return cell


def _words(text: str) -> Picture:
    """A gray tile with words on it."""
    tile = np.full((_CELL, _CELL, 3), _GRAY, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    for number, line in enumerate(textwrap.wrap(plain, 20)[:8]):
        cv2.putText(
            tile, line, (5, 18 + 17 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA
        )
    return tile


def _caption(row: _Example, figures: str) -> str:
    return f"{_cut(os.path.basename(shown(row.name)), _LETTERS)}\n{figures}"


def _figures(row: _Example, reason: str, kept: Mapping[int, _Example]) -> str:
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


def _compare(row: _Example, twin: _Example) -> str:
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


def spread_evenly(count: int, most: int) -> Sequence[int]:
    """At most `most` of the positions 0 to count - 1, evenly spread, each once."""
    if count <= most:
        return range(count)
    return [round(place) for place in np.linspace(0, count - 1, most)]
