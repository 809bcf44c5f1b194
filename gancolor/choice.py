"""Which model is meant: a run, a file, one that lies elsewhere, or `general`, which comes with gancolor.

Where none is named, photographs are coloured by the newest run that was trained on photographs, else by `general`. A
run on generated pictures never becomes that by itself: it has not seen what people photograph.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor import checkpoint
from gancolor.data import catalog
from gancolor.errors import CheckpointError, DataError, shown
from gancolor.remote import addresses, fetching

GENERAL = "general"
"""The name of the model that comes with gancolor; a folder of that name is given as ./general."""

GENERAL_FOLDER = Path(__file__).with_name("general")
GENERAL_FILE, GENERAL_CARD = "general.safetensors", "card.md"

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Choice:
    """A model and why it was taken. `path`: a run directory or a file; `own`: whether it is the user's."""

    path: Path
    name: str
    why: str
    own: bool

    def sentence(self) -> str:
        """For the first line of what a command prints."""
        return f"colouring with {self.name}: {self.why}"


def choose(given: str | None, root: Path) -> Choice:
    """The model that `given` names, else the one for photographs: the newest run on photographs, else `general`.

    `given`: a path, a run's name or number under `root`, `general`, `hf://owner/name[@revision]` or `https://...`, of
    which the last two are fetched where no copy is kept. CheckpointError or another GancolorError when there is none.
    """
    return _default(root) if given is None else find(given, root)


def find(given: str, root: Path) -> Choice:
    """The model of that name; see `choose`."""
    if given == GENERAL:
        return _general("it comes with gancolor")
    if addresses.is_address(given):
        fetched = fetching.fetch(given)
        return Choice(fetched.path, fetched.name, f"fetched from {given}, SHA-256 {fetched.sha256}", False)
    if (path := Path(given)).is_file():
        return Choice(path, str(path), "named with --run", True)
    path = checkpoint.find_run(given, root)
    return Choice(path, path.name, "named with --run", True)


def newest_run(root: Path) -> Choice:
    """The newest run under `root`, whatever it was trained on. CheckpointError when there is none."""
    path = checkpoint.find_run(None, root)
    return Choice(path, path.name, f"the newest run under {root}", True)


def open_to_start(given: str, root: Path) -> dict[str, Any]:
    """The content of the model that `given` names, to start a training from: of a run its last.pt, else its best.pt."""
    path = find(given, root).path
    if path.is_file():
        return checkpoint.load(path)
    if any((path / last).exists() for last in ("last.pt", "last-1.pt")):
        return checkpoint.load_last(path)
    return checkpoint.load(path / "best.pt")


def was_on_photographs(run: Path) -> bool:
    """Whether a run's pictures were photographs, by its config; no, with a warning, when that cannot be read."""
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
        dataset, datasets_root = settings["dataset"], settings.get("datasets_root")
        return not (dataset in catalog.names(datasets_root) and catalog.find(dataset, datasets_root).generated)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        _log.warning("%s is not taken by itself: what it was trained on cannot be read (%s)", shown(run), error)
        return False


def _default(root: Path) -> Choice:
    trained = checkpoint.trained_runs(root)
    for path in reversed(trained):
        if was_on_photographs(path):
            return Choice(path, path.name, f"the newest run under {root} that was trained on photographs", True)
    there = f"none of the runs under {root} was trained on photographs" if trained else f"there is no run under {root}"
    return _general(f"it comes with gancolor, and {there}")


def _general(why: str) -> Choice:
    path = GENERAL_FOLDER / GENERAL_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{shown(path)} must be the model that comes with gancolor, got nothing there; install gancolor again, or "
            "name a run, a file or an address with --run"
        )
    return Choice(path, GENERAL, why, False)
