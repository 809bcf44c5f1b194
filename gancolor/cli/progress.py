"""How far something is, a line a minute, where there is no terminal for a bar: in logs, pipes and
job systems.

What the data commands share: the datasets root, and progress bars.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

EVERY = 60.0
"""Seconds between two lines."""


class Lines:
    """Says on standard error how far it is; nothing on a terminal, and nothing `unless` it is to
    speak.

    `unit`: what is counted, "B" for bytes.
    """

    def __init__(self, unit: str, speaks: bool = True) -> None:
        self.unit = unit
        self._speaks = speaks and not sys.stderr.isatty()
        self._task, self._done, self._total = "", 0, 0
        self._first, self._since = 0, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="gancolor-progress")

    def __enter__(self) -> Self:
        if self._speaks:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._speaks:
            self._thread.join()

    def show(self, task: str, done: int, total: int | None) -> None:
        """So much of the task is done; a total of 0 or None is not known."""
        if (task, total or 0) != (self._task, self._total):
            self._first, self._since = done, time.monotonic()
        self._task, self._done, self._total = task, done, total or 0

    def line(self) -> str:
        """What to say now."""
        done, total = self._done, self._total
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, f"{self.unit}s")
        speed = (done - self._first) / max(time.monotonic() - self._since, 1e-3)
        parts = [f"{done / scale:,.0f}{f' of {total / scale:,.0f}' if total else ''} {unit}"]
        if speed > 0:
            parts.append(f"{60 * speed / scale:,.3g} a minute")
            if total:
                parts.append(f"about {duration((total - done) / speed)} left")
        return f"{self._task}: {', '.join(parts)}" if self._task else ", ".join(parts)

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            while not self._ended.wait(EVERY):
                click.echo(self.line(), err=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as exactly as an estimate deserves."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


root_option = click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help="Where named sets live (default: $GANCOLOR_DATASETS, else ./datasets).",
)


class Bars:
    """A progress bar for one thing after another; without a terminal, lines. `unit`: what is
    counted, "B" for bytes.
    """

    def __init__(self, unit: str) -> None:
        self.unit, self._task = unit, ""
        self._lines = Lines(unit)
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.__exit__(kind, error, trace)
        self._close()

    def show(self, task: str, done: int, total: int | None) -> None:
        """So much of the task is done; a total of 0 or None is not known."""
        from tqdm import tqdm

        self._lines.show(task, done, total)
        if task != self._task or (self._bar is not None and (self._bar.total or 0) != (total or 0)):
            self._close()
            self._task = task
            self._bar = tqdm(
                desc=task,
                total=total or None,
                unit=self.unit if self.unit == "B" else f" {self.unit}s",
                unit_scale=self.unit == "B",
                disable=not sys.stderr.isatty(),
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
            )
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
