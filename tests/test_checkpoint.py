"""Checkpoints: whole or not at all on disk, checked byte by byte on reading, and never code."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import forkserver
import pytest
import torch

from gancolor import __version__
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError
from gancolor.storage import checkpoint

CONFIG = TrainConfig(
    image_size=32, discriminator="units", discriminator_units=(8, 4), perceptual_weight=0.0
)


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that ran before in this process keeps the log from caplog."""
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


def content(step: int) -> dict[str, Any]:
    """Something like a run's state, whose every number depends on `step`."""
    weights = torch.full((64, 3, 3, 3), float(step)).to(memory_format=torch.channels_last)
    return {
        "step": step,
        "generator": {"weight": weights, "half": torch.full((5,), step).bfloat16()},
        "best": step / 7,
    }


def save_two(run: Path) -> None:
    """Steps 1 and 2 in last-1.pt and last.pt."""
    for step in (1, 2):
        checkpoint.save(run / "last.pt", content(step), CONFIG, keep=run / "last-1.pt")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_keeps_values_types_and_memory_format(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", content(3), CONFIG)
    read = checkpoint.load(tmp_path / "last.pt")
    assert read["config"] == CONFIG and isinstance(read["config"].discriminator_units, tuple)
    assert (read["format"], read["version"], read["step"], read["best"]) == (
        checkpoint.FORMAT,
        __version__,
        3,
        3 / 7,
    )
    weight = read["generator"]["weight"]
    assert torch.equal(weight, content(3)["generator"]["weight"])
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert read["generator"]["half"].dtype == torch.bfloat16
    assert names(tmp_path) == ["last.pt"]


def test_save_keeps_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "last.pt", content(step), CONFIG, keep=tmp_path / "last-1.pt")
    assert names(tmp_path) == ["last-1.pt", "last.pt"]
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "last-1.pt")["step"] == 2
    assert checkpoint.load_last(tmp_path)["step"] == 3


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((8,), 2.0).numpy().tobytes()) + 5] ^= 0x10  # inside a tensor
    path.write_bytes(data)


def zero_the_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-500] + bytes(500))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip_in_the_middle, zero_the_end, remove])
def test_damaged_last_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save_two(tmp_path)
    damage(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="last.pt"):
        checkpoint.load(tmp_path / "last.pt")
    with caplog.at_level(logging.WARNING, logger="gancolor"):
        read = checkpoint.load_last(tmp_path)
    assert read["step"] == 1
    assert torch.equal(read["generator"]["weight"], content(1)["generator"]["weight"])
    assert len(caplog.messages) == 1
    assert "last.pt" in caplog.messages[0] and "going on from last-1.pt" in caplog.messages[0]


@pytest.mark.parametrize("damage", [truncate, empty, zero_the_end])
def test_both_damaged_is_one_clear_error(tmp_path: Path, damage: Any) -> None:
    save_two(tmp_path)
    for name in ("last.pt", "last-1.pt"):
        damage(tmp_path / name)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        checkpoint.load_last(tmp_path)
    assert "\n" not in str(caught.value)


def test_any_damaged_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Headers, directory, pickle or tensors: a wrong byte gives a CheckpointError or exactly the
    content.
    """
    path = tmp_path / "last.pt"
    small = {"step": 5, "weights": torch.arange(40.0)}
    checkpoint.save(path, small, CONFIG)
    whole = path.read_bytes()
    draw = random.Random(3)
    noticed = 0
    for position in sorted(draw.sample(range(len(whole)), 250)):
        data = bytearray(whole)
        data[position] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            read = checkpoint.load(path)
        except CheckpointError:
            noticed += 1
            continue
        assert (read["step"], read["config"]) == (5, CONFIG), position
        assert torch.equal(read["weights"], small["weights"]), position
    assert noticed > 25  # most of a small file is padding


def test_any_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 5, "weights": torch.arange(40.0)}, CONFIG)
    whole = path.read_bytes()
    for length in random.Random(4).sample(range(len(whole)), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


class Payload:
    """Unpickling this makes the folder `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["pickle", "legacy", "zip", "inside"])
def test_loading_never_runs_code(tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "last.pt", tmp_path / "executed"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif form == "legacy":
        torch.save({"format": 1, "x": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    elif form == "zip":
        torch.save(Payload(mark), path)
    else:
        checkpoint.save(path, {**content(1), "extra": Payload(mark)}, CONFIG)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    if form == "pickle":  # the payload is real
        pickle.loads(path.read_bytes())
        assert mark.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    torch.save({"format": checkpoint.FORMAT, "config": "none"}, tmp_path / "strange.pt")
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("a.txt", "hello")
    for name in ("text", "tensor", "other", "strange", "archive", "missing"):
        with pytest.raises(CheckpointError, match=f"{name}.pt"):
            checkpoint.load(tmp_path / f"{name}.pt")
    with pytest.raises(CheckpointError, match="a folder"):
        checkpoint.load(tmp_path)


def rewrite(path: Path, **changes: Any) -> None:
    """Save a checkpoint and change some of its keys."""
    checkpoint.save(path, content(1), CONFIG)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


def test_another_format_names_the_version_to_use(tmp_path: Path) -> None:
    rewrite(tmp_path / "last.pt", format=99, version="9.8.7")
    with pytest.raises(
        CheckpointError, match=r"format 1, got 99 written by gancolor 9\.8\.7; use that version"
    ):
        checkpoint.load(tmp_path / "last.pt")


def test_unknown_settings_are_named_with_the_version(tmp_path: Path) -> None:
    rewrite(
        tmp_path / "last.pt", version="9.8.7", config={**CONFIG.to_json(), "warp": 9, "zeal": 1}
    )
    with pytest.raises(CheckpointError, match=r"gancolor 9\.8\.7.*unknown warp, zeal"):
        checkpoint.load(tmp_path / "last.pt")


def test_settings_out_of_bounds_are_an_error(tmp_path: Path) -> None:
    rewrite(tmp_path / "last.pt", config={**CONFIG.to_json(), "batch_size": 0})
    with pytest.raises(CheckpointError, match="--batch-size must be at least 1, got 0"):
        checkpoint.load(tmp_path / "last.pt")


def test_missing_settings_are_named(tmp_path: Path) -> None:
    settings = CONFIG.to_json()
    del settings["zoom"]
    rewrite(tmp_path / "last.pt", config=settings)
    with pytest.raises(CheckpointError, match="must be of this version, got none for zoom"):
        checkpoint.load(tmp_path / "last.pt")


def test_a_checkpoint_from_before_the_bins_says_in_one_line_which_version_reads_it(
    tmp_path: Path,
) -> None:
    settings = CONFIG.to_json()
    for name in ("head", "hints", "lr_schedule", "warmup"):
        del settings[name]
    rewrite(
        tmp_path / "last.pt",
        version="0.9.1",
        config={**settings, "warmup_steps": 500, "ramp_steps": 500},
    )
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "last.pt")
    message = str(caught.value)
    assert (
        "last.pt, written by gancolor 0.9.1: " in message
        and "use the version that wrote them" in message
    )
    assert "ramp_steps, warmup_steps" in message and "\n" not in message
    # nothing that is unknown, much that is missing
    rewrite(tmp_path / "last.pt", version="0.9.1", config=settings)
    with pytest.raises(
        CheckpointError, match=r"0\.9\.1: .* got none for head, hints, lr_schedule, warmup; use the"
    ):
        checkpoint.load(tmp_path / "last.pt")


def test_a_damaged_file_is_put_aside_and_never_replaces_the_good_one(tmp_path: Path) -> None:
    save_two(tmp_path)
    good = (tmp_path / "last-1.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(b"torn")
    checkpoint.load_last(tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == b"torn"  # reading alone changes nothing
    content = checkpoint.load_last(tmp_path, mend=True)
    assert (tmp_path / "last.pt.damaged").read_bytes() == b"torn"
    checkpoint.save(
        tmp_path / "last.pt", {"step": 9}, content["config"], keep=tmp_path / "last-1.pt"
    )
    assert (tmp_path / "last-1.pt").read_bytes() == good and checkpoint.load(tmp_path / "last.pt")[
        "step"
    ] == 9


@pytest.mark.parametrize("failing", ["save", "fsync"])
def test_full_disk_leaves_the_checkpoints_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save_two(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def fill(target: Any, file: Any = None) -> None:
        if file is not None:
            file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((torch, "save", fill) if failing == "save" else (os, "fsync", fill)))
    with pytest.raises(
        CheckpointError, match="No space left on device.*the checkpoint before it is intact"
    ):
        checkpoint.save(tmp_path / "last.pt", content(3), CONFIG, keep=tmp_path / "last-1.pt")
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_read_only_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt could not be written"):
        checkpoint.save(tmp_path / "not there" / "last.pt", content(1), CONFIG)


# What follows needs a process of its own. One process with torch in it forks a child for each case.
_SERVER = """
import json, os, resource, signal, sys
from pathlib import Path
import torch
from gancolor.storage import checkpoint
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError

def write(run, step):
    content = {"step": step, "weights": torch.full((30_000,), float(step))}
    checkpoint.save(run / "last.pt", content, TrainConfig(), keep=run / "last-1.pt")

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def arm(point):
    real_save, real_sync, real_replace, calls = torch.save, os.fsync, os.replace, []
    def half(whole, file):
        file.write(b"P" * 5000); file.flush(); die()
    def late(whole, file):
        real_save(whole, file); die()
    def replace(a, b):
        calls.append(b)
        if point == f"before rename {len(calls)}":
            die()
        real_replace(a, b)
        if point == f"after rename {len(calls)}":
            die()
    os.replace = replace
    if point == "half written":
        torch.save = half
    if point == "not synced":
        torch.save = late
    if point == "syncing":
        os.fsync = die

def limited(run):
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        write(run, 3)
    except CheckpointError as error:
        (run.parent / "message").write_text(str(error))
        os._exit(0)
    os._exit(9)

for line in sys.stdin:
    run, point = json.loads(line)
    run = Path(run)
    write(run, 1); write(run, 2)
    child = os.fork()
    if child == 0:
        if point == "file limit":
            limited(run)
        arm(point)
        write(run, 3)
        os._exit(9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

_POINTS = {
    "half written": 2,
    "not synced": 2,
    "syncing": 2,
    "before rename 1": 2,
    "after rename 1": 2,  # last.pt is gone for a moment; last-1.pt is step 2
    "before rename 2": 2,
    "after rename 2": 3,
}


def test_killed_at_any_point_of_saving_or_out_of_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = [*_POINTS, "file limit"]
    runs = {point: tmp_path / point / "run" for point in points}
    for run in runs.values():
        run.mkdir(parents=True)
    asked = "".join(json.dumps([str(run), point]) + "\n" for point, run in runs.items())
    done = forkserver.run(["-c", _SERVER], input=asked)
    assert done.returncode == 0, done.stderr
    assert dict(zip(points, map(int, done.stdout.split()), strict=True)) == {
        **dict.fromkeys(_POINTS, -9),
        "file limit": 0,
    }
    for point, step in _POINTS.items():
        read = checkpoint.load_last(runs[point], mend=True)
        assert read["step"] == step and bool((read["weights"] == step).all()), point
        checkpoint.save(runs[point] / "last.pt", content(4), CONFIG, keep=runs[point] / "last-1.pt")
        assert names(runs[point]) == ["last-1.pt", "last.pt"], point  # what was left over is gone
        assert checkpoint.load(runs[point] / "last.pt")["step"] == 4
    full = runs["file limit"]
    message = (full.parent / "message").read_text()
    assert "last.pt could not be written" in message and "File too large" in message
    assert names(full) == ["last-1.pt", "last.pt"]
    assert (
        checkpoint.load(full / "last.pt")["step"] == 2
        and checkpoint.load(full / "last-1.pt")["step"] == 1
    )


def test_find_run_by_path_name_number_and_age(tmp_path: Path) -> None:
    for name in ("0001-gan-food", "0002-poster-food", "0010-gan-food", "0011-empty"):
        (tmp_path / name).mkdir()
    for name in ("0002-poster-food", "0010-gan-food"):
        checkpoint.save(tmp_path / name / "last.pt", content(1), CONFIG)
    assert checkpoint.find_run(None, tmp_path).name == "0010-gan-food"
    assert checkpoint.find_run("2", tmp_path).name == "0002-poster-food"
    assert checkpoint.find_run("gan-food", tmp_path).name == "0010-gan-food"
    assert checkpoint.find_run("0001-gan-food", tmp_path).name == "0001-gan-food"
    assert (
        checkpoint.find_run(str(tmp_path / "0011-empty"), tmp_path / "elsewhere").name
        == "0011-empty"
    )
    with pytest.raises(CheckpointError, match="got '77'.*0011-empty"):
        checkpoint.find_run("77", tmp_path)
    with pytest.raises(CheckpointError, match="must hold a trained run"):
        checkpoint.find_run(None, tmp_path / "elsewhere")


def test_runs_root_is_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.runs_root() == Path("runs")
    monkeypatch.setenv("GANCOLOR_RUNS", "elsewhere")
    assert checkpoint.runs_root() == Path("elsewhere")
    assert checkpoint.runs_root("here") == Path("here")
