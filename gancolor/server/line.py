"""Requests in a line: one thread owns the network, and a request's files lie in a folder of its own
that is removed whatever becomes of it.
"""

from __future__ import annotations

import collections
import contextlib
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from gancolor.errors import DataError, GancolorError
from gancolor.runtime.files import locked

_LONGEST_WAIT = 600  # seconds that a client is told to wait at most
_PREFIX = "gancolor-serve-"  # of the folders of servers
_LOCK, _LOCKED = "lock", "a server is at work there"  # the file that says so
_JOIN = 30.0  # seconds to wait at the end for what is being coloured


class LineFull(Exception):
    """There is no place; `seconds`: after which it is worth asking again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class GivenUp(GancolorError):
    """Nobody waits any more for what is being done."""


class Ticket:
    """A request's place in the line. `folder`: of its files. `long`: its work lets others go
    first. `result`: what its work returns.
    """

    def __init__(self, folder: Path, long: bool) -> None:
        self.folder, self.long = folder, long
        self.result: Future[Any] = Future()
        self.work: Callable[[Ticket], Any] | None = None
        self.state: Literal["entered", "waiting", "running", "done"] = "entered"
        self.left = False

    def check(self) -> None:
        """GivenUp when nobody waits any more: called wherever the work can be broken off."""
        if self.left:
            raise GivenUp("given up: nobody waits for it")


class RequestLine:
    """`length`: how many tickets there are at most, from `enter` to `leave`; `long`: how many long
    ones beside them. There is no place before `open` and after `close`.
    """

    def __init__(self, length: int, long: int) -> None:
        self._length, self._most_long = length, long
        self._resources = contextlib.ExitStack()
        self._changed = threading.Condition()
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._long: collections.deque[Ticket] = collections.deque()
        self._tickets: set[Ticket] = set()
        self._seconds = 1.0  # that a request took lately, for Retry-After
        self._closed = True
        self._thread = threading.Thread(target=self._work, name="gancolor-network", daemon=True)

    def open(self) -> None:
        """Begin: with a new folder, after those of killed servers are removed."""
        base = Path(tempfile.gettempdir())
        for old in base.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError, DataError), locked(old / _LOCK, _LOCKED):
                shutil.rmtree(old)
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._resources.enter_context(locked(self.root / _LOCK, _LOCKED))
        self._closed = False
        self._thread.start()

    @property
    def present(self) -> int:
        """How many tickets there are that are not long."""
        return self._count(False)

    @property
    def present_long(self) -> int:
        """How many long ones there are."""
        return self._count(True)

    @property
    def waiting(self) -> int:
        """How many of them wait for the network."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that owns the network is at work."""
        return self._thread.is_alive() and not self._closed

    def _count(self, long: bool) -> int:
        with self._changed:
            return sum(ticket.long == long for ticket in self._tickets)

    def enter(self, *, long: bool = False) -> Ticket:
        """A new ticket with a new folder. LineFull when there is no place."""
        with self._changed:
            if long and (self._closed or self._count(True) >= self._most_long):
                raise LineFull(_LONGEST_WAIT)
            if self._closed or (not long and self._count(False) >= self._length):
                ahead = max(1, len(self._waiting))
                raise LineFull(min(_LONGEST_WAIT, max(1, math.ceil(ahead * self._seconds))))
            ticket = Ticket(Path(tempfile.mkdtemp(dir=self.root)), long)
            self._tickets.add(ticket)
            return ticket

    def submit(self, ticket: Ticket, work: Callable[[Ticket], Any]) -> Future[Any]:
        """Let the thread do the work when its turn comes. Of a ticket whose work is done it may be
        asked again. GivenUp when its place was given back.
        """
        with self._changed:
            ticket.check()
            if ticket.state == "done":
                ticket.result = Future()
            ticket.work, ticket.state = work, "waiting"
            (self._long if ticket.long else self._waiting).append(ticket)
            self._changed.notify_all()
        return ticket.result

    def withdraw(self, ticket: Ticket) -> bool:
        """Take back work that still waits; whether it did. The ticket stays."""
        with self._changed:
            if ticket.state != "waiting":
                return False
            (self._long if ticket.long else self._waiting).remove(ticket)
            ticket.result.cancel()
            ticket.state = "done"
            return True

    def ahead(self, ticket: Ticket) -> int:
        """How many wait before a ticket that waits; 0 of another."""
        with self._changed, contextlib.suppress(ValueError):
            return (self._long if ticket.long else self._waiting).index(ticket)
        return 0

    def leave(self, ticket: Ticket) -> None:
        """Give a place back. What waits is not done, what is being done is told to end; its folder
        is removed as soon as nothing writes there.
        """
        with self._changed:
            ticket.left = True
            if ticket.state == "running":
                return  # the thread ends it
            if ticket.state == "waiting":
                with contextlib.suppress(ValueError):  # the thread has passed it over
                    (self._long if ticket.long else self._waiting).remove(ticket)
            self._remove(ticket)

    def serve_others(self) -> None:
        """Do all that waits and is not long: for long work on the line's thread to call."""
        while (ticket := self._next(self._waiting)) is not None:
            self._do(ticket)

    def close(self) -> None:
        """End everything, and remove all files."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for ticket in list(self._tickets):
                self.leave(ticket)
            self._changed.notify_all()
        self._thread.join(_JOIN)
        shutil.rmtree(self.root, ignore_errors=True)
        self._resources.close()

    def _remove(self, ticket: Ticket) -> None:
        ticket.state = "done"
        ticket.result.cancel()
        self._tickets.discard(ticket)
        shutil.rmtree(ticket.folder, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._long):
                    if self._closed:
                        return
                    self._changed.wait()
            if (ticket := self._next(self._waiting) or self._next(self._long)) is not None:
                self._do(ticket)

    def _next(self, queue: collections.deque[Ticket]) -> Ticket | None:
        """The next ticket of a queue whose work is wanted, to be done now."""
        with self._changed:
            while queue:
                ticket = queue.popleft()
                if ticket.result.set_running_or_notify_cancel():
                    ticket.state = "running"
                    return ticket
                ticket.state = "done"  # whoever waited has gone, and leaves next
        return None

    def _do(self, ticket: Ticket) -> None:
        assert ticket.work is not None
        start, result = time.monotonic(), None
        error: BaseException | None = None
        try:
            result = ticket.work(ticket)
        except BaseException as raised:  # also a fault of ours: the next request must be served
            error = raised
        with self._changed:
            if not ticket.long:
                self._seconds += 0.3 * (time.monotonic() - start - self._seconds)
            ticket.state = "done"
            if error is None:
                ticket.result.set_result(result)
            else:
                ticket.result.set_exception(error)
            if ticket.left:
                self._remove(ticket)
