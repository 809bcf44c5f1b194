"""Ctrl-C and SIGTERM: where they may break in, and what they end with."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from gancolor.errors import GancolorError
from gancolor.interrupts import handled


class Interrupted(GancolorError):
    """Ctrl-C or SIGTERM: every result that exists is whole. `exit_code` is 130 or 143."""

    def __init__(self, kind: int, kept: str = "") -> None:
        words = "stopped by a signal; go on with the same command and --skip-existing, for a film with --resume too"
        super().__init__(f"{words}; {kept}" if kept else words)
        self.exit_code = 128 + kind


class Stopper:
    """Turns the first signal into a KeyboardInterrupt, but only where nothing is left in pieces by it."""

    def __init__(self) -> None:
        self.kind = 0
        self._open = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM; a KeyboardInterrupt leaves as Interrupted. A second Ctrl-C breaks in anywhere."""
        with handled(self._note):
            try:
                yield
                self.check()
            except KeyboardInterrupt as stop:
                raise Interrupted(self.kind or signal.SIGINT, str(stop)) from None

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
