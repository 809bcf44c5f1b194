"""Fusion networks as runs: they train, resume bit for bit, leave checkpoints that colour, and use
their cache.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_settings import RUN
from torch import nn

from gancolor import presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, MissingExtra
from gancolor.images import arrays
from gancolor.models import FusionNetwork, embeddings
from gancolor.storage import checkpoint
from gancolor.training import train
from gancolor.training.plan import open_pictures, open_validation, read_held_out
from gancolor.training.state import State

FUSION = [
    "koalarization",
    "face",
    "portrait-vggface",
    "portrait-vgg19",
    "portrait-inception",
    "deep-cnn",
]


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small networks in place of the embeddings; returns how many pictures went through them, a
    number a call.
    """
    counts: list[int] = []

    class Small(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.scores = nn.Linear(48, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            counts.append(len(x))
            return self.scores(
                nn.functional.adaptive_avg_pool2d(x, 4).flatten(1).to(self.scores.weight.dtype)
            )

    for name, kind in list(embeddings.EMBEDDINGS.items()):
        small = dataclasses.replace(kind, width=7, size=32, build=lambda: Small(7))
        monkeypatch.setitem(embeddings.EMBEDDINGS, name, small)
    # its pictures are not to be counted
    monkeypatch.setattr(embeddings, "_standardize", lambda embedding: None)
    return counts


def settings(preset: str, dataset: Path, **changes: Any) -> TrainConfig:
    quick = {
        **RUN,
        "dataset": str(dataset),
        "image_size": 32,
        "batch_size": 4,
        "steps": 6,
        "val_pictures": 3,
        "checkpoint_every": 1000,
        "validate_every": 1000,
        "log_every": 1,
    }
    return presets.build(preset, **{**quick, **changes})


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("preset", FUSION)
def test_every_preset_trains_reports_and_colours(
    preset: str, pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    run = train(settings(preset, pictures), runs_root=tmp_path / "runs")
    losses = [line["generator/mse"] for line in log(run) if "generator/mse" in line]
    assert len(losses) == 6 and all(0 < loss < 1 for loss in losses)
    report = json.loads((run / "report.json").read_text())
    assert report["step"] == 6 and report["seen"] == 24 and report["val"]["ciede2000"] > 0
    assert "embedding weights: " in (run / "card.md").read_text()
    colorizer = Colorizer.load(run, device="cpu")
    assert (
        isinstance(colorizer.generator, FusionNetwork)
        and colorizer.step == 6
        and "random" in colorizer.origin
    )
    picture = arrays.read_rgb(pictures / "lakes" / "00.png")
    colored = colorizer(picture)
    assert colored.shape == picture.shape and colored.dtype == np.uint8
    assert (colored.max(2) != colored.min(2)).any(), "some colour"


@pytest.mark.slow
def test_an_epoch_after_the_first_costs_no_pass(
    pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    config = settings("portrait-vgg19", pictures, steps=12)
    run = train(config, runs_root=tmp_path / "runs")
    seen = log(run)[0]
    assert seen["epoch"] < 1
    different = len([p for p in pictures.rglob("*") if p.is_file()])
    # each training and validation picture once
    assert sum(passes) == different - _held_back(config)
    before = sum(passes)
    train(settings("portrait-vgg19", pictures, steps=5, seed=5), runs_root=tmp_path / "runs")
    assert sum(passes) > before  # random weights of another seed are another network
    before = sum(passes)
    train(settings("portrait-vgg19", pictures, steps=5, lr=1e-4), runs_root=tmp_path / "runs")
    assert sum(passes) == before  # another run finds them all


def _held_back(config: TrainConfig) -> int:
    """Pictures that neither training nor validation sees."""
    return len(open_pictures(config, "test")) + max(
        0, len(open_pictures(config, "val")) - config.val_pictures
    )


def test_random_crops_are_not_cached(pictures: Path, tmp_path: Path, passes: list[int]) -> None:
    train(settings("deep-cnn", pictures, steps=4), runs_root=tmp_path / "runs")
    assert sum(passes) == 4 * 4 + len(_validated(pictures))


def _validated(pictures: Path) -> list[str]:
    return list(read_held_out(settings("deep-cnn", pictures)).names)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_resume_is_exact(pictures: Path, tmp_path: Path, passes: list[int], cached: bool) -> None:
    changes: dict[str, Any] = {"embedding_cache": cached, "dropout": 0.5, "ema": 0.9}
    whole = train(settings("face", pictures, **changes), runs_root=tmp_path / "whole")
    first = train(
        settings("face", pictures, **{**changes, "steps": 2}), runs_root=tmp_path / "parts"
    )
    again = train(settings("face", pictures, **changes), runs_root=tmp_path / "parts", resume=first)
    one, two = checkpoint.load(whole / "last.pt"), checkpoint.load(again / "last.pt")
    assert again == first and two["step"] == 6
    for key, value in one["generator"].items():
        assert torch.equal(value, two["generator"][key]), key
    for key, value in one["ema"].items():
        assert torch.equal(value, two["ema"][key]), key


@pytest.mark.slow
def test_with_and_without_cache_the_run_is_the_same(
    pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    runs = [
        train(
            settings("koalarization", pictures, embedding_cache=cached, steps=8),
            runs_root=tmp_path / str(cached),
        )
        for cached in (True, False)
    ]
    one, two = (checkpoint.load(run / "last.pt")["generator"] for run in runs)
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.slow
def test_the_checkpoint_needs_no_weights_file(
    pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    network = embeddings.load_embedding("vgg19", "none", seed=3)
    weights = tmp_path / "weights.pt"
    torch.save(network.network.state_dict(), weights)
    changes = {"backbone_weights": str(weights), "seed": 3}
    run = train(settings("portrait-vgg19", pictures, **changes), runs_root=tmp_path / "runs")
    picture = arrays.read_rgb(pictures / "lakes" / "00.png")
    before = Colorizer.load(run, device="cpu", precision="fp32")(picture)
    weights.unlink()
    assert np.array_equal(
        Colorizer.load(run / "best.pt", device="cpu", precision="fp32")(picture), before
    )
    train(
        settings("portrait-vgg19", pictures, **{**changes, "steps": 8}),
        runs_root=tmp_path / "runs",
        resume=run,
    )
    assert json.loads((run / "report.json").read_text())["step"] == 8
    content = torch.load(run / "best.pt", weights_only=True)
    del content["embedding"]
    torch.save(content, tmp_path / "without.pt")
    with pytest.raises(CheckpointError, match="embedding"):
        Colorizer.load(tmp_path / "without.pt")


@pytest.mark.slow
def test_an_embedding_changes_the_colours(
    pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    run = train(settings("face", pictures, steps=20), runs_root=tmp_path / "runs")
    colorizer = Colorizer.load(run, device="cpu", precision="fp32")
    bright = arrays.read_rgb(pictures / "lakes" / "00.png")
    plain = colorizer.predict(bright)
    assert colorizer._network.embedder is not None
    embed = colorizer._network.embedder
    colorizer._network.embedder = lambda copies: embed(copies) + 5.0  # type: ignore[assignment]
    colorizer._network.embedder.size = embed.size  # type: ignore[union-attr]
    assert np.abs(colorizer.predict(bright) - plain).max() > 1e-4


@pytest.mark.parametrize("fit", ["white", "reflect", "crop"])
def test_a_picture_that_is_not_square_is_fitted(
    pictures: Path, tmp_path: Path, passes: list[int], fit: str
) -> None:
    run = train(settings("face", pictures, steps=1, embedding_fit=fit), runs_root=tmp_path / "runs")
    colorizer = Colorizer.load(run, device="cpu", precision="fp32")
    embed, shown = colorizer._network.embedder, []
    assert embed is not None

    class Recorder:
        size = embed.size

        def __call__(self, copies: torch.Tensor) -> torch.Tensor:
            shown.append(copies[0].permute(1, 2, 0).numpy())
            return embed(copies)

    colorizer._network.embedder = Recorder()  # type: ignore[assignment]
    tall = np.ascontiguousarray(arrays.read_rgb(pictures / "lakes" / "00.png")[:, :30])
    assert colorizer(tall).shape == tall.shape
    assert np.array_equal(shown[0], arrays.square(tall, 32, fit))


def test_without_timm_nothing_is_begun(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[baselines\]'"):
        train(settings("koalarization", pictures), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_dry_run_speaks_of_the_network(
    cli: Callable[..., Any], pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    shown = cli(
        *(
            "train",
            "--dry-run",
            "--preset",
            "face",
            "--dataset",
            pictures,
            "--backbone-weights",
            "none",
        ),
        *("--image-size", 32, "--batch-size", 2, "--device", "cpu", "--steps", 10),
    )
    assert shown.exit_code == 0, shown.output
    assert (
        "embeddings come on top in the first epoch" in shown.output
        and "parameters:" in shown.output
    )


def test_embeddings_of_held_out_pictures_are_computed_once(
    pictures: Path, tmp_path: Path, passes: list[int]
) -> None:
    config = settings("portrait-vggface", pictures, embedding_cache=False)
    state = State(config, torch.device("cpu"))
    held = open_validation(state, read_held_out(config))
    before = sum(passes)
    assert before == len(held.rgb)
    held.measure(state.averaged)
    held.measure(state.averaged)
    assert sum(passes) == before
