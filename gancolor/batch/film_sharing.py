"""The films of a batch, shared among processes: each film is one process's, but fewer films than
processes are coloured by all together, a share of its time each.

The owner of a film begins it, says into how many shares it goes, and joins them. Whoever is free
takes a share; what a share has come to lies beside the film, so that others can go on with it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from gancolor.batch import worker
from gancolor.batch.input_files import Item
from gancolor.batch.mirror import Mirror
from gancolor.batch.records import Record
from gancolor.errors import DataError, shown
from gancolor.runtime.handout import Handout, Left
from gancolor.video import parts
from gancolor.video.film import Spread

_LOOK = 0.2  # seconds between two looks at what the others do


class Task(NamedTuple):
    """A file that a process holds; `share`: the number of a film's share, None for the whole;
    `most`: into how many at most a cluster cuts it.
    """

    item: Item
    share: int | None = None
    most: int = 1


class Team(Protocol):
    """Colours films in shares; `films.Films` is one."""

    def color(self, item: Item, shares: int, spread: Spread, again: bool) -> Record:
        """Colour a film in so many shares, which `spread` sees to; again: another process began
        it.
        """

    def color_share(self, item: Item, number: int, shares: int) -> None:
        """Colour one share of a film that another process has begun."""


class FilmSharing:
    """The films of a batch that this process and the others colour.

    emit: takes what becomes of a film. exists: says whether a film has its result already, and
    records it. waiting: entered while others are waited for. keep_dates: give results the dates of
    their films. color_film and team as `dispatch.run` takes them.
    """

    def __init__(
        self,
        common: Handout,
        emit: Callable[[Record], None],
        exists: Callable[[Item], bool],
        waiting: Callable[[], AbstractContextManager[None]],
        keep_dates: bool,
        color_film: Callable[[Item], Record] | None,
        team: Team | None,
    ) -> None:
        self._common, self._emit, self._exists, self._waiting = common, emit, exists, waiting
        self._keep_dates, self._color_film, self._team = keep_dates, color_film, team
        self._shares = 1

    def color(self, films: Sequence[Item]) -> None:
        """Colour the films that nobody else takes, and then help with those of others."""
        common = self._common
        if self._team is not None and 0 < len(films) < common.process.world:
            self._shares = common.process.world
        for film in films:
            if common.take(_name(film), Task(film)):
                common.put(f"owner of {_name(film)}", common.process.rank)
                if self._exists(film):
                    self._end(film)
                else:
                    self._color(film)
        for film in films if self._shares > 1 else ():
            self._help(film)

    def color_left(self, left: Left) -> None:
        """Colour what a process had taken that is gone."""
        task: Task = left.job
        if task.share is None:
            self._color(task.item, again=True)
        else:
            self._color_share(left.name, task)

    def _color(self, film: Item, again: bool = False) -> None:
        """Colour a film of this process's; whatever is wrong with it becomes a failed Record."""
        start = time.monotonic()
        try:
            if self._color_film is None and self._team is None:
                raise DataError(f"input must be a picture here, got the film {shown(film.source)}")
            _prepare(film)
            with self._waiting():
                record = self._whole(film, again)
            if self._keep_dates:
                for target in record.targets:
                    worker.keep_dates(film.source, Path(target))
        except Exception as error:
            record = _failed(film, error)
            record.seconds = time.monotonic() - start
        self._emit(record)
        self._end(film)

    def _whole(self, film: Item, again: bool) -> Record:
        if self._team is None:
            assert self._color_film is not None
            return self._color_film(film)
        spread = functools.partial(self._spread, film)
        return self._team.color(film, self._shares, spread, again)

    def _end(self, film: Item) -> None:
        """Let nobody begin another share of a film, or wait for it."""
        if self._common.shared:
            self._common.put(f"end of {_name(film)}", True)
            self._common.settle(_name(film))

    def _spread(
        self,
        film: Item,
        count: int,
        make: Callable[[int], None],
        is_made: Callable[[int], bool],
    ) -> None:
        """Make the shares of this process's film that nobody else takes, and wait for the others."""
        common = self._common
        common.put(f"shares of {_name(film)}", count)
        for number in range(count):
            if common.take(_name(film, number), Task(film, number)):
                make(number)
                common.settle(_name(film, number))
        names = {_name(film, number) for number in range(count)}
        missing = list(range(count))
        while missing := [number for number in missing if not is_made(number)]:
            if words := common.find(f"trouble with {_name(film)}"):
                raise DataError(words)
            for left in common.inherited(names):
                make(left.job.share)
                common.settle(left.name)
            time.sleep(_LOOK)

    def _help(self, film: Item) -> None:
        """Make those shares of another process's film that nobody takes."""
        count = self._shares_of(film)
        for number in range(count or 0):
            if self._common.find(f"end of {_name(film)}"):
                return
            name, task = _name(film, number), Task(film, number)
            if self._common.take(name, task):
                self._color_share(name, task)

    def _shares_of(self, film: Item) -> int | None:
        """Into how many shares its process has cut a film, once it has; None if it will not."""
        common, name = self._common, _name(film)
        while (count := common.find(f"shares of {name}")) is None:
            owner = common.find(f"owner of {name}")
            if common.find(f"end of {name}") or owner is None or common.is_gone(owner):
                return None
            with self._waiting():
                time.sleep(_LOOK)
        return int(count)

    def _color_share(self, name: str, task: Task) -> None:
        assert self._team is not None and task.share is not None
        count = self._common.find(f"shares of {_name(task.item)}")
        try:
            with self._waiting():
                self._team.color_share(task.item, task.share, count)
        except Exception as error:  # its process tells it
            words = worker.explain(error, task.item.source)
            self._common.put(f"trouble with {_name(task.item)}", words)
        self._common.settle(name)


class FilmQueue:
    """The films of a batch as tasks for a cluster: each film, or its shares and then the film, whose
    task joins what there is of them.

    mirror: where films lie that come from an address or go to one; these are not cut, as nobody else
    sees their parts. resume: go on with parts that are there. told: takes what is wrong with a film
    from the start.
    """

    def __init__(self, mirror: Mirror | None, resume: bool, told: Callable[[Record], None]) -> None:
        self._mirror, self._resume, self._told = mirror, resume, told
        self._waiting: dict[str, Item] = {}  # films whose shares are made

    def tasks(self, films: Sequence[Item], room: int) -> Iterator[list[Task]]:
        """The tasks by themselves, an empty list before those that need the results of all others.

        Films are cut if there are fewer than the `room` for tasks at once.
        """
        with ExitStack() as locks:  # nobody else makes a film while its shares are made
            for film in films:
                far = self._mirror is not None and self._mirror.is_far(film)
                most = room if len(films) < room and not far else 1
                try:
                    self._clear(film, locks if most > 1 else None)
                except (DataError, OSError) as error:
                    self._told(_failed(film, error))
                    continue
                if most == 1:
                    yield [Task(film)]
                else:
                    self._waiting[_name(film)] = film
                    yield from ([Task(film, number, most)] for number in range(most))
            yield []
        yield from ([Task(film)] for film in list(self._waiting.values()))

    def settles(self, task: Task) -> bool:
        """Whether what a task says of its film is the first that becomes of it."""
        return task.share is None or self._waiting.pop(_name(task.item), None) is not None

    def _clear(self, film: Item, locks: ExitStack | None) -> None:
        """Leave only those parts of a film that are gone on with; locks: take its lock over."""
        _prepare(film)
        with ExitStack() as lock:
            lock.enter_context(parts.alone(film.target))
            if not self._resume:
                parts.remove(parts.folder_of(film.target))
            if locks is not None:
                locks.push(lock.pop_all())


def _failed(film: Item, error: Exception) -> Record:
    return Record(
        str(film.source),
        kind="film",
        status="failed",
        error=worker.explain(error, film.source),
        full=worker.is_full(error),
    )


def _name(film: Item, share: int | None = None) -> str:
    name = f"film {film.source}\n{film.target}"
    return name if share is None else f"{name}\n{share}"


def _prepare(film: Item) -> None:
    """Make the folder for a film's result. DataError where it cannot be written."""
    with suppress(OSError):
        if os.path.samefile(film.source, film.target):
            raise DataError(
                f"output must not be the input itself, got {shown(film.target)}; choose another"
                " --out"
            )
    try:
        film.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"folder of --out must be writable, got {shown(film.target.parent)}:"
            f" {error.strerror or error}"
        ) from error
