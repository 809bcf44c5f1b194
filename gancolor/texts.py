"""JSON and TOML from outside, as plain values: whatever is wrong with a text is a ValueError."""

from __future__ import annotations

import json
import tomllib
from typing import Any


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError if it is none, or nested deeper than can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def toml_of(text: str) -> dict[str, Any]:
    """The table of a TOML text. ValueError if it is none, or nested deeper than can be read."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
