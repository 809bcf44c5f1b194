"""The report of a batch: whole lines whatever happens, several processes' joined."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from gancolor.batch.records import MOST_FAILURES, Record, Report, Summary
from gancolor.errors import DataError


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a report; a line that a kill cut off is left out."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def test_a_line_for_each_file(tmp_path: Path) -> None:
    record = Record(
        "old/a.jpg",
        ["new/a.jpg"],
        width=4,
        height=3,
        size=(32, 43),
        seconds=0.123456,
        notes=["first page"],
    )
    with Report(tmp_path / "new" / "deep") as report:
        report.write(record)
        assert len(read(report.path)) == 1  # at once, not when it is closed
        report.write(Record("b.mp4", kind="film", status="failed", error="no video", full=True))
    first, second = read(report.path)
    assert first == {
        "source": "old/a.jpg",
        "targets": ["new/a.jpg"],
        "kind": "picture",
        "status": "done",
        "width": 4,
        "height": 3,
        "size": [32, 43],
        "seconds": 0.123,
        "notes": ["first page"],
        "error": None,
    }
    assert (second["kind"], second["error"], "full" in second) == ("film", "no video", False)


def test_later_runs_append_behind_a_torn_line(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        report.write(Record("a.jpg"))
        report.write(Record("b.jpg"))
    text = report.path.read_bytes()
    report.path.write_bytes(text[:-20])  # a kill cut it off
    with Report(tmp_path) as report:
        report.write(Record("c.jpg"))
    assert [record["source"] for record in read(report.path)] == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "name", ["写真.jpg", "two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg"), '"quoted".jpg']
)
def test_names_survive(tmp_path: Path, name: str) -> None:
    with Report(tmp_path) as report:
        report.write(Record(name))
    assert report.path.read_bytes().isascii()
    assert [record["source"] for record in read(report.path)] == [name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_loses_lines_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "report.jsonl").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING, "gancolor"), Report(tmp_path) as report:
        report.write(Record("a.jpg"))
        report.write(Record("b.jpg"))
    assert report.lost == 2
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]


def test_the_folder_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="--out must be a writable folder, got .*file"):
        Report(tmp_path / "file" / "new")


def test_what_killed_processes_left_is_joined(tmp_path: Path) -> None:
    (tmp_path / "report.jsonl").write_text('{"source": "a"}\n{"sou')
    (tmp_path / "report.rank0.jsonl").write_text('{"source": "b"}\n')
    (tmp_path / "report.rank1.jsonl").write_text('{"source": "c"}\n{"source": "d"')
    with Report(tmp_path) as report:
        report.write(Record("e"))
    assert [record["source"] for record in read(report.path)] == ["a", "b", "c", "e"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.jsonl"]


def test_a_summary_counts_and_names_the_first_failures() -> None:
    summary = Summary()
    for status in ("done", "done", "skipped"):
        summary.add(Record("a", status=status))  # type: ignore[arg-type]
    for number in range(MOST_FAILURES + 5):
        summary.add(Record(str(number), status="failed"))
    assert (summary.done, summary.skipped, summary.failed) == (2, 1, MOST_FAILURES + 5)
    assert [record.source for record in summary.failures] == [
        str(number) for number in range(MOST_FAILURES)
    ]
    other = Summary(done=1, left=2, failed=1, failures=[Record("!", status="failed")])
    total = Summary.total([summary, other])
    assert (total.done, total.skipped, total.left) == (3, 1, 2)
    assert total.failed == MOST_FAILURES + 6 and len(total.failures) == MOST_FAILURES
    assert total.failures[0].source == "!"
    assert json.loads(summary.failures[0].line())["status"] == "failed"
