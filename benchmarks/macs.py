"""The work of a network, for benchmarks and tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def count_macs(module: nn.Module, *inputs: Any) -> int:
    """Return the multiply-accumulates of all convolutions and Linear layers in one eval() forward
    of `inputs`.
    """
    total = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d | nn.Linear):
            total += output.numel() * layer.weight[0].numel()

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(*inputs)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return total
