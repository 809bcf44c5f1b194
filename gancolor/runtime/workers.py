"""Worker processes, which may hang or die of what they read: that costs one job and no other."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, NamedTuple, TypeVar

from gancolor.errors import DataError
from gancolor.runtime.signals import interrupts_held

Job = TypeVar("Job")

DEADLINE = 60.0
"""Seconds for a file by default, beside those for its size."""

DIED = "the process that read it died"
"""What became of a job that ended its process."""

MOST_DEATHS = 10  # in a row, after which it is not the jobs' fault
_PATIENCE = 5.0  # seconds for a process that was killed, or whose pipe has ended, to be gone
_LOOK = 0.5  # seconds between two looks at the clock
_SECONDS_A_BYTE = 1e-6  # what a slow disk and a slow decoder take


def allowed(deadline: float, size: int) -> float:
    """Seconds that a file of `size` bytes may take: the deadline, and a second for each megabyte."""
    return deadline + size * _SECONDS_A_BYTE


@dataclass(eq=False)
class Worker(Generic[Job]):
    """A process, our end of its pipe, and the jobs that it was given and has not done, the first of
    which it is at.

    `more`: seconds that this job may take beside those that all may. `until`: when it must have
    said something.
    """

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    jobs: deque[Job] = field(default_factory=deque)
    alone: bool = False
    more: float = 0.0
    until: float | None = None


@dataclass(frozen=True)
class Lost:
    """What stands for the result of a job whose process died or took too long: the reason, in one
    line.
    """

    reason: str


class Message(NamedTuple):
    """What a process says of the job that it is at: "done" with a result or Lost, or a question of
    another kind.
    """

    worker: Worker[Any]
    kind: str
    content: Any
    job: Any


class Crew(Generic[Job]):
    """A few worker processes. One that dies, or takes too long, is replaced, and the other jobs go
    on.

    `serve` is what each does, called with its end of a pipe and `arguments`; it calls `work`.
    `seconds`: how long a process may be silent at a job; None for as long as it likes. The time
    that it waits for an answer does not count.
    """

    def __init__(
        self,
        count: int,
        serve: Callable[..., None],
        arguments: tuple[Any, ...],
        seconds: Callable[[Job], float] | None = None,
    ) -> None:
        self._count, self._orders, self._seconds = count, (serve, arguments), seconds
        self._chunks: Iterator[list[Job]] = iter(())
        self._again: deque[list[Job]] = deque()
        self._more = True  # chunks to hand out
        self._lived = False  # whether a process ever came so far as to work
        self._deaths = 0
        self.workers: list[Worker[Job]] = []

    def rounds(
        self,
        chunks: Iterator[list[Job]],
        waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> Iterator[list[Message]]:
        """Give all jobs to the processes, a chunk at a time to each, and yield what they say, until
        all is done. An empty chunk says that there is none just now.

        Free processes have got their next chunk before what they said is yielded; now and then
        nothing was said. Each job is told of once as done, in any order: with Lost if it ended its
        process, also when it was tried again by itself, or took too long. DataError if processes
        die whatever they do. `waiting` is entered while they are waited for. Call `end` afterwards,
        whatever happened.
        """
        self._chunks = chunks
        self.workers = [self._start() for _ in range(self._count)]
        while self._hand_out() or any(each.jobs for each in self.workers):
            with waiting():
                heard = wait([each.connection for each in self.workers], _LOOK)
            said = [each for each in self.workers if each.connection in heard]
            messages = [message for each in said for message in self._hear(each)]
            messages += [message for each in list(self.workers) for message in self._watch(each)]
            self._hand_out()
            yield messages

    def answer(self, worker: Worker[Job], content: Any) -> None:
        """Send a process what it asked for."""
        self._send(worker, content)

    def end(self, patience: float = 0.0) -> None:
        """End all processes: with patience they may finish what they are at, without they are told
        to drop it.
        """
        for each in self.workers:
            if patience and not each.jobs:
                self._send(each, None)
            elif not patience:
                each.process.terminate()
            # this they notice with the next thing that they send or wait for
            each.connection.close()
        deadline = time.monotonic() + (patience or 4 * _PATIENCE)
        for each in self.workers:
            each.process.join(max(0.1, deadline - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join(_PATIENCE)

    def _start(self) -> Worker[Job]:
        each = _spares.pop() if _spares else _started(None)
        self._send(each, self._orders)
        return each

    def _hand_out(self) -> bool:
        """Give every free process a chunk; False when there are no more."""
        for each in self.workers:
            if each.ready and not each.jobs and (chunk := self._next()):
                each.jobs, each.alone = deque(chunk), len(chunk) == 1
                self._send(each, chunk)
        return self._more or bool(self._again)

    def _next(self) -> list[Job] | None:
        if self._again:
            return self._again.popleft()
        chunk = next(self._chunks, None) if self._more else None
        self._more = chunk is not None
        return chunk or None

    def _send(self, each: Worker[Job], content: Any) -> None:
        with contextlib.suppress(OSError):  # its death is noticed where it is listened to
            each.connection.send(content)
        self._wind(each)

    def _wind(self, each: Worker[Job]) -> None:
        """Begin to count the seconds of a process anew."""
        counts = self._seconds is not None and each.jobs
        each.until = time.monotonic() + self._limit(each) if counts else None

    def _limit(self, each: Worker[Job]) -> float:
        return (self._seconds(each.jobs[0]) if self._seconds is not None else 0.0) + each.more

    def _hear(self, each: Worker[Job]) -> list[Message]:
        try:
            kind, content = each.connection.recv()
        except (EOFError, OSError):
            return self._bury(each, None)
        each.until = None
        if kind == "ready":
            each.ready = self._lived = True
        elif kind == "busy":
            self._wind(each)
        elif kind == "done":
            self._deaths, each.more = 0, 0.0
            message = Message(each, kind, content, each.jobs.popleft())
            self._wind(each)
            return [message]
        else:
            return [Message(each, kind, content, each.jobs[0])]
        return []

    def _watch(self, each: Worker[Job]) -> list[Message]:
        """Kill a process whose time is over; what it said meanwhile, while this one was busy, comes
        first.
        """
        if each.until is None or time.monotonic() < each.until or each.connection.poll():
            return []
        limit = self._limit(each)
        each.process.kill()
        return self._bury(each, f"it took longer than {limit:{'.0f' if limit >= 10 else '.2g'}} s")

    def _bury(self, dead: Worker[Job], overdue: str | None) -> list[Message]:
        """Replace a process; a job that ended one is tried again by itself, unless it was by itself
        already.
        """
        dead.connection.close()
        dead.process.join(_PATIENCE)
        jobs = list(dead.jobs)
        lost = jobs[:1] if overdue or dead.alone else []
        if overdue is None and (lost or not jobs):
            self._count_death(dead)
        self._again.extendleft([rest] if (rest := jobs[1:]) else [])
        if jobs and not lost:
            self._again.append(jobs[:1])
        self.workers[self.workers.index(dead)] = self._start()
        return [Message(dead, "done", Lost(overdue or DIED), job) for job in lost]

    def _count_death(self, dead: Worker[Job]) -> None:
        self._deaths += 1
        if self._deaths >= MOST_DEATHS or not self._lived:
            raise DataError(
                f"worker processes must live, got {self._deaths} that died in a row (the last with"
                f" exit code {dead.process.exitcode}); memory may be full, or the calling script"
                " lacks 'if __name__ == \"__main__\":'; use --workers 0"
            )


_spares: list[Worker[Any]] = []


@contextlib.contextmanager
def spare(module: str) -> Iterator[None]:
    """Start a process that loads a module, for the first crew that is made in here: what this process
    loads until then takes no time from it. It is ended if none was made.
    """
    each = _started(module)
    _spares.append(each)
    try:
        yield
    finally:
        if each in _spares:
            _spares.remove(each)
            each.connection.close()
            each.process.terminate()
            each.process.join()


def _started(module: str | None) -> Worker[Any]:
    # A fork would copy threads and the device's state.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_begin, args=(theirs, module), daemon=True, name="gancolor-worker"
    )
    # multiprocessing starts its tracker with the first process, which would lift the block.
    if sys.platform != "win32":
        resource_tracker.ensure_running()
    with interrupts_held():
        process.start()
    theirs.close()  # so that its end is noticed
    return Worker(process, ours)


def _begin(connection: Connection, module: str | None) -> None:
    """What a process does first: it waits to be told what it is to serve."""
    if module is not None:
        importlib.import_module(module)
    try:
        serve, arguments = connection.recv()
    except (EOFError, OSError):  # the main process ended
        return
    serve(connection, *arguments)


def work(connection: Connection, task: Callable[[Any], Any]) -> None:
    """What a process does: the jobs that it is sent, until None comes or the main process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process alone answers Ctrl-C
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # and a signal to the whole group, as `timeout` sends it
    # The main process ended, or ends us.
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        connection.send(("ready", None))
        while (jobs := connection.recv()) is not None:
            for job in jobs:
                connection.send(("done", task(job)))


def usable_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class JobDesk(Generic[Job]):
    """Gives a crew that stays jobs in lists, and takes their results in the same order.

    rounds: what `Crew.rounds` makes, or another that yields jobs with their results, of the chunks
    that it is given.
    """

    def __init__(
        self, rounds: Callable[[Iterator[list[Job]]], Iterator[list[tuple[Job, Any]]]]
    ) -> None:
        self._waiting: deque[Job] = deque()
        self._rounds = rounds(self._chunks())

    def __call__(self, jobs: list[Job]) -> list[Any]:
        """The results of the jobs; Lost for one that ended its process."""
        self._waiting.extend(jobs)
        places = {id(job): place for place, job in enumerate(jobs)}
        results: dict[int, Any] = {}
        while len(results) < len(places):
            for job, result in next(self._rounds):
                results[places[id(job)]] = result
        return [results[place] for place in range(len(jobs))]

    def _chunks(self) -> Iterator[list[Job]]:
        while True:
            yield [self._waiting.popleft()] if self._waiting else []
