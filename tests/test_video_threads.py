"""Threads beside the main one: order, bounds, errors that surface, and none that stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gancolor.video.threads import Ahead, PipelineStage


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_and_only_a_few_ahead() -> None:
    taken: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    seen = []
    with Ahead(count(), depth=3) as ahead:
        for number in ahead:
            seen.append(number)
            assert len(taken) <= number + 6
    assert seen == list(range(100))
    assert ahead.seconds > 0


def test_a_reader_is_ended_in_the_middle() -> None:
    closed = []

    def forever() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    items = forever()
    with Ahead(items, depth=2) as ahead:
        assert next(iter(ahead)) == 1
    items.close()
    assert closed == [True]


def test_an_error_of_the_reader_comes_after_its_items() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    seen = []
    with pytest.raises(OSError, match="gone"), Ahead(fail()) as ahead:
        for number in ahead:
            seen.append(number)
    assert seen == [1]


def test_stages_hand_on_in_order() -> None:
    results: list[int] = []
    last = PipelineStage("last", results.append, depth=2)
    first = PipelineStage("first", lambda number: number * 2, last, depth=2)
    for number in range(50):
        first.put(number)
    first.finish()
    assert results == list(range(0, 100, 2))
    first.stop()  # after the end: nothing more to do
    assert results == list(range(0, 100, 2))


@pytest.mark.parametrize("place", ["first", "last"])
def test_an_error_surfaces_and_never_blocks(place: str) -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError(f"three in {place}")
        return number

    done: list[int] = []
    last = PipelineStage("last", fail if place == "last" else done.append, depth=1)
    first = PipelineStage("first", fail if place == "first" else int, last, depth=1)
    with pytest.raises(ValueError, match=f"three in {place}"):
        for number in range(1000):
            first.put(number)
        first.finish()
    first.stop()
    assert 3 not in done


def test_an_error_at_the_last_item_surfaces_at_the_end() -> None:
    def fail(number: int) -> None:
        raise KeyError(number)

    stage = PipelineStage("only", fail)
    stage.put(1)
    with pytest.raises(KeyError):
        stage.finish()


def test_stopping_drops_what_waits() -> None:
    begun, free = threading.Event(), threading.Event()
    done: list[int] = []

    def wait(number: int) -> None:
        begun.set()
        free.wait(10)
        done.append(number)

    stage = PipelineStage("slow", wait, depth=10)
    for number in range(8):
        stage.put(number)
    assert begun.wait(10)
    stopper = threading.Thread(target=stage.stop)
    stopper.start()
    while stage._error is None:  # stopping has begun
        pass
    free.set()
    stopper.join(10)
    assert not stopper.is_alive()
    assert done == [0]
