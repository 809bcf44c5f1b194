"""What a user knows of a picture's colours, on its way into a network.

A hint map is (B, 3, H, W): the known `ab`, zero elsewhere, and a mask of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.models.layers import SLOPE

CHANNELS = (32, 64, 128)  # of the encoder at the finest level and below it; the last for all further ones


class HintEncoder(nn.Module):
    """Brings a hint map to the expanding levels: convolutions from the finest level's size down, one map for each.

    Without biases, so that a map of no hints gives zeros, and a network with it colours as without. `levels`: channels
    of the expanding levels from the coarsest to the finest; `stride`: pixels of the picture per position of the finest.
    """

    def __init__(self, levels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        widths = [CHANNELS[min(i, len(CHANNELS) - 1)] for i in range(len(levels))]
        before = [3, *widths]
        self.down = nn.ModuleList(
            nn.Conv2d(before[i], wide, 3, stride=1 if i == 0 else 2, padding=1, bias=False)
            for i, wide in enumerate(widths)
        )
        self.join = nn.ModuleList(
            nn.Conv2d(wide, out, 1, bias=False) for wide, out in zip(widths, reversed(levels), strict=True)
        )

    def forward(self, hints: Tensor) -> list[Tensor]:
        """What to add at each expanding level, from the coarsest to the finest, of a hint map (B, 3, H, W)."""
        x = shrink(hints, hints.shape[2] // self.stride, hints.shape[3] // self.stride)
        maps = []
        for down, join in zip(self.down, self.join, strict=True):
            x = F.leaky_relu(down(x), SLOPE)
            maps.append(join(x))
        return maps[::-1]


def shrink(hints: Tensor, height: int, width: int) -> Tensor:
    """Return a smaller hint map (B, 3, height, width), where a place holds the mean of its hints, however few."""
    if hints.shape[-2:] == (height, width):
        return hints
    mean = F.adaptive_avg_pool2d(hints, (height, width))
    share = mean[:, 2:]
    known = (share > 0).to(mean.dtype)
    return torch.cat([mean[:, :2] / torch.where(share > 0, share, 1), known], 1)
