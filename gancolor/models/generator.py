"""The generator: a U-Net whose first levels are frozen VGG16 blocks (poster)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gancolor.models.backbones import VGG16
from gancolor.models.fused import max_pool
from gancolor.models.layers import Expanding, double_conv, initialize, reflect_pad

CONTRACTIVE_CHANNELS = 512
WIDEST = 256  # channels of an expanding level at most


class Level(NamedTuple):
    """One row of the generator's table: a level's output and how many parameters it has."""

    name: str
    channels: int
    height: int
    width: int
    parameters: int


class Generator(nn.Module):
    """Predicts colour from gray or from edges: VGG16 blocks, contractive levels, expanding levels with skips, tanh.

    `encoder` gives the first `frozen_blocks` blocks; if it is frozen they run without gradients. `levels` trainable
    contractive levels of 512 channels follow, each a 2x2 max pool and a double convolution. (poster puts the pool at
    a level's end; VGG16's taps lie before their pools, so here it opens the next level. The network is the same.)
    Expanding levels have `width` x stride channels, 256 at most. `stride` must divide H and W inside; forward pads.
    """

    def __init__(
        self, encoder: VGG16, *, frozen_blocks: int = 5, levels: int = 1, width: int = 24, out_channels: int = 2
    ) -> None:
        super().__init__()
        # Trimmed, so that the state_dict holds just the blocks in use.
        self.encoder = encoder.trim(frozen_blocks)
        self.stride = 2 ** (frozen_blocks - 1 + levels)
        channels = [tap.channels for tap in self.encoder.taps]
        self.contract = nn.ModuleList()
        for _ in range(levels):
            self.contract.append(double_conv(channels[-1], CONTRACTIVE_CHANNELS))
            channels.append(CONTRACTIVE_CHANNELS)
        self.expand = nn.ModuleList()
        self.widths: list[int] = []  # channels of the expanding levels
        below = channels.pop()
        while channels:
            out = min(width * 2 ** (len(channels) - 1), WIDEST)
            self.expand.append(Expanding(below, channels.pop(), out))
            self.widths.append(out)
            below = out
        self.last = nn.Conv2d(below, out_channels, 3, padding=1)
        for part in (self.contract, self.expand, self.last):
            initialize(part, last=self.last if part is self.last else None)

    def forward(self, condition: Tensor) -> Tensor:
        """Return (B, out_channels, H, W), float32 in [-1, 1], for `condition` (B, 1, H, W), float in [0, 1].

        The condition is sRGB gray or an edge map. The output is ab, or lightness and ab with three channels.
        """
        x, (rows, columns) = reflect_pad(condition, self.stride)
        with torch.no_grad() if self.encoder.frozen else nullcontext():
            skips = self.encoder(x.expand(-1, 3, -1, -1))
        for level in self.contract:
            skips.append(level(max_pool(skips[-1])))
        x = skips.pop()
        for level in self.expand:
            x = level(x, skips.pop())
        return torch.tanh(self.last(x).float())[..., rows, columns]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what an optimizer should train: all parameters but a frozen encoder's."""
        own = [p for part in (self.contract, self.expand, self.last) for p in part.parameters()]
        return own if self.encoder.frozen else list(self.encoder.parameters()) + own

    def level_shapes(self, height: int, width: int) -> list[Level]:
        """Return the table of levels for an input of height x width, in the order of the computation."""
        padded = [-(-size // self.stride) * self.stride for size in (height, width)]
        rows = []
        begin = 0
        for tap, end in zip(self.encoder.taps, self.encoder.ends, strict=True):
            sizes = (padded[0] // tap.stride, padded[1] // tap.stride)
            rows.append(Level(tap.name, tap.channels, *sizes, _count(self.encoder.features[begin:end])))
            begin = end
        stride = self.encoder.taps[-1].stride
        for i, level in enumerate(self.contract):
            stride *= 2
            rows.append(
                Level(f"contract.{i}", CONTRACTIVE_CHANNELS, padded[0] // stride, padded[1] // stride, _count(level))
            )
        for i, level in enumerate(self.expand):
            stride //= 2
            rows.append(Level(f"expand.{i}", self.widths[i], padded[0] // stride, padded[1] // stride, _count(level)))
        rows.append(Level("last", self.last.out_channels, height, width, _count(self.last)))
        return rows


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
