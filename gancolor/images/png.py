"""PNG files: their chunks, the pixels of those of 16 bits, and writing.

`walk` sees whether all chunks of a file are there and whole, and finds those that tell of the
picture. Pillow would make eight bits of deep colours, so OpenCV decodes them. A file is written row
by row: with any depth, alpha and metadata, and without all of it in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.images import captions, profiles
from gancolor.images.metadata import Metadata, Text, as_bytes, clean_exif, dpi_of, orientation_of
from gancolor.images.opencv import decode_deep
from gancolor.images.photograph import Band, Header, Stored
from gancolor.images.pixels import Pixels, bands, strips

_GRAY, _GRAY_ALPHA = 0, 4  # colour types
_PIECE = 2**20  # bytes read at a time
_MOST = 2**24  # bytes of a chunk that is kept
_XMP = b"XML:com.adobe.xmp"
_COMMENT = b"Comment"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLORS = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP")
# Copies of EXIF, IPTC and XMP as ImageMagick writes them, and what told of a thumbnail's original.
_STALE = (b"Raw profile type", b"Thumb::")
_LEVEL = 4  # of compression: 6 takes twice the time for 1.5 % less
STRIP = 1 << 18  # bytes before compression
_INCH = 0.0254  # metres


@dataclass
class Chunks:
    """What was found: the colour chunks' data by their names, EXIF, XMP, a comment, and all other
    texts.
    """

    colors: dict[bytes, bytes] = field(default_factory=dict)
    exif: bytes | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    texts: list[Text] = field(default_factory=list)


def walk(file: BinaryIO) -> Chunks:
    """Walk all chunks of a PNG file. ValueError if the end is missing or the checksum of a critical
    one is wrong.

    Decoders would fill the rest with black, and say nothing.
    """
    found = Chunks()
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("the file is cut off")
        length, kind = struct.unpack(">I4s", head)
        keep = (kind == b"eXIf" or kind in _TEXTS or kind in _COLORS) and length <= _MOST
        checksum, data = _checked(file, length, zlib.crc32(kind), keep)
        end = file.read(4)
        if len(end) < 4:
            raise ValueError("the file is cut off")
        whole = checksum == int.from_bytes(end, "big")
        if kind[:1].isupper() and not whole:
            raise ValueError("the file is damaged: the checksum of a part is wrong")
        if keep and whole:
            _note(found, kind, data)
        if kind == b"IEND":
            return found


def _note(found: Chunks, kind: bytes, data: bytes) -> None:
    if kind in _COLORS:
        found.colors.setdefault(kind, data)
    elif kind == b"eXIf":
        found.exif = found.exif or data
    else:
        keyword = data.partition(b"\0")[0]
        if keyword == _XMP and kind == b"iTXt":
            found.xmp = found.xmp or _content(data)
        elif keyword == _COMMENT and kind != b"zTXt" and found.comment is None:
            found.comment = _content(data) if kind == b"iTXt" else data.partition(b"\0")[2]
        elif keyword and not keyword.startswith(_STALE):
            found.texts.append(Text(kind, data))


def _content(data: bytes) -> bytes | None:
    """The text of an iTXt chunk; None if it is damaged."""
    _, _, rest = data.partition(b"\0")
    if len(rest) < 2:
        return None
    packed, rest = rest[0], rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]  # behind language and translated keyword
    if not packed:
        return text or None
    try:
        return zlib.decompressobj().decompress(text, _MOST) or None
    except zlib.error:
        return None


def _checked(file: BinaryIO, length: int, checksum: int, keep: bool) -> tuple[int, bytes]:
    """Read on to the end of a chunk; return its checksum, and its data where they are kept."""
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
        orientation=orientation_of(exif),
        decode=lambda: _decode(image, file),
    )


def _decode(image: Image.Image, file: BinaryIO) -> Stored:
    file.seek(25)
    color_type = file.read(1)[0]
    found = walk(file)
    exif = as_bytes(image.info.get("exif")) or found.exif
    is_gray = color_type in (_GRAY, _GRAY_ALPHA)
    # One gray or colour may be transparent; of colours, OpenCV makes alpha itself.
    key = image.info.get("transparency")
    pixels = decode_deep(file)
    frames = int(getattr(image, "n_frames", 1))
    profile, notes = profiles.of_png(found.colors, as_bytes(image.info.get("icc_profile")))
    return Stored(
        width=image.width,
        height=image.height,
        format="PNG",
        space="gray" if is_gray else "rgb",
        dtype=np.dtype(np.uint16),
        has_alpha=key is not None or pixels.ndim == 3 and pixels.shape[2] == 4,
        bands=_bands(pixels, is_gray, key if isinstance(key, int) else None),
        orientation=orientation_of(exif),
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
    for strip in bands(pixels):
        if strip.ndim == 2:
            yield strip, None if key is None else np.where(strip == key, 0, 65535)
        else:
            alpha = strip[..., 3] if strip.shape[2] == 4 else None
            yield strip[..., 0] if is_gray else strip[..., 2::-1], alpha


def write(
    stream: IO[bytes],
    rgb: Pixels,
    alpha: Pixels | None,
    metadata: Metadata,
    profile: bytes,
    depth: int,
) -> None:
    """Write (H, W, 3) with alpha (H, W) or None as a PNG of `depth` 8 or 16 bits; `profile` is an
    ICC profile.

    EXIF goes into eXIf, XMP and comment into iTXt, the resolution into pHYs; other texts are as
    they were. The profile stands alone, without an sRGB chunk, as the specification asks.
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
        _chunk(stream, b"iTXt", _XMP + bytes(5) + metadata.xmp)
    if metadata.comment is not None:
        _chunk(stream, b"iTXt", _COMMENT + bytes(5) + captions.text(metadata.comment).encode())
    for text in metadata.texts:
        _chunk(stream, text.kind, text.data)
    for piece in _compressed(rgb, alpha, depth):
        _chunk(stream, b"IDAT", piece)
    _chunk(stream, b"IEND", b"")


def _chunk(stream: IO[bytes], kind: bytes, data: bytes) -> None:
    stream.write(struct.pack(">L", len(data)) + kind)
    stream.write(data)
    stream.write(struct.pack(">L", zlib.crc32(data, zlib.crc32(kind))))


def _compressed(rgb: Pixels, alpha: Pixels | None, depth: int) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL)
    dtype = np.uint8 if depth == 8 else np.uint16
    above: NDArray[np.uint8] | None = None
    step = (3 if alpha is None else 4) * depth // 8  # bytes of a pixel
    for _, rows in strips(rgb, alpha, dtype, size=STRIP):
        lines = (
            rows.astype(rows.dtype.newbyteorder(">"), copy=False)
            .reshape(len(rows), -1)
            .view(np.uint8)
        )
        if above is None:
            above = np.zeros_like(lines[:1])
        piece = packer.compress(_filtered(lines, above, step))
        above = lines[-1:]
        if piece:
            yield piece
    yield packer.flush()


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Filter each row in the way that leaves the smallest sum of differences: (n, bytes) to (n, 1 +
    bytes).
    """
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
    sizes: NDArray[np.uint64] = np.minimum(differences, 0 - differences).sum(
        axis=1, dtype=np.uint64
    )
    return sizes


def _paeth(
    left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Of left, up and corner the one nearest to left + up - corner (Paeth 1991)."""
    to_left = np.abs(up.astype(np.int16) - corner)
    to_up = np.abs(left.astype(np.int16) - corner)
    to_corner = np.abs(left.astype(np.int16) + up - 2 * corner.astype(np.int16))
    best = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, best)
