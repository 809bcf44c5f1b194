"""The state of a run: what is built, shared, saved and restored."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from network_tables import trainable
from tiny_settings import TINY
from torch import Tensor

from gancolor import color, models, presets
from gancolor.config import TrainConfig
from gancolor.data.still_life import composition
from gancolor.errors import CheckpointError, DataError
from gancolor.models import PatchDiscriminator, Seen, bins, count_parameters
from gancolor.models.backbones import load_backbone
from gancolor.training.state import State, check_init

CPU = torch.device("cpu")


def settings(preset: str = "gan", **changes: Any) -> TrainConfig:
    return presets.build(preset, **{**TINY, **changes})


UNITS: dict[str, Any] = {
    "discriminator": "units",
    "perceptual_weight": 0.0,
    "discriminator_units": (8,),
}
POSTER: dict[str, Any] = {**UNITS, "head": "ab", "hints": 0.0}


def pictures(count: int = 4) -> Tensor:
    """Still lifes, uint8 (count, 3, 32, 32)."""
    return torch.stack(
        [
            torch.from_numpy(composition.paint(0, index, 32)).permute(2, 0, 1)
            for index in range(count)
        ]
    )


@pytest.mark.parametrize("changes", [{}, POSTER], ids=["bins and patches", "poster"])
def test_generator_and_discriminator_share_the_frozen_trunk(changes: dict[str, Any]) -> None:
    state = State(settings(frozen_blocks=5, **changes), CPU)
    assert state.discriminator is not None and state.ema is not None
    assert (
        state.generator.encoder
        is state.discriminator.trunk
        is state.ema.module.encoder
        is state.trunk
    )
    assert not any(p.requires_grad for p in state.trunk.parameters())
    own, frozen = count_parameters(state.generator, state.discriminator)
    projections = sum(
        p.numel() for p in state.discriminator.head.parameters() if not p.requires_grad
    )
    # random ones, which never train
    assert (projections > 0) == isinstance(state.discriminator, PatchDiscriminator)
    assert frozen == sum(p.numel() for p in state.trunk.parameters()) + projections > projections
    trained = [*trainable(state.generator), *trainable(state.discriminator)]
    assert own == sum(p.numel() for p in trained)
    assert {id(p) for p in state.optimizers["discriminator"].param_groups[0]["params"]} == {
        id(p) for p in trainable(state.discriminator)
    }


def test_a_trained_backbone_is_apart_from_the_discriminators() -> None:
    state = State(settings(train_backbone=True), CPU)
    assert state.discriminator is not None and state.ema is not None
    mine, trunk = (
        state.generator.encoder.features[0].weight,
        state.discriminator.trunk.features[0].weight,
    )
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
    # ImageNet's mean and deviation
    assert {b.dtype for b in state.trunk.buffers()} == {torch.float32}
    trained = State(settings(precision="bf16", train_backbone=True), CPU)
    assert {p.dtype for p in trained.generator.parameters()} == {torch.float32}
    assert trained.generator.encoder.features[0].weight.is_contiguous(
        memory_format=torch.channels_last
    )


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (
        State(settings(seed=seed), CPU).generator.last.logits.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_start_does_not_depend_on_the_precision_of_others() -> None:
    one, two = (State(settings(precision=precision), CPU) for precision in ("fp32", "bf16"))
    assert torch.equal(one.generator.last.logits.weight, two.generator.last.logits.weight)
    assert torch.equal(
        one.discriminator.head.project[0].weight, two.discriminator.head.project[0].weight
    )


def test_regression_and_no_average() -> None:
    state = State(settings("regression", ema=0.0), CPU)
    assert state.discriminator is None and state.ema is None and state.averaged is state.generator
    assert set(state.optimizers) == {"generator"}
    assert {"head", "ema", "ema_updates", "shares"}.isdisjoint(state.state_dict())
    assert state.class_weights is None
    averaged = State(settings("regression", ema=0.9), CPU)
    assert averaged.ema is not None and averaged.averaged is averaged.ema.module


@pytest.mark.parametrize(
    "changes", [{}, {"train_backbone": True}, {"precision": "bf16"}, {"ema": 0.0}, POSTER]
)
def test_state_dict_restores_everything(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(settings(**changes), CPU)
    state.calibrate(pictures())
    with torch.no_grad():
        for parameter in state.generator.parameters():
            parameter.add_(0.25)
    state.step, state.seen, state.seconds, state.best = 7, 14, 1.5, 9.25
    state.health.streaks = {"gray": 2}
    state.optimizers["discriminator"].param_groups[0]["initial_lr"] = 1e-5
    saved = state.state_dict()
    monkeypatch.setattr("gancolor.training.state.load_backbone", None)  # no weights are looked for
    again = State(settings(**changes), CPU, saved)
    assert (again.step, again.seen, again.seconds, again.best) == (7, 14, 1.5, 9.25)
    assert again.health.streaks == {"gray": 2} and again.origin == state.origin
    assert again.optimizers["discriminator"].param_groups[0]["initial_lr"] == 1e-5
    for mine, its in (
        (state.generator, again.generator),
        (state.discriminator.head, again.discriminator.head),
    ):
        one, two = mine.state_dict(), its.state_dict()
        assert list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)
    assert (state.shares is None) == (again.shares is None) == (changes is POSTER)
    if state.shares is not None:
        assert torch.equal(again.shares, state.shares) and torch.equal(
            again.class_weights, state.class_weights
        )
    assert (
        again.generator.encoder.features[0].weight.dtype
        == state.generator.encoder.features[0].weight.dtype
    )


def test_a_frozen_encoder_is_saved_once() -> None:
    frozen, trained = (State(settings(train_backbone=t), CPU).state_dict() for t in (False, True))
    assert len(frozen["backbone"]) == len(trained["backbone"]) == 26
    assert not any(
        name.startswith("encoder.") for part in ("generator", "ema") for name in frozen[part]
    )
    # three blocks: seven convolutions
    assert sum(name.startswith("encoder.") for name in trained["generator"]) == 14


@pytest.mark.parametrize("changes", [{}, POSTER], ids=["bins", "ab"])
def test_colorizer_dict_is_enough_to_colour_and_no_more(changes: dict[str, Any]) -> None:
    config = settings(frozen_blocks=3, **changes)
    state = State(config, CPU)
    state.calibrate(pictures())
    bias = "last.reduce.bias" if config.head == "bins" else "last.bias"
    with torch.no_grad():
        state.generator.get_parameter(bias).add_(1.0)
    content = state.colorizer_dict()
    assert set(content) == {"generator", "origin", "step", "seen"}
    generator = models.build_generator(config, load_backbone("none", seed=99))
    generator.load_state_dict(content["generator"])  # strict
    gray = torch.rand(1, 1, 32, 32)
    assert torch.allclose(generator.eval()(gray), state.averaged(gray), atol=1e-5)
    assert float(content["generator"][bias].abs().max()) < 0.5  # the average, not the live weights


@pytest.mark.parametrize(
    "missing", ["backbone", "generator", "ema", "head", "optimizers", "health", "best"]
)
def test_a_checkpoint_that_lacks_something_is_one_error(missing: str) -> None:
    saved = State(settings(), CPU).state_dict()
    del saved[missing]
    with pytest.raises(CheckpointError) as caught:
        State(settings(), CPU, saved)
    named = "without its VGG16; best.pt is for colouring only" if missing == "backbone" else missing
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_of_other_settings_is_one_error() -> None:
    saved = State(settings(width=4), CPU).state_dict()
    with pytest.raises(CheckpointError, match="does not fit its own config"):
        State(settings(width=8), CPU, saved)
    saved = State(settings(), CPU).state_dict()
    del saved["generator"]["last.logits.bias"]
    with pytest.raises(CheckpointError, match="last.logits.bias"):
        State(settings(), CPU, saved)


# --- what is measured on training pictures ---


@pytest.mark.slow
def test_calibrating_counts_the_colours_and_measures_the_features() -> None:
    state = State(settings(rebalance=0.25), CPU)
    rgb = pictures(20)
    assert state.shares is None and state.class_weights is None
    state.calibrate(rgb)
    ab = bins.at_centers(color.split(rgb)[1], 4)
    expected = bins.frequencies(bins.encode(ab.permute(0, 2, 3, 1).flatten(0, 2)))
    assert (
        state.shares is not None
        and state.class_weights is not None
        and state.discriminator is not None
    )
    assert torch.allclose(state.shares, expected, atol=1e-12) and float(
        state.shares.sum()
    ) == pytest.approx(1)
    assert torch.equal(state.class_weights, bins.class_weights(state.shares, 0.25))
    lightness, colors = color.split(rgb)
    features = state.discriminator.features(
        Seen(color.merge(lightness, colors), torch.cat([lightness, colors], 1))
    )
    assert len(features) == 4
    for x in features:
        assert float(x.mean((0, 2, 3)).abs().max()) < 1e-3  # around zero
        assert (
            0.8 < float(x.square().mean((0, 2, 3)).max()) < 1.1 and float(x.square().mean()) > 0.3
        )
    head = state.state_dict()["head"]
    assert all(
        torch.equal(head[f"scale_{at}"], scale)
        for at, scale in enumerate(state.discriminator.head.scales)
    )
    assert float(head["mean_1"].abs().max()) > 0 and not torch.equal(
        head["scale_1"], torch.ones_like(head["scale_1"])
    )


def test_calibrating_draws_no_random_numbers_and_gives_the_same_twice() -> None:
    one, two = State(settings(), CPU), State(settings(), CPU)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one.calibrate(pictures())
    assert torch.equal(torch.rand(1), expected)
    two.calibrate(pictures())
    assert torch.equal(one.shares, two.shares)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.discriminator.head.scales, two.discriminator.head.scales, strict=True)
    )


@pytest.mark.parametrize(
    ("changes", "shares"),
    [({"head": "ab", "hints": 0.0}, False), ({"bins_weight": 0.0}, True), (UNITS, True)],
    ids=["no bins", "weight 0", "units"],
)
def test_only_what_is_used_is_measured(changes: dict[str, Any], shares: bool) -> None:
    state = State(settings(**changes), CPU)
    state.calibrate(pictures())
    assert ("shares" in state.state_dict()) == shares
    assert ("mean_0" in state.state_dict()["head"]) == (changes is not UNITS)


def test_pictures_without_colours_cannot_be_learned_from() -> None:
    gray = pictures().float().mean(1, keepdim=True).byte().expand(-1, 3, -1, -1)
    with pytest.raises(
        DataError, match="the training pictures must have colours, got 0.00 %"
    ) as caught:
        State(settings(), CPU).calibrate(gray)
    assert "\n" not in str(caught.value)
    State(settings(head="ab", hints=0.0), CPU).calibrate(gray)  # it counts none


# --- starting from another run's networks ---


def trained(**changes: Any) -> State:
    """A state whose live and averaged generators and head differ from any that is fresh."""
    state = State(settings(seed=9, **changes), CPU)
    state.calibrate(pictures(6))
    assert state.discriminator is not None
    with torch.no_grad():
        for amount, module in (
            (0.5, state.generator),
            (0.25, state.averaged),
            (0.125, state.discriminator.head),
        ):
            for parameter in module.parameters():
                if not any(parameter is frozen for frozen in state.trunk.parameters()):
                    parameter.add_(amount)
    state.step = 7
    return state


def test_a_start_from_a_run_takes_its_average_and_its_discriminator_and_nothing_else() -> None:
    old = trained()
    init = old.state_dict()
    state = State(settings(init="old", lr=1e-3), CPU, None, init)
    for part in (state.generator, state.averaged):
        one, two = part.state_dict(), old.averaged.state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert (
        state.step == 0
        and state.ema is not None
        and state.ema.updates == 0
        and state.shares is None
    )
    assert not any(optimizer.state for optimizer in state.optimizers.values())
    assert state.discriminator is not None and old.discriminator is not None
    state.calibrate(pictures(2))  # colours are counted anew; what the head is used to stays
    assert state.shares is not None and not torch.equal(state.shares, old.shares)
    one, two = state.discriminator.head.state_dict(), old.discriminator.head.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (UNITS, "it is another"),
        (
            {"objective": "regression", "adversarial_weight": 0.0, "perceptual_weight": 0.0},
            "the checkpoint has none",
        ),
    ],
    ids=["units", "regression"],
)
def test_a_discriminator_that_does_not_fit_starts_anew_and_that_is_said(
    changes: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    init = State(settings(**changes), CPU).state_dict()
    with caplog.at_level(logging.INFO, logger="gancolor"):
        state = State(settings(init="old"), CPU, None, init)
    assert [m for m in caplog.messages if "discriminator" in m][0].startswith(
        f"the discriminator starts anew ({words}"
    )
    assert not state.head_is_known


@pytest.mark.parametrize("backbone", ["vgg16", "efficientnet-lite0"])
@pytest.mark.parametrize("ends", ["last.pt", "best.pt"])
def test_a_frozen_backbone_can_go_on_training(backbone: str, ends: str) -> None:
    changes: dict[str, Any] = {"frozen_blocks": 5}
    if backbone != "vgg16":
        changes |= {"backbone": backbone, "encoder_weights": "none", "levels": 0}
    old = trained(**changes)
    content = old.state_dict() if ends == "last.pt" else old.colorizer_dict()
    if (backbone, ends) == ("vgg16", "best.pt"):
        with pytest.raises(CheckpointError, match="name the run or its last.pt"):
            State(settings(**changes, train_backbone=True, init="old"), CPU, None, content)
        return
    state = State(settings(**changes, train_backbone=True, init="old"), CPU, None, content)
    one, two = state.generator.state_dict(), old.averaged.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert all(p.requires_grad for p in state.generator.encoder.parameters())


@pytest.mark.parametrize("ends", ["last.pt", "best.pt"])
def test_a_trained_backbone_can_be_frozen(ends: str) -> None:
    changes = {
        "backbone": "efficientnet-lite0",
        "encoder_weights": "none",
        "frozen_blocks": 5,
        "levels": 0,
    }
    old = trained(**changes, train_backbone=True)
    content = old.state_dict() if ends == "last.pt" else old.colorizer_dict()
    state = State(settings(**changes, init="old"), CPU, None, content)
    one, two = state.generator.state_dict(), old.averaged.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not any(p.requires_grad for p in state.generator.encoder.parameters())


def test_the_head_of_a_started_from_network_is_kept() -> None:
    old = trained(frozen_blocks=5)
    rgb = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    state = State(settings(frozen_blocks=5, init="old"), CPU, None, old.colorizer_dict())
    state.calibrate(rgb)
    assert torch.equal(state.generator.last.logits.bias, old.averaged.last.logits.bias)


def test_a_best_checkpoint_can_be_started_from_where_it_holds_all_of_vgg16() -> None:
    old = trained(frozen_blocks=5)
    state = State(settings(frozen_blocks=5, init="best.pt"), CPU, None, old.colorizer_dict())
    one, two = state.generator.state_dict(), old.averaged.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(
        torch.equal(a, b)
        for a, b in zip(state.trunk.parameters(), old.trunk.parameters(), strict=True)
    )
    # too few blocks; trained ones
    for changes in (
        {},
        {"frozen_blocks": 5, "train_backbone": True},
    ):
        content = State(settings(**changes), CPU).colorizer_dict()
        with pytest.raises(
            CheckpointError, match="without its VGG16; name the run or its last.pt"
        ) as caught:
            State(settings(**changes, init="best.pt"), CPU, None, content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 8}, "got --width 8 instead of 4"),  # a narrower one may be (below)
        ({"head": "ab", "hints": 0.0}, "got --head ab instead of bins"),
        ({"hints": 0.0}, "got --hints 0.0 instead of 0.6"),
        ({"condition": "edges"}, "got --condition edges instead of gray"),
        (
            {"train_backbone": True},
            "--init's VGG16 was trained: add --train-backbone",
        ),
    ],
    ids=str,
)
def test_another_network_cannot_be_started_from(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        check_init(settings(), settings(**changes))
    assert "\n" not in str(caught.value)


def test_a_narrower_decoder_can_be_started_from() -> None:
    old = trained()
    check_init(settings(width=6), old.config)
    wide = State(settings(width=6, init="last.pt"), CPU, None, old.state_dict())
    condition = torch.rand(1, 1, 32, 32)
    said = (state.averaged.eval()(condition) for state in (old, wide))
    assert torch.equal(*said)


def test_what_does_not_shape_the_network_may_differ_at_the_start() -> None:
    check_init(
        settings(),
        settings(
            hints=0.1,
            lr=1e-5,
            image_size=64,
            temperature=1.0,
            discriminator="units",
            perceptual_weight=0.0,
        ),
    )
