"""Threads that work on a film beside the main one, each with a bounded queue, so that memory stays
bounded however long the film is.

An error in any of them surfaces in the main thread, and none of them ever keeps it waiting for what
cannot come.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

_Taken = TypeVar("_Taken")

_DEPTH = 4  # items that wait before each thread
_END = object()  # tells a stage that nothing follows


class Ahead(Generic[_Taken]):
    """The items of an iterable, which a thread takes a few ahead of whoever iterates over this.

    A context manager: the thread begins and ends with it. `depth`: how many items may wait.
    `seconds`: how long the thread was at work.
    """

    def __init__(self, items: Iterable[_Taken], depth: int = _DEPTH) -> None:
        self.seconds = 0.0
        self._items = items
        self._queue: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="film-reader")

    def __enter__(self) -> Ahead[_Taken]:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may wait for room
            _drain(self._queue)
            self._thread.join(0.01)

    def __iter__(self) -> Iterator[_Taken]:
        while True:
            there, item = self._queue.get()
            if not there:
                if item is not None:
                    raise item
                return
            yield item

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            iterator = iter(self._items)
            while not self._stopped.is_set():
                start = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                finally:
                    self.seconds += time.perf_counter() - start
                self._queue.put((True, item))
        except BaseException as raised:
            error = raised
        self._queue.put((False, error))


class PipelineStage:
    """A thread that does `work` on each item that is `put`, in order, and puts the result into the
    stage `then`.

    `depth`: how many items may wait. `seconds`: how long it was at work. After an error it drops
    whatever it is given, and `put` and `finish` raise the error.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Any], Any],
        then: PipelineStage | None = None,
        depth: int = _DEPTH,
    ) -> None:
        self.seconds = 0.0
        self._work, self._then = work, then
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def put(self, item: object) -> None:
        """Hand over an item; waits until there is room for it."""
        self._raise()
        self._queue.put(item)

    def finish(self) -> None:
        """Wait until everything is done, here and in the stages behind."""
        self._end()
        self._raise()
        if self._then is not None:
            self._then.finish()

    def stop(self) -> None:
        """End this stage and those behind at once, and drop what waits; never raises."""
        self._error = self._error or _Stopped()
        self._end()
        if self._then is not None:
            self._then.stop()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._queue.put(_END)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    start = time.perf_counter()
                    try:
                        result = self._work(item)
                    finally:
                        self.seconds += time.perf_counter() - start
                    if self._then is not None:
                        self._then.put(result)
                except BaseException as error:
                    self._error = error


class _Stopped(Exception):
    """A stage was stopped; whoever still puts something into it is stopped too."""


def _drain(waiting: queue.Queue[Any]) -> None:
    """Take out all that waits."""
    while True:
        try:
            waiting.get_nowait()
        except queue.Empty:
            return
