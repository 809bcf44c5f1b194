"""The doctor's journal: what it keeps, what it forgets, and what it does with files that it cannot
use.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from gancolor.data.doctor.journal import Journal, encoded
from gancolor.errors import DataError


def add(journal: Journal, source: int, *names: str, generation: int = 1) -> None:
    journal.write(
        "INSERT INTO pictures (source, name, size, stamp, given, generation) VALUES (?, CAST(? AS"
        " TEXT), 5, 7, '', ?)",
        ((source, encoded(name), generation) for name in names),
    )


def test_what_is_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite"
    with Journal(path) as journal:
        add(journal, 1, "a.jpg", "b.jpg")
        with journal.connection:
            journal.set_fact("examined with", "3")
    with Journal(path) as journal:
        assert journal.count() == 2
        assert journal.fact("examined with") == "3"
        assert journal.fact("never set") is None


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9/\xff.jpg")
    with Journal(tmp_path / "journal") as journal:
        add(journal, 1, name, "日本.jpg", "line\nbreak.jpg")
        assert [row[1] for block in journal.blocks("name") for row in block] == [
            name,
            "日本.jpg",
            "line\nbreak.jpg",
        ]
        assert journal.count("name = CAST(? AS TEXT)", [encoded(name)]) == 1


def test_one_name_of_a_source_is_one_picture(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        add(journal, 1, "a.jpg")
        add(journal, 2, "a.jpg")
        with pytest.raises(sqlite3.IntegrityError):
            journal.write(
                "INSERT INTO pictures (source, name, size, stamp, given, generation) VALUES (?, ?,"
                " 0, 0, '', 1)",
                [(1, "new.jpg"), (1, "a.jpg")],
            )
        assert journal.count() == 2  # all or none: new.jpg is not there either


def test_blocks_come_by_number_while_rows_change(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        add(journal, 1, *(f"{number}.jpg" for number in range(25)))
        sizes, names = [], []
        for block in journal.blocks("name", "NOT examined", size=10):
            sizes.append(len(block))
            names += [name for _, name in block]
            journal.write(
                "UPDATE pictures SET examined = 1 WHERE id = ?", ((id,) for id, _ in block)
            )
        assert sizes == [10, 10, 5]
        assert names == [f"{number}.jpg" for number in range(25)]
        assert journal.count("NOT examined") == 0


def test_sources_keep_their_numbers_and_pictures(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        first = journal.set_sources([("/a", "", "folder", False), ("/b.zip", "b", "zip", False)])
        for number in first:
            add(journal, number, "x.jpg")
        second = journal.set_sources([("/c", "c", "folder", True), ("/a", "a", "folder", False)])
        assert second[1] == first[0] and second[0] not in first
        rows = journal.connection.execute(
            "SELECT path, label, kind, other FROM sources ORDER BY path"
        ).fetchall()
        assert rows == [("/a", "a", "folder", 0), ("/c", "c", "folder", 1)]
        assert [row[1:] for block in journal.blocks("source, name") for row in block] == [
            (first[0], "x.jpg")
        ]
        with pytest.raises(ValueError, match="must differ"):
            journal.set_sources([("/a", "", "folder", False), ("/a", "", "folder", True)])


def test_copies_of_forgotten_pictures_are_leftovers(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        add(journal, 1, "gone.jpg", "never copied.jpg", generation=1)
        add(journal, 1, "there.jpg", generation=2)
        journal.write(
            "UPDATE pictures SET copy = name, copy_sha256 = x'01' WHERE name = ?", [("gone.jpg",)]
        )
        assert journal.forget_older(2) == 2
        assert journal.connection.execute("SELECT copy, sha256 FROM leftovers").fetchall() == [
            ("gone.jpg", b"\1")
        ]
        assert [row[1] for block in journal.blocks("name") for row in block] == ["there.jpg"]


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)]
)
def test_a_damaged_journal_is_made_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with Journal(path) as journal:
        add(journal, 1, "a.jpg")
        assert journal.count() == 1
    assert "made anew" in caplog.text


def test_a_journal_of_another_version_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        add(journal, 1, "a.jpg")
        journal.connection.execute("PRAGMA user_version = 99")
    with Journal(path) as journal:
        assert journal.count() == 0
    assert "it has format 99" in caplog.text


def test_troubles_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match="journal must be readable and writable, got .*file"
    ) as raised:
        Journal(tmp_path / "file" / "journal.sqlite")
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="must be readable and writable.*no such table"):
        with Journal(tmp_path / "journal.sqlite") as journal:
            journal.connection.execute("SELECT * FROM missing")
    with pytest.raises(KeyError):  # other errors pass
        with Journal(tmp_path / "journal.sqlite"):
            raise KeyError


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    add(journal, 1, "kept.jpg")
    journal.connection.execute(
        "INSERT INTO pictures (source, name, size, stamp, given, generation) VALUES (1, 'lost.jpg',"
        " 0, 0, '', 1)"
    )
    copied = tmp_path / "as-killed.sqlite"  # the files as a kill leaves them
    for suffix in ("", "-wal"):
        (tmp_path / f"{copied.name}{suffix}").write_bytes(
            (tmp_path / f"{path.name}{suffix}").read_bytes()
        )
    journal.connection.close()
    with Journal(copied) as other:
        assert [row[1] for block in other.blocks("name") for row in block] == ["kept.jpg"]
