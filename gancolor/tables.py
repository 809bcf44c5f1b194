"""Rows of results as text: for the terminal, for Markdown, for a spreadsheet.

A row is a mapping from column name to value. Columns appear in the order in which the rows first
name them, or as given. A missing value and None show as "-", floats with `digits` decimals; in CSV
a missing value is empty and floats are exact.
"""

from __future__ import annotations

import csv as csv_format
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence

from gancolor.errors import visible

TableRow = Mapping[str, object]

MISSING = "-"


def terminal(
    rows: Sequence[TableRow], columns: Sequence[str] | None = None, digits: int = 3
) -> str:
    """Return rows as aligned columns under a ruled head; numbers to the right. No line break at the
    end.
    """
    names, cells = _lay_out(rows, columns, digits)
    widths = _measure(names, cells)
    right = _find_numeric(rows, names)
    lines = [_align(names, widths, right), ["-" * width for width in widths]]
    lines += [_align(line, widths, right) for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(
    rows: Sequence[TableRow], columns: Sequence[str] | None = None, digits: int = 3
) -> str:
    """Return rows as a Markdown table; numbers to the right. No line break at the end."""
    names, cells = _lay_out(rows, columns, digits)
    names, cells = (
        [_escape(name) for name in names],
        [[_escape(cell) for cell in line] for line in cells],
    )
    right = _find_numeric(rows, columns if columns is not None else _name_columns(rows))
    widths = [max(width, 3) for width in _measure(names, cells)]
    rule = [
        "-" * (width - 1) + (":" if number else "-")
        for width, number in zip(widths, right, strict=True)
    ]
    lines = [_align(names, widths, right), rule, *(_align(line, widths, right) for line in cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv(rows: Sequence[TableRow], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV with a head line, quoted where needed, each line ended by a line feed.

    Floats in the fewest digits that read back as the same number.
    """
    names = list(columns) if columns is not None else _name_columns(rows)
    cells = [[_write_out(row.get(name)) for name in names] for row in rows]
    text = io.StringIO()
    csv_format.writer(text, lineterminator="\n").writerows([names, *cells])
    return text.getvalue()


def number(value: float, digits: int) -> str:
    """A number with so many decimals; -0.0004 to three digits is 0.000, not -0.000."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if math.isfinite(value) and float(text) == 0 else text


def _name_columns(rows: Sequence[TableRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _lay_out(
    rows: Sequence[TableRow], columns: Sequence[str] | None, digits: int
) -> tuple[list[str], list[list[str]]]:
    names = list(columns) if columns is not None else _name_columns(rows)
    return names, [[_format(row.get(name), digits) for name in names] for row in rows]


def _format(value: object, digits: int) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return number(value, digits)
    return visible(" ".join(str(value).split()))


def _write_out(value: object) -> str:
    if value is None:
        return ""
    # NumPy's float64 is a float with a repr of its own.
    return float.__repr__(value) if isinstance(value, float) else " ".join(str(value).split())


def _find_numeric(rows: Sequence[TableRow], names: Sequence[str]) -> list[bool]:
    """Say of each column whether all its values are numbers, and there is one."""
    columns = [[row[name] for row in rows if row.get(name) is not None] for name in names]
    return [bool(column) and all(_is_number(value) for value in column) for column in columns]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _measure(names: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_width, column)) for column in zip(names, *cells, strict=True)]


def _align(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    spaces = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
    return [
        space + cell if number else cell + space
        for cell, space, number in zip(line, spaces, right, strict=True)
    ]


def _width(text: str) -> int:
    """Columns that the text takes on a terminal: Chinese and the like take two, combining marks
    none.
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")
