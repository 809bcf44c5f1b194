"""What a user knows of a picture's colours, on its way into a network.

A hint map is (B, 3, H, W): the known `ab`, zero elsewhere, and a mask of 0 and 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.models.layers import SLOPE

CHANNELS = (32, 64, 128)  # of the encoder at the finest level and below it; the last for all further ones
GAIN = 4.0  # the ab of photographs fill a quarter of their range: so they weigh as much as the mask


class HintEncoder(nn.Module):
    """Brings a hint map to the expanding levels: at each, the map shrunk to its size, and what the finer ones know.

    Convolutions alone would thin a single hint out on its way down, and the coarse levels, which see things as a
    whole, would hardly hear of it. Without biases, so that a map of no hints gives zeros, and a network with it
    colours as without. `levels`: channels of the expanding levels from the coarsest to the finest; `stride`: pixels
    of the picture per position of the finest.
    """

    def __init__(self, levels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        widths = [CHANNELS[min(i, len(CHANNELS) - 1)] for i in range(len(levels))]
        self.known = nn.ModuleList(nn.Conv2d(3, wide, 3, padding=1, bias=False) for wide in widths)
        self.down = nn.ModuleList(
            nn.Conv2d(above, wide, 3, stride=2, padding=1, bias=False) for above, wide in itertools.pairwise(widths)
        )
        self.join = nn.ModuleList(
            nn.Conv2d(wide, out, 1, bias=False) for wide, out in zip(widths, reversed(levels), strict=True)
        )

    def forward(self, hints: Tensor) -> list[Tensor]:
        """What to add at each expanding level, from the coarsest to the finest, of a hint map (B, 3, H, W)."""
        maps: list[Tensor] = []
        finer = None
        for level, (known, join) in enumerate(zip(self.known, self.join, strict=True)):
            stride = self.stride * 2**level
            here = shrink(hints, hints.shape[2] // stride, hints.shape[3] // stride)
            x = known(torch.cat([GAIN * here[:, :2], here[:, 2:]], 1))
            if finer is not None:
                x = x + self.down[level - 1](finer)
            finer = F.leaky_relu(x, SLOPE)
            maps.append(join(finer))
        return maps[::-1]


def shrink(hints: Tensor, height: int, width: int) -> Tensor:
    """Return a smaller hint map (B, 3, height, width), where a place holds the mean of its hints, however few."""
    if hints.shape[-2:] == (height, width):
        return hints
    mean = F.adaptive_avg_pool2d(hints, (height, width))
    share = mean[:, 2:]
    known = (share > 0).to(mean.dtype)
    return torch.cat([mean[:, :2] / torch.where(share > 0, share, 1), known], 1)
