"""The page of a comparison as HTML in one file, and its sheets and charts as PNG files.

While the pictures are evaluated, `Gathering` keeps what the page needs of them: counts, and
thumbnails of a few chosen ones. `read_curves` reads the curves of a run's log, and `render` makes the
page.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeGuard

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gancolor import charts, color, tables
from gancolor.charts import LossCurve
from gancolor.evaluation.measurement import GRAY, MEAN, Shown
from gancolor.evaluation.results import Column, Evaluation, Result, explain, groups
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.training import rundir

THUMBNAIL = 256
"""Pixels: the largest side of a picture on the page."""

BUDGET = 8_000_000
"""Bytes that the pictures of a page may take together: a browser's patience, a mail's size."""

SHEETS = ("fixed", "best", "worst", "most-colourful", "least-colourful")

CHARTS = ("losses", "channels", "colorfulness")

PNGS = tuple(f"{key}.png" for key in (*SHEETS, *CHARTS))
"""Every file that may stand beside a page."""

_BINS = {"a": 110, "b": 110, "red": 64, "green": 64, "blue": 64}
_QUALITY = 92  # of JPEG: no difference to be seen, with full chroma resolution
_SMALLEST = 64  # pixels: below it nothing is to be seen


class Gathering:
    """Is called with every picture of an evaluation; what it holds does not grow with their number.

    `histograms`: counts of pixels by row name and channel of `charts.CHANNELS`; `truth`: the same
    of the pictures.
    """

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self.total = 0
        self.has_truth = False
        self.histograms: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.truth = _no_counts()
        self._even: list[SheetPicture] = []  # every `_stride`-th picture
        self._stride = 1
        self._high: list[
            tuple[float, int, SheetPicture]
        ] = []  # heaps of the largest and smallest scores
        self._low: list[tuple[float, int, SheetPicture]] = []

    def __call__(self, shown: Shown) -> None:
        self._count_pixels(shown)
        self.has_truth = all("ciede2000" in shown.values[name] for name in shown.colored)
        key = "ciede2000" if self.has_truth else "colorfulness"
        score = fmean(shown.values[name][key] for name in shown.colored)
        kept: SheetPicture | None = None
        for heap, rank in ((self._high, score), (self._low, -score)):
            if len(heap) < self.count or rank > heap[0][0]:
                kept = kept or _keep(shown)
                heapq.heappush(heap, (rank, -shown.index, kept))  # the earlier one of equals
                if len(heap) > self.count:
                    heapq.heappop(heap)
        if self.total % self._stride == 0:
            self._even.append(kept or _keep(shown))
            if len(self._even) >= 2 * self.count:
                self._even, self._stride = self._even[::2], 2 * self._stride
        self.total += 1

    def sheets(self) -> list[Sheet]:
        """Sheets of fixed pictures and of the two ends: best and worst, or most and least colourful
        without a truth.

        With few pictures no picture is at both ends; a single one has no ends.
        """
        count = min(self.count, len(self._even))
        fixed = [self._even[at * len(self._even) // count] for at in range(count)]
        sheets = [
            Sheet(
                "fixed", "Fixed pictures", "Spread evenly over the list, whatever came out.", fixed
            )
        ]
        high, low = (
            [kept for *_, kept in sorted(heap, reverse=True)[: self.total // 2]]
            for heap in (self._high, self._low)
        )
        if not high:
            return sheets
        if not self.has_truth:
            about = (
                "By the mean colorfulness M of all runs; nothing says whether the colours are"
                " right."
            )
            return [
                *sheets,
                Sheet("most-colourful", "Most colourful pictures", about, high),
                Sheet("least-colourful", "Least colourful pictures", about, low),
            ]
        about = "By the mean CIEDE2000 of all runs, the {} first."
        return [
            *sheets,
            Sheet("best", "Best pictures", about.format("smallest"), low),
            Sheet("worst", "Worst pictures", about.format("largest"), high),
        ]

    def _count_pixels(self, shown: Shown) -> None:
        _add(self.truth, shown.truth)
        for name, colored in shown.colored.items():
            _add(self.histograms.setdefault(name, _no_counts()), colored)


@dataclass(frozen=True)
class Sheet:
    """Chosen pictures: `key` names the file, `title` and `about` say how they were chosen."""

    key: str
    title: str
    about: str
    pictures: list[SheetPicture]


class SheetPicture(NamedTuple):
    """A picture of a sheet, all uint8 (N, N, 3) with N at most `THUMBNAIL`, with its figures by row
    name.
    """

    name: str
    gray: Picture
    colored: Mapping[str, Picture]
    truth: Picture
    values: Mapping[str, Mapping[str, float]]


def _keep(shown: Shown) -> SheetPicture:
    def shrink(rgb: Picture) -> Picture:
        return arrays.resize(rgb, THUMBNAIL) if rgb.shape[0] > THUMBNAIL else rgb.copy()

    colored = {name: shrink(rgb) for name, rgb in shown.colored.items()}
    return SheetPicture(shown.name, shrink(shown.gray), colored, shrink(shown.truth), shown.values)


def _no_counts() -> dict[str, NDArray[np.float64]]:
    return {channel: np.zeros(bins) for channel, bins in _BINS.items()}


def _add(counts: dict[str, NDArray[np.float64]], rgb: Picture) -> None:
    ab = color.split(color.to_tensor(rgb))[1][0].numpy() * 110
    channels = dict(zip(_BINS, (*ab, *rgb.transpose(2, 0, 1)), strict=True))
    for channel, values in channels.items():
        bins, (low, high) = _BINS[channel], charts.CHANNELS[channel]
        at = (
            ((values.astype(np.float64) - low) * (bins / (high - low)))
            .astype(np.int64)
            .clip(0, bins - 1)
        )
        counts[channel] += np.bincount(at.ravel(), minlength=bins)


def read_curves(path: Path) -> dict[str, LossCurve]:
    """Curves of a run's log.jsonl by the keys of `charts.LOSSES`; those that are not in it are
    missing.

    A missing file and broken lines count as nothing. Validations, logged by step, get the epoch of
    their step.
    """
    curves: dict[str, LossCurve] = {}
    steps, epochs = [], []
    validations: list[tuple[float, float]] = []
    for line in rundir.read_log(path):
        epoch, step = line.get("epoch"), line.get("step")
        if (
            _is_number(step)
            and isinstance(line.get("val"), dict)
            and _is_number(line["val"].get("ciede2000"))
        ):
            validations.append((step, line["val"]["ciede2000"]))
        if not _is_number(epoch) or not _is_number(step):
            continue
        steps.append(step)
        epochs.append(epoch)
        found = {"reconstruction": line.get("generator/l1", line.get("generator/mse"))}
        found |= {key: line.get(key) for key in ("G_loss", "D_loss")}
        for key, value in found.items():
            if _is_number(value):
                curve = curves.setdefault(key, LossCurve())
                curve.epochs.append(epoch)
                curve.values.append(value)
    if validations and steps:
        at = [float(value) for value in np.interp([step for step, _ in validations], steps, epochs)]
        curves["ciede2000"] = LossCurve(at, [value for _, value in validations])
    return curves


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < 1e300


def render(
    evaluation: Evaluation,
    gathering: Gathering,
    logs: Mapping[str, Mapping[str, LossCurve]],
    folder: str,
) -> tuple[str, dict[str, bytes]]:
    """The page and its PNG files by name; `folder` is what the page calls the place of these."""
    pngs: dict[str, bytes] = {}
    sheets = []
    columns = ["gray", *logs, *(["original"] if evaluation.has_truth else [])]
    chosen = [
        (sheet, [(kept.name, list(_cells(kept, evaluation.has_truth))) for kept in sheet.pictures])
        for sheet in gathering.sheets()
    ]
    uris = iter(to_uris([rgb for _, rows in chosen for _, cells in rows for _, rgb, _ in cells]))
    for sheet, rows in chosen:
        pngs[f"{sheet.key}.png"] = _draw(columns, rows)
        sheets.append(
            (
                sheet,
                [
                    (name, [_thumbnail(next(uris), name, *cell) for cell in cells])
                    for name, cells in rows
                ],
            )
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


class Cell(NamedTuple):
    """A figure of the table: text, its 95 % interval or "", whether it is the runs' best, number of
    the footnote.
    """

    text: str
    interval: str
    best: bool
    note: int


class PageTable(NamedTuple):
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


def _template() -> jinja2.Template:
    text = (
        resources.files("gancolor.evaluation")
        .joinpath("comparison.html")
        .read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _cells(kept: SheetPicture, has_truth: bool) -> Iterator[tuple[str, Picture, list[str]]]:
    """Name, picture and figures of each column of a sheet."""
    for name, picture in ({GRAY: kept.gray} | dict(kept.colored)).items():
        values = kept.values[name]
        figures = [f"M {values['colorfulness']:.1f}"]
        if has_truth:
            figures = [
                f"CIEDE2000 {values['ciede2000']:.2f}",
                f"{figures[0]} · dM {_signed(values)}",
            ]
        yield name, picture, figures
    if has_truth:
        yield "original", kept.truth, [f"M {kept.values[GRAY]['colorfulness_truth']:.1f}"]


def _signed(values: Mapping[str, float]) -> str:
    return f"{values['delta_colorfulness']:+.1f}".replace("-", "\N{MINUS SIGN}")


def _thumbnail(uri: str, picture: str, name: str, _: Picture, figures: list[str]) -> Thumbnail:
    what = {"gray": "in gray", "original": "the original"}.get(name, f"coloured by {name}")
    return Thumbnail(uri, f"{picture}, {what}: {', '.join(figures)}", figures)


def _draw(
    columns: Sequence[str], rows: list[tuple[str, list[tuple[str, Picture, list[str]]]]]
) -> bytes:
    plain = [
        (name, [(rgb, "\n".join(figures)) for _, rgb, figures in cells]) for name, cells in rows
    ]
    figure = charts.draw_sheet(columns, plain)
    return charts.to_png(figure, figure.dpi)


def to_uris(pictures: Sequence[Picture]) -> list[str]:
    """Each picture as a data URI; smaller pictures if there are more than `BUDGET` holds."""
    side = max(rgb.shape[0] for rgb in pictures)
    while True:
        uris = [
            _to_uri(arrays.resize(rgb, side) if rgb.shape[0] > side else rgb) for rgb in pictures
        ]
        total = sum(map(len, uris))
        if total <= BUDGET or side <= _SMALLEST:
            return uris
        side = max(_SMALLEST, int(0.95 * side * (BUDGET / total) ** 0.5))


def _to_uri(rgb: Picture) -> str:
    """JPEG or PNG, whichever is smaller: both keep the colours at full resolution (lossy WebP
    halves it).
    """
    png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    coded = {"jpeg": arrays.encode_jpeg(rgb, _QUALITY), "png": png}
    kind = min(coded, key=lambda kind: len(coded[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(coded[kind]).decode()}"


def _figures(
    evaluation: Evaluation, gathering: Gathering, logs: Mapping[str, Mapping[str, LossCurve]]
) -> Iterator[tuple[str, str, str, Figure]]:
    """Key, title, caption and figure of each chart that there are numbers for."""
    losses = charts.draw_losses(logs)
    if losses is not None:
        without = [name for name, log in logs.items() if not log]
        missing = f" No log of {', '.join(without)}." if without else ""
        about = (
            "As each run logged them while it trained; points of validation are means over its"
            " held-out pictures. Reconstruction and generator's loss compare only between runs with"
            " the same loss, λ and colour scale: λ times L1 or MSE, of a*b* divided by 110, 127 or"
            " 255 or of RGB, share an axis here."
        )
        yield "losses", "Loss against epoch", about + missing, losses
    truth = gathering.truth if evaluation.has_truth else None
    of = "colourings and originals" if truth else "colourings"
    about = (
        f"Share of the pixels of all {of} at each value. In a* and b* (log scale) 0 is gray; a"
        " narrower curve means paler colours."
    )
    yield (
        "channels",
        "Distribution of the colour channels",
        about,
        charts.draw_channels(gathering.histograms, truth),
    )
    if evaluation.has_truth:
        rows = {row.name: row.pictures for row in evaluation.rows}
        predicted = {name: rows[name]["colorfulness"] for name in logs}
        about = (
            "Each mark is a picture; on the line a colouring is as colourful as its original, below"
            " it paler. At the right, Hasler and Süsstrunk's words for M."
        )
        figure = charts.draw_colorfulness(predicted, rows[GRAY]["colorfulness_truth"])
        yield "colorfulness", "Colorfulness of colouring and original", about, figure


def _tables(evaluation: Evaluation, reasons: list[str]) -> Iterator[PageTable]:
    for group, columns in groups(evaluation):
        best = {column.key: _find_best(evaluation.rows, column) for column in columns}
        rows = [
            (row.name, [_cell(row, column, best[column.key], reasons) for column in columns])
            for row in evaluation.rows
        ]
        yield PageTable(group, [(column.title, column.better) for column in columns], rows)


def _cell(row: Result, column: Column, best: str | None, reasons: list[str]) -> Cell:
    key, value = column.key, row.values[column.key]
    if value is None:
        return Cell("", "", False, reasons.index(row.empty[key]) + 1)
    text = _number(value, column)
    interval = (
        f"{_number(row.low[key], column)} to {_number(row.high[key], column)}"
        if key in row.low
        else ""
    )
    return Cell(text, interval, row.name not in (GRAY, MEAN) and text == best, 0)


def _find_best(rows: Sequence[Result], column: Column) -> str | None:
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
