"""VGG16: its features, its weights' origins, and what is said when they do not fit."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from serving import FolderServer
from torch import Tensor, nn

import gancolor._torchvision  # noqa: F401
from gancolor.errors import WeightsError
from gancolor.models import backbones
from gancolor.models.backbones import VGG16, describe, load_backbone

SHARED = Path(os.environ.get("GANCOLOR_SHARED") or Path(__file__).parents[2] / "shared")
PHOTOS = SHARED / "weights" / "vgg16-photos.pt"

pytestmark = pytest.mark.full_width


@pytest.fixture(scope="module")
def random_backbone() -> VGG16:
    return load_backbone("none", seed=1)


@pytest.fixture(scope="module")
def full_file(random_backbone: VGG16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the names of torchvision's full VGG16, its classifier tiny."""
    state = {key: value.half() for key, value in random_backbone.state_dict().items()}
    state |= {
        f"classifier.{i}.{kind}": torch.zeros(2) for i in (0, 3, 6) for kind in ("weight", "bias")
    }
    path = tmp_path_factory.mktemp("weights") / "full.pth"
    # torchvision's own is of the old kind
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_server: FolderServer) -> Path:
    """A folder whose server stands in ImageNet's place."""
    folder = folder_server.folder
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    url = f"{folder_server.address}/vgg16.pth"

    def source() -> tuple[str, str]:
        file = folder / "vgg16.pth"
        return url, hashlib.sha256(file.read_bytes()).hexdigest()[:8] if file.exists() else "0" * 8

    monkeypatch.setattr(backbones, "imagenet_source", source)
    return folder


def test_taps_are_torchvisions_features(random_backbone: VGG16) -> None:
    from torchvision.models import vgg

    reference = vgg.make_layers(vgg.cfgs["D"])
    reference.load_state_dict(random_backbone.features.state_dict())
    rgb = torch.rand(2, 3, 64, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (rgb - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = []
    for layer in reference:
        if isinstance(layer, nn.MaxPool2d):
            expected.append(x)
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            x = x.clone()  # so that no later layer can write into it
    before = rgb.clone()
    with torch.no_grad():
        maps = random_backbone(rgb)
    assert torch.equal(rgb, before)
    assert len(maps) == 5
    for got, want, tap in zip(maps, expected, VGG16.TAPS, strict=True):
        assert got.shape == (2, tap.channels, 64 // tap.stride, 32 // tap.stride)
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(random_backbone(rgb, blocks=2), maps[:2])


def test_no_classifier_and_torchvisions_names() -> None:
    backbone = VGG16()
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688
    keys = list(backbone.state_dict())
    assert keys[0] == "features.0.weight" and keys[-1] == "features.28.bias" and len(keys) == 26


def test_frozen_stays_frozen_below_a_training_parent(random_backbone: VGG16) -> None:
    parent = nn.Sequential(random_backbone, nn.Dropout())
    parent.train()
    assert parent[1].training and not any(part.training for part in random_backbone.modules())
    assert not any(p.requires_grad for p in random_backbone.parameters())


def test_trainable_gets_gradients() -> None:
    backbone = load_backbone("none", trainable=True)
    assert backbone.train().training
    backbone(torch.rand(1, 3, 16, 16))[-1].sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in backbone.parameters())


def test_frozen_lets_gradients_through_to_the_picture(random_backbone: VGG16) -> None:
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    random_backbone(rgb)[-1].sum().backward()
    assert rgb.grad is not None and float(rgb.grad.abs().sum()) > 0


@pytest.mark.slow
def test_bfloat16_weights_keep_a_float32_normalization() -> None:
    backbone = load_backbone("none")
    rgb = torch.rand(1, 3, 32, 32)
    exact = backbone(rgb)[-1]
    nn.Sequential(backbone).to(torch.bfloat16)
    assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}
    assert backbone.mean.dtype == backbone.std.dtype == torch.float32
    assert backbone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406], abs=1e-7)
    plain = backbone(rgb)[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = backbone(rgb)[-1]
    for rounded in (plain, cast):
        assert rounded.dtype == torch.bfloat16
        assert float((rounded.float() - exact).abs().mean() / exact.abs().mean()) < 0.03


def test_random_weights_follow_their_seed_alone(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING, "gancolor"):
        first = load_backbone("none", seed=3)
    assert "RANDOM" in caplog.text and "seed 3" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    second, third = load_backbone("none", seed=3), load_backbone("none", seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.features[0].weight, third.features[0].weight)
    # Kaiming: features neither vanish nor explode on the way down
    sizes = [float(features.square().mean().sqrt()) for features in first(torch.rand(1, 3, 64, 64))]
    assert all(0.2 < size < 5 for size in sizes), sizes


def test_trimmed_backbone_shares_its_layers(random_backbone: VGG16) -> None:
    trimmed = random_backbone.trim(3)
    assert trimmed.blocks == 3 and trimmed.frozen and not trimmed.training
    assert list(trimmed.state_dict()) == list(random_backbone.state_dict())[:14]
    assert all(
        a is b for a, b in zip(trimmed.parameters(), random_backbone.parameters(), strict=False)
    )
    rgb = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(trimmed(rgb), random_backbone(rgb)[:3])
    assert random_backbone.trim(5) is random_backbone
    with pytest.raises(ValueError, match="1 to 5"):
        VGG16(6)


def test_file_with_or_without_classifier_is_read(
    random_backbone: VGG16, full_file: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(random_backbone.state_dict(), bare)
    for path, tolerance in ((full_file, 1e-3), (bare, 0.0)):
        loaded = load_backbone(str(path))
        assert loaded.frozen
        for name, value in loaded.state_dict().items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(
                value, random_backbone.state_dict()[name], rtol=tolerance, atol=1e-4
            )


def renamed(backbone: VGG16, style: str) -> dict[str, Tensor]:
    """The tensors of `backbone` under another convention's names and axes, none of their values
    changed.
    """
    state = {}
    places = [
        (block, i) for block, layers in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, layers + 1)
    ]
    convolutions = [layer for layer in backbone.features if isinstance(layer, nn.Conv2d)]
    for (block, i), layer in zip(places, convolutions, strict=True):
        kernel = layer.weight
        if "kernel" in style:
            kernel = kernel.permute(2, 3, 1, 0).contiguous()
        name = style.format(block, i)
        state[name] = kernel
        state[name.replace("kernel", "bias").replace("weight", "bias")] = layer.bias
    return state


@pytest.mark.parametrize(
    ("style", "head", "bgr", "means"),
    [
        ("block{}_conv{}/kernel:0", "predictions/kernel:0", True, (123.68, 116.779, 103.939)),
        ("block{}_conv{}.weight", "predictions.weight", True, (123.68, 116.779, 103.939)),
        ("conv{}_{}.weight", "fc8.weight", False, (129.1863, 104.7624, 93.5940)),
        ("conv_{}_{}.weight", "fc8.weight", True, (129.1863, 104.7624, 93.5940)),
        ("conv{}_{}/kernel:0", "fc8/kernel:0", True, (129.1863, 104.7624, 93.5940)),
    ],
)
def test_other_conventions_are_read(
    random_backbone: VGG16,
    tmp_path: Path,
    style: str,
    head: str,
    bgr: bool,
    means: tuple[float, ...],
) -> None:
    path = tmp_path / "other.pt"
    file = renamed(random_backbone, style)
    torch.save({**file, head: torch.zeros(4, 4)}, path)
    loaded = load_backbone(str(path))
    for key, value in loaded.state_dict().items():  # every layer but the first is the same
        assert key.startswith("features.0.") or torch.equal(
            value, random_backbone.state_dict()[key]
        )
    rgb = torch.rand(1, 3, 16, 16)
    x = rgb * 255 - torch.tensor(means).view(3, 1, 1)
    first = random_backbone.features[0]
    expected = nn.functional.relu(
        nn.functional.conv2d(x.flip(1) if bgr else x, first.weight, first.bias, padding=1)
    )
    got = loaded.features[0]((rgb - loaded.mean) / loaded.std)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(got[inside], expected[inside], rtol=1e-4, atol=1e-2)
    # beyond the border another gray
    assert float((got - expected).abs().mean() / expected.abs().mean()) < 0.02


def test_other_conventions_are_strict(random_backbone: VGG16, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pt"
    file = renamed(random_backbone, "block{}_conv{}/kernel:0")
    del file["block4_conv2/kernel:0"]
    torch.save(
        {**file, "block1_conv1.weight": torch.zeros(64, 3, 3, 3), "top": torch.zeros(1)}, path
    )
    says = (
        r"1 missing \(block4_conv2.weight\); 2 unknown \(block1_conv1.weight,"
        r" top\).*--backbone-weights PATH"
    )
    with pytest.raises(WeightsError, match=says):
        load_backbone(str(path))


def spoiled(backbone: VGG16, change: str) -> object:
    state: dict[str, Tensor] = dict(backbone.state_dict())
    if change == "missing":
        del state["features.5.weight"], state["features.5.bias"]
    elif change == "extra":
        state["features.1.running_mean"] = torch.zeros(64)
    elif change == "shape":
        state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    elif change == "nan":
        state["features.0.bias"] = torch.full((64,), torch.nan)
    elif change == "nested":
        return {"state_dict": state}
    elif change == "list":
        return list(state.values())
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", r"2 missing \(features.5.weight, features.5.bias\)"),
        ("extra", r"1 unknown \(features.1.running_mean\)"),
        ("shape", r"features.0.weight is \(64, 1, 3, 3\) instead of \(64, 3, 3, 3\)"),
        ("nan", "features.0.bias holds values that are not finite"),
        ("nested", r"26 missing \(.*\.\.\.\); 1 unknown \(state_dict\)"),
        ("list", "must hold a state_dict, got list"),
    ],
)
def test_file_that_does_not_fit_is_refused(
    random_backbone: VGG16, tmp_path: Path, change: str, says: str
) -> None:
    path = tmp_path / "wrong.pt"
    torch.save(spoiled(random_backbone, change), path)
    with pytest.raises(WeightsError, match=says) as caught:
        load_backbone(str(path))
    message = str(caught.value)
    assert str(path) in message and "--backbone-weights" in message and "\n" not in message


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("content", ["absent", "empty", "text", "folder", "cut", "code"])
def test_file_that_is_none_is_refused(
    full_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    if content == "folder":
        path.mkdir()
    elif content == "code":
        torch.save({"features.0.weight": Dangerous()}, path)
    elif content != "absent":
        whole = full_file.read_bytes()
        path.write_bytes(
            {"empty": b"", "text": b"hello\n" * 50, "cut": whole[: len(whole) // 2]}[content]
        )
    with pytest.raises(WeightsError, match="--backbone-weights") as caught:
        load_backbone(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.slow
def test_imagenet_is_downloaded_once(
    hub: Path,
    folder_server: FolderServer,
    full_file: Path,
    random_backbone: VGG16,
    tmp_path: Path,
) -> None:
    (hub / "vgg16.pth").write_bytes(full_file.read_bytes())
    for _ in range(2):
        backbone = load_backbone("imagenet")
        torch.testing.assert_close(backbone.features[0].bias, random_backbone.features[0].bias)
    assert folder_server.paths == ["/vgg16.pth"]
    assert (tmp_path / "home" / "hub" / "checkpoints" / "vgg16.pth").is_file()


def test_imagenet_that_cannot_be_had_says_the_way_out(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone("imagenet")
    message = str(caught.value)
    for part in (
        "http://127.0.0.1",
        "404",
        "by hand",
        "--backbone-weights PATH",
        "--backbone-weights none",
    ):
        assert part in message
    assert "\n" not in message


def test_imagenet_of_another_network_is_refused(hub: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2)}, hub / "vgg16.pth")
    with pytest.raises(WeightsError, match="26 missing .* 1 unknown"):
        load_backbone("imagenet")


def test_imagenets_address_holds_its_checksum() -> None:
    url, prefix = backbones.imagenet_source()
    assert url.startswith("https://") and url.endswith(f"{prefix}.pth") and len(prefix) >= 8


def test_widths_are_torchvisions() -> None:
    from torchvision.models import vgg

    assert backbones.VGG_WIDTHS == {letter: vgg.cfgs[letter] for letter in "DE"}


def test_origin_in_words(hub: Path, full_file: Path) -> None:
    (hub / "vgg16.pth").write_bytes(full_file.read_bytes())
    assert "not ImageNet" in describe("none")
    assert describe("imagenet").startswith("ImageNet")
    assert "ImageNet, torchvision's file" in describe(str(full_file))
    other = hub / "other.pt"
    other.write_bytes(b"1")
    assert "not ImageNet's own" in describe(str(other)) and "other.pt" in describe(str(other))


@pytest.mark.parametrize("name", backbones.ENCODERS)
def test_random_weights_are_described_without_their_library(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in ("imagenet_source", "efficientnet_source"):
        monkeypatch.setattr(backbones, source, None)
    assert "not ImageNet" in backbones.ENCODERS[name].describe("none")


@pytest.mark.skipif(not PHOTOS.is_file(), reason="the shared weights file is not here")
def test_shared_weights_see_more_than_random_ones() -> None:
    backbone = load_backbone(str(PHOTOS))
    state = torch.load(PHOTOS, weights_only=True)
    assert torch.equal(backbone.features[28].weight, state["features.28.weight"].float())
    assert "not ImageNet's own" in describe(str(PHOTOS))
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = (
        # an edge: some trained filter of the first block must answer to it and not to a plain area
        1
    )
    edge, plain = backbone(step)[0], backbone(torch.ones_like(step))[0]
    assert float(edge[0, :, 8, 14:18].amax()) > 2 * float(plain[0, :, 8, 14:18].amax())


@pytest.mark.slow
def test_torchvision_imports_beside_any_torch() -> None:
    code = (
        "import gancolor._torchvision, torchvision; import gancolor._torchvision;"
        " print(torchvision.__version__)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr


@pytest.mark.slow
def test_operators_are_declared_only_when_torchvision_has_none() -> None:
    code = """
import os, torch
if os.fork():  # as on a machine where torchvision's library loads
    os.wait()
    library = torch.library.Library("torchvision", "DEF")
    def load(path): library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
else:
    def load(path): raise OSError("no CUDA here")
torch.ops.load_library = load
from gancolor import _torchvision
print(_torchvision._library is None, hasattr(torch.ops.torchvision, "qnms"), flush=True)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.split() == [
        "False",
        "True",
        "True",
        "False",
    ], done.stderr  # the second process is first
