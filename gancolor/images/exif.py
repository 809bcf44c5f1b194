"""EXIF blocks as trees of fields: read leniently, laid out again, in a block of their own or inside
a TIFF file. What tells of the picture's orientation is changed in place.

Values stay the bytes they were, in the block's own byte order. The maker's note keeps its place
where that is possible, because many makers point from inside it to places counted from the start of
the block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

PREFIX = b"Exif\0\0"
"""What stands before an EXIF block in JPEG."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
"""Types of fields."""

UTF8 = 129
"""The type of a text in EXIF 3."""

SIZES = dict.fromkeys((1, 2, 6, 7, UTF8), 1) | dict.fromkeys((3, 8), 2)
SIZES |= dict.fromkeys((4, 9, 11, 13), 4) | dict.fromkeys((5, 10, 12, 16, 17, 18), 8)
"""Bytes of one value of each type."""

DESCRIPTION, ORIENTATION, SOFTWARE = 270, 274, 305
RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = 282, 283, 296
"""Tags of a block's first directory."""

EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY = 0x8769, 0x8825, 0xA005
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
_CHILDREN = frozenset({EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY})
_SUBJECT_AREA, _SUBJECT_LOCATION, _MAKER_NOTE = 0x9214, 0xA214, 0x927C  # in the EXIF directory
_FARTHEST = 1 << 16  # what a pinned value may at most leave empty before it


@dataclass
class Field:
    """One field: its type, its values' bytes in the block's byte order, and where they lay (None:
    anywhere).
    """

    kind: int
    data: bytes
    place: int | None = None

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self.data) // SIZES[self.kind]


@dataclass
class Directory:
    """Fields by tag, and the directories that tags point to."""

    fields: dict[int, Field] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)


@dataclass
class Block:
    """An EXIF block: byte order "<" or ">", its first directory, and how many fields could not be
    read.
    """

    order: Literal["<", ">"] = "<"
    top: Directory = field(default_factory=Directory)
    lost: int = 0

    def numbers(self, kind: int, *values: int) -> Field:
        """Return a field of whole numbers of the type BYTE, SHORT, LONG or LONG8 in this block's
        byte order.
        """
        letter = {BYTE: "B", SHORT: "H", LONG: "L", LONG8: "Q"}[kind]
        return Field(kind, struct.pack(f"{self.order}{len(values)}{letter}", *values))

    def ratio(self, value: float) -> Field:
        """Return a RATIONAL field of one value in [0, 2^32 - 1]."""
        ratio = Fraction(value).limit_denominator(10_000 if value < 400_000 else 1)
        return Field(RATIONAL, struct.pack(self.order + "LL", ratio.numerator, ratio.denominator))


def text(value: str) -> Field:
    """Return a text field; letters beyond ASCII are UTF-8, as most readers take them to be."""
    return Field(ASCII, value.replace("\0", " ").encode("utf-8", "replace") + b"\0")


def parse(data: bytes) -> Block:
    """Read an EXIF block, with or without its prefix; the second directory (the thumbnail) is left
    out.

    Fields that cannot be read are counted in `lost`. ValueError if it is no EXIF block at all.
    """
    data = data.removeprefix(PREFIX)
    order = _ORDERS.get(data[:2])
    if order is None or len(data) < 8 or struct.unpack_from(order + "H", data, 2)[0] != 42:
        raise ValueError("an EXIF block must begin as a TIFF file does")
    block = Block(order)
    offset = struct.unpack_from(order + "L", data, 4)[0]
    top = _directory(block, data, offset, set())
    if top is None or not (top.fields or top.children):
        raise ValueError("an EXIF block must hold a directory of fields")
    block.top = top
    return block


def entries(data: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and the value's offset of each entry of the directory at `offset`.

    Type 0 stands for an entry that cannot be read. There are none where no directory can be.
    """
    if not 8 <= offset <= len(data) - 2:
        return
    (number,) = struct.unpack_from(order + "H", data, offset)
    for place in range(offset + 2, offset + 2 + 12 * number, 12):
        if place + 12 > len(data):
            yield 0, 0, 0, 0
            return
        tag, kind, count = struct.unpack_from(order + "HHL", data, place)
        size = SIZES.get(kind, 0) * count
        start = place + 8 if size <= 4 else struct.unpack_from(order + "L", data, place + 8)[0]
        if kind not in SIZES or start + size > len(data):
            yield tag, 0, 0, 0
        else:
            yield tag, kind, count, start


def serialize(block: Block) -> bytes:
    """Return the block's bytes, without the prefix."""
    laid, offset = lay_out(block.top, block.order, 8)
    return (
        (b"II" if block.order == "<" else b"MM")
        + struct.pack(block.order + "HL", 42, offset)
        + laid
    )


def lay_out(
    directory: Directory, order: str, start: int, *, big: bool = False
) -> tuple[bytes, int]:
    """Lay a directory, its children and their long values out in a file from the even offset
    `start` on.

    Returns the bytes from `start` on and the directory's offset. `big`: as BigTIFF has it, with
    64-bit offsets.
    """
    room = _Room(start, _pinned(directory, start))
    offset = _place(directory, _BIG if big else _CLASSIC, order, room)
    return bytes(room.data), offset


def reset_orientation(data: bytes) -> bytes:
    """Return an EXIF block (with or without its prefix) whose orientation is upright, that of its
    thumbnail too.

    Nothing else changes, not a byte. A damaged block never raises: what could be read of it is
    upright.
    """
    prefix = PREFIX if data.startswith(PREFIX) else b""
    block = bytearray(data.removeprefix(prefix))
    order = _ORDERS.get(bytes(block[:2]))
    if order is None or len(block) < 8:
        return data
    offset = struct.unpack_from(order + "L", block, 4)[0]
    for _ in range(2):  # the picture's directory and the thumbnail's
        if offset < 8 or offset + 2 > len(block):
            break
        for tag, kind, count, start in entries(bytes(block), order, offset):
            if tag == ORIENTATION and kind in (SHORT, LONG) and count == 1:
                struct.pack_into(order + ("H" if kind == SHORT else "L"), block, start, 1)
        following = offset + 2 + 12 * struct.unpack_from(order + "H", block, offset)[0]
        offset = (
            struct.unpack_from(order + "L", block, following)[0]
            if following + 4 <= len(block)
            else 0
        )
    return prefix + bytes(block)


def turned(data: bytes, orientation: int, size: tuple[int, int]) -> bytes:
    """Turn the subject's place in the block of a picture of `size` = (width, height) as stored; no
    other byte changes.
    """
    block = bytearray(data)
    order = _ORDERS.get(data[:2])
    if order is None or len(data) < 8:
        return data
    top = struct.unpack_from(order + "L", data, 4)[0]
    for tag, kind, count, start in entries(data, order, top):
        if tag != EXIF_DIRECTORY or kind != LONG or count != 1:
            continue
        inside = struct.unpack_from(order + "L", data, start)[0]
        for own, own_kind, own_count, own_start in entries(data, order, inside):
            if (
                own in (_SUBJECT_AREA, _SUBJECT_LOCATION)
                and own_kind == SHORT
                and 2 <= own_count <= 4
            ):
                form = f"{order}{own_count}H"
                numbers = _turn_numbers(
                    struct.unpack_from(form, data, own_start), orientation, size
                )
                struct.pack_into(form, block, own_start, *numbers)
    return bytes(block)


def place(
    x: float, y: float, orientation: int, width: float = 1, height: float = 1
) -> tuple[float, float]:
    """Where a point of a stored picture of `width` x `height` lies in the upright one."""
    if orientation >= 5:
        x, y, width, height = y, x, height, width
    # What is left is to mirror: across, down.
    return (width - x if orientation in (2, 3, 6, 7) else x), (
        height - y if orientation in (3, 4, 7, 8) else y
    )


def _turn_numbers(numbers: Sequence[int], orientation: int, size: tuple[int, int]) -> list[int]:
    """Turn a centre, and the diameter or the sides behind it."""
    x, y = place(numbers[0], numbers[1], orientation, *size)
    rest = list(numbers[2:])
    return [
        min(max(round(x), 0), 65535),
        min(max(round(y), 0), 65535),
        *(rest[::-1] if orientation >= 5 else rest),
    ]


def _directory(block: Block, data: bytes, offset: int, seen: set[int]) -> Directory | None:
    if offset < 8 or offset + 2 > len(data) or offset in seen:
        return None
    seen.add(offset)
    directory = Directory()
    for tag, kind, count, start in entries(data, block.order, offset):
        if not kind:
            block.lost += 1
        elif tag in _CHILDREN:
            pointer = (
                struct.unpack_from(block.order + "L", data, start)[0]
                if SIZES[kind] == 4 and count == 1
                else 0
            )
            child = _directory(block, data, pointer, seen)
            if child is None:
                block.lost += 1
            elif tag not in directory.children:
                directory.children[tag] = child
        elif count and tag not in directory.fields:
            place = start if tag == _MAKER_NOTE else None
            directory.fields[tag] = Field(kind, data[start : start + SIZES[kind] * count], place)
    return directory


@dataclass(frozen=True)
class _Form:
    """How TIFF or BigTIFF writes a directory: letters of its count of entries, of a count of values
    and an offset.
    """

    entries: str
    offset: str
    inline: int  # bytes of a value that stands in the entry itself


_CLASSIC, _BIG = _Form("H", "L", 4), _Form("Q", "Q", 8)


class _Room:
    """A growing piece of a file that keeps one place, (offset, end), free."""

    def __init__(self, start: int, pinned: tuple[int, int] | None) -> None:
        self.start, self.pinned = start, pinned
        self.data = bytearray()

    def take(self, size: int) -> int:
        """Return the even offset of `size` new bytes."""
        offset = self.start + len(self.data) + len(self.data) % 2
        if self.pinned and offset < self.pinned[1] and offset + size > self.pinned[0]:
            offset = self.pinned[1] + self.pinned[1] % 2
        self._grow(offset + size)
        return offset

    def put(self, offset: int, value: bytes) -> None:
        self._grow(offset + len(value))
        self.data[offset - self.start : offset - self.start + len(value)] = value

    def _grow(self, end: int) -> None:
        self.data.extend(bytes(max(0, end - self.start - len(self.data))))


def _pinned(directory: Directory, start: int) -> tuple[int, int] | None:
    """Find the maker's note if it can stay where it was."""
    for child in (directory, *directory.children.values()):
        note = child.fields.get(_MAKER_NOTE)
        if (
            note
            and note.place is not None
            and start <= note.place <= _FARTHEST
            and len(note.data) > 8
        ):
            return note.place, note.place + len(note.data)
    return None


def _place(directory: Directory, form: _Form, order: str, room: _Room) -> int:
    tags = sorted(directory.fields.keys() | directory.children.keys())
    head = struct.pack(order + form.entries, len(tags))
    entry = 4 + 2 * struct.calcsize("=" + form.offset)
    own = room.take(len(head) + entry * len(tags) + struct.calcsize("=" + form.offset))
    for number, tag in enumerate(tags):
        if tag in directory.children:
            child = _place(directory.children[tag], form, order, room)
            found = Field(LONG, struct.pack(order + "L", child))
        else:
            found = directory.fields[tag]
        value = found.data.ljust(form.inline, b"\0")
        if len(value) > form.inline:
            offset = _place_of(found, room)
            room.put(offset, value)
            value = struct.pack(order + form.offset, offset)
        line = struct.pack(f"{order}HH{form.offset}", tag, found.kind, found.count) + value
        room.put(own + len(head) + entry * number, line)
    room.put(own, head)  # what follows the last entry stays 0: there is no next directory
    return own


def _place_of(found: Field, room: _Room) -> int:
    if room.pinned and found.place == room.pinned[0]:
        return room.pinned[0]
    return room.take(len(found.data))
