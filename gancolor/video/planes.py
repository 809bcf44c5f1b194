"""Planes of decoded frames: upright, at the film's own depth, luma as it is stored and chroma at half
size.

FFmpeg's frames come in many pixel formats; nothing behind this module needs to know of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

Plane = NDArray[np.uint8]
"""One component of a frame with 8 bits, (H, W), as the gray that the network sees."""

DeepPlane = NDArray[np.uint8 | np.uint16]
"""One component of a frame at the film's depth, (H, W): luma, Cb, Cr or alpha; uint8 with 8 bits,
else uint16 from 0 to 2 ** depth - 1.
"""

DEPTHS = (8, 9, 10, 12, 14, 16)
"""The bits that a sample may have here; FFmpeg has pixel formats for these."""

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG and _JPEG: luma of 8 bits from 16 to 235, or from 0 to 255
_HIGH_ALIGNED = ("p0", "p2", "p4")  # p010le and its like keep their bits at the top of 16


@dataclass(frozen=True)
class Turn:
    """How stored frames are brought upright: mirrored left to right if `mirrored`, then turned
    counter-clockwise by so many `quarters`.
    """

    quarters: int = 0
    mirrored: bool = False

    def __call__(self, plane: DeepPlane) -> DeepPlane:
        """Return the plane upright, contiguous."""
        upright: NDArray[Any] = plane[:, ::-1] if self.mirrored else plane
        return np.ascontiguousarray(np.rot90(upright, self.quarters))

    @property
    def sideways(self) -> bool:
        """Whether height and width change places."""
        return self.quarters % 2 == 1


def side_data_of(frame: VideoFrame) -> list[Any]:
    """Return what goes with a frame beside its pixels."""
    parts: Any = frame.side_data
    return [parts[index] for index in range(len(parts))]


def turn_of(frame: VideoFrame) -> Turn | None:
    """Read a frame's display matrix; None if it asks for anything but quarter turns and mirrors."""
    found = [bytes(side) for side in side_data_of(frame) if side.type.name == "DISPLAYMATRIX"]
    if not found:
        return Turn()
    a, b, _, c, d = np.frombuffer(found[0], np.int32)[:5].astype(np.float64) / 65536
    # A stored point (x, y) is shown at (a x + c y, b x + d y), y pointing down.
    for mirrored in (False, True):
        for quarters in range(4):
            cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
            x = -1 if mirrored else 1
            if np.allclose([a, b, c, d], [cosine * x, -sine * x, sine, cosine], atol=0.02):
                return Turn(quarters, mirrored)
    return None


def is_rgb(frame: VideoFrame) -> bool:
    """Say whether a frame holds red, green and blue, or a palette of them."""
    return bool(frame.format.is_rgb or frame.format.has_palette or frame.format.is_bayer)


def depth_of(frame: VideoFrame) -> int:
    """Return the bits of a sample, as one of `DEPTHS`."""
    bits = max(component.bits for component in frame.format.components)
    return next((depth for depth in DEPTHS if depth >= bits), DEPTHS[-1])


def pixels_of(layout: str, depth: int) -> str:
    """Return FFmpeg's name of a planar pixel format, as yuv420p with 10 bits is yuv420p10le."""
    return layout if depth == 8 else f"{layout}{depth}le"


def has_alpha(frame: VideoFrame) -> bool:
    """Say whether a frame holds how opaque its pixels are."""
    return any(component.is_alpha for component in frame.format.components)


def alpha_of(frame: VideoFrame, depth: int) -> DeepPlane:
    """Return how opaque pixels are, (H, W) from 0 to 2 ** depth - 1, not yet upright.

    A frame that does not say it is opaque everywhere.
    """
    if not has_alpha(frame):
        return np.full((frame.height, frame.width), (1 << depth) - 1, _type_of(depth))
    bits = frame.format.components[-1].bits
    if not frame.format.name.startswith(("yuva4", "gbrap")) or not 8 <= bits <= 16:
        bits = 8 if bits <= 8 else 16
        frame = frame.reformat(format=pixels_of("yuva444p", bits))
    return rescaled(_component(frame, 3, bits), bits, depth, full_range=True)


def luma_of(frame: VideoFrame, space: int, value_range: int, depth: int) -> DeepPlane:
    """Return a copy of Y' (H, W) as stored, not yet upright.

    `space` and `value_range` are FFmpeg's numbers of the matrix and of the range, `depth` the
    film's. RGB is brought into them, and so is a frame of another depth.
    """
    components = frame.format.components
    alone = not any(other.plane == 0 for other in components[1:])
    bits = components[0].bits
    if is_rgb(frame) or not alone or not 8 <= bits <= 16 or frame.format.is_bit_stream:
        bits, frame = depth, _converted(frame, pixels_of("yuv444p", depth), space, value_range)
    return rescaled(_component(frame, 0, bits), bits, depth, full_range=value_range == FULL)


def chroma_of(
    frame: VideoFrame, space: int, value_range: int, depth: int
) -> tuple[DeepPlane, DeepPlane]:
    """Return Cb and Cr, each (ceil(H / 2), ceil(W / 2)), not yet upright.

    Those of a gray film are neutral, 2 ** (depth - 1), everywhere.
    """
    if len(frame.format.components) < 3:
        size = ((frame.height + 1) // 2, (frame.width + 1) // 2)
        neutral = np.full(size, 1 << (depth - 1), _type_of(depth))
        return neutral, neutral.copy()
    half = pixels_of("yuv420p", depth)
    if frame.format.name not in (half, "yuvj420p" if depth == 8 else half):
        frame = _converted(frame, half, space, value_range)
    return _component(frame, 1, depth), _component(frame, 2, depth)


def rescaled(plane: DeepPlane, bits: int, depth: int, *, full_range: bool = False) -> DeepPlane:
    """Return samples of so many `bits` with `depth` bits.

    More bits lose nothing, fewer are rounded. In full range white stays white; chroma is brought
    over as in limited range, so that neutral stays neutral.
    """
    return plane if bits == depth else np.asarray(_scale(bits, depth, full_range)[plane])


@functools.lru_cache(maxsize=8)
def _scale(bits: int, depth: int, full_range: bool) -> DeepPlane:
    """What every code of `bits` is with `depth` bits."""
    codes, white = np.arange(1 << bits), (1 << depth) - 1
    if full_range:
        scaled = np.rint(codes * (white / ((1 << bits) - 1)))
    elif depth > bits:
        scaled = codes << (depth - bits)
    else:
        scaled = np.minimum((codes + (1 << (bits - depth - 1))) >> (bits - depth), white)
    codes_of: DeepPlane = scaled.astype(_type_of(depth))
    return codes_of


def _type_of(depth: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if depth == 8 else np.uint16


def _converted(frame: VideoFrame, pixels: str, space: int, value_range: int) -> VideoFrame:
    """Convert the pixel format; a frame in YCbCr keeps its matrix and its range."""
    own = FULL if is_rgb(frame) else value_range
    return frame.reformat(
        format=pixels,
        src_colorspace=None if is_rgb(frame) else space,
        dst_colorspace=space,
        src_color_range=own,
        dst_color_range=value_range,
    )


def _component(frame: VideoFrame, index: int, bits: int) -> DeepPlane:
    """Copy a plane of samples that have so many bits; uint16 for more than 8."""
    if bits == 8:
        return _copied(frame.planes[index], "u1")
    name = frame.format.name
    found = _copied(frame.planes[index], ">u2" if name.endswith("be") else "<u2")
    if name.startswith(_HIGH_ALIGNED) or name[:-2].endswith("msb"):
        found = found >> (16 - bits)
    return found.astype(np.uint16, copy=False)


def _copied(plane: VideoPlane, kind: str) -> NDArray[Any]:
    """Copy a plane into an array; FFmpeg's rows are padded, and may be stored bottom up."""
    kept = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size))
    if plane.line_size < 0:
        kept = kept[::-1]
    width = plane.width * np.dtype(kind).itemsize
    return np.ascontiguousarray(kept[: plane.height, :width]).view(kind)
