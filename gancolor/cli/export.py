"""`gancolor export`."""

from __future__ import annotations

from pathlib import Path

import click

from gancolor.cli.places import refuse_torchrun, runs_root_option
from gancolor.cli.saying import say


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
@click.option("--name", help="Of the model, as `gancolor sample` will call it (default: the run's).")
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
def command(
    run: str,
    runs_root: str | None,
    kind: str | None,
    out: Path,
    card: Path | None,
    name: str | None,
    precision: str | None,
    hints: bool | None,
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
    from gancolor import checkpoint, choice, exporting

    model = choice.find(run, checkpoint.runs_root(runs_root))
    written = exporting.export(model, out, format=kind, precision=precision, card=card, name=name, hints=hints)
    line = f"{out}: {written.size / 2**20:.1f} MiB, {written.format}, weights in {written.precision}"
    if written.difference is not None:
        line += f"; at three sizes at most {written.difference:.1g} from torch's colours and probabilities"
    say(line)
