"""`gancolor reproduce`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gancolor.cli.options import feature_weights_option, given_settings, say, training_options
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
            option.help = (
                "A set's name or a folder instead of the paper's; several times for the poster."
            )
        elif option.name in ("lr", "beta1", "embedding"):
            option.help = f"{option.help} For rows that vary it: only those rows."
    return function


@click.command("reproduce")
@click.argument("paper", type=click.Choice(list(PAPERS)))
@_row_options
@click.option(
    "--backbone-weights",
    "weights",
    multiple=True,
    metavar="[NAME=]WEIGHTS",
    help=(
        "Of the frozen network (of NAME: vgg16, vgg19, vggface or inception-resnet-v2): imagenet"
        " (downloaded), none (random), or a file's path. May be given several times."
    ),
)
@feature_weights_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the runs (default: reproduce-PAPER among them).",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="Few steps at 64 pixels on still-life: shows in minutes that all runs.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be trained and what is there already; do nothing.",
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
    """Train the rows of a PAPER's table one after another and print our figures beside the paper's.

    \b
    gancolor reproduce poster                              learning rate x beta1, on natural and food: 8 runs
    gancolor reproduce poster --dataset food --lr 2e-3     one of them
    gancolor reproduce portrait --time-limit 20m           three embeddings, 20 minutes each
    gancolor reproduce portrait --backbone-weights vggface=vgg_face.pth --backbone-weights vgg19=none
    gancolor reproduce koalarization --smoke               does everything run?

    Each row is an ordinary run in the folder. The same command goes on after Ctrl-C: what is trained stays. Then
    every row is measured on the test split; table.md, table.csv and table.jsonl keep the table.
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
