"""Evaluations of tiny runs: what is measured, on what, and what is said when something is missing."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.metrics
import torch
from tiny_settings import RUN
from torch import Tensor, nn

from gancolor import color, metrics, presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.dataset import open_source
from gancolor.errors import CheckpointError, ConfigError, DataError
from gancolor.evaluation import measurement
from gancolor.evaluation.measurement import Shown, evaluate
from gancolor.evaluation.perceptual import Perceptual
from gancolor.images import arrays
from gancolor.models import embeddings
from gancolor.training import train

SMALL: dict[str, Any] = {
    **RUN,
    "batch_size": 4,
    "steps": 3,
    "validate_every": 1000,
    "checkpoint_every": 1000,
}
UNET: dict[str, Any] = {"width": 4, "levels": 0, "frozen_blocks": 2, "ema": 0.0}
PLAIN: dict[str, Any] = {"perceptual": False, "device": "cpu", "precision": "fp32"}


def small_embedding() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 6))


@pytest.fixture(scope="module", autouse=True)
def _small_embeddings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANCOLOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        kind = embeddings.EMBEDDINGS["vgg16"]
        small = dataclasses.replace(kind, width=6, size=32, build=small_embedding)
        patch.setitem(embeddings.EMBEDDINGS, "vgg16", small)
        yield


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, painted: Path, _small_embeddings: None
) -> Iterator[Path]:
    """Train runs of other sizes, conditions and colour scales; the folder of runs, read only."""
    root = tmp_path_factory.mktemp("runs")
    train(
        presets.build("regression", **SMALL, **UNET, dataset=str(painted), image_size=32),
        runs_root=root,
    )
    train(
        presets.build("face", **(SMALL | {"steps": 1}), dataset=str(painted), image_size=40),
        runs_root=root,
    )
    edges = presets.build(
        "regression",
        **SMALL,
        **UNET,
        dataset=str(painted),
        image_size=48,
        condition="edges",
        name="edges",
    )
    train(edges, runs_root=root)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def plain(trained: Path) -> Path:
    """Return the first run, of 32 pixels."""
    return next(trained.glob("0001-*"))


@pytest.mark.slow
def test_figures_are_those_of_the_coloured_squares(plain: Path, painted: Path) -> None:
    shown: list[Shown] = []
    measured = evaluate(
        [plain], dataset=str(painted), split="all", limit=5, see=shown.append, **PLAIN
    )
    assert measured.has_truth and len(measured.names) == 5
    assert [row.name for row in measured.rows] == ["gray", "mean color", plain.name]
    assert [one.name for one in shown] == measured.names and [one.index for one in shown] == list(
        range(5)
    )
    row, colorizer = measured.rows[2], Colorizer.load(plain, device="cpu", precision="fp32")
    for one in shown:
        full = arrays.square(arrays.read_rgb(painted / one.name), 60, "crop")
        truth = arrays.resize(full, 32)
        assert np.array_equal(one.truth, truth)
        colored = colorizer.paint(truth, colorizer.predict(full))
        assert np.array_equal(one.colored[plain.name], colored)
        psnr = skimage.metrics.peak_signal_noise_ratio(truth, colored)  # type: ignore[no-untyped-call]
        ssim = skimage.metrics.structural_similarity(  # type: ignore[no-untyped-call]
            truth,
            colored,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        values = one.values[plain.name]
        assert values["psnr"] == pytest.approx(psnr, abs=1e-3) and values["ssim"] == pytest.approx(
            ssim, abs=1e-4
        )
        assert values["mae_rgb"] == pytest.approx(
            np.abs(truth.astype(float) - colored).mean(), rel=1e-4
        )
        assert row.pictures["psnr"][one.index] == values["psnr"]
    assert row.values["psnr"] == pytest.approx(np.mean(row.pictures["psnr"]))


def test_gray_row_is_the_pictures_own_lightness(plain: Path) -> None:
    shown: list[Shown] = []
    measured = evaluate([plain], see=shown.append, **PLAIN)
    for one in shown:
        assert np.ptp(one.gray, axis=2).max() == 0
        levels = [
            color.split(torch.from_numpy(x).permute(2, 0, 1)[None])[0]
            for x in (one.gray, one.truth)
        ]
        assert (levels[0] - levels[1]).abs().max() < 0.01
        assert one.values["gray"]["colorfulness"] == 0
    gray = measured.rows[0]
    assert gray.values["gray_rate"] == 1 and gray.values["colorfulness_abs"] == 0
    truth = gray.values["colorfulness_truth"]
    assert truth is not None and truth > 20
    assert gray.values["delta_colorfulness"] == pytest.approx(-truth)


def test_mean_color_row_is_the_mean_of_the_training_split(plain: Path, painted: Path) -> None:
    measured = evaluate([plain], size=40, **PLAIN)
    source = open_source(str(painted), "train")
    squares = [arrays.square(source.read(index), 60, "crop") for index in range(len(source))]
    rgb = torch.stack(
        [torch.from_numpy(arrays.resize(square, 40)).permute(2, 0, 1) for square in squares]
    )
    mean = color.split(rgb)[1].mean(dim=0, keepdim=True)
    held_out = open_source(str(painted), "test")
    truth = arrays.resize(arrays.square(held_out.read(0), 60, "crop"), 40)
    true = torch.from_numpy(truth).permute(2, 0, 1)[None]
    guess = (color.merge_in_gamut(color.split(true)[0], mean) * 255).round() / 255
    expected = metrics.measure(guess, true.float() / 255)
    row = measured.rows[1]
    for key in ("mae_rgb", "ciede2000", "colorfulness"):
        assert row.pictures[key][0] == pytest.approx(expected[key].item(), rel=2e-2)
    assert f"{len(source)} of the {len(source)} training pictures" in measured.protocol.mean_color


@pytest.mark.slow
def test_runs_of_other_sizes_conditions_and_scales_share_a_table(trained: Path) -> None:
    runs = sorted(trained.iterdir())
    shown: list[Shown] = []
    some: dict[str, Any] = {"split": "all", "limit": 12, "feature_weights": str(runs[0]), **PLAIN}
    together = evaluate(runs, see=shown.append, **some)
    assert together.protocol.size == 48  # the largest training size
    assert [row.name for row in together.rows[2:]] == [run.name for run in runs]
    words = together.protocol.runs
    assert (
        "at 32 px" in words[0]
        and "network face with the embedding vgg16, scale unit" in words[1]
        and "sees edges only" in words[2]
    )
    assert all("random" in line for line in words)  # where the frozen network comes from
    for run, row in zip(runs, together.rows[2:], strict=True):
        assert shown[0].colored[run.name].shape == (48, 48, 3)
        alone = evaluate([run], size=48, **some)
        assert alone.rows[2].values == row.values  # whatever else is in the table
        assert row.low == alone.rows[2].low and len(row.low) > 10
        assert together.rows[0].values == alone.rows[0].values


def test_evaluating_again_gives_the_same(plain: Path, trained: Path) -> None:
    """Also a baseline's, whose embeddings are computed the first time and found in the cache the
    second.
    """
    runs = [plain, next(trained.glob("0002-*"))]
    first, second = (evaluate(runs, size=32, **PLAIN) for _ in range(2))
    assert first.protocol == second.protocol and first.rows == second.rows


def test_checkpoint_files_and_equal_names(plain: Path, tmp_path: Path) -> None:
    other = shutil.copytree(plain, tmp_path / plain.name)
    measured = evaluate([plain, other, plain / "last.pt"], limit=2, **PLAIN)
    names = [row.name for row in measured.rows[2:]]
    assert names == [plain.name, f"{plain.name}-2", f"{plain.name}-last"]
    assert measured.rows[2].values == measured.rows[3].values
    assert (
        "last.pt of step 3" in measured.protocol.runs[2]
        and "best.pt of step 3" in measured.protocol.runs[0]
    )


def test_without_a_dataset_the_runs_must_agree(plain: Path, tmp_path: Path) -> None:
    other = shutil.copytree(plain, tmp_path / "other")
    content = torch.load(other / "best.pt", weights_only=True)
    content["config"]["dataset"] = "food"
    torch.save(content, other / "best.pt")
    with pytest.raises(ConfigError, match=r"--dataset must be given.*food \(other\)"):
        evaluate([plain, other], **PLAIN)


# --- truth ---


def gray_folder(painted: Path, folder: Path) -> Path:
    for path in painted.rglob("*.png"):
        rgb = arrays.read_rgb(path)
        arrays.write_rgb(
            folder / path.name,
            np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        )
    return folder


NEEDS_NO_TRUTH = {"colorfulness", "colorfulness_abs", "gray_rate"}


def test_gray_pictures_have_no_truth(plain: Path, painted: Path, tmp_path: Path) -> None:
    folder = gray_folder(painted, tmp_path / "old")
    shown: list[Shown] = []
    options = PLAIN | {"perceptual": True}
    measured = evaluate([plain], dataset=str(folder), split="all", see=shown.append, **options)
    assert not measured.has_truth and len(measured.names) == 8
    for row in measured.rows:
        assert {key for key, value in row.values.items() if value is not None} == NEEDS_NO_TRUTH
        assert set(row.low) == NEEDS_NO_TRUTH
        assert set(row.empty.values()) == {"the pictures have no colours to compare with"}
    assert set(shown[0].values[plain.name]) == {"colorfulness", "colorfulness_abs"}
    assert "truth: none" in "\n".join(measured.protocol.lines())


def test_truth_can_be_denied_and_asserted(plain: Path, painted: Path, tmp_path: Path) -> None:
    assert not evaluate([plain], truth=False, **PLAIN).has_truth
    folder = gray_folder(painted, tmp_path / "old")
    measured = evaluate([plain], dataset=str(folder), split="all", truth=True, **PLAIN)
    assert measured.rows[0].values["psnr"] == 100  # gray is right
    assert any(
        "8 of 8 pictures are themselves nearly gray" in note for note in measured.protocol.notes
    )


# --- networks that judge ---


class Corners(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(rgb.float(), 2).flatten(1)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    judge = Perceptual(lambda one, two: (one - two).abs().mean(), Corners())
    monkeypatch.setattr(Perceptual, "load", classmethod(lambda cls, device: judge))


@pytest.mark.slow
def test_perceptual_columns(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    measured = evaluate([plain], split="all", **(PLAIN | {"perceptual": True}))
    for row in measured.rows:
        lpips, fid, kid = (row.values[key] for key in ("lpips", "fid", "kid"))
        assert lpips is not None and fid is not None and kid is not None and row.empty == {}
        assert lpips == pytest.approx(np.mean(row.pictures["mae_rgb"]) / 255, rel=1e-3)
        assert row.low["lpips"] < lpips < row.high["lpips"] and "fid" not in row.low
    assert measured.rows[0].values["fid"] != measured.rows[2].values["fid"]
    assert any("Inception" in line for line in measured.protocol.lines())


def test_fewer_than_two_pictures(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    measured = evaluate([plain], limit=1, **(PLAIN | {"perceptual": True}))
    row = measured.rows[2]
    assert len(measured.names) == 1 and row.values["psnr"] == row.pictures["psnr"][0]
    assert row.low == {} and row.values["lpips"] is not None
    assert row.values["fid"] is None and row.empty["fid"] == "needs at least two pictures, got 1"


@pytest.mark.slow
def test_networks_that_cannot_be_had_leave_reasons(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Perceptual, "load", classmethod(lambda cls, device: Perceptual("offline", "offline"))
    )
    measured = evaluate([plain], split="all", **(PLAIN | {"perceptual": True}))
    assert all(
        row.empty == dict.fromkeys(("lpips", "fid", "kid"), "offline") for row in measured.rows
    )
    assert any(
        line.startswith("LPIPS, FID, KID: not measured") for line in measured.protocol.lines()
    )


@pytest.mark.slow
def test_spreads_are_those_of_the_squares(plain: Path) -> None:
    shown: list[Shown] = []
    measured = evaluate([plain], split="all", limit=12, see=shown.append, **PLAIN)
    for row in measured.rows:
        truths, coloured = (
            [one.truth for one in shown],
            [one.colored.get(row.name, one.gray) for one in shown],
        )
        ab = [
            color.split(torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2))[1]
            for x in (coloured, truths)
        ]
        expected = (ab[0].std(dim=(0, 2, 3)) / ab[1].std(dim=(0, 2, 3))).tolist()
        for key, value in zip(("spread_a", "spread_b"), expected, strict=True):
            if row.name != "mean color":
                assert row.values[key] == pytest.approx(value, abs=1e-3)
            found = row.values[key]
            assert found is not None and row.low[key] <= found <= row.high[key]
    assert measured.rows[0].values["spread_a"] == 0


@pytest.mark.slow
def test_columns_of_the_runs_own_vgg16(plain: Path) -> None:
    measured = evaluate([plain], split="all", **PLAIN)
    words = next(line for line in measured.protocol.lines() if line.startswith("VGG16 of FD VGG16"))
    assert (
        f"{plain.name}'s last.pt, random, never trained" in words
        and "sha256 of its tensors" in words
    )
    for row in measured.rows:
        distance, apart = row.values["fd_vgg16"], row.values["told_apart"]
        assert distance is not None and distance > 0 and "fd_vgg16" not in row.low
        assert apart is not None and row.low["told_apart"] <= apart <= row.high["told_apart"]
        assert (
            apart == pytest.approx(np.mean(row.pictures["told_apart"]))
            and len(row.pictures["told_apart"]) == 24
        )
        assert set(row.pictures["told_apart"]) <= {0, 50, 100}
    assert measured.rows[0].values["told_apart"] > 60  # type: ignore[operator]  # gray, even to random features
    again = evaluate([plain], split="all", feature_weights=str(plain / "last.pt"), **PLAIN)
    assert again.rows == measured.rows


@pytest.mark.slow
def test_columns_of_vgg16_that_stay_empty_say_why(plain: Path, trained: Path) -> None:
    few = evaluate([plain], split="all", limit=9, **PLAIN).rows[2]
    assert (
        few.values["fd_vgg16"] is not None
        and few.empty["told_apart"] == "needs at least 10 pictures, got 9"
    )
    one = evaluate([plain], limit=1, **PLAIN).rows[2]
    assert (
        one.empty["fd_vgg16"] == "needs at least 2 pictures, got 1"
        and one.values["spread_a"] is not None
    )
    fusion = evaluate([next(trained.glob("0002-*"))], limit=2, **PLAIN).rows[2]
    assert (
        fusion.empty["fd_vgg16"] == fusion.empty["told_apart"]
        and "--feature-weights" in fusion.empty["fd_vgg16"]
    )
    refused = evaluate([plain], limit=2, feature_weights="none", **PLAIN)
    assert refused.rows[2].empty["told_apart"] == "not asked for (--feature-weights none)"
    assert not any(line.startswith("VGG16 of") for line in refused.protocol.lines())


# --- bad input ---


@pytest.mark.slow
def test_a_folder_without_a_test_split_borrows_and_says_so(
    plain: Path, painted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "three"
    folder.mkdir()
    for path in sorted(painted.rglob("*.png"))[:3]:
        shutil.copy(path, folder)
    measured = {
        split: evaluate([plain], dataset=str(folder), split=split, **PLAIN)
        for split in ("test", "val", "all")
    }
    assert len(measured["all"].names) == 3 and len(measured["test"].names) == 1
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next(painted.rglob("*.png")), one)
    borrowed = evaluate([plain], dataset=str(one), **PLAIN)
    assert len(borrowed.names) == 1
    assert any("uses those of" in note for note in borrowed.protocol.notes)


@pytest.mark.slow
def test_training_pictures_are_said_loudly(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gancolor"):
        measured = evaluate([plain], split="train", **PLAIN)
    count = len(measured.names)
    note = f"{plain.name} was trained on {count} of these {count} pictures"
    assert measured.protocol.notes == [note] and f"NOTE: {note}" in measured.protocol.lines()
    assert note in caplog.text
    assert evaluate([plain], split="test", **PLAIN).protocol.notes == []


@pytest.mark.slow
def test_broken_pictures_among_good_ones(plain: Path, pictures: Path) -> None:
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*"))
    (pictures / names[0]).write_bytes(b"\xff\xd8\xff no picture")
    (pictures / names[7]).write_bytes(b"")
    measured = evaluate([plain], dataset=str(pictures), split="all", **PLAIN)
    assert measured.names == [name for name in names if name not in (names[0], names[7])]
    assert measured.protocol.pictures == 22 and len(measured.protocol.left_out) == 2
    assert names[7] in measured.protocol.left_out[1]
    assert len(measured.rows[2].pictures["psnr"]) == 22


def test_training_pictures_that_are_gone_empty_the_mean_color(
    plain: Path, pictures: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(plain, tmp_path / "run")
    content = torch.load(run / "best.pt", weights_only=True)
    content["config"]["dataset"] = str(tmp_path / "gone")
    torch.save(content, run / "best.pt")
    with pytest.raises(DataError, match=r"--dataset must name pictures .*gone"):
        evaluate([run], **PLAIN)
    measured = evaluate([run], dataset=str(pictures), **PLAIN)
    row = measured.rows[1]
    assert (
        row.name == "mean color"
        and set(row.values.values()) == {None}
        and "gone" in row.empty["psnr"]
    )
    assert any(
        "whether it has seen these pictures is not known" in note
        for note in measured.protocol.notes
    )
    assert measured.rows[2].values["psnr"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "held-out"}, "--split"),
        ({"fit": "pad"}, "--fit"),
        ({"size": 16}, "--size must be at least 32"),
        ({"limit": 0}, "--limit"),
        ({"device": "abacus"}, "--device"),
        ({"precision": "fp8"}, "--precision"),
    ],
)
def test_settings_out_of_bounds(plain: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate([plain], **(PLAIN | options))


def test_no_run_and_a_run_without_checkpoint(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        evaluate([], **PLAIN)
    empty = tmp_path / "0003-empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="0003-empty"):
        evaluate([empty], dataset=str(pictures), **PLAIN)


def test_datasets_that_are_not_there(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        evaluate([plain], dataset=str(tmp_path / "nowhere"), **PLAIN)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="at least one picture that can be read"):
        evaluate([plain], dataset=str(tmp_path / "bad"), split="all", **PLAIN)


def test_public_names_are_there() -> None:
    assert all(hasattr(measurement, name) for name in measurement.__all__)
