"""What `make demo` shows: photographs in the public domain coloured by `general`, and what
fine-tuning changes.

python docs/demo.py photographs     gray, coloured and original, one below the other
python docs/demo.py tuned RUN       generated pictures as RUN never saw them: before, after and original

The photographs come with scikit-image: Eileen Collins (NASA, public domain), and a cat, a cup of
coffee, a rocket, a photographer and grass, which their authors gave to everybody (CC0). The last
two are black and white.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import Colorizer, metrics, tables
from gancolor.data.still_life.composition import StillLife
from gancolor.errors import GancolorError
from gancolor.images import arrays
from gancolor.storage import checkpoint

Picture = NDArray[np.uint8]

COLORED = ("astronaut", "chelsea", "coffee", "rocket")
BLACK_AND_WHITE = ("camera", "grass")
SIDE = 256  # pixels: of a cell of the sheets
GENERATED = 8


def photograph(name: str) -> Picture:
    """The middle of a photograph of scikit-image, uint8 RGB (SIDE, SIDE, 3)."""
    from skimage import data  # heavy

    pixels = np.asarray(getattr(data, name)(), np.uint8)
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    return arrays.center_square(np.ascontiguousarray(rgb), SIDE)


def figures(truth: Sequence[Picture], painted: Sequence[Picture]) -> dict[str, float]:
    """`metrics.KEYS` of pictures against the true ones."""
    return metrics.summarize(
        metrics.measure(_tensor(ours), _tensor(own))
        for own, ours in zip(truth, painted, strict=True)
    )


def table(painted: dict[str, list[Picture]], truth: Sequence[Picture]) -> str:
    """The error and the colour of pictures by what made them, as text."""
    rows = []
    for name, pictures in painted.items():
        found = figures(truth, pictures)
        share = 100 * found["colorfulness"] / found["colorfulness_truth"]
        rows.append(
            {"": name, "CIEDE2000": found["ciede2000"], "colorfulness, % of the truth's": share}
        )
    return tables.terminal(rows, digits=1)


@click.group()
def cli() -> None:
    """Sheets and figures for `make demo`."""


@cli.command("photographs")
@click.option(
    "--run",
    default="general",
    show_default=True,
    help="The model that colours: a name, run or file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The sheet (default: demo-photographs.jpg among the runs).",
)
def show_photographs(run: str, out: Path | None) -> None:
    """Colour photographs in the public domain."""
    colorizer = Colorizer.load(run)
    truth, old = ([photograph(name) for name in names] for names in (COLORED, BLACK_AND_WHITE))
    colored = [colorizer(picture) for picture in (*truth, *old)]
    gray = [colorizer.seen(picture) for picture in truth]
    print(table({"gray": gray, colorizer.name: colored[: len(truth)]}, truth))
    _write(
        out, "demo-photographs.jpg", [[*gray, *old], colored, truth], [*COLORED, *BLACK_AND_WHITE]
    )
    print("from above: gray, coloured, original; the last two were always black and white")


@cli.command("tuned")
@click.argument("run")
@click.option(
    "--before", default="general", show_default=True, help="The model that RUN started from."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The sheet (default: RUNS/demo-tuned.jpg)."
)
def show_tuned(run: str, before: str, out: Path | None) -> None:
    """Show what fine-tuning on generated pictures changed, on pictures that RUN never saw."""
    after = Colorizer.load(checkpoint.find_run(run, checkpoint.runs_root()))
    first = Colorizer.load(before)
    source = StillLife(after.config.seed, "test", SIDE, GENERATED)
    truth = [source.read(index) for index in range(len(source))]
    rows = {"gray": [first.seen(picture) for picture in truth]}
    rows |= {model.name: [model(picture) for picture in truth] for model in (first, after)}
    print(table(rows, truth))
    _write(out, "demo-tuned.jpg", [*rows.values(), truth], None)
    print("from above: gray, before, after, original")


def _write(
    out: Path | None, name: str, rows: list[list[Picture]], titles: Sequence[str] | None
) -> None:
    out = out or checkpoint.runs_root() / name
    out.parent.mkdir(parents=True, exist_ok=True)
    arrays.write_rgb(out, arrays.sheet(rows, titles), quality=88)
    print(f"look at {out}")


def _tensor(rgb: Picture) -> Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W) in [0, 1]


if __name__ == "__main__":
    try:
        cli()
    except GancolorError as error:
        sys.exit(f"Error: {error}")
