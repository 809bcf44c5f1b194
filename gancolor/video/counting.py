"""Counts what a film should have given, as a guard: frames that go missing without an error must not go unseen."""

from __future__ import annotations

from pathlib import Path

from gancolor.video.information import FilmInfo
from gancolor.video.opening import film_stream, load_av, opened

_MANY_OR_NONE = ("vp8",)  # a packet may be for the decoder alone
_PLACEHOLDER = 20  # bytes: MPEG-4 stands in so few for a frame that is not there
_UNSURE = 4  # packets that fall to the wrong side of a border in a film without times of display


def shortfall(path: Path, info: FilmInfo, first: int | None, until: int | None, frames: int) -> str | None:
    """Return a warning if a film's file holds more frames from `first` on and before `until` than `frames`, else None.

    Times are in the film's time base; None: its beginning and end. Only where a packet is known to be a frame, so a
    film that is whole gives no warning; for one that is known to be damaged, do not ask. Reads the file, decodes
    nothing.
    """
    if info.interlaced or info.codec in _MANY_OR_NONE:
        return None
    held = _packets(path, info, first, until)
    if held <= frames:
        return None
    return (
        f"WARNING: frames are missing: {frames} came of the {held} that the film's file holds here, and no damage was "
        "found; check the result, or bring the film into another container (.mkv) first"
    )


def _packets(path: Path, info: FilmInfo, first: int | None, until: int | None) -> int:
    """Packets with a picture to be shown in this time; where times are not known, the least that it can be."""
    av = load_av()
    begin = info.start_pts if first is None else max(first, info.start_pts)
    least = _PLACEHOLDER if info.codec == "mpeg4" else 0
    count, guessed = 0, False
    with opened(path) as container:
        try:
            for packet in container.demux(film_stream(container, path)):
                time = packet.dts if packet.pts is None else packet.pts
                if packet.size <= least or packet.is_discard or time is None:
                    continue
                guessed = guessed or packet.pts is None
                count += begin <= time and (until is None or time < until)
        except av.error.FFmpegError:
            pass  # what follows is not known
    return count - _UNSURE if guessed and (first is not None or until is not None) else count
