"""Models as safetensors files: tensors, and a header that says all the rest; nothing in them runs.

The header is text under a few keys, the same whatever a model file's format (an ONNX file has them
too): `format`, `version` (gancolor's), `config` (JSON of the settings), `content` (JSON of what is
no tensor: step, origin), `card` (Markdown, where there is one) and `sha256`, which each format
defines, so that damage is found. A tensor is named by its keys, joined by dots.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gancolor import __version__
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError, shown
from gancolor.runtime import files

FORMAT = "1"  # raised when an older reader would misread the files
SUFFIX = ".safetensors"

_NEEDED = ("format", "version", "config", "content", "sha256")
_WHAT = "safetensors file"
_MOST_HEADER = 100_000_000  # bytes: the format's own limit
_LARGEST_HALF = torch.finfo(torch.float16).max


def describe(content: dict[str, Any], config: TrainConfig, card: str | None) -> dict[str, str]:
    """The keys but `sha256`, of a checkpoint's `content` without its tensors."""
    told = {
        "format": FORMAT,
        "version": __version__,
        "config": dump(config.to_json()),
        "content": dump(content),
    }
    return told if card is None else {**told, "card": card}


def parse(path: Path, told: Mapping[str, str], what: str) -> dict[str, Any]:
    """The content again, with `format`, `version`, `config` as TrainConfig and, where there is one,
    `card`.

    `what`: the file's format, in words. CheckpointError when it is not gancolor's, or of another
    version.
    """
    if missing := [key for key in _NEEDED if key not in told]:
        raise CheckpointError(
            f"{shown(path)} must be a gancolor model, got another {what} (without {missing[0]})"
        )
    version = told["version"][:20]
    if told["format"] != FORMAT:
        raise CheckpointError(
            f"{shown(path)} must have format {FORMAT}, got {told['format'][:20]!r} written by"
            f" gancolor {version}; use that version"
        )
    try:
        content, settings = json.loads(told["content"]), json.loads(told["config"])
        if not isinstance(content, dict) or not isinstance(settings, dict):
            raise ValueError("no JSON objects")
        content |= {
            "format": int(FORMAT),
            "version": told["version"],
            "config": TrainConfig.restore(settings),
        }
    except (ValueError, ConfigError) as error:
        raise CheckpointError(f"{shown(path)}, written by gancolor {version}: {error}") from error
    return content | ({"card": told["card"]} if "card" in told else {})


def dump(value: Any) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """As `files.written`, but CheckpointError when the file cannot be written."""
    try:
        with files.written(path) as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"{shown(path)} could not be written ({error.strerror}); choose another place"
        ) from error


def write(
    path: Path, content: dict[str, Any], config: TrainConfig, *, card: str | None = None
) -> None:
    """Write a checkpoint's `content`, nested dictionaries of tensors and JSON values, whole or not
    at all.

    `card`: Markdown that goes with it. CheckpointError when it cannot be written; what was there
    before stays.
    """
    tensors: dict[str, Tensor] = {}
    rest = {
        key: value
        for key, value in content.items()
        if key not in ("format", "version", "config", "card")
    }
    plain = _take_apart(rest, "", tensors)
    told = describe(plain, config, card)
    told["sha256"] = _digest(told, tensors)
    with written(path) as file:
        file.write(safetensors.torch.save(tensors, told))


def is_one(path: Path) -> bool:
    """Whether a file begins as safetensors files do, whatever its name."""
    try:
        with open(path, "rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    return (
        len(begin) == 9
        and int.from_bytes(begin[:8], "little") <= _MOST_HEADER
        and begin[8:] == b"{"
    )


def read(path: Path) -> dict[str, Any]:
    """What `write` was given, with tensors on the CPU, `config` as TrainConfig, and `card` where
    there is one.

    CheckpointError when it is missing, damaged, of another format or not gancolor's.
    """
    with _opened(path) as file:
        told = file.metadata() or {}
        content = parse(path, told, _WHAT)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
    if told["sha256"] != _digest(told, tensors):
        raise CheckpointError(
            f"{shown(path)} is damaged (its checksum is another); fetch or export it again"
        )
    for name, tensor in tensors.items():
        _put(content, name, tensor)
    return content


def read_header(path: Path) -> dict[str, Any]:
    """All that `read` returns but the tensors, which are neither read nor checked."""
    with _opened(path) as file:
        return parse(path, file.metadata() or {}, _WHAT)


def halve(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its weights in half precision: float32 of two and more dimensions that
    float16 can hold.

    Biases, BatchNorm's numbers, integers and what is in half precision already stay as they are.
    """
    return {key: _halved(value) for key, value in content.items()}


def _halved(value: Any) -> Any:
    if isinstance(value, dict):
        return halve(value)
    if isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim > 1:
        return value.half() if bool((value.abs() <= _LARGEST_HALF).all()) else value
    return value


def _take_apart(value: dict[str, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Move the tensors below `value` into `tensors`; returns what is left, with all dictionaries."""
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Tensor):
            # none may share its memory
            tensors[prefix + key] = item.detach().cpu().contiguous().clone()
        elif isinstance(item, dict):
            plain[key] = _take_apart(item, f"{prefix}{key}.", tensors)
        else:
            plain[key] = item
    return plain


def _put(content: dict[str, Any], name: str, tensor: Tensor) -> None:
    """Put a tensor where `_take_apart` found it; a dictionary's own keys may hold dots."""
    place, key = content, name
    while True:
        first, _, others = key.partition(".")
        if not others or not isinstance(place.get(first), dict):
            break
        place, key = place[first], others
    place[key] = tensor


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, opened. CheckpointError for what the library cannot read."""
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(
            f"{shown(path)} is damaged or no safetensors file ({reason}); fetch or export it again"
        ) from error


def _digest(told: Mapping[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the other metadata and of each tensor's name, type, shape and bytes, in the names'
    order.
    """
    digest = hashlib.sha256(dump({key: told[key] for key in told if key != "sha256"}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(dump([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
