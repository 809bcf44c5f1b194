"""Which model is meant, and which models there are.

A model is a run, a file, one that lies elsewhere, or `general`, which comes with gancolor. Where
none is named, photographs are coloured by the newest run that was trained on photographs, else by
`general`. A run on generated pictures never becomes that by itself: it has not seen what people
photograph.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.config import TrainConfig
from gancolor.data import catalog
from gancolor.errors import CheckpointError, DataError, DownloadError, shown
from gancolor.hub import addresses, repository, retrieval
from gancolor.hub.addresses import HubAddress
from gancolor.runtime.download import Unanswered
from gancolor.storage import checkpoint

GENERAL = "general"
"""The name of the model that comes with gancolor; a folder of that name is given as ./general."""

GENERAL_FOLDER = Path(__file__).resolve().parents[1] / "general"
GENERAL_FILE, GENERAL_CARD = "general.safetensors", "card.md"

_log = logging.getLogger("gancolor")

_SHORT = 12  # digits of a commit


@dataclass(frozen=True)
class Choice:
    """A model and why it was taken. `path`: a run directory or a file; `own`: whether it is the
    user's.
    """

    path: Path
    name: str
    why: str
    own: bool

    def sentence(self) -> str:
        """For the first line of what a command prints."""
        return f"colouring with {self.name}: {self.why}"


def choose(given: str | None, root: Path) -> Choice:
    """The model that `given` names, else the one for photographs: the newest run on photographs,
    else `general`.

    `given`: a path, a run's name or number under `root`, `general`, `hf://owner/name[@revision]` or
    `https://...`, of which the last two are fetched where no copy is kept. CheckpointError or
    another GancolorError when there is none.
    """
    return _default(root) if given is None else find(given, root)


def find(given: str, root: Path) -> Choice:
    """The model of that name; see `choose`."""
    if given == GENERAL:
        return _general("it comes with gancolor")
    if addresses.is_address(given):
        fetched = retrieval.fetch(given)
        return Choice(
            fetched.path, fetched.name, f"fetched from {given}, SHA-256 {fetched.sha256}", False
        )
    if (path := Path(given)).is_file():
        return Choice(path, str(path), "named with --run", True)
    path = checkpoint.find_run(given, root)
    return Choice(path, path.name, "named with --run", True)


def newest_run(root: Path) -> Choice:
    """The newest run under `root`, whatever it was trained on. CheckpointError when there is none."""
    path = checkpoint.find_run(None, root)
    return Choice(path, path.name, f"the newest run under {root}", True)


def open_to_start(given: str, root: Path) -> dict[str, Any]:
    """The content of the model that `given` names, to start a training from: of a run its last.pt,
    else its best.pt.
    """
    path = find(given, root).path
    if path.is_file():
        return checkpoint.load(path)
    if any((path / last).exists() for last in ("last.pt", "last-1.pt")):
        return checkpoint.load_last(path)
    return checkpoint.load(path / "best.pt")


def was_on_photographs(run: Path) -> bool:
    """Whether a run's pictures were photographs, by its config; no, with a warning, when that
    cannot be read.
    """
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
        dataset, datasets_root = settings["dataset"], settings.get("datasets_root")
        return not (
            dataset in catalog.names(datasets_root)
            and catalog.find(dataset, datasets_root).generated
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        _log.warning(
            "%s is not taken by itself: what it was trained on cannot be read (%s)",
            shown(run),
            error,
        )
        return False


def _default(root: Path) -> Choice:
    trained = checkpoint.trained_runs(root)
    for path in reversed(trained):
        if was_on_photographs(path):
            return Choice(
                path,
                path.name,
                f"the newest run under {root} that was trained on photographs",
                True,
            )
    there = (
        f"none of the runs under {root} was trained on photographs"
        if trained
        else f"there is no run under {root}"
    )
    return _general(f"it comes with gancolor, and {there}")


def _general(why: str) -> Choice:
    path = GENERAL_FOLDER / GENERAL_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{shown(path)} must be the model that comes with gancolor, got nothing there; install"
            " gancolor again, or name a run, a file or an address with --run"
        )
    return Choice(path, GENERAL, why, False)


def rows(root: Path) -> list[dict[str, Any]]:
    """A row for each model: `name` as --run takes it, `what`, `step`, `bytes`, `where`. Damaged
    ones say so.
    """
    general = GENERAL_FOLDER / GENERAL_FILE
    found = [_row(GENERAL, general, general, "comes with gancolor: ")]
    for run in checkpoint.trained_runs(root):
        found.append(_row(run.name, checkpoint.coloring_file(run), run))
    for record, key, path in addresses.all_kept():
        found.append(_row(_name_of(record, key), path, path, "fetched: "))
    return found


def card_of(model: Choice, content: dict[str, Any]) -> str:
    """A model's card, Markdown: its own, else its settings in words."""
    folder = model.path if model.path.is_dir() else model.path.parent
    own = str(content["card"]) if "card" in content else describe(model.name, content)
    if folder != GENERAL_FOLDER and not (folder / "config.json").is_file():
        return own
    try:
        return (folder / GENERAL_CARD).read_text(encoding="utf-8")
    except FileNotFoundError:  # of a run that is not at its end
        return own
    except (OSError, UnicodeError) as error:
        raise CheckpointError(
            f"{folder / GENERAL_CARD} must be the model's card, got {error}"
        ) from error


def show(name: str, root: Path) -> str:
    """The card of the model that `choice.find` finds; of one on the Hub its repository's, which
    fetches no model.
    """
    if addresses.is_address(name) and isinstance(address := addresses.parse(name), HubAddress):
        try:
            if (card := repository.read_card(repository.look(address))) is not None:
                return card
        except Unanswered as unanswered:
            if addresses.read(addresses.folder_of(address)) is None:
                raise DownloadError(
                    f"the card of {address} could not be fetched: {repository.endpoint()} does not"
                    f" answer ({unanswered})"
                ) from unanswered
    model = find(name, root)
    return card_of(model, checkpoint.peek(checkpoint.coloring_file(model.path)))


def describe(name: str, content: dict[str, Any]) -> str:
    """A card of what a checkpoint says of itself."""
    config: TrainConfig = content["config"]
    seen = f", {content['seen']} pictures" if "seen" in content else ""
    return (
        f"# {name}\n\nA colorizer trained by gancolor (preset `{config.preset}`,"
        f" {content.get('step', 0)} steps{seen} at {config.image_size} px).\n\n- Pictures:"
        f" `{config.dataset}`\n- Weights of its backbone: {content.get('origin', 'not known')}\n-"
        f" Condition: {config.condition}; colours are guesses, not facts.\n"
    )


def _name_of(record: addresses.AddressRecord, key: str) -> str:
    """What --run takes for a file that was fetched."""
    if record.address.startswith("hf:"):
        return f"{record.address}@{key[:_SHORT]}"
    return (
        record.address
        if record.accepted.get(addresses.MAIN) == key
        else f"{record.address}#sha256={key}"
    )


def _row(name: str, file: Path, where: Path, kind: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "what": kind,
        "step": None,
        "bytes": None,
        "where": str(where),
    }
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
