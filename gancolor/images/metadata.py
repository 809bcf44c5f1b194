"""What a photograph's file holds beside its pixels.

Metadata as Pillow finds it in a file: EXIF, XMP, resolution, orientation.

What in metadata points into a picture, turned as its pixels are: regions of faces, the subject's
place.

Places are those of the picture as its file stores it (Metadata Working Group, Guidelines 2.0,
5.9.1; EXIF 2.32).

What travels with a photograph: kept, brought up to date, and marked with where the colours come
from.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple
from xml.dom.minidom import Attr, Element

from numpy.typing import NDArray
from PIL import Image

from gancolor.images import captions, exif, xmp


class Text(NamedTuple):
    """A text of a PNG file: its chunk's kind (tEXt, zTXt or iTXt) and data, whose keyword ends at
    the first NUL.
    """

    kind: bytes
    data: bytes

    @property
    def keyword(self) -> str:
        """What the text is called: Title, Author, ..."""
        return self.data.partition(b"\0")[0].decode("latin-1")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What travels with a photograph unchanged.

    `exif`: an EXIF block without the leading 'Exif\\0\\0', its orientation reset to upright. `xmp`:
    an XMP packet. `dpi`: pixels per inch, horizontally and vertically. `iptc`: Photoshop's image
    resources ("8BIM" and so on, without JPEG's "Photoshop 3.0\\0"), among them the IPTC record as
    resource 1028, where scans have their captions. `comment`: the file's comment as it has it,
    mostly UTF-8 or Latin-1. `texts`: a PNG file's other texts.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    texts: tuple[Text, ...] = ()


@dataclass(kw_only=True)
class Photograph:
    """A picture file's content, upright and in sRGB.

    `pixels`: (H, W) gray or (H, W, 3) red, green, blue; uint8, uint16, or float32 in [0, 1],
    encoded as sRGB is. `alpha`: (H, W) of the same type, or None. `format`: a title of
    `kinds.KINDS` (JPEG, PNG, ...). `lossless`: a WebP file without loss. `damage`: what is broken
    in it although it could be read, or "". `notes`: what the user should know of this file, a
    sentence each ("the first of 3 pages"), the damage among them.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    lossless: bool = False
    damage: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


_PREFIX = b"Exif\0\0"
# Of the tags of a TIFF file's own directory, those that tell of the picture and not of the file:
# description, camera, software, date, artist, host, rating, copyright, and Windows' own.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)
_EXIF, _GPS = 0x8769, 0x8825


def metadata_of(image: Image.Image) -> tuple[Metadata, int, list[str]]:
    """Return the metadata, the orientation (EXIF, 1-8) that its pixels have yet to be turned by,
    and notes.
    """
    notes: list[str] = []
    exif, orientation = image.info.get("exif"), 1
    try:
        found = image.getexif()
        orientation = _orientation(found)
        if exif is None and found:  # PNG of old, or an orientation that stands in XMP alone
            exif = found.tobytes()
    except Exception:  # Pillow's parser raises whatever the damage leads to
        notes.append("the EXIF block is damaged")
    iptc, comment = captions.of_jpeg(getattr(image, "applist", ()))
    metadata = Metadata(
        exif=clean_exif(exif),
        xmp=as_bytes(image.info.get("xmp")),
        dpi=dpi_of(image.info),
        iptc=iptc,
        comment=comment or comment_of(image.info),
    )
    return metadata, orientation, notes


def orientation_of(block: bytes) -> int:
    """Return the orientation that an EXIF block tells, 1-8; 1 if it is damaged or tells none."""
    found = Image.Exif()
    try:
        found.load(block)
        return _orientation(found)
    except Exception:
        return 1


def clean_exif(block: object) -> bytes | None:
    """Return an EXIF block without its prefix and upright; None if there is none."""
    data = as_bytes(block)
    return None if data is None else reset_orientation(data.removeprefix(_PREFIX))


def tiff_exif(file: BinaryIO) -> bytes | None:
    """Gather an EXIF block from a TIFF file: the descriptive tags of its directory, its EXIF and
    GPS directories.
    """
    found, kept = Image.Exif(), Image.Exif()
    try:
        file.seek(0)
        found.load_from_fp(file)
        for tag in _DESCRIPTIVE:
            if tag in found:
                kept[tag] = found[tag]
        for tag in (_EXIF, _GPS):
            directory = found.get_ifd(tag)
            if directory:
                kept[tag] = dict(directory)
        return clean_exif(kept.tobytes()) if kept else None
    except Exception:  # what cannot be copied is not worth the picture
        return None


def as_bytes(value: object) -> bytes | None:
    """Return what a library gave for a block of bytes; None if it is empty or something else."""
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None


def comment_of(info: Mapping[Any, object]) -> bytes | None:
    """Return the comment of a GIF or PNG file from what Pillow tells of a picture; None if there is
    none.
    """
    return as_bytes(info.get("comment")) or as_bytes(info.get("Comment"))


def dpi_of(info: Mapping[Any, object]) -> tuple[float, float] | None:
    """Return pixels per inch from what Pillow tells of a picture; None if they are missing or make
    no sense.
    """
    value = info.get("dpi")
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    try:
        across, down = float(value[0]), float(value[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (
        (across, down) if all(math.isfinite(side) and side > 0 for side in (across, down)) else None
    )


def _orientation(found: Image.Exif) -> int:
    value = found.get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT = "http://ns.microsoft.com/photo/1.2/t/Region#"
_CROPS, _EXIF_SPACE = (
    "http://ns.adobe.com/camera-raw-settings/1.0/",
    "http://ns.adobe.com/exif/1.0/",
)
_OF_CROPS = (
    "HasCrop",
    "CropTop",
    "CropLeft",
    "CropBottom",
    "CropRight",
    "CropAngle",
    "CropConstrainToWarp",
)


def turned(
    metadata: Metadata, orientation: int, width: int, height: int
) -> tuple[Metadata, list[str]]:
    """Return the metadata of a picture whose pixels are turned upright, and notes of what could not
    be turned.

    `orientation` (EXIF, 1-8) is what they are turned by; `width`, `height` are those of the picture
    as stored.
    """
    if orientation == 1:
        return metadata, []
    notes: list[str] = []
    data, packet = metadata.exif, metadata.xmp
    if data is not None:
        data = _turn_subject(data, orientation, (width, height))
    if packet is not None:
        try:
            packet, notes = _turn_packet(packet, orientation, (width, height))
        except ValueError:  # a damaged packet is left out when it is written
            pass
    return replace(metadata, exif=data, xmp=packet), notes


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


def _turn_subject(data: bytes, orientation: int, size: tuple[int, int]) -> bytes:
    """Turn the subject's place in an EXIF block; no other byte changes."""
    block = bytearray(data)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return data
    top = struct.unpack_from(order + "L", data, 4)[0]
    for tag, kind, count, start in _entries(data, order, top):
        if tag != exif.EXIF_DIRECTORY or kind != exif.LONG or count != 1:
            continue
        inside = struct.unpack_from(order + "L", data, start)[0]
        for own, own_kind, own_count, own_start in _entries(data, order, inside):
            if (
                own in (_SUBJECT_AREA, _SUBJECT_LOCATION)
                and own_kind == exif.SHORT
                and 2 <= own_count <= 4
            ):
                form = f"{order}{own_count}H"
                numbers = _turn_numbers(
                    struct.unpack_from(form, data, own_start), orientation, size
                )
                struct.pack_into(form, block, own_start, *numbers)
    return bytes(block)


def _entries(data: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    return exif.entries(data, order, offset) if 8 <= offset <= len(data) - 2 else iter(())


def _turn_numbers(numbers: Sequence[int], orientation: int, size: tuple[int, int]) -> list[int]:
    """Turn a centre, and the diameter or the sides behind it."""
    x, y = place(numbers[0], numbers[1], orientation, *size)
    rest = list(numbers[2:])
    return [
        min(max(round(x), 0), 65535),
        min(max(round(y), 0), 65535),
        *(rest[::-1] if orientation >= 5 else rest),
    ]


def _turn_packet(packet: bytes, orientation: int, size: tuple[int, int]) -> tuple[bytes, list[str]]:
    document, rdf = xmp.parsed(packet)
    changed = False
    for element in document.getElementsByTagName("*"):
        fields = {
            name: node for name in "xywh" if (node := _field(element, _AREA, name)) is not None
        }
        if "x" in fields and "y" in fields:
            unit = _field(element, _AREA, "unit")
            scale = size if unit is not None and xmp.value_of(unit) == "pixel" else (1, 1)
            changed |= _turn_area(fields, orientation, scale)
        if (element.namespaceURI, element.localName) == (
            _REGIONS,
            "AppliedToDimensions",
        ) and orientation >= 5:
            changed |= _swap(_field(element, _DIMENSIONS, "w"), _field(element, _DIMENSIONS, "h"))
        rectangle = _field(element, _MICROSOFT, "Rectangle")
        if rectangle is not None:
            changed |= _turn_rectangle(rectangle, orientation)
    stale = [node for name in _OF_CROPS for node in xmp.properties(rdf, _CROPS, name)]
    stale += [
        node
        for name in ("SubjectArea", "SubjectLocation")
        for node in xmp.properties(rdf, _EXIF_SPACE, name)
    ]
    for node in stale:
        xmp.remove(node)
    notes = (
        ["crops and places in XMP, of the picture before it was turned upright: left out"]
        if stale
        else []
    )
    return (xmp.written(document) if changed or stale else packet), notes


def _field(element: Element, space: str, name: str) -> Attr | Element | None:
    """A field of a structure, be it written as an attribute or as an element."""
    attribute = element.getAttributeNodeNS(space, name)
    if attribute is not None:
        return attribute
    children = (node for node in element.childNodes if isinstance(node, Element))
    return next(
        (node for node in children if (node.namespaceURI, node.localName) == (space, name)), None
    )


def _turn_area(fields: dict[str, Attr | Element], orientation: int, scale: tuple[int, int]) -> bool:
    try:
        x, y = (float(xmp.value_of(fields[name])) for name in "xy")
    except ValueError:
        return False
    for name, value in zip("xy", place(x, y, orientation, *scale), strict=True):
        xmp.set_value(fields[name], f"{value:.6g}")
    if orientation >= 5:
        _swap(fields.get("w"), fields.get("h"))
    return True


def _swap(first: Attr | Element | None, second: Attr | Element | None) -> bool:
    if first is None or second is None:
        return False
    one, other = xmp.value_of(first), xmp.value_of(second)
    xmp.set_value(first, other)
    xmp.set_value(second, one)
    return True


def _turn_rectangle(node: Attr | Element, orientation: int) -> bool:
    """Turn a corner and the sides behind it, "0.1, 0.2, 0.3, 0.4"."""
    try:
        left, top, width, height = (float(number) for number in xmp.value_of(node).split(","))
    except ValueError:
        return False
    corners = [place(left, top, orientation), place(left + width, top + height, orientation)]
    (left, right), (top, bottom) = (sorted(numbers) for numbers in zip(*corners, strict=True))
    xmp.set_value(
        node, ", ".join(f"{number:.6f}" for number in (left, top, right - left, bottom - top))
    )
    return True


DESCRIPTION, ORIENTATION, SOFTWARE, RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = (
    270,
    274,
    305,
    282,
    283,
    296,
)
"""Tags of an EXIF block's first directory."""

_COLOR_SPACE, _WIDTH, _HEIGHT = 0xA001, 0xA002, 0xA003  # tags of the EXIF directory
_INTEROPERABILITY_INDEX = 1

# How the old file was encoded: of no use in another, and misleading in a TIFF file, where they
# stand beside the new file's own. Among them what points into the old file, Photoshop's layers and
# thumbnail, XMP and profile (written anew), and the marks of a camera's raw file.
_ENCODING = frozenset(
    (
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        266,
        273,
        277,
        278,
        279,
        280,
        281,
        284,
        290,
        291,
        292,
        293,
        301,
        317,
        318,
    )
    + (
        319,
        320,
        322,
        323,
        324,
        325,
        330,
        332,
        338,
        339,
        340,
        341,
        347,
        529,
        530,
        531,
        532,
        700,
        34377,
        34675,
        37724,
    )
    + tuple(range(512, 522))
    + tuple(range(50706, 51126))
)


def reset_orientation(data: bytes) -> bytes:
    """Return an EXIF block (with or without its prefix) whose orientation is upright, that of its
    thumbnail too.

    Nothing else changes, not a byte. A damaged block never raises: what could be read of it is
    upright.
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
        offset = (
            struct.unpack_from(order + "L", block, following)[0]
            if following + 4 <= len(block)
            else 0
        )
    return prefix + bytes(block)


def stamp(metadata: Metadata, provenance: str) -> Metadata:
    """Note in EXIF and XMP where the colours come from, such as "colorized by gancolor 0.1.0, model
    0007 step 3000".

    In EXIF it stands in Software, in XMP in xmp:CreatorTool, behind what stands there already; XMP
    also gets IPTC's DigitalSourceType for a composite with trained algorithmic media. All else is
    kept; damaged blocks are replaced.
    """
    note = " ".join("".join(sign if sign.isprintable() else " " for sign in provenance).split())
    block = _block(metadata.exif)
    old = block.top.fields.get(SOFTWARE)
    software = (
        old.data.split(b"\0")[0].decode("utf-8", "replace")
        if old and old.kind in (exif.ASCII, 129)
        else ""
    )
    block.top.fields[SOFTWARE] = exif.text(xmp.joined(software, note))
    try:
        packet = xmp.stamped(metadata.xmp, note)
    except ValueError:
        packet = xmp.stamped(None, note)
    return replace(metadata, exif=exif.serialize(block), xmp=packet)


def refresh(metadata: Metadata, height: int, width: int) -> tuple[Metadata, list[str]]:
    """Bring metadata up to date for a new sRGB file of `height` x `width` pixels; returns it with
    notes.

    Left out: thumbnails (they show the old picture), what told of the old file's encoding, and
    promises of films and gain maps that lay behind the picture, with a note. Set where present:
    size, colour space, resolution. Damaged blocks are left out, with a note.
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
    for tag, content in (
        (_WIDTH, block.numbers(exif.LONG, width)),
        (_HEIGHT, block.numbers(exif.LONG, height)),
        (_COLOR_SPACE, block.numbers(exif.SHORT, 1)),
    ):
        if tag in details.fields:
            details.fields[tag] = content
    interoperability = details.children.get(exif.INTEROPERABILITY_DIRECTORY)
    if interoperability and _INTEROPERABILITY_INDEX in interoperability.fields:
        interoperability.fields[_INTEROPERABILITY_INDEX] = exif.text(
            "R98"
        )  # sRGB's; R03 is Adobe RGB's
