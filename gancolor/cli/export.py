"""`gancolor export` and `gancolor average`: models as one file to take elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from gancolor.cli.options import refuse_torchrun, runs_root_option, say


@click.command("average")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@runs_root_option
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The .safetensors file to write."
)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Number format of the weights in the file.",
)
def average_command(
    runs: tuple[str, ...], runs_root: str | None, out: Path, precision: str
) -> None:
    """Write the mean of several runs' weights as one model.

    \b
    gancolor average 7 8 --out mean.safetensors

    This makes sense for runs that started from the same weights (--init). The mean of other runs' weights colours
    nothing; for those, `gancolor sample --run 7 --run 8` takes the mean of the colours that they predict.
    """
    refuse_torchrun("gancolor average")
    from gancolor import interchange
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    root = checkpoint.runs_root(runs_root)
    written = interchange.average(
        [choice.find(run, root) for run in runs], out, precision=precision
    )
    say(
        f"{out}: {written.size / 2**20:.1f} MiB, the mean of {len(runs)} models, weights in"
        f" {precision}"
    )


@click.command("export")
@click.argument("run")
@runs_root_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["safetensors", "onnx"]),
    help="Format of the file (default: as the suffix of --out says).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="Description of the model, a Markdown file, that goes into the file (default: the run's card.md).",
)
@click.option(
    "--name", help="Name by which gancolor sample will call the model (default: the run's)."
)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    help="Number format of the weights in the file (default: fp16 in safetensors, fp32 in ONNX).",
)
@click.option(
    "--hints/--no-hints",
    default=None,
    help="ONNX only: give the graph an input for known colours (default: if the run takes them).",
)
@click.option(
    "--saturation",
    type=click.FloatRange(0.5, 2),
    help="Factor by which the model multiplies its colours; the file keeps it (default: the run's).",
)
def command(
    run: str,
    runs_root: str | None,
    kind: str | None,
    out: Path,
    card: Path | None,
    name: str | None,
    precision: str | None,
    hints: bool | None,
    saturation: float | None,
) -> None:
    """Write a model as one file that can be taken elsewhere.

    \b
    gancolor export 7 --out model.safetensors    to colour with gancolor, and to start trainings from (--init)
    gancolor export 7 --out model.onnx           to colour with onnxruntime, in gancolor or another program

    RUN is the path, name or number of a run, or another model as --run takes it. Its settings, version and card go into
    the file; names of folders of this machine are left out. An ONNX graph is only written if it predicts the same
    colours as torch. ONNX needs the extra 'onnx'.
    """
    refuse_torchrun("gancolor export")
    from gancolor import interchange
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    model = choice.find(run, checkpoint.runs_root(runs_root))
    written = interchange.export(
        model,
        out,
        format=kind,
        precision=precision,
        card=card,
        name=name,
        hints=hints,
        saturation=saturation,
    )
    line = (
        f"{out}: {written.size / 2**20:.1f} MiB, {written.format}, weights in {written.precision}"
    )
    if written.difference is not None:
        line += (
            f"; at three sizes at most {written.difference:.1g} from torch's colours and"
            " probabilities"
        )
    say(line)
