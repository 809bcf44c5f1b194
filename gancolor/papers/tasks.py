"""What a reproduction has to do: the paper's rows with their settings, and what is there already.

`plan` gives the rows that were asked for. `differences` and `contradictions` say of a row, once it
is trained, how its conditions differ from the paper's, and of the paper which of its figures cannot
be true.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gancolor.config import TrainConfig, flag_of, settings
from gancolor.errors import ConfigError, DataError
from gancolor.models.backbones import load_backbone
from gancolor.models.embeddings import EMBEDDINGS, identify, load_embedding
from gancolor.papers.published import ANY, Paper, PaperRow, find
from gancolor.runtime.files import json_of
from gancolor.storage import checkpoint
from gancolor.training import rundir
from gancolor.training.plan import open_pictures, planned_steps

SMOKE: dict[str, Any] = {
    "image_size": 64,
    "batch_size": 4,
    "steps": 12,
    "val_pictures": 8,
    "workers": 0,
    "log_every": 1,
    "validate_every": 1000,
    "checkpoint_every": 1000,
}
"""The settings of a smoke test, which shows in a minute that everything runs."""

_SMOKE_DATASET = "still-life"
_ENDS = {"steps", "epochs", "time_limit"}
_FIXED = {"preset", "name", "network", "backbone_weights"}  # the rows' own, and `weights`
_LAMBDA = 100.0  # the poster's weight of L1, which its text does not say

# Settings that change nothing a paper could have said, or that `differences` tells in its own
# words.
_UNTOLD = {"preset", "name", "dataset", "backbone_weights", "val_pictures", "seed"}


@dataclass
class PlannedRow:
    """A row to train: its settings, the pictures it has, and the run it has become, if any."""

    row: PaperRow
    config: TrainConfig
    pictures: int = 0
    run: Path | None = None
    done: bool = False
    failure: str | None = None

    @property
    def name(self) -> str:
        """Name of its run directory after the number."""
        return str(self.config.name)

    @property
    def state(self) -> str:
        """What there is to do, in words."""
        if self.failure:
            return self.failure
        return "finished" if self.done else "goes on" if self.run else "to be trained"


class RowFacts(NamedTuple):
    """What is known of a trained row beside its settings; None where it is not trained."""

    trained_on: int
    tested_on: int
    step: int
    seconds: float
    embedding_width: int | None


def default_out(name: str, smoke: bool) -> Path:
    """The folder of a reproduction unless told otherwise."""
    return checkpoint.runs_root() / f"reproduce-{name}{'-smoke' if smoke else ''}"


def plan(
    name: str,
    *,
    overrides: Mapping[str, Any],
    weights: Mapping[str, str],
    out: Path,
    smoke: bool = False,
) -> list[PlannedRow]:
    """The paper's rows with their settings and what of them is there already in `out`; writes
    nothing.

    `overrides`: settings by name; a swept one chooses rows, and `dataset` may hold several.
    `weights`: of the frozen network by its name, "" for all others. ConfigError for options that no
    row can have, or when a row is there with other settings; DataError, for all data sets at once,
    when pictures are missing.
    """
    paper = find(name)
    rows = [PlannedRow(row, config) for row, config in configs(paper, overrides, weights, smoke)]
    counts = _count_pictures([item.config for item in rows])
    for item in rows:
        item.pictures = counts[item.config.dataset]
        _find(item, out)
    return rows


def describe(rows: list[PlannedRow]) -> str:
    """The plan for people, a line a row."""
    lines = []
    for item in rows:
        steps = planned_steps(item.config, item.pictures)
        ends = [f"{steps} steps"] if steps is not None else []
        if item.config.time_limit is not None:
            ends.append(f"{item.config.time_limit:g} s")
        lines.append(
            f"{item.name}: {item.state}; {' or '.join(ends)} of {item.config.batch_size} at"
            f" {item.config.image_size} pixels, {item.pictures} pictures of {item.config.dataset},"
            f" weights {item.config.backbone_weights}"
        )
    return "\n".join(lines)


def check_weights(rows: list[PlannedRow], *, download: bool = True) -> None:
    """Load each weights file that a row to be trained needs: an unfit one is reported before hours
    of training.
    """
    for embedding, weights in dict.fromkeys(
        (config.embedding if config.takes_embedding else None, config.backbone_weights)
        for config in (item.config for item in rows if not item.done and not item.run)
    ):
        if embedding is not None:
            # A file that is not there, or imagenet where nobody published any.
            identify(embedding, weights)
            with torch.device("meta"):
                EMBEDDINGS[embedding].build()  # MissingExtra
        if weights == "none" or (weights == "imagenet" and not download):
            continue
        if embedding is None:
            load_backbone(weights)
        else:
            load_embedding(embedding, weights)


def select(paper: Paper, given: Mapping[str, Sequence[Any]]) -> list[PaperRow]:
    """The rows with the given values of swept settings; ConfigError names values, or pairs, that no
    row has.
    """
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
        chosen = " ".join(
            f"{flag_of(name)} {_show(value)}" for name, values in given.items() for value in values
        )
        raise ConfigError(
            f"the options must leave a row of the paper's table, got {chosen}; leave one out"
        )
    return rows


def configs(
    paper: Paper, overrides: Mapping[str, Any], weights: Mapping[str, str], smoke: bool
) -> list[tuple[PaperRow, TrainConfig]]:
    """Each row that was asked for, on each data set, with its settings. See `plan`."""
    if fixed := sorted(_FIXED & set(overrides)):
        raise ConfigError(
            f"{flag_of(fixed[0])} must be left to the paper's rows, got {overrides[fixed[0]]}"
        )
    given = dict(overrides)
    datasets = _several(given.pop("dataset", None)) or (
        [_SMOKE_DATASET] if smoke else list(paper.datasets)
    )
    rows = select(paper, {name: _several(given.pop(name)) for name in paper.swept if name in given})
    given = {name: _only(name, value) for name, value in given.items()}
    known = {_backbone(row.config()) for row in paper.rows} | {ANY}
    if unknown := sorted(set(weights) - known):
        raise ConfigError(
            f"weights must be of {', '.join(sorted(known - {ANY}))}, got some of {unknown[0]}"
        )
    ends: dict[str, Any] = {"steps": SMOKE["steps"]} if smoke else {"epochs": paper.epochs}
    base = {
        **(SMOKE if smoke else {}),
        "steps": None,
        **({} if _ENDS & set(given) else ends),
        **given,
    }
    configs = []
    for dataset, name in zip(datasets, _folders(paper, datasets), strict=True):
        for row in rows:
            network = given.get("embedding") or _backbone(row.config())
            chosen = weights.get(network, weights.get(ANY, "none" if smoke else "imagenet"))
            own = {"name": name + row.name, "dataset": dataset, "backbone_weights": chosen}
            configs.append((row, row.config(**{**base, **own})))
    return configs


def differences(paper: Paper, row: PaperRow, config: TrainConfig, facts: RowFacts) -> list[str]:
    """What differs between the paper's conditions and a row of ours, each in a few words."""
    theirs = paper.pictures_for(config.dataset)
    many = "an unknown number" if theirs.train is None else f"{theirs.train}"
    lines = [f"data: {many} of {theirs.what}; here {facts.trained_on} of {config.dataset}"]
    if theirs.test is not None and theirs.test != facts.tested_on:
        lines.append(f"measured on: {theirs.test} pictures; here {facts.tested_on}")
    if (facts.step, config.batch_size) != (paper.steps, row.config().batch_size):
        epochs = facts.step * config.batch_size / max(1, facts.trained_on)
        lines.append(
            f"length: {paper.length}; here {facts.step} steps of {config.batch_size} ({epochs:.3g}"
            " epochs)"
        )
    if row.weights != "ImageNet" or config.backbone_weights != "imagenet":
        lines.append(
            f"weights of the frozen network: from {row.weights}; here {weights_words(config)}"
        )
    if row.embedding_width is not None and row.embedding_width != facts.embedding_width:
        lines.append(
            f"outputs of the embedding: {row.embedding_width}; here {facts.embedding_width}"
        )
    return lines + _other_settings(paper, row, config)


def contradictions(paper: Paper, datasets: Sequence[str]) -> list[str]:
    """Where the paper contradicts itself, the rows whose figures cannot all be true included.

    poster: G_loss = -log D + λ·L1 cannot be below λ·MAE.
    """
    lines = []
    for dataset in datasets:
        for row in paper.rows:
            figures = row.figures(dataset)
            if {"G_loss", "mae"} <= set(figures) and figures["G_loss"] < _LAMBDA * figures["mae"]:
                swept = ", ".join(
                    f"{flag_of(name).strip('-')} {_show(row.settings[name])}"
                    for name in paper.swept
                )
                lines.append(
                    f"{dataset}, {swept}: with λ = {_LAMBDA:g} its MAE of {figures['mae']:.2f}"
                    f" makes λ·L1 {_LAMBDA * figures['mae']:.0f}, its G_loss is"
                    f" {figures['G_loss']:.2f}, which leaves room for an L1 of about"
                    f" {(figures['G_loss'] - 0.7) / _LAMBDA:.2f}"
                )
    return [*lines, *paper.contradictions]


def weights_words(config: TrainConfig) -> str:
    """Where the frozen network's weights come from, in words."""
    known = {"none": "random, never trained", "imagenet": "ImageNet"}
    return known.get(config.backbone_weights, f"the file {Path(config.backbone_weights).name}")


def read_report(run: Path) -> dict[str, Any] | None:
    """What a run that ended by itself left; None of another."""
    try:
        report = json_of((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def folder_name(dataset: str) -> str:
    """What a data set is called in names of runs and folders."""
    return re.sub(r"[^\w.+-]+", "-", Path(dataset).name) or "pictures"


def _other_settings(paper: Paper, row: PaperRow, config: TrainConfig) -> list[str]:
    base, known = row.config(), settings()
    lines = []
    for item in dataclasses.fields(TrainConfig):
        before, now = getattr(base, item.name), getattr(config, item.name)
        if item.name in _UNTOLD or known[item.name].changeable or before == now:
            continue
        theirs = (
            _show(before)
            if item.name in paper.stated
            else f"not said, the preset has {_show(before)}"
        )
        lines.append(f"{flag_of(item.name)}: {theirs}; here {_show(now)}")
    return lines


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and 0 < value < 0.01:
        return f"{value:.0e}".replace("e-0", "e-")  # 2e-4, as the papers write it
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folders(paper: Paper, datasets: list[str]) -> list[str]:
    """What precedes a row's name for each data set."""
    if len(paper.datasets) == 1:
        if len(datasets) > 1:
            raise ConfigError(
                f"--dataset must be given once for this paper, got {len(datasets)} of them"
            )
        return [""]
    folders = [folder_name(dataset) for dataset in datasets]
    if len(set(folders)) < len(folders):
        raise ConfigError(
            f"--dataset must name folders of different names, got {', '.join(datasets)}"
        )
    return [f"{folder}-" for folder in folders]


def _count_pictures(configs: list[TrainConfig]) -> dict[str, int]:
    """Training pictures by data set; all that is missing is said at once."""
    counts, missing = {}, []
    for config in {config.dataset: config for config in configs}.values():
        try:
            counts[config.dataset] = len(open_pictures(config, "train"))
            open_pictures(config, "val")
            open_pictures(config, "test")
        except DataError as error:
            missing.append(str(error))
    if missing:
        raise DataError(" | ".join(missing))
    return counts


def _find(item: PlannedRow, out: Path) -> None:
    """The row's run, if one with a checkpoint is there; ConfigError when its settings are others."""
    shape = re.compile(rf"\d+-{re.escape(item.name)}")
    runs = [path for path in out.glob("[0-9]*-*") if shape.fullmatch(path.name)]
    runs = [path for path in runs if (path / "last.pt").exists() or (path / "last-1.pt").exists()]
    if not runs:
        return
    item.run = max(runs, key=lambda path: int(path.name.split("-")[0]))
    saved = rundir.read_config(item.run)
    try:
        rundir.merge_settings(saved, item.config.to_json())
    except ConfigError as error:
        raise ConfigError(
            f"the row {item.name} is there with other settings; give the same options as before, or"
            f" --out another folder for new runs ({error})"
        ) from error
    item.done = _is_done(item, saved)


def _is_done(item: PlannedRow, saved: TrainConfig) -> bool:
    """Whether the run ended by itself, and not before the end that is asked for now."""
    assert item.run is not None
    report = read_report(item.run)
    if report is None:  # interrupted: only a run that ends by itself leaves one
        return False
    total, before = planned_steps(item.config, item.pictures), planned_steps(saved, item.pictures)
    if total is not None and report["step"] >= total:
        return True
    limit = item.config.time_limit
    by_time = before is None or report["step"] < before
    return (
        by_time and limit is not None and saved.time_limit is not None and limit <= saved.time_limit
    )


def _backbone(config: TrainConfig) -> str:
    """What `weights` calls a config's frozen network: of the U-Net it is VGG16."""
    return config.embedding if config.takes_embedding else "vgg16"


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _only(name: str, value: Any) -> Any:
    """The value of an option that `gancolor train` takes several times."""
    if not settings()[name].sweep:
        return value
    values = _several(value)
    if len(values) != 1:
        raise ConfigError(
            f"{flag_of(name)} must be given once, got {len(values)} values; the paper's rows vary"
            " others"
        )
    return values[0]
