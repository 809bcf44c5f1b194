"""What a training does when it is left: by its terminal, its readers, its folder, or its memory;
and when two meet.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forkserver
import pytest
import torch
from campaign_stops import children

from gancolor import errors
from gancolor.config import TrainConfig, flag_of
from gancolor.data.doctor import survey
from gancolor.errors import CheckpointError, DataError, TrainingError
from gancolor.runtime import files, signals
from gancolor.storage import checkpoint
from gancolor.training import rundir, train
from gancolor.training.logbook import Logbook

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals and locks are others there"
)


def arguments(config: TrainConfig, root: Path, **changes: Any) -> list[str]:
    """`gancolor train` with the settings that differ from the defaults."""
    given = ["-m", "gancolor", "train", "--runs-root", str(root)]
    for name, value in (vars(config) | changes).items():
        if value != getattr(TrainConfig(), name):
            given += [flag_of(name), str(value)]
    return given


def endless(tiny: TrainConfig, root: Path, **changes: Any) -> list[str]:
    return arguments(
        tiny, root, steps=100_000, checkpoint_every=1, validate_every=100_000, **changes
    )


@contextlib.contextmanager
def training(
    command: list[str], **options: Any
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A training that has done three steps, and the lines that it wrote until then."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with forkserver.Popen(command, **options) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("step 3/"):
                break
        try:
            yield process, lines
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> list[str]:
    """The lines of standard error until the end."""
    return process.communicate(timeout=120)[1].splitlines()


# --- signals ---


def test_a_hangup_finishes_the_step_and_saves(tmp_path: Path, tiny: TrainConfig) -> None:
    with training(endless(tiny, tmp_path)) as (process, _):
        process.send_signal(signal.SIGHUP)
        lines = ended(process)
    assert process.returncode == 129
    assert lines[-1].startswith("stopped by a signal; go on with: gancolor train --resume")
    (run,) = tmp_path.iterdir()
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert checkpoint.load(run / "last.pt")["step"] == steps[-1] >= 3
    assert not (run / ".lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="terminals differ")
def test_a_lost_terminal_is_a_hangup_that_saves(tmp_path: Path, tiny: TrainConfig) -> None:
    """The terminal goes, the kernel sends SIGHUP, and whatever is still written to it fails."""
    ours, theirs = pty.openpty()
    command = endless(tiny, tmp_path)
    process = forkserver.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    last = tmp_path / "0001-gan-still-life" / "last-1.pt"
    try:
        while not last.exists() and process.poll() is None:
            # on a terminal it speaks seldom: not to be waited for
            if select.select([ours], [], [], 0.01)[0]:
                os.read(ours, 65536)
        before = checkpoint.load_last(last.parent)["step"]
        os.close(ours)
        # the kernel sends it only where the terminal is the process's own
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 129
    finally:
        process.kill()
    assert checkpoint.load(last.with_name("last.pt"))["step"] >= before


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signal.SIGHUP in signals.stop_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert signals.stop_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_preparing_stops_at_a_hangup() -> None:
    with pytest.raises(signals.StoppedBySignal) as caught, survey.stoppable():
        os.kill(os.getpid(), signal.SIGHUP)
    assert caught.value.exit_code == 129


def test_a_terminal_that_is_gone_does_not_end_a_logbook(
    tmp_path: Path, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def write(self, words: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def isatty(self) -> bool:
            return False

        flush = write

    book = Logbook(tmp_path, tiny, 0, 4)
    monkeypatch.setattr(sys, "stderr", Gone())
    book.say("hello")
    book.scalars(1, {"G_loss": 1.0}, "G_loss 1")
    monkeypatch.undo()
    book.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "G_loss": 1.0}


# --- readers ---


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_reading_process_is_one_line(tmp_path: Path, tiny: TrainConfig) -> None:
    with training(endless(tiny, tmp_path, workers=2)) as (process, _):
        os.kill(children(process.pid)[0], signal.SIGKILL)
        lines = ended(process)
    assert process.returncode == 1
    told = [line for line in lines if not line.startswith("step ")]
    assert len(told) == 1, told
    assert (
        told[0].startswith("Error: reading pictures stopped: DataLoader worker (pid")
        and "--workers 0" in told[0]
    )
    (run,) = tmp_path.iterdir()
    assert checkpoint.load_last(run)["step"] >= 2


@pytest.mark.parametrize("behind", [None, RuntimeError("unexpected pos"), KeyError("x")])
def test_a_death_that_is_told_in_the_middle_of_a_step_is_the_same_line(
    tmp_path: Path, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, behind: Exception | None
) -> None:
    """Torch raises it wherever the main process is, also while it saves."""

    def die(*_: Any) -> None:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        finally:
            if behind is not None:
                raise behind

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(
        DataError,
        match=r"reading pictures stopped: DataLoader worker \(pid 7\) is killed by signal",
    ):
        train(tiny, runs_root=tmp_path)


# --- the folder ---


def test_a_run_that_is_deleted_while_it_trains_is_one_line(
    tmp_path: Path, tiny: TrainConfig
) -> None:
    with training(endless(tiny, tmp_path)) as (process, _):
        run = tmp_path / "0001-gan-still-life"
        while run.exists():  # it may write just now
            shutil.rmtree(run, ignore_errors=True)
        lines = ended(process)
    assert process.returncode == 1
    told = [line for line in lines if not line.startswith("step ")]
    assert told == [
        f"Error: {run} is gone: it was deleted or moved while it was trained; put it back and go on"
        " with --resume, or start again"
    ]
    assert not run.exists()


def test_two_that_go_on_with_one_run(tmp_path: Path, tiny: TrainConfig) -> None:
    with training(endless(tiny, tmp_path)) as (process, _):
        run = tmp_path / "0001-gan-still-life"
        second = forkserver.run(
            ["-m", "gancolor", "train", "--resume", str(run), "--device", "cpu"]
        )
        assert second.returncode == 1
        assert second.stderr.splitlines() == [
            f"Error: {run} is being trained by another process; wait for it, or stop it"
        ]
        assert process.poll() is None  # the first goes on
    # a kill has let go of it
    train(rundir.merge_settings(rundir.read_config(run), {"steps": 3}), resume=run)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_does_not_hold_a_lock_on(tmp_path: Path) -> None:
    """Reading processes live for seconds after their training was killed."""
    path = tmp_path / "lock"
    woken = multiprocessing.get_context("fork").Event()
    with files.locked(path, "taken"):
        child = multiprocessing.get_context("fork").Process(target=woken.wait)
        child.start()
        with pytest.raises(DataError, match="^taken$"), files.locked(path, "taken"):
            raise AssertionError("two at once")
        while _has_open(child.pid, path):
            time.sleep(0.01)
        with pytest.raises(DataError), files.locked(path, "taken"):
            raise AssertionError("the child's end lets go of the parent's lock")
    with files.locked(path, "taken"):  # it is free, although the child lives
        assert child.is_alive()
    woken.set()
    child.join()


def _has_open(process: int | None, path: Path) -> bool:
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(descriptor) == os.path.realpath(path):
                return True
    return False


def test_a_disk_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.locked(tmp_path / "lock", "taken"), files.locked(tmp_path / "lock", None):
        pass


@pytest.mark.parametrize("hours", [-1, 24])
def test_a_lock_left_behind_does_not_keep_a_run_from_beginning(
    tmp_path: Path, tiny: TrainConfig, hours: int
) -> None:
    """Whatever its time says: only a process holds a lock."""
    for name in (".lock", ".0001.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() + 3600 * hours,) * 2)
    assert rundir.create(tmp_path, tiny).name == "0001-gan-still-life"
    assert not (tmp_path / ".lock").exists()


# --- memory ---


def full(*_: Any, **__: Any) -> Any:
    raise MemoryError


def refused(*_: Any, **__: Any) -> Any:
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory:"
        " you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
    )


def no_fork(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("fail", [full, refused, no_fork])
@pytest.mark.parametrize(
    "where", ["run.read_held_out", "run.read_sample", "run.State", "loop.train_step"]
)
def test_short_memory_says_what_to_reduce(
    tmp_path: Path,
    tiny: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    fail: Callable[..., Any],
) -> None:
    monkeypatch.setattr(f"gancolor.training.{where}", fail)
    with pytest.raises(
        TrainingError, match="memory of cpu .* full at --batch-size 2, --image-size 32; use smaller"
    ):
        train(tiny, runs_root=tmp_path)


def test_short_memory_anywhere_else_is_one_line(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gancolor.data.catalog.names", full)
    done = cli("data", "list")
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert done.output.startswith("Error: memory ran out") and done.output.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("unable to mmap 80 bytes from file <x>: Cannot allocate memory (12)"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (ImportError("libx.so: failed to map segment: Cannot allocate memory"), True),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (
            ImportError(
                "libx.so: failed to map segment from shared object: Operation not permitted"
            ),
            False,
        ),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (OSError(errno.EIO, "Input/output error"), False),
    ],
)
def test_what_counts_as_short_memory(error: Exception, is_memory: bool) -> None:
    assert errors.is_out_of_memory(error) is is_memory


# --- files that cannot be read this once ---


@pytest.fixture
def run(tmp_path: Path, tiny: TrainConfig) -> Path:
    """A folder with two checkpoints; last.pt is of step 2."""
    for step in (1, 2):
        checkpoint.save(tmp_path / "last.pt", {"step": step}, tiny, keep=tmp_path / "last-1.pt")
    return tmp_path


PASSING = {
    "memory": (MemoryError(), "memory ran out"),
    "torch's memory": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        "memory ran out",
    ),
    "files": (
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        "Too many open files; raise the limit",
    ),
    "disk": (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error; look at its disk"),
    "system": (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory ran out"),
    "rights": (
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        "Permission denied; look at its permissions",
    ),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize(
    "where", ["zipfile.ZipFile", "zipfile.ZipFile.testzip", "zipfile._EndRecData", "torch.load"]
)
def test_what_fails_once_is_no_damage(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    """The file stays where it is, and the run does not go back."""
    error, words = PASSING[name]

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(CheckpointError, match="last.pt could not be read now") as caught:
        checkpoint.load_last(run, mend=True)
    assert (
        words in str(caught.value)
        and "damaged" not in str(caught.value)
        and "\n" not in str(caught.value)
    )
    monkeypatch.undo()
    assert sorted(path.name for path in run.iterdir()) == ["last-1.pt", "last.pt"]
    assert checkpoint.load_last(run)["step"] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_checkpoint_that_may_not_be_read_is_not_set_aside(run: Path) -> None:
    (run / "last.pt").chmod(0)
    with pytest.raises(CheckpointError, match="Permission denied; look at its permissions"):
        checkpoint.load_last(run, mend=True)
    assert (run / "last.pt").exists()


def test_sampling_short_of_memory_does_not_say_damaged(
    cli: Callable[..., Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.load", full)
    done = cli("sample", "--run", run)
    assert done.exit_code == 1 and "memory ran out" in done.output and "damaged" not in done.output
