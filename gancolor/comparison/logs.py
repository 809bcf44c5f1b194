"""Reads the curves of a run's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gancolor.charts import Curve
from gancolor.texts import json_of


def read_log(path: Path) -> dict[str, Curve]:
    """Curves of a run's log.jsonl by the keys of `charts.LOSSES`; those that are not in it are missing.

    A missing file and broken lines count as nothing. Validations, logged by step, get the epoch of their step.
    """
    curves: dict[str, Curve] = {}
    steps, epochs = [], []
    validations: list[tuple[float, float]] = []
    for line in _lines(path):
        epoch, step = line.get("epoch"), line.get("step")
        if _is_number(step) and isinstance(line.get("val"), dict) and _is_number(line["val"].get("ciede2000")):
            validations.append((step, line["val"]["ciede2000"]))
        if not _is_number(epoch) or not _is_number(step):
            continue
        steps.append(step)
        epochs.append(epoch)
        found = {"reconstruction": line.get("generator/l1", line.get("generator/mse"))}
        found |= {key: line.get(key) for key in ("G_loss", "D_loss")}
        for key, value in found.items():
            if _is_number(value):
                curve = curves.setdefault(key, Curve())
                curve.epochs.append(epoch)
                curve.values.append(value)
    if validations and steps:
        at = [float(value) for value in np.interp([step for step, _ in validations], steps, epochs)]
        curves["ciede2000"] = Curve(at, [value for _, value in validations])
    return curves


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            told = json_of(line)
        except ValueError:  # cut off by a kill
            continue
        if isinstance(told, dict):
            yield told


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < 1e300
