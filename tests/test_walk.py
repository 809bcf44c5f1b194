"""The index of a large set: names that stay on disk, and folders that are listed only when they
changed.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import time
from collections import Counter

import numpy as np
import pytest

from gancolor.data import folder, manifest, walk
from gancolor.data.source import SPLITS
from gancolor.errors import DataError


@pytest.fixture(autouse=True)
def small_sets_are_large(monkeypatch):
    monkeypatch.setattr(walk, "SMALLEST", 3)


@pytest.fixture
def listed(monkeypatch):
    """Folders that were read from disk."""
    read = []
    whole = walk._list

    def watch(place, prefix, stamp):
        read.append(prefix)
        return whole(place, prefix, stamp)

    monkeypatch.setattr(walk, "_list", watch)
    return read


@pytest.fixture
def root(tmp_path):
    """Ten names, in folders that were last changed long before any test looks at them, as far as it
    is told.
    """
    names = [
        "a/1.png",
        "a/2.png",
        "a b/1.png",
        "a/deep/x.jpg",
        "b/ü.png",
        "b/bad\udcff.png",
        "0.png",
        "z.png",
    ]
    for name in [*names, "c/1.png", "c/2.png"]:
        add(tmp_path / "set", name)
    return tmp_path / "set"


@pytest.fixture
def later(monkeypatch):
    """Make the clock that decides whether a change was just now go ahead."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 5 * 10**9)


def add(root, name):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"a picture's name is enough")


def open_parts(root):
    return walk.open_names(root, functools.partial(folder.assign_splits, root))


def expect_same(root):
    """Opens the set; every part is what a listing of everything gives."""
    parts = open_parts(root)
    names, codes = folder.assign_splits(root, folder.find_pictures(root))
    assert {part: list(found) for part, found in parts.items()} == walk.by_part(names, codes)
    return parts


def index_files(root):
    return sorted(path.name for path in (root / walk.INDEX_FOLDER).iterdir())


def test_names_come_from_the_index_and_are_those_of_a_listing(root, later, listed):
    first = expect_same(root)
    assert all(isinstance(names, walk.Names) for names in first.values())
    assert sum(len(first[split]) for split in SPLITS) == len(first["all"]) == 10
    assert "b/bad\udcff.png" in first["all"] and "b/ü.png" in first["all"]
    expect_same(root)  # the folder of the index came into the set's folder after that was listed
    listed.clear()
    parts = open_parts(root)
    assert listed == [] and list(parts["all"]) == list(first["all"]) == sorted(first["all"])
    assert len(index_files(root)) == 2


def test_a_sequence_of_names_behaves_as_a_list(root):
    names = open_parts(root)["all"]
    plain = list(names)
    assert (names[0], names[-1], names[2:5], names[::-3]) == (
        plain[0],
        plain[-1],
        plain[2:5],
        plain[::-3],
    )
    assert names[np.int64(4)] == plain[4] and plain[3] in names and names.index(plain[7]) == 7
    for outside in (10, -11):
        with pytest.raises(IndexError):
            names[outside]


def test_small_sets_have_no_index(root, monkeypatch):
    monkeypatch.setattr(walk, "SMALLEST", 11)
    assert isinstance(expect_same(root)["all"], list)
    assert not (root / walk.INDEX_FOLDER).exists()


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (lambda root: add(root, "c/3.png"), {"c/"}),
        (lambda root: (root / "a" / "1.png").unlink(), {"a/"}),
        (lambda root: (root / "a" / "1.png").rename(root / "a" / "9.jpg"), {"a/"}),
        (lambda root: add(root, "new/1.png"), {"", "new/"}),
        (lambda root: (root / "a").rename(root / "aa"), {"", "aa/", "aa/deep/"}),
        (lambda root: add(root, "a/deep/deeper/1.tif"), {"a/deep/", "a/deep/deeper/"}),
        (lambda root: add(root, "notes.txt"), {""}),
    ],
    ids=[
        "added",
        "removed",
        "renamed",
        "new folder",
        "moved folder",
        "deeper folder",
        "no picture",
    ],
)
def test_only_changed_folders_are_listed_again(root, later, listed, change, read):
    expect_same(root), expect_same(root)
    change(root)
    listed.clear()
    parts = open_parts(root)
    assert set(listed) == read
    assert list(parts["all"]) == folder.find_pictures(root)
    expect_same(root)
    listed.clear()
    open_parts(root)
    assert listed == []


def test_a_picture_added_behind_the_clock_is_found(root, later):
    """As tar and rsync do: the folder's time of change is set back to what it was."""
    expect_same(root), expect_same(root)
    before = os.stat(root / "c")
    time.sleep(0.02)
    add(root, "c/3.png")
    os.utime(root / "c", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(root / "c").st_mtime_ns == before.st_mtime_ns
    assert "c/3.png" in expect_same(root)["all"]


def test_a_folder_that_changed_just_now_is_listed_again(root, listed):
    expect_same(root)
    facts = json.loads((root / walk.INDEX_FOLDER / "index.json").read_text())
    assert {stamp for stamp, _, _ in facts["folders"].values()} == {None}
    listed.clear()
    open_parts(root)
    assert set(listed) == {"", "a/", "a b/", "a/deep/", "b/", "c/"}


def test_a_changed_manifest_counts_at_the_next_start(root, later, listed):
    expect_same(root)
    (root / manifest.MANIFEST).write_text("path,split,reject\na/1.png,val,\na/2.png,,gray\n")
    parts = expect_same(root)
    assert "a/1.png" in parts["val"] and "a/2.png" not in parts["all"] and len(parts["all"]) == 9
    (root / manifest.MANIFEST).write_text(
        "path,split,reject\na/1.png,test,\n/elsewhere/x.png,train,\n"
    )
    listed.clear()
    parts = open_parts(root)
    assert listed == []  # it was written in place: no folder changed
    assert "a/1.png" in parts["test"] and {"a/2.png", "/elsewhere/x.png"} <= set(parts["all"])
    (root / manifest.MANIFEST).unlink()
    assert (
        "/elsewhere/x.png" not in expect_same(root)["all"] and len(folder.find_pictures(root)) == 10
    )


def test_a_manifest_written_just_now_is_read_again(root, later, monkeypatch):
    expect_same(root)
    monkeypatch.undo()
    monkeypatch.setattr(walk, "SMALLEST", 3)
    (root / manifest.MANIFEST).write_text("path,split\na/1.png,val\n")
    expect_same(root)
    assert json.loads((root / walk.INDEX_FOLDER / "index.json").read_text())["rules"] is None


def test_links_to_folders_are_followed_when_they_begin_to_lead_somewhere(root, tmp_path, later):
    add(tmp_path / "outside", "1.png")
    (root / "later").symlink_to(tmp_path / "coming")
    (root / "now").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    assert len(expect_same(root)["all"]) == 11
    expect_same(root)
    add(tmp_path / "coming", "2.png")
    assert {"later/2.png", "now/1.png"} <= set(expect_same(root)["all"])
    (tmp_path / "outside").rename(tmp_path / "away")
    assert len(expect_same(root)["all"]) == 11


@pytest.mark.parametrize(
    "damage",
    [
        lambda names, facts: names.write_bytes(names.read_bytes()[:-9]),
        lambda names, facts: names.write_bytes(names.read_bytes().replace(b"a/1.png", b"a/7.png")),
        lambda names, facts: names.write_bytes(b""),
        lambda names, facts: names.unlink(),
        lambda names, facts: facts.write_bytes(facts.read_bytes()[:100]),
        lambda names, facts: facts.write_text("[]"),
        lambda names, facts: facts.write_text(
            facts.read_text().replace('"gancolor index":1', '"gancolor index":0')
        ),
        lambda names, facts: facts.write_text(
            facts.read_text().replace('"a/deep":[', '"a/deep":["",')
        ),
        lambda names, facts: facts.write_text(facts.read_text().replace('"root":"/', '"root":"/x')),
        lambda names, facts: facts.write_bytes(b"\xff" * 50),
    ],
)
def test_a_damaged_or_foreign_index_is_made_anew(root, later, damage):
    whole = list(expect_same(root)["all"])
    expect_same(root)
    (names,) = (root / walk.INDEX_FOLDER).glob("*.names")
    content = names.read_bytes()
    damage(names, root / walk.INDEX_FOLDER / "index.json")
    assert list(expect_same(root)["all"]) == whole
    assert names.read_bytes() == content


def test_an_index_copied_with_its_set_is_not_trusted(root, tmp_path, later):
    expect_same(root), expect_same(root)
    copy = tmp_path / "copy"
    root.rename(copy)
    (copy / "z.png").unlink()
    assert len(expect_same(copy)["all"]) == 9


def test_old_files_of_names_are_removed_but_the_last_ones_stay(root, later):
    first = open_parts(root)["all"]
    for number in range(4):
        time.sleep(0.01)
        add(root, f"c/new {number}.png")
        expect_same(root)
        assert len(list((root / walk.INDEX_FOLDER).glob("*.names"))) == min(number + 2, 3)
    assert len(first) == 10 and first[9] == "z.png"  # still mapped
    with pytest.raises(DataError, match="start again"):
        pickle.loads(pickle.dumps(first))


def test_what_a_killed_process_left_is_removed_after_an_hour(root, later):
    (root / walk.INDEX_FOLDER).mkdir()
    for name, age in (("1-a.part", 4000), ("2-b.part", 10)):
        (root / walk.INDEX_FOLDER / name).write_bytes(b"torn")
        os.utime(root / walk.INDEX_FOLDER / name, (time.time() - age,) * 2)
    expect_same(root)
    assert [name for name in index_files(root) if name.endswith(".part")] == ["2-b.part"]


def test_where_the_set_cannot_be_written_the_index_is_in_the_cache_folder(
    root, later, listed, tmp_path, caplog
):
    (root / walk.INDEX_FOLDER).write_text("in the way")
    expect_same(root)
    (kept,) = (tmp_path / "gancolor-cache" / "indexes").iterdir()
    assert (kept / "index.json").exists() and not caplog.messages
    listed.clear()
    assert isinstance(open_parts(root)["all"], walk.Names) and listed == []
    (root / walk.INDEX_FOLDER).unlink()
    add(root, "c/3.png")
    expect_same(root)  # it can be written again
    assert (root / walk.INDEX_FOLDER / "index.json").exists() and not (kept / "index.json").exists()


def test_where_nothing_can_be_written_names_are_in_memory_and_it_is_said(root, tmp_path, caplog):
    (root / walk.INDEX_FOLDER).write_text("in the way")
    (tmp_path / "gancolor-cache").write_text("in the way")
    assert isinstance(expect_same(root)["all"], list)
    assert len(caplog.messages) == 1 and "cannot be kept" in caplog.messages[0]


def test_a_full_disk_leaves_nothing_half_written(root, monkeypatch):
    def refuse(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert isinstance(open_parts(root)["all"], list)
    assert index_files(root) == []


@pytest.mark.slow
def test_a_source_is_pickled_by_its_place_and_not_by_its_names(root):
    for number in range(1300):
        add(root, f"many/a rather long name of a picture {number}.png")
    source = folder.FolderSource(root, open_parts(root)["train"])
    data = pickle.dumps(source)
    assert len(data) < 1000 < len(source)
    again = pickle.loads(data)
    assert list(again.paths) == list(source.paths) and again.name(7) == source.name(7)


def _count(queue, root):
    walk.SMALLEST = 3
    parts = open_parts(root)
    queue.put((type(parts["all"]).__name__, list(parts["all"])))


@pytest.mark.slow
def test_processes_that_build_an_index_at_once_agree(root):
    for number in range(500):
        add(root, f"many/{number}.png")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_count, args=(queue, root)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == ("Names", folder.find_pictures(root))
    assert [name.rpartition(".")[2] for name in index_files(root)].count("names") == 1


def test_pictures_elsewhere_are_of_the_set_and_rejected_ones_are_not(root, tmp_path):
    lines = "".join(
        f"{tmp_path}/other/{n}.png,,,,,{SPLITS[n % 3]},{'gray' * (n == 4)}\n" for n in range(9)
    )
    (root / manifest.MANIFEST).write_text(
        f"path,sha256,width,height,colorfulness,split,reject\n{lines}"
    )
    parts = expect_same(root)
    assert len(parts["all"]) == 18
    assert Counter(split for split in SPLITS for name in parts[split] if name.startswith("/")) == {
        "train": 3,
        "val": 2,
        "test": 3,
    }


def test_codes_are_those_of_the_manifest_module():
    assert walk.PARTS == ("train", "val", "test", "all")
    assert manifest.REJECTED == len(SPLITS) and manifest.UNDECIDED > manifest.REJECTED
