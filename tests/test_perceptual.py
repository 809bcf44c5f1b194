"""LPIPS, FID and KID with stub networks, and what happens when the real ones cannot be had."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from serving import Server
from torch import Tensor, nn

from gancolor.errors import DownloadError
from gancolor.evaluation import perceptual
from gancolor.evaluation.perceptual import Perceptual, frechet_distance, kernel_distance

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None, reason="needs torchmetrics"
)


class Corners(nn.Module):
    """A stub of Inception: twelve features, the colours of the four quarters."""

    def forward(self, rgb: Tensor) -> Tensor:
        assert rgb.dtype == torch.uint8
        return nn.functional.adaptive_avg_pool2d(rgb.float() / 255, 2).flatten(1)


def distance(colored: Tensor, true: Tensor) -> Tensor:
    assert colored.max() <= 1 and colored.is_floating_point()
    return (colored - true).abs().mean()


def draw(count: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (1, 3, 32, 32), generator=random, dtype=torch.uint8)
        for _ in range(count)
    ]


# --- distances between sets of features ---


def frechet_by_hand(first: Tensor, second: Tensor) -> float:
    one, two = first.double().numpy(), second.double().numpy()
    cov1, cov2 = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    values, vectors = np.linalg.eigh(cov1)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    middle = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(0)).sum()
    step = one.mean(0) - two.mean(0)
    return float(step @ step + np.trace(cov1) + np.trace(cov2) - 2 * middle)


@pytest.mark.parametrize("count", [7, 200], ids=["fewer than features", "more than features"])
def test_frechet_distance_by_hand(count: int) -> None:
    first, second = draw(count, 30), draw(count + 3, 30, seed=1, shift=0.5) * 1.3
    assert frechet_distance(first, second) == pytest.approx(
        frechet_by_hand(first, second), rel=1e-3
    )
    assert frechet_distance(second, first) == pytest.approx(
        frechet_distance(first, second), rel=1e-4
    )


def test_frechet_distance_of_equal_sets_is_nothing() -> None:
    features = draw(40, 12)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-3)
    # moved, not spread
    assert frechet_distance(features, features + 2) == pytest.approx(12 * 4, rel=1e-4)


def test_kernel_distance_by_hand() -> None:
    first, second = draw(9, 5), draw(9, 5, seed=1, shift=1.0)
    kernel = [[((a @ b.T / 5 + 1) ** 3).double() for b in (first, second)] for a in (first, second)]
    within = sum((k.sum() - k.trace()) / (9 * 8) for k in (kernel[0][0], kernel[1][1]))
    expected = float(within - 2 * kernel[0][1].mean())
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_over_subsets_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "KID_SUBSET", 6)
    first, second = draw(9, 5), draw(9, 5, seed=1, shift=1.0)
    before = torch.get_rng_state()
    once = kernel_distance(first, second)
    assert torch.equal(before, torch.get_rng_state())  # the caller's random numbers are left alone
    assert kernel_distance(first, second) == once
    assert kernel_distance(first, second, seed=1) != once


# --- pictures ---


def test_pictures_go_through_the_networks_one_by_one() -> None:
    truths, others = pictures(6), pictures(6, seed=1)
    judge = Perceptual(distance, Corners())
    for truth, other in zip(truths, others, strict=True):
        seen = judge.see(truth, {"same": truth, "other": other})
        assert seen["same"] == 0
        assert seen["other"] == pytest.approx(
            (other.float() - truth.float()).abs().mean().item() / 255, rel=1e-4
        )
    found = judge.summarize()
    features = [torch.cat([Corners()(x) for x in group]) for group in (others, truths)]
    assert found["other"]["fid"] == pytest.approx(frechet_by_hand(*features), rel=1e-2)
    assert found["other"]["kid"] == pytest.approx(kernel_distance(*features), rel=1e-5)
    assert found["same"]["fid"] == pytest.approx(0, abs=1e-4)
    assert judge.empty == {}
    words = " ".join(judge.lines())
    assert "AlexNet" in words and "torch-fidelity" in words and "biased" in words


def test_one_picture_is_too_few_for_sets_of_pictures() -> None:
    judge = Perceptual(distance, Corners())
    judge.see(pictures(1)[0], {"run": pictures(1, seed=1)[0]})
    assert judge.summarize() == {}
    assert judge.empty == dict.fromkeys(("fid", "kid"), "needs at least two pictures, got 1")
    assert judge.lines()[1:] == ["FID, KID: not measured, for the reason below the tables"]


def test_missing_networks_are_reasons() -> None:
    judge = Perceptual("no file", "no file")
    assert judge.see(pictures(1)[0], {"run": pictures(1)[0]}) == {}
    assert judge.summarize() == {}
    assert judge.empty == dict.fromkeys(perceptual.KEYS, "no file")
    assert judge.lines() == ["LPIPS, FID, KID: not measured, for the reason below the tables"]


# --- weights ---

BODY = b"weights" * 1000
NAME = f"net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server(BODY)
    yield server.address
    server.stop()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return torch's folder of downloaded weights, an empty one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def stand_in(monkeypatch: pytest.MonkeyPatch, url: str, hub: Path) -> list[str]:
    """Let both libraries name `url`, and note which build a network, and whether its weights were
    there by then.
    """
    import torch_fidelity.feature_extractor_inceptionv3 as fidelity
    import torchmetrics.image.fid
    import torchmetrics.image.lpip
    import torchvision

    built: list[str] = []

    def build(name: str) -> SimpleNamespace:
        built.append(f"{name} {(hub / NAME).is_file()}")
        return SimpleNamespace(inception=Corners(), to=lambda device: SimpleNamespace())

    monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", url)
    monkeypatch.setattr(
        torchvision.models, "AlexNet_Weights", SimpleNamespace(DEFAULT=SimpleNamespace(url=url))
    )
    monkeypatch.setattr(
        torchmetrics.image.fid, "FrechetInceptionDistance", lambda **options: build("inception")
    )
    monkeypatch.setattr(
        torchmetrics.image.lpip,
        "LearnedPerceptualImagePatchSimilarity",
        lambda **options: build("lpips"),
    )
    return built


@pytest.mark.slow
def test_weights_are_fetched_to_where_their_library_looks(
    server: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = stand_in(monkeypatch, f"{server}/{NAME}", hub)
    judge = Perceptual.load(torch.device("cpu"))
    assert judge.empty == {}
    assert built == ["lpips True", "inception True"]
    assert (hub / NAME).read_bytes() == BODY


def test_weights_with_another_checksum_are_refused(
    server: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = stand_in(monkeypatch, f"{server}/net-00000000.pth", hub)
    judge = Perceptual.load(torch.device("cpu"))
    assert set(judge.empty) == {"lpips", "fid", "kid"} and built == []
    assert "wrong checksum" in judge.empty["fid"]


def test_without_a_network_the_reason_is_one_line(
    hub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        built = stand_in(monkeypatch, url, hub)
        with caplog.at_level(logging.WARNING, "gancolor"):
            judge = Perceptual.load(torch.device("cpu"))
    assert built == []
    assert set(judge.empty) == {"lpips", "fid", "kid"}
    assert all(
        url in reason and "\n" not in reason and str(hub) in reason
        for reason in judge.empty.values()
    )
    assert "LPIPS will be empty" in caplog.text and "FID and KID will be empty" in caplog.text


@pytest.mark.parametrize("package", ["torchmetrics", "torch_fidelity"])
def test_without_the_extra_the_line_that_installs_it_is_the_reason(
    package: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(url: str, *_: object, **__: object) -> Path:
        raise DownloadError("offline")

    monkeypatch.setattr(perceptual, "fetch", never)
    for module in [
        name for name in sys.modules if name == package or name.startswith(f"{package}.")
    ]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    judge = Perceptual.load(torch.device("cpu"))
    for key in ("fid", "kid") if package == "torch_fidelity" else perceptual.KEYS:
        assert package in judge.empty[key]
        assert "pip install 'gancolor[metrics]'" in judge.empty[key]


def test_addresses_of_the_installed_libraries_hold_checksums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(url: str, target: Path, sha256: str | None, **options: float) -> Path:
        assert options["retries"] <= 2 and options["timeout"] <= 15  # offline is found out soon
        asked.append((target.name, sha256))
        raise DownloadError("offline")

    monkeypatch.setattr(perceptual, "fetch", fetch)
    assert set(Perceptual.load(torch.device("cpu")).empty.values()) == {"offline"}
    assert [name for name, _ in asked] == [
        "alexnet-owt-7be5be79.pth",
        "weights-inception-2015-12-05-6726825d.pth",
    ]
    assert [checksum for _, checksum in asked] == ["7be5be79", "6726825d"]


@pytest.mark.slow
def test_real_networks_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_fidelity.feature_extractor_inceptionv3 as fidelity
    import torchvision

    alexnet = torchvision.models.alexnet
    # nothing is downloaded
    monkeypatch.setattr(perceptual, "fetch", lambda url, target, *_, **__: target)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet())
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda url, **options: {})
    monkeypatch.setattr(
        fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None
    )
    torch.manual_seed(0)
    judge = Perceptual.load(torch.device("cpu"))
    assert judge.empty == {}
    truths, others = pictures(3), pictures(3, seed=1)  # 32 pixels: the smallest that are evaluated
    for truth, other in zip(truths, others, strict=True):
        seen = judge.see(truth, {"same": truth, "other": other})
        assert seen["same"] == pytest.approx(0, abs=1e-6) and seen["other"] > 1e-3
    found = judge.summarize()
    assert found["other"]["fid"] > abs(found["same"]["fid"])
    assert judge._truth[0].shape == (1, 2048)
