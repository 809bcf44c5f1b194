"""Embeddings on disk: several processes, damage, foreign files, disks that refuse, and what the
index weighs.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor.models import embedding_cache
from gancolor.models.embedding_cache import FeatureCache, Index
from gancolor.runtime.files import cache_root

WIDTH = 5
SPAWN = multiprocessing.get_context("spawn")
RECORD = 32 + 2 * WIDTH + 4


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def scores(number: int) -> NDArray[np.float16]:
    return np.random.default_rng(number).normal(0, 5, WIDTH).astype(np.float16)


def open_cache(
    folder: Path, identity: str = "vgg16-abc-float32", width: int = WIDTH
) -> FeatureCache:
    return FeatureCache(folder, width, identity)


def fill(folder: Path, numbers: range, **options: Any) -> Path:
    """Put pictures by a cache of their own; return its shard."""
    before = set(folder.glob("*"))
    cache = open_cache(folder, **options)
    cache.put({key(n): scores(n) for n in numbers})
    cache.close()
    (shard,) = set(folder.glob("*")) - before
    return shard


def known(cache: FeatureCache, numbers: range) -> list[int]:
    """Return which numbers are known; fail if one is not what was put."""
    found = cache.get([key(n) for n in numbers])
    for n in numbers:
        if key(n) in found:
            assert found[key(n)].dtype == np.float16 and np.array_equal(found[key(n)], scores(n))
    return [n for n in numbers if key(n) in found]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_put_is_got_by_this_and_the_next_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a" / "b"
    cache = open_cache(folder)
    assert len(cache) == 0 and cache.get([key(1)]) == {} and cache.get([]) == {}
    assert not folder.exists(), "reading makes nothing"
    cache.put({key(n): scores(n) for n in range(3)})
    cache.put({key(3): scores(3)})
    assert len(cache) == 4 and known(cache, range(6)) == [0, 1, 2, 3]
    again = open_cache(folder)
    assert len(again) == 4 and known(again, range(6)) == [0, 1, 2, 3]
    assert again.get([key(2), key(2)]).keys() == {key(2)}
    assert not warnings_in(caplog)


def test_a_known_key_is_no_second_record(tmp_path: Path) -> None:
    shard = fill(tmp_path, range(3))
    cache = open_cache(tmp_path)
    cache.put({key(n): scores(n) + 1 for n in range(3)})
    assert known(cache, range(3)) == [0, 1, 2] and list(tmp_path.iterdir()) == [shard]
    cache.put({key(n): scores(n) for n in range(5)})
    cache.put({key(n): scores(n) for n in range(5)})
    (own,) = set(tmp_path.iterdir()) - {shard}
    assert shard.stat().st_size - own.stat().st_size == RECORD and len(cache) == 5


def test_float32_is_rounded_and_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    fine = np.array([1 / 3, 65504, -65504, 1e-9, 0], np.float32)
    cache.put({key(0): fine})
    assert np.array_equal(cache.get([key(0)])[key(0)], fine.astype(np.float16))
    for value in (65520.0, -1e6, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and at most 65504"):
            cache.put({key(1): np.array([0, 0, value, 0, 0], np.float32)})
    assert len(cache) == 1 and len(open_cache(tmp_path)) == 1


def write_many(folder: Path, first: int, barrier: Any) -> None:
    """Put 60 pictures one by one, of which 20 are the next process's too."""
    cache = open_cache(folder)
    barrier.wait()
    for n in range(first, first + 60):
        cache.put({key(n): scores(n)})
    missing = [
        n for n in range(first, first + 60) if n not in known(cache, range(first, first + 60))
    ]
    raise SystemExit(len(missing))


def test_three_processes_write_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    barrier = SPAWN.Barrier(4)
    writers = [
        SPAWN.Process(target=write_many, args=(tmp_path, first, barrier)) for first in (0, 40, 80)
    ]
    for writer in writers:
        writer.start()
    watcher = open_cache(tmp_path)
    barrier.wait()
    deadline = time.monotonic() + 60
    while known(watcher, range(140)) != list(range(140)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert known(watcher, range(140)) == list(range(140)), "seen while they wrote"
    assert known(open_cache(tmp_path), range(150)) == list(range(140))
    assert len(list(tmp_path.glob("*.features"))) == 3 and not list(tmp_path.glob("*.new"))
    assert not warnings_in(caplog)


def write_and_fork(folder: Path) -> None:
    cache = open_cache(folder)
    cache.put({key(0): scores(0)})
    child = os.fork()
    if not child:
        cache.put({key(1): scores(1)})
        os._exit(0 if known(cache, range(3))[:2] == [0, 1] else 1)
    cache.put({key(2): scores(2)})
    status = os.waitpid(child, 0)[1]
    raise SystemExit(0 if status == 0 and known(cache, range(3)) == [0, 1, 2] else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_a_shard_of_its_own(tmp_path: Path) -> None:
    process = SPAWN.Process(target=write_and_fork, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(list(tmp_path.glob("*.features"))) == 2 and known(
        open_cache(tmp_path), range(3)
    ) == [0, 1, 2]


def write_on(folder: Path, begun: Any) -> None:
    cache = open_cache(folder)
    for n in itertools.count():
        cache.put({key(n): scores(n)})
        if n == 50:
            begun.set()


def test_a_killed_process_leaves_its_finished_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = SPAWN.Event()
    process = SPAWN.Process(target=write_on, args=(tmp_path, begun), daemon=True)
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    cache = open_cache(tmp_path)
    assert len(cache) >= 50 and known(cache, range(len(cache))) == list(range(len(cache)))
    assert not warnings_in(caplog)


@pytest.mark.parametrize("kept", [1, 31, RECORD - 1])
def test_a_torn_last_record_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    shard = fill(tmp_path, range(3))
    shard.write_bytes(shard.read_bytes()[: -RECORD + kept])
    cache = open_cache(tmp_path)
    assert known(cache, range(3)) == [0, 1]
    cache.put({key(2): scores(2)})
    assert known(cache, range(3)) == [0, 1, 2] and known(open_cache(tmp_path), range(3)) == [
        0,
        1,
        2,
    ]
    assert not warnings_in(caplog)


@pytest.mark.parametrize("place", [0, 33, RECORD - 2], ids=["key", "scores", "checksum"])
def test_damaged_records_are_left_out_said_once_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    shard = fill(tmp_path, range(6))
    content = bytearray(shard.read_bytes())
    for number in (1, 5):
        content[len(content) - RECORD * (6 - number) + place] ^= 4
    shard.write_bytes(content)
    cache = open_cache(tmp_path)
    assert known(cache, range(6)) == [0, 2, 3, 4]
    assert known(cache, range(6)) == [0, 2, 3, 4]
    (warning,) = warnings_in(caplog)
    assert str(tmp_path) in warning and " 2 damaged" in warning
    cache.put({key(n): scores(n) for n in range(6)})
    assert known(cache, range(6)) == list(range(6)) and known(
        open_cache(tmp_path), range(6)
    ) == list(range(6))


def test_damage_after_opening_is_found_when_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = fill(tmp_path, range(3))
    cache = open_cache(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-RECORD - 10] ^= 1
    shard.write_bytes(content)
    shard_size = len(content)
    assert known(cache, range(3)) == [0, 2] and len(cache) == 2
    (mended,) = tmp_path.iterdir()
    assert mended != shard and mended.stat().st_size == shard_size - RECORD
    mended.unlink()
    assert known(cache, range(3)) == [] and len(cache) == 0
    assert len(warnings_in(caplog)) == 1
    cache.put({key(n): scores(n) for n in range(3)})
    assert known(cache, range(3)) == [0, 1, 2]


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = open_cache(folder)
    cache.put({key(0): scores(0)})
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert known(cache, range(1)) == []
    cache.put({key(0): scores(0)})
    assert known(cache, range(1)) == [0] and known(open_cache(folder), range(1)) == [0]


def test_foreign_files_are_left_out_said_once_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, range(0, 2), identity="vgg16-other-float32")
    wide = open_cache(tmp_path / "wide", width=7)
    wide.put({key(2): np.ones(7, np.float16)})
    next((tmp_path / "wide").iterdir()).rename(tmp_path / "wide.features")
    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache, "FORMAT", embedding_cache.FORMAT + 1)
        fill(tmp_path, range(3, 4))
    (tmp_path / "empty.features").touch()
    (tmp_path / "text.features").write_text("no embeddings at all, " * 100)
    (tmp_path / "notes.txt").write_text("a file of another kind")
    caplog.clear()
    cache = open_cache(tmp_path)
    assert len(cache) == 0 and known(cache, range(4)) == []
    (warning,) = warnings_in(caplog)
    assert str(tmp_path) in warning and " 5 damaged" in warning
    cache.put({key(n): scores(n) for n in range(4)})
    assert known(cache, range(4)) == [0, 1, 2, 3]
    assert len(warnings_in(caplog)) == 1
    aside = {path.name for path in tmp_path.glob("*.damaged")}
    assert aside == {"empty.features.damaged", "text.features.damaged"}, (
        "other networks' shards stay"
    )
    assert len(list(tmp_path.glob("*.features"))) == 4


def starts(folder: Path, caplog: pytest.LogCaptureFixture, numbers: range) -> tuple[list[int], int]:
    """Return what a new process knows and how often it warns."""
    caplog.clear()
    return known(open_cache(folder), numbers), len(warnings_in(caplog))


def flip(shard: Path, place: int) -> None:
    content = bytearray(shard.read_bytes())
    content[place] ^= 4
    shard.write_bytes(content)


def test_damage_is_mended_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = fill(tmp_path, range(6))
    shard.write_bytes(shard.read_bytes()[:-7])  # and its process was killed
    flip(shard, -2 * RECORD)
    assert starts(tmp_path, caplog, range(6)) == ([0, 1, 2, 4], 1)
    (mended,) = tmp_path.iterdir()
    assert mended != shard and mended.suffix == ".features"
    assert starts(tmp_path, caplog, range(6)) == ([0, 1, 2, 4], 0)
    fill(tmp_path, range(6))
    assert starts(tmp_path, caplog, range(6)) == ([0, 1, 2, 3, 4, 5], 0)


def test_a_damaged_header_loses_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(fill(tmp_path, range(4)), 1)
    assert starts(tmp_path, caplog, range(4)) == ([0, 1, 2, 3], 1)
    assert starts(tmp_path, caplog, range(4)) == ([0, 1, 2, 3], 0)
    (shard,) = tmp_path.iterdir()
    flip(shard, shard.read_bytes().index(b"vgg16"))  # nothing tells this from another network's
    assert starts(tmp_path, caplog, range(4)) == ([], 1)
    assert starts(tmp_path, caplog, range(4)) == ([], 0)
    assert [path.name for path in tmp_path.iterdir()] == [shard.name + ".damaged"]


def test_a_shard_that_is_being_written_is_not_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = fill(tmp_path, range(3))
    flip(shard, -2 * RECORD)
    with shard.open("r+b") as writer:
        assert embedding_cache.lock(writer, wait=True)
        assert starts(tmp_path, caplog, range(3)) == ([0, 2], 1)
        assert list(tmp_path.iterdir()) == [shard]
    assert starts(tmp_path, caplog, range(3)) == ([0, 2], 1) and not shard.exists()


def test_without_locks_only_an_old_shard_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "fcntl", None)
    shard = fill(tmp_path, range(3))
    flip(shard, -2 * RECORD)
    assert starts(tmp_path, caplog, range(3)) == ([0, 2], 1) and shard.exists()
    os.utime(shard, (time.time() - 700,) * 2)
    assert starts(tmp_path, caplog, range(3)) == ([0, 2], 1) and not shard.exists()
    assert starts(tmp_path, caplog, range(3)) == ([0, 2], 0)


def test_others_go_on_when_a_shard_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, reader = open_cache(tmp_path), open_cache(tmp_path)
    writer.put({key(n): scores(n) for n in range(4)})
    assert known(reader, range(4)) == [0, 1, 2, 3]
    (shard,) = tmp_path.iterdir()
    flip(shard, -3 * RECORD)
    assert starts(tmp_path, caplog, range(4)) == ([0, 2, 3], 1) and not shard.exists()
    caplog.clear()
    for _ in range(2):
        assert known(reader, range(3)) == [0, 2] and known(reader, range(3, 4)) == [3]
    writer.put({key(9): scores(9)})
    assert known(writer, range(10)) == [0, 2, 3, 9] == known(reader, range(10))
    assert len(list(tmp_path.iterdir())) == 2 and not warnings_in(caplog)


def open_at_once(folder: Path, barrier: Any) -> None:
    barrier.wait()
    cache = open_cache(folder)
    raise SystemExit(len([n for n in range(400) if n % 7 and key(n) not in cache.get([key(n)])]))


def test_two_processes_mend_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled = [(first, fill(tmp_path, range(first, first + 100))) for first in range(0, 400, 100)]
    for first, shard in filled:
        for n in range(first, first + 100):
            if n % 7 == 0:
                flip(shard, -RECORD * (first + 100 - n))
    barrier = SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=open_at_once, args=(tmp_path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert starts(tmp_path, caplog, range(400)) == ([n for n in range(400) if n % 7], 0)
    assert len(list(tmp_path.iterdir())) == 4


def test_what_cannot_be_mended_is_said_once_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    shard = fill(tmp_path, range(3))
    flip(shard, -2 * RECORD)
    for name in ("unlink", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(
                Path, name, refuse if name == "replace" else _refuse_shards(Path.unlink, shard)
            )
            for _ in range(2):
                assert starts(tmp_path, caplog, range(3)) == ([0, 2], 1)
        assert list(tmp_path.iterdir()) == [shard], "no copies are left"


def _refuse_shards(unlink: Any, shard: Path) -> Any:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == shard:
            raise OSError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok=missing_ok)

    return refuse


def test_a_folder_that_cannot_be_made_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = open_cache(tmp_path / "file" / "cache")
    for n in range(3):
        cache.put({key(n): scores(n)})
        assert known(cache, range(3)) == []
    (warning,) = warnings_in(caplog)
    assert "going on without" in warning and "GANCOLOR_CACHE" in warning


def test_a_read_only_folder_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    fill(tmp_path, range(2))
    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write where the mode forbids it
    cache = open_cache(tmp_path)
    cache.put({key(2): scores(2)})
    cache.put({key(3): scores(3)})
    assert known(cache, range(4)) == [0, 1]
    (warning,) = warnings_in(caplog)
    assert str(tmp_path) in warning and "Read-only file system" in warning


def test_a_disk_that_fills_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = RECORD + 10  # the second record is torn

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            part = bytes(content)[:room]
            room -= len(part)
            return super().write(part)

    original = Path.open

    def open_full(path: Path, mode: str = "r", **options: Any) -> Any:
        return Full(path, "r+") if mode == "r+b" else original(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_full)
    cache = open_cache(tmp_path)
    cache.put({key(0): scores(0)})
    cache.put({key(1): scores(1)})
    cache.put({key(2): scores(2)})
    assert known(cache, range(3)) == [0]
    (warning,) = warnings_in(caplog)
    assert "No space left on device" in warning
    assert known(open_cache(tmp_path), range(3)) == [0], "the torn record is no record"


def test_keys_that_fold_alike_are_not_taken_for_each_other(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    one, other = "ab" * 8 + "cd" * 8 + "00" * 16, "cd" * 8 + "ab" * 8 + "00" * 16
    cache.put({one: scores(1)})
    cache.put({other: scores(2)})
    for reader in (cache, open_cache(tmp_path)):
        assert np.array_equal(reader.get([one, other])[one], scores(1)) and other not in reader.get(
            [one, other]
        )


def test_many_pictures_weigh_little(tmp_path: Path) -> None:
    """16 bytes a picture in the arrays, and the index finds all of 300,000 after damage, merges and
    doubles.
    """
    index = Index()
    folded = np.random.default_rng(0).permutation(300_000).astype(np.uint64) * np.uint64(7919)
    places = np.arange(300_000) + (3 << 32)
    for start in range(0, 300_000, 1000):
        part = slice(max(0, start - 50), start + 1000)  # some again: the first place stays
        again = np.arange(len(places))[part] < start
        index.add(folded[part], np.where(again, 0, places[part]))
    assert len(index) == 300_000 and np.array_equal(index.find(folded), places)
    assert len(index._recent) <= 300_000 // 8
    index.forget(folded[::3])
    assert len(index) == 200_000
    found = index.find(folded)
    assert (found[::3] == -1).all() and np.array_equal(found[1::3], places[1::3])
    assert (index.find(folded + np.uint64(1)) == -1).all()
    index.add(folded[::3], places[::3] + 1)
    assert np.array_equal(index.find(folded)[::3], places[::3] + 1)
    index.forget(folded[:0])
    assert index._folded.nbytes + index._places.nbytes == 16 * 300_000


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path / "chosen"))
    assert cache_root() == tmp_path / "chosen"
    monkeypatch.delenv("GANCOLOR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "gancolor"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_root() == tmp_path / "home" / ".cache" / "gancolor"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_root() == tmp_path / "home" / "Library" / "Caches" / "gancolor"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_root().parts[-1:] == ("gancolor",)
