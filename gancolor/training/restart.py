"""A training that torchrun started again: which run it goes on with, and what is said of it.

A run remembers the id of the torchrun job that began it (`--rdzv-id`). Whoever starts under that id
again, with the same settings, goes on with the run: torchrun after the death of a machine, a
scheduler that puts the whole job back into its queue, or its operator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, shown
from gancolor.runtime import machines, processes
from gancolor.runtime.machines import TorchrunJob
from gancolor.storage import checkpoint
from gancolor.training import rundir

LEASE = 120.0
"""Seconds in which the lock of a machine that died is given back (NFS takes up to 90)."""

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Begun:
    """A run that this process's job has begun before. `config` has its settings, with the changeable
    ones as they are asked for now. `before`: the number of processes on each machine.
    """

    run: Path
    config: TrainConfig
    before: Mapping[str, int]


def find(root: Path, config: TrainConfig) -> Begun | None:
    """The run under `root` that this process's job has begun with these settings; the same on every
    process.
    """
    job, process = TorchrunJob.current(), processes.current()
    name = None
    if process.leads and job.id and (run := rundir.find_of_job(root, job.id, config)):
        name = run.name
    if process.leads and job.machines > 1 and job.restarts:
        _warn(job)
    name = processes.from_leader(name)
    if name is None:
        return None
    run = root / name
    merged = rundir.merge_settings(rundir.read_config(run), config.to_json())
    return Begun(run, merged, rundir.read_job(run).get("machines", {}))


def _warn(job: TorchrunJob) -> None:
    """Say what will keep torchrun from starting the training again after the death of a machine."""
    if not job.id:
        _log.warning(
            "torchrun was given no --rdzv-id: a training that it starts again begins another run"
        )
    if job.shares_store:
        _log.warning(
            "torchrun was started without TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment:"
            " a machine that joins later may look for the first one's store in vain, and the"
            " training then ends"
        )


def load(run: Path, *, may_lack: bool) -> dict[str, Any] | None:
    """The run's checkpoint to go on from, the same on every process. The leader mends what is
    damaged. None where there is none and it `may_lack` one; else CheckpointError.
    """
    leads = processes.current().leads
    lacks = not any((run / name).exists() for name in ("last.pt", "last-1.pt"))
    if processes.from_leader(may_lack and lacks):
        return None
    saved = checkpoint.load_last(run, mend=True) if leads else None
    processes.wait()  # the others read what the leader has mended
    saved = saved or checkpoint.load_last(run)
    steps = processes.gather((machines.name(), saved["step"]))
    for name, step in steps:
        if step != steps[0][1]:
            raise CheckpointError(
                f"the checkpoint of {shown(run)} must be the same on all machines, got step"
                f" {steps[0][1]} on {steps[0][0]} and {step} on {name}; wait until the disk that"
                " they share shows all the same, and start again"
            )
    return saved


def job_now() -> dict[str, Any] | None:
    """This process's torchrun job for `rundir.write_config`; None where it has no id. To be called
    on every process.
    """
    job = TorchrunJob.current()
    now = machines.count(processes.gather(machines.name()))
    return {"id": job.id, "machines": now} if job.id else None


def words(begun: Begun, step: int, run: Path) -> str:
    """What happened, for the log of `run`: who trained it before and who does now, and from where it
    goes on.
    """
    log = rundir.read_log(run / "log.jsonl")
    reached = max((line["step"] for line in log if type(line.get("step")) is int), default=0)
    start = f"from its checkpoint of step {step}" if step else "from its beginning"
    if reached > step:
        start += f" (it had come to step {reached})"
    places = (begun.before, rundir.read_job(run).get("machines", {}))
    before, now = (machines.listed(each) if each else "unknown processes" for each in places)
    return (
        f"the job {shown(TorchrunJob.current().id, 80)} was started again: {run} goes on {start}; before,"
        f" it had {before}, now it has {now}"
    )
