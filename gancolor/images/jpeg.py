"""JPEG files: what their segments say, whether their end is there, and what libjpeg says of the
data between, which it makes up where they are damaged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.images.exif import PREFIX
from gancolor.images.opencv import codecs_silenced
from gancolor.runtime.stderr import stderr_heard

_END, _SCAN = b"\xff\xd9", b"\xff\xda"
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_PROFILE = b"ICC_PROFILE\0"

# What libjpeg says of data that it had to guess at. Of some cameras' bytes behind the picture it
# says the first, too.
_DAMAGE = re.compile(
    "Corrupt JPEG data|Premature end|Inconsistent progression|Bogus|Application transferred too few"
)
_HARMLESS = "extraneous bytes before marker 0xd9"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a file's segments say before the first scan.

    `width`, `height` as stored; `bits` a sample; `components`: 1 gray, 3 colours, 4 CMYK. `scan`:
    where the first scan begins. `exif` without its prefix, `profile`: ICC.
    """

    width: int
    height: int
    bits: int
    components: int
    progressive: bool
    scan: int
    exif: bytes | None
    profile: bytes | None


def outline(data: bytes) -> Outline:
    """Walk the segments up to the first scan. ValueError if they are cut off or say no size."""
    frame, exif, pieces = None, None, dict[int, bytes]()
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN[1]:
            if frame is None:
                break
            bits, height, width, components = frame[1]
            return Outline(
                width=width,
                height=height,
                bits=bits,
                components=components,
                progressive=frame[0] in _PROGRESSIVE,
                scan=position,
                exif=exif,
                profile=b"".join(pieces[number] for number in sorted(pieces)) or None,
            )
        content = data[
            position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        ]
        if marker in _FRAMES and len(content) >= 6 and frame is None:
            sizes = (
                content[0],
                int.from_bytes(content[1:3], "big"),
                int.from_bytes(content[3:5], "big"),
                content[5],
            )
            frame = (marker, sizes)
        elif marker == 0xE1 and content.startswith(PREFIX) and exif is None:
            exif = content[len(PREFIX) :]
        elif marker == 0xE2 and content.startswith(_PROFILE) and len(content) > len(_PROFILE) + 2:
            pieces.setdefault(content[len(_PROFILE)], content[len(_PROFILE) + 2 :])
        position += 4 + len(content)
    raise ValueError("the file is cut off or damaged")


def ended(data: bytes, of: Outline) -> tuple[bytes, bool]:
    """Return the file with its end mark, and whether that was missing. ValueError if the last scans
    are missing.

    Whether data of the last scan that is there are missing, `decode` says.
    """
    if data.find(_END, of.scan) >= 0:  # behind the start of a scan nothing else looks like it
        return data, False
    if of.progressive and not _has_all_scans(data, of):
        raise ValueError("the file is cut off")
    return data.removesuffix(b"\xff") + _END, True


def decode(data: bytes, flag: int = cv2.IMREAD_COLOR_RGB) -> tuple[NDArray[np.uint8] | None, str]:
    """Decode as OpenCV's `flag` says, upright; None if it cannot. With what libjpeg had to guess
    at, "" for nothing.
    """
    try:
        with codecs_silenced(), stderr_heard() as said:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise ValueError(error.err or "OpenCV cannot decode it") from error
    damage = next(
        (line for line in said if _DAMAGE.search(line) and not line.endswith(_HARMLESS)), ""
    )
    return None if pixels is None else np.asarray(pixels, np.uint8), damage


def _has_all_scans(data: bytes, of: Outline) -> bool:
    """Whether each coefficient of each component of a progressive picture was brought to its last
    bit.
    """
    missing = dict[int, set[int]]()
    seen = set[int]()
    position = of.scan
    while position >= 0:
        count = data[position + 4] if position + 4 < len(data) else 0
        head = data[position + 5 : position + 5 + 2 * count + 3]
        if len(head) < 2 * count + 3:
            return False
        first, last, bit = head[-3], head[-2], head[-1] & 15
        for component in head[: 2 * count : 2]:
            seen.add(component)
            if bit == 0:
                missing.setdefault(component, set(range(64))).difference_update(
                    range(first, last + 1)
                )
        position = data.find(_SCAN, position + 5 + 2 * count + 3)
    return len(seen) == of.components and all(not missing.get(component, {0}) for component in seen)
