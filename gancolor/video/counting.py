"""Counts what a film should have given, as a guard: frames that go missing without an error must not go unseen."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from gancolor.video.information import FilmInfo
from gancolor.video.opening import film_stream, load_av, opened
from gancolor.video.timeline import Mender, timeline

_MANY_OR_NONE = ("vp8",)  # a packet may be for the decoder alone
_PLACEHOLDER = 20  # bytes: MPEG-4 stands in so few for a frame that is not there
_FIELD_PACKETS = ("h264",)  # codecs of which a packet may hold one field of a frame
_FIELDS = 31  # a second: more are fields, not frames, in an interlaced film
_UNSURE = 4  # packets that fall to the wrong side of a border in a film without times of display


def shortfall(path: Path, info: FilmInfo, first: int | None, until: int | None, frames: int) -> str | None:
    """Return a warning if a film's file holds more frames from `first` on and before `until` than `frames`, else None.

    Times are in the film's time base; None: its beginning and end. Only where a packet is known to be a frame, so a
    film that is whole gives no warning; for one that is known to be damaged, do not ask. Reads the file, decodes
    nothing.
    """
    if info.codec in _MANY_OR_NONE:
        return None
    held = _held(path, info, first, until)
    if held <= frames:
        return None
    return (
        f"WARNING: frames are missing: {frames} came of the {held} that the film's file holds here, and no damage was "
        "found; check the result, or bring the film into another container (.mkv) first"
    )


def _held(path: Path, info: FilmInfo, first: int | None, until: int | None) -> int:
    """Pictures to be shown in this time; where times are not known, the least that it can be."""
    times, guessed = _times(path, info)
    begin = info.start_pts if first is None else max(first, info.start_pts)
    inside = [time for time in times if begin <= time and (until is None or time < until)]
    count = _pairs(sorted(inside), info) if info.interlaced and info.codec in _FIELD_PACKETS else len(inside)
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
    """How many frames these times are, where each of the two fields of one may be a packet of its own."""
    rate = info.rate or Fraction(25)
    frame = (1 if rate <= _FIELDS else 2) / rate / info.time_base
    count, last = 0, None
    for time in times:
        if last is None or time - last > frame * 3 / 4:
            count, last = count + 1, time
    return count
