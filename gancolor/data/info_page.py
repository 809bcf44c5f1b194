"""The page of charts that shows a dataset at a glance.

Sizes, lightness, colours and colorfulness are taken from pictures that are evenly chosen.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from gancolor import charts, color, metrics, tables
from gancolor.data.doctor.examination import SIDE
from gancolor.data.doctor.report import spread_evenly
from gancolor.data.folder import FolderSource
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import PictureSource
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.remote_files import is_remote

AB_RANGE = (-110.0, 110.0)
"""Range of a* and b* in a density, in CIE units."""

SHOWN = 8
"""How many of the pictures a sample keeps to show."""

_BINS = 110  # of a density, for each of a* and b*
_SHOWN_SIDE = 150  # pixels


@dataclass(frozen=True)
class Sample:
    """Figures of N pictures that were read; `broken` counts those that could not be.

    `sizes`: (N, 2) width and height in pixels; `weights`: (N,) bytes of their files, empty where
    pictures are no files. `lab`: (N, 3) mean L*, a*, b*; `chroma`: (N,) mean CIE chroma;
    `colorfulness`: (N,) Hasler and Süsstrunk's M, 0-255. `density`: (110, 110) pixels by a* (rows)
    and b* over `AB_RANGE`. `shown`: a few of them, uint8 (150, 150, 3).
    """

    broken: int
    sizes: NDArray[np.int64]
    weights: NDArray[np.int64]
    lab: NDArray[np.float64]
    chroma: NDArray[np.float64]
    colorfulness: NDArray[np.float64]
    density: NDArray[np.float64]
    shown: tuple[Picture, ...]

    def __len__(self) -> int:
        return len(self.chroma)

    @property
    def center(self) -> tuple[float, float]:
        """Mean a* and b* of the pictures."""
        return float(self.lab[:, 1].mean()), float(self.lab[:, 2].mean())

    @property
    def reach(self) -> float:
        """How far the colours lie around their centre: root mean square distance in the plane of a*
        and b*.
        """
        middles = np.linspace(*AB_RANGE, 2 * _BINS + 1)[1::2]
        squares = 0.0
        for axis in (0, 1):
            share = self.density.sum(1 - axis) / self.density.sum()
            squares += float(share @ middles**2 - (share @ middles) ** 2)
        return math.sqrt(squares)


class _Looks(NamedTuple):
    """One picture's part of a sample."""

    size: tuple[int, int]
    weight: int | None
    lab: tuple[float, float, float]
    chroma: float
    colorfulness: float
    places: NDArray[np.int32]  # of its pixels in the flattened density
    shown: Picture | None


def look_at(source: PictureSource, most: int) -> Sample:
    """Look at `most` evenly chosen pictures of a source, or at all where there are fewer.

    Of remote shards only the first is fetched. Memory depends on `most` alone. DataError if none of
    them can be read.
    """
    chosen = _choose(source, most)
    shown = {chosen[place] for place in spread_evenly(len(chosen), SHOWN)}
    density = np.zeros(_BINS * _BINS)
    looks: list[_Looks] = []
    broken: list[str] = []

    def look(index: int) -> _Looks | str:
        try:
            return _look(source, index, index in shown)
        except DataError as error:
            return str(error)

    # Files are read in threads, which decoding lets run beside each other; other sources promise
    # nothing of the kind.
    pool = ThreadPoolExecutor(
        min(os.cpu_count() or 1, 8) if isinstance(source, FolderSource) else 1
    )
    try:
        for found in pool.map(look, chosen):
            if isinstance(found, str):
                broken.append(found)
                continue
            density += np.bincount(found.places, minlength=density.size) / found.places.size
            looks.append(found._replace(places=found.places[:0].copy()))
    finally:
        pool.shutdown(cancel_futures=True)
    if not looks:
        raise DataError(
            f"one of {len(chosen)} evenly chosen pictures must be readable, got none:"
            f" {'; '.join(broken[:3])}; replace them"
        )
    return Sample(
        len(broken),
        np.array([found.size for found in looks], np.int64),
        np.array([found.weight for found in looks if found.weight is not None], np.int64),
        np.array([found.lab for found in looks]),
        np.array([found.chroma for found in looks]),
        np.array([found.colorfulness for found in looks]),
        density.reshape(_BINS, _BINS),
        tuple(found.shown for found in looks if found.shown is not None),
    )


def _choose(source: PictureSource, most: int) -> Sequence[int]:
    count = len(source)
    if isinstance(source, ShardSource) and is_remote(source.shards[0].file):
        # No more than one is fetched: packed in random order, it stands for all.
        count = source.shards[0].pictures
    return spread_evenly(count, most)


def _look(source: PictureSource, index: int, shown: bool) -> _Looks:
    rgb = source.read(index)
    height, width = rgb.shape[:2]
    tensor = torch.from_numpy(arrays.resize(rgb, SIDE)).permute(2, 0, 1)[None]  # (1, 3, 96, 96)
    lightness, ab = (part[0].flatten(1).double() for part in color.split(tensor))  # (1, n), (2, n)
    ab *= color.AB_SCALE
    low, high = AB_RANGE
    row, column = ((ab - low) * (_BINS / (high - low))).long().clamp_(0, _BINS - 1)
    a, b = ab.mean(1).tolist()
    weight = None
    if isinstance(source, FolderSource):
        weight = (source.root / source.name(index)).stat().st_size
    return _Looks(
        (width, height),
        weight,
        ((float(lightness.mean()) + 1) * color.LIGHTNESS_SCALE, a, b),
        float(ab.square().sum(0).sqrt().mean()),
        float(metrics.colorfulness(tensor / 255)),
        (row * _BINS + column).int().numpy(),
        arrays.center_square(rgb, _SHOWN_SIDE) if shown else None,
    )


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
