"""The page of a comparison as HTML in one file, and its sheets and charts as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import NamedTuple

import cv2
import jinja2
from matplotlib.figure import Figure

from gancolor import charts, images, tables
from gancolor.columns import Column
from gancolor.comparison.gathering import Gathering, Kept, Picture
from gancolor.evaluation import GRAY, MEAN
from gancolor.results import Evaluation, Row, explain, groups

SHEETS = ("fixed", "best", "worst", "most-colourful", "least-colourful")
CHARTS = ("losses", "channels", "colorfulness")
PNGS = tuple(f"{key}.png" for key in (*SHEETS, *CHARTS))
"""Every file that may stand beside a page."""

_QUALITY = 92  # of JPEG: no difference to be seen, with full chroma resolution
BUDGET = 8_000_000
"""Bytes that the pictures of a page may take together: a browser's patience, a mail's size."""

_SMALLEST = 64  # pixels: below it nothing is to be seen


class Cell(NamedTuple):
    """A figure of the table: text, its 95 % interval or "", whether it is the runs' best, number of the footnote."""

    text: str
    interval: str
    best: bool
    note: int


class Table(NamedTuple):
    """A group of columns as (title, `Column.better`), and a row for each name."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]


class Chart(NamedTuple):
    """A chart as SVG, with heading and caption."""

    key: str
    title: str
    about: str
    svg: str


class Thumbnail(NamedTuple):
    """A picture of a sheet as a data URI, with the figures under it."""

    uri: str
    alt: str
    figures: list[str]


def render(
    evaluation: Evaluation, gathering: Gathering, logs: Mapping[str, Mapping[str, charts.Curve]], folder: str
) -> tuple[str, dict[str, bytes]]:
    """The page and its PNG files by name; `folder` is what the page calls the place of these."""
    pngs: dict[str, bytes] = {}
    sheets = []
    columns = ["gray", *logs, *(["original"] if evaluation.has_truth else [])]
    chosen = [
        (sheet, [(kept.name, list(_cells(kept, evaluation.has_truth))) for kept in sheet.pictures])
        for sheet in gathering.sheets()
    ]
    uris = iter(_encode([rgb for _, rows in chosen for _, cells in rows for _, rgb, _ in cells]))
    for sheet, rows in chosen:
        pngs[f"{sheet.key}.png"] = _draw(columns, rows)
        sheets.append(
            (sheet, [(name, [_thumbnail(next(uris), name, *cell) for cell in cells]) for name, cells in rows])
        )
    drawn = []
    for key, title, about, figure in _figures(evaluation, gathering, logs):
        pngs[f"{key}.png"] = charts.to_png(figure)
        drawn.append(Chart(key, title, about, charts.to_svg(figure, key, f"{title}. {about}")))
    notes = explain(evaluation)
    page = _template().render(
        evaluation=evaluation,
        protocol=evaluation.protocol.lines(),
        names=list(logs),
        columns=columns,
        tables=list(_tables(evaluation, list(notes))),
        notes=[(columns_of, reason) for reason, columns_of in notes.items()],
        sheets=sheets,
        charts=drawn,
        folder=folder,
        scale=charts.COLORFULNESS_SCALE,
        light=charts.PALETTE,
        dark=charts.DARK_PALETTE,
    )
    return page, pngs


def _template() -> jinja2.Template:
    text = resources.files("gancolor.comparison").joinpath("comparison.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _cells(kept: Kept, has_truth: bool) -> Iterator[tuple[str, Picture, list[str]]]:
    """Name, picture and figures of each column of a sheet."""
    for name, picture in ({GRAY: kept.gray} | dict(kept.colored)).items():
        values = kept.values[name]
        figures = [f"M {values['colorfulness']:.1f}"]
        if has_truth:
            figures = [f"CIEDE2000 {values['ciede2000']:.2f}", f"{figures[0]} · dM {_signed(values)}"]
        yield name, picture, figures
    if has_truth:
        yield "original", kept.truth, [f"M {kept.values[GRAY]['colorfulness_truth']:.1f}"]


def _signed(values: Mapping[str, float]) -> str:
    return f"{values['delta_colorfulness']:+.1f}".replace("-", "\N{MINUS SIGN}")


def _thumbnail(uri: str, picture: str, name: str, _: Picture, figures: list[str]) -> Thumbnail:
    what = {"gray": "in gray", "original": "the original"}.get(name, f"coloured by {name}")
    return Thumbnail(uri, f"{picture}, {what}: {', '.join(figures)}", figures)


def _draw(columns: Sequence[str], rows: list[tuple[str, list[tuple[str, Picture, list[str]]]]]) -> bytes:
    plain = [(name, [(rgb, "\n".join(figures)) for _, rgb, figures in cells]) for name, cells in rows]
    figure = charts.draw_sheet(columns, plain)
    return charts.to_png(figure, figure.dpi)


def _encode(pictures: Sequence[Picture]) -> list[str]:
    """Each picture as a data URI; smaller pictures if there are more than `BUDGET` holds."""
    side = max(rgb.shape[0] for rgb in pictures)
    while True:
        uris = [_to_uri(images.resize(rgb, side) if rgb.shape[0] > side else rgb) for rgb in pictures]
        total = sum(map(len, uris))
        if total <= BUDGET or side <= _SMALLEST:
            return uris
        side = max(_SMALLEST, int(0.95 * side * (BUDGET / total) ** 0.5))


def _to_uri(rgb: Picture) -> str:
    """JPEG or PNG, whichever is smaller: both keep the colours at full resolution (lossy WebP halves it)."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ways = {"jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *full]), "png": (".png", list[int]())}
    coded = {kind: cv2.imencode(suffix, bgr, how)[1].tobytes() for kind, (suffix, how) in ways.items()}
    kind = min(coded, key=lambda kind: len(coded[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(coded[kind]).decode()}"


def _figures(
    evaluation: Evaluation, gathering: Gathering, logs: Mapping[str, Mapping[str, charts.Curve]]
) -> Iterator[tuple[str, str, str, Figure]]:
    """Key, title, caption and figure of each chart that there are numbers for."""
    losses = charts.draw_losses(logs)
    if losses is not None:
        without = [name for name, log in logs.items() if not log]
        missing = f" No log of {', '.join(without)}." if without else ""
        about = (
            "As each run logged them while it trained; points of validation are means over its held-out pictures. "
            "Reconstruction and generator's loss compare only between runs with the same loss, λ and colour scale: "
            "λ times L1 or MSE, of a*b* divided by 110, 127 or 255 or of RGB, share an axis here."
        )
        yield "losses", "Loss against epoch", about + missing, losses
    truth = gathering.truth if evaluation.has_truth else None
    of = "colourings and originals" if truth else "colourings"
    about = (
        f"Share of the pixels of all {of} at each value. In a* and b* (log scale) 0 is gray; a narrower curve means "
        "paler colours."
    )
    yield "channels", "Distribution of the colour channels", about, charts.draw_channels(gathering.histograms, truth)
    if evaluation.has_truth:
        rows = {row.name: row.pictures for row in evaluation.rows}
        predicted = {name: rows[name]["colorfulness"] for name in logs}
        about = (
            "Each mark is a picture; on the line a colouring is as colourful as its original, below it paler. At the "
            "right, Hasler and Süsstrunk's words for M."
        )
        figure = charts.draw_colorfulness(predicted, rows[GRAY]["colorfulness_truth"])
        yield "colorfulness", "Colorfulness of colouring and original", about, figure


def _tables(evaluation: Evaluation, reasons: list[str]) -> Iterator[Table]:
    for group, columns in groups(evaluation):
        best = {column.key: _find_best(evaluation.rows, column) for column in columns}
        rows = [
            (row.name, [_cell(row, column, best[column.key], reasons) for column in columns]) for row in evaluation.rows
        ]
        yield Table(group, [(column.title, column.better) for column in columns], rows)


def _cell(row: Row, column: Column, best: str | None, reasons: list[str]) -> Cell:
    key, value = column.key, row.values[column.key]
    if value is None:
        return Cell("", "", False, reasons.index(row.empty[key]) + 1)
    text = _number(value, column)
    interval = f"{_number(row.low[key], column)} to {_number(row.high[key], column)}" if key in row.low else ""
    return Cell(text, interval, row.name not in (GRAY, MEAN) and text == best, 0)


def _find_best(rows: Sequence[Row], column: Column) -> str | None:
    """The best figure of the runs as it is shown; None where none is better than another."""
    values = [row.values[column.key] for row in rows if row.name not in (GRAY, MEAN)]
    found = [value for value in values if value is not None]
    if not column.better or len({_number(value, column) for value in found}) < 2:
        return None
    keys: dict[str, Callable[[float], float]] = {
        "higher": lambda value: -value,
        "lower": lambda value: value,
        "zero": abs,
        "one": lambda value: abs(value - 1),
    }
    return _number(min(found, key=keys[column.better]), column)


def _number(value: float, column: Column) -> str:
    return tables.number(value, column.digits).replace("-", "\N{MINUS SIGN}")
