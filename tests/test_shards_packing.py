"""Packing: every picture of every split once, readable by others, whole or not at all, the same
bytes each time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import cv2
import forkserver
import numpy as np
import pytest
from PIL import Image
from shard_sets import folder_of, jpeg, number_of

from gancolor.data import shard_listing, shard_packer
from gancolor.data.shard_packer import PackingOrder, pack, to_jpeg
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path / "mine", 30, 5, 4)


def contents(out):
    """The samples of all shards, as plain tar files: (shard, key) -> its JSON with the picture's
    bytes.
    """
    found = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        for name in data:
            key, suffix = name.split(".")
            if suffix == "json":
                found[shard.name, key] = {**json.loads(data[name]), "data": data[f"{key}.jpg"]}
    return found


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}


def test_every_picture_is_there_once_in_shards_of_one_split(folder, tmp_path):
    reports = []
    packed = pack(
        str(folder), tmp_path / "out", shard_pictures=8, progress=lambda *now: reports.append(now)
    )
    samples = contents(tmp_path / "out")
    assert sorted(row["path"] for row in samples.values()) == [
        f"{number:03d}.jpg" for number in range(39)
    ]
    assert [key for _, key in samples] == [f"{number:08d}" for number in range(39)]
    assert [(s.file, s.split, s.pictures) for s in packed.listing.shards] == [
        ("0000.tar", "train", 8),
        ("0001.tar", "train", 8),
        ("0002.tar", "train", 8),
        ("0003.tar", "train", 6),
        ("0004.tar", "val", 5),
        ("0005.tar", "test", 4),
    ]
    for (shard, _), row in samples.items():
        number = int(row["path"][:3])
        split = "train" if number < 30 else "val" if number < 35 else "test"
        assert (
            row["split"] == split == next(s.split for s in packed.listing.shards if s.file == shard)
        )
        assert (
            row["data"] == jpeg(number)
            and row["sha256"] == hashlib.sha256(jpeg(number)).hexdigest()
        )
        assert (row["width"], row["height"]) == (16, 16)
    order = [row["path"] for row in samples.values() if row["split"] == "train"]
    assert order != sorted(order)
    assert reports[-1] == (39, 39) and [done for done, _ in reports] == sorted(
        done for done, _ in reports
    )


def test_the_list_tells_what_the_shards_are(folder, tmp_path):
    (folder / "set.json").write_text(json.dumps({"name": "my set", "licence": "CC0"}))
    packed = pack(str(folder), tmp_path / "out", shard_pictures=200)
    written = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert (written["gancolor shards"], written["name"], written["licence"]) == (1, "my set", "CC0")
    assert shard_listing.read(tmp_path / "out" / "shards.json") == packed.listing
    for row in written["shards"]:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert row["bytes"] == len(data) and row["sha256"] == hashlib.sha256(data).hexdigest()
        for start in row["starts"]:
            assert tarfile.TarInfo.frombuf(
                data[start : start + 512], "utf-8", "strict"
            ).name.endswith(".jpg")


def test_starts_lie_at_every_so_many_th_picture(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_packer, "STRIDE", 7)
    packed = pack(str(folder), tmp_path / "out")
    shard = packed.listing.shards[0]
    data = (tmp_path / "out" / shard.file).read_bytes()
    names = [
        tarfile.TarInfo.frombuf(data[start : start + 512], "utf-8", "strict").name
        for start in shard.starts
    ]
    assert names == ["00000000.jpg", "00000007.jpg", "00000014.jpg", "00000021.jpg", "00000028.jpg"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves its files open
def test_webdataset_reads_them(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pack(str(folder), tmp_path / "out", shard_pictures=8)
    pattern = str(tmp_path / "out" / "{0000..0003}.tar")
    pairs = list(
        webdataset.WebDataset(pattern, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
    )
    assert sorted(number_of(rgb) for rgb, _ in pairs) == list(range(30))
    assert all(f"{number_of(rgb):03d}.jpg" == about["path"] for rgb, about in pairs)


def test_the_same_pictures_give_the_same_bytes(folder, tmp_path):
    for name in ("one", "two"):
        pack(str(folder), tmp_path / name, shard_bytes=20_000, resize=8)
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(files(tmp_path / "one")) > 4
    assert all(
        20_000 <= len(data) < 40_000
        for name, data in list(files(tmp_path / "one").items())
        if name == "0000.tar"
    )


def test_again_makes_nothing_and_mends_what_is_missing(folder, tmp_path):
    out = tmp_path / "out"
    assert pack(str(folder), out, shard_pictures=8).made == 6
    before, times = files(out), {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert pack(str(folder), out, shard_pictures=8).made == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == times
    (out / "0001.tar").unlink()
    os.truncate(out / "0004.tar", 1000)
    assert pack(str(folder), out, shard_pictures=8).made == 2
    assert files(out) == before
    assert (out / "0000.tar").stat().st_mtime_ns == times["0000.tar"]


def test_goes_on_after_it_was_stopped(folder, tmp_path):
    out = tmp_path / "out"

    def stop(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(str(folder), out, shard_pictures=8, progress=stop)
    assert sorted(files(out)) == ["0000.tar", "0001.tar"]  # whole ones only, and no list
    with (out / ".packing.jsonl").open("a") as state:
        state.write('{"shard": {"file": "0002')  # as a power cut leaves it
    assert pack(str(folder), out, shard_pictures=8).made == 4
    pack(str(folder), tmp_path / "at once", shard_pictures=8)
    assert files(out) == files(tmp_path / "at once")
    assert pack(str(folder), out, shard_pictures=8).made == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from gancolor.data.shard_packer import pack
from gancolor.data.shard_packer import PackingOrder
stop = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 20 else None
pack(sys.argv[1], Path(sys.argv[2]), shard_pictures=8, progress=stop)
"""


def test_goes_on_after_it_was_killed(folder, tmp_path):
    out = tmp_path / "out"
    killed = forkserver.run(["-c", KILLED, str(folder), str(out)])
    assert killed.returncode == -9 and len(list(out.glob(".*.part"))) == 1
    assert pack(str(folder), out, shard_pictures=8).made == 4
    assert not list(out.glob(".*.part")) and len(contents(out)) == 39


@pytest.mark.parametrize("change", ["picture", "resize", "foreign"])
def test_a_folder_with_other_shards_is_left_alone(folder, tmp_path, change):
    out = tmp_path / "out"
    pack(str(folder), out, shard_pictures=8)
    if change == "picture":
        (folder / "003.jpg").write_bytes(jpeg(99, 32))
    if change == "foreign":
        (out / ".packing.jsonl").unlink()
    before = files(out)
    with pytest.raises(
        DataError, match="must be empty or hold the same pictures.*name another one"
    ):
        pack(str(folder), out, shard_pictures=8, resize=8 if change == "resize" else None)
    assert files(out) == before


def test_a_folder_with_anything_else_is_left_alone(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    with pytest.raises(
        DataError, match="must be empty or hold the same pictures.*name another one"
    ):
        pack(str(folder), out)
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


def test_the_pictures_own_folder_is_refused(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    before = sorted(path.name for path in folder.iterdir())
    for out in (folder, tmp_path / "link"):
        with pytest.raises(
            ConfigError, match="^--out must be another folder than that of the pictures, got "
        ):
            pack(str(folder), out)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_shards_are_not_packed_again(folder, tmp_path):
    pack(str(folder), tmp_path / "out")
    for name in ("out", "out/0000.tar"):
        with pytest.raises(
            DataError, match="must be pictures, got shards, .*; pack the set they were made of"
        ) as caught:
            pack(str(tmp_path / name), tmp_path / "again")
        assert "\n" not in str(caught.value) and not (tmp_path / "again").exists()


@pytest.mark.parametrize("locked_first", [True, False])
def test_what_follows_a_shard_that_comes_out_different_is_made_again(
    folder, tmp_path, monkeypatch, locked_first
):
    out, locked = tmp_path / "out", []
    original = PackingOrder.jpeg

    def jpeg_unless_locked(self, place, resize):
        return (
            "locked" if self.split == "train" and place in locked else original(self, place, resize)
        )

    # the files stay as they are, and so does the plan
    monkeypatch.setattr(PackingOrder, "jpeg", jpeg_unless_locked)
    locked[:] = [1, 2] if locked_first else []
    assert pack(str(folder), out, shard_pictures=4).made == (10 if locked_first else 11)
    (out / "0000.tar").unlink()
    locked[:] = [] if locked_first else [1, 2]
    again = pack(str(folder), out, shard_pictures=4)
    assert again.made == (11 if locked_first else 10) and len(again.broken) == len(locked)
    pack(str(folder), tmp_path / "at once", shard_pictures=4)
    assert files(out) == files(tmp_path / "at once")  # no old shard is left over
    assert pack(str(folder), out, shard_pictures=4).made == 0


def test_a_set_that_is_being_made_again_has_no_list(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    pack(str(folder), out, shard_pictures=4)
    (out / "0000.tar").unlink()
    original = PackingOrder.jpeg
    monkeypatch.setattr(
        PackingOrder,
        "jpeg",
        lambda self, place, n: "locked" if place == 1 else original(self, place, n),
    )

    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(str(folder), out, shard_pictures=4, progress=stop)
    assert "shards.json" not in files(out)
    pack(str(folder), out, shard_pictures=4)
    pack(str(folder), tmp_path / "at once", shard_pictures=4)
    assert files(out) == files(tmp_path / "at once")


def test_two_at_once_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    errors = []

    def second(done, total):
        if not errors:
            with pytest.raises(DataError, match="another process packs") as caught:
                pack(str(folder), out)
            errors.append(caught)

    pack(str(folder), out, progress=second)
    assert len(errors) == 1 and len(contents(out)) == 39


def test_broken_pictures_are_left_out_and_said(folder, tmp_path):
    (folder / "001.jpg").write_bytes(b"")
    (folder / "031.jpg").write_bytes(jpeg(31)[:300])
    (folder / "036.jpg").write_text("no picture")
    for made in (6, 0):
        packed = pack(str(folder), tmp_path / "out", shard_pictures=8)
        assert packed.made == made and len(packed.broken) == 3
        assert {
            name for name in ("001.jpg", "031.jpg", "036.jpg") if name in " ".join(packed.broken)
        } == {
            "001.jpg",
            "031.jpg",
            "036.jpg",
        }
    assert len(contents(tmp_path / "out")) == 36
    assert sum(shard.pictures for shard in packed.listing.shards) == 36


def test_a_split_without_pictures_is_no_copy_of_another(tmp_path):
    folder = folder_of(tmp_path / "mine", 6, 0, 3)
    packed = pack(str(folder), tmp_path / "out")
    assert [(shard.split, shard.pictures) for shard in packed.listing.shards] == [
        ("train", 6),
        ("test", 3),
    ]


def test_pictures_elsewhere_do_not_tell_their_folder(folder, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "900.jpg").write_bytes(jpeg(200))
    with (folder / "manifest.csv").open("a") as manifest:
        manifest.write(f"{tmp_path / 'secret' / '900.jpg'},train\n")
    pack(str(folder), tmp_path / "out")
    assert "900.jpg" in {row["path"] for row in contents(tmp_path / "out").values()}
    assert b"secret" not in b"".join(files(tmp_path / "out").values())


def test_a_generated_set(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "gancolor.data.still_life.composition.SCENES",
        {"train": (0, 3), "val": (3, 1), "test": (4, 1)},
    )
    pack("still-life", tmp_path / "out", resize=32)
    rows = contents(tmp_path / "out").values()
    assert len(rows) == 5 and {(row["width"], row["height"]) for row in rows} == {(32, 32)}


def noise(height, width):
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(rgb, **options):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, **options)
    return file.getvalue()


def test_a_plain_jpeg_stays_as_it_is_unless_it_is_large():
    data = saved(noise(64, 96), format="JPEG", quality=80)
    for resize in (None, 64, 100):
        made = to_jpeg(data, "a", resize)
        assert made.data == data and (made.width, made.height) == (96, 64)
    small = to_jpeg(data, "a", 32)
    assert (small.width, small.height) == (48, 32)
    expected = arrays.resize(arrays.decode_rgb(data, "a"), (32, 48)).astype(int)
    # reduced while it is decoded
    assert np.abs(arrays.decode_rgb(small.data, "b").astype(int) - expected).mean() < 4


def test_orientation_and_other_formats_become_plain_jpeg():
    rgb = noise(64, 96)
    exif = Image.Exif()
    exif[274] = 6
    turned = to_jpeg(saved(rgb, format="JPEG", exif=exif), "a", None)
    assert (turned.width, turned.height) == (64, 96)
    assert np.abs(arrays.decode_rgb(turned.data, "b").astype(int) - np.rot90(rgb, -1)).mean() < 6
    for options in ({"format": "PNG"}, {"format": "WEBP", "lossless": True}):
        made = to_jpeg(saved(rgb, **options), "a", None)
        with Image.open(io.BytesIO(made.data)) as opened:
            # 4:4:4
            assert (
                opened.format == "JPEG" and opened.layer[0][1:3] == (1, 1) == opened.layer[1][1:3]
            )
        assert np.abs(arrays.decode_rgb(made.data, "b").astype(int) - rgb).mean() < 3
    gray = to_jpeg(saved(rgb[..., 0], format="JPEG"), "a", None)
    assert arrays.decode_rgb(gray.data, "b").shape == (64, 96, 3)
    with Image.open(io.BytesIO(gray.data)) as opened:
        assert opened.mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 cut", b"text"])
def test_what_is_no_picture_is_one_line(data):
    with pytest.raises(DataError, match="picture must be readable, got a.jpg: ") as caught:
        to_jpeg(data, "a.jpg", None)
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)
