"""What changes over a run, as functions of its progress: the share of it that is over, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch.optim import Optimizer

from gancolor.config import TrainConfig

LEAST = 0.01  # of the learning rate, at the beginning of its rise and at the end of its fall


def learning_rate(config: TrainConfig, progress: float) -> float:
    """The factor of the learning rates: a linear rise over `lr_warmup` of the run, then constant or half a cosine."""
    factor = 1.0
    if config.lr_schedule == "cosine":
        over = max(0.0, progress - config.lr_warmup) / (1 - config.lr_warmup)
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, over)))
    if progress < config.lr_warmup:
        factor *= progress / config.lr_warmup
    return max(LEAST, factor)


def follow(config: TrainConfig, progress: float, optimizers: Iterable[Optimizer]) -> None:
    """Set the optimizers' rates for the next step. (With a constant schedule and no rise, to what they were.)"""
    factor = learning_rate(config, progress)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
