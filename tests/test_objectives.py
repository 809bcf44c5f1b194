"""What is optimized: which phases run when, what they touch, and that they learn."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import TINY
from torch import Tensor, nn

from gancolor import color, presets
from gancolor.config import TrainConfig
from gancolor.data.example import draw_squares
from gancolor.data.loader import Batch
from gancolor.data.still_life import composition
from gancolor.errors import DataError
from gancolor.models import Discriminator, Generator, PatchDiscriminator, bins
from gancolor.training import loop, objectives
from gancolor.training.objectives import Context, DeviceBatch
from gancolor.training.state import State

CPU = torch.device("cpu")

# The poster's networks, and the default's.
PRESETS: dict[str, dict[str, Any]] = {
    "poster": {"frozen_blocks": 2, "levels": 0, "discriminator_units": (16,), "dropout": 0.0},
    "gan": {"frozen_blocks": 2, "levels": 2, "lr_schedule": "constant", "lr_warmup": 0.0},
}
both = pytest.mark.parametrize("preset", list(PRESETS))


def settings(preset: str = "gan", **changes: Any) -> TrainConfig:
    """A run of which two tenths are the generator's alone, and two more the discriminator's."""
    quick = {
        **TINY,
        "batch_size": 4,
        "warmup": 0.2,
        "discriminator_warmup": 0.2,
        "ramp": 0.4,
        "ema": 0.998,
    }
    return presets.build(preset, **{**quick, **PRESETS.get(preset, {}), **changes})


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    """Four still lifes, uint8."""
    return torch.stack(
        [torch.from_numpy(composition.paint(0, index, 32)).permute(2, 0, 1) for index in range(4)]
    )


@pytest.fixture(scope="module")
def squares() -> Tensor:
    """Where those pictures have hints; the last one has none."""
    import numpy as np

    drawn = [draw_squares((32, 32), 1.0, np.random.default_rng(seed)) for seed in (1, 2, 3)]
    return torch.from_numpy(np.stack([*drawn, np.zeros_like(drawn[0])]))[:, None]


def begin(rgb: Tensor, preset: str = "gan", **changes: Any) -> State:
    """A run before its first step."""
    state = State(settings(preset, **changes), CPU)
    state.calibrate(rgb)
    return state


def context_at(state: State, rgb: Tensor, progress: float, **inputs: Tensor | None) -> Context:
    """The shared context of a step."""
    state.progress = progress
    due = [phase for phase in state.phases if phase.due(progress)]
    return loop._context(
        state, DeviceBatch.of(state.config, rgb, **inputs), due, torch.rand(len(rgb), 4)
    )


def terms_of(state: State, context: Context) -> dict[str, Tensor]:
    """The terms of all phases of that step."""
    return {
        name: term
        for phase in state.phases
        if phase.due(context.progress)
        for name, term in phase.losses(context).items()
    }


def train(state: State, rgb: Tensor, progress: float, **inputs: Tensor | None) -> loop.StepReport:
    """One step at that progress."""
    state.progress = progress
    return loop.train_step(state, Batch(rgb=rgb, **inputs))


def weights(module: nn.Module | None) -> dict[str, Tensor]:
    assert module is not None
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def unchanged(module: nn.Module | None, before: dict[str, Tensor]) -> bool:
    assert module is not None
    return all(
        torch.equal(parameter, before[name]) for name, parameter in module.named_parameters()
    )


def value(term: Tensor) -> float:
    return float(term.detach())


def networks(config: TrainConfig) -> tuple[Generator, Discriminator]:
    """Stand-ins with just enough parameters for the optimizers."""
    return cast(Generator, nn.Linear(2, 2)), cast(
        Discriminator, SimpleNamespace(head=nn.Linear(2, 1))
    )


@pytest.mark.parametrize(
    ("alone", "judging", "expected"),
    [
        (0.2, 0.2, ["g", "g", "d", "d", "dg", "dg", "dg"]),
        (0, 0, ["dg"] * 7),
        (0.3, 0, ["g", "g", "g", "dg", "dg", "dg", "dg"]),
        (0, 0.3, ["d", "d", "d", "dg", "dg", "dg", "dg"]),
    ],
)
def test_phases_are_due_by_the_share_of_the_run_that_is_over(
    alone: float, judging: float, expected: list[str]
) -> None:
    config = settings(warmup=alone, discriminator_warmup=judging)
    phases = objectives.build(config, *networks(config))
    due = ["".join(phase.name[0] for phase in phases if phase.due(step / 10)) for step in range(7)]
    assert due == expected
    # `--dry-run`
    assert [phase.name for phase in phases if phase.due(1.0)] == [
        "discriminator",
        "generator",
    ]
    for progress in torch.rand(
        200, generator=torch.Generator().manual_seed(0)
    ).tolist():  # somebody always trains
        assert (
            len({phase.name for phase in phases if phase.due(progress)})
            == sum(phase.due(progress) for phase in phases)
            > 0
        )


def test_the_generators_phases_share_an_optimizer_with_its_own_rate_and_betas() -> None:
    config = settings(lr=3e-4, discriminator_lr=5e-4, beta1=0.25, beta2=0.9)
    first, judge, joint = objectives.build(config, *networks(config))
    assert first.optimizer is joint.optimizer and judge.optimizer is not joint.optimizer
    assert (first.optimizer.param_groups[0]["lr"], judge.optimizer.param_groups[0]["lr"]) == (
        3e-4,
        5e-4,
    )
    assert (
        first.optimizer.param_groups[0]["betas"]
        == judge.optimizer.param_groups[0]["betas"]
        == (0.25, 0.9)
    )
    same = objectives.build(settings(lr=3e-4, discriminator_lr=0.0), *networks(config))
    assert same[1].optimizer.param_groups[0]["lr"] == 3e-4


def test_rates_follow_the_schedule(rgb: Tensor) -> None:
    state = begin(rgb, lr=2e-4, discriminator_lr=4e-4, lr_schedule="cosine")
    for progress, factor in ((0.9, 0.5 * (1 - 0.9510565)), (0.5, 0.5)):
        train(state, rgb, progress)
        rates = [
            state.optimizers[name].param_groups[0]["lr"] for name in ("generator", "discriminator")
        ]
        assert rates == pytest.approx([2e-4 * factor, 4e-4 * factor])


def test_regression_has_one_phase_and_no_discriminator(rgb: Tensor) -> None:
    state = begin(rgb, "regression", frozen_blocks=2, levels=0)
    assert state.discriminator is None
    assert [phase.name for phase in state.phases] == ["generator"]
    assert all(state.phases[0].due(step / 5) for step in range(6))
    assert set(train(state, rgb, 0.0).terms) == {"generator/l1"}


def test_adversarial_weight_rises_linearly() -> None:
    config = settings(adversarial_weight=2.0)
    rise = [objectives.adversarial_weight(config, step / 10) for step in range(11)]
    assert rise == pytest.approx([0, 0, 0, 0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    at_once = settings(warmup=0, discriminator_warmup=0, ramp=0, adversarial_weight=2.0)
    assert objectives.adversarial_weight(at_once, 0) == 2.0


def test_instance_noise_decays_linearly_once_the_discriminator_trains() -> None:
    config = settings(instance_noise=0.4, instance_noise_decay=0.4, warmup=0)
    noise = [objectives.instance_noise(config, step / 10) for step in range(6)]
    assert noise == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    later = settings(instance_noise=0.4, instance_noise_decay=0.4, warmup=0.2)
    assert objectives.instance_noise(later, 0.3) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("preset", "changes"), [("poster", {}), ("gan", {"discriminator_augment": False})]
)
def test_instance_noise_reaches_what_the_discriminator_sees(
    rgb: Tensor, preset: str, changes: dict[str, bool]
) -> None:
    noisy = begin(rgb, preset, instance_noise=0.3, instance_noise_decay=0.5, **changes)
    early, again, late = (
        context_at(noisy, rgb, progress).real_features for progress in (0.2, 0.2, 0.9)
    )
    plain = context_at(begin(rgb, preset, **changes), rgb, 0.2).real_features
    assert len(early) == {"poster": 1, "gan": 4}[preset]
    for at in range(len(early)):
        assert not torch.allclose(early[at], again[at]) and not torch.allclose(early[at], plain[at])
        assert torch.equal(late[at], plain[at])


@both
def test_discriminators_warm_up_leaves_the_generators_weights(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, warmup=0)
    assert state.discriminator is not None
    generator, head = weights(state.generator), weights(state.discriminator.head)
    report = train(state, rgb, 0.0)
    assert unchanged(state.generator, generator) and not unchanged(state.discriminator.head, head)
    assert all(parameter.grad is None for parameter in state.generator.parameters())
    assert set(report.terms) == {"discriminator/real", "discriminator/fake"}


@both
def test_generators_phases_leave_the_head(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset)
    assert state.discriminator is not None
    head = weights(state.discriminator.head)
    trained = [parameter.requires_grad for parameter in state.discriminator.head.parameters()]
    trunk = weights(state.trunk)
    warm_up, _, joint = state.phases
    loop.run_phase(warm_up, context_at(state, rgb, 0.0), state)
    generator = weights(state.generator)
    terms = loop.run_phase(joint, context_at(state, rgb, 0.9), state)
    own = {"generator/bins", "generator/perceptual"} if preset == "gan" else set()
    assert set(terms) == {"generator/adversarial", "generator/l1"} | own
    assert unchanged(state.discriminator.head, head) and not unchanged(state.generator, generator)
    assert all(parameter.grad is None for parameter in state.discriminator.head.parameters())
    # restored
    assert [
        parameter.requires_grad for parameter in state.discriminator.head.parameters()
    ] == trained
    assert unchanged(state.trunk, trunk)


def test_what_the_patches_are_seen_through_never_trains(rgb: Tensor) -> None:
    state = begin(rgb)
    assert isinstance(state.discriminator, PatchDiscriminator)
    fixed = [*state.discriminator.head.project.parameters(), *state.discriminator.head.scales]
    before = [x.detach().clone() for x in fixed]
    for _ in range(3):
        train(state, rgb, 0.9)
    assert all(torch.equal(x, then) for x, then in zip(fixed, before, strict=True))
    assert float(before[-1].std()) > 0  # measured


@pytest.mark.slow
@both
def test_adversarial_term_moves_the_generator_towards_the_discriminators_verdict(
    rgb: Tensor, preset: str
) -> None:
    state = begin(
        rgb, preset, lr=2e-3, ramp=0, adversarial_weight=1.0, l1_weight=0.0, **_without_bins(preset)
    )
    for _ in range(2):
        train(state, rgb, 0.3)
    joint = state.phases[2]
    before, *_, after = [
        float(loop.run_phase(joint, context_at(state, rgb, 0.9), state)["generator/adversarial"])
        for _ in range(10)
    ]
    assert after < before


def _without_bins(preset: str) -> dict[str, Any]:
    return {"bins_weight": 0.0, "discriminator_augment": False} if preset == "gan" else {}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("poster", {}), ("gan", {}), ("gan", {"r1": 1.0, "perceptual_weight": 1.0})],
)
def test_features_are_computed_once_a_step(
    rgb: Tensor, preset: str, changes: dict[str, float]
) -> None:
    state = begin(rgb, preset, **changes)  # the generator's two blocks are the trunk's own layers
    assert state.trunk is not None
    passes: list[tuple[int, bool]] = []
    state.trunk.features[0].register_forward_hook(
        lambda *_: passes.append((len(_[1][0]), torch.is_grad_enabled()))
    )
    counts, graphs = [], []
    for step in range(5):
        passes.clear()
        state.step = 0  # a step at which the discriminator's slope is punished
        train(state, rgb, step / 10)
        counts.append(len(passes))
        graphs.append(sum(grad for _, grad in passes))
    assert counts == [1, 1, 3, 3, 3]  # the generator's; and one each for real and fake pictures
    assert all(size == len(rgb) for size, _ in passes)
    # only the fake's features keep one, where the generator trains
    assert graphs == [
        0,
        0,
        0,
        0,
        1,
    ]


@both
def test_generator_runs_once_a_step(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset)
    passes: list[bool] = []
    state.generator.last.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    for step in range(5):
        train(state, rgb, step / 10)
    assert passes == [True, True, False, False, True]


def test_units_judge_real_and_fake_in_one_batch(rgb: Tensor) -> None:
    state = begin(rgb, "poster")
    assert state.discriminator is not None
    sizes: list[int] = []
    state.discriminator.head.register_forward_hook(lambda *_: sizes.append(len(_[1][0])))
    context = context_at(state, rgb, 0.4)
    real, fake = context.judge(detached=True)
    assert (
        sizes == [8]
        and [x.shape for x in (*real, *fake)] == [(4,), (4,)]
        and real[0].dtype == torch.float32
    )
    joined = torch.cat([context.real_features[0], context.fake_features[0].detach()])
    logits = state.discriminator.head(joined).squeeze(1)
    assert torch.allclose(torch.cat([*real, *fake]), logits, atol=1e-5)


def test_patches_judge_pictures_at_every_place(rgb: Tensor) -> None:
    state = begin(rgb)
    assert isinstance(state.discriminator, PatchDiscriminator)
    context = context_at(state, rgb, 0.4)
    real, fake = context.judge(detached=True)
    assert [tuple(x.shape) for x in real] == [tuple(x.shape) for x in fake]
    assert [tuple(x.shape) for x in real] == [
        (4, 1, 8, 8),
        (4, 1, 8, 8),
        (4, 1, 4, 4),
        (4, 1, 2, 2),
    ]
    assert all(x.dtype == torch.float32 for x in (*real, *fake))
    assert not any(x.requires_grad for x in context.real_features)
    # the same for both phases; detached for one
    assert all(x.requires_grad for x in context.fake_features)


@both
def test_l1_on_ab(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, l1_space="ab", l1_weight=7.0)
    context = context_at(state, rgb, 0.0)
    term = terms_of(state, context)["l1"]
    lightness, ab = color.split(rgb)
    assert context.prediction[0] is context.pictures.lightness and torch.equal(
        lightness, context.pictures.lightness
    )
    assert value(term) == pytest.approx(
        7.0 * value((context.prediction[1] - ab).abs().mean()), rel=1e-5
    )


@both
def test_l1_on_rgb_is_that_of_pictures_in_minus_one_to_one(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, l1_space="rgb", l1_weight=7.0)
    context = context_at(state, rgb, 0.0)
    term = value(terms_of(state, context)["l1"])
    fake = color.merge(*(part.detach() for part in context.prediction), clip=False) * 2 - 1
    real = rgb.float() / 255 * 2 - 1
    assert term == pytest.approx(7.0 * float((fake - real).abs().mean()), rel=1e-3)


@pytest.mark.parametrize("size", [32, 36])
def test_bins_are_those_of_the_true_colours(size: int) -> None:
    rgb = torch.stack(
        [torch.from_numpy(composition.paint(0, index, size)).permute(2, 0, 1) for index in range(2)]
    )
    state = begin(rgb, image_size=size, batch_size=2, bins_weight=3.0)
    nn.init.normal_(cast(Any, state.generator.last).logits.weight, std=0.2)  # opinions
    context = context_at(state, rgb, 0.0)
    term = value(terms_of(state, context)["bins"])
    logits = context.output.logits
    assert logits is not None
    assert logits.shape == (2, 225, 8, 8) if size == 32 else logits.shape == (2, 225, 10, 10)
    ab = (
        F.pad(color.split(rgb)[1], (2, 2, 2, 2), mode="reflect")
        if size == 36
        else color.split(rgb)[1]
    )
    assert state.class_weights is not None
    total = 0.0
    for b, y, x in torch.cartesian_prod(*map(torch.arange, (2, *logits.shape[2:]))).tolist():
        true = ab[b, :, 4 * y + 1 : 4 * y + 3, 4 * x + 1 : 4 * x + 3].mean((1, 2))
        nearest, share = bins.encode(true[None])
        entropy = -(share[0] * logits[b, :, y, x].log_softmax(0)[nearest[0]]).sum()
        total += value(entropy * state.class_weights[nearest[0, 0]])
    assert term == pytest.approx(3 * total / logits[:, 0].numel(), rel=1e-4)


def test_calibration_measures_how_common_colours_are(rgb: Tensor) -> None:
    state = begin(rgb, rebalance=0.25)
    ab = bins.at_centers(color.split(rgb)[1], 4).permute(0, 2, 3, 1).flatten(0, 2)
    share = bins.frequencies(bins.encode(ab))
    assert state.shares is not None and state.class_weights is not None
    torch.testing.assert_close(state.shares, share)
    torch.testing.assert_close(
        state.class_weights, bins.class_weights(share, bins.tempered(share, 0.25))
    )
    assert float((share * state.class_weights).sum()) == pytest.approx(1, rel=1e-5)
    many = begin(rgb.repeat(10, 1, 1, 1))  # in several goes
    assert many.shares is not None
    torch.testing.assert_close(many.shares, share)
    assert begin(rgb, "poster").class_weights is None


def test_calibration_refuses_gray_pictures() -> None:
    gray = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8).expand(-1, 3, -1, -1)
    with pytest.raises(DataError, match="must have colours"):
        begin(gray)
    begin(gray, "poster")  # needs nothing of them


def test_calibration_brings_the_patches_features_to_one_size(rgb: Tensor) -> None:
    state = begin(rgb, discriminator_augment=False)
    for x in context_at(state, rgb, 0.3).real_features:
        assert float(x.mean((0, 2, 3)).abs().max()) < 1e-2
        deviation = x.std((0, 2, 3))
        assert float(deviation.max()) < 1.01 and float(deviation.mean()) > 0.3


def test_edges_train_three_channels(rgb: Tensor) -> None:
    state = begin(rgb, "poster", condition="edges", l1_weight=3.0, l1_space="ab")
    edges = (torch.rand(4, 1, 32, 32) > 0.8).byte() * 255
    context = context_at(state, rgb, 0.0, edges=edges)
    assert context.pictures.condition.unique().tolist() == [0, 1]
    term = terms_of(state, context)["l1"]
    lightness, ab = context.prediction
    assert lightness.shape == (4, 1, 32, 32) and ab.shape == (4, 2, 32, 32)
    truth = torch.cat([context.pictures.lightness, context.pictures.ab], 1)
    assert value(term) == pytest.approx(
        3 * value((torch.cat([lightness, ab], 1) - truth).abs().mean()), rel=1e-5
    )
    term.backward()
    gradient = cast(nn.Conv2d, state.generator.last).weight.grad
    assert (
        gradient is not None
        and gradient.shape[0] == 3
        and bool((gradient.flatten(1).norm(dim=1) > 0).all())
    )


@both
def test_edges_go_through_every_phase(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, condition="edges", ramp=0.1)
    edges = (torch.rand(4, 1, 32, 32) > 0.8).byte() * 255
    before = weights(state.generator)
    reports = [train(state, rgb, step / 10, edges=edges) for step in range(6)]
    assert not unchanged(state.generator, before)
    own = {"generator/bins", "generator/perceptual"} if preset == "gan" else set()
    assert (
        set(reports[-1].terms)
        == {
            "discriminator/real",
            "discriminator/fake",
            "generator/adversarial",
            "generator/l1",
        }
        | own
    )


def test_a_hint_map_holds_the_means_of_its_squares(rgb: Tensor, squares: Tensor) -> None:
    hints = DeviceBatch.of(settings(), rgb, squares=squares).hints
    ab = color.split(rgb)[1]
    assert hints is not None and hints.shape == (4, 3, 32, 32)
    assert torch.equal(hints[:, 2:], (squares > 0).float())
    counted = 0
    for at in range(4):
        for number in squares[at].unique().tolist():
            inside = squares[at, 0] == number
            true = ab[at, :, inside].mean(1) if number else torch.zeros(2)
            shown = hints[at, :2, inside]
            torch.testing.assert_close(shown, true[:, None].expand_as(shown), atol=1e-5, rtol=1e-5)
            counted += number > 0
    assert counted > 10 and not hints[3].any()
    assert DeviceBatch.of(settings(), rgb).hints is None


def test_hints_reach_the_generator_and_its_encoder_learns(rgb: Tensor, squares: Tensor) -> None:
    state = begin(rgb, lr=1e-3)
    assert isinstance(state.generator, Generator) and state.generator.hints is not None
    before = weights(state.generator.hints)
    for _ in range(3):
        train(state, rgb, 0.0, squares=squares)
    after = weights(state.generator.hints)
    assert not any(torch.equal(after[name], before[name]) for name in before)
    with_hints, without = (
        context_at(state, rgb, 0.0, squares=x).prediction[1] for x in (squares, None)
    )
    assert not torch.allclose(with_hints[:3], without[:3], atol=1e-5)


def test_label_smoothing_changes_the_real_term_only(rgb: Tensor) -> None:
    plain, smooth = (
        train(begin(rgb, warmup=0, label_smoothing=s), rgb, 0.0).terms for s in (0.0, 0.3)
    )
    assert plain["discriminator/fake"] == smooth["discriminator/fake"]
    assert plain["discriminator/real"] != smooth["discriminator/real"]


@pytest.mark.parametrize("kind", ["non-saturating", "hinge", "relativistic"])
@both
def test_each_adversarial_loss_is_taken_over_every_map(rgb: Tensor, preset: str, kind: str) -> None:
    changes: dict[str, Any] = {"discriminator_augment": False} if preset == "gan" else {}
    state = begin(rgb, preset, adversarial_loss=kind, adversarial_weight=2.0, ramp=0.0, **changes)
    context = context_at(state, rgb, 0.9)
    assert state.discriminator is not None
    state.discriminator.eval()  # spectral norm moves with every call
    terms = terms_of(state, context)
    real, fake = context.judge(detached=True)
    pairs = list(zip(real, fake, strict=True))
    both_terms = [objectives.discriminator_loss(*pair, kind=kind) for pair in pairs]
    for name, at in (("real", 0), ("fake", 1)):
        assert value(terms[name]) == pytest.approx(
            sum(value(x[at]) for x in both_terms) / len(pairs), rel=1e-4
        )
    own = [value(objectives.generator_loss(f, r, kind)) for r, f in pairs]
    assert value(terms["adversarial"]) == pytest.approx(2 * sum(own) / len(own), rel=1e-4, abs=1e-6)
    terms["adversarial"].backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in state.generator.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["non-saturating", "hinge", "relativistic"])
def test_each_adversarial_loss_trains_both_networks(rgb: Tensor, kind: str) -> None:
    state = begin(
        rgb, adversarial_loss=kind, discriminator_lr=5e-3, ramp=0.0, discriminator_augment=False
    )
    names = ["discriminator/real", "discriminator/fake"]
    first = sum(train(state, rgb, 0.3).terms[name] for name in names)

    def is_better(numbers: dict[str, float]) -> bool:
        return numbers["d_accuracy"] > 0.8 and sum(numbers[name] for name in names) < first

    assert is_better(until(is_better, state, rgb, 0.3, 25))
    reports = [train(state, rgb, 0.9) for _ in range(3)]
    assert all(torch.tensor(list(report.terms.values())).isfinite().all() for report in reports)


def test_the_slope_at_real_pictures_is_punished_every_16_steps(rgb: Tensor) -> None:
    state = begin(rgb, r1=0.5, discriminator_augment=False)
    assert state.discriminator is not None
    punished = []
    for state.step in (0, 1, 15, 16, 17, 31, 32):
        punished.append("discriminator/r1" in train(state, rgb, 0.3).terms)
    assert punished == [True, False, False, True, False, False, True]
    context = context_at(state, rgb, 0.3)
    context.step = 16
    state.discriminator.eval()
    term = terms_of(state, context)["r1"]
    # By differences: the squared slope of all logits' means along each picture's own features.
    squared = 0.0
    for at in range(4):
        features = [x[at : at + 1].double() for x in context.real_features]
        head = state.discriminator.head
        head.double()
        moved = [x.clone().requires_grad_() for x in features]
        torch.stack([x.mean() for x in head(moved)]).sum().backward()
        squared += sum(float(x.grad.square().sum()) for x in moved if x.grad is not None)
        head.float()
    assert value(term) == pytest.approx(0.5 / 2 * 16 * squared / 4, rel=1e-3)
    state.discriminator.head.zero_grad()
    term.backward()
    last = state.discriminator.head.maps[0][-1].parametrizations.weight.original
    assert last.grad is not None and bool(last.grad.any())


@pytest.mark.slow
def test_a_punished_slope_becomes_less(rgb: Tensor) -> None:
    slopes = []
    for r1 in (0.0, 10.0):
        state = begin(rgb, r1=r1, discriminator_lr=5e-3, discriminator_augment=False)
        for _ in range(20):
            state.step = 0
            train(state, rgb, 0.3)
        slopes.append(value(objectives._slope(context_at(state, rgb, 0.3))))
    assert slopes[1] < 0.5 * slopes[0]


@pytest.mark.parametrize("objective", ["adversarial", "regression"])
def test_perceptual_distance_is_that_of_the_normalized_taps(rgb: Tensor, objective: str) -> None:
    changes = (
        {"adversarial_weight": 0.0}
        if objective == "regression"
        else {"discriminator_augment": False}
    )
    state = begin(rgb, objective=objective, perceptual_weight=5.0, **changes)
    assert isinstance(state.discriminator, PatchDiscriminator)
    assert state.phases[-1].name == "generator" and len(state.phases) == (
        1 if objective == "regression" else 3
    )
    context = context_at(state, rgb, 0.9)
    terms = state.phases[-1].losses(context)
    assert set(terms) == {"l1", "bins", "perceptual"} | (
        {"adversarial"} if objective == "adversarial" else set()
    )
    real, fake = (state.discriminator.features(seen) for seen in context.pairs)
    taps = [value((r - f).abs().mean()) for r, f in zip(real[1:], fake[1:], strict=True)]
    assert len(taps) == 3 and value(terms["perceptual"]) == pytest.approx(
        5 * sum(taps) / 3, rel=1e-4
    )
    terms["perceptual"].backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in state.generator.parameters())
    assert all(p.grad is None for p in state.discriminator.parameters())
    head = weights(state.discriminator.head)
    if objective == "regression":
        train(state, rgb, 0.5)
        assert unchanged(state.discriminator.head, head)
    else:  # the generator begins with the colours
        assert "generator/perceptual" not in train(state, rgb, 0.0).terms


@both
def test_statistics_tell_of_colour_and_of_the_discriminator(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, warmup=0, discriminator_warmup=0)
    statistics = train(state, rgb, 0.0).statistics
    ab = color.split(rgb)[1] * 110
    centred = ab - ab.mean((0, 2, 3), keepdim=True)
    assert statistics["ab_truth_spread"] == pytest.approx(
        float(centred.std(correction=0)), rel=1e-4
    )
    assert statistics["ab_truth_offset"] == pytest.approx(
        float(ab.mean((0, 2, 3)).norm()), rel=1e-4
    )
    # starts with one colour: gray, or all bins'
    assert statistics["ab_spread"] < 0.2 * statistics["ab_truth_spread"]
    assert (
        0 < statistics["d_real"] < 1
        and 0 < statistics["d_fake"] < 1
        and 0 <= statistics["d_accuracy"] <= 1
    )
    assert statistics["grad_norm_generator"] > 0 and statistics["grad_norm_discriminator"] > 0
    maps = {name: x for name, x in statistics.items() if name.startswith("d_accuracy/")}
    if preset == "poster":
        assert maps == {}
    else:
        assert list(maps) == [
            f"d_accuracy/{name}" for name in ("ab", "relu2_2", "relu3_3", "relu4_3")
        ]
        assert statistics["d_accuracy"] == pytest.approx(sum(maps.values()) / 4, abs=1e-6)


def until(
    done: Callable[[dict[str, float]], bool], state: State, rgb: Tensor, progress: float, steps: int
) -> dict[str, float]:
    """Train on one batch until `done(numbers)`, at most so many steps; return the last numbers."""
    numbers: dict[str, float] = {}
    for _ in range(steps):
        report = train(state, rgb, progress)
        numbers = {**report.terms, **report.statistics}
        if done(numbers):
            break
    return numbers


@both
def test_generator_learns_one_batch_by_heart(rgb: Tensor, preset: str) -> None:
    state = begin(rgb, preset, lr=1e-2, width=16)
    names = ["generator/l1", "generator/bins"][: 1 if preset == "poster" else 2]
    first = train(state, rgb, 0.0).terms
    numbers = until(lambda n: all(n[x] < 0.5 * first[x] for x in names), state, rgb, 0.0, 150)
    assert all(numbers[x] < 0.5 * first[x] for x in names)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_units_learn_to_tell_a_fixed_batch_apart(rgb: Tensor, precision: str) -> None:
    state = begin(rgb, "poster", discriminator_lr=5e-3, precision=precision)
    numbers = until(
        lambda n: n["d_accuracy"] > 0.9 and n["d_real"] > 0.8 > 0.2 > n["d_fake"],
        state,
        rgb,
        0.3,
        60,
    )
    assert numbers["d_accuracy"] > 0.9 and numbers["d_real"] > 0.8 and numbers["d_fake"] < 0.2
    assert numbers["discriminator/real"] + numbers["discriminator/fake"] < 0.8  # chance is 1.386


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_patches_learn_to_tell_a_fixed_batch_apart(rgb: Tensor, precision: str) -> None:
    state = begin(rgb, discriminator_lr=1e-2, precision=precision, discriminator_augment=False)

    def is_told(numbers: dict[str, float]) -> bool:
        """On every map; the spectral norm keeps the logits small, so none is ever very sure."""
        maps = [x for name, x in numbers.items() if name.startswith("d_accuracy/")]
        sure = numbers["d_real"] > 0.65 > 0.35 > numbers["d_fake"]
        return sure and len(maps) == 4 and min(maps) > 0.7 and numbers["d_accuracy"] > 0.85

    numbers = until(is_told, state, rgb, 0.3, 60)
    assert is_told(numbers) and numbers["discriminator/real"] + numbers["discriminator/fake"] < 0.95


def test_moved_and_cut_pictures_are_told_apart_by_their_colours(rgb: Tensor) -> None:
    state = begin(rgb, discriminator_lr=1e-2)
    numbers = until(lambda n: n["d_accuracy/ab"] > 0.9, state, rgb, 0.3, 40)
    assert numbers["d_accuracy/ab"] > 0.9 and numbers["d_accuracy"] > 0.6
