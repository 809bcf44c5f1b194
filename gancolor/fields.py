"""Settings declared as fields of a frozen dataclass: each once, with its default, its help and its
bounds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.errors import ConfigError, shown

_BEYOND = 2**63  # no setting needs such a number, and few libraries take one
_LONGEST = 80  # letters of a value in a message
_ACCEPTED: dict[type, tuple[type, ...]] = {
    float: (int, float),
    int: (int,),
    str: (str,),
    bool: (bool,),
    Path: (Path,),
}


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its type and default."""

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive lower bound
    choices: tuple[str, ...] | None = None
    flag: str | None = None  # where the option's name is not the field's
    changeable: bool = False  # may differ when a run is resumed
    sweep: bool = False  # the option may be given several times: one run each


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """A dataclass field with its help and bounds (see `Setting`)."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **bounds)})


@functools.cache
def declared(owner: type) -> dict[str, Setting]:
    """The `Setting` of every field of a dataclass that has one, by name, in order."""
    return {
        item.name: item.metadata["setting"]
        for item in dataclasses.fields(owner)
        if "setting" in item.metadata
    }


def flag_of(owner: type, name: str) -> str:
    """The command line option of a field: its name with dashes unless its setting has another."""
    return declared(owner)[name].flag or "--" + name.replace("_", "-")


@functools.cache
def base_types(owner: type) -> dict[str, type]:
    """Each field's type without `None`; `tuple` for tuples."""
    return {name: _base_type(hint) for name, hint in _annotations(owner).items()}


@functools.cache
def item_types(owner: type) -> dict[str, type]:
    """What each field that is a tuple holds."""
    return {
        name: typing.get_args(hint)[0]
        for name, hint in _annotations(owner).items()
        if base_types(owner)[name] is tuple
    }


@functools.cache
def optional(owner: type) -> frozenset[str]:
    """The fields that may be None."""
    hints = _annotations(owner)
    return frozenset(name for name, hint in hints.items() if type(None) in typing.get_args(hint))


def check(instance: Any) -> None:
    """Hold every field of a dataclass against its type and bounds. ConfigError names the option and
    the value.
    """
    owner: type = type(instance)
    check_values(owner, vars(instance))


def check_values(owner: type, values: dict[str, Any]) -> None:
    """As `check`, of what the fields of `owner` are to hold; those that are not in `values` are as
    they should be.
    """
    for name, known in declared(owner).items():
        if name not in values or (values[name] is None and name in optional(owner)):
            continue
        value, kind = values[name], base_types(owner)[name]
        flag = flag_of(owner, name)
        if kind is not tuple:
            _check_bounds(flag, known, kind, value)
        elif not isinstance(value, tuple):
            items = "numbers" if item_types(owner)[name] is int else "paths"
            raise ConfigError(f"{flag} must be several {items}, got {_words(value)}")
        else:
            for item in value:
                _check_bounds(flag, known, item_types(owner)[name], item)


def _annotations(owner: type) -> dict[str, Any]:
    """What the declared fields are annotated with; other fields may name types that only a type
    checker imports.
    """
    known, hints = declared(owner), dict[str, Any]()
    for base in reversed(owner.__mro__):
        own = vars(base).get("__annotations__", {})
        asked = types.SimpleNamespace(__annotations__={k: v for k, v in own.items() if k in known})
        hints |= typing.get_type_hints(asked, vars(sys.modules[base.__module__]))
    return hints


def _base_type(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    kind: type = typing.get_origin(hint) or hint
    return kind


def _check_bounds(flag: str, known: Setting, kind: type, item: Any) -> None:
    if not isinstance(item, _ACCEPTED[kind]) or (isinstance(item, bool) and kind is not bool):
        raise ConfigError(f"{flag} must be {kind.__name__}, got {_words(item)}")
    if known.choices and item not in known.choices:
        raise ConfigError(
            f"{flag} must be one of {', '.join(known.choices)}, got {shorten(str(item))}"
        )
    if isinstance(item, bool) or not isinstance(item, int | float):
        return
    if isinstance(item, int) and abs(item) >= _BEYOND:
        raise ConfigError(
            f"{flag} must be a number of a usual size, got one of {item.bit_length()} bits"
        )
    if not math.isfinite(item):
        raise ConfigError(f"{flag} must be a finite number, got {item}")
    if known.minimum is not None and item < known.minimum:
        raise ConfigError(f"{flag} must be at least {known.minimum:g}, got {item:g}")
    if known.above is not None and item <= known.above:
        raise ConfigError(f"{flag} must be above {known.above:g}, got {item:g}")
    if known.maximum is not None and item > known.maximum:
        raise ConfigError(f"{flag} must be at most {known.maximum:g}, got {item:g}")


def _words(value: object) -> str:
    """A value from a file, which may be anything, for a message."""
    try:
        words = " ".join(repr(value).split())
    except (ValueError, RuntimeError):  # more digits than Python writes; nested without an end
        return f"a {type(value).__name__}"
    return shorten(words)


def shorten(words: str) -> str:
    """The beginning of a text from a file, for a message, as `shown`."""
    return shown(words if len(words) <= _LONGEST else f"{words[:_LONGEST]}...")
