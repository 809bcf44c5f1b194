"""What is optimized: which phases run when, what they touch, and that they learn."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from gancolor import color, presets
from gancolor.config import TrainConfig
from gancolor.data.still_life import paint
from gancolor.models.discriminator import Discriminator
from gancolor.models.generator import Generator
from gancolor.training import engine, objectives
from gancolor.training.objectives import Context, Pictures
from gancolor.training.state import State

CPU = torch.device("cpu")


def settings(**changes: Any) -> TrainConfig:
    quick: dict[str, Any] = {
        "image_size": 32,
        "batch_size": 4,
        "warmup_steps": 2,
        "discriminator_warmup_steps": 2,
        "ramp_steps": 4,
        "backbone_weights": "none",
        "frozen_blocks": 2,
        "levels": 0,
        "width": 4,
        "discriminator_units": (16,),
        "dropout": 0.0,
        "device": "cpu",
        "precision": "fp32",
    }
    return presets.build("gan", **{**quick, **changes})


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    """Four still lifes, uint8."""
    return torch.stack([torch.from_numpy(paint(0, index, 32)).permute(2, 0, 1) for index in range(4)])


def context_at(state: State, rgb: Tensor, step: int, edges: Tensor | None = None) -> Context:
    """The shared context of a step."""
    state.step = step
    due = [phase for phase in state.phases if phase.due(step)]
    return engine._context(state, Pictures.of(state.config, rgb, edges), due)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


def networks(config: TrainConfig) -> tuple[Generator, Discriminator]:
    """Stand-ins with just enough parameters for the optimizers."""
    return cast(Generator, nn.Linear(2, 2)), cast(Discriminator, SimpleNamespace(head=nn.Linear(2, 1)))


@pytest.mark.parametrize(
    ("alone", "judging", "expected"),
    [
        (2, 2, ["g", "g", "d", "d", "dg", "dg", "dg"]),
        (0, 0, ["dg"] * 7),
        (3, 0, ["g", "g", "g", "dg", "dg", "dg", "dg"]),
        (0, 3, ["d", "d", "d", "dg", "dg", "dg", "dg"]),
    ],
)
def test_phases_that_are_due(alone: int, judging: int, expected: list[str]) -> None:
    config = settings(warmup_steps=alone, discriminator_warmup_steps=judging)
    phases = objectives.build(config, *networks(config))
    due = ["".join(phase.name[0] for phase in phases if phase.due(step)) for step in range(7)]
    assert due == expected


def test_the_generators_phases_share_an_optimizer_with_its_own_rate_and_betas() -> None:
    config = settings(lr=3e-4, discriminator_lr=5e-4, beta1=0.25, beta2=0.9)
    first, judge, joint = objectives.build(config, *networks(config))
    assert first.optimizer is joint.optimizer and judge.optimizer is not joint.optimizer
    assert (first.optimizer.param_groups[0]["lr"], judge.optimizer.param_groups[0]["lr"]) == (3e-4, 5e-4)
    assert first.optimizer.param_groups[0]["betas"] == judge.optimizer.param_groups[0]["betas"] == (0.25, 0.9)
    same = objectives.build(settings(lr=3e-4, discriminator_lr=0.0), *networks(config))
    assert same[1].optimizer.param_groups[0]["lr"] == 3e-4


def test_regression_has_one_phase_and_no_discriminator() -> None:
    state = State(settings(objective="regression", warmup_steps=0), CPU)
    assert state.discriminator is None
    assert [phase.name for phase in state.phases] == ["generator"]
    assert all(state.phases[0].due(step) for step in range(5))


def test_adversarial_weight_rises_linearly() -> None:
    config = settings(adversarial_weight=2.0)
    rise = [objectives.adversarial_weight(config, step) for step in range(10)]
    assert rise == pytest.approx([0, 0, 0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    at_once = settings(warmup_steps=0, discriminator_warmup_steps=0, ramp_steps=0, adversarial_weight=2.0)
    assert objectives.adversarial_weight(at_once, 0) == 2.0


def test_instance_noise_decays_linearly() -> None:
    config = settings(instance_noise=0.4, instance_noise_steps=4, warmup_steps=0)
    assert [objectives.instance_noise(config, step) for step in range(6)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])


def test_instance_noise_reaches_what_the_discriminator_sees(rgb: Tensor) -> None:
    noisy = State(settings(instance_noise=0.3, instance_noise_steps=10), CPU)
    early, again, late = (context_at(noisy, rgb, step).real_features for step in (2, 2, 50))
    plain = context_at(State(settings(), CPU), rgb, 2).real_features
    assert not torch.allclose(early, again) and not torch.allclose(early, plain)
    assert torch.equal(late, plain)


def test_discriminators_warm_up_leaves_the_generators_weights(rgb: Tensor) -> None:
    state = State(settings(warmup_steps=0), CPU)
    assert state.discriminator is not None
    generator, head = weights(state.generator), weights(state.discriminator.head)
    report = engine.train_step(state, rgb, None)
    assert unchanged(state.generator, generator) and not unchanged(state.discriminator.head, head)
    assert all(parameter.grad is None for parameter in state.generator.parameters())
    assert set(report.terms) == {"discriminator/real", "discriminator/fake"}


def test_generators_phases_leave_the_head(rgb: Tensor) -> None:
    state = State(settings(), CPU)
    assert state.discriminator is not None
    head = weights(state.discriminator.head)
    trunk = weights(state.trunk)
    warm_up, _, joint = state.phases
    engine.run_phase(warm_up, context_at(state, rgb, 0), state)
    generator = weights(state.generator)
    terms = engine.run_phase(joint, context_at(state, rgb, 7), state)
    assert set(terms) == {"generator/adversarial", "generator/l1"}
    assert unchanged(state.discriminator.head, head) and not unchanged(state.generator, generator)
    assert all(parameter.grad is None for parameter in state.discriminator.head.parameters())
    assert all(parameter.requires_grad for parameter in state.discriminator.head.parameters())  # restored
    assert unchanged(state.trunk, trunk)


def test_adversarial_term_moves_the_generator_towards_the_discriminators_verdict(rgb: Tensor) -> None:
    state = State(settings(lr=1e-3, ramp_steps=0, adversarial_weight=1.0, l1_weight=0.0), CPU)
    assert state.discriminator is not None
    state.step = 2
    for _ in range(2):
        engine.train_step(state, rgb, None)
    joint = state.phases[2]
    before, *_, after = [
        float(engine.run_phase(joint, context_at(state, rgb, 9), state)["generator/adversarial"]) for _ in range(20)
    ]
    assert after < before


def test_features_are_computed_once_a_step(rgb: Tensor) -> None:
    state = State(settings(), CPU)  # the generator's two blocks are the trunk's own layers
    passes: list[tuple[int, bool]] = []
    state.trunk.features[0].register_forward_hook(lambda *_: passes.append((len(_[1][0]), torch.is_grad_enabled())))
    counts = []
    for _ in range(5):
        passes.clear()
        engine.train_step(state, rgb, None)
        counts.append(len(passes))
    assert counts == [1, 1, 3, 3, 3]  # the generator's; and one each for real and fake pictures
    assert all(size == len(rgb) for size, _ in passes)
    assert [grad for _, grad in passes].count(True) == 1  # only the fake's features keep a graph


def test_generator_runs_once_a_step(rgb: Tensor) -> None:
    state = State(settings(), CPU)
    passes: list[bool] = []
    state.generator.last.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    for _ in range(5):
        engine.train_step(state, rgb, None)
    assert passes == [True, True, False, False, True]


def test_real_and_fake_are_judged_in_one_batch(rgb: Tensor) -> None:
    state = State(settings(), CPU)
    assert state.discriminator is not None
    sizes: list[int] = []
    state.discriminator.head.register_forward_hook(lambda *_: sizes.append(len(_[1][0])))
    context = context_at(state, rgb, 4)
    real, fake = context.judge(detached=True)
    assert sizes == [8] and real.shape == fake.shape == (4,) and real.dtype == torch.float32
    joined = torch.cat([context.real_features, context.fake_features.detach()])
    assert torch.allclose(torch.cat([real, fake]), state.discriminator.judge(joined), atol=1e-5)


def test_l1_on_ab(rgb: Tensor) -> None:
    state = State(settings(l1_space="ab", l1_weight=7.0), CPU)
    context = context_at(state, rgb, 0)
    term = objectives._reconstruction(context)["l1"]
    lightness, ab = color.split(rgb)
    assert context.prediction[0] is context.pictures.lightness and torch.equal(lightness, context.pictures.lightness)
    assert float(term.detach()) == pytest.approx(
        7.0 * float((context.prediction[1] - ab).detach().abs().mean()), rel=1e-5
    )


def test_l1_on_rgb_is_that_of_pictures_in_minus_one_to_one(rgb: Tensor) -> None:
    state = State(settings(l1_space="rgb", l1_weight=7.0), CPU)
    context = context_at(state, rgb, 0)
    term = float(objectives._reconstruction(context)["l1"].detach())
    fake = color.merge(*(part.detach() for part in context.prediction), clip=False) * 2 - 1
    real = rgb.float() / 255 * 2 - 1
    assert term == pytest.approx(7.0 * float((fake - real).abs().mean()), rel=1e-3)


def test_edges_train_three_channels(rgb: Tensor) -> None:
    state = State(settings(condition="edges", l1_weight=3.0), CPU)
    edges = (torch.rand(4, 1, 32, 32) > 0.8).byte() * 255
    context = context_at(state, rgb, 0, edges)
    assert context.pictures.condition.unique().tolist() == [0, 1]
    term = objectives._reconstruction(context)["l1"]
    lightness, ab = context.prediction
    assert lightness.shape == (4, 1, 32, 32) and ab.shape == (4, 2, 32, 32)
    truth = torch.cat([context.pictures.lightness, context.pictures.ab], 1)
    assert float(term.detach()) == pytest.approx(
        3 * float((torch.cat([lightness, ab], 1) - truth).detach().abs().mean()), rel=1e-5
    )
    term.backward()
    gradient = state.generator.last.weight.grad
    assert gradient is not None and gradient.shape[0] == 3 and bool((gradient.flatten(1).norm(dim=1) > 0).all())


def test_edges_go_through_every_phase(rgb: Tensor) -> None:
    state = State(settings(condition="edges", ramp_steps=1), CPU)
    edges = (torch.rand(4, 1, 32, 32) > 0.8).byte() * 255
    before = weights(state.generator)
    reports = [engine.train_step(state, rgb, edges) for _ in range(5)]
    assert not unchanged(state.generator, before)
    assert set(reports[-1].terms) == {
        "discriminator/real",
        "discriminator/fake",
        "generator/adversarial",
        "generator/l1",
    }


def test_label_smoothing_changes_the_real_term_only(rgb: Tensor) -> None:
    plain, smooth = (
        engine.train_step(State(settings(warmup_steps=0, label_smoothing=s), CPU), rgb, None).terms for s in (0.0, 0.3)
    )
    assert plain["discriminator/fake"] == smooth["discriminator/fake"]
    assert plain["discriminator/real"] != smooth["discriminator/real"]


def test_statistics_tell_of_colour_and_of_the_discriminator(rgb: Tensor) -> None:
    state = State(settings(warmup_steps=0, discriminator_warmup_steps=0), CPU)
    statistics = engine.train_step(state, rgb, None).statistics
    ab = color.split(rgb)[1] * 110
    centred = ab - ab.mean((0, 2, 3), keepdim=True)
    assert statistics["ab_truth_spread"] == pytest.approx(float(centred.std(correction=0)), rel=1e-4)
    assert statistics["ab_truth_offset"] == pytest.approx(float(ab.mean((0, 2, 3)).norm()), rel=1e-4)
    assert statistics["ab_spread"] < 0.2 * statistics["ab_truth_spread"]  # starts near gray
    assert 0 < statistics["d_real"] < 1 and 0 < statistics["d_fake"] < 1 and 0 <= statistics["d_accuracy"] <= 1
    assert statistics["grad_norm_generator"] > 0 and statistics["grad_norm_discriminator"] > 0


def until(done: Callable[[dict[str, float]], bool], state: State, rgb: Tensor, steps: int) -> dict[str, float]:
    """Train on one batch until `done(numbers)`, at most so many steps; return the last numbers."""
    numbers: dict[str, float] = {}
    for _ in range(steps):
        report = engine.train_step(state, rgb, None)
        numbers = {**report.terms, **report.statistics}
        if done(numbers):
            break
    return numbers


def test_generator_learns_one_batch_by_heart(rgb: Tensor) -> None:
    state = State(settings(warmup_steps=1000, lr=5e-3, width=16), CPU)
    first = engine.train_step(state, rgb, None).terms["generator/l1"]
    assert until(lambda n: n["generator/l1"] < 0.5 * first, state, rgb, 150)["generator/l1"] < 0.5 * first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_discriminator_learns_to_tell_a_fixed_batch_apart(rgb: Tensor, precision: str) -> None:
    state = State(
        settings(warmup_steps=0, discriminator_warmup_steps=1000, discriminator_lr=5e-3, precision=precision), CPU
    )
    numbers = until(lambda n: n["d_accuracy"] > 0.9 and n["d_real"] > 0.8 > 0.2 > n["d_fake"], state, rgb, 60)
    assert numbers["d_accuracy"] > 0.9 and numbers["d_real"] > 0.8 and numbers["d_fake"] < 0.2
    assert numbers["discriminator/real"] + numbers["discriminator/fake"] < 0.8  # chance is 1.386
