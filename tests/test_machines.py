"""Trainings of several machines that do not fit together, and of jobs that are started again."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import forkserver
import pytest
import shard_sets
import tiny_settings
import torch.distributed as dist

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError, DataError
from gancolor.runtime import files, machines, processes
from gancolor.runtime.machines import TorchrunJob
from gancolor.storage import checkpoint
from gancolor.training import restart, rundir, train

SETTINGS = (
    "train --preset regression --image-size 32 --batch-size 4 --backbone-weights none"
    " --frozen-blocks 3 --width 4 --val-pictures 2 --workers 0 --device cpu --precision fp32"
    " --log-every 1"
).split()


@pytest.fixture
def small() -> TrainConfig:
    """A training of two steps with a checkpoint after each."""
    return presets.build(
        "regression", **tiny_settings.TINY, steps=2, checkpoint_every=1, log_every=1
    )


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as torchrun starts it under the id job-7."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")


def ranks_with(patch: str, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """Train in two processes, after `patch` has been executed in each; the errors of those that
    end so, which must be all.
    """
    code = f"import os\n{patch}\nfrom gancolor.cli import main\nmain()"
    done = forkserver.run_ranks(
        ["-c", code, *SETTINGS, "--steps", "2", *arguments], env={**os.environ, **(env or {})}
    )
    assert done.returncode and "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2, done.stderr
    return errors


# --- versions ---


def test_versions_are_told_apart_by_the_machines_names() -> None:
    store = dist.HashStore()
    for rank, has in ((1, "gancolor 9.0 with torch 1.0"), (2, "gancolor 9.0 with torch 1.0")):
        store.set(f"machines/{rank}", json.dumps({"machine": f"node-{rank}", "has": has}))
        store.set(f"machines/{rank}/read", "")
    with pytest.raises(
        ConfigError, match=r"must have the same versions, got gancolor 0\."
    ) as caught:
        machines.check_versions(store, 0, 3)
    assert f" on {machines.name()}; gancolor 9.0 with torch 1.0 on node-1, node-2;" in str(
        caught.value
    )


def test_mixed_versions_end_all_before_anything_is_written(tmp_path: Path) -> None:
    patch = (
        "from gancolor.runtime import machines\n"
        "if os.environ['RANK'] == '1': machines.__version__, machines.name = '9.0', lambda: 'node-b'"
    )
    for error in ranks_with(patch, "--runs-root", str(tmp_path / "runs")):
        assert "all machines must have the same versions, got gancolor 0." in error
        assert "; gancolor 9.0 with torch " in error and " on node-b; install one on all" in error
    assert not (tmp_path / "runs").exists()


# --- folders, extras ---


def test_a_folder_that_is_not_shared_ends_all_before_anything_is_written(tmp_path: Path) -> None:
    patch = (
        "from gancolor.runtime import machines, processes\n"
        "processes._SEEN_WITHIN = 0.1\n"
        f"os.environ['GANCOLOR_RUNS'] = {str(tmp_path)!r} + '/runs-' + os.environ['RANK']\n"
        "machines.name = lambda: 'node-' + os.environ['RANK']"
    )
    for error in ranks_with(patch):
        assert "must be one folder for all processes, got another or none for 1 process (1 on" in (
            error
        )
        assert "(1 on node-1)" in error and "--runs-root" in error
    assert list(tmp_path.glob("runs-*")) == []


def test_a_machine_without_an_extra_is_named(tmp_path: Path) -> None:
    shards = shard_sets.packed(tmp_path, 24)
    patch = (
        "import sys\nfrom gancolor.runtime import machines\n"
        "if os.environ['RANK'] == '1': sys.modules['webdataset'] = None\n"
        "machines.name = lambda: 'node-' + os.environ['RANK']"
    )
    arguments = ("--dataset", str(shards), "--runs-root", str(tmp_path / "runs"))
    told = ranks_with(patch, *arguments, env={"GROUP_WORLD_SIZE": "2"})
    assert any("on node-1: " in line and "pip install 'gancolor[shards]'" in line for line in told)
    assert any("one that has ended (noticed on node-0)" in line for line in told)
    assert not (tmp_path / "runs").exists()


# --- a process that stops answering ---


@pytest.mark.slow
def test_a_process_that_stops_answering_ends_the_others_with_a_line(tmp_path: Path) -> None:
    arguments = ["--runs-root", str(tmp_path), "--steps", "100000", "--timeout", "8s"]
    first, second = forkserver.start_ranks(["-m", "gancolor", *SETTINGS, *arguments])
    assert first.stderr is not None
    try:
        for line in first.stderr:
            if line.startswith("step 3/"):
                second.send_signal(signal.SIGSTOP)
                break
        words = first.communicate(timeout=120)[1]
    finally:
        second.kill()
        second.communicate()
    assert first.returncode == 1 and "Traceback" not in words
    (error,) = [line for line in words.splitlines() if line.startswith("Error: ")]
    assert "the 2 processes of a training must answer within --timeout 8 s, got no answer" in error


def test_only_what_gloo_or_torch_says_of_others_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")
    assert processes.loss(closed, TrainConfig()) is None  # there are no others
    monkeypatch.setattr(processes, "active", lambda: True)
    assert "one that has ended" in str(processes.loss(closed, TrainConfig()))
    late = dist.DistBackendError("Timed out waiting 8000ms for recv operation to complete")
    assert "within --timeout 600 s" in str(processes.loss(late, TrainConfig()))
    assert processes.loss(RuntimeError("shapes differ"), TrainConfig()) is None
    assert processes.loss(OSError("gloo"), TrainConfig()) is None


# --- jobs ---


@pytest.mark.slow
def test_a_job_goes_on_with_the_run_that_it_began(
    tmp_path: Path, small: TrainConfig, job: None, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(small, runs_root=tmp_path)
    assert rundir.read_job(run) == {"id": "job-7", "machines": {machines.name(): 1}}
    assert train(replace(small, steps=3), runs_root=tmp_path) == run
    assert checkpoint.load(run / "last.pt")["step"] == 3
    words = (
        f"the job job-7 was started again: {run} goes on from its checkpoint of step 2; before, it"
        f" had 1 process (1 on {machines.name()}), now it has 1 process (1 on {machines.name()})"
    )
    assert words in capfd.readouterr().err
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["restart"] for line in lines if "restart" in line] == [words]
    # other settings are another training
    other = train(replace(small, lr=1e-3), runs_root=tmp_path)
    assert other.name.startswith("0002-") and checkpoint.load(other / "last.pt")["step"] == 2


@pytest.mark.slow
def test_a_run_without_a_checkpoint_begins_anew_in_its_place(
    tmp_path: Path, small: TrainConfig, job: None
) -> None:
    whole = train(replace(small, name="whole"), runs_root=tmp_path)
    run = rundir.create(tmp_path, small, {"id": "job-7", "machines": {"node-b": 2}})
    (run / "log.jsonl").write_text('{"step": 1}\n')  # so far it came
    assert train(small, runs_root=tmp_path) == run
    ends = [checkpoint.load(each / "last.pt")["generator"] for each in (run, whole)]
    assert all(ends[0][key].equal(ends[1][key]) for key in ends[0])
    (told,) = [line for line in (run / "log.jsonl").read_text().splitlines() if "restart" in line]
    assert "goes on from its beginning (it had come to step 1); before, it had 2 proc" in told


def test_without_a_job_every_training_is_a_run_of_its_own(
    tmp_path: Path, small: TrainConfig
) -> None:
    first, second = (rundir.create(tmp_path, small) for _ in range(2))
    assert first != second and rundir.read_job(first) == {}
    assert restart.find(tmp_path, small) is None


@pytest.mark.slow
def test_the_time_limit_counts_over_restarts(tmp_path: Path, small: TrainConfig, job: None) -> None:
    config = replace(small, steps=None, time_limit=0.5)
    run = train(config, runs_root=tmp_path)
    ended = checkpoint.load(run / "last.pt")["step"]
    assert train(config, runs_root=tmp_path) == run
    assert checkpoint.load(run / "last.pt")["step"] == ended > 0
    assert train(replace(config, time_limit=1000.0, steps=ended + 1), runs_root=tmp_path) == run
    assert checkpoint.load(run / "last.pt")["step"] == ended + 1


def test_two_torchruns_of_one_job_do_not_share_a_run(
    tmp_path: Path, small: TrainConfig, job: None
) -> None:
    told: dict[str, Any] = {"id": "job-7", "machines": {"node-a": 1}}
    run = rundir.create(tmp_path, small, told)
    with pytest.raises(
        DataError, match=r"must be started by one torchrun, got another one .*job-7"
    ):
        rundir.create(tmp_path, small, told)  # both had looked before either began
    with (
        files.locked(run / ".lock", None),
        pytest.raises(DataError, match="is being trained by another process"),
    ):
        train(replace(small, timeout=0.4), runs_root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


def test_a_lock_is_waited_for_as_long_as_the_patience_lasts(tmp_path: Path) -> None:
    path, held, done = tmp_path / "lock", threading.Event(), threading.Event()

    def hold() -> None:
        with files.locked(path, None):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(DataError, match="taken"), files.locked(path, "taken", patience=0.3):
        pass
    threading.Timer(0.3, done.set).start()
    with files.locked(path, "taken", patience=60):
        assert done.is_set()
    holder.join()


def test_a_job_is_read_from_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TorchrunJob.current() == TorchrunJob()
    variables = {
        "TORCHELASTIC_RUN_ID": "none",
        "GROUP_WORLD_SIZE": "2",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_a/none_b/attempt_1/0/error.json",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert TorchrunJob.current() == TorchrunJob("", 2, 1, 2, True)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert TorchrunJob.current().id == f"{machines.name()}:tmp/torchelastic_a/none_b"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    assert TorchrunJob.current().id == "job-7"


def test_torchrun_that_cannot_start_a_training_again_is_warned_of(
    tmp_path: Path,
    small: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert restart.find(tmp_path, small) is None
    words = [record.message for record in caplog.records]
    assert "no --rdzv-id" in words[0] and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in words[1]


def test_checkpoints_that_differ_between_machines_are_refused(
    tmp_path: Path, small: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(small, runs_root=tmp_path)
    monkeypatch.setattr(processes, "gather", lambda value: [value, ("node-b", 1)])
    with pytest.raises(CheckpointError, match=r"got step 2 on .* and 1 on node-b; wait"):
        restart.load(run, may_lack=False)
