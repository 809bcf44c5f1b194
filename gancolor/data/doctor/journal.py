"""What the doctor knows of every picture of a set, in one SQLite file, and the lock of the set.

So no memory grows with the number of pictures, and stopped work goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gancolor.errors import DataError, shown

FORMAT = 1
"""Version of the tables; a journal of another one is made anew."""

FOLDER = ".prepare"
"""Hidden folder in a set's for what the doctor keeps."""

OWN = "source NOT IN (SELECT id FROM sources WHERE other)"
"""SQL condition: the picture is one of the set's own sources, not one that it is compared with."""

COPIED = "kind IN ('zip', 'tar', 'stream', 'stored')"
"""SQL condition: the source is an archive, or lies in object storage, so its pictures can be trained
on as copies alone.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,      -- or address
    label TEXT NOT NULL,            -- first part of its pictures' names in the set; '' with one source
    kind TEXT NOT NULL,             -- folder, zip, tar, stream (a compressed tar), stored or manifest
    other INTEGER NOT NULL          -- 1: only searched for duplicates, never part of the set
);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    name TEXT NOT NULL,             -- relative to the source, forward slashes; absolute in manifests that say so
    size INTEGER NOT NULL,          -- bytes
    stamp INTEGER NOT NULL,         -- mtime in ns; of a zip's member its checksum, of a tar's member its mtime
    given TEXT NOT NULL,            -- split that the source states, or ''
    offset INTEGER,                 -- of its bytes in a tar (uncompressed), of its header in a zip, else NULL
    generation INTEGER NOT NULL,    -- the walk that saw it last
    examined INTEGER NOT NULL DEFAULT 0,
    sha256 BLOB, kind TEXT, width INTEGER, height INTEGER,
    colorfulness REAL, chroma REAL, spread REAL, contrast REAL,
    hash INTEGER, signature BLOB, problem TEXT,
    reject TEXT, split TEXT,
    twin INTEGER,                   -- the kept picture that it duplicates
    copy TEXT,                      -- relative to the set; with copy_sha256 NULL it may be half done
    copy_sha256 BLOB, copy_width INTEGER, copy_height INTEGER, copy_colorfulness REAL,
    UNIQUE (source, name)
);
-- Two names that differ in case alone are one file on some systems.
CREATE UNIQUE INDEX IF NOT EXISTS copies ON pictures (copy COLLATE NOCASE) WHERE copy IS NOT NULL;
-- Copies whose pictures are gone or rejected: to be removed.
CREATE TABLE IF NOT EXISTS leftovers (copy TEXT PRIMARY KEY, sha256 BLOB);
"""

log = logging.getLogger("gancolor")


class Journal:
    """A journal file, opened or made; closed at the end of a `with`, where SQLite's errors become a
    DataError.

    `connection` is for any SQL on the tables `pictures`, `sources` and `facts`. Text comes with
    surrogate escapes for bytes that are no UTF-8; to write such text, give `encoded(text)` to
    `CAST(? AS TEXT)`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            try:
                self.connection = _open(path)
            except sqlite3.OperationalError:
                raise  # no permission, no space, in use: nothing that a new file mends
            except (sqlite3.DatabaseError, _OtherFormat) as error:
                log.warning(
                    "%s is made anew and all pictures are examined again: %s", shown(path), error
                )
                _remove(path)
                self.connection = _open(path)
        except (OSError, sqlite3.Error) as error:
            raise self._trouble(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.connection.close()
        except sqlite3.Error as other:
            error = error or other
        if isinstance(error, sqlite3.Error):
            raise self._trouble(error) from error

    def fact(self, key: str) -> str | None:
        """A value by its name; None if it was never set."""
        row = self.connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        """Remember a value; the caller commits."""
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def set_sources(self, sources: Sequence[tuple[str, str, str, bool]]) -> list[int]:
        """Make (path, label, kind, other) the sources, and return their ids in that order.

        Pictures of those that were sources before stay; those of all others are forgotten, their
        copies noted as leftovers. ValueError for a path that stands twice.
        """
        if len({path for path, *_ in sources}) < len(sources):
            raise ValueError(f"sources must differ, got {[path for path, *_ in sources]}")
        with self.connection:
            ids = [self._set_source(*source) for source in sources]
            marks = ", ".join("?" * len(ids))
            self._forget(f"source NOT IN ({marks})", ids)
            self.connection.execute(f"DELETE FROM sources WHERE id NOT IN ({marks})", ids)
        return ids

    def _set_source(self, path: str, label: str, kind: str, other: bool) -> int:
        row = self.connection.execute(
            "INSERT INTO sources (path, label, kind, other) VALUES (CAST(? AS TEXT), CAST(? AS"
            " TEXT), ?, ?) ON CONFLICT (path) DO UPDATE SET label = excluded.label, kind ="
            " excluded.kind, other = excluded.other RETURNING id",
            (encoded(path), encoded(label), kind, int(other)),
        ).fetchone()
        return int(row[0])

    def forget_older(self, generation: int) -> int:
        """Forget the pictures that the walk `generation` has not seen; returns how many."""
        with self.connection:
            return self._forget("generation <> ?", [generation])

    def note_leftovers(self, where: str, values: Sequence[Any] = ()) -> None:
        """Note that the copies of the pictures that fulfil an SQL condition are to be removed; the
        caller commits.
        """
        self.connection.execute(
            "INSERT OR REPLACE INTO leftovers SELECT copy, copy_sha256 FROM pictures"
            f" WHERE copy IS NOT NULL AND ({where})",
            values,
        )

    def _forget(self, where: str, values: list[int]) -> int:
        self.note_leftovers(where, values)
        return self.connection.execute(f"DELETE FROM pictures WHERE {where}", values).rowcount

    def count(self, where: str = "1", values: Sequence[Any] = ()) -> int:
        """How many pictures fulfil an SQL condition."""
        row = self.connection.execute(
            f"SELECT COUNT(*) FROM pictures WHERE {where}", values
        ).fetchone()
        return int(row[0])

    def blocks(
        self, columns: str, where: str = "1", values: Sequence[Any] = (), size: int = 1000
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Rows (id, *columns) by rising id, `size` at a time; rows may be changed between two
        blocks.
        """
        last = -1
        while True:
            rows = self.connection.execute(
                f"SELECT id, {columns} FROM pictures WHERE id > ? AND ({where}) ORDER BY id"
                " LIMIT ?",
                (last, *values, size),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield rows

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for every row, all or none of them kept."""
        with self.connection:
            self.connection.executemany(statement, rows)

    def _trouble(self, error: Exception) -> DataError:
        return DataError(
            f"the doctor's journal must be readable and writable, got {shown(self.path)}: {error};"
            " look at the disk's space and permissions, or remove the file and all pictures are"
            " examined again"
        )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a set's folder for one process; the system releases it with the process. DataError if
    another holds it.
    """
    path = folder / FOLDER / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite's locks work on every system.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"set's folder must be writable, got {shown(folder)}: {error}") from None
    with contextlib.closing(connection):
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            reason = "another process is preparing it" if "locked" in str(error) else str(error)
            raise DataError(
                f"set must be prepared by one process at a time, got {shown(folder)}: {reason}"
            ) from None
        yield


def encoded(text: str) -> bytes:
    """Text, also with surrogate escapes (file names of any bytes), for `CAST(? AS TEXT)`."""
    return text.encode("utf-8", "surrogateescape")


def decoded(text: bytes) -> str:
    """Undo `encoded`."""
    return text.decode("utf-8", "surrogateescape")


class _OtherFormat(Exception):
    """The journal was written by another version."""


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=60)
    try:
        connection.text_factory = decoded
        # With the log, a kill loses nothing that was committed, and a power cut at most the last
        # results.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise _OtherFormat(f"it has format {version}, this version writes {FORMAT}")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
