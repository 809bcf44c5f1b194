"""Processes that read, colour and write, while this one runs the network for them.

The work of one file, in the main process or in one of its own.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor.batch import report
from gancolor.batch.input_files import Item
from gancolor.batch.report import Record
from gancolor.coloring import full_size, views
from gancolor.coloring.full_size import Colored, Look, Prediction
from gancolor.coloring.views import Sight, View
from gancolor.data.doctor.examination import SIDE, has_colors
from gancolor.errors import ConfigError, DataError, GancolorError, shown
from gancolor.images import reader, writer
from gancolor.images.photograph import Photograph
from gancolor.runtime import workers
from gancolor.runtime.files import fitted
from gancolor.runtime.signals import Stopper
from gancolor.runtime.workers import DEADLINE, Crew, Lost, Message, Worker

MOST_PIXELS = 100_000_000
"""Of pictures above `worker.FREE_PIXELS`, so many pixels are in work at once; a larger picture
waits to be alone.
"""

_PATIENCE = 20.0  # seconds for a process to end by itself
_SECONDS_A_PIXEL = 2e-6  # beside the deadline: what the slowest encoder takes on a slow core


class Network(Protocol):
    """What a batch needs of a Colorizer."""

    @property
    def sight(self) -> Sight:
        """What preparing views takes."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def run(self, view: View, /) -> Prediction:
        """The network's answer."""


class Pool:
    """A few worker processes. One that dies or hangs takes its file with it and is replaced."""

    def __init__(
        self, count: int, network: Network, settings: BatchSettings, stopper: Stopper
    ) -> None:
        self._network, self._settings, self._stopper = network, settings, stopper
        self._crew = Crew[Item](count, _serve, (settings, network.sight), self._seconds)
        self._held: dict[Worker[Item], int] = {}  # pixels of large pictures in work
        self._waiting: deque[tuple[Worker[Item], int]] = deque()  # for room for their pictures

    def run(self, jobs: Iterator[Item], emit: Callable[[Record], None]) -> None:
        """Colour all `jobs`, taken as processes get free; `emit` is called with each Record as it
        comes.
        """
        patience = 0.0
        try:
            for messages in self._crew.rounds(([job] for job in jobs), self._stopper.open):
                self._answer(messages, emit)
            patience = _PATIENCE
        finally:
            self._crew.end(patience)
            for each in self._crew.workers:
                self._sweep(each)

    def _seconds(self, item: Item) -> float:
        size = 0
        with suppress(OSError, ValueError):
            size = os.stat(item.source).st_size
        return workers.allowed(self._settings.deadline, size)

    def _answer(self, messages: list[Message], emit: Callable[[Record], None]) -> None:
        """Do what the processes ask for; the network's turn comes last, so that they read and write
        meanwhile.
        """
        for each, kind, content, item in messages:
            if kind == "done":
                self._held.pop(each, None)
                emit(self._lost(each, item, content) if isinstance(content, Lost) else content)
            elif kind == "permit":
                each.more = content * _SECONDS_A_PIXEL
                self._waiting.append((each, content))
        self._admit()
        for each, kind, content, _ in messages:
            if kind == "predict":
                self._crew.answer(each, self._predict(content))

    def _admit(self) -> None:
        """Let those go on whose pictures fit in, in the order in which they asked."""
        while self._waiting:
            each, pixels = self._waiting[0]
            if self._held and sum(self._held.values()) + pixels > MOST_PIXELS:
                return
            self._waiting.popleft()
            self._held[each] = pixels
            self._crew.answer(each, None)

    def _predict(self, view: View) -> Prediction | str:
        try:
            return self._network.run(view)
        except GancolorError as error:
            return str(error)
        except Exception as error:  # the worker's file fails with it; the others go on
            return f"the network could not look at it: {type(error).__name__}: {error}"

    def _lost(self, dead: Worker[Item], item: Item, lost: Lost) -> Record:
        self._stopper.check()  # a signal to all of us is no accident
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not dead)
        sweep(item.target.parent, dead.process.pid)
        fix = "out of memory?" if lost.reason == workers.DIED else "raise --deadline if it is whole"
        return Record(
            str(item.source), status="failed", error=f"{shown(item.source)}: {lost.reason}; {fix}"
        )

    def _sweep(self, each: Worker[Item]) -> None:
        for item in each.jobs:
            sweep(item.target.parent, each.process.pid)


class _Main:
    """The main process, seen from a worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def predict(self, view: View) -> Prediction:
        """Ask for the network's answer. DataError with the main process's reason if it has none."""
        answer = self._ask("predict", view)
        if isinstance(answer, str):
            raise DataError(answer)
        prediction: Prediction = answer
        return prediction

    def permit(self, pixels: int) -> None:
        """Wait until so many pixels may be read."""
        if pixels > FREE_PIXELS:
            self._ask("permit", pixels)

    def tell_busy(self) -> None:
        """Say that the work goes on, so that its time begins anew."""
        self._connection.send(("busy", None))

    def _ask(self, kind: str, content: object) -> Any:
        self._connection.send((kind, content))
        return self._connection.recv()


def _serve(connection: Connection, settings: BatchSettings, sight: Sight) -> None:
    """What a worker process does: colours the items it is sent until None comes or the main process
    is gone.
    """
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(1)  # the network needs the cores
    cv2.setNumThreads(1)
    main = _Main(connection)
    workers.work(
        connection,
        lambda item: color_file(item, settings, sight, main.predict, main.permit, main.tell_busy),
    )


def _stop(kind: int, frame: FrameType | None) -> None:
    signal.signal(kind, signal.SIG_IGN)  # once: what is half written is being removed
    raise KeyboardInterrupt


FREE_PIXELS = 8_000_000
"""A picture of at most so many pixels is read without asking the main process for its share of the
memory.
"""

LEFT_ALONE = "left alone: it has colours of its own"
"""The note of what `skip_colored` leaves alone."""

_NO_SPACE = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)
)

_PART = re.compile(
    r"\.(\d+)-[0-9a-f]{8}\.part"
)  # of a picture that process is writing, as `writing` names it
# Seconds without a byte after which such a file is a leftover, unless that process is there. The
# name does not say on which machine: what is not here may be writing to a shared disk there, and
# slowly.
_ABANDONED = 24 * 3600.0

_CONFIDENCE, _SHEET = "-confidence.png", "-sheet.png"  # what these files' names end with

Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How to colour many files. ConfigError, naming the option, for what is out of bounds.

    `quality`: of JPEG and WebP files, 1 to 100. `format`: a key of `photographs.writing.FORMATS`,
    None keeps each file's own. `provenance`: the note that goes into each file's metadata, None for
    none. `existing`: what becomes of files whose result exists. `skip_colored`: leave alone what is
    in colour already. `workers`: processes that read and write, 0 for none, None to decide by the
    cores. `max_pixels`: pictures with more are refused. `keep_dates`: results get the times of
    their sources. `deadline`: seconds for a file, beside those for its size (see
    `workers.allowed`), after which a process that says nothing is given up with it. `limit`: how
    many files are coloured at most, those left out that have a result. `sheet`: write the gray
    picture and all variants side by side too.
    """

    look: Look = field(default_factory=Look)
    quality: int = 95
    format: str | None = None
    provenance: str | None = None
    existing: Existing = "refuse"
    skip_colored: bool = False
    workers: int | None = None
    max_pixels: int = 500_000_000
    deadline: float = DEADLINE
    limit: int | None = None
    sheet: bool = False
    keep_dates: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality must be from 1 to 100, got {self.quality}")
        if self.format is not None and self.format not in writer.FORMATS:
            raise ConfigError(
                f"--format must be one of {', '.join(writer.FORMATS)}, got {self.format}"
            )
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"--workers must be at least 0, got {self.workers}")
        if self.max_pixels < 1:
            raise ConfigError(f"--max-megapixels must be above 0, got {self.max_pixels / 1e6:g}")
        if not self.deadline > 0:
            raise ConfigError(f"--deadline must be above 0, got {self.deadline:g}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, got {self.limit}")


def targets(item: Item, settings: BatchSettings) -> list[Path]:
    """The files that an item becomes: name.ext, name-2.ext, ... for its variants,
    name-confidence.png, name-sheet.png.

    What would be too long for a file's name is cut before the ending.
    """
    if item.film:
        return [item.target]
    stem, suffix = os.path.splitext(item.target.name)
    endings = [suffix, *(f"-{number}{suffix}" for number in range(2, settings.look.variants + 1))]
    endings += [_CONFIDENCE] * settings.look.confidence + [_SHEET] * settings.sheet
    return [item.target.with_name(fitted(stem, ending)) for ending in endings]


def color_file(
    item: Item,
    settings: BatchSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
    permit: Callable[[int], None] = lambda pixels: None,
    tell_busy: Callable[[], None] = lambda: None,
) -> Record:
    """Read, colour and write one picture; whatever is wrong with it becomes a failed Record.

    predict: asks the network. permit: called with the number of pixels before they are read; it may
    wait for memory. tell_busy: called between two results. Results appear whole or not at all; on
    an error those of this item are taken back, but where they replaced older ones. Where results
    that exist are skipped, only the others are written.
    """
    start = time.monotonic()
    record = Record(str(item.source))
    try:
        _color(item, settings, sight, predict, permit, tell_busy, record)
    except Exception as error:  # also a fault of ours: the other files must not suffer for it
        record.status, record.targets = "failed", []
        record.error, record.full = explain(error, item.source), is_full(error)
    record.seconds = time.monotonic() - start
    return record


def explain(error: Exception, source: Path) -> str:
    """What went wrong with a file, in one line that names it."""
    if isinstance(error, GancolorError):
        words = str(error)
    elif isinstance(error, MemoryError):
        words = (
            "memory must hold the picture, it ran out; close other programs or use fewer --workers"
        )
    elif isinstance(error, OSError):
        words = error.strerror or str(error)
    else:
        words = f"{type(error).__name__}: {error}"
    words = " ".join(words.split())
    return words if shown(source) in words else f"{shown(source)}: {words}"


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def keep_dates(source: Path, result: Path) -> None:
    """Give a result the times of its source: of the last access and the last change. OSError if
    that is refused.
    """
    status = os.stat(source)
    os.utime(result, ns=(status.st_atime_ns, status.st_mtime_ns))


def sweep(folder: Path, process: int | None = None) -> None:
    """Remove what a killed process left half written: `process`'s, or what was abandoned by any
    that is gone.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := _PART.fullmatch(entry.name)) is None:
                continue
            owner = int(match[1])
            with suppress(OSError):
                if owner == process or (
                    process is None and _is_abandoned(owner, entry.stat().st_mtime)
                ):
                    os.unlink(entry.path)


def _is_abandoned(process: int, written: float) -> bool:
    if time.time() - written < _ABANDONED or os.name != "posix":
        return False
    try:
        os.kill(process, 0)  # asks whether it is there
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _color(
    item: Item,
    settings: BatchSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
    permit: Callable[[int], None],
    tell_busy: Callable[[], None],
    record: Record,
) -> None:
    for target in (paths := targets(item, settings)):
        with suppress(FileNotFoundError):
            if os.path.samefile(item.source, target):
                raise DataError(
                    f"output must not be the input itself, got {shown(target)}; choose another"
                    " --out"
                )
    width, height, _ = reader.probe(item.source)
    permit(width * height)
    photograph = reader.read(item.source, max_pixels=settings.max_pixels)
    record.height, record.width = photograph.size
    colors: list[str] = []
    if has_colors(views.shrink(photograph.pixels, SIDE, SIDE)):
        if settings.skip_colored:
            record.status, record.notes = "left", [*photograph.notes, LEFT_ALONE]
            return
        if not settings.look.keep_color:
            colors = [
                "it has colours of its own, others are painted over them; --skip-colored leaves it"
                " alone"
            ]
    colored = full_size.color(photograph, settings.look, sight, predict)
    record.size = colored.size
    record.notes = [*photograph.notes, *colors, *colored.notes]
    _write(paths, colored, photograph, settings, tell_busy, record)


def _write(
    paths: list[Path],
    colored: Colored,
    photograph: Photograph,
    settings: BatchSettings,
    tell_busy: Callable[[], None],
    record: Record,
) -> None:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    older = {path for path in paths if os.path.lexists(path)}
    wanted = [path for path in paths if settings.existing != "skip" or not path.is_file()]
    pictures = paths[: len(colored.pictures)]
    cells: list[NDArray[np.uint8]] | None = [] if settings.sheet and paths[-1] in wanted else None
    painted = pictures if cells is not None else [path for path in pictures if path in wanted]
    write = functools.partial(
        writer.write,
        format=settings.format,
        quality=settings.quality,
        provenance=settings.provenance,
    )
    bare = functools.partial(write, photograph=Photograph(pixels=np.empty((0, 0))), format="png")
    done: list[Path] = []
    try:
        for path in dict.fromkeys([*painted, *wanted]):
            tell_busy()
            notes: list[str] = []
            if path in painted:
                picture = _painted(colored, photograph, pictures.index(path), path == painted[-1])
                if cells is not None:
                    cells.append(report.cell(picture, len(pictures) + 1))
                if path in wanted:
                    notes = write(path, picture, photograph)
                del picture  # before the next one is painted
            elif cells is not None and path == paths[-1]:
                notes = bare(path, report.sheet(cells))
            else:
                notes = bare(path, _as_rgb(colored.confidence))
            if path not in wanted:
                continue
            record.notes += (note for note in notes if note not in record.notes)
            done.append(path)
            if settings.keep_dates:
                keep_dates(Path(record.source), path)
    except BaseException:
        for path in done:
            if path not in older:  # what replaced a file is whole, and all that is left of it
                path.unlink(missing_ok=True)
        raise
    record.targets = [str(path) for path in done]


def _painted(colored: Colored, photograph: Photograph, number: int, last: bool) -> NDArray[Any]:
    """A variant; after the last one a large picture's memory is better used for encoding."""
    picture = colored.pictures[number]
    if last:
        colored.pictures.close()
        photograph.pixels = np.empty((0, 0), picture.dtype)  # an empty slice would keep all of it
    return picture


def _as_rgb(gray: NDArray[Any] | None) -> NDArray[Any]:
    assert gray is not None
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))
