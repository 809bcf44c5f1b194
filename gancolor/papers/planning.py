"""What a reproduction has to do: the paper's rows with their settings, and what of them is there already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gancolor import checkpoint
from gancolor.config import TrainConfig, flag_of, settings
from gancolor.errors import ConfigError, DataError
from gancolor.models.backbones import load_backbone
from gancolor.models.embeddings import EMBEDDINGS, identify, load_embedding
from gancolor.papers.conditions import select
from gancolor.papers.published import ANY, Paper, PaperRow, find
from gancolor.texts import json_of
from gancolor.training import directory
from gancolor.training.preparation import open_pictures, planned_steps

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
_SMOKE_DATASET = "still-life"
_ENDS = {"steps", "epochs", "time_limit"}
_FIXED = {"preset", "name", "network", "backbone_weights"}  # the rows' own, and `weights`


@dataclass
class Planned:
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


def default_out(name: str, smoke: bool) -> Path:
    """The folder of a reproduction unless told otherwise."""
    return checkpoint.runs_root() / f"reproduce-{name}{'-smoke' if smoke else ''}"


def plan(
    name: str, *, overrides: Mapping[str, Any], weights: Mapping[str, str], out: Path, smoke: bool = False
) -> list[Planned]:
    """The paper's rows with their settings and what of them is there already in `out`; writes nothing.

    `overrides`: settings by name; a swept one chooses rows, and `dataset` may hold several. `weights`: of the frozen
    network by its name, "" for all others. ConfigError for options that no row can have, or when a row is there with
    other settings; DataError, for all data sets at once, when pictures are missing.
    """
    paper = find(name)
    rows = [Planned(row, config) for row, config in configs(paper, overrides, weights, smoke)]
    counts = _count_pictures([item.config for item in rows])
    for item in rows:
        item.pictures = counts[item.config.dataset]
        _find(item, out)
    return rows


def describe(rows: list[Planned]) -> str:
    """The plan for people, a line a row."""
    lines = []
    for item in rows:
        steps = planned_steps(item.config, item.pictures)
        ends = [f"{steps} steps"] if steps is not None else []
        if item.config.time_limit is not None:
            ends.append(f"{item.config.time_limit:g} s")
        lines.append(
            f"{item.name}: {item.state}; {' or '.join(ends)} of {item.config.batch_size} at {item.config.image_size} "
            f"pixels, {item.pictures} pictures of {item.config.dataset}, weights {item.config.backbone_weights}"
        )
    return "\n".join(lines)


def check_weights(rows: list[Planned], *, download: bool = True) -> None:
    """Load each weights file that a row to be trained needs: an unfit one is reported before hours of training."""
    for network, weights in dict.fromkeys(
        (frozen_network(item.config), item.config.backbone_weights) for item in rows if not item.done and not item.run
    ):
        if network != "unet":
            identify(network, weights)  # a file that is not there, or imagenet where nobody published any
            with torch.device("meta"):
                EMBEDDINGS[network].build()  # MissingExtra
        if weights == "none" or (weights == "imagenet" and not download):
            continue
        if network == "unet":
            load_backbone(weights)
        else:
            load_embedding(network, weights)


def read_report(run: Path) -> dict[str, Any] | None:
    """What a run that ended by itself left; None of another."""
    try:
        report = json_of((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def frozen_network(config: TrainConfig) -> str:
    """Which frozen network a config looks through: 'unet' for the U-Net's own VGG16, else the embedding's name."""
    return "unet" if config.network == "unet" else config.embedding


def configs(
    paper: Paper, overrides: Mapping[str, Any], weights: Mapping[str, str], smoke: bool
) -> list[tuple[PaperRow, TrainConfig]]:
    """Each row that was asked for, on each data set, with its settings. See `plan`."""
    if fixed := sorted(_FIXED & set(overrides)):
        raise ConfigError(f"{flag_of(fixed[0])} must be left to the paper's rows, got {overrides[fixed[0]]}")
    given = dict(overrides)
    datasets = _several(given.pop("dataset", None)) or ([_SMOKE_DATASET] if smoke else list(paper.datasets))
    rows = select(paper, {name: _several(given.pop(name)) for name in paper.swept if name in given})
    given = {name: _only(name, value) for name, value in given.items()}
    known = {_backbone(row.config()) for row in paper.rows} | {ANY}
    if unknown := sorted(set(weights) - known):
        raise ConfigError(f"weights must be of {', '.join(sorted(known - {ANY}))}, got some of {unknown[0]}")
    ends: dict[str, Any] = {"steps": SMOKE["steps"]} if smoke else {"epochs": paper.epochs}
    base = {**(SMOKE if smoke else {}), "steps": None, **({} if _ENDS & set(given) else ends), **given}
    configs = []
    for dataset, name in zip(datasets, _folders(paper, datasets), strict=True):
        for row in rows:
            network = given.get("embedding") or _backbone(row.config())
            chosen = weights.get(network, weights.get(ANY, "none" if smoke else "imagenet"))
            own = {"name": name + row.name, "dataset": dataset, "backbone_weights": chosen}
            configs.append((row, row.config(**{**base, **own})))
    return configs


def _folders(paper: Paper, datasets: list[str]) -> list[str]:
    """What precedes a row's name for each data set."""
    if len(paper.datasets) == 1:
        if len(datasets) > 1:
            raise ConfigError(f"--dataset must be given once for this paper, got {len(datasets)} of them")
        return [""]
    folders = [folder_name(dataset) for dataset in datasets]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"--dataset must name folders of different names, got {', '.join(datasets)}")
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


def _find(item: Planned, out: Path) -> None:
    """The row's run, if one with a checkpoint is there; ConfigError when its settings are others."""
    shape = re.compile(rf"\d+-{re.escape(item.name)}")
    runs = [path for path in out.glob("[0-9]*-*") if shape.fullmatch(path.name)]
    runs = [path for path in runs if (path / "last.pt").exists() or (path / "last-1.pt").exists()]
    if not runs:
        return
    item.run = max(runs, key=lambda path: int(path.name.split("-")[0]))
    saved = directory.read_config(item.run)
    try:
        directory.merge_settings(saved, item.config.to_json())
    except ConfigError as error:
        raise ConfigError(
            f"the row {item.name} is there with other settings; give the same options as before, or --out another "
            f"folder for new runs ({error})"
        ) from error
    item.done = _is_done(item, saved)


def _is_done(item: Planned, saved: TrainConfig) -> bool:
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
    return by_time and limit is not None and saved.time_limit is not None and limit <= saved.time_limit


def _backbone(config: TrainConfig) -> str:
    return "vgg16" if config.network == "unet" else config.embedding


def folder_name(dataset: str) -> str:
    """What a data set is called in names of runs and folders."""
    return re.sub(r"[^\w.+-]+", "-", Path(dataset).name) or "pictures"


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _only(name: str, value: Any) -> Any:
    """The value of an option that `gancolor train` takes several times."""
    if not settings()[name].sweep:
        return value
    values = _several(value)
    if len(values) != 1:
        raise ConfigError(f"{flag_of(name)} must be given once, got {len(values)} values; the paper's rows vary others")
    return values[0]
