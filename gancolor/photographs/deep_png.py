"""PNG files of 16 bits: Pillow tells of them, OpenCV decodes them, since Pillow makes eight bits of colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.photographs.contents import Metadata
from gancolor.photographs.quiet import stderr_closed
from gancolor.photographs.stored import BAND_PIXELS, Band, Header, Stored
from gancolor.photographs.tags import as_bytes, clean_exif, comment_of, dpi_of, orientation_of

_GRAY, _GRAY_ALPHA = 0, 4  # colour types
_PIECE = 2**20  # bytes
_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"  # not compressed, as XMP's specification wants it
_COMMENT, _LATIN_COMMENT = b"Comment\0\0\0\0\0", b"Comment\0"  # of iTXt and tEXt


def is_deep(head: bytes) -> bool:
    """Say whether the first 32 bytes are those of a PNG file of 16 bits."""
    return head[12:16] == b"IHDR" and head[24:25] == b"\x10"


def header(file: BinaryIO, path: Path) -> Header:
    """Read the header of a 16-bit PNG file."""
    image = Image.open(file, formats=("PNG",))
    exif = as_bytes(image.info.get("exif"))
    return Header(
        width=image.width,
        height=image.height,
        format="PNG",
        orientation=1 if exif is None else orientation_of(exif),
        decode=lambda: _decode(image, file, path),
    )


def _decode(image: Image.Image, file: BinaryIO, path: Path) -> Stored:
    file.seek(25)
    color_type = file.read(1)[0]
    late = _walk(file)
    if b"eXIf" in late:
        image.info.setdefault("exif", late[b"eXIf"])
    if b"iTXt" in late:
        image.info.setdefault("xmp", late[b"iTXt"][len(_XMP) :])
    exif = as_bytes(image.info.get("exif"))
    is_gray = color_type in (_GRAY, _GRAY_ALPHA)
    # One gray or colour may be transparent; of colours, OpenCV makes alpha itself.
    key = image.info.get("transparency")
    pixels = _pixels(path)
    frames = int(getattr(image, "n_frames", 1))
    return Stored(
        width=image.width,
        height=image.height,
        format="PNG",
        space="gray" if is_gray else "rgb",
        dtype=np.dtype(np.uint16),
        has_alpha=key is not None or pixels.ndim == 3 and pixels.shape[2] == 4,
        bands=_bands(pixels, is_gray, key if isinstance(key, int) else None),
        orientation=1 if exif is None else orientation_of(exif),
        profile=as_bytes(image.info.get("icc_profile")),
        metadata=Metadata(
            exif=clean_exif(exif),
            xmp=as_bytes(image.info.get("xmp")),
            dpi=dpi_of(image.info),
            comment=comment_of(image.info) or as_bytes(late.get(b"tEXt")),
        ),
        notes=[f"the first of {frames} frames"] if frames > 1 else [],
    )


def _walk(file: BinaryIO) -> dict[bytes, bytes]:
    """Check that the file is whole (OpenCV would fill the rest with black); return data of EXIF, XMP, comment (tEXt).

    ValueError if the end is missing or a chunk's checksum is wrong.
    """
    found: dict[bytes, bytes] = {}
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("the file is cut off")
        length, kind = struct.unpack(">I4s", head)
        keep = kind in (b"eXIf", b"iTXt", b"tEXt")
        checksum, data = _checked(file, length, zlib.crc32(kind), keep)
        end = file.read(4)
        if len(end) < 4:
            raise ValueError("the file is cut off")
        if kind[:1].isupper() and checksum != int.from_bytes(end, "big"):
            raise ValueError("the file is damaged")
        if keep and (kind == b"eXIf" or data.startswith(_XMP)):
            found.setdefault(kind, data)
        if data.startswith((_COMMENT, _LATIN_COMMENT)):
            found.setdefault(b"tEXt", data.removeprefix(_COMMENT).removeprefix(_LATIN_COMMENT))
        if kind == b"IEND":
            return found


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


def _pixels(path: Path) -> NDArray[np.uint16]:
    level = cv2.utils.logging.setLogLevel(0)  # the reason travels in the error
    try:
        with stderr_closed():
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except UnicodeError:  # a name that is no text
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("the file is damaged")
    return np.asarray(pixels, np.uint16)


def _bands(pixels: NDArray[np.uint16], is_gray: bool, key: int | None) -> Iterator[Band]:
    rows = max(1, BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        if strip.ndim == 2:
            yield strip, None if key is None else np.where(strip == key, 0, 65535)
        else:
            alpha = strip[..., 3] if strip.shape[2] == 4 else None
            yield strip[..., 0] if is_gray else strip[..., 2::-1], alpha
