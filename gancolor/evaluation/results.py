"""The figures of an evaluation: means with intervals, as tables for the terminal and as files."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancolor import metrics, tables
from gancolor.errors import DataError
from gancolor.evaluation.protocol import GRAY_BELOW, RESAMPLES, Protocol
from gancolor.runtime.files import written


class Column(NamedTuple):
    """A measure: its key in files, its title in tables, decimals, and in which table it stands.

    better: "lower", "higher", "zero" or "one" when nearest to it, or "" where no value is better
    than another.
    """

    key: str
    title: str
    digits: int
    table: str
    better: str = "lower"
    needs_truth: bool = True


_ERROR = "Distance from the true picture"
_COLOR = "Colorfulness"
_ALL = "All pictures together"
_MORE = "Other variants"

COLUMNS = (
    Column("mse_rgb", "MSE", 1, _ERROR),
    Column("mae_rgb", "MAE", 2, _ERROR),
    Column("mae_ab", "MAE a*b*", 2, _ERROR),
    Column("psnr", "PSNR", 2, _ERROR, "higher"),
    Column("ssim", "SSIM", 3, _ERROR, "higher"),
    Column("ciede2000", "CIEDE2000", 2, _ERROR),
    Column("lpips", "LPIPS", 3, _ERROR),
    Column("colorfulness", "M", 2, _COLOR, "", needs_truth=False),
    Column("colorfulness_truth", "M true", 2, _COLOR, ""),
    Column("delta_colorfulness", "mean dM", 2, _COLOR, "zero"),
    Column("abs_difference_of_means", "|diff. of means|", 2, _COLOR),
    Column("mean_abs_difference", "mean |diff.|", 2, _COLOR),
    Column("gray_rate", "gray rate", 3, _COLOR, "", needs_truth=False),
    Column("spread_a", "spread a*", 3, _ALL, "one"),
    Column("spread_b", "spread b*", 3, _ALL, "one"),
    Column("fd_vgg16", "FD VGG16", 1, _ALL),
    Column("told_apart", "told apart %", 1, _ALL),
    Column("fid", "FID", 2, _ALL),
    Column("kid", "KID", 4, _ALL),
    Column("colorfulness_abs", "M abs", 2, _MORE, "", needs_truth=False),
    Column("colorfulness_truth_abs", "M abs true", 2, _MORE, ""),
    Column("mae_unit", "MAE [-1, 1]", 4, _MORE),
)
"""Every figure of a row, in the order of the tables."""

KEYS = tuple(column.key for column in COLUMNS)

LEGENDS = {
    _ERROR: "RGB 0-255, a*b* in CIE units, PSNR in dB; lower is better, but for PSNR and SSIM",
    _COLOR: (
        "M of the prediction and of the truth; dM = prediction - truth; gray rate: share of"
        " pictures below 5"
    ),
    _ALL: (
        "spreads over the truth's: 1 is right; told apart from the truth: 50 % nobody can tell, 100"
        " % everybody"
    ),
    _MORE: "M abs: M of |rg| and |yb|; MAE of RGB in [-1, 1]",
}
"""What is said of each table, by its title, in their order."""

FILES = ("metrics.md", "metrics.csv", "metrics.jsonl", "pictures.csv")

GAINS_FILE = "points.csv"

# Of one figure: over the pictures (), or over those of each resample (RESAMPLES,).
_Means = NDArray[np.float64]


@dataclass
class Result:
    """One row of the table: a run, or one of the baselines `gray` and `mean color`.

    `values`: by key of `COLUMNS`, None where `empty` says why. `low`, `high`: the 95 % interval
    where there is one. `pictures`: per-picture figures in the order of the evaluation's names.
    """

    name: str
    values: dict[str, float | None] = field(default_factory=dict)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, list[float]] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)


@dataclass
class Evaluation:
    """The outcome: `names` of the pictures, a row for each baseline and run.

    `gains`: of runs that take hints, a row for each number of true points
    (`true_points.Gains.rows`).
    """

    protocol: Protocol
    names: list[str]
    rows: list[Result]
    gains: list[tables.TableRow] = field(default_factory=list)

    @property
    def has_truth(self) -> bool:
        """Whether the pictures have colours to compare with."""
        return self.protocol.has_truth


def summarize(rows: Sequence[Result], *, seed: int = 0) -> None:
    """Fill each row's means and 95 % bootstrap intervals from its `pictures`; the same resamples
    for all rows.
    """
    count = max((len(values) for row in rows for values in row.pictures.values()), default=0)
    # How often each picture is drawn in each resample: one product gives all means.
    drawn = (
        np.random.default_rng(seed).multinomial(count, [1 / count] * count, RESAMPLES)
        if count
        else np.empty(0)
    )
    for row in rows:
        if not row.pictures:
            continue
        figures = {key: np.asarray(values, np.float64) for key, values in row.pictures.items()}
        figures["gray_rate"] = (figures["colorfulness"] < GRAY_BELOW).astype(np.float64)
        if "delta_colorfulness" in figures:
            figures["mean_abs_difference"] = np.abs(figures["delta_colorfulness"])
        whole = np.stack(list(figures.values()), axis=1)  # (count, keys)
        means = dict(zip(figures, whole.mean(axis=0), strict=True))
        row.values |= {key: float(value) for key, value in _derive(means).items()}
        if count > 1:
            # (RESAMPLES,) each
            resampled = dict(zip(figures, (drawn @ whole / count).T, strict=True))
            for key, values in _derive(resampled).items():
                row.low[key], row.high[key] = np.percentile(values, (2.5, 97.5)).tolist()


def _derive(means: dict[str, _Means]) -> dict[str, _Means]:
    """Means over pictures, with what is made of such means in place of what it alone is made of."""
    found = {key: values for key, values in means.items() if key not in metrics.MOMENTS}
    if "delta_colorfulness" in means:
        found["abs_difference_of_means"] = np.abs(means["delta_colorfulness"])
    if all(key in means for key in metrics.MOMENTS):
        found |= metrics.spreads(means)
    return found


def complete(row: Result, reasons: dict[str, str]) -> None:
    """Set every missing column, and every one that is no finite number, to None with its reason."""
    for key in KEYS:
        value = row.values.get(key)
        if value is None:
            row.empty.setdefault(key, reasons.get(key, "not measured"))
        elif not math.isfinite(value):
            row.empty[key] = f"it came out as {value}"
        if key in row.empty:
            row.values[key] = None
            row.low.pop(key, None)
            row.high.pop(key, None)


def terminal(evaluation: Evaluation) -> str:
    """The tables as text: each mean with half the width of its 95 % interval, or [its ends] where
    it lies askew.
    """
    askew = {
        column for column in COLUMNS if any(_lies_askew(row, column.key) for row in evaluation.rows)
    }

    def show(row: Result, column: Column) -> str | None:
        return (_with_interval if column in askew else _with_half_width)(row, column)

    return "\n\n".join(_tables(evaluation, tables.terminal, show, "{}: {}"))


def markdown(evaluation: Evaluation) -> str:
    """Protocol and tables as a Markdown page: each mean with its 95 % interval."""
    protocol = "\n".join(f"- {line}" for line in evaluation.protocol.lines())
    parts = [protocol, *_tables(evaluation, tables.markdown, _with_interval, "{}: {}\n")]
    return "\n\n".join(["# Evaluation", *(part.replace("*", "\\*") for part in parts)]) + "\n"


def _tables(
    evaluation: Evaluation,
    render: Callable[[Sequence[tables.TableRow], Sequence[str]], str],
    show: Callable[[Result, Column], str | None],
    heading: str,
) -> list[str]:
    """A table for each of `groups`, and why what is empty is so."""
    parts = []
    for group, columns in groups(evaluation):
        cells: list[tables.TableRow] = [
            {"run": row.name} | {c.title: show(row, c) for c in columns} for row in evaluation.rows
        ]
        parts.append(
            heading.format(group, LEGENDS[group])
            + "\n"
            + render(cells, ["run", *(c.title for c in columns)])
        )
    if evaluation.gains:
        title = (
            "With true points of the picture: PSNR in dB and CIEDE2000 by their number, and the"
            " reach of the first"
        )
        parts.append(
            heading.format(*title.split(": ", 1))
            + "\n"
            + render(evaluation.gains, list(evaluation.gains[0]))
        )
    empty = [f"empty: {columns}: {reason}" for reason, columns in explain(evaluation).items()]
    return [*parts, "\n".join(empty)] if empty else parts


def groups(evaluation: Evaluation) -> Iterator[tuple[str, list[Column]]]:
    """The titles of the tables that fit a page, with their columns.

    Without truth those that need it are left out, as is a table without any figure: `explain` has
    the reason.
    """
    for group in LEGENDS:
        columns = [
            c for c in COLUMNS if c.table == group and (evaluation.has_truth or not c.needs_truth)
        ]
        if any(row.values[column.key] is not None for row in evaluation.rows for column in columns):
            yield group, columns


def explain(evaluation: Evaluation) -> dict[str, str]:
    """The empty columns by reason, with the rows if it is not all of them."""
    places: dict[str, dict[str, list[str]]] = {}
    for column in COLUMNS:
        for row in evaluation.rows:
            if column.key in row.empty:
                places.setdefault(row.empty[column.key], {}).setdefault(column.title, []).append(
                    row.name
                )
    lines = {}
    for reason, columns in places.items():
        rows = list(dict.fromkeys(name for names in columns.values() for name in names))
        whose = "" if len(rows) == len(evaluation.rows) else f" of {', '.join(rows)}"
        lines[reason] = ", ".join(columns) + whose
    return lines


def _lies_askew(row: Result, key: str) -> bool:
    """Whether ± would mislead: an arm of the interval is a third longer, or ± would cross a zero
    that it does not.
    """
    value = row.values[key]
    if value is None or key not in row.low:
        return False
    low, high = row.low[key], row.high[key]
    half = (high - low) / 2
    short, long = sorted((value - low, high - value))
    return 3 * long > 4 * short + 1e-9 or value - half < 0 <= low or high <= 0 < value + half


def _with_half_width(row: Result, column: Column) -> str | None:
    value, key = row.values[column.key], column.key
    if value is None:
        return None
    half = f" ±{(row.high[key] - row.low[key]) / 2:.{column.digits}f}" if key in row.low else ""
    return tables.number(value, column.digits) + half


def _with_interval(row: Result, column: Column) -> str | None:
    value, key = row.values[column.key], column.key
    if value is None:
        return None
    low, high = (
        tables.number(ends[key], column.digits) if key in ends else ""
        for ends in (row.low, row.high)
    )
    return tables.number(value, column.digits) + (f" [{low}, {high}]" if low else "")


def files(evaluation: Evaluation) -> tuple[str, ...]:
    """The names of an evaluation's files."""
    return (*FILES, GAINS_FILE) if evaluation.gains else FILES


def write(evaluation: Evaluation, out: Path) -> None:
    """Write `files` into the folder `out`, all or none. DataError when it cannot be written."""
    texts = [markdown(evaluation), _csv(evaluation), _jsonl(evaluation), _pictures_csv(evaluation)]
    if evaluation.gains:
        texts.append(tables.csv(evaluation.gains))
    names = files(evaluation)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_together({out / name: text for name, text in zip(names, texts, strict=True)})
        if not evaluation.gains:
            (out / GAINS_FILE).unlink(missing_ok=True)  # an earlier evaluation's
    except OSError as error:
        raise unwritable(out, error) from error


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write files so that none takes its name before all of them are written; in the given order.

    What UTF-8 cannot say of a text, as bytes of a file's name that are no text, is written as
    escapes. OSError as the system raises it.
    """
    with contextlib.ExitStack() as stack:  # which ends with the file that was opened first
        for path in reversed(list(contents)):
            content = contents[path]
            file = stack.enter_context(written(path))
            file.write(
                content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            )
            file.flush()


def prepare(out: Path) -> None:
    """Try to write into a folder, before hours of work; nothing of it stays. DataError when that
    fails.
    """
    try:
        try_to_write(out)
    except OSError as error:
        raise unwritable(out, error) from error


def try_to_write(folder: Path) -> None:
    """Write into a folder, which is made for it if need be. OSError when that fails."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f".{os.getpid()}.part"
    trial.write_bytes(b"")
    trial.unlink()
    if is_new:
        folder.rmdir()


def unwritable(out: Path, error: OSError, what: str = "a writable folder") -> DataError:
    """The error that says so of --out."""
    return DataError(f"{out} must be {what}, got '{error.strerror}'; choose another with --out")


def _csv(evaluation: Evaluation) -> str:
    return tables.csv([{"run": row.name} | _figures(row) for row in evaluation.rows])


def _jsonl(evaluation: Evaluation) -> str:
    made = evaluation.protocol
    about = {
        "dataset": made.dataset,
        "split": made.split,
        "pictures": made.pictures,
        "list": made.digest,
    }
    about |= {
        "size": made.size,
        "fit": made.fit,
        "device": made.device,
        "precision": made.precision,
    }
    rows = [
        {"run": row.name} | _figures(row) | {"empty": row.empty} | about for row in evaluation.rows
    ]
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _figures(row: Result) -> dict[str, object]:
    figures: dict[str, object] = {}
    for key in KEYS:
        figures |= {
            key: row.values[key],
            f"{key}_low": row.low.get(key),
            f"{key}_high": row.high.get(key),
        }
    return figures


def _pictures_csv(evaluation: Evaluation) -> str:
    keys = [key for key in KEYS if any(key in row.pictures for row in evaluation.rows)]
    rows = [
        {"picture": name, "run": row.name}
        | {key: row.pictures[key][index] for key in keys if key in row.pictures}
        for index, name in enumerate(evaluation.names)
        for row in evaluation.rows
        if row.pictures
    ]
    return tables.csv(rows, ["picture", "run", *keys])
