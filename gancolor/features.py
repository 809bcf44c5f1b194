"""What a frozen VGG16 that is at hand sees in true and coloured pictures: how far apart they are, and whether they are
told apart. Each a number, or the reason why there is none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gancolor import checkpoint, resemblance
from gancolor.errors import CheckpointError, WeightsError
from gancolor.models.backbones import VGG16, describe, load_backbone
from gancolor.models.weights import build_empty, find_problems, read_state

KEYS = ("fd_vgg16", "told_apart")
"""The columns: a distance, and a percentage that is 50 when nobody can tell and 100 when everybody can."""

_FILES = ("best.pt", "last.pt", "last-1.pt")
_NONE = (
    "no run's checkpoint holds a frozen VGG16 of five blocks; name one, or a file or a run with one, with "
    "--feature-weights"
)

_log = logging.getLogger("gancolor")


class Seeing(NamedTuple):
    """A VGG16 of five blocks and in words where it comes from."""

    network: VGG16
    words: str


class Features:
    """Gathers what a network sees of each true picture and of its colourings by row.

    seeing: the network, on the pictures' device, or the reason why there is none. `empty` says by column why it has no
    numbers.
    """

    def __init__(self, seeing: Seeing | str) -> None:
        self.empty: dict[str, str] = dict.fromkeys(KEYS, seeing) if isinstance(seeing, str) else {}
        self._seeing = seeing
        self._true: list[Tensor] = []
        self._colored: dict[str, list[Tensor]] = {}
        self._kept = self._width = 0

    @classmethod
    def load(cls, weights: str | None, runs: Sequence[Path], device: torch.device) -> Features:
        """With the network that `find` finds."""
        seeing = find(weights, runs)
        if isinstance(seeing, Seeing):
            seeing.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        else:
            _log.info("%s will be empty: %s", ", ".join(KEYS), seeing)
        return cls(seeing)

    @torch.inference_mode()
    def see(self, truth: Tensor, colored: Mapping[str, Tensor]) -> None:
        """Take in one picture, uint8 (1, 3, S, S) on the network's device, and its colourings by row."""
        if isinstance(self._seeing, str):
            return
        self._true.append(pool(self._seeing.network, truth))
        for row, picture in colored.items():
            self._colored.setdefault(row, []).append(pool(self._seeing.network, picture))

    def summarize(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        """By row the distance, and for each picture in percent how often its two versions were told apart.

        What cannot be had is missing, with a reason in `empty`.
        """
        distances: dict[str, float] = {}
        apart: dict[str, list[float]] = {}
        if isinstance(self._seeing, str):
            return distances, apart
        true, count = _stack(self._true), len(self._true)
        standard = resemblance.standardize(true, true)
        self._width, self._kept = true.shape[1], standard.shape[1]
        for key, least in zip(KEYS, (2, resemblance.FEWEST), strict=True):
            if count < least:
                self.empty[key] = f"needs at least {least} pictures, got {count}"
            elif not self._kept:
                self.empty[key] = "the true pictures are all the same to VGG16"
        for row, seen in self._colored.items():
            colored = resemblance.standardize(_stack(seen), true)
            if "fd_vgg16" not in self.empty:
                distances[row] = resemblance.frechet_distance(colored, standard)
            if "told_apart" not in self.empty:
                apart[row] = (100 * resemblance.told_apart(standard, colored)).tolist()
        return distances, apart

    def lines(self) -> list[str]:
        """What the numbers are made with, for the protocol."""
        if isinstance(self._seeing, str):
            return []
        taps = ", ".join(tap.name for tap in VGG16.TAPS)
        return [
            f"VGG16 of FD VGG16 and told apart: {self._seeing.words}; in float32, means over the picture of {taps}, "
            f"each channel divided by its standard deviation over the true pictures; {self._kept} of {self._width} "
            f"channels (the others are 0 in more than {1 - resemblance.LEAST_SHARE:.0%} of these pictures)",
            "FD VGG16: Frechet distance of these features; no FID, comparable only with the same network and list",
            "told apart: held-out accuracy of a linear classifier of true against coloured on these features, ridge "
            f"{resemblance.RIDGE:g}, {resemblance.FOLDS} folds, seed 0, both versions of a picture in the same fold",
        ]


def find(weights: str | None, runs: Sequence[Path] = ()) -> Seeing | str:
    """The network that `weights` asks for, or the reason why there is none.

    weights: as `models.backbones.load_backbone`, but that "none" asks for no network; or a run directory or checkpoint
    that holds one. None: of the first of `runs` (directories or checkpoint files) that holds a trained one, else of the
    first that holds a random one. WeightsError when what was asked for cannot be had.
    """
    if weights == "none":
        return "not asked for (--feature-weights none)"
    if weights is None:
        return _find_among(runs)
    path = Path(weights)
    try:
        if weights == "imagenet" or not _holds_runs(path):
            network = load_backbone(weights)
            return Seeing(network, f"{describe(weights)}, {_fingerprint(network)}")
    except WeightsError as error:
        raise WeightsError(_reword(str(error))) from error
    if found := _find_in_run(path):
        return found[0]
    raise WeightsError(
        f"{path} must hold a frozen VGG16 of five blocks, got none; name another run or VGG16's own file with "
        "--feature-weights PATH, or go without with --feature-weights none"
    )


def pool(network: VGG16, rgb: Tensor) -> Tensor:
    """The means over the picture of every tap's channels; uint8 (B, 3, H, W) -> float32 (B, channels) on the CPU."""
    maps = network((rgb.float() / 255).contiguous(memory_format=torch.channels_last))
    return torch.cat([tap.float().mean(dim=(2, 3)) for tap in maps], dim=1).cpu()


def _stack(seen: Sequence[Tensor]) -> resemblance.Features:
    return torch.cat(list(seen)).numpy().astype(np.float64)


def _find_among(runs: Sequence[Path]) -> Seeing | str:
    spare: Seeing | None = None
    for run in runs:
        if found := _find_in_run(run):
            seeing, is_trained = found
            if is_trained:
                return seeing
            spare = spare or seeing
    return spare or _NONE


def _find_in_run(path: Path) -> tuple[Seeing, bool] | None:
    """The frozen VGG16 of a run directory or checkpoint file, and whether it was trained on anything."""
    files = [path / name for name in _FILES] if path.is_dir() else [path]
    for file in files:
        try:
            content = checkpoint.load(file)
        except CheckpointError:
            continue
        for state in _states(content):
            network = build_empty(VGG16)
            if find_problems(state, network.state_dict()) is None:
                network.load_state_dict(state)
                network.freeze()
                run = file.resolve().parent.name
                words = f"{run}'s {file.name}, {_origin(content)}, {_fingerprint(network)}"
                return Seeing(network, words), content["config"].backbone_weights != "none"
    return None


def _origin(content: Mapping[str, Any]) -> str:
    """Where a checkpoint's VGG16 comes from. What it says of its origin is the encoder's, which may be another."""
    config = content["config"]
    if config.backbone == "vgg16":
        return str(content.get("origin", "not known"))
    return f"of --backbone-weights {Path(config.backbone_weights).name}"


def _states(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What in a checkpoint may be a frozen VGG16: that of a whole run, the encoder of a generator."""
    config = content["config"]
    if config.network != "unet":
        return
    yield content.get("backbone", {})
    if not config.train_backbone:
        encoder = ((key.removeprefix("encoder."), value) for key, value in content.get("generator", {}).items())
        yield {key: value for key, value in encoder if key.startswith("features.")}


def _holds_runs(path: Path) -> bool:
    """Whether it is a directory or a checkpoint, not a file of weights. WeightsError when it is no such thing."""
    if path.is_dir():
        return True
    loaded = read_state(path, "VGG16")
    return "format" in loaded and "config" in loaded


def _reword(words: str) -> str:
    """An error about --backbone-weights as one about --feature-weights."""
    words = words.replace("--backbone-weights", "--feature-weights")
    return "feature" + words.removeprefix("backbone") if words.startswith("backbone weights") else words


def _fingerprint(network: VGG16) -> str:
    """The beginning of a SHA-256 over names and float32 values of the tensors, in words."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode() + b"\0" + value.float().contiguous().numpy().tobytes())
    return f"sha256 of its tensors {digest.hexdigest()[:12]}"
