"""`gancolor models`: what there is to colour with."""

from __future__ import annotations

import click

from gancolor.cli.lazy import LazyGroup

_COMMANDS = {
    "list": ("gancolor.cli.models.list", "List the models that are here: general, your runs, what was fetched."),
    "show": ("gancolor.cli.models.show", "Show a model's card: what it was trained on, how good it is, its terms."),
    "push": ("gancolor.cli.models.push", "Put a run on the Hub, with its card."),
}


@click.group("models", cls=LazyGroup, modules=_COMMANDS)
def command() -> None:
    """Find, look at and share models.

    \b
    gancolor models list                            what there is to colour with
    gancolor models show general                    what the model that comes with gancolor is
    gancolor sample old/ --out new/ --run hf://owner/name
    gancolor models push 7 hf://owner/name
    """
