"""Processes that read, colour and write photographs, while this one runs the network for them."""

from __future__ import annotations

import functools
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Protocol

import cv2
import torch

from gancolor.batch import worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.exemplars import Library
from gancolor.batch.input_files import Item
from gancolor.batch.records import Record
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.references import Features
from gancolor.coloring.views import Sight, View
from gancolor.errors import DataError, GancolorError, shown
from gancolor.runtime import workers
from gancolor.runtime.signals import Stopper
from gancolor.runtime.workers import Crew, Lost, Message, Worker

MOST_PIXELS = 100_000_000
"""So many pixels of pictures above `FREE_PIXELS` are in work at once; a larger picture waits until
it is alone.
"""

FREE_PIXELS = 8_000_000
"""A picture of at most so many pixels is read without asking the main process for its share of the
memory.
"""

_PATIENCE = 20.0  # seconds for a process to end by itself
_SECONDS_A_PIXEL = 2e-6  # beside the deadline: what the slowest encoder takes on a slow core


class Predictor(Protocol):
    """What a batch needs of a Colorizer."""

    @property
    def sight(self) -> Sight:
        """What preparing views takes."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def predict_view(self, view: View, /) -> Prediction:
        """The network's answer."""

    def describe_view(self, view: View, /) -> Features:
        """What the network sees; asked only for pictures that take colours of others."""


class Pool:
    """A few worker processes. One that dies or hangs takes its file with it and is replaced."""

    def __init__(
        self, count: int, network: Predictor, settings: BatchSettings, stopper: Stopper
    ) -> None:
        self._network, self._settings, self._stopper = network, settings, stopper
        self._crew = Crew[Item](count, _serve, (settings, network.sight), self._seconds)
        self._held: dict[Worker[Item], int] = {}  # pixels of large pictures in work
        self._waiting: deque[tuple[Worker[Item], int]] = deque()  # for room for their pictures

    def run(self, jobs: Iterator[Item], emit: Callable[[Record], None]) -> None:
        """Colour all `jobs`, taken as processes get free; `emit` is called with each Record as it
        comes.
        """
        for records in self.rounds([job] for job in jobs):
            for _, record in records:
                emit(record)

    def rounds(self, chunks: Iterator[list[Item]]) -> Iterator[list[tuple[Item, Record]]]:
        """Colour all chunks of jobs, as `Crew.rounds` hands them out; yields what has ended."""
        patience = 0.0
        try:
            for messages in self._crew.rounds(chunks, self._stopper.open):
                yield self._answer(messages)
            patience = _PATIENCE
        finally:
            self._crew.end(patience)
            for each in self._crew.workers:
                for job in each.jobs:
                    worker.sweep(job.target.parent, each.process.pid)

    def _seconds(self, item: Item) -> float:
        size = 0
        with suppress(OSError, ValueError):
            size = os.stat(item.source).st_size
        return workers.allowed(self._settings.deadline, size)

    def _answer(self, messages: list[Message]) -> list[tuple[Item, Record]]:
        """Do what the processes ask for; the network's turn comes last, so that they read and write
        meanwhile. Returns what has ended.
        """
        ended: list[tuple[Item, Record]] = []
        for each, kind, content, item in messages:
            if kind == "done":
                self._held.pop(each, None)
                lost = isinstance(content, Lost)
                ended.append((item, self._lost(each, item, content) if lost else content))
            elif kind == "permit":
                each.more = content * _SECONDS_A_PIXEL
                self._waiting.append((each, content))
        self._admit()
        for each, kind, content, _ in messages:
            if kind in ("predict", "describe"):
                answer: Prediction | Features | str
                try:
                    if kind == "predict":
                        answer = self._network.predict_view(content)
                    else:
                        answer = self._network.describe_view(content)
                except GancolorError as error:
                    answer = str(error)
                except Exception as error:  # the worker's file fails with it; the others go on
                    answer = f"the network could not look at it: {type(error).__name__}: {error}"
                self._crew.answer(each, answer)
        return ended

    def _admit(self) -> None:
        """Let those go on whose pictures fit in, in the order in which they asked."""
        while self._waiting:
            each, pixels = self._waiting[0]
            if self._held and sum(self._held.values()) + pixels > MOST_PIXELS:
                return
            self._waiting.popleft()
            self._held[each] = pixels
            self._crew.answer(each, None)

    def _lost(self, dead: Worker[Item], item: Item, lost: Lost) -> Record:
        self._stopper.check()  # a signal to all of us is no accident
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not dead)
        worker.sweep(item.target.parent, dead.process.pid)
        fix = "out of memory?" if lost.reason == workers.DIED else "raise --deadline if it is whole"
        return Record(
            str(item.source), status="failed", error=f"{shown(item.source)}: {lost.reason}; {fix}"
        )


class _MainProcess:
    """The main process, seen from a worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def predict(self, view: View) -> Prediction:
        """Ask for the network's answer. DataError with the main process's reason if it has none."""
        prediction: Prediction = self._answer("predict", view)
        return prediction

    def describe(self, view: View) -> Features:
        """Ask for what the network sees. DataError as `predict`."""
        features: Features = self._answer("describe", view)
        return features

    def permit(self, pixels: int) -> None:
        """Wait until so many pixels may be read."""
        if pixels > FREE_PIXELS:
            self._ask("permit", pixels)

    def tell_busy(self) -> None:
        """Say that the work goes on, so that its time begins anew."""
        self._connection.send(("busy", None))

    def _answer(self, kind: str, view: View) -> Any:
        answer = self._ask(kind, view)
        if isinstance(answer, str):
            raise DataError(answer)
        return answer

    def _ask(self, kind: str, content: object) -> Any:
        self._connection.send((kind, content))
        return self._connection.recv()


def _serve(connection: Connection, settings: BatchSettings, sight: Sight) -> None:
    """What a worker process does: colours the items it is sent until None comes or the main process
    is gone.
    """
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(1)  # the network needs the cores
    cv2.setNumThreads(1)
    main = _MainProcess(connection)
    task = functools.partial(
        worker.color_file,
        settings=settings,
        sight=sight,
        predict=main.predict,
        permit=main.permit,
        tell_busy=main.tell_busy,
        library=Library(settings, main.describe) if settings.refers else None,
    )
    workers.work(connection, task)


def _stop(kind: int, frame: FrameType | None) -> None:
    signal.signal(kind, signal.SIG_IGN)  # once: what is half written is being removed
    raise KeyboardInterrupt
