"""Spread work over processes that may die of what they read, and stop between two pieces of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, TypeVar

import cv2

from gancolor.errors import GancolorError
from gancolor.interrupts import stop_signals
from gancolor.workers import Crew, Lost, work

Job = TypeVar("Job")
Result = TypeVar("Result")

_PATIENCE = 5.0  # seconds for processes to finish the picture that they are at


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
    task: Callable[[Job], Result],
    chunks: Iterator[list[Job]],
    workers: int | None,
    stop: Stop,
    seconds: Callable[[Job], float] | None = None,
) -> Generator[list[tuple[Job, Result | Lost]], None, None]:
    """Do `task` for every job and yield jobs with their results, in any order.

    `workers`: processes, None for one per core, 0 for none. Each has one chunk, so that little is in memory at once.
    `seconds`: how long a process may be at a job, None for as long as it likes. The result of a job that ends its
    process, or takes longer, is Lost. Stopped if `stop` says so; DataError if processes die whatever they do. `task`
    is sent to the processes.
    """
    if workers == 0:
        for chunk in chunks:
            yield [(job, task(job)) for job in chunk]
            stop.check()
        return
    first = next(chunks, None)
    if first is None:
        return
    crew = Crew[Job](_cores() if workers is None else workers, _serve, (task,), seconds)
    try:
        for messages in crew.rounds(itertools.chain([first], chunks)):
            if done := [(message.job, message.content) for message in messages]:
                yield done
            stop.check()
    finally:
        crew.end(_PATIENCE)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, task: Callable[[Any], Any]) -> None:
    """What a process does."""
    cv2.setNumThreads(0)
    work(connection, task)
