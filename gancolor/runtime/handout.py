"""Jobs shared among torchrun's processes: whoever is free takes the next one, and each is one's own.

All processes find the same jobs for themselves and count each in the store that torchrun brings;
the first to count a job has it. So nobody waits for a slow process, and nobody leads. Each also
keeps in the store what it holds just now, and counts while it lives: what a process held whose count
stands still is taken by others.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from gancolor.errors import DataError, reason_of
from gancolor.runtime import processes
from gancolor.runtime.processes import Process

Value = TypeVar("Value")

SILENCE = 60.0
"""Seconds without a sign of life after which a process is taken for gone."""

MOST_DEATHS = 2
"""So many processes may end with a job in hand; then it is not tried again."""

_BEAT = 2.0  # seconds between two signs of life
_LOOK = 0.2  # seconds between two looks at what the others do
_BLOCK = 1000  # names of a list in one message

_batches = itertools.count()  # all processes begin them in the same order
_lists = itertools.count()


class Left(NamedTuple):
    """A job whose process is gone: its name, what it is, and how many processes it has outlived."""

    name: str
    job: Any
    deaths: int


@dataclass
class _State:
    """What a process tells the others: what it holds (job and deaths), whether it waits for them,
    and what its caller wants known.
    """

    held: dict[str, tuple[Any, int]] = field(default_factory=dict)
    idle: bool = False
    told: Any = None


class Handout:
    """The jobs of one batch; a context manager, and with one process nothing but a fiction.

    `store`: reaches all processes, None for one. Where it does not answer any more, each method
    raises DataError. `life`: where the processes count while they live, if not there.
    """

    def __init__(self, store: Store | None, process: Process, life: Store | None = None) -> None:
        self._store, self.process = store, process
        self._life = store if life is None else life
        self._state = _State()
        self._beats: dict[int, tuple[int, float]] = {}  # the last one seen, and when it came
        self._looked_at: set[tuple[int, str]] = set()

    @property
    def shared(self) -> bool:
        """Whether there is more than this process."""
        return self._store is not None

    def claim(self, name: str) -> bool:
        """Whether this process is the first to ask for this name."""
        return self._store is None or self._ask(lambda store: store.add(f"claim/{name}", 1)) == 1

    def take(self, name: str, job: object) -> bool:
        """Claim a job by its name; until it is settled others may inherit it."""
        if not self.claim(name):
            return False
        if self._store is not None:
            self._state.held[name] = (job, 0)
            self._publish()
        return True

    def settle(self, name: str, told: object = None) -> None:
        """A job of this process is done, or failed. `told`: what all shall know of this process
        from now on, None for no change.
        """
        self._state.told = self._state.told if told is None else told
        if self._store is not None:
            self._state.held.pop(name, None)
            self._publish()

    def put(self, name: str, value: object) -> None:
        """Leave a value for all under a name."""
        self._write(f"value/{name}", value)

    def find(self, name: str) -> Any:
        """The value under a name; None if there is none yet."""
        return self._read(f"value/{name}")

    def is_gone(self, rank: int) -> bool:
        """Whether a process has said nothing for `SILENCE` seconds, or has left with an error."""
        if self.find(f"left/{rank}"):
            return True
        beat = self._ask(lambda _: (self._life or _).add(f"beat/{rank}", 0)) or 0
        before, since = self._beats.get(rank, (-1, 0.0))
        if beat != before:
            before, since = self._beats[rank] = beat, time.monotonic()
        return time.monotonic() - since > SILENCE

    def leftovers(
        self, waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ) -> Iterator[list[Left]]:
        """Wait until no process has a job any more; on the way yield, for this one to do, jobs of
        processes that are gone. `waiting` is entered while the others are waited for.
        """
        if self._store is None:
            return
        while True:
            gone = [rank for rank in self._others() if self.is_gone(rank)]
            if found := self._inherit(gone):
                yield found
                continue
            self._state.idle = True
            self._publish()
            # Asked for after the claims: who won one of them has said before that it is busy.
            states = [self._read(f"state/{rank}") for rank in self._others() if rank not in gone]
            if all(state is not None and state.idle and not state.held for state in states):
                return
            with waiting():
                time.sleep(_LOOK)

    def inherited(self, names: Collection[str]) -> list[Left]:
        """Jobs of these names, for this process to do, of processes that are gone."""
        return self._inherit([rank for rank in self._others() if self.is_gone(rank)], names)

    def told(self) -> list[Any]:
        """What processes told with their last settled job, this one first."""
        states = [self._state, *(self._read(f"state/{rank}") for rank in self._others())]
        return [each.told for each in states if each is not None and each.told is not None]

    def wait_for(self, name: str, rank: int) -> Any:
        """The value under a name, once the process `rank` has put it. DataError if that is gone."""
        while (value := self.find(name)) is None:
            if self.is_gone(rank):
                raise DataError(
                    f"process {rank} must live, got no sign of it; go on with the same command"
                )
            time.sleep(_LOOK)
        return value

    def __enter__(self) -> Self:
        if self._store is not None:
            self._publish()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is None:
            return
        with contextlib.suppress(DataError):  # the store may have gone first
            self.put(f"left/{self.process.rank}", True)
            # The store is the leader's where torchrun brings none: it must be the last.
            while self.process.leads and kind is None and not _has_agent():
                if all(self.is_gone(rank) for rank in self._others()):
                    break
                time.sleep(_LOOK)

    def _others(self) -> Iterator[int]:
        return (rank for rank in range(self.process.world) if rank != self.process.rank)

    def _inherit(self, gone: Iterable[int], names: Collection[str] | None = None) -> list[Left]:
        """The jobs of processes that are gone, as far as nobody was faster."""
        found = []
        for rank in gone:
            state = self._read(f"state/{rank}")
            for name, (job, deaths) in (state.held if state is not None else {}).items():
                if (rank, name) in self._looked_at or (names is not None and name not in names):
                    continue
                self._looked_at.add((rank, name))
                self._state.idle = False
                self._publish()
                if self.claim(f"{rank}/{name}"):
                    self._state.held[name] = (job, deaths + 1)
                    self._publish()
                    found.append(Left(name, job, deaths + 1))
        return found

    def _publish(self) -> None:
        self._write(f"state/{self.process.rank}", self._state)

    def _write(self, key: str, value: object) -> None:
        data: Any = pickle.dumps(value)  # the store takes bytes, though it says text
        self._ask(lambda store: store.set(key, data))

    def _read(self, key: str) -> Any:
        data = self._ask(lambda store: store.get(key) if store.check([key]) else None)
        return None if data is None else pickle.loads(data)

    def _ask(self, question: Callable[[Store], Value]) -> Value | None:
        if self._store is None:
            return None
        try:
            return question(self._store)
        except RuntimeError as error:  # torch's own are all of this kind
            raise DataError(
                f"the store of torchrun must answer, got {reason_of(error)}; its process may be gone:"
                " go on with the same command and --skip-existing"
            ) from error


def begin() -> Handout:
    """The jobs of a new batch; every process must call this, in the same order."""
    return _under(f"batch/{next(_batches)}")


def leaders_list(names: Iterable[Value]) -> Iterator[Value]:
    """What only the leader can list, for all processes; nothing of another's `names` is asked for."""
    common, process = _under(f"list/{next(_lists)}"), processes.current()
    if not common.shared:
        yield from names
        return
    if process.leads:
        known = list(names)
        for number, start in enumerate(range(0, len(known) + 1, _BLOCK)):
            common.put(str(number), known[start : start + _BLOCK])
        if len(known) % _BLOCK == 0 and known:
            common.put(str(len(known) // _BLOCK), [])
        yield from known
        return
    for number in itertools.count():
        block: list[Value] = common.wait_for(str(number), 0)
        yield from block
        if len(block) < _BLOCK:
            return


def _under(name: str) -> Handout:
    process = processes.current()
    if process.world == 1:
        return Handout(None, process)
    return Handout(PrefixStore(name, _store()), process, life=_store())


def _has_agent() -> bool:
    """Whether torchrun's agent keeps the store, and not the first process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


_stores: dict[int, Store] = {}


def _store() -> Store:
    """The store of this job, without what an earlier life of its processes left there."""
    if os.getpid() not in _stores:
        process = processes.current()
        try:
            store = TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=process.leads and not _has_agent(),
                wait_for_workers=False,
                multi_tenant=True,
            )
            # torchrun may start all processes anew, as fewer or more, and keep the store.
            again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            life = f"gancolor/{again}/{process.world}"
            number = store.add(f"{life}/born/{process.rank}", 1)
        except (KeyError, ValueError, RuntimeError) as error:
            raise DataError(
                "MASTER_ADDR and MASTER_PORT must name the store of torchrun's processes, got"
                f" {reason_of(error)}; start them with torchrun"
            ) from error
        own = _stores[os.getpid()] = PrefixStore(f"{life}/{number}", store)
        threading.Thread(
            target=_beat, args=(own, process.rank), daemon=True, name="sign-of-life"
        ).start()
    return _stores[os.getpid()]


def _beat(store: Store, rank: int) -> None:
    """Count in the store as long as this process lives."""
    with contextlib.suppress(RuntimeError):  # the store is gone, and the batch with it
        while True:
            store.add(f"beat/{rank}", 1)
            time.sleep(_BEAT)
