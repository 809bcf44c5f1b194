"""What a model's file says of itself, as text under a few keys, whatever its format.

`format`, `version` (gancolor's), `config` (JSON of the settings), `content` (JSON of what is no tensor: step, origin),
`card` (Markdown, where there is one) and `sha256`, which each format defines, so that damage is found.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gancolor import __version__
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError, shown

FORMAT = "1"  # raised when an older reader would misread the files

_NEEDED = ("format", "version", "config", "content", "sha256")


def describe(content: dict[str, Any], config: TrainConfig, card: str | None) -> dict[str, str]:
    """The keys but `sha256`, of a checkpoint's `content` without its tensors."""
    told = {"format": FORMAT, "version": __version__, "config": dump(config.to_json()), "content": dump(content)}
    return told if card is None else {**told, "card": card}


def parse(path: Path, told: Mapping[str, str], what: str) -> dict[str, Any]:
    """The content again, with `format`, `version`, `config` as TrainConfig and, where there is one, `card`.

    `what`: the file's format, in words. CheckpointError when it is not gancolor's, or of another version.
    """
    if missing := [key for key in _NEEDED if key not in told]:
        raise CheckpointError(f"{shown(path)} must be a gancolor model, got another {what} (without {missing[0]})")
    version = told["version"][:20]
    if told["format"] != FORMAT:
        raise CheckpointError(
            f"{shown(path)} must have format {FORMAT}, got {told['format'][:20]!r} written by gancolor {version}; "
            "use that version"
        )
    try:
        content, settings = json.loads(told["content"]), json.loads(told["config"])
        if not isinstance(content, dict) or not isinstance(settings, dict):
            raise ValueError("no JSON objects")
        content |= {"format": int(FORMAT), "version": told["version"], "config": TrainConfig.restore(settings)}
    except (ValueError, ConfigError) as error:
        raise CheckpointError(f"{shown(path)}, written by gancolor {version}: {error}") from error
    return content | ({"card": told["card"]} if "card" in told else {})


def dump(value: Any) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def replace(path: Path, data: bytes) -> None:
    """Write a file aside, fsync, rename. CheckpointError when that cannot be; what was there before stays."""
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise CheckpointError(f"{shown(path)} could not be written ({error.strerror}); choose another place") from error
