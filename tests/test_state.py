"""The state of a run: what is built, shared, saved and restored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gancolor import models, presets
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError
from gancolor.models.backbones import load_backbone
from gancolor.training.preparation import count_parameters
from gancolor.training.state import State

CPU = torch.device("cpu")


def settings(preset: str = "gan", **changes: Any) -> TrainConfig:
    quick: dict[str, Any] = {
        "image_size": 32,
        "batch_size": 2,
        "backbone_weights": "none",
        "frozen_blocks": 2,
        "levels": 0,
        "width": 4,
        "discriminator_units": (8,),
        "device": "cpu",
        "precision": "fp32",
    }
    return presets.build(preset, **{**quick, **changes})


def test_generator_and_discriminator_share_the_frozen_trunk() -> None:
    state = State(settings(frozen_blocks=5, levels=1), CPU)
    assert state.discriminator is not None and state.ema is not None
    assert state.generator.encoder is state.discriminator.trunk is state.ema.module.encoder is state.trunk
    assert not any(p.requires_grad for p in state.trunk.parameters())
    trainable, frozen = count_parameters(state)
    assert frozen == sum(p.numel() for p in state.trunk.parameters()) > 0
    own = sum(p.numel() for p in state.generator.trainable_parameters())
    assert trainable == own + sum(p.numel() for p in state.discriminator.head.parameters())


def test_a_trained_backbone_is_apart_from_the_discriminators() -> None:
    state = State(settings(train_backbone=True), CPU)
    assert state.discriminator is not None and state.ema is not None
    mine, trunk = state.generator.encoder.features[0].weight, state.discriminator.trunk.features[0].weight
    assert torch.equal(mine, trunk) and mine.data_ptr() != trunk.data_ptr()
    assert mine.requires_grad and not trunk.requires_grad
    assert any(p is mine for p in state.optimizers["generator"].param_groups[0]["params"])
    average = state.ema.module.encoder.features[0].weight
    assert average.data_ptr() != mine.data_ptr() and not average.requires_grad


def test_frozen_weights_are_cast_once_and_trained_ones_are_not() -> None:
    state = State(settings(precision="bf16"), CPU)
    assert {p.dtype for p in state.trunk.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in state.generator.parameters() if p.requires_grad} == {torch.float32}
    assert state.discriminator is not None
    assert {p.dtype for p in state.discriminator.head.parameters()} == {torch.float32}
    assert {b.dtype for b in state.trunk.buffers()} == {torch.float32}  # ImageNet's mean and deviation
    trained = State(settings(precision="bf16", train_backbone=True), CPU)
    assert {p.dtype for p in trained.generator.parameters()} == {torch.float32}
    assert trained.generator.encoder.features[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (State(settings(seed=seed), CPU).generator.last.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_start_does_not_depend_on_the_precision_of_others() -> None:
    one, two = (State(settings(precision=precision), CPU) for precision in ("fp32", "bf16"))
    assert torch.equal(one.generator.last.weight, two.generator.last.weight)


def test_regression_and_no_average() -> None:
    state = State(settings("regression", ema=0.0), CPU)
    assert state.discriminator is None and state.ema is None and state.averaged is state.generator
    assert set(state.optimizers) == {"generator"}
    assert {"head", "ema", "ema_updates"}.isdisjoint(state.state_dict())
    averaged = State(settings("regression", ema=0.9), CPU)
    assert averaged.ema is not None and averaged.averaged is averaged.ema.module


@pytest.mark.parametrize("changes", [{}, {"train_backbone": True}, {"precision": "bf16"}, {"ema": 0.0}])
def test_state_dict_restores_everything(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(settings(**changes), CPU)
    with torch.no_grad():
        for parameter in state.generator.parameters():
            parameter.add_(0.25)
    state.step, state.seen, state.seconds, state.best = 7, 14, 1.5, 9.25
    state.health.streaks = {"gray": 2}
    state.optimizers["discriminator"].param_groups[0]["lr"] = 1e-5
    saved = state.state_dict()
    monkeypatch.setattr("gancolor.training.state.load_backbone", None)  # no weights are looked for
    again = State(settings(**changes), CPU, saved)
    assert (again.step, again.seen, again.seconds, again.best) == (7, 14, 1.5, 9.25)
    assert again.health.streaks == {"gray": 2} and again.origin == state.origin
    assert again.optimizers["discriminator"].param_groups[0]["lr"] == 1e-5
    one, two = state.generator.state_dict(), again.generator.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert again.generator.encoder.features[0].weight.dtype == state.generator.encoder.features[0].weight.dtype


def test_a_frozen_encoder_is_saved_once() -> None:
    frozen, trained = (State(settings(train_backbone=t), CPU).state_dict() for t in (False, True))
    assert len(frozen["backbone"]) == len(trained["backbone"]) == 26
    assert not any(name.startswith("encoder.") for part in ("generator", "ema") for name in frozen[part])
    assert sum(name.startswith("encoder.") for name in trained["generator"]) == 8  # two blocks: four convolutions


def test_colorizer_dict_is_enough_to_colour_and_no_more() -> None:
    config = settings(frozen_blocks=3)
    state = State(config, CPU)
    with torch.no_grad():
        state.generator.last.bias.add_(1.0)
    content = state.colorizer_dict()
    assert set(content) == {"generator", "origin", "step", "seen"}
    generator = models.build_generator(config, load_backbone("none", seed=99))
    generator.load_state_dict(content["generator"])  # strict
    gray = torch.rand(1, 1, 32, 32)
    assert torch.allclose(generator.eval()(gray), state.averaged(gray), atol=1e-5)
    assert float(content["generator"]["last.bias"].abs().max()) < 0.5  # the average, not the live weights


@pytest.mark.parametrize("missing", ["backbone", "generator", "ema", "head", "optimizers", "health", "best"])
def test_a_checkpoint_that_lacks_something_is_one_error(missing: str) -> None:
    saved = State(settings(), CPU).state_dict()
    del saved[missing]
    with pytest.raises(CheckpointError) as caught:
        State(settings(), CPU, saved)
    assert missing in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_of_other_settings_is_one_error() -> None:
    saved = State(settings(width=4), CPU).state_dict()
    with pytest.raises(CheckpointError, match="does not fit its own config"):
        State(settings(width=8), CPU, saved)
    saved = State(settings(), CPU).state_dict()
    del saved["generator"]["last.bias"]
    with pytest.raises(CheckpointError, match="last.bias"):
        State(settings(), CPU, saved)
