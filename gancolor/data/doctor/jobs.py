"""Pictures on their way through worker processes: what is sent, and what comes back, in portions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gancolor import workers
from gancolor.data.doctor import pool
from gancolor.data.doctor.archives import Stream
from gancolor.data.doctor.entries import Entry, Reader, Source
from gancolor.data.doctor.journal import Journal, encoded
from gancolor.data.doctor.pool import Stop
from gancolor.errors import DataError

T = TypeVar("T")


class Sized(Protocol):
    """Work on some bytes."""

    @property
    def size(self) -> int:
        """How many bytes."""


Work = TypeVar("Work", bound=Sized)

_CHUNK, _CHUNK_BYTES = 32, 1 << 23  # of pictures that a process gets at once
_BATCH, _BATCH_SECONDS = 500, 2.0  # of results that are written at once
_COLUMNS = "source, name, size, stamp, given, offset"


@dataclass(frozen=True, slots=True)
class Job:
    """A picture to read: its number in the journal, its source's, and its bytes where no other process can read it."""

    id: int
    source: int
    entry: Entry
    data: bytes | str | None = None  # text: why it cannot be read

    @property
    def size(self) -> int:
        """Bytes that are to be read."""
        return self.entry.size


def jobs_where(journal: Journal, sources: Mapping[int, Source], where: str, stop: Stop) -> Iterator[Job]:
    """Jobs for the pictures that fulfil an SQL condition, which their results make untrue."""
    streams = {id: source for id, source in sources.items() if isinstance(source, Stream)}
    marks = ", ".join("?" * len(streams))
    for block in journal.blocks(_COLUMNS, f"({where}) AND source NOT IN ({marks})", list(streams)):
        for id, source, *entry in block:
            yield Job(id, source, Entry(*entry))
    for number, stream in streams.items():
        if journal.count(f"({where}) AND source = ?", [number]):
            yield from _stream_jobs(journal, number, stream, where, stop)


def readers_of(sources: Mapping[int, Source]) -> dict[int, Reader]:
    """What reads the pictures of jobs that come without their bytes."""
    return {id: source.reader() for id, source in sources.items() if not isinstance(source, Stream)}


def seconds_for(deadline: float) -> Callable[[Sized], float]:
    """How long a process may be at a piece of work: the deadline, and what reading so many bytes may take."""
    return lambda work: workers.allowed(deadline, work.size)


def in_chunks(jobs: Iterable[Work]) -> Iterator[list[Work]]:
    """Lists of jobs for one process at a time, of at most 32 pictures and (but for larger ones) 8 MiB."""
    chunk: list[Work] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == _CHUNK or size + job.size > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += job.size
    if chunk:
        yield chunk


def batches(chunks: Iterator[list[T]]) -> Iterator[list[T]]:
    """Join chunks of results to some that are worth a transaction; what came before an interruption comes too."""
    batch: list[T] = []
    start = time.monotonic()
    stopped: BaseException | None = None
    while True:
        try:
            chunk = next(chunks, None)
        except (pool.Stopped, DataError, KeyboardInterrupt) as error:
            chunk, stopped = None, error
        batch += chunk or []
        if batch and (chunk is None or len(batch) >= _BATCH or time.monotonic() - start > _BATCH_SECONDS):
            yield batch
            batch, start = [], time.monotonic()
        if stopped is not None:
            raise stopped
        if chunk is None:
            return


def bytes_of(job: Job, readers: Mapping[int, Reader]) -> bytes:
    """The bytes of a job's picture. DataError with the reason alone."""
    if isinstance(job.data, str):
        raise DataError(job.data)
    return readers[job.source].read(job.entry) if job.data is None else job.data


def _stream_jobs(journal: Journal, id: int, source: Stream, where: str, stop: Stop) -> Iterator[Job]:
    """Jobs with bytes for those pictures of a compressed tar that fulfil an SQL condition."""
    for entry, read in source.members(stop.check):
        row = journal.connection.execute(
            f"SELECT id FROM pictures WHERE source = ? AND name = CAST(? AS TEXT) AND offset = ? AND ({where})",
            (id, encoded(entry.name), entry.offset),
        ).fetchone()
        if row is None:
            continue
        data: bytes | str
        try:
            data = read()
        except DataError as error:
            data = str(error)
        yield Job(row[0], id, entry, data)
