"""A run that was stopped, by its steps, a signal, the clock or a kill, goes on as if nothing had
happened.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forkserver
import pytest
import torch
from tiny_settings import TINY

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError
from gancolor.storage import checkpoint
from gancolor.training import Interrupted, health, loop, rundir, train
from gancolor.training.loop import StopRule

QUICK: dict[str, Any] = {
    **TINY,
    "steps": 9,
    "warmup": 2 / 9,
    "discriminator_warmup": 2 / 9,
    "ramp": 3 / 9,
    "instance_noise": 0.2,
    "instance_noise_decay": 7 / 9,
    "checkpoint_every": 1000,
    "validate_every": 1000,
    "log_every": 1000,
}


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that ran before in this process keeps the log from caplog."""
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


def settings(**changes: Any) -> TrainConfig:
    """Settings that go through warm-up, discriminator warm-up, ramp and joint phase in nine steps,
    while the learning rates rise and fall: bins, hints and patches, unless `changes` say otherwise.
    """
    preset = changes.pop("preset", "gan")
    own = presets.PRESETS[preset]
    return presets.build(preset, **{**{k: v for k, v in QUICK.items() if k not in own}, **changes})


def last(run: Path) -> dict[str, Any]:
    return checkpoint.load(run / "last.pt")


def differences(one: Any, two: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ in the least: any bit, shape, type, memory format or key."""
    if type(one) is not type(two):
        return [f"{where}: {type(one)} and {type(two)}"]
    if isinstance(one, dict):
        if list(one) != list(two):
            return [f"{where}: keys {list(one)} and {list(two)}"]
        return [found for key in one for found in differences(one[key], two[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(two):
            return [f"{where}: {len(one)} and {len(two)} items"]
        return [
            found
            for i, pair in enumerate(zip(one, two, strict=True))
            for found in differences(*pair, f"{where}/{i}")
        ]
    if isinstance(one, torch.Tensor):
        same = one.dtype == two.dtype and one.stride() == two.stride() and torch.equal(one, two)
        return (
            []
            if same
            else [f"{where}: tensors differ by {(one.double() - two.double()).abs().max():.3g}"]
        )
    return [] if one == two else [f"{where}: {one} and {two}"]


def assert_same_run(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Equal in all but what the clock measured and the settings that may change."""
    one, two = (
        {k: v for k, v in content.items() if k not in ("seconds", "config")}
        for content in (one, two)
    )
    assert not differences(one, two)


def test_differences_sees_one_bit_and_one_key() -> None:
    one = {"a": [torch.zeros(2), 1], "b": {}}
    assert differences(one, {"a": [torch.zeros(2), 1], "b": {}}) == []
    assert differences(one, {"a": [torch.tensor([0.0, 1e-45]), 1], "b": {}})
    assert differences(one, {"a": [torch.zeros(2), 2], "b": {}})
    assert differences(one, {"a": [torch.zeros(2), 1]})


def train_until(
    step: int, config: TrainConfig, *, runs_root: Path | None = None, resume: Path | None = None
) -> Path:
    """Train, or go on, until a signal comes after `step` steps; return the run."""
    real = StopRule.reason

    def reason(stopper: StopRule, done: int) -> str | None:
        if done >= step:
            stopper.signal = signal.SIGTERM
        return real(stopper, done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRule, "reason", reason)
        with pytest.raises(Interrupted):
            train(config, runs_root=runs_root, resume=resume)
    if resume is None:
        assert runs_root is not None
        (resume,) = runs_root.iterdir()
    assert last(resume)["step"] == step
    return resume


def check_split(tmp_path: Path, *stops: int, **changes: Any) -> dict[str, Any]:
    """Train to the last of `stops` in one go and in parts, compare every tensor and counter; return
    the checkpoint.
    """
    changes["validate_every"] = 1  # so that `best` has seen the same validations
    config = settings(**changes, steps=stops[-1])
    whole = last(train(config, runs_root=tmp_path / "whole"))
    run = None
    for step in stops[:-1]:
        run = train_until(step, config, runs_root=tmp_path / "parts", resume=run)
    train(config, resume=run)
    assert (whole["step"], whole["seen"]) == (stops[-1], 2 * stops[-1])
    assert run is not None
    assert_same_run(whole, last(run))
    return whole


def moved(content: dict[str, Any]) -> bool:
    """Whether every network has been trained."""
    steps = {
        name: {int(s["step"]) for s in o["state"].values()}
        for name, o in content["optimizers"].items()
    }
    return all(counts and min(counts) > 0 for counts in steps.values())


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_resume_is_exact_through_all_phases(tmp_path: Path, precision: str) -> None:
    content = check_split(tmp_path, 1, 3, 5, 9, precision=precision)  # stops within each phase
    assert moved(content) and set(content["optimizers"]) == {"generator", "discriminator"}
    assert content["ema_updates"] == 7  # the two steps of the discriminator alone leave it
    config = content["config"]
    assert (config.head, config.discriminator, config.hints, config.lr_schedule) == (
        "bins",
        "patches",
        0.6,
        "cosine",
    )
    rates = [o["param_groups"][0] for o in content["optimizers"].values()]
    # nearly at the end of its fall
    assert all(0.01 < rate["lr"] / rate["initial_lr"] < 0.1 for rate in rates)


@pytest.mark.slow
def test_a_checkpoint_holds_what_was_measured_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(steps=3)
    run = train_until(1, config, runs_root=tmp_path)
    content = last(run)
    assert (
        float(content["shares"].sum()) == pytest.approx(1)
        and content["shares"].dtype == torch.float64
    )
    constants = {k: v for k, v in content["head"].items() if k.startswith(("mean_", "scale_"))}
    assert len(constants) == 8 and all(
        not torch.equal(v, torch.ones_like(v)) for v in constants.values()
    )
    monkeypatch.setattr("gancolor.training.run.read_sample", None)  # nothing is measured again
    train(config, resume=run)
    again = last(run)
    assert torch.equal(again["shares"], content["shares"])
    assert all(torch.equal(again["head"][name], value) for name, value in constants.items())


# --- when the end is moved ---


def rates(run: Path) -> dict[int, float]:
    """The generator's learning rate in each step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["lr/generator"] for line in lines if "lr/generator" in line}


def phases(run: Path) -> list[str]:
    """Which networks trained in each step: g, d or both."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = {"generator/l1": "g", "discriminator/real": "d"}
    return [
        "".join(short for name, short in names.items() if name in line)
        for line in lines
        if "val" not in line
    ]


@pytest.mark.slow
def test_moving_the_end_moves_phases_and_rates(tmp_path: Path) -> None:
    """A resumed run goes on at the share that its steps are of the new end."""
    shares = {"warmup": 0.5, "discriminator_warmup": 0.25, "ramp": 0.25, "log_every": 1}
    run = train_until(2, settings(**shares, steps=4), runs_root=tmp_path)
    train(settings(**shares, steps=8), resume=run)
    # with steps=4 it would have been g g d gd
    assert phases(run) == [
        "g",
        "g",
        "g",
        "g",
        "d",
        "d",
        "gd",
        "gd",
    ]
    config = settings(**shares)
    ends = {step: 4 if step <= 2 else 8 for step in range(1, 9)}
    expected = {
        step: config.lr * loop.learning_rate(config, (step - 1) / end) for step, end in ends.items()
    }
    assert rates(run) == pytest.approx(expected)
    assert last(run)["step"] == 8


@pytest.mark.slow
def test_a_run_that_is_done_can_be_given_more_steps(tmp_path: Path) -> None:
    run = train(settings(steps=4, log_every=1), runs_root=tmp_path)
    train(settings(steps=8, log_every=1), resume=run)
    config = settings()
    # it rises again
    assert rates(run)[5] == pytest.approx(config.lr * loop.learning_rate(config, 0.5))
    assert rates(run)[5] > 2 * rates(run)[4] and last(run)["step"] == 8


@pytest.mark.slow
def test_where_nothing_depends_on_the_end_moving_it_changes_nothing(tmp_path: Path) -> None:
    regression = {"preset": "regression", "validate_every": 1}
    run = train(settings(**regression, steps=2), runs_root=tmp_path / "parts")
    train(settings(**regression, steps=4), resume=run)
    assert_same_run(
        last(train(settings(**regression, steps=4), runs_root=tmp_path / "whole")), last(run)
    )


@pytest.mark.slow
def test_resume_is_exact_with_a_trained_backbone(tmp_path: Path) -> None:
    content = check_split(tmp_path, 3, 6, train_backbone=True)
    kernel = "features.0.weight"
    assert not torch.equal(content["generator"][f"encoder.{kernel}"], content["backbone"][kernel])
    assert not torch.equal(
        content["ema"][f"encoder.{kernel}"], content["generator"][f"encoder.{kernel}"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "poster"},
        {"preset": "regression"},
        {"condition": "edges", "l1_space": "ab"},
        {
            "discriminator": "units",
            "perceptual_weight": 0.0,
            "discriminator_units": (16, 8),
            "dropout": 0.4,
        },
        {"head": "ab", "hints": 0.0},
        {"hints": 0.0, "bins_weight": 0.0, "lr_schedule": "constant", "lr_warmup": 0.3},
        {"r1": 1.0, "adversarial_loss": "hinge", "discriminator_augment": False},
        {
            "perceptual_weight": 1.0,
            "adversarial_loss": "relativistic",
            "rebalance": 0.0,
            "temperature": 0.8,
        },
        {"preset": "regression", "perceptual_weight": 1.0, "head": "bins", "hints": 0.2},
        {"frozen_blocks": 5, "precision": "bf16"},
        {"train_backbone": True, "precision": "bf16", "frozen_blocks": 4},
        {"workers": 2, "clip": 1.0, "label_smoothing": 0.1, "ema": 0.0},
        {"discriminator_size": 64, "discriminator_lr": 1e-3, "l1_space": "rgb"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_resume_is_exact_with_other_settings(tmp_path: Path, changes: dict[str, Any]) -> None:
    check_split(tmp_path, 4, 7, **changes)


@pytest.mark.slow
def test_resume_is_exact_when_the_rescue_changed_a_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WINDOW", 2)
    monkeypatch.setitem(health._CHECKS, "saturated", lambda means: "d_real" in means)
    content = check_split(tmp_path, 5, 7, 10, warmup=0.0, discriminator_lr=2e-4)
    judge, painter = (
        content["optimizers"][name]["param_groups"][0] for name in ("discriminator", "generator")
    )
    # after step 6
    assert judge["initial_lr"] == pytest.approx(1e-4) and painter["initial_lr"] == pytest.approx(
        1e-3
    )
    assert judge["lr"] == pytest.approx(painter["lr"] / 10)  # both follow the schedule
    assert content["health"]["streaks"]["saturated"] == 5


@pytest.mark.slow
def test_workers_do_not_change_the_run(tmp_path: Path) -> None:
    one = train(settings(steps=3), runs_root=tmp_path)
    two = train(settings(steps=3, workers=1), runs_root=tmp_path)
    assert_same_run(last(one), last(two))


@pytest.mark.slow
def test_how_often_is_logged_validated_and_saved_does_not_change_the_networks(
    tmp_path: Path,
) -> None:
    one = train(settings(), runs_root=tmp_path)
    two = train(settings(log_every=2, validate_every=3, checkpoint_every=2), runs_root=tmp_path)
    first, second = last(one), last(two)
    assert first.pop("best") >= second.pop("best") > 0
    assert_same_run(first, second)
    assert not (one / "last-1.pt").exists() or checkpoint.load(one / "last-1.pt")["step"] == 9
    assert checkpoint.load(two / "last-1.pt")["step"] in (8, 9)


@pytest.mark.slow
def test_seeds_give_other_runs(tmp_path: Path) -> None:
    one, two = (last(train(settings(steps=1, seed=seed), runs_root=tmp_path)) for seed in (0, 1))
    assert differences(one["generator"], two["generator"])


@pytest.mark.slow
def test_damaged_last_goes_on_from_the_one_before_and_arrives_at_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(steps=6, checkpoint_every=2)
    whole = train(config, runs_root=tmp_path)
    run = train_until(5, config, runs_root=tmp_path / "parts")
    data = bytearray((run / "last.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (run / "last.pt").write_bytes(data)
    caplog.clear()
    train(config, resume=run)
    assert any(
        "damaged" in words and "going on from last-1.pt" in words for words in caplog.messages
    )
    assert_same_run(last(whole), last(run))


def test_both_checkpoints_damaged_is_one_error(tmp_path: Path) -> None:
    run = train(settings(steps=2, checkpoint_every=1), runs_root=tmp_path)
    for name in ("last.pt", "last-1.pt"):
        (run / name).write_bytes((run / name).read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(settings(steps=3), resume=run)


def test_best_is_not_a_run_to_go_on_from(tmp_path: Path) -> None:
    run = train(settings(steps=1), runs_root=tmp_path)
    (run / "best.pt").replace(run / "last.pt")
    (run / "last-1.pt").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="best.pt is for colouring only"):
        train(settings(steps=2), resume=run)


def test_other_settings_are_refused_by_name(tmp_path: Path, cli: Callable[..., Any]) -> None:
    run = train(settings(steps=1), runs_root=tmp_path)
    saved = rundir.read_config(run)
    assert rundir.merge_settings(saved, {"steps": 5, "log_every": 3}) == replace(
        saved, steps=5, log_every=3
    )
    with pytest.raises(ConfigError) as caught:
        rundir.merge_settings(saved, {"batch_size": 4, "lr": 2e-3, "steps": 5, "width": 4})
    assert "--batch-size (saved 2, given 4)" in str(caught.value) and "--lr (saved 0.001" in str(
        caught.value
    )
    assert "--steps" not in str(caught.value) and "--width" not in str(caught.value)
    before = (run / "last.pt").read_bytes()
    result = cli("train", "--resume", run, "--batch-size", 4)
    assert result.exit_code == 2 and "--batch-size (saved 2, given 4)" in result.output
    with pytest.raises(CheckpointError, match="config.json and its checkpoint differ.*--seed"):
        train(settings(steps=2, seed=4), resume=run)
    assert (run / "last.pt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gan", "regression"])
def test_time_limit_stops_cleanly(tmp_path: Path, preset: str) -> None:
    run = train(settings(preset=preset, steps=None, time_limit=0.3), runs_root=tmp_path)
    stopped = last(run)
    report = json.loads((run / "report.json").read_text())
    assert report["step"] == stopped["step"] > 0 and report["seen"] == 2 * stopped["step"]
    assert report["val"]["ciede2000"] > 0 and (run / "best.pt").is_file()
    train(settings(preset=preset, steps=stopped["step"] + 2), resume=run)
    resumed = last(run)
    assert resumed["step"] == stopped["step"] + 2 and resumed["best"] <= stopped["best"]
    if preset == "gan":
        return  # its phases and rates followed the clock
    whole = last(train(settings(preset=preset, steps=stopped["step"] + 2), runs_root=tmp_path))
    assert resumed.pop("best") <= whole.pop("best")
    assert_same_run(whole, resumed)


def arguments(config: TrainConfig, root: Path) -> list[str]:
    """The settings that differ from the defaults, as options."""
    from gancolor.config import flag_of

    given = ["--runs-root", str(root)]
    for name, value in vars(config).items():
        if value != getattr(TrainConfig(), name):
            given += [flag_of(name), str(value)]
    return given


@pytest.mark.parametrize(
    ("kind", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_signals_finish_the_step_and_save(tmp_path: Path, kind: signal.Signals, code: int) -> None:
    config = settings(steps=100_000, log_every=1)
    command = ["-m", "gancolor", "train", *arguments(config, tmp_path / "runs")]
    process = forkserver.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3/"):
            process.send_signal(kind)
            break
    _, words = process.communicate(timeout=120)
    assert process.returncode == code, words
    assert (
        "stopped by a signal; go on with: gancolor train --resume" in words
        and "Traceback" not in words
    )
    run = tmp_path / "runs" / "0001-gan-still-life"
    stopped = last(run)["step"]
    assert stopped >= 3 and not list(run.glob(".*.part"))
    assert not (run / "report.json").exists()  # the run is not over
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, stopped + 1))
    train_until(stopped + 1, config, resume=run)
    assert_same_run(last(train_until(stopped + 1, config, runs_root=tmp_path / "whole")), last(run))


# Forks a child for each line. It is killed (never, if `moment` is null) after its second save and
# that share of the time between two saves, so that it gets on by two or three steps however fast
# the machine is.
_KILLER = """
import json, os, signal, sys, time
from pathlib import Path
from gancolor.config import TrainConfig
from gancolor.training import train

def saves(child, path, count):  # when `path` was replaced, `count` times; None once the child has ended
    def stamp():  # None while there is none: for a moment in each save, and after a kill in that moment
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    times, before = [], stamp()
    while len(times) < count:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return None
        if (now := stamp()) not in (None, before):
            times.append(time.monotonic())
            before = now
        time.sleep(0.001)
    return times

for line in sys.stdin:
    values, run, root, moment = json.loads(line)
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        try:
            train(TrainConfig.from_json(values), resume=Path(run))
        except BaseException as error:
            Path(root, "error").write_text(repr(error))
            os._exit(1)
        os._exit(0)
    if moment is not None and (times := saves(child, Path(run, "last.pt"), 2)):
        time.sleep(moment * (times[1] - times[0]))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def check_kills(tmp_path: Path, steps: int, kills: int) -> None:
    """Kill a run that saves after each step `kills` times at random moments; it must end as if it
    had not been.
    """
    root = tmp_path / "killed"
    config = settings(steps=steps, checkpoint_every=1, validate_every=1)
    whole = last(train(config, runs_root=tmp_path / "whole"))
    run = train_until(1, config, runs_root=root)
    draw = random.Random(5)
    server = forkserver.Popen(
        ["-c", _KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None and server.stdout is not None

    def send(moment: float | None) -> int:
        server.stdin.write(json.dumps([config.to_json(), str(run), str(root), moment]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    with server:
        reached = [1]
        codes = []
        while codes.count(-signal.SIGKILL) < kills and reached[-1] < steps:
            codes.append(send(draw.random()))
            # there is always one that can be read
            reached.append(checkpoint.load_last(run)["step"])
        assert send(None) == 0, (root / "error").read_text()
        server.stdin.close()
    assert reached == sorted(reached) and codes.count(-signal.SIGKILL) >= min(kills, 2), (
        codes,
        reached,
    )
    assert_same_run(whole, last(run))
    assert not list(run.glob(".*.part"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    validated = [line["step"] for line in lines if "val" in line]
    assert validated == sorted(set(validated)) and validated[-1] == steps


@pytest.mark.slow
def test_killed_at_random_moments_arrives_at_the_same(tmp_path: Path) -> None:
    check_kills(tmp_path, steps=60, kills=25)


@pytest.mark.slow
def test_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = os.fsync

    def fill(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2 * (1 + 3):  # config.json and each save sync the file and its folder
            raise OSError(28, os.strerror(28))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(
        CheckpointError, match="No space left on device.*checkpoint before it is intact"
    ):
        train(settings(steps=5, checkpoint_every=1), runs_root=tmp_path)
    run = tmp_path / "0001-gan-still-life"
    assert [checkpoint.load(run / name)["step"] for name in ("last-1.pt", "last.pt")] == [2, 3]
    assert not list(run.glob(".*.part"))
    monkeypatch.undo()
    train(settings(steps=5), resume=run)
    whole = last(train(settings(steps=5), runs_root=tmp_path / "whole"))
    assert_same_run(whole, last(run))
