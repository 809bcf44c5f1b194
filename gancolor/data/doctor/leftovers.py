"""Copies that no picture has any more: noted first, then removed, but never what somebody changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.naming import addresses
from gancolor.errors import DataError, shown

log = logging.getLogger("gancolor")


def drop(journal: Journal, where: str, values: Sequence[Any] = ()) -> None:
    """Make leftovers of the copies of those pictures that fulfil an SQL condition; the caller commits."""
    journal.connection.execute(
        f"INSERT OR REPLACE INTO leftovers SELECT copy, copy_sha256 FROM pictures WHERE copy IS NOT NULL AND ({where})",
        values,
    )
    journal.connection.execute(f"UPDATE pictures SET copy = NULL, copy_sha256 = NULL WHERE {where}", values)


def remove_all(journal: Journal, folder: Path) -> int:
    """Remove the leftovers from a set's folder, and folders that are empty then; returns how many were removed.

    Those stay that are not as they were written, and those that are a source's pictures now. DataError if one cannot
    be removed.
    """
    if not journal.connection.execute("SELECT 1 FROM leftovers").fetchone():
        return 0
    journal.connection.create_function("address", 4, addresses(folder))
    with journal.connection:
        journal.connection.execute("DELETE FROM leftovers WHERE copy IN (SELECT copy FROM pictures)")
        journal.connection.execute(
            "DELETE FROM leftovers WHERE CAST(copy AS BLOB) IN (SELECT address(CAST(s.path AS BLOB), s.kind, "
            "CAST(p.name AS BLOB), NULL) FROM pictures p JOIN sources s ON s.id = p.source)"
        )
    removed = 0
    while rows := journal.connection.execute("SELECT copy, sha256 FROM leftovers LIMIT 1000").fetchall():
        removed += sum(_remove(folder, copy, sha256) for copy, sha256 in rows)
        journal.write("DELETE FROM leftovers WHERE copy = ?", ((copy,) for copy, _ in rows))
    return removed


def sha256_of(path: Path) -> bytes:
    """SHA-256 of a file, empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _remove(folder: Path, copy: str, sha256: bytes | None) -> bool:
    path = folder / copy
    try:
        if sha256 is not None and sha256_of(path) != sha256:
            if path.exists():
                log.warning("%s was changed since it was copied; it is left where it is", shown(path))
            return False
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"copy must be removable, got {shown(path)}: {error.strerror}; remove it") from None
    for parent in path.relative_to(folder).parents[:-1]:
        try:
            (folder / parent).rmdir()
        except OSError:  # not empty
            break
    return True
