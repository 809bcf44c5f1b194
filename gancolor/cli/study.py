"""`gancolor study`: a page on which people say what is real, and what their answers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gancolor import tables
from gancolor.cli.options import (
    device_option,
    find_models,
    precision_option,
    refuse_torchrun,
    runs_root_option,
    say,
)
from gancolor.errors import ConfigError, DataError, shown


@click.group("study", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Ask people whether they take coloured pictures for real ones.

    \b
    gancolor study make 7 general --dataset food --out study.html   one page with all its pictures inside
    gancolor study score answers-*.json                             what those who took it answered
    """


def _milliseconds(name: str, default: int, words: str) -> Callable[..., Any]:
    return click.option(
        name, type=click.IntRange(0, 60_000), default=default, show_default=True, help=words
    )


def _count(name: str, default: int, words: str, least: int = 0) -> Callable[..., Any]:
    return click.option(
        name, type=click.IntRange(least, 1000), default=default, show_default=True, help=words
    )


@command.command("make")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--dataset", help="Whose pictures (default: the one that the runs were trained on).")
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which of its pictures.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("study.html"),
    show_default=True,
    help="The page.",
)
@click.option(
    "--form",
    type=click.Choice(["pairs", "single"]),
    default="pairs",
    show_default=True,
    help="A real and a coloured picture in turn, or one picture: fake or real?",
)
@_count("--trials", 40, "Trials of each participant that count.", 1)
@_count("--practice", 10, "Trials before them, with feedback.")
@_count("--vigilance", 5, "Trials among them with obvious fakes.")
@_milliseconds("--wait-ms", 900, "Milliseconds before the first picture of a pair.")
@_milliseconds("--show-ms", 1000, "Milliseconds that each picture of a pair is shown.")
@_milliseconds("--gap-ms", 600, "Milliseconds between the two.")
@click.option(
    "--size",
    type=click.IntRange(min=32, max=1024),
    default=256,
    show_default=True,
    help="Side of the pictures on the page, in pixels.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="At most so many pictures, evenly spread (default: a fifth more than there are trials).",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The seed of the order.",
)
@runs_root_option
@click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help=(
        "Where named sets live (default: the runs' own, else $GANCOLOR_DATASETS, else ./datasets)."
    ),
)
@device_option
@precision_option
def make_command(runs: tuple[str, ...], runs_root: str | None, out: Path, **options: Any) -> None:
    """Colour held-out pictures with the runs, and write a page for participants.

    \b
    gancolor study make 7 12 --dataset food              pairs of real and coloured, one second each
    gancolor study make general --form single            one picture at a time: fake or real?

    The page holds its pictures and needs nothing but a browser. A participant's answers are saved from it as a JSON
    file, for `gancolor study score`; where `gancolor serve --study` shows the page, they can be sent instead. The gray
    picture is among the systems: nobody should take it for real.
    """
    refuse_torchrun("study make")
    from gancolor.evaluation import study_answers, study_page

    protocol = study_page.make(find_models(runs, runs_root), out, **options)
    for line in study_answers.lines(protocol):
        say(line)
    say(f"the page is {shown(out)}, {out.stat().st_size / 1e6:.1f} MB: give it to people")


@command.command("score")
@click.argument(
    "answers", nargs=-1, required=True, metavar="ANSWERS...", type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the scores to a file too: .md for a reader, .json for a program.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The seed of the bootstrap.",
)
def score_command(answers: tuple[Path, ...], out: Path | None, seed: int) -> None:
    """Say how often each system was taken for real, with 95 % intervals.

    \b
    gancolor study score answers-*.json --out study.md
    gancolor study score study-results            a folder of files, as `gancolor serve --study` fills it

    Participants who see through less than three quarters of the obvious fakes are left out, and it is said.
    """
    if out is not None and out.suffix.lower() not in (".md", ".json"):
        raise ConfigError(f"--out must end in .md or .json, got {shown(out)}")
    from gancolor.evaluation import study_answers
    from gancolor.runtime.files import write_whole

    found = study_answers.score(study_answers.find(answers), seed=seed)
    pictures = found.pictures if out is not None else found.pictures[:10]
    groups = [
        (f"Fool rate, 95 % intervals over {found.participants} participants", found.rows),
        ("Which system fools more often", found.preferences),
        ("Pictures, the most fooling first", pictures),
        ("Published, of other pictures and other people", list(study_answers.PUBLISHED)),
    ]
    say("\n".join([*study_answers.lines(found.protocol), *found.notes]))
    for title, rows in groups:
        say(f"\n{title}\n{tables.terminal(rows, digits=2)}")
    if out is None:
        return
    if out.suffix.lower() == ".md":
        parts = [f"## {title}\n\n{tables.markdown(rows, digits=2)}\n" for title, rows in groups]
        facts = "\n".join(
            f"- {line}" for line in [*study_answers.lines(found.protocol), *found.notes]
        )
        text = "\n".join(["# Study\n", facts, "", *parts])
    else:
        text = json.dumps(
            {
                "protocol": study_answers.lines(found.protocol),
                "digest": found.protocol.digest,
                "participants": found.participants,
                "systems": found.rows,
                "preferences": found.preferences,
                "pictures": found.pictures,
                "notes": found.notes,
            },
            indent=1,
        )
    try:
        write_whole(out, text)
    except OSError as error:
        raise DataError(
            f"{shown(out)} must be writable, got an error ({error.strerror or error}); choose"
            " another --out"
        ) from error
    say(f"\nwritten to {shown(out)}")
