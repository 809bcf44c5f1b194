"""What a film file holds: its header, its first frame, and the count of its packets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor.errors import DataError, shown
from gancolor.video.damage import clock
from gancolor.video.opening import film_stream, hides_alpha, load_av, opened, rate_of, unreadable
from gancolor.video.planes import (
    FULL,
    LIMITED,
    Turn,
    depth_of,
    has_alpha,
    is_rgb,
    side_data_of,
    turn_of,
)
from gancolor.video.timeline import Mender, Timeline, timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_UNKNOWN, _RGB, _BT709, _BT601 = 2, 0, 1, 6  # AVCOL_SPC
_HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}  # AVCOL_TRC
_DOLBY_VISION = frozenset({"DOVI_RPU_BUFFER", "DOVI_METADATA"})  # side data of its frames
_DOLBY_TAGS = frozenset("dvh1 dvhe dva1 dvav dav1".split())
_TO_STANDARD = (  # FFmpeg's filters; zscale does not know Dolby Vision
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p10le",
    "libplacebo=colorspace=bt709:color_primaries=bt709:color_trc=bt709:format=yuv420p10le",
)
# Side data of a frame that is meant for a display of high dynamic range, where no transfer is told.
_HDR_METADATA = frozenset({"MASTERING_DISPLAY_METADATA", "DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID"})
# Codecs whose standard says "limited" where a gray film says nothing; elsewhere gray is 0-255.
_LIMITED_CODECS = frozenset("h264 hevc av1 libdav1d vp8 vp9 mpeg1video mpeg2video mpeg4".split())
_LOOKED_AT = 120  # packets from which a variable rate is told
_FEW_HOLES = 20  # of so many steps between frames, one may be longer than those of a constant rate

_FIRST = 5  # frames by which a film whose first one is progressive is told to be interlaced
_TOP_FIRST, _BOTTOM_FIRST = (2, 5), (3, 4)  # AVFieldOrder, by the field that is shown first
_INTERLACED_CODECS = frozenset("h264 mpeg2video vc1".split())  # may change from frame to frame

_MANY_OR_NONE = ("vp8",)  # a packet may be for the decoder alone
_PLACEHOLDER = 20  # bytes: MPEG-4 stands in so few for a frame that is not there
_FIELD_PACKETS = ("h264",)  # codecs of which a packet may hold one field of a frame
_FIELDS = 31  # a second: more are fields, not frames, in an interlaced film
_UNSURE = 4  # packets that fall to the wrong side of a border in a film without times of display


@dataclass(frozen=True, kw_only=True)
class FilmInfo:
    """A film's size as displayed, its times, its colour tags, and what else the file holds.

    `frames`: an estimate, from the header or from length and rate. `duration`: in seconds. `rate`:
    frames a second, on the average. `start_pts`: the first frame's time, in `time_base`. `origin`:
    when the file begins, in seconds; `start` and `end` of a part count from it. `variable`: frames
    last unequally. `rotation`: degrees counter-clockwise by which stored frames are turned to be
    shown (`turn` does it); `width`, `height` and `pixel_aspect` (width / height of a pixel) are
    upright already. `color_*`: FFmpeg's numbers, 2 where the film does not say (0 for the range).
    `full_range`: luma has all codes, 0 to 255 with 8 bits. `depth`: the bits of a sample. `fields`:
    which field of an upright frame is shown first, "tff" (that of its first row) or "bff"; None
    where frames are shown whole. `audio`, `subtitles`: how many streams. `alpha`: pixels may be
    transparent. `notes`: what the user should know.
    """

    width: int
    height: int
    frames: int | None
    duration: float | None
    rate: Fraction | None
    time_base: Fraction
    start_pts: int
    origin: Fraction
    variable: bool
    interlaced: bool
    fields: str | None
    rotation: int
    pixel_aspect: Fraction
    color_range: int
    color_space: int
    color_primaries: int
    color_transfer: int
    full_range: bool
    depth: int
    codec: str
    pixels: str
    audio: int
    subtitles: int
    alpha: bool = False
    turn: Turn = Turn()
    notes: list[str] = field(default_factory=list)


def probe(path: str | Path) -> FilmInfo:
    """Read what a film holds; decodes its first frames.

    DataError if it has no video stream, no frames, cannot be read, or is of high dynamic range.
    """
    path = Path(path)
    with opened(path) as container:
        stream = film_stream(container, path)
        first = _first_frames(container, stream, path)
        check_range(first[0], path, stream)
    known = timeline(path)
    with opened(path) as container:
        times = _first_times(container, film_stream(container, path), known)
    with opened(path) as container:
        info = _described(container, film_stream(container, path), first, times)
    if len(known.recordings) == 1:
        return info
    length = known.end - known.recordings[0].begin
    return replace(
        info,
        frames=known.packets,
        duration=float(length),
        notes=[*info.notes, _joined(known, info.origin)],
    )


def shortfall(
    path: Path, info: FilmInfo, first: int | None, until: int | None, frames: int
) -> str | None:
    """Return a warning if a film's file holds more frames from `first` on and before `until` than
    the `frames` that came of it, else None.

    It is a guard, so that frames which go missing without an error do not go unseen. Times are in
    the film's time base; None is its beginning and its end. Only packets that surely are a frame
    count, so a whole film gives no warning; do not ask about one that is known to be damaged. Reads
    the file and decodes nothing.
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


def _joined(known: Timeline, origin: Fraction) -> str:
    """Return the note on a film that was joined from several recordings."""
    places = [clock(time - origin) for time in known.borders]
    more = f" and {len(places) - 5} more places" if len(places) > 5 else ""
    return (
        f"the clock jumps at {', '.join(places[:5])}{more}: what follows goes on there without a"
        " break, sound beside it"
    )


def _first_frames(container: InputContainer, stream: VideoStream, path: Path) -> list[VideoFrame]:
    """Decode until there is a frame, whatever damage comes before it; returns it, and a few more
    where these may tell that the film is interlaced.
    """
    av = load_av()
    found: list[VideoFrame] = []
    reason, tries = "it holds no frames", 0
    packets = container.demux(stream)
    while tries < 100:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                found.append(frame)
                known = (
                    frame.interlaced_frame or stream.codec_context.name not in _INTERLACED_CODECS
                )
                if known or len(found) == _FIRST:
                    return found
        except av.error.EOFError:
            break
        except av.error.FFmpegError:
            tries, reason = tries + 1, "none of its first frames can be decoded"
            packets = container.demux(stream)
    if found:
        return found
    raise unreadable(path, reason)


def check_range(frame: VideoFrame, path: Path, stream: VideoStream | None = None) -> None:
    """Raise a DataError if a frame is of high dynamic range.

    Its tones would need to be mapped before colours can be chosen for them, and the result would
    neither be what the film was nor look right on any display.
    """
    kind = _HDR_TRANSFERS.get(int(frame.color_trc))
    found = {side.type.name for side in side_data_of(frame)}
    tag = "" if stream is None else str(stream.codec_context.codec_tag)
    if kind is None and stream is not None:
        kind = _HDR_TRANSFERS.get(int(stream.codec_context.color_trc))
    if found & _DOLBY_VISION or tag in _DOLBY_TAGS:
        kind = "Dolby Vision"
    if kind is None and int(frame.color_trc) in (0, _UNKNOWN) and found & _HDR_METADATA:
        kind = "the metadata of HDR10 without a transfer curve"
    if kind is not None:
        raise DataError(
            f"film must be of standard dynamic range, got {kind} in {shown(path)}; convert it"
            f" first, for example: ffmpeg -i FILM -vf {_TO_STANDARD[kind == 'Dolby Vision']} SDR.mkv"
        )


def _first_times(container: InputContainer, stream: VideoStream, known: Timeline) -> list[int]:
    """Return the times at which the first frames are shown, in order."""
    av = load_av()
    times: list[int] = []
    mender = Mender(known, Fraction(stream.time_base or Fraction(1, 1000)))
    try:
        for packet in container.demux(stream):
            mender.mend(packet)
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.size and not packet.is_discard:
                times.append(time)
            if len(times) == _LOOKED_AT:
                # What comes later may still belong in between.
                return sorted(times)[: _LOOKED_AT - 16]
    except av.error.FFmpegError:
        pass
    return sorted(times)


def _described(
    container: InputContainer, stream: VideoStream, frames: list[VideoFrame], times: list[int]
) -> FilmInfo:
    first = frames[0]
    turn = turn_of(first)
    notes = (
        []
        if turn is not None
        else [f"turned by {first.rotation} degrees in its header, which is not applied"]
    )
    turn = turn or Turn()
    size = (first.height, first.width) if turn.sideways else (first.width, first.height)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    base = Fraction(stream.time_base or Fraction(1, 1000))
    start = first.pts if first.pts is not None else (times[0] if times else 0)
    rate = rate_of(stream)
    duration = _duration(container, stream, start * base)
    variable = _is_variable(times, stream)
    stored = _stored_fields(stream, frames)
    fields = _upright_fields(stored, turn, first.height)
    tags = _tags(stream, first, size)
    notes += _notes(first, stored if fields is None else None)
    count = stream.frames or (round(duration * rate) if duration and rate else None)
    begin = container.start_time
    return FilmInfo(
        width=size[0],
        height=size[1],
        frames=max(count, 1) if count else None,
        duration=duration,
        rate=rate,
        time_base=base,
        start_pts=start,
        origin=start * base if begin is None else Fraction(begin, 1_000_000),
        variable=variable,
        interlaced=stored is not None,
        fields=fields,
        rotation=90 * turn.quarters,
        pixel_aspect=1 / aspect if turn.sideways else aspect,
        depth=depth_of(first),
        codec=stream.codec_context.name,
        pixels=first.format.name,
        audio=len(container.streams.audio),
        subtitles=len(container.streams.subtitles),
        alpha=has_alpha(first) or hides_alpha(stream),
        turn=turn,
        notes=notes,
        **tags,
    )


def _tags(stream: VideoStream, first: VideoFrame, size: tuple[int, int]) -> dict[str, Any]:
    """Return the colour tags; an RGB film gets those of the YCbCr into which it is brought."""
    context, pixels = stream.codec_context, first.format.name
    value_range, space = int(first.color_range or context.color_range), int(first.colorspace)
    if is_rgb(first):
        value_range, space = LIMITED, _BT709 if size[0] >= 1280 or size[1] >= 720 else _BT601
    gray = pixels.startswith(("gray", "ya", "mono")) and context.name not in _LIMITED_CODECS
    full = value_range == FULL or (value_range == 0 and (pixels.startswith("yuvj") or gray))
    if full:
        value_range = FULL
    return {
        "color_range": value_range,
        "color_space": _UNKNOWN if space == _RGB else space,
        "color_primaries": int(first.color_primaries),
        "color_transfer": int(first.color_trc),
        "full_range": full,
    }


def _duration(container: InputContainer, stream: VideoStream, start: Fraction) -> float | None:
    """Return how long a film is, in seconds; `start` is when its first frame is shown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska tells when a stream ends, not how long it is.
    late = float(start) if start > 0 and "matroska" in container.format.name else 0.0
    said = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    hours, _, rest = said.partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        ends = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        ends = (container.duration or 0) / 1_000_000
    return ends - late if ends > late else None


def _is_variable(times: list[int], stream: VideoStream) -> bool:
    """Say whether frames last unequally: by more than rounding to the time base does, or by the two
    rates of the header.
    """
    steps = sorted(after - before for before, after in zip(times, times[1:], strict=False))
    if len(steps) >= _FEW_HOLES and not stream.frames:  # no list of frames: some may have been lost
        holes = len(steps) // _FEW_HOLES
        steps = steps[:-holes] if steps[-holes - 1] * 3 < steps[-1] * 2 else steps
    if steps and max(steps) - min(steps) > max(2, max(steps) // 100):
        return True
    average, base = stream.average_rate, stream.base_rate
    return bool(stream.frames and average and base and abs(base - average) > average / 50)


def _stored_fields(stream: VideoStream, frames: list[VideoFrame]) -> str | None:
    """Return which field of the stored frames is shown first, "tff" or "bff"; None for progressive.

    What the frames say counts; not all codecs' frames say it, and then the file's word does.
    """
    marked = next((frame for frame in frames if frame.interlaced_frame), None)
    if marked is not None:
        return "tff" if _has_top_first(marked) else "bff"
    said = stream.codec_context.field_order
    return "tff" if said in _TOP_FIRST else "bff" if said in _BOTTOM_FIRST else None


def _has_top_first(frame: VideoFrame) -> bool:
    """Say whether a frame is marked as one whose upper field is shown first.

    PyAV does not show this mark, but FFmpeg's filter `select` knows it.
    """
    av = load_av()
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=frame.time_base or Fraction(1, 25),
    )
    chosen, sink = graph.add("select", "eq(interlace_type,TOPFIRST)"), graph.add("buffersink")
    source.link_to(chosen)
    chosen.link_to(sink)
    graph.configure()
    graph.push(frame)
    try:
        graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return False
    return True


def _upright_fields(stored: str | None, turn: Turn, height: int) -> str | None:
    """Return `stored` for frames that are turned; None where that makes columns of fields, or there
    are too few rows for two.
    """
    if stored is None or turn.sideways or height < 4:
        return None
    upside_down = turn.quarters == 2 and height % 2 == 0
    return {"tff": "bff", "bff": "tff"}[stored] if upside_down else stored


def _notes(first: VideoFrame, lost_fields: str | None) -> list[str]:
    notes = []
    if lost_fields is not None:
        notes.append(
            "interlaced and turned: its fields cannot be kept, and frames are written whole;"
            " deinterlace it first"
        )
    if is_rgb(first):
        notes.append(
            f"stored as RGB ({first.format.name}): brought to luma and chroma of"
            f" {depth_of(first)} bits"
        )
    return notes


def _held(path: Path, info: FilmInfo, first: int | None, until: int | None) -> int:
    """Return how many frames are to be shown in this time; where times are not known, the least
    that it can be.
    """
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
    """Return the times of the packets with a frame, and whether some are those of decoding."""
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
    """Return how many frames these times are, where either field of a frame may be a packet."""
    rate = info.rate or Fraction(25)
    frame = (1 if rate <= _FIELDS else 2) / rate / info.time_base
    count, last = 0, None
    for time in times:
        if last is None or time - last > frame * 3 / 4:
            count, last = count + 1, time
    return count
