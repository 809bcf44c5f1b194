"""Noise on what a network has understood of a picture: other colours for the same lightness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gancolor.models.fusion import FusionNetwork
from gancolor.models.generator import Generator

STRENGTH = 1.5
"""Standard deviation of the noise, in standard deviations of each feature."""

_DETAILED = 2  # taps of the encoder that stay as they are: noise on edges and texture only stains


@contextmanager
def perturbed(generator: Generator | FusionNetwork, seed: int | None) -> Iterator[None]:
    """Within this, a generator's deeper features carry Gaussian noise that is drawn from `seed`; None changes nothing.

    In a U-Net that is the encoder's taps behind the second block (at least the last) and the contractive levels: noise
    on the deepest alone hardly shows, since the skips pass on the rest. In a fusion network it is the fused features.
    The noise of a feature is one number, the same everywhere, so that one thing keeps one colour. It is drawn on the
    CPU: every device gets the same.
    """
    if seed is None:
        yield
        return
    handles = [layer.register_forward_hook(_Noise(seed + at)) for at, layer in enumerate(_layers(generator))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(generator: Generator | FusionNetwork) -> list[nn.Module]:
    if isinstance(generator, FusionNetwork):
        return [generator.fusion]
    return [generator.encoder, *generator.contract]


class _Noise:
    """A forward hook that adds noise to the output, or to the deeper ones of a list of outputs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        if isinstance(output, Tensor):
            return _add_noise(output, random)
        first = min(_DETAILED, len(output) - 1)
        return [*output[:first], *(_add_noise(features, random) for features in output[first:])]


def _add_noise(features: Tensor, random: torch.Generator) -> Tensor:
    noise = torch.randn(1, features.shape[1], 1, 1, generator=random).to(features.device)
    spread = features.float().std(dim=(0, 2, 3), correction=0, keepdim=True)
    return features + (STRENGTH * spread * noise).to(features.dtype)
