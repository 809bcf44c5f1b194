"""What the mean of several networks brings: each run alone, the mean of what they say, the mean of
their weights.

    python benchmarks/averaging.py RUN RUN... [--count 100] [--dataset SET] [--weights]

Held-out pictures of the first run's set (or of another) are coloured from their gray and compared
with their own colours at full size: CIEDE2000, colorfulness (the truth's in the title), spreads of
a* and b* as shares of the truth's. `+-` is the standard error of the difference to the first run.
`--weights` adds the mean of the weights, which only says something about runs that began from the
same ones (--init).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coloring import Truth, colorfulness, error, lab_of, read, to_bytes

from gancolor import interchange, tables
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.settings import PhotographSettings
from gancolor.hub import choice
from gancolor.storage import checkpoint


def main() -> None:
    options = parse_options()
    root = checkpoint.runs_root()
    models = [choice.find(run, root) for run in options.runs]
    how = {"device": options.device, "precision": options.precision}
    alone = [Colorizer.load(model.path, **how) for model in models]
    named = [(colorizer.name, colorizer) for colorizer in alone]
    named.append(("mean of what they say", Colorizer.mean(alone)))
    if options.weights:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mean.safetensors"
            interchange.average(models, path, precision="fp32")
            named.append(("mean of the weights", Colorizer.load(path, **how)))
    truths = read(alone[0], options)
    colorful = np.mean([colorfulness(truth.rgb) for truth in truths])
    print(f"{len(truths)} held-out pictures, true colorfulness {colorful:.1f}; {alone[0].device}\n")
    base = None
    rows: list[dict[str, object]] = []
    for name, colorizer in named:
        row, errors = measure(colorizer, truths)
        base = errors if base is None else base
        apart = errors - base
        rows.append(
            {
                "model": name,
                **row,
                "to the first": apart.mean(),
                "+-": apart.std() / len(apart) ** 0.5,
            }
        )
    print(tables.markdown(rows, digits=3))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two or more, as --run takes them")
    parser.add_argument(
        "--count", type=int, default=100, help="pictures, evenly spread over the split"
    )
    parser.add_argument("--dataset", help="another set or folder than the first run's")
    parser.add_argument("--datasets-root", help="where named sets live")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--weights", action="store_true", help="measure the mean of the weights too"
    )
    options = parser.parse_args()
    if len(options.runs) < 2:
        parser.error("two or more runs are needed")
    return options


def measure(colorizer: Colorizer, truths: list[Truth]) -> tuple[dict[str, object], Any]:
    """Figures of a colorizer, and its error of each picture."""
    start = time.perf_counter()
    results = [
        to_bytes(colorizer.color(truth.gray, PhotographSettings()).pictures[0]) for truth in truths
    ]
    seconds = (time.perf_counter() - start) / len(truths)
    errors = np.array([error(rgb, truth) for rgb, truth in zip(results, truths, strict=True)])
    painted = torch.cat([lab_of(rgb).flatten(2) for rgb in results], 2)
    spread = painted[0, 1:].std(1) / torch.cat([truth.lab.flatten(2) for truth in truths], 2)[
        0, 1:
    ].std(1)
    row: dict[str, object] = {
        "CIEDE2000": errors.mean(),
        "colorfulness": np.mean([colorfulness(rgb) for rgb in results]),
        "spread a*": float(spread[0]),
        "spread b*": float(spread[1]),
        "s": seconds,
    }
    return row, errors


if __name__ == "__main__":
    main()
