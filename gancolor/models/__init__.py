"""The networks, and how each is built from the settings of a training."""

from __future__ import annotations

from torch import Tensor, nn

from gancolor import color
from gancolor.config import TrainConfig
from gancolor.models import embeddings
from gancolor.models.backbones import VGG16, Backbone, describe, load_backbone
from gancolor.models.discriminator import Discriminator, PatchDiscriminator, Seen
from gancolor.models.fusion import FusionNetwork
from gancolor.models.generator import Generator, Output

__all__ = [
    "VGG16",
    "Discriminator",
    "FusionNetwork",
    "Generator",
    "Output",
    "PatchDiscriminator",
    "Seen",
    "build_discriminator",
    "build_generator",
    "count_parameters",
    "describe",
    "load_backbone",
    "see",
]


def build_generator(
    config: TrainConfig, backbone: Backbone | None = None
) -> Generator | FusionNetwork:
    """Return the generator that `config` describes: a U-Net on `backbone`, or a fusion network,
    which needs none.

    From edges a U-Net predicts lightness too. A fusion network is called with an embedding beside
    the condition.
    """
    if config.takes_embedding:
        return FusionNetwork(
            config.network,
            embedding_width=embeddings.EMBEDDINGS[config.embedding].width,
            dropout=config.dropout,
            smooth=config.smooth_decoder,
            scale=color.SCALES[config.color_scale],
        )
    if backbone is None:
        raise ValueError("backbone must be given for the network unet, got None")
    return Generator(
        backbone,
        frozen_blocks=config.frozen_blocks,
        levels=config.levels,
        width=config.width,
        out_channels=config.out_channels,
        head=config.head,
        hints=config.hints > 0,
        temperature=config.temperature,
    )


def build_discriminator(config: TrainConfig, trunk: VGG16) -> Discriminator | PatchDiscriminator:
    """Return the discriminator that `config` describes, on a frozen `trunk`."""
    size = config.judged_size
    if config.discriminator == "patches" or config.objective == "regression":
        return PatchDiscriminator(trunk, size=size, augment=config.discriminator_augment)
    return Discriminator(
        trunk,
        size=size,
        units=config.discriminator_units,
        dropout=config.dropout,
        all_taps=config.discriminator_taps == "all",
    )


def see(config: TrainConfig, lightness: Tensor) -> Tensor:
    """Return what the generator is given of a gray picture, (B, 1, H, W) both.

    For a U-Net sRGB gray in [0, 1], which VGG16 knows; for a fusion network the lightness itself.
    """
    return lightness if config.takes_embedding else color.gray(lightness)


def count_parameters(*modules: nn.Module | None) -> tuple[int, int]:
    """Return how many parameters of all modules train and how many are frozen; shared ones count
    once.
    """
    parameters = {p for module in modules if module is not None for p in module.parameters()}
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return trainable, sum(p.numel() for p in parameters) - trainable
