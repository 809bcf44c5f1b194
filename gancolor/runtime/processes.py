"""Several processes that work as one, launched by torchrun: the only place that knows of ranks.

Networks stay plain modules. After `backward` the gradients of a phase are averaged by one flattened
all-reduce, so that every process takes the step that one process with the whole batch would take.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gancolor.config import TrainConfig
from gancolor.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among the `world`; `local` is its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def current() -> Process:
    """The process as torchrun's environment describes it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Process()
    return Process(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))


def join(device: torch.device, config: TrainConfig) -> Process:
    """Join the other processes, for this process's life (gloo on the CPU, nccl on CUDA).

    ConfigError, before anyone waits for anyone, when the batch or the device cannot be shared.
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
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    # Not after each run: a sweep's next run would meet the last one's store.
    atexit.register(dist.destroy_process_group)
    return process


def active() -> bool:
    """Whether there is more than this process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; a parameter without one counts as
    zero.
    """
    if not active():
        return
    parameters = list(parameters)
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(
        parameters, flat.split([grad.numel() for grad in grads]), strict=True
    ):
        # In the parameter's own memory format: the fused Adam walks both memories side by side,
        # whatever their strides.
        parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))


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
