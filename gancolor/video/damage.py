"""The account of what a film has lost: which frames could not be decoded, and when they would have been shown."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from fractions import Fraction

LIMIT = 50  # stretches told one by one


@dataclass
class _Stretch:
    kind: str
    first: int
    last: int
    begin: Fraction
    end: Fraction


class Ledger:
    """Counts a film's frames as they come and finds those that do not.

    `rate`: frames a second, None if unknown. `origin`: the film's beginning in seconds. `number`: that of the first
    frame which will come, where reading begins in the middle.
    """

    def __init__(self, rate: Fraction | None, origin: Fraction, number: int = 0) -> None:
        self.rate, self.origin, self.number = rate, origin, number
        self.errors = 0
        self.more = 0  # stretches beyond the limit
        self._waiting: list[Fraction] = []  # times of packets whose frame has not come yet, a heap
        self._last: Fraction | None = None
        self._stretches: list[_Stretch] = []
        self._others: list[str] = []

    def packet(self, time: Fraction) -> None:
        """Take note of a packet that should give a frame at `time`, in seconds."""
        heapq.heappush(self._waiting, time)

    def frame(self, time: Fraction, corrupt: bool) -> None:
        """Take note of a frame; what should have come before it is lost."""
        self._lose(time)
        if self._waiting and self._waiting[0] == time:
            heapq.heappop(self._waiting)
        if corrupt:
            self._add("were damaged and mended by the decoder", time)
        self._last = time
        self.number += 1

    def finish(self) -> None:
        """Count what never came."""
        self._lose(None)

    def say(self, line: str) -> None:
        """Add a line of another kind."""
        self._others.append(line)

    @property
    def lines(self) -> list[str]:
        """One line a stretch: "frames 120-131, 0:04.80-0:05.24, could not be decoded"; frames count from 0."""
        lines = [_line(stretch, self.origin) for stretch in self._stretches]
        if self.more:
            lines.append(f"and {self.more} more damaged stretches")
        return lines + self._others

    def _lose(self, before: Fraction | None) -> None:
        """Take the packets before this time for lost, if there was an error and they left a hole."""
        missing = []
        while self._waiting and (before is None or self._waiting[0] < before):
            missing.append(heapq.heappop(self._waiting))
        if not missing or not self.errors or self._last is None and before is None:
            return
        # Two packets may make one frame (fields): then nothing is missing where no time is.
        distance = (before or missing[-1] + 1) - (self._last if self._last is not None else missing[0] - 1)
        if self.rate and distance * self.rate < Fraction(3, 2):
            return
        for time in missing:
            self._add("could not be decoded", time)
            self.number += 1

    def _add(self, kind: str, time: Fraction) -> None:
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.kind == kind and last.last == self.number - 1:
            last.last, last.end = self.number, time
        elif len(self._stretches) < LIMIT:
            self._stretches.append(_Stretch(kind, self.number, self.number, time, time))
        else:
            self.more += 1


def clock(seconds: Fraction | float) -> str:
    """Return a time as 1:02:03.45, hours only where there are any."""
    hundredths = max(0, round(seconds * 100))
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest // 100:02d}.{rest % 100:02d}"


def _line(stretch: _Stretch, origin: Fraction) -> str:
    begin, end = clock(stretch.begin - origin), clock(stretch.end - origin)
    if stretch.first == stretch.last:
        return f"frame {stretch.first}, {begin}, {stretch.kind.replace('were', 'was')}"
    return f"frames {stretch.first}-{stretch.last}, {begin}-{end}, {stretch.kind}"
