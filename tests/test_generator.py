"""The generator: its table of levels, any size, gradients where they belong, a start near gray."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gancolor.config import TrainConfig
from gancolor.models import build_generator, count_macs, count_parameters
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.models.generator import Generator, Level

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
pytestmark = pytest.mark.full_width

DEFAULT = [
    Level("relu1_2", 64, 256, 256, 38_720),
    Level("relu2_2", 128, 128, 128, 221_440),
    Level("relu3_3", 256, 64, 64, 1_475_328),
    Level("relu4_3", 512, 32, 32, 5_899_776),
    Level("relu5_3", 512, 16, 16, 7_079_424),
    Level("contract.0", 512, 8, 8, 4_720_640),
    Level("expand.0", 256, 16, 16, 2_950_144),
    Level("expand.1", 192, 32, 32, 1_659_648),
    Level("expand.2", 96, 64, 64, 470_400),
    Level("expand.3", 48, 128, 128, 117_696),
    Level("expand.4", 24, 256, 256, 29_472),
    Level("last", 2, 256, 256, 434),
]
SMALL = [
    Level("relu1_2", 64, 64, 64, 38_720),
    Level("relu2_2", 128, 32, 32, 221_440),
    Level("relu3_3", 256, 16, 16, 1_475_328),
    Level("contract.0", 512, 8, 8, 3_540_992),
    Level("contract.1", 512, 4, 4, 4_720_640),
    Level("expand.0", 64, 8, 8, 626_944),
    Level("expand.1", 32, 16, 16, 101_504),
    Level("expand.2", 16, 32, 32, 25_408),
    Level("expand.3", 8, 64, 64, 6_368),
    Level("last", 2, 64, 64, 146),
]
SETTINGS = [(256, {}, DEFAULT), (64, {"frozen_blocks": 3, "levels": 2, "width": 8}, SMALL)]


@pytest.fixture(scope="module")
def encoder() -> VGG16:
    return load_backbone("none")


def on_meta(**settings: int) -> Generator:
    """A generator without memory: shapes and counts only."""
    with torch.device("meta"):
        return Generator(VGG16().freeze(), **settings)


@pytest.mark.parametrize(("size", "settings", "table"), SETTINGS, ids=["default", "small"])
def test_levels_have_the_shapes_and_parameters_of_the_table(
    size: int, settings: dict[str, int], table: list[Level]
) -> None:
    generator = on_meta(**settings)
    assert generator.level_shapes(size, size) == table
    seen: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(tuple(output.shape[1:]))

    encoder, blocks = generator.encoder, generator.encoder.blocks
    generator.encoder.register_forward_hook(lambda module, inputs, maps: seen.extend(tuple(m.shape[1:]) for m in maps))
    for part in (*generator.contract, *generator.expand, generator.last):
        part.register_forward_hook(note)
    generator(torch.empty(3, 1, size, size, device="meta"))
    assert seen == [(row.channels, row.height, row.width) for row in table]
    frozen = sum(row.parameters for row in table[:blocks])
    assert count_parameters(generator) == (sum(row.parameters for row in table[blocks:]), frozen)
    assert sum(p.numel() for p in encoder.parameters()) == frozen


def test_parameters_and_work_of_the_default() -> None:
    generator = on_meta()
    assert count_parameters(generator) == (9_948_434, 14_714_688)
    total = count_macs(generator, torch.empty(1, 1, 256, 256, device="meta"))
    frozen = count_macs(generator.encoder, torch.empty(1, 3, 256, 256, device="meta"))
    assert (frozen, total - frozen) == (20_044_578_816, 8_559_525_888)
    assert generator.training and not generator.encoder.training


def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for _, _, table in SETTINGS:
        rows = [f"| {row.name} | {row.channels} | {row.height} x {row.width} | {row.parameters:,} |" for row in table]
        assert "\n".join(rows) in text
    total = count_macs(on_meta(), torch.empty(1, 1, 256, 256, device="meta"))
    trainable, frozen = count_parameters(on_meta())
    for figure in (f"{total / 1e9:.1f} GMAC", f"{trainable:,} trainable", f"{frozen:,} frozen"):
        assert figure in text, figure


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (255, 257)])
def test_any_size_goes_in_and_comes_out(encoder: VGG16, size: tuple[int, int]) -> None:
    generator = Generator(encoder, width=4).eval()
    out = generator(torch.rand(2, 1, *size))
    assert out.shape == (2, 2, *size)
    assert out.dtype == torch.float32 and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("frozen_blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [0, 1, 4])
def test_every_depth_works(encoder: VGG16, frozen_blocks: int, levels: int) -> None:
    generator = Generator(encoder, frozen_blocks=frozen_blocks, levels=levels, width=4)
    assert generator.stride == 2 ** (frozen_blocks - 1 + levels)
    out = generator(torch.rand(2, 1, 32, 32))
    assert out.shape == (2, 2, 32, 32)
    rows = generator.level_shapes(32, 32)
    assert [row.name for row in rows[:frozen_blocks]] == [tap.name for tap in VGG16.TAPS[:frozen_blocks]]
    assert len(rows) == 2 * (frozen_blocks + levels)
    assert count_parameters(generator) == (
        sum(row.parameters for row in rows[frozen_blocks:]),
        sum(row.parameters for row in rows[:frozen_blocks]),
    )
    assert sum(key.startswith("encoder.") for key in generator.state_dict()) == 2 * [2, 4, 7, 10, 13][frozen_blocks - 1]


def test_the_skips_carry_detail(encoder: VGG16) -> None:
    """A change of one pixel changes the output there, through the finest skip, although the bottleneck is coarse."""
    generator = Generator(encoder, width=4).eval()
    picture = torch.full((1, 1, 64, 64), 0.5)
    changed = picture.clone()
    changed[..., 20, 40] = 1.0
    difference = (generator(changed) - generator(picture)).abs().sum(1)[0].detach()
    near = difference[18:23, 38:43].mean()
    assert float(near) > 5 * float(difference.mean())


def test_starts_near_gray_but_not_dead(encoder: VGG16) -> None:
    torch.manual_seed(0)
    out = Generator(encoder)(torch.rand(4, 1, 64, 64)).detach()
    assert 1e-4 < float(out.std()) < 0.03  # 110 times that in a*b*


def test_frozen_encoder_learns_nothing_and_the_rest_all(encoder: VGG16) -> None:
    generator = Generator(encoder, width=4).train()
    assert not generator.encoder.training
    generator(torch.rand(2, 1, 64, 64)).square().mean().backward()
    own = generator.trainable_parameters()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in own)
    assert all(p.grad is None for p in generator.encoder.parameters())
    assert len(own) == len([p for p in generator.parameters() if p.requires_grad])


def test_frozen_encoder_builds_no_graph(encoder: VGG16) -> None:
    generator = Generator(encoder, width=4)
    maps: list[Tensor] = []
    generator.encoder.register_forward_hook(lambda module, inputs, output: maps.extend(output))
    generator(torch.rand(2, 1, 32, 32, requires_grad=True))
    generator.encoder._forward_hooks.clear()
    assert len(maps) == 5 and all(features.grad_fn is None for features in maps)


def test_trainable_encoder_learns() -> None:
    generator = Generator(load_backbone("none", trainable=True), frozen_blocks=2, width=4)
    generator(torch.rand(2, 1, 16, 16)).square().mean().backward()
    first = generator.encoder.features[0].weight
    assert first.grad is not None and float(first.grad.abs().sum()) > 0
    assert any(p is first for p in generator.trainable_parameters())
    assert all(p.grad is not None for p in generator.trainable_parameters())


def test_channels_last_is_kept(encoder: VGG16) -> None:
    generator = Generator(encoder, width=4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    formats = []
    for part in (*generator.contract, *generator.expand):
        part.register_forward_hook(
            lambda module, inputs, output: formats.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    generator(torch.rand(2, 1, 64, 64).to(memory_format=torch.channels_last))
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert formats == [True] * 6


def test_autocast_and_a_bfloat16_encoder_change_little() -> None:
    generator = Generator(load_backbone("none"), width=8).eval()
    nn.init.normal_(generator.last.weight, std=0.05)
    condition = torch.rand(1, 1, 64, 64)
    exact = generator(condition).detach()
    generator.encoder.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = generator(condition).detach()
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().mean() / exact.std()) < 0.05


def test_builder_follows_the_config(encoder: VGG16) -> None:
    config = TrainConfig(condition="edges", frozen_blocks=2, levels=1, width=4)
    generator = build_generator(config, encoder)
    assert generator.stride == 4
    assert generator(torch.rand(2, 1, 8, 8)).shape == (2, 3, 8, 8)
    assert build_generator(TrainConfig(), encoder).last.out_channels == 2
