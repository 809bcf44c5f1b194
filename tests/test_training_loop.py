"""The loop: one step, when it stops, and what happens when a number is none."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_settings import PHASES, TINY
from torch import Tensor

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.data.loader import Batch
from gancolor.data.still_life import composition
from gancolor.errors import TrainingError
from gancolor.runtime import processes
from gancolor.storage import checkpoint
from gancolor.training import loop, objectives, train
from gancolor.training.loop import StopRule, train_step
from gancolor.training.objectives import Phase
from gancolor.training.state import State

CPU = torch.device("cpu")


def settings(**changes: Any) -> TrainConfig:
    return presets.build("gan", **{**TINY, **PHASES, "checkpoint_every": 1, **changes})


UNITS: dict[str, Any] = {
    "discriminator": "units",
    "perceptual_weight": 0.0,
    "discriminator_units": (8,),
    "head": "ab",
    "hints": 0.0,
}


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two still lifes with a hint each."""
    rgb = torch.stack(
        [torch.from_numpy(composition.paint(0, index, 32)).permute(2, 0, 1) for index in range(2)]
    )
    squares = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    squares[:, :, 4:9, 10:13] = 1
    return Batch(rgb=rgb, squares=squares)


def begin(batch: Batch, **changes: Any) -> State:
    """A fresh state that has seen the pictures once."""
    state = State(settings(**changes), CPU)
    state.calibrate(batch.rgb)
    return state


def step(state: State, batch: Batch) -> loop.StepReport:
    """One step, at the progress that the loop would give it."""
    state.progress = StopRule(state.config.steps, None, CPU).progress(state.step)
    return train_step(state, batch if state.config.hints else replace(batch, squares=None))


def tensors(state: State) -> dict[str, Tensor]:
    """Copies of all that a step may change."""
    assert state.discriminator is not None and state.ema is not None
    own = {f"generator.{k}": v for k, v in state.generator.state_dict().items()}
    own |= {f"head.{k}": v for k, v in state.discriminator.head.state_dict().items()}
    own |= {f"ema.{k}": v for k, v in state.ema.module.state_dict().items()}
    return {name: value.clone() for name, value in own.items()}


@pytest.mark.parametrize("changes", [{}, UNITS], ids=["patches", "units"])
def test_a_step_depends_on_its_state_and_batch_alone(batch: Batch, changes: dict[str, Any]) -> None:
    results = []
    for noise in (1, 2):
        state = begin(batch, instance_noise=0.1, **changes)
        for _ in range(4):
            torch.manual_seed(noise)  # what others drew in between must not matter
            torch.rand(noise)
            report = step(state, batch)
        results.append((tensors(state), report))
    assert results[0][1] == results[1][1]
    assert all(torch.equal(results[0][0][name], results[1][0][name]) for name in results[0][0])


def test_steps_and_ranks_draw_differently() -> None:
    drawn = []
    for seed, step, rank in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)):
        loop.seed_step(seed, step, rank)
        drawn.append(float(torch.rand(1)))
    assert drawn[0] == drawn[4] and len(set(drawn)) == 4


def test_the_largest_seed_and_step_can_be_seeded() -> None:
    loop.seed_step(2**32 - 1, 10**9, 1000)


@pytest.mark.parametrize("changes", [{}, UNITS], ids=["bins", "ab"])
def test_counters_and_terms(batch: Batch, changes: dict[str, Any]) -> None:
    state = begin(batch, **changes)
    reports = [step(state, batch) for _ in range(3)]
    assert (state.step, state.seen) == (3, 6)
    # the discriminator's own step is not counted
    assert state.ema is not None and state.ema.updates == 2
    names = [list(report.terms) for report in reports]
    judge, approach = ["discriminator/real", "discriminator/fake"], ["generator/l1"]
    approach += [] if changes else ["generator/bins"]
    joint = [
        *judge,
        "generator/adversarial",
        *approach,
        *([] if changes else ["generator/perceptual"]),
    ]
    assert names == [approach, judge, joint]
    assert all(isinstance(value, float) for report in reports for value in report.terms.values())


def test_the_average_follows_the_generator(batch: Batch) -> None:
    state = begin(batch, warmup=0.9, discriminator_warmup=0.0, ema=0.9, lr=1e-2)
    assert state.ema is not None
    expected = {k: v.clone() for k, v in state.generator.named_parameters()}
    for update in range(4):
        step(state, batch)
        decay = min(0.9, (1 + update) / (10 + update))
        live = dict(state.generator.named_parameters())
        expected = {k: decay * v + (1 - decay) * live[k].detach() for k, v in expected.items()}
    for name, own in state.ema.module.named_parameters():
        assert torch.allclose(own, expected[name], atol=1e-6), name
    live_buffers = dict(state.generator.named_buffers())
    assert all(
        torch.equal(own, live_buffers[name]) for name, own in state.ema.module.named_buffers()
    )
    assert not any(own.requires_grad for own in state.ema.module.parameters())


def test_clip_bounds_the_gradient_and_reports_what_it_was(batch: Batch) -> None:
    free, clipped = (begin(batch, clip=clip) for clip in (0.0, 0.01))
    norms = [step(state, batch).statistics["grad_norm_generator"] for state in (free, clipped)]
    assert norms[0] == norms[1] > 0.01

    def norm(state: State) -> float:
        return float(
            torch.cat(
                [p.grad.flatten() for p in state.phases[0].parameters() if p.grad is not None]
            ).norm()
        )

    assert norm(free) == pytest.approx(norms[0], rel=1e-4) and norm(clipped) == pytest.approx(
        0.01, rel=1e-3
    )


def test_phases_are_shares_of_the_run() -> None:
    phase = Phase("p", None, lambda context: {}, first=0.25, last=0.5)  # type: ignore[arg-type]
    assert [at for at in range(8) if phase.due(at / 8)] == [2, 3]
    assert not Phase("p", None, lambda context: {}, last=0.0).due(0.0)  # type: ignore[arg-type]  # no warm-up
    assert Phase("p", None, lambda context: {}, first=0.9).due(1.0)  # type: ignore[arg-type]


def test_the_rates_follow_the_progress_and_start_from_what_the_rescue_left(batch: Batch) -> None:
    state = begin(batch, lr=1e-3, discriminator_lr=1e-4, lr_warmup=0.25)
    state.optimizers["discriminator"].param_groups[0]["initial_lr"] = 5e-5
    found = []
    for _ in range(6):
        step(state, batch)
        found.append([optimizer.param_groups[0]["lr"] for optimizer in state.optimizers.values()])
    shares = [loop.learning_rate(state.config, at / 6) for at in range(6)]
    assert found == [[pytest.approx(1e-3 * share), pytest.approx(5e-5 * share)] for share in shares]
    assert shares[0] < shares[1] < shares[2] > shares[3] > shares[5] > 0  # up, then down
    constant = begin(batch, lr_schedule="constant", lr_warmup=0.0, lr=1e-3)
    constant.progress = 0.9
    train_step(constant, batch)
    assert constant.optimizers["generator"].param_groups[0]["lr"] == 1e-3


def not_a_number(predicted: Tensor, truth: Tensor) -> Tensor:
    return (predicted - truth).abs().mean() * float("nan")


def no_gradient(predicted: Tensor, truth: Tensor) -> Tensor:
    """0, whose gradient is not a number."""
    return (predicted - predicted.detach()).abs().sum().sqrt()


@pytest.mark.parametrize(
    ("broken", "what"),
    [(not_a_number, "generator/l1 must be a finite number, got nan"), (no_gradient, "gradient of")],
)
def test_a_number_that_is_none_stops_before_the_update(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, broken: Any, what: str
) -> None:
    state = begin(batch)
    before = {k: v.clone() for k, v in state.generator.named_parameters()}
    monkeypatch.setattr(objectives, "l1", broken)
    with pytest.raises(
        TrainingError, match=f"{what}.*at step 0; the last checkpoint is kept"
    ) as caught:
        step(state, batch)
    assert "\n" not in str(caught.value) and "--lr" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in state.generator.named_parameters())
    assert state.step == 0
    for kept in state.optimizers["generator"].state.values():  # as if no step had been taken
        assert all(not value.any() for value in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("broken", [not_a_number, no_gradient])
def test_not_a_number_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    real, calls = objectives.l1, []

    def late(predicted: Tensor, truth: Tensor) -> Tensor:
        calls.append(1)
        return broken(predicted, truth) if len(calls) > 3 else real(predicted, truth)

    # steps 0, 2 and 3 are good; step 1 is the discriminator's
    monkeypatch.setattr(objectives, "l1", late)
    with pytest.raises(TrainingError, match="at step 4"):
        train(settings(perceptual_weight=0.0), runs_root=tmp_path)
    run = tmp_path / "0001-gan-still-life"
    kept = checkpoint.load(run / "last.pt")
    assert kept["step"] == 4
    finite = [
        v.isfinite().all() for part in ("generator", "ema", "head") for v in kept[part].values()
    ]
    assert all(finite)
    assert not (run / "report.json").exists()
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]
    monkeypatch.undo()
    train(settings(perceptual_weight=0.0), resume=run)
    assert checkpoint.load(run / "last.pt")["step"] == 6


def test_not_a_number_is_one_line_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.setattr(objectives, "l1", not_a_number)
    options = (
        "--image-size 32 --batch-size 2 --steps 2 --backbone-weights none --frozen-blocks 3"
        " --width 4"
    )
    result = cli(
        "train",
        *options.split(),
        "--workers",
        0,
        "--val-pictures",
        2,
        "--device",
        "cpu",
        "--runs-root",
        tmp_path,
    )
    assert result.exit_code == 1
    assert "Error: generator/l1 must be a finite number, got nan at step 0" in result.output
    assert "Traceback" not in result.output


def test_stops_at_the_last_step() -> None:
    stopper = StopRule(5, None, CPU)
    assert [stopper.reason(step) for step in (0, 4, 5, 6)] == [None, None, "steps", "steps"]


def test_stops_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    stopper = StopRule(None, 30.0, CPU)
    assert stopper.reason(10**6) is None
    now[0] = 129.9
    assert stopper.reason(10**6) is None
    now[0] = 130.0
    assert stopper.reason(0) == "time"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_interrupts(kind: signal.Signals) -> None:
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    stopper = StopRule(100, None, CPU)
    with stopper.listening():
        assert stopper.reason(0) is None
        os.kill(os.getpid(), kind)
        assert stopper.reason(0) == "signal" and stopper.signal == kind
        os.kill(os.getpid(), signal.SIGTERM)  # as schedulers repeat it
        assert stopper.reason(0) == "signal" and stopper.signal == kind
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(kind)  # the handler runs between two instructions
    assert {kind: signal.getsignal(kind) for kind in before} == before


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopper = StopRule(100, None, CPU)

    def agree(value: int, device: torch.device) -> int:
        stopper._note(signal.SIGTERM, None)
        monkeypatch.undo()
        return value  # what was agreed on does not hold the signal yet

    monkeypatch.setattr(processes, "agree_highest", agree)
    assert stopper.reason(0) is None
    assert stopper.reason(1) == "signal" and stopper.signal == signal.SIGTERM


def test_listening_outside_the_main_thread_does_nothing() -> None:
    reasons = []

    def run() -> None:
        stopper = StopRule(1, None, CPU)
        with stopper.listening():
            reasons.append(stopper.reason(1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert reasons == ["steps"]


# --- how much of the run is over ---


def test_progress_by_steps_is_a_function_of_the_step() -> None:
    stopper = StopRule(8, None, CPU, spent=1000.0)
    assert [stopper.progress(at) for at in (0, 2, 8, 9)] == [0.0, 0.25, 1.0, 1.0]


def test_progress_by_time_counts_what_was_trained_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    fresh, resumed = StopRule(None, 30.0, CPU), StopRule(None, 30.0, CPU, spent=30.0)
    assert (fresh.progress(10**6), resumed.progress(0)) == (0.0, 0.5)
    now[0] = 115.0
    assert (fresh.progress(0), resumed.progress(0)) == (0.5, 0.75)
    now[0] = 200.0
    assert (fresh.progress(0), resumed.progress(0)) == (1.0, 1.0)


def test_the_first_end_decides_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    stopper = StopRule(10, 100.0, CPU)
    now[0] = 40.0
    assert stopper.progress(3) == 0.4 and stopper.progress(6) == 0.6


def test_fit_moves_the_progress(batch: Batch) -> None:
    state, seen = begin(batch), []
    loop.fit(
        state, repeat(batch), StopRule(4, None, CPU), 0, lambda *_: seen.append(state.progress)
    )
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_fit_finishes_the_step_that_a_signal_came_in(batch: Batch) -> None:
    state = begin(batch)
    after: list[tuple[int, float]] = []

    def note(report: loop.StepReport, _: Batch, waited: float) -> None:
        after.append((state.step, waited))
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    batches = repeat(batch)
    assert loop.fit(state, batches, StopRule(5, None, CPU), 0, note) == "signal"
    assert [number for number, _ in after] == [1, 2] and all(waited >= 0 for _, waited in after)
    assert loop.fit(state, batches, StopRule(4, None, CPU), 0, lambda *_: None) == "steps"
    assert state.step == 4


def test_what_is_drawn_for_a_picture_does_not_depend_on_the_number_of_processes() -> None:
    whole = loop.draw(3, 7, 4, 0, 4)
    assert torch.equal(whole, torch.cat([loop.draw(3, 7, 4, rank, 2) for rank in (0, 1)]))
    assert not torch.equal(whole, loop.draw(3, 8, 4, 0, 4)) and not torch.equal(
        whole, loop.draw(4, 7, 4, 0, 4)
    )
