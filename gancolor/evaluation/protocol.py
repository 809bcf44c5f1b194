"""What an evaluation compares and how, in words, and the pictures that it is made on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gancolor import color, metrics
from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.data.dataset import open_source
from gancolor.data.folder import FolderSource
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import PictureSource, Split
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.storage import checkpoint

GRAY_BELOW = 5.0  # colorfulness below which a picture counts as gray
RESAMPLES = 1000  # of the bootstrap

_PIPELINE = (
    "sRGB, 8 bits -> CIE Lab (D65); each run is given the square at its full size and sees it as"
    " its own config says; its a*b* are enlarged along the picture's edges and joined with its own"
    " L*, the chroma reduced into sRGB, rounded to 8 bits; every figure is of these 8-bit pictures"
)
_COLORFULNESS = (
    "Hasler and Süsstrunk 2003, signed rg and yb, 0-255; columns named 'abs' take |rg| and |yb|"
    " first, as other projects do: not comparable with the signed ones"
)
_SPREAD = (
    "standard deviation of a* (green to red) and of b* (blue to yellow) over all pixels of all"
    f" pictures, divided by that of the true ones; below {metrics.LEAST_SPREAD:g} CIE units counts"
    " as none"
)
_SEEN: tuple[Split, Split] = ("train", "val")  # by a run: to train on, and to choose its best.pt
_NOT_KNOWN = "whether it has seen these pictures is not known"
_FITS = {"crop": "the largest square from the centre", "stretch": "the whole picture, stretched"}

_log = logging.getLogger("gancolor")


@dataclass
class Protocol:
    """The conditions of one evaluation; `lines` says them all."""

    dataset: str
    split: str
    size: int
    fit: str
    has_truth: bool
    device: str
    precision: str
    pictures: int = 0
    digest: str = ""  # SHA-256 over names and decoded pixels of the squares
    left_out: list[str] = field(default_factory=list)  # broken pictures and why
    mean_color: str = ""
    runs: list[str] = field(default_factory=list)
    points: str = ""  # what true points are, where they are measured
    perceptual: list[str] = field(default_factory=list)
    # Of FD VGG16 and told apart: which network, and how.
    features: list[str] = field(default_factory=list)
    # What a reader must know before believing the figures.
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line a fact, without line breaks."""
        truth = (
            "the pictures' own colours"
            if self.has_truth
            else "none: columns that compare with it are empty"
        )
        facts = [
            (
                f"pictures: {self.pictures} of {self.dataset}, split {self.split}; sha256 of the"
                f" list {self.digest}"
            ),
            *(f"left out: {reason}" for reason in self.left_out),
            f"squares: {self.size} x {self.size} pixels, {_FITS[self.fit]} ({self.fit})",
            f"truth: {truth}",
            f"colours: {_PIPELINE}",
            f"colorfulness: {_COLORFULNESS}",
            f"spread: {_SPREAD}",
            f"gray rate: share of pictures coloured with a colorfulness below {GRAY_BELOW:g}",
            (
                f"intervals: 95 %, bootstrap over the pictures, {RESAMPLES} resamples, seed 0; none"
                " for FD VGG16, FID, KID"
            ),
            f"precision: networks in {self.precision} on {self.device}, measures in float32",
            f"row 'mean color': {self.mean_color}",
            *(f"run {run}" for run in self.runs),
            *([self.points] if self.points else []),
            *self.perceptual,
            *self.features,
            *(f"NOTE: {note}" for note in self.notes),
        ]
        return [" ".join(fact.split()) for fact in facts]


class Square(NamedTuple):
    """One picture of the list. `full`: its square at full size; `truth`: the same at the size of
    the evaluation.
    """

    name: str
    full: Picture
    truth: Picture


class Squares:
    """The squares of an evaluation, evenly spread over a source; to be gone through once.

    Broken pictures are left out and named in `broken`. `digest` and `notes` are complete at the
    end.
    """

    def __init__(self, source: PictureSource, size: int, fit: str, limit: int | None) -> None:
        self.source, self.size, self.fit = source, size, fit
        count = len(source) if limit is None else min(limit, len(source))
        self.indices = [i * len(source) // count for i in range(count)]
        self.broken: list[str] = []
        self.seen: list[int] = []
        self._hash = hashlib.sha256()
        self._enlarged = self._gray = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Square]:
        for index in self.indices:
            try:
                square = self._square(index)
            except DataError as error:
                _log.warning("broken picture left out: %s", error)
                self.broken.append(str(error))
                continue
            self.seen.append(index)
            self._hash.update(
                square.name.encode("utf-8", "surrogateescape") + b"\0" + square.truth.tobytes()
            )
            self._enlarged += square.full.shape[0] < self.size
            self._gray += is_gray(square.truth)
            yield square
        if not self.seen:
            raise DataError(
                f"pictures must include one that can be read, got {len(self.broken)} broken ones;"
                " replace them"
            )

    @property
    def digest(self) -> str:
        """SHA-256 over names and pixels of the squares so far."""
        return self._hash.hexdigest()

    def notes(self, has_truth: bool) -> list[str]:
        """What the pictures themselves give reason to say."""
        notes, count = [], len(self.seen)
        if self._enlarged:
            notes.append(
                f"{self._enlarged} of {count} pictures are smaller than {self.size} pixels and were"
                " enlarged"
            )
        if self._gray and has_truth:
            notes.append(
                f"{self._gray} of {count} pictures are themselves nearly gray, yet count as the"
                " truth"
            )
        return notes

    def has_color(self) -> bool:
        """Whether any picture is not nearly gray; looks no further than to the first such one."""
        with contextlib.suppress(DataError):
            for index in self.indices:
                with contextlib.suppress(DataError):
                    if not is_gray(self._square(index).truth):
                        return True
        return False

    def _square(self, index: int) -> Square:
        rgb = self.source.read(index)
        full = arrays.square(rgb, min(rgb.shape[:2]), self.fit)
        return Square(self.source.name(index), full, arrays.resize(full, self.size))


def is_gray(rgb: Picture) -> bool:
    """Whether a picture, uint8 (H, W, 3), is nearly gray."""
    return metrics.colorfulness(color.to_tensor(rgb).float() / 255).item() < GRAY_BELOW


def describe_run(name: str, path: Path, colorizer: Colorizer) -> str:
    """Which checkpoint a run is, how it was trained, and where the weights of its frozen network
    come from.
    """
    config, file = colorizer.config, checkpoint.coloring_file(path)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    edges = ", sees edges only and predicts L* too" if config.condition == "edges" else ""
    embedding = f" with the embedding {config.embedding}" if config.takes_embedding else ""
    return (
        f"{name}: {file.name} of step {colorizer.step} (sha256 {digest[:12]}), preset"
        f" {config.preset}, network {config.network}{embedding}, scale {config.color_scale}{edges};"
        f" trained on {config.dataset} at {config.image_size} px; {colorizer.origin}"
    )


def open_listed(
    dataset: str, split: Split, datasets_root: Path | str | None, seed: int, size: int
) -> tuple[PictureSource, list[str]]:
    """The pictures of a split, and what was said while they were opened: another split's, for
    example.
    """
    heard = _Heard()
    _log.addHandler(heard)
    try:
        source = open_source(
            dataset, split, datasets_root=datasets_root, seed=seed, image_size=size
        )
    finally:
        _log.removeHandler(heard)
    return source, heard.words


def notes_on_seen(
    pictures: Squares, colorizers: Mapping[str, Colorizer], datasets_root: Path | str | None
) -> list[str]:
    """What each run saw of these pictures before: a figure on training pictures says little of new
    ones.
    """
    evaluated = _identify(pictures.source, pictures.seen)
    notes = []
    for name, colorizer in colorizers.items():
        config = colorizer.config
        try:
            sources = [training_pictures(config, split, datasets_root) for split in _SEEN]
        except DataError:
            notes.append(
                f"{name}: its training pictures ({config.dataset}) are not here; {_NOT_KNOWN}"
            )
            continue
        if not all(_are_comparable(source, pictures.source) for source in sources):
            notes.append(
                f"{name}: its training pictures ({config.dataset}) are not of the same shards;"
                f" {_NOT_KNOWN}"
            )
            continue
        trained, chosen = (
            len(evaluated & _identify(source, range(len(source)))) for source in sources
        )
        if trained:
            notes.append(f"{name} was trained on {trained} of these {len(evaluated)} pictures")
            _log.warning("%s; its figures say little of new pictures", notes[-1])
        if chosen:
            notes.append(
                f"{name}: {chosen} of these {len(evaluated)} pictures are of the split that chose"
                " its best.pt"
            )
    return notes


class _Heard(logging.Handler):
    """Keeps warnings in words."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


def training_pictures(
    config: TrainConfig, split: Split, datasets_root: Path | str | None
) -> PictureSource:
    """A split of a run's dataset, where it was then or under `datasets_root`. DataError when it is
    not there.
    """
    about: dict[str, Any] = {"seed": config.seed, "image_size": config.image_size}
    if datasets_root is not None:
        with contextlib.suppress(DataError):
            return open_source(config.dataset, split, datasets_root=config.datasets_root, **about)
    return open_source(
        config.dataset, split, datasets_root=datasets_root or config.datasets_root, **about
    )


def _are_comparable(trained: PictureSource, evaluated: PictureSource) -> bool:
    """Whether pictures of one are known again in the other: those in shards by their shards alone."""
    if isinstance(trained, ShardSource) and isinstance(evaluated, ShardSource):
        return evaluated.origin <= trained.origin
    return not isinstance(trained, ShardSource) and not isinstance(evaluated, ShardSource)


def _identify(source: PictureSource, indices: list[int] | range) -> set[str]:
    """Names that are the same only for the same picture."""
    if isinstance(source, FolderSource):
        # Of the folders: there may be links among them, and sets of pictures elsewhere.
        real = functools.cache(os.path.realpath)
        places = (os.path.split(os.path.join(source.root, source.name(index))) for index in indices)
        return {os.path.join(real(folder), name) for folder, name in places}
    identify = source.identity if isinstance(source, ShardSource) else source.name
    return {identify(index) for index in indices}
