"""Trains a paper's rows one after another, each an ordinary run, going on where an earlier call stopped, and measures
them all by one protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gancolor import checkpoint, evaluation, features
from gancolor.errors import TrainingError
from gancolor.models.embeddings import EMBEDDINGS
from gancolor.papers import planning, report
from gancolor.papers.conditions import Facts
from gancolor.papers.planning import Planned
from gancolor.papers.published import find
from gancolor.training import directory, distributed, train

_log = logging.getLogger("gancolor")

_SMOKE_TESTED = 8  # pictures


def reproduce(
    name: str,
    *,
    overrides: Mapping[str, Any],
    weights: Mapping[str, str],
    out: Path,
    smoke: bool = False,
    feature_weights: str | None = None,
) -> str | None:
    """Train what is not trained yet (see `planning.plan`), measure all rows, write table.md, .csv and .jsonl in `out`.

    `feature_weights` as in `evaluation.evaluate`. Returns the table for a terminal; None on the processes of torchrun
    that do not lead. `training.Interrupted` after Ctrl-C: the same call goes on. TrainingError, once the table is
    written, when rows failed.
    """
    rows = planning.plan(name, overrides=overrides, weights=weights, out=out, smoke=smoke)
    evaluation.prepare(out)
    planning.check_weights(rows)
    if feature_weights is not None:
        features.find(feature_weights)  # what is wrong with them is said before the trainings, not after
    for number, item in enumerate(rows, 1):
        _log.info("row %d of %d, %s: %s", number, len(rows), item.name, item.state)
        if not item.done:
            _train(item, out)
    if not leads():
        return None
    failed = [f"{item.name}: {item.failure}" for item in rows if item.failure]
    told = report.tell(find(name), name, _measure(rows, out, smoke, feature_weights), failed, smoke)
    report.write(told, out)
    if failed:
        raise TrainingError(f"{len(failed)} of {len(rows)} rows failed: {' | '.join(failed)}; the others are in {out}")
    return report.terminal(told)


def leads() -> bool:
    """Whether this process writes and speaks."""
    return distributed.current().leads


def _train(item: Planned, out: Path) -> None:
    config = item.config
    if item.run is not None:
        if leads():
            (item.run / "report.json").unlink(missing_ok=True)  # of a shorter run; see `planning`
        if config.time_limit is not None:  # of the whole row, however often it is interrupted
            spent = checkpoint.load_last(item.run)["seconds"]
            config = replace(config, time_limit=max(1e-3, config.time_limit - spent))
    try:
        item.run = train(config, runs_root=out, resume=item.run)
    except TrainingError as error:
        item.failure = str(error)  # such a row is a result too: the others go on
        return
    if leads() and config is not item.config:
        directory.write_config(item.run, item.config)
    item.done = True


def _measure(rows: list[Planned], out: Path, smoke: bool, feature_weights: str | None) -> list[report.Measured]:
    """Evaluate the trained rows, together where they share a data set."""
    found = []
    for dataset in dict.fromkeys(item.config.dataset for item in rows):
        mine = [item for item in rows if item.config.dataset == dataset]
        trained = [item for item in mine if item.run is not None and not item.failure]
        if not trained:
            continue
        config = trained[0].config
        measured = evaluation.evaluate(
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
        evaluation.write(measured, out / f"evaluation-{planning.folder_name(dataset)}")
        runs = zip(trained, measured.rows[-len(trained) :], strict=True)
        lines = [report.Line(item.row, item.config, item.run, _facts(item, measured), row) for item, row in runs]
        found.append(report.Measured(dataset, measured, lines))
    return found


def _facts(item: Planned, measured: evaluation.Evaluation) -> Facts:
    told = (planning.read_report(item.run) if item.run else None) or {}
    network = planning.frozen_network(item.config)
    width = None if network == "unet" else EMBEDDINGS[network].width
    return Facts(item.pictures, len(measured.names), told.get("step", 0), told.get("seconds", 0.0), width)
