"""Find the pictures of a folder in object storage, and notice where they cannot be had."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.readers import Candidate, Reader, StoredReader
from gancolor.data.doctor.sources import OURS, Check, ManifestTable, Source
from gancolor.data.manifest import MANIFEST
from gancolor.errors import DataError, shown
from gancolor.images.formats import is_litter
from gancolor.runtime import remote_files
from gancolor.runtime.remote_files import Refused, StoredEntry
from gancolor.runtime.workers import DIED

log = logging.getLogger("gancolor")

MOST_MISSING = 20
"""Pictures in a row that could not be fetched, after which it is not the pictures' fault."""


class StoredFolder(Source):
    """All pictures under an address in object storage, without hidden files and folders.

    A picture is known by its suffix alone, as to look into a file means to ask for it. A manifest
    in the folder counts as in one here, but for paths that lead out of the folder.
    """

    kind = "stored"

    def __init__(
        self, address: str, by_folder: bool = False, exclude: tuple[str, ...] = ()
    ) -> None:
        super().__init__(by_folder, exclude)
        self.address = address

    def _candidates(self, check: Check) -> Iterator[Candidate]:
        with self._manifest() as table:
            found = self._found(check)
            yield from found if table is None else table.sift(found, self.skipped)

    def reader(self) -> Reader:
        """What reads the pictures."""
        return StoredReader(self.address)

    @contextlib.contextmanager
    def _manifest(self) -> Iterator[ManifestTable | None]:
        address = remote_files.joined(self.address, MANIFEST)
        found = remote_files.find(address)
        if found is None or found.is_folder:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, MANIFEST)
            try:
                path.write_bytes(remote_files.read_bytes(address, found.size))
                table = ManifestTable(path)
            except Refused as refused:
                raise DataError(f"{shown(address)} could not be read: {refused}") from None
            except DataError as error:
                raise DataError(str(error).replace(str(path), shown(address))) from None
        with table:
            yield table

    def _found(self, check: Check) -> Iterator[Candidate]:
        for name, entry in remote_files.walk(self.address):
            check()
            if name in OURS or any(map(is_litter, name.split("/"))):
                continue
            if self._takes(name, bytes):
                yield Candidate(name, entry.size, _stamp(entry), self._given(name))


def _stamp(entry: StoredEntry) -> int:
    """What changes with the content, in 64 bits."""
    mark = entry.mark or repr(entry.modified)
    return int.from_bytes(hashlib.sha256(mark.encode()).digest()[:8], "big", signed=True)


class FetchWatch:
    """Notices when pictures of addresses cannot be fetched.

    A few may be gone or forbidden, and count as broken. If all are, or many in a row, nothing that
    was decided of them would hold.
    """

    def __init__(self, journal: Journal, sources: Mapping[int, Source]) -> None:
        self._journal = journal
        self._addresses = {
            id: source.address for id, source in sources.items() if isinstance(source, StoredFolder)
        }
        self._missing = 0

    def note(self, source: int, reason: str) -> None:
        """Note why a picture could not be fetched, "" where it could. DataError if too many in a row
        could not.
        """
        if source not in self._addresses:
            return
        self._missing = self._missing + 1 if reason else 0
        if self._missing == MOST_MISSING:
            raise DataError(
                f"{shown(self._addresses[source])} must go on answering, got none of"
                f" {MOST_MISSING} pictures in a row: {reason}; what was found so far is kept: go on"
                " with the same command"
            )

    def conclude(self) -> None:
        """Say what could not be fetched, when all has been asked for. DataError if that is all of an
        address.
        """
        for source, address in self._addresses.items():
            missing = "source = ? AND sha256 IS NULL AND problem <> ?"
            count = self._journal.count(missing, (source, DIED))
            if not count:
                continue
            name, problem = self._journal.connection.execute(
                f"SELECT name, problem FROM pictures WHERE {missing} ORDER BY id", (source, DIED)
            ).fetchone()
            # Empty files are not asked for.
            if count == self._journal.count("source = ? AND size > 0", [source]):
                raise DataError(
                    f"pictures of {shown(address)} must come when they are asked for, got none of"
                    f" {count:,}: {problem}"
                )
            log.warning(
                "%s of %s could not be fetched, such as %s (%s); they count as broken, and the same"
                " command asks for them again",
                f"{count:,} pictures" if count > 1 else "1 picture",
                shown(address),
                shown(name),
                problem,
            )
