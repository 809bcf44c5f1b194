"""Look at one picture, given by the bytes of its file: its kind and size, how much colour it has,
and what it looks like. Also: make a reduced JPEG file of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor.data.doctor.rules import Rules
from gancolor.data.picture_cache import reduce
from gancolor.errors import DataError, GancolorError, is_out_of_memory
from gancolor.images import arrays, formats, pillow, profiles, srgb
from gancolor.images.arrays import Picture
from gancolor.images.formats import HEAD, KINDS
from gancolor.images.metadata import as_bytes, orientation_of

SIDE = 96
"""Side in pixels of the square copy in sRGB that all figures are taken from: there grain and the
noise of JPEG count little.
"""

QUALITY = 95
"""Of the JPEG files that are made."""

_TONES = 48  # steps of lightness, of as many pixels each, within which a single tone has one colour
_TONES_SIDE = 48  # of the copy that tones are taken from
_COARSE, _FINE = 32, 16  # sides of the gray copies that hash and signature are taken from

# The hash has a bit for the sign of each of these frequencies (down, across): the lowest 8 x 8, but
# for the mean, which is always positive, the next one down.
_DOWN, _ACROSS = (axis.ravel().copy() for axis in np.mgrid[:8, :8])
_DOWN[0] = 8
_WEIGHTS = np.uint64(1) << np.arange(64, dtype=np.uint64)

SIGNATURE = _FINE * _FINE
"""Bytes of a signature."""

MIRROR = int(_WEIGHTS[_ACROSS % 2 == 1].sum())
"""The bits in which the hash of the mirrored picture differs: the odd frequencies across change
their sign.
"""

_MOST_JPEG_PIXELS = 65_500  # of a side: libjpeg's own limit
_JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one picture.

    `sha256`: 32 bytes. `kind`: a key of `formats.KINDS`, or "" for another file. `width`, `height`:
    upright, 0 if broken. `colorfulness` (0-255, with signs), `chroma` (mean CIE chroma), `spread`
    (deviation of a*b* from what lightness and one hue explain) and `contrast` (L* of the 99th less
    that of the 1st percentile) are of a copy in sRGB reduced to 96 x 96, so that grain and the
    noise of JPEG count little. `hash`: 64 bits. `signature`: 16 x 16 gray levels. `problem`: one
    line why it cannot be read, or "".
    """

    sha256: bytes
    kind: str
    width: int
    height: int
    colorfulness: float
    chroma: float
    spread: float
    contrast: float
    hash: int
    signature: bytes
    problem: str


def version() -> str:
    """What findings depend on beside the picture: where this changes, pictures must be examined
    again.
    """
    heif = importlib.util.find_spec("pi_heif") is not None
    return f"2 heif={heif} raw={formats.has_rawpy()}"


def examine(data: bytes, name: str) -> Findings:
    """Examine the bytes of a file. Whatever is wrong with them becomes `problem`, and is not
    raised.
    """
    digest, kind = hashlib.sha256(data).digest(), kind_of(data[:HEAD], name)
    try:
        found = decode(data, name, SIDE)
        square = arrays.resize(found.pixels, SIDE)
        return Findings(
            digest, kind, found.width, found.height, *measure(square), *_likeness(square), ""
        )
    except GancolorError as error:
        problem = _reason(error)
    except Exception as error:  # on damaged files the libraries raise almost anything
        problem = " ".join(f"it is damaged ({error})".split())
        if is_out_of_memory(error):
            # Without a digest it is looked at again.
            digest, problem = b"", "it does not fit into memory"
    return broken(problem, digest, kind)


def broken(problem: str, sha256: bytes = b"", kind: str = "") -> Findings:
    """The findings of a picture that cannot be read, and why."""
    return Findings(sha256, kind, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, b"", problem)


def kind_of(head: bytes, name: str = "") -> str:
    """Return the kind of picture that a file's first bytes tell, a key of `formats.KINDS`; "" for
    any other. See `formats.kind_of`.
    """
    kind = formats.kind_of(head, name)
    return "" if kind is None else kind.name


def decode(data: bytes, name: str, least: int) -> arrays.Decoded:
    """Decode a picture upright and in sRGB, its shorter side reduced to `least` pixels. DataError
    if it is broken.
    """
    found = arrays.decode_sized(data, name, least)
    return found._replace(pixels=reduce(found.pixels, least))


def measure(rgb: Picture) -> tuple[float, float, float, float]:
    """Return colorfulness, chroma, spread and contrast of uint8 RGB (96, 96, 3): see `Findings`."""
    red, green, blue = rgb.reshape(-1, 3).T.astype(np.float32)
    opponents = np.stack((red - green, (red + green) / 2 - blue))  # (2, n)
    # As metrics.colorfulness, which needs torch: worker processes do not load it.
    colorfulness = np.sqrt(opponents.var(axis=1).sum()) + 0.3 * np.sqrt(
        np.square(opponents.mean(axis=1)).sum()
    )
    lab = srgb.lab(rgb).reshape(-1, 3)
    darkest, lightest = np.percentile(lab[:, 0], (1, 99))
    chroma = np.linalg.norm(lab[:, 1:], axis=1).mean()
    return float(colorfulness), float(chroma), _spread(rgb), float(lightest - darkest)


def has_colors(rgb: Picture) -> bool:
    """Whether uint8 RGB (H, W, 3) is a picture in colour, and neither black and white nor of one
    tone such as sepia.

    It is judged by the thresholds with which `gancolor data prepare` leaves out gray and toned
    pictures.
    """
    rules = Rules()
    colorfulness, chroma, spread, _ = measure(arrays.resize(rgb, SIDE))
    return not rules.is_gray(chroma, colorfulness) and not rules.is_single_tone(chroma, spread)


def is_gray(rgb: Picture) -> bool:
    """Whether uint8 RGB (H, W, 3) is black and white, by the thresholds of `has_colors`; a sepia
    picture is not.
    """
    colorfulness, chroma, _, _ = measure(arrays.resize(rgb, SIDE))
    return Rules().is_gray(chroma, colorfulness)


def _spread(rgb: Picture) -> float:
    """How far colours lie from a single tone, in units of a*b*.

    Two deviations together: within pixels of nearly the same lightness from their mean, the
    farthest tenth (stamps, borders) left out, and of all hues from one. The copy is reduced once
    more, because what JPEG does to the colours of edges is no second tone.
    """
    lab = srgb.lab(arrays.resize(rgb, _TONES_SIDE)).reshape(-1, 3)
    steps = lab[lab[:, 0].argsort(kind="stable"), 1:].reshape(_TONES, -1, 2)  # a*b* by lightness
    distances = np.linalg.norm(steps - steps.mean(axis=1, keepdims=True), axis=2).ravel()
    kept = len(distances) * 9 // 10
    within = np.partition(distances, kept)[:kept].mean()
    opposed = np.linalg.norm(lab[:, 1:], axis=1).mean() - np.linalg.norm(lab[:, 1:].mean(axis=0))
    return float(np.hypot(within, opposed))


def _likeness(picture: Picture) -> tuple[int, bytes]:
    """Return hash and signature of uint8 RGB (96, 96, 3)."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    coarse = cv2.resize(gray, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(coarse.astype(np.float32))
    bits = int(_WEIGHTS[waves[_DOWN, _ACROSS] > 0].sum())
    return bits, cv2.resize(gray, (_FINE, _FINE), interpolation=cv2.INTER_AREA).tobytes()


def mirrored(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The signatures (..., 256) of the mirrored pictures."""
    return signatures.reshape(-1, _FINE, _FINE)[..., ::-1].reshape(signatures.shape)


def to_signed(value: int) -> int:
    """An unsigned number of 64 bits as the signed one with the same bits, for SQLite."""
    return value - 2**64 if value >= 2**63 else value


def to_unsigned(value: int) -> int:
    """Undo `to_signed`."""
    return value % 2**64


def to_jpeg(data: bytes, kind: str, resize: int) -> bytes:
    """A picture file as a JPEG file: upright, in sRGB of 8 bits, with its full colour resolution.

    `kind`: see `kind_of`. `resize`: most pixels of the shorter side; nothing is enlarged. A file
    that is such a JPEG file already stays as it is. Raises what `decode` does.
    """
    if kind == "jpeg" and _is_plain(data, resize):
        return data
    rgb = decode(data, f"it{KINDS[kind].suffixes[0]}", resize).pixels
    if max(rgb.shape[:2]) > _MOST_JPEG_PIXELS:
        raise DataError(
            f"sides of a JPEG file must be at most {_MOST_JPEG_PIXELS} pixels, got"
            f" {rgb.shape[1]}x{rgb.shape[0]}"
        )
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    return encoded.tobytes()


def _is_plain(data: bytes, resize: int) -> bool:
    """Whether a JPEG file has three channels, stands upright, means sRGB, and is small enough."""
    with warnings.catch_warnings(), pillow.unlimited:
        warnings.simplefilter("ignore")
        try:
            header = Image.open(io.BytesIO(data), formats=("JPEG",))
        except Exception:  # on damaged files it raises almost anything
            return False
    if header.format != "JPEG" or header.mode != "RGB" or min(header.size) > resize:
        return False
    if orientation_of(as_bytes(header.info.get("exif"))) != 1:
        return False
    profile = as_bytes(header.info.get("icc_profile"))
    return profile is None or profiles.conversion(profile, "rgb", np.dtype(np.uint8)).apply is None


def _reason(error: GancolorError) -> str:
    """The part of a message that is not about the file's name."""
    text = str(error)
    return text.split(": ", 1)[-1] if text.startswith("picture must be read") else text
