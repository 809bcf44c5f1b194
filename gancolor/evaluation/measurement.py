"""Measures runs on the same pictures under one protocol, beside gray and the mean colour of a
training set.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from tqdm import tqdm

from gancolor import color, metrics, tables
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.source import SPLITS, Split
from gancolor.errors import ConfigError, DataError
from gancolor.evaluation import true_points
from gancolor.evaluation.features import FeatureComparison
from gancolor.evaluation.perceptual import Perceptual
from gancolor.evaluation.protocol import (
    Protocol,
    Square,
    Squares,
    describe_run,
    notes_on_seen,
    open_listed,
    training_pictures,
)
from gancolor.evaluation.results import (
    COLUMNS,
    Evaluation,
    Result,
    complete,
    prepare,
    summarize,
    write,
)
from gancolor.images.arrays import Picture
from gancolor.runtime.devices import pick_device, pick_dtype

__all__ = ["Evaluation", "Protocol", "Result", "Shown", "evaluate", "prepare", "write"]

GRAY, MEAN = "gray", "mean color"
"""Names of the baselines' rows."""

SMALLEST = 32  # pixels: LPIPS' network sees nothing in less
_MOST_FOR_MEAN = 1000  # training pictures behind the mean colour
_NO_TRUTH = "the pictures have no colours to compare with"
_LINE_EVERY = 10.0  # seconds, where no bar can be drawn

_log = logging.getLogger("gancolor")


@dataclass
class Shown:
    """One picture as it was measured, all uint8 (N, N, 3): the truth, its gray, and each run's
    colours by row name.

    `values`: the picture's figures for every row, `gray` and `mean color` too.
    """

    index: int
    name: str
    truth: Picture
    gray: Picture
    colored: dict[str, Picture]
    values: dict[str, dict[str, float]]


def evaluate(
    runs: Sequence[Path],
    *,
    dataset: str | None = None,
    split: str = "test",
    datasets_root: str | Path | None = None,
    size: int | None = None,
    fit: str = "crop",
    limit: int | None = None,
    truth: bool | None = None,
    device: str = "auto",
    precision: str = "auto",
    perceptual: bool = True,
    feature_weights: str | None = None,
    points: Sequence[int] = (),
    mean_color: bool = True,
    see: Callable[[Shown], None] | None = None,
) -> Evaluation:
    """Measure runs (directories or checkpoint files), each by its own config, on one list of
    pictures.

    dataset: name or path, by default the one that all runs were trained on. size: side of the
    squares that are measured, by default the largest training size. fit: crop or stretch. limit: at
    most so many pictures, evenly spread. truth: whether the pictures have colours to compare with,
    by default found out. perceptual: LPIPS, FID and KID too. feature_weights: the VGG16 behind
    `fd_vgg16` and `told_apart` (see `features.find`), "none" for neither. points: numbers of true
    points with which runs that take hints are measured too (see `true_points`). mean_color: whether
    the mean colour of training pictures is a baseline. see: is called with every picture. Raises a
    GancolorError for whatever the user can mend.
    """
    _check(runs, split, size, fit, limit)
    colorizers = _load(runs, device, precision)
    if points and not any(colorizer.sight.hints for colorizer in colorizers.values()):
        raise ConfigError(
            f"--hints must be left out unless a run takes hints, got {','.join(map(str, points))}"
            " and none that does; train one with --hints"
        )
    first = next(iter(colorizers.values())).config
    side = size or max(colorizer.config.image_size for colorizer in colorizers.values())
    name = dataset if dataset is not None else _common_dataset(colorizers)
    root = datasets_root or first.datasets_root
    painted = max(side, *(colorizer.config.image_size for colorizer in colorizers.values()))
    try:
        source, notes = open_listed(name, cast("Split", split), root, first.seed, painted)
    except DataError as error:
        if dataset is not None:
            raise
        raise DataError(
            "--dataset must name pictures to measure on, got none, and those of the training"
            f" ({name}) cannot be opened: {error}"
        ) from error
    pictures = Squares(source, side, fit, limit)
    where = pick_device(device)
    protocol = Protocol(
        dataset=name,
        split=split,
        size=side,
        fit=fit,
        has_truth=pictures.has_color() if truth is None else truth,
        device=str(where),
        precision=str(pick_dtype(precision, where)).removeprefix("torch."),
        runs=[
            describe_run(row, path, each)
            for (row, each), path in zip(colorizers.items(), runs, strict=True)
        ],
        notes=notes,
    )
    if protocol.has_truth:
        features = FeatureComparison.load(feature_weights, runs, where)
    else:
        features = FeatureComparison(_NO_TRUTH)
        points = ()
    protocol.points = true_points.PROTOCOL if points else ""
    evaluation = _Measuring(
        protocol, colorizers, pictures, where, perceptual, features, points, root, mean_color
    ).go(see)
    protocol.notes += notes_on_seen(pictures, colorizers, root) + pictures.notes(protocol.has_truth)
    return evaluation


class _Measuring:
    """The loop over the pictures and what it gathers."""

    def __init__(
        self,
        protocol: Protocol,
        colorizers: Mapping[str, Colorizer],
        pictures: Squares,
        device: torch.device,
        perceptual: bool,
        features: FeatureComparison,
        points: Sequence[int],
        root: str | Path | None,
        mean_color: bool,
    ) -> None:
        self.protocol, self.colorizers = protocol, colorizers
        self.pictures, self.device = pictures, device
        self.rows = {name: Result(name) for name in (GRAY, MEAN, *colorizers)}
        self.reasons: dict[str, str] = {}  # why a column is empty in every row
        self.judge = self._open_judge(perceptual)
        self.features, self.points = features, points
        self.gains: dict[str, true_points.Gains] = {}
        self.mean: Tensor | None = None
        if mean_color:
            self.mean = self._find_mean(root)
        else:
            self._leave_out_mean("not asked for")
        self.names: list[str] = []

    def go(self, see: Callable[[Shown], None] | None) -> Evaluation:
        for square in _with_progress(self.pictures):
            shown = self._measure(square)
            self.names.append(square.name)
            for name, values in shown.values.items():
                for key, value in values.items():
                    self.rows[name].pictures.setdefault(key, []).append(value)
            if see is not None:
                see(shown)
            if self.points:
                true_points.measure(
                    self.colorizers, self.points, self.gains, shown.index, square.full, square.truth
                )
        rows = list(self.rows.values())
        distances, apart = self.features.summarize()
        for name in distances.keys() | apart.keys():
            self.rows[name].values |= {"fd_vgg16": distances[name]} if name in distances else {}
            self.rows[name].pictures |= {"told_apart": apart[name]} if name in apart else {}
        self.reasons |= self.features.empty
        self.protocol.features = self.features.lines()
        summarize(rows)
        if self.judge is not None:
            for name, values in self.judge.summarize().items():
                self.rows[name].values |= values
            self.reasons |= self.judge.empty
            self.protocol.perceptual = self.judge.lines()
        for row in rows:
            complete(row, self.reasons)
        self.protocol.pictures, self.protocol.digest = len(self.names), self.pictures.digest
        self.protocol.left_out = self.pictures.broken
        gains: list[tables.TableRow] = [
            row for name, each in self.gains.items() for row in each.rows(name)
        ]
        return Evaluation(self.protocol, self.names, rows, gains)

    def _open_judge(self, wanted: bool) -> Perceptual | None:
        if not self.protocol.has_truth:
            self.reasons = {column.key: _NO_TRUTH for column in COLUMNS if column.needs_truth}
            return None
        if not wanted:
            self.reasons = dict.fromkeys(("lpips", "fid", "kid"), "not asked for")
            self.protocol.perceptual = ["LPIPS, FID, KID: not asked for (--no-perceptual)"]
            return None
        return Perceptual.load(self.device)

    def _find_mean(self, root: str | Path | None) -> Tensor | None:
        """The mean a*b* of the first run's training pictures, (1, 2, S, S); None, with the reason
        in its row.
        """
        config = next(iter(self.colorizers.values())).config
        try:
            try:
                source = training_pictures(config, "train", root)
            except DataError as error:
                raise DataError(
                    f"the training pictures of the first run ({config.dataset}) are not here"
                ) from error
            found = Squares(source, self.protocol.size, self.protocol.fit, _MOST_FOR_MEAN)
            _log.info("reading %d training pictures for the row '%s'", len(found), MEAN)
            total = torch.zeros(1, 2, self.protocol.size, self.protocol.size)
            for square in found:
                total += color.split(color.to_tensor(square.truth))[1]
        except DataError as error:
            self._leave_out_mean(str(error))
            return None
        self.protocol.mean_color = (
            f"at each pixel position, the mean a*b* of {len(found.seen)} of the {len(source)}"
            f" training pictures of {config.dataset}, the first run's, joined with the picture's"
            " own L*"
        )
        return total / len(found.seen)

    def _leave_out_mean(self, reason: str) -> None:
        self.rows[MEAN].empty = dict.fromkeys((column.key for column in COLUMNS), reason)
        self.protocol.mean_color = f"empty: {reason}"

    def _measure(self, square: Square) -> Shown:
        truth = color.to_tensor(square.truth).contiguous()
        baselines = {GRAY: color.to_arrays(metrics.gray_picture(truth))[0]}
        if self.mean is not None:
            baselines[MEAN] = color.to_arrays(
                color.merge_in_gamut(color.split(truth)[0], self.mean)
            )[0]
        colored = {
            name: colorizer.paint(square.truth, colorizer.predict(square.full))
            for name, colorizer in self.colorizers.items()
        }
        tensors = {
            name: color.to_tensor(rgb).contiguous().to(self.device)
            for name, rgb in (baselines | colored).items()
        }
        truth = truth.to(self.device)
        values = measure_all(truth, tensors, self.protocol.has_truth)
        self.features.see(truth, tensors)
        if self.judge is not None:
            for name, distance in self.judge.see(truth, tensors).items():
                values[name]["lpips"] = distance
        return Shown(len(self.names), square.name, square.truth, baselines[GRAY], colored, values)


@torch.inference_mode()
def measure_all(
    truth: Tensor, colored: Mapping[str, Tensor], has_truth: bool
) -> dict[str, dict[str, float]]:
    """Figures of one picture's colourings by row name, all uint8 (1, 3, S, S); without truth only
    their own.
    """
    predicted = torch.cat(list(colored.values())).float() / 255
    figures = {"colorfulness_abs": metrics.colorfulness(predicted, absolute=True)}
    if has_truth:
        true = (truth.float() / 255).expand(predicted.shape)
        figures |= metrics.measure(predicted, true)
        figures["ssim"] = metrics.ssim(predicted, true)
        figures["colorfulness_truth_abs"] = metrics.colorfulness(true, absolute=True)
    else:
        figures["colorfulness"] = metrics.colorfulness(predicted)
    columns = {key: values.tolist() for key, values in figures.items()}
    return {
        name: {key: values[at] for key, values in columns.items()}
        for at, name in enumerate(colored)
    }


def _check(runs: Sequence[Path], split: str, size: int | None, fit: str, limit: int | None) -> None:
    if not runs:
        raise ConfigError("runs must name at least one, got none; for example: gancolor evaluate 7")
    if split not in (*SPLITS, "all"):
        raise ConfigError(f"--split must be one of {', '.join(SPLITS)}, all, got {split}")
    if fit not in ("crop", "stretch"):
        raise ConfigError(f"--fit must be crop or stretch, got {fit}")
    if size is not None and size < SMALLEST:
        raise ConfigError(f"--size must be at least {SMALLEST}, got {size}")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")


def _load(runs: Sequence[Path], device: str, precision: str) -> dict[str, Colorizer]:
    """The runs' colorizers by row name, made unique: the directory's, with the file's where one was
    named; the file's alone for a model of safetensors that is no run's.
    """
    colorizers: dict[str, Colorizer] = {}
    for path in runs:
        stem = path.resolve().name if path.is_dir() else path.stem
        if path.is_file() and (path.suffix == ".pt" or (path.parent / "config.json").is_file()):
            stem = f"{path.resolve().parent.name}-{stem}"
        named = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        taken = {GRAY, MEAN, *colorizers}
        colorizers[next(name for name in named if name not in taken)] = Colorizer.load(
            path, device=device, precision=precision
        )
    return colorizers


def _common_dataset(colorizers: Mapping[str, Colorizer]) -> str:
    found = {name: colorizer.config.dataset for name, colorizer in colorizers.items()}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{dataset} ({name})" for name, dataset in found.items())
        raise ConfigError(
            "--dataset must be given when the runs were trained on different ones, got none;"
            f" {listed}"
        )
    return next(iter(found.values()))


def _with_progress(pictures: Squares) -> Iterator[Square]:
    """A bar on a terminal, else a line now and then; pictures per second at the end."""
    start = said = time.monotonic()
    done = 0
    bar = tqdm(
        total=len(pictures),
        unit="picture",
        disable=not sys.stderr.isatty(),
        leave=False,
        dynamic_ncols=True,
    )
    with bar:
        for square in pictures:
            yield square
            done += 1
            bar.update()
            now = time.monotonic()
            if bar.disable and now - said >= _LINE_EVERY:
                said = now
                _log.info(
                    "%d of %d pictures, %.1f pictures/s", done, len(pictures), done / (now - start)
                )
    elapsed = time.monotonic() - start
    _log.info("%d pictures in %.0f s, %.1f pictures/s", done, elapsed, done / max(elapsed, 1e-9))
