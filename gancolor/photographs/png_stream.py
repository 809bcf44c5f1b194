"""PNG written row by row: any depth, alpha and metadata, without the whole file in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.photographs import captions
from gancolor.photographs.contents import Metadata
from gancolor.photographs.depths import strips

_LEVEL = 4  # 6 takes twice the time for 1.5 % less
_STRIP = 1 << 18  # bytes before compression
_INCH = 0.0254  # metres


def write(
    stream: IO[bytes], rgb: NDArray[Any], alpha: NDArray[Any] | None, metadata: Metadata, profile: bytes, depth: int
) -> None:
    """Write (H, W, 3) with alpha (H, W) or None as a PNG of `depth` 8 or 16 bits; `profile` is an ICC profile.

    EXIF goes into eXIf, XMP and comment into iTXt, the resolution into pHYs; other texts are as they were. The profile
    stands alone, without an sRGB chunk, as the specification asks.
    """
    height, width = rgb.shape[:2]
    stream.write(b"\x89PNG\r\n\x1a\n")
    kind = 2 if alpha is None else 6
    _chunk(stream, b"IHDR", struct.pack(">LLBBBBB", width, height, depth, kind, 0, 0, 0))
    _chunk(stream, b"iCCP", b"sRGB\0\0" + zlib.compress(profile))
    if metadata.dpi:
        x, y = (round(value / _INCH) for value in metadata.dpi)
        _chunk(stream, b"pHYs", struct.pack(">LLB", x, y, 1))
    if metadata.exif is not None:
        _chunk(stream, b"eXIf", metadata.exif)
    if metadata.xmp is not None:
        _chunk(stream, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
    if metadata.comment is not None:
        _chunk(stream, b"iTXt", b"Comment\0\0\0\0\0" + captions.text(metadata.comment).encode())
    for text in metadata.texts:
        _chunk(stream, text.kind, text.data)
    for piece in _compressed(rgb, alpha, depth):
        _chunk(stream, b"IDAT", piece)
    _chunk(stream, b"IEND", b"")


def _chunk(stream: IO[bytes], kind: bytes, data: bytes) -> None:
    stream.write(struct.pack(">L", len(data)) + kind)
    stream.write(data)
    stream.write(struct.pack(">L", zlib.crc32(data, zlib.crc32(kind))))


def _compressed(rgb: NDArray[Any], alpha: NDArray[Any] | None, depth: int) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL)
    dtype = np.uint8 if depth == 8 else np.uint16
    above: NDArray[np.uint8] | None = None
    step = (3 if alpha is None else 4) * depth // 8  # bytes of a pixel
    for _, rows in strips(rgb, alpha, dtype, size=_STRIP):
        lines = rows.astype(rows.dtype.newbyteorder(">"), copy=False).reshape(len(rows), -1).view(np.uint8)
        if above is None:
            above = np.zeros_like(lines[:1])
        piece = packer.compress(_filtered(lines, above, step))
        above = lines[-1:]
        if piece:
            yield piece
    yield packer.flush()


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Filter each row in the way that leaves the smallest sum of differences: (n, bytes) to (n, 1 + bytes)."""
    up = np.concatenate((above, lines[:-1]))
    left, corner = (np.pad(found[:, :-step], ((0, 0), (step, 0))) for found in (lines, up))
    tried = (
        (1, lines - left),
        (2, lines - up),
        (3, lines - (left // 2 + up // 2 + (left & up & 1))),
        (4, lines - _paeth(left, up, corner)),
    )
    filtered = np.empty((lines.shape[0], 1 + lines.shape[1]), np.uint8)
    filtered[:, 0], filtered[:, 1:] = 0, lines
    least = _cost(lines)
    for kind, differences in tried:
        cost = _cost(differences)
        better = cost < least
        filtered[better, 0] = kind
        filtered[better, 1:] = differences[better]
        least = np.minimum(least, cost)
    return filtered.tobytes()


def _cost(differences: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Sum of the bytes' sizes as signed numbers, of each row."""
    sizes: NDArray[np.uint64] = np.minimum(differences, 0 - differences).sum(axis=1, dtype=np.uint64)
    return sizes


def _paeth(left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of left, up and corner the one nearest to left + up - corner (Paeth 1991)."""
    to_left = np.abs(up.astype(np.int16) - corner)
    to_up = np.abs(left.astype(np.int16) - corner)
    to_corner = np.abs(left.astype(np.int16) + up - 2 * corner.astype(np.int16))
    best = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, best)
