"""What the pictures of a dataset look like, from evenly chosen ones: sizes, lightness, colours,
colorfulness.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color, metrics
from gancolor.data.doctor.examination import SIDE
from gancolor.data.doctor.report import spread_evenly
from gancolor.data.folder import FolderSource
from gancolor.data.shards.listing import is_remote
from gancolor.data.shards.lookup import ShardSource
from gancolor.data.source import PictureSource
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.images.arrays import Picture

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
