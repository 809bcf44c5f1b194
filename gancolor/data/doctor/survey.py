"""Find and examine all pictures of some sources; what is known already is not read again.

Pictures are read by processes that may die of them (`runtime.workers.Crew`): how work is spread
over these, in which portions, and how a signal stops it, serves `copies` too.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import cv2

from gancolor.data.doctor import examination
from gancolor.data.doctor.examination import Findings, broken
from gancolor.data.doctor.journal import Journal, encoded
from gancolor.data.doctor.readers import Candidate, Reader
from gancolor.data.doctor.reserve import NOTHING, Reserve
from gancolor.data.doctor.sources import CompressedTar, Source
from gancolor.data.doctor.stored_folder import FetchWatch
from gancolor.errors import DataError, MissingExtra, visible
from gancolor.runtime import workers
from gancolor.runtime.files import Progress
from gancolor.runtime.signals import StoppedBySignal, StopRequest
from gancolor.runtime.workers import DEADLINE, DIED, Crew, JobDesk, Lost, usable_cores

_ADVICE = "what was found so far is kept: go on with the same command"
_PATIENCE = 5.0  # seconds for processes to finish the picture that they are at
_CHUNK, _CHUNK_BYTES = 32, 1 << 23  # of pictures that a process gets at once
_BATCH, _BATCH_SECONDS = 500, 2.0  # of results that are written at once
_BLOCK = 500  # names that are written at once

_COLUMNS = "source, name, size, stamp, given, offset"
_UPSERT = f"""
INSERT INTO pictures ({_COLUMNS}, generation) VALUES (?, CAST(? AS TEXT), ?, ?, ?, ?, ?)
ON CONFLICT (source, name) DO UPDATE SET
    examined = examined AND size = excluded.size AND stamp = excluded.stamp,
    copy_sha256 = CASE WHEN size = excluded.size AND stamp = excluded.stamp THEN copy_sha256 END,
    size = excluded.size, stamp = excluded.stamp, given = excluded.given, offset = excluded.offset,
    generation = excluded.generation
"""
_FINDINGS = """
UPDATE pictures SET examined = 1, sha256 = ?, kind = ?, width = ?, height = ?, colorfulness = ?, chroma = ?,
    spread = ?, contrast = ?, hash = ?, signature = ?, problem = ? WHERE id = ?
"""

_T = TypeVar("_T")
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Tally:
    """What `examine_all` did: pictures examined now, known before, and forgotten because they are
    gone.

    `others` counts, by words for it ("other file(s)"), what the sources hold beside pictures,
    `passed` those other files by suffix.
    """

    new: int
    known: int
    gone: int
    others: dict[str, int]
    passed: dict[str, int] = field(default_factory=dict, compare=False)


def examine_all(
    journal: Journal,
    sources: Mapping[int, Source],
    *,
    workers: int | None = None,
    deadline: float = DEADLINE,
    elsewhere: Elsewhere | None = None,
    reserve: Reserve = NOTHING,
    begin: Callable[[], None] = lambda: None,
    progress: Progress,
) -> Tally:
    """Bring the journal up to date with its sources (by their ids, all of them).

    Pictures whose size and stamp did not change keep their findings. `workers`: processes, None for
    one per core, 0 for none. `deadline`: seconds for a picture, beside those for its size, after
    which a process is given up with it. `elsewhere`: who looks at them instead of processes here. `reserve`: where
    pictures from addresses are kept. `begin` is called when all are noted and none has been read.
    `progress(done, total)`: in pictures; total is None while they are counted. StoppedBySignal after
    Ctrl-C or SIGTERM, with everything kept that was found until then; the next call goes on. What
    could not be read is tried again, and what lay behind the damage of an archive is not gone.
    DataError if a source cannot be read at all, none of an address's pictures or no longer any can
    be fetched, or there is no room for temporary files.
    """
    with stoppable() as stop:
        _examine_again(journal)
        gone = _walk(journal, sources, progress, stop)
        others: Counter[str] = sum((source.skipped for source in sources.values()), Counter())
        passed: Counter[str] = sum((source.passed for source in sources.values()), Counter())
        todo = journal.count("NOT examined")
        begin()
        watch = FetchWatch(journal, sources)
        jobs = jobs_where(journal, sources, "NOT examined", stop)
        found = spread(
            Examiner(readers_of(sources), reserve),
            in_chunks(jobs),
            workers,
            stop,
            seconds_for(deadline),
            elsewhere,
        )
        done = 0
        with contextlib.closing(found):
            for batch in batches(found):
                found_out = [
                    (job, broken(each.reason) if isinstance(each, Lost) else each)
                    for job, each in batch
                ]
                journal.write(
                    _FINDINGS,
                    (_row(job.id, each) for job, each in found_out if isinstance(each, Findings)),
                )
                for job, each in found_out:
                    if isinstance(each, DataError):
                        raise each
                    watch.note(job.source, "" if each.sha256 else each.problem)
                progress(done := done + len(batch), todo)
        _give_up(journal)
        watch.conclude()
    return Tally(todo, journal.count() - todo, gone, dict(others), dict(passed))


def _examine_again(journal: Journal) -> None:
    """Have those examined again that could not be read (unless that killed a process), and all
    where pictures are examined in another way now.
    """
    journal.write(
        "UPDATE pictures SET examined = 0 WHERE sha256 IS NULL AND problem <> ?", [(DIED,)]
    )
    version = examination.version()
    if journal.fact("examined with") != version:
        with journal.connection:
            journal.connection.execute("UPDATE pictures SET examined = 0")
            journal.set_fact("examined with", version)


def _walk(
    journal: Journal,
    sources: Mapping[int, Source],
    progress: Progress,
    stop: StopCheck,
) -> int:
    """Note all pictures that are there now; forget those that are not and return how many."""
    generation = int(journal.fact("generation") or 0) + 1
    with journal.connection:
        journal.set_fact("generation", str(generation))
    found = 0
    for id, source in sources.items():
        walk = source.walk(stop.check)
        while block := list(itertools.islice(walk, _BLOCK)):
            rows = (
                (id, encoded(one.name), one.size, one.stamp, one.given, one.offset, generation)
                for one in block
            )
            journal.write(_UPSERT, rows)
            progress(found := found + len(block), None)
            stop.check()
        if source.incomplete:
            # What lay behind the damage is not gone, and its copies are still good.
            journal.write("UPDATE pictures SET generation = ? WHERE source = ?", [(generation, id)])
    return journal.forget_older(generation)


class Examiner:
    """What a process does with a picture: reads it and looks at it. An error is why nothing can be
    looked at.
    """

    def __init__(self, readers: dict[int, Reader], reserve: Reserve) -> None:
        self._readers, self._reserve = readers, reserve

    def __call__(self, job: PictureJob) -> Findings | DataError:
        try:
            data = bytes_of(job, self._readers)
        except DataError as error:
            return broken(str(error))
        except MissingExtra as error:  # of an address: no other can be read either
            return DataError(str(error))
        except MemoryError:
            return broken("it does not fit into memory")
        try:
            found = examination.examine(data, job.candidate.name)
            self._reserve.keep(job.source, data, found)
            return found
        except DataError as error:  # raised here it would end the process
            return error


def _row(id: int, findings: Findings) -> tuple[int | str | float | bytes | None, ...]:
    sha256, *middle, hash, signature, problem = astuple(findings)
    problem = visible(problem)  # it may quote a name of any bytes, and what a library says of them
    return (sha256 or None, *middle, examination.to_signed(hash), signature, problem, id)


def _give_up(journal: Journal) -> None:
    """Call broken what a compressed archive listed once and did not bring again: nothing else is
    left to be examined.
    """
    lost = broken("the archive is cut off, or changed meanwhile")
    for block in journal.blocks("name", "NOT examined"):
        journal.write(_FINDINGS, (_row(id, lost) for id, _ in block))


class StopCheck(StopRequest):
    """Whether a signal has come, asked between two pieces of work."""

    def check(self) -> None:
        """Raise StoppedBySignal if one has."""
        if self.kind:
            raise StoppedBySignal(self.kind, _ADVICE)


@contextlib.contextmanager
def stoppable() -> Iterator[StopCheck]:
    """Note signals in here instead of being broken off by them; StoppedBySignal at the end if one
    has come.
    """
    with StopCheck().listening() as stop:
        yield stop
        stop.check()


def spread(
    task: Callable[[_Job], _Result],
    chunks: Iterator[list[_Job]],
    workers: int | None,
    stop: StopCheck,
    seconds: Callable[[_Job], float] | None = None,
    elsewhere: Elsewhere | None = None,
) -> Generator[list[tuple[_Job, _Result | Lost]], None, None]:
    """Do `task` for every job and yield jobs with their results, in any order.

    `workers`: processes, None for one per core, 0 for none. Each has one chunk, so that little is
    in memory at once. `seconds`: how long a process may be at a job, None for as long as it likes.
    The result of a job that ends its process, or takes longer, is Lost. StoppedBySignal if `stop`
    says so; DataError if processes die whatever they do. `task` is sent to the processes, or to
    those `elsewhere`.
    """
    if elsewhere is not None:
        with contextlib.closing(elsewhere(ReadingStation(task, seconds, workers), chunks)) as found:
            for done in found:
                yield done
                stop.check()
        return
    if workers == 0:
        for chunk in chunks:
            yield [(job, task(job)) for job in chunk]
            stop.check()
        return
    first = next(chunks, None)
    if first is None:
        return
    crew = Crew[_Job](usable_cores() if workers is None else workers, _serve, (task,), seconds)
    try:
        for messages in crew.rounds(itertools.chain([first], chunks)):
            if done := [(message.job, message.content) for message in messages]:
                yield done
            stop.check()
    finally:
        crew.end(_PATIENCE)


Elsewhere = Callable[
    ["ReadingStation", Iterator[list[Any]]], Generator[list[tuple[Any, Any]], None, None]
]
"""Does the jobs of chunks at stations on other machines, and yields them with their results."""


@dataclass(frozen=True)
class ReadingStation:
    """How an actor of a cluster does a task: with processes of its own, as `spread` does it here.

    `workers`: processes of each actor, None for one per core.
    """

    task: Callable[[Any], Any]
    seconds: Callable[[Any], float] | None
    workers: int | None

    def __call__(self, cpus: int) -> JobDesk[Any]:
        """Begin the processes, on a machine that has so many cores for them."""
        crew = Crew[Any](self.workers or cpus, _serve, (self.task,), self.seconds)
        return JobDesk(lambda chunks: _ended(crew, chunks))


def _ended(crew: Crew[Any], chunks: Iterator[list[Any]]) -> Iterator[list[tuple[Any, Any]]]:
    try:
        for messages in crew.rounds(chunks):
            yield [(message.job, message.content) for message in messages]
    finally:
        crew.end(_PATIENCE)


def _serve(connection: Connection, task: Callable[[Any], Any]) -> None:
    """What a process does."""
    cv2.setNumThreads(0)
    workers.work(connection, task)


@dataclass(frozen=True, slots=True)
class PictureJob:
    """A picture to read: its number in the journal, its source's, and its bytes where no other
    process can read it.
    """

    id: int
    source: int
    candidate: Candidate
    data: bytes | str | None = None  # text: why it cannot be read

    @property
    def size(self) -> int:
        """Bytes that are to be read."""
        return self.candidate.size


class Sized(Protocol):
    """Work on some bytes."""

    @property
    def size(self) -> int:
        """How many bytes."""


_SizedJob = TypeVar("_SizedJob", bound=Sized)


def jobs_where(
    journal: Journal, sources: Mapping[int, Source], where: str, stop: StopCheck
) -> Iterator[PictureJob]:
    """Jobs for the pictures that fulfil an SQL condition, which their results make untrue."""
    streams = {id: source for id, source in sources.items() if isinstance(source, CompressedTar)}
    marks = ", ".join("?" * len(streams))
    for block in journal.blocks(_COLUMNS, f"({where}) AND source NOT IN ({marks})", list(streams)):
        for id, source, *columns in block:
            yield PictureJob(id, source, Candidate(*columns))
    for number, stream in streams.items():
        if journal.count(f"({where}) AND source = ?", [number]):
            yield from _stream_jobs(journal, number, stream, where, stop)


def readers_of(sources: Mapping[int, Source]) -> dict[int, Reader]:
    """What reads the pictures of jobs that come without their bytes."""
    return {
        id: source.reader()
        for id, source in sources.items()
        if not isinstance(source, CompressedTar)
    }


def seconds_for(deadline: float) -> Callable[[Sized], float]:
    """How long a process may be at a piece of work: the deadline, and what reading so many bytes
    may take.
    """
    return functools.partial(_seconds_of, deadline)


def _seconds_of(deadline: float, work: Sized) -> float:
    return workers.allowed(deadline, work.size)


def in_chunks(jobs: Iterable[_SizedJob]) -> Iterator[list[_SizedJob]]:
    """Lists of jobs for one process at a time, of at most 32 pictures and (but for larger ones) 8
    MiB.
    """
    chunk: list[_SizedJob] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == _CHUNK or size + job.size > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += job.size
    if chunk:
        yield chunk


def batches(chunks: Iterator[list[_T]]) -> Iterator[list[_T]]:
    """Join chunks of results to some that are worth a transaction; what came before an interruption
    comes too.
    """
    batch: list[_T] = []
    start = time.monotonic()
    stopped: BaseException | None = None
    while True:
        try:
            chunk = next(chunks, None)
        except (StoppedBySignal, DataError, KeyboardInterrupt) as error:
            chunk, stopped = None, error
        batch += chunk or []
        if batch and (
            chunk is None or len(batch) >= _BATCH or time.monotonic() - start > _BATCH_SECONDS
        ):
            yield batch
            batch, start = [], time.monotonic()
        if stopped is not None:
            raise stopped
        if chunk is None:
            return


def bytes_of(job: PictureJob, readers: Mapping[int, Reader]) -> bytes:
    """The bytes of a job's picture. DataError with the reason alone."""
    if isinstance(job.data, str):
        raise DataError(job.data)
    return readers[job.source].read(job.candidate) if job.data is None else job.data


def _stream_jobs(
    journal: Journal, id: int, source: CompressedTar, where: str, stop: StopCheck
) -> Iterator[PictureJob]:
    """Jobs with bytes for those pictures of a compressed tar that fulfil an SQL condition."""
    for found, read in source.members(stop.check):
        row = journal.connection.execute(
            "SELECT id FROM pictures WHERE source = ? AND name = CAST(? AS TEXT) AND offset = ?"
            f" AND ({where})",
            (id, encoded(found.name), found.offset),
        ).fetchone()
        if row is None:
            continue
        data: bytes | str
        try:
            data = read()
        except DataError as error:
            data = str(error)
        yield PictureJob(row[0], id, found, data)
