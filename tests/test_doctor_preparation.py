"""`gancolor data prepare` from sources to manifest: what is found and written, and that nothing
else is touched.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scenes
from scenes import fill, plant

from gancolor.data import dataset, folder
from gancolor.data.doctor import preparation
from gancolor.data.doctor.preparation import Prepared
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_plan import Plan
from gancolor.data.manifest import UNFINISHED
from gancolor.data.source import SPLITS
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays

if TYPE_CHECKING:
    from click.testing import Result

pytestmark = pytest.mark.usefixtures("undrawn")

Command = Callable[..., "Result"]


def quiet(task: str, done: int, total: int) -> None:
    """Show no progress."""


def prepare(root: Path, *sources: Path | str, name: str = "mine", **options: object) -> Prepared:
    """Prepare a set without processes of its own."""
    about = {"rules": Rules(), "workers": 0} | options
    return preparation.prepare(
        Plan(name=name, sources=tuple(map(str, sources)), root=root, **about), quiet
    )  # type: ignore[arg-type]


def rejects(made: Prepared) -> dict[str, str]:
    """The last part of each path of the manifest, and why it is rejected."""
    return {Path(row["path"]).name: row["reject"] for row in rows(made.folder)}


def rows(place: Path) -> list[dict[str, str]]:
    with (place / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state(place: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder with its hash and its time."""
    paths = [path for path in place.rglob("*") if path.is_file()]
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in paths
    }


def test_exactly_what_was_planted_is_found_and_the_source_is_not_touched(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 20)
    planted = plant(source)
    (source / "notes.txt").write_text("not a picture")
    before = state(source)
    made = prepare(tmp_path / "sets", source)
    assert {name: reason for name, reason in rejects(made).items() if reason} == planted
    assert state(source) == before
    assert (
        made.decision.kept == 20 and made.tally.new == 32 and sum(made.tally.others.values()) == 1
    )
    assert made.sheet is not None and made.sheet.read_bytes() == b"\x89PNG"
    about = json.loads((made.folder / "set.json").read_text())
    assert about["counts"] | {"train": 0, "val": 0, "test": 0} == dict(Counter(planted.values())) | about["counts"] | {
        "train": 0, "val": 0, "test": 0,
    }  # fmt: skip
    for row in rows(made.folder):
        if not row["reject"]:
            data = Path(row["path"]).read_bytes()
            assert row["sha256"] == hashlib.sha256(data).hexdigest()
            assert (int(row["width"]), int(row["height"])) == (128, 96)
    assert "near-duplicate         2" in made.table


def test_what_was_prepared_trains_as_the_folder_would_have(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 20)
    plain = {split: list(folder.open_folder(source, split).paths) for split in SPLITS}
    plant(source)
    prepare(tmp_path / "sets", source)
    for split in SPLITS:
        opened = dataset.open_source("mine", split, datasets_root=tmp_path / "sets")
        assert [Path(opened.name(place)).name for place in range(len(opened))] == plain[split]
        assert opened.read(0).shape == (96, 128, 3)


def test_copies_are_small_and_the_set_needs_its_sources_no_more(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 12)
    planted = plant(source)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for number in range(60, 66):
            archive.writestr(f"inner/{number}.jpg", scenes.file(scenes.scene(number, 96, 128)))
    made = prepare(tmp_path / "sets", source, tmp_path / "more.zip", resize=48)
    assert made.copies is not None and made.copies.made == 18
    shutil.rmtree(source)
    kept = [row for row in rows(made.folder) if not row["reject"]]
    assert {row["path"].split("/")[0] for row in kept} == {"photos", "more"}
    for row in kept:
        data = (made.folder / row["path"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (
            min(arrays.decode_rgb(data, row["path"]).shape[:2])
            == 48
            == min(int(row["width"]), int(row["height"]))
        )
    assert len(dataset.open_source("mine", "all", datasets_root=tmp_path / "sets")) == 18
    assert sum(bool(row["reject"]) for row in rows(made.folder)) == len(planted)


def test_a_second_time_only_what_is_new_is_read(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 8)
    prepare(tmp_path / "sets", source)
    fill(source, 2, first=8)
    (source / "00.jpg").unlink()
    made = prepare(tmp_path / "sets", source)
    assert (made.tally.new, made.tally.known, made.tally.gone) == (2, 7, 1)
    assert len(rows(made.folder)) == 9
    again = prepare(tmp_path / "sets", source, rules=Rules(min_size=97))
    assert again.tally.new == 0 and set(rejects(again).values()) == {"small"}


def test_in_place_the_own_manifest_counts_and_is_kept(tmp_path: Path) -> None:
    place = fill(tmp_path / "sets" / "mine", 10)
    (place / "manifest.csv").write_text("path,split,reject\n00.jpg,test,\n01.jpg,,ugly\n")
    for _ in range(2):
        made = prepare(tmp_path / "sets", place)
        found = {row["path"]: (row["split"], row["reject"]) for row in rows(place)}
        assert found["00.jpg"] == ("test", "") and found["01.jpg"][1] == "ugly" and len(found) == 10
        assert made.decision.kept == 9
        assert "ugly" in (place / "manifest-before.csv").read_text()
    opened = dataset.open_source("mine", "all", datasets_root=tmp_path / "sets")
    assert len(opened) == 9


def test_stopped_in_place_the_old_manifest_stays_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fill(tmp_path / "sets" / "mine", 4)
    (place / "manifest.csv").write_text("path,split,reject\n00.jpg,test,\n01.jpg,,ugly\n")
    monkeypatch.setattr(preparation.judge, "decide", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "sets", place)
    opened = dataset.open_source("mine", "all", datasets_root=tmp_path / "sets")
    assert sorted(opened.name(number) for number in range(len(opened))) == [
        "00.jpg",
        "02.jpg",
        "03.jpg",
    ]
    (place / "manifest.csv").write_text("path,split,reject\n00.jpg,,ugly\n")  # edited in between
    monkeypatch.undo()
    prepare(tmp_path / "sets", place)
    assert {row["path"] for row in rows(place) if row["reject"]} == {"00.jpg"}


def test_prepares_own_manifest_is_never_taken_for_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fill(tmp_path / "sets" / "mine", 4)
    (place / "manifest.csv").write_text("path,reject\n00.jpg,ugly\n")
    # with the manifest written already
    monkeypatch.setattr(preparation.set_files, "write_set", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "sets", place)
        assert (place / "manifest-before.csv").read_text() == "path,reject\n00.jpg,ugly\n"


def stopped(*_: object, **__: object) -> None:
    """Stand for Ctrl-C."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["resized", "archive"])
def test_half_copied_the_set_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source, options = fill(tmp_path / "photos", 3), {"resize": 48} if how == "resized" else {}
    if how == "archive":
        source = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", source))
    monkeypatch.setattr(preparation.copies, "copy_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "sets", source, **options)
    marker = tmp_path / "sets" / "mine" / UNFINISHED
    assert marker.is_file()
    monkeypatch.undo()
    made = prepare(tmp_path / "sets", source, **options)
    assert made.copies is not None and made.copies.made == 3 and not marker.exists()


def test_without_copies_a_stopped_set_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "photos", 3)
    prepare(tmp_path / "sets", source)
    monkeypatch.setattr(preparation.copies, "copy_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "sets", source)
    assert not (tmp_path / "sets" / "mine" / UNFINISHED).exists()


def test_a_set_that_loses_its_copies_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "photos", 3)
    prepare(tmp_path / "sets", source, resize=48)
    monkeypatch.setattr(preparation.copies, "copy_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "sets", source)
    assert (tmp_path / "sets" / "mine" / UNFINISHED).exists()


def test_copies_are_not_lost_by_giving_the_own_folder(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 3)
    made = prepare(tmp_path / "sets", source, resize=48)
    before = state(made.folder)
    with pytest.raises(
        ConfigError, match="SOURCE must be what the set was made of, got its own folder"
    ):
        prepare(tmp_path / "sets", made.folder)
    after = state(made.folder)
    assert {name: after[name] for name in before if ".prepare" not in name} == {
        name: value for name, value in before.items() if ".prepare" not in name
    }


def test_a_lost_journal_is_no_trouble(tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 3)
    made = prepare(tmp_path / "sets", source, resize=48)
    shutil.rmtree(made.folder / ".prepare")
    assert prepare(tmp_path / "sets", source, resize=48).decision.kept == 3


def test_the_own_folder_through_a_link(tmp_path: Path) -> None:
    place = fill(tmp_path / "sets" / "mine", 3)
    (tmp_path / "link").symlink_to(place)
    prepare(tmp_path / "sets", tmp_path / "link")
    assert [row["path"] for row in rows(place)] == ["00.jpg", "01.jpg", "02.jpg"]
    assert json.loads((place / "set.json").read_text())["sources"] == [str(place)]


def test_nothing_that_another_set_has_too(tmp_path: Path) -> None:
    fill(tmp_path / "sets" / "old", 6)
    source = fill(tmp_path / "new", 10)
    made = prepare(tmp_path / "sets", source, against=("old",))
    assert made.decision.against == 6 and made.decision.kept == 4
    assert (made.decision.pictures, made.compared) == (10, 6)
    assert [row["path"] for row in rows(made.folder) if "old" in Path(row["path"]).parts] == []


def test_doubles_across_given_splits_are_said_and_leave_the_test_set(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "train", 10)
    fill(tmp_path / "photos" / "test", 3)
    made = prepare(tmp_path / "sets", tmp_path / "photos", by_folder=True)
    assert made.decision.splits["test"] == 3 and made.decision.splits["train"] == 7
    assert made.decision.crossings == {("train", "test"): 3} and "given as train" in made.table


def test_splits_by_folders_need_such_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(tmp_path / "photos" / "training", 3).parent
    fill(source / "b\nd", 1, first=9)
    with pytest.raises(
        DataError,
        match=r"^--split folders must find .*, got the top folders: 'b\\nd', training; ren",
    ):
        prepare(tmp_path / "sets", source, by_folder=True)
    assert not (tmp_path / "sets" / "mine" / "manifest.csv").exists()
    (source / "training").rename(source / "train")
    prepare(tmp_path / "sets", source, by_folder=True)
    assert [line for line in caplog.messages if "outside" in line] == [
        "1 picture lies outside of folders named train, val and test: the hash of the name decides"
        " on the split"
    ]


def test_nothing_left_to_train_on_is_said(cli: Command, tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "test", 2)
    fill(tmp_path / "photos" / "train", 2)
    words = [
        "--name",
        "mine",
        "--datasets-root",
        tmp_path / "sets",
        "--workers",
        0,
        "--split",
        "folders",
    ]
    result = cli("data", "prepare", tmp_path / "photos", *words)
    assert result.exit_code == 0, result.output
    assert "nothing is left to train on: all 2 that are kept count as val or test" in result.stderr
    assert "Train on it" not in result.stdout and "kept: train 0, val 0, test 2" in result.stdout


def test_a_folder_of_somebody_elses_is_not_mixed_with(tmp_path: Path) -> None:
    source, other = fill(tmp_path / "photos", 2), fill(tmp_path / "sets" / "mine", 1)
    before = state(other)
    with pytest.raises(
        DataError, match="--name must be a new set or one that prepare has made, got mine"
    ):
        prepare(tmp_path / "sets", source)
    assert state(other) == before


def test_no_picture_at_all_leaves_no_set(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="at least one picture"):
        prepare(tmp_path / "sets", tmp_path / "photos")
    assert not (tmp_path / "sets" / "mine" / "manifest.csv").exists()


def test_the_command(cli: Command, tmp_path: Path) -> None:
    source = fill(tmp_path / "photos", 6)
    plant(source)
    words = [
        "data",
        "prepare",
        source,
        "--name",
        "mine",
        "--datasets-root",
        tmp_path / "sets",
        "--workers",
        0,
    ]
    result = cli(
        *words, "--keep-grayscale", "--keep-single-tone", "--min-size", 20, "--licence", "CC0"
    )
    assert result.exit_code == 0, result.output
    assert "18 pictures looked at" in result.stdout and "not asked: these are kept" in result.stdout
    assert f"gancolor train --dataset {tmp_path / 'sets' / 'mine'}" in result.stdout
    found = {Path(row["path"]).name: row["reject"] for row in rows(tmp_path / "sets" / "mine")}
    assert (
        found["gray.jpg"] == found["sepia.jpg"] == found["icon.png"] == ""
        and found["strip.png"] == "shape"
    )
    assert json.loads((tmp_path / "sets" / "mine" / "set.json").read_text())["licence"] == "CC0"
    refused = cli(*words, "--max-aspect", 0.5)
    assert refused.exit_code == 2 and "--max-aspect must be at least 1, got 0.5" in refused.output
    nothing = cli(*words, "--min-size", 5000)
    assert (
        nothing.exit_code == 1
        and "set must keep at least one picture, got all 18 rejected" in nothing.output
    )


def test_the_command_counts_what_it_is_held_against_apart(cli: Command, tmp_path: Path) -> None:
    source, _ = fill(tmp_path / "photos", 3), fill(tmp_path / "sets" / "old", 1)
    words = ["--name", "mine", "--datasets-root", tmp_path / "sets", "--workers", 0]
    result = cli("data", "prepare", source, *words, "--against", "old")
    assert result.stdout.startswith("4 pictures looked at (3 to prepare, 1 of --against)\n")
    again = cli("data", "prepare", source, *words)
    assert again.stdout.startswith("0 pictures looked at, 3 known from before\n")
    fill(source, 1, first=5)
    assert cli("data", "prepare", source, *words).stdout.startswith(
        "1 picture looked at, 3 known from before\n"
    )


@pytest.mark.parametrize(
    ("root", "name", "here", "told"),
    [
        ("datasets", "mine", "", "mine"),
        ("datasets", "my own", "", "'my own'"),
        ("datasets", "mine", "mine", "{folder}"),  # a folder of that name here comes first
        ("other", "mine", "", "{folder}"),
        (".", "mine", "", "mine"),
        ("my sets", "mine", "", "'{folder}'"),
        ("datasets/../datasets", "mine", "", "mine"),
    ],
)
def test_the_command_tells_what_training_takes(
    cli: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root: str,
    name: str,
    here: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANCOLOR_DATASETS", raising=False)
    fill(tmp_path / "photos", 3)
    if here:
        (tmp_path / here).mkdir()
    if ".." in root:
        (tmp_path / "datasets").mkdir()
    result = cli(
        "data", "prepare", "photos", "--name", name, "--datasets-root", root, "--workers", 0
    )
    assert result.exit_code == 0, result.output
    told = told.format(folder=tmp_path / root / name)
    assert result.stdout.splitlines()[-1] == f"Train on it: gancolor train --dataset {told}"
    assert len(dataset.open_source(shlex.split(told)[0], "all")) == 3


@pytest.mark.parametrize("kind", ["food", "natural", "people"])
@pytest.mark.slow
def test_among_real_photographs_exactly_what_was_planted_is_found(
    shared: Path, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "photos"
    place.mkdir()
    for path in sorted((shared / "data" / kind).glob("*.jpg"))[::12]:
        shutil.copy(path, place / path.name)
    names = sorted(path.name for path in place.iterdir())
    planted = {}
    for number, name in enumerate(names[:40]):
        rgb, data = arrays.read_rgb(place / name), (place / name).read_bytes()
        made = {
            0: ("broken", data[: len(data) // 2]),
            1: (
                "gray",
                scenes.file(scenes.gray(arrays.read_rgb(place / names[-number])), quality=80),
            ),
            2: ("duplicate", data),
            3: (
                "near-duplicate",
                scenes.file(arrays.resize(rgb, (rgb.shape[0] // 2, rgb.shape[1] // 2)), quality=75),
            ),
        }[number % 4]
        (place / f"zz{number:02d}.jpg").write_bytes(made[1])
        planted[f"zz{number:02d}.jpg"] = made[0]
    found = rejects(prepare(tmp_path / "sets", place))
    assert {name: reason for name, reason in found.items() if reason} == planted


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["food", "natural", "people"])
def test_no_real_photograph_is_rejected(shared: Path, tmp_path: Path, kind: str) -> None:
    made = prepare(tmp_path / "sets", shared / "data" / kind, workers=2)
    assert {name: reason for name, reason in rejects(made).items() if reason} == {}


@pytest.mark.slow
def test_black_and_white_photographs_are_gray(shared: Path, tmp_path: Path) -> None:
    made = prepare(tmp_path / "sets", shared / "data" / "historical", workers=2)
    assert set(rejects(made).values()) == {"gray"}
