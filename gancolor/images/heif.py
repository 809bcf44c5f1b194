"""HEIC and HEIF files, through pi_heif: the extra `heif`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from gancolor.errors import MissingExtra
from gancolor.images.metadata import Metadata, as_bytes, as_orientation, clean_exif
from gancolor.images.photograph import Band, Header, Stored
from gancolor.images.pixels import Pixels, bands

_MOST = 10_000  # boxes in a row, and bytes of an item's description
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273


def header(file: BinaryIO) -> Header:
    """Read a HEIC file's header. MissingExtra if pi_heif is not installed, ValueError if the file
    is damaged.
    """
    try:
        import pi_heif
    except ImportError as error:
        raise MissingExtra(
            "HEIC pictures must be read by pi_heif, got no such package; pip install"
            " 'gancolor[heif]'"
        ) from error
    _check_items(file)
    pictures = pi_heif.open_heif(file, convert_hdr_to_8bit=False)
    width, height = pictures.size  # turned by libheif, as are the pixels
    return Header(width=width, height=height, format="HEIC", decode=lambda: _decode(pictures))


def _check_items(file: BinaryIO) -> None:
    """ValueError if the types of a file's items are no text: pi_heif would end the process at them."""
    length = file.seek(0, 2)
    for kind, start, end in _boxes(file, 0, length):
        if kind != b"meta":
            continue
        for inner, first, last in _boxes(file, start + 4, end):
            if inner != b"iinf":
                continue
            file.seek(first)
            version = file.read(1)
            for item, place, stop in _boxes(file, first + (6 if version == b"\0" else 8), last):
                if item == b"infe":
                    file.seek(place)
                    _check_item(file.read(min(stop - place, _MOST)))
    file.seek(0)


def _check_item(data: bytes) -> None:
    start = 8 if data[:1] == b"\2" else 10  # behind the item's number, of 2 or 4 bytes
    kind, texts = data[start : start + 4], data[start + 4 :]
    if data[:1] in (b"\2", b"\3") and not (
        len(kind) == 4 and all(32 <= byte < 127 for byte in kind)
    ):
        raise ValueError("the file is damaged: an item of it is of no type")
    try:
        texts.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is damaged: the name of an item is no text") from None


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a file between two places: kind, and where its content begins and ends."""
    for _ in range(_MOST):
        file.seek(start)
        head = file.read(16)
        if start + 8 > end or len(head) < 8:
            return
        size, kind, inside = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, inside = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else min(start + size, end)
        if stop <= start + 7:
            return
        yield kind, inside, stop
        start = stop


def _decode(pictures: Any) -> Stored:
    info = pictures.info
    bits = int(info.get("bit_depth") or 8)
    pixels = np.asarray(pictures)
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    is_gray = pixels.ndim == 2 or pixels.shape[2] < 3
    notes = [f"the main one of {len(pictures)} pictures"] if len(pictures) > 1 else []
    transfer = _HDR_TRANSFERS.get(
        (info.get("nclx_profile") or {}).get("transfer_characteristics", 0)
    )
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
        turned=as_orientation(info.get("original_orientation")),  # by libheif
        metadata=Metadata(exif=clean_exif(info.get("exif")), xmp=as_bytes(info.get("xmp"))),
        notes=notes,
    )


def _bands(pixels: Pixels, bits: int) -> Iterator[Band]:
    for strip in bands(pixels):
        if strip.dtype == np.uint16 and 8 < bits < 16:
            strip = strip | (strip >> bits)  # pi_heif leaves the lower bits 0: white would be gray
        if strip.ndim == 2:
            yield strip, None
        elif strip.shape[2] < 3:
            yield strip[..., 0], strip[..., 1] if strip.shape[2] == 2 else None
        else:
            yield strip[..., :3], strip[..., 3] if strip.shape[2] == 4 else None
