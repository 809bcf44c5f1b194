"""The encoded pictures of several parts as one stream: times in the film's own base, and when each must be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from gancolor.errors import DataError, shown
from gancolor.video.opening import film_stream, opened

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream


class Picture(NamedTuple):
    """An encoded frame with its times in the film's time base."""

    packet: Packet[VideoStream]
    pts: int
    dts: int
    duration: int


class Joined:
    """Parts one behind the other: a context manager. DataError if a part is broken, overlaps the one before it or was
    encoded differently.

    `times`: when each frame is shown, in order, in `time_base`. `template`: a stream to copy the codec's settings from.
    `usual`: how long the last frame is shown, in `time_base`. `start_pts`: the film's; where it is negative, the parts
    count from it (see PartWriter).
    """

    def __init__(self, parts: Sequence[Path], time_base: Fraction, usual: int, start_pts: int = 0) -> None:
        self.parts, self.time_base, self.usual = list(parts), time_base, max(1, usual)
        self._zero = min(0, start_pts)
        self._stack = ExitStack()
        self._decoded: list[int] = []  # times in the order of decoding
        for part in self.parts:
            self._look(part)
        self.times = sorted(self._decoded)
        if any(after == before for before, after in zip(self.times, self.times[1:], strict=False)):
            raise DataError(f"parts of a film must not overlap, got a frame twice in {shown(self.parts[0].parent)}")
        if not self.times:
            raise DataError(f"film must have frames, got none in {shown(self.parts[0].parent)}")
        rank = {time: index for index, time in enumerate(self.times)}
        # A frame may be decoded as long before it is shown as the most displaced one needs, and no longer.
        self.delay = max(index - rank[time] for index, time in enumerate(self._decoded))
        self._next = {before: after for before, after in zip(self.times, self.times[1:], strict=False)}

    def __enter__(self) -> Self:
        container = self._stack.enter_context(opened(self.parts[0]))
        self.template = film_stream(container, self.parts[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def pictures(self) -> Iterator[Picture]:
        """Yield the encoded frames in the order of decoding."""
        order = 0
        for part in self.parts:
            with opened(part) as container:
                for packet in container.demux(film_stream(container, part)):
                    if packet.pts is None or not packet.size:
                        continue
                    pts = self._ticks(packet)
                    duration = self._next.get(pts, pts + self.usual) - pts
                    yield Picture(packet, pts, self._decode_time(order), duration)
                    order += 1

    def _decode_time(self, order: int) -> int:
        """When the frame at this place of the order of decoding is decoded: times in order, the delay earlier."""
        early = order - self.delay
        return self.times[early] if early >= 0 else self.times[0] + early * self.usual

    def _ticks(self, packet: Packet[VideoStream]) -> int:
        assert packet.pts is not None
        return round(packet.pts * packet.time_base / self.time_base) + self._zero

    def _look(self, part: Path) -> None:
        with opened(part) as container:
            stream = film_stream(container, part)
            context = stream.codec_context
            made = (context.name, context.width, context.height, context.extradata)
            if part == self.parts[0]:
                self._made = made
            if made != self._made:
                raise DataError(
                    f"parts of a film must be encoded alike, got another encoding in {shown(part)}; start anew"
                )
            packets = container.demux(stream)
            self._decoded += [self._ticks(packet) for packet in packets if packet.pts is not None and packet.size]
