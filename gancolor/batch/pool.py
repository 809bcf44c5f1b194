"""Processes that read, colour and write, while this one runs the network for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import torch

from gancolor.batch import worker
from gancolor.batch.report import Record
from gancolor.batch.sources import Item
from gancolor.batch.stopping import Stopper
from gancolor.batch.worker import BatchSettings
from gancolor.coloring import Prediction
from gancolor.data.interrupts import interrupts_held
from gancolor.errors import DataError, GancolorError, shown
from gancolor.views import Sight, View

MOST_PIXELS = 100_000_000
"""Of pictures above `worker.FREE_PIXELS`, so many pixels are in work at once; a larger picture waits to be alone."""

_DEATHS = 5  # in a row, after which it is not the pictures' fault
_PATIENCE = 20.0  # seconds for a process to remove what it was writing


class Network(Protocol):
    """What a batch needs of a Colorizer."""

    @property
    def sight(self) -> Sight:
        """What preparing views takes."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def run(self, view: View, /) -> Prediction:
        """The network's answer."""


@dataclass
class _Worker:
    """A process, our end of its pipe, and what it is at: the pixels it waits for or holds."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    item: Item | None = None
    pixels: int = 0


class Pool:
    """A few worker processes. One that dies takes its file with it and is replaced."""

    def __init__(self, count: int, network: Network, settings: BatchSettings, stopper: Stopper) -> None:
        self._count, self._network, self._settings, self._stopper = count, network, settings, stopper
        self._context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and the device's state
        self._workers: list[_Worker] = []
        self._waiting: deque[_Worker] = deque()  # for room for their pictures
        self._deaths = 0
        self._more = True  # files to hand out

    def run(self, jobs: Iterator[Item], emit: Callable[[Record], None]) -> None:
        """Colour all `jobs`, taken as processes get free; `emit` is called with each Record as it comes."""
        patience = 0.0
        try:
            self._workers = [self._start() for _ in range(self._count)]
            while self._hand_out(jobs) or any(each.item for each in self._workers):
                with self._stopper.open():
                    heard = wait([worker.connection for worker in self._workers])
                self._answer([worker for worker in self._workers if worker.connection in heard], jobs, emit)
            patience = _PATIENCE
            for each in self._workers:
                self._send(each, None)
        finally:
            self._end(patience)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._settings, self._network.sight)
        process = self._context.Process(target=worker.serve, args=arguments, daemon=True, name="gancolor-worker")
        with interrupts_held():
            process.start()
        theirs.close()  # so that its end is noticed
        return _Worker(process, ours)

    def _hand_out(self, jobs: Iterator[Item]) -> bool:
        """Give every free process a file; False when there are no more."""
        for each in self._workers:
            if self._more and each.ready and each.item is None:
                each.item = next(jobs, None)
                self._more = each.item is not None
                if self._more:
                    self._send(each, each.item)
        return self._more

    def _answer(self, heard: list[_Worker], jobs: Iterator[Item], emit: Callable[[Record], None]) -> None:
        """Hear what the processes say; the network's turn comes last, so that they read and write meanwhile."""
        views: list[tuple[_Worker, View]] = []
        for each in heard:
            try:
                kind, content = each.connection.recv()
            except (EOFError, OSError):
                self._bury(each, emit)
                continue
            if kind == "predict":
                views.append((each, content))
            elif kind == "permit":
                each.pixels = content
                self._waiting.append(each)
            else:
                self._finish(each, content, emit)
        self._admit()
        if views:
            self._hand_out(jobs)
        for each, view in views:
            self._send(each, self._predict(view))

    def _finish(self, each: _Worker, record: Record | None, emit: Callable[[Record], None]) -> None:
        each.ready, each.item, each.pixels = True, None, 0
        if record is not None:
            self._deaths = 0
            emit(record)

    def _admit(self) -> None:
        """Let those go on whose pictures fit in, in the order in which they asked."""
        while self._waiting:
            first = self._waiting[0]
            held = sum(each.pixels for each in self._workers if each not in self._waiting)
            if held and held + first.pixels > MOST_PIXELS:
                return
            self._send(self._waiting.popleft(), None)

    def _predict(self, view: View) -> Prediction | str:
        try:
            return self._network.run(view)
        except GancolorError as error:
            return str(error)
        except Exception as error:  # the worker's file fails with it; the others go on
            return f"the network could not look at it: {type(error).__name__}: {error}"

    def _bury(self, dead: _Worker, emit: Callable[[Record], None]) -> None:
        self._stopper.check()  # a signal to all of us is no accident
        dead.connection.close()
        dead.process.join(_PATIENCE)
        self._deaths += 1
        item = dead.item
        if item is None or self._deaths >= _DEATHS:
            code = dead.process.exitcode
            raise DataError(
                f"worker processes must live, {self._deaths} died in a row (the last with exit code {code}); "
                "memory may be full, or the calling script lacks 'if __name__ == \"__main__\":'; use --workers 0"
            )
        if dead in self._waiting:
            self._waiting.remove(dead)
        worker.sweep(item.target.parent, dead.process.pid)
        self._workers[self._workers.index(dead)] = self._start()
        words = "the process that read it died; out of memory?"
        emit(Record(str(item.source), status="failed", error=f"{shown(item.source)}: {words}"))

    def _send(self, each: _Worker, content: Any) -> None:
        with contextlib.suppress(OSError):  # its death is noticed where it is listened to
            each.connection.send(content)

    def _end(self, patience: float) -> None:
        """End all processes: those without patience are told to drop what they write."""
        for each in self._workers:
            if not patience:
                each.process.terminate()
            each.connection.close()
        deadline = time.monotonic() + _PATIENCE
        for each in self._workers:
            each.process.join(max(0.1, deadline - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join()
            if each.item is not None:
                worker.sweep(each.item.target.parent, each.process.pid)
