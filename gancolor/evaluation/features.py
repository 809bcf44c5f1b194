"""How much true and coloured pictures look alike to a frozen VGG16 that is at hand.

Two figures say it, each a number or the reason why there is none: a distance of the features of both
sets, and how often a classifier tells a picture's true and coloured version apart. What computes
them are pure functions on arrays of features, float64 inside, on the CPU.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor.errors import CheckpointError, WeightsError
from gancolor.models.backbones import VGG16, describe, load_backbone
from gancolor.models.pretrained import build_empty, find_problems, read_state
from gancolor.storage import checkpoint

KEYS = ("fd_vgg16", "told_apart")
"""The columns: a distance, and a percentage that is 50 when nobody can tell and 100 when everybody
can.
"""

FOLDS = 5

FEWEST = 10
"""Pictures that `told_apart` needs: two a fold."""

RIDGE = 0.001
"""What the squared weights of `told_apart`'s classifier cost; docs/evaluation.md says how it was
chosen.
"""

LEAST_SHARE = 0.1
"""Share of the true pictures in which a channel must answer: a rarer one would be decided by a
picture or two.
"""

_ROUNDING = 1e-6  # a channel's deviation over its mean below which the deviation is rounding
_FILES = ("best.pt", "last.pt", "last-1.pt")

_NONE = (
    "no run's checkpoint holds a frozen VGG16 of five blocks; name one, or a file or a run with"
    " one, with --feature-weights"
)

_log = logging.getLogger("gancolor")

FeatureArray = NDArray[np.float64]


class Seeing(NamedTuple):
    """A VGG16 of five blocks and in words where it comes from."""

    network: VGG16
    words: str


class FeatureComparison:
    """Gathers what a network sees of each true picture and of its colourings by row.

    seeing: the network, on the pictures' device, or the reason why there is none. `empty` says by
    column why it has no numbers.
    """

    def __init__(self, seeing: Seeing | str) -> None:
        self.empty: dict[str, str] = dict.fromkeys(KEYS, seeing) if isinstance(seeing, str) else {}
        self._seeing = seeing
        self._true: list[Tensor] = []
        self._colored: dict[str, list[Tensor]] = {}
        self._kept = self._width = 0

    @classmethod
    def load(
        cls, weights: str | None, runs: Sequence[Path], device: torch.device
    ) -> FeatureComparison:
        """With the network that `find` finds."""
        seeing = find(weights, runs)
        if isinstance(seeing, Seeing):
            seeing.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        else:
            _log.info("%s will be empty: %s", ", ".join(KEYS), seeing)
        return cls(seeing)

    @torch.inference_mode()
    def see(self, truth: Tensor, colored: Mapping[str, Tensor]) -> None:
        """Take in one picture, uint8 (1, 3, S, S) on the network's device, and its colourings by
        row.
        """
        if isinstance(self._seeing, str):
            return
        self._true.append(pool(self._seeing.network, truth))
        for row, picture in colored.items():
            self._colored.setdefault(row, []).append(pool(self._seeing.network, picture))

    def summarize(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        """By row the distance, and for each picture in percent how often its two versions were told
        apart.

        What cannot be had is missing, with a reason in `empty`.
        """
        distances: dict[str, float] = {}
        apart: dict[str, list[float]] = {}
        if isinstance(self._seeing, str):
            return distances, apart
        true, count = _stack(self._true), len(self._true)
        standard = standardize(true, true)
        self._width, self._kept = true.shape[1], standard.shape[1]
        for key, least in zip(KEYS, (2, FEWEST), strict=True):
            if count < least:
                self.empty[key] = f"needs at least {least} pictures, got {count}"
            elif not self._kept:
                self.empty[key] = "the true pictures are all the same to VGG16"
        for row, seen in self._colored.items():
            colored = standardize(_stack(seen), true)
            if "fd_vgg16" not in self.empty:
                distances[row] = frechet_distance(colored, standard)
            if "told_apart" not in self.empty:
                apart[row] = (100 * told_apart(standard, colored)).tolist()
        return distances, apart

    def lines(self) -> list[str]:
        """What the numbers are made with, for the protocol."""
        if isinstance(self._seeing, str):
            return []
        taps = ", ".join(tap.name for tap in VGG16.TAPS)
        return [
            (
                f"VGG16 of FD VGG16 and told apart: {self._seeing.words}; in float32, means over"
                f" the picture of {taps}, each channel divided by its standard deviation over the"
                f" true pictures; {self._kept} of {self._width} channels (the others are 0 in more"
                f" than {1 - LEAST_SHARE:.0%} of these pictures)"
            ),
            (
                "FD VGG16: Frechet distance of these features; no FID, comparable only with the"
                " same network and list"
            ),
            (
                "told apart: held-out accuracy of a linear classifier of true against coloured on"
                f" these features, ridge {RIDGE:g}, {FOLDS} folds, seed 0, both versions of a"
                " picture in the same fold"
            ),
        ]


def pool(network: VGG16, rgb: Tensor) -> Tensor:
    """The means over the picture of every tap's channels; uint8 (B, 3, H, W) -> float32 (B,
    channels) on the CPU.
    """
    maps = network((rgb.float() / 255).contiguous(memory_format=torch.channels_last))
    return torch.cat([tap.float().mean(dim=(2, 3)) for tap in maps], dim=1).cpu()


def standardize(features: FeatureArray, true: FeatureArray) -> FeatureArray:
    """Divide channels by their standard deviations over the true pictures; (N, width), (M, width)
    -> (N, kept).

    Channels that are the same in all true pictures, or 0 in more than 1 - `LEAST_SHARE` of them,
    are left out. So the scale of a channel, or of a network, plays no part.
    """
    deviation = true.std(axis=0)
    kept = deviation > _ROUNDING * np.abs(true).mean(axis=0)
    kept &= (true != 0).mean(axis=0) >= LEAST_SHARE
    standard: FeatureArray = features[:, kept] / deviation[kept]
    return standard


def frechet_distance(first: FeatureArray, second: FeatureArray) -> float:
    """The squared Frechet distance of two Gaussians with the sets' means and covariances; (N,
    width), (M, width).

    Dowson and Landau (1982), as in Heusel et al. (2017): |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)),
    covariances over N - 1. With A'A = C1 and B'B = C2 the trace of the root is the sum of the
    singular values of AB', which is as small as the sets are: exact with fewer pictures than
    channels too. ValueError for fewer than two of either.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"each set must have at least two pictures, got {len(first)} and {len(second)}"
        )
    roots = [_root(features) for features in (first, second)]
    shift = first.mean(axis=0) - second.mean(axis=0)
    together = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + sum((root**2).sum() for root in roots) - 2 * together))


def told_apart(true: FeatureArray, colored: FeatureArray, seed: int = 0) -> NDArray[np.float64]:
    """How often a linear classifier tells each picture's true and coloured version right that it
    was not trained on.

    Takes the features of the same N pictures in the same order, standardized, (N, width) twice.
    Returns 0, 0.5 or 1 for each picture, (N,): the mean is 0.5 when nobody can tell, 1 when
    everybody can. Ridge regression on +1 for true and -1 for coloured, trained on four fifths of
    the pictures; both versions are in the same fold. Which is which fold comes from `seed` and N
    alone. ValueError for fewer than `FEWEST`.
    """
    count = len(true)
    if count < FEWEST:
        raise ValueError(f"there must be at least {FEWEST} pictures, got {count}")
    fold = np.empty(count, np.int64)
    fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % FOLDS
    correct = np.empty(count)
    for number in range(FOLDS):
        held = fold == number
        known = np.concatenate((true[~held], colored[~held]))
        center = known.mean(axis=0)
        weights = _ridge(known - center, np.repeat((1.0, -1.0), len(known) // 2))
        # Above 0 where it is right.
        scores = ((true[held] - center) @ weights, -(colored[held] - center) @ weights)
        correct[held] = np.heaviside(scores, 0.5).mean(axis=0)
    return correct


def find(weights: str | None, runs: Sequence[Path] = ()) -> Seeing | str:
    """The network that `weights` asks for, or the reason why there is none.

    weights: as `models.backbones.load_backbone`, but that "none" asks for no network; or a run
    directory or checkpoint that holds one. None: of the first of `runs` (directories or checkpoint
    files) that holds a trained one, else of the first that holds a random one. WeightsError when
    what was asked for cannot be had.
    """
    if weights == "none":
        return "not asked for (--feature-weights none)"
    if weights is None:
        return _find_among(runs)
    path = Path(weights)
    try:
        if weights == "imagenet" or not _holds_runs(path):
            network = load_backbone(weights)
            return Seeing(network, f"{describe(weights)}, {_fingerprint(network)}")
    except WeightsError as error:
        raise WeightsError(_reword(str(error))) from error
    if found := _find_in_run(path):
        return found[0]
    raise WeightsError(
        f"{path} must hold a frozen VGG16 of five blocks, got none; name another run or VGG16's own"
        " file with --feature-weights PATH, or go without with --feature-weights none"
    )


def _root(features: FeatureArray) -> FeatureArray:
    """A with A'A = the covariance, of at most as many rows as channels."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return (
        np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred
    )


def _ridge(x: FeatureArray, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The w that minimizes the mean of (x w - y)^2 + `RIDGE` width |w|^2; (n, width), (n,) ->
    (width,).
    """
    count, width = x.shape
    cost = RIDGE * count * width
    if count > width:
        return np.linalg.solve(x.T @ x + cost * np.eye(width), x.T @ y)
    # The same, for (X'X + c)^-1 X' = X' (XX' + c)^-1.
    return x.T @ np.linalg.solve(x @ x.T + cost * np.eye(count), y)


def _stack(seen: Sequence[Tensor]) -> FeatureArray:
    return torch.cat(list(seen)).numpy().astype(np.float64)


def _find_among(runs: Sequence[Path]) -> Seeing | str:
    spare: Seeing | None = None
    for run in runs:
        if found := _find_in_run(run):
            seeing, is_trained = found
            if is_trained:
                return seeing
            spare = spare or seeing
    return spare or _NONE


def _find_in_run(path: Path) -> tuple[Seeing, bool] | None:
    """The frozen VGG16 of a run directory or checkpoint file, and whether it was trained on
    anything.
    """
    files = [path / name for name in _FILES] if path.is_dir() else [path]
    for file in files:
        try:
            content = checkpoint.load(file)
        except CheckpointError:
            continue
        for state in _states(content):
            network = build_empty(VGG16)
            if find_problems(state, network.state_dict()) is None:
                network.load_state_dict(state)
                network.freeze()
                run = file.resolve().parent.name
                words = f"{run}'s {file.name}, {_origin(content)}, {_fingerprint(network)}"
                return Seeing(network, words), content["config"].backbone_weights != "none"
    return None


def _origin(content: Mapping[str, Any]) -> str:
    """Where a checkpoint's VGG16 comes from. What it says of its origin is the encoder's, which may
    be another.
    """
    config = content["config"]
    if config.backbone == "vgg16":
        return str(content.get("origin", "not known"))
    return f"of --backbone-weights {Path(config.backbone_weights).name}"


def _states(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What in a checkpoint may be a frozen VGG16: that of a whole run, the encoder of a generator."""
    config = content["config"]
    if config.takes_embedding:
        return
    yield content.get("backbone", {})
    if not config.train_backbone:
        encoder = (
            (key.removeprefix("encoder."), value)
            for key, value in content.get("generator", {}).items()
        )
        yield {key: value for key, value in encoder if key.startswith("features.")}


def _holds_runs(path: Path) -> bool:
    """Whether it is a directory or a checkpoint, not a file of weights. WeightsError when it is no
    such thing.
    """
    if path.is_dir():
        return True
    loaded = read_state(path, "VGG16")
    return "format" in loaded and "config" in loaded


def _reword(words: str) -> str:
    """An error about --backbone-weights as one about --feature-weights."""
    words = words.replace("--backbone-weights", "--feature-weights")
    return (
        "feature" + words.removeprefix("backbone")
        if words.startswith("backbone weights")
        else words
    )


def _fingerprint(network: VGG16) -> str:
    """The beginning of a SHA-256 over names and float32 values of the tensors, in words."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode() + b"\0" + value.float().contiguous().numpy().tobytes())
    return f"sha256 of its tensors {digest.hexdigest()[:12]}"
