"""The discriminator: poster's shapes, gradients to the picture, an undecided start."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gancolor.config import TrainConfig
from gancolor.errors import ConfigError
from gancolor.models import build_discriminator, build_generator, count_macs, count_parameters
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.models.discriminator import Discriminator

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
pytestmark = pytest.mark.full_width


@pytest.fixture(scope="module")
def trunk() -> VGG16:
    return load_backbone("none")


def on_meta(size: int) -> Discriminator:
    with torch.device("meta"):
        return Discriminator(VGG16().freeze(), size=size)


@pytest.mark.parametrize(("size", "flat"), [(256, 8192), (128, 2048), (96, 2048), (64, 512), (32, 512)])
def test_shapes_are_the_posters(size: int, flat: int) -> None:
    discriminator = on_meta(size)
    picture = torch.empty(2, 3, size, size, device="meta")
    last = torch.nn.functional.max_pool2d(discriminator.trunk(picture)[-1], 2)
    assert last.shape == (2, 512, size // 32, size // 32)
    assert discriminator.features(picture).shape == (2, flat)
    assert discriminator(picture).shape == (2,)


def test_features_are_the_last_ones_pooled_and_all_taps_adds_their_means(trunk: VGG16) -> None:
    rgb = torch.rand(2, 3, 128, 128)
    taps = trunk(rgb)
    last = F.max_pool2d(F.max_pool2d(taps[-1], 2), 2).flatten(1)
    means = torch.cat([tap.mean((2, 3)) for tap in taps], 1)
    torch.testing.assert_close(Discriminator(trunk, size=128).features(rgb), last)
    both = Discriminator(trunk, size=128, all_taps=True)
    torch.testing.assert_close(both.features(rgb), torch.cat([last, means], 1))
    assert both.width == 512 * 4 + 64 + 128 + 256 + 512 + 512
    assert both(rgb).shape == (2,)


def test_parameters_and_work() -> None:
    discriminator = on_meta(256)
    kinds = [type(layer).__name__ for layer in discriminator.head]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"] * 3 + ["Linear"]
    assert count_parameters(discriminator) == (4_360_065, 14_714_688)
    assert count_parameters(on_meta(128)) == (1_214_337, 14_714_688)
    macs = [count_macs(on_meta(s), torch.empty(1, 3, s, s, device="meta")) for s in (256, 128)]
    assert macs == [20_048_937_088, 5_012_357_248]


def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for size in (256, 128):
        side = size // 32
        trainable, _ = count_parameters(on_meta(size))
        macs = count_macs(on_meta(size), torch.empty(1, 3, size, size, device="meta"))
        assert (
            f"| {size} | 512 x {side} x {side} | {512 * (side // 2) ** 2:,} | {trainable:,} | {macs / 1e9:.1f} |"
            in text
        )


def test_gradient_reaches_the_picture_and_the_head_alone(trunk: VGG16) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8,))
    rgb = torch.rand(3, 3, 32, 32, requires_grad=True)
    discriminator(rgb).sigmoid().sum().backward()
    assert rgb.grad is not None and all(float(g.abs().sum()) > 0 for g in rgb.grad)
    assert all(p.grad is not None for p in discriminator.trainable_parameters())
    assert all(p.grad is None for p in discriminator.trunk.parameters())
    trained = [p for p in discriminator.parameters() if p.requires_grad]
    assert len(trained) == len(discriminator.trainable_parameters())


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (20, 24)])
def test_other_sizes_are_resized_without_aliasing(trunk: VGG16, shape: tuple[int, int]) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8,)).eval()
    seen: list[torch.Tensor] = []
    handle = trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rows, columns = torch.arange(shape[0]) % 2, torch.arange(shape[1]) % 2
    checkers = (rows[:, None] ^ columns).float().expand(1, 3, *shape).clone().requires_grad_()
    discriminator.features(checkers).sum().backward()
    handle.remove()
    assert seen[0].shape == (1, 3, 32, 32)
    assert checkers.grad is not None and bool(torch.isfinite(checkers.grad).all())
    if min(shape) > 32:  # the finest pattern averages out
        assert float((seen[0].detach() - 0.5).abs().mean()) < 0.15
    if shape == (64, 64):
        assert float((seen[0].detach() - 0.5).abs().max()) < 1e-6


def test_starts_undecided_and_depends_on_the_picture(trunk: VGG16) -> None:
    torch.manual_seed(0)
    logits = Discriminator(trunk, size=64)(torch.rand(8, 3, 64, 64)).detach()
    assert logits.shape == (8,) and logits.dtype == torch.float32
    assert 0 < float(logits.std()) and float(logits.abs().max()) < 0.2


def test_judging_in_halves_is_the_same_function(trunk: VGG16) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8, 4)).eval()
    rgb = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(discriminator(rgb), discriminator.judge(discriminator.features(rgb)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert discriminator(rgb).dtype == torch.float32


def test_learns_to_tell_two_sets_apart(trunk: VGG16) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(trunk, size=32, units=(16,), dropout=0.0).train()
    with torch.no_grad():
        smooth = discriminator.features(torch.rand(16, 3, 1, 1).expand(-1, -1, 32, 32))
        noisy = discriminator.features(torch.rand(16, 3, 32, 32))
    optimizer = torch.optim.Adam(discriminator.trainable_parameters(), lr=1e-2)
    terms = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.softplus(-discriminator.judge(smooth)).mean() + F.softplus(discriminator.judge(noisy)).mean()
        loss.backward()
        optimizer.step()
        terms.append(loss.item())
    assert terms[0] == pytest.approx(2 * math.log(2), abs=0.05)  # chance
    assert terms[-1] < 0.8


def test_too_small_or_too_shallow_is_refused(trunk: VGG16) -> None:
    with pytest.raises(ConfigError, match="32 or more, got 31"):
        Discriminator(trunk, size=31)
    with pytest.raises(ValueError, match="5 blocks, got 4"):
        Discriminator(trunk.trim(4))


def test_builder_follows_the_config_and_shares_the_trunk(trunk: VGG16) -> None:
    config = TrainConfig(image_size=64, discriminator_units=(8, 4), dropout=0.25)
    discriminator = build_discriminator(config, trunk)
    assert discriminator.trunk is trunk and build_generator(config, trunk).encoder is trunk
    assert discriminator.size == 64
    assert [layer.p for layer in discriminator.head if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    assert build_discriminator(TrainConfig(discriminator_size=128), trunk).size == 128
    assert build_discriminator(TrainConfig(discriminator_taps="all"), trunk).all_taps
    assert not build_discriminator(TrainConfig(discriminator_taps="last"), trunk).all_taps


def test_trunk_stays_frozen_when_the_encoder_trains() -> None:
    encoder = load_backbone("none", trainable=True)
    discriminator = build_discriminator(TrainConfig(image_size=32), encoder)
    assert discriminator.trunk is not encoder and discriminator.trunk.frozen
    assert not any(p.requires_grad for p in discriminator.trunk.parameters())
    assert all(p.requires_grad for p in encoder.parameters())
    assert torch.equal(discriminator.trunk.features[0].weight, encoder.features[0].weight)
