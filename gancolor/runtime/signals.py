"""Which signals ask for an orderly end, and starting processes that Ctrl-C does not reach.

Ctrl-C and SIGTERM: where they may break in, and what they end with.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gancolor.errors import GancolorError


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


class BatchInterrupted(GancolorError):
    """Ctrl-C or SIGTERM: every result that exists is whole. `exit_code` is 130 or 143."""

    def __init__(self, kind: int, kept: str = "") -> None:
        words = (
            "stopped by a signal; go on with the same command and --skip-existing, for a film with"
            " --resume too"
        )
        super().__init__(f"{words}; {kept}" if kept else words)
        self.exit_code = 128 + kind


class Stopper:
    """Turns the first signal into a KeyboardInterrupt, but only where nothing is left in pieces by
    it.
    """

    def __init__(self) -> None:
        self.kind = 0
        self._open = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM; a KeyboardInterrupt leaves as BatchInterrupted. A second Ctrl-C
        breaks in anywhere.
        """
        with handled(self._note):
            try:
                yield
                self.check()
            except KeyboardInterrupt as stop:
                raise BatchInterrupted(self.kind or signal.SIGINT, str(stop)) from None

    @contextlib.contextmanager
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
