"""The report of a batch whose files, or whose results, lie elsewhere."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from types import TracebackType

from gancolor.batch.mirror import Mirror
from gancolor.batch.records import NAME, Record, Report
from gancolor.errors import DataError
from gancolor.runtime import download, processes, remote_files

INTERVAL = 30.0
"""Seconds between two times that the report is sent, but at least twenty times as long as that took."""

_log = logging.getLogger("gancolor")
_PART = re.compile(r"report\.rank\d+\.jsonl")


class SentReport(Report):
    """A Report that tells addresses instead of the paths that stand for them.

    Where results go to an address, the report is written here and sent there: when the batch begins,
    so that missing rights are found before anything is coloured, now and then, and at the end. It
    goes on from what is there. Other machines' processes send reports of their own, which the
    leader, or else the next batch, joins. DataError where it cannot be sent.
    """

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self._mirror, self._sent, self._took = mirror, time.monotonic(), 0.0
        process = processes.current()
        if mirror.out is not None and process.leads:
            folder.mkdir(parents=True, exist_ok=True)
            self._receive(folder, [NAME])
            self._receive_parts(folder)
            (folder / NAME).touch()
        super().__init__(folder)
        # What lies on the leader's machine, the leader joins.
        near = process.rank < process.here
        self._sends = mirror.out is not None and (process.leads or not near)
        if mirror.out is not None and process.leads:
            self._send(self.path)  # to see whether that is allowed

    def write(self, record: Record) -> None:
        super().write(self._mirror.renamed(record))
        pause = max(INTERVAL, 20 * self._took)
        if self._sends and time.monotonic() - self._sent > pause:
            began = time.monotonic()
            try:
                self._send(self._own)
            except DataError as error:  # it comes with the next one, or at the end
                _log.warning("%s", error)
            self._sent = time.monotonic()
            self._took = self._sent - began

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        joins = processes.current().leads and kind is None
        if self._sends and joins:
            self._receive_parts(self.folder)
        super().__exit__(kind, error, trace)
        if self._sends:
            own = self.path if joins else self._own
            self._send(own)
            own.unlink()  # what others add there is more than what is here

    @property
    def _own(self) -> Path:
        """The file that this process writes."""
        rank = processes.current().rank
        return self.folder / f"report.rank{rank}.jsonl" if self._shared else self.path

    def _receive(self, folder: Path, names: list[str]) -> list[str]:
        """Fetch reports, unless here is more of them: what a killed process left. Those that were
        there.
        """
        assert self._mirror.out is not None
        sizes = {entry.name: entry.size for entry in remote_files.entries(self._mirror.out)}
        found = [name for name in sizes if name in names or (not names and _PART.fullmatch(name))]
        for name in found:
            # Not under the names that processes here write to.
            path = folder / (NAME if name == NAME else f"report.rank-far-{name}")
            if not path.exists() or path.stat().st_size < sizes[name]:
                path.unlink(missing_ok=True)
                address = remote_files.joined(self._mirror.out, name)
                download.fetch(address, path, None, way_out="try again later", quiet=True)
        return found

    def _receive_parts(self, folder: Path) -> None:
        """Take in what other machines' processes have sent, for `Report` to join."""
        assert self._mirror.out is not None
        for name in self._receive(folder, []):
            remote_files.remove(remote_files.joined(self._mirror.out, name))

    def _send(self, path: Path) -> None:
        assert self._mirror.out is not None
        address = remote_files.joined(self._mirror.out, path.name)
        try:
            remote_files.upload(path, address)
        except OSError as error:
            raise DataError(f"{address} could not be written: {error}") from error
