"""What the data commands share: the datasets root, and progress bars."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from gancolor.cli.progress import Lines

root_option = click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help="Where named sets live (default: $GANCOLOR_DATASETS, else ./datasets).",
)


class Bars:
    """A progress bar for one thing after another; without a terminal, lines. `unit`: what is counted, "B" for bytes."""

    def __init__(self, unit: str) -> None:
        self.unit, self._task = unit, ""
        self._lines = Lines(unit)
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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
