"""What a network gains from the true colours of a few points, at the same places for every run.

After the curves of Zhang et al. (2017) and Yun et al. (2023, iColoriT): PSNR and CIEDE2000 by the
number of points, and how far a single point is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from gancolor import color, metrics
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError
from gancolor.hints import MOST, Hint
from gancolor.images.arrays import Picture

SEED = 1234
RADIUS = 3  # pixels around a point whose mean colour is told: 7 x 7
VISIBLE = 2.3  # CIE units of Lab: one just noticeable difference
KEYS = ("psnr", "ciede2000")

PROTOCOL = (
    f"true points: at places drawn evenly over the square (seed {SEED} and the picture's number),"
    f" alike for every run; each tells the mean colour of {2 * RADIUS + 1} x {2 * RADIUS + 1}"
    " pixels of the truth; reach: mean distance of the pixels that the first point changes by more"
    f" than {VISIBLE} CIE units, where there are such, in shares of the side"
)


def parse(text: str) -> tuple[int, ...]:
    """Numbers of points from '0,1,2,5', in rising order and each once. ConfigError otherwise."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [-1]
    if not counts or counts[0] < 0 or counts[-1] > MOST:
        raise ConfigError(
            f"--hints must be numbers of points up to {MOST} like 0,1,2,5,10, got {text!r}"
        )
    return tuple(counts)


def points_of(truth: Picture, number: int, count: int) -> list[Hint]:
    """The first `count` true points of picture `number`, uint8 (S, S, 3); fewer are the beginning
    of more.
    """
    height, width = truth.shape[:2]
    places = np.random.default_rng([SEED, number]).random((count, 2))
    hints = []
    for row, column in zip(
        (places[:, 0] * height).astype(int), (places[:, 1] * width).astype(int), strict=True
    ):
        rows = slice(max(0, row - RADIUS), row + RADIUS + 1)
        columns = slice(max(0, column - RADIUS), column + RADIUS + 1)
        red, green, blue = truth[rows, columns].reshape(-1, 3).mean(0).tolist()
        hints.append(Hint(float(column), float(row), (red, green, blue), RADIUS))
    return hints


@dataclass
class Gains:
    """One run's figures by number of points: `figures[count][key]`, one a picture; `reach`: of each
    picture or NaN.
    """

    figures: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    reach: list[float] = field(default_factory=list)

    def rows(self, run: str) -> list[dict[str, object]]:
        """A row for each number of points, with the means over the pictures."""
        known = [value for value in self.reach if np.isfinite(value)]
        rows = []
        for count, figures in self.figures.items():
            row: dict[str, object] = {"run": run, "points": count}
            row |= {key: float(np.mean(values)) for key, values in figures.items()}
            rows.append(row | {"reach": float(np.mean(known)) if count == 1 and known else None})
        return rows


def measure(
    colorizers: Mapping[str, Colorizer],
    counts: Sequence[int],
    gains: dict[str, Gains],
    number: int,
    full: Picture,
    truth: Picture,
) -> None:
    """Add picture `number` to the `gains` of the runs that take hints; `full` and `truth`: see
    `protocol.Square`.
    """
    points = points_of(truth, number, max(counts))
    true = _to_unit(truth)
    for name, colorizer in colorizers.items():
        if not colorizer.sight.hints:
            continue
        gain = gains.setdefault(name, Gains())
        colored: dict[int, Picture] = {}
        for count in counts:
            colored[count] = color_with(colorizer, full, truth, points[:count])
            figures = metrics.measure(_to_unit(colored[count]), true)
            for key in KEYS:
                gain.figures.setdefault(count, {}).setdefault(key, []).append(float(figures[key]))
        if 0 in colored and 1 in colored:
            gain.reach.append(_reach(colored[0], colored[1], points[0]))


def color_with(
    colorizer: Colorizer, full: Picture, truth: Picture, points: Sequence[Hint]
) -> Picture:
    """The square `truth` with the colours that a network gives `full`, the same at full size, and
    true points.
    """
    scale = full.shape[0] / truth.shape[0]
    in_full = [
        Hint(
            (p.x + 0.5) * scale - 0.5,
            (p.y + 0.5) * scale - 0.5,
            p.rgb,
            (p.radius + 0.5) * scale - 0.5,
        )
        for p in points
    ]
    return colorizer.paint(truth, colorizer.predict(full, hints=in_full), hints=points)


def _reach(without: Picture, with_one: Picture, point: Hint) -> float:
    first, second = (color.rgb_to_lab(_to_unit(rgb)) for rgb in (without, with_one))
    changed = (first - second).square().sum(1).sqrt()[0].numpy() > VISIBLE
    rows, columns = np.nonzero(changed)
    if not len(rows):
        return float("nan")
    return float(np.hypot(rows - point.y, columns - point.x).mean() / len(without))


def _to_unit(rgb: Picture) -> Tensor:
    """A picture, uint8 (H, W, 3), as (1, 3, H, W) in [0, 1]."""
    return color.to_tensor(rgb).contiguous().float() / 255
