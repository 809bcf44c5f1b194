"""What travels with a photograph: kept, brought up to date, and marked with where the colours come from."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

from gancolor.photographs import captions, exif, xmp
from gancolor.photographs.contents import Metadata

DESCRIPTION, ORIENTATION, SOFTWARE, RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = 270, 274, 305, 282, 283, 296
"""Tags of an EXIF block's first directory."""

_COLOR_SPACE, _WIDTH, _HEIGHT = 0xA001, 0xA002, 0xA003  # tags of the EXIF directory
_INTEROPERABILITY_INDEX = 1

# How the old file was encoded: of no use in another, and misleading in a TIFF file, where they stand beside the new
# file's own. Among them what points into the old file, Photoshop's layers and thumbnail, XMP and profile (written
# anew), and the marks of a camera's raw file.
_ENCODING = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293, 301, 317, 318)
    + (319, 320, 322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 529, 530, 531, 532, 700, 34377, 34675, 37724)
    + tuple(range(512, 522))
    + tuple(range(50706, 51126))
)


def reset_orientation(data: bytes) -> bytes:
    """Return an EXIF block (with or without its prefix) whose orientation is upright, that of its thumbnail too.

    Nothing else changes, not a byte. A damaged block never raises: what could be read of it is upright.
    """
    prefix = exif.PREFIX if data.startswith(exif.PREFIX) else b""
    block = bytearray(data.removeprefix(prefix))
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None or len(block) < 8:
        return data
    offset = struct.unpack_from(order + "L", block, 4)[0]
    for _ in range(2):  # the picture's directory and the thumbnail's
        if offset < 8 or offset + 2 > len(block):
            break
        for tag, kind, count, start in exif.entries(bytes(block), order, offset):
            if tag == ORIENTATION and kind in (exif.SHORT, exif.LONG) and count == 1:
                struct.pack_into(order + ("H" if kind == exif.SHORT else "L"), block, start, 1)
        following = offset + 2 + 12 * struct.unpack_from(order + "H", block, offset)[0]
        offset = struct.unpack_from(order + "L", block, following)[0] if following + 4 <= len(block) else 0
    return prefix + bytes(block)


def stamp(metadata: Metadata, provenance: str) -> Metadata:
    """Note in EXIF and XMP where the colours come from, such as "colorized by gancolor 0.1.0, model 0007 step 3000".

    In EXIF it stands in Software, in XMP in xmp:CreatorTool, behind what stands there already; XMP also gets IPTC's
    DigitalSourceType for a composite with trained algorithmic media. All else is kept; damaged blocks are replaced.
    """
    note = " ".join("".join(sign if sign.isprintable() else " " for sign in provenance).split())
    block = _block(metadata.exif)
    old = block.top.fields.get(SOFTWARE)
    software = old.data.split(b"\0")[0].decode("utf-8", "replace") if old and old.kind in (exif.ASCII, 129) else ""
    block.top.fields[SOFTWARE] = exif.text(xmp.joined(software, note))
    try:
        packet = xmp.stamped(metadata.xmp, note)
    except ValueError:
        packet = xmp.stamped(None, note)
    return replace(metadata, exif=exif.serialize(block), xmp=packet)


def refresh(metadata: Metadata, height: int, width: int) -> tuple[Metadata, list[str]]:
    """Bring metadata up to date for a new sRGB file of `height` x `width` pixels; returns it with notes.

    Left out: thumbnails (they show the old picture), what told of the old file's encoding, and promises of films and
    gain maps that lay behind the picture, with a note. Set where present: size, colour space, resolution.
    Damaged blocks are left out, with a note.
    """
    notes: list[str] = []
    dpi = metadata.dpi if metadata.dpi and all(map(_is_resolution, metadata.dpi)) else None
    data, packet = metadata.exif, metadata.xmp
    if data is not None:
        try:
            block = exif.parse(data)
        except ValueError:
            data = None
            notes.append("EXIF was damaged: left out")
        else:
            if block.lost:
                notes.append(f"EXIF was damaged: {block.lost} of its fields left out")
            _update(block, height, width, dpi)
            data = exif.serialize(block) if block.top.fields or block.top.children else None
    if packet is not None:
        try:
            packet, promises = xmp.unpromised(xmp.refreshed(packet))
            notes += promises
        except ValueError:
            packet = None
            notes.append("XMP was damaged: left out")
    iptc = metadata.iptc
    if iptc is not None:
        iptc, damaged = captions.refreshed(iptc)
        if damaged:
            notes.append("IPTC was damaged: " + ("part of it " if iptc else "") + "left out")
    return replace(metadata, exif=data, xmp=packet, dpi=dpi, iptc=iptc), notes


def with_description(metadata: Metadata) -> tuple[Metadata, bool]:
    """Put the comment into EXIF's ImageDescription, for formats that have no other place for it.

    Returns whether that went well: a description that says something else stays.
    """
    if metadata.comment is None:
        return metadata, True
    block = _block(metadata.exif)
    new, old = exif.text(captions.text(metadata.comment)), block.top.fields.get(DESCRIPTION)
    if old is not None and old.data.strip(b"\0 "):
        return metadata, old.data.rstrip(b"\0 ") == new.data.rstrip(b"\0 ")
    block.top.fields[DESCRIPTION] = new
    return replace(metadata, exif=exif.serialize(block)), True


def with_resolution(metadata: Metadata) -> Metadata:
    """Put `dpi` into EXIF, for formats that have no other place for it."""
    if metadata.dpi is None:
        return metadata
    block = _block(metadata.exif)
    set_resolution(block, metadata.dpi)
    return replace(metadata, exif=exif.serialize(block))


def set_resolution(block: exif.Block, dpi: tuple[float, float]) -> None:
    """Set the resolution, in pixels per inch, of a block's first directory."""
    block.top.fields[RESOLUTION_X] = block.ratio(dpi[0])
    block.top.fields[RESOLUTION_Y] = block.ratio(dpi[1])
    block.top.fields[RESOLUTION_UNIT] = block.numbers(exif.SHORT, 2)


def _block(data: bytes | None) -> exif.Block:
    try:
        return exif.parse(data) if data is not None else exif.Block()
    except ValueError:
        return exif.Block()


def _is_resolution(value: float) -> bool:
    return math.isfinite(value) and 0.01 <= value <= 1_000_000


def _update(block: exif.Block, height: int, width: int, dpi: tuple[float, float] | None) -> None:
    top = block.top
    for tag in _ENCODING & top.fields.keys():
        del top.fields[tag]
    if ORIENTATION in top.fields:
        top.fields[ORIENTATION] = block.numbers(exif.SHORT, 1)
    if dpi:
        set_resolution(block, dpi)
    details = top.children.get(exif.EXIF_DIRECTORY)
    if details is None:
        return
    for tag, field in (
        (_WIDTH, block.numbers(exif.LONG, width)),
        (_HEIGHT, block.numbers(exif.LONG, height)),
        (_COLOR_SPACE, block.numbers(exif.SHORT, 1)),
    ):
        if tag in details.fields:
            details.fields[tag] = field
    interoperability = details.children.get(exif.INTEROPERABILITY_DIRECTORY)
    if interoperability and _INTEROPERABILITY_INDEX in interoperability.fields:
        interoperability.fields[_INTEROPERABILITY_INDEX] = exif.text("R98")  # sRGB's; R03 is Adobe RGB's
