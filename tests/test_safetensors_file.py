"""Models as safetensors files: whole or not at all, damage is found, and they are read as best.pt
is.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from gancolor import __version__, models, presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError
from gancolor.models.backbones import ENCODERS
from gancolor.storage import checkpoint, model_file

CONFIG = presets.build("fast", image_size=32, backbone_weights="none", encoder_weights="none")


def content(config: TrainConfig = CONFIG) -> dict[str, Any]:
    """What a best.pt of a network that was never trained holds."""
    torch.manual_seed(1)
    encoder = ENCODERS[config.backbone].load("none", seed=1).trim(config.frozen_blocks)
    generator = models.build_generator(config, encoder)
    with torch.no_grad():
        generator.last.logits.weight.mul_(300)  # else it colours next to nothing
    return {"generator": generator.state_dict(), "origin": "random", "step": 7, "seen": 56}


def small() -> dict[str, Any]:
    return {
        "generator": {"a.b": torch.arange(6.0).view(2, 3), "c": torch.tensor(3)},
        "step": 1,
        "origin": "ä",
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model_file.write(path, content(), CONFIG, card="# A model\n")
    return path


def test_round_trip_keeps_values_types_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    nested = {
        "name": "x",
        "weights": {"a.b": torch.ones(2).bfloat16(), "deep": torch.tensor(True)},
        "none": None,
    }
    model_file.write(
        path, {**small(), "embedding": nested, "shares": torch.ones(3).double()}, CONFIG
    )
    read = checkpoint.load(path)
    assert read["config"] == CONFIG and read["version"] == __version__ and "card" not in read
    assert read["step"] == 1 and read["origin"] == "ä"
    assert torch.equal(read["generator"]["a.b"], small()["generator"]["a.b"])
    assert read["generator"]["c"].dtype == torch.int64 and read["generator"]["c"] == 3
    assert (
        read["embedding"]["weights"]["a.b"].dtype == torch.bfloat16
        and read["embedding"]["none"] is None
    )
    assert read["embedding"]["weights"]["deep"].dtype == torch.bool
    assert read["shares"].dtype == torch.float64
    assert [item.name for item in tmp_path.iterdir()] == ["m.safetensors"]


def test_it_is_known_by_what_is_in_it_not_by_its_name(model: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model.pt"
    renamed.write_bytes(model.read_bytes())
    assert checkpoint.load(renamed)["step"] == 7
    checkpoint.save(tmp_path / "best.pt", small(), CONFIG)
    assert not model_file.is_one(tmp_path / "best.pt") and not model_file.is_one(tmp_path / "none")


def test_the_header_alone_has_settings_and_card(model: Path) -> None:
    header = model_file.read_header(model)
    assert header["card"] == "# A model\n" and header["config"] == CONFIG and header["step"] == 7
    assert header["generator"] == {}


def test_it_colours_as_best_pt_does(model: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", content(), CONFIG)
    gray = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    one, other = (Colorizer.load(path)(gray) for path in (model, tmp_path / "best.pt"))
    assert np.array_equal(one, other) and one.std() > 0


def test_half_precision_halves_weights_alone_and_colours_hardly_differ(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    halved = model_file.halve(content())
    model_file.write(path, halved, CONFIG)
    kinds = {key: value.dtype for key, value in halved["generator"].items()}
    assert kinds["expand.0.0.weight"] == kinds["encoder.features.0.weight"] == torch.float16
    assert kinds["expand.0.1.running_var"] == kinds["last.logits.bias"] == torch.float32
    assert kinds["expand.0.1.num_batches_tracked"] == torch.int64
    assert path.stat().st_size < 0.55 * model.stat().st_size
    gray = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    rgb = np.repeat(gray[..., None], 3, 2)
    one, other = (Colorizer.load(file).predict(rgb) for file in (model, path))
    assert 0 < np.abs(one - other).max() < 0.01


def test_what_float16_cannot_hold_stays_float32() -> None:
    assert model_file.halve({"a": torch.full((2, 2), 1e5)})["a"].dtype == torch.float32
    assert model_file.halve({"a": torch.full((2, 2), float("nan"))})["a"].dtype == torch.float32


@pytest.mark.full_width
def test_the_preset_fast_is_small_enough_for_a_package(tmp_path: Path) -> None:
    config = presets.build("fast")
    model_file.write(tmp_path / "m", model_file.halve(content(config)), config)
    assert (tmp_path / "m").stat().st_size < 10 << 20


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_is_one_line(model: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.safetensors"
    data = model.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"m\.safetensors is damaged") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_any_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model_file.write(path, small(), CONFIG, card="# card\n")
    data = path.read_bytes()
    for at in random.Random(2).sample(range(len(data)), 150):
        broken = bytearray(data)
        broken[at] ^= 1 << random.Random(at).randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "must be a gancolor model"),
        (
            {"format": "2"},
            r"must have format 1, got '2' written by gancolor 9\.9; use that version",
        ),
        ({"content": "{"}, "written by gancolor 9.9"),
        ({"config": '{"future_setting": 1}'}, "unknown future_setting; use the version"),
    ],
)
def test_foreign_and_other_versions_are_one_line(
    tmp_path: Path, told: dict[str, str] | None, words: str
) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {"a": torch.ones(2)}
    if told is not None:
        plain = {
            "format": "1",
            "version": "9.9",
            "config": json.dumps(CONFIG.to_json()),
            "content": "{}",
            **told,
        }
        told = {**plain, "sha256": model_file._digest(plain, tensors)}
    safetensors.torch.save_file(tensors, path, told)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_another_network_is_one_line(tmp_path: Path, fault: str) -> None:
    path, whole = tmp_path / "m.safetensors", content()
    if fault == "missing":
        del whole["generator"]["last.logits.weight"]
    else:
        whole["generator"]["last.logits.weight"] = torch.zeros(3, 3)
    model_file.write(path, whole, CONFIG)
    with pytest.raises(
        CheckpointError, match="must hold a generator that fits its settings"
    ) as caught:
        Colorizer.load(path)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be written .*choose another place"):
        model_file.write(tmp_path / "none" / "m.safetensors", small(), CONFIG)
