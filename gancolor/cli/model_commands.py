"""`gancolor models`: what there is to colour with is listed, shown and shared.

The group stands at the end; each command imports what it needs when it is called.
"""

from __future__ import annotations

import json
from typing import Any

import click

from gancolor.cli import LazyGroup
from gancolor.cli.options import refuse_torchrun, runs_root_option, say


@click.command("list")
@runs_root_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_command(runs_root: str | None, as_json: bool) -> None:
    """List the models that are here; --run takes their names.

    The model that comes with gancolor, the runs under the runs root, and those that were fetched,
    which are kept in $GANCOLOR_CACHE.
    """
    from gancolor import tables
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    rows = choice.rows(checkpoint.runs_root(runs_root))
    say(json.dumps(rows, indent=2) if as_json else tables.terminal(list(map(_short, rows))))


def _short(row: dict[str, Any]) -> dict[str, object]:
    size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] is not None else None
    what = row["what"] if len(row["what"]) <= 70 else f"{row['what'][:69]}…"
    return {
        "name": row["name"],
        "what": what,
        "step": row["step"],
        "size": size,
        "where": row["where"],
    }


@click.command("show")
@click.argument("name")
@runs_root_option
def show_command(name: str, runs_root: str | None) -> None:
    """Show a model's card.

    \b
    gancolor models show general             the model that comes with gancolor
    gancolor models show 7                   run 7
    gancolor models show hf://owner/name     one on the Hub, without fetching the model itself

    NAME is what --run takes. A run that is not at its end has no card yet: its settings are shown.
    """
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    card = choice.show(name, checkpoint.runs_root(runs_root))
    # Others may have written it: what would steer a terminal is left out.
    say(card)


@click.command("push")
@click.argument("run")
@click.argument("address", metavar="hf://OWNER/NAME")
@runs_root_option
@click.option(
    "--private", is_flag=True, help="Make the repository private, where it has to be made."
)
@click.option(
    "--license",
    "licence",
    metavar="ID",
    default="other",
    show_default=True,
    help=(
        "Of the weights, by the Hub's identifier, for example cc-by-4.0. It depends on the"
        " pictures' terms too."
    ),
)
@click.option(
    "--over", metavar="COMMIT", help="Replace what somebody else put there, whose revision this is."
)
def push_command(
    run: str, address: str, runs_root: str | None, private: bool, licence: str, over: str | None
) -> None:
    """Put a model on the Hub: its weights for colouring (safetensors), its settings and its card.

    \b
    gancolor models push 7 hf://owner/name
    gancolor models push 7 hf://owner/name --private

    RUN is a path, a name or a number, or a checkpoint file. The token is read from $HF_TOKEN. Folders of this machine
    are left out of the settings. Needs the extra 'hub'.
    """
    refuse_torchrun("models push")
    from gancolor.errors import ConfigError
    from gancolor.hub import addresses, choice, repository
    from gancolor.storage import checkpoint

    target = addresses.parse(address)
    if not isinstance(target, addresses.HubAddress):
        raise ConfigError(f"a model is pushed to hf://owner/name, got {address}")
    model = choice.find(run, checkpoint.runs_root(runs_root))
    content = checkpoint.open_to_color(model.path)
    card = choice.card_of(model, content)
    commit = repository.push(content, card, target, private=private, licence=licence, over=over)
    say(
        f"{target} is at revision {commit}; colour with it: gancolor sample old/ --out new/ --run"
        f" {target}"
    )


_COMMANDS = {
    "list": (
        "gancolor.cli.model_commands:list_command",
        "List the models that are here: general, your runs, what was fetched.",
    ),
    "show": (
        "gancolor.cli.model_commands:show_command",
        "Show a model's card: what it was trained on, how good it is, its terms.",
    ),
    "push": ("gancolor.cli.model_commands:push_command", "Put a run on the Hub, with its card."),
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
