"""Pretrained networks that see for the generator and the discriminator, and where their weights come from."""

from __future__ import annotations

import hashlib
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gancolor._torchvision  # noqa: F401  (before torchvision)

from torchvision.models import vgg  # isort: skip

from gancolor.download import fetch
from gancolor.errors import DownloadError, WeightsError
from gancolor.models.fused import ConvReLU, MaxPool

log = logging.getLogger("gancolor")

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pictures in [0, 1]
STD = (0.229, 0.224, 0.225)
WAY_OUT = "give VGG16's own file with --backbone-weights PATH, or go without with --backbone-weights none"


class Tap(NamedTuple):
    """A place where features leave a backbone: its layer, channels, and how many pixels one position stands for."""

    name: str
    channels: int
    stride: int


class VGG16(nn.Module):
    """VGG16's convolutions up to relu5_3, with a tap at the end of each block; the classifier is never built.

    Parameters are named `features.N.weight|bias` as in torchvision. `blocks` is how many of the five blocks are built.
    """

    TAPS = (
        Tap("relu1_2", 64, 1),
        Tap("relu2_2", 128, 2),
        Tap("relu3_3", 256, 4),
        Tap("relu4_3", 512, 8),
        Tap("relu5_3", 512, 16),
    )

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        if not 1 <= blocks <= len(self.TAPS):
            raise ValueError(f"blocks must be 1 to {len(self.TAPS)}, got {blocks}")
        layers = _make_layers()
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, MaxPool)]
        self.features = nn.Sequential(*layers[: pools[blocks - 1]])
        self.ends = pools[:blocks]  # one past each tap's layer
        self.frozen = False
        self.register_buffer("mean", _per_channel(MEAN), persistent=False)
        self.register_buffer("std", _per_channel(STD), persistent=False)

    @property
    def blocks(self) -> int:
        """How many blocks are built."""
        return len(self.ends)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The taps of the blocks that are built."""
        return self.TAPS[: self.blocks]

    def forward(self, rgb: Tensor, blocks: int | None = None) -> list[Tensor]:
        """Return one feature map a block, (B, channels, H / stride, W / stride), of the first `blocks` blocks.

        `rgb` is (B, 3, H, W), float in [0, 1]. It is normalized in float32, whatever the dtype of the weights.
        """
        x = (rgb.float() - self.mean) / self.std
        x = x.to(next(self.features.parameters()).dtype)  # under autocast the convolution casts further
        maps = []
        begin = 0
        for end in self.ends[:blocks]:
            x = self.features[begin:end](x)
            maps.append(x)
            begin = end
        return maps

    def freeze(self) -> VGG16:
        """Stop training these weights for good: no gradients for them, and eval() even when a parent calls train()."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> VGG16:
        """As nn.Module.train, but a frozen backbone stays in eval()."""
        super().train(mode and not self.frozen)
        return self

    def trim(self, blocks: int) -> VGG16:
        """Return a backbone of the first `blocks` blocks that shares their layers with this one."""
        if blocks == self.blocks:
            return self
        with torch.device("meta"):  # no memory, no random numbers: the layers are replaced at once
            trimmed = VGG16(blocks)
        trimmed.features = nn.Sequential(*list(self.features)[: len(trimmed.features)])
        trimmed.mean, trimmed.std = self.mean, self.std
        return trimmed.freeze() if self.frozen else trimmed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VGG16:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.mean.device  # follow the device, never the dtype: to(bfloat16) would blur the normalization
        self.mean, self.std = _per_channel(MEAN, device), _per_channel(STD, device)
        return self


def _make_layers() -> list[nn.Module]:
    """Return VGG16's layers, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for wide in vgg.cfgs["D"]:
        if isinstance(wide, int):
            layers += [ConvReLU(channels, wide), nn.Identity()]  # Identity: torchvision's ReLU
            channels = wide
        else:
            layers.append(MaxPool())
    return layers


def load_backbone(weights: str, *, seed: int = 0, trainable: bool = False) -> VGG16:
    """Return VGG16 of five blocks with the weights asked for, frozen unless `trainable`.

    `weights` is "imagenet" (torchvision's file, downloaded once into torch's hub folder and checked), "none" (random
    from `seed`) or the path of a state_dict with torchvision's names, with or without the classifier, which is dropped.
    Raises WeightsError when the file cannot be had or does not fit; nothing falls back in silence.
    """
    with torch.device("meta"):  # no initialization, and no use of the caller's random numbers
        backbone = VGG16()
    backbone.to_empty(device="cpu")
    if weights == "none":
        _randomize(backbone, seed)
        log.warning(
            "backbone weights: none. VGG16's features are RANDOM (seed %d), not trained on any picture; colours will "
            "be worse than with --backbone-weights imagenet or PATH",
            seed,
        )
    else:
        path = _download() if weights == "imagenet" else Path(weights)
        backbone.load_state_dict(_check(_read(path), backbone.state_dict(), path))
        log.info("backbone weights: %s", describe(weights))
    return backbone if trainable else backbone.freeze()


def describe(weights: str) -> str:
    """Say in words for logs and model cards where backbone weights come from, and whether they are ImageNet's."""
    if weights == "none":
        return "random, never trained (not ImageNet)"
    url, prefix = imagenet_source()
    if weights == "imagenet":
        return f"ImageNet (torchvision's {url.rsplit('/', 1)[-1]}, convolutions only)"
    digest = _sha256(Path(weights))
    origin = "ImageNet, torchvision's file" if digest.startswith(prefix) else "from a file, not ImageNet's own"
    return f"{Path(weights).name} ({origin}; sha256 {digest[:12] or 'unknown'})"


def imagenet_source() -> tuple[str, str]:
    """Return the address of torchvision's VGG16 file and the beginning of its SHA-256, which its name holds."""
    url = str(vgg.VGG16_Weights.IMAGENET1K_V1.url)
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    if found is None:
        raise WeightsError(f"address of ImageNet's VGG16 must hold its checksum, got {url}; {WAY_OUT}")
    return url, found.group(1)


def _download() -> Path:
    url, prefix = imagenet_source()
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        return fetch(url, target, prefix, progress=_progress_logger())
    except DownloadError as error:
        raise WeightsError(f"{error}; or {WAY_OUT}") from error


def _progress_logger() -> Callable[[int, int | None], None]:
    """Return a reporter of (bytes done, bytes in all) that logs each tenth once."""
    tenths = 0

    def report(done: int, total: int | None) -> None:
        nonlocal tenths
        if total and done * 10 // total > tenths:
            tenths = done * 10 // total
            log.info("downloading backbone weights: %d %% of %.0f MB", tenths * 10, total / 1e6)

    return report


def _read(path: Path) -> Mapping[str, Any]:
    """Load a state_dict without running code from it; only what is used is read from disk."""
    if not path.is_file():
        raise WeightsError(
            f"backbone weights must be imagenet, none or a file, got {path}, which is no file; {WAY_OUT}"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a file of another kind makes the unpickler raise anything, IndexError for some texts
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise WeightsError(f"{path} must be a state_dict saved by torch.save, got: {reason}; {WAY_OUT}") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(f"{path} must hold a state_dict, got {type(loaded).__name__}; {WAY_OUT}")
    return loaded


def _check(loaded: Mapping[str, Any], wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the features' tensors as float32; raise WeightsError unless names and shapes fit exactly."""
    given = {key: value for key, value in loaded.items() if not key.startswith("classifier.")}
    problems = _list("missing", [key for key in wanted if key not in given])
    problems += _list("unknown", [key for key in given if key not in wanted])
    for key in wanted.keys() & given.keys():
        shape = tuple(given[key].shape) if isinstance(given[key], Tensor) else type(given[key]).__name__
        if shape != tuple(wanted[key].shape):
            problems.append(f"{key} is {shape} instead of {tuple(wanted[key].shape)}")
        elif not torch.isfinite(given[key]).all():
            problems.append(f"{key} holds values that are not finite")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError(f"{path} must hold torchvision's VGG16, got: {'; '.join(problems[:4])}{more}; {WAY_OUT}")
    return {key: value.float() for key, value in given.items()}


def _list(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    return [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"]


def _randomize(backbone: VGG16, seed: int) -> None:
    """Draw Kaiming normal weights over fan_in for ReLU, biases 0, from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    for layer in backbone.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, or "" if it cannot be read (any more)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _per_channel(values: tuple[float, ...], device: torch.device | None = None) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
