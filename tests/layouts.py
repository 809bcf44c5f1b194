"""Whether feature maps keep channels_last on their way through networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gancolor.training.state import State


def watch(state: State) -> list[str]:
    """Assert at each convolution of both networks, from now on, that maps lie channels_last.

    The list grows with what was looked at. A picture itself comes as it is: three channels are soon
    copied.
    """
    seen: list[str] = []

    def check(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        for what, x in {"in": given[0], "out": output, "weight": layer.weight}.items():
            if x.shape[1] > 3 and x.shape[2:] != (1, 1):
                seen.append(what)
                last = x.is_contiguous(memory_format=torch.channels_last)
                assert last, (what, layer, x.shape, x.stride())

    for network in (state.generator, state.discriminator):
        for layer in network.modules() if network is not None else ():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(check)
    return seen


def check_gradients(state: State) -> None:
    """Assert the same of the gradients that the generator's weights have."""
    for parameter in state.generator.parameters():
        if parameter.grad is not None and parameter.dim() == 4 and parameter.shape[1] > 3:
            assert parameter.grad.is_contiguous(memory_format=torch.channels_last)
