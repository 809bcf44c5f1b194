"""What the choices of gancolor's colouring cost and bring: `--temperature`, `--size`,
`--consensus`, `--show-confidence`. Variants: `variants.py`.

    python benchmarks/coloring.py RUN [--count 40] [--dataset SET] [--sheet FILE.png]

Held-out pictures of the run's set (or of another) are coloured from their gray and compared with
their own colours at full size: CIEDE2000, colorfulness (the truth's in the title), spreads of a*
and b* as shares of the truth's. `+-` is the standard error of the difference to the first row. A
minute or two on one core for each table.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color, metrics, tables
from gancolor.coloring import full_size, views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import Colored
from gancolor.coloring.settings import PhotographSettings
from gancolor.data.dataset import open_source
from gancolor.images import arrays
from gancolor.images.photograph import Photograph

FACTORS = (1.0, 0.5, 0.75, 1.25, 1.5, 2.0)
VIEWS = (1, 2, 3, 4, 6, 8, 12)
TEMPERATURES = (0.38, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SHOWN = 4  # variants on the sheet
Picture = NDArray[np.uint8]


@dataclass
class Truth:
    """A picture as it is: uint8 (H, W, 3) and its CIE Lab."""

    rgb: Picture
    lab: torch.Tensor

    @property
    def gray(self) -> Photograph:
        """What is given to be coloured."""
        lightness = (self.lab[:, :1] / color.LIGHTNESS_SCALE) - 1
        gray = (color.gray(lightness)[0, 0] * 65535).round().numpy().astype(np.uint16)
        return Photograph(pixels=gray)


def main() -> None:
    options = parse_options()
    colorizer = Colorizer.load(options.run, device=options.device, precision=options.precision)
    truths = read(colorizer, options)
    colorful = np.mean([colorfulness(truth.rgb) for truth in truths])
    print(
        f"{colorizer.name}, {len(truths)} held-out pictures, true colorfulness {colorful:.1f};"
        f" {colorizer.device}\n"
    )
    if colorizer.sight.distribution:
        report(
            "temperature",
            {f"{k:g}": PhotographSettings(temperature=k) for k in TEMPERATURES},
            colorizer,
            truths,
        )
    report(
        "size",
        {f"{k:g} x {colorizer.sight.size} px": size_of(colorizer, k) for k in FACTORS},
        colorizer,
        truths,
    )
    report(
        "consensus",
        {f"{k} views": PhotographSettings(consensus=k) for k in VIEWS},
        colorizer,
        truths,
    )
    report_confidence(colorizer, truths)
    if options.sheet:
        write_sheet(options.sheet, colorizer, truths[: options.rows])


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run directory or checkpoint")
    parser.add_argument(
        "--count", type=int, default=40, help="pictures, evenly spread over the split"
    )
    parser.add_argument("--dataset", help="another set or folder than the run's")
    parser.add_argument("--datasets-root", help="where named sets live")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sheet", type=Path, help="where to draw truth, variants and confidence")
    parser.add_argument("--rows", type=int, default=8, help="pictures on the sheet")
    return parser.parse_args()


def read(colorizer: Colorizer, options: Any) -> list[Truth]:
    config = colorizer.config
    source = open_source(
        options.dataset or config.dataset,
        options.split,
        datasets_root=options.datasets_root or config.datasets_root,
        seed=config.seed,
        image_size=256,
    )
    count = min(options.count, len(source))
    pictures = [source.read(k * len(source) // count) for k in range(count)]
    return [Truth(rgb, lab_of(rgb)) for rgb in pictures]


def size_of(colorizer: Colorizer, factor: float) -> PhotographSettings:
    return PhotographSettings(size=max(16, round(colorizer.sight.size * factor)))


def report(
    title: str, looks: dict[str, PhotographSettings], colorizer: Colorizer, truths: list[Truth]
) -> None:
    rows: list[dict[str, object]] = []
    base = None
    for name, look in looks.items():
        start = time.perf_counter()
        results = [colorizer.color(truth.gray, look).pictures[0] for truth in truths]
        seconds = (time.perf_counter() - start) / len(truths)
        errors = np.array(
            [error(to_bytes(rgb), truth) for rgb, truth in zip(results, truths, strict=True)]
        )
        base = errors if base is None else base
        painted = torch.cat([lab_of(to_bytes(rgb)).flatten(2) for rgb in results], 2)
        spread = painted[0, 1:].std(1) / torch.cat([truth.lab.flatten(2) for truth in truths], 2)[
            0, 1:
        ].std(1)
        rows.append(
            {
                title: name,
                "CIEDE2000": errors.mean(),
                "to the first": (errors - base).mean(),
                "+-": (errors - base).std() / len(errors) ** 0.5,
                "colorfulness": np.mean([colorfulness(to_bytes(rgb)) for rgb in results]),
                "spread a*": float(spread[0]),
                "spread b*": float(spread[1]),
                "s": seconds,
            }
        )
    print(tables.markdown(rows, digits=3), "\n")


def report_confidence(colorizer: Colorizer, truths: list[Truth]) -> None:
    """Rank correlation of confidence with the error, in pictures and between them, and the error by
    confidence.
    """
    report_way("confidence", colorizer.color, truths)
    if colorizer.sight.distribution:
        sight = dataclasses.replace(colorizer.sight, distribution=False)

        def agree(photograph: Photograph, look: PhotographSettings) -> Colored:
            return full_size.color(
                photograph,
                look,
                sight,
                lambda view: colorizer.predict_view(view)._replace(confidence=None),
            )

        report_way(
            "confidence by agreement of views, as of networks without a distribution", agree, truths
        )


def report_way(
    title: str, way: Callable[[Photograph, PhotographSettings], Colored], truths: list[Truth]
) -> None:
    inside, means, pairs = [], [], []
    for truth in truths:
        colored = way(truth.gray, PhotographSettings(confidence=True))
        assert colored.confidence is not None
        wrong = metrics.ciede2000(lab_of(to_bytes(colored.pictures[0])), truth.lab)[0].numpy()
        size = colored.size[::-1]
        sure = cv2.resize(
            colored.confidence.astype(np.float32), size, interpolation=cv2.INTER_AREA
        ).ravel()
        wrong = cv2.resize(wrong, size, interpolation=cv2.INTER_AREA).ravel()
        inside.append(correlate(-sure, wrong))
        means.append((sure.mean(), wrong.mean()))
        pairs.append(np.stack((sure, wrong)))
    sure, wrong = np.concatenate(pairs, axis=1)
    sure_ones, wrong_ones = np.array(means).T
    print(
        f"{title}: rank correlation with CIEDE2000 {np.mean(inside):.2f} within pictures,"
        f" {correlate(-sure_ones, wrong_ones):.2f} between pictures, {correlate(-sure, wrong):.2f}"
        " of all pixels\n"
    )
    order = np.array_split(np.argsort(sure), 5)
    rows = [
        {
            "confidence": f"{sure[part].min():.0f} to {sure[part].max():.0f}",
            "CIEDE2000": float(wrong[part].mean()),
        }
        for part in order
    ]
    print(tables.markdown(rows, digits=2), "\n")


def write_sheet(path: Path, colorizer: Colorizer, truths: list[Truth]) -> None:
    rows = []
    for truth in truths:
        colored = colorizer.color(truth.gray, PhotographSettings(variants=SHOWN, confidence=True))
        assert colored.confidence is not None
        agreed = colorizer.color(truth.gray, PhotographSettings(consensus=8)).pictures[0]
        shown = [truth.rgb, *colored.pictures, agreed]
        rows.append(
            [*(to_bytes(rgb) for rgb in shown), np.repeat(colored.confidence[..., None], 3, axis=2)]
        )
    titles = ["truth", *(f"variant {k + 1}" for k in range(SHOWN)), "8 views", "confidence"]
    arrays.write_rgb(path, arrays.sheet(rows, titles))


def correlate(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's rank correlation (ties in order of appearance)."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def to_bytes(rgb: NDArray[Any]) -> Picture:
    return views.to_bytes(rgb)


def lab_of(rgb: Picture) -> torch.Tensor:
    return color.rgb_to_lab(torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None])


def error(rgb: Picture, truth: Truth) -> float:
    return float(metrics.ciede2000(lab_of(rgb), truth.lab).mean())


def colorfulness(rgb: Picture) -> float:
    return float(
        metrics.colorfulness(torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None] / 255)[0]
    )


if __name__ == "__main__":
    main()
