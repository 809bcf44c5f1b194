"""Named sets and where they are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gancolor.data import catalog
from gancolor.errors import DataError


def test_the_four_sets_are_known_and_complete():
    assert catalog.names() == ["food", "natural", "people", "still-life"]
    for name in catalog.names():
        entry = catalog.find(name)
        assert entry.name == name and entry.title and entry.what and entry.source and entry.licence
        assert entry.generated == (name == "still-life")
        assert entry.generated or "https://" in entry.source


def test_datasets_readme_lists_the_same_sets():
    rows = (Path(__file__).parents[1] / "datasets" / "README.md").read_text(encoding="utf-8").splitlines()
    for name in catalog.names():
        entry = catalog.find(name)
        row = next(row for row in rows if row.startswith(f"| `{name}` |"))
        assert entry.generated or f"datasets/{entry.folder}/" in row
        assert entry.generated or any(word.strip(",") in row for word in entry.source.split() if "https://" in word)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match="food, natural, people, still-life.*got 'flowers'"):
        catalog.find("flowers")


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
    for part in (str(tmp_path / "food"), "https://data.vision.ee.ethz.ch", "--datasets-root", "$GANCOLOR_DATASETS"):
        assert part in message
    assert "food, natural, people, still-life" in message and "\n" not in message


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
    assert "food, natural, people, still-life" in str(caught.value) and repr(dataset) in str(caught.value)


def test_file_is_not_a_dataset(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="must be a folder"):
        catalog.locate(str(tmp_path / "a.jpg"))


def test_generated_set_has_no_folder():
    with pytest.raises(DataError, match="generated"):
        catalog.locate("still-life")
