"""What became of each file of a batch: a line of JSON as it ends, in `report.jsonl` beside the results."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from gancolor.errors import DataError, shown
from gancolor.runtime import processes

NAME = "report.jsonl"

MOST_FAILURES = 1000
"""How many failed files a Summary names; the report has them all."""

Status = Literal["done", "skipped", "left", "failed"]

_log = logging.getLogger("gancolor")


@dataclass
class Record:
    """What became of one file.

    `status`: "done", "skipped" because its result exists, "left" alone because it has colours of
    its own, or "failed". `targets`: the files written, or for a skipped one the files that were
    there. `width`, `height`: pixels. `size`: height and width at which the network saw it. `error`:
    one line, of a failed file. `full`: whether the disk was full, `starved`: whether memory ran out,
    `fault`: whether it failed over something that no user can mend (these not in the report).
    """

    source: str
    targets: list[str] = field(default_factory=list)
    kind: Literal["picture", "film"] = "picture"
    status: Status = "done"
    width: int | None = None
    height: int | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    full: bool = field(default=False, compare=False)
    starved: bool = field(default=False, compare=False)
    fault: bool = field(default=False, compare=False)

    def line(self) -> str:
        """The record as one line of JSON, in ASCII: names that are no text keep their bytes as lone
        surrogates.
        """
        content = dataclasses.asdict(self)
        del content["full"], content["starved"], content["fault"]
        return json.dumps(content | {"seconds": round(self.seconds, 3)})


@dataclass
class Summary:
    """How many files were done, skipped, left alone and failed; the failed ones by name,
    `MOST_FAILURES` at most.
    """

    done: int = 0
    skipped: int = 0
    left: int = 0
    failed: int = 0
    failures: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count one file."""
        setattr(self, record.status, getattr(self, record.status) + 1)
        if record.status == "failed" and len(self.failures) < MOST_FAILURES:
            self.failures.append(record)

    @staticmethod
    def total(parts: Sequence[Summary]) -> Summary:
        """The sum of several."""
        failures = [record for part in parts for record in part.failures]
        return Summary(
            done=sum(part.done for part in parts),
            skipped=sum(part.skipped for part in parts),
            left=sum(part.left for part in parts),
            failed=sum(part.failed for part in parts),
            failures=sorted(failures, key=Record.line)[:MOST_FAILURES],
        )


class Report:
    """Appends to `report.jsonl` in a folder; with several processes each to its own, which the
    leader joins at the end.

    The folder is made. DataError if it cannot be written to. Under torchrun open and leave it
    (`with`) on each process, the leader when the others write no more (as `dispatch.run` leaves it).
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        process = processes.current()
        self._shared = process.world > 1
        own = folder / f"report.rank{process.rank}.jsonl" if self._shared else self.path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._shared:
                _join(folder)  # what processes that were killed left behind
            self._file = os.open(
                own, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
            self._torn = not _ends_whole(self._file)
        except OSError as error:
            raise DataError(
                f"--out must be a writable folder, got {shown(folder)}: {error.strerror}; choose"
                " another"
            ) from error
        self.lost = 0

    def write(self, record: Record) -> None:
        """Append one record. A full disk loses the line, with one warning, not the batch."""
        text = ("\n" if self._torn else "") + record.line() + "\n"
        data = text.encode("ascii")
        try:
            # unbuffered: whatever happens next, the line is in the file
            written = os.write(self._file, data)
            self._torn = written < len(data)
            reason = "the disk is full"
        except OSError as error:
            written, reason = 0, error.strerror or str(error)
        if written < len(data):
            if not self.lost:
                _log.warning("%s could not be written: %s", shown(self.path), reason)
            self.lost += 1

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        # after an error the others may be at work yet: the next run joins
        if not self._shared or kind is not None or not processes.current().leads:
            return
        try:
            _join(self.folder)
        except OSError as failed:
            _log.warning("%s could not be written: %s", shown(self.path), failed.strerror)


def _join(folder: Path) -> None:
    """Append the processes' own reports to the common one and remove them."""
    for part in sorted(folder.glob("report.rank*.jsonl")):
        with open(folder / NAME, "ab+") as whole:
            torn = not _ends_whole(whole.fileno())
            whole.write(b"\n" if torn else b"")
            with open(part, "rb") as lines:
                whole.writelines(line for line in lines if line.endswith(b"\n"))
        part.unlink()


def _ends_whole(file: int) -> bool:
    """Whether a file is empty or ends with a whole line."""
    size = os.fstat(file).st_size
    if not size:
        return True
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"
