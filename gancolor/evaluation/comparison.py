"""Puts runs side by side on one page: sheets of pictures, the table of figures, charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gancolor.errors import ConfigError, DataError
from gancolor.evaluation.measurement import GRAY, MEAN, evaluate
from gancolor.evaluation.page import PNGS, Gathering, read_curves, render
from gancolor.evaluation.results import Evaluation, try_to_write, unwritable, write_together


def compare(
    runs: Sequence[Path], *, out: Path, dataset: str | None = None, **options: Any
) -> Evaluation:
    """Evaluate runs and write the page `out` and, beside it, its sheets and charts as PNG; all or
    none.

    `dataset` and `options` are those of `evaluation.evaluate` but for `see`. Raises what it raises,
    ConfigError for an `out` that is no .html, DataError for one that cannot be written: before the
    work where that can be known.
    """
    prepare(out)
    gathering = Gathering()
    evaluation = evaluate(runs, dataset=dataset, see=gathering, **options)
    names = [row.name for row in evaluation.rows if row.name not in (GRAY, MEAN)]
    logs = {name: read_curves(_log_of(run)) for name, run in zip(names, runs, strict=True)}
    page, pictures = render(evaluation, gathering, logs, sheets_folder(out).name)
    _write(out, page, pictures)
    return evaluation


def sheets_folder(out: Path) -> Path:
    """The folder beside the page `out` for its sheets and charts."""
    return out.with_name(f"{out.stem}-sheets")


def prepare(out: Path) -> None:
    """Make the page's folder and try to write into it, before hours of work.

    ConfigError when `out` is no .html, DataError when that fails.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--out must be a file that ends in .html, got {str(out)!r}; for example --out"
            " report.html"
        )
    if out.is_dir():
        raise DataError(f"{out} must be a writable file, got a folder; choose another with --out")
    folder = sheets_folder(out)
    try:
        try_to_write(out.parent)
        if folder.exists():
            try_to_write(folder)
    except OSError as error:
        raise unwritable(out, error, "in a writable folder") from error


def _log_of(run: Path) -> Path:
    return (run if run.is_dir() else run.parent) / "log.jsonl"


def _write(out: Path, page: str, pictures: Mapping[str, bytes]) -> None:
    folder = sheets_folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_together({**{folder / name: data for name, data in pictures.items()}, out: page})
        for name in set(PNGS) - set(pictures):
            (folder / name).unlink(missing_ok=True)  # of an earlier page
    except OSError as error:
        raise unwritable(out, error, "in a writable folder") from error
