"""The store on disk: several processes, a kill, damage."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gancolor.runtime.store import RecordStore

SPAWN = multiprocessing.get_context("spawn")


def records(numbers: range) -> dict[bytes, bytes]:
    return {b"key %d" % n: b"record %d, " % n * 30 for n in numbers}


def whole(store: RecordStore, numbers: range) -> bool:
    """Whether these records are there, as they were put, and no others of the next ten."""
    keys = records(range(numbers.start, numbers.stop + 10))
    return store.get(keys) == records(numbers)


def write_many(folder: Path, first: int, barrier: Any) -> None:
    """Put 30 records one by one, of which 10 are the next process's too."""
    store = RecordStore(folder)
    barrier.wait()
    for n in range(first, first + 30):
        store.put(records(range(n, n + 1)))
    written = records(range(first, first + 30))
    raise SystemExit(store.get(written) != written)


@pytest.mark.slow
def test_three_processes_write_at_once(tmp_path: Path) -> None:
    barrier = SPAWN.Barrier(4)
    writers = [
        SPAWN.Process(target=write_many, args=(tmp_path / "a", first, barrier))
        for first in (0, 20, 40)
    ]
    for writer in writers:
        writer.start()
    watcher = RecordStore(tmp_path / "a")
    barrier.wait()
    deadline = time.monotonic() + 60
    while not whole(watcher, range(70)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert whole(watcher, range(70)) and watcher.damaged == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def write_on(folder: Path, begun: Any) -> None:
    store = RecordStore(folder)
    for n in itertools.count():
        store.put(records(range(n, n + 1)))
        if n == 20:
            begun.set()


def test_a_killed_process_leaves_its_finished_records(tmp_path: Path) -> None:
    begun = SPAWN.Event()
    process = SPAWN.Process(target=write_on, args=(tmp_path, begun), daemon=True)
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    store = RecordStore(tmp_path)
    assert store.get(records(range(21))) == records(range(21))
    store.put({b"more": b""})
    assert store.get([b"more", b"others"]) == {b"more": b""} and store.damaged == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:5000],
        lambda content: b"no store at all, " * 1000,
        lambda content: bytes(len(content)),
    ],
    ids=["half", "cut", "text", "zeros"],
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = tmp_path / "a"
    RecordStore(folder).put(records(range(9)))
    (folder / "data.mdb").write_bytes(damage((folder / "data.mdb").read_bytes()))
    store = RecordStore(folder)
    assert store.get(records(range(9))) == {} and store.damaged == 1
    store.put(records(range(9)))
    again = RecordStore(folder)
    assert whole(store, range(9)) and whole(again, range(9)) and again.damaged == 0
