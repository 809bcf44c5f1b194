"""Decoded frames in the order in which they are shown, with times that grow."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")

HELD = 4  # frames held back to be put in order
HELD_IN_DAMAGE = 16  # behind damage a decoder may hand frames out much too early
LATE = 8  # frames in a row that are behind their time, after which the clock counts as set back


class Order(Generic[T]):
    """Puts frames in order. `step`: how long a frame is usually shown; `second`: one; both in the film's time base.

    `by_decoder`: the decoder's order is the one shown and only the times are sorted, for films that hold no times of
    display; else frames go by their times. A frame whose time is not behind the one before it comes between its
    neighbours: `moved` are the times that those got. Where the clock is set back, what follows is moved: `jumps` says
    where.
    """

    def __init__(self, step: int, second: Fraction, *, by_decoder: bool = False) -> None:
        self._step, self._second, self._by_decoder = step, second, by_decoder
        self._last: int | None = None
        self._shift = 0
        self._late: list[tuple[int, T]] = []
        self.moved: list[int] = []
        self.jumps: list[int] = []

    def put(self, frames: Iterable[tuple[int, T]], is_damaged: Callable[[], bool]) -> Iterator[tuple[int, T]]:
        """Yield the frames, each with its time; `is_damaged` says whether damage has been met so far."""
        for own, frame in self._sorted(frames, is_damaged):
            pts = own + self._shift
            if self._last is None or pts > self._last:
                yield from self._between(pts)
                yield self._at(pts, frame)
                continue
            self._late.append((own, frame))
            if self._last - pts > self._second or len(self._late) > LATE:
                yield from self._set_back()
        yield from self._between(None)

    def _sorted(self, frames: Iterable[tuple[int, T]], is_damaged: Callable[[], bool]) -> Iterator[tuple[int, T]]:
        return _sorted_times(frames) if self._by_decoder else _sorted_frames(frames, is_damaged, self._second)

    def _between(self, end: int | None) -> Iterator[tuple[int, T]]:
        """Yield the late frames, evenly before the time `end`, or where there is none as long as usual."""
        late, self._late = self._late, []
        for left, (_, frame) in zip(range(len(late), 0, -1), late, strict=True):
            assert self._last is not None
            time = self._last + (self._step if end is None else max(1, (end - self._last) // (left + 1)))
            self.moved.append(time)
            yield self._at(time, frame)

    def _set_back(self) -> Iterator[tuple[int, T]]:
        late, self._late = self._late, []
        assert self._last is not None
        self._shift = self._last + self._step - late[0][0]
        self.jumps.append(self._last + self._step)
        for own, frame in late:
            yield self._at(own + self._shift, frame)

    def _at(self, pts: int, frame: T) -> tuple[int, T]:
        self._last = pts if self._last is None else max(pts, self._last + 1)
        return self._last, frame


def _sorted_frames(
    frames: Iterable[tuple[int, T]], is_damaged: Callable[[], bool], second: Fraction
) -> Iterator[tuple[int, T]]:
    waiting: list[tuple[int, int, T]] = []
    for order, (pts, frame) in enumerate(frames):
        while waiting and pts < waiting[0][0] - second:  # the clock is set back: these come before
            earlier, _, held = heapq.heappop(waiting)
            yield earlier, held
        heapq.heappush(waiting, (pts, order, frame))
        if len(waiting) > (HELD_IN_DAMAGE if is_damaged() else HELD):
            pts, _, frame = heapq.heappop(waiting)
            yield pts, frame
    while waiting:
        pts, _, frame = heapq.heappop(waiting)
        yield pts, frame


def _sorted_times(frames: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    times: list[int] = []
    waiting: deque[T] = deque()
    for pts, frame in frames:
        heapq.heappush(times, pts)
        waiting.append(frame)
        if len(times) > HELD:
            yield heapq.heappop(times), waiting.popleft()
    while times:
        yield heapq.heappop(times), waiting.popleft()
