"""Jobs spread over the machines of a Ray cluster, by Ray Data: retries, autoscaling, backpressure and
the dashboard are Ray's.

Each actor works at a bench: what a single machine would use, its own processes for foreign files
included. So a file whose decoder crashes costs a process of the actor's, and neither the actor nor
the files that came with it. Ray is imported only here, and only when a cluster is joined.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import math
import os
import pickle
import platform
import secrets
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

from gancolor import __version__
from gancolor.errors import ConfigError, DataError, MissingExtra, reason_of, shown
from gancolor.runtime.workers import Lost

AUTO = "auto"
"""The address of whatever Ray there is: $RAY_ADDRESS, one that runs on this machine, or a new one."""

TRIES = 3
"""So often a chunk of jobs is begun, when actors or their machines end with it."""

MOST_SKEW = 3600.0
"""Seconds by which the clocks of machines may differ: what was left half written is known by its
age.
"""

_WINDOW = 500  # chunks that are handed to Ray at once: what the driver remembers
_MOST_ACTORS = 1024
_CPUS = 4  # of an actor, on machines that have so many
_PATIENCE = 5.0  # seconds for the machine of an address to answer

GivenJob = TypeVar("GivenJob")


class Bench(Protocol):
    """What does the jobs of an actor."""

    def __call__(self, jobs: list[Any]) -> list[Any]:
        """The results of the jobs, in their order; Lost for one that ended its process."""


class Cluster:
    """A Ray cluster that this process joins in a `with`, and leaves at its end.

    address: HOST:PORT, or `AUTO`. ConfigError for an address where no Ray is, or another Ray;
    MissingExtra without the package.
    """

    def __init__(self, address: str = AUTO) -> None:
        check_address(address)
        self._address = address
        self._ray: Any = None

    def __enter__(self) -> Self:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            ray = importlib.import_module("ray")
            importlib.import_module("ray.data")
        except ImportError as error:
            raise MissingExtra(
                f"--ray must find the package ray[data], got {reason_of(error)}; install it: pip"
                " install 'gancolor[cluster]'"
            ) from error
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        try:
            if (address := self._address if self._address != AUTO else _running()) is not None:
                ray.init(address=address, **quiet)
            else:
                # What it shows is for nobody but this machine.
                ray.init(address="local", dashboard_host="127.0.0.1", **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError, AssertionError) as error:
            raise ConfigError(
                f"--ray must be the address of a Ray cluster that answers, got {self._address}:"
                f" {reason_of(error)}"
            ) from error
        self._ray = ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # A chunk whose actors keep dying costs its own jobs; `spread` says so.
        context.max_errored_blocks = -1
        # An actor gets its next chunk when it is free, as one may take hours: what waited at it, no
        # other could take. Others are begun as soon as all are busy.
        context.max_tasks_in_flight_per_actor = 1
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def check(self, seen: Sequence[tuple[str, Path]], folder: Path | None) -> None:
        """Ask every machine for its versions, clock and files, before any work is done.

        seen: files and folders that all must see, each behind what it is to the user. folder: where
        all write, None where that is an address. ConfigError, naming the machine, for one that differs.
        """
        nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        paths = [(what, os.path.abspath(path)) for what, path in seen]
        with contextlib.ExitStack() as stack:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                sign = folder / f".{secrets.token_hex(8)}.part"
                sign.write_bytes(b"")
                stack.callback(sign.unlink)
                paths.append(("the folder of the results", os.path.abspath(sign)))
            answers = self._ask(_look_around(), paths, list(nodes))
        for node, answer in answers.items():
            name = nodes[node]["NodeManagerHostname"]
            place = f"{name} ({nodes[node]['NodeManagerAddress']})"
            _check_answer(place, answer)

    def _ask(
        self, question: Callable[..., Any], paths: list[tuple[str, str]], nodes: list[str]
    ) -> dict[str, Any]:
        """What a function says on every node, by the node's id."""
        remote = self._ray.remote(question)
        before = time.time()
        waiting = {
            node: remote.options(
                num_cpus=0, max_retries=0, scheduling_strategy=self._at(node)
            ).remote(paths)
            for node in nodes
        }
        answers: dict[str, Any] = {}
        for node, one in waiting.items():
            try:
                answers[node] = self._ray.get(one, timeout=120)
            except Exception as error:
                answers[node] = {"error": reason_of(error)}
            answers[node]["asked"] = before, time.time()
        return answers

    def has_gpus(self) -> bool:
        """Whether a machine of the cluster has a GPU that Ray knows of."""
        return bool(self._ray.cluster_resources().get("GPU"))

    def room(self, gpus: int = 0) -> int:
        """For how many actors there is room now, with so many GPUs each."""
        cpus = self._cores()
        return sum(
            int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else math.inf))
            for node in self._machines()
        )

    def spread(
        self, bench: Callable[[int], Bench], chunks: Iterator[list[GivenJob]], *, gpus: int = 0
    ) -> Generator[list[tuple[GivenJob, Any]], None, None]:
        """Do all jobs at benches of as many actors as there is room for; yield them with their
        results, in any order. Behind an empty chunk the next ones are not asked for before all
        results were yielded.

        bench: makes what an actor works at, on its machine, with so many cores. gpus: that each
        actor needs. A job whose actors kept dying comes with Lost. DataError if no bench can be
        made.
        """
        # Here, where it lives as long as the work.
        tries = (
            self._ray.remote(_Tries).options(num_cpus=0, scheduling_strategy=self._at()).remote()
        )
        about = pickle.dumps(bench), os.getcwd(), tries
        numbers = itertools.count()
        for chunks_at_once in _windows(chunks):
            window = {next(numbers): chunk for chunk in chunks_at_once}
            rows = [
                {"number": number, "jobs": pickle.dumps(chunk)} for number, chunk in window.items()
            ]
            for row in self._rows(rows, about, gpus):
                jobs = window.pop(row["number"])
                results = pickle.loads(row["results"])
                if isinstance(results, str):
                    raise DataError(results)
                yield list(zip(jobs, results, strict=True))
            for jobs in window.values():
                yield [(job, Lost("Ray gave no result of it")) for job in jobs]

    def _machines(self) -> list[dict[str, float]]:
        """What each machine has, by Ray's names."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _cores(self) -> int:
        """How many cores an actor takes: every machine that has any is to have room for one."""
        cores = (int(node.get("CPU", 0)) for node in self._machines())
        return min([_CPUS, *(each for each in cores if each)])

    def _at(self, node: str | None = None) -> Any:
        """Where a task or an actor must be: at a node, by default this one."""
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        here = self._ray.get_runtime_context().get_node_id()
        return strategies.NodeAffinitySchedulingStrategy(node or here, soft=False)

    def _rows(
        self, rows: list[dict[str, Any]], about: tuple[bytes, str, Any], gpus: int
    ) -> Iterator[dict[str, Any]]:
        """The rows of results that actors make of rows of jobs."""
        data, cpus = self._ray.data, self._cores()
        # One row a block, so that an actor that dies costs one chunk another try.
        made = data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(*about, cpus),
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(len(rows), _MOST_ACTORS)),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        try:
            # None is kept back to come together with another: each is a report that somebody awaits.
            whole = {"batch_size": None, "prefetch_batches": 0, "batch_format": "pyarrow"}
            for batch in made.iter_batches(**whole):
                yield from batch.to_pylist()
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"the Ray cluster must go on with the work, got {reason_of(error)}; go on with the"
                " same command (gancolor sample: and --skip-existing)"
            ) from error


def _windows(chunks: Iterator[list[GivenJob]]) -> Iterator[list[list[GivenJob]]]:
    """The chunks that are handed to Ray at once; an empty one ends them."""
    window: list[list[GivenJob]] = []
    for chunk in chunks:
        window += [chunk] if chunk else []
        if window and (not chunk or len(window) == _WINDOW):
            yield window
            window = []
    if window:
        yield window


class _Tries:
    """Counts how often each chunk is begun; an actor of its own."""

    def __init__(self) -> None:
        self._begun = Counter[int]()

    def begin(self, number: int) -> int:
        """Count one more try of a chunk; returns which one it is."""
        self._begun[number] += 1
        return self._begun[number]


class _Actor:
    """Works at a bench, where Ray puts it."""

    def __init__(self, bench: bytes, folder: str, tries: Any, cpus: int) -> None:
        with contextlib.suppress(OSError):  # of absolute paths all is known
            os.chdir(folder)
        # Processes that are begun here would run Ray's own program first.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._tries = tries
        self._trouble: str | None = None
        try:
            self._bench: Bench = pickle.loads(bench)(cpus)
        except Exception as error:  # raised here, Ray would try for ever
            self._trouble = f"{socket.gethostname()}: {reason_of(error, 400)}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        jobs = pickle.loads(row["jobs"])
        results: Any = self._trouble
        # Ray gives a chunk to another actor as often as one dies of it.
        tries = importlib.import_module("ray").get(self._tries.begin.remote(row["number"]))
        if self._trouble is None and tries > TRIES:
            results = [Lost(f"the process of its actor died {TRIES} times")] * len(jobs)
        elif self._trouble is None:
            try:
                results = self._bench(jobs)
            except DataError as error:  # as a single machine gives up
                results = f"{socket.gethostname()}: {error}"
        return {"number": row["number"], "results": pickle.dumps(results)}


def check_address(address: str) -> None:
    """Raise ConfigError for what cannot be a cluster's address, or where nobody listens."""
    address = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    host, colon, port = address.rpartition(":")
    if address in (AUTO, "local"):
        return
    if os.path.exists(address) or not (host and colon and port.isdecimal()):
        raise ConfigError(
            f"--ray must be HOST:PORT or left without an address, got {shown(address)}; write"
            " --ray=auto before an INPUT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray must be the address of a Ray cluster that answers, got {shown(address)}:"
            f" {reason_of(error)}"
        ) from None


def _running() -> str | None:
    """The address of the Ray that $RAY_ADDRESS names, or that runs on this machine; None for none.

    Ray keeps the last one's address in a file, also when that was killed: asked to join it, Ray
    would wait for minutes.
    """
    if named := os.environ.get("RAY_ADDRESS"):
        return named
    folder = os.environ.get("RAY_TMPDIR") or (
        "/tmp" if os.name == "posix" else tempfile.gettempdir()
    )
    try:
        last = Path(folder, "ray", "ray_current_cluster").read_text("utf-8").strip()
        check_address(last)
    except (OSError, ValueError, ConfigError):
        return None
    return last


def _look_around() -> Callable[[list[tuple[str, str]]], dict[str, Any]]:
    """A function that travels to another machine whole, as gancolor may not be there."""

    def look(paths: list[tuple[str, str]]) -> dict[str, Any]:
        import os
        import platform
        import time

        found: dict[str, Any] = {"clock": time.time(), "Python": platform.python_version()}
        try:
            import ray.data  # noqa: F401
            import torch

            import gancolor
        except ImportError as error:
            return found | {"missing": str(error)}
        versions = {"gancolor": gancolor.__version__, "torch": torch.__version__}
        hidden = [[what, path] for what, path in paths if not os.path.lexists(path)]
        return found | versions | {"hidden": hidden}

    return look


def _check_answer(place: str, answer: dict[str, Any]) -> None:
    """Raise ConfigError for the first thing that is not as it must be on a machine."""
    if words := answer.get("error"):
        raise ConfigError(f"every node must answer, got nothing from {place}: {words}")
    if words := answer.get("missing"):
        raise ConfigError(
            f"every node must have gancolor and Ray, got {shown(words)} on {place}; install there:"
            " pip install 'gancolor[cluster]'"
        )
    here = {
        "gancolor": __version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    for what, version in here.items():
        if answer[what] != version:
            raise ConfigError(
                f"every node must have the same {what}, got {answer[what]} on {place} and {version}"
                " here; install one of them everywhere"
            )
    for what, path in answer["hidden"]:
        path = os.path.dirname(path) if path.endswith(".part") else path
        raise ConfigError(
            f"{what} must be seen by every node, got {shown(path)}, which is not there on"
            f" {place}; put it on a disk that all share"
        )
    begun, ended = answer["asked"]
    skew = max(begun - answer["clock"], answer["clock"] - ended)
    if skew > MOST_SKEW:
        raise ConfigError(
            f"the clocks of all nodes must agree to an hour, got {skew:,.0f} s of difference on"
            f" {place}; set its clock"
        )
