"""TIFF files of 16 bits and more, float too, and those that Pillow has no mode for: a few strips or tiles at a time.

tifffile reads the directory. The compressed bytes are undone by libtiff through Pillow: wrapped into a TIFF file of
plain gray bytes, so that no library's idea of depth and colour comes between. What remains, the difference to the
left neighbour (TIFF 6.0, section 14) or that of floats (Adobe's technical note 3), is undone here.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from gancolor.photographs.quiet import stderr_closed

_NONE = 1
_COMPRESSIONS = (_NONE, 5, 8, 32773, 32946, 34925, 50000)  # LZW, deflate, PackBits, deflate, LZMA, Zstandard
_KINDS = {1: "u", 2: "i", 3: "f"}  # by sample format
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))  # the bits of each byte the other way round
_CHUNK = 2**22  # bytes that are decoded at a time, where strips are small

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a TIFF file lays its samples out. A segment is a strip or a tile of `rows` x `columns`, the last strip of a
    plane may be shorter; `samples` of each pixel lie in one of `planes`. `dtype` is in the file's byte order;
    `mirrored`: the bits of each byte are the other way round (FillOrder 2).
    """

    width: int
    height: int
    samples: int
    planes: int
    rows: int
    columns: int
    tiled: bool
    dtype: np.dtype[Any]
    compression: int
    mirrored: bool
    predictor: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a segment's row."""
        return self.columns * self.samples * self.dtype.itemsize


def layout(page: tifffile.TiffPage, byteorder: str) -> Layout:
    """Return a page's layout. ValueError if it is of a kind that is not supported, or cannot be."""
    bits, kind = page.bitspersample, _KINDS.get(int(page.sampleformat))
    if kind is None or bits not in ((16, 32, 64) if kind == "f" else (8, 16, 32)):
        raise ValueError(f"samples of {bits} bits in the format {int(page.sampleformat)} are not supported")
    if int(page.compression) not in _COMPRESSIONS:
        raise ValueError(f"TIFF compression {int(page.compression)} of such samples is not supported")
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    tiled = bool(page.is_tiled)
    rows = page.tilelength if tiled else min(page.rowsperstrip or page.imagelength, page.imagelength)
    found = Layout(
        width=page.imagewidth,
        height=page.imagelength,
        samples=page.samplesperpixel // planes,
        planes=planes,
        rows=rows,
        columns=page.tilewidth if tiled else page.imagewidth,
        tiled=tiled,
        dtype=np.dtype(f"{byteorder}{kind}{bits // 8}"),
        compression=int(page.compression),
        mirrored=int(page.fillorder) == 2,
        predictor=int(page.predictor),
        offsets=tuple(page.dataoffsets),
        counts=tuple(page.databytecounts),
    )
    if min(found.width, found.height, found.samples, found.rows, found.columns) < 1:
        raise ValueError("the file is damaged: a side of 0")
    across, down = -(-found.width // found.columns), -(-found.height // found.rows)
    if min(len(found.offsets), len(found.counts)) < across * down * planes:
        raise ValueError("the file is damaged: strips are missing")
    return _split(found) if down == 1 and not tiled and found.compression == _NONE else found


def read_bands(file: BinaryIO, of: Layout) -> Iterator[Array]:
    """Yield rows from the top: (n, width, samples of all planes), native byte order. ValueError if cut off."""
    across, down = -(-of.width // of.columns), -(-of.height // of.rows)
    group = 1 if of.tiled else max(1, _CHUNK // (of.rows * of.row_bytes))
    for row in range(0, down, group):
        band = min(group, down - row)
        rows = min(band * of.rows, of.height - row * of.rows)
        planes = []
        for plane in range(of.planes):
            first = (plane * down + row) * across
            total = of.rows * across if of.tiled else rows
            values = _values(_bytes(file, of, first, band * across, total), of)
            if of.tiled:
                values = values.reshape(across, of.rows, of.columns, of.samples).swapaxes(0, 1)
                values = values.reshape(of.rows, -1, of.samples)[:rows, : of.width]
            planes.append(values)
        yield planes[0] if of.planes == 1 else np.concatenate(planes, axis=2)


def _split(of: Layout) -> Layout:
    """Cut a picture of one bare strip into small ones, or all of it would be in memory twice."""
    rows = min(of.height, max(1, _CHUNK // of.row_bytes))
    starts = range(0, of.height, rows)
    lengths = [min(rows, of.height - start) * of.row_bytes for start in starts]
    for count in of.counts[: of.planes]:
        if count < of.height * of.row_bytes:
            raise ValueError("the file is damaged: a strip is too short")
    offsets = tuple(of.offsets[plane] + start * of.row_bytes for plane in range(of.planes) for start in starts)
    values = {**vars(of), "rows": rows, "offsets": offsets, "counts": tuple(lengths * of.planes)}
    return Layout(**values)


def _bytes(file: BinaryIO, of: Layout, first: int, count: int, rows: int) -> Array:
    """Decode segments that lie below each other: uint8 (rows, row_bytes)."""
    blobs = []
    for index in range(first, first + count):
        file.seek(of.offsets[index])
        blob = file.read(of.counts[index])
        blobs.append(blob.translate(_MIRRORED) if of.mirrored else blob)
        if len(blobs[-1]) < of.counts[index] or not blobs[-1]:
            raise ValueError("the file is cut off")
    if of.compression == _NONE:
        size = of.rows * of.row_bytes
        joined = b"".join(blob[:size] for blob in blobs)
        if len(joined) < rows * of.row_bytes:
            raise ValueError("the file is cut off")
        return np.frombuffer(joined, np.uint8, rows * of.row_bytes).reshape(rows, of.row_bytes)
    with stderr_closed(), Image.open(io.BytesIO(_wrapped(of, blobs, rows)), formats=("TIFF",)) as image:
        return np.asarray(image)


def _wrapped(of: Layout, blobs: list[bytes], rows: int) -> bytes:
    """A TIFF file in memory that says of the strips: gray bytes, compressed like this."""
    count = len(blobs)
    sizes = [len(blob) for blob in blobs]
    start = 8 + 2 + 10 * 12 + 4  # behind the directory
    begin = start + 8 * count
    offsets = list(itertools.accumulate(sizes[:-1], initial=begin))
    long_tags = {256: of.row_bytes, 257: rows, 278: of.rows}
    short_tags = {258: 8, 259: of.compression, 262: 1, 277: 1, 284: 1}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in long_tags.items()]
    entries += [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short_tags.items()]
    for tag, values, place in ((273, offsets, start), (279, sizes, start + 4 * count)):
        entries.append(struct.pack("<HHII", tag, 4, count, values[0] if count == 1 else place))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    tables = struct.pack(f"<{count}I{count}I", *offsets, *sizes)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"".join((b"II*\0\x08\0\0\0", directory, tables, *blobs))


def _values(rows: Array, of: Layout) -> Array:
    """Undo the predictor: from bytes to samples (n, columns, samples) in the machine's byte order."""
    native = of.dtype.newbyteorder("=")
    if of.predictor == 3 and of.dtype.kind == "f":
        sums = np.cumsum(rows.reshape(len(rows), -1, of.samples), axis=1, dtype=np.uint8)
        # Of a row, first come the highest bytes of all samples, whatever the file's byte order.
        bytes_ = sums.reshape(len(rows), of.dtype.itemsize, -1).swapaxes(1, 2)
        values = np.ascontiguousarray(bytes_).view(of.dtype.newbyteorder(">"))
        return values.reshape(len(rows), of.columns, of.samples).astype(native)
    values = np.ascontiguousarray(rows).view(of.dtype).reshape(len(rows), of.columns, of.samples)
    if of.predictor == 2:
        # Sums wrap around; those of floats are of their bits.
        whole = np.dtype(f"u{of.dtype.itemsize}")
        return np.cumsum(values.astype(native, copy=False).view(whole), axis=1, dtype=whole).view(native)
    if of.predictor != 1:
        raise ValueError(f"TIFF predictor {of.predictor} is not supported")
    return values.astype(native, copy=False)
