"""Weights of pretrained networks: fetched, read without running code from them, checked, or drawn at random.

What a user chooses with --backbone-weights or --encoder-weights is the same for every network: `imagenet`, `none` or
the path of a file. `option` is which of the two an error should name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancolor.download import fetch, log_tenths
from gancolor.errors import DownloadError, WeightsError, passing, shown
from gancolor.torch_files import check_stored, refusal

log = logging.getLogger("gancolor")

BACKBONE_OPTION = "--backbone-weights"
ENCODER_OPTION = "--encoder-weights"

Network = TypeVar("Network", bound=nn.Module)


def way_out(title: str, option: str = BACKBONE_OPTION) -> str:
    """Return the end of an error about the weights of the network called `title`: what a user can do instead."""
    return f"give {title}'s own file with {option} PATH, or go without with {option} none"


def named_source(url: str, title: str, option: str = BACKBONE_OPTION) -> tuple[str, str]:
    """Return `url` and the beginning of its file's SHA-256, with which the name ends (`vgg16-397923af.pth`).

    Raises WeightsError if it does not.
    """
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    if found is None:
        raise WeightsError(
            f"address of {title}'s weights must hold their checksum, got {url}; {way_out(title, option)}"
        )
    return url, found.group(1)


def download_weights(source: tuple[str, str], title: str, option: str = BACKBONE_OPTION) -> Path:
    """Return the file of `source` in torch's hub folder, fetched once and its checksum verified.

    Raises WeightsError with the reason and the ways out.
    """
    url, sha256 = source
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        return fetch(url, target, sha256, progress=log_tenths(f"{title}'s weights"))
    except DownloadError as error:
        raise WeightsError(f"{error}; or {way_out(title, option)}") from error


def read_state(path: Path, title: str, option: str = BACKBONE_OPTION) -> Mapping[str, Any]:
    """Load a state_dict without running code from it; only what is used is read from disk.

    Raises WeightsError if `path` holds none.
    """
    require_file(path, title, option)
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                check_stored(archive, path.stat().st_size)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a file of another kind makes the unpickler raise anything, IndexError for some texts
        if words := passing(error):
            raise WeightsError(f"{shown(path)} could not be read now ({words})") from error
        raise WeightsError(
            f"{shown(path)} must be a state_dict saved by torch.save, got: {refusal(error)}; {way_out(title, option)}"
        ) from None  # torch's own words tell how to run the code in it
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(
            f"{shown(path)} must hold a state_dict, got {type(loaded).__name__}; {way_out(title, option)}"
        )
    return loaded


def require_file(path: Path, title: str, option: str = BACKBONE_OPTION) -> None:
    """Raise WeightsError unless `path` is a file."""
    if not path.is_file():
        what = option.removeprefix("--").replace("-", " ")
        raise WeightsError(
            f"{what} must be imagenet, none or a file, got {shown(path)}, which is no file; {way_out(title, option)}"
        )


def find_problems(
    given: Mapping[str, Any], wanted: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> str | None:
    """Say in one line what keeps `given` from being `wanted`'s tensors, or None if names and shapes fit exactly.

    `names` gives the names that messages use where the file's differ from `wanted`'s (and perhaps its axes did).
    """
    names = names or {}
    found = _list("missing", [names.get(key, key) for key in wanted if key not in given])
    found += _list("unknown", [key for key in given if key not in wanted])
    for key in (key for key in wanted if key in given):
        value, name = given[key], names.get(key, key)
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        shape = tuple(value.shape) if plain else type(value).__name__
        if shape != tuple(wanted[key].shape):
            axes = " in torch's order of axes" if name != key and isinstance(shape, tuple) else ""
            found.append(f"{name} is {shape} instead of {tuple(wanted[key].shape)}{axes}")
        elif not torch.isfinite(value).all():
            found.append(f"{name} holds values that are not finite")
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return "; ".join(found[:4]) + more if found else None


def _list(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    named = ", ".join(shown(key, 80) for key in keys[:3])
    return [f"{len(keys)} {what} ({named}{', ...' if len(keys) > 3 else ''})"]


def require_fit(
    given: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    path: Path,
    title: str,
    names: Mapping[str, str] | None = None,
    option: str = BACKBONE_OPTION,
) -> None:
    """Raise WeightsError unless `given`, what the file `path` holds, is `wanted`'s tensors; see `find_problems`."""
    if found := find_problems(given, wanted, names):
        raise WeightsError(
            f"{shown(path)} must hold {title}'s tensors and no others, got: {found}; {way_out(title, option)}"
        )


def load_strictly(
    network: nn.Module,
    given: Mapping[str, Any],
    path: Path,
    title: str,
    names: Mapping[str, str] | None = None,
    option: str = BACKBONE_OPTION,
) -> None:
    """Copy `given` into `network`, in the network's own dtype; raise WeightsError unless it fits exactly."""
    require_fit(given, network.state_dict(), path, title, names, option)
    network.load_state_dict(given)


def build_empty(build: Callable[[], Network]) -> Network:
    """Return what `build` builds with its tensors in memory but not set, and without using up random numbers."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu")


def randomize(network: nn.Module, seed: int, first: float = 1.0) -> None:
    """Draw Kaiming normal weights over fan_in for ReLU, biases 0, BatchNorm neutral, from `seed` alone.

    The first layer's weights are multiplied by `first`, for a network whose input is not about 1 in size.
    Raises TypeError for parameters of other layers than convolutions, Linear and BatchNorm.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if first != 1:
                layer.weight.data.mul_(first)
                first = 1.0
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, _BatchNorm):
            layer.reset_parameters()
        elif any(True for _ in layer.parameters(recurse=False)):
            raise TypeError(f"no rule for the random weights of {type(layer).__name__}")


def describe_origin(weights: str, source: tuple[str, str] | None, publisher: str, part: str = "") -> str:
    """Say in words where weights come from, and whether they are ImageNet's as `publisher` gives them at `source`."""
    if weights == "none":
        return "random, never trained (not ImageNet)"
    if weights == "imagenet" and source is not None:
        return f"ImageNet ({publisher}'s {source[0].rsplit('/', 1)[-1]}{part})"
    digest = file_sha256(Path(weights))
    if source is None:
        origin = "from a file"
    else:
        original = digest.startswith(source[1])
        origin = f"ImageNet, {publisher}'s file" if original else "from a file, not ImageNet's own"
    return f"{Path(weights).name} ({origin}; sha256 {digest[:12] or 'unknown'})"


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, or "" if it cannot be read (any more)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
