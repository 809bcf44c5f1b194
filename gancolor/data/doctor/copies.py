"""Copies of the kept pictures in the set's own folder: named, made, kept up to date, and removed
when they are not wanted any more.

Where a copy goes is noted in the journal before it is written, and a copy that is to be removed is
noted as a leftover first. So a stopped call leaves nothing behind that the next one does not know,
and what somebody changed is never removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.data import manifest
from gancolor.data.doctor import examination, survey
from gancolor.data.doctor.copy_names import copy_name, other_name
from gancolor.data.doctor.journal import COPIED, Journal, encoded
from gancolor.data.doctor.readers import Reader
from gancolor.data.doctor.reserve import NOTHING, Reserve
from gancolor.data.doctor.set_files import addresses, read_set
from gancolor.data.doctor.sources import ARCHIVES, Source
from gancolor.data.doctor.stored_folder import FetchWatch
from gancolor.data.doctor.survey import (
    Elsewhere,
    PictureJob,
    StopCheck,
    batches,
    bytes_of,
    in_chunks,
    jobs_where,
    readers_of,
    seconds_for,
)
from gancolor.errors import DataError, GancolorError, shown
from gancolor.images import arrays
from gancolor.runtime.files import Progress
from gancolor.runtime.remote_files import is_stored
from gancolor.runtime.workers import DEADLINE, Lost

_NO_STAMP = -(2**63)  # no file has it, so the next walk takes the picture for a changed one
_CHANGED = "it changed while the set was prepared; run the same command again"

log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Copies:
    """What `copy_all` did: copies made, found as they should be, removed, and that could not be
    made.
    """

    made: int
    kept: int
    removed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy is: SHA-256 (32 bytes), sides in pixels, colorfulness as in `Findings`."""

    sha256: bytes
    width: int
    height: int
    colorfulness: float


@dataclass(frozen=True, slots=True)
class CopyJob:
    """A copy to make, or one without a `job` that was made before and is to be looked at. `sha256`:
    what the picture in its source should have, of one that was made what the copy should have.
    """

    id: int
    target: str
    sha256: bytes
    size: int
    kind: str = ""
    job: PictureJob | None = None


def copy_all(
    journal: Journal,
    sources: Mapping[int, Source],
    folder: Path,
    resize: int | None,
    *,
    workers: int | None = None,
    deadline: float = DEADLINE,
    elsewhere: Elsewhere | None = None,
    reserve: Reserve = NOTHING,
    progress: Progress,
) -> Copies:
    """Bring the copies in a set's `folder` up to date with the journal's decisions.

    With `resize` (pixels) every kept picture has one, else those in archives and at addresses.
    Copies whose bytes are as they were written stay. Copies of pictures that are rejected or gone
    are removed; what somebody changed of them stays. What somebody changed of the others is moved to
    `changed` beside the journal, and copied again. A picture that cannot be read any more becomes
    broken and is looked at again next time. `workers`, `deadline`, `progress`, StoppedBySignal: as
    for `survey.examine_all`, and so is `elsewhere`, which does not look at copies that are there.
    `reserve`: where pictures from addresses are, unless they have to be fetched again. DataError if
    a file is in the way that prepare has not written, the folder cannot be written, or addresses do
    not answer any more.
    """
    wanted = _wanted(resize)
    with survey.stoppable() as stop:
        with journal.connection:
            _drop(journal, f"NOT COALESCE({wanted}, 0)")
        removed = _remove_leftovers(journal, folder)
        _name_all(journal, folder, wanted, resize is not None)
        removed += _remove_leftovers(journal, folder)
        total = journal.count(wanted)
        kept = _verify(journal, folder, wanted, workers, lambda done: progress(done, total), stop)
        if _forget_if_changed(journal, resize):
            kept = 0
        todo = f"{wanted} AND copy_sha256 IS NULL"
        task = Copier(readers_of(sources), folder, resize, reserve)
        watch = FetchWatch(journal, sources)
        works = _to_make(journal, sources, todo, stop)
        made = failed = 0
        with contextlib.closing(
            survey.spread(task, in_chunks(works), workers, stop, seconds_for(deadline), elsewhere)
        ) as results:
            for batch in batches(results):
                good = _keep(journal, batch)
                for work, result in batch:
                    _settle(work, result, reserve, watch)
                made, failed = made + good, failed + len(batch) - good
                progress(kept + made + failed, total)
        failed += _give_up(journal, todo)
        removed += _remove_leftovers(journal, folder)  # earlier copies of those that failed
    return Copies(made, kept, removed, failed)


def adopt(journal: Journal, folder: Path) -> None:
    """Note the copies of a set whose journal is lost, by its manifest, so that they may be removed
    and made again.

    Nothing is noted if the journal is not new, or if pictures in the folder may be somebody's own.
    """
    if journal.connection.execute("SELECT 1 FROM sources").fetchone() or not _holds_only_copies(
        folder
    ):
        return
    noted = ((encoded(path), sha256) for path, sha256 in _listed_copies(folder / manifest.MANIFEST))
    with contextlib.suppress(DataError):
        journal.write("INSERT OR REPLACE INTO leftovers VALUES (CAST(? AS TEXT), ?)", noted)


def _holds_only_copies(folder: Path) -> bool:
    """Whether set.json says that prepare wrote each picture of the manifest that lies in the
    folder.
    """
    about = read_set(folder)
    try:
        sources, resize = list(map(str, about["sources"])), about["resize"]
    except (KeyError, TypeError):
        return False
    if os.path.realpath(folder) in map(os.path.realpath, sources):
        return False
    # By their names: a folder, prepared in place, may have moved since.
    return resize is not None or all(
        is_stored(source) or source.lower().endswith(ARCHIVES) for source in sources
    )


def _listed_copies(path: Path) -> Iterator[tuple[str, bytes]]:
    for _, (name, sha256, reject) in manifest.read_cells(path, "path", "sha256", "reject"):
        inside = not os.path.isabs(name) and ".." not in name.split("/")
        if inside and not reject and re.fullmatch("[0-9a-f]{64}", sha256):
            yield name, bytes.fromhex(sha256)


def _wanted(resize: int | None) -> str:
    """SQL condition for the pictures that are to have a copy."""
    kinds = "1" if resize is not None else COPIED
    return f"(reject = '' AND source IN (SELECT id FROM sources WHERE NOT other AND {kinds}))"


def is_rule_new(journal: Journal, resize: int | None) -> bool:
    """Whether copies that are there were made by another rule: all are made again then."""
    return journal.fact("copied with") not in (None, _rule(resize))


def _rule(resize: int | None) -> str:
    return f"{resize} {examination.QUALITY}"


def _forget_if_changed(journal: Journal, resize: int | None) -> bool:
    """Say whether no copy that is there was made by this rule: all are made again then."""
    if journal.fact("copied with") == _rule(resize):
        return False
    with journal.connection:
        journal.connection.execute("UPDATE pictures SET copy_sha256 = NULL WHERE copy IS NOT NULL")
        journal.set_fact("copied with", _rule(resize))
    return True


def _name_all(journal: Journal, folder: Path, wanted: str, resized: bool) -> None:
    """Decide where each copy goes, and note it before anything is written there."""
    labels = dict(journal.connection.execute("SELECT id, label FROM sources").fetchall())
    for block in journal.blocks("source, name, kind, copy", wanted):
        with journal.connection:
            for id, source, name, kind, copy in block:
                target = copy_name(labels[source], name, kind, resized)
                other = other_name(target, id)
                if copy not in (target, other):
                    _drop(journal, "id = ?", [id])
                    _claim(journal, folder, id, target, other)


def _claim(journal: Journal, folder: Path, id: int, target: str, other: str) -> None:
    for copy in (target, other):
        known = journal.connection.execute(
            "SELECT 1 FROM leftovers WHERE copy = ?", (copy,)
        ).fetchone()
        if known is None and os.path.lexists(folder / copy) and not _is_taken(journal, copy):
            raise DataError(
                "set's folder must not hold files that prepare has not written, got"
                f" {shown(folder / copy)} where a copy is to go; move it, or choose another --name"
            )
        with contextlib.suppress(sqlite3.IntegrityError):
            journal.connection.execute("UPDATE pictures SET copy = ? WHERE id = ?", (copy, id))
            return


def _is_taken(journal: Journal, copy: str) -> bool:
    row = journal.connection.execute(
        "SELECT 1 FROM pictures WHERE copy = ? COLLATE NOCASE", (copy,)
    ).fetchone()
    return row is not None


def _verify(
    journal: Journal,
    folder: Path,
    wanted: str,
    workers: int | None,
    progress: Callable[[int], None],
    stop: StopCheck,
) -> int:
    """Note which copies are not as they were written, and move them aside; returns how many are as
    they were.
    """
    works = (
        CopyJob(id, copy, sha256, size)
        for block in journal.blocks(
            "copy, copy_sha256, size", f"{wanted} AND copy_sha256 IS NOT NULL"
        )
        for id, copy, sha256, size in block
    )
    kept = 0
    with contextlib.closing(
        survey.spread(functools.partial(_is_as_written, folder), in_chunks(works), workers, stop)
    ) as results:
        for batch in batches(results):
            bad = [work for work, good in batch if good is not True]
            _move_aside(folder, journal.path.parent / "changed", [work.target for work in bad])
            journal.write(
                "UPDATE pictures SET copy_sha256 = NULL WHERE id = ?", ((work.id,) for work in bad)
            )
            progress(kept := kept + len(batch) - len(bad))
    return kept


def _move_aside(folder: Path, aside: Path, copies: list[str]) -> None:
    """Move those copies that are there and that somebody changed: they may hold work that nobody
    else has.
    """
    changed = [copy for copy in copies if os.path.lexists(folder / copy)]
    for copy in changed:
        try:
            (aside / copy).parent.mkdir(parents=True, exist_ok=True)
            (folder / copy).replace(aside / copy)
        except OSError as error:
            reason = (
                f"it was changed since it was copied, and cannot be moved to {shown(aside)}:"
                f" {error.strerror}"
            )
            raise DataError(
                f"copy must be as it was written, got {shown(folder / copy)}: {reason}; move it"
            ) from None
    if changed:
        log.warning(
            "%d of the copies were changed since they were made, such as %s; they are in %s now, and are made again",
            len(changed), shown(folder / changed[0]), shown(aside),
        )  # fmt: skip


def _is_as_written(folder: Path, work: CopyJob) -> bool:
    """What a process does with a copy that was made before."""
    return _sha256_of(folder / work.target) == work.sha256


def _to_make(
    journal: Journal, sources: Mapping[int, Source], todo: str, stop: StopCheck
) -> Iterator[CopyJob]:
    for job in jobs_where(journal, sources, todo, stop):
        row = journal.connection.execute(
            "SELECT copy, sha256, kind FROM pictures WHERE id = ?", (job.id,)
        ).fetchone()
        copy, sha256, kind = row
        yield CopyJob(job.id, copy, sha256, job.size, kind, job)


class Copier:
    """What a process does with a picture to copy. Text is why the picture cannot be read, an error
    why nothing can.
    """

    def __init__(
        self,
        readers: Mapping[int, Reader],
        folder: Path,
        resize: int | None,
        reserve: Reserve = NOTHING,
    ) -> None:
        self._readers, self._folder, self._resize = readers, folder, resize
        self._reserve = reserve

    def __call__(self, work: CopyJob) -> Copied | str | DataError:
        assert work.job is not None
        target = self._folder / work.target
        try:
            data = self._reserve.take(work.job.source, work.sha256)
            if data is not None:
                kind = work.kind if self._resize is None else "jpeg"
                return copy_one(data, kind, target, self._resize)
            data = bytes_of(work.job, self._readers)
            if hashlib.sha256(data).digest() != work.sha256:
                return _CHANGED
            return copy_one(data, work.kind, target, self._resize)
        except DataError as error:
            # Without space or permission no other picture can be copied either.
            return error if isinstance(error.__cause__, OSError) else str(error)
        except GancolorError as error:
            return str(error)


def _keep(journal: Journal, batch: list[tuple[CopyJob, Copied | str | DataError | Lost]]) -> int:
    """Note what came of some copies; returns how many were made. DataError if the folder cannot be
    written.
    """
    good = [
        (found.sha256, found.width, found.height, found.colorfulness, work.id)
        for work, found in batch
        if isinstance(found, Copied)
    ]
    journal.write(
        "UPDATE pictures SET copy_sha256 = ?, copy_width = ?, copy_height = ?, copy_colorfulness ="
        " ? WHERE id = ?",
        good,
    )
    for work, found in batch:
        if isinstance(found, DataError):
            raise found
        if not isinstance(found, Copied):
            _reject(journal, work.id, found.reason if isinstance(found, Lost) else found)
    return len(good)


def _settle(
    work: CopyJob, found: Copied | str | DataError | Lost, reserve: Reserve, watch: FetchWatch
) -> None:
    """Forget the bytes of a copy that was made and noted; note one that was not."""
    assert work.job is not None
    if isinstance(found, Copied):
        reserve.drop(work.job.source, work.sha256)
        watch.note(work.job.source, "")
    else:
        watch.note(work.job.source, found.reason if isinstance(found, Lost) else str(found))


def _reject(journal: Journal, id: int, reason: str) -> None:
    """A picture that was good when it was examined cannot be copied: it is broken, and examined
    again next time.
    """
    reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
    with journal.connection:
        _drop(journal, "id = ?", [id])
        journal.connection.execute(
            "UPDATE pictures SET reject = 'broken', problem = ?, sha256 = NULL, width = 0, height ="
            " 0, stamp = ? WHERE id = ?",
            (reason, _NO_STAMP, id),
        )


def _give_up(journal: Journal, todo: str) -> int:
    """Reject what a compressed archive did not bring again; returns how many."""
    lost = [id for block in journal.blocks("copy", todo) for id, _ in block]
    for id in lost:
        _reject(journal, id, _CHANGED)
    return len(lost)


def copy_one(data: bytes, kind: str, target: Path, resize: int | None) -> Copied:
    """Write the copy of a picture file, given by its bytes and its kind (see
    `examination.kind_of`), to `target`.

    Without `resize` (pixels) the bytes stay as they are; else see `examination.to_jpeg`. Missing
    folders are made; the file appears whole or not at all. DataError if the picture is broken or
    the file cannot be written, MissingExtra as for reading.
    """
    if resize is not None:
        data = examination.to_jpeg(data, kind, resize)
    found = examination.examine(data, target.name)
    if not found.width:
        raise DataError(f"picture must be readable, got {shown(target.name)}: {found.problem}")
    arrays.write_file(target, data)
    return Copied(found.sha256, found.width, found.height, found.colorfulness)


def _drop(journal: Journal, where: str, values: Sequence[Any] = ()) -> None:
    """Make leftovers of the copies of those pictures that fulfil an SQL condition; the caller
    commits.
    """
    journal.note_leftovers(where, values)
    journal.connection.execute(
        f"UPDATE pictures SET copy = NULL, copy_sha256 = NULL WHERE {where}", values
    )


def _remove_leftovers(journal: Journal, folder: Path) -> int:
    """Remove the leftovers from a set's folder, and folders that are empty then; returns how many
    were removed.

    Those stay that are not as they were written, and those that are a source's pictures now.
    DataError if one cannot be removed.
    """
    if not journal.connection.execute("SELECT 1 FROM leftovers").fetchone():
        return 0
    journal.connection.create_function("address", 4, addresses(folder))
    with journal.connection:
        journal.connection.execute(
            "DELETE FROM leftovers WHERE copy IN (SELECT copy FROM pictures)"
        )
        journal.connection.execute(
            "DELETE FROM leftovers WHERE CAST(copy AS BLOB) IN (SELECT address(CAST(s.path AS"
            " BLOB), s.kind, CAST(p.name AS BLOB), NULL) FROM pictures p JOIN sources s ON s.id ="
            " p.source)"
        )
    removed = 0
    while rows := journal.connection.execute(
        "SELECT copy, sha256 FROM leftovers LIMIT 1000"
    ).fetchall():
        removed += sum(_remove_copy(folder, copy, sha256) for copy, sha256 in rows)
        journal.write("DELETE FROM leftovers WHERE copy = ?", ((copy,) for copy, _ in rows))
    return removed


def _sha256_of(path: Path) -> bytes:
    """SHA-256 of a file, empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _remove_copy(folder: Path, copy: str, sha256: bytes | None) -> bool:
    path = folder / copy
    try:
        if sha256 is not None and _sha256_of(path) != sha256:
            if path.exists():
                log.warning(
                    "%s was changed since it was copied; it is left where it is", shown(path)
                )
            return False
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(
            f"copy must be removable, got {shown(path)}: {error.strerror}; remove it"
        ) from None
    for parent in path.relative_to(folder).parents[:-1]:
        try:
            (folder / parent).rmdir()
        except OSError:  # not empty
            break
    return True
