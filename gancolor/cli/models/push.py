"""`gancolor models push`."""

from __future__ import annotations

import click

from gancolor.cli.places import refuse_torchrun, runs_root_option
from gancolor.cli.saying import say


@click.command("push")
@click.argument("run")
@click.argument("address", metavar="hf://OWNER/NAME")
@runs_root_option
@click.option("--private", is_flag=True, help="Make the repository private, where it has to be made.")
@click.option(
    "--license",
    "licence",
    metavar="ID",
    default="other",
    show_default=True,
    help="Of the weights, by the Hub's identifier, for example cc-by-4.0. It depends on the pictures' terms too.",
)
@click.option("--over", metavar="COMMIT", help="Replace what somebody else put there, whose revision this is.")
def command(run: str, address: str, runs_root: str | None, private: bool, licence: str, over: str | None) -> None:
    """Put a model on the Hub: its weights for colouring (safetensors), its settings and its card.

    \b
    gancolor models push 7 hf://owner/name
    gancolor models push 7 hf://owner/name --private

    RUN is a path, a name or a number, or a checkpoint file. The token is read from $HF_TOKEN. Folders of this machine
    are left out of the settings. Needs the extra 'hub'.
    """
    refuse_torchrun("models push")
    from gancolor import checkpoint, choice, inventory
    from gancolor.errors import ConfigError
    from gancolor.remote import addresses, pushing

    target = addresses.parse(address)
    if not isinstance(target, addresses.HubAddress):
        raise ConfigError(f"a model is pushed to hf://owner/name, got {address}")
    model = choice.find(run, checkpoint.runs_root(runs_root))
    content = checkpoint.open_to_color(model.path)
    card = inventory.card_of(model, content)
    commit = pushing.push(content, card, target, private=private, licence=licence, over=over)
    say(f"{target} is at revision {commit}; colour with it: gancolor sample old/ --out new/ --run {target}")
