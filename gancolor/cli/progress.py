"""How far something is: a bar on a terminal; in logs, pipes and job systems a line a minute."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

import click

from gancolor.cli.options import say_above

EVERY = 60.0
"""Seconds between two lines."""


class ProgressDisplay:
    """Says on standard error how far one thing after another is, or nothing unless it `speaks`.

    `unit`: what is counted, "B" for bytes. `stays`: whether the bar is still to be seen afterwards.
    """

    def __init__(self, unit: str, *, speaks: bool = True, stays: bool = False) -> None:
        self.unit, self.stays = unit, stays
        self.has_bar = speaks and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._task, self._done, self._total = "", 0, 0
        self._first, self._since = 0, time.monotonic()
        self._ended = threading.Event()
        self._lines: threading.Thread | None = None
        if speaks and not self.has_bar:
            self._lines = threading.Thread(target=self._say, daemon=True, name="gancolor-progress")

    def __enter__(self) -> Self:
        if self._lines is not None:
            self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._lines is not None:
            self._lines.join()
        if self._bar is not None:
            self._bar.close()

    def show(self, task: str, done: int, total: int | None) -> None:
        """So much of the task is done; a total of 0 or None is not known."""
        if (task, total or 0) != (self._task, self._total):
            self._first, self._since = done, time.monotonic()
        if self.has_bar:
            self._show_bar(task, done, total or None)
        self._task, self._done, self._total = task, done, total or 0

    def say(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        say_above(self._bar, text)

    def line(self) -> str:
        """What to say now where there is no terminal."""
        done, total = self._done, self._total
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, f"{self.unit}s")
        speed = (done - self._first) / max(time.monotonic() - self._since, 1e-3)
        parts = [f"{done / scale:,.0f}{f' of {total / scale:,.0f}' if total else ''} {unit}"]
        if speed > 0:
            parts.append(f"{60 * speed / scale:,.3g} a minute")
            if total:
                parts.append(f"about {duration((total - done) / speed)} left")
        return f"{self._task}: {', '.join(parts)}" if self._task else ", ".join(parts)

    def _show_bar(self, task: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if self._bar is None or task != self._task or done < self._bar.n:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(
                desc=task or None,
                total=total,
                unit=self.unit if self.unit == "B" else f" {self.unit}s",
                unit_scale=self.unit == "B",
                leave=self.stays,
                dynamic_ncols=True,
                file=sys.stderr,
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _say(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            while not self._ended.wait(EVERY):
                click.echo(self.line(), err=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as exactly as an estimate deserves."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
