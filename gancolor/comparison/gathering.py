"""What a page keeps of the pictures while they are evaluated: counts, and thumbnails of a few chosen ones."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancolor import charts, color, images
from gancolor.evaluation import Shown, to_tensor

Picture = NDArray[np.uint8]

THUMBNAIL = 256  # pixels: the largest side of a picture on the page
_BINS = {"a": 110, "b": 110, "red": 64, "green": 64, "blue": 64}


class Kept(NamedTuple):
    """A picture of a sheet, all uint8 (N, N, 3) with N at most `THUMBNAIL`, with its figures by row name."""

    name: str
    gray: Picture
    colored: Mapping[str, Picture]
    truth: Picture
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Sheet:
    """Chosen pictures: `key` names the file, `title` and `about` say how they were chosen."""

    key: str
    title: str
    about: str
    pictures: list[Kept]


class Gathering:
    """Is called with every picture of an evaluation; what it holds does not grow with their number.

    `histograms`: counts of pixels by row name and channel of `charts.CHANNELS`; `truth`: the same of the pictures.
    """

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self.total = 0
        self.has_truth = False
        self.histograms: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.truth = _no_counts()
        self._even: list[Kept] = []  # every `_stride`-th picture
        self._stride = 1
        self._high: list[tuple[float, int, Kept]] = []  # heaps of the largest and smallest scores
        self._low: list[tuple[float, int, Kept]] = []

    def __call__(self, shown: Shown) -> None:
        self._count_pixels(shown)
        self.has_truth = all("ciede2000" in shown.values[name] for name in shown.colored)
        key = "ciede2000" if self.has_truth else "colorfulness"
        score = fmean(shown.values[name][key] for name in shown.colored)
        kept: Kept | None = None
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
        """Sheets of fixed pictures and of the two ends: best and worst, or most and least colourful without a truth.

        With few pictures no picture is at both ends; a single one has no ends.
        """
        count = min(self.count, len(self._even))
        fixed = [self._even[at * len(self._even) // count] for at in range(count)]
        sheets = [Sheet("fixed", "Fixed pictures", "Spread evenly over the list, whatever came out.", fixed)]
        high, low = (
            [kept for *_, kept in sorted(heap, reverse=True)[: self.total // 2]] for heap in (self._high, self._low)
        )
        if not high:
            return sheets
        if not self.has_truth:
            about = "By the mean colorfulness M of all runs; nothing says whether the colours are right."
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


def _no_counts() -> dict[str, NDArray[np.float64]]:
    return {channel: np.zeros(bins) for channel, bins in _BINS.items()}


def _add(counts: dict[str, NDArray[np.float64]], rgb: Picture) -> None:
    ab = color.split(to_tensor(rgb))[1][0].numpy() * 110
    channels = dict(zip(_BINS, (*ab, *rgb.transpose(2, 0, 1)), strict=True))
    for channel, values in channels.items():
        bins, (low, high) = _BINS[channel], charts.CHANNELS[channel]
        at = ((values.astype(np.float64) - low) * (bins / (high - low))).astype(np.int64).clip(0, bins - 1)
        counts[channel] += np.bincount(at.ravel(), minlength=bins)


def _keep(shown: Shown) -> Kept:
    def shrink(rgb: Picture) -> Picture:
        return images.resize(rgb, THUMBNAIL) if rgb.shape[0] > THUMBNAIL else rgb.copy()

    colored = {name: shrink(rgb) for name, rgb in shown.colored.items()}
    return Kept(shown.name, shrink(shown.gray), colored, shrink(shown.truth), shown.values)
