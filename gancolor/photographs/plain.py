"""Pictures of up to eight bits, in the formats that Pillow decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from PIL import Image

from gancolor.photographs import captions
from gancolor.photographs.quiet import Meanwhile, stderr_closed
from gancolor.photographs.stored import BAND_PIXELS, Band, Header, Stored
from gancolor.photographs.tags import as_bytes, metadata_of, orientation_of, tiff_exif

_NAMES = {"MPO": "JPEG"}  # Pillow's name of JPEG files with several pictures
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF")
_PARTS = {"TIFF": "pages", "MPO": "pictures"}  # of files that hold several; else they are frames

# Modes of Pillow -> the mode whose arrays are taken, and the space of those. "I;16" is a TIFF file of 12 bits:
# deeper ones do not come here.
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
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}

unlimited = Meanwhile(Image, "MAX_IMAGE_PIXELS", None)
"""Lifts Pillow's own limit on pixels, which is the whole process's."""


def header(file: BinaryIO) -> Header:
    """Read a file's header. Raises what Pillow raises."""
    image = Image.open(file, formats=_FORMATS)
    name = _NAMES.get(image.format or "", image.format or "")
    exif = as_bytes(image.info.get("exif"))
    # Pillow turns TIFF files by itself, and gives their size as turned.
    orientation = 1 if exif is None or name == "TIFF" else orientation_of(exif)
    return Header(
        width=image.width,
        height=image.height,
        format=name,
        orientation=orientation,
        decode=lambda: _decode(image, file, name),
    )


def _decode(image: Image.Image, file: BinaryIO, name: str) -> Stored:
    notes = _notes_of_parts(image)
    with stderr_closed() if name == "TIFF" else nullcontext():  # libtiff
        image.load()  # now: PNG may tell of its orientation behind the pixels
    metadata, orientation, found = metadata_of(image)
    if name == "TIFF":
        orientation = 1
        iptc, more = captions.of_tiff(file)
        metadata = replace(metadata, exif=tiff_exif(file), iptc=iptc)
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
        format=name,
        space=space,
        dtype=np.dtype(np.uint16 if mode.startswith("I;16") else np.uint8),
        has_alpha=mode in ("LA", "RGBA"),
        bands=_bands(image, mode),
        orientation=orientation,
        profile=as_bytes(image.info.get("icc_profile")),
        metadata=metadata,
        notes=notes + found,
    )


def _notes_of_parts(image: Image.Image) -> list[str]:
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
        pixels = np.asarray(strip if strip.mode == mode else strip.convert(mode))
        if mode.startswith("I;16"):
            yield ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16), None
        elif mode == "LA":
            yield pixels[..., 0], pixels[..., 1]
        elif mode == "RGBA":
            yield pixels[..., :3], pixels[..., 3]
        else:
            yield pixels, None
