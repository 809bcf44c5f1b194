"""The generator: its tables of levels, any size, gradients where they belong, a start near gray;
bins and hints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from macs import count_macs
from network_tables import Level, measure_levels, trainable
from torch import Tensor, nn

from gancolor import color, presets
from gancolor.errors import ConfigError
from gancolor.models import bins, build_generator, count_parameters
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.models.generator import BinsHead, Generator, Output, widen

DOCS = Path(__file__).parents[1] / "docs" / "models.md"

POSTER = [
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
# The preset gan: the poster's up to a quarter of the size.
DEFAULT = [
    *POSTER[:9],
    Level("hints", 96, 64, 64, 146_336),
    Level("last.logits", 225, 64, 64, 21_825),
    Level("last.refine", 2, 256, 256, 11_970),
]
SETTINGS: list[tuple[int, dict[str, Any], list[Level]]] = [
    (256, {}, POSTER),
    (64, {"frozen_blocks": 3, "levels": 2, "width": 8}, SMALL),
]
BINS: dict[str, Any] = {"head": "bins", "hints": True}


@pytest.fixture(scope="module")
def encoder() -> VGG16:
    return load_backbone("none")


def on_meta(**settings: Any) -> Generator:
    """A generator without memory: shapes and counts only."""
    with torch.device("meta"):
        return Generator(VGG16().freeze(), **settings)


def table_of(generator: Generator, *inputs: Tensor) -> list[Level]:
    """The table of levels, measured on `inputs`."""
    encoder, parts = generator.encoder, []
    for tap, begin, end in zip(encoder.taps, [0, *encoder.ends], encoder.ends, strict=False):
        parts.append((tap.name, encoder.features[begin:end]))
    for name in ("contract", "expand"):
        parts += [(f"{name}.{at}", part) for at, part in enumerate(getattr(generator, name))]
    if generator.hints is not None and generator.expand:
        parts.append(("hints", generator.hints))
    if isinstance(generator.last, BinsHead):
        parts += [("last.logits", generator.last.logits), ("last.refine", generator.last.refine)]
    else:
        parts.append(("last", generator.last))
    rows = measure_levels(generator, parts, *inputs)
    if isinstance(generator.last, BinsHead):  # what the branch at full size sees is its own too
        reduced = sum(p.numel() for p in generator.last.reduce.parameters())
        rows[-1] = rows[-1]._replace(parameters=rows[-1].parameters + reduced)
    return rows


@pytest.mark.usefixtures("full_width")
@pytest.mark.parametrize(("size", "settings", "table"), SETTINGS, ids=["poster", "small"])
def test_levels_have_the_shapes_and_parameters_of_the_table(
    size: int, settings: dict[str, Any], table: list[Level]
) -> None:
    generator = on_meta(**settings)
    assert table_of(generator, torch.empty(3, 1, size, size, device="meta")) == table
    blocks = generator.encoder.blocks
    frozen = sum(row.parameters for row in table[:blocks])
    assert count_parameters(generator) == (sum(row.parameters for row in table[blocks:]), frozen)


@pytest.mark.usefixtures("full_width")
def test_parameters_and_work_of_the_posters() -> None:
    generator = on_meta()
    assert count_parameters(generator) == (9_948_434, 14_714_688)
    total = count_macs(generator, torch.empty(1, 1, 256, 256, device="meta"))
    frozen = count_macs(generator.encoder, torch.empty(1, 3, 256, 256, device="meta"))
    assert (frozen, total - frozen) == (20_044_578_816, 8_559_525_888)
    assert generator.training and not generator.encoder.training


@pytest.mark.usefixtures("full_width")
def test_levels_of_the_default_have_the_shapes_and_parameters_of_the_table() -> None:
    with torch.device("meta"):
        generator = build_generator(presets.build("gan"), VGG16().freeze())
    assert (
        isinstance(generator, Generator)
        and isinstance(generator.last, BinsHead)
        and generator.hints is not None
    )
    inputs = [torch.empty(2, n, 256, 256, device="meta") for n in (1, 3)]
    assert table_of(generator, *inputs) == DEFAULT
    assert count_parameters(generator) == (9_980_963, 14_714_688)
    assert sum(row.parameters for row in DEFAULT) == 9_980_963 + 14_714_688
    output = generator.say(*inputs)
    assert output.colors.shape == (2, 2, 256, 256)
    assert output.logits is not None and output.logits.shape == (2, 225, 64, 64)
    picture = torch.empty(1, 1, 256, 256, device="meta")
    work = (
        count_macs(generator, picture),
        count_macs(generator, picture, torch.empty(1, 3, 256, 256, device="meta")),
    )
    assert work == (25_499_664_384, 25_577_160_704)


@pytest.mark.usefixtures("full_width")
def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for table in (POSTER, SMALL, DEFAULT[6:]):
        rows = [
            f"| {row.name} | {row.channels} | {row.height} x {row.width} | {row.parameters:,} |"
            for row in table
        ]
        assert "\n".join(rows) in text
    for generator in (on_meta(), on_meta(**BINS)):
        total = count_macs(generator, torch.empty(1, 1, 256, 256, device="meta"))
        trainable, frozen = count_parameters(generator)
        for figure in (f"{total / 1e9:.1f} GMAC", f"{trainable:,} trainable", f"{frozen:,} frozen"):
            assert figure in text, figure
    assert f"{len(bins.centers())} bins" in text
    middle = (bins.centers().mean(0) * color.AB_SCALE).round().int().tolist()
    assert f"a\\*b\\* ({middle[0]}, {middle[1]})" in text


@pytest.mark.parametrize("settings", [{}, BINS], ids=["ab", "bins"])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (127, 129)])
def test_any_size_goes_in_and_comes_out(
    encoder: VGG16, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    generator = Generator(encoder, width=4, **settings).eval()
    hints = torch.zeros(2, 3, *size) if settings else None
    output = generator.say(torch.rand(2, 1, *size), hints)
    assert output.colors.shape == (2, 2, *size)
    assert output.colors.dtype == torch.float32 and bool(torch.isfinite(output.colors).all())
    if settings:
        padded = [-(-side // 32) * 8 for side in size]  # a quarter of the padded size
        assert output.logits is not None and output.logits.shape == (2, 225, *padded)
        assert output.logits.dtype == torch.float32
    else:
        assert output.logits is None


@pytest.mark.parametrize("frozen_blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [0, 1, 4])
def test_every_depth_works(encoder: VGG16, frozen_blocks: int, levels: int) -> None:
    generator = Generator(encoder, frozen_blocks=frozen_blocks, levels=levels, width=4)
    assert generator.stride == 2 ** (frozen_blocks - 1 + levels)
    out = generator(torch.rand(2, 1, 32, 32))
    assert out.shape == (2, 2, 32, 32)
    rows = table_of(generator, torch.rand(2, 1, 32, 32))
    assert [row.name for row in rows[:frozen_blocks]] == [
        tap.name for tap in VGG16.TAPS[:frozen_blocks]
    ]
    assert len(rows) == 2 * (frozen_blocks + levels)
    assert count_parameters(generator) == (
        sum(row.parameters for row in rows[frozen_blocks:]),
        sum(row.parameters for row in rows[:frozen_blocks]),
    )
    assert (
        sum(key.startswith("encoder.") for key in generator.state_dict())
        == 2 * [2, 4, 7, 10, 13][frozen_blocks - 1]
    )


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("frozen_blocks", [1, 2, 3, 5])
def test_bins_end_at_a_quarter_of_the_size(encoder: VGG16, frozen_blocks: int, levels: int) -> None:
    if frozen_blocks + levels < 3:  # there is no level of that size
        with pytest.raises(
            ConfigError, match=f"--levels must be at least {3 - frozen_blocks} with --head bins"
        ):
            presets.build("gan", frozen_blocks=frozen_blocks, levels=levels)
        presets.build("regression", frozen_blocks=frozen_blocks, levels=levels)
        return
    presets.build("gan", frozen_blocks=frozen_blocks, levels=levels)
    generator = Generator(encoder, frozen_blocks=frozen_blocks, levels=levels, width=4, **BINS)
    output = generator.say(torch.rand(2, 1, 32, 32), torch.rand(2, 3, 32, 32))
    assert output.logits is not None and output.logits.shape == (2, 225, 8, 8)
    assert len(generator.expand) == frozen_blocks + levels - 3
    rows = table_of(generator, torch.rand(2, 1, 32, 32), torch.rand(2, 3, 32, 32))
    assert sum(row.parameters for row in rows) == sum(count_parameters(generator))
    expanding = [row for row in rows if row.name.startswith("expand")]
    assert all((row.height, row.width) == (8, 8) for row in expanding[-1:])


@pytest.mark.usefixtures("full_width")
def test_the_skips_carry_detail() -> None:
    """A change of one pixel changes the output there, through the finest skip, although the
    bottleneck is coarse.
    """
    generator = Generator(load_backbone("none"), width=4).eval()
    picture = torch.full((1, 1, 64, 64), 0.5)
    changed = picture.clone()
    changed[..., 20, 40] = 1.0
    difference = (generator(changed) - generator(picture)).abs().sum(1)[0].detach()
    near = difference[18:23, 38:43].mean()
    assert float(near) > 5 * float(difference.mean())


@pytest.mark.usefixtures("full_width")
def test_starts_near_gray_but_not_dead() -> None:
    torch.manual_seed(0)
    out = Generator(load_backbone("none"))(torch.rand(4, 1, 64, 64)).detach()
    assert 1e-4 < float(out.std()) < 0.03  # 110 times that in a*b*


@pytest.mark.usefixtures("full_width")
def test_bins_start_undecided() -> None:
    torch.manual_seed(0)
    output = Generator(load_backbone("none"), **BINS).say(torch.rand(4, 1, 64, 64))
    assert output.logits is not None
    assert float(bins.confidence(output.logits).detach().max()) < 0.01
    middle = bins.centers().mean(0)[None, :, None, None]
    away = (output.colors.detach() - middle).abs() * color.AB_SCALE
    assert 1e-2 < float(away.mean()) < 2


@pytest.mark.parametrize("settings", [{}, BINS], ids=["ab", "bins"])
def test_frozen_encoder_learns_nothing_and_the_rest_all(
    encoder: VGG16, settings: dict[str, Any]
) -> None:
    generator = Generator(encoder, width=4, **settings).train()
    assert not generator.encoder.training
    hints = torch.rand(2, 3, 64, 64) if settings else None
    generator(torch.rand(2, 1, 64, 64), hints).square().mean().backward()
    own = trainable(generator)
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in own)
    assert all(p.grad is None for p in generator.encoder.parameters())


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
    assert any(p is first for p in trainable(generator))
    assert all(p.grad is not None for p in trainable(generator))


def test_channels_last_is_kept(encoder: VGG16) -> None:
    generator = Generator(encoder, width=4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    formats = []
    for part in (*generator.contract, *generator.expand):
        part.register_forward_hook(
            lambda module, inputs, output: formats.append(
                output.is_contiguous(memory_format=torch.channels_last)
            )
        )
    generator(torch.rand(2, 1, 64, 64).to(memory_format=torch.channels_last))
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert formats == [True] * 6


@pytest.mark.slow
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


@pytest.mark.slow
def test_bins_are_in_float32_under_autocast(encoder: VGG16) -> None:
    generator = Generator(encoder, width=8, **BINS).eval()
    assert isinstance(generator.last, BinsHead)
    nn.init.normal_(generator.last.logits.weight, std=0.05)
    condition = torch.rand(1, 1, 64, 64)
    exact = generator(condition).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = generator.say(condition)
    assert rounded.colors.dtype == torch.float32
    assert rounded.logits is not None and rounded.logits.dtype == torch.float32
    error = (rounded.colors.detach() - exact).abs().mean() / exact.std()
    assert float(error) < 0.05


def test_pictures_of_a_batch_are_independent_in_eval(encoder: VGG16) -> None:
    generator = vivid(encoder)
    condition, hints = torch.rand(3, 1, 64, 64), torch.zeros(3, 3, 64, 64)
    hints[1, :, 8:16, 8:16] = torch.tensor([0.5, -0.3, 1.0])[:, None, None]
    together = generator.say(condition, hints)
    alone = generator.say(condition[1:2], hints[1:2])
    assert together.logits is not None and alone.logits is not None
    torch.testing.assert_close(together.colors[1:2], alone.colors, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-3, rtol=1e-3)


def vivid(encoder: VGG16, **settings: Any) -> Generator:
    """A generator with bins that has opinions, in eval."""
    torch.manual_seed(0)
    generator = Generator(encoder, width=4, **{**BINS, **settings}).eval()
    assert isinstance(generator.last, BinsHead)
    nn.init.normal_(generator.last.logits.weight, std=0.5)
    return generator


@pytest.mark.parametrize("settings", [{}, {"head": "ab", "hints": False}, {"levels": 2}], ids=str)
def test_a_widened_generator_says_the_same_and_its_new_channels_learn(
    encoder: VGG16, settings: dict[str, Any]
) -> None:
    narrow = Generator(encoder, width=4, **{**BINS, **settings})
    wide = Generator(encoder, width=6, **{**BINS, **settings})
    with torch.no_grad():
        for parameter in trainable(narrow):
            parameter.add_(0.05 * torch.randn_like(parameter))
    wide.load_state_dict(widen(narrow.state_dict(), wide))
    condition, hints = torch.rand(2, 1, 64, 96), torch.zeros(2, 3, 64, 96)
    hints[:, :, 20:24, 30:34] = 0.5
    known = hints if narrow.hints is not None else None
    assert torch.equal(narrow.eval()(condition, known), wide.eval()(condition, known))
    wide.train().say(condition, known).colors.square().mean().backward()
    second = wide.expand[1][0].weight  # of the channels below, of which the first are the old ones
    old = narrow.expand[1][0].out_channels
    new = slice(narrow.widths[0], wide.widths[0])
    assert second.grad is not None and second.grad[:, new].abs().sum() > 0
    assert second[:old, new].abs().sum() == 0


def test_what_cannot_be_widened_is_refused_by_the_network(encoder: VGG16) -> None:
    wide, narrow = (Generator(encoder, width=width) for width in (6, 4))
    with pytest.raises(RuntimeError):
        narrow.load_state_dict(widen(wide.state_dict(), narrow))


def annealed(generator: Generator, output: Output) -> Tensor:
    """The colours of the bins alone, at the padded full size."""
    assert output.logits is not None
    mean = bins.decode(output.logits, generator.temperature)
    return nn.functional.interpolate(mean, scale_factor=4.0, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_colours_are_the_annealed_mean_of_the_bins_refined(encoder: VGG16) -> None:
    generator = vivid(encoder)
    assert isinstance(generator.last, BinsHead)
    condition = torch.rand(1, 1, 50, 70)
    output = generator.say(condition)
    whole = annealed(generator, output)
    _, (rows, columns) = generator.pad(condition)
    moved = output.colors - whole[..., rows, columns]
    assert 0 < float(moved.abs().max()) <= 2 * BinsHead.REACH
    nn.init.zeros_(generator.last.refine[-1].weight)
    torch.testing.assert_close(generator(condition), whole[..., rows, columns])


@torch.no_grad()
def test_the_branch_at_full_size_moves_no_mean(encoder: VGG16) -> None:
    generator = vivid(encoder)
    assert isinstance(generator.last, BinsHead)
    condition = torch.rand(1, 1, 64, 64)
    plain = annealed(generator, generator.say(condition))
    nn.init.normal_(generator.last.refine[-1].weight, std=0.5)  # a branch that changes much
    moved = generator(condition) - plain
    assert float(moved.abs().max()) > 0.1
    assert float(moved.mean().abs()) < 0.05 * float(moved.abs().mean())
    # as far as it can, and alike everywhere
    nn.init.constant_(generator.last.refine[-1].bias, 100.0)
    torch.testing.assert_close(generator(condition), plain)


@torch.no_grad()
def test_a_lower_temperature_is_more_vivid_and_the_networks_own_is_the_default(
    encoder: VGG16,
) -> None:
    generator = vivid(encoder, temperature=0.2)
    condition = torch.rand(1, 1, 64, 64)
    own = generator.say(condition)
    assert torch.equal(own.colors, generator.say(condition, temperature=0.2).colors)
    shades = [generator.say(condition, temperature=t) for t in (0.1, 0.38, 1.0, 2.0)]
    assert all(
        output.logits is not None and torch.equal(output.logits, own.logits) for output in shades
    )
    middle = bins.centers().mean(0)[None, :, None, None]
    strength = [float((output.colors - middle).norm(dim=1).mean()) for output in shades]
    assert strength == sorted(strength, reverse=True) and strength[0] > 1.5 * strength[-1]


@torch.no_grad()
def test_hints_are_answered_again_without_looking_again(encoder: VGG16) -> None:
    torch.manual_seed(0)
    generator = Generator(encoder, **BINS).eval()
    condition, looks = torch.rand(1, 1, 50, 70), []
    handle = generator.encoder.register_forward_hook(lambda *given: looks.append(1))
    looked = generator.look(condition)
    for hints in (None, torch.zeros(1, 3, 50, 70), torch.rand(1, 3, 50, 70).round()):
        again = generator.answer(looked, hints, 0.5)
        assert sum(looks) == 1
        handle.remove()
        whole = generator.say(condition, hints, 0.5)
        assert torch.equal(again.colors, whole.colors) and torch.equal(again.logits, whole.logits)


@torch.no_grad()
@pytest.mark.parametrize("settings", [BINS, {"hints": True}], ids=["bins", "ab"])
def test_no_map_of_hints_is_an_empty_one_exactly(encoder: VGG16, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    generator = Generator(encoder, width=4, **settings).eval()
    condition = torch.rand(2, 1, 50, 70)
    without, empty = generator.say(condition), generator.say(condition, torch.zeros(2, 3, 50, 70))
    assert torch.equal(without.colors, empty.colors)
    if without.logits is not None:
        assert empty.logits is not None and torch.equal(without.logits, empty.logits)
    with pytest.raises(ValueError, match="takes none"):
        Generator(encoder, width=4).say(condition, torch.zeros(2, 3, 50, 70))


@torch.no_grad()
def test_a_hint_changes_the_colours_near_it_most(encoder: VGG16) -> None:
    generator = vivid(encoder, levels=0)
    condition = torch.full((1, 1, 128, 128), 0.5)
    hints = torch.zeros(1, 3, 128, 128)
    hints[0, :, 40:49, 90:99] = torch.tensor([0.6, 0.4, 1.0])[:, None, None]
    plain, hinted = generator.say(condition), generator.say(condition, hints)
    change = (hinted.colors - plain.colors).norm(dim=1)[0]
    near, far = change[36:53, 86:103].mean(), change[:, :40].mean()
    assert float(near) > 0.01 and float(near) > 4 * float(far)
    hints[0, :2] *= -1
    # the colour counts
    assert not torch.allclose(generator.say(condition, hints).colors, hinted.colors, atol=1e-3)


def test_from_edges_bins_say_a_lightness_too(encoder: VGG16) -> None:
    generator = Generator(encoder, width=4, out_channels=3, **BINS)
    output = generator.say(torch.rand(2, 1, 33, 40).round())
    assert (
        output.colors.shape == (2, 3, 33, 40)
        and output.logits is not None
        and output.logits.shape[1] == 225
    )
    output.colors[:, 0].square().mean().backward()
    assert isinstance(generator.last, BinsHead)
    gradient = generator.last.refine[-1].weight.grad
    assert gradient is not None and bool(gradient[0].any()) and not gradient[1:].any()


def test_builder_follows_the_config(encoder: VGG16) -> None:
    config = presets.build("poster", condition="edges", frozen_blocks=2, levels=1, width=4)
    generator = build_generator(config, encoder)
    assert isinstance(generator, Generator) and generator.stride == 4 and generator.hints is None
    assert generator(torch.rand(2, 1, 8, 8)).shape == (2, 3, 8, 8)
    plain = build_generator(presets.build("poster"), encoder).last
    assert isinstance(plain, nn.Conv2d) and plain.out_channels == 2
    default = build_generator(presets.build("gan", temperature=0.7, width=4), encoder)
    assert isinstance(default, Generator) and isinstance(default.last, BinsHead)
    assert (default.temperature, default.finest) == (0.7, 4) and default.hints is not None
    assert build_generator(presets.build("gan", hints=0.0, width=4), encoder).hints is None
    for head in ("ab", "bins"):
        edges = build_generator(
            presets.build("gan", head=head, condition="edges", width=4), encoder
        )
        assert edges(torch.rand(2, 1, 32, 32)).shape == (2, 3, 32, 32)
