"""What a factor of a model's colours (`export --saturation`), and the temperature at which it makes
colours of probabilities (`--temperature`), cost and bring on held-out pictures.

    python benchmarks/saturation.py RUN [RUN ...] --dataset general --limit 400

For each run, temperature and factor: CIEDE2000 (beside the gray picture's), colorfulness, spread of a*, and the
score that `best.pt` is chosen by. With several runs also the mean of their colours. All networks
see centre squares of `--size` pixels; a run's own factor is counted in, and without `--temperatures`
its own temperature is taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from gancolor import color, metrics, tables
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.dataset import open_source
from gancolor.hub import choice
from gancolor.images import arrays
from gancolor.storage import checkpoint
from gancolor.training import validation


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--datasets-root", type=Path)
    parser.add_argument("--runs-root")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.15, 1.3, 1.45, 1.6])
    parser.add_argument("--only", nargs="+", help="parts of the names of the pictures to measure")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[None])
    options = parser.parse_args()

    source = open_source(options.dataset, options.split, datasets_root=options.datasets_root)
    places = [
        place
        for place in range(len(source))
        if not options.only or any(words in source.name(place) for words in options.only)
    ]
    count = min(options.limit, len(places))
    squares = [
        arrays.center_square(source.read(places[at * len(places) // count]), options.size)
        for at in range(count)
    ]
    truth = torch.cat([color.to_tensor(square) for square in squares]).float() / 255
    lightness, _ = color.split(truth)
    gray = metrics.summarize([metrics.measure(metrics.gray_picture(truth), truth)])
    print(f"{count} pictures, gray: CIEDE2000 {gray['ciede2000']:.2f}")

    root = checkpoint.runs_root(options.runs_root)
    predicted = {}
    for run in options.runs:
        colorizer = Colorizer.load(choice.find(run, root).path, precision="fp32")
        for temperature in options.temperatures:
            if temperature is not None:
                colorizer.generator.temperature = temperature
            colors = np.stack([colorizer.predict(square, options.size) for square in squares])
            predicted[run, temperature or colorizer.config.temperature] = torch.from_numpy(
                colors
            ).permute(0, 3, 1, 2)
    if len(options.runs) > 1 and len(options.temperatures) == 1:
        predicted["mean", next(iter(predicted))[1]] = torch.stack(list(predicted.values())).mean(0)
    rows = []
    for (run, temperature), ab in predicted.items():
        for factor in options.factors:
            colored = color.merge_in_gamut(lightness, ab * factor)
            found = metrics.summarize([metrics.measure(colored, truth)])
            rows.append(
                {
                    "run": run,
                    "temperature": temperature,
                    "factor": factor,
                    "CIEDE2000": found["ciede2000"],
                    "colorfulness, %": 100 * found["colorfulness"] / found["colorfulness_truth"],
                    "spread a*": found["spread_a"],
                    "score": validation.score(found),
                }
            )
    print(tables.terminal(rows, digits=2))


if __name__ == "__main__":
    main()
