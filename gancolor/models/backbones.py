"""Pretrained networks that see for the generator and the discriminator, and their weights.

VGG16 is the poster's. EfficientNet-Lite0 knows ImageNet at a fortieth of VGG16's work: it is the
network of Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(ICML 2019, arXiv:1905.11946), table 1, in Google's "lite" variant, with ReLU6 in place of swish and
without squeeze-and-excitation. `ENCODERS` has those that a generator can see through, by name.
"""

from __future__ import annotations

import abc
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from gancolor.models import pretrained
from gancolor.models.layers import ConvReLU, MaxPool, SameConv
from gancolor.models.pretrained import (
    ENCODER_OPTION,
    build_empty,
    describe_origin,
    download_weights,
    load_strictly,
    named_source,
    randomize,
    read_state,
    require_fit,
)

log = logging.getLogger("gancolor")

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pictures in [0, 1]
STD = (0.229, 0.224, 0.225)

# Channels of the convolutions and M for a pool, by the paper's letters (vgg, table 1) as in
# torchvision: importing torchvision for them would take two seconds of every start.
VGG_WIDTHS: dict[str, list[int | str]] = {
    "D": [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],  # VGG16
    "E": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],  # VGG19
}

TITLE = "EfficientNet-Lite0"

_TIMM_FILE = (  # timm's own address for tf_efficientnet_lite0, converted from TensorFlow
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth"
)

_EPSILON = 1e-3  # TensorFlow's, added to BatchNorm's variance
_STEM = 32  # channels of the first convolution


class Tap(NamedTuple):
    """A place where features leave a backbone: its layer, channels, and how many pixels one
    position stands for.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module, abc.ABC):
    """What every backbone is: `features`, layers one after another, with a tap at the end of each
    block of them.

    `ends` holds one past each tap's layer, for the blocks that are built. A subclass gives the
    taps, what normalizes RGB in [0, 1], and layers for a number of blocks.
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
        """Return one feature map a block, (B, channels, H / stride, W / stride), of the first
        `blocks` blocks.

        `rgb` is (B, 3, H, W), float in [0, 1]. It is normalized in float32, whatever the dtype of
        the weights.
        """
        x = (rgb.float() - self.mean) / self.std
        # under autocast the convolution casts further
        x = x.to(next(self.features.parameters()).dtype)
        maps = []
        begin = 0
        for end in self.ends[:blocks]:
            x = self.features[begin:end](x)
            maps.append(x)
            begin = end
        return maps

    def freeze(self) -> Self:
        """Stop training these weights for good: no gradients for them, and eval() even when a
        parent calls train().
        """
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
        # follow the device, never the dtype: to(bfloat16) would blur the normalization
        device = self.mean.device
        self.mean, self.std = per_channel(self.MEAN, device), per_channel(self.STD, device)
        return self


class VGG16(Backbone):
    """VGG16's convolutions up to relu5_3, with a tap at the end of each block; the classifier is
    never built.

    Parameters are named `features.N.weight|bias` as in torchvision. `blocks` is how many of the
    five blocks are built.
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
    """Return the layers of a VGG's features for torchvision's table `widths`, numbered as
    torchvision numbers them.
    """
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

    `weights` is "imagenet" (torchvision's file, downloaded once into torch's hub folder and
    checked), "none" (random from `seed`) or the path of a state_dict in one of the conventions of
    `gancolor.models.pretrained`, with or without the classifier, which is dropped. Raises
    WeightsError when the file cannot be had or does not fit; nothing falls back in silence.
    """
    backbone = build_empty(VGG16)
    if weights == "none":
        randomize(backbone, seed)
        log.warning(
            "backbone weights: none. VGG16's features are RANDOM (seed %d), not trained on any"
            " picture; colours will be worse than with --backbone-weights imagenet or PATH",
            seed,
        )
    else:
        path = (
            download_weights(imagenet_source(), "VGG16") if weights == "imagenet" else Path(weights)
        )
        loaded = read_state(path, "VGG16")
        converted = pretrained.to_torchvision(
            loaded, widths=VGG_WIDTHS["D"], mean=MEAN, std=STD, classifier=False
        )
        load_strictly(backbone, converted.state, path, "VGG16", converted.names)
        log.info("backbone weights: %s; read as %s", describe(weights), converted.words)
    return backbone if trainable else backbone.freeze()


def describe(weights: str) -> str:
    """Say in words for logs and model cards where backbone weights come from, and whether they are
    ImageNet's.
    """
    return describe_origin(weights, imagenet_source, "torchvision", ", convolutions only")


def imagenet_source() -> tuple[str, str]:
    """Return the address of torchvision's VGG16 file and the beginning of its SHA-256, which its
    name holds.
    """
    return torchvision_source("VGG16")


def torchvision_source(title: str) -> tuple[str, str]:
    """Return where torchvision's ImageNet weights of `VGG16` or `VGG19` are, and the beginning of
    their SHA-256.
    """
    import gancolor._torchvision  # noqa: F401  (before torchvision)

    from torchvision.models import vgg  # isort: skip

    return named_source(str(getattr(vgg, f"{title}_Weights").IMAGENET1K_V1.url), title)


def per_channel(values: Sequence[float], device: torch.device | None = None) -> Tensor:
    """Return one float32 value for each of a picture's channels, (1, C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


class BlockGroup(NamedTuple):
    """A row of the paper's table: `repeats` blocks of `channels`, the first of which has the
    stride.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


BLOCK_GROUPS = (
    BlockGroup(1, 3, 1, 1, 16),
    BlockGroup(2, 3, 2, 6, 24),
    BlockGroup(2, 5, 2, 6, 40),
    BlockGroup(3, 3, 2, 6, 80),
    BlockGroup(3, 5, 1, 6, 112),
    BlockGroup(4, 5, 2, 6, 192),
    BlockGroup(1, 3, 1, 6, 320),
)


class InvertedBottleneck(nn.Sequential):
    """1x1 expansion, depthwise convolution, linear 1x1 projection, and the input added where it has
    the same shape.

    (B, channels_in, H, W) to (B, channels_out, H / stride, W / stride). With `expansion` 1 there is
    no expansion.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        inside = channels_in * expansion
        depthwise = SameConv(inside, inside, kernel, stride, groups=inside)
        project = SameConv(inside, channels_out, 1, bounded=False)
        layers = {"conv_dw": depthwise, "conv_pw": project}  # timm's names
        if expansion > 1:
            layers = {
                "conv_pw": SameConv(channels_in, inside, 1),
                "conv_dw": depthwise,
                "conv_pwl": project,
            }
        super().__init__(OrderedDict(layers))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return y.add_(x) if self.adds else y  # in place: no gradient needs the projection as it was


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 up to its last block, with a tap at the last feature map of each stride.

    The 1280-channel head and the classifier are never built. There is no BatchNorm either: its
    statistics are folded into the convolutions when weights are loaded, so the state holds
    `features.N.[NAME.]weight|bias` and nothing else, and a trainable encoder trains these folded
    convolutions. Computes what timm's tf_efficientnet_lite0 computes in eval(). `blocks` is how
    many of the five strides are built.
    """

    TAPS = (
        Tap("blocks.0", 16, 2),
        Tap("blocks.1", 24, 4),
        Tap("blocks.2", 40, 8),
        Tap("blocks.4", 112, 16),
        Tap("blocks.6", 320, 32),
    )
    MEAN = (0.5, 0.5, 0.5)  # RGB to [-1, 1]
    STD = (0.5, 0.5, 0.5)

    def __init__(self, blocks: int = 5) -> None:
        super().__init__(blocks)

    def _build(self) -> tuple[list[nn.Module], list[int]]:
        tapped = {tap.name for tap in self.TAPS}
        layers: list[nn.Module] = [SameConv(3, _STEM, 3, stride=2)]
        ends = []
        channels = _STEM
        for number, stage in enumerate(BLOCK_GROUPS):
            for repeat in range(stage.repeats):
                stride = 1 if repeat else stage.stride
                layers.append(
                    InvertedBottleneck(
                        channels, stage.channels, stage.kernel, stride, stage.expansion
                    )
                )
                channels = stage.channels
            if f"blocks.{number}" in tapped:
                ends.append(len(layers))
        return layers, ends

    def forward(self, rgb: Tensor, blocks: int | None = None) -> list[Tensor]:
        """As `Backbone.forward`; the deepest stride that is computed must divide H and W, else
        ValueError.
        """
        stride = self.taps[:blocks][-1].stride
        if rgb.shape[-2] % stride or rgb.shape[-1] % stride:
            raise ValueError(
                f"height and width must be multiples of {stride}, got {tuple(rgb.shape[-2:])}"
            )
        return super().forward(rgb, blocks)


def load_efficientnet(weights: str, *, seed: int = 0, trainable: bool = False) -> EfficientNetLite0:
    """Return EfficientNet-Lite0 of five blocks, float32, with the weights asked for, frozen unless
    `trainable`.

    `weights` is "imagenet" (timm's file, downloaded once into torch's hub folder and checked),
    "none" (random from `seed`) or the path of a state_dict with the names of timm's
    tf_efficientnet_lite0, of any floating dtype, with or without head and classifier, which are
    dropped. Raises WeightsError when the file cannot be had or does not fit; nothing falls back in
    silence.
    """
    network = build_empty(EfficientNetLite0)
    if weights == "none":
        randomize(network, seed)
        log.warning(
            "encoder weights: none. %s's features are RANDOM (seed %d), not trained on any picture;"
            " colours will be worse than with %s imagenet or PATH",
            TITLE,
            seed,
            ENCODER_OPTION,
        )
    else:
        path = Path(weights)
        if weights == "imagenet":
            path = download_weights(efficientnet_source(), TITLE, ENCODER_OPTION)
        _load(network, read_state(path, TITLE, ENCODER_OPTION), path)
        log.info(
            "encoder weights: %s; BatchNorm folded into the convolutions",
            describe_efficientnet(weights),
        )
    return network if trainable else network.freeze()


def describe_efficientnet(weights: str) -> str:
    """Say in words for logs and model cards where the weights come from, and whether they are
    ImageNet's.
    """
    return describe_origin(weights, efficientnet_source, "timm", ", without its head")


def efficientnet_source() -> tuple[str, str]:
    """Return the address of timm's file and the beginning of its SHA-256, which its name holds."""
    return named_source(_TIMM_FILE, TITLE, ENCODER_OPTION)


def _load(network: EfficientNetLite0, loaded: Mapping[str, Any], path: Path) -> None:
    """Copy timm's tensors into `network`, each BatchNorm folded into its convolution in float64."""
    given = {key: value for key, value in loaded.items() if not _is_dropped(key)}
    layers = _timm_names()
    ours = network.state_dict()
    wanted = {f"{conv}.weight": ours[f"{name}.weight"] for name, (conv, _) in layers.items()}
    for name, (_, norm) in layers.items():
        kinds = ("weight", "bias", "running_mean", "running_var")
        wanted |= {f"{norm}.{kind}": ours[f"{name}.bias"] for kind in kinds}
    require_fit(given, wanted, path, TITLE, option=ENCODER_OPTION)
    folded: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, (conv, norm) in layers.items():
        weight, bias, mean, variance = (given[f"{norm}.{kind}"].double() for kind in kinds)
        scale = weight / (variance + _EPSILON).sqrt()
        folded[f"{name}.weight"] = (
            given[f"{conv}.weight"].double() * scale.view(-1, 1, 1, 1)
        ).float()
        folded[f"{name}.bias"] = (bias - mean * scale).float()
        names |= {
            f"{name}.weight": f"{conv}.weight, folded",
            f"{name}.bias": f"{norm}.bias, folded",
        }
    # finite values may fold to others
    load_strictly(network, folded, path, TITLE, names, ENCODER_OPTION)


def _is_dropped(key: str) -> bool:
    """Say whether a tensor of timm's file has no place here: head, classifier, counters that only
    training uses.
    """
    return key.startswith(("conv_head.", "bn2.", "classifier.")) or key.endswith(
        ".num_batches_tracked"
    )


def _timm_names() -> dict[str, tuple[str, str]]:
    """Return timm's names of the convolution and of the BatchNorm for each of our convolutions."""
    names = {"features.0": ("conv_stem", "bn1")}
    place = 1
    for number, stage in enumerate(BLOCK_GROUPS):
        parts = (
            ("conv_dw", "conv_pw") if stage.expansion == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        )
        for repeat in range(stage.repeats):
            block = f"blocks.{number}.{repeat}"
            for i, part in enumerate(parts, 1):
                names[f"features.{place}.{part}"] = (f"{block}.{part}", f"{block}.bn{i}")
            place += 1
    return names


class Loader(Protocol):
    """Returns a backbone of all its blocks with "imagenet", "none" or the file `weights`, frozen
    unless `trainable`.
    """

    def __call__(self, weights: str, *, seed: int = 0, trainable: bool = False) -> Backbone: ...


class EncoderKind(NamedTuple):
    """What is known of a backbone before it is built.

    `build` takes the number of blocks and returns them without weights worth keeping, for a
    checkpoint's to be loaded. `load` and `describe` take what the user chose as weights.
    """

    title: str
    build: type[VGG16] | type[EfficientNetLite0]
    load: Loader
    describe: Callable[[str], str]


ENCODERS: dict[str, EncoderKind] = {
    "vgg16": EncoderKind("VGG16", VGG16, load_backbone, describe),
    "efficientnet-lite0": EncoderKind(
        TITLE, EfficientNetLite0, load_efficientnet, describe_efficientnet
    ),
}
