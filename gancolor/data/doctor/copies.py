"""Copies of the kept pictures in the set's own folder: made, kept up to date, and removed when they are not wanted."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gancolor.data.doctor import copying, pool
from gancolor.data.doctor.copying import Copied
from gancolor.data.doctor.entries import Reader, Source
from gancolor.data.doctor.jobs import Job, batches, bytes_of, in_chunks, jobs_where, readers_of
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.naming import copy_name
from gancolor.errors import DataError, GancolorError, shown

_CHANGED = "it changed while the set was prepared; run the same command again"

log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Copies:
    """What `copy_all` did: copies made, found as they should be, removed, and that could not be made."""

    made: int
    kept: int
    removed: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy to make, or without a `job` to look at. `sha256`: that its source, or else that it itself should have."""

    id: int
    target: str
    sha256: bytes
    size: int
    kind: str = ""
    job: Job | None = None


def copy_all(
    journal: Journal,
    sources: Mapping[int, Source],
    folder: Path,
    resize: int | None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None],
) -> Copies:
    """Bring the copies in a set's `folder` up to date with the journal's decisions.

    With `resize` (pixels) every kept picture has one, else those in archives. Copies whose bytes are as they were
    written stay; those of pictures that are rejected or gone are removed, unless somebody changed them. A picture that
    cannot be read any more becomes broken. `workers`, `progress`, Stopped: as for `engine.examine_all`. DataError if a
    file is in the way that prepare has not written, or the folder cannot be written.
    """
    wanted = _wanted(resize)
    with pool.stoppable() as stop:
        _copy_again_if_changed(journal, resize)
        _drop(journal, f"copy IS NOT NULL AND NOT COALESCE({wanted}, 0)")
        removed = _remove_leftovers(journal, folder)
        _name_all(journal, folder, wanted, resize is not None)
        removed += _remove_leftovers(journal, folder)
        total = journal.count(wanted)
        kept = _verify(journal, folder, wanted, workers, lambda done: progress(done, total), stop)
        todo = f"{wanted} AND copy_sha256 IS NULL"
        task, works = _Copier(readers_of(sources), folder, resize), _to_make(journal, sources, todo, stop)
        made = failed = 0
        with contextlib.closing(pool.spread(task, in_chunks(works), workers, stop)) as results:
            for batch in batches(results):
                good = _keep(journal, batch)
                made, failed = made + good, failed + len(batch) - good
                progress(kept + made + failed, total)
        failed += _give_up(journal, todo)
    return Copies(made, kept, removed, failed)


def _wanted(resize: int | None) -> str:
    """SQL condition for the pictures that are to have a copy."""
    kinds = "1" if resize is not None else "kind IN ('zip', 'tar', 'stream')"
    return f"(reject = '' AND source IN (SELECT id FROM sources WHERE NOT other AND {kinds}))"


def _copy_again_if_changed(journal: Journal, resize: int | None) -> None:
    rule = f"{resize} {copying.QUALITY}"
    if journal.fact("copied with") != rule:
        with journal.connection:
            journal.connection.execute("UPDATE pictures SET copy_sha256 = NULL WHERE copy IS NOT NULL")
            journal.set_fact("copied with", rule)


def _drop(journal: Journal, where: str) -> None:
    """Make copies leftovers."""
    with journal.connection:
        journal.connection.execute(
            f"INSERT OR REPLACE INTO leftovers SELECT copy, copy_sha256 FROM pictures WHERE {where}"
        )
        journal.connection.execute(f"UPDATE pictures SET copy = NULL, copy_sha256 = NULL WHERE {where}")


def _remove_leftovers(journal: Journal, folder: Path) -> int:
    """Remove copies that no picture has, and folders that are empty then; returns how many."""
    with journal.connection:
        journal.connection.execute("DELETE FROM leftovers WHERE copy IN (SELECT copy FROM pictures)")
    removed = 0
    while rows := journal.connection.execute("SELECT copy, sha256 FROM leftovers LIMIT 1000").fetchall():
        removed += sum(_remove(folder, copy, sha256) for copy, sha256 in rows)
        journal.write("DELETE FROM leftovers WHERE copy = ?", ((copy,) for copy, _ in rows))
    return removed


def _remove(folder: Path, copy: str, sha256: bytes | None) -> bool:
    path = folder / copy
    try:
        if sha256 is not None and _sha256_of(path) != sha256:
            if path.exists():
                log.warning("%s was changed since it was copied; it is left where it is", shown(path))
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"copy must be removable, got {shown(path)}: {error.strerror}; remove it") from None
    for parent in path.relative_to(folder).parents[:-1]:
        try:
            (folder / parent).rmdir()
        except OSError:  # not empty
            break
    return True


def _sha256_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _name_all(journal: Journal, folder: Path, wanted: str, resized: bool) -> None:
    """Decide where each copy goes, and note it before anything is written there."""
    labels = dict(journal.connection.execute("SELECT id, label FROM sources").fetchall())
    for block in journal.blocks("source, name, kind, copy", wanted):
        with journal.connection:
            for id, source, name, kind, copy in block:
                target = copy_name(labels[source], name, kind, resized)
                stem, suffix = os.path.splitext(target)
                other = f"{stem}~{id}{suffix}"  # where another picture has that name
                if copy not in (target, other):
                    if copy is not None:
                        _drop_one(journal, id)
                    _claim(journal, folder, id, target, other)


def _drop_one(journal: Journal, id: int) -> None:
    journal.connection.execute(
        "INSERT OR REPLACE INTO leftovers SELECT copy, copy_sha256 FROM pictures WHERE id = ?", (id,)
    )
    journal.connection.execute("UPDATE pictures SET copy = NULL, copy_sha256 = NULL WHERE id = ?", (id,))


def _claim(journal: Journal, folder: Path, id: int, target: str, other: str) -> None:
    for copy in (target, other):
        known = journal.connection.execute("SELECT 1 FROM leftovers WHERE copy = ?", (copy,)).fetchone()
        if known is None and os.path.lexists(folder / copy) and not _is_taken(journal, copy):
            raise DataError(
                f"set's folder must not hold files that prepare has not written, got {shown(folder / copy)} where a "
                "copy is to go; move it, or choose another --name"
            )
        with contextlib.suppress(sqlite3.IntegrityError):
            journal.connection.execute("UPDATE pictures SET copy = ? WHERE id = ?", (copy, id))
            return


def _is_taken(journal: Journal, copy: str) -> bool:
    row = journal.connection.execute("SELECT 1 FROM pictures WHERE copy = ? COLLATE NOCASE", (copy,)).fetchone()
    return row is not None


def _verify(
    journal: Journal, folder: Path, wanted: str, workers: int | None, progress: Callable[[int], None], stop: pool.Stop
) -> int:
    """Note which copies are not as they were written; returns how many are."""
    works = (
        _Copy(id, copy, sha256, size)
        for block in journal.blocks("copy, copy_sha256, size", f"{wanted} AND copy_sha256 IS NOT NULL")
        for id, copy, sha256, size in block
    )
    kept = 0
    with contextlib.closing(pool.spread(_Verifier(folder), in_chunks(works), workers, stop)) as results:
        for batch in batches(results):
            bad = [(work.id,) for work, good in batch if not good]
            journal.write("UPDATE pictures SET copy_sha256 = NULL WHERE id = ?", bad)
            progress(kept := kept + len(batch) - len(bad))
    return kept


class _Verifier:
    """What a process does with a copy that was made before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, work: _Copy) -> bool:
        return _sha256_of(self._folder / work.target) == work.sha256


def _to_make(journal: Journal, sources: Mapping[int, Source], todo: str, stop: pool.Stop) -> Iterator[_Copy]:
    for job in jobs_where(journal, sources, todo, stop):
        row = journal.connection.execute("SELECT copy, sha256, kind FROM pictures WHERE id = ?", (job.id,)).fetchone()
        copy, sha256, kind = row
        yield _Copy(job.id, copy, sha256, job.size, kind, job)


class _Copier:
    """What a process does with a picture to copy. Text is why the picture cannot be read, an error why nothing can."""

    def __init__(self, readers: Mapping[int, Reader], folder: Path, resize: int | None) -> None:
        self._readers, self._folder, self._resize = readers, folder, resize

    def __call__(self, work: _Copy) -> Copied | str | DataError:
        assert work.job is not None
        try:
            data = bytes_of(work.job, self._readers)
            if hashlib.sha256(data).digest() != work.sha256:
                return _CHANGED
            return copying.copy_one(data, work.kind, self._folder / work.target, self._resize)
        except GancolorError as error:
            if isinstance(error, DataError) and isinstance(error.__cause__, OSError):  # no space, no permission
                return error
            return str(error)


def _keep(journal: Journal, batch: list[tuple[_Copy, Copied | str | DataError | None]]) -> int:
    """Note what came of some copies; returns how many were made. DataError if the folder cannot be written."""
    good = [
        (found.sha256, found.width, found.height, found.colorfulness, work.id)
        for work, found in batch
        if isinstance(found, Copied)
    ]
    journal.write(
        "UPDATE pictures SET copy_sha256 = ?, copy_width = ?, copy_height = ?, copy_colorfulness = ? WHERE id = ?", good
    )
    for work, found in batch:
        if isinstance(found, DataError):
            raise found
        if not isinstance(found, Copied):
            _reject(journal, work.id, found or "the process that copied it died")
    return len(good)


def _reject(journal: Journal, id: int, reason: str) -> None:
    """A picture that was good when it was examined cannot be copied: it is broken, and examined again next time."""
    reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
    with journal.connection:
        _drop_one(journal, id)
        journal.connection.execute(
            "UPDATE pictures SET reject = 'broken', problem = ?, examined = 0 WHERE id = ?", (reason, id)
        )


def _give_up(journal: Journal, todo: str) -> int:
    """Reject what a compressed archive did not bring again; returns how many."""
    lost = [id for block in journal.blocks("copy", todo) for id, _ in block]
    for id in lost:
        _reject(journal, id, _CHANGED)
    return len(lost)
