"""`gancolor reproduce`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gancolor.cli.options import (
    TRAINING_SECTIONS,
    SectionedCommand,
    feature_weights_option,
    given_settings,
    say,
    training_options,
)
from gancolor.config import EMBEDDINGS
from gancolor.errors import ConfigError
from gancolor.papers import PAPERS

# the papers' rows decide these, or an option below
_FIXED = {
    "preset",
    "name",
    "network",
    "backbone_weights",
}
_SECTIONS = {"weights": "The table"}
# The command is not repeated: of one that torchrun started, this process knows only a part.
_GO_ON = "stopped by a signal, what is trained is kept; go on with the same command as before"


def _row_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `gancolor train`, but for those that the rows decide; --dataset may be given
    several times.
    """
    function = training_options(function)
    options: list[click.Option] = function.__click_params__  # type: ignore[attr-defined]
    options[:] = [option for option in options if option.name not in _FIXED]
    for option in options:
        if option.name == "dataset":
            option.multiple = True
            option.help = "A set or folder to train on instead of the paper's. The poster's table takes several."
        elif option.name in ("lr", "beta1", "embedding"):
            option.help = f"{option.help} Where the rows differ in it, only the rows with this value are trained."
    return function


@click.command("reproduce", cls=SectionedCommand, sections=TRAINING_SECTIONS | _SECTIONS)
@click.argument("paper", type=click.Choice(list(PAPERS)))
@_row_options
@click.option(
    "--backbone-weights",
    "weights",
    multiple=True,
    metavar="[NAME=]WEIGHTS",
    help=(
        "Weights of the frozen networks, or only of the one with this NAME (vgg16, vgg19, vggface,"
        " inception-resnet-v2): imagenet (downloaded once), none (random), or the path of a file."
        " May be given several times."
    ),
)
@feature_weights_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the paper's runs and its table (default: reproduce-PAPER in the folder of the runs).",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="A try: a few steps at 64 pixels on still-life show in minutes whether everything runs.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be trained and what is there already; train nothing.",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    paper: str,
    weights: tuple[str, ...],
    feature_weights: str | None,
    out: Path | None,
    smoke: bool,
    dry_run: bool,
    **_: Any,
) -> None:
    """Train what the table of a PAPER compares, one row after another, and print our figures beside the paper's.

    \b
    gancolor reproduce koalarization --smoke               try whether everything runs, in minutes
    gancolor reproduce poster                              learning rates and beta1, on natural and food: 8 runs
    gancolor reproduce poster --dataset food --lr 2e-3     one of them: on this set, with this learning rate
    gancolor reproduce portrait --time-limit 20m           three embeddings, 20 minutes each
    gancolor reproduce portrait --backbone-weights vggface=vgg_face.pth --backbone-weights vgg19=none

    Each row is an ordinary run in the folder of --out. After Ctrl-C the same command goes on with what is not yet
    trained. At the end every row is measured on the test split, and the table is written to table.md, table.csv and
    table.jsonl.
    """
    from gancolor.papers import reproduction, tasks
    from gancolor.training import Interrupted

    given: dict[str, Any] = {
        "overrides": given_settings(context),
        "weights": parse_weights(weights),
        "out": out or tasks.default_out(paper, smoke),
        "smoke": smoke,
    }
    if dry_run:
        rows = tasks.plan(paper, **given)
        tasks.check_weights(rows, download=False)
        say(tasks.describe(rows))
        return
    try:
        table = reproduction.reproduce(paper, **given, feature_weights=feature_weights)
    except Interrupted as stop:
        if reproduction.leads():
            say(_GO_ON, err=True)
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:  # before, between and after the trainings
        if reproduction.leads():
            say(_GO_ON, err=True)
        sys.exit(128 + signal.SIGINT)
    if table is not None:
        say(table)
        say(f"\nwritten to {given['out']}: table.md, table.csv, table.jsonl")


def parse_weights(values: tuple[str, ...]) -> dict[str, str]:
    """Weights by network, "" for all that are not named. ConfigError for a name that is none, or
    named twice.
    """
    chosen: dict[str, str] = {}
    for value in values:
        name, sign, weights = value.partition("=")
        if not sign or (name not in EMBEDDINGS and Path(value).exists()):  # a path may hold a "="
            name, weights = "", value
        elif name not in EMBEDDINGS:
            raise ConfigError(
                f"--backbone-weights must name one of {', '.join(EMBEDDINGS)} before '=', got"
                f" {name}"
            )
        if not weights:
            raise ConfigError(
                f"--backbone-weights must be imagenet, none or a file's path, got {value!r}"
            )
        if name in chosen:
            of = f"for {name}" if name else "for all networks"
            raise ConfigError(
                f"--backbone-weights must be given once {of}, got {chosen[name]} and {weights}"
            )
        chosen[name] = weights
    return chosen
