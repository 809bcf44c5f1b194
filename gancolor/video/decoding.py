"""Frames of a film as upright planes of its own depth, with their own times.

Times (pts) are whole numbers in the film's own time base and reach the output as they are; where
the film's clock jumps, what follows is moved (see `timeline`). A damaged stretch is left out and
told, and the film goes on behind it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gancolor.errors import ConfigError
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
from gancolor.video.planes import DeepPlane, alpha_of, chroma_of, luma_of
from gancolor.video.probe import FilmInfo, check_range, probe
from gancolor.video.timeline import PATIENCE, Mender, Order, packets_of, timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Seconds before the wanted frame at which decoding begins, since frames behind a key frame may be
# shown before it.
_MARGIN = Fraction(1)
_MPEG = ("mpeg1video", "mpeg2video")


@dataclass
class Frame:
    """A frame as displayed.

    `index` counts the frames handed out, from 0; `pts` is its time, in the film's time base.
    `luma`: (H, W), in the range and with the bits that the film has. If they are asked for:
    `chroma`, which is Cb and Cr, each (ceil(H / 2), ceil(W / 2)), and `alpha`, (H, W), from 0 for
    what is not seen.
    """

    index: int
    pts: int
    luma: DeepPlane
    chroma: tuple[DeepPlane, DeepPlane] | None = None
    alpha: DeepPlane | None = None


def span(info: FilmInfo, start: float | None, end: float | None) -> tuple[int | None, int | None]:
    """Return the first time (pts) of a part of a film, and the first behind it.

    `start` and `end` are in seconds from the film's beginning; None is its beginning and its end.
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

    Hands out the frames that are shown from `start` on and before `end`, in seconds from the film's
    beginning. `from_pts`: begin with the first frame at or behind this time instead, in the film's
    time base. `chroma`: read the film's own colours too. `alpha`: read its alpha, if it has one.
    Raises what `probe` and `span` do.
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

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def damaged(self) -> list[str]:
        """What was lost so far, one line a stretch, as `Ledger.lines` has them."""
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
        """Yield decoded frames, their times strictly growing, from the wanted one or somewhat
        before it.
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
        """Open the film, go to the time `seek` if there is one, and decode.

        Errors of decoding are counted, not raised. Raises _NoSeeking if there is no way to `seek`.
        """
        av, base = load_av(), self.info.time_base
        self._stack.close()
        container = self._stack.enter_context(opened(self.path))
        stream = film_stream(container, self.path)
        stream.thread_type = "AUTO"
        # MP4 and AVI list all their frames. In other forms, FFmpeg searches for the next one behind
        # damage without a word.
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
                container.seek(seek - int(_MARGIN / base), stream=stream)
            except av.error.FFmpegError as error:
                raise _NoSeeking from error
            frames = _seekable(frames)
        step = max(1, round(1 / (self.info.rate or 25) / base))
        order: Order[VideoFrame] = Order(step, 1 / base, by_decoder=known.decoding)
        last, seeking = None, seek is not None
        for pts, frame in order.put(self._timed(frames, stream, step), lambda: ledger.errors > 0):
            if seeking:
                past = (pts - self.info.start_pts) * base
                ledger.number = round(past * self.info.rate) if self.info.rate else 0
                seeking = False
            ledger.frame(pts * base, frame.is_corrupt, frame.key_frame)
            last = pts
            yield pts, frame
        ledger.finish()
        self.info.notes.extend(_moved(order, base, self.info.origin))
        self._check_end(last)

    def _timed(
        self, frames: Iterator[VideoFrame], stream: VideoStream, step: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Give a time to frames that have none: that of decoding where it is the same, else that of
        the frame before and a `step`.
        """
        next_pts = self.info.start_pts
        for frame in frames:
            pts = frame.pts
            # For MPEG-2 a frame comes out when the next one that others refer to is decoded, which
            # is when it is shown.
            if pts is None and (not stream.codec_context.has_b_frames or self.info.codec in _MPEG):
                pts = frame.dts
            pts = next_pts if pts is None else pts
            next_pts = pts + step
            yield pts, frame

    def _frames(
        self, container: InputContainer, stream: VideoStream, ledger: Ledger, mender: Mender
    ) -> Iterator[VideoFrame]:
        """Yield decoded frames as the decoder has them; packets and errors go into the `ledger`."""
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
        """Take note if the film, whose last frame is `last`, ends earlier than its header says."""
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
        """Return the planes of a frame, upright and of the film's size."""
        info = self.info
        check_range(frame, self.path)
        if frame.interlaced_frame and not info.interlaced:
            self._say_interlaced(pts)
        stored = (info.height, info.width) if info.turn.sideways else (info.width, info.height)
        if (frame.width, frame.height) != stored:
            if not any("size changes" in note for note in info.notes):
                info.notes.append(
                    "the size changes within the film: all frames are brought to"
                    f" {stored[0]}x{stored[1]}"
                )
            frame = frame.reformat(width=stored[0], height=stored[1])
        tags = (info.color_space, info.color_range, info.depth)
        found = Frame(index, pts, info.turn(luma_of(frame, *tags)))
        if self.chroma:
            u, v = chroma_of(frame, *tags)
            found.chroma = (info.turn(u), info.turn(v))
        if self.alpha:
            found.alpha = info.turn(alpha_of(frame, info.depth))
        return found

    def _say_interlaced(self, pts: int) -> None:
        """Note that a film of whole frames has an interlaced one at this time, only once."""
        if not any("interlaced" in note for note in self.info.notes):
            time = clock((pts - self.info.start_pts) * self.info.time_base)
            self.info.notes.append(
                f"interlaced from {time} on, but not from the beginning: these frames are coloured"
                " and written whole; deinterlace the film first"
            )


def _moved(order: Order[VideoFrame], base: Fraction, origin: Fraction) -> list[str]:
    """Return notes on the times that were changed."""
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
    """Yield the frames behind a seek. _NoSeeking if the first has no time, and so could be any."""
    first = next(frames, None)
    if first is None:
        return
    if first.pts is None:
        raise _NoSeeking
    yield first
    yield from frames


class _NoSeeking(Exception):
    """This film can only be read from its beginning: behind a seek, times would not be known."""
