"""TIFF written strip by strip: 8, 16 bits or float, alpha, and EXIF as real directories of the file."""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gancolor.photographs import captions, exif
from gancolor.photographs.contents import Metadata
from gancolor.photographs.depths import strips
from gancolor.photographs.metadata import set_resolution

_LEVEL, _FLOAT_LEVEL = 4, 1  # 6 takes twice the time for 1.5 % less; floats hardly shrink at any level
_STRIP = 1 << 19  # bytes before compression
_CLASSIC_LIMIT = 4_000_000_000  # bytes of pixels up to which 32-bit offsets surely do


def write(
    stream: IO[bytes],
    rgb: NDArray[Any],
    alpha: NDArray[Any] | None,
    metadata: Metadata,
    profile: bytes,
    dtype: DTypeLike,
) -> None:
    """Write (H, W, 3) with alpha (H, W) or None, deflated, as uint8, uint16 or float32; `profile` is an ICC profile.

    The byte order is that of the EXIF block, whose directories come first so that the maker's note keeps its place;
    alpha is an unassociated extra sample. Beyond 4 GB it is a BigTIFF.
    """
    block = exif.Block() if metadata.exif is None else exif.parse(metadata.exif)
    height, width = rgb.shape[:2]
    channels = 3 if alpha is None else 4
    big = height * width * channels * np.dtype(dtype).itemsize > _CLASSIC_LIMIT
    order, mark = block.order, b"II" if block.order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HL", 42, 0)
    stream.write(mark + head)
    for tag, child in block.top.children.items():
        start = _even(stream)
        laid, offset = exif.lay_out(child, order, start, big=big)
        stream.write(laid)
        block.top.fields[tag] = block.numbers(exif.LONG, offset)
    block.top.children = {}
    rows, offsets, sizes = _write_pixels(stream, rgb, alpha, dtype, order)
    _describe(block, (height, width, channels), np.dtype(dtype), rows)
    wide = exif.LONG8 if big else exif.LONG
    block.top.fields |= {273: block.numbers(wide, *offsets), 279: block.numbers(wide, *sizes)}
    block.top.fields[34675] = exif.Field(exif.UNDEFINED, profile)
    if metadata.xmp is not None:
        block.top.fields[700] = exif.Field(exif.BYTE, metadata.xmp)
    if metadata.iptc is not None:
        block.top.fields |= _captions(metadata.iptc)
    if metadata.dpi:
        set_resolution(block, metadata.dpi)
    laid, offset = exif.lay_out(block.top, order, _even(stream), big=big)
    stream.write(laid)
    stream.seek(8 if big else 4)
    stream.write(struct.pack(order + ("Q" if big else "L"), offset))


def _captions(resources: bytes) -> dict[int, exif.Field]:
    """The IPTC record stands twice: each of its two places is the only one that some readers know."""
    fields = {captions.RESOURCES_TAG: exif.Field(exif.BYTE, resources)}
    record = captions.record(resources)
    if record is not None:
        fields[captions.RECORD_TAG] = exif.Field(exif.UNDEFINED, record)
    return fields


def _even(stream: IO[bytes]) -> int:
    """Go on to the next even place, as directories want it."""
    if stream.tell() % 2:
        stream.write(b"\0")
    return stream.tell()


def _write_pixels(
    stream: IO[bytes], rgb: NDArray[Any], alpha: NDArray[Any] | None, dtype: DTypeLike, order: Literal["<", ">"]
) -> tuple[int, list[int], list[int]]:
    """Write the strips; returns rows in a strip, and the offsets and sizes of the strips."""
    rows, offsets, sizes = 0, [], []
    level = _FLOAT_LEVEL if np.dtype(dtype).kind == "f" else _LEVEL
    for _, strip in strips(rgb, alpha, dtype, size=_STRIP):
        if strip.dtype.kind != "f":  # differences of neighbours; for floats few readers know the like
            strip = np.concatenate((strip[:, :1], strip[:, 1:] - strip[:, :-1]), axis=1)
        piece = zlib.compress(strip.astype(strip.dtype.newbyteorder(order), copy=False).tobytes(), level)
        rows = max(rows, len(strip))
        offsets.append(stream.tell())
        sizes.append(len(piece))
        stream.write(piece)
    return rows, offsets, sizes


def _describe(block: exif.Block, shape: tuple[int, int, int], dtype: np.dtype[Any], rows: int) -> None:
    """Set the fields that say how the pixels are stored."""
    height, width, channels = shape
    is_float = dtype.kind == "f"
    fields = {
        256: block.numbers(exif.LONG, width),
        257: block.numbers(exif.LONG, height),
        258: block.numbers(exif.SHORT, *[8 * dtype.itemsize] * channels),
        259: block.numbers(exif.SHORT, 8),  # deflate
        262: block.numbers(exif.SHORT, 2),  # RGB
        277: block.numbers(exif.SHORT, channels),
        278: block.numbers(exif.LONG, rows),
        284: block.numbers(exif.SHORT, 1),  # the samples of a pixel lie together
        339: block.numbers(exif.SHORT, *[3 if is_float else 1] * channels),
    }
    if not is_float:
        fields[317] = block.numbers(exif.SHORT, 2)
    if channels == 4:
        fields[338] = block.numbers(exif.SHORT, 2)  # alpha that the colours are not multiplied by
    block.top.fields |= fields
