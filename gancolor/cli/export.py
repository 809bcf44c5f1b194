"""`gancolor export` and `gancolor average`: models as one file to take elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from gancolor.cli.options import refuse_torchrun, runs_root_option, say


@click.command("average")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@runs_root_option
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The file to write, .safetensors."
)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Of the weights in the file.",
)
def average_command(
    runs: tuple[str, ...], runs_root: str | None, out: Path, precision: str
) -> None:
    """Write the mean of several runs' weights as one model.

    \b
    gancolor average 7 8 --out mean.safetensors

    It makes sense for runs that began from the same weights (--init) and only trained on from there. Of other runs it
    is a network that knows nothing: `gancolor sample --run 7 --run 8` takes the mean of what they say instead.
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
    help="Of the file (default: by --out's suffix, .safetensors or .onnx).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="A Markdown file about the model, to go into the file (default: the run's card.md).",
)
@click.option(
    "--name", help="Of the model, as `gancolor sample` will call it (default: the run's)."
)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    help="Of the weights in the file (default: fp16 in safetensors, fp32 in ONNX).",
)
@click.option(
    "--hints/--no-hints",
    default=None,
    help="Of ONNX: have an input for known colours, or none (default: if the run takes them).",
)
@click.option(
    "--saturation",
    type=click.FloatRange(0.5, 2),
    help="Factor of the model's colours, kept in the file (default: the run's).",
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
    gancolor export 7 --out model.safetensors    for colouring here and as a start of trainings (--init)
    gancolor export 7 --out model.onnx           for onnxruntime, in this program and in any other

    RUN is a path, a name or a number, or another model as --run takes it. Its settings, version and card go into the
    file; folders of this machine are left out. An ONNX graph is compared with torch before it gets its name. ONNX needs
    the extra 'onnx'.
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
