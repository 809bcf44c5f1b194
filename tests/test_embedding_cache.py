"""Embeddings on disk: rounding, damage, disks that refuse."""

from __future__ import annotations

import errno
import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor.models.embedding_cache import EmbeddingCache
from gancolor.runtime import store
from gancolor.runtime.files import cache_root

WIDTH = 5


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def scores(number: int) -> NDArray[np.float16]:
    return np.random.default_rng(number).normal(0, 5, WIDTH).astype(np.float16)


def open_cache(folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, WIDTH)


def fill(folder: Path, numbers: range) -> Path:
    """Put pictures by a cache of their own; return the store's file."""
    open_cache(folder).put({key(n): scores(n) for n in numbers})
    return folder / "data.mdb"


def known(cache: EmbeddingCache, numbers: range) -> list[int]:
    """Return which numbers are known; fail if one is not what was put."""
    found = cache.get([key(n) for n in numbers])
    for n in numbers:
        if key(n) in found:
            assert found[key(n)].dtype == np.float16 and np.array_equal(found[key(n)], scores(n))
    return [n for n in numbers if key(n) in found]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def flip(file: Path, *numbers: int) -> None:
    """Change a bit of these pictures' scores."""
    content = bytearray(file.read_bytes())
    for number in numbers:
        content[content.index(scores(number).tobytes()) + 3] ^= 4
    file.write_bytes(content)


def test_what_was_put_is_got_by_this_and_the_next_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a" / "b"
    cache = open_cache(folder)
    assert cache.get([key(1)]) == {} and cache.get([]) == {}
    assert not folder.parent.exists(), "reading makes nothing"
    cache.put({key(n): scores(n) for n in range(3)})
    cache.put({key(3): scores(3)})
    assert known(cache, range(6)) == [0, 1, 2, 3]
    again = open_cache(folder)
    assert known(again, range(6)) == [0, 1, 2, 3]
    assert again.get([key(2), key(2)]).keys() == {key(2)}
    assert [path.name for path in folder.parent.iterdir()] == ["b"]
    assert not warnings_in(caplog)


def test_float32_is_rounded_and_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    fine = np.array([1 / 3, 65504, -65504, 1e-9, 0], np.float32)
    cache.put({key(0): fine})
    assert np.array_equal(cache.get([key(0)])[key(0)], fine.astype(np.float16))
    for value in (65520.0, -1e6, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and at most 65504"):
            cache.put({key(1): np.array([0, 0, value, 0, 0], np.float32)})
    assert cache.get([key(1)]) == {}


def test_records_of_another_width_are_left_out(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, WIDTH + 1).put({key(0): np.ones(WIDTH + 1, np.float16)})
    cache = open_cache(tmp_path)
    assert known(cache, range(1)) == []
    cache.put({key(0): scores(0)})
    assert known(cache, range(1)) == [0]


def test_damaged_records_are_left_out_said_once_and_put_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(fill(tmp_path, range(6)), 1, 5)
    cache = open_cache(tmp_path)
    assert known(cache, range(6)) == [0, 2, 3, 4] == known(cache, range(6))
    (warning,) = warnings_in(caplog)
    assert str(tmp_path) in warning and "damaged" in warning
    cache.put({key(n): scores(n) for n in range(6)})
    assert known(cache, range(6)) == list(range(6)) == known(open_cache(tmp_path), range(6))
    assert len(warnings_in(caplog)) == 1


def test_damage_that_is_met_in_use_costs_this_run_the_cache_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise lmdb.CorruptedError("Located page was wrong type")

    file = fill(tmp_path / "cache", range(3))
    with monkeypatch.context() as patch:
        patch.setattr(store, "_checksum", fail)
        cache = open_cache(file.parent)
        assert known(cache, range(3)) == []
    cache.put({key(0): scores(0)})
    assert known(cache, range(3)) == [] and not file.exists()
    (warning,) = warnings_in(caplog)
    assert "wrong type" in warning and "going on without" in warning
    fill(file.parent, range(3))
    assert known(open_cache(file.parent), range(3)) == [0, 1, 2]


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


def test_a_read_only_disk_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    fill(tmp_path, range(2))
    monkeypatch.setattr(store, "locked", refuse)  # root may write where the mode forbids it
    cache = open_cache(tmp_path)
    assert known(cache, range(4)) == []
    cache.put({key(3): scores(3)})
    (warning,) = warnings_in(caplog)
    assert str(tmp_path) in warning and "Read-only file system" in warning


def test_a_full_disk_is_said_once_and_keeps_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        store.shutil, "disk_usage", lambda _: usage._replace(total=1 << 16, free=1 << 16)
    )
    cache = open_cache(tmp_path)
    cache.put({key(0): scores(0)})
    cache.put({key(n): scores(n) for n in range(1, 4000)})
    cache.put({key(1): scores(1)})
    assert known(cache, range(3)) == [0]
    (warning,) = warnings_in(caplog)
    assert "No space left on device" in warning


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
