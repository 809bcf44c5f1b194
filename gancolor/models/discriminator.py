"""The discriminator: fully connected units on frozen VGG16 features (poster)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.errors import ConfigError
from gancolor.models.backbones import VGG16
from gancolor.models.fused import max_pool, spatial_mean
from gancolor.models.layers import SLOPE, BatchNorm1d, initialize

REDUCTION = 32  # VGG16's five pools


class Discriminator(nn.Module):
    """Tells real pictures from coloured ones: VGG16 to 512x8x8, max pool, flatten, FC units, one logit.

    A unit is Linear, BatchNorm, LeakyReLU 0.2, Dropout. poster's sigmoid is inside the loss (softplus of the logit),
    where it cannot overflow. `head` holds all that trains; `trunk`, usually the generator's encoder, is used as it is.
    With `all_taps` the units also see the mean of every tap over the picture: the deepest features alone know objects
    better than colours, and below 256 pixels little is left of them. It costs no further convolution.
    """

    def __init__(
        self,
        trunk: VGG16,
        *,
        size: int = 256,
        units: Sequence[int] = (512, 256, 128),
        dropout: float = 0.5,
        all_taps: bool = False,
    ) -> None:
        super().__init__()
        if size < REDUCTION:
            raise ConfigError(f"discriminator size must be {REDUCTION} or more, got {size}; VGG16 halves it five times")
        if trunk.blocks != len(VGG16.TAPS):
            raise ValueError(f"the discriminator's trunk must have {len(VGG16.TAPS)} blocks, got {trunk.blocks}")
        self.trunk = trunk
        self.size = size
        self.all_taps = all_taps
        side = -(-(size // REDUCTION) // 2)
        layers: list[nn.Module] = []
        wide = VGG16.TAPS[-1].channels * side * side
        if all_taps:
            wide += sum(tap.channels for tap in VGG16.TAPS)
        self.width = wide  # of the vector that `features` returns
        for unit in units:
            layers += [
                nn.Linear(wide, unit, bias=False),
                BatchNorm1d(unit),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.Dropout(dropout),
            ]
            wide = unit
        layers.append(nn.Linear(wide, 1))
        self.head = nn.Sequential(*layers)
        initialize(self.head, last=self.head[-1])

    def features(self, rgb: Tensor) -> Tensor:
        """Return a vector a picture, (B, width), float32, of `rgb` (B, 3, H, W), float in [0, 1].

        The trunk's 512 x size/32 x size/32, max pooled once more and flattened, and with `all_taps` each tap's means.
        Gradients flow back to `rgb`: call it under no_grad for real pictures.
        """
        taps = self.trunk(_resize(rgb, self.size))
        vector = F.max_pool2d(max_pool(taps[-1]), 2, ceil_mode=True).flatten(1).float()
        if not self.all_taps:
            return vector
        return torch.cat([vector, *map(spatial_mean, taps)], 1)

    def judge(self, features: Tensor) -> Tensor:
        """Return one logit a picture, (B,), float32; positive says real. Judge real and fake in one batch."""
        logits: Tensor = self.head(features)
        return logits.float().squeeze(1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return one logit a picture, (B,), of `rgb` (B, 3, H, W), float in [0, 1]."""
        return self.judge(self.features(rgb))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what an optimizer should train: the head's parameters."""
        return list(self.head.parameters())


def _resize(rgb: Tensor, size: int) -> Tensor:
    """Resize to size x size in float32, by plain averaging where it divides the picture's size, smoothly else."""
    height, width = rgb.shape[-2:]
    if (height, width) == (size, size):
        return rgb
    with torch.autocast(rgb.device.type, enabled=False):
        if height % size == 0 and width % size == 0:
            return F.avg_pool2d(rgb.float(), (height // size, width // size))
        return F.interpolate(rgb.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
