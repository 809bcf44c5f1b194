"""Charts that put runs side by side: loss against epoch, distribution of the colour channels,
colorfulness.

Plain numbers in; matplotlib figures out, made without pyplot, so that nothing outlives a call.
`to_svg` is for a page (text stays text, colours are the page's own, so that they follow its light
or dark scheme), `to_png` for a file.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from gancolor.images.arrays import Picture

PALETTE = ("#0072b2", "#c84c00", "#00795a", "#a33a8c", "#8a6100", "#c2185b", "#6a4bc4", "#4b6b00")
"""Colours of the runs on white; all have a contrast of 4.5 or more with it."""
DARK_PALETTE = (
    "#5ab4f0",
    "#ff9a5c",
    "#3dcca3",
    "#e391d1",
    "#e0b341",
    "#ff7fae",
    "#b39dff",
    "#a9cf52",
)
"""The same on the dark page."""

COLORFULNESS_SCALE = {
    0: "not",
    15: "slightly",
    33: "moderately",
    45: "averagely",
    59: "quite",
    82: "highly",
}
COLORFULNESS_SCALE[109] = "extremely"
"""Hasler and Süsstrunk's words for M, at the values where people use them."""

LOSSES = {
    "reconstruction": "Reconstruction loss (L1 × λ or MSE, as trained)",
    "G_loss": "Generator's loss",
    "D_loss": "Discriminator's loss (chance: 1.386)",
    "ciede2000": "CIEDE2000 on the run's own validation pictures",
}
"""Curves of a run that are drawn, with titles."""

CHANNELS = {
    "a": (-110, 110),
    "b": (-110, 110),
    "red": (0, 256),
    "green": (0, 256),
    "blue": (0, 256),
}
"""Channels of a histogram with their range: a*, b* in CIE units; sRGB in 0-255."""

_INK, _FAINT = "#1b1b1c", "#7d7d80"  # of text and of lines that are not data, on white
_DASHES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*Xp"
_MOST_POINTS = 240  # of a curve; more are averaged
_SMALLEST_CELL = 150  # pixels: of a sheet; leaves room for the figures under a picture
_MOST_DOTS = 600  # of a run in a scatter chart; more are thinned out evenly


@dataclass
class LossCurve:
    """Values at epochs, ascending."""

    epochs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class RunLook:
    """How a run is drawn in every chart: told apart without colour too."""

    color: str
    dashes: Literal["-", "--", "-.", ":"]
    marker: str

    def style(self, *, line: bool = True, dot: bool = True) -> dict[str, Any]:
        """Keywords for matplotlib's lines, with or without line and markers."""
        drawn = {"linestyle": self.dashes if line else "", "marker": self.marker if dot else ""}
        return {"color": self.color, **drawn, "linewidth": 1.6, "markersize": 5}


def look(position: int) -> RunLook:
    """How the run at a position is drawn; 72 differ."""
    return RunLook(PALETTE[position % 8], _DASHES[position % 4], _MARKERS[position % 9])


def describe(colorfulness: float) -> str:
    """Word of `COLORFULNESS_SCALE` that is nearest to M, "slightly colourful" for example."""
    return (
        COLORFULNESS_SCALE[min(COLORFULNESS_SCALE, key=lambda value: abs(value - colorfulness))]
        + " colourful"
    )


def draw_losses(logs: Mapping[str, Mapping[str, LossCurve]]) -> Figure | None:
    """Loss against epoch (portrait, Fig. 2) of each run by name; None when no log has a curve.

    A panel for each of `LOSSES` that a run has. G_loss is left out where it is nothing but the
    reconstruction.
    """
    shown = [key for key in LOSSES if any(key in log for log in logs.values())]
    if (
        all(log.get("G_loss") == log.get("reconstruction") for log in logs.values())
        and "G_loss" in shown
    ):
        shown.remove("G_loss")
    if not shown:
        return None
    figure, panels = _panels([2] * (len(shown) // 2) + [1] * (len(shown) % 2))
    for axes, key in zip(panels, shown, strict=True):
        for position, log in enumerate(logs.values()):
            if key in log:
                curve = _thin(log[key])
                every = 1 if key == "ciede2000" else max(1, len(curve.values) // 6)
                axes.plot(curve.epochs, curve.values, **look(position).style(), markevery=every)
        _name(axes, LOSSES[key], "epoch", "loss" if key != "ciede2000" else "CIEDE2000")
        _spread_out(
            axes, [value for log in logs.values() if key in log for value in log[key].values]
        )
    _add_legend(figure, list(logs), [_sample(position) for position in range(len(logs))])
    return figure


def draw_channels(
    histograms: Mapping[str, Mapping[str, NDArray[np.float64]]],
    truth: Mapping[str, NDArray[np.float64]] | None,
) -> Figure:
    """Distribution of the colour channels (portrait, Fig. 4) of each run by name, and of the true
    pictures.

    Histograms: counts of pixels by the keys of `CHANNELS`, equal bins over their range. a* and b*
    on a log scale: most pixels are nearly gray, and what tells colorizers apart are the few that
    are not.
    """
    figure, panels = _panels([2, 3])
    titles = {
        "a": "a*: green to red",
        "b": "b*: blue to yellow",
        "red": "Red",
        "green": "Green",
        "blue": "Blue",
    }
    for axes, (channel, (low, high)) in zip(panels, CHANNELS.items(), strict=True):
        if truth is not None:
            share, edges = _share(truth[channel], low, high)
            axes.stairs(share, edges, fill=True, color=_FAINT, alpha=0.35)
        for position, histogram in enumerate(histograms.values()):
            share, edges = _share(histogram[channel], low, high)
            axes.plot((edges[1:] + edges[:-1]) / 2, share, **look(position).style(dot=False))
        lab = channel in ("a", "b")
        if lab:
            axes.set_yscale("log")
            axes.set_ylim(bottom=1e-3)
            axes.yaxis.set_major_formatter("{x:g}")
        _name(axes, titles[channel], "CIE units" if lab else "0 to 255", "% of pixels")
    handles = [_sample(position, dot=False) for position in range(len(histograms))]
    names = list(histograms)
    if truth is not None:
        handles.append(Line2D([], [], color=_FAINT, alpha=0.35, linewidth=8))
        names.append("original")
    _add_legend(figure, names, handles)
    return figure


def draw_colorfulness(predicted: Mapping[str, Sequence[float]], truth: Sequence[float]) -> Figure:
    """Colorfulness of each run's pictures against that of the true ones, with the words of
    `COLORFULNESS_SCALE`.

    More pictures than a chart can show are thinned out evenly.
    """
    figure, (axes,) = _panels([1], height=6.5)
    step = max(1, math.ceil(len(truth) / _MOST_DOTS))
    top = 1.05 * max([30.0, *truth, *(value for values in predicted.values() for value in values)])
    axes.plot([0, top], [0, top], color=_INK, linewidth=1)
    for value, word in COLORFULNESS_SCALE.items():
        if value <= top:
            axes.axhline(value, color=_FAINT, linewidth=0.6, linestyle=":")
            axes.annotate(
                word,
                (1.01, value),
                xycoords=("axes fraction", "data"),
                color=_INK,
                va="center",
                fontsize=9,
            )
    for position, values in enumerate(predicted.values()):
        axes.plot(
            truth[::step],
            values[::step],
            **look(position).style(line=False),
            alpha=0.75,
            markeredgewidth=0,
        )
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    _name(axes, "Colorfulness of each picture", "M of the original", "M of the colouring")
    _add_legend(
        figure,
        list(predicted),
        [_sample(position, line=False) for position in range(len(predicted))],
    )
    return figure


def draw_sheet(
    titles: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[Picture, str]]]]
) -> Figure:
    """Pictures beside each other: for each row a name and cells of a picture with a caption.

    Pictures: uint8 (N, N, 3), all of one size, drawn pixel for pixel; small ones are enlarged by
    whole pixels. Save it with `to_png(figure, figure.dpi)`.
    """
    times = max(1, math.ceil(_SMALLEST_CELL / rows[0][1][0][0].shape[0]))
    side = times * rows[0][1][0][0].shape[0]
    cell, gap, head, foot = side, 10, 30, 44
    pitch = 24 + side + foot
    width, height = gap + len(titles) * (cell + gap), head + len(rows) * pitch + gap
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)

    def say(x: int, down: int, text: str, most: int, **style: Any) -> None:
        cut = text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
        drawn: dict[str, Any] = {"color": _INK, "fontsize": 8.5, "va": "top", "parse_math": False}
        figure.text(x / width, 1 - down / height, _printable(cut), **(drawn | style))

    letters = cell // 7  # that fit beside each other
    for column, title in enumerate(titles):
        say(gap + column * (cell + gap), 10, title, letters, fontweight="bold")
    for line, (name, cells) in enumerate(rows):
        top = head + line * pitch
        say(gap, top + 6, name, letters * len(titles))
        for column, (picture, caption) in enumerate(cells):
            left = gap + column * (cell + gap)
            figure.figimage(
                picture.repeat(times, axis=0).repeat(times, axis=1),
                left,
                height - top - 24 - side,
                origin="upper",
            )
            say(left, top + 24 + side + 4, caption, 999)
    return figure


def to_svg(figure: Figure, prefix: str, words: str) -> str:
    """The figure as an SVG element for a page; `prefix` keeps its ids apart from other charts',
    `words` describe it.

    Colours are CSS: `currentColor`, `--faint`, and `--series-0` to `--series-7` with `PALETTE` for
    want of them.
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes the file the same each time.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}),
        _glyphs_forgiven(),
    ):
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    text = text.replace(_INK, "currentColor").replace(_FAINT, f"var(--faint, {_FAINT})")
    for position, color in enumerate(PALETTE):
        text = text.replace(color, f"var(--series-{position}, {color})")
    head = f'<svg role="img" aria-label="{html.escape(words)}"'
    return re.sub(
        r'^<svg|(?<=\s)(?:width|height)="[\d.]+pt"\s?',
        lambda found: head if found[0] == "<svg" else "",
        text,
    )


def to_png(figure: Figure, dpi: float = 150) -> bytes:
    """The figure as a PNG file on white, `dpi` dots an inch."""
    out = io.BytesIO()
    with _glyphs_forgiven():
        figure.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def _panels(rows: Sequence[int], height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in each row, all rows equally wide; `height` of a row in inches."""
    figure = Figure(figsize=(9.6, height * len(rows) + 0.5), layout="constrained")
    grid = figure.add_gridspec(len(rows), math.lcm(*rows))
    panels = []
    for line, count in enumerate(rows):
        width = grid.ncols // count
        panels += [
            figure.add_subplot(grid[line, at * width : (at + 1) * width]) for at in range(count)
        ]
    for axes in panels:
        axes.grid(color=_FAINT, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(which="both", color=_FAINT, labelcolor=_INK, labelsize=9)
    return figure, panels


def _spread_out(axes: Axes, values: Sequence[float]) -> None:
    """A log scale where the values need one."""
    if 0 < 10 * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")


def _name(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, color=_INK, fontsize=11, loc="left", parse_math=False)
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)


def _thin(curve: LossCurve) -> LossCurve:
    """At most `_MOST_POINTS`, each the mean of its neighbours."""
    parts = min(len(curve.values), _MOST_POINTS)
    epochs, values = (
        np.array_split(np.asarray(x, float), parts) for x in (curve.epochs, curve.values)
    )
    return LossCurve(
        [float(part.mean()) for part in epochs], [float(part.mean()) for part in values]
    )


def _share(
    counts: NDArray[np.float64], low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percent of the pixels in each bin, and the bins' edges."""
    return 100 * counts / max(counts.sum(), 1), np.linspace(low, high, len(counts) + 1)


def _sample(position: int, *, line: bool = True, dot: bool = True) -> Line2D:
    return Line2D([], [], **look(position).style(line=line, dot=dot))


def _add_legend(figure: Figure, names: Sequence[str], handles: Sequence[Line2D]) -> None:
    """Below the panels. Names are set afterwards: a label with a leading underscore would be left
    out.
    """
    columns = 1 if max(map(len, names)) > 40 else 2
    legend = figure.legend(
        handles,
        ["-"] * len(names),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.5,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a run may be called $1$
        text.set(text=_printable(name), color=_INK, fontsize=10)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


@contextmanager
def _glyphs_forgiven() -> Iterator[None]:
    """A name in letters that the font lacks is drawn with boxes in a PNG, and is no reason for a
    warning.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph")
        yield
