"""Pretrained networks that see for the generator and the discriminator, and where their weights come from."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from gancolor.models import conversions
from gancolor.models.fused import ConvReLU, MaxPool
from gancolor.models.weights import (
    build_empty,
    describe_origin,
    download_weights,
    load_strictly,
    named_source,
    randomize,
    read_state,
)

log = logging.getLogger("gancolor")

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pictures in [0, 1]
STD = (0.229, 0.224, 0.225)
# Channels of the convolutions and M for a pool, by the paper's letters (vgg, table 1) as in torchvision: importing
# torchvision for them would take two seconds of every start.
VGG_WIDTHS: dict[str, list[int | str]] = {
    "D": [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],  # VGG16
    "E": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],  # VGG19
}


class Tap(NamedTuple):
    """A place where features leave a backbone: its layer, channels, and how many pixels one position stands for."""

    name: str
    channels: int
    stride: int


class Backbone(nn.Module, abc.ABC):
    """What every backbone is: `features`, layers one after another, with a tap at the end of each block of them.

    `ends` holds one past each tap's layer, for the blocks that are built. A subclass gives the taps, what normalizes
    RGB in [0, 1], and layers for a number of blocks.
    """

    TAPS: tuple[Tap, ...]
    MEAN: Sequence[float] = MEAN
    STD: Sequence[float] = STD

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: int) -> None:
        super().__init__()
        if not 1 <= blocks <= len(self.TAPS):
            raise ValueError(f"blocks must be 1 to {len(self.TAPS)}, got {blocks}")
        layers, ends = self._build()
        self.features = nn.Sequential(*layers[: ends[blocks - 1]])
        self.ends = ends[:blocks]
        self.frozen = False
        self.register_buffer("mean", per_channel(self.MEAN), persistent=False)
        self.register_buffer("std", per_channel(self.STD), persistent=False)

    @abc.abstractmethod
    def _build(self) -> tuple[list[nn.Module], list[int]]:
        """Return the layers of all blocks, and one past each tap's layer."""

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

    def freeze(self) -> Self:
        """Stop training these weights for good: no gradients for them, and eval() even when a parent calls train()."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but a frozen backbone stays in eval()."""
        super().train(mode and not self.frozen)
        return self

    def trim(self, blocks: int) -> Self:
        """Return a backbone of the first `blocks` blocks that shares their layers with this one."""
        if blocks == self.blocks:
            return self
        with torch.device("meta"):  # no memory, no random numbers: the layers are replaced at once
            trimmed = type(self)(blocks)
        trimmed.features = nn.Sequential(*list(self.features)[: len(trimmed.features)])
        trimmed.mean, trimmed.std = self.mean, self.std
        return trimmed.freeze() if self.frozen else trimmed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.mean.device  # follow the device, never the dtype: to(bfloat16) would blur the normalization
        self.mean, self.std = per_channel(self.MEAN, device), per_channel(self.STD, device)
        return self


class VGG16(Backbone):
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

    def __init__(self, blocks: int = 5) -> None:
        super().__init__(blocks)

    def _build(self) -> tuple[list[nn.Module], list[int]]:
        layers = vgg_layers(VGG_WIDTHS["D"])
        return layers, [i for i, layer in enumerate(layers) if isinstance(layer, MaxPool)]


def vgg_layers(widths: Sequence[int | str]) -> list[nn.Module]:
    """Return the layers of a VGG's features for torchvision's table `widths`, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for wide in widths:
        if isinstance(wide, int):
            layers += [ConvReLU(channels, wide), nn.Identity()]  # Identity: torchvision's ReLU
            channels = wide
        else:
            layers.append(MaxPool())
    return layers


def load_backbone(weights: str, *, seed: int = 0, trainable: bool = False) -> VGG16:
    """Return VGG16 of five blocks with the weights asked for, frozen unless `trainable`.

    `weights` is "imagenet" (torchvision's file, downloaded once into torch's hub folder and checked), "none" (random
    from `seed`) or the path of a state_dict in one of the conventions of `gancolor.models.conversions`, with or without
    the classifier, which is dropped.
    Raises WeightsError when the file cannot be had or does not fit; nothing falls back in silence.
    """
    backbone = build_empty(VGG16)
    if weights == "none":
        randomize(backbone, seed)
        log.warning(
            "backbone weights: none. VGG16's features are RANDOM (seed %d), not trained on any picture; colours will "
            "be worse than with --backbone-weights imagenet or PATH",
            seed,
        )
    else:
        path = download_weights(imagenet_source(), "VGG16") if weights == "imagenet" else Path(weights)
        loaded = read_state(path, "VGG16")
        converted = conversions.to_torchvision(loaded, widths=VGG_WIDTHS["D"], mean=MEAN, std=STD, classifier=False)
        load_strictly(backbone, converted.state, path, "VGG16", converted.names)
        log.info("backbone weights: %s; read as %s", describe(weights), converted.words)
    return backbone if trainable else backbone.freeze()


def describe(weights: str) -> str:
    """Say in words for logs and model cards where backbone weights come from, and whether they are ImageNet's."""
    return describe_origin(weights, imagenet_source(), "torchvision", ", convolutions only")


def imagenet_source() -> tuple[str, str]:
    """Return the address of torchvision's VGG16 file and the beginning of its SHA-256, which its name holds."""
    return torchvision_source("VGG16")


def torchvision_source(title: str) -> tuple[str, str]:
    """Return where torchvision's ImageNet weights of `VGG16` or `VGG19` are, and the beginning of their SHA-256."""
    import gancolor._torchvision  # noqa: F401  (before torchvision)

    from torchvision.models import vgg  # isort: skip

    return named_source(str(getattr(vgg, f"{title}_Weights").IMAGENET1K_V1.url), title)


def per_channel(values: Sequence[float], device: torch.device | None = None) -> Tensor:
    """Return one float32 value for each of a picture's channels, (1, C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
