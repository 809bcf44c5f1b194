"""Sound encoded anew, for containers that do not take it as it is: without gaps, in step with the
pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.video.opening import load_av

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.container import OutputContainer
    from av.packet import Packet

ENCODERS = {"matroska": "flac", "mp4": "aac", "mov": "alac", "avi": "pcm_s16le", "webm": "libopus"}
LOSSY = {"aac": 96_000, "libopus": 96_000}  # bits a second for each channel
DEEP = {"flac": "s32", "alac": "s32p"}  # formats in which these hold 24 bits
OPUS_RATE = 48_000
STEP = Fraction(1, 10)  # seconds by which times may be off before silence is put in or sound is cut
SILENCE = 600  # seconds: more are not filled
CHUNK = 1 << 16  # samples that are filled at once

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

Samples = NDArray[Any]  # (channels, count)


class Recoder:
    """Decodes a stream of sound and encodes it as `ENCODERS` says for this `kind` of container,
    into a new stream.

    Only what is heard from `begin` on and before `end` is kept, in seconds of the film. ValueError
    or FFmpegError where the sound cannot be decoded or the encoder does not take it.
    """

    def __init__(self, output: OutputContainer, source: Any, kind: str) -> None:
        context = source.codec_context
        if context is None or not context.sample_rate or not context.layout.nb_channels:
            raise ValueError("nothing decodes it")
        self.codec = ENCODERS[kind]
        rate = OPUS_RATE if self.codec == "libopus" else context.sample_rate
        stream: Any = output.add_stream(self.codec, rate=rate)
        stream.codec_context.layout = _layout(context.layout)
        if self.codec in DEEP and context.name.startswith("pcm") and context.format.bytes > 2:
            stream.codec_context.format = DEEP[self.codec]
        if self.codec in LOSSY:
            stream.codec_context.bit_rate = LOSSY[self.codec] * context.layout.nb_channels
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
        """Take a packet of the source, its times in their places, None at the end; yield what is
        encoded.
        """
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
        """Yield the rest."""
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
        """Put samples where they belong: silence before them, or less of them, where the times say
        so.
        """
        first = self._next if time is None or self._next is None else round(time * self._rate)
        if first is None:
            first = round((time or Fraction(0)) * self._rate)
        begin = None if self.begin is None else round(self.begin * self._rate)
        if self._next is not None and abs(first - self._next) <= STEP * self._rate:
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
        if gap > SILENCE * self._rate:
            yield from self._encode(self._take(self._count))
            self._next, gap = first, 0
        while gap > 0:
            count = min(gap, CHUNK)
            yield from self._add(np.zeros((samples.shape[0], count), samples.dtype))
            gap -= count
        yield from self._add(samples)

    def _add(self, samples: Samples) -> Iterator[Packet[Any]]:
        assert self._next is not None
        self._waiting.append(samples)
        self._count += samples.shape[1]
        self._next += samples.shape[1]
        size = self.output.codec_context.frame_size or 4096
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
        size = context.frame_size or 4096
        for at in range(0, samples.shape[1], size):
            part = samples[:, at : at + size]
            values = part if context.format.is_planar else part.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(values), format=context.format.name, layout=context.layout.name
            )
            frame.sample_rate, frame.time_base, frame.pts = self._rate, self.base, begin + at
            yield from context.encode(frame)


def _layout(layout: AudioLayout) -> str:
    """Return the name of a layout: the usual one of so many channels where the file does not say
    where they are.
    """
    count = layout.nb_channels
    return LAYOUTS.get(count, layout.name) if layout.name == f"{count} channels" else layout.name


def _named(frame: AudioFrame) -> AudioFrame:
    """The same sound, its channels in the usual layout."""
    named: AudioFrame = load_av().AudioFrame.from_ndarray(
        frame.to_ndarray(), format=frame.format.name, layout=_layout(frame.layout)
    )
    named.sample_rate, named.pts, named.time_base = frame.sample_rate, frame.pts, frame.time_base
    return named


def _samples(frame: AudioFrame) -> Samples:
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
