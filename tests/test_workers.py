"""Processes that hang and die: what it costs, and what it does not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from gancolor.errors import DataError
from gancolor.runtime import workers
from gancolor.runtime.workers import DIED, Crew, Lost, allowed, work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")


def serve(connection: Connection) -> None:
    """Double numbers; hang at 3, crash at 5, ask about 7."""

    def double(number: int) -> int:
        if number == 3:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
            time.sleep(1000)
        if number == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 7:
            connection.send(("question", number))
            return int(connection.recv())
        return 2 * number

    work(connection, double)


def serve_nothing(connection: Connection) -> None:
    """Die before anything is done."""
    os._exit(3)


def results(chunks: list[list[int]], count: int, seconds: float) -> dict[int, int | Lost]:
    crew = Crew[int](count, serve, (), lambda number: seconds)
    found: dict[int, int | Lost] = {}
    try:
        for messages in crew.rounds(iter(chunks)):
            for message in messages:
                if message.kind == "question":
                    crew.answer(message.worker, 700)
                else:
                    assert message.job not in found
                    found[message.job] = message.content
    finally:
        crew.end(5.0)
    assert multiprocessing.active_children() == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "chunks", [[[number] for number in range(9)], [list(range(9))], [[2, 3, 4, 5], [6, 7, 8]]]
)
def test_what_hangs_or_crashes_costs_itself_alone(chunks: list[list[int]]) -> None:
    expected: dict[int, int | Lost] = {number: 2 * number for chunk in chunks for number in chunk}
    expected |= {3: Lost("it took longer than 2 s"), 5: Lost(DIED), 7: 700}
    assert results(chunks, 1, 2.0) == expected


def test_jobs_before_a_failure_of_the_jobs_themselves_are_told_of() -> None:
    def chunks() -> Iterator[list[int]]:
        yield [1]
        raise DataError("the list ended badly")

    crew, told = Crew[int](1, serve, ()), list[int]()
    try:
        with pytest.raises(DataError, match="badly"):
            for messages in crew.rounds(chunks()):
                told += [message.content for message in messages]
    finally:
        crew.end()
    assert multiprocessing.active_children() == []


def test_processes_that_cannot_even_start_are_an_error() -> None:
    crew = Crew[int](1, serve_nothing, ())
    try:
        with pytest.raises(
            DataError, match=r"worker processes must live, got 1 .*exit code 3.*--workers 0"
        ):
            list(crew.rounds(iter([[1]])))
    finally:
        crew.end()


def test_a_crew_takes_the_process_that_was_started_ahead() -> None:
    with workers.spare("gancolor.errors"):
        (ahead,) = multiprocessing.active_children()
        crew = Crew[int](1, serve, ())
        told = [
            message.content for messages in crew.rounds(iter([[1], [2]])) for message in messages
        ]
        assert told == [2, 4] and multiprocessing.active_children() == [ahead]
        crew.end(5.0)
    assert multiprocessing.active_children() == []


def test_a_process_that_no_crew_took_is_ended() -> None:
    with workers.spare("gancolor.errors"):
        assert len(multiprocessing.active_children()) == 1
    assert multiprocessing.active_children() == []
    crew = Crew[int](1, serve, ())
    assert [len(messages) for messages in crew.rounds(iter([[1]]))][-1] == 1
    crew.end(5.0)


_FIRST = """
import multiprocessing
from pathlib import Path
from gancolor.runtime import workers
with workers.spare("gancolor.errors"):
    (ahead,) = multiprocessing.active_children()
    print(Path(f"/proc/{ahead.pid}/status").read_text().split("SigBlk:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_does_not_reach_the_very_first_process_either() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout, 16) & 1 << (signal.SIGINT - 1)


def test_a_large_file_may_take_longer() -> None:
    assert allowed(60.0, 0) == 60 and allowed(60.0, 100_000_000) == 160
    assert workers.DEADLINE == 60
