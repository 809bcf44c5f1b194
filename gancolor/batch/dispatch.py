"""Any number of files coloured: shared among processes, each once, none stopping the others."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gancolor.batch import worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.exemplars import LEADERS, Library
from gancolor.batch.input_files import Item
from gancolor.batch.pool import Pool, Predictor
from gancolor.batch.records import Record, Report, Summary
from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime import processes
from gancolor.runtime.signals import Stopper
from gancolor.runtime.workers import usable_cores

MOST_WORKERS = 4
"""Worker processes by default at most."""

LEAST_WORKERS = 1
"""Worker processes by default at least: only a process can be given up with the file that it hangs
or dies of.
"""

_GO_ON = "go on with the same command and --skip-existing, for a film with --resume too"
_FEW = 4  # pictures that are coloured sooner than a process is started for them
_FULL = 5  # files in a row that a full disk fails: then the batch stops


def run(
    network: Predictor,
    items: Iterable[Item],
    settings: BatchSettings,
    *,
    report: Report,
    progress: Callable[[Record], None] = lambda record: None,
    color_film: Callable[[Item], Record] | None = None,
) -> Summary:
    """Colour the pictures among `items` as they come, then the films; what fails is told, not
    raised.

    network: a Colorizer. progress: called with each Record as a file ends. color_film: colours one
    film; under torchrun it is called on every process, in the same order, and the leader's Record
    counts. Each picture is one process's. Returns the counts of all processes. Raises StoppedBySignal
    after Ctrl-C or SIGTERM, with every result that exists whole, and DataError when the disk stays
    full or worker processes keep dying.
    """
    batch = _Batch(settings, report.write, progress)
    with batch.stopper.listening():
        jobs: Iterator[Item] = map(batch.tidied, batch.admitted(items))
        count = _default_workers(network) if settings.workers is None else settings.workers
        if count:
            few = _FEW if settings.workers is None else 0
            first = list(itertools.islice(jobs, max(count, few + 1)))
            jobs = itertools.chain(first, jobs)
            if len(first) > few:
                pool = Pool(min(count, len(first)), network, settings, batch.stopper)
                pool.run(jobs, batch.emit)
        library = Library(settings, network.describe_view) if settings.refers else None
        for item in jobs:
            with batch.stopper.open():
                record = worker.color_file(
                    item, settings, network.sight, network.predict_view, library=library
                )
            batch.emit(record)
        leads = processes.current().leads
        for film in processes.from_leader(batch.remaining_films() if leads else []):
            record = batch.color_film(film, color_film)
            if leads:
                batch.emit(record)
        return batch.summary.shared()


def preview(
    items: Iterable[Item], settings: BatchSettings, told: Callable[[Record], None]
) -> Iterator[Item]:
    """The pictures and then the films that `run` would colour, without doing it; `told` of what it
    would not.
    """
    batch = _Batch(settings, lambda record: None, told)
    yield from batch.admitted(items)
    yield from batch.remaining_films()


def failed(item: Item, words: str) -> Record:
    """The Record of a file that cannot be coloured."""
    return _record(item, status="failed", error=words)


def mine(item: Item) -> bool:
    """Whether an item is this process's: by its target's hash, for a folder that changes is not
    listed alike twice.
    """
    process = processes.current()
    return _hash(item.target) % process.world == process.rank


class _Batch:
    """What is known of the files so far, and what becomes of each."""

    def __init__(
        self,
        settings: BatchSettings,
        write: Callable[[Record], None],
        progress: Callable[[Record], None],
    ) -> None:
        self.settings, self.write, self.progress = settings, write, progress
        self.stopper, self.summary = Stopper(_GO_ON), Summary()
        self.films: list[Item] = []
        # Hashes of all results' names, and of files with their results: 50,000 take little memory.
        self.taken: set[int] = set()
        self.met: set[int] = set()
        self.series: dict[int, list[Item]] = {}  # the first pictures of each folder
        self.full = 0
        self.room = sys.maxsize if settings.limit is None else settings.limit
        self.swept: Path | None = None

    def admitted(self, items: Iterable[Item]) -> Iterator[Item]:
        """The pictures that are this process's and to be done; what is not is recorded, films are
        put by.
        """
        waiting = iter(items)
        if single := [flag for flag, path in self.settings.partners.items() if not path.is_dir()]:
            with self.stopper.open():
                waiting = _only_one(waiting, single[0], self.settings.partners[single[0]])
        while self.room:
            with self.stopper.open():  # a list on standard input may keep us waiting
                item = next(waiting, None)
            if item is None:
                return
            if item.problem is None and not self._is_new(item):
                continue  # named twice
            steering = [*self.settings.partners, *["--reference"] * bool(self.settings.reference)]
            if item.film and item.problem is None and steering:
                flags = " and ".join(steering)
                words = f"{flags} must be left out with films, got {shown(item.source)}"
                item = replace(item, problem=f"{words}; give it colours in key frames, with --keys")
            names = worker.targets(item, self.settings)
            again = item.problem is None and not self._claim(names)
            if item.film and item.problem is None and not again:
                self.films.append(item)
                self.room -= self.settings.existing == "overwrite" or not os.path.lexists(
                    item.target
                )
                continue
            if self.settings.consistent and item.problem is None and not again:
                item = self._in_series(item)
            if not mine(item):
                continue
            if item.problem is not None:
                self.emit(failed(item, item.problem))
            elif again:
                words = (
                    f"inputs must have different results, got {shown(item.target)} again for"
                    f" {shown(item.source)}"
                )
                self.emit(failed(item, f"{words}; colour one of them into another --out"))
            elif not self.exists(item, names):
                self.room -= 1
                yield item

    def _in_series(self, item: Item) -> Item:
        """A picture with the first ones of its folder, which all processes meet in one order."""
        first = self.series.setdefault(_hash(item.source.parent), [])
        if len(first) < LEADERS:
            first.append(item)
        return replace(item, series=tuple(first))

    def tidied(self, item: Item) -> Item:
        """Remove, once a folder, what an earlier batch left there when it was killed."""
        folder = item.target.parent
        if folder != self.swept:
            self.swept = folder
            worker.sweep(folder)
        return item

    def _is_new(self, item: Item) -> bool:
        """Whether this file was not met yet with this result; remembers it."""
        pair = _hash(Path(f"{os.path.realpath(item.source)}\n{item.target}"))
        new = pair not in self.met
        self.met.add(pair)
        return new

    def _claim(self, names: list[Path]) -> bool:
        hashes = {_hash(name) for name in names}
        free = self.taken.isdisjoint(hashes)
        self.taken |= hashes
        return free

    def exists(self, item: Item, names: list[Path]) -> bool:
        """Whether a result is there already and settles the matter; says so."""
        if self.settings.existing == "overwrite":
            return False
        there = [name for name in names if os.path.lexists(name)]
        # the latter fails when it is coloured
        if not there or any(_is_same(item.source, name) for name in there):
            return False
        if self.settings.existing == "refuse":
            words = f"result must not exist yet, got {shown(there[0])}"
            self.emit(
                failed(
                    item,
                    f"{words}; use --overwrite, or --skip-existing to colour only what is missing",
                )
            )
            return True
        # else the worker writes those that are missing
        whole = all(os.path.isfile(name) for name in names)
        if whole:
            self.emit(_record(item, status="skipped", targets=[str(name) for name in names]))
        return whole

    def remaining_films(self) -> list[Item]:
        """The films that were put by and have no result yet."""
        return [film for film in self.films if not self.exists(film, [film.target])]

    def color_film(self, film: Item, color_film: Callable[[Item], Record] | None) -> Record:
        """Colour one film with `color_film`; whatever is wrong with it becomes a failed Record."""
        start = time.monotonic()
        try:
            if color_film is None:
                raise DataError(f"input must be a picture here, got the film {shown(film.source)}")
            # What one process finds, all must know: none may be waited for that has given up.
            words = processes.from_leader(_prepare(film) if processes.current().leads else None)
            if words is not None:
                raise DataError(words)
            with self.stopper.open():
                record = color_film(film)
            if self.settings.keep_dates and processes.current().leads:
                for target in record.targets:
                    worker.keep_dates(film.source, Path(target))
            return record
        except Exception as error:
            words, full = worker.explain(error, film.source), worker.is_full(error)
            return _record(
                film, status="failed", error=words, full=full, seconds=time.monotonic() - start
            )

    def emit(self, record: Record) -> None:
        """Report and count what became of a file. DataError when the disk stays full."""
        self.write(record)
        self.summary.add(record)
        self.progress(record)
        if record.full or record.status == "done":
            self.full = self.full + 1 if record.full else 0
        if self.full >= _FULL:
            raise DataError(
                f"the disk of --out must have room, {_FULL} results in a row found it full; free"
                " some of it and go on with the same command and --skip-existing"
            )


def _only_one(items: Iterator[Item], flag: str, given: Path) -> Iterator[Item]:
    """The items, of which but one may be a picture. ConfigError, before any of them comes, for more."""
    begin: list[Item] = []
    first: Item | None = None
    for item in items:
        begin.append(item)
        if item.film or (
            first is not None and os.path.realpath(first.source) == os.path.realpath(item.source)
        ):
            continue
        if first is not None:
            raise ConfigError(
                f"{flag} must name a folder for several photographs, got the file {shown(given)}"
                f" for {shown(first.source)} and {shown(item.source)}; put files named like the"
                " photographs into a folder"
            )
        first = item
    return iter(begin)


def _record(item: Item, **content: object) -> Record:
    kind = "film" if item.film else "picture"
    return Record(str(item.source), kind=kind, **content)  # type: ignore[arg-type]


def _prepare(film: Item) -> str | None:
    """Make the folder for a film's result; returns why it cannot be written, or None."""
    if _is_same(film.source, film.target):
        return (
            f"output must not be the input itself, got {shown(film.target)}; choose another --out"
        )
    try:
        film.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return (
            f"folder of --out must be writable, got {shown(film.target.parent)}:"
            f" {error.strerror or error}"
        )
    return None


def _is_same(source: Path, target: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(source, target)
    return False


def _hash(path: Path) -> int:
    name = os.fsencode(os.path.normcase(path))
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def _default_workers(network: Predictor) -> int:
    """One per core of this process's share; where the network needs the cores itself, one per four."""
    share = usable_cores() // processes.current().world
    return min(
        MOST_WORKERS, max(LEAST_WORKERS, share // 4 if network.device.type == "cpu" else share)
    )
