"""The account of what a film has lost: which frames could not be decoded, and when they would have
been shown.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from fractions import Fraction

_LIMIT = 50  # stretches told one by one
_LOST = "could not be decoded"
_MENDED = "were damaged and mended by the decoder"
_ABSENT = "are missing"
_HOLE = Fraction(3, 2)  # frames' durations without a frame from which one is missing
_NEAR = 32  # frames: a decoder of many threads tells of an error so much too early or too late


@dataclass
class _Stretch:
    """Frames in a row of which the same is told: their numbers, and their times in seconds."""

    kind: str
    first: int
    last: int
    begin: Fraction
    end: Fraction


class Ledger:
    """Counts a film's frames as they come and finds those that do not.

    `rate`: frames a second, None if unknown. `origin`: the film's beginning, in seconds. `number`:
    that of the first frame that will come, where reading begins in the middle. `constant`: the film
    promises this rate, so that a frame is missing wherever there is none for longer, even if
    nothing else tells of damage.
    """

    def __init__(
        self, rate: Fraction | None, origin: Fraction, number: int = 0, *, constant: bool = False
    ) -> None:
        self.rate, self.origin, self.number, self.constant = rate, origin, number, constant
        self.errors = 0
        self.more = 0  # stretches beyond the limit
        # Times and places of packets without a frame yet, a heap.
        self._waiting: list[tuple[Fraction, int]] = []
        self._place = 0  # of the next packet in the order of decoding
        # Frames decoded from this place on refer to what is lost, up to a key frame.
        self._spoilt: int | None = None
        self._known, self._calm = 0, 0  # errors so far, and frames since the last of them
        self._longest = Fraction(0)  # time between two frames
        self._last: Fraction | None = None
        self._stretches: list[_Stretch] = []
        self._others: list[str] = []

    def packet(self, time: Fraction) -> None:
        """Take note of a packet that should give a frame at `time`, in seconds.

        Packets come in the order of decoding.
        """
        heapq.heappush(self._waiting, (time, self._place))
        self._place += 1

    def frame(self, time: Fraction, corrupt: bool, key: bool = False) -> None:
        """Take note of a frame; what should have come before it is lost.

        `time` in seconds. `corrupt`: the decoder says that it is damaged. `key`: it refers to no
        other frame.
        """
        self._calm = 0 if self.errors > self._known else self._calm + 1
        self._known = self.errors
        number = self.number
        self._lose(time)
        place = self._place
        if self._waiting and self._waiting[0][0] == time:
            _, place = heapq.heappop(self._waiting)
        if key and not corrupt:
            self._spoilt = None
        elif corrupt:
            self._spoil(place)
        if self._spoilt is not None and place >= self._spoilt:
            self._add(_MENDED, time)
        if self._last is not None and self.number == number:
            self._longest = max(self._longest, time - self._last)
        self._last = time
        self.number += 1

    def finish(self) -> None:
        """Count what never came, at the end of the film."""
        self._lose(None)

    def forget(self, before: Fraction) -> None:
        """Leave out the stretches that end before this time, in seconds, where the wanted part
        begins.
        """
        self._stretches = [stretch for stretch in self._stretches if stretch.end >= before]
        self.more = 0 if not self._stretches else self.more

    def say(self, line: str) -> None:
        """Add a line on something else that was lost."""
        self._others.append(line)

    @property
    def lines(self) -> list[str]:
        """One line a stretch: "frames 120-131, 0:04.80-0:05.24, could not be decoded".

        Frames count from 0.
        """
        lines = [_line(stretch, self.origin) for stretch in self._stretches]
        if self.more:
            lines.append(f"and {self.more} more damaged stretches")
        return lines + self._others

    def _lose(self, before: Fraction | None) -> None:
        """Take packets before this time for lost, if there was an error and they left a hole."""
        missing = []
        while self._waiting and (before is None or self._waiting[0][0] < before):
            missing.append(heapq.heappop(self._waiting))
        if self._last is None and before is None:
            return
        if not missing or not self.errors:
            self._leave_out([], before)
            return
        # Two packets may make one frame (fields): then nothing is missing where no time is.
        distance = (before or missing[-1][0] + 1) - (
            self._last if self._last is not None else missing[0][0] - 1
        )
        if self.rate and distance * self.rate < _HOLE:
            return
        self._spoil(min(place for _, place in missing))
        self._leave_out([time for time, _ in missing], before)

    def _leave_out(self, times: list[Fraction], before: Fraction | None) -> None:
        """Count frames as lost: those of packets at these times, and those in the holes around
        them.

        FFmpeg steps over what a file does not hold any more without a word, so that only the time
        without a frame tells of it.
        """
        near = bool(times or (self.errors and self._calm < _NEAR))
        kind = _LOST if near else _ABSENT if self.constant else None
        last, bound = self._last, self._bound()
        for time in [*times, *([] if before is None else [before])]:
            if (
                kind
                and last is not None
                and bound is not None
                and self.rate
                and time - last > bound
            ):
                count, begin = round((time - last) * self.rate) - 1, last
                self._spoil(0)  # a key frame may be among them
                for number in range(1, count + 1):
                    self._add(kind, begin + (time - begin) * number / (count + 1))
                    self.number += 1
            if time != before:
                self._add(_LOST, time)
                self.number += 1
            last = time

    def _bound(self) -> Fraction | None:
        """Return the time without a frame beyond which one is missing; None if unknown."""
        if not self.rate:
            return None
        return _HOLE * (1 / self.rate if self.constant else max(1 / self.rate, self._longest))

    def _spoil(self, place: int) -> None:
        """Take what is decoded from this place on for damaged, up to a key frame."""
        self._spoilt = place if self._spoilt is None else min(self._spoilt, place)

    def _add(self, kind: str, time: Fraction) -> None:
        """Add the frame that is counted next to a stretch."""
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.kind == kind and last.last == self.number - 1:
            last.last, last.end = self.number, time
        elif len(self._stretches) < _LIMIT:
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
