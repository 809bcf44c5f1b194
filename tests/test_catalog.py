"""Named sets and where they are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gancolor.data import catalog
from gancolor.errors import DataError

KNOWN = [
    "coco",
    "coco-small",
    "food",
    "helen",
    "imagenet",
    "natural",
    "people",
    "pipa",
    "places",
    "places-small",
    "sift-flow",
    "still-life",
]


def test_the_sets_are_known_and_complete(tmp_path):
    assert catalog.names(tmp_path) == KNOWN
    for name in KNOWN:
        entry = catalog.find(name, tmp_path)
        assert entry.name == name and entry.title and entry.what and entry.source and entry.licence
        assert entry.generated == (name == "still-life") == (entry.status == "painted")
        if not entry.generated:
            assert "http" in entry.source and entry.citation and entry.note and entry.pictures > 0
        # One sentence or line each: they stand in tables and in errors of one line.
        assert not any(
            "\n" in text
            for text in (entry.title, entry.what, entry.source, entry.licence, entry.note)
        )
    assert len({catalog.find(name).folder for name in KNOWN}) == len(KNOWN)


def test_status_is_honest_about_what_can_be_downloaded_and_checked():
    for name in KNOWN:
        entry = catalog.find(name)
        assert bool(entry.files) == (entry.status in ("checked", "not verified"))
        if entry.files:
            assert all(
                (item.checksum is not None) == (entry.status == "checked") for item in entry.files
            )
        if entry.status == "checked":
            assert all(item.bytes for item in entry.files) and entry.bytes == sum(
                item.bytes for item in entry.files
            )
        for item in entry.files:
            assert all(url.startswith(("https://", "http://")) for url in item.urls)


def test_datasets_readme_lists_the_same_sets():
    rows = (
        (Path(__file__).parents[1] / "datasets" / "README.md")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    listed = [row.split("`")[1] for row in rows if row.startswith("| `")]
    assert sorted(listed) == KNOWN
    for name in KNOWN:
        entry = catalog.find(name)
        row = next(row for row in rows if row.startswith(f"| `{name}` |"))
        assert entry.generated or f"datasets/{entry.folder}/" in row
        assert entry.generated or any(
            word.strip(",") in row for word in entry.source.split() if "http" in word
        )
        assert entry.status in row and (not entry.pictures or f"{entry.pictures:,}" in row)


def test_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=f"{', '.join(KNOWN)}.*got 'flowers'"):
        catalog.find("flowers", tmp_path)


def add(root, text, name="mine"):
    (root / f"{name}.toml").write_text(text, encoding="utf-8")


MINE = """
title = "Mine"
what = "My pictures."
source = "my server"
licence = "CC0"
[[files]]
name = "mine.zip"
urls = ["http://localhost/mine.zip", "http://127.0.0.1/mine.zip"]
md5 = "900150983cd24fb0d6963f7d28e17f72"
keep = ["*.jpg"]
[split]
globs = { train = "a/*", test = "b/*" }
"""


def test_a_users_own_sets_join_the_catalog(tmp_path, monkeypatch):
    add(tmp_path, MINE)
    entry = catalog.find("mine", tmp_path)
    assert (entry.folder, entry.status, entry.licence) == ("mine", "not verified", "CC0")
    assert entry.files[0].urls == ("http://localhost/mine.zip", "http://127.0.0.1/mine.zip")
    assert entry.files[0].checksum == "md5:900150983cd24fb0d6963f7d28e17f72" and entry.files[
        0
    ].keep == ("*.jpg",)
    assert entry.split.globs == {"train": "a/*", "test": "b/*"} and entry.split.lists == {}
    assert catalog.names(tmp_path) == sorted([*KNOWN, "mine"]) and "mine" not in catalog.names(
        tmp_path / "other"
    )
    monkeypatch.setenv("GANCOLOR_DATASETS", str(tmp_path))
    assert catalog.find("mine") == entry
    (tmp_path / "mine").mkdir()
    assert catalog.locate("mine", tmp_path) == tmp_path / "mine"


def test_a_users_own_entry_wins_over_the_shipped_one(tmp_path):
    add(tmp_path, MINE, "food")
    assert catalog.find("food", tmp_path).title == "Mine" and catalog.names(tmp_path) == KNOWN


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Mine"', "title = 3", "title must be a string"),
        ('title = "Mine"', "", "title"),
        ('title = "Mine"', 'title = "Mine"\npictures = "many"', "pictures must be a number"),
        ('title = "Mine"', 'title = "Mine"\ncolour = "red"', "unknown key 'colour'"),
        ('title = "Mine"', 'title = "Mine"\nstatus = "great"', "status must be one of"),
        ('title = "Mine"', 'title = "Mine"\nfolder = "../up"', "folder must be a relative path"),
        ('title = "Mine"', 'title = "Mine"\nfolder = "/etc"', "folder must be a relative path"),
        ('title = "Mine"', "title = ", "line 2"),
        ('"mine.zip"', '"../mine.zip"', "plain name"),
        ('["*.jpg"]', '"*.jpg"', "keep must be a list"),
        ('["http://localhost/mine.zip", "http://127.0.0.1/mine.zip"]', "[]", "must have urls"),
        (
            '["http://localhost/mine.zip", "http://127.0.0.1/mine.zip"]',
            '"http://x"',
            "urls must be a list",
        ),
        ("900150983cd24fb0d6963f7d28e17f72", "9001", "md5 must have 32 hexadecimal digits"),
        ('keep = ["*.jpg"]', 'into = "../x"', "into must be a relative path"),
        ("train = ", "training = ", "split must be train, val or test"),
        (
            'globs = { train = "a/*", test = "b/*" }',
            'lists = { test = "../x" }',
            "list of a split must be a relative",
        ),
    ],
)
def test_mistakes_in_a_users_own_entry_are_said_in_one_line(old, new, words, tmp_path):
    assert MINE.count(old) == 1
    add(tmp_path, MINE.replace(old, new))
    with pytest.raises(DataError, match=words) as caught:
        catalog.find("mine", tmp_path)
    assert "mine.toml must describe a dataset" in str(caught.value) and "\n" not in str(
        caught.value
    )
    # the others still work
    assert "mine" in catalog.names(tmp_path) and catalog.find("food", tmp_path).title == "Food"


def test_name_is_found_under_the_given_root(tmp_path):
    (tmp_path / "food").mkdir()
    assert catalog.locate("food", tmp_path) == tmp_path / "food"
    assert catalog.locate("food", str(tmp_path)) == tmp_path / "food"


def test_root_comes_from_the_environment_and_the_argument_beats_it(tmp_path, monkeypatch):
    (tmp_path / "a" / "food").mkdir(parents=True)
    (tmp_path / "b" / "food").mkdir(parents=True)
    monkeypatch.setenv("GANCOLOR_DATASETS", str(tmp_path / "a"))
    assert catalog.locate("food") == tmp_path / "a" / "food"
    assert catalog.locate("food", tmp_path / "b") == tmp_path / "b" / "food"


def test_default_root_is_datasets_here(tmp_path, monkeypatch):
    monkeypatch.delenv("GANCOLOR_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets" / "people").mkdir(parents=True)
    assert catalog.locate("people").resolve() == tmp_path / "datasets" / "people"


def test_missing_set_says_where_it_belongs_where_to_get_it_and_how_to_point_elsewhere(tmp_path):
    with pytest.raises(DataError) as caught:
        catalog.locate("food", tmp_path)
    message = str(caught.value)
    download = "gancolor data download food"
    for part in (
        str(tmp_path / "food"),
        "https://data.vision.ee.ethz.ch",
        "--datasets-root",
        "$GANCOLOR_DATASETS",
    ):
        assert part in message
    assert download in message and ", ".join(KNOWN) in message and "\n" not in message
    with pytest.raises(DataError) as caught:
        catalog.locate("imagenet", tmp_path)
    assert "data download" not in str(caught.value) and "https://image-net.org" in str(caught.value)


def test_path_of_a_folder(tmp_path, monkeypatch):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    assert catalog.locate(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    (tmp_path / "food").mkdir()
    assert catalog.locate("./food", tmp_path / "elsewhere").resolve() == tmp_path / "food"


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert catalog.locate("~/pictures") == tmp_path / "pictures"


def test_other_folder_under_the_root_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root" / "flowers").mkdir(parents=True)
    assert catalog.locate("flowers", tmp_path / "root") == tmp_path / "root" / "flowers"


@pytest.mark.parametrize("dataset", ["no-such-set", "", "/nowhere/at/all"])
def test_unknown_dataset_names_the_known_ones(dataset, tmp_path):
    with pytest.raises(DataError) as caught:
        catalog.locate(dataset, tmp_path)
    assert ", ".join(KNOWN) in str(caught.value) and repr(dataset) in str(caught.value)


def test_file_is_not_a_dataset(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="must be a folder"):
        catalog.locate(str(tmp_path / "a.jpg"))


def test_generated_set_has_no_folder():
    with pytest.raises(DataError, match="generated"):
        catalog.locate("still-life")
