"""Ctrl-C, SIGTERM and SIGHUP: which of them ask for an orderly end, where they may break in, what
the command ends with, and how processes are started that Ctrl-C does not reach.

`StopRequest` is for work that looks now and then whether it is to end. `Stopper` is for work that
waits for long, in places where it may be broken off.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from gancolor.errors import GancolorError


def stop_signals() -> tuple[int, ...]:
    """The signals that end a piece of work in order: Ctrl-C, SIGTERM, and SIGHUP, which a lost
    terminal sends.

    SIGHUP is not among them where it is ignored, as under nohup.
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hangup


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` answer the `stop_signals` in here; outside the main thread, leave them to the
    caller.
    """
    try:
        before = {kind: signal.signal(kind, handle) for kind in stop_signals()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until worker processes are started in here; they inherit the block and never
    see it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StoppedBySignal(GancolorError):
    """A signal asked for the end, and what was done so far is whole.

    `kind` is the signal's number, `advice` says what is kept and how to go on. `exit_code` is what
    a shell expects after that signal: 130, 143 or 129.
    """

    def __init__(self, kind: int, advice: str) -> None:
        super().__init__(f"stopped by a signal; {advice}")
        self.exit_code = 128 + kind


class StopRequest:
    """Whether one of the `stop_signals` has come: `kind` is the number of the first, 0 for none.

    A second Ctrl-C raises KeyboardInterrupt at once: schedulers repeat SIGTERM, but a person who
    repeats Ctrl-C means it.
    """

    kind = 0

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Note the signals in here instead of being broken off by them."""
        with handled(self._note):
            yield self

    def _note(self, kind: int, frame: FrameType | None) -> None:
        if self.kind and kind == signal.SIGINT:
            raise KeyboardInterrupt
        self.kind = self.kind or kind


class Stopper(StopRequest):
    """Turns the first signal into a KeyboardInterrupt, but only where nothing is left in pieces by
    it; `advice` is that of the StoppedBySignal which this becomes.
    """

    def __init__(self, advice: str) -> None:
        self._advice = advice
        self._open = False

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Catch the signals in here. A KeyboardInterrupt leaves as StoppedBySignal, its text behind the
        advice; so does a signal that has found no open place.
        """
        with super().listening():
            try:
                yield self
                self.check()
            except KeyboardInterrupt as stop:
                advice = f"{self._advice}; {stop}" if str(stop) else self._advice
                raise StoppedBySignal(self.kind or signal.SIGINT, advice) from None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let a signal break in here, also one that came before."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    def check(self) -> None:
        """Stop here if a signal has come. Raises KeyboardInterrupt."""
        if self.kind:
            raise KeyboardInterrupt

    def _note(self, kind: int, frame: FrameType | None) -> None:
        again, self.kind = self.kind != 0, self.kind or kind
        if self._open or (again and kind == signal.SIGINT):
            self._open = False  # once: what is half written is being removed
            raise KeyboardInterrupt
