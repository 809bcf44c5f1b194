"""The machines that the processes of a training run on: their names, the torchrun job that started
them, and whether they have the same versions.

Clocks of different machines are never compared.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.distributed_c10d import Store

from gancolor import __version__
from gancolor.errors import ConfigError, shown


def name() -> str:
    """This machine's name, as its operator knows it."""
    return platform.node() or "a machine without a name"


@dataclass(frozen=True)
class TorchrunJob:
    """The torchrun job that started this process. `id` is "" where none did, or where several
    machines work under a job without a name: that one could not be told from another.
    """

    id: str = ""
    machines: int = 1
    started: int = 0  # how often torchrun has started its processes again so far
    restarts: int = 0  # how often it may still do so
    shares_store: bool = False  # whether its own processes keep the store of the training's

    @classmethod
    def current(cls) -> TorchrunJob:
        """As torchrun's environment describes it."""
        environment = os.environ
        machines = int(environment.get("GROUP_WORLD_SIZE", "1"))
        most = int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0"))
        started = int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
        given = environment.get("TORCHELASTIC_RUN_ID", "none")
        if given == "none":  # torchrun's word for no --rdzv-id
            given = _agent(environment) if machines == 1 else ""
        shares = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(given, machines, started, most - started, shares)


def _agent(environment: Mapping[str, str]) -> str:
    """A name of the one torchrun that started this process, "" where there is none: the folder for
    its logs, which no other one has.
    """
    # LOGS/ID_RANDOM/attempt_N/RANK/error.json
    parts = Path(environment.get("TORCHELASTIC_ERROR_FILE", "")).parts
    return f"{name()}:{'/'.join(parts[1:-3])}" if len(parts) > 3 else ""


def count(names: Sequence[str]) -> dict[str, int]:
    """The processes on each machine, of every process's machine."""
    return dict(sorted(Counter(names).items()))


def listed(machines: Mapping[str, int]) -> str:
    """As "3 processes (2 on node-a, 1 on node-b)"."""
    total = sum(machines.values())
    where = ", ".join(f"{number} on {shown(each, 80)}" for each, number in machines.items())
    return f"{total} process{'es' * (total != 1)} ({where})"


def check_versions(store: Store, rank: int, world: int) -> None:
    """ConfigError, on every process, unless all have the same gancolor and torch.

    They tell each other through the store by which they meet, because networks of different
    versions may not even speak to each other.
    """
    own = {"machine": name(), "has": f"gancolor {__version__} with torch {torch.__version__}"}
    store.set(f"machines/{rank}", json.dumps(own))
    told = [json.loads(store.get(f"machines/{each}")) for each in range(world)]
    store.set(f"machines/{rank}/read", "")
    if rank == 0:  # who may keep the store for the others
        store.wait([f"machines/{each}/read" for each in range(world)])
    by_version: dict[str, list[str]] = {}
    for each in told:
        by_version.setdefault(each["has"], []).append(each["machine"])
    if len(by_version) > 1:
        found = "; ".join(
            f"{has} on {', '.join(count(names))}" for has, names in sorted(by_version.items())
        )
        raise ConfigError(
            f"all machines must have the same versions, got {shown(found)}; install one on all"
        )
