"""`gancolor models show`."""

from __future__ import annotations

import click

from gancolor.cli.places import runs_root_option
from gancolor.cli.saying import say


@click.command("show")
@click.argument("name")
@runs_root_option
def command(name: str, runs_root: str | None) -> None:
    """Show a model's card.

    \b
    gancolor models show general             the model that comes with gancolor
    gancolor models show 7                   run 7
    gancolor models show hf://owner/name     one on the Hub, without fetching the model itself

    NAME is what --run takes. A run that is not at its end has no card yet: its settings are shown.
    """
    from gancolor import checkpoint, inventory

    card = inventory.show(name, checkpoint.runs_root(runs_root))
    # Others may have written it: what would steer a terminal is left out.
    say(card)
