"""Embeddings: their graphs, their weights' origins and conventions, and what is said when they do
not fit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from serving import FolderServer
from torch import Tensor, nn

import gancolor._torchvision  # noqa: F401
from gancolor import config
from gancolor.errors import MissingExtra, WeightsError
from gancolor.models import embeddings, pretrained
from gancolor.models.embeddings import (
    EMBEDDINGS,
    VGG,
    EmbeddingKind,
    describe_embedding,
    from_state,
    identify,
    load_embedding,
)

SMALL: list[int | str] = [4, 6, "M", 8, "M", 8, 10, 12, "M"]  # a VGG of three blocks
PLACES = ["1_1", "1_2", "2_1", "3_1", "3_2", "3_3"]
CLASSES, HIDDEN = 5, 16


def small_kind(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> EmbeddingKind:
    """A kind whose VGG is small; three pools leave 7 x 7 of 56 x 56, as five do of 224 x 224."""
    return EmbeddingKind(
        name=name,
        title=EMBEDDINGS[name].title,
        width=CLASSES,
        size=56,
        build=lambda: VGG(SMALL, CLASSES, HIDDEN),
        mean=mean,
        std=std,
        convert=functools.partial(pretrained.to_torchvision, widths=SMALL, mean=mean, std=std),
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> EmbeddingKind:
    """VGG16 replaced by a small one."""
    kind = dataclasses.replace(
        small_kind("vgg16", (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)), source=EMBEDDINGS["vgg16"].source
    )
    monkeypatch.setitem(EMBEDDINGS, "vgg16", kind)
    return kind


@pytest.fixture
def tiny_face(monkeypatch: pytest.MonkeyPatch) -> EmbeddingKind:
    """VGG-Face replaced by a small one."""
    kind = small_kind("vggface", tuple(embeddings.FACE_MEAN), embeddings.FACE_STD)
    monkeypatch.setitem(EMBEDDINGS, "vggface", kind)
    return kind


def pictures(kind: EmbeddingKind, count: int = 2) -> Tensor:
    return torch.rand(count, 3, kind.size, kind.size, generator=torch.Generator().manual_seed(1))


def save(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


# The networks.


@pytest.mark.parametrize(
    ("name", "width", "size", "parameters"),
    [
        ("vgg16", 1000, 224, 138_357_544),
        ("vgg19", 1000, 224, 143_667_240),
        ("vggface", 2622, 224, 145_002_878),
        ("inception-resnet-v2", 1000, 299, 55_843_464),
    ],
)
def test_sizes_are_those_of_the_published_networks(
    name: str, width: int, size: int, parameters: int
) -> None:
    kind = EMBEDDINGS[name]
    if name == "inception-resnet-v2":
        pytest.importorskip("timm")
    with torch.device("meta"):
        network = kind.build()
        scores = network.eval()(torch.empty(1, 3, size, size))
    assert (kind.name, kind.width, kind.size) == (name, width, size)
    assert scores.shape == (1, width)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    from torchvision import models

    with torch.device("meta"):
        ours, theirs = EMBEDDINGS[name].build().state_dict(), getattr(models, name)().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }


def test_scores_are_those_of_plain_layers(tiny: EmbeddingKind) -> None:
    from torchvision.models import vgg

    embedding = load_embedding("vgg16", "none", seed=2)
    features = vgg.make_layers(SMALL)
    features.load_state_dict(embedding.network.features.state_dict())
    plain = embedding.network.classifier
    rgb = pictures(tiny)
    before = rgb.clone()
    x = (rgb - torch.tensor(tiny.mean).view(3, 1, 1)) / torch.tensor(tiny.std).view(3, 1, 1)
    x = F.adaptive_avg_pool2d(features(x), 7).flatten(1)
    for layer in (plain[0], plain[3]):
        x = F.relu(F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(embedding(rgb), F.linear(x, plain[6].weight, plain[6].bias))
    assert torch.equal(rgb, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_scores_are_torchvisions(name: str) -> None:
    from torchvision import models

    embedding = load_embedding(name, "none", seed=2)
    with torch.device("meta"):
        reference = getattr(models, name)().eval()
    reference.load_state_dict(embedding.network.state_dict(), assign=True)
    rgb = pictures(EMBEDDINGS[name])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference((rgb - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(embedding(rgb), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_scores_are_timms_and_the_background_is_left_out(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    reference = timm.create_model("inception_resnet_v2", pretrained=False).eval()
    state = {
        k: v for k, v in reference.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    rgb = pictures(EMBEDDINGS["inception-resnet-v2"])
    with torch.no_grad():
        expected = reference(rgb * 2 - 1)
    for rows in (0, 1):
        for kind in ("weight", "bias"):
            head = reference.state_dict()[f"classif.{kind}"]
            state[f"classif.{kind}"] = torch.cat([torch.full_like(head[:rows], 9.0), head])
        embedding = load_embedding("inception-resnet-v2", save(state, tmp_path / "timm.pth"))
        torch.testing.assert_close(embedding(rgb), expected, rtol=1e-4, atol=1e-4)


def test_frozen_below_a_training_parent(tiny: EmbeddingKind) -> None:
    embedding = load_embedding("vgg16", "none")
    parent = nn.Sequential(embedding, nn.Dropout()).train()
    assert parent[1].training and not any(part.training for part in embedding.modules())
    assert not any(p.requires_grad for p in embedding.parameters())
    scores = embedding(pictures(tiny).requires_grad_())
    assert scores.shape == (2, CLASSES) and not scores.requires_grad


def test_bfloat16_weights_keep_a_float32_normalization(tiny: EmbeddingKind) -> None:
    embedding = load_embedding("vgg16", "none")
    exact = embedding(pictures(tiny))
    embedding.to(torch.bfloat16)
    assert {p.dtype for p in embedding.parameters()} == {torch.bfloat16}
    assert embedding.mean.dtype == embedding.std.dtype == torch.float32
    assert embedding.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6], abs=1e-7)
    rounded = embedding(pictures(tiny))
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().mean() / exact.abs().mean()) < 0.05


# Random weights.


def test_random_weights_follow_name_and_seed_alone(
    tiny: EmbeddingKind,
    tiny_face: EmbeddingKind,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING, "gancolor"):
        first = load_embedding("vgg16", "none", seed=3)
    assert "VGG16" in caplog.text and "RANDOM" in caplog.text and "seed 3" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = load_embedding("vgg16", "none", seed=3), load_embedding("vgg16", "none", seed=4)
    face = load_embedding("vggface", "none", seed=3)
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    for different in (other, face):
        one, two = (
            embedding.network.features[2].weight.flatten() for embedding in (first, different)
        )
        assert abs(float(F.cosine_similarity(one, two, dim=0))) < 0.3


def test_random_scores_differ_between_pictures(
    tiny: EmbeddingKind, tiny_face: EmbeddingKind
) -> None:
    for name in ("vgg16", "vggface"):
        rgb = torch.cat([pictures(tiny), 1 - pictures(tiny, 1) ** 3])
        scores = load_embedding(name, "none", seed=1)(rgb)
        size = float(scores.square().mean().sqrt())
        spread = float((scores - scores.mean(0)).square().mean().sqrt())
        assert 0.05 < size < 20 and spread > 0.02 * size, (name, size, spread)


def test_batch_norm_is_neutral_in_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> nn.Module:
        features = [
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        ]
        return nn.Sequential(*features, nn.Linear(16, 16))

    kind = EmbeddingKind(name="vgg16", title="tiny", width=16, size=8, build=build)
    monkeypatch.setitem(EMBEDDINGS, "vgg16", kind)
    norm = load_embedding("vgg16", "none").network[1]
    values = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    assert [value.tolist() for value in values] == [[1.0] * 4, [0.0] * 4, [0.0] * 4, [1.0] * 4]
    monkeypatch.setitem(
        EMBEDDINGS, "vgg16", dataclasses.replace(kind, build=lambda: nn.Sequential(nn.PReLU()))
    )
    with pytest.raises(TypeError, match="PReLU"):
        load_embedding("vgg16", "none")


def test_the_settings_choices_are_the_known_embeddings() -> None:
    assert tuple(config.EMBEDDINGS) == tuple(EMBEDDINGS)


def test_random_scores_lie_around_zero_with_deviation_one(
    tiny: EmbeddingKind, tiny_face: EmbeddingKind
) -> None:
    for kind in (tiny, tiny_face):
        embedding = load_embedding(kind.name, "none", seed=5)
        clouds = embeddings._made_up_pictures(kind.size)
        assert (
            clouds.shape == (6, 3, kind.size, kind.size) and 0 <= clouds.min() and clouds.max() <= 1
        )
        assert 0.35 < clouds.mean() < 0.55 and 0.1 < clouds.std() < 0.3
        scores = embedding(clouds)
        torch.testing.assert_close(scores.mean(0), torch.zeros(kind.width), atol=1e-3, rtol=0)
        assert float(scores.std(0).square().mean().sqrt()) == pytest.approx(1, rel=1e-3)


# Conventions: a random file of each is run by its own rules, and must give what the loaded
# embedding gives.


@dataclasses.dataclass(frozen=True)
class Style:
    """How a convention names and lays out what it holds."""

    conv: str
    heads: tuple[str, str, str]
    kernel: str  # what follows a layer's name
    bias: str
    bgr: bool
    channels_last: bool = False  # the axes of kernels, and of flattened features
    fully_convolutional: bool = False
    means: tuple[float, ...] = (129.1863, 104.7624, 93.5940)  # of R, G, B


CAFFE, KERAS = ("fc6", "fc7", "fc8"), ("fc1", "fc2", "predictions")
IMAGENET = (123.68, 116.779, 103.939)
STYLES = {
    "MatConvNet": Style("conv{}", CAFFE, ".weight", ".bias", bgr=False),
    "MatConvNet, convolutions": Style(
        "conv{}", CAFFE, ".weight", ".bias", bgr=False, fully_convolutional=True
    ),
    "Torch7": Style("conv_{}", CAFFE, ".weight", ".bias", bgr=True),
    "keras-vggface": Style("conv{}", CAFFE, "/kernel:0", "/bias:0", bgr=True, channels_last=True),
    "keras-vggface, convolutions": Style(
        "conv{}", CAFFE, "/kernel", "/bias", bgr=True, channels_last=True, fully_convolutional=True
    ),
    "Keras": Style(
        "block{}", KERAS, "/kernel:0", "/bias:0", bgr=True, channels_last=True, means=IMAGENET
    ),
    "Keras, doubled": Style(
        "block{}",
        KERAS,
        "/{0}/kernel:0",
        "/{0}/bias:0",
        bgr=True,
        channels_last=True,
        means=IMAGENET,
    ),
    "Keras 1": Style(
        "block{}", KERAS, "_W_1:0", "_b_1:0", bgr=True, channels_last=True, means=IMAGENET
    ),
    "Keras, torch's axes": Style("block{}", KERAS, ".weight", ".bias", bgr=True, means=IMAGENET),
}


def random_file(style: Style) -> dict[str, Tensor]:
    """A network of random weights as a file of `style` holds it."""
    generator = torch.Generator().manual_seed(7)
    channels = 3
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for place, width in zip(PLACES, (w for w in SMALL if isinstance(w, int)), strict=True):
        name = style.conv.format(place.replace("_", "_conv") if "block" in style.conv else place)
        shapes.append((name, (3, 3, channels, width)))
        channels = width
    sides, inputs = (7, 1, 1), (channels, HIDDEN, HIDDEN)
    for name, side, wide, out in zip(
        style.heads, sides, inputs, (HIDDEN, HIDDEN, CLASSES), strict=True
    ):
        dense = not style.fully_convolutional
        shapes.append((name, (side * side * wide, out) if dense else (side, side, wide, out)))
    file = {}
    for name, shape in shapes:
        values = (
            torch.randn(shape, generator=generator) * (2 / torch.Size(shape[:-1]).numel()) ** 0.5
        )
        if not style.channels_last:
            values = (
                values.permute(3, 2, 0, 1).contiguous()
                if values.ndim == 4
                else values.T.contiguous()
            )
        file[name + style.kernel.format(name)] = values
        file[name + style.bias.format(name)] = torch.randn(shape[-1], generator=generator) * 0.1
    return file


def run_as_its_own(file: dict[str, Tensor], style: Style, rgb: Tensor) -> Tensor:
    """What a network of `style` computes, with nothing turned round but the picture."""
    means = torch.tensor(style.means).view(3, 1, 1)
    x = rgb * 255 - means
    x = x.flip(1) if style.bgr else x
    layers = iter(list(zip(list(file.values())[::2], list(file.values())[1::2], strict=True)))
    for width in SMALL:
        if width == "M":
            x = F.max_pool2d(x, 2)
            continue
        kernel, bias = next(layers)
        x = F.relu(
            F.conv2d(
                x, kernel.permute(3, 2, 0, 1) if style.channels_last else kernel, bias, padding=1
            )
        )
    for i, (kernel, bias) in enumerate(layers):
        if style.fully_convolutional:
            x = F.conv2d(x, kernel.permute(3, 2, 0, 1) if style.channels_last else kernel, bias)
        else:
            x = (x.movedim(1, -1) if style.channels_last and x.ndim == 4 else x).flatten(1)
            x = x @ kernel + bias if style.channels_last else F.linear(x, kernel, bias)
        x = F.relu(x) if i < 2 else x
    return x.flatten(1)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("std", [1 / 255, 0.25])
def test_conventions_give_the_same_scores(
    name: str,
    std: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)
    style = STYLES[name]
    kind = small_kind("vggface", tuple(value / 255 for value in style.means), (std,) * 3)
    monkeypatch.setitem(EMBEDDINGS, "vggface", kind)
    file = random_file(style)
    with caplog.at_level(logging.INFO, "gancolor"):
        embedding = load_embedding("vggface", save(file, tmp_path / "weights.pt"))
    expected = run_as_its_own(file, style, pictures(kind))
    torch.testing.assert_close(
        embedding(pictures(kind)), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
    )
    first, _, last = style.means[::-1] if style.bgr else style.means
    assert (
        f"{'BGR' if style.bgr else 'RGB'}, 0-255 minus {first} " in caplog.text
        and f" {last}\n" in caplog.text
    )


def test_face_files_are_read_bit_by_bit_and_torchvisions_names_too(
    tiny_face: EmbeddingKind, tmp_path: Path
) -> None:
    matconvnet = random_file(STYLES["MatConvNet"])
    loaded = load_embedding("vggface", save(matconvnet, tmp_path / "a.pt")).network.state_dict()
    assert torch.equal(loaded["features.0.weight"], matconvnet["conv1_1.weight"])
    assert torch.equal(loaded["features.0.bias"], matconvnet["conv1_1.bias"])
    assert torch.equal(loaded["classifier.6.weight"], matconvnet["fc8.weight"])
    again = load_embedding("vggface", save(loaded, tmp_path / "b.pt")).network.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in loaded.items())


def test_the_classes_tell_which_mean() -> None:
    for style, widths in (("conv1_1", (1000, 2622)), ("block1_conv1", (1000, 2622))):
        last = "fc8" if style == "conv1_1" else "predictions"
        means = []
        for width in (*widths, 7):
            file = {
                f"{style}.weight": torch.zeros(2, 3, 3, 3),
                f"{last}.weight": torch.zeros(width, 4),
            }
            converted = pretrained.to_torchvision(
                file, widths=[2, "M"], mean=(0, 0, 0), std=(1, 1, 1)
            )
            means.append("129.186" in converted.words)
        assert means == [False, True, style == "conv1_1"]
    file = {"conv1_1/kernel:0": torch.zeros(3, 3, 3, 2), "fc8/kernel:0": torch.zeros(4, 1000)}
    assert (
        "103.939"
        in pretrained.to_torchvision(file, widths=[2, "M"], mean=(0, 0, 0), std=(1, 1, 1)).words
    )


def test_float16_is_read_as_float32(tiny: EmbeddingKind, tmp_path: Path) -> None:
    state = load_embedding("vgg16", "none").network.state_dict()
    halves = save({key: value.half() for key, value in state.items()}, tmp_path / "half.pt")
    for key, value in load_embedding("vgg16", halves).network.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, state[key].half().float())


def test_inceptions_background_class_and_counters() -> None:
    file: dict[str, Any] = {"a.running_var": torch.ones(2).half()}
    file |= {"classif.weight": torch.arange(8.0).view(4, 2), "classif.bias": torch.arange(4.0)}
    state, _, words = pretrained.to_timm(file, classes=3)
    assert state["classif.weight"][:, 0].tolist() == [2, 4, 6] and state[
        "classif.bias"
    ].tolist() == [1, 2, 3]
    assert state["a.num_batches_tracked"] == 0 and state["a.running_var"].dtype == torch.float32
    assert "background" in words
    state, _, words = pretrained.to_timm(file, classes=4)
    assert state["classif.weight"].shape == (4, 2) and "background" not in words


# Files that do not fit.


def spoiled(change: str) -> tuple[str, object]:
    """The style of a file with one thing wrong, and the file."""
    name = "keras-vggface" if change.startswith("keras") else "MatConvNet"
    file: dict[str, Any] = random_file(STYLES[name])
    if change == "missing":
        del file["conv2_1.weight"], file["conv2_1.bias"]
    elif change == "extra":
        file["bn1_1.weight"] = torch.zeros(3)
    elif change == "more layers":
        file["conv3_4.weight"] = torch.zeros(3)
    elif change == "mixed":
        file["conv_1_1.weight"] = file["conv1_1.weight"]
    elif change == "twice":
        file["conv1_1/kernel:0"] = file["conv1_1.weight"]
    elif change == "classes":
        file["fc8.weight"] = torch.zeros(9, HIDDEN)
    elif change == "nan":
        file["fc7.bias"] = torch.full((HIDDEN,), torch.nan)
    elif change == "keras axes":
        file["conv1_2/kernel:0"] = file["conv1_2/kernel:0"].permute(3, 2, 0, 1)
    elif change == "text":
        file["fc7.bias"] = "zeros"
    elif change == "nested":
        return name, {"state_dict": file}
    elif change == "list":
        return name, list(file)
    return name, file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", r"2 missing \(conv2_1.weight, conv2_1.bias\)"),
        ("extra", r"1 unknown \(bn1_1.weight\)"),
        ("more layers", r"1 unknown \(conv3_4.weight\)"),
        ("mixed", r"1 unknown \(conv_1_1.weight\)"),
        ("twice", r"1 unknown \(conv1_1/kernel:0\)"),
        ("classes", r"fc8.weight is \(9, 16\) instead of \(5, 16\)"),
        ("nan", "fc7.bias holds values that are not finite"),
        (
            "keras axes",
            (
                r"conv1_2/kernel:0 is \(3, 3, 6, 4\) instead of \(6, 4, 3, 3\) in torch's order of"
                r" axes"
            ),
        ),
        ("text", "fc7.bias is str instead of"),
        ("nested", r"18 missing \(.*\.\.\.\); 1 unknown \(state_dict\)"),
        ("list", "must hold a state_dict, got list"),
    ],
)
def test_file_that_does_not_fit_is_refused(
    tiny_face: EmbeddingKind, tmp_path: Path, change: str, says: str
) -> None:
    path = save(spoiled(change)[1], tmp_path / "wrong.pt")
    with pytest.raises(WeightsError, match=says) as caught:
        load_embedding("vggface", path)
    message = str(caught.value)
    assert (
        path in message
        and "VGG-Face" in message
        and "--backbone-weights none" in message
        and "\n" not in message
    )


@pytest.mark.parametrize("content", ["absent", "empty", "text"])
def test_file_that_is_none_is_refused(tiny: EmbeddingKind, tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pt"
    if content != "absent":
        path.write_bytes({"empty": b"", "text": b"hello\n" * 50}[content])
    with pytest.raises(
        WeightsError, match="VGG16's own file with --backbone-weights PATH"
    ) as caught:
        load_embedding("vgg16", str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_vggface_has_no_address() -> None:
    for ask in (load_embedding, describe_embedding, identify):
        with pytest.raises(
            WeightsError, match="must be a file or none, got imagenet.*--backbone-weights PATH"
        ):
            ask("vggface", "imagenet")


def test_without_timm_the_line_that_installs_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[baselines\]'"):
        load_embedding("inception-resnet-v2", "none")
    assert EMBEDDINGS["inception-resnet-v2"].width == 1000  # known without it


# ImageNet's weights.


@pytest.fixture
def hub(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder_server: FolderServer,
    tiny: EmbeddingKind,
) -> Path:
    """A file that a local server gives in place of ImageNet's for the small VGG16."""
    served = folder_server.folder / "vgg16.pth"
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save(load_embedding("vgg16", "none", seed=8).network.state_dict(), served)
    url = f"{folder_server.address}/vgg16.pth"
    source = (url, hashlib.sha256(served.read_bytes()).hexdigest()[:8])
    monkeypatch.setitem(EMBEDDINGS, "vgg16", dataclasses.replace(tiny, source=lambda: source))
    return served


def test_imagenet_is_downloaded_once_and_checked(
    hub: Path, folder_server: FolderServer, tmp_path: Path
) -> None:
    expected = load_embedding("vgg16", str(hub)).network.state_dict()
    for _ in range(2):
        loaded = load_embedding("vgg16", "imagenet").network.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.items())
    assert folder_server.paths == ["/vgg16.pth"]
    kept = tmp_path / "home" / "hub" / "checkpoints" / "vgg16.pth"
    assert kept.read_bytes() == hub.read_bytes()
    kept.unlink()
    hub.write_bytes(hub.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(WeightsError, match="checksum.*--backbone-weights PATH") as caught:
        load_embedding("vgg16", "imagenet")
    assert not kept.exists() and "\n" not in str(caught.value)


def test_origin_in_words_and_identity(hub: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(hub.read_bytes()).hexdigest()
    assert describe_embedding("vgg16", "none") == "VGG16, random, never trained (not ImageNet)"
    assert describe_embedding("vgg16", "imagenet") == "VGG16, ImageNet (torchvision's vgg16.pth)"
    assert "ImageNet, torchvision's file" in describe_embedding("vgg16", str(hub))
    assert (
        describe_embedding("vggface", str(hub))
        == f"VGG-Face, vgg16.pth (from a file; sha256 {digest[:12]})"
    )
    hub.write_bytes(b"1")
    assert "vgg16.pth (from a file, not ImageNet's own; sha256" in describe_embedding(
        "vgg16", str(hub)
    )
    assert identify("vgg16", "imagenet", 3) == digest[:8]
    assert identify("vgg16", str(hub), 3) == hashlib.sha256(b"1").hexdigest()[:16]
    assert identify("vgg16", "none", 3) == "none-seed3" != identify("vgg16", "none", 4)
    with pytest.raises(WeightsError, match="no file"):
        identify("vgg16", str(tmp_path / "absent.pt"))


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("vgg16", "download.pytorch.org"),
        ("vgg19", "download.pytorch.org"),
        ("inception-resnet-v2", "github.com"),
    ],
)
def test_addresses_hold_their_checksums(name: str, host: str) -> None:
    source = EMBEDDINGS[name].source
    assert source is not None
    found = source()
    assert found is not None
    url, prefix = found
    assert (
        url.startswith(f"https://{host}/") and url.endswith(f"-{prefix}.pth") and len(prefix) >= 8
    )
    assert identify(name, "imagenet") == prefix and url.rsplit("/", 1)[-1] in describe_embedding(
        name, "imagenet"
    )


# Saved embeddings.


def test_from_state_gives_the_same_scores_in_the_same_dtype(tiny: EmbeddingKind) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        embedding = load_embedding("vgg16", "none", seed=1).to(dtype)
        restored = from_state("vgg16", embedding.network.state_dict())
        assert {p.dtype for p in restored.parameters()} == {dtype}
        assert not restored.training and not any(p.requires_grad for p in restored.parameters())
        assert torch.equal(restored(pictures(tiny)), embedding(pictures(tiny)))


def test_from_state_is_strict(tiny: EmbeddingKind) -> None:
    state = load_embedding("vgg16", "none").network.state_dict()
    del state["features.0.bias"]
    with pytest.raises(WeightsError, match=r"VGG16.*1 missing \(features.0.bias\)"):
        from_state("vgg16", state)
