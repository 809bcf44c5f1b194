"""Counts what a film should have given, as a guard: frames that go missing without an error must
not go unseen.

Films in: what a file holds, and its frames as upright 8-bit luma planes with their own times.

Times (pts) are whole numbers in the film's own time base and reach the output as they are; where
the film's clock jumps, what follows is moved (see `timeline`). A damaged stretch is left out and
told, the film goes on behind it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gancolor.errors import ConfigError
from gancolor.video.chroma import Plane, alpha_of, chroma_of, luma_of
from gancolor.video.damage import Ledger, clock
from gancolor.video.opening import (
    ALPHA_DECODERS,
    film_stream,
    has_times,
    hides_alpha,
    load_av,
    opened,
    reason_of,
)
from gancolor.video.probe import FilmInfo
from gancolor.video.probe import probe as probe
from gancolor.video.timeline import PATIENCE, Mender, Order, packets_of, timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


_MANY_OR_NONE = ("vp8",)  # a packet may be for the decoder alone
_PLACEHOLDER = 20  # bytes: MPEG-4 stands in so few for a frame that is not there
_FIELD_PACKETS = ("h264",)  # codecs of which a packet may hold one field of a frame
_FIELDS = 31  # a second: more are fields, not frames, in an interlaced film
_UNSURE = 4  # packets that fall to the wrong side of a border in a film without times of display


def shortfall(
    path: Path, info: FilmInfo, first: int | None, until: int | None, frames: int
) -> str | None:
    """Return a warning if a film's file holds more frames from `first` on and before `until` than
    `frames`, else None.

    Times are in the film's time base; None: its beginning and end. Only where a packet is known to
    be a frame, so a film that is whole gives no warning; for one that is known to be damaged, do
    not ask. Reads the file, decodes nothing.
    """
    if info.codec in _MANY_OR_NONE:
        return None
    held = _held(path, info, first, until)
    if held <= frames:
        return None
    return (
        f"WARNING: frames are missing: {frames} came of the {held} that the film's file holds here,"
        " and no damage was found; check the result, or bring the film into another container"
        " (.mkv) first"
    )


def _held(path: Path, info: FilmInfo, first: int | None, until: int | None) -> int:
    """Pictures to be shown in this time; where times are not known, the least that it can be."""
    times, guessed = _times(path, info)
    begin = info.start_pts if first is None else max(first, info.start_pts)
    inside = [time for time in times if begin <= time and (until is None or time < until)]
    count = (
        _pairs(sorted(inside), info)
        if info.interlaced and info.codec in _FIELD_PACKETS
        else len(inside)
    )
    return count - _UNSURE if guessed and (first is not None or until is not None) else count


def _times(path: Path, info: FilmInfo) -> tuple[list[int], bool]:
    """Times of the packets with a picture, and whether some are those of decoding."""
    av = load_av()
    least = _PLACEHOLDER if info.codec == "mpeg4" else 0
    times, guessed = [], False
    mender = Mender(timeline(path), info.time_base)
    with opened(path) as container:
        try:
            for packet in container.demux(film_stream(container, path)):
                mender.mend(packet)
                time = packet.dts if packet.pts is None else packet.pts
                if packet.size <= least or packet.is_discard or time is None:
                    continue
                guessed = guessed or packet.pts is None
                times.append(time)
        except av.error.FFmpegError:
            pass  # what follows is not known
    return times, guessed


def _pairs(times: list[int], info: FilmInfo) -> int:
    """How many frames these times are, where each of the two fields of one may be a packet of its
    own.
    """
    rate = info.rate or Fraction(25)
    frame = (1 if rate <= _FIELDS else 2) / rate / info.time_base
    count, last = 0, None
    for time in times:
        if last is None or time - last > frame * 3 / 4:
            count, last = count + 1, time
    return count


# Seconds before the wanted frame at which decoding begins: frames behind a key frame may be shown
# before it.
MARGIN = Fraction(1)
MPEG = ("mpeg1video", "mpeg2video")


@dataclass
class Frame:
    """A frame as displayed. `index` counts the frames handed out from 0; `pts` is in the film's
    time base.

    `luma`: (H, W) uint8, in the range that the film has. `chroma`: Cb and Cr, (ceil(H / 2), ceil(W
    / 2)), and `alpha`, (H, W), 0 for what is not seen to 255, if asked for.
    """

    index: int
    pts: int
    luma: Plane
    chroma: tuple[Plane, Plane] | None = None
    alpha: Plane | None = None


def span(info: FilmInfo, start: float | None, end: float | None) -> tuple[int | None, int | None]:
    """Return the first pts of a part of a film and the first behind it; seconds count from the
    film's beginning.

    ConfigError if the part is empty or lies behind the film.
    """
    if start is not None and start < 0:
        raise ConfigError(f"--from must be at least 0 seconds, got {start:g}")
    if start is not None and info.duration is not None and start >= info.duration + 1:
        raise ConfigError(
            f"--from must lie inside the film, which lasts {info.duration:.2f} seconds, got"
            f" {start:g}"
        )
    if end is not None and end <= (start or 0):
        raise ConfigError(f"--to must be greater than --from, got {end:g} after {start or 0:g}")

    def ticks(seconds: float) -> int:
        # 0.04 is meant as 1/25, not as the binary number that is a little more.
        return ceil((info.origin + Fraction(seconds).limit_denominator(1_000_000)) / info.time_base)

    return None if not start else ticks(start), None if end is None else ticks(end)


class FilmReader:
    """The frames of a film, one at a time: a context manager to iterate over once.

    `start`, `end`: seconds from the film's beginning; frames shown from `start` on and before
    `end`. `from_pts`: begin with the first frame at or behind this time instead, in the film's time
    base. `chroma`: read the film's own colours too. `alpha`: read its alpha, if it has one.
    `damaged` says what was lost so far, a line a stretch. Raises as `probe` and `span` do.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: float | None = None,
        end: float | None = None,
        from_pts: int | None = None,
        chroma: bool = False,
        alpha: bool = False,
    ) -> None:
        self.path = Path(path)
        self.info = probe(self.path)
        self.chroma, self.alpha = chroma, alpha and self.info.alpha
        first, self._until = span(self.info, start, end)
        self._first = (
            first if from_pts is None else max(from_pts, first if first is not None else from_pts)
        )
        self._stack = ExitStack()
        self._ledger = Ledger(self.info.rate, self.info.origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def damaged(self) -> list[str]:
        """What could not be decoded so far: "frames 120-131, 0:04.80-0:05.24, could not be
        decoded".
        """
        return self._ledger.lines

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for pts, frame in self._in_order():
            if self._until is not None and pts >= self._until:
                return
            if self._first is None or pts >= self._first:
                if index == 0 and self._first is not None:
                    self._ledger.forget(self._first * self.info.time_base)
                yield self._finished(index, pts, frame)
                index += 1

    def _in_order(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield decoded frames with strictly growing times, from the wanted one or somewhat before
        it.
        """
        if self._first is not None and self._first > self.info.start_pts:
            try:
                frames = self._decoded(self._first)
                first = next(frames, None)
            except _NoSeeking:
                first = None
            if first is not None and first[0] <= self._first:
                yield first
                yield from frames
                return
            # There is no seeking, or it came out behind the wanted frame: read from the beginning.
        yield from self._decoded(None)

    def _decoded(self, seek: int | None) -> Generator[tuple[int, VideoFrame]]:
        """Open the film, go to `seek` if there is one, decode; errors are counted, not raised. May
        raise _NoSeeking.
        """
        av, base = load_av(), self.info.time_base
        self._stack.close()
        container = self._stack.enter_context(opened(self.path))
        stream = film_stream(container, self.path)
        stream.thread_type = "AUTO"
        # MP4 and AVI list all their frames; other forms are searched for the next one behind
        # damage, in silence.
        constant = (
            not self.info.variable and has_times(container) and "mp4" not in container.format.name
        )
        self._ledger = ledger = Ledger(self.info.rate, self.info.origin, constant=constant)
        known = timeline(self.path)
        frames = self._frames(
            container, stream, ledger, Mender(known if seek is None else None, base)
        )
        if seek is not None:
            if not has_times(container) or not known.simple:
                raise _NoSeeking
            try:
                container.seek(seek - int(MARGIN / base), stream=stream)
            except (
                av.error.FFmpegError
            ) as error:  # and what has been read of it is no longer in its place
                raise _NoSeeking from error
            frames = _seekable(frames)
        step = max(1, round(1 / (self.info.rate or 25) / base))
        order: Order[VideoFrame] = Order(step, 1 / base, by_decoder=known.decoding)
        last, seeking = None, seek is not None
        for pts, frame in order.put(self._timed(frames, stream, step), lambda: ledger.errors > 0):
            if seeking:
                past = (pts - self.info.start_pts) * base
                ledger.number, seeking = (
                    round(past * self.info.rate) if self.info.rate else 0,
                    False,
                )
            ledger.frame(pts * base, frame.is_corrupt, frame.key_frame)
            last = pts
            yield pts, frame
        ledger.finish()
        self.info.notes.extend(_moved(order, base, self.info.origin))
        self._check_end(last)

    def _timed(
        self, frames: Iterator[VideoFrame], stream: VideoStream, step: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Give a time to frames that have none: that of decoding where it is the same, else the
        next one.
        """
        next_pts = self.info.start_pts
        for frame in frames:
            pts = frame.pts
            # MPEG-2 hands a frame out when the next one that others refer to is decoded, which is
            # when it is shown.
            if pts is None and (not stream.codec_context.has_b_frames or self.info.codec in MPEG):
                pts = frame.dts
            pts = next_pts if pts is None else pts
            next_pts = pts + step
            yield pts, frame

    def _frames(
        self, container: InputContainer, stream: VideoStream, ledger: Ledger, mender: Mender
    ) -> Iterator[VideoFrame]:
        av = load_av()
        base, failures, time = self.info.time_base, 0, self.info.origin
        decoder: VideoCodecContext = stream.codec_context
        if self.alpha and hides_alpha(stream):
            decoder = av.CodecContext.create(ALPHA_DECODERS[decoder.name], "r")
        for packet in packets_of(container, stream):
            if isinstance(packet, Exception):
                ledger.errors, failures = ledger.errors + 1, failures + 1
                if failures > PATIENCE:
                    ledger.say(
                        f"nothing can be read beyond {clock(time - self.info.origin)}:"
                        f" {reason_of(packet)}"
                    )
                    return
                continue
            failures = 0
            mender.mend(packet)
            pts = (
                packet.dts
                if packet.pts is None and not stream.codec_context.has_b_frames
                else packet.pts
            )
            if packet.size and pts is not None and not packet.is_discard:
                time = pts * base
                ledger.packet(time)
            ledger.errors += packet.is_corrupt and not mender.at_border
            while True:
                try:
                    frames = decoder.decode(packet)
                except av.error.EOFError:
                    break
                except av.error.FFmpegError:
                    ledger.errors += 1
                    frames = []
                    if not packet.size:  # flushing: what follows an error is still to come
                        continue
                yield from frames
                break

    def _check_end(self, last: int | None) -> None:
        """Tell when the film is shorter than its header says."""
        info = self.info
        if info.duration is None:
            return
        ends = Fraction(0) if last is None else (last - info.start_pts) * info.time_base
        slack = max(Fraction(1, 2), 3 / info.rate if info.rate else Fraction(1, 2))
        if ends + slack < info.duration:
            self._ledger.say(
                f"the film ends at {clock(ends)}, its header promises {clock(info.duration)}: it is"
                " cut off"
            )

    def _finished(self, index: int, pts: int, frame: VideoFrame) -> Frame:
        info = self.info
        stored = (info.height, info.width) if info.turn.sideways else (info.width, info.height)
        if (frame.width, frame.height) != stored:
            if not any("size changes" in note for note in info.notes):
                info.notes.append(
                    "the size changes within the film: all frames are brought to"
                    f" {stored[0]}x{stored[1]}"
                )
            frame = frame.reformat(width=stored[0], height=stored[1])
        tags = (info.color_space, info.color_range)
        found = Frame(index, pts, info.turn(luma_of(frame, *tags)))
        if self.chroma:
            u, v = chroma_of(frame, *tags)
            found.chroma = (info.turn(u), info.turn(v))
        if self.alpha:
            found.alpha = info.turn(alpha_of(frame))
        return found


def _moved(order: Order[VideoFrame], base: Fraction, origin: Fraction) -> list[str]:
    notes = [
        f"the clock is set back at {clock(time * base - origin)}: what follows was moved"
        for time in order.jumps
    ]
    if order.moved:
        many, first = len(order.moved), clock(order.moved[0] * base - origin)
        notes.append(
            f"times mended: {many}, the first at {first}, set between those of the neighbouring"
            " frames"
        )
    return notes


def _seekable(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames behind a seek. _NoSeeking if the first has no time: then it could be any."""
    first = next(frames, None)
    if first is None:
        return
    if first.pts is None:
        raise _NoSeeking
    yield first
    yield from frames


class _NoSeeking(Exception):
    """Behind a seek the frames' times are not known: only from its beginning on can this film be
    read.
    """
