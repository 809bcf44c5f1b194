"""What drawing variants brings: best of k, how far they differ, and whether they pass for true.

    python benchmarks/variants.py general --dataset held-mixed --count 60 \\
        --feature-weights vgg16.pt --ways drawn gumbel shaken

Held-out pictures at the size of the network's view are coloured from their gray. Variant 1 is the
automatic colouring. A way to make others, a row each: `drawn` is gancolor's, with other settings by
`--diversities` and `--points`; the two others are what it replaced: `gumbel` adds noise to the
logits, alike all over the picture, and `shaken` shows the network the picture in another size, tone
and direction, with noise on its encoder's deeper features, and goes half as far again. `best of k`:
CIEDE2000 of the best of the first k; `others`: the mean of variants 2 to 8; `pairs`: mean CIEDE2000
of two of them; `told apart`: how often a linear classifier tells variant 2 from the true picture, in %,
and `of 1` the automatic colouring; `colorful`: of the others, in % of the truth's. Means of the
seeds, with half their range.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from train_step import describe_machine

from gancolor import color, metrics, tables
from gancolor.coloring import painting, sampling, views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Draw, View
from gancolor.data.dataset import open_source
from gancolor.evaluation import features
from gancolor.images import arrays
from gancolor.models import bins

VARIANTS = 8
BEST_OF = (1, 2, 4, 8)
SHOWN = 6  # variants on the sheet
Picture = NDArray[np.uint8]
Colors = NDArray[np.float32]
# Of a view, its automatic colours, a seed and the number of a variant.
Way = Callable[[View, Colors, int, int], Colors]


class Figures(NamedTuple):
    """Of the variants that a way and a seed make of one picture. `features`: of variant 2."""

    best: list[float]
    others: float
    pairs: float
    colorful: float
    shown: list[Picture]
    features: NDArray[np.float64] | None


class Measured(NamedTuple):
    """A picture: its colorfulness, itself and its features, and its automatic colouring's."""

    colorful: float
    truth: Picture
    features: list[NDArray[np.float64]]
    figures: dict[tuple[str, int], Figures]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    colorizer = Colorizer.load(options.run, device="cpu", precision=options.precision)
    seeing = features.find(options.feature_weights)
    looks = read(colorizer, options)
    print(f"{describe_machine()}\n{colorizer.name}, {len(looks)} pictures, seeds {options.seeds}\n")
    measured = []
    for view in looks:
        measured.append(measure(colorizer, view, options, seeing))
        if len(measured) == len(looks) or len(measured) % 20 == 0:
            print(f"after {len(measured)} pictures\n")
            print(tables.markdown(summarize(measured, options.seeds), digits=2), "\n", flush=True)
    if options.sheet:
        titles = ["truth", *map(str, range(1, SHOWN + 1))]
        for name, seed in measured[0].figures:
            shown = [[each.truth, *each.figures[name, seed].shown] for each in measured]
            path = f"{options.sheet}-{name.replace(' ', '-')}-{seed}.png"
            arrays.write_rgb(path, arrays.sheet(shown[: options.rows], titles))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="general, run directory or checkpoint")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--datasets-root")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--ways", nargs="+", default=["drawn"], choices=("drawn", "gumbel", "shaken")
    )
    parser.add_argument(
        "--diversities", type=float, nargs="+", default=[PhotographSettings.diversity]
    )
    parser.add_argument("--points", type=int, nargs="+", default=[sampling.POINTS])
    parser.add_argument("--feature-weights", default="none", help="VGG16's, for told apart")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", help="where to draw the variants: the beginning of a path")
    parser.add_argument("--rows", type=int, default=8, help="pictures on a sheet")
    return parser.parse_args()


def ways(colorizer: Colorizer, options: Any) -> Iterator[tuple[str, Way]]:
    for way in options.ways:
        if way != "drawn":
            yield way, gumbel(colorizer) if way == "gumbel" else shaken(colorizer)
            continue
        for points, diversity in itertools.product(options.points, options.diversities):
            name = f"drawn, {points} places, diversity {diversity:g}"
            yield name, drawn(colorizer, points, diversity)


def read(colorizer: Colorizer, options: Any) -> list[View]:
    """Pictures of the test split in a drawn order: fewer are the beginning of more."""
    source = open_source(
        options.dataset,
        "test",
        datasets_root=options.datasets_root,
        seed=colorizer.config.seed,
        image_size=256,
    )
    order = np.random.default_rng(0).permutation(len(source))[: options.count]
    return [views.look(colorizer.sight, source.read(number)) for number in order.tolist()]


def drawn(colorizer: Colorizer, points: int, diversity: float) -> Way:
    def colors(view: View, first: Colors, seed: int, number: int) -> Colors:
        sampling.POINTS = points
        wish = Draw(seed, number, diversity)
        return colorizer.predict_view(dataclasses.replace(view, draw=wish)).colors

    return colors


def gumbel(colorizer: Colorizer) -> Way:
    """Half of Gumbel's noise on the logits of each bin; those of similar colours (15 CIE units)
    share it.
    """
    grid = bins.centers() * color.AB_SCALE
    share = torch.exp(-torch.cdist(grid, grid).square() / (2 * 15**2))
    share /= share.square().sum(1, keepdim=True).sqrt()
    plain = bins.decode

    def colors(view: View, first: Colors, seed: int, number: int) -> Colors:
        random = torch.Generator().manual_seed(1000 * seed + number)
        uniform = torch.special.ndtr(share @ torch.randn(len(grid), generator=random))
        noise = -0.5 * (-uniform.clamp(1e-6, 1 - 1e-6).log()).log()
        bins.decode = lambda logits, t: plain(logits + noise[:, None, None], t)
        try:
            return colorizer.predict_view(view).colors
        finally:
            bins.decode = plain

    return colors


def shaken(colorizer: Colorizer) -> Way:
    def colors(view: View, first: Colors, seed: int, number: int) -> Colors:
        rng = np.random.default_rng([seed, number])
        scale, tone = np.exp(rng.uniform(-0.4, 0.4, 2)).tolist()
        height, width = view.rgb.shape[:2]
        sides = (max(16, round(height * scale)), max(16, round(width * scale)))
        flip = bool(rng.random() < 0.5)
        rgb = arrays.resize(view.rgb, sides)
        other = views.look(colorizer.sight, rgb, min(sides), flip=flip, tone=tone)
        with noisy(colorizer, int(rng.integers(2**31))):
            found = colorizer.predict_view(other).colors
        return first + 1.5 * (cv2.resize(found, (width, height)) - first)

    return colors


@contextmanager
def noisy(colorizer: Colorizer, seed: int) -> Iterator[None]:
    """One number for each feature of the encoder's deeper taps, of 1.5 of its deviations."""

    def shake(module: Any, given: Any, taps: list[torch.Tensor]) -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        noise = [torch.randn(1, tap.shape[1], 1, 1, generator=random) for tap in taps]
        spread = [tap.float().std((0, 2, 3), correction=0, keepdim=True) for tap in taps]
        return [
            tap if at < 2 else tap + (1.5 * spread[at] * noise[at]).to(tap.dtype)
            for at, tap in enumerate(taps)
        ]

    handle = colorizer.generator.encoder.register_forward_hook(shake)
    try:
        yield
    finally:
        handle.remove()


def measure(
    colorizer: Colorizer, view: View, options: Any, seeing: features.Seeing | str
) -> Measured:
    """The figures of all ways and seeds for one picture."""
    truth = np.ascontiguousarray(view.rgb)
    lab, first = lab_of(truth), colorizer.predict_view(view).colors
    automatic = paint(truth, first)
    figures = {}
    for (name, way), seed in itertools.product(ways(colorizer, options), options.seeds):
        answers = [way(view, first, seed, number) for number in range(1, VARIANTS)]
        pictures = [automatic, *(paint(truth, answer) for answer in answers)]
        labs = [lab_of(rgb) for rgb in pictures]
        errors = [distance(lab, each) for each in labs]
        figures[name, seed] = Figures(
            [min(errors[:k]) for k in BEST_OF],
            float(np.mean(errors[1:])),
            float(np.mean([distance(a, b) for a, b in itertools.combinations(labs[1:], 2)])),
            float(np.mean([colorfulness(rgb) for rgb in pictures[1:]])),
            pictures[:SHOWN],
            pool(seeing, pictures[1]) if isinstance(seeing, features.Seeing) else None,
        )
    seen = [pool(seeing, rgb) for rgb in (truth, automatic)] if not isinstance(seeing, str) else []
    return Measured(colorfulness(truth), truth, seen, figures)


def summarize(measured: list[Measured], seeds: list[int]) -> list[dict[str, object]]:
    rows = []
    true = float(np.mean([each.colorful for each in measured]))
    for name in dict.fromkeys(way for way, _ in measured[0].figures):
        found: dict[str, list[float]] = {}
        for seed in seeds:
            parts = [each.figures[name, seed] for each in measured]
            best = np.mean([part.best for part in parts], axis=0).tolist()
            row = {f"best of {k}": value for k, value in zip(BEST_OF, best, strict=True)}
            row |= {key: mean_of(parts, key) for key in ("others", "pairs")}
            if measured[0].features and len(measured) >= features.FEWEST:
                known = [np.stack([each.features[at] for each in measured]) for at in (0, 1)]
                second = np.stack([part.features for part in parts if part.features is not None])
                row |= {"told apart": apart(known[0], second), "of 1": apart(*known)}
            row["colorful"] = 100 * mean_of(parts, "colorful") / true
            for key, value in row.items():
                found.setdefault(key, []).append(value)
        told = {
            key: f"{np.mean(values):.2f} ± {np.ptp(values) / 2:.2f}"
            if np.ptp(values)
            else f"{values[0]:.2f}"
            for key, values in found.items()
        }
        rows.append({"variants": name, **told})
    return rows


def mean_of(parts: list[Figures], key: str) -> float:
    return float(np.mean([getattr(part, key) for part in parts]))


def paint(truth: Picture, answer: Colors) -> Picture:
    return painting.paint(truth, answer, method="bilinear")


def apart(true: NDArray[np.float64], colored: NDArray[np.float64]) -> float:
    both = [features.standardize(each, true) for each in (true, colored)]
    return 100 * float(features.told_apart(*both).mean())


@torch.inference_mode()
def pool(seeing: features.Seeing, rgb: Picture) -> NDArray[np.float64]:
    return features.pool(seeing.network, color.to_tensor(rgb))[0].double().numpy()


def lab_of(rgb: Picture) -> torch.Tensor:
    return color.rgb_to_lab(color.to_tensor(rgb))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(metrics.ciede2000(one, other).mean())


def colorfulness(rgb: Picture) -> float:
    return float(metrics.colorfulness(color.to_tensor(rgb).float() / 255)[0])


if __name__ == "__main__":
    main()
