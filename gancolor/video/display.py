"""The size at which a film is shown, where its pixels are not square, written into a finished file.

FFmpeg's libraries write it from a field that PyAV does not reach. So the heads of Matroska, WebM and
MP4 files are completed here, in place: no byte behind them moves.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

ROOM = "room for the size at which it is shown"
"""What a Matroska file's track of pictures has at the end of its name until `show_at` puts the
display size in its place.
"""

_SEGMENT, _TRACKS = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b"
_CLUSTER = b"\x1f\x43\xb6\x75"
_TRACK, _NAME, _VIDEO, _CHECKSUM, _VOID = b"\xae", b"\x53\x6e", b"\xe0", b"\xbf", b"\xec"
_WIDTH, _HEIGHT, _UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"  # of the display
_RATIO = 3  # a unit: width and height are no pixels, only their ratio counts
_BOXES = {b"moov", b"trak", b"mdia"}  # boxes of MP4 that hold boxes


class _Element(NamedTuple):
    """One element of an EBML file: its name, what it holds, and all its bytes."""

    name: bytes
    content: bytes
    whole: bytes


def show_at(path: Path, kind: str, size: tuple[int, int], aspect: Fraction) -> None:
    """Write into a whole film how large it is shown.

    `kind`: FFmpeg's name of its container; only Matroska, WebM and MP4 are changed. `size`: width
    and height in pixels. `aspect`: width / height of a pixel. ValueError if the file has no tracks.
    """
    with path.open("r+b") as file:
        if kind in ("matroska", "webm"):
            _complete_tracks(file, _shown_size(size, aspect, exact=kind == "matroska"))
        elif kind == "mp4":
            _widen_tracks(file, round(size[0] * aspect * 65536))


def _shown_size(size: tuple[int, int], aspect: Fraction, *, exact: bool) -> bytes:
    """The elements that say how large a film is shown: as a ratio if `exact`, else in pixels, which
    is all that WebM knows.
    """
    ratio = size[0] * aspect / size[1]
    times = 1 if exact else round(size[1] / ratio.denominator)
    width, height = times * ratio.numerator, times * ratio.denominator
    if not times:  # no size near the film's own has this very ratio
        width, height = round(size[0] * aspect), size[1]
    shown = _joined(_WIDTH, _number(width)) + _joined(_HEIGHT, _number(height))
    return shown + _joined(_UNIT, _number(_RATIO)) if exact else shown


def _complete_tracks(file: BinaryIO, shown: bytes) -> None:
    """Put `shown` into the track of a Matroska file whose name has `ROOM` for it."""
    start, length = _find_tracks(file)
    file.seek(start)
    checksum, tracks = b"", []
    for element in _elements(file.read(length)):
        if element.name == _CHECKSUM:
            checksum = element.whole
        else:
            whole = _completed(element, shown) if element.name == _TRACK else element.whole
            tracks.append(whole)
    content = b"".join(tracks)
    if checksum:
        checksum = _joined(_CHECKSUM, zlib.crc32(content).to_bytes(4, "little"))
    file.seek(start)
    file.write(checksum + content)


def _completed(track: _Element, shown: bytes) -> bytes:
    """A track, as long as before, with `shown` in it if its name has room for it."""
    parts, found = [], False
    for element in _elements(track.content):
        whole = element.whole
        if element.name == _NAME and element.content.endswith(ROOM.encode()):
            title, found = element.content.removesuffix(ROOM.encode()), True
            whole = _joined(_NAME, title) if title else b""
        elif element.name == _VIDEO:
            said = (_WIDTH, _HEIGHT, _UNIT)  # FFmpeg says that the unit is not known
            kept = [one.whole for one in _elements(element.content) if one.name not in said]
            whole = _joined(_VIDEO, b"".join([*kept, shown]))
        parts.append(whole)
    if not found:
        return track.whole
    content = b"".join(parts)
    left = len(track.content) - len(content) - 2  # an element of nothing takes two bytes
    head = track.whole[: len(track.whole) - len(track.content)]
    return head + content + _joined(_VOID, bytes(left))


def _find_tracks(file: BinaryIO) -> tuple[int, int]:
    """Return where the content of the tracks begins, and how long it is."""
    file.seek(0)
    while (name := _read(file)) not in (b"", _CLUSTER):
        length = _value(_read(file))
        if name == _TRACKS:
            return file.tell(), length
        if name != _SEGMENT:  # whose elements follow
            file.seek(length, 1)
    raise ValueError("the file must have tracks, got none")


def _elements(content: bytes) -> Iterator[_Element]:
    """The elements that follow each other in `content`."""
    at = 0
    while at < len(content):
        begin, inside = at, at + _length_of(content[at])
        name, count = content[at:inside], _length_of(content[inside])
        at = inside + count + _value(content[inside : inside + count])
        yield _Element(name, content[inside + count : at], content[begin:at])


def _joined(name: bytes, content: bytes) -> bytes:
    """An element as it lies in a file, its length in as few bytes as it takes."""
    count = next(count for count in range(1, 9) if len(content) < (1 << 7 * count) - 1)
    return name + (len(content) | 1 << 7 * count).to_bytes(count, "big") + content


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _read(file: BinaryIO) -> bytes:
    """Read a name or a length; nothing at the end of the file."""
    first = file.read(1)
    return first + file.read(_length_of(first[0]) - 1) if first else b""


def _length_of(first: int) -> int:
    """How many bytes a name or a length has, by the zeros that its first byte begins with."""
    return 9 - first.bit_length()


def _value(number: bytes) -> int:
    """A length without the bit that marks how many bytes it has."""
    return int.from_bytes(number, "big") & ((1 << 7 * len(number)) - 1)


def _widen_tracks(file: BinaryIO, width: int) -> None:
    """Set the width, in 65536ths of a pixel, at which an MP4's tracks of pictures are shown."""
    file.seek(0, 2)
    for end in list(_track_headers(file, 0, file.tell())):
        file.seek(end - 8)  # width and height are the last of the header
        if file.read(8) != bytes(8):  # sound has none
            file.seek(end - 8)
            file.write(min(width, (1 << 32) - 1).to_bytes(4, "big"))


def _track_headers(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Where the headers of the tracks end in the boxes from `start` to `end`."""
    while start + 8 <= end:
        file.seek(start)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        inside = start + 8
        if length == 1:
            length, inside = int.from_bytes(file.read(8), "big"), inside + 8
        if length < 8:  # 0: up to the end of the file
            return
        if kind == b"tkhd":
            yield start + length
        elif kind in _BOXES:
            yield from _track_headers(file, inside, start + length)
        start += length
