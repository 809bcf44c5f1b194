"""The page of charts that shows a dataset at a glance, in the looks of `charts`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from gancolor import charts, tables
from gancolor.data.doctor.report import spread_evenly
from gancolor.data.info.sample import AB_RANGE, SHOWN, Sample

_INK, _FAINT = "#1b1b1c", "#7d7d80"  # of text and of lines that are not data
_FIRST, _SECOND, _THIRD = (charts.look(position).color for position in range(3))
_MOST_DOTS = 2000  # of the sizes; more are thinned out evenly
# Ratio of the largest to the smallest side from which sizes are drawn on logarithmic axes.
_WIDE = 8
_LEAST_SHARE = 1e-3  # of the densest place in the plane of a* and b*: what is rarer stays white


def draw(
    title: str,
    notes: Sequence[str],
    sample: Sample,
    sizes: NDArray[np.int64],
    splits: Mapping[str, int],
    rejected: Mapping[str, int],
    gray: NDArray[np.bool_],
) -> Figure:
    """A row of pictures, the distribution of colorfulness, the plane of a* and b*, the sizes, and
    the counts.

    `sizes`: (N, 2) width and height, none for pictures that have no size of their own. `gray`: (N,)
    which pictures of the sample count as gray. `notes` are written below. Save it with
    `charts.to_png`.
    """
    lines = [line for note in notes for line in textwrap.wrap(note, 140)]
    figure = Figure(figsize=(9.6, 9.0 + 0.22 * len(lines)), layout="constrained")
    figure.suptitle(_printable(title), x=0.01, ha="left", color=_INK, fontsize=13, parse_math=False)
    grid = figure.add_gridspec(3, 2, height_ratios=(1.0, 3.2, 3.2))
    _draw_pictures(figure, grid[0, :], sample)
    _draw_colorfulness(_panel(figure, grid[1, 0]), sample, gray)
    _draw_plane(_panel(figure, grid[1, 1]), sample)
    _draw_sizes(_panel(figure, grid[2, 0]), sizes)
    _draw_counts(_panel(figure, grid[2, 1]), splits, rejected)
    if lines:
        figure.supxlabel(
            _printable("\n".join(lines)),
            x=0.01,
            ha="left",
            color=_SECOND,
            fontsize=9.5,
            parse_math=False,
        )
    return figure


def _panel(figure: Figure, place: Any) -> Axes:
    axes = figure.add_subplot(place)
    axes.grid(color=_FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(which="both", color=_FAINT, labelcolor=_INK, labelsize=9)
    return axes


def _name(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, color=_INK, fontsize=11, loc="left")
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)


def _draw_pictures(figure: Figure, place: Any, sample: Sample) -> None:
    row = place.subgridspec(1, SHOWN, wspace=0.03)
    for column, picture in enumerate(sample.shown):
        axes = figure.add_subplot(row[0, column])
        axes.imshow(picture)
        axes.set_axis_off()


def _draw_colorfulness(axes: Axes, sample: Sample, gray: NDArray[np.bool_]) -> None:
    top = max(60.0, float(np.ceil(sample.colorfulness.max() / 10)) * 10)
    bins, percent = int(top // 2.5), np.full(len(sample), 100 / len(sample))
    share, edges = np.histogram(sample.colorfulness, bins, (0, top), weights=percent)
    axes.stairs(share, edges, fill=True, color=_FIRST)
    axes.stairs(
        *np.histogram(sample.colorfulness[gray], bins, (0, top), weights=percent[gray]),
        fill=True,
        color=_FAINT,
    )
    axes.set_xlim(0, top)
    axes.set_ylim(0, 1.3 * float(share.max()))  # room for the words
    for value, word in charts.COLORFULNESS_SCALE.items():
        if 0 < value < top:
            axes.axvline(value, color=_FAINT, linewidth=0.6, linestyle=":")
            axes.annotate(
                word,
                (value, 0.99),
                (2, 0),
                ("data", "axes fraction"),
                "offset points",
                rotation=90,
                va="top",
                ha="left",
                fontsize=8,
                color=_INK,
            )
    title = "Colorfulness (gray bars: gray or nearly)" if gray.any() else "Colorfulness"
    _name(axes, title, "M of Hasler and Süsstrunk", "% of pictures")


def _draw_plane(axes: Axes, sample: Sample) -> None:
    share = sample.density / sample.density.max()
    low, high = AB_RANGE
    shown = np.where(share < _LEAST_SHARE, np.nan, share)
    axes.imshow(
        shown,
        cmap="viridis_r",
        norm=LogNorm(_LEAST_SHARE, 1),
        extent=(low, high, low, high),
        origin="lower",
        interpolation="nearest",
    )
    axes.axhline(0, color=_FAINT, linewidth=0.8)
    axes.axvline(0, color=_FAINT, linewidth=0.8)
    a, b = sample.center
    axes.plot([b], [a], marker="+", markersize=14, markeredgewidth=2, color=_SECOND)
    mean = f"a* {tables.number(a, 1)}, b* {tables.number(b, 1)}"
    _name(axes, f"Colours, log scale (+ {mean})", "b*: blue to yellow", "a*: green to red")


def _draw_sizes(axes: Axes, sizes: NDArray[np.int64]) -> None:
    _name(axes, "Sizes in pixels", "width", "height")
    if not len(sizes):
        axes.text(
            0.5, 0.5, "painted at any size", transform=axes.transAxes, ha="center", color=_INK
        )
        return
    dots = sizes[list(spread_evenly(len(sizes), _MOST_DOTS))]
    axes.plot(
        *dots.T,
        **(charts.look(0).style(line=False) | {"markersize": 4}),
        alpha=0.4,
        markeredgewidth=0,
    )
    low, high = float(dots.min()), float(dots.max())
    if high > _WIDE * low:
        axes.set_xscale("log")
        axes.set_yscale("log")
        bottom, top = low / 1.3, high * 1.3
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    else:
        bottom, top = 0, 1.08 * high
    axes.plot([bottom, top], [bottom, top], color=_FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlim(bottom, top)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal", anchor="W")


def _draw_counts(axes: Axes, splits: Mapping[str, int], rejected: Mapping[str, int]) -> None:
    names = [*splits, *rejected]
    counts = [*splits.values(), *rejected.values()]
    bars = axes.barh(
        range(len(names)), counts, color=[_THIRD] * len(splits) + [_SECOND] * len(rejected)
    )
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=9, color=_INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max([1, *counts]))
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    _name(axes, "Pictures" + (" (and what is rejected)" if rejected else ""), "", "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
