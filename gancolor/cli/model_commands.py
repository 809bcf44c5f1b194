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
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_command(runs_root: str | None, as_json: bool) -> None:
    """List the models that are here. The option --run takes their names.

    They are general, which comes with gancolor, your runs, and models that were downloaded, which
    are kept in $GANCOLOR_CACHE.
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
    """Show a model's card: what it was trained on, how good it is, and its terms.

    \b
    gancolor models show general             the model that comes with gancolor
    gancolor models show 7                   run 7
    gancolor models show hf://owner/name     a model on the Hub, without downloading the model itself

    NAME is anything that --run takes. A run that is not finished has no card yet; its settings are shown instead.
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
    "--private", is_flag=True, help="If the repository does not exist yet, make it private."
)
@click.option(
    "--license",
    "licence",
    metavar="ID",
    default="other",
    show_default=True,
    help=(
        "Licence of the weights, as the Hub names it, for example cc-by-4.0. It also depends on the"
        " terms of the pictures."
    ),
)
@click.option(
    "--over",
    metavar="COMMIT",
    help="Replace a model that somebody else put there; COMMIT is its revision.",
)
def push_command(
    run: str, address: str, runs_root: str | None, private: bool, licence: str, over: str | None
) -> None:
    """Put a model on the Hub: its weights for colouring (safetensors), its settings and its card.

    \b
    gancolor models push 7 hf://owner/name
    gancolor models push 7 hf://owner/name --private

    RUN is the path, name or number of a run, or a checkpoint file. The token is read from $HF_TOKEN. Names of folders
    of this machine are left out of the settings. This needs the extra 'hub'.
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
        "List the models that are here: general, your runs, downloaded ones.",
    ),
    "show": (
        "gancolor.cli.model_commands:show_command",
        "Show a model's card: what it was trained on, how good it is, its terms.",
    ),
    "push": ("gancolor.cli.model_commands:push_command", "Put a run on the Hub, with its card."),
}


@click.group("models", cls=LazyGroup, modules=_COMMANDS)
def command() -> None:
    """List the models that are here, describe one, share one.

    \b
    gancolor models list                                     which models can colour
    gancolor models show general                             describe the model that comes with gancolor
    gancolor models push 7 hf://owner/name                   put run 7 on the Hub
    gancolor sample old/ --out new/ --run hf://owner/name    colour with a model of the Hub
    """
