"""HEIC and HEIF files, through pi_heif: the extra `heif`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import MissingExtra
from gancolor.photographs.contents import Metadata
from gancolor.photographs.stored import BAND_PIXELS, Band, Header, Stored
from gancolor.photographs.tags import as_bytes, clean_exif

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273


def header(file: BinaryIO) -> Header:
    """Read a HEIC file's header. MissingExtra if pi_heif is not installed, ValueError if the file is damaged."""
    try:
        import pi_heif
    except ImportError as error:
        raise MissingExtra(
            "HEIC pictures must be read by pi_heif, got no such package; pip install 'gancolor[heif]'"
        ) from error
    pictures = pi_heif.open_heif(file, convert_hdr_to_8bit=False)
    width, height = pictures.size  # turned by libheif, as are the pixels
    return Header(width=width, height=height, format="HEIC", decode=lambda: _decode(pictures))


def _decode(pictures: Any) -> Stored:
    info = pictures.info
    bits = int(info.get("bit_depth") or 8)
    pixels = np.asarray(pictures)
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    is_gray = pixels.ndim == 2 or pixels.shape[2] < 3
    notes = [f"the main one of {len(pictures)} pictures"] if len(pictures) > 1 else []
    transfer = _HDR_TRANSFERS.get((info.get("nclx_profile") or {}).get("transfer_characteristics", 0))
    profile = as_bytes(info.get("icc_profile"))
    if transfer and not profile:
        notes.append(f"tones of high dynamic range ({transfer}) were taken as they are")
    return Stored(
        width=pixels.shape[1],
        height=pixels.shape[0],
        format="HEIC",
        space="gray" if is_gray else "rgb",
        dtype=np.dtype(np.uint16 if pixels.dtype == np.uint16 else np.uint8),
        has_alpha=has_alpha,
        bands=_bands(pixels, bits),
        profile=profile,
        turned=_turned(info),
        metadata=Metadata(exif=clean_exif(info.get("exif")), xmp=as_bytes(info.get("xmp"))),
        notes=notes,
    )


def _turned(info: Any) -> int:
    """What libheif has turned the pixels by, as EXIF says it."""
    value = info.get("original_orientation")
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _bands(pixels: NDArray[Any], bits: int) -> Iterator[Band]:
    rows = max(1, BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        if strip.dtype == np.uint16 and 8 < bits < 16:
            strip = strip | (strip >> bits)  # pi_heif leaves the lower bits 0: white would not be white
        if strip.ndim == 2:
            yield strip, None
        elif strip.shape[2] < 3:
            yield strip[..., 0], strip[..., 1] if strip.shape[2] == 2 else None
        else:
            yield strip[..., :3], strip[..., 3] if strip.shape[2] == 4 else None
