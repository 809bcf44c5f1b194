"""Which VGG16 sees for an evaluation, what it gathers, and why columns stay empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gancolor import presets
from gancolor.errors import WeightsError
from gancolor.evaluation.features import FeatureComparison, Seeing, find, pool
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.models.layers import ConvReLU
from gancolor.storage import checkpoint


@pytest.fixture(scope="module")
def network() -> VGG16:
    """Return a narrow VGG16, random."""
    return load_backbone("none", seed=3)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """Twelve colourful pictures, uint8."""
    coarse = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(coarse, size=32, mode="bilinear") * 255).byte()


def gather(seeing: Seeing | str, truth: Tensor) -> FeatureComparison:
    gathered = FeatureComparison(seeing)
    for one in truth.split(1):
        gray = one.float().mean(dim=1, keepdim=True).expand_as(one).byte()
        gathered.see(one, {"gray": gray, "same": one})
    return gathered


def save(path: Path, content: dict[str, Any], **settings: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, {"origin": "made up"} | content, presets.build("regression", **settings))
    return path


def words(found: Seeing | str) -> str:
    assert isinstance(found, Seeing) and found.network.frozen and found.network.blocks == 5
    return found.words


def test_pool_is_the_mean_of_every_tap(network: VGG16, truth: Tensor) -> None:
    found = pool(network, truth[:2])
    with torch.no_grad():
        expected = torch.cat(
            [tap.mean(dim=(2, 3)) for tap in network(truth[:2].float() / 255)], dim=1
        )
    assert found.shape == (2, sum(tap.channels for tap in VGG16.TAPS)) and torch.allclose(
        found, expected, rtol=1e-4
    )


def test_equal_sets_and_gray_ones(network: VGG16, truth: Tensor) -> None:
    gathered = gather(Seeing(network, "made up, sha256 abc"), truth)
    distances, apart = gathered.summarize()
    assert distances["same"] == pytest.approx(0, abs=1e-6) and distances["gray"] > 1
    assert apart["same"] == [50] * 12 and sum(apart["gray"]) / 12 > 60
    assert gathered.empty == {} and "made up, sha256 abc" in gathered.lines()[0]
    assert f"of {sum(tap.channels for tap in VGG16.TAPS)} channels" in gathered.lines()[0]
    assert not any("FID," in line.replace("no FID,", "") for line in gathered.lines())


def test_the_scale_of_a_networks_activations_plays_no_part(network: VGG16, truth: Tensor) -> None:
    louder = load_backbone("none", seed=3)
    scale = 1.0
    with torch.no_grad():
        for number, layer in enumerate(one for one in louder.features if isinstance(one, ConvReLU)):
            factor = 2.0 if number % 2 else 3.0
            scale *= factor
            layer.weight.mul_(factor)
            assert layer.bias is not None
            layer.bias.mul_(scale)
    last = VGG16.TAPS[-1].channels
    assert torch.allclose(
        pool(louder, truth)[:, -last:], scale * pool(network, truth)[:, -last:], rtol=1e-3
    )
    (quiet, _), (loud, _) = (
        gather(Seeing(one, ""), truth).summarize() for one in (network, louder)
    )
    assert loud["gray"] == pytest.approx(quiet["gray"], rel=1e-3)


@pytest.mark.parametrize("count", [1, 5])
def test_few_pictures_are_a_reason(network: VGG16, truth: Tensor, count: int) -> None:
    gathered = gather(Seeing(network, ""), truth[:count])
    distances, apart = gathered.summarize()
    needed = {"fd_vgg16": 2, "told_apart": 10}
    assert gathered.empty == {
        key: f"needs at least {least} pictures, got {count}"
        for key, least in needed.items()
        if count < least
    }
    assert apart == {} and set(distances) == ({"gray", "same"} if count > 1 else set())


def test_equal_true_pictures_are_a_reason(network: VGG16, truth: Tensor) -> None:
    gathered = gather(Seeing(network, ""), truth[:1].expand(12, -1, -1, -1))
    assert gathered.summarize() == ({}, {})
    assert set(gathered.empty.values()) == {"the true pictures are all the same to VGG16"}


def test_without_a_network_nothing_is_measured(truth: Tensor) -> None:
    gathered = gather("offline", truth)
    assert gathered.summarize() == ({}, {}) and gathered.lines() == []
    assert gathered.empty == {"fd_vgg16": "offline", "told_apart": "offline"}


# --- which network ---


def test_a_run_and_its_file_are_the_same_network(network: VGG16, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "vgg.pt")
    run = save(tmp_path / "0001-a" / "last.pt", {"backbone": network.state_dict()}).parent
    of_run, of_file = words(find(None, [run])), words(find(str(tmp_path / "vgg.pt")))
    assert of_run.startswith("0001-a's last.pt, made up, ") and of_file.startswith("vgg.pt (")
    fingerprint = of_run.split(", ")[-1]
    assert of_file.split(", ")[-1] == fingerprint
    assert words(find(str(run))) == words(find(str(run / "last.pt"))) == of_run
    torch.save(load_backbone("none", seed=4).state_dict(), tmp_path / "vgg.pt")
    assert words(find(str(tmp_path / "vgg.pt"))).split(", ")[-1] != fingerprint


def test_the_judge_of_a_run_with_another_encoder_has_its_own_origin(
    network: VGG16, tmp_path: Path
) -> None:
    settings = {"backbone": "efficientnet-lite0", "backbone_weights": "some/vgg.pt"}
    run = save(
        tmp_path / "0001-a" / "last.pt", {"backbone": network.state_dict()}, **settings
    ).parent
    assert words(find(None, [run])).startswith("0001-a's last.pt, of --backbone-weights vgg.pt, ")


def test_encoder_of_a_generator(network: VGG16, tmp_path: Path) -> None:
    generator = {f"encoder.{key}": value for key, value in network.state_dict().items()} | {
        "last.bias": torch.ones(2)
    }
    best = save(tmp_path / "0001-a" / "best.pt", {"generator": generator})
    assert words(find(None, [best.parent])).startswith("0001-a's best.pt")
    # as a run in bfloat16 keeps them
    halves = {key: value.bfloat16() for key, value in generator.items()}
    found = find(None, [save(tmp_path / "half" / "best.pt", {"generator": halves}).parent])
    assert isinstance(found, Seeing) and found.network.features[0].weight.dtype == torch.float32
    save(best, {"generator": generator}, train_backbone=True)  # no longer the frozen one
    assert "--feature-weights" in str(find(None, [best.parent]))
    save(
        best.with_name("last.pt"),
        {"generator": generator, "backbone": network.state_dict()},
        train_backbone=True,
    )
    assert words(find(None, [best.parent])).startswith("0001-a's last.pt")


def test_the_first_trained_one_is_taken(network: VGG16, tmp_path: Path) -> None:
    state = network.state_dict()
    part = {f"encoder.{key}": value for key, value in VGG16(2).state_dict().items()}
    short = save(tmp_path / "short" / "best.pt", {"generator": part}).parent
    random = save(
        tmp_path / "random" / "last.pt", {"backbone": state}, backbone_weights="none"
    ).parent
    trained = save(tmp_path / "trained" / "last.pt", {"backbone": state}).parent
    other = save(tmp_path / "other" / "last.pt", {"backbone": state}).parent
    (trained / "best.pt").write_bytes(b"damaged")
    assert words(find(None, [short, random, trained, other])).startswith("trained's last.pt")
    assert words(find(None, [short, random])).startswith("random's last.pt")
    assert find(None, [short]) == find(None, []) and "no run's checkpoint holds" in str(
        find(None, [])
    )


def test_none_asks_for_none(tmp_path: Path) -> None:
    assert find("none", [tmp_path]) == "not asked for (--feature-weights none)"


def test_weights_that_are_none_are_an_error_in_this_options_words(tmp_path: Path) -> None:
    (tmp_path / "words.pt").write_text("no weights")
    torch.save(VGG16(2).state_dict(), tmp_path / "backbone.pt")
    part = save(tmp_path / "run" / "best.pt", {"generator": {}})
    cases = {
        tmp_path / "nowhere.pt": "feature weights must be imagenet, none or a file, got ",
        tmp_path / "words.pt": "must be a state_dict saved by torch.save",
        tmp_path / "backbone.pt": "backbone.pt must hold VGG16's tensors and no others",
        part: "must hold a frozen VGG16 of five blocks, got none",
        part.parent: "must hold a frozen VGG16 of five blocks, got none",
        tmp_path: "must hold a frozen VGG16 of five blocks, got none",
    }
    for path, message in cases.items():
        with pytest.raises(WeightsError) as caught:
            find(str(path))
        assert message in str(caught.value) and "\n" not in str(caught.value)
        assert "--feature-weights PATH" in str(caught.value) and "--backbone-weights" not in str(
            caught.value
        )
