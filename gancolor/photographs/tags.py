"""Metadata as Pillow finds it in a file: EXIF, XMP, resolution, orientation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import Image

from gancolor.photographs import captions
from gancolor.photographs.contents import Metadata
from gancolor.photographs.metadata import ORIENTATION, reset_orientation

_PREFIX = b"Exif\0\0"
# Of the tags of a TIFF file's own directory, those that tell of the picture and not of the file: description, camera,
# software, date, artist, host, rating, copyright, and Windows' own.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)
_EXIF, _GPS = 0x8769, 0x8825


def metadata_of(image: Image.Image) -> tuple[Metadata, int, list[str]]:
    """Return the metadata, the orientation (EXIF, 1-8) that its pixels have yet to be turned by, and notes."""
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
    """Gather an EXIF block from a TIFF file: the descriptive tags of its directory, its EXIF and GPS directories."""
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
    """Return the comment of a GIF or PNG file from what Pillow tells of a picture; None if there is none."""
    return as_bytes(info.get("comment")) or as_bytes(info.get("Comment"))


def dpi_of(info: Mapping[Any, object]) -> tuple[float, float] | None:
    """Return pixels per inch from what Pillow tells of a picture; None if they are missing or make no sense."""
    value = info.get("dpi")
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    try:
        across, down = float(value[0]), float(value[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if all(math.isfinite(side) and side > 0 for side in (across, down)) else None


def _orientation(found: Image.Exif) -> int:
    value = found.get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
