"""Small pictures and hand-made PNG files for the tests of photographs."""

from __future__ import annotations

import struct
import zlib

import numpy as np

RANDOM = np.random.default_rng(0)
RGBA = RANDOM.integers(0, 256, (24, 32, 4), dtype=np.uint8)
RGB, GRAY = RGBA[..., :3].copy(), RGBA[..., 0].copy()
DEEP = RANDOM.integers(0, 65536, (24, 32, 4), dtype=np.uint16)
SMOOTH = (
    np.stack([RGBA[0, 0, :3] * 0 + 40 + row * 7 for row in range(24)])[:, None]
    .repeat(32, 1)
    .astype(np.uint8)
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    pixels: np.ndarray, color_type: int, early: bytes = b"", late: bytes = b"", size: tuple = ()
) -> bytes:
    """A 16-bit PNG file, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    width, height = size or pixels.shape[1::-1]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + early
        + chunk(b"IDAT", zlib.compress(rows))
        + late
        + chunk(b"IEND", b"")
    )
