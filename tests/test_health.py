"""The health check: what it says of made-up statistics, when, and what it does about them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer

from gancolor.training.health import WINDOW, Health, first_bad

HEALTHY = {
    "d_real": 0.6,
    "d_fake": 0.4,
    "d_accuracy": 0.7,
    "ab_spread": 12.0,
    "ab_truth_spread": 18.0,
    "ab_offset": 5.0,
    "ab_truth_offset": 6.0,
    "grad_norm_generator": 3.0,
    "grad_norm_discriminator": 1.0,
}


def maps(**rights: float) -> dict[str, float]:
    """How often each map of a discriminator with patches is right, healthy but for `rights`."""
    usual = {"ab": 0.7, "relu2_2": 0.72, "relu3_3": 0.68, "relu4_3": 0.6}
    return {f"d_accuracy/{name}": right for name, right in (usual | rights).items()}


SATURATED = {"d_real": 0.99, "d_fake": 0.01, "d_accuracy": 1.0}
ILL: dict[str, tuple[dict[str, float], str]] = {
    "saturated": (SATURATED, "the discriminator wins outright"),
    "gives up": (
        {"d_real": 0.5, "d_fake": 0.4995, "d_accuracy": 0.5},
        "the discriminator gives up",
    ),
    "gray": ({"ab_spread": 0.9, "ab_offset": 0.1}, "the generator paints gray"),
    "sepia": ({"ab_spread": 4.0, "ab_offset": 12.0}, "the generator paints sepia"),
    "winning map": (maps(relu2_2=0.99), "the discriminator tells real from fake by relu2_2 alone"),
    "winning maps": (maps(ab=0.98, relu4_3=0.99), "tells real from fake by ab and relu4_3 alone"),
    "blind map": (maps(ab=0.5), "the discriminator's ab tells nothing"),
    "exploding": ({"grad_norm_generator": 2e4}, "gradients are very large"),
    "exploding judge": ({"grad_norm_discriminator": math.inf}, "gradients are very large"),
}


def optimizers(lr: float = 2e-4) -> dict[str, Optimizer]:
    groups = {
        name: [{"params": [torch.zeros(1)], "initial_lr": lr}]
        for name in ("generator", "discriminator")
    }
    # the schedule is half way down
    return {name: SGD(group, lr=lr / 2) for name, group in groups.items()}


def rate(owned: dict[str, Optimizer], name: str = "discriminator") -> float:
    """From which the schedule makes the rate of a step."""
    found: float = owned[name].param_groups[0]["initial_lr"]
    return found


def observe(
    health: Health,
    statistics: dict[str, float],
    windows: int,
    owned: dict[str, Optimizer] | None = None,
    start: int = 0,
) -> list[list[str]]:
    """Feed so many windows of the same numbers; the verdicts of each window."""
    owned = owned or optimizers()
    said = []
    for window in range(windows):
        steps = range((start + window) * WINDOW, (start + window + 1) * WINDOW)
        verdicts = [health.update(step, statistics, owned) for step in steps]
        assert not any(verdicts[:-1])  # only at a window's end
        said.append(verdicts[-1])
    return said


def test_healthy_numbers_give_no_verdict() -> None:
    assert observe(Health(rescue=True), HEALTHY, 7) == [[]] * 7
    assert observe(Health(rescue=True), {**HEALTHY, **maps()}, 7) == [[]] * 7


def test_maps_are_compared_with_each_other() -> None:
    """Where all tell everything, or nothing, other verdicts say so."""
    alike = {name: 0.99 for name in maps()}
    said = observe(Health(rescue=False), {**HEALTHY, **SATURATED, **alike}, 3)[2]
    assert len(said) == 1 and "wins outright" in said[0]
    alike = {name: 0.5 for name in maps()}
    said = observe(Health(rescue=False), {**HEALTHY, "d_accuracy": 0.5, **alike}, 3)[2]
    assert said == []


def test_regression_without_a_discriminator_gives_no_verdict() -> None:
    numbers = {k: v for k, v in HEALTHY.items() if not k.startswith("d_")}
    assert observe(Health(rescue=True), numbers, 4) == [[]] * 4
    assert observe(Health(rescue=True), {}, 4) == [[]] * 4


@pytest.mark.parametrize("name", list(ILL))
def test_verdict_only_after_three_windows(name: str) -> None:
    numbers, words = ILL[name]
    said = observe(Health(rescue=False), {**HEALTHY, **numbers}, 6)
    assert [len(verdicts) for verdicts in said] == [0, 0, 1, 0, 0, 1]
    assert words in said[2][0] and words in said[5][0]
    assert "{" not in said[2][0] and "\n" not in said[2][0]


def test_a_healthy_window_between_starts_the_count_anew() -> None:
    health = Health(rescue=False)
    ill = {**HEALTHY, **SATURATED}
    assert observe(health, ill, 2) == [[], []]
    assert observe(health, HEALTHY, 1, start=2) == [[]]
    assert [len(verdicts) for verdicts in observe(health, ill, 3, start=3)] == [0, 0, 1]


def test_a_window_is_judged_by_its_mean() -> None:
    health, owned = Health(rescue=True), optimizers()
    for step in range(3 * WINDOW):  # saturated in every other step only
        assert health.update(step, {**HEALTHY, **(SATURATED if step % 2 else {})}, owned) == []


def test_numbers_are_in_the_words() -> None:
    said = observe(
        Health(rescue=False), {**HEALTHY, "ab_spread": 1.25, "ab_truth_spread": 17.5}, 3
    )[2]
    assert "1.25" in said[0] and "17.5" in said[0]


def test_rescue_halves_the_discriminators_rate_down_to_its_floor() -> None:
    health, owned = Health(rescue=True), optimizers(lr=3e-6)
    ill = {**HEALTHY, **SATURATED}
    rates, words = [], []
    for round_ in range(4):
        said = observe(health, ill, 3, owned, start=3 * round_)
        rates.append(rate(owned))
        words.append(said[2][0])
    assert rates == pytest.approx([1.5e-6, 1e-6, 1e-6, 1e-6])
    assert "halved to 1.5e-06" in words[0] and "--no-rescue" in words[0]
    assert "at its floor of 1.0e-06" in words[2] and "halved" not in words[2]
    assert rate(owned, "generator") == 3e-6
    assert [o.param_groups[0]["lr"] for o in owned.values()] == [
        1.5e-6
    ] * 2  # of this step: the schedule's


def test_without_rescue_it_only_advises() -> None:
    owned = optimizers()
    said = observe(Health(rescue=False), {**HEALTHY, **SATURATED}, 3, owned)
    assert "try a lower --discriminator-lr" in said[2][0]
    assert rate(owned) == 2e-4


def test_other_verdicts_leave_the_rates() -> None:
    owned = optimizers()
    for name, (numbers, _) in ILL.items():
        if name != "saturated":
            observe(Health(rescue=True), {**HEALTHY, **numbers}, 3, owned)
    assert [rate(owned, name) for name in owned] == [2e-4, 2e-4]


@pytest.mark.parametrize("cut", [1, WINDOW - 1, WINDOW, 2 * WINDOW + 7, 3 * WINDOW - 1])
def test_state_dict_round_trip_in_the_middle(cut: int) -> None:
    def feed(health: Health, steps: range, owned: dict[str, Optimizer]) -> list[Any]:
        ill = {**HEALTHY, **SATURATED}
        return [(step, said) for step in steps if (said := health.update(step, ill, owned))]

    whole, owned = Health(rescue=True), optimizers()
    expected = feed(whole, range(6 * WINDOW), owned)
    assert len(expected) == 2
    first, parts = Health(rescue=True), optimizers()
    said = feed(first, range(cut), parts)
    second = Health(rescue=True)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))  # plain numbers
    said += feed(second, range(cut, 6 * WINDOW), parts)
    assert said == expected and second.state_dict() == whole.state_dict()
    assert rate(parts) == rate(owned) == 5e-5


def test_state_dict_is_a_copy() -> None:
    health = Health(rescue=True)
    state = health.state_dict()
    health.update(0, HEALTHY, optimizers())
    assert state == {"sums": {}, "counts": {}, "streaks": {}}
    other = Health(rescue=True)
    other.load_state_dict(health.state_dict())
    other.update(1, HEALTHY, optimizers())
    assert health.counts["d_real"] == 1 and other.counts["d_real"] == 2


def test_first_bad_names_what_is_not_a_number() -> None:
    assert first_bad({"a": 1.0, "b": math.nan, "c": math.inf}) == "b"
    assert first_bad({"a": 1.0, "c": -math.inf}) == "c"
    assert first_bad({"a": 1.0}) is None
