"""Several processes that work as one, launched by torchrun: the only place that knows of ranks.

Networks stay plain modules. The gradients of a phase are averaged (`runtime/gradients.py`), so that
every process takes the step that one process with the whole batch would take.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError, TrainingError, reason_of, shown
from gancolor.runtime import machines
from gancolor.runtime.workers import usable_cores

T = TypeVar("T")

_SEEN_WITHIN = (
    10.0  # seconds in which a file must be seen by all: network disks look up again by then
)


@dataclass(frozen=True)
class Process:
    """This process among the `world`; `local` is its number on this machine, which has `here` of
    them.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    here: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def current() -> Process:
    """The process as torchrun's environment describes it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Process()
    local, here = (os.environ.get(f"LOCAL_{name}") for name in ("RANK", "WORLD_SIZE"))
    return Process(int(os.environ["RANK"]), world, int(local or 0), int(here or world))


def default_workers(device: torch.device, cores: int = 1) -> int:
    """How many processes make pictures ready for a network on `device`: one for so many `cores` of
    this process's share, at most 4 beside a network that needs the cores itself, 16 beside a GPU.
    """
    most = 4 if device.type == "cpu" else 16
    return min(most, usable_cores() // current().here // cores)


def join(device: torch.device, config: TrainConfig) -> Process:
    """Join the other processes, for this process's life (gloo on the CPU, nccl on CUDA).

    ConfigError, before anyone waits for anyone, when the batch or the device cannot be shared, and
    when the processes have other versions. TrainingError when they do not find each other.
    """
    process = current()
    if process.world == 1 or dist.is_initialized():
        return process
    if config.batch_size % process.world:
        raise ConfigError(
            f"--batch-size must be a multiple of the {process.world} processes, got"
            f" {config.batch_size}"
        )
    if device.type not in ("cpu", "cuda") or ":" in config.device:
        raise ConfigError(
            f"--device must be auto, cpu or cuda for several processes, got {config.device}"
        )
    timeout = datetime.timedelta(seconds=config.timeout)
    try:
        store, rank, world = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        job = machines.TorchrunJob.current()
        if job.shares_store:  # it outlives a restart, with all that the dead have told
            store = PrefixStore(f"start-{job.started}", store)
        machines.check_versions(store, rank, world)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
    except RuntimeError as error:  # torch's own errors are such
        raise TrainingError(
            f"the {process.world} processes must find each other within --timeout"
            f" {config.timeout:g} s, got '{shown(reason_of(error), 200)}' on {machines.name()};"
            " see whether all of them were started and the network lets them through"
        ) from error
    # Not after each run: a sweep's next run would meet the last one's store.
    atexit.register(dist.destroy_process_group)
    return process


def loss(error: BaseException, config: TrainConfig) -> TrainingError | None:
    """What to say where another process has ended or does not answer; None for any other error."""
    words = str(error)
    if not isinstance(error, RuntimeError) or not active():
        return None
    if not isinstance(error, dist.DistError) and "gloo" not in words:
        return None
    if "imed out" in words or "timeout" in words:  # gloo's word, nccl's
        return TrainingError(
            f"the {current().world} processes of a training must answer within --timeout"
            f" {config.timeout:g} s, got no answer from one; see what holds it up, and give a"
            " longer --timeout if it only needed more time"
        )
    return TrainingError(
        f"the {current().world} processes of a training must all go on, got one that has ended"
        f" (noticed on {machines.name()}); its own lines say why"
    )


def check_shared(folder: Path) -> None:
    """CheckpointError, on every process, unless what the leader writes into `folder` is seen by all.

    The folder is made for that where it is missing, and is gone afterwards.
    """
    if not active():
        return
    leads = dist.get_rank() == 0
    token, problem, made = f".seen-{secrets.token_hex(8)}", "", False
    if leads:
        try:
            made = not folder.is_dir()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / token).touch()
        except OSError as error:
            problem = error.strerror or str(error)
    token, problem = from_leader((token, problem))
    looked = gather((machines.name(), bool(problem) or _appears(folder / token)))
    if leads:
        with contextlib.suppress(OSError):
            (folder / token).unlink(missing_ok=True)
            if made:
                folder.rmdir()
    if problem:
        raise CheckpointError(
            f"{shown(folder)} must be a writable folder, got '{problem}'; choose another with"
            " --runs-root"
        )
    if blind := machines.count([name for name, sees in looked if not sees]):
        raise CheckpointError(
            f"{shown(folder)} must be one folder for all processes, got another or none for"
            f" {machines.listed(blind)}; put it on a disk that all machines share, and name it by"
            " --runs-root"
        )


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes to be seen within `_SEEN_WITHIN`."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while not os.path.exists(path):  # False too where it may not be looked at
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def new_group(config: TrainConfig) -> dist.ProcessGroup:
    """All processes once more, for sums that are not to wait behind others; of `active` ones."""
    group: dist.ProcessGroup = dist.new_group(timeout=datetime.timedelta(seconds=config.timeout))
    return group


def active() -> bool:
    """Whether there is more than this process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean(values: Tensor) -> Tensor:
    """The mean of `values` over the processes, on each of them."""
    if active():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def agree_highest(value: int, device: torch.device) -> int:
    """The highest `value` of all processes: how one process's wish to stop reaches the others."""
    if not active():
        return value
    tensor = torch.tensor(value, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def from_leader(value: T) -> T:
    """The leader's `value` on every process."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """The `value` of every process by its rank, on each of them; it must be one that pickles."""
    if not active():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait() -> None:
    """Until every process is here."""
    if active():
        dist.barrier()
