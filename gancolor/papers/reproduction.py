"""Trains a paper's rows, measures them by one protocol, and puts the figures beside the paper's.

Each row is an ordinary run, and a call goes on where an earlier one stopped. The figures come as text
and as files: table.md, table.csv, table.jsonl.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gancolor import tables
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, TrainingError, shown
from gancolor.evaluation import features, measurement
from gancolor.models.embeddings import EMBEDDINGS
from gancolor.papers import tasks
from gancolor.papers.published import Paper, PaperColumn, PaperRow, find
from gancolor.papers.tasks import PlannedRow, RowFacts, contradictions, differences, folder_name
from gancolor.runtime import processes
from gancolor.runtime.files import write_whole
from gancolor.storage import checkpoint
from gancolor.training import rundir, train

_SMOKE = "a smoke test: it shows that everything runs; its figures mean nothing"
_SMOKE_TESTED = 8  # pictures
_log = logging.getLogger("gancolor")


class Line(NamedTuple):
    """A trained row with what was measured of it."""

    row: PaperRow
    config: TrainConfig
    run: Path | None
    facts: RowFacts
    measured: measurement.Result


class Measured(NamedTuple):
    """The trained rows of one data set and their evaluation, whose first row is the gray picture's."""

    dataset: str
    evaluation: measurement.Evaluation
    lines: list[Line]


@dataclass
class Told:
    """What is shown of a reproduction: `rows` by key for files and by title for people, and `sections` of lines under
    headings.
    """

    title: str
    warning: str | None
    rows: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    sections: list[tuple[str, list[str]]]


def reproduce(
    name: str,
    *,
    overrides: Mapping[str, Any],
    weights: Mapping[str, str],
    out: Path,
    smoke: bool = False,
    feature_weights: str | None = None,
) -> str | None:
    """Train what is not trained yet (see `tasks.plan`), measure all rows, write table.md, .csv
    and .jsonl in `out`.

    `feature_weights` as in `evaluation.evaluate`. Returns the table for a terminal; None on the
    processes of torchrun that do not lead. `training.Interrupted` after Ctrl-C: the same call goes
    on. TrainingError, once the table is written, when rows failed.
    """
    rows = tasks.plan(name, overrides=overrides, weights=weights, out=out, smoke=smoke)
    measurement.prepare(out)
    tasks.check_weights(rows)
    if feature_weights is not None:
        # What is wrong with them is said before the trainings, not after.
        features.find(feature_weights)
    for number, item in enumerate(rows, 1):
        _log.info("row %d of %d, %s: %s", number, len(rows), item.name, item.state)
        if not item.done:
            _train(item, out)
    if not leads():
        return None
    failed = [f"{item.name}: {item.failure}" for item in rows if item.failure]
    told = tell(find(name), name, _measure(rows, out, smoke, feature_weights), failed, smoke)
    write(told, out)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} rows failed: {' | '.join(failed)}; the others are in"
            f" {out}"
        )
    return terminal(told)


def leads() -> bool:
    """Whether this process writes and speaks."""
    return processes.current().leads


def _train(item: PlannedRow, out: Path) -> None:
    config = item.config
    if item.run is not None:
        if leads():
            (item.run / "report.json").unlink(missing_ok=True)  # of a shorter run (`tasks.plan`)
        if config.time_limit is not None:  # of the whole row, however often it is interrupted
            spent = checkpoint.load_last(item.run)["seconds"]
            config = replace(config, time_limit=max(1e-3, config.time_limit - spent))
    try:
        item.run = train(config, runs_root=out, resume=item.run)
    except TrainingError as error:
        item.failure = str(error)  # such a row is a result too: the others go on
        return
    if leads() and config is not item.config:
        rundir.write_config(item.run, item.config)
    item.done = True


def _measure(
    rows: list[PlannedRow], out: Path, smoke: bool, feature_weights: str | None
) -> list[Measured]:
    """Evaluate the trained rows, together where they share a data set."""
    found = []
    for dataset in dict.fromkeys(item.config.dataset for item in rows):
        mine = [item for item in rows if item.config.dataset == dataset]
        trained = [item for item in mine if item.run is not None and not item.failure]
        if not trained:
            continue
        config = trained[0].config
        measured = measurement.evaluate(
            [item.run for item in trained if item.run is not None],
            dataset=dataset,
            split="test",
            datasets_root=config.datasets_root,
            limit=_SMOKE_TESTED if smoke else None,
            device=config.device,
            precision=config.precision,
            perceptual=False,
            feature_weights=feature_weights,
        )
        measurement.write(measured, out / f"evaluation-{tasks.folder_name(dataset)}")
        runs = zip(trained, measured.rows[-len(trained) :], strict=True)
        lines = [
            Line(item.row, item.config, item.run, _facts(item, measured), row) for item, row in runs
        ]
        found.append(Measured(dataset, measured, lines))
    return found


def _facts(item: PlannedRow, measured: measurement.Evaluation) -> RowFacts:
    told = (tasks.read_report(item.run) if item.run else None) or {}
    config = item.config
    width = EMBEDDINGS[config.embedding].width if config.takes_embedding else None
    return RowFacts(
        item.pictures, len(measured.names), told.get("step", 0), told.get("seconds", 0.0), width
    )


def tell(
    paper: Paper, name: str, found: Sequence[Measured], failed: Sequence[str], smoke: bool
) -> Told:
    """Lay out the figures of all rows, what differs from the paper's conditions, and the paper's
    contradictions.

    `failed`: rows without figures and why, in words.
    """
    rows = [row for measured in found for row in _rows(paper, name, measured)]
    titles = {"row": "row", "steps": "steps", "minutes": "minutes"}
    for column in paper.columns:
        titles[column.key] = column.title
        if any(f"{column.key}_paper" in row for row in rows):
            titles[f"{column.key}_paper"] = f"{column.title} (paper)"
    for row in rows:
        row["smoke"] = smoke
    shown = [{title: row.get(key) for key, title in titles.items()} for row in rows]
    datasets = [measured.dataset for measured in found]
    sections = [
        ("Rows that failed", list(failed)),
        *(
            (f"How {measured.dataset} was measured", measured.evaluation.protocol.lines())
            for measured in found
        ),
        ("How to read the columns", _explain(paper)),
        ("The paper's rows that have none of ours beside them", _elsewhere(paper, datasets)),
        (
            "What differs from the paper's conditions (the paper's; ours)",
            _differences(paper, found),
        ),
        ("Where the paper contradicts itself or is silent", contradictions(paper, paper.datasets)),
        ("Reported, but not measurable by a program", list(paper.not_measurable)),
    ]
    return Told(
        f"{name}: {paper.title}",
        _SMOKE if smoke else None,
        rows,
        shown,
        [s for s in sections if s[1]],
    )


def terminal(told: Told) -> str:
    """The text for a terminal."""
    parts = [
        told.title,
        *([f"This is {told.warning}."] if told.warning else []),
        tables.terminal(told.shown),
    ]
    parts += [
        heading + ":\n" + "\n".join(f"  {line}" for line in lines)
        for heading, lines in told.sections
    ]
    return "\n\n".join(parts)


def write(told: Told, out: Path) -> None:
    """table.md, table.csv and table.jsonl, each whole or not at all. CheckpointError when they
    cannot be written.
    """
    parts = [
        f"# {told.title}",
        *([f"**This is {told.warning}.**"] if told.warning else []),
        tables.markdown(told.shown),
    ]
    parts += [
        f"## {heading}\n" + "\n".join(f"- {line}" for line in lines)
        for heading, lines in told.sections
    ]
    texts = {
        "table.md": "\n\n".join(parts) + "\n",
        "table.csv": tables.csv(told.rows),
        "table.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told.rows),
    }
    try:
        for name, text in texts.items():
            write_whole(out / name, text)
    except OSError as error:
        raise CheckpointError(
            f"the tables must be written to {out}, got '{error.strerror}'; free its disk and give"
            " the same command: the rows are trained"
        ) from error


def logged(run: Path) -> dict[str, float]:
    """Means of the run's log over the last tenth of its steps (its last line at least), by the
    log's keys.

    Empty, with a warning, where there is no log or no usable line in it.
    """
    lines = [
        line
        for line in rundir.read_log(run / "log.jsonl")
        if "images_per_second" in line and isinstance(line.get("step"), int | float)
    ]
    if not lines:
        _log.warning(
            "%s/log.jsonl must hold lines of training steps, got none; the row has no figures of"
            " training",
            shown(run.name),
        )
        return {}
    last = [line for line in lines if line["step"] > 0.9 * lines[-1]["step"]]
    sums: dict[str, list[float]] = {}
    for line in last:
        for key, value in line.items():
            if isinstance(value, int | float):
                sums.setdefault(key, []).append(value)
    return {key: math.fsum(values) / len(values) for key, values in sums.items()}


def _rows(paper: Paper, name: str, measured: Measured) -> list[dict[str, Any]]:
    gray = measured.evaluation.rows[0]
    common = {"paper": name, "dataset": measured.dataset}
    prefix = f"{folder_name(measured.dataset)}, " if len(paper.datasets) > 1 else ""
    rows = [{**common, "row": f"{prefix}gray picture", **_figures(paper.columns, gray, {})}]
    for line in measured.lines:
        assert line.run is not None
        swept = {key: getattr(line.config, key) for key in paper.swept}
        ours = _figures(paper.columns, line.measured, logged(line.run))
        theirs = {
            f"{key}_paper": value for key, value in line.row.figures(measured.dataset).items()
        }
        place = {
            "row": line.config.name,
            "run": line.run.name,
            "steps": line.facts.step,
            "minutes": line.facts.seconds / 60,
        }
        rows.append({**common, **place, **swept, **ours, **theirs})
    if paper.truth:
        truth = {key: gray.values.get(f"{key}_truth") for key in paper.truth}
        rows.append(
            {
                **common,
                "row": "original",
                **truth,
                **{f"{k}_paper": v for k, v in paper.truth.items()},
            }
        )
    return rows


def _figures(
    columns: Sequence[PaperColumn], row: measurement.Result, log: dict[str, float]
) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for column in columns:
        value = log.get(column.source) if column.logged else row.values.get(column.source)
        figures[column.key] = value
    return figures


def _explain(paper: Paper) -> list[str]:
    lines = [
        "gray picture: one without its colours; our other figures are of each row's best.pt on"
        " held-out pictures"
    ]
    if any(column.logged for column in paper.columns):
        names = ", ".join(column.title for column in paper.columns if column.logged)
        lines.append(f"{names}: means of the row's training log over the last tenth of its steps")
    return lines


def _elsewhere(paper: Paper, datasets: Sequence[str]) -> list[str]:
    """The paper's figures for its own data sets, where ours is another one."""
    if all(row.figures(dataset) for row in paper.rows for dataset in datasets):
        return []
    lines = []
    for dataset in paper.datasets:
        for row in paper.rows:
            if figures := row.figures(dataset):
                words = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
                lines.append(f"{dataset}-{row.name}: {words}")
    return lines


def _differences(paper: Paper, found: Sequence[Measured]) -> list[str]:
    """Each difference once, with the rows it is of unless it is of all."""
    rows_of: dict[str, list[str]] = {}
    total = sum(len(measured.lines) for measured in found)
    for measured in found:
        for line in measured.lines:
            for words in differences(paper, line.row, line.config, line.facts):
                rows_of.setdefault(words, []).append(str(line.config.name))
    return [
        words if len(names) == total else f"{words} ({', '.join(names)})"
        for words, names in rows_of.items()
    ]
