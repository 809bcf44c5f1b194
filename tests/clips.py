"""Makers of tiny films for the tests of `video`: every kind that a reader meets, whole and broken.

A film shows a bright disk that moves over slanted stripes, one step a frame, so that each frame is
told by its look. Import PyAV first through `pytest.importorskip("av")`: the makers need it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODECS = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".avi": "mpeg4",
}
CODECS |= {".webm": "libvpx-vp9", ".ts": "mpeg2video", ".nut": "ffv1", ".ogv": "libvpx"}
CODECS |= {".mpg": "mpeg2video", ".vob": "mpeg2video", ".wmv": "wmv2", ".flv": "flv1"}
SOUNDS = {
    ".mp4": "aac",
    ".m4v": "aac",
    ".mov": "aac",
    ".mkv": "flac",
    ".avi": "pcm_s16le",
    ".webm": "libopus",
}
SOUNDS |= {".ts": "mp2", ".mpg": "mp2", ".vob": "mp2"}
SUBTITLES = {
    ".mp4": "mov_text",
    ".m4v": "mov_text",
    ".mov": "mov_text",
    ".mkv": "subrip",
    ".webm": "webvtt",
}
QUICK = {
    # Its macroblock tree makes no two films alike on processors with AVX-512.
    "libx264": {"preset": "veryfast", "crf": "10", "x264-params": "mbtree=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "mpeg4": {"b": "8000000"},
    "mpeg2video": {"b": "8000000"},
}


@functools.lru_cache(256)
def picture(
    index: int, width: int = 64, height: int = 48, *, gray: bool = False, shot: int = 0
) -> NDArray[np.uint8]:
    """Return frame `index` as uint8 RGB (H, W, 3); `shot` turns to other stripes and colours."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slant = columns + rows if shot % 2 == 0 else columns - 2 * rows
    shade = 110 + 50 * np.sin(slant / 5 + shot)
    tint = np.asarray([[1.0, 0.75, 0.5], [0.5, 0.8, 1.0]][shot % 2], np.float32)
    rgb = shade[..., None] * tint
    x, y = (8 + 2 * index) % width, height / 2 + (height / 4) * np.sin(index / 4)
    inside = (columns - x) ** 2 + (rows - y) ** 2 < (min(width, height) / 6) ** 2
    rgb[inside] = [230, 60, 70] if shot % 2 == 0 else [70, 220, 90]
    if gray:
        rgb = np.repeat((rgb @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=2)
    painted = np.clip(rgb + 0.5, 0, 255).astype(np.uint8)
    painted.flags.writeable = False  # it is kept
    return painted


def _made_once(make: Callable[..., Path]) -> Callable[..., Path]:
    """Encode a film of the same container and options once in a process."""
    made: dict[str, bytes] = {}

    @functools.wraps(make)
    def film(path: Path, **options: Any) -> Path:
        options |= {"shots": tuple(options.get("shots", ()))}
        key = f"{path.suffix.lower()} {sorted(options.items())}"
        if key not in made:
            make(path, **options)
            made[key] = path.read_bytes()
        else:
            path.write_bytes(made[key])
        return path

    return film


@_made_once
def film(
    path: Path,
    *,
    frames: int = 12,
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    gray: bool = False,
    sound: bool | str = False,
    subtitles: bool = False,
    rotation: int = 0,
    flipped: bool = False,
    interlaced: bool = False,
    aspect: Fraction | None = None,
    color: dict[str, int] | None = None,
    metadata: dict[str, str] | None = None,
    chapters: bool = False,
    attachment: bytes | None = None,
    shots: Iterable[int] = (),
    key_every: int = 6,
    b_frames: int | None = None,
    format: str | None = None,
) -> Path:
    """Write a film to `path`, its container by the suffix, and return the path.

    `pts`: presentation times in `time_base` (1/rate), for a variable rate. `rotation`: degrees
    counter-clockwise that a player must turn the stored frames. `color`: color_range, colorspace,
    color_primaries, color_trc. `shots`: the frames at which a new shot begins. `sound`: a tone as
    long as the film, or its codec; `subtitles`: two lines. `key_every`: frames. `b_frames`: how
    many in a row may be stored behind the frame that is shown after them; None: the codec's choice.
    `format`: FFmpeg's name of the container where the suffix does not tell.
    """
    import av

    suffix = path.suffix.lower()
    name = codec or CODECS[suffix]
    base = time_base or 1 / Fraction(rate)
    times = list(range(frames)) if pts is None else list(pts)
    with av.open(f"file:{path}", "w", format=format) as container:
        container.metadata.update(metadata or {})
        settings = QUICK.get(name, {}) | (options or {})
        stream: Any = container.add_stream(name, rate=Fraction(rate), options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = base, key_every, 1
        if b_frames is not None or suffix == ".avi":  # AVI holds no presentation times
            context.max_b_frames = b_frames or 0
        if aspect:
            context.sample_aspect_ratio = aspect
        for key, value in (color or {}).items():
            setattr(context, key, value)
        if interlaced:
            context.flags |= 0x40000 | 0x20000000  # AV_CODEC_FLAG_INTERLACED_DCT and _ME
        if rotation or flipped:
            stream.set_display_rotation(rotation, hflip=flipped)
        seconds = float((times[-1] + 1) * base) if times else 1.0
        voice = (
            _add_sound(container, sound if isinstance(sound, str) else SOUNDS[suffix])
            if sound
            else None
        )
        lines = container.add_mux_stream(SUBTITLES[suffix]) if subtitles else None
        if lines is not None:
            lines.time_base = Fraction(1, 1000)
            lines.metadata["language"] = "eng"
        if attachment is not None:
            container.add_attachment("note.txt", "text/plain", attachment)
        if chapters:
            ends = [0, int(seconds * 500), int(seconds * 1000)]
            container.set_chapters(
                [
                    {
                        "id": i + 1,
                        "start": ends[i],
                        "end": ends[i + 1],
                        "time_base": Fraction(1, 1000),
                    }
                    | {"metadata": {"title": f"part {i + 1}"}}
                    for i in range(2)
                ]
            )
        container.start_encoding()
        if lines is not None:
            _write_lines(container, lines, suffix, seconds)
        if voice is not None:
            _write_tone(container, voice, seconds)
        begins, shot = set(shots), 0
        for index, time in enumerate(times):
            shot += index in begins
            frame = _frame(picture(index, width, height, gray=gray, shot=shot), pixels, color or {})
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def deep_film(
    path: Path,
    pixels: str,
    *,
    codec: str = "ffv1",
    frames: int = 4,
    width: int = 64,
    height: int = 48,
    fields: str | None = None,
    aspect: Fraction | None = None,
    color: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
) -> list[NDArray[Any]]:
    """Write a gray film of any depth, and return the luma of its frames as it was stored.

    `pixels`: FFmpeg's name of a planar format of gray or YCbCr, or of p010le and its like. A bright
    bar moves over a slope in which each column has a code of its own. `fields`: "tff" or "bff":
    each field of a frame shows another moment. The rest: see `film`.
    """
    import av

    kind = av.VideoFormat(pixels)
    bits = kind.components[0].bits
    shift = 16 - bits if pixels.startswith("p0") else 0
    type_ = np.dtype("u1" if bits == 8 else ">u2" if pixels.endswith("be") else "<u2")
    lumas = []
    for index in range(frames):
        moments = [_slope(2 * index + step, width, height, bits) for step in (0, 1)]
        whole = moments[0]
        if fields is not None:
            later = 1 if fields == "tff" else 0
            whole[later::2] = moments[1][later::2]
        lumas.append(whole)
    with av.open(f"file:{path}", "w", format=format) as container:
        stream: Any = container.add_stream(
            codec, rate=25, options=QUICK.get(codec, {}) | (options or {})
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.thread_count = 1
        for key, value in (color or {}).items():
            setattr(context, key, value)
        if aspect:
            context.sample_aspect_ratio = aspect
        mark = None
        if fields is not None:
            context.flags |= 0x40000 | 0x20000000  # AV_CODEC_FLAG_INTERLACED_DCT and _ME
            context.field_order = 2 if fields == "tff" else 3
            mark = _marking(width, height, pixels, fields)
        for index, luma in enumerate(lumas):
            frame = av.VideoFrame(width, height, pixels)
            for plane, values in enumerate(frame.planes):
                rows = np.frombuffer(memoryview(values), type_).reshape(values.height, -1)
                rows[:] = 1 << (bits - 1 + shift)
                if plane == 0:
                    rows[:, :width] = luma << shift
            for key, value in (color or {}).items():
                setattr(frame, key, value)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            if mark is not None:
                mark.push(frame)
                frame = mark.pull()
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return lumas


def _slope(moment: int, width: int, height: int, bits: int) -> NDArray[Any]:
    """Luma of so many bits: a slope of one code a column and row, and a bar at 3 columns a moment."""
    rows, columns = np.mgrid[0:height, 0:width]
    luma = (rows + columns + moment + (80 << (bits - 8))).astype(
        np.uint8 if bits == 8 else np.uint16
    )
    at = 4 + 3 * moment
    luma[:, at : at + 8] = (200 << (bits - 8)) + 1
    return luma


def _marking(width: int, height: int, pixels: str, fields: str) -> Any:
    """FFmpeg's filter that marks frames as interlaced."""
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=pixels, time_base=Fraction(1, 25))
    marking, sink = graph.add("setfield", fields), graph.add("buffersink")
    source.link_to(marking)
    marking.link_to(sink)
    graph.configure()
    return graph


def sound_only(path: Path) -> Path:
    """Write a file of sound and nothing else."""
    import av

    with av.open(f"file:{path}", "w") as container:
        voice = _add_sound(container, SOUNDS[path.suffix.lower()])
        _write_tone(container, voice, 0.5)
    return path


def no_frames(path: Path) -> Path:
    """Write a film with a video stream that holds nothing."""
    return film(path, frames=0)


def damaged(source: Path, target: Path, frames: Sequence[int], *, fill: int = 0) -> Path:
    """Copy a film and overwrite the packets of these frames, counted as shown, all but their first
    8 bytes.

    MP4 or MOV: there a packet's place in the file is that of its bytes. Frames that refer to them
    break as well.
    """
    import av

    with av.open(f"file:{source}") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        shown = sorted(packets, key=lambda packet: packet.pts or 0)
        places = [(shown[index].pos, shown[index].size) for index in frames]
    data = bytearray(source.read_bytes())
    for place, size in places:
        assert place is not None
        data[place + 8 : place + size] = bytes([fill]) * (size - 8)
    target.write_bytes(data)
    return target


def joined(target: Path, *sources: Path) -> Path:
    """Join recordings end to end, byte by byte, as `cat` does."""
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def packed(source: Path, target: Path) -> Path:
    """Copy an AVI of MPEG-4 with at most one B-frame in a row, each in the packet of the frame that
    is decoded first.

    So DivX and Xvid have written them; a placeholder stands in the packet that is left over.
    """
    import av

    start = b"\0\0\1\xb6"
    with av.open(f"file:{source}") as container, av.open(f"file:{target}", "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0], opaque=True)
        found = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        kinds = ["IPBS"[data[data.index(start) + 4] >> 6] for data in found]
        out: list[bytes] = []
        for data, kind in zip(found, kinds, strict=True):
            if kind == "B":
                out[-1] += data
                out.append(start + b"\x5f\0\0")
            else:
                out.append(data)
        assert "B" in kinds and "BB" not in "".join(kinds)
        head = out[0].index(start)
        out[0] = (
            re.sub(rb"\x00\x00\x01\xb2[^\x00]*", b"", out[0][:head])
            + b"\0\0\1\xb2DivX503b1393p"
            + out[0][head:]
        )
        for number, data in enumerate(out):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = start in data and data[data.index(start) + 4] >> 6 == 0
            output.mux(packet)
    return target


def cut_off(source: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def packets(path: Path, kind: str = "video") -> list[tuple[float, bytes]]:
    """Return the (seconds, bytes) of the packets of the first stream of this kind, in the order
    shown.
    """
    import av

    with av.open(f"file:{path}") as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [
            packet for packet in container.demux(stream) if packet.size and packet.pts is not None
        ]
        return sorted((float(packet.pts * packet.time_base), bytes(packet)) for packet in found)


def times(path: Path) -> list[Fraction]:
    """Return when each frame of a film is shown, in seconds."""
    import av

    with av.open(f"file:{path}") as container:
        if path.suffix == ".avi":
            container.flags &= ~1  # AVFMT_FLAG_GENPTS, a guess that is one frame late for H.264
        frames = list(container.decode(video=0))
        return [
            (frame.dts if frame.pts is None else frame.pts) * frame.time_base for frame in frames
        ]


def _frame(rgb: NDArray[np.uint8], pixels: str, color: dict[str, int]) -> Any:
    import av

    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    if pixels == "rgb24":
        return frame
    full = color.get("color_range") == 2
    if pixels == "gray":  # swscale knows gray as 0-255 only
        luma = frame.reformat(format="yuv444p", dst_color_range=2 if full else 1).to_ndarray()[0]
        return av.VideoFrame.from_ndarray(luma, "gray")
    frame = frame.reformat(
        format=pixels, dst_colorspace=color.get("colorspace"), dst_color_range=2 if full else 1
    )
    for key in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(frame, key, color.get(key, 0 if key == "color_range" else 2))
    return frame


def _add_sound(container: Any, name: str) -> Any:
    voice = container.add_stream(name, rate=48000 if name in ("libopus", "pcm_dvd") else 44100)
    voice.codec_context.layout = "stereo" if name == "pcm_dvd" else "mono"
    if name.startswith("wma"):
        voice.codec_context.bit_rate = 128_000
    voice.metadata["language"] = "eng"
    return voice


def _write_tone(container: Any, voice: Any, seconds: float) -> None:
    import av

    rate = voice.codec_context.sample_rate
    tone = np.sin(np.arange(int(seconds * rate)) * (2 * np.pi * 440 / rate)) * 8000
    layout = voice.codec_context.layout.name
    tones = np.repeat(tone.astype(np.int16), voice.codec_context.layout.nb_channels)
    frame = av.AudioFrame.from_ndarray(tones[None], format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    container.mux(voice.encode(frame))
    container.mux(voice.encode(None))


def _write_lines(container: Any, lines: Any, suffix: str, seconds: float) -> None:
    import av

    for index, text in enumerate((b"a line", b"another")):
        data = len(text).to_bytes(2, "big") + text if SUBTITLES[suffix] == "mov_text" else text
        packet = av.Packet(data)
        packet.stream, packet.time_base = lines, Fraction(1, 1000)
        packet.pts = packet.dts = int(seconds * 500 * index)
        packet.duration = int(seconds * 400)
        container.mux(packet)
