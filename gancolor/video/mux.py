"""The finished film: the encoded frames of its parts, with the source's sound, subtitles and all
else copied packet by packet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime.files import written
from gancolor.video import display
from gancolor.video.companions import (
    Companion,
    add_companions,
    add_metadata,
    check_kept,
    has_quicktime_keys,
    is_teed,
    kept_of,
)
from gancolor.video.encoding import CONTAINERS, FIELD_ORDER, FORMATS
from gancolor.video.opening import (
    film_stream,
    hides_alpha,
    load_av,
    open_output,
    opened,
    reason_of,
    unwritable,
)
from gancolor.video.parts import Joined
from gancolor.video.probe import FilmInfo, probe
from gancolor.video.timeline import Follower, Timeline, packets_of, timeline

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

# Frames a second: in an AVI of finer steps, pauses would be filled with too many empty frames.
_MOST_RATE = 240
_BEFORE = _BEHIND = Fraction(10)  # seconds around a part of a film that are searched for its sound

# When it is decoded, in seconds; the packet; the stream that it belongs to, None for the pictures.
_Entry = tuple[Fraction, "Packet[Any]", Companion | None]


def assemble(
    parts: Sequence[str | Path],
    source: str | Path,
    target: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    provenance: str | None = None,
) -> list[str]:
    """Join encoded parts, in order, with all else that the source holds.

    Frames keep the times of the parts exactly (MKV and WebM count in milliseconds). Sound,
    subtitles, cover, attachments, chapters and metadata of the source are copied. With `start` or
    `end`, in seconds from the source's beginning, they are cut there, and with `start` the film
    begins with its first frame at 0. `provenance` is put in front of the source's comment. The film
    appears whole or not at all. Returns notes on what the file could not hold. DataError if it
    cannot be written or the parts do not fit; ConfigError if the target's form cannot hold the
    codec.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"suffix of a film must be one of {' '.join(CONTAINERS)}, got {shown(target)};"
            " rename it"
        )
    if not parts:
        raise DataError(
            f"film must have frames, got none for {shown(target)}; choose another part of it"
        )
    av, info = load_av(), probe(source)
    usual = round(1 / (info.rate or 25) / info.time_base)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files = [Path(part) for part in parts]
        with (
            written(target) as file,
            Joined(files, info.time_base, usual, info.start_pts) as joined,
            opened(source) as container,
        ):
            film = _Film(info, timeline(source), joined, start, end, FORMATS[target.suffix.lower()])
            # FFmpeg opens the new file by its name.
            return film.write(container, source, Path(file.name), provenance)
    except (av.error.FFmpegError, OSError) as error:
        raise unwritable(target, reason_of(error)) from error


class _Film:
    """One film that is being put together, in a container of this `kind`."""

    def __init__(
        self,
        info: FilmInfo,
        known: Timeline,
        joined: Joined,
        start: float | None,
        end: float | None,
        kind: str,
    ) -> None:
        self.info, self.known, self.joined, self.kind = info, known, joined, kind
        self.notes: list[str] = []
        first = joined.times[0] * info.time_base
        self.begin = None if start is None else first
        # Seconds by which everything comes earlier. Times are below 0 where a broadcast's clock
        # began anew within the film.
        self.shift = Fraction(0)
        if start is not None:
            self.shift = first
        elif first < 0:
            self.shift = min(first, info.origin)
        self.end = None if end is None else info.origin + Fraction(end).limit_denominator(1_000_000)

    def write(
        self, container: InputContainer, source: Path, aside: Path, provenance: str | None
    ) -> list[str]:
        """Write the film to `aside`; returns the notes."""
        keyed = self.kind == "mov" and has_quicktime_keys(container)
        options = {"movflags": "use_metadata_tags"} if keyed else {}
        with open_output(aside, self.kind, options, teed=is_teed(container, self.kind)) as output:
            video = self._add_video(output, container, source)
            companions, notes = add_companions(output, container, source, self.kind)
            self.notes += notes
            self.notes += add_metadata(output, container, provenance, self._clipped, self.kind)
            output.start_encoding()
            for _, packet, companion in heapq.merge(
                self._frames(video),
                self._others(container, source, companions),
                key=lambda entry: entry[0],
            ):
                if companion is None:
                    output.mux(packet)
                else:
                    companion.mux(output, packet)
            output.close()
        if self.info.pixel_aspect != 1:
            size = (self.info.width, self.info.height)
            display.show_at(aside, self.kind, size, self.info.pixel_aspect)
        check_kept(companions, source)
        for companion in companions:
            if companion.lost:
                self.notes.append(
                    f"{companion.lost} packets of {companion.name} are damaged and were left out"
                )
            if companion.doubled:
                self.notes.append(
                    f"{companion.doubled} packets of {companion.name} were left out where the clock"
                    " jumps: others are heard at their time"
                )
        return self.notes

    def _add_video(self, output: OutputContainer, container: InputContainer, source: Path) -> Any:
        """Add the stream of the pictures, as the parts have it; returns it."""
        try:
            stream: Any = output.add_stream_from_template(self.joined.template, opaque=True)
        except ValueError as error:
            name = self.joined.template.codec_context.name
            raise ConfigError(
                f"codec must be one that {self.kind} files hold, got {name}; choose another"
            ) from error
        info, context = self.info, stream.codec_context
        # Not all codecs and parts hold these by themselves.
        context.sample_aspect_ratio = info.pixel_aspect
        context.field_order = FIELD_ORDER[info.fields]
        if context.name == "hevc" and self.kind in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players take no other
        context.color_range, context.colorspace = info.color_range, info.color_space
        context.color_primaries, context.color_trc = info.color_primaries, info.color_transfer
        rate = info.rate.limit_denominator(1001) if info.rate else None
        if rate and not info.variable:
            context.framerate = rate
        stream.metadata.update(kept_of(film_stream(container, source).metadata))
        if info.pixel_aspect != 1 and self.kind in ("matroska", "webm"):
            stream.metadata["title"] = stream.metadata.get("title", "") + display.ROOM
        if hides_alpha(self.joined.template):
            stream.metadata["alpha_mode"] = "1"
        stream.time_base = self.base = (
            self._avi_base(rate) if self.kind == "avi" else self.info.time_base
        )
        return stream

    def _avi_base(self, rate: Fraction | None) -> Fraction:
        """Return the time base of an AVI, which is its rate."""
        times, base = self.joined.times, self.info.time_base
        steps = {after - before for before, after in zip(times, times[1:], strict=False)}
        if len(steps) == 1:
            return steps.pop() * base
        usual = 1 / rate if rate else Fraction(1, 25)
        if max((abs(step * base - usual) for step in steps), default=Fraction(0)) <= base:
            return usual  # a constant rate, up to the rounding of its times
        self.notes.append(
            "AVI holds a constant rate only: the times of the frames are rounded and pauses filled"
        )
        return max(base, Fraction(1, _MOST_RATE))

    def _frames(self, stream: Any) -> Iterator[_Entry]:
        """Yield the encoded frames, moved into the output's time base."""
        film, last = self.info.time_base, None
        shift = round(self.shift / film)
        for packet, pts, dts, duration in self.joined.frames():
            packet.stream, packet.time_base = stream, self.base
            packet.pts, packet.dts, packet.duration = pts - shift, dts - shift, duration
            if self.base != film:
                time = round((pts - shift) * film / self.base)
                last = time if last is None else max(last + 1, time)
                packet.pts = packet.dts = last
                packet.duration = max(1, round(duration * film / self.base))
            yield (dts - shift) * film, packet, None

    def _others(
        self, container: InputContainer, source: Path, companions: list[Companion]
    ) -> Iterator[_Entry]:
        """Yield the packets of the companions, cut and moved."""
        if not companions:
            return
        av = load_av()
        by_index = {companion.source.index: companion for companion in companions}
        followers = {index: Follower(self.known) for index in by_index}
        for companion in companions:
            if companion.recoder is not None:
                companion.recoder.begin, companion.recoder.end = self.begin, self.end
        for stream in container.streams:
            if stream.index not in by_index:
                stream.discard = av.stream.Discard.all  # neither read nor held
        if self.begin is not None and self.known.simple:
            place = int((self.begin - _BEFORE) * 1_000_000)
            if _seeks(source, place):
                container.seek(place)
        for packet in packets_of(container, *(companion.source for companion in companions)):
            if isinstance(packet, Exception) or not packet.size:
                continue
            companion = by_index[packet.stream_index]
            if companion.is_pause(packet):
                continue
            if not self._moved(packet, companion, followers[packet.stream_index]):
                continue
            assert packet.pts is not None and packet.dts is not None
            time, base = packet.pts * packet.time_base, packet.time_base
            if self.end is not None and time > self.end + _BEHIND:
                break
            if companion.recoder is not None:
                yield from self._encoded(companion, companion.recoder.put(packet))
            elif self._cut(packet, companion, time):
                yield packet.dts * base, packet, companion
        for companion in companions:
            if companion.recoder is not None:
                yield from self._encoded(companion, companion.recoder.finish())
                companion.lost += companion.recoder.lost

    def _moved(self, packet: Packet[Any], companion: Companion, follower: Follower) -> bool:
        """Move a packet to its place on the film's mended clock; False if it has none."""
        pts = 0 if companion.is_cover else packet.dts if packet.pts is None else packet.pts
        if pts is None:
            companion.lost += 1
            return False
        dts = pts if packet.dts is None else packet.dts
        base, lasts = packet.time_base, packet.duration or 0
        shift = round(follower.shift(dts * base, lasts * base) / base)
        pts, dts = pts + shift, dts + shift
        if companion.last is not None and dts <= companion.last and self.known.borders:
            if companion.last - dts >= lasts:
                companion.doubled += 1
                return False
            dts = companion.last + 1
            pts = max(pts, dts)
        companion.last = dts
        packet.pts, packet.dts = pts, dts
        return True

    def _encoded(self, companion: Companion, packets: Iterator[Packet[Any]]) -> Iterator[_Entry]:
        """Yield packets of sound that was encoded anew, moved by the film's shift."""
        assert companion.recoder is not None
        base = companion.recoder.base
        for packet in packets:
            assert packet.pts is not None
            shift = round(self.shift / base)
            dts = packet.pts if packet.dts is None else packet.dts
            packet.pts, packet.dts = packet.pts - shift, dts - shift
            packet.time_base, packet.stream = base, companion.output
            yield packet.dts * base, packet, companion

    def _cut(self, packet: Packet[Any], companion: Companion, time: Fraction) -> bool:
        """Move a packet to its place in what is kept of the film; False if it lies outside.

        A subtitle that has begun before is shown for the rest of its time.
        """
        assert packet.pts is not None and packet.dts is not None
        base, lasts = packet.time_base, (packet.duration or 0) * packet.time_base
        if self.end is not None and time >= self.end:
            return False
        if self.begin is not None and time < self.begin:
            if not companion.is_text or time + lasts <= self.begin:
                return companion.is_cover
            packet.duration = max(1, round((time + lasts - self.begin) / base))
            packet.pts = packet.dts = round(self.begin / base)
        if self.end is not None and companion.is_text and time + lasts > self.end:
            packet.duration = max(1, round(self.end / base) - packet.pts)
        shift = round(self.shift / base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        if companion.is_cover:
            packet.pts = packet.dts = 0  # it has no time
        packet.stream = companion.output
        # Elsewhere, the run-in of an encoder before 0 would make FFmpeg move the pictures too.
        return packet.pts >= 0 or self.kind in ("mp4", "mov") or companion.output.name == "opus"

    def _clipped(self, begin: Fraction, end: Fraction) -> tuple[Fraction, Fraction] | None:
        """Return what is kept of a stretch of time, moved by the film's shift; None if nothing."""
        begin = max(begin, self.begin) if self.begin is not None else begin
        end = min(end, self.end) if self.end is not None else end
        return None if end <= begin else (begin - self.shift, end - self.shift)


def _seeks(path: Path, time: int) -> bool:
    """Try whether a film can be sought in.

    It is tried in a container of its own, because one that cannot has lost its place afterwards.
    """
    av = load_av()
    with opened(path) as container:
        try:
            container.seek(time)
        except av.error.FFmpegError:
            return False
    return True
