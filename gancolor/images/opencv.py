"""What OpenCV decodes: AVIF, JPEG 2000, PNM and PNG files of more than eight bits.

Pillow tells of them, and would leave eight bits of their colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.images.metadata import as_bytes, metadata_of, orientation_of
from gancolor.images.photograph import Band, Header, Stored
from gancolor.images.pixels import bands, sixteen_bits
from gancolor.runtime.stderr import stderr_closed

_LOOKED_AT = 1 << 16  # bytes in which a file tells its depth
_PNM = re.compile(
    rb"P[56]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)\s"
)


def top_of(head: bytes, kind: str) -> int:
    """Return the number that stands for white, 255 and less for what is not deep, from a file's
    first 64 KiB.
    """
    if kind == "avif":
        place = head.find(b"av1C")
        flags = head[place + 6] if 0 <= place < len(head) - 6 else 0
        return (4095 if flags & 0x20 else 1023) if flags & 0x40 else 255
    if kind == "jp2":
        place = head.find(b"\xff\x4f\xff\x51")
        # Bits less one; the highest bit: signed.
        depth = head[place + 42] if 0 <= place < len(head) - 42 else 7
        return 2 ** min((depth & 0x7F) + 1, 16) - 1 if depth < 0x80 else 255
    if kind == "pnm" and (found := _PNM.match(head)):
        return int(found[1])
    return 255


def header(file: BinaryIO, kind: str, title: str) -> Header | None:
    """Read the header of a file of more than eight bits; None for one of eight and less."""
    file.seek(0)
    top = top_of(file.read(_LOOKED_AT), kind)
    file.seek(0)
    if not 255 < top < 65536:
        return None
    image = Image.open(file, formats=({"avif": "AVIF", "jp2": "JPEG2000", "pnm": "PPM"}[kind],))
    exif = as_bytes(image.info.get("exif"))
    return Header(
        width=image.width,
        height=image.height,
        format=title,
        orientation=orientation_of(exif),
        decode=lambda: _decode(image, file, title, top),
    )


def _decode(image: Image.Image, file: BinaryIO, title: str, top: int) -> Stored:
    metadata, orientation, notes = metadata_of(image)
    pixels = decode_deep(file)
    if pixels.shape[:2] != (image.height, image.width):
        raise ValueError("the file is damaged: its parts tell of different sizes")
    return Stored(
        width=image.width,
        height=image.height,
        format=title,
        space="gray" if pixels.ndim == 2 else "rgb",
        dtype=np.dtype(np.uint16),
        has_alpha=pixels.ndim == 3 and pixels.shape[2] == 4,
        bands=_bands(pixels, top),
        orientation=orientation,
        profile=as_bytes(image.info.get("icc_profile")),
        metadata=metadata,
        notes=notes,
    )


def decode_deep(file: BinaryIO) -> NDArray[np.uint16]:
    """Decode a file of 16 bits as OpenCV does: (H, W), or (H, W, 3 or 4) blue first. ValueError if
    it cannot.
    """
    name = getattr(file, "name", None)
    with codecs_silenced(), stderr_closed():
        if name is not None and str(name).isascii():  # so its bytes are not in memory as well
            pixels = cv2.imread(str(name), cv2.IMREAD_UNCHANGED)
        else:
            file.seek(0)
            pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("the file is cut off or damaged")
    return np.asarray(pixels, np.uint16)


@contextmanager
def codecs_silenced() -> Iterator[None]:
    """Keep OpenCV's codecs from writing to stderr: the reason travels in the error."""
    level = cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _bands(pixels: NDArray[np.uint16], top: int) -> Iterator[Band]:
    for rows in bands(pixels):
        strip = sixteen_bits(rows, top)
        if strip.ndim == 2:
            yield strip, None
        else:
            yield strip[..., 2::-1], strip[..., 3] if strip.shape[2] == 4 else None
