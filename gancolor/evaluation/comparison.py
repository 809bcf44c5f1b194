"""Puts runs side by side on one page: sheets of pictures, the table of figures, charts."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gancolor.errors import ConfigError, DataError
from gancolor.evaluation.measurement import GRAY as _GRAY
from gancolor.evaluation.measurement import MEAN as _MEAN
from gancolor.evaluation.measurement import Evaluation, evaluate
from gancolor.evaluation.page import PNGS, Gathering, read_log, render
from gancolor.evaluation.results import try_to_write, unwritable

__all__ = ["compare", "prepare", "sheets_folder"]


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
    names = [row.name for row in evaluation.rows if row.name not in (_GRAY, _MEAN)]
    logs = {name: read_log(_log_of(run)) for name, run in zip(names, runs, strict=True)}
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
    aside = out.with_name(f".{out.stem}.{os.getpid()}.part")
    try:
        aside.mkdir()
        for name, data in pictures.items():
            (aside / name).write_bytes(data)
        # Names of files may hold bytes that are no text.
        (aside / out.name).write_text(page, encoding="utf-8", errors="backslashreplace")
        folder.mkdir(exist_ok=True)
        for name in PNGS:
            if name in pictures:
                os.replace(aside / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier page
        os.replace(aside / out.name, out)
    except OSError as error:
        raise unwritable(out, error, "in a writable folder") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(aside)
