"""How the learning rates go over a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.training import loop
from gancolor.training.health import WINDOW, Health


def settings(**changes: Any) -> TrainConfig:
    return presets.build("gan", **changes)


def factors(config: TrainConfig, count: int = 200) -> list[float]:
    return [loop.learning_rate(config, step / count) for step in range(count + 1)]


def test_cosine_rises_to_its_full_value_and_falls_to_nothing() -> None:
    config = settings(lr_schedule="cosine", lr_warmup=0.1)
    for progress, factor in (
        (0.05, 0.5),
        (0.1, 1.0),
        (0.55, 0.5),
        (0.325, 0.5 * (1 + math.sqrt(0.5))),
    ):
        assert loop.learning_rate(config, progress) == pytest.approx(factor)
    values = factors(config)
    top = values.index(max(values))
    assert (
        top == 20
        and values[:21] == sorted(values[:21])
        and values[20:] == sorted(values[20:], reverse=True)
    )
    # never nothing: Adam's moments would move on without it
    assert values[0] == values[-1] == loop.LEAST
    assert all(abs(b - a) < 0.06 for a, b in zip(values, values[1:], strict=False))  # no jump


def test_without_a_rise_cosine_begins_at_its_full_value() -> None:
    config = settings(lr_schedule="cosine", lr_warmup=0.0)
    assert loop.learning_rate(config, 0.0) == 1
    assert loop.learning_rate(config, 0.5) == pytest.approx(0.5)


def test_constant_is_constant_behind_its_rise() -> None:
    assert set(factors(settings(lr_schedule="constant", lr_warmup=0.0))) == {1.0}
    values = factors(settings(lr_schedule="constant", lr_warmup=0.5))
    assert values[50] == pytest.approx(0.5) and set(values[100:]) == {1.0}


def test_beyond_the_end_the_rate_stays_least() -> None:
    assert loop.learning_rate(settings(), 1.5) == loop.LEAST  # a run that was given more steps


def optimizer(lr: float, initial: float) -> torch.optim.Adam:
    return torch.optim.Adam(
        [{"params": list(nn.Linear(1, 1).parameters()), "initial_lr": initial}], lr=lr
    )


def test_every_optimizer_follows_from_its_own_rate() -> None:
    config = settings(lr_schedule="cosine", lr_warmup=0.0)
    generator, judge = optimizer(1.0, 2e-4), optimizer(1.0, 5e-5)
    for progress in (0.5, 0.25, 0.5):  # whatever was before
        loop.follow(config, progress, [generator, judge])
    assert generator.param_groups[0]["lr"] == pytest.approx(1e-4)
    assert judge.param_groups[0]["lr"] == pytest.approx(2.5e-5)
    assert generator.param_groups[0]["initial_lr"] == 2e-4


def test_a_rescue_lasts_through_the_schedule() -> None:
    """A discriminator that wins has its rate halved: the next steps must not set it back."""
    config = settings(lr_schedule="cosine", lr_warmup=0.0)
    judge = optimizer(4e-4, 4e-4)
    health = Health(rescue=True)
    won = {"d_accuracy": 1.0, "d_real": 0.99, "d_fake": 0.01}
    said = [
        words
        for step in range(3 * WINDOW)
        for words in health.update(step, won, {"discriminator": judge})
    ]
    assert len(said) == 1 and "halved to 2.0e-04" in said[0]
    loop.follow(config, 0.5, [judge])
    assert judge.param_groups[0]["lr"] == pytest.approx(1e-4)
