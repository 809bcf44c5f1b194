"""PNG files of 16 bits: Pillow tells of them, OpenCV decodes them, since Pillow makes eight bits of colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.photographs import made_profiles, png_chunks
from gancolor.photographs.contents import Metadata
from gancolor.photographs.deep_opencv import decode_deep
from gancolor.photographs.stored import BAND_PIXELS, Band, Header, Stored
from gancolor.photographs.tags import as_bytes, clean_exif, dpi_of, orientation_of

_GRAY, _GRAY_ALPHA = 0, 4  # colour types


def is_deep(head: bytes) -> bool:
    """Say whether the first 32 bytes are those of a PNG file of 16 bits."""
    return head[12:16] == b"IHDR" and head[24:25] == b"\x10"


def header(file: BinaryIO) -> Header:
    """Read the header of a 16-bit PNG file."""
    image = Image.open(file, formats=("PNG",))
    exif = as_bytes(image.info.get("exif"))
    return Header(
        width=image.width,
        height=image.height,
        format="PNG",
        orientation=1 if exif is None else orientation_of(exif),
        decode=lambda: _decode(image, file),
    )


def _decode(image: Image.Image, file: BinaryIO) -> Stored:
    file.seek(25)
    color_type = file.read(1)[0]
    found = png_chunks.walk(file)
    exif = as_bytes(image.info.get("exif")) or found.exif
    is_gray = color_type in (_GRAY, _GRAY_ALPHA)
    # One gray or colour may be transparent; of colours, OpenCV makes alpha itself.
    key = image.info.get("transparency")
    pixels = decode_deep(file)
    frames = int(getattr(image, "n_frames", 1))
    profile, notes = made_profiles.of_png(found.colors, as_bytes(image.info.get("icc_profile")))
    return Stored(
        width=image.width,
        height=image.height,
        format="PNG",
        space="gray" if is_gray else "rgb",
        dtype=np.dtype(np.uint16),
        has_alpha=key is not None or pixels.ndim == 3 and pixels.shape[2] == 4,
        bands=_bands(pixels, is_gray, key if isinstance(key, int) else None),
        orientation=1 if exif is None else orientation_of(exif),
        profile=profile,
        metadata=Metadata(
            exif=clean_exif(exif),
            xmp=as_bytes(image.info.get("xmp")) or found.xmp,
            dpi=dpi_of(image.info),
            comment=found.comment,
            texts=tuple(found.texts),
        ),
        notes=([f"the first of {frames} frames"] if frames > 1 else []) + notes,
    )


def _bands(pixels: NDArray[np.uint16], is_gray: bool, key: int | None) -> Iterator[Band]:
    rows = max(1, BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        if strip.ndim == 2:
            yield strip, None if key is None else np.where(strip == key, 0, 65535)
        else:
            alpha = strip[..., 3] if strip.shape[2] == 4 else None
            yield strip[..., 0] if is_gray else strip[..., 2::-1], alpha
