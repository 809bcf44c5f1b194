"""`gancolor data prepare`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor import fields
from gancolor.cli.data.bars import Bars, root_option
from gancolor.cli.options import options_of
from gancolor.cli.places import check_deadline, deadline_option, refuse_torchrun
from gancolor.cli.saying import say
from gancolor.data.doctor.rules import Rules
from gancolor.errors import DataError

if TYPE_CHECKING:
    from gancolor.data.doctor.preparing import Plan

# For each reason, the option that keeps such pictures, and its help.
_KEEP = {
    "gray": ("--keep-grayscale", "Keep black-and-white pictures."),
    "single-tone": ("--keep-single-tone", "Keep sepia and other toned pictures."),
    "blank": ("--keep-blank", "Keep pictures of one colour."),
    "small": ("--keep-small", "Keep small pictures."),
    "shape": ("--keep-shape", "Keep very long and very tall pictures."),
    "extension": ("--keep-extension", "Keep pictures under a wrong name."),
    "duplicate": ("--keep-duplicates", "Keep equal files."),
    "near-duplicate": ("--keep-near-duplicates", "Keep pictures that are nearly the same; they stay in one split."),
}


def _keep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for reason, (flag, words) in reversed(_KEEP.items()):
        function = click.option(flag, _keeps(reason), is_flag=True, help=words)(function)
    return function


def _keeps(reason: str) -> str:
    return f"keep_{reason}".replace("-", "_")


@click.command("prepare")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--name", required=True, help="What to call the set: the name of its folder under the datasets root.")
@root_option
@click.option(
    "--resize", type=click.IntRange(min=16), help="Copy the pictures, their shorter side reduced to N pixels."
)
@click.option("--against", multiple=True, help="Leave out what this set or folder has too. May be given several times.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(["hash", "folders"]),
    default="hash",
    show_default=True,
    help="By hash of the names, or by top folders named train, val (valid, validation) and test.",
)
@click.option(
    "--val", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True, help="Share for validation."
)
@click.option(
    "--test", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True, help="Share for test."
)
@click.option("--licence", default="", help="Under what terms the pictures may be used; kept with the set.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out names, or parts of paths, like this: '*-thumb.jpg', private. May be given several times.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes that read pictures (default: one per core).")
@deadline_option
@options_of(Rules)
@_keep_options
@click.option("--sheet", type=click.Path(path_type=Path), help="Where to put the sheet of examples, a PNG file.")
@click.pass_context
def command(context: click.Context, /, sources: tuple[str, ...], **chosen: Any) -> None:
    """Make a clean training set of any folders, archives (zip, tar) and lists (CSV).

    \b
    gancolor data prepare photos/ --name mine               which pictures, in datasets/mine/manifest.csv
    gancolor data prepare photos/ a.zip --name mine --resize 420    copies, small and upright
    gancolor data prepare datasets/mine --name mine         look through a set that is there
    gancolor data prepare new/ --name new --against mine    nothing that is in mine too
    gancolor train --dataset mine

    Leaves out broken, gray, toned, blank, small, long, doubled and wrongly named pictures. The sources are only read.
    A SOURCE may be the name of a set. Stopped in the middle, the same command goes on; later it reads only what is new.
    """
    refuse_torchrun("data prepare")
    check_deadline(context)
    from gancolor.data import catalog
    from gancolor.data.doctor import preparing
    from gancolor.data.doctor.entries import OTHER
    from gancolor.photographs import kinds

    rules = {name: chosen[name] for name in fields.declared(Rules) if chosen[name] is not None}
    keep = frozenset(reason for reason in _KEEP if chosen[_keeps(reason)])
    plan = preparing.Plan(
        name=chosen["name"],
        sources=sources,
        root=chosen["datasets_root"] or catalog.default_root(),
        rules=Rules(**rules, keep=keep),
        against=chosen["against"],
        resize=chosen["resize"],
        val=chosen["val"],
        test=chosen["test"],
        by_folder=chosen["splits"] == "folders",
        licence=chosen["licence"],
        sheet=chosen["sheet"],
        workers=chosen["workers"],
        deadline=chosen["deadline"],
        exclude=chosen["exclude"],
    )
    with Bars("picture") as bars:
        made = preparing.prepare(plan, bars.show)
    known = f", {made.tally.known:,} known from before" if made.tally.known else ""
    gone = f", {made.tally.gone:,} gone" if made.tally.gone else ""
    compared = f" ({made.decision.pictures:,} to prepare, {made.compared:,} of --against)" if made.compared else ""
    say(f"{_pictures(made.tally.new)} looked at{known}{gone}{compared}\n")
    say(made.table)
    for words, count in made.tally.others.items():
        passed = f", passed over: {kinds.passed_over(made.tally.passed)}" if words == OTHER else ""
        say(f"{count:,} {words}{passed if made.tally.passed else ''}")
    say()
    if made.copies:
        there = "was" if made.copies.kept == 1 else "were"
        say(f"{_pictures(made.copies.made)} copied to {made.folder}, {made.copies.kept:,} {there} there")
    if made.sheet:
        say(f"Examples of what was left out: {made.sheet}")
    say(f"All of them: {made.folder / 'manifest.csv'}")
    if not made.decision.kept:
        raise DataError(f"set must keep at least one picture, got all {made.decision.pictures} rejected; see the table")
    if made.decision.splits["train"]:
        say(f"Train on it: gancolor train --dataset {_dataset(plan)}")


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _dataset(plan: Plan) -> str:
    """What to write behind --dataset for the set: its name where that leads there, else its path."""
    from gancolor.data import catalog

    try:
        found = catalog.locate(plan.name)
    except DataError:
        found = None
    is_it = found is not None and os.path.realpath(found) == os.path.realpath(plan.folder)
    return shlex.quote(plan.name if is_it else str(plan.folder.absolute()))
