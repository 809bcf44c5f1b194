"""Trainings whose machines die: real agents of torchrun on loopback, killed with their workers."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import elastic_worker
import forkserver
import pytest
from campaign_stops import different

from gancolor.storage import checkpoint

RUN = "0001-regression-still-life"
SETTINGS = (
    "train --preset regression --image-size 32 --batch-size 4 --backbone-weights none"
    " --frozen-blocks 3 --width 4 --val-pictures 2 --workers 0 --device cpu --precision fp32"
    " --log-every 1 --steps 8 --checkpoint-every 2 --validate-every 3"
).split()
QUICK = "last_call_timeout=6,keep_alive_interval=1,keep_alive_max_attempt=4,is_host=0"

# torchrun. For its own log it looks up where it is called from at every turn, which takes a second
# where as many modules are loaded as in a child of the fork server.
_TORCHRUN = """
from torch.distributed import run
from torch.distributed.elastic.rendezvous import dynamic_rendezvous

dynamic_rendezvous.get_method_name = lambda *_: "here"
run.main()
"""


def worker(root: Path) -> list[str]:
    """The rest of torchrun's command: workers that train into `root`."""
    quick = ["--monitor-interval", "0.1", "--start-method", "fork"]
    return [*quick, "--run-path", elastic_worker.__file__, *SETTINGS, "--runs-root", str(root)]


class Machines:
    """Agents of one torchrun job, each a machine of its own, and the store by which they meet."""

    def __init__(self, folder: Path, nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch.distributed as dist

        # As an operator keeps it, on a machine that does not train.
        self.store = dist.TCPStore(
            "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
        )
        self.folder, self.nodes = folder, nodes
        self.agents: list[subprocess.Popen[str]] = []
        self.deaths = folder / "deaths"
        self.deaths.mkdir(parents=True)
        monkeypatch.setenv(elastic_worker.DEATHS, str(self.deaths))
        monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")

    def start(self) -> None:
        """One more machine."""
        command = [
            *("-c", _TORCHRUN, "--nnodes", self.nodes, "--nproc-per-node", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{self.store.port}"),
            *("--rdzv-id", "job-7", "--rdzv-conf", QUICK, "--local-addr", "127.0.0.1"),
            *("--max-restarts", "5"),
            *worker(self.folder / "runs"),
        ]
        with self.log(len(self.agents)).open("w") as log:
            self.agents.append(forkserver.Popen(command, stdout=log, stderr=log, text=True))

    def log(self, number: int) -> Path:
        """What the agent of that number and its workers say."""
        return self.folder / f"machine-{number}.log"

    def said(self) -> str:
        """What all of them say."""
        return "\n".join(self.log(number).read_text() for number in range(len(self.agents)))

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Until it has happened. AssertionError with what was said if nobody is left."""
        while not happened():
            assert any(agent.poll() is None for agent in self.agents), self.said()
            time.sleep(0.05)

    def close(self) -> None:
        """Kill those that are left."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.terminate()  # it ends its workers
                agent.wait()


@contextmanager
def machines(
    folder: Path, nodes: str, deaths: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    """Two machines whose deaths are planned."""
    with ExitStack() as stack:
        job = Machines(folder, nodes, monkeypatch)
        stack.callback(job.close)
        for death in deaths:
            (job.deaths / death).touch()
        for _ in range(2):
            job.start()
        yield job


def undisturbed(root: Path, world: int) -> Path:
    """The run that nobody kills."""
    done = forkserver.run_ranks(["-m", "gancolor", *SETTINGS, "--runs-root", str(root)], world)
    assert done.returncode == 0, done.stderr
    return root / RUN


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def restarts(run: Path) -> list[tuple[int, str]]:
    return [(line["step"], line["restart"]) for line in log_of(run) if "restart" in line]


def trained(run: Path) -> list[dict[str, Any]]:
    """What the log says of steps and validations, without rates and times."""
    timed = {"images_per_second", "waiting"}
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in log_of(run)
        if "restart" not in line
    ]


@pytest.mark.slow
def test_a_machine_that_dies_and_is_replaced_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = ["step-3-1", "validation-6-0", "save-6-0"]
    with machines(tmp_path / "killed", "2", deaths, monkeypatch) as job:
        for death in deaths:
            job.wait_for(lambda death=death: not (job.deaths / death).exists())  # type: ignore[misc]
            job.start()
        job.wait_for(lambda: sum(agent.poll() == 0 for agent in job.agents) == 2)
        said = job.said()
    assert [path.name for path in (job.folder / "runs").iterdir()] == [RUN]
    run, whole = job.folder / "runs" / RUN, undisturbed(tmp_path / "whole", 2)
    told = restarts(run)
    assert [step for step, _ in told] == [2, 4, 4]  # the last good checkpoint before each death
    for _, words in told:
        assert words.startswith(f"the job job-7 was started again: {run} goes on from its check")
        assert words in said
    assert "last.pt must be a checkpoint, got nothing there" in said  # it died between two names
    assert "going on from last-1.pt" in said
    assert said.count("got one that has ended (noticed on ") == 3 and "\nTraceback" not in said
    assert trained(run) == trained(whole)
    for name in ("last.pt", "best.pt"):
        ends = [checkpoint.load(each / name) for each in (run, whole)]
        for end in ends:
            end.pop("seconds", None)
        assert different(*ends) == []
    assert not list(run.glob(".*"))


@pytest.mark.slow
def test_who_is_left_goes_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with machines(tmp_path / "killed", "1:2", ["step-5-0"], monkeypatch) as job:
        job.wait_for(lambda: any(agent.poll() == 0 for agent in job.agents))
        said = job.said()
    run, whole = job.folder / "runs" / RUN, undisturbed(tmp_path / "whole", 1)
    ((step, words),) = restarts(run)
    assert step == 4 and words in said
    assert "before, it had 2 processes (2 on " in words and "now it has 1 process (1 on " in words
    assert "(it had come to step 5)" in words
    one, two = checkpoint.load(run / "last.pt"), checkpoint.load(whole / "last.pt")
    for part in ("generator", "ema"):
        for key, value in one[part].items():
            distance = (value.float() - two[part][key].float()).abs()
            assert float((distance / value.float().abs().clamp(min=1)).max()) < 1e-4, key


@pytest.mark.slow
def test_a_worker_that_dies_alone_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torchrun's own store, and a job to which nobody gave a name."""
    (tmp_path / "worker-3-0").touch()
    monkeypatch.setenv(elastic_worker.DEATHS, str(tmp_path))
    options = ["--nproc-per-node", "2", "--max-restarts", "1"]
    done = forkserver.run(["-c", _TORCHRUN, *options, *worker(tmp_path / "runs")])
    assert done.returncode == 0, done.stderr
    ((step, words),) = restarts(tmp_path / "runs" / RUN)
    assert step == 2 and words in done.stderr and "(it had come to step 3)" in words
    ends = [
        checkpoint.load(run / "last.pt")["generator"]
        for run in (tmp_path / "runs" / RUN, undisturbed(tmp_path / "whole", 2))
    ]
    assert different(*ends) == []
