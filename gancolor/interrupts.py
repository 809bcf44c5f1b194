"""Which signals ask for an orderly end, and starting processes that Ctrl-C does not reach."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until worker processes are started in here; they inherit the block and never see it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_signals() -> tuple[int, ...]:
    """The signals that end a piece of work in order: Ctrl-C, SIGTERM, and SIGHUP, which a lost terminal sends.

    SIGHUP is not among them where it is ignored, as under nohup.
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hangup


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` answer the `stop_signals` in here; outside the main thread, leave them to the caller."""
    try:
        before = {kind: signal.signal(kind, handle) for kind in stop_signals()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
