"""The models that there are: the one that comes with gancolor, the user's runs, what was fetched; and their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gancolor import checkpoint, choice
from gancolor.choice import Choice
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, DownloadError
from gancolor.remote import addresses, hub, records
from gancolor.remote.addresses import HubAddress
from gancolor.web import Unanswered

_SHORT = 12  # digits of a commit


def rows(root: Path) -> list[dict[str, Any]]:
    """A row for each model: `name` as --run takes it, `what`, `step`, `bytes`, `where`. Damaged ones say so."""
    general = choice.GENERAL_FOLDER / choice.GENERAL_FILE
    found = [_row(choice.GENERAL, general, general, "comes with gancolor: ")]
    for run in checkpoint.trained_runs(root):
        found.append(_row(run.name, checkpoint.coloring_file(run), run))
    for record, key, path in records.all_kept():
        found.append(_row(_name_of(record, key), path, path, "fetched: "))
    return found


def card_of(model: Choice, content: dict[str, Any]) -> str:
    """A model's card, Markdown: its own, else its settings in words."""
    folder = model.path if model.path.is_dir() else model.path.parent
    own = str(content["card"]) if "card" in content else describe(model.name, content)
    if folder != choice.GENERAL_FOLDER and not (folder / "config.json").is_file():
        return own
    try:
        return (folder / choice.GENERAL_CARD).read_text(encoding="utf-8")
    except FileNotFoundError:  # of a run that is not at its end
        return own
    except (OSError, UnicodeError) as error:
        raise CheckpointError(f"{folder / choice.GENERAL_CARD} must be the model's card, got {error}") from error


def show(name: str, root: Path) -> str:
    """The card of the model that `choice.find` finds; of one on the Hub its repository's, which fetches no model."""
    if addresses.is_address(name) and isinstance(address := addresses.parse(name), HubAddress):
        try:
            if (card := hub.read_card(hub.look(address))) is not None:
                return card
        except Unanswered as unanswered:
            if records.read(records.folder_of(address)) is None:
                raise DownloadError(
                    f"the card of {address} could not be fetched: {hub.endpoint()} does not answer ({unanswered})"
                ) from unanswered
    model = choice.find(name, root)
    return card_of(model, checkpoint.peek(checkpoint.coloring_file(model.path)))


def describe(name: str, content: dict[str, Any]) -> str:
    """A card of what a checkpoint says of itself."""
    config: TrainConfig = content["config"]
    seen = f", {content['seen']} pictures" if "seen" in content else ""
    return (
        f"# {name}\n\n"
        f"A colorizer trained by gancolor (preset `{config.preset}`, {content.get('step', 0)} steps{seen} at "
        f"{config.image_size} px).\n\n"
        f"- Pictures: `{config.dataset}`\n- Weights of its backbone: {content.get('origin', 'not known')}\n"
        f"- Condition: {config.condition}; colours are guesses, not facts.\n"
    )


def _name_of(record: records.Record, key: str) -> str:
    """What --run takes for a file that was fetched."""
    if record.address.startswith("hf:"):
        return f"{record.address}@{key[:_SHORT]}"
    return record.address if record.accepted.get(addresses.MAIN) == key else f"{record.address}#sha256={key}"


def _row(name: str, file: Path, where: Path, kind: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "what": kind, "step": None, "bytes": None, "where": str(where)}
    if not file.is_file():
        return row | {"what": f"{kind}missing, install it again"}
    try:
        content = checkpoint.peek(file)
    except CheckpointError as error:
        return row | {"what": str(error)}
    config = content["config"]
    row["bytes"] = file.stat().st_size
    row["step"] = content.get("step")
    return row | {"what": f"{kind}{config.preset}, {config.dataset} at {config.image_size} px"}
