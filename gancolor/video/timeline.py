"""The times of a film as one line that only grows.

Three things are told apart: the order of decoding (that of the packets), the order of display (that
of the decoder's frames), and the clock, which a broadcaster or `cat a.ts b.ts` may set back in the
middle. Jumps of the clock and single wrong times are found first. Where the clock jumps, what
follows is moved by one shift, the same for pictures and sound, so that the film goes on without a
hole.
"""

from __future__ import annotations

import functools
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gancolor.video.opening import MAY_JUMP, film_stream, has_times, load_av, opened, rate_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


_Frame = TypeVar("_Frame")

PATIENCE = 50  # reading errors in a row after which the rest of a file counts as lost
_BACK = Fraction(1, 10)  # seconds: times of decoding never go back so far within a recording
# Seconds by which the clock may step on without a jump: in formats made for broadcasting, where
# FFmpeg's own tool takes the same number, and in all others.
_FORTH, _FORTH_ELSEWHERE = 10, 30 * 3600
_SURE = 8  # packets that follow a jump before it is taken for one, and not for a few wrong times
# Seconds by which sound may begin before the pictures of its recording, or end behind them.
_FIT = Fraction(2)
_HELD = 4  # frames held back to be put in order
_HELD_IN_DAMAGE = 16  # behind damage a decoder may hand frames out much too early
_LATE = 8  # frames in a row that are behind their time, after which the clock counts as set back


@dataclass(frozen=True)
class Recording:
    """A stretch of a film in which the clock runs on.

    `first`: how many packets of pictures come before it. `shift`: seconds to add to its times.
    `begin`, `end`: when its pictures begin and end, in seconds of its own clock.
    """

    first: int
    shift: Fraction
    begin: Fraction
    end: Fraction


@dataclass(frozen=True)
class Timeline:
    """What is known of a film's times.

    `strange`: the numbers of the packets of pictures whose times are wrong. `packets`: how many
    hold pictures; None where that was not counted. `decoding`: the film's times are those of
    decoding, and only the decoder knows in which order pictures are shown.
    """

    recordings: tuple[Recording, ...]
    strange: frozenset[int] = frozenset()
    packets: int | None = None
    decoding: bool = False

    @property
    def simple(self) -> bool:
        """Whether the times can be taken as the file says them."""
        return len(self.recordings) == 1 and not self.strange

    @property
    def end(self) -> Fraction:
        """When the last picture ends, in seconds of the mended clock."""
        return self.recordings[-1].end + self.recordings[-1].shift

    @property
    def borders(self) -> list[Fraction]:
        """Where the clock jumps, in seconds of the mended clock."""
        return [recording.begin + recording.shift for recording in self.recordings[1:]]


_WHOLE = Recording(0, Fraction(0), Fraction(0), Fraction(0))  # a film whose clock does not jump


def timeline(path: Path) -> Timeline:
    """Read a film's times from its beginning to its end, without decoding.

    DataError if it cannot be read.
    """
    status = path.stat()
    return _known(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(16)
def _known(path: Path, *_: int) -> Timeline:
    with opened(path) as container:
        stream = film_stream(container, path)
        if stream.frames and "mp4" in container.format.name.split(","):
            # Its table of frames cannot set the clock back, and reading a large file for nothing
            # takes minutes.
            return Timeline((_WHOLE,))
        return _scanned(container, stream)


def packets_of(container: InputContainer, *streams: Any) -> Iterator[Packet[Any] | Exception]:
    """Yield packets, and errors of reading in their place, so that what follows them is kept.

    Ends behind the file's last packet, or behind more than `PATIENCE` errors in a row.
    """
    av, failures = load_av(), 0
    packets = container.demux(*streams)
    while failures <= PATIENCE:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            packets, failures = container.demux(*streams), failures + 1
            yield error
            continue
        if packet is None:
            return
        failures = 0
        yield packet


class Mender:
    """Moves the packets of the pictures to their places on a film's mended clock.

    They must come from the film's beginning on, in order. If `known` is None they stay where they
    are, and may come from anywhere. `base`: the stream's time base.
    """

    def __init__(self, known: Timeline | None, base: Fraction) -> None:
        self._known, self._base = known or Timeline((_WHOLE,)), base
        self._number, self._place = -1, 0
        self._shift = 0

    def mend(self, packet: Packet[Any]) -> None:
        """Change a packet's times in place."""
        if not packet.size:
            return
        self._number += 1
        recordings = self._known.recordings
        while (
            self._place + 1 < len(recordings) and recordings[self._place + 1].first <= self._number
        ):
            self._place += 1
            self._shift = round(recordings[self._place].shift / self._base)
        if self._number in self._known.strange:
            packet.pts = packet.dts = None
        elif self._shift:
            packet.pts = None if packet.pts is None else packet.pts + self._shift
            packet.dts = None if packet.dts is None else packet.dts + self._shift

    @property
    def at_border(self) -> bool:
        """Whether the last packet stands where recordings join: there a file seems damaged and is
        not.
        """
        firsts = (recording.first for recording in self._known.recordings[1:])
        return any(first - 1 <= self._number <= first for first in firsts)


class Follower:
    """Moves the packets of another stream by the shift of the recording to which they belong."""

    def __init__(self, known: Timeline) -> None:
        self._recordings = known.recordings
        self._place = 0
        self._last: Fraction | None = None

    def shift(self, time: Fraction, lasts: Fraction) -> Fraction:
        """Return the seconds to add to the `time` of the next packet, which `lasts` so long.

        All are in seconds, the time by the packet's own clock.
        """
        if len(self._recordings) > 1 and self._last is not None:
            step = time - self._last
            if step < -_BACK / 4 or step > _FORTH:
                self._go_on(time)
        self._last = time + lasts
        return self._recordings[self._place].shift

    def _go_on(self, time: Fraction) -> None:
        """Find the recording that a packet of this time fits best, behind the present one."""
        assert self._last is not None
        here = self._last + self._recordings[self._place].shift
        found = [
            (abs(time + recording.shift - here), place)
            for place, recording in enumerate(self._recordings)
            if place > self._place and recording.begin - _FIT <= time <= recording.end + _FIT
        ]
        if found:
            self._place = min(found)[1]


class Order(Generic[_Frame]):
    """Puts decoded frames in the order in which they are shown, with times that grow.

    `step`: how long a frame is usually shown, and `second`: one second, both in the film's time
    base. `by_decoder`: the decoder's order is the one shown and only the times are sorted, for
    films that hold no times of display; else frames are sorted by their times. A frame whose time
    is not behind that of the frame before it gets one between its neighbours: `moved` are these
    times. Where the clock is set back, what follows is moved: `jumps` says where.
    """

    def __init__(self, step: int, second: Fraction, *, by_decoder: bool = False) -> None:
        self._step, self._second, self._by_decoder = step, second, by_decoder
        self._last: int | None = None
        self._shift = 0
        self._late: list[tuple[int, _Frame]] = []
        self.moved: list[int] = []
        self.jumps: list[int] = []

    def put(
        self, frames: Iterable[tuple[int, _Frame]], is_damaged: Callable[[], bool]
    ) -> Iterator[tuple[int, _Frame]]:
        """Yield the frames, each with its time.

        `is_damaged` says whether damage has been met so far.
        """
        ordered = (
            _sorted_times(frames)
            if self._by_decoder
            else _sorted_frames(frames, is_damaged, self._second)
        )
        for own, frame in ordered:
            pts = own + self._shift
            if self._last is None or pts > self._last:
                yield from self._between(pts)
                yield self._at(pts, frame)
                continue
            self._late.append((own, frame))
            if self._last - pts > self._second or len(self._late) > _LATE:
                yield from self._set_back()
        yield from self._between(None)

    def _between(self, end: int | None) -> Iterator[tuple[int, _Frame]]:
        """Yield the late frames at even distances before the time `end`, or at the usual ones."""
        late, self._late = self._late, []
        for left, (_, frame) in zip(range(len(late), 0, -1), late, strict=True):
            assert self._last is not None
            time = self._last + (
                self._step if end is None else max(1, (end - self._last) // (left + 1))
            )
            self.moved.append(time)
            yield self._at(time, frame)

    def _set_back(self) -> Iterator[tuple[int, _Frame]]:
        """Yield the late frames behind the last one, and move all that follow as far."""
        late, self._late = self._late, []
        assert self._last is not None
        self._shift = self._last + self._step - late[0][0]
        self.jumps.append(self._last + self._step)
        for own, frame in late:
            yield self._at(own + self._shift, frame)

    def _at(self, pts: int, frame: _Frame) -> tuple[int, _Frame]:
        """A frame with its time, which is at least one behind the last."""
        self._last = pts if self._last is None else max(pts, self._last + 1)
        return self._last, frame


@dataclass
class _Stretch:
    """A recording as it is found; times are in the stream's time base."""

    first: int
    begin: int | None = None
    end: int | None = None
    last: int = 0  # the time of decoding that was seen last, and the one to expect
    next: int = 0
    open: bool = False  # the last picture that others refer to does not say when it is shown
    numbers: list[int] = field(default_factory=list)  # of its first packets

    def add(self, number: int, pts: int | None, dts: int, lasts: int) -> None:
        """Add the next packet of pictures."""
        time = dts if pts is None else pts
        self.begin = time if self.begin is None else min(self.begin, time)
        self.end = time + lasts if self.end is None else max(self.end, time + lasts)
        self.last, self.next = dts, dts + lasts
        if pts != dts:
            self.open = pts is None
        if self.open:  # it comes behind all that is decoded after it
            self.end = max(self.end, self.next + lasts)
        if len(self.numbers) < _SURE:
            self.numbers.append(number)


class _Scan:
    """Finds jumps in the times of decoding.

    `usual`: how long a picture lasts where a packet does not say it, in the stream's time base.
    `pause`: for how many seconds the clock may run on without a picture.
    """

    def __init__(self, base: Fraction, usual: int, pause: int) -> None:
        self.back, self.forth, self.pause = _BACK / base, _FORTH / base, pause / base
        self.usual = usual
        self.sure: list[_Stretch] = []
        self.unsure: _Stretch | None = None
        self.strange: set[int] = set()

    def add(self, number: int, pts: int | None, dts: int, lasts: int) -> None:
        """Take the next packet of pictures; `lasts` is 0 where it does not say how long."""
        lasts = lasts or self.usual
        if not self.sure:
            self.sure.append(_Stretch(number))
            self.sure[0].last = self.sure[0].next = dts
        here = self.sure[-1]
        if self.unsure is None:
            if not self._jumps(here, dts):
                here.add(number, pts, dts, lasts)
                return
            self.unsure = _Stretch(number)
        elif (
            not self._jumps(here, dts)
            and dts >= here.next + (len(self.unsure.numbers) - 1) * self.usual
        ):
            # It is back: what came between had wrong times.
            self._forget()
            here.add(number, pts, dts, lasts)
            return
        elif dts < self.unsure.last - self.back or dts - self.unsure.next > self.pause:
            self._forget()
            self.unsure = _Stretch(number)
        self.unsure.add(number, pts, dts, lasts)
        if len(self.unsure.numbers) == _SURE:
            self._believe()

    def recordings(self, base: Fraction) -> tuple[Recording, ...]:
        """The stretches one behind the other."""
        if self.unsure is not None:
            self._believe()
        found: list[Recording] = []
        for stretch in self.sure:
            begin, end = (base * (time or 0) for time in (stretch.begin, stretch.end))
            shift = found[-1].end + found[-1].shift - begin if found else Fraction(0)
            found.append(Recording(stretch.first, shift, begin, end))
        return tuple(found) or (_WHOLE,)

    def _jumps(self, stretch: _Stretch, dts: int) -> bool:
        """Whether this time of decoding does not go on from a stretch."""
        return dts < stretch.last - self.back or dts - stretch.next > self.forth

    def _forget(self) -> None:
        """Take the times behind what seemed a jump for wrong ones."""
        assert self.unsure is not None
        self.strange.update(self.unsure.numbers)
        self.unsure = None

    def _believe(self) -> None:
        """Take what seemed a jump for one, or for a pause that is no jump."""
        assert self.unsure is not None
        here, there = self.sure[-1], self.unsure
        if -self.back <= (there.begin or 0) - here.next <= self.pause:
            here.end, here.open = there.end, there.open
            here.last, here.next = there.last, there.next
        else:
            self.sure.append(there)
        self.unsure = None


def _scanned(container: InputContainer, stream: VideoStream) -> Timeline:
    """Return what all packets of a film say of its times."""
    base = Fraction(stream.time_base or Fraction(1, 1000))
    timed = has_times(container)
    rate = rate_of(stream) or 25
    pause = _FORTH if container.format.flags & MAY_JUMP else _FORTH_ELSEWHERE
    scan = _Scan(base, max(1, round(1 / rate / base)), pause)
    number, alike = 0, True
    for packet in packets_of(container, stream):
        if isinstance(packet, Exception) or not packet.size:
            continue
        alike = alike and packet.pts == packet.dts
        if timed and packet.dts is not None:
            scan.add(number, packet.pts, packet.dts, packet.duration or 0)
        number += 1
    return Timeline(scan.recordings(base), frozenset(scan.strange), number, not timed or alike)


def _sorted_frames(
    frames: Iterable[tuple[int, _Frame]], is_damaged: Callable[[], bool], second: Fraction
) -> Iterator[tuple[int, _Frame]]:
    """Yield frames by their times, as far as they can be held back."""
    waiting: list[tuple[int, int, _Frame]] = []
    for order, (pts, frame) in enumerate(frames):
        while waiting and pts < waiting[0][0] - second:  # the clock is set back: these come before
            earlier, _, held = heapq.heappop(waiting)
            yield earlier, held
        heapq.heappush(waiting, (pts, order, frame))
        if len(waiting) > (_HELD_IN_DAMAGE if is_damaged() else _HELD):
            pts, _, frame = heapq.heappop(waiting)
            yield pts, frame
    while waiting:
        pts, _, frame = heapq.heappop(waiting)
        yield pts, frame


def _sorted_times(frames: Iterable[tuple[int, _Frame]]) -> Iterator[tuple[int, _Frame]]:
    """Yield frames in the order in which they come, with their times sorted."""
    times: list[int] = []
    waiting: deque[_Frame] = deque()
    for pts, frame in frames:
        heapq.heappush(times, pts)
        waiting.append(frame)
        if len(times) > _HELD:
            yield heapq.heappop(times), waiting.popleft()
    while times:
        yield heapq.heappop(times), waiting.popleft()
