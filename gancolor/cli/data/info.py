"""`gancolor data info`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from gancolor.cli.data.bars import root_option
from gancolor.cli.places import refuse_torchrun
from gancolor.cli.saying import say


@click.command("info")
@click.argument("dataset")
@root_option
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Most pictures whose colours are looked at, evenly chosen.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The picture's file (default: NAME-info.png).")
@click.option("--no-picture", is_flag=True, help="Text only.")
def command(dataset: str, datasets_root: Path | None, pictures: int, out: Path | None, no_picture: bool) -> None:
    """Show a set's counts, sizes, colours, split and licence, as text and as a picture.

    \b
    gancolor data info mine                          a set by its name
    gancolor data info ~/pictures                    any folder
    gancolor data info 'shards/{0000..0099}.tar'     packed
    """
    refuse_torchrun("data info")
    from gancolor.data.doctor import information
    from gancolor.images import write_file

    found = information.describe(dataset, datasets_root, pictures)
    say(found.text())
    if not no_picture:
        stem = re.sub(r"[^\w.+-]+", "-", Path(dataset).name) or "set"
        target = out or Path(f"{stem}-info.png")
        write_file(target, found.picture())
        say(f"\nThe same as a picture: {target}")
