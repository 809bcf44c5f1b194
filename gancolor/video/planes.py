"""Planes of decoded frames: upright, 8 bits, luma as it is stored and chroma at half size.

FFmpeg's frames come in many pixel formats; nothing behind this module needs to know of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

Plane = NDArray[np.uint8]
"""One component of a frame, (H, W): luma, Cb, Cr, alpha, or the gray that the network sees."""

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG and _JPEG: luma from 16 to 235, or from 0 to 255
_HIGH_ALIGNED = ("p0", "p2", "p4")  # p010le and its like keep their bits at the top of 16


@dataclass(frozen=True)
class Turn:
    """How stored frames are brought upright: mirrored left to right if `mirrored`, then turned
    counter-clockwise by so many `quarters`.
    """

    quarters: int = 0
    mirrored: bool = False

    def __call__(self, plane: Plane) -> Plane:
        """Return the plane upright, contiguous."""
        upright = plane[:, ::-1] if self.mirrored else plane
        return np.ascontiguousarray(np.rot90(upright, self.quarters))

    @property
    def sideways(self) -> bool:
        """Whether height and width change places."""
        return self.quarters % 2 == 1


def turn_of(frame: VideoFrame) -> Turn | None:
    """Read a frame's display matrix; None if it asks for anything but quarter turns and mirrors."""
    parts: Any = frame.side_data
    sides = [parts[index] for index in range(len(parts))]
    found = [bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"]
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
    """Return the bits of a sample."""
    return max(component.bits for component in frame.format.components)


def has_alpha(frame: VideoFrame) -> bool:
    """Say whether a frame holds how opaque its pixels are."""
    return any(component.is_alpha for component in frame.format.components)


def alpha_of(frame: VideoFrame) -> Plane:
    """Return how opaque pixels are, (H, W) from 0 to 255, not yet upright.

    A frame that does not say it is opaque everywhere.
    """
    if not has_alpha(frame):
        return np.full((frame.height, frame.width), 255, np.uint8)
    eight = (
        frame
        if frame.format.name in ("yuva420p", "yuva422p", "yuva444p")
        else frame.reformat(format="yuva444p")
    )
    return _plane(eight.planes[3])


def luma_of(frame: VideoFrame, space: int, value_range: int) -> Plane:
    """Return a copy of Y' (H, W) as stored, not yet upright.

    `space` and `value_range` are FFmpeg's numbers of the matrix and of the range. RGB is brought
    into them, and more than 8 bits are rounded to 8.
    """
    components = frame.format.components
    alone = not any(other.plane == 0 for other in components[1:])
    bits = components[0].bits
    if is_rgb(frame) or not alone or not 8 <= bits <= 16 or frame.format.is_bit_stream:
        return _plane(_converted(frame, "yuv444p", space, value_range).planes[0])
    if bits == 8:
        return _plane(frame.planes[0])
    shift = 8 if frame.format.name.startswith(_HIGH_ALIGNED) else bits - 8
    wide = _plane(frame.planes[0], ">u2" if frame.format.name.endswith("be") else "<u2").astype(
        np.uint32
    )
    return np.asarray(np.minimum((wide + (1 << (shift - 1))) >> shift, 255), np.uint8)


def chroma_of(frame: VideoFrame, space: int, value_range: int) -> tuple[Plane, Plane]:
    """Return Cb and Cr, each (ceil(H / 2), ceil(W / 2)), not yet upright.

    Those of a gray film are 128 everywhere.
    """
    if len(frame.format.components) < 3:
        neutral = np.full(((frame.height + 1) // 2, (frame.width + 1) // 2), 128, np.uint8)
        return neutral, neutral.copy()
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = _converted(frame, "yuv420p", space, value_range)
    return _plane(frame.planes[1]), _plane(frame.planes[2])


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


def _plane(plane: VideoPlane, kind: str = "u1") -> NDArray[Any]:
    """Copy a plane into an array; FFmpeg's rows are padded, and may be stored bottom up."""
    kept = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size))
    if plane.line_size < 0:
        kept = kept[::-1]
    width = plane.width * np.dtype(kind).itemsize
    return np.ascontiguousarray(kept[: plane.height, :width]).view(kind)
