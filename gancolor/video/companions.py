"""What a film holds beside its pictures, and what of it another file can take.

Sound, subtitles, covers, attachments, chapters and metadata are copied. Sound that the other
container does not take as it is is encoded anew, without gaps and in step with the pictures.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import DataError, shown
from gancolor.video.opening import film_stream, is_cover, load_av, opened, trial
from gancolor.video.timeline import packets_of

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

Clip = Callable[[Fraction, Fraction], tuple[Fraction, Fraction] | None]
"""What is left of a stretch of time, from begin to end in seconds; None if nothing is."""

Samples = NDArray[Any]
"""Sound, (channels, count)."""

_SOUND_CODECS = {
    "matroska": "flac",
    "mp4": "aac",
    "mov": "alac",
    "avi": "pcm_s16le",
    "webm": "libopus",
}
"""As what sound is encoded anew for each kind of container."""

_LOSSY = {"aac": 96_000, "libopus": 96_000}  # bits a second for each channel
_DEEP = {"flac": "s32", "alac": "s32p"}  # formats in which these hold 24 bits
_OPUS_RATE = 48_000  # samples a second
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# seconds by which times may be off before silence is put in or sound is cut
_STEP = Fraction(1, 10)
_SILENCE = 600  # seconds: longer gaps are not filled
_CHUNK = 1 << 16  # samples that are filled at once
_BLOCK = 4096  # samples of a frame where the encoder takes any number

# Metadata that every container writes by itself, or that are no longer true of the copy.
_OWN = frozenset(
    "encoder major_brand minor_version compatible_brands software duration rotate bps"
    " number_of_frames number_of_bytes vendor_id alpha_mode".split()
)
_QUICKTIME = "com.apple.quicktime."  # opens the keys of a phone's place and local date
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass
class Companion:
    """A stream that is kept beside the pictures: the source's, the output's, and an account of its
    packets.

    `recoder` encodes its sound anew; without one, packets are copied. `kept`: how many were
    written. `lost`: how many were refused or damaged. `doubled`: how many were left out because
    they lay over others, where the clock jumps. `last`: when the packet before is decoded, in the
    source's time base.
    """

    source: Any
    output: Any
    name: str
    recoder: Recoder | None = None
    kept: int = 0
    lost: int = 0
    doubled: int = 0
    last: int | None = None

    @property
    def is_sound(self) -> bool:
        """Whether the stream is sound."""
        return bool(self.source.type == "audio")

    @property
    def is_text(self) -> bool:
        """Whether the stream is subtitles."""
        return bool(self.source.type == "subtitle")

    @property
    def is_cover(self) -> bool:
        """Whether the stream is a cover picture."""
        return bool(self.source.type == "video")

    def is_pause(self, packet: Packet[Any]) -> bool:
        """Whether a packet is what MP4 puts between two subtitles, which the output makes anew."""
        return (
            self.is_text
            and self.source.codec_context.name == "mov_text"
            and bytes(packet) == b"\0\0"
        )

    def mux(self, output: OutputContainer, packet: Packet[Any]) -> None:
        """Write a packet. One that the container refuses is counted as lost, and left out."""
        av = load_av()
        try:
            output.mux(packet)
            self.kept += 1
        except av.error.FFmpegError as error:
            if not isinstance(error, av.error.InvalidDataError) and error.errno != errno.EINVAL:
                raise
            self.lost += 1


def add_companions(
    output: OutputContainer, container: InputContainer, path: Path, kind: str
) -> tuple[list[Companion], list[str]]:
    """Add to a film what a container of this `kind` can hold of the source's other streams.

    Sound that it cannot hold is encoded anew. Returns the streams that are kept, and notes on the
    others. DataError if the film would lose its only sound.
    """
    companions, notes, film = [], [], film_stream(container, path)
    for stream in container.streams:
        if stream.index == film.index or _is_made_anew(stream, container):
            continue
        name = _name(stream)
        better = "" if kind == "matroska" else "; an .mkv can hold most"
        if stream.type == "video" and not is_cover(stream):  # type: ignore[arg-type]
            notes.append(f"{name} left out: only one stream of pictures is coloured")
        elif stream.type == "video" and kind == "matroska":
            if not _attach_cover(output, stream, path):
                notes.append(f"{name} left out: {kind} files cannot hold it")
        elif _taken(kind, stream, teed=output.format.name == "tee"):
            added = _added(output, stream)
            if stream.type != "attachment":
                companions.append(Companion(stream, added, name))
        elif stream.type == "audio" and _can_recode(stream, kind):
            recoder = Recoder(output, stream, kind)
            recoder.output.metadata.update(kept_of(stream.metadata))
            recoder.output.disposition = stream.disposition
            companions.append(Companion(stream, recoder.output, name, recoder))
            notes.append(
                f"{name} encoded anew as {recoder.codec}: {kind} files cannot hold it as it"
                f" is{better}"
            )
        else:
            notes.append(f"{name} left out: {kind} files cannot hold it{better}")
    lost = (
        container.streams.audio if not any(companion.is_sound for companion in companions) else ()
    )
    for stream in lost:
        if _holds_packets(path, stream.index):
            raise _silent(path, f"{_name(stream)} can neither be copied nor decoded")
    return companions, notes


def check_sound(path: Path, kind: str) -> None:
    """Check, before anything is coloured, that a container of this `kind` keeps a film's sound.

    DataError if the film would lose its only sound.
    """
    with opened(path) as container, trial(kind) as output:
        add_companions(output, container, path, kind)


def check_kept(companions: list[Companion], path: Path) -> None:
    """Raise a DataError if nothing was kept of any sound although there was some."""
    heard = [companion for companion in companions if companion.is_sound]
    if any(companion.lost for companion in heard) and not any(
        companion.kept for companion in heard
    ):
        raise _silent(
            path,
            f"no packet of {heard[0].name} could be {'decoded' if heard[0].recoder else 'copied'}",
        )


def is_teed(container: InputContainer, kind: str) -> bool:
    """Say whether a film must be written through FFmpeg's `tee` to keep its sound.

    PyAV refuses codecs that are not in its list for a container, and its list for Matroska lacks
    the sound of Windows (A_MS/ACM), which Matroska holds. It refuses none in front of `tee`, which
    hands on everything but chapters.
    """
    return (
        kind == "matroska"
        and not container.chapters()
        and any(
            not _taken(kind, stream, teed=False) and _taken(kind, stream, teed=True)
            for stream in container.streams.audio
        )
    )


def has_quicktime_keys(container: InputContainer) -> bool:
    """Say whether a film has metadata under QuickTime's keys, which MOV files hold."""
    return any(key.startswith(_QUICKTIME) for key in container.metadata)


def add_metadata(
    output: OutputContainer,
    container: InputContainer,
    provenance: str | None,
    clip: Clip,
    kind: str,
) -> list[str]:
    """Copy the metadata, and the chapters as far as `clip` keeps them.

    `provenance` is put in front of the comment. Returns notes on what a container of this `kind`
    cannot hold.
    """
    kept, notes = kept_of(container.metadata), []
    if has_quicktime_keys(container) and kind not in ("mov", "matroska", "webm"):
        names = ", ".join(
            sorted(key.removeprefix(_QUICKTIME) for key in kept if key.startswith(_QUICKTIME))
        )
        notes.append(
            f"metadata of QuickTime left out ({names}): {kind} files cannot hold them; a .mov or"
            " .mkv can"
        )
    if provenance is not None:
        old = [kept.pop(key) for key in list(kept) if key.lower() == "comment"]
        kept["comment"] = "; ".join([provenance, *(line for line in old if line != provenance)])
    output.metadata.update(kept)
    chapters: list[Any] = []
    for chapter in container.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        stretch = clip(chapter["start"] * base, chapter["end"] * base)
        if stretch is not None:
            begin, end = (round(time / base) for time in stretch)
            chapters.append(
                {**chapter, "id": len(chapters) + 1, "start": begin, "end": end, "time_base": base}
            )
    if chapters:
        output.set_chapters(chapters)
    return notes


def kept_of(metadata: dict[str, str]) -> dict[str, str]:
    """Return those of the metadata that stay true of a copy."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OWN and not key.lower().startswith("_statistics")
    }


class Recoder:
    """Decodes a stream of sound and encodes it into a new one, as `_SOUND_CODECS` has it for a
    container of this `kind`.

    Only what is heard from `begin` on and before `end` is kept, in seconds of the film. ValueError
    or FFmpegError where the sound cannot be decoded or the encoder does not take it.
    """

    def __init__(self, output: OutputContainer, source: Any, kind: str) -> None:
        context = source.codec_context
        if context is None or not context.sample_rate or not context.layout.nb_channels:
            raise ValueError("nothing decodes it")
        self.codec = _SOUND_CODECS[kind]
        rate = _OPUS_RATE if self.codec == "libopus" else context.sample_rate
        stream: Any = output.add_stream(self.codec, rate=rate)
        stream.codec_context.layout = _layout(context.layout)
        if self.codec in _DEEP and context.name.startswith("pcm") and context.format.bytes > 2:
            stream.codec_context.format = _DEEP[self.codec]
        if self.codec in _LOSSY:
            stream.codec_context.bit_rate = _LOSSY[self.codec] * context.layout.nb_channels
        stream.time_base = self.base = Fraction(1, rate)
        self.output, self._source, self.lost = stream, context, 0
        self._source_base = Fraction(source.time_base)
        self.begin: Fraction | None = None
        self.end: Fraction | None = None
        self._rate, self._count = rate, 0
        self._next: int | None = None
        self._resampler: Any = None
        self._waiting: list[Samples] = []

    def put(self, packet: Packet[Any] | None) -> Iterator[Packet[Any]]:
        """Take a packet, its times mended, or None at the end; yield what is encoded."""
        av = load_av()
        try:
            frames: list[AudioFrame] = self._source.decode(packet)
        except av.error.FFmpegError:
            self.lost += packet is not None
            return
        for frame in frames:
            if not frame.time_base:
                frame.time_base = self._source_base
            time = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
            try:
                samples = self._resampled(frame)
            except (av.error.FFmpegError, ValueError):  # its form changes within the stream
                self.lost += 1
                continue
            yield from self._place(samples, time)

    def finish(self) -> Iterator[Packet[Any]]:
        """Yield what is left to encode, at the end of the sound."""
        yield from self.put(None)
        if self._next is not None:
            yield from self._encode(self._take(self._count))
            yield from self.output.codec_context.encode(None)

    def _resampled(self, frame: AudioFrame) -> Samples:
        av = load_av()
        context = self.output.codec_context
        if frame.layout.name != _layout(frame.layout):
            frame = _named(frame)
        if self._resampler is None:
            self._resampler = av.AudioResampler(
                format=context.format, layout=context.layout, rate=self._rate
            )
        parts = [_samples(part) for part in self._resampler.resample(frame)]
        return (
            np.concatenate(parts, axis=1)
            if parts
            else np.zeros((context.layout.nb_channels, 0), np.int16)
        )

    def _place(self, samples: Samples, time: Fraction | None) -> Iterator[Packet[Any]]:
        """Put samples where their time says: with silence before them, or cut, where it must be."""
        first = self._next if time is None or self._next is None else round(time * self._rate)
        if first is None:
            first = round((time or Fraction(0)) * self._rate)
        begin = None if self.begin is None else round(self.begin * self._rate)
        if self._next is not None and abs(first - self._next) <= _STEP * self._rate:
            first = self._next
        least = max((edge for edge in (begin, self._next) if edge is not None), default=first)
        samples = samples[:, max(0, least - first) :]
        first = max(first, least)
        if self.end is not None:
            samples = samples[:, : max(0, round(self.end * self._rate) - first)]
        if not samples.shape[1]:
            return
        if self._next is None:
            self._next = first
        gap = first - self._next
        if gap > _SILENCE * self._rate:
            yield from self._encode(self._take(self._count))
            self._next, gap = first, 0
        while gap > 0:
            count = min(gap, _CHUNK)
            yield from self._add(np.zeros((samples.shape[0], count), samples.dtype))
            gap -= count
        yield from self._add(samples)

    def _add(self, samples: Samples) -> Iterator[Packet[Any]]:
        assert self._next is not None
        self._waiting.append(samples)
        self._count += samples.shape[1]
        self._next += samples.shape[1]
        size = self.output.codec_context.frame_size or _BLOCK
        if self._count >= size:
            yield from self._encode(self._take(self._count - self._count % size))

    def _take(self, count: int) -> Samples | None:
        if not count:
            return None
        joined = np.concatenate(self._waiting, axis=1)
        self._waiting = [joined[:, count:]]
        self._count -= count
        return joined[:, :count]

    def _encode(self, samples: Samples | None) -> Iterator[Packet[Any]]:
        if samples is None:
            return
        av, context = load_av(), self.output.codec_context
        assert self._next is not None
        begin = self._next - self._count - samples.shape[1]
        size = context.frame_size or _BLOCK
        for at in range(0, samples.shape[1], size):
            part = samples[:, at : at + size]
            values = part if context.format.is_planar else part.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(values), format=context.format.name, layout=context.layout.name
            )
            frame.sample_rate, frame.time_base, frame.pts = self._rate, self.base, begin + at
            yield from context.encode(frame)


def _holds_packets(path: Path, index: int) -> bool:
    """Say whether a stream has any packets: a header may promise sound that never comes."""
    with opened(path) as container:
        packets = packets_of(container, container.streams[index])
        return any(not isinstance(packet, Exception) and packet.size for packet in packets)


def _silent(path: Path, reason: str) -> DataError:
    return DataError(
        f"sound of a film must be kept, got {shown(path)}: {reason}; bring its sound into another"
        " form, or take it out of the film"
    )


def _is_made_anew(stream: Stream, container: InputContainer) -> bool:
    """Say whether the output makes such a stream by itself: chapters' titles, and the time code."""
    if stream.type != "data":
        return False
    return bool(container.chapters()) or "timecode" in stream.metadata


def _taken(kind: str, stream: Stream, *, teed: bool) -> bool:
    """Say whether a container takes a stream as it is."""
    return _is_accepted(kind, lambda output: _added(output, stream), teed=teed)


def _can_recode(stream: Stream, kind: str) -> bool:
    """Say whether sound can be decoded, and encoded anew for a container."""
    return _is_accepted(kind, lambda output: Recoder(output, stream, kind))


def _is_accepted(kind: str, add: Callable[[Any], object], *, teed: bool = False) -> bool:
    """Try whether a container takes the stream that `add` adds, by writing a header alone."""
    av = load_av()
    with trial(kind, teed=teed) as output:
        try:
            add(output)
            output.start_encoding()
        except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError):
            return False
    return True


def _added(output: OutputContainer, stream: Stream) -> Any:
    """Add a copy of a stream, with its metadata; returns it."""
    added: Any = output.add_stream_from_template(stream, opaque=True)
    added.metadata.update(kept_of(stream.metadata))
    added.disposition = stream.disposition
    return added


def _attach_cover(output: OutputContainer, stream: Stream, path: Path) -> bool:
    """Attach a cover as a file, which is how Matroska holds it."""
    kind = _COVERS.get(stream.codec_context.name if stream.codec_context else "")
    with opened(path) as container:
        packet = next(
            (packet for packet in container.demux(container.streams[stream.index]) if packet.size),
            None,
        )
        if kind is None or packet is None:
            return False
        output.add_attachment(kind[0], kind[1], bytes(packet))
    return True


def _name(stream: Stream) -> str:
    """Return a stream in words: "subtitle stream 2 (mov_text)"."""
    context: Any = stream.codec_context
    codec = context.name if context is not None else getattr(stream, "name", None)
    kind = {"audio": "sound", "video": "picture"}.get(stream.type, stream.type)
    return f"{kind} stream {stream.index}" + (f" ({codec})" if codec else "")


def _layout(layout: AudioLayout) -> str:
    """Return the name of a layout; without one, the usual one of so many channels."""
    count = layout.nb_channels
    return _LAYOUTS.get(count, layout.name) if layout.name == f"{count} channels" else layout.name


def _named(frame: AudioFrame) -> AudioFrame:
    """Return the same sound with its channels in the usual layout."""
    named: AudioFrame = load_av().AudioFrame.from_ndarray(
        frame.to_ndarray(), format=frame.format.name, layout=_layout(frame.layout)
    )
    named.sample_rate, named.pts, named.time_base = frame.sample_rate, frame.pts, frame.time_base
    return named


def _samples(frame: AudioFrame) -> Samples:
    """Return the samples of a frame, (channels, count)."""
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
