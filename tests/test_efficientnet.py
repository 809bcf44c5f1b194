"""EfficientNet-Lite0: timm's graph, BatchNorm folded away, and what is said of files that do not
fit.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from macs import count_macs
from serving import Server
from torch import Tensor, nn

from gancolor import models
from gancolor.errors import WeightsError
from gancolor.models import backbones
from gancolor.models.backbones import (
    ENCODERS,
    VGG16,
    EfficientNetLite0,
    describe_efficientnet,
    load_efficientnet,
)

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
SHARED = Path(os.environ.get("GANCOLOR_SHARED") or Path(__file__).parents[2] / "shared")
IMAGENET = SHARED / "weights" / "efficientnet-lite0.pt"
PHOTOGRAPHS = SHARED / "photos" / "bsds"

PARAMETERS = [1_744, 13_440, 38_864, 638_640, 2_246_432]  # up to each tap from the one before
MACS = [27_262_976, 71_761_920, 49_545_216, 169_168_896, 157_476_864]  # of one picture of 256 x 256
SHAPES = [(2, 32, 64), (1, 96, 160), (3, 64, 32)]  # batch, height, width


def named_as_timms(seed: int = 0) -> dict[str, Tensor]:
    """A file of timm's: random convolutions, BatchNorms that have seen something, a head, a tiny
    classifier.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, shapes = 32, {"conv_stem": (32, 3, 3, 3)}
    for stage, (repeats, kernel, _, expansion, out) in enumerate(backbones.BLOCK_GROUPS):
        for repeat in range(repeats):
            block, inside = f"blocks.{stage}.{repeat}", channels * expansion
            if expansion > 1:
                shapes[f"{block}.conv_pw"] = (inside, channels, 1, 1)
            shapes[f"{block}.conv_dw"] = (inside, 1, kernel, kernel)
            shapes[f"{block}.{'conv_pwl' if expansion > 1 else 'conv_pw'}"] = (out, inside, 1, 1)
            channels = out
    state = {}
    norms: dict[str, int] = {}
    for name, shape in (shapes | {"conv_head": (8, 320, 1, 1)}).items():
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        block = name.rpartition(".")[0]
        norms[block] = norms.get(block, 0) + 1
        norm = f"{block}.bn{norms[block]}".lstrip(".")
        for kind in ("weight", "bias", "running_mean", "running_var"):
            value = torch.randn(shape[0], generator=generator) * 0.2
            state[f"{norm}.{kind}"] = (
                1 + value.abs() if kind in ("weight", "running_var") else value
            )
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    return state | {"classifier.weight": torch.zeros(2, 8), "classifier.bias": torch.zeros(2)}


def expected_maps(state: dict[str, Tensor], rgb: Tensor) -> list[Tensor]:
    """The maps that a file's network gives, computed as TensorFlow does: padded pictures, BatchNorm
    by itself.
    """

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, bounded: bool = True) -> Tensor:
        weight = state[f"{conv}.weight"].float()
        missing = weight.shape[-1] - stride  # TensorFlow's SAME, where the stride divides the size
        x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, variance, scale, shift = (
            state[f"{norm}.{kind}"].float()
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        return x.clamp(0, 6) if bounded else x

    x = layer(rgb * 2 - 1, "conv_stem", "bn1", 2)
    maps = []
    for stage, (repeats, _, stride, expansion, _) in enumerate(backbones.BLOCK_GROUPS):
        for repeat in range(repeats):
            block, y, step = f"blocks.{stage}.{repeat}", x, 1 if repeat else stride
            if expansion == 1:
                y = layer(y, f"{block}.conv_dw", f"{block}.bn1", step)
                y = layer(y, f"{block}.conv_pw", f"{block}.bn2", bounded=False)
            else:
                y = layer(y, f"{block}.conv_pw", f"{block}.bn1")
                y = layer(y, f"{block}.conv_dw", f"{block}.bn2", step)
                y = layer(y, f"{block}.conv_pwl", f"{block}.bn3", bounded=False)
            x = x + y if x.shape == y.shape else y
        maps.append(x)
    return [maps[stage] for stage in (0, 1, 2, 4, 6)]


def assert_near(got: list[Tensor], expected: list[Tensor]) -> None:
    """Fail unless the maps have the same shapes and differ by less than 1e-4 of the largest value."""
    assert [g.shape for g in got] == [e.shape for e in expected]
    for g, e in zip(got, expected, strict=True):
        assert float((g - e).abs().max() / e.abs().max()) < 1e-4


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return named_as_timms()


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(state, tmp_path_factory.mktemp("weights") / "timm.pth")


@pytest.fixture(scope="module")
def network(file: Path) -> EfficientNetLite0:
    return load_efficientnet(str(file))


# --- the graph ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fused", [True, False])
def test_maps_are_those_of_the_files_network(
    network: EfficientNetLite0,
    state: dict[str, Tensor],
    shape: tuple[int, int, int],
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models.layers, "MANY_POSITIONS", 1)
    batch, height, width = shape
    rgb = torch.rand(batch, 3, height, width)
    before = rgb.clone()
    expected = expected_maps(state, rgb)
    if not fused:
        network = copy.deepcopy(network).requires_grad_()
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            maps = network(rgb.contiguous(memory_format=layout))
        assert_near(maps, expected)
        for features, tap in zip(maps, EfficientNetLite0.TAPS, strict=True):
            assert features.shape == (
                batch,
                tap.channels,
                height // tap.stride,
                width // tap.stride,
            )
    assert torch.equal(rgb, before)


@pytest.mark.slow
def test_maps_are_timms(tmp_path: Path) -> None:
    import gancolor._torchvision  # noqa: F401

    timm = pytest.importorskip("timm", reason="needs timm, gancolor[baselines]")
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in (
                (module.weight, 0.8),
                (module.bias, -0.2),
                (module.running_mean, -0.2),
            ):
                nn.init.uniform_(values, low, low + 0.4)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    network = load_efficientnet(str(save(whole.state_dict(), tmp_path / "timm.pth")))
    reference = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True
    ).eval()
    reference.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key.startswith(KEPT)}
    )
    assert [
        tuple(info.values())
        for info in reference.feature_info.get_dicts(["module", "num_chs", "reduction"])
    ] == [tuple(tap) for tap in EfficientNetLite0.TAPS]
    for batch, height, width in SHAPES:
        rgb = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            assert_near(network(rgb), reference(rgb * 2 - 1))


KEPT = ("conv_stem.", "bn1.", "blocks.")


@pytest.mark.slow
@pytest.mark.skipif(
    not IMAGENET.is_file() or not PHOTOGRAPHS.is_dir(), reason="needs the shared weights and photos"
)
def test_imagenets_maps_of_a_photograph_are_timms() -> None:
    import gancolor._torchvision  # noqa: F401

    timm = pytest.importorskip("timm", reason="needs timm, gancolor[baselines]")
    from gancolor.images import arrays

    picture = arrays.read_rgb(min(PHOTOGRAPHS.glob("*.jpg")))[:128, :192]
    rgb = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
    loaded = torch.load(IMAGENET, weights_only=True)
    reference = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True
    ).eval()
    reference.load_state_dict(
        {key: value.float() for key, value in loaded.items() if key.startswith(KEPT)}
    )
    with torch.no_grad():
        assert_near(load_efficientnet(str(IMAGENET))(rgb), reference(rgb * 2 - 1))


def test_parameters_and_work() -> None:
    with torch.device("meta"):
        networks = [EfficientNetLite0(blocks) for blocks in range(1, 6)]
    rgb = torch.empty(1, 3, 256, 256, device="meta")
    for index, network in enumerate(networks, 1):
        assert sum(p.numel() for p in network.parameters()) == sum(PARAMETERS[:index])
        assert count_macs(network, rgb) == sum(MACS[:index])
        assert network.taps == EfficientNetLite0.TAPS[:index]
    assert sum(PARAMETERS) == 2_939_120
    keys = list(networks[-1].state_dict())
    assert (
        len(keys) == 2 * 48
        and keys[0] == "features.0.weight"
        and keys[-1] == "features.16.conv_pwl.bias"
    )


def test_documentation_holds_the_same_numbers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = [
        f"| {tap.name} | {tap.channels} | {tap.stride} | {parameters:,} | {macs / 1e9:.3f} |"
        for tap, parameters, macs in zip(EfficientNetLite0.TAPS, PARAMETERS, MACS, strict=True)
    ]
    assert "\n".join(rows) in text
    assert f"{sum(PARAMETERS):,} parameters" in text and f"{sum(MACS) / 1e9:.2f} GMAC" in text


def test_sizes_that_do_not_divide_are_refused(network: EfficientNetLite0) -> None:
    with pytest.raises(ValueError, match=r"multiples of 32, got \(32, 48\)"):
        network(torch.rand(1, 3, 32, 48))
    assert [tuple(features.shape) for features in network(torch.rand(1, 3, 4, 12), blocks=2)] == [
        (1, 16, 2, 6),
        (1, 24, 1, 3),
    ]


# --- as a part of a network ---


def test_trimmed_network_shares_its_layers(network: EfficientNetLite0) -> None:
    trimmed = network.trim(3)
    assert trimmed.blocks == 3 and trimmed.frozen and not trimmed.training
    assert list(trimmed.state_dict()) == list(network.state_dict())[: len(trimmed.state_dict())]
    assert all(a is b for a, b in zip(trimmed.parameters(), network.parameters(), strict=False))
    rgb = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(trimmed(rgb), network(rgb)[:3])
    torch.testing.assert_close(network(rgb, blocks=3), trimmed(rgb))
    assert network.trim(5) is network
    with pytest.raises(ValueError, match="1 to 5"):
        EfficientNetLite0(6)


def test_frozen_stays_frozen_below_a_training_parent(network: EfficientNetLite0) -> None:
    parent = nn.Sequential(network, nn.Dropout())
    parent.train()
    assert parent[1].training and not any(part.training for part in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


def test_frozen_lets_gradients_through_to_the_picture(network: EfficientNetLite0) -> None:
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(rgb)[-1].sum().backward()
    assert rgb.grad is not None and float(rgb.grad.abs().sum()) > 0


@pytest.mark.parametrize("autocast", [False, True])
def test_trainable_gets_gradients(file: Path, autocast: bool) -> None:
    network = load_efficientnet(str(file), trainable=True)
    assert network.train().training
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        maps = network(torch.rand(2, 3, 64, 64))
    sum(features.float().square().mean() for features in maps).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in network.parameters())


def test_bfloat16_weights_keep_a_float32_normalization(network: EfficientNetLite0) -> None:
    rounded = copy.deepcopy(network)
    rgb = torch.rand(2, 3, 64, 64)
    exact = network(rgb)
    nn.Sequential(rounded).to(torch.bfloat16)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    assert rounded.mean.dtype == rounded.std.dtype == torch.float32
    assert rounded.mean.flatten().tolist() == rounded.std.flatten().tolist() == [0.5] * 3
    plain = rounded(rgb)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rounded(rgb)
    for maps in (plain, cast):
        assert all(features.dtype == torch.bfloat16 for features in maps)
        errors = [
            float((m.float() - e).abs().mean() / e.abs().mean())
            for m, e in zip(maps, exact, strict=True)
        ]
        # half a percent more with each of the 17 layers
        assert errors[0] < 0.02 and errors[-1] < 0.15


def test_channels_last_is_kept(network: EfficientNetLite0) -> None:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gray = torch.rand(2, 1, 32, 64).to(memory_format=torch.channels_last)
    maps = last(gray.expand(-1, 3, -1, -1))[:4]
    assert all(features.is_contiguous(memory_format=torch.channels_last) for features in maps)


# --- weights ---


def test_random_weights_follow_their_seed_alone(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING, "gancolor"):
        first = load_efficientnet("none", seed=3)
    assert (
        "RANDOM" in caplog.text and "seed 3" in caplog.text and "--encoder-weights" in caplog.text
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    second, third = load_efficientnet("none", seed=3), load_efficientnet("none", seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.features[0].weight, third.features[0].weight)
    sizes = [float(features.square().mean().sqrt()) for features in first(torch.rand(1, 3, 64, 64))]
    assert all(0.2 < size < 5 for size in sizes), sizes


@pytest.mark.parametrize("kind", ["half", "bare"])
def test_file_of_any_precision_with_or_without_head_is_read(
    network: EfficientNetLite0, state: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    written = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    if kind == "bare":
        written = {
            k: v
            for k, v in state.items()
            if k.startswith(KEPT) and not k.endswith("num_batches_tracked")
        }
    loaded = load_efficientnet(str(save(written, tmp_path / "file.pt")))
    assert loaded.frozen
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, network.state_dict()[name], rtol=0.01 if kind == "half" else 0, atol=1e-3
        )


def spoiled(state: dict[str, Tensor], change: str) -> object:
    state = dict(state)
    if change == "missing":
        del state["blocks.3.1.bn2.running_var"], state["conv_stem.weight"]
    elif change == "extra":
        state["blocks.1.0.se.conv_reduce.weight"] = torch.zeros(1)
    elif change == "shape":
        state["blocks.2.0.conv_dw.weight"] = torch.zeros(144, 1, 3, 3)
    elif change == "nan":
        state["blocks.6.0.bn3.bias"] = torch.full((320,), torch.nan)
    elif change == "variance":
        state["blocks.6.0.bn3.running_var"] = torch.full((320,), -1.0)
    elif change == "number":
        return {**state, "bn1.weight": 3}
    elif change == "folded":
        return load_efficientnet("none").state_dict()
    elif change == "list":
        return list(state.values())
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", r"got: 2 missing \(conv_stem.weight, blocks.3.1.bn2.running_var\);"),
        ("extra", r"got: 1 unknown \(blocks.1.0.se.conv_reduce.weight\);"),
        (
            "shape",
            r"got: blocks.2.0.conv_dw.weight is \(144, 1, 3, 3\) instead of \(144, 1, 5, 5\);",
        ),
        ("nan", "got: blocks.6.0.bn3.bias holds values that are not finite;"),
        ("variance", "got: blocks.6.0.conv_pwl.weight, folded holds values that are not finite;"),
        ("number", r"got: bn1.weight is int instead of \(32,\);"),
        ("folded", r"240 missing \(.*\.\.\.\); 96 unknown \("),
        ("list", "must hold a state_dict, got list"),
    ],
)
def test_file_that_does_not_fit_is_refused(
    state: dict[str, Tensor], tmp_path: Path, change: str, says: str
) -> None:
    path = save(spoiled(state, change), tmp_path / "wrong.pt")
    with pytest.raises(WeightsError, match=says) as caught:
        load_efficientnet(str(path))
    message = str(caught.value)
    assert (
        str(path) in message
        and "EfficientNet-Lite0's own file with --encoder-weights PATH" in message
    )
    assert "\n" not in message and "backbone" not in message


@pytest.mark.parametrize("content", ["absent", "text"])
def test_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pt"
    if content == "text":
        path.write_text("hello\n" * 50)
    with pytest.raises(WeightsError, match="--encoder-weights none") as caught:
        load_efficientnet(str(path))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and "backbone" not in message
    assert content == "text" or message.startswith(
        "encoder weights must be imagenet, none or a file"
    )


@pytest.fixture
def server(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server of the file, in timm's place."""
    server = Server(file.read_bytes())
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    source = server.url, hashlib.sha256(server.body).hexdigest()[:8]
    monkeypatch.setattr(backbones, "efficientnet_source", lambda: source)
    yield server
    server.stop()


def test_imagenet_is_downloaded_once(
    server: Server, network: EfficientNetLite0, tmp_path: Path
) -> None:
    for _ in range(2):
        loaded = load_efficientnet("imagenet")
        assert torch.equal(loaded.features[0].weight, network.features[0].weight)
    assert server.paths == ["/weights.pth"]
    assert (tmp_path / "home" / "hub" / "checkpoints" / "weights.pth").is_file()


@pytest.mark.parametrize(("trouble", "says"), [("gone", "404"), ("other", "checksum|SHA-256")])
def test_imagenet_that_cannot_be_had_says_the_way_out(
    server: Server, tmp_path: Path, trouble: str, says: str
) -> None:
    if trouble == "gone":
        server.statuses += [404] * 9
    else:
        server.body = b"another file"
    with pytest.raises(WeightsError, match=says) as caught:
        load_efficientnet("imagenet")
    message = str(caught.value)
    assert (
        server.url in message and "--encoder-weights none" in message and "backbone" not in message
    )
    assert "\n" not in message
    assert not list(tmp_path.rglob("weights.pth"))


def test_address_is_timms() -> None:
    url, prefix = backbones.efficientnet_source()
    assert prefix == "0aa007d2" and url.endswith("/tf_efficientnet_lite0-0aa007d2.pth")


@pytest.mark.slow
def test_timm_still_gives_this_address() -> None:
    import gancolor._torchvision  # noqa: F401

    timm = pytest.importorskip("timm", reason="needs timm, gancolor[baselines]")
    given = timm.models.get_pretrained_cfg("tf_efficientnet_lite0")
    assert given.url == backbones.efficientnet_source()[0]
    assert (given.mean, given.std) == (EfficientNetLite0.MEAN, EfficientNetLite0.STD)


def test_origin_in_words(file: Path, server: Server, tmp_path: Path) -> None:
    assert "not ImageNet" in describe_efficientnet("none")
    assert describe_efficientnet("imagenet").startswith("ImageNet (timm's weights.pth")
    assert "ImageNet, timm's file" in describe_efficientnet(str(file))
    other = tmp_path / "other.pt"
    other.write_bytes(b"1")
    assert describe_efficientnet(str(other)).startswith(
        "other.pt (from a file, not ImageNet's own; sha256 "
    )


def test_no_timm_is_needed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    load_efficientnet(str(file))
    assert describe_efficientnet("imagenet").startswith(
        "ImageNet (timm's tf_efficientnet_lite0-0aa007d2.pth"
    )


# --- the table of encoders ---


@pytest.mark.full_width
@pytest.mark.parametrize("name", ["vgg16", "efficientnet-lite0"])
def test_every_encoder_is_built_loaded_and_described_by_its_name(name: str) -> None:
    kind = ENCODERS[name]
    loaded = kind.load("none", seed=2)
    assert (
        loaded.frozen
        and type(loaded) is kind.build
        and isinstance(loaded, VGG16 | EfficientNetLite0)
    )
    empty = kind.build(blocks=2).freeze()
    state = loaded.state_dict()
    empty.load_state_dict({key: state[key] for key in empty.state_dict()})
    rgb = torch.rand(1, 3, 32, 32)
    maps = empty(rgb)
    torch.testing.assert_close(maps, loaded(rgb)[:2])
    assert [features.shape[1] for features in maps] == [tap.channels for tap in empty.taps]
    assert "never trained" in kind.describe("none") and kind.title in (
        "VGG16",
        "EfficientNet-Lite0",
    )
    assert kind.load("none", trainable=True).frozen is False
