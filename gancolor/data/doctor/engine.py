"""Find and examine all pictures of some sources; what is known already is not read again."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from gancolor.data.doctor import examining, pool
from gancolor.data.doctor.entries import Entry, Reader, Source
from gancolor.data.doctor.examining import Findings
from gancolor.data.doctor.jobs import Job, batches, bytes_of, in_chunks, jobs_where, readers_of, seconds_for
from gancolor.data.doctor.journal import Journal, encoded
from gancolor.data.doctor.pool import Stop
from gancolor.errors import DataError, shown, visible
from gancolor.workers import DEADLINE, DIED, Lost

FOLDER = ".prepare"
"""Hidden folder of a set for what the doctor keeps."""

Progress = Callable[[int, int], None]

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


@dataclass(frozen=True)
class Tally:
    """What `examine_all` did: pictures examined now, known before, and forgotten because they are gone.

    `others` counts, by words for it ("other file(s)"), what the sources hold beside pictures, `passed` those other
    files by suffix.
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
    progress: Progress,
) -> Tally:
    """Bring the journal up to date with its sources (by their ids, all of them).

    Pictures whose size and stamp did not change keep their findings. `workers`: processes, None for one per core, 0
    for none. `deadline`: seconds for a picture, beside those for its size, after which a process is given up with it.
    `progress(done, total)`: in pictures; total is 0 while they are counted. Stopped after Ctrl-C or SIGTERM
    with everything kept that was found until then; the next call goes on. What could not be read is tried again, and
    what lay behind the damage of an archive is not gone. DataError if a source cannot be read at all, or there is no
    room for temporary files.
    """
    with pool.stoppable() as stop:
        _examine_again(journal)
        gone = _walk(journal, sources, progress, stop)
        others: Counter[str] = sum((source.skipped for source in sources.values()), Counter())
        passed: Counter[str] = sum((source.passed for source in sources.values()), Counter())
        todo = journal.count("NOT examined")
        jobs = jobs_where(journal, sources, "NOT examined", stop)
        found = pool.spread(_Examiner(readers_of(sources)), in_chunks(jobs), workers, stop, seconds_for(deadline))
        done = 0
        with contextlib.closing(found):
            for batch in batches(found):
                found_out = [(job.id, _unread(each.reason) if isinstance(each, Lost) else each) for job, each in batch]
                journal.write(_FINDINGS, (_row(id, each) for id, each in found_out if isinstance(each, Findings)))
                for _, each in found_out:
                    if isinstance(each, DataError):
                        raise each
                progress(done := done + len(batch), todo)
        _give_up(journal)
    return Tally(todo, journal.count() - todo, gone, dict(others), dict(passed))


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a set's folder for one process; the system releases it with the process. DataError if another holds it."""
    path = folder / FOLDER / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)  # its locks work on every system
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"set's folder must be writable, got {shown(folder)}: {error}") from None
    with contextlib.closing(connection):
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            reason = "another process is preparing it" if "locked" in str(error) else str(error)
            raise DataError(f"set must be prepared by one process at a time, got {shown(folder)}: {reason}") from None
        yield


def _examine_again(journal: Journal) -> None:
    """What could not be read (unless that killed a process), and all if pictures are examined in another way now."""
    journal.write("UPDATE pictures SET examined = 0 WHERE sha256 IS NULL AND problem <> ?", [(DIED,)])
    version = examining.version()
    if journal.fact("examined with") != version:
        with journal.connection:
            journal.connection.execute("UPDATE pictures SET examined = 0")
            journal.set_fact("examined with", version)


def _walk(journal: Journal, sources: Mapping[int, Source], progress: Progress, stop: Stop) -> int:
    """Note all pictures that are there now; forget those that are not and return how many."""
    generation = int(journal.fact("generation") or 0) + 1
    with journal.connection:
        journal.set_fact("generation", str(generation))
    found = 0
    for id, source in sources.items():
        entries = source.walk(stop.check)
        while rows := [_noted(id, entry, generation) for entry in itertools.islice(entries, _BLOCK)]:
            journal.write(_UPSERT, rows)
            progress(found := found + len(rows), 0)
            stop.check()
        if source.incomplete:  # what lay behind the damage is not gone, and its copies are still good
            journal.write("UPDATE pictures SET generation = ? WHERE source = ?", [(generation, id)])
    return journal.forget_older(generation)


def _noted(source: int, entry: Entry, generation: int) -> tuple[int | str | bytes | None, ...]:
    return (source, encoded(entry.name), entry.size, entry.stamp, entry.given, entry.offset, generation)


class _Examiner:
    """What a process does with a picture: reads it and looks at it. An error is why nothing can be looked at."""

    def __init__(self, readers: dict[int, Reader]) -> None:
        self._readers = readers

    def __call__(self, job: Job) -> Findings | DataError:
        try:
            data = bytes_of(job, self._readers)
        except DataError as error:
            return _unread(str(error))
        except MemoryError:
            return _unread("it does not fit into memory")
        try:
            return examining.examine(data, job.entry.name)
        except DataError as error:  # raised here it would end the process
            return error


def _unread(reason: str) -> Findings:
    return Findings(b"", "", 0, 0, 0.0, 0.0, 0.0, 0.0, 0, b"", reason)


def _row(id: int, findings: Findings) -> tuple[int | str | float | bytes | None, ...]:
    sha256, *middle, hash, signature, problem = astuple(findings)
    problem = visible(problem)  # it may quote a name of any bytes, and what a library says of them
    return (sha256 or None, *middle, examining.to_signed(hash), signature, problem, id)


def _give_up(journal: Journal) -> None:
    """Nothing is left to be examined but what a compressed archive listed once and did not bring again."""
    lost = _unread("the archive is cut off, or changed meanwhile")
    for block in journal.blocks("name", "NOT examined"):
        journal.write(_FINDINGS, (_row(id, lost) for id, _ in block))
