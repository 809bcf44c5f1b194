"""Noise on a network's features: where it goes, what it keeps, that it leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gancolor.coloring.networks import perturbed
from gancolor.models import FusionNetwork, Generator, load_backbone


def unet(blocks: int, levels: int) -> Generator:
    torch.manual_seed(0)
    network = Generator(
        load_backbone("none", seed=1), frozen_blocks=blocks, levels=levels, width=4
    ).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)  # it begins at zero
    return network


@pytest.mark.parametrize(("blocks", "levels"), [(2, 0), (3, 0), (5, 1), (2, 2)])
@torch.inference_mode()
def test_a_seed_is_an_answer_and_nothing_is_left_behind(blocks: int, levels: int) -> None:
    network, picture = unet(blocks, levels), torch.rand(1, 1, 64, 48)
    plain = network(picture)
    answers = []
    for seed in (5, 5, 6):
        with perturbed(network, seed):
            answers.append(network(picture))
    assert torch.equal(answers[0], answers[1])
    assert (answers[0] - plain).abs().mean() > 1e-4 and (
        answers[0] - answers[2]
    ).abs().mean() > 1e-4
    assert torch.equal(network(picture), plain)
    with perturbed(network, None):
        assert torch.equal(network(picture), plain)
    with pytest.raises(RuntimeError), perturbed(network, 5):
        network(torch.rand(1, 7, 64, 48))
    assert torch.equal(network(picture), plain)


@torch.inference_mode()
def test_noise_is_the_same_everywhere_and_leaves_fine_detail_alone() -> None:
    network, picture = unet(5, 1), torch.rand(1, 1, 64, 64)
    seen: list[list[Tensor]] = []

    def note(_: object, inputs: object, output: list[Tensor]) -> None:
        seen.append([features.clone() for features in output])

    for seed in (None, 3):
        with perturbed(network, seed):
            handle = network.encoder.register_forward_hook(note)  # behind the noise
            network(picture)
            handle.remove()
    moved = [noisy - plain for plain, noisy in zip(*seen, strict=True)]
    assert all((difference == 0).all() for difference in moved[:2])
    for difference in moved[2:]:
        assert difference.abs().mean() > 1e-3
        assert difference.var(dim=(2, 3), correction=0).max() < 1e-6


@torch.inference_mode()
def test_a_fusion_network() -> None:
    torch.manual_seed(0)
    network = FusionNetwork("koalarization", embedding_width=6).eval()
    seen = torch.rand(1, 1, 32, 40) * 2 - 1, torch.rand(1, 6)
    plain = network(*seen)
    with perturbed(network, 1):
        assert (network(*seen) - plain).abs().mean() > 1e-5
    assert torch.equal(network(*seen), plain)
