"""Finding pictures, splitting them, opening datasets."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from gancolor.data import folder, manifest, walk
from gancolor.data.dataset import open_source
from gancolor.data.source import SPLITS, position_of, split_of
from gancolor.errors import DataError


def write_picture(path, value=0, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", np.full((*size, 3), value, np.uint8))
    assert good
    path.write_bytes(data.tobytes())


def paths_of(split, count):
    """The first `count` names whose hash falls into the split."""
    names = (f"{number}.png" for number in range(10_000))
    return [name for name in names if split_of(name) == split][:count]


def test_pictures_are_found_in_any_tree_by_suffix_and_sorted(tmp_path):
    wanted = ["a b/ünïcode 花.png", "b/c/d.JPG", "b/e.Jpeg", "x.webp", "y.BMP", "z.TIFF", "zz.tif"]
    for relative in [*wanted, "notes.txt", "b/picture.psb", ".hidden.png", ".cache/inside.png"]:
        write_picture(tmp_path / relative)
    assert folder.find_pictures(tmp_path) == wanted


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    root = tmp_path / "root"
    write_picture(root / "m" / "one.png")
    write_picture(tmp_path / "outside" / "two.png")
    (root / "m" / "loop").symlink_to(root)
    (root / "a-link-to-m").symlink_to(root / "m")
    (root / "outside").symlink_to(tmp_path / "outside")
    (root / "outside-again").symlink_to(tmp_path / "outside")
    assert folder.find_pictures(root) == ["m/one.png", "outside/two.png"]


def test_root_may_be_a_link(tmp_path):
    write_picture(tmp_path / "real" / "one.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert folder.find_pictures(tmp_path / "link") == ["one.png"]


def test_dangling_link_counts_as_a_broken_picture_and_a_pipe_does_not_block(tmp_path):
    write_picture(tmp_path / "good.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert folder.find_pictures(tmp_path) == ["gone.png", "good.png"]
    source = open_source(str(tmp_path), "all")
    assert len(source) == 2
    with pytest.raises(DataError, match=r"gone\.png"):
        source.read(0)


def test_root_that_is_no_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        folder.find_pictures(tmp_path / "nothing")


def test_split_depends_on_the_relative_path_alone_and_has_the_asked_shares():
    names = [f"class {number % 7}/{number}.jpg" for number in range(4000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert (
        abs(splits.count("val") / 4000 - 0.1) < 0.02
        and abs(splits.count("test") / 4000 - 0.1) < 0.02
    )
    assert {split_of(name, val=0, test=0) for name in names} == {"train"}
    assert {split_of(name, val=1, test=0) for name in names} == {"val"}
    # These never change: runs of different versions must hold the same pictures back.
    assert [split_of(f"{number}.jpg") for number in (18, 19, 26)] == ["train", "val", "test"]


def test_split_is_the_same_however_accents_are_spelled():
    assert position_of("caf\u00e9.jpg") == position_of("cafe\u0301.jpg")


def divide(root, paths):
    """Names of the pictures `paths`, which are written, by split."""
    for relative in paths:
        write_picture(root / relative, size=(1, 1))
    opened = {split: folder.open_folder(root, split) for split in SPLITS}
    return {split: [source.name(i) for i in range(len(source))] for split, source in opened.items()}


def test_split_is_stable_when_pictures_are_added(tmp_path):
    before = divide(tmp_path, [f"{number}.png" for number in range(200)])
    after = divide(tmp_path, [f"{number}.png" for number in range(200, 500)])
    for split in SPLITS:
        assert before[split] and set(before[split]) <= set(after[split])
    assert sum(map(len, after.values())) == 500


@pytest.mark.parametrize("count", range(3, 30))
def test_few_pictures_still_fill_every_split(tmp_path, count):
    paths = [f"{number}.png" for number in range(count)]
    groups = divide(tmp_path, paths)
    assert sorted(sum(groups.values(), [])) == sorted(paths)
    assert all(groups.values())
    for split in ("val", "test"):  # what the hash put there stays
        assert {path for path in paths if split_of(path) == split} <= set(groups[split]) or len(
            groups["train"]
        ) == 1


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_train_gets_a_picture_even_if_the_hash_puts_all_elsewhere(tmp_path, split):
    groups = divide(tmp_path, paths_of(split, 2))
    assert len(groups["train"]) == 1


def test_one_picture_serves_all_splits_and_it_is_said(tmp_path, caplog):
    write_picture(tmp_path / "only.png", value=9)
    for split in ("train", "val", "test", "all"):
        source = open_source(str(tmp_path), split)
        assert [source.name(i) for i in range(len(source))] == ["only.png"]
        assert source.read(0).shape == (20, 24, 3) and source.read(0)[0, 0, 0] == 9
    assert "too few good pictures for a val split" in caplog.text


def test_two_pictures_train_on_one_and_test_on_the_other(tmp_path):
    for name in paths_of("val", 2):
        write_picture(tmp_path / name)
    train, val, test = (open_source(str(tmp_path), split) for split in ("train", "val", "test"))
    assert len(train) == len(val) == len(test) == 1
    assert val.name(0) == test.name(0) != train.name(0)


def test_splits_of_a_folder_are_apart_and_complete(tmp_path):
    for number in range(40):
        write_picture(tmp_path / f"{number}.png")
    opened = {split: open_source(str(tmp_path), split) for split in ("train", "val", "test", "all")}
    names = {
        split: {source.name(i) for i in range(len(source))} for split, source in opened.items()
    }
    assert names["train"] | names["val"] | names["test"] == names["all"] and len(names["all"]) == 40
    assert sum(len(names[split]) for split in ("train", "val", "test")) == 40


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_empty_folder_is_refused(tmp_path, split):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="at least one picture .JPEG, PNG, TIFF or"):
        open_source(str(tmp_path), split)


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_folder_of_only_broken_pictures_is_refused(tmp_path, split):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="only broken ones") as caught:
        open_source(str(tmp_path), split)
    assert ".jpg" in str(caught.value) and "\n" not in str(caught.value)


def test_broken_validation_pictures_are_replaced_by_those_of_another_split(tmp_path, caplog):
    groups = divide(tmp_path, [f"{number}.png" for number in range(6)])
    (tmp_path / groups["val"][0]).write_bytes(b"")
    assert len(groups["val"]) == 1
    source = open_source(str(tmp_path), "val")
    assert [source.name(i) for i in range(len(source))] == groups["test"]
    assert "uses those of test" in caplog.text


def test_manifest_decides_split_and_rejects(tmp_path):
    for number in range(10):
        write_picture(tmp_path / "sub" / f"{number}.png")
    (tmp_path / "manifest.csv").write_text(
        "path,split,reject,width\nsub/0.png,val,,24\nsub/1.png,test,,\nsub/2.png,,gray,\nsub/3.png,val,,\ngone.png,train,,\n",
        encoding="utf-8-sig",
    )
    opened = {split: open_source(str(tmp_path), split) for split in ("train", "val", "test", "all")}
    names = {
        split: [source.name(i) for i in range(len(source))] for split, source in opened.items()
    }
    assert {"sub/0.png", "sub/3.png"} <= set(names["val"]) and "sub/1.png" in names["test"]
    assert len(names["all"]) == 9 and "sub/2.png" not in names["all"]


def test_manifest_rows_of_no_picture_are_said_once_with_an_example(tmp_path, caplog):
    for number in range(3):
        write_picture(tmp_path / f"{number}.png")
    (tmp_path / "scan.heic").write_bytes(b"rejected, and no file that training takes")
    rows = [
        "./0.png,val,",
        "2,test,",
        "1.jpg,val,",
        "scan.heic,train,extension",
        "3.png,train,gray",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,split,reject", *rows]))
    names = [open_source(str(tmp_path), "val").name(0), open_source(str(tmp_path), "train").name(0)]
    assert names[0] == "0.png"
    said = [record.message for record in caplog.records if "decide nothing" in record.message]
    assert len(said) == 1 and said[0].endswith(
        "has 3 row(s) that name no picture in its folder and so decide nothing, for example 2"
    )


def test_half_prepared_set_is_refused(tmp_path):
    write_picture(tmp_path / "a.png")
    mark = tmp_path / manifest.UNFINISHED
    mark.parent.mkdir()
    mark.touch()
    with pytest.raises(
        DataError,
        match=r"set must be whole, got .*, whose preparing was stopped; run the same comm",
    ):
        open_source(str(tmp_path), "train")
    mark.unlink()
    assert len(open_source(str(tmp_path), "train")) == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["0000.tar", "0001.tar", "0002.tar"], r"--dataset '.*/{0000\.\.0002}\.tar'"),
        (["a-7.tar", "a-8.tar"], r"--dataset '.*/a-{7\.\.8}\.tar'"),
        (["birds.tar"], r"--dataset '.*/birds\.tar'"),
        (["birds.tar", "cats.tar"], r"--dataset '.*/birds\.tar'"),
        (
            ["0000.tar", ".packing.jsonl"],
            "packing was stopped, run the same gancolor data pack again",
        ),
        ([], "put pictures there"),
    ],
)
def test_folder_with_shards_but_no_pictures_says_how_to_name_them(tmp_path, files, words):
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"got none in .*; .*{words}"):
        open_source(str(tmp_path), "train")


def test_manifest_that_assigns_everything_to_train_is_obeyed(tmp_path, caplog):
    for number in range(5):
        write_picture(tmp_path / f"{number}.png")
    (tmp_path / "manifest.csv").write_text(
        "path,split\n" + "".join(f"{number}.png,train\n" for number in range(5))
    )
    assert len(open_source(str(tmp_path), "train")) == 5
    assert len(open_source(str(tmp_path), "val")) == 5
    assert "uses those of train" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,split\na.png,train\n", "a column named path"),
        (b"", "a column named path"),
        (b"path,split\na.png,training\n", "must be train, val or test, got 'training'"),
        (b"path,split\n\xff\xfe\n", "UTF-8"),
        (b"path,reject\na.png,gray\n", "all 1 rejected"),
    ],
)
def test_bad_manifest_is_refused_by_name(tmp_path, content, message):
    write_picture(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path), "train")
    assert "manifest.csv" in str(caught.value)


def test_manifest_that_leaves_no_training_picture_is_refused(tmp_path):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")
    (tmp_path / "manifest.csv").write_text("path,split\na.png,val\nb.png,test\n")
    with pytest.raises(DataError, match="split train must have a picture"):
        open_source(str(tmp_path), "train")


def test_manifest_names_pictures_that_lie_elsewhere(tmp_path):
    for number in range(4):
        write_picture(tmp_path / "other" / f"{number}.png", value=number)
    write_picture(tmp_path / "set" / "own.png", value=9)
    rows = [
        f"{tmp_path}/other/0.png,train,",
        f"{tmp_path}/other/1.png,val,",
        f"{tmp_path}/other/2.png,test,",
    ]
    rows += [f"{tmp_path}/other/3.png,train,gray", f"{tmp_path}/set/own.png,val,"]
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(["path,split,reject", *rows]))
    opened = {split: open_source(str(tmp_path / "set"), split) for split in (*SPLITS, "all")}
    names = {
        split: [source.name(i) for i in range(len(source))] for split, source in opened.items()
    }
    first = f"{tmp_path}/other/"
    assert names["train"] == [f"{first}0.png"] and names["test"] == [f"{first}2.png"]
    assert names["val"] == [f"{first}1.png", "own.png"] and len(names["all"]) == 4
    assert [opened["all"].read(i)[0, 0, 0] for i in range(4)] == [0, 1, 2, 9]


def test_a_set_without_a_picture_of_its_own_says_which_are_gone(tmp_path):
    (tmp_path / "set").mkdir()
    rows = "".join(f"{tmp_path}/gone/{number}.png,train,\n" for number in range(5))
    (tmp_path / "set" / "manifest.csv").write_text(f"path,split,reject\n{rows}")
    with pytest.raises(
        DataError, match=r"gone/2\.png: No such file or directory and 2 more; replace"
    ) as caught:
        open_source(str(tmp_path / "set"), "train")
    assert "3.png" not in str(caught.value)
    (tmp_path / "set" / "manifest.csv").write_text(
        f"path,split,reject\n{rows}".replace("train,", "train,gray")
    )
    with pytest.raises(DataError, match="at least one picture, got all 5 rejected"):
        open_source(str(tmp_path / "set"), "train")


def test_shards_are_opened_as_such(tmp_path, monkeypatch):
    from gancolor.data import shard_lookup

    monkeypatch.setattr(shard_lookup, "open_shards", lambda dataset, split: (dataset, split))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "shards.json").write_text("{}")
    (tmp_path / "food").mkdir()
    (tmp_path / "food" / "shards.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "packed")
    for dataset in (
        "there/{0000..0009}.tar",
        "https://example.org/0.tar",
        str(tmp_path / "packed"),
    ):
        assert open_source(dataset, "val") == (dataset, "val")
    for name in ("packed", "food"):
        opened = open_source(name, "train", datasets_root=tmp_path)
        assert opened == (str(tmp_path / name), "train")


def test_a_large_set_is_read_through_its_index(tmp_path, monkeypatch):
    for number in range(12):
        write_picture(tmp_path / f"{number}.png", value=number)
    listed = {split: open_source(str(tmp_path), split) for split in (*SPLITS, "all")}
    monkeypatch.setattr(walk, "SMALLEST", 12)
    for split, source in listed.items():
        indexed = open_source(str(tmp_path), split)
        assert isinstance(indexed.paths, walk.Names) and list(indexed.paths) == source.paths
        assert [indexed.read(i)[0, 0, 0] for i in range(len(indexed))] == [
            int(n[:-4]) for n in source.paths
        ]


def test_catalog_name_and_unknown_name(tmp_path):
    write_picture(tmp_path / "food" / "a.png")
    assert open_source("food", "train", datasets_root=tmp_path).name(0) == "a.png"
    with pytest.raises(DataError, match="--datasets-root"):
        open_source("people", "train", datasets_root=tmp_path)
    with pytest.raises(DataError, match="food, .*natural, .*people, .*still-life"):
        open_source("fod", "train", datasets_root=tmp_path)


def test_still_life_needs_no_folder(tmp_path):
    source = open_source(
        "still-life", "val", datasets_root=tmp_path / "none", seed=3, image_size=32
    )
    assert len(source) == 400 and source.read(0).shape == (32, 32, 3)


def test_name_with_bytes_that_are_no_text(tmp_path):
    raw = os.fsencode(tmp_path) + b"/bad\xff name.png"
    write_picture(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", raw)
    source = open_source(str(tmp_path), "train")
    assert len(source) == 1 and source.read(0).shape == (20, 24, 3)
