"""What travels with a photograph beside its pixels: EXIF, XMP, captions, resolution, texts.

It is gathered from a file as Pillow tells of it, turned as the pixels are, brought up to date for a
new file, and marked with where the colours come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from gancolor.images import captions, exif, xmp

# Of the tags of a TIFF file's own directory, those that tell of the picture and not of the file:
# description, camera, software, date, artist, host, rating, copyright, and Windows' own.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)

_COLOR_SPACE, _WIDTH, _HEIGHT = 0xA001, 0xA002, 0xA003  # tags of the EXIF directory
_INTEROPERABILITY_INDEX = 1

# How the old file was encoded: of no use in another, and misleading in a TIFF file, where they
# stand beside the new file's own. Among them what points into the old file, Photoshop's layers and
# thumbnail, XMP and profile (written anew), and the marks of a camera's raw file.
_ENCODING = frozenset(
    int(tag)
    for tag in (
        "254 255 256 257 258 259 262 263 266 273 277 278 279 280 281 284 290 291 292 293 "
        "301 317 318 319 320 322 323 324 325 330 332 338 339 340 341 347 529 530 531 532 "
        "700 34377 34675 37724 "
    ).split()
) | {*range(512, 522), *range(50706, 51126)}


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


def metadata_of(image: Image.Image) -> tuple[Metadata, int, list[str]]:
    """Return the metadata, the orientation (EXIF, 1-8) that its pixels have yet to be turned by,
    and notes.
    """
    notes: list[str] = []
    block, orientation = image.info.get("exif"), 1
    try:
        found = image.getexif()
        orientation = as_orientation(found.get(exif.ORIENTATION))
        if block is None and found:  # PNG of old, or an orientation that stands in XMP alone
            block = found.tobytes()
    except Exception:  # Pillow's parser raises whatever the damage leads to
        notes.append("the EXIF block is damaged")
    iptc, comment = captions.of_jpeg(getattr(image, "applist", ()))
    metadata = Metadata(
        exif=clean_exif(block),
        xmp=as_bytes(image.info.get("xmp")),
        dpi=dpi_of(image.info),
        iptc=iptc,
        comment=comment or comment_of(image.info),
    )
    return metadata, orientation, notes


def as_orientation(value: object) -> int:
    """Return what a library gave for an orientation (EXIF, 1-8); 1 if it is something else."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_sides(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height of a picture when it is turned upright, from those as stored; or back."""
    return (width, height) if orientation < 5 else (height, width)


def orientation_of(block: bytes | None) -> int:
    """Return the orientation that an EXIF block tells, 1-8; 1 if it is damaged or tells none."""
    found = Image.Exif()
    if block is None:
        return 1
    try:
        found.load(block)
        return as_orientation(found.get(exif.ORIENTATION))
    except Exception:
        return 1


def clean_exif(block: object) -> bytes | None:
    """Return an EXIF block without its prefix and upright; None if there is none."""
    data = as_bytes(block)
    return None if data is None else exif.reset_orientation(data.removeprefix(exif.PREFIX))


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
        for tag in (exif.EXIF_DIRECTORY, exif.GPS_DIRECTORY):
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
        data = exif.turned(data, orientation, (width, height))
    if packet is not None:
        try:
            packet, notes = xmp.turned(packet, orientation, (width, height))
        except ValueError:  # a damaged packet is left out when it is written
            pass
    return replace(metadata, exif=data, xmp=packet), notes


def stamp(metadata: Metadata, provenance: str) -> Metadata:
    """Note in EXIF and XMP where the colours come from, such as "colorized by gancolor 0.1.0, model
    0007 step 3000".

    In EXIF it stands in Software, in XMP in xmp:CreatorTool, behind what stands there already; XMP
    also gets IPTC's DigitalSourceType for a composite with trained algorithmic media. All else is
    kept; damaged blocks are replaced.
    """
    note = " ".join("".join(sign if sign.isprintable() else " " for sign in provenance).split())
    block = _block_of(metadata.exif)
    old = block.top.fields.get(exif.SOFTWARE)
    software = (
        old.data.split(b"\0")[0].decode("utf-8", "replace")
        if old and old.kind in (exif.ASCII, exif.UTF8)
        else ""
    )
    block.top.fields[exif.SOFTWARE] = exif.text(xmp.joined(software, note))
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
    block = _block_of(metadata.exif)
    new, old = exif.text(captions.text(metadata.comment)), block.top.fields.get(exif.DESCRIPTION)
    if old is not None and old.data.strip(b"\0 "):
        return metadata, old.data.rstrip(b"\0 ") == new.data.rstrip(b"\0 ")
    block.top.fields[exif.DESCRIPTION] = new
    return replace(metadata, exif=exif.serialize(block)), True


def with_resolution(metadata: Metadata) -> Metadata:
    """Put `dpi` into EXIF, for formats that have no other place for it."""
    if metadata.dpi is None:
        return metadata
    block = _block_of(metadata.exif)
    set_resolution(block, metadata.dpi)
    return replace(metadata, exif=exif.serialize(block))


def set_resolution(block: exif.Block, dpi: tuple[float, float]) -> None:
    """Set the resolution, in pixels per inch, of a block's first directory."""
    block.top.fields[exif.RESOLUTION_X] = block.ratio(dpi[0])
    block.top.fields[exif.RESOLUTION_Y] = block.ratio(dpi[1])
    block.top.fields[exif.RESOLUTION_UNIT] = block.numbers(exif.SHORT, 2)


def _block_of(data: bytes | None) -> exif.Block:
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
    if exif.ORIENTATION in top.fields:
        top.fields[exif.ORIENTATION] = block.numbers(exif.SHORT, 1)
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
        # R98 is sRGB, R03 would be Adobe RGB.
        interoperability.fields[_INTEROPERABILITY_INDEX] = exif.text("R98")
