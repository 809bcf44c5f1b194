"""manifest.csv and set.json, as they are written and as training reads them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from journals import add

from gancolor import __version__
from gancolor.data import manifest
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.doctor.set_files import write_manifest, write_set
from gancolor.data.manifest import COLUMNS
from gancolor.errors import DataError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return the folder of a set."""
    folder = tmp_path / "datasets" / "mine"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def journal(tmp_path: Path, mine: Path) -> Iterator[Journal]:
    """Return an empty journal with the sources 1 to 4: another folder, an archive, a list, another
    set.
    """
    sources = [
        ("photos", "folder"),
        ("old.zip", "zip"),
        ("lists/all.csv", "manifest"),
        ("theirs", "folder"),
    ]
    with Journal(mine / ".prepare" / "journal.sqlite") as journal:
        journal.set_sources(
            [(str(tmp_path / path), "", kind, path == "theirs") for path, kind in sources]
        )
        yield journal


def rows(path: Path) -> list[dict[str, str]]:
    """The manifest's rows."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_rows_have_all_columns_and_are_sorted(journal: Journal, mine: Path, tmp_path: Path) -> None:
    known = {"reject": "", "split": "train"}
    for name in ("b.jpg", "a/c.jpg", "a.jpg"):
        add(journal, name, **known)
    add(journal, "d.jpg", reject="near-duplicate", split="val", colorfulness=12.3456)
    broken = {"sha256": None, "width": 0, "height": 0, "problem": "empty"}
    add(journal, "e.jpg", reject="broken", split="test", **broken)
    add(journal, "x.jpg", source=4, **known)
    add(journal, "new.jpg", examined=0)
    path = mine / "manifest.csv"
    assert write_manifest(journal, path) == 5
    found = rows(path)
    photos = f"{tmp_path}/photos/"
    assert [row["path"] for row in found] == [
        photos + name for name in ("a.jpg", "a/c.jpg", "b.jpg", "d.jpg", "e.jpg")
    ]
    assert tuple(found[0]) == COLUMNS
    assert found[3] == {
        "path": f"{photos}d.jpg", "sha256": hashlib.sha256(b"d.jpg").hexdigest(), "width": "100", "height": "80",
        "colorfulness": "12.35", "split": "val", "reject": "near-duplicate",
    }  # fmt: skip
    assert list(found[4].values())[1:] == ["", "", "", "", "test", "broken"]
    assert b"\r" not in path.read_bytes()
    assert sorted(entry.name for entry in mine.iterdir()) == [".prepare", "manifest.csv"]


def test_paths_of_every_kind_of_source(journal: Journal, mine: Path, tmp_path: Path) -> None:
    known = {"reject": "", "split": "train"}
    add(journal, "in/a.jpg", source=2, **known | {"reject": "gray"})
    add(journal, "b.jpg", source=3, **known)
    add(journal, "../photos/c.jpg", source=3, **known)
    add(journal, "/far/d.jpg", source=3, **known)
    add(journal, f"{mine}/e.jpg", source=3, **known)
    write_manifest(journal, mine / "manifest.csv")
    inside, *absolute = sorted(
        (row["path"] for row in rows(mine / "manifest.csv")), key=lambda path: path[0] == "/"
    )
    assert inside == "e.jpg"
    ends = ("lists/b.jpg", "old.zip/in/a.jpg", "photos/c.jpg")
    assert absolute == sorted(["/far/d.jpg", *(f"{tmp_path}/{end}" for end in ends)])


def test_a_file_of_two_sources_has_one_row(journal: Journal, mine: Path) -> None:
    add(journal, "sub/a.jpg", reject="", split="val")
    add(journal, "../photos/sub/a.jpg", source=3, reject="duplicate", split="train")
    add(journal, "b.jpg", reject="duplicate", split="val")
    add(journal, "../photos/b.jpg", source=3, reject="", split="train")
    add(journal, "c.jpg", reject="gray", split="val")
    add(journal, "../photos/c.jpg", source=3, reject="gray", split="val")
    assert write_manifest(journal, mine / "manifest.csv") == 3
    found = [
        (Path(row["path"]).name, row["split"], row["reject"]) for row in rows(mine / "manifest.csv")
    ]
    assert found == [("b.jpg", "train", ""), ("c.jpg", "val", "gray"), ("a.jpg", "val", "")]


def test_the_sets_own_folder_has_relative_paths(mine: Path) -> None:
    with Journal(mine / ".prepare" / "journal.sqlite") as journal:
        journal.set_sources([(str(mine), "", "folder", False)])
        add(journal, "a/b.jpg", reject="", split="val")
        add(journal, "c.jpg", reject="small", split="train")
        write_manifest(journal, mine / "manifest.csv")
    assert manifest.read(mine / "manifest.csv") == {"a/b.jpg": 1, "c.jpg": manifest.REJECTED}


def test_a_copy_stands_for_its_picture(journal: Journal, mine: Path, tmp_path: Path) -> None:
    copy = {"copy": "in/a.png.jpg", "copy_width": 64, "copy_height": 48, "copy_colorfulness": 7.0}
    add(journal, "in/a.png", source=2, reject="", split="test", copy_sha256=bytes(32), **copy)
    add(
        journal,
        "in/b.png",
        source=2,
        reject="broken",
        split="test",
        **copy | {"copy": "in/b.png.jpg"},
    )
    write_manifest(journal, mine / "manifest.csv")
    first, second = sorted(rows(mine / "manifest.csv"), key=lambda row: row["reject"])
    assert first == dict(
        zip(COLUMNS, ("in/a.png.jpg", "0" * 64, "64", "48", "7.00", "test", ""), strict=True)
    )
    assert (second["path"], second["width"]) == (f"{tmp_path}/old.zip/in/b.png", "100")


@pytest.mark.parametrize(
    "name",
    [
        "a,b.jpg",
        'a"b".jpg',
        " a .jpg",
        "a\nb.jpg",
        "a\rb.jpg",
        "é.jpg",
        b"caf\xe9.jpg".decode("utf-8", "surrogateescape"),
    ],
    ids=ascii,
)
def test_training_reads_names_as_they_are(mine: Path, name: str) -> None:
    with Journal(mine / ".prepare" / "journal.sqlite") as journal:
        journal.set_sources([(str(mine), "", "folder", False)])
        add(journal, name, reject="", split="val")
        add(journal, "z.jpg", reject="", split="test")
        write_manifest(journal, mine / "manifest.csv")
    assert manifest.read(mine / "manifest.csv") == {name: 1, "z.jpg": 2}


def test_the_manifest_appears_whole_or_not_at_all(
    journal: Journal, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(journal, "a.jpg", reject="", split="val")
    path = mine / "manifest.csv"
    path.write_text("before")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(
        DataError, match=r"manifest\.csv must be writable, got .*: No space left on device"
    ):
        write_manifest(journal, path)
    assert path.read_text() == "before"
    assert sorted(entry.name for entry in mine.iterdir()) == [".prepare", "manifest.csv"]


def test_set_json(mine: Path) -> None:
    counts = {"train": 4, "val": 1, "test": 1, "gray": 2, "duplicate": 1}
    write_set(
        mine / "set.json",
        name="mine",
        title="Mine",
        sources=["/photos"],
        licence="my own",
        rules=Rules(min_size=32, keep=frozenset({"shape", "blank"})),
        resize=320,
        counts=counts,
    )
    about = json.loads((mine / "set.json").read_text())
    rules = about.pop("rules")
    assert rules["min_size"] == 32
    assert rules["keep"] == ["blank", "shape"]
    assert abs(date.fromisoformat(about.pop("made")) - date.today()).days <= 1
    assert about == {
        "gancolor set": 1, "name": "mine", "title": "Mine", "version": __version__, "sources": ["/photos"],
        "licence": "my own", "resize": 320, "counts": counts,
    }  # fmt: skip
    assert not {"train", "val", "test"} & set(REASONS)
    assert [entry.name for entry in mine.iterdir()] == ["set.json"]


def test_set_json_that_cannot_be_written(mine: Path) -> None:
    about = {
        "name": "",
        "title": "",
        "sources": [],
        "licence": "",
        "rules": Rules(),
        "resize": None,
        "counts": {},
    }
    with pytest.raises(
        DataError, match=r"set\.json must be writable, got .*: No such file or directory"
    ):
        write_set(mine / "gone" / "set.json", **about)  # type: ignore[arg-type]
