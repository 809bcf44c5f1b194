"""Pictures of up to eight bits, in the formats that Pillow decodes.

Pillow says nothing of some damage, and forgets some of what a file tells: that is looked for here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from gancolor.images import captions, exif, jpeg, png, profiles
from gancolor.images.formats import Kind
from gancolor.images.metadata import (
    as_bytes,
    as_orientation,
    metadata_of,
    orientation_of,
    tiff_exif,
)
from gancolor.images.photograph import Band, Header, Stored
from gancolor.images.pixels import BAND_PIXELS, sixteen_bits
from gancolor.runtime.stderr import Meanwhile, stderr_heard

_NAMES = {"jp2": "JPEG2000", "pnm": "PPM"}  # Pillow's names of kinds, where they are others
_PARTS = {"MPO": "pictures"}  # of files that hold several; else they are frames

# Modes of Pillow -> the mode whose arrays are taken, and the space of those. "I;16" is a TIFF file
# of 12 bits: deeper ones do not come here.
_MODES = {
    "1": ("L", "gray"),
    "L": ("L", "gray"),
    "LA": ("LA", "gray"),
    "La": ("LA", "gray"),
    "I;16": ("I;16", "gray"),
    "I;16B": ("I;16B", "gray"),
    "P": ("RGB", "rgb"),
    "PA": ("RGBA", "rgb"),
    "RGB": ("RGB", "rgb"),
    "RGBX": ("RGB", "rgb"),
    "RGBA": ("RGBA", "rgb"),
    "RGBa": ("RGBA", "rgb"),
    "YCbCr": ("RGB", "rgb"),
    "CMYK": ("CMYK", "cmyk"),
    "LAB": ("LAB", "lab"),
}
_VERSION_INFO = 1057  # of a PSD file's resources; its fifth byte: whether it is flattened
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}

unlimited = Meanwhile(Image, "MAX_IMAGE_PIXELS", None)
"""Lifts Pillow's own limit on pixels, which is the whole process's."""


def header(file: BinaryIO, kind: Kind, page: int = 0, notes: list[str] | None = None) -> Header:
    """Read a file's header. Raises what Pillow raises, ValueError for what it does not support.

    `page`, `notes`: of a TIFF file, the page that holds the picture and what is to be said of the
    others.
    """
    image = _opened(file, kind)
    if page:
        image.seek(page)
    # Pillow turns TIFF files by itself, and gives their size as turned.
    block = None if kind.name == "tiff" else as_bytes(image.info.get("exif"))
    return Header(
        width=image.width,
        height=image.height,
        format=kind.title,
        orientation=orientation_of(block),
        decode=lambda: _decode(image, file, kind, notes),
    )


def _opened(file: BinaryIO, kind: Kind) -> Image.Image:
    name = _NAMES.get(kind.name, kind.name.upper())
    try:
        return Image.open(file, formats=(name,))
    except UnidentifiedImageError as error:
        # It keeps the reason to itself.
        try:
            file.seek(0)
            Image.OPEN[name][0](file, "")
        except (SyntaxError, OSError, ValueError) as reason:
            if is_unsupported(str(reason)):
                raise ValueError(
                    f"this kind of {kind.title} is not supported ({reason})"
                ) from error
        except struct.error:
            # Pillow before 13 gives up a JPEG file whose list of further pictures is damaged.
            if name == "JPEG":
                file.seek(0)
                return JpegImageFile(file)
        raise


def is_unsupported(words: str) -> bool:
    """Whether a library's words tell of what it does not know, and not of damage."""
    low = words.lower()
    return any(
        each in low
        for each in (
            "unsupported",
            "not supported",
            "not available",
            "not configured",
            "not implemented",
            "unknown",
        )
    )


def _decode(image: Image.Image, file: BinaryIO, kind: Kind, told: list[str] | None) -> Stored:
    notes = _notes_of_parts(image) if told is None else list(told)
    as_told = _tiff_orientation(image)
    damage = ""
    if kind.name == "jpeg":
        image, damage, more = _checked_jpeg(image, file, kind)
        notes += more
    chunks = png.walk(file) if kind.name == "png" else None
    if kind.name == "webp":
        _check_riff(file)
    if kind.name == "psd":
        _check_composite(image)
    _load(image, kind)  # now: PNG may tell of its orientation behind the pixels
    metadata, orientation, found = metadata_of(image)
    turned = 1
    profile = as_bytes(image.info.get("icc_profile"))
    if kind.name == "tiff":
        orientation, turned = 1, as_told
        iptc, more = captions.of_tiff(file)
        metadata = replace(metadata, exif=tiff_exif(file), iptc=iptc)
        found += more
    if chunks is not None:
        profile, more = profiles.of_png(chunks.colors, profile)
        comment = chunks.comment or metadata.comment
        metadata = replace(
            metadata, texts=tuple(chunks.texts), xmp=metadata.xmp or chunks.xmp, comment=comment
        )
        found += more
    if image.mode not in _MODES:
        raise ValueError(f"pixels of the mode {image.mode} are not supported")
    mode, space = _MODES[image.mode]
    if image.mode == "P" and _has_gray_palette(image):
        mode, space = "L", "gray"
    if image.has_transparency_data:
        mode = _WITH_ALPHA.get(mode, mode)
    return Stored(
        width=image.width,
        height=image.height,
        format=kind.title,
        space=space,
        dtype=np.dtype(np.uint16 if mode.startswith("I;16") else np.uint8),
        has_alpha=mode in ("LA", "RGBA"),
        bands=_bands(image, mode),
        orientation=orientation,
        turned=turned,
        profile=profile,
        metadata=metadata,
        notes=notes + found,
        damage=damage,
        lossless=kind.name == "webp" and _is_lossless(file),
    )


def _load(image: Image.Image, kind: Kind) -> None:
    if kind.name != "tiff":
        image.load()
        return
    with stderr_heard() as said:  # libtiff has its words there
        try:
            image.load()
            return
        except OSError as error:
            failure = error
    words = next((line for line in said if is_unsupported(line)), "")
    if words:
        raise ValueError(f"this kind of TIFF is not supported ({words})") from failure
    raise failure


def _tiff_orientation(image: Image.Image) -> int:
    """What Pillow turns a TIFF file's pixels by when it loads them, and then forgets; 1 for other
    files.
    """
    return as_orientation(getattr(image, "tag_v2", {}).get(exif.ORIENTATION))


def _checked_jpeg(
    image: Image.Image, file: BinaryIO, kind: Kind
) -> tuple[Image.Image, str, list[str]]:
    """Hear what libjpeg says of a JPEG file; returns it with its end mark, the damage, and notes.

    ValueError if a part of it is missing.
    """
    file.seek(0)
    data = file.read()
    of = jpeg.outline(data)
    data, mended = jpeg.ended(data, of)
    # An eighth of the size is enough to hear all that is wrong.
    _, damage = jpeg.decode(data, cv2.IMREAD_REDUCED_COLOR_8)
    if not mended:
        return (
            image,
            damage,
            [f"the file is damaged, parts of the picture are made up ({damage})"] if damage else [],
        )
    if damage:
        raise ValueError(f"the file is cut off ({damage})")
    note = "the end mark of the file is missing, but all pixels are there"
    return _opened(io.BytesIO(data), kind), "", [note]


def _check_riff(file: BinaryIO) -> None:
    file.seek(0)
    size = int.from_bytes(file.read(8)[4:], "little")
    if file.seek(0, io.SEEK_END) < 8 + size:
        raise ValueError("the file is cut off")


def _is_lossless(file: BinaryIO) -> bool:
    """Whether the first picture of a WebP file is stored without loss."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8L", b"VP8 "):
            return head[:4] == b"VP8L"
        if head[:4] == b"ANMF":  # a frame's own chunks begin behind 16 bytes
            file.seek(16, io.SEEK_CUR)
            continue
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, io.SEEK_CUR)
    return False


def _check_composite(image: Image.Image) -> None:
    """Refuse a PSD file whose flattened picture was not saved: there is nothing but white in its
    place.
    """
    for resource in getattr(image, "resources", ()):
        if resource[0] == _VERSION_INFO and len(resource[2]) > 4 and not resource[2][4]:
            raise ValueError(
                "a PSD file without its flattened picture is not supported; save it for"
                " compatibility"
            )


def _notes_of_parts(image: Image.Image) -> list[str]:
    if image.format == "PSD":  # the flattened picture is that of all layers
        return []
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # the first may be whole where a later one is not
        return ["the first of several frames, of which some are damaged"]
    return [f"the first of {count} {_PARTS.get(image.format or '', 'frames')}"] if count > 1 else []


def _has_gray_palette(image: Image.Image) -> bool:
    if "transparency" in image.info:
        return False
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return bool(len(palette) and (palette == palette[:, :1]).all())


def _bands(image: Image.Image, mode: str) -> Iterator[Band]:
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(strip if strip.mode == mode else strip.convert(mode))
        if mode.startswith("I;16"):  # 12 bits
            yield sixteen_bits(values, 4095), None
        elif mode == "LA":
            yield values[..., 0], values[..., 1]
        elif mode == "RGBA":
            yield values[..., :3], values[..., 3]
        else:
            yield values, None
