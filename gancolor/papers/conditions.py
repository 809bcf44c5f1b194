"""What follows from a paper's data for a run of ours: which rows were asked for, what differs from the paper's
conditions, and which of its figures cannot be true."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gancolor.config import TrainConfig, flag_of, settings
from gancolor.errors import ConfigError
from gancolor.papers.published import Paper, PaperRow

_LAMBDA = 100.0  # poster; its text does not say it

# Settings that change nothing a paper could have said, or that `differences` tells in its own words.
_UNTOLD = {"preset", "name", "dataset", "backbone_weights", "val_pictures", "seed"}


class Facts(NamedTuple):
    """What is known of a trained row beside its settings; None where it is not trained."""

    trained_on: int
    tested_on: int
    step: int
    seconds: float
    embedding_width: int | None


def select(paper: Paper, given: Mapping[str, Sequence[Any]]) -> list[PaperRow]:
    """The rows with the given values of swept settings; ConfigError names values, or pairs, that no row has."""
    rows = list(paper.rows)
    for name, values in given.items():
        known = list(dict.fromkeys(getattr(row.config(), name) for row in paper.rows))
        for value in values:
            if value not in known:
                of = ", ".join(map(_show, known))
                raise ConfigError(
                    f"{flag_of(name)} must be one of the paper's {of}, got {_show(value)}; "
                    "train another value with gancolor train"
                )
        rows = [row for row in rows if getattr(row.config(), name) in values]
    if not rows:
        chosen = " ".join(f"{flag_of(name)} {_show(value)}" for name, values in given.items() for value in values)
        raise ConfigError(f"the options must leave a row of the paper's table, got {chosen}; leave one out")
    return rows


def differences(paper: Paper, row: PaperRow, config: TrainConfig, facts: Facts) -> list[str]:
    """What differs between the paper's conditions and a row of ours, each in a few words."""
    theirs = paper.pictures_for(config.dataset)
    many = "an unknown number" if theirs.train is None else f"{theirs.train}"
    lines = [f"data: {many} of {theirs.what}; here {facts.trained_on} of {config.dataset}"]
    if theirs.test is not None and theirs.test != facts.tested_on:
        lines.append(f"measured on: {theirs.test} pictures; here {facts.tested_on}")
    if (facts.step, config.batch_size) != (paper.steps, row.config().batch_size):
        epochs = facts.step * config.batch_size / max(1, facts.trained_on)
        lines.append(f"length: {paper.length}; here {facts.step} steps of {config.batch_size} ({epochs:.3g} epochs)")
    if row.weights != "ImageNet" or config.backbone_weights != "imagenet":
        lines.append(f"weights of the frozen network: from {row.weights}; here {weights_words(config)}")
    if row.embedding_width is not None and row.embedding_width != facts.embedding_width:
        lines.append(f"outputs of the embedding: {row.embedding_width}; here {facts.embedding_width}")
    return lines + _other_settings(paper, row, config)


def weights_words(config: TrainConfig) -> str:
    """Where the frozen network's weights come from, in words."""
    known = {"none": "random, never trained", "imagenet": "ImageNet"}
    return known.get(config.backbone_weights, f"the file {Path(config.backbone_weights).name}")


def contradictions(paper: Paper, datasets: Sequence[str]) -> list[str]:
    """Where the paper contradicts itself, the rows whose figures cannot all be true included.

    poster: G_loss = -log D + λ·L1 cannot be below λ·MAE.
    """
    lines = []
    for dataset in datasets:
        for row in paper.rows:
            figures = row.figures(dataset)
            if {"G_loss", "mae"} <= set(figures) and figures["G_loss"] < _LAMBDA * figures["mae"]:
                swept = ", ".join(f"{flag_of(name).strip('-')} {_show(row.settings[name])}" for name in paper.swept)
                lines.append(
                    f"{dataset}, {swept}: with λ = {_LAMBDA:g} its MAE of {figures['mae']:.2f} makes λ·L1 "
                    f"{_LAMBDA * figures['mae']:.0f}, its G_loss is {figures['G_loss']:.2f}, which leaves room for an "
                    f"L1 of about {(figures['G_loss'] - 0.7) / _LAMBDA:.2f}"
                )
    return [*lines, *paper.contradictions]


def _other_settings(paper: Paper, row: PaperRow, config: TrainConfig) -> list[str]:
    base, known = row.config(), settings()
    lines = []
    for item in dataclasses.fields(TrainConfig):
        before, now = getattr(base, item.name), getattr(config, item.name)
        if item.name in _UNTOLD or known[item.name].changeable or before == now:
            continue
        theirs = _show(before) if item.name in paper.stated else f"not said, the preset has {_show(before)}"
        lines.append(f"{flag_of(item.name)}: {theirs}; here {_show(now)}")
    return lines


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and 0 < value < 0.01:
        return f"{value:.0e}".replace("e-0", "e-")  # 2e-4, as the papers write it
    return f"{value:g}" if isinstance(value, float) else str(value)
