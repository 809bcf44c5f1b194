"""Several processes: the parts in two forked processes, and whole runs under torchrun."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import forkserver
import numpy as np
import pytest
import torch
from support import TORCHRUN

from gancolor.config import TrainConfig
from gancolor.images import arrays
from gancolor.runtime import gradients, processes
from gancolor.storage import checkpoint

COMMON = (
    "--image-size 32 --batch-size 4 --warmup 0.3 --discriminator-warmup 0.15 --ramp 0.3 "
    "--backbone-weights none --frozen-blocks 3 --width 4 --val-pictures 2 "
    "--workers 0 --device cpu --precision fp32 --log-every 1"
).split()
POSTER = (
    "--discriminator units --perceptual 0 --discriminator-units 16,8 --dropout 0 --head ab"
    " --hints 0".split()
)
ALONE = ["-m", "gancolor", "train", *COMMON]


def pair(arguments: list[str]) -> None:
    """Run a command line in two processes that end well."""
    done = forkserver.run_ranks(arguments)
    assert done.returncode == 0, done.stderr


def last(root: Path) -> dict[str, Any]:
    return checkpoint.load(root / "0001-gan-still-life" / "last.pt")


def furthest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The largest difference of two networks, relative to values above 1 (BatchNorm's statistics)."""
    assert list(one) == list(two)
    return max(
        float(((one[k].float() - two[k].float()).abs() / one[k].float().abs().clamp(min=1)).max())
        for k in one
    )


def compare(tmp_path: Path, *options: str, within: float = 1e-4) -> None:
    """Train in one process and in two with the same global batch; all networks must agree."""
    forkserver.run([*ALONE, "--runs-root", str(tmp_path / "one"), *options], check=True)
    pair([*ALONE, "--runs-root", str(tmp_path / "two"), *options])
    one, two = last(tmp_path / "one"), last(tmp_path / "two")
    assert (one["step"], one["seen"]) == (two["step"], two["seen"])
    differences = {
        part: furthest(one[part], two[part]) for part in ("generator", "ema", "head") if part in one
    }
    assert max(differences.values()) < within, differences
    began = {part: {k: torch.zeros_like(v) for k, v in one[part].items()} for part in differences}
    assert all(furthest(one[part], began[part]) > 0.01 for part in differences)
    runs = [tmp_path / name / "0001-gan-still-life" for name in ("one", "two")]
    logs = [[json.loads(line) for line in (r / "log.jsonl").read_text().splitlines()] for r in runs]
    assert len(logs[0]) == len(logs[1])  # the second process writes nothing
    for first, second in zip(*logs, strict=True):
        assert set(first) == set(second)
        assert (
            any(name.startswith(("generator/", "discriminator/")) for name in first)
            or "val" in first
        )
        for name in (name for name in first if name.startswith(("generator/", "discriminator/"))):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-4), (
                name,
                first["step"],
            )
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["0001-gan-still-life"]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    # warm-up, discriminator's warm-up, ramp, joint; bins, hints and patches
    compare(tmp_path, "--steps", "6")
    config, shares = last(tmp_path / "two")["config"], last(tmp_path / "two")["shares"]
    assert (config.head, config.hints, config.discriminator) == ("bins", 0.6, "patches")
    # measured by each process alone, on the same pictures
    assert torch.equal(shares, last(tmp_path / "one")["shares"])


@pytest.mark.slow
# Adam's first updates are lr times the gradient's sign: weights with a gradient near zero, of which
# VGG16 has some, differ by up to lr a step.
@pytest.mark.parametrize(
    "options",
    [
        POSTER,
        ["--train-backbone", "--lr", "2e-5"],
        ["--preset", "gan", "--clip", "0.5", "--l1-space", "rgb", "--perceptual", "1", "--r1", "1"],
    ],
    ids=["poster", "backbone", "terms"],
)
def test_two_processes_equal_one_with_other_settings(tmp_path: Path, options: list[str]) -> None:
    # Kernels for AVX2 alone round otherwise for half a batch: poster then differs by 1.1e-4.
    compare(tmp_path, "--steps", "5", *options, within=2e-4)


@pytest.mark.slow
def test_two_processes_go_on_where_they_stopped(tmp_path: Path) -> None:
    pair(
        [*ALONE, "--runs-root", str(tmp_path / "whole"), "--steps", "5", "--checkpoint-every", "3"]
    )
    run = tmp_path / "parts" / "0001-gan-still-life"
    shutil.copytree(tmp_path / "whole" / run.name, run)
    (run / "last-1.pt").replace(run / "last.pt")  # as if it had ended there
    assert last(tmp_path / "parts")["step"] == 3
    pair(["-m", "gancolor", "train", "--resume", "1", "--runs-root", str(tmp_path / "parts")])
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    for part in ("generator", "ema", "head"):
        assert furthest(whole[part], parts[part]) == 0, part


@pytest.mark.slow
def test_a_sweep_of_two_processes(tmp_path: Path) -> None:
    rates = ["--lr", "1e-3", "--lr", "1e-4", "--beta1", "0.5", "--beta1", "0.9"]
    pair([*ALONE, "--runs-root", str(tmp_path), "--steps", "2", *rates])
    reports = [
        json.loads((path / "report.json").read_text()) for path in sorted(tmp_path.iterdir())
    ]
    assert [report["step"] for report in reports] == [2, 2, 2, 2]


def test_the_time_limit_stops_both(tmp_path: Path) -> None:
    pair([*ALONE, "--runs-root", str(tmp_path), "--time-limit", "1s"])
    report = json.loads((tmp_path / "0001-gan-still-life" / "report.json").read_text())
    assert report["step"] == last(tmp_path)["step"] > 0


def test_pictures_without_colours_end_both_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "gray").mkdir()
    for number in range(12):
        arrays.write_rgb(
            tmp_path / "gray" / f"{number}.png", np.full((40, 40, 3), 9 * number, np.uint8)
        )
    arguments = [
        "--runs-root",
        str(tmp_path / "runs"),
        "--dataset",
        str(tmp_path / "gray"),
        "--steps",
        "2",
    ]
    done = forkserver.run_ranks([*ALONE, *arguments])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2 and all(
        "the training pictures must have colours" in line for line in errors
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_after_saving(tmp_path: Path, kind: signal.Signals) -> None:
    command = [*TORCHRUN, *ALONE, *POSTER, "--steps", "100000", "--runs-root", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3/"):
            process.send_signal(kind)
            break
    words = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "stopped by a signal; go on with" in words
    assert last(tmp_path)["step"] >= 3
    assert not list(tmp_path.glob("*/*.tmp")) and not list(tmp_path.glob("*/report.json"))


# Two forked processes with torchrun's variables: torch is imported once.
_PAIR = """
import os, sys, traceback
import torch
from gancolor import presets
from gancolor.errors import ConfigError
from gancolor.runtime import gradients, processes
from gancolor.training import loop, train
from gancolor.training.loop import StopRule

CPU = torch.device("cpu")
CONFIG = presets.build("gan", batch_size=4)

def check(rank):
    try:
        train(presets.build("gan", batch_size=3, backbone_weights="none", device="cpu"), runs_root=sys.argv[2])
    except ConfigError as error:
        assert "--batch-size must be a multiple of the 2 processes, got 3" in str(error), error
    else:
        raise AssertionError("an odd batch was accepted")
    assert not processes.active()
    process = processes.join(CPU, presets.build("gan", batch_size=4))
    assert (process.rank, process.world, process.local, process.leads) == (rank, 2, rank, rank == 0)
    assert processes.active()
    values = torch.tensor([1.0, 10.0]) * (rank + 1)
    assert processes.mean(values).tolist() == [1.5, 15.0] and values.tolist() == [rank + 1.0, 10.0 * (rank + 1)]
    assert processes.agree_highest(3 * rank, CPU) == 3
    assert processes.from_leader(f"from {rank}") == "from 0"
    processes.wait()
    # A channels_last kernel, a vector, and one that only this process or neither has a gradient
    # for.
    kernel = torch.nn.Parameter(torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last))
    kernel.grad = (torch.arange(48.0).view(4, 3, 2, 2) * (rank + 1)).to(memory_format=torch.channels_last)
    vector = torch.nn.Parameter(torch.zeros(3))
    vector.grad = torch.tensor([2.0, 4.0, 6.0]) if rank else None
    untouched = torch.nn.Parameter(torch.zeros(2))
    with gradients.averaged([kernel, vector, untouched], CONFIG):
        pass
    assert torch.equal(kernel.grad, torch.arange(48.0).view(4, 3, 2, 2) * 1.5)
    assert kernel.grad.stride() == kernel.stride(), "the fused Adam needs the parameter's memory format"
    assert vector.grad.tolist() == [1.0, 2.0, 3.0] and untouched.grad.tolist() == [0.0, 0.0]
    # Made by backward, in buckets of any size; one parameter has a gradient on one process only.
    for bucket in (1, 40, 1 << 20):
        parameters = [torch.nn.Parameter(torch.full((size,), 1.0)) for size in (3, 5, 7, 2)]
        with gradients.averaged(parameters, CONFIG, bucket):
            used = parameters if rank else parameters[:2] + parameters[3:]
            sum(at * (rank + 1) * p.sum() for at, p in enumerate(used, 1)).backward()
        means = [[1.5, 3.0, 3.0, 5.5][at] for at in range(4)]
        assert [p.grad.tolist() for p in parameters] == [[m] * len(p) for m, p in zip(means, parameters)]
        parameters[0].sum().backward()  # no longer anybody's business
        assert parameters[0].grad.tolist() == [2.5] * 3
    stopper = StopRule(10, None, CPU)
    assert stopper.reason(1) is None
    stopper.signal = 15 * rank  # it came to one process only
    assert stopper.reason(2) == "signal" and stopper.signal == 15
    late = StopRule(10, 0.0 if rank else None, CPU)
    assert late.reason(3) == "time" and late.reason(10) == "steps"
    share = StopRule(None, 100.0, CPU, spent=100.0 * rank).progress(0)  # 0 here and a half there, give or take a moment
    assert 0.24 < share < 0.35 and processes.mean(torch.tensor(share, dtype=torch.float64)).item() == share
    assert processes.gather(f"of {rank}") == ["of 0", "of 1"]
    assert processes.join(CPU, presets.build("gan", batch_size=4)) == process  # once for the process's life

children = []
for rank in range(2):
    child = os.fork()
    if child == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[1])
        try:
            check(rank)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_the_parts_in_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = forkserver.run(["-c", _PAIR, str(port), str(tmp_path / "runs")])
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs").exists()  # nothing is written for settings that cannot be


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    process = processes.join(torch.device("cpu"), TrainConfig())
    assert (process.rank, process.world, process.leads) == (0, 1, True)
    assert not processes.active() and processes.gather("a") == ["a"]
    values = torch.tensor([1.0])
    assert processes.mean(values) is values
    assert processes.agree_highest(5, torch.device("cpu")) == 5
    assert processes.from_leader("x") == "x"
    parameter = torch.nn.Parameter(torch.zeros(2))
    with gradients.averaged([parameter], TrainConfig()):
        pass
    assert parameter.grad is None
    processes.wait()


def test_the_process_is_read_from_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert processes.current() == processes.Process(rank=3, world=4, local=1, here=4)
    assert not processes.current().leads
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert processes.current().here == 2


@pytest.mark.parametrize(
    ("cores", "here", "cpu", "gpu"),
    [(2, 1, 2, 2), (64, 1, 4, 16), (64, 8, 4, 8), (6, 4, 1, 1), (1, 4, 0, 0)],
)
def test_workers_share_the_cores_of_their_own_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, here: int, cpu: int, gpu: int
) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    for name, value in {"WORLD_SIZE": here * 4, "RANK": 0, "LOCAL_WORLD_SIZE": here}.items():
        monkeypatch.setenv(name, str(value))
    found = [processes.default_workers(torch.device(kind)) for kind in ("cpu", "cuda")]
    assert found == [cpu, gpu]
    assert processes.default_workers(torch.device("cpu"), cores=4) == min(4, cores // here // 4)
