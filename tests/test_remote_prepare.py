"""`gancolor data prepare` from object storage: the set that the same folder here would give, whatever
breaks off.
"""

from __future__ import annotations

import collections
import csv
import json
import shutil

import numpy as np
import pytest
import standin_datasets
from scenes import fill, plant

from gancolor.data import dataset, shard_packer
from gancolor.data.doctor import preparation, stored_folder, survey
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_plan import Plan
from gancolor.data.source import SPLITS
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays
from gancolor.runtime import remote_files


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 12 good pictures in two folders and 12 with faults, to be read only."""
    folder = fill(tmp_path_factory.mktemp("pictures") / "photos", 12)
    planted = plant(folder)
    (folder / "sub").mkdir()
    for number in range(6, 12):
        (folder / f"{number:02d}.jpg").rename(folder / "sub" / f"{number:02d}.jpg")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(b"")
    assert len(planted) == 12
    return folder


@pytest.fixture
def far(sound_storage, photos):
    """The same in storage: its address."""
    if "far" not in sound_storage.buckets():
        sound_storage.put_folder(photos, sound_storage.bucket("far") + "/photos")
    return "s3://far/photos"


@pytest.fixture(autouse=True)
def _no_sheet(request, monkeypatch):
    """Paint examples for the test that asks for them alone: that takes longer than all else."""
    if "sheet" not in request.node.name:
        monkeypatch.setattr(preparation.report, "sheet", lambda *about, **more: b"")


def quiet(*about):
    """Show no progress."""


def prepare(root, *sources, name="mine", progress=quiet, elsewhere=None, **options):
    """Prepare a set without processes of its own."""
    about = {"rules": Rules(), "workers": 0} | options
    plan = Plan(name=name, sources=tuple(map(str, sources)), root=root, **about)
    return preparation.prepare(plan, progress, elsewhere)


def lines(made, *places):
    """The rows of a manifest without the places that its pictures come from, sorted."""
    text = (made.folder / "manifest.csv").read_text()
    for place in places:
        text = text.replace(f"{place}/", "")
    return sorted(text.splitlines())


def copies(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if ".prepare" not in path.parts and path.suffix != ".csv" and path.name != "set.json"
    }


def asked_for(storage, address):
    """How often each file below an address was asked for."""
    start = address.removeprefix("s3:/") + "/"
    return collections.Counter(
        path.removeprefix(start)
        for method, path, _ in storage.proxy.asked
        if method == "GET" and path.startswith(start)
    )


@pytest.mark.slow
def test_the_set_is_the_one_that_the_folder_gives(far, photos, sound_storage, tmp_path, caplog):
    near = prepare(tmp_path, photos, name="near", resize=64)
    caplog.set_level("INFO", "gancolor")
    sound_storage.proxy.cuts += [100, 0, 2000]
    made = prepare(tmp_path, far, name="made", resize=64)
    assert caplog.text.count("trying again") == 3 and not sound_storage.proxy.cuts
    assert "24 pictures (0.1 MB) to fetch from object storage; the copies take about 0." in (
        caplog.text
    )
    assert lines(made, far) == lines(near, photos)
    assert made.decision == near.decision and made.decision.kept == 12
    assert made.tally == near.tally and made.tally.passed == {".txt": 1}
    assert copies(made.folder) == copies(near.folder) and len(copies(made.folder)) == 12
    assert made.table == near.table
    assert json.loads((made.folder / "set.json").read_text())["sources"] == [far]
    assert not (made.folder / ".prepare" / "fetched").exists()
    assert "sub/09.jpg" in copies(made.folder)
    # What training reads, and what is packed, is the same, too.
    caplog.clear()
    for split in SPLITS:
        here, there = (
            dataset.open_source(name, split, datasets_root=tmp_path) for name in ("near", "made")
        )
        assert list(here.paths) == list(there.paths)
        assert np.array_equal(here.read(0), there.read(0))
    assert not caplog.records  # no row of the manifest is missed
    for name in ("near", "made"):
        shard_packer.pack(name, tmp_path / f"{name}-shards", datasets_root=tmp_path)
    shards = [path.name for path in (tmp_path / "near-shards").glob("*.tar")]
    assert len(shards) == 3
    for name in shards:
        assert (tmp_path / "near-shards" / name).read_bytes() == (
            tmp_path / "made-shards" / name
        ).read_bytes()


@pytest.mark.slow
def test_without_resize_the_files_come_as_they_are(far, photos, sound_storage, tmp_path):
    near, made = prepare(tmp_path, photos, name="near"), prepare(tmp_path, far, name="made")
    assert lines(made, far) == lines(near, photos)
    kept = copies(made.folder)
    assert len(kept) == 12 and not copies(near.folder)
    for name, data in kept.items():
        assert data == (photos / name).read_bytes()
    # Given again, it asks for nothing but the lists.
    sound_storage.proxy.asked.clear()
    again = prepare(tmp_path, far, name="made")
    assert (again.tally.new, again.tally.known, again.copies.kept) == (0, 24, 12)
    assert not asked_for(sound_storage, far)
    looser = prepare(tmp_path, far, name="made", rules=Rules(keep=frozenset(["gray"])))
    assert looser.copies.made == 1
    assert copies(made.folder)["gray.jpg"] == (photos / "gray.jpg").read_bytes()
    assert asked_for(sound_storage, far) == {"gray.jpg": 1}
    # Without its journal the set is made anew, over the copies that its manifest knows.
    shutil.rmtree(made.folder / ".prepare")
    assert prepare(tmp_path, far, name="made").copies.made == 12
    assert copies(made.folder) == kept


@pytest.mark.slow
def test_a_stopped_call_goes_on_and_asks_for_no_picture_twice(
    far, photos, sound_storage, tmp_path, monkeypatch
):
    near = prepare(tmp_path, photos, name="near", resize=64)
    for name, value in (("_CHUNK", 2), ("_BATCH", 2)):
        monkeypatch.setattr(survey, name, value)

    def stop(task, done, total):
        if total and done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, far, name="made", resize=64, progress=stop)
    assert sum(asked_for(sound_storage, far).values()) < 23
    assert not (tmp_path / "made" / "manifest.csv").exists()
    made = prepare(tmp_path, far, name="made", resize=64)
    assert made.tally.known >= 9 and lines(made, far) == lines(near, photos)
    assert copies(made.folder) == copies(near.folder)
    found = asked_for(sound_storage, far)
    assert len(found) == 23 and set(found.values()) == {1}  # all but the empty one
    # Smaller, those that are kept have to come once more.
    prepare(tmp_path, far, name="made", resize=32)
    found = asked_for(sound_storage, far)
    assert {name for name in found if found[name] == 2} == set(copies(made.folder))


@pytest.mark.slow
def test_pictures_that_do_not_come_are_broken_until_they_do(
    far, photos, sound_storage, tmp_path, caplog
):
    sound_storage.proxy.refuse |= {"GET /far/photos/04.jpg": 403, "GET /far/photos/sub/07.jpg": 503}
    made = prepare(tmp_path, far)
    assert made.decision.kept == 10 and made.decision.reasons["broken"] == 5
    assert "2 pictures of s3://far/photos could not be fetched, such as 04.jpg (access is" in (
        caplog.text
    )
    with (made.folder / "manifest.csv").open() as file:
        rejects = {row["path"]: row["reject"] for row in csv.DictReader(file)}
    assert rejects["s3://far/photos/04.jpg"] == "broken" and "04.jpg" not in rejects
    sound_storage.proxy.heal()
    made = prepare(tmp_path, far)
    assert made.decision.kept == 12 and "sub/07.jpg" in copies(made.folder)


@pytest.mark.slow
def test_storage_that_falls_silent_ends_the_call_with_a_line(
    far, sound_storage, tmp_path, monkeypatch
):
    sound_storage.proxy.refuse["GET /far/photos/"] = 403
    monkeypatch.setattr(stored_folder, "MOST_MISSING", 30)
    words = r"of s3://far/photos must come when they are asked for, got none of 23: access is"
    with pytest.raises(DataError, match=words):
        prepare(tmp_path, far)
    monkeypatch.setattr(stored_folder, "MOST_MISSING", 5)
    sound_storage.proxy.refuse = {"GET /far/photos/s": 403}
    words = r"s3://far/photos must go on answering, got none of 5 pictures in a row: access is"
    with pytest.raises(DataError, match=words):
        prepare(tmp_path, far)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [".prepare"]
    sound_storage.proxy.heal()
    made = prepare(tmp_path, far)
    assert made.tally.known > 10 and made.decision.kept == 12


def test_what_is_no_folder_in_storage_is_one_line_and_makes_nothing(
    cli, far, sound_storage, tmp_path
):
    root = tmp_path / "sets"
    root.mkdir()
    for source, words in (
        ("s3://nowhere/photos", "SOURCE must be the address of a folder, got s3://nowhere/photos"),
        (f"{far}/none", "nothing is there"),
        (f"{far}/00.jpg", "a file; fetch it, and give its path"),
        ("https://host/photos.zip", "SOURCE must be a path, or a folder in object storage (s3://"),
        ("ftp://host/photos", "SOURCE must be a path, or begin with s3://, gs://, hf://datasets/"),
        ("s3://me:secret@far/photos", "SOURCE must hold no credentials"),
    ):
        result = cli("data", "prepare", source, "--name", "mine", "--datasets-root", root)
        assert result.exit_code in (1, 2) and words in result.stderr, result.output
        assert result.stderr.count("\n") == 1 and "secret" not in result.stderr
    sound_storage.proxy.refuse["/far"] = 403
    result = cli("data", "prepare", far, "--name", "mine", "--datasets-root", root)
    assert result.exit_code == 1 and f"{far} could not be asked for: access is den" in result.stderr
    assert not list(root.iterdir())
    sound_storage.proxy.heal()
    for sources, words in (
        ((far, f"{far}/"), "must be another one, got s3://far/photos twice"),
        ((far, f"{far}/sub"), "no SOURCE must lie inside another, got s3://far/photos/sub in s3:/"),
    ):
        with pytest.raises(ConfigError, match=words):
            prepare(root, *sources)


@pytest.mark.slow
def test_room_is_asked_for_before_anything_is_fetched(
    far, sound_storage, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "gancolor")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
    words = r"must have room for 0.1 MB of pictures from addresses, got 0.1 MB free in .*--resize"
    with pytest.raises(DataError, match=words):
        prepare(tmp_path, far)
    assert not asked_for(sound_storage, far)
    assert prepare(tmp_path, far, resize=16).decision.kept == 12
    assert "24 pictures (0.1 MB) to fetch" in caplog.text


@pytest.mark.slow
def test_a_manifest_top_folders_and_other_sets_count_as_here(sound_storage, tmp_path):
    photos, address = fill(tmp_path / "photos", 6), sound_storage.bucket("sorted")
    for number, split in enumerate(("train", "train", "train", "val", "test", "test")):
        (photos / split).mkdir(exist_ok=True)
        (photos / f"{number:02d}.jpg").rename(photos / split / f"{number:02d}.jpg")
    sound_storage.put_folder(photos, address)
    near = prepare(tmp_path, photos, name="near", resize=64, by_folder=True)
    made = prepare(tmp_path, address, name="made", resize=64, by_folder=True)
    assert lines(made, address) == lines(near, photos)
    assert made.decision.splits == {"train": 3, "val": 1, "test": 2}
    (photos / "manifest.csv").write_text(
        "path,split,reject\ntrain/00.jpg,test,\ntest/04.jpg,,mine\n/etc/passwd,train,\n"
    )
    sound_storage.put(f"{address}/manifest.csv", (photos / "manifest.csv").read_bytes())
    made = prepare(tmp_path, address, name="listed", resize=64)
    assert made.decision.kept == 5 and made.tally.others == {"rejected by the manifest": 1}
    assert any(line.startswith("train/00.jpg,") and "test" in line for line in lines(made))
    sound_storage.put(f"{address}/manifest.csv", b"name\n1.jpg\n")
    with pytest.raises(DataError, match="s3://sorted/manifest.csv must have a column named path"):
        prepare(tmp_path, address, name="wrong")
    sound_storage.client.delete_object(Bucket="sorted", Key="manifest.csv")
    more = fill(tmp_path / "more", 8)
    made = prepare(tmp_path, more, name="more", against=(address,))
    assert made.decision.kept == 2 and made.decision.against == 6 and made.compared == 6
    two = prepare(tmp_path, address, more, name="two", resize=64)
    names = set(copies(two.folder))
    assert {name.partition("/")[0] for name in names} == {"sorted", "more"} and len(names) == 8


@pytest.mark.slow
def test_processes_fetch_and_the_command_says_so_and_paints_a_sheet(
    cli, far, photos, sound_storage, tmp_path
):
    near = prepare(tmp_path, photos, name="near", resize=64)
    words = ["--name", "mine", "--datasets-root", tmp_path, "--resize", 64, "--workers", 2]
    done = cli("data", "prepare", f"{far}/", *words)
    assert done.exit_code == 0, done.output
    assert "24 pictures looked at" in done.stdout and "12 pictures copied to" in done.stdout
    assert "to fetch from object storage" in done.stderr
    assert copies(tmp_path / "mine") == copies(near.folder)
    assert arrays.read_rgb(tmp_path / "mine" / ".prepare" / "rejected.png").shape[1] > 300
    twice = {name for name, count in asked_for(sound_storage, far).items() if count > 1}
    # They are shown beside their doubles, of which one is the same file.
    assert twice == {"00.jpg", "02.jpg", "03.jpg", "zcopy.jpg"}
    info = cli("data", "info", "mine", "--datasets-root", tmp_path, "--no-picture")
    assert info.exit_code == 0 and far in info.stdout and "Warning" not in info.output
    train = ["train", "--dataset", tmp_path / "mine", "--steps", 2, "--batch-size", 2]
    small = ["--image-size", 32, "--preset", "regression", "--runs-root", tmp_path / "runs"]
    trained = cli(*train, *small, "--workers", 0, "--backbone-weights", "none")
    assert trained.exit_code == 0, trained.output


@pytest.mark.slow
def test_a_data_set_of_the_hub_becomes_a_set_here(photos, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    files = {f"photos/{path.name}": path.read_bytes() for path in photos.glob("0*.jpg")}
    hub = standin_datasets.DatasetHub({**files, "README.md": b"#"})
    try:
        monkeypatch.setitem(remote_files._OPTIONS, "hf", {"endpoint": hub.address})
        address = "hf://datasets/owner/name/photos"
        made = prepare(tmp_path, address)
        assert copies(made.folder) == {
            path.name: path.read_bytes() for path in photos.glob("0*.jpg")
        }
        assert len(files) == 6 and prepare(tmp_path, address).tally.known == 6
        hub.files["photos/00.jpg"] = hub.files["photos/01.jpg"]
        remote_files._system(address)[0].invalidate_cache()  # as in another process
        assert prepare(tmp_path, address).tally.new == 1
    finally:
        hub.stop()
