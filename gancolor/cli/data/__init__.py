"""`gancolor data`: sets of training pictures."""

from __future__ import annotations

import click

from gancolor.cli.lazy import LazyGroup

_COMMANDS = {
    "prepare": (
        "gancolor.cli.data.prepare",
        "Make a clean training set of any pictures.",
    ),
    "info": ("gancolor.cli.data.info", "Show a set's counts, sizes, colours, split and licence."),
    "list": ("gancolor.cli.data.list", "List the sets that have a name: what, size, licence, where from."),
    "download": ("gancolor.cli.data.download", "Fetch a set of the catalog."),
    "pack": ("gancolor.cli.data.pack", "Write a set as sharded tar files (WebDataset)."),
}


@click.group("data", cls=LazyGroup, modules=_COMMANDS)
def command() -> None:
    """Make, look at, get and pack sets of training pictures.

    \b
    gancolor data prepare photos/ scans.zip --name mine    clean, split, list: datasets/mine
    gancolor data info mine                                what is in it
    gancolor train --dataset mine
    """
