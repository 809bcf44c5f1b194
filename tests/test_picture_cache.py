"""Decoded pictures: reduced as needed, kept in memory or on disk, and never other ones than their
files hold.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import forkserver
import lmdb
import numpy as np
import pytest
import torch

from gancolor.data import example, loader, picture_cache
from gancolor.data.folder import FolderSource
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays
from gancolor.storage import checkpoint
from gancolor.training import train

SIDE = 20


class Counted(FolderSource):
    """Files, and which of them were read."""

    def __init__(self, root, paths):
        super().__init__(root, paths)
        self.reads = []

    def read(self, index):
        self.reads.append(index)
        return super().read(index)


@pytest.fixture(autouse=True)
def memory(monkeypatch, tmp_path):
    """Keep each test's stores in its own folders, and write every picture at once."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(picture_cache, "MEMORY", folder)
    monkeypatch.setattr(picture_cache, "DELAY", 0.0)
    # a command line that ran before here switches it off
    monkeypatch.setattr(picture_cache.log, "propagate", True)
    return folder


@pytest.fixture
def source(tmp_path):
    for index in range(8):
        arrays.write_rgb(tmp_path / "set" / f"{index}.bmp", noise(index))
    return Counted(tmp_path / "set", [f"{index}.bmp" for index in range(8)])


def noise(seed, shape=(30, 44)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def wanted(index):
    return picture_cache.reduce(noise(index), SIDE)


def stores(base):
    return sorted(path.name for path in base.glob("gancolor-pictures-*/*")) + sorted(
        path.name for path in base.glob("gancolor-cache/pictures/*")
    )


def data_file(tmp_path):
    (file,) = tmp_path.glob("gancolor-cache/pictures/*/data.mdb")
    return file


# --- reduction ---


@pytest.mark.parametrize(
    ("shape", "reduced"),
    [((40, 90), (20, 45)), ((90, 40), (45, 20)), ((333, 20), (333, 20)), ((21, 21), (20, 20))],
)
def test_the_shorter_side_is_reduced_and_the_shape_kept(shape, reduced):
    assert picture_cache.reduce(np.zeros((*shape, 3), np.uint8), SIDE).shape == (*reduced, 3)


def test_reduction_averages_and_leaves_small_pictures_as_they_are():
    stripes = np.zeros((40, 60, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (picture_cache.reduce(stripes, SIDE) == 100).all()
    small = noise(0, (20, 60))
    assert picture_cache.reduce(small, SIDE) is small


def test_without_a_cache_every_picture_is_read_each_time(source, tmp_path):
    reduced = picture_cache.open_reduced(source, SIDE, "none")
    assert len(reduced) == 8 and reduced.name(3) == "3.bmp"
    for _ in range(2):
        assert np.array_equal(reduced.read(3), wanted(3))
    assert source.reads == [3, 3] and not stores(tmp_path / "memory") and not stores(tmp_path)


# --- keeping ---


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_kept_picture_is_read_once_and_belongs_to_the_caller(source, cache):
    kept = picture_cache.open_reduced(source, SIDE, cache)
    assert len(kept) == 8 and kept.name(3) == "3.bmp"
    for _ in range(3):
        picture = kept.read(3)
        assert picture.dtype == np.uint8 and np.array_equal(picture, wanted(3))
        picture[:] = 7
    assert source.reads == [3]


def test_pictures_wait_to_be_written_and_are_there_meanwhile(source, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_cache, "DELAY", 1000.0)
    kept = picture_cache.open_reduced(source, SIDE, "disk")
    kept.read(0)  # the first is written at once
    size = data_file(tmp_path).stat().st_size
    kept.read(1)[:] = 7
    assert np.array_equal(kept.read(1), wanted(1)) and source.reads == [0, 1]
    assert data_file(tmp_path).stat().st_size == size
    monkeypatch.setattr(picture_cache, "BATCH", 3 * wanted(0).size)
    kept.read(2), kept.read(3)
    assert data_file(tmp_path).stat().st_size > size


def test_pictures_on_disk_are_there_for_later_runs_by_set_and_side(source, tmp_path):
    for side in (SIDE, SIDE, 10, SIDE):
        kept = picture_cache.open_reduced(source, side, "disk")
        for index in range(8):
            assert np.array_equal(kept.read(index), picture_cache.reduce(noise(index), side))
        del kept
    assert source.reads == [*range(8), *range(8)]
    another = Counted(source.root, source.paths[5:])  # a split of the same set
    assert (
        np.array_equal(picture_cache.open_reduced(another, SIDE, "disk").read(0), wanted(5))
        and not another.reads
    )
    shutil.copytree(source.root, tmp_path / "other" / "set")
    other = Counted(tmp_path / "other" / "set", source.paths)
    picture_cache.open_reduced(other, SIDE, "disk").read(0)
    assert other.reads == [0] and len(stores(tmp_path)) == 3


def test_pictures_in_memory_go_with_the_last_that_uses_them(source, memory):
    first = picture_cache.open_reduced(source, SIDE, "ram")
    second = picture_cache.open_reduced(source, SIDE, "ram")
    first.read(0)
    assert np.array_equal(second.read(0), wanted(0)) and source.reads == [0]
    del first
    assert (
        len(stores(memory)) == 1
        and np.array_equal(second.read(0), wanted(0))
        and source.reads == [0]
    )
    del second
    assert stores(memory) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_ends_in_order_keeps_all_that_it_has_decoded(source, monkeypatch, workers):
    monkeypatch.setattr(picture_cache, "DELAY", float("inf"))
    changes = {
        "zoom": 0.5,
        "flip": True,
        "condition": "gray",
        "framing": "random",
        "seed": 1,
        "device": "cpu",
    }
    changes |= {"old_photos": 0.0, "hints": 0.0}
    config = SimpleNamespace(image_size=16, batch_size=4, cache="disk", workers=workers, **changes)
    batches = loader.batches(source, config=config)
    for _ in range(2):
        next(batches)
    batches.close()
    kept = picture_cache.open_reduced(source, example.needed_side(16, 0.5, "random", None), "disk")
    source.reads.clear()
    for index in range(8):
        kept.read(index)
    assert not source.reads


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_file_that_changed_is_read_again(source, cache):
    kept = picture_cache.open_reduced(source, SIDE, cache)
    kept.read(2)
    path = source.root / "2.bmp"
    before = path.stat()
    path.write_bytes((source.root / "5.bmp").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    for _ in range(2):
        assert np.array_equal(kept.read(2), wanted(5))
    assert source.reads == [2, 2]
    path.unlink()
    with pytest.raises(DataError, match="2.bmp"):
        kept.read(2)


def test_a_broken_file_stays_broken_until_it_is_mended(source):
    path = source.root / "4.bmp"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    kept = picture_cache.open_reduced(source, SIDE, "disk")
    for _ in range(2):
        with pytest.raises(DataError, match="4.bmp"):
            kept.read(4)
    path.write_bytes(whole)
    assert np.array_equal(kept.read(4), wanted(4))


def test_names_of_any_bytes_and_pictures_elsewhere_are_kept(source, tmp_path):
    odd = os.fsdecode(b"\xff odd\n.bmp")
    (source.root / odd).write_bytes((source.root / "1.bmp").read_bytes())
    arrays.write_rgb(tmp_path / "elsewhere" / "1.bmp", noise(6))
    files = Counted(source.root, [odd, str(tmp_path / "elsewhere" / "1.bmp"), "1.bmp"])
    for _ in range(2):
        kept = picture_cache.open_reduced(files, SIDE, "disk")
        for index, seed in enumerate((1, 6, 1)):
            assert np.array_equal(kept.read(index), wanted(seed))
        del kept
    assert files.reads == [0, 1, 2]


def test_only_files_and_generated_pictures_are_kept():
    class Shards:
        pass

    assert picture_cache.open_reduced(Shards(), SIDE, "none").source
    for cache in ("ram", "disk"):
        with pytest.raises(
            ConfigError, match=f"^--cache must be none with shards, got {cache}; leave it out$"
        ):
            picture_cache.open_reduced(Shards(), SIDE, cache)


# --- no room ---


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_full_store_keeps_what_it_has_says_so_once_and_files_are_read(
    source, monkeypatch, caplog, cache
):
    kept = picture_cache.open_reduced(source, SIDE, cache)
    kept.read(0)
    monkeypatch.setattr(picture_cache, "room_in", lambda folder, in_memory: wanted(0).size - 1)
    for _ in range(2):
        assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
    assert source.reads == [*range(8), *range(1, 8)]
    assert caplog.text.count("no room for more decoded pictures") == 1 == len(caplog.records)
    another = pickle.loads(pickle.dumps(kept.cache))  # as a worker has it
    another._stop_writing()
    assert len(caplog.records) == 1


def test_a_map_that_is_full_is_no_damage(source, monkeypatch, caplog):
    usage = shutil.disk_usage
    monkeypatch.setattr(
        picture_cache.shutil,
        "disk_usage",
        lambda path: usage(path)._replace(total=1 << 15, free=1 << 30),
    )
    for _ in range(2):
        kept = picture_cache.open_reduced(source, SIDE, "disk")
        assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
        del kept
    assert (source.reads.count(0), source.reads.count(7)) == (1, 2)
    assert caplog.text.count("no room") == 2 == len(caplog.records)


def test_a_tenth_of_the_disk_and_half_of_the_memory_stay_free(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        picture_cache.shutil, "disk_usage", lambda path: usage._replace(total=1000, free=400)
    )
    monkeypatch.setattr(picture_cache, "available_memory", lambda: 300)
    assert picture_cache.room_in(tmp_path, in_memory=False) == 300
    assert picture_cache.room_in(tmp_path, in_memory=True) == 150
    (tmp_path / "data.mdb").write_bytes(b"x" * 100)
    # the store's 100 came off the 300
    monkeypatch.setattr(picture_cache, "available_memory", lambda: 200)
    assert picture_cache.room_in(tmp_path, in_memory=True) == 50


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is looked up in /proc")
def test_available_memory_is_that_of_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_cache, "GROUP", tmp_path)
    whole = picture_cache.available_memory()
    assert whole > 1 << 24
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 20000\ninactive_file 300000\n")
    assert picture_cache.available_memory() == 1_320_000
    (tmp_path / "memory.max").write_text("max\n")
    assert picture_cache.available_memory() > 1 << 24


def test_the_need_is_told_before(source, memory, tmp_path):
    assert picture_cache.describe_need(source, SIDE, "disk").startswith(
        "about 0.00 GiB of decoded pictures on disk, of "
    )
    big = Counted(source.root, source.paths * 10_000_000)
    need = 80_000_000 * wanted(0).size / 2**30
    told = picture_cache.describe_need(big, SIDE, "ram")
    assert (
        told.startswith(f"about {need:.2f} GiB of decoded pictures in memory, of ")
        and "the rest is read" in told
    )
    assert 16 <= len(big.reads) < 20 and not stores(tmp_path) and not list(memory.iterdir())
    memory.rmdir()
    assert "of 0.00 GiB free" in picture_cache.describe_need(source, SIDE, "ram")
    with pytest.raises(ConfigError, match="--cache must be none with shards"):
        picture_cache.describe_need(object(), SIDE, "ram")


# --- where nothing can be kept ---


def test_a_system_without_a_folder_in_memory_goes_on_without(source, memory, caplog):
    memory.rmdir()
    kept = picture_cache.open_reduced(source, SIDE, "ram")
    assert np.array_equal(kept.read(1), wanted(1)) and np.array_equal(kept.read(1), wanted(1))
    assert (
        source.reads == [1, 1] and "no folder in memory" in caplog.text and len(caplog.records) == 1
    )


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users have no numbers here")
def test_another_users_folder_in_memory_is_not_used(source, memory, tmp_path, caplog):
    (tmp_path / "theirs").mkdir()
    (memory / f"gancolor-pictures-{os.getuid()}").symlink_to(tmp_path / "theirs")
    picture_cache.open_reduced(source, SIDE, "ram").read(1)
    assert "no folder in memory" in caplog.text and not any((tmp_path / "theirs").iterdir())


def test_a_cache_folder_that_cannot_be_made_is_said(source, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path / "file" / "cache"))
    kept = picture_cache.open_reduced(source, SIDE, "disk")
    assert np.array_equal(kept.read(1), wanted(1))
    assert (
        "going on without" in caplog.text
        and len(caplog.records) == 1
        and "\n" not in caplog.messages[0]
    )


def test_a_store_that_cannot_be_opened_is_left_as_it_is_for_others(
    source, tmp_path, monkeypatch, caplog
):
    fill(source)
    with monkeypatch.context() as patched:
        patched.setattr(
            picture_cache.lmdb, "open", lambda *_, **__: raise_error(lmdb.MemoryError("no memory"))
        )
        assert np.array_equal(picture_cache.open_reduced(source, SIDE, "disk").read(1), wanted(1))
    assert (
        "cannot be kept (no memory); going on without" in caplog.text and len(caplog.records) == 1
    )
    source.reads.clear()
    assert (
        np.array_equal(picture_cache.open_reduced(source, SIDE, "disk").read(1), wanted(1))
        and not source.reads
    )
    lock, alone = picture_cache.join(data_file(tmp_path).parent)
    os.close(lock)
    assert alone


def raise_error(error):
    raise error


def test_a_store_that_is_taken_away_costs_nothing_but_time(source, tmp_path, caplog):
    kept = picture_cache.open_reduced(source, SIDE, "disk")
    shutil.rmtree(tmp_path / "gancolor-cache")
    for _ in range(2):
        assert np.array_equal(kept.read(1), wanted(1))
    assert "going on without" in caplog.text and len(caplog.records) == 1


# --- damage ---


def fill(source):
    kept = picture_cache.open_reduced(source, SIDE, "disk")
    for index in range(8):
        kept.read(index)
    del kept
    source.reads.clear()


def cut(file):
    os.truncate(file, file.stat().st_size - 4096)


def overwrite_both_roots(file):
    with file.open("r+b") as opened:
        opened.write(random.Random(0).randbytes(8192))


def leave_a_text(file):
    file.write_text("this is no store\n")


@pytest.mark.parametrize("harm", [cut, overwrite_both_roots, leave_a_text])
def test_a_damaged_store_is_said_removed_and_made_anew(source, tmp_path, caplog, harm):
    fill(source)
    harm(data_file(tmp_path))
    for _ in range(2):
        kept = picture_cache.open_reduced(source, SIDE, "disk")
        assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
        del kept
    assert sorted(source.reads) == list(range(8))
    assert caplog.text.count("removed and made anew") == 1 == len(caplog.records)


def test_damage_that_shows_later_ends_the_use_and_the_next_run_makes_it_anew(
    source, tmp_path, caplog
):
    fill(source)
    file = data_file(tmp_path)
    with file.open("r+b") as opened:
        for page in range(2, file.stat().st_size // 4096):
            opened.seek(page * 4096 + 8)
            opened.write(random.Random(page).randbytes(8))
    for _ in range(3):
        kept = picture_cache.open_reduced(source, SIDE, "disk")
        for _ in range(2):
            assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
        del kept
    assert len(source.reads) == 3 * 8
    assert ["going on without" in text for text in caplog.messages] == [True, False]
    assert "removed and made anew" in caplog.messages[1]


def test_damaged_pixels_are_noticed_and_replaced(source, tmp_path, caplog):
    fill(source)
    file = data_file(tmp_path)
    pixels = wanted(3).tobytes()
    file.write_bytes(file.read_bytes().replace(pixels[:64], bytes([pixels[0] ^ 1]) + pixels[1:64]))
    for _ in range(2):
        kept = picture_cache.open_reduced(source, SIDE, "disk")
        assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
        del kept
    assert source.reads == [3]
    assert caplog.text.count("damaged records") == 1 == len(caplog.records)


def test_a_damaged_store_that_another_run_uses_is_left_to_it(source, tmp_path, caplog):
    fill(source)
    folder = data_file(tmp_path).parent
    lock, alone = picture_cache.join(folder)
    assert alone
    picture_cache.stay(folder, lock)
    picture_cache.mark_damaged(folder, "pages are torn")
    before = data_file(tmp_path).read_bytes()
    fill(source)
    assert data_file(tmp_path).read_bytes() == before and not caplog.records
    picture_cache.leave(folder, "", lock, remove=False)
    fill(source)
    assert "damaged (pages are torn): removed and made anew" in caplog.text


# --- kills ---

FILL = """
import sys
from pathlib import Path
import numpy as np
from gancolor.data import picture_cache
from gancolor.data.folder import FolderSource
picture_cache.MEMORY = Path(sys.argv[2])
picture_cache.DELAY = 0.0
root = Path(sys.argv[1])
names = sorted(path.name for path in root.iterdir())
for side in (9, 20, 11):
    kept = picture_cache.open_reduced(FolderSource(root, names), side, sys.argv[3])
    if side == 20:
        while True:
            for index in range(len(names)):
                kept.cache.put(bytes([index]) * 16, bytes(16), np.full((50, 60, 3), index, np.uint8))
                kept.read(index)
                print(index, flush=True)
"""


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_kill_in_the_middle_leaves_whole_pictures_and_nothing_in_memory(
    source, tmp_path, memory, caplog, cache
):
    arguments = ["-c", textwrap.dedent(FILL), str(source.root), str(memory), cache]
    with forkserver.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(13):
            process.stdout.readline()
        assert len(stores(memory if cache == "ram" else tmp_path)) == 1 + (cache == "disk")
        process.send_signal(signal.SIGKILL)
    assert len(stores(memory)) == (cache == "ram")
    kept = picture_cache.open_reduced(source, SIDE, cache)
    assert all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
    # what a crash left in memory is not used
    assert bool(source.reads) == (cache == "ram") and not caplog.records
    del kept
    assert stores(memory) == []


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_what_killed_runs_left_in_memory_is_removed_by_every_training(source, memory, cache):
    left = picture_cache.open_reduced(source, SIDE, "ram").cache.folder
    left.mkdir()
    (left / "data.mdb").write_bytes(bytes(5000))
    picture_cache.open_reduced(source, SIDE, cache)
    assert stores(memory) == []


def test_the_processes_of_a_run_share_a_store_in_memory(source, memory):
    code = FILL.replace("while True:", "if True:")
    kept = picture_cache.open_reduced(source, SIDE, "ram")
    forkserver.run(["-c", textwrap.dedent(code), str(source.root), str(memory), "ram"], check=True)
    assert (
        all(np.array_equal(kept.read(index), wanted(index)) for index in range(8))
        and not source.reads
    )
    assert len(stores(memory)) == 1  # the other's own is gone, the shared one stays


# --- whole trainings ---


@pytest.mark.slow
def test_a_training_is_the_same_to_the_bit_with_every_cache(tiny, pictures, tmp_path, caplog):
    for path in sorted(pictures.rglob("*.png")) + sorted(pictures.rglob("*.jpg"))[8:]:
        path.unlink()

    def trained(cache):
        rare = {"checkpoint_every": 100, "validate_every": 100, "log_every": 100}
        # 8 pictures of 7
        config = dataclasses.replace(tiny, dataset=str(pictures), cache=cache, steps=4, **rare)
        content = checkpoint.load(train(config, runs_root=tmp_path / "runs") / "last.pt")
        return {
            f"{part}.{name}": tensor
            for part in ("generator", "ema")
            for name, tensor in content[part].items()
        }

    wanted = trained("none")
    assert len(wanted) > 50
    for cache in ("ram", "disk"):
        found = trained(cache)
        assert found.keys() == wanted.keys() and all(
            torch.equal(found[name], wanted[name]) for name in wanted
        )
    assert len(stores(tmp_path)) == 1 and not stores(tmp_path / "memory")
    assert "decoded pictures" not in caplog.text
