"""Copy a kept picture into a set: as it is, or as a JPEG file that is reduced, upright and in sRGB."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gancolor.data.doctor import examination
from gancolor.errors import DataError, shown
from gancolor.images import arrays, plain, profiles
from gancolor.images.metadata import as_bytes, orientation_of

QUALITY = 95

_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy is: SHA-256 (32 bytes), sides in pixels, colorfulness as in `examining.Findings`."""

    sha256: bytes
    width: int
    height: int
    colorfulness: float


def copy_one(data: bytes, kind: str, target: Path, resize: int | None) -> Copied:
    """Write the copy of a picture file, given by its bytes and its kind (see `examining.kind_of`),
    to `target`.

    Without `resize` (pixels) the bytes stay as they are; else see `to_jpeg`. Missing folders are
    made; the file appears whole or not at all. DataError if the picture is broken or the file
    cannot be written, MissingExtra as for reading.
    """
    if resize is not None:
        data = to_jpeg(data, kind, resize)
    found = examination.examine(data, target.name)
    if not found.width:
        raise DataError(f"picture must be readable, got {shown(target.name)}: {found.problem}")
    arrays.write_file(target, data)
    return Copied(found.sha256, found.width, found.height, found.colorfulness)


def to_jpeg(data: bytes, kind: str, resize: int) -> bytes:
    """A picture file as a JPEG file, upright, in sRGB of 8 bits, of full colour resolution, at most
    `resize` pixels.

    `resize` is that of the shorter side; nothing is enlarged. A file that is such a JPEG file
    already stays as it is. Raises what `examining.decode` does.
    """
    if kind == "jpeg" and _is_plain(data, resize):
        return data
    rgb = examination.decode(data, f"it{examination.SUFFIXES[kind][0]}", resize).pixels
    if max(rgb.shape[:2]) > 65_500:  # libjpeg's own limit
        raise DataError(
            f"sides of a JPEG file must be at most 65500 pixels, got {rgb.shape[1]}x{rgb.shape[0]}"
        )
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _SETTINGS)
    return encoded.tobytes()


def _is_plain(data: bytes, resize: int) -> bool:
    """Say whether a JPEG file has three channels, stands upright, means sRGB, and is small enough."""
    with warnings.catch_warnings(), plain.unlimited:
        warnings.simplefilter("ignore")
        try:
            header = Image.open(io.BytesIO(data), formats=("JPEG",))
        except Exception:  # on damaged files it raises almost anything
            return False
    if header.format != "JPEG" or header.mode != "RGB" or min(header.size) > resize:
        return False
    if orientation_of(as_bytes(header.info.get("exif")) or b"") != 1:
        return False
    profile = as_bytes(header.info.get("icc_profile"))
    return profile is None or profiles.conversion(profile, "rgb", np.dtype(np.uint8)).apply is None
