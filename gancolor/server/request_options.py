"""The part `options` of a request: JSON with the options of the command line by their names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gancolor import __version__, fields
from gancolor.errors import ConfigError, shown
from gancolor.fields import Setting

_KINDS = {int: "integer", float: "number", str: "string", bool: "boolean"}

HINTS: dict[str, Any] = {
    "type": "array",
    "description": "Colours that are known, in pixels of the upright picture from 0.",
    "items": {
        "type": "object",
        "required": ["x", "y", "color"],
        "additionalProperties": False,
        "properties": {
            "x": {"type": "number"},
            "y": {"type": "number"},
            "color": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"},
            "radius": {"type": "number", "minimum": 0, "default": 0},
        },
    },
}
"""The JSON schema of hints."""


PROVENANCE: dict[str, Any] = {
    "type": "boolean",
    "default": True,
    "description": "Write into the metadata that gancolor coloured it, and with which model.",
}
"""The JSON schema of the option of that name."""


def provenance(options: Mapping[str, Any], model: str) -> str | None:
    """The note that goes into a result's metadata, None where it is not wanted."""
    wanted = options.get("provenance", True)
    if not isinstance(wanted, bool):
        raise ConfigError(f"provenance must be true or false, got {wanted!r:.40}")
    return f"colorized by gancolor {__version__}, model {model}" if wanted else None


def without_auto(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of colouring by field name, without a size that is to be found."""
    return {name: value for name, value in given.items() if (name, value) != ("size", "auto")}


def parse(text: str | None, known: Sequence[str]) -> dict[str, Any]:
    """The options of a request by their names; those that are null are left out. ConfigError for
    what is no JSON object, and for a name that is not known or comes twice.
    """
    if text is None:
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"options must be JSON, got something else ({shown(error, 80)})"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"options must be a JSON object, got {fields.shorten(text)}")
    for name in found:
        if name not in known:
            raise ConfigError(
                f"options must be of {', '.join(known)}, got {fields.shorten(str(name))}"
            )
    return {name: value for name, value in found.items() if value is not None}


def key_of(owner: type, name: str) -> str:
    """What a setting is called in a request: as its option is on the command line, with _ for -."""
    return fields.flag_of(owner, name)[2:].replace("-", "_")


def taken(
    owner: type, options: Mapping[str, Any], only: Sequence[str] | None = None
) -> dict[str, Any]:
    """The settings of a dataclass that a request gives, by field name; `only` of these fields."""
    keys = {key_of(owner, name): name for name in fields.declared(owner)}
    return {
        keys[key]: value
        for key, value in options.items()
        if key in keys and (only is None or keys[key] in only)
    }


def schema_of(owner: type, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The JSON schema of the settings of a dataclass, by their names in a request."""
    kinds = fields.base_types(owner)
    defaults = {item.name: item.default for item in dataclasses.fields(owner)}
    return {
        key_of(owner, name): _schema(known, kinds[name], defaults[name])
        for name, known in fields.declared(owner).items()
        if only is None or name in only
    }


def _schema(known: Setting, kind: type, default: Any) -> dict[str, Any]:
    bounds = {
        "minimum": known.minimum,
        "maximum": known.maximum,
        "exclusiveMinimum": known.above,
        "enum": known.choices and list(known.choices),
        "default": default,
    }
    given = {name: value for name, value in bounds.items() if value is not None}
    return {"type": _KINDS[kind], "description": known.help, **given}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")
