"""The averaged generator: an exponential moving average of the weights, steadier than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import nn

from gancolor.models import FusionNetwork, Generator


class Ema:
    """Keeps `module`, a copy of a generator whose weights follow the live ones with the given decay.

    The decay warms up as (1 + n) / (10 + n), so that the first updates are not held back by the initialization.
    BatchNorm's statistics are copied, not averaged: they are averages already. A frozen encoder is shared, not copied.
    """

    def __init__(self, generator: Generator | FusionNetwork, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        frozen = not any(p.requires_grad for p in generator.encoder.parameters())
        memo = {id(generator.encoder): generator.encoder} if frozen else {}
        self.module = copy.deepcopy(generator, memo).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Move towards the live weights by 1 - decay."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live: list[torch.Tensor] = [p for p in generator.parameters() if p.requires_grad]
        names = {name for name, p in generator.named_parameters() if p.requires_grad}
        own: list[torch.Tensor] = [p for name, p in self.module.named_parameters() if name in names]
        torch._foreach_lerp_(own, live, 1 - decay)
        for mine, theirs in zip(self.module.buffers(), generator.buffers(), strict=True):
            if mine is not theirs:
                mine.copy_(theirs)
