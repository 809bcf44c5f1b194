"""What commands share: options, which runs are meant, names of the files they write, how many processes they may be."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import click

from gancolor.errors import ConfigError, DataError

runs_root_option = click.option("--runs-root", help="Where runs live (default: $GANCOLOR_RUNS, else ./runs).")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Of the networks.",
)
feature_weights_option = click.option(
    "--feature-weights",
    metavar="WEIGHTS",
    help="The VGG16 behind FD VGG16 and told apart: a file's or a run's path, imagenet (downloaded), or none to leave "
    "both out (default: the frozen one in the first run's checkpoint that holds one; nothing is downloaded).",
)


def find_models(models: Sequence[str], runs_root: str | None) -> list[Path]:
    """Directories of runs and files of other models, by what `choice.find` takes."""
    from gancolor import checkpoint, choice

    root = checkpoint.runs_root(runs_root)
    return [choice.find(model, root).path for model in models]


def free_png(stem: str, taken: set[str]) -> str:
    """STEM.png, or STEM-2.png and so on: the first that is not in `taken`, to which it is added."""
    name = f"{stem}.png"
    for number in itertools.count(2):
        if name not in taken:
            break
        name = f"{stem}-{number}.png"
    taken.add(name)
    return name


def make_folder(folder: Path) -> None:
    """Make the folder of --out. DataError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} must be a writable folder, got '{error.strerror}'; choose another with --out"
        ) from error


def leads() -> bool:
    """Whether this process speaks: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def refuse_torchrun(command: str) -> None:
    """ConfigError when torchrun started several processes: each would do all the work and write the same files."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise ConfigError(f"{command} must run in one process, got {world}; start it without torchrun")
