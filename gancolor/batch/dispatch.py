"""Any number of files coloured: shared among processes, each once, none stopping the others."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from gancolor.batch import worker
from gancolor.batch.batch_settings import FEW, BatchSettings
from gancolor.batch.exemplars import LEADERS, Library
from gancolor.batch.film_sharing import FilmQueue, FilmSharing, Task, Team
from gancolor.batch.input_files import Item
from gancolor.batch.mirror import ResultIndex
from gancolor.batch.pool import Pool, Predictor
from gancolor.batch.records import MOST_FAILURES, Record, Report, Summary
from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime import handout, processes
from gancolor.runtime.handout import Handout, Left
from gancolor.runtime.signals import Stopper
from gancolor.runtime.workers import Lost

LEAST_WORKERS = 1
"""Worker processes by default at least: only a process can be given up with the file that it hangs
or dies of.
"""

_log = logging.getLogger("gancolor")

_GO_ON = "go on with the same command and --skip-existing, for a film with --resume too"
_CHUNK = 4  # pictures that travel together
_FULL = 5  # files in a row that a full disk fails: then the batch stops


def run(
    network: Predictor,
    items: Iterable[Item],
    settings: BatchSettings,
    *,
    report: Report,
    progress: Callable[[Record], None] = lambda record: None,
    color_film: Callable[[Item], Record] | None = None,
    team: Team | None = None,
) -> Summary:
    """Colour the pictures among `items` as they come, then the films; what fails is told, not
    raised.

    network: a Colorizer. progress: called with each Record of this process as a file ends.
    color_film, or team: colours a film. Under torchrun every process calls this; a file goes to
    whichever is free, and is taken over where that one ends or falls silent. Fewer films than
    processes are coloured by all together, where there is a team. Returns the counts of all
    processes. Raises StoppedBySignal after Ctrl-C or SIGTERM, with every result that exists whole,
    and DataError when the disk stays full or worker processes keep dying.
    """
    with handout.begin() as common:
        batch = _Batch(settings, report.write, progress, common)
        with batch.stopper.listening():
            batch.color_pictures(network, batch.admitted(items))
            films = FilmSharing(
                common,
                batch.emit,
                lambda film: batch.exists(film, [film.target]),
                batch.stopper.open,
                settings.keep_dates,
                color_film,
                team,
            )
            films.color(batch.films)
            for left in common.leftovers(batch.stopper.open):
                found = [each for each in left if batch.may_try(each)]
                pictures = (each.job.item for each in found if not each.job.item.film)
                batch.color_pictures(network, pictures)
                for each in found:
                    if each.job.item.film:
                        films.color_left(each)
            return batch.total()


def run_elsewhere(
    spread: Callable[
        [Iterator[list[Task]]], Generator[list[tuple[Task, Record | Lost | None]], None, None]
    ],
    items: Iterable[Item],
    settings: BatchSettings,
    *,
    report: Report,
    progress: Callable[[Record], None] = lambda record: None,
    resume: bool = False,
    room: Callable[[], int] = lambda: 1,
) -> Summary:
    """Have the pictures among `items`, then the films, coloured by others, such as a cluster.

    spread: does lists of tasks as they come, and yields what became of them, in any order; Lost for
    one that ended whoever had it. An empty list comes before tasks that need the results of all
    others. resume: go on with what is there of films. room: how many tasks can be done at once;
    fewer films are cut into shares. Else as `run`.
    """
    batch = _Batch(settings, report.write, progress, Handout(None, processes.Process()))
    queue = FilmQueue(settings.mirror, resume, batch.emit)

    def chunks() -> Iterator[list[Task]]:
        pictures = map(batch.tidied, batch.admitted(items))
        while chunk := list(itertools.islice(pictures, _CHUNK)):
            yield [Task(item) for item in chunk]
        films = [film for film in batch.films if not batch.exists(film, [film.target])]
        yield from queue.tasks(films, room())

    with batch.stopper.listening(), closing(spread(chunks())) as ended:
        while True:
            with batch.stopper.open():
                chunk = next(ended, None)
            if chunk is None:
                return batch.summary
            for task, record in chunk:
                item = task.item
                if isinstance(record, Lost):
                    record = failed(item, f"{shown(item.source)}: {record.reason}; out of memory?")
                if record is not None and (not item.film or queue.settles(task)):
                    batch.emit(record)


def preview(
    items: Iterable[Item], settings: BatchSettings, told: Callable[[Record], None]
) -> Iterator[Item]:
    """The pictures and then the films that `run` would colour, without doing it; `told` of what it
    would not.
    """
    batch = _Batch(settings, lambda record: None, told, Handout(None, processes.Process()))
    yield from batch.admitted(items)
    yield from (film for film in batch.films if not batch.exists(film, [film.target]))


def failed(item: Item, words: str) -> Record:
    """The Record of a file that cannot be coloured."""
    return _record(item, status="failed", error=words)


class _Batch:
    """What is known of the files so far, and what becomes of each."""

    def __init__(
        self,
        settings: BatchSettings,
        write: Callable[[Record], None],
        progress: Callable[[Record], None],
        common: Handout,
    ) -> None:
        self.settings, self.write, self.progress = settings, write, progress
        self.common = common
        self.held: dict[str, list[str]] = {}  # names of this process's jobs, by their sources
        self.library: Library | None = None
        self.stopper, self.summary = Stopper(_GO_ON), Summary()
        self.films: list[Item] = []
        # Hashes of all results' names, and of files with their results: 50,000 take little memory.
        self.taken: set[int] = set()
        self.met: set[int] = set()
        self.series: dict[int, list[Item]] = {}  # the first pictures of each folder
        self.full = 0
        self.room = sys.maxsize if settings.limit is None else settings.limit
        self.results = ResultIndex(settings.mirror)
        self.swept: Path | None = None

    def color_pictures(self, network: Predictor, items: Iterable[Item]) -> None:
        """Colour pictures as they come: in processes, but a few in this one."""
        settings = self.settings
        jobs: Iterator[Item] = map(self.tidied, items)
        count = _default_workers(network) if settings.workers is None else settings.workers
        if count:
            # What is looked at ahead, no other process can take.
            few = FEW if settings.workers is None and not self.common.shared else 0
            first = list(itertools.islice(jobs, max(count, few + 1)))
            jobs = itertools.chain(first, jobs)
            if len(first) > few:
                pool = Pool(min(count, len(first)), network, settings, self.stopper)
                pool.run(jobs, self.emit)
        if settings.refers and self.library is None:
            self.library = Library(settings, network.describe_view)
        for item in jobs:
            with self.stopper.open():
                record = worker.color_file(
                    item, settings, network.sight, network.predict_view, library=self.library
                )
            self.emit(record)

    def _take(self, item: Item) -> bool:
        """Whether a picture is this process's; then it is held until its record is emitted."""
        name = f"{item.source}\n{item.target}"
        if not self.common.take(name, Task(item)):
            return False
        if self.common.shared:
            self.held.setdefault(str(item.source), []).append(name)
        return True

    def may_try(self, left: Left) -> bool:
        """Whether a job is tried whose process is gone; says so, or else records that it failed."""
        source = left.job.item.source
        if left.deaths < handout.MOST_DEATHS:
            if not left.job.item.film:
                self.held.setdefault(str(source), []).append(left.name)
            _log.warning("%s: the process that had it is gone; it is tried again", shown(source))
            return True
        words = f"{shown(source)}: {left.deaths} processes are gone that had it; out of memory?"
        self.emit(failed(left.job.item, words))
        self.common.settle(left.name)
        return False

    def total(self) -> Summary:
        """What became of all files, in all processes."""
        if not self.common.shared:
            return self.summary
        return Summary.total(self.common.told())

    def admitted(self, items: Iterable[Item]) -> Iterator[Item]:
        """The pictures that no other process takes and are to be done; what is not is recorded,
        films are put by.
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
                self.room -= self.settings.existing == "overwrite" or not self.results.holds(
                    item.target
                )
                continue
            if self.settings.consistent and item.problem is None and not again:
                item = self._in_series(item)
            if not self._take(item):
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
        there = [name for name in names if self.results.holds(name)]
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
        whole = all(self.results.is_file(name) for name in names)
        if whole:
            self.emit(_record(item, status="skipped", targets=[str(name) for name in names]))
        return whole

    def emit(self, record: Record) -> None:
        """Report and count what became of a file. DataError when the disk stays full."""
        self.write(record)
        self.summary.add(record)
        self.progress(record)
        if self.common.shared:
            few = max(1, MOST_FAILURES // processes.current().world)
            told = replace(self.summary, failures=self.summary.failures[:few])
            names = self.held.pop(record.source, [""])
            self.common.settle(names.pop(), told)
            if names:
                self.held[record.source] = names
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


def _is_same(source: Path, target: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(source, target)
    return False


def _hash(path: Path) -> int:
    name = os.fsencode(os.path.normcase(path))
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def _default_workers(network: Predictor) -> int:
    """One per core of this process's share; where the network needs the cores itself, one per four."""
    cores = 4 if network.device.type == "cpu" else 1
    return max(LEAST_WORKERS, processes.default_workers(network.device, cores))
