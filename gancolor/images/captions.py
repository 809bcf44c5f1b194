"""Captions of old scans: IPTC records among Photoshop's image resources (JPEG's APP13, TIFF's
tags), and comments.

The one form kept is Photoshop's list of image resources, which holds the IPTC record as resource
1028 beside such as the copyright mark. Each is a mark ("8BIM"), a number, a name, a size and data;
names and data are padded to even.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from gancolor.images.exif import SIZES

RECORD_TAG, RESOURCES_TAG = 33723, 34377
"""Tags of a TIFF file: the IPTC record and Photoshop's image resources."""

_MARKS = frozenset((b"8BIM", b"AgHg", b"DCSR", b"MeSa", b"PHUT"))
_RECORD = 1028
# Thumbnails show the gray picture; the rest told of the old file: its channels, profile, and copies
# of EXIF and XMP.
_STALE = frozenset((1033, 1036, 1006, 1007, 1045, 1053, 1077, 1039, 1041, 1058, 1059, 1060))
_APP13 = b"Photoshop 3.0\0"
_ROOM = 65_533 - len(_APP13)  # bytes that one of JPEG's segments holds
_DATASET = 0x1C  # what each value of an IPTC record begins with


class _Resource(NamedTuple):
    number: int
    head: bytes  # mark, number and padded name
    data: bytes

    def packed(self) -> bytes:
        return self.head + struct.pack(">L", len(self.data)) + self.data + bytes(len(self.data) % 2)


def of_jpeg(segments: Iterable[tuple[str, bytes]]) -> tuple[bytes | None, bytes | None]:
    """Return image resources and comment, None each if missing, of a JPEG file's segments ("APP13",
    data).
    """
    resources, comments = b"", []
    for name, data in segments:
        if name == "COM" and data.strip(b"\0 ") and data not in comments:
            comments.append(data)
        elif name == "APP13" and data.startswith(_APP13):
            piece = data[len(_APP13) :]
            if piece[:4] in _MARKS:  # else it goes on with what the segment before had no room for
                resources += bytes(len(resources) % 2)
            resources += piece
    return resources or None, b"\n".join(comments) or None


def of_tiff(file: BinaryIO) -> tuple[bytes | None, list[str]]:
    """Return image resources, None if missing, of a TIFF file's first page, and notes."""
    try:
        found = dict(_tags(file))
    except (struct.error, ValueError):
        return None, ["the IPTC block is damaged: left out"]
    own, resources = found.get(RECORD_TAG, b""), found.get(RESOURCES_TAG, b"")
    if own[3:4] == bytes([_DATASET]) != own[:1]:  # written as numbers, in the other byte order
        own = b"".join(own[place : place + 4][::-1] for place in range(0, len(own), 4))
    if own and own[:4] not in _MARKS:
        own = _Resource(_RECORD, struct.pack(">4sHxx", b"8BIM", _RECORD), own).packed()
    # Of two records the first is kept: the file's own tag is what other programs bring up to date.
    return own + bytes(len(own) % 2) + resources or None, []


def refreshed(block: bytes) -> tuple[bytes | None, bool]:
    """Return image resources without what showed or told of the old file, and whether some were
    damaged.

    What is whole before the damage is kept; None if that is nothing. Of several IPTC records the
    first is kept.
    """
    resources, damaged = _parsed(block)
    kept: list[_Resource] = []
    records = 0
    for resource in resources:
        if resource.number == _RECORD:
            data, broken = _whole(resource.data)
            damaged |= broken
            records += bool(data)
            if not data or records > 1:
                continue
            resource = resource._replace(data=data)
        if resource.number not in _STALE:
            kept.append(resource)
    return b"".join(resource.packed() for resource in kept) or None, damaged


def record(block: bytes) -> bytes | None:
    """Return the IPTC record among image resources; None if there is none."""
    return next(
        (resource.data for resource in _parsed(block)[0] if resource.number == _RECORD), None
    )


def segments(block: bytes | None, comment: bytes | None) -> bytes:
    """Return a comment of up to 65,533 bytes and image resources as JPEG's COM and APP13 segments
    of 64 KB at most.

    Only a resource that is longer itself is divided.
    """
    pieces = [b""]
    for packed in (resource.packed() for resource in _parsed(block or b"")[0]):
        if len(pieces[-1]) + len(packed) > _ROOM:
            pieces.append(b"")
        while len(packed) > _ROOM:
            pieces[-1], packed = packed[:_ROOM], packed[_ROOM:]
            pieces.append(b"")
        pieces[-1] += packed
    # Pillow's own `comment` failed for long ones before 13.
    told = b"" if comment is None else _segment(0xFE, comment)
    return told + b"".join(_segment(0xED, _APP13 + piece) for piece in pieces if piece)


def text(comment: bytes) -> str:
    """Return a comment as text: UTF-8, or else Latin-1."""
    bare = comment.strip(b"\0").replace(b"\0", b" ")
    try:
        return bare.decode()
    except UnicodeDecodeError:
        return bare.decode("latin-1")


def _segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(data)) + data


def _parsed(block: bytes) -> tuple[list[_Resource], bool]:
    """The resources up to the first damage, and whether there is any."""
    found: list[_Resource] = []
    place = 0
    while block[place : place + 4] in _MARKS:
        if place + 7 > len(block):
            return found, True
        number, length = struct.unpack_from(">HB", block, place + 4)
        start = place + 6 + (length + 2) // 2 * 2
        if start + 4 > len(block):
            return found, True
        (size,) = struct.unpack_from(">L", block, start)
        data = block[start + 4 : start + 4 + size]
        if len(data) < size:
            return found, True
        found.append(_Resource(number, block[place:start], data))
        place = start + 4 + size + size % 2
    return found, any(block[place:])


def _whole(data: bytes) -> tuple[bytes, bool]:
    """An IPTC record up to its first damaged value, and whether there is any; zeros at the end are
    padding.
    """
    place = 0
    while data[place : place + 1] == bytes([_DATASET]):
        start = place + 5
        size = int.from_bytes(data[place + 3 : start], "big")
        if size & 0x8000:  # of a long value, the size of the size
            start += size & 0x7FFF
            size = int.from_bytes(data[place + 5 : start][:8], "big")
        if start + size > len(data):
            return data[:place], True
        place = start + size
    return (data[:place], True) if any(data[place:]) else (data, False)


def _tags(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The bytes of the two tags as a TIFF file's first directory has them. ValueError if they lie
    outside of it.

    As they lie, since libraries take them for numbers where the file calls them so.
    """
    length = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    wide, inline = ("Q", 8) if big else ("L", 4)
    file.seek(struct.unpack_from(order + wide, head, inline)[0])
    number_form = order + ("Q" if big else "H")
    (number,) = struct.unpack(number_form, file.read(struct.calcsize(number_form)))
    form = struct.Struct(f"{order}HH{wide}{inline}s")
    directory = file.read(min(number * form.size, length))
    for place in range(0, len(directory) - form.size + 1, form.size):
        tag, kind, count, value = form.unpack_from(directory, place)
        if tag not in (RECORD_TAG, RESOURCES_TAG):
            continue
        size = count * SIZES.get(kind, 1)
        if size > inline:
            offset = struct.unpack(order + wide, value)[0]
            if offset + size > length:
                raise ValueError("a value must lie inside the file")
            file.seek(offset)
            value = file.read(size)
        yield tag, value[:size]
