"""The runs that training left, as the page shows them: a row of figures each, their validation grids,
and their curves. A run is named by what was listed, never by a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gancolor import charts
from gancolor.errors import CheckpointError, DataError, shown
from gancolor.evaluation.page import read_curves
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.files import json_of, read_regular
from gancolor.storage import checkpoint
from gancolor.training import rundir

COLUMNS = (
    *("run", "preset", "pictures", "side", "state", "step", "minutes"),
    *("CIEDE2000", "gray's", "MAE a*b*", "PSNR", "M", "M true", "spread a*"),
)
"""What a row of the table says; M is the colorfulness."""

_MEASURES = {
    "CIEDE2000": ("val", "ciede2000", 2),
    "gray's": ("gray", "ciede2000", 2),
    "MAE a*b*": ("val", "mae_ab", 2),
    "PSNR": ("val", "psnr", 2),
    "M": ("val", "colorfulness", 1),
    "M true": ("val", "colorfulness_truth", 1),
    "spread a*": ("val", "spread_a", 2),
}
_MOST_BYTES = 1 << 20  # of a report
_GRID = re.compile(r"step-([0-9]{1,12})\.png")


class ValidationGrid(NamedTuple):
    """A picture of held-out pictures, gray | predicted | original, after so many steps."""

    step: int
    path: Path


class RunList:
    """The runs under `root`, as they are whenever it is asked."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """All runs that have begun, the newest first."""
        return [run.name for run in reversed(checkpoint.all_runs(self._root))]

    def trained(self) -> list[str]:
        """Those that can colour, the newest first."""
        return [run.name for run in reversed(checkpoint.trained_runs(self._root))]

    def find(self, name: str) -> Path:
        """The run of a name that `names` lists. DataError for any other."""
        for run in checkpoint.all_runs(self._root):
            if run.name == name:
                return run
        raise DataError(f"a run must be one that is listed, got {shown(name, 80)!r}")

    def rows(self) -> list[dict[str, Any]]:
        """A row of `COLUMNS` for each run, None for what is not known; the newest first.

        The measures are those of the last step of a run that has ended, else of its last validation.
        """
        return [_row(self.find(name)) for name in self.names()]

    def grids(self, name: str) -> list[ValidationGrid]:
        """The validation grids of a run, by their steps."""
        folder = self.find(name) / "preview"
        found = [
            ValidationGrid(int(match[1]), path)
            for path in folder.glob("step-*.png")
            if (match := _GRID.fullmatch(path.name)) and not path.is_symlink()
        ]
        return sorted(found)

    def grid(self, name: str, number: int) -> tuple[Picture, int]:
        """The grid of that number, from 0, uint8 (H, W, 3), and its step. DataError when there is
        none.
        """
        grids = self.grids(name)
        if not 0 <= number < len(grids):
            raise DataError(f"a grid must be one of the run's {len(grids)}, got {number}")
        return arrays.read_rgb(grids[number].path), grids[number].step

    def curves(self, names: Sequence[str]) -> str | None:
        """The curves of runs as an SVG element, in colours of the page; None where there are none."""
        logs = {name: read_curves(self.find(name) / "log.jsonl") for name in names}
        figure = charts.draw_losses(logs) if logs else None
        if figure is None:
            return None
        return charts.to_svg(figure, "runs", f"Losses and errors of {', '.join(names)} by epoch")


def _row(run: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["run"] = run.name
    try:
        config = rundir.read_config(run)
        row |= {
            "preset": config.preset,
            "pictures": Path(config.dataset).name,
            "side": config.image_size,
        }
    except CheckpointError:
        row["preset"] = "not readable"
    report = _report(run)
    row["state"] = "not at its end" if report is None else "done"
    report = report or _progress(run)
    seconds = report.get("seconds")
    row["step"] = report.get("step")
    row["minutes"] = round(seconds / 60, 1) if isinstance(seconds, int | float) else None
    for title, (part, key, digits) in _MEASURES.items():
        values = report.get(part)
        value = values.get(key) if isinstance(values, dict) else None
        row[title] = round(value, digits) if isinstance(value, int | float) else None
    return row


def _report(run: Path) -> dict[str, Any] | None:
    """A run's report.json; None as long as there is none that can be read."""
    try:
        found = json_of(read_regular(run / "report.json", _MOST_BYTES))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _progress(run: Path) -> dict[str, Any]:
    """What the log of a run says of its last step and its last validation."""
    last: dict[str, Any] = {}
    for line in rundir.read_log(run / "log.jsonl"):
        last["step"] = line.get("step", last.get("step"))
        if "val" in line:
            last |= {"val": line["val"], "gray": line.get("gray")}
    return last
