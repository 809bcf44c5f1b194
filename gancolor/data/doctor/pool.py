"""Spread work over processes that may die of what they read, and stop between two pieces of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Generic, TypeVar

import cv2

from gancolor.data.interrupts import interrupts_held, stop_signals
from gancolor.errors import DataError, GancolorError

Job = TypeVar("Job")
Result = TypeVar("Result")

_DEATHS = 10  # in a row, after which it is not the pictures' fault
_PATIENCE = 5.0  # seconds for processes to finish the picture that they are at
_LOOK = 0.5  # seconds between two looks at whether a signal came


class Stopped(GancolorError):
    """A signal asked for the end: everything found so far is kept. `exit_code` is 128 and its number."""

    def __init__(self, kind: int) -> None:
        super().__init__("stopped by a signal; what was found so far is kept: go on with the same command")
        self.exit_code = 128 + kind


class Stop:
    """Whether a signal has come."""

    kind = 0

    def check(self) -> None:
        """Raise Stopped if one has."""
        if self.kind:
            raise Stopped(self.kind)

    def note(self, kind: int, frame: FrameType | None) -> None:
        """Remember a signal; the second Ctrl-C interrupts at once."""
        if self.kind and kind == signal.SIGINT:
            raise KeyboardInterrupt
        self.kind = self.kind or kind


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Note the `stop_signals` in here instead of being interrupted; outside the main thread, leave them alone."""
    stop = Stop()
    try:
        before = {kind: signal.signal(kind, stop.note) for kind in stop_signals()}
    except ValueError:
        before = {}
    try:
        yield stop
        stop.check()
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def spread(
    task: Callable[[Job], Result], chunks: Iterator[list[Job]], workers: int | None, stop: Stop
) -> Generator[list[tuple[Job, Result | None]], None, None]:
    """Do `task` for every job and yield each chunk's jobs with their results, in any order.

    `workers`: processes, None for one per core, 0 for none. Each has one chunk, so that little is in memory at once. If
    one dies, its jobs are tried again one by one: the one that kills a process again has the result None. Stopped if
    `stop` says so; DataError if processes die whatever they do. `task` is sent to the processes.
    """
    if workers == 0:
        for chunk in chunks:
            yield [(job, task(job)) for job in chunk]
            stop.check()
        return
    pool = _Pool(task, chunks, stop)
    try:
        yield from pool.run(_cores() if workers is None else workers)
    finally:
        pool.end()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker(Generic[Job]):
    """A process, our end of its pipe, and the jobs that it is at."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    chunk: list[Job] = field(default_factory=list)


class _Pool(Generic[Job, Result]):
    """A few worker processes. One that dies is replaced."""

    def __init__(self, task: Callable[[Job], Result], chunks: Iterator[list[Job]], stop: Stop) -> None:
        self._task, self._chunks, self._stop = task, chunks, stop
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the threads of the libraries
        self._workers: list[_Worker[Job]] = []
        self._again: deque[list[Job]] = deque()
        self._deaths = 0

    def run(self, count: int) -> Iterator[list[tuple[Job, Result | None]]]:
        """See `spread`."""
        first = next(self._chunks, None)
        if first is None:
            return
        self._again.append(first)
        self._workers = [self._start() for _ in range(count)]
        while self._is_busy():
            self._stop.check()
            heard = wait([each.connection for each in self._workers], _LOOK)
            for each in [each for each in self._workers if each.connection in heard]:
                done = self._answer(each)
                if done:
                    yield done

    def end(self) -> None:
        """Let the processes finish the picture that they are at, then end them."""
        for each in self._workers:
            each.connection.close()  # this they notice with the next thing that they send or wait for
        deadline = time.monotonic() + _PATIENCE
        for each in self._workers:
            each.process.join(max(0.0, deadline - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join()

    def _is_busy(self) -> bool:
        return any(each.chunk for each in self._workers) or self._has_more()

    def _has_more(self) -> bool:
        if not self._again and (chunk := next(self._chunks, None)) is not None:
            self._again.append(chunk)
        return bool(self._again)

    def _start(self) -> _Worker[Job]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._task), daemon=True, name="gancolor-doctor")
        with interrupts_held():
            process.start()
        theirs.close()  # so that its end is noticed
        return _Worker(process, ours)

    def _answer(self, each: _Worker[Job]) -> list[tuple[Job, Result | None]]:
        """Hear what a process has to say, and give it the next chunk first: it works while the results are kept."""
        try:
            results = each.connection.recv()
        except (EOFError, OSError):
            return self._bury(each)
        done = list(zip(each.chunk, results, strict=True)) if each.ready else []
        self._deaths = 0 if done else self._deaths
        each.ready, each.chunk = True, self._again.popleft() if self._has_more() else []
        if each.chunk:
            with contextlib.suppress(OSError):  # its death is noticed where it is listened to
                each.connection.send(each.chunk)
        return done

    def _bury(self, dead: _Worker[Job]) -> list[tuple[Job, Result | None]]:
        dead.connection.close()
        dead.process.join(_PATIENCE)
        alone = len(dead.chunk) <= 1
        self._deaths += alone
        if self._deaths >= _DEATHS:
            raise DataError(
                f"worker processes must live, got {self._deaths} that died in a row (the last with exit code "
                f"{dead.process.exitcode}); memory may be full, or the calling script lacks "
                "'if __name__ == \"__main__\":'; use --workers 0"
            )
        self._workers[self._workers.index(dead)] = self._start()
        if alone:
            return [(job, None) for job in dead.chunk]
        self._again.extendleft([job] for job in reversed(dead.chunk))
        return []


def _serve(connection: Connection, task: Callable[[Any], Any]) -> None:
    """What a process does: the chunks that it is sent, until the main process is gone or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process alone answers Ctrl-C
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # and SIGTERM sent to the whole group, as `timeout` does
    cv2.setNumThreads(0)
    with contextlib.suppress(EOFError, OSError):
        connection.send(None)
        while True:
            connection.send([task(job) for job in connection.recv()])
