"""What speaks against preparing a set, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_plan import Plan, locate
from gancolor.errors import ConfigError, DataError


def located(
    root: Path, *sources: Path | str, name: str = "mine", **options: object
) -> tuple[list[Path], list[Path]]:
    """Locate the sources of a plan."""
    return locate(
        Plan(name=name, sources=tuple(map(str, sources)), root=root, rules=Rules(), **options)
    )  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with a subfolder."""
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    return tmp_path / "photos"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a datasets root."""
    (tmp_path / "sets").mkdir()
    return tmp_path / "sets"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "../mine"}, "--name must be the name of a folder"),
        ({"name": "a" * 300}, "--name must be the name of a folder"),
        ({"name": "é" * 130}, "--name must be the name of a folder"),
        ({"name": "mine.tar"}, "--name must not look like shards, got mine.tar"),
        ({"name": "shards.json"}, "--name must not look like shards"),
        ({"val": 0.6, "test": 0.5}, "--val and --test must leave"),
        ({"val": float("nan")}, "--val and --test must leave a share to train on, got nan and 0.1"),
        ({"val": -0.1}, "--val and --test must leave"),
        ({"sheet": Path("a.jpg")}, "--sheet must be a file that ends in .png, got a.jpg"),
    ],
)
def test_settings_that_contradict(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Plan(**{"name": "mine", "sources": (), "root": Path(), "rules": Rules()} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["", "x" * 300, "nowhere", "a\0b", "~nobody-of-that-name/x"])
def test_what_is_not_there_is_one_line_with_the_option(
    root: Path, photos: Path, source: str
) -> None:
    for options, word in (((source,), "SOURCE"), ((photos,), "--against")):
        with pytest.raises(DataError, match=f"^{word} must be a folder, an archive") as caught:
            located(root, *options, against=(source,))
        assert "\n" not in str(caught.value)


def test_the_own_folder_through_a_link_is_the_own_folder(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "link").symlink_to("mine")
    assert located(root, root / "link") == ([root / "mine"], [])
    assert located(root, root / "mine", name="link") == ([root / "link"], [])


def test_a_link_to_itself_as_the_sets_folder(root: Path, photos: Path) -> None:
    (root / "mine").symlink_to("mine")
    with pytest.raises(DataError, match="set's folder must be a readable folder"):
        located(root, photos)


@pytest.mark.parametrize(
    ("name", "is_in_place"),
    [("still-life", False), ("still-life", True), ("food", False), ("own", False)],
)
def test_names_that_stand_for_other_pictures(
    root: Path, photos: Path, name: str, is_in_place: bool
) -> None:
    (root / "own.toml").write_text('title = "Own"\nwhat = "x"\nlicence = "CC0"\nsource = "x"\n')
    (root / name).mkdir()
    (root / name / ".prepare").mkdir()
    with pytest.raises(
        ConfigError, match=f"--name must not be that of a set .*, got {name}; choose another"
    ):
        located(root, root / name if is_in_place else photos, name=name)


def test_a_set_of_the_catalog_in_its_own_folder(root: Path) -> None:
    (root / "food").mkdir()
    assert located(root, "food", name="food") == ([root / "food"], [])


def test_sources_that_overlap(root: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"no SOURCE must lie inside another, got .*inner in .*photos; leave it out",
    ):
        located(root, photos, photos / "inner")
    with pytest.raises(ConfigError, match="another one, got .*photos twice"):
        located(root, photos, photos)
    (photos / "inner" / "a.zip").touch()  # archives in folders are not opened
    assert len(located(root, photos, photos / "inner" / "a.zip")[0]) == 2
    (tmp_path / "photos-2").mkdir()  # no part of `photos`
    assert (
        len(located(root, photos, tmp_path / "photos-2", against=(str(photos / "inner"),))[0]) == 2
    )


def test_sources_inside_the_set(root: Path) -> None:
    (root / "mine" / ".prepare").mkdir(parents=True)
    (root / "mine" / "sub").mkdir()
    (root / "mine" / "manifest.csv").touch()
    for inside in ("sub", "manifest.csv"):
        with pytest.raises(
            ConfigError,
            match="must not lie inside the set's own folder, got .*; choose another --name",
        ):
            located(root, root / "mine" / inside)


def test_in_its_own_folder_alone_and_without_copies(root: Path, photos: Path) -> None:
    (root / "mine").mkdir()
    for sources, options in ((("mine", photos), {}), (("mine",), {"resize": 64})):
        with pytest.raises(ConfigError, match="choose another --name|--name must be another"):
            located(root, *sources, **options)
    with pytest.raises(ConfigError, match="--against must be another set"):
        located(root, photos, against=("mine",))


@pytest.mark.parametrize("text", ["{", "[]", '{"sources": 3}', '{"sources": [3, null]}'])
def test_a_set_prepared_in_place_is_not_made_of_others(root: Path, photos: Path, text: str) -> None:
    (root / "mine").mkdir()
    about = root / "mine" / "set.json"
    about.write_text(json.dumps({"gancolor set": 1, "sources": [str(root / "mine")]}))
    with pytest.raises(
        ConfigError, match="--name must be another one, got mine: .* prepared in its own folder"
    ):
        located(root, photos)
    assert located(root, "mine")[0] == [root / "mine"]
    about.write_text(text)  # damaged
    assert located(root, photos)[0] == [photos]
