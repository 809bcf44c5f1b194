"""Films in the hands of a cluster, without one: cut into shares, made by whoever, joined at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

import clips
import test_film as tests

from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.film_sharing import FilmQueue, FilmSharing, Task
from gancolor.batch.input_files import Item
from gancolor.batch.mirror import Mirror
from gancolor.batch.records import Record, Report
from gancolor.batch.station import ColoringDesk
from gancolor.errors import ConfigError
from gancolor.runtime import cluster, processes
from gancolor.runtime.handout import Left
from gancolor.runtime.workers import Lost
from gancolor.video import film, parts, share
from gancolor.video.encoding import PartWriter
from gancolor.video.film_settings import FilmSettings

BATCH = BatchSettings(workers=1, existing="overwrite")
SETTINGS = FilmSettings(encoding=tests.LOSSLESS, key_interval=3)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(share, "PART_FRAMES", 8)
    monkeypatch.chdir(tmp_path)


def item(name: str) -> Item:
    return Item(Path(name), Path("new", name), film=True)


def do(task: Task, settings: FilmSettings = SETTINGS) -> Record | Lost | None:
    """A task done by an actor of its own."""
    return ColoringDesk(tests.Fake(), BATCH, settings, ())([task])[0]


def color(
    room: int, *names: str, do: Callable[[Task], Any] = do, resume: bool = False
) -> tuple[list[Record], list[list[tuple[str, int | None]]]]:
    """Have films coloured into `new`; returns what became of them, and the tasks that were given at
    once, which are done in another order than they were given.
    """
    told: list[Record] = []
    given: list[list[tuple[str, int | None]]] = []

    def spread(chunks: Iterator[list[Task]]) -> Any:
        for window in cluster._windows(chunks):
            tasks = [task for chunk in window for task in chunk]
            given.append([(task.item.source.name, task.share) for task in tasks])
            for task in reversed(tasks):
                yield [(task, do(task))]

    with Report(Path()) as report:
        dispatch.run_elsewhere(
            *(spread, map(item, names), BATCH),
            report=report,
            progress=told.append,
            resume=resume,
            room=lambda: room,
        )
    return told, given


def made_alone(source: Path, shares: int) -> bytes:
    """The film that one process makes in so many shares."""
    film.color_film(
        *(tests.Fake(), source, Path("alone.mkv"), SETTINGS),
        progress=lambda done, total: None,
        shares=shares,
    )
    return Path("alone.mkv").read_bytes()


@pytest.mark.slow
def test_a_film_is_made_in_shares_and_joined_to_the_bytes_of_one_process() -> None:
    source = clips.film(Path("in.mkv"), frames=28, shots=(13,))
    clips.film(Path("short.mkv"), frames=15)  # a part and nearly another one
    (told, given) = color(3, "in.mkv", "short.mkv")
    assert given == [
        [(name, number) for name in ("in.mkv", "short.mkv") for number in range(3)],
        [("in.mkv", None)],
    ]
    assert [(Path(each.source).name, each.status) for each in told] == [
        *(("short.mkv", "done"), ("in.mkv", "done"))
    ]
    assert Path("new/in.mkv").read_bytes() == made_alone(source, 3)
    assert Path("new/short.mkv").read_bytes() == made_alone(Path("short.mkv"), 1)
    assert sorted(path.name for path in Path("new").iterdir()) == ["in.mkv", "short.mkv"]


@pytest.mark.slow
def test_as_many_films_as_there_is_room_for_are_not_cut() -> None:
    for name in ("a.mkv", "b.mkv"):
        clips.film(Path(name), frames=24)
    told, given = color(2, "a.mkv", "b.mkv")
    assert given == [[("a.mkv", None), ("b.mkv", None)]]
    assert {each.status for each in told} == {"done"}
    assert Path("new/a.mkv").read_bytes() == made_alone(Path("a.mkv"), 1)


@pytest.mark.slow
def test_a_share_that_fails_is_made_with_the_film_and_one_that_kills_actors_fails_it() -> None:
    source = clips.film(Path("in.mkv"), frames=24)
    alone, seen = made_alone(source, 3), list[int | None]()

    def failing(task: Task) -> Any:
        seen.append(task.share)
        if task.share == 1:
            (Path("new/.in.mkv.parts") / ".77-abc.part").write_bytes(b"left by a dead actor")
            broken = FilmSettings(encoding=tests.LOSSLESS, key_interval=4)  # unlike the others
            return do(task, broken)
        return do(task)

    told, _ = color(3, "in.mkv", do=failing)
    assert seen == [2, 1, 0, None] and [each.status for each in told] == ["done"]
    assert Path("new/in.mkv").read_bytes() == alone
    assert not parts.folder_of(Path("new/in.mkv")).exists()

    lost = Lost("the process of its actor died 3 times")
    told, given = color(3, "in.mkv", do=lambda task: lost if task.share == 1 else do(task))
    assert len(given) == 1  # nobody is given what three died of
    assert [each.error for each in told] == [
        "in.mkv: the process of its actor died 3 times; out of memory?"
    ]
    kept = parts.folder_of(Path("new/in.mkv"))
    before = {path.name: path.stat().st_mtime_ns for path in kept.glob("part-*")}
    assert {name[:8] for name in before} == {"part-000", "part-002"}
    told, given = color(7, "in.mkv", resume=True)  # in the shares that it was begun with
    assert len(given[0]) == 7 and [each.status for each in told] == ["done"]
    assert Path("new/in.mkv").read_bytes() == alone


@pytest.mark.slow
def test_a_part_that_counts_is_never_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.film(Path("in.mkv"), frames=24)
    begun: list[str] = []
    begin = PartWriter.__init__

    def noted(writer: PartWriter, path: Path, *others: Any) -> None:
        begun.append(path.name)
        begin(writer, path, *others)

    monkeypatch.setattr(PartWriter, "__init__", noted)

    def dying(task: Task) -> Any:
        """Share 1 comes as far as its second part, and is given to another."""
        if task.share == 1:
            with monkeypatch.context() as patch:
                patch.setattr(PartWriter, "write", _fail_in_second_part)
                assert do(task) is None
        return do(task)

    told, _ = color(2, "in.mkv", do=dying)
    assert [each.status for each in told] == ["done"]
    twice = [name for name in set(begun) if begun.count(name) > 1]
    assert twice == ["part-001-00001.nut"] and len(set(begun)) == 4


_write = PartWriter.write


def _fail_in_second_part(writer: PartWriter, pts: int, *planes: Any) -> None:
    if writer.path.name == "part-001-00001.nut":
        raise ConfigError("as if it died")
    _write(writer, pts, *planes)


def test_what_is_wrong_with_a_film_is_told_once() -> None:
    Path("broken.mkv").write_bytes(b"no film at all")
    clips.film(Path("in.mkv"), frames=8)
    with parts.alone(Path("new/in.mkv")):
        told, given = color(3, "broken.mkv", "in.mkv")
    errors = {Path(each.source).name: each.error or "" for each in told}
    assert len(told) == 2 and "film must be readable, got broken.mkv" in errors["broken.mkv"]
    assert "must be made by one process at a time" in errors["in.mkv"]
    assert given == [[("broken.mkv", number) for number in range(3)], [("broken.mkv", None)]]


def test_nobody_else_makes_a_film_while_its_shares_are_made() -> None:
    kept = parts.folder_of(Path("new/in.mkv"))
    for resume in (True, False):
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "old").touch()
        tasks = FilmQueue(None, resume, lambda record: None).tasks([item("in.mkv")], 2)
        assert next(tasks) == [Task(item("in.mkv"), 0, 2)]
        assert (kept / "old").exists() is resume
        with (
            pytest.raises(Exception, match="one process at a time"),
            parts.alone(item("in.mkv").target),
        ):
            pass
        assert [next(tasks), next(tasks)] == [[Task(item("in.mkv"), 1, 2)], []]
        assert next(tasks) == [Task(item("in.mkv"))]
        with parts.alone(item("in.mkv").target):
            pass


def test_what_lies_at_an_address_is_one_task(tmp_path: Path) -> None:
    far = replace(item("in.mkv"), origin="s3://bucket/in.mkv")
    queue = FilmQueue(Mirror(tmp_path), False, lambda record: None)
    tasks = list(queue.tasks([far, item("b.mkv")], 3))
    assert tasks[0] == [Task(far)] and len(tasks) == 1 + 3 + 1 + 1


def test_an_empty_chunk_ends_what_is_given_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_WINDOW", 2)
    chunks: list[list[int]] = [[], [1], [2], [], [3], [], [], [4], [5], [6]]
    found = list(cluster._windows(iter(chunks)))
    assert found == [[[1], [2]], [[3]], [[4], [5]], [[6]]]


class OneOfTwo:
    """What two processes know in common, of which the other had share 1 and was thought dead."""

    shared, process = True, processes.Process(world=2)

    def __init__(self) -> None:
        self.words, self.left = "", [Left("second", Task(item("a.mkv"), 1), 1)]

    def take(self, name: str, task: Task) -> bool:
        return task.share != 1

    def find(self, name: str) -> str | None:
        return self.words if name.startswith("trouble") and self.words else None

    def inherited(self, names: set[str]) -> list[Left]:
        found, self.left = self.left, []
        return found

    def put(self, name: str, value: object) -> None: ...

    def settle(self, name: str) -> None: ...


@pytest.mark.parametrize("there", [True, False])
def test_trouble_with_a_share_counts_only_while_something_is_missing(there: bool) -> None:
    common, made, told = OneOfTwo(), set[int](), list[Record]()

    class Team:
        def color(self, item: Item, shares: int, spread: Any, again: bool) -> Record:
            def make(number: int) -> None:
                made.add(number)
                if number == 1:  # meanwhile the other, who lives, fails with it
                    common.words = "broken"
                    made.intersection_update({0, 1} if there else {0})

            spread(2, make, made.__contains__)
            return Record("a.mkv", kind="film", seconds=1.0)

        def color_share(self, item: Item, number: int, shares: int) -> None: ...

    sharing = FilmSharing(
        common,  # type: ignore[arg-type]
        told.append,
        lambda film: False,
        contextlib.nullcontext,
        False,
        None,
        Team(),
    )
    sharing.color([item("a.mkv")])
    (record,) = told
    assert (record.error is None) == there and (there or "broken" in str(record.error))
