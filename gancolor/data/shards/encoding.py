"""Pictures as the JPEG files that shards hold."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass

from gancolor import images
from gancolor.data.doctor import copying
from gancolor.data.doctor.examining import kind_of
from gancolor.errors import DataError, shown
from gancolor.photographs.kinds import HEAD


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG file: its bytes, its sides in pixels and its SHA-256 in hexadecimal."""

    data: bytes
    width: int
    height: int
    sha256: str


def to_jpeg(data: bytes, name: str, resize: int | None) -> Jpeg:
    """A picture file as an upright sRGB JPEG of 8 bits whose shorter side is at most `resize` pixels.

    A file that is one already stays as it is. `name` is for the DataError if the picture is broken.
    """
    kind = kind_of(data[:HEAD], name)
    if not kind:
        raise _unreadable(name, "it is no picture of a kind that can be read")
    try:
        data = copying.to_jpeg(data, kind, sys.maxsize if resize is None else resize)
    except Exception as error:  # on damaged files decoders raise almost anything
        text = " ".join(str(error).split())
        # Either the reason alone, or a whole line with a name that is not this one.
        raise _unreadable(name, text.split(": ", 1)[-1] if text.startswith("picture must ") else text) from None
    rgb = images.decode_rgb(data, name)  # as training will: a damaged file may have stayed as it is
    return Jpeg(data, rgb.shape[1], rgb.shape[0], hashlib.sha256(data).hexdigest())


def _unreadable(name: str, reason: str) -> DataError:
    return DataError(f"picture must be readable, got {shown(name)}: {reason}")
