"""`gancolor average`."""

from __future__ import annotations

from pathlib import Path

import click

from gancolor.cli.places import refuse_torchrun, runs_root_option
from gancolor.cli.saying import say


@click.command("average")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@runs_root_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write, .safetensors.")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Of the weights in the file.",
)
def command(runs: tuple[str, ...], runs_root: str | None, out: Path, precision: str) -> None:
    """Write the mean of several runs' weights as one model.

    \b
    gancolor average 7 8 --out mean.safetensors

    It makes sense for runs that began from the same weights (--init) and only trained on from there. Of other runs it
    is a network that knows nothing: `gancolor sample --run 7 --run 8` takes the mean of what they say instead.
    """
    refuse_torchrun("gancolor average")
    from gancolor import checkpoint, choice, exporting

    root = checkpoint.runs_root(runs_root)
    written = exporting.average([choice.find(run, root) for run in runs], out, precision=precision)
    say(f"{out}: {written.size / 2**20:.1f} MiB, the mean of {len(runs)} models, weights in {precision}")
