"""The discriminators: poster's units and maps of patches; gradients to the picture, an undecided
start.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from macs import count_macs
from network_tables import trainable
from torch import Tensor, nn

from gancolor import color, presets
from gancolor.errors import ConfigError
from gancolor.models import (
    Discriminator,
    PatchDiscriminator,
    Seen,
    build_discriminator,
    build_generator,
    count_parameters,
)
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.training.state import State

DOCS = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.fixture(scope="module")
def trunk() -> VGG16:
    return load_backbone("none")


def on_meta(size: int) -> Discriminator:
    with torch.device("meta"):
        return Discriminator(VGG16().freeze(), size=size)


def seen(rgb: Tensor) -> Seen:
    """A picture as a discriminator gets it."""
    return (
        Seen(rgb, torch.cat(color.split(rgb), 1)) if rgb.device.type != "meta" else Seen(rgb, rgb)
    )


def logits(discriminator: Discriminator, rgb: Tensor) -> Tensor:
    """One logit a picture; two batches of it make one, so that BatchNorm sees each picture twice."""
    features = discriminator.features(seen(rgb))
    return discriminator.judge(features, features)[0][0]


@pytest.mark.usefixtures("full_width")
@pytest.mark.parametrize(
    ("size", "flat"), [(256, 8192), (128, 2048), (96, 2048), (64, 512), (32, 512)]
)
def test_shapes_are_the_posters(size: int, flat: int) -> None:
    discriminator = on_meta(size)
    picture = torch.empty(2, 3, size, size, device="meta")
    last = torch.nn.functional.max_pool2d(discriminator.trunk(picture)[-1], 2)
    assert last.shape == (2, 512, size // 32, size // 32)
    (vector,) = discriminator.features(seen(picture))
    assert vector.shape == (2, flat)
    real, fake = discriminator.judge([vector], [vector])
    assert [x.shape for x in (*real, *fake)] == [(2,), (2,)]


@pytest.mark.slow
def test_features_are_the_last_ones_pooled_and_all_taps_adds_their_means(trunk: VGG16) -> None:
    rgb = torch.rand(2, 3, 128, 128)
    taps = trunk(rgb)
    last = F.max_pool2d(F.max_pool2d(taps[-1], 2), 2).flatten(1)
    means = torch.cat([tap.mean((2, 3)) for tap in taps], 1)
    torch.testing.assert_close(Discriminator(trunk, size=128).features(seen(rgb)), [last])
    both = Discriminator(trunk, size=128, all_taps=True)
    torch.testing.assert_close(both.features(seen(rgb)), [torch.cat([last, means], 1)])
    assert both.width == last.shape[1] + means.shape[1]
    assert logits(both, rgb).shape == (2,)


@pytest.mark.usefixtures("full_width")
def test_parameters_and_work() -> None:
    discriminator = on_meta(256)
    kinds = [type(layer).__name__ for layer in discriminator.head]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"] * 3 + ["Linear"]
    assert count_parameters(discriminator) == (4_360_065, 14_714_688)
    assert count_parameters(on_meta(128)) == (1_214_337, 14_714_688)
    assert [macs_of(size) for size in (256, 128)] == [20_048_937_088, 5_012_357_248]


def macs_of(size: int) -> int:
    """The work of one picture: the trunk's and the units'."""
    discriminator = on_meta(size)
    trunk = count_macs(discriminator.trunk, torch.empty(1, 3, size, size, device="meta"))
    return trunk + count_macs(
        discriminator.head, torch.empty(1, discriminator.width, device="meta")
    )


@pytest.mark.usefixtures("full_width")
def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for size in (256, 128):
        side = size // 32
        trainable, _ = count_parameters(on_meta(size))
        work = f"{macs_of(size) / 1e9:.1f}"
        row = (
            f"| {size} | 512 x {side} x {side} | {512 * (side // 2) ** 2:,} | {trainable:,} |"
            f" {work} |"
        )
        assert row in text


def test_gradient_reaches_the_picture_and_the_head_alone(trunk: VGG16) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8,))
    rgb = torch.rand(3, 3, 32, 32, requires_grad=True)
    logits(discriminator, rgb).sigmoid().sum().backward()
    assert rgb.grad is not None and all(float(g.abs().sum()) > 0 for g in rgb.grad)
    assert all(p.grad is not None for p in discriminator.head.parameters())
    assert all(p.grad is None for p in discriminator.trunk.parameters())
    assert len(trainable(discriminator)) == len(list(discriminator.head.parameters()))


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (20, 24)])
def test_other_sizes_are_resized_without_aliasing(trunk: VGG16, shape: tuple[int, int]) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8,)).eval()
    given: list[Tensor] = []
    handle = trunk.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    rows, columns = torch.arange(shape[0]) % 2, torch.arange(shape[1]) % 2
    checkers = (rows[:, None] ^ columns).float().expand(1, 3, *shape).clone().requires_grad_()
    discriminator.features(Seen(checkers, checkers))[0].sum().backward()
    handle.remove()
    assert given[0].shape == (1, 3, 32, 32)
    assert checkers.grad is not None and bool(torch.isfinite(checkers.grad).all())
    if min(shape) > 32:  # the finest pattern averages out
        assert float((given[0].detach() - 0.5).abs().mean()) < 0.15
    if shape == (64, 64):
        assert float((given[0].detach() - 0.5).abs().max()) < 1e-6


def test_starts_undecided_and_depends_on_the_picture(trunk: VGG16) -> None:
    torch.manual_seed(0)
    verdicts = logits(Discriminator(trunk, size=64), torch.rand(8, 3, 64, 64)).detach()
    assert verdicts.shape == (8,) and verdicts.dtype == torch.float32
    assert 0 < float(verdicts.std()) and float(verdicts.abs().max()) < 0.2


@pytest.mark.slow
def test_real_and_fake_are_judged_in_one_batch_and_in_order(trunk: VGG16) -> None:
    discriminator = Discriminator(trunk, size=32, units=(8, 4), dropout=0.0).train()
    real, fake = (discriminator.features(seen(torch.rand(3, 3, 32, 32))) for _ in range(2))
    joined = discriminator.head(torch.cat([real[0], fake[0]])).squeeze(1)
    first, second = discriminator.judge(real, fake)
    torch.testing.assert_close(torch.cat([*first, *second]), joined)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            discriminator.judge(discriminator.features(seen(torch.rand(3, 3, 32, 32))), fake)[0][
                0
            ].dtype
            == torch.float32
        )


def test_units_learn_to_tell_two_sets_apart(trunk: VGG16) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(trunk, size=32, units=(16,), dropout=0.0).train()
    with torch.no_grad():
        smooth = discriminator.features(seen(torch.rand(16, 3, 1, 1).expand(-1, -1, 32, 32)))
        noisy = discriminator.features(seen(torch.rand(16, 3, 32, 32)))
    optimizer = torch.optim.Adam(trainable(discriminator), lr=1e-2)
    terms = []
    for _ in range(40):
        optimizer.zero_grad()
        (real,), (fake,) = discriminator.judge(smooth, noisy)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        loss.backward()
        optimizer.step()
        terms.append(loss.item())
    assert terms[0] == pytest.approx(2 * math.log(2), abs=0.05)  # chance
    assert terms[-1] < 0.8


def test_too_small_or_too_shallow_is_refused(trunk: VGG16) -> None:
    for kind in (Discriminator, PatchDiscriminator):
        with pytest.raises(ConfigError, match="32 or more, got 31"):
            kind(trunk, size=31)
    with pytest.raises(ValueError, match="5 blocks, got 4"):
        Discriminator(trunk.trim(4))


def test_builder_follows_the_config_and_shares_the_trunk(trunk: VGG16) -> None:
    config = presets.build("poster", image_size=64, discriminator_units=(8, 4), dropout=0.25)
    discriminator = build_discriminator(config, trunk)
    assert isinstance(discriminator, Discriminator)
    assert discriminator.trunk is trunk and build_generator(config, trunk).encoder is trunk
    assert discriminator.size == 64
    assert [layer.p for layer in discriminator.head if isinstance(layer, nn.Dropout)] == [
        0.25,
        0.25,
    ]
    assert build_discriminator(presets.build("poster", discriminator_size=128), trunk).size == 128
    for taps in ("all", "last"):
        other = build_discriminator(presets.build("poster", discriminator_taps=taps), trunk)
        assert isinstance(other, Discriminator) and other.all_taps == (taps == "all")
    for augment in (True, False):
        patches = build_discriminator(
            presets.build("gan", image_size=64, discriminator_augment=augment), trunk
        )
        assert isinstance(patches, PatchDiscriminator) and patches.trunk is trunk
        assert (patches.size, patches.augment) == (64, augment)
    assert build_discriminator(presets.build("gan", discriminator_size=100), trunk).size == 100


@pytest.mark.parametrize(
    ("image_size", "judged"), [(32, 32), (96, 96), (128, 96), (256, 96), (512, 192)]
)
def test_patches_see_large_pictures_reduced(image_size: int, judged: int) -> None:
    assert presets.build("gan", image_size=image_size).judged_size == judged
    assert presets.build("poster", image_size=image_size).judged_size == image_size


@pytest.mark.parametrize("preset", ["poster", "gan"])
def test_trunk_stays_frozen_when_the_encoder_trains(preset: str) -> None:
    config = presets.build(
        preset, image_size=32, width=4, train_backbone=True, backbone_weights="none", device="cpu"
    )
    state = State(config, torch.device("cpu"))
    assert state.discriminator is not None
    encoder, trunk = state.generator.encoder, state.discriminator.trunk
    assert trunk is not encoder and trunk.frozen and not trunk.training
    assert not any(p.requires_grad for p in trunk.parameters())
    assert all(p.requires_grad for p in encoder.parameters())
    assert torch.equal(trunk.features[0].weight, encoder.features[0].weight)
    assert trunk.features[0].weight.data_ptr() != encoder.features[0].weight.data_ptr()


# --- patches ---

MAPS = [  # name, channels, side of its logits at 256, trainable parameters
    ("ab", 3, 64, 75_713),
    ("relu2_2", 128, 64, 73_921),
    ("relu3_3", 256, 32, 73_921),
    ("relu4_3", 512, 16, 73_921),
]


@pytest.fixture(scope="module")
def patches(trunk: VGG16) -> PatchDiscriminator:
    """Read only, but for its constants."""
    torch.manual_seed(0)
    return PatchDiscriminator(trunk, size=64).eval()


@pytest.fixture
def whole(full_width: None) -> PatchDiscriminator:
    """With all channels."""
    return PatchDiscriminator(load_backbone("none"), size=64).eval()


def test_patches_have_the_maps_of_the_table(whole: PatchDiscriminator) -> None:
    assert whole.names == tuple(name for name, *_ in MAPS)
    assert [layer.in_channels for layer in whole.head.project] == [
        channels for _, channels, *_ in MAPS[1:]
    ]
    assert [layer.out_channels for layer in whole.head.project] == [64, 64, 64]
    own = [sum(p.numel() for p in head.parameters()) for head in whole.head.maps]
    assert own == [parameters for *_, parameters in MAPS]
    assert count_parameters(whole) == (297_476, 14_714_688 + 57_344)
    features = whole.features(seen(torch.rand(2, 3, 64, 64)))
    assert [tuple(x.shape[1:]) for x in features] == [
        (3, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
    ]
    for maps in whole.judge(features, features):
        assert [tuple(x.shape) for x in maps] == [
            (2, 1, side // 4, side // 4) for _, _, side, _ in MAPS
        ]
        assert all(x.dtype == torch.float32 for x in maps)


def test_documentation_holds_the_same_numbers_of_patches(whole: PatchDiscriminator) -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = [
        f"| {name} | {channels} | {side} x {side} | {count:,} |"
        for name, channels, side, count in MAPS
    ]
    places = iter(text.splitlines())
    assert all(any(line.startswith(row) for line in places) for row in rows)  # in that order
    trainable, frozen = count_parameters(whole)
    features = [
        torch.empty(1, n, 256 // s, 256 // s) for n, s in ((3, 1), (128, 2), (256, 4), (512, 8))
    ]
    blocks = count_macs(whole.trunk.trim(4), torch.empty(1, 3, 64, 64)) * 16
    for figure in (
        f"{trainable:,} trainable",
        f"{sum(p.numel() for p in whole.head.project.parameters()):,} fixed",
        f"{blocks / 1e9:.1f} GMAC",
        f"{count_macs(whole.head, features) / 1e9:.1f} GMAC",
    ):
        assert figure in text, figure
    assert frozen == 14_714_688 + 57_344


def test_patches_look_at_four_blocks_only(trunk: VGG16) -> None:
    passed: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_: passed.append(1)) for layer in (trunk.features[24],)
    ]
    PatchDiscriminator(trunk, size=32).features(seen(torch.rand(1, 3, 32, 32)))
    handles[0].remove()
    assert not passed  # conv5_1


def test_gradients_of_patches_reach_the_picture_and_the_heads_alone(trunk: VGG16) -> None:
    discriminator = PatchDiscriminator(trunk, size=32)
    rgb, lab = (torch.rand(2, 3, 32, 32, requires_grad=True) for _ in range(2))
    features = discriminator.features(Seen(rgb, lab))
    torch.stack([x.mean() for x in discriminator.judge(features, features)[0]]).sum().backward()
    assert rgb.grad is not None and all(float(g.abs().sum()) > 0 for g in rgb.grad)
    assert lab.grad is not None and all(float(g.abs().sum()) > 0 for g in lab.grad)
    trained = trainable(discriminator)
    assert trained and all(p.grad is not None for p in trained)
    others = [p for p in discriminator.parameters() if not p.requires_grad]
    assert others and all(p.grad is None for p in others)


def test_patches_start_undecided(patches: PatchDiscriminator) -> None:
    patches.measure(seen(torch.rand(4, 3, 64, 64)))
    features = patches.features(seen(torch.rand(2, 3, 64, 64)))
    for x in patches.judge(features, features)[0]:
        # the spectral norm's bound
        assert 0 < float(x.detach().std()) and float(x.detach().abs().max()) < 1.5


def test_pictures_are_judged_one_by_one(patches: PatchDiscriminator) -> None:
    features = patches.features(seen(torch.rand(3, 3, 64, 64)))
    real, fake = patches.judge(features, [x.flip(0) for x in features])
    for r, f in zip(real, fake, strict=True):
        torch.testing.assert_close(r, f.flip(0), atol=1e-5, rtol=1e-4)
    alone, _ = patches.judge([x[:1] for x in features], [x[:1] for x in features])
    for r, a in zip(real, alone, strict=True):
        torch.testing.assert_close(r[:1], a, atol=1e-5, rtol=1e-4)


def test_the_scale_of_the_weights_file_means_nothing(patches: PatchDiscriminator) -> None:
    """VGG16 goes around with features of very different size; what is measured makes them one."""
    pictures, other = seen(torch.rand(4, 3, 64, 64)), seen(torch.rand(2, 3, 64, 64))
    patches.measure(pictures)
    before = patches.features(other)
    verdicts = patches.judge(before, before)[0]
    first = patches.trunk.features[0]
    with torch.no_grad():
        first.weight.mul_(100)  # its bias and all others are zero, so every tap is 100 times larger
        first.bias.mul_(100)
    try:
        unmeasured = patches.features(other)
        patches.measure(pictures)
        after = patches.features(other)
    finally:
        with torch.no_grad():
            first.weight.div_(100)
            first.bias.div_(100)
    patches.measure(pictures)
    for a, b, c in zip(before[1:], after[1:], unmeasured[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(a, c, atol=1.0)
    for a, b in zip(verdicts, patches.judge(after, after)[0], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_measured_features_have_mean_0_and_no_channel_is_louder_than_1(
    patches: PatchDiscriminator,
) -> None:
    pictures = seen(torch.rand(6, 3, 64, 64))
    patches.measure(pictures)
    again = [x.clone() for x in (*patches.head.means, *patches.head.scales)]
    patches.measure(pictures)  # not of what it has normalized already
    assert all(
        torch.equal(a, b)
        for a, b in zip(again, (*patches.head.means, *patches.head.scales), strict=True)
    )
    for x in patches.features(pictures):
        assert float(x.mean((0, 2, 3)).abs().max()) < 1e-3
        deviation = x.std((0, 2, 3))
        assert 0.5 < float(deviation.max()) < 1.001
    kept = set(patches.head.state_dict())
    assert {
        f"{name}_{at}" for name in ("mean", "scale") for at in range(4)
    } <= kept  # they travel with the checkpoint


def test_projections_are_fixed_and_mix_deeper_taps_into_finer_ones(
    patches: PatchDiscriminator,
) -> None:
    features = [x.clone() for x in patches.features(seen(torch.rand(1, 3, 64, 64)))]
    before = patches.head(features)
    features[3] += 5
    deepest = patches.head(features)
    changed = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, deepest, strict=True)]
    assert changed == [False, True, True, True]
    features[3] -= 5
    features[1] += 5
    finest = patches.head(features)
    assert [not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, finest, strict=True)] == [
        False,
        True,
        False,
        False,
    ]


def test_distortion_moves_a_pair_alike_and_keeps_colours(trunk: VGG16) -> None:
    torch.manual_seed(3)
    discriminator = PatchDiscriminator(trunk, size=32)
    rgb = torch.rand(8, 3, 64, 48)
    real = seen(rgb)
    moved, other = discriminator.distort(
        real, Seen(rgb + 0.25, real.lab + 0.125), torch.rand(len(rgb), 4)
    )
    gray = float(color.gray(torch.zeros(1, 1, 1, 1)))
    whole = rgb.permute(0, 2, 3, 1)
    places = set()
    for at in range(8):
        cut = (moved.rgb[at] - gray).abs().amax(0) < 1e-6
        assert torch.equal(cut, (moved.lab[at] == 0).all(0))  # the same piece in both, gray in both
        assert torch.equal(cut, (other.rgb[at] - gray).abs().amax(0) < 1e-6)
        assert 0 < int(cut.sum()) <= 16 * 12
        assert torch.allclose(
            other.rgb[at][:, ~cut] - moved.rgb[at][:, ~cut], torch.tensor(0.25), atol=1e-6
        )
        assert torch.allclose(
            other.lab[at][:, ~cut] - moved.lab[at][:, ~cut], torch.tensor(0.125), atol=1e-6
        )
        rows, columns = (~cut).nonzero(as_tuple=True)
        # Every pixel is one of the picture's own, moved: find by how much, and let all agree.
        inside = (rows > 16) & (rows < 48) & (columns > 12) & (columns < 36)
        y, x = int(rows[inside][0]), int(columns[inside][0])
        pixel = moved.rgb[at, :, y, x]
        found = ((whole[at] - pixel).abs().amax(2) < 1e-6).nonzero()
        down, right = (found[0] - torch.tensor([y, x])).tolist()
        assert len(found) == 1 and abs(down) <= 8 and abs(right) <= 6
        source = whole[at][(rows + down).clamp(0, 63), (columns + right).clamp(0, 47)]
        torch.testing.assert_close(moved.rgb[at][:, ~cut].T, source, atol=1e-6, rtol=0)
        places.add((down, right))
    assert len(places) > 4  # each picture its own way
    torch.testing.assert_close(
        color.merge(moved.lab[:, :1], moved.lab[:, 1:]), moved.rgb, atol=2e-3, rtol=0
    )


def test_distortion_passes_gradients_and_can_be_left_out(trunk: VGG16) -> None:
    pair = seen(torch.rand(2, 3, 32, 32)), seen(torch.rand(2, 3, 32, 32))
    drawn = torch.tensor([[0.1, 0.9, 0.3, 0.6], [0.5, 0.2, 0.7, 0.4]])
    plain = PatchDiscriminator(trunk, size=32, augment=False).distort(*pair, drawn)
    assert plain[0] is pair[0] and plain[1] is pair[1]
    rgb = torch.rand(2, 3, 32, 32, requires_grad=True)
    _, fake = PatchDiscriminator(trunk, size=32).distort(pair[0], Seen(rgb, pair[1].lab), drawn)
    fake.rgb.sum().backward()
    assert rgb.grad is not None and 0.5 < float((rgb.grad > 0).float().mean()) < 1
    first, again, other = (
        PatchDiscriminator(trunk, size=32).distort(*pair, numbers)[0].rgb
        for numbers in (drawn, drawn, 1 - drawn)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_patches_learn_to_tell_two_sets_apart_where_they_differ(trunk: VGG16) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(trunk, size=32).train()
    rgb = torch.rand(8, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    pale = rgb.clone()
    pale[..., 16:] = rgb[..., 16:].mean(1, keepdim=True)  # the right half is gray
    discriminator.measure(seen(rgb))
    with torch.no_grad():
        real, fake = discriminator.features(seen(rgb)), discriminator.features(seen(pale))
    optimizer = torch.optim.Adam(trainable(discriminator), lr=1e-3)
    terms = []
    for _ in range(40):
        optimizer.zero_grad()
        pairs = list(zip(*discriminator.judge(real, fake), strict=True))
        loss = torch.stack([F.softplus(-r).mean() + F.softplus(f).mean() for r, f in pairs]).mean()
        loss.backward()
        optimizer.step()
        terms.append(loss.item())
    assert terms[0] == pytest.approx(2 * math.log(2), abs=0.15) and terms[-1] < 1.25
    verdict = pairs[0][1].detach()
    assert float(verdict[..., 5:].mean()) < float(verdict[..., :3].mean()) - 0.5  # it says where
