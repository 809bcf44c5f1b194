"""The chunks of a PNG file: whether all are there and whole, and those that tell of the picture."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

from gancolor.photographs.contents import Text

_PIECE = 2**20  # bytes
_MOST = 2**24  # bytes of a chunk that is kept
_XMP = b"XML:com.adobe.xmp"
_COMMENT = b"Comment"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLORS = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP")
# Copies of EXIF, IPTC and XMP as ImageMagick writes them, and what told of a thumbnail's original.
_STALE = (b"Raw profile type", b"Thumb::")


@dataclass
class Chunks:
    """What was found: the colour chunks' data by their names, EXIF, XMP, a comment, and all other texts."""

    colors: dict[bytes, bytes] = field(default_factory=dict)
    exif: bytes | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    texts: list[Text] = field(default_factory=list)


def walk(file: BinaryIO) -> Chunks:
    """Walk all chunks of a PNG file. ValueError if the end is missing or the checksum of a critical one is wrong.

    Decoders would fill the rest with black, and say nothing.
    """
    found = Chunks()
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("the file is cut off")
        length, kind = struct.unpack(">I4s", head)
        keep = (kind == b"eXIf" or kind in _TEXTS or kind in _COLORS) and length <= _MOST
        checksum, data = _checked(file, length, zlib.crc32(kind), keep)
        end = file.read(4)
        if len(end) < 4:
            raise ValueError("the file is cut off")
        whole = checksum == int.from_bytes(end, "big")
        if kind[:1].isupper() and not whole:
            raise ValueError("the file is damaged: the checksum of a part is wrong")
        if keep and whole:
            _note(found, kind, data)
        if kind == b"IEND":
            return found


def _note(found: Chunks, kind: bytes, data: bytes) -> None:
    if kind in _COLORS:
        found.colors.setdefault(kind, data)
    elif kind == b"eXIf":
        found.exif = found.exif or data
    else:
        keyword = data.partition(b"\0")[0]
        if keyword == _XMP and kind == b"iTXt":
            found.xmp = found.xmp or _content(data)
        elif keyword == _COMMENT and kind != b"zTXt" and found.comment is None:
            found.comment = _content(data) if kind == b"iTXt" else data.partition(b"\0")[2]
        elif keyword and not keyword.startswith(_STALE):
            found.texts.append(Text(kind, data))


def _content(data: bytes) -> bytes | None:
    """The text of an iTXt chunk; None if it is damaged."""
    _, _, rest = data.partition(b"\0")
    if len(rest) < 2:
        return None
    packed, rest = rest[0], rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]  # behind language and translated keyword
    if not packed:
        return text or None
    try:
        return zlib.decompressobj().decompress(text, _MOST) or None
    except zlib.error:
        return None


def _checked(file: BinaryIO, length: int, checksum: int, keep: bool) -> tuple[int, bytes]:
    kept = []
    while length:
        piece = file.read(min(length, _PIECE))
        if not piece:
            raise ValueError("the file is cut off")
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
        if keep:
            kept.append(piece)
    return checksum, b"".join(kept)
