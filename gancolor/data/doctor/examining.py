"""Look at one picture: its size, how much colour it has, what it looks like, and what speaks against it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gancolor import images
from gancolor.data.decoded import reduce
from gancolor.data.doctor.listening import stderr_heard
from gancolor.data.doctor.measuring import measure
from gancolor.data.doctor.rules import Rules
from gancolor.errors import DataError, GancolorError, is_out_of_memory
from gancolor.photographs import plain, profiles, reading
from gancolor.photographs.depths import convert
from gancolor.photographs.tags import as_bytes, orientation_of

Pixels = NDArray[Any]

MAX_PIXELS = 250_000_000
"""Pictures with more count as broken: decoded, they would not fit into the memory of every worker."""

SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "png": (".png",),
    "webp": (".webp",),
    "bmp": (".bmp", ".dib"),
    "tiff": (".tif", ".tiff"),
    "gif": (".gif",),
    "heif": (".heic", ".heif", ".hif"),
    "avif": (".avif", ".avifs"),
}
"""Formats that are told by their first bytes, and the suffixes of each; the first one is the usual."""

_TRAINABLE = ("jpeg", "png", "webp", "bmp", "tiff")  # what images.decode_rgb reads
_RGB_MODES = ("RGB", "RGBA", "RGBX", "P", "PA")  # of Pillow
_HARMLESS = "extraneous bytes before marker 0xd9"  # libjpeg of what some cameras leave behind the picture
_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
}
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))

_SIDE = 96  # of the square copy that all statistics are taken from
_COARSE, _SIGNATURE = 32, 16  # sides of the gray copies that hash and signature are taken from
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}

# The hash has a bit for the sign of each of these frequencies (down, across): the lowest 8 x 8, but for the mean, which
# is always positive, the next one down.
_DOWN, _ACROSS = (axis.ravel().copy() for axis in np.mgrid[:8, :8])
_DOWN[0] = 8
_WEIGHTS = np.uint64(1) << np.arange(64, dtype=np.uint64)

MIRROR = int(_WEIGHTS[_ACROSS % 2 == 1].sum())
"""The bits in which the hash of the mirrored picture differs: the odd frequencies across change their sign."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one picture.

    `sha256`: 32 bytes. `kind`: a key of SUFFIXES, or "" for another file. `width`, `height`: upright, 0 if broken.
    `colorfulness` (0-255, with signs), `chroma` (mean CIE chroma), `spread` (deviation of a*b* from what lightness and
    one hue explain) and `contrast` (L* of the 99th less that of the 1st percentile) are of a copy in sRGB reduced to
    96 x 96, so that grain and the noise of JPEG count little. `hash`: 64 bits. `signature`: 16 x 16 gray levels.
    `problem`: one line why it cannot be read, or ""; with a size, only training cannot, and a copy can be made.
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


class Decoded(NamedTuple):
    """Pixels (uint8 RGB), the sides of the whole picture (upright), and why training cannot read it (or "")."""

    rgb: Pixels
    width: int
    height: int
    problem: str = ""


def version() -> str:
    """What findings depend on beside the picture: where this changes, pictures must be examined again."""
    return f"1 heif={importlib.util.find_spec('pi_heif') is not None}"


def examine(data: bytes, name: str) -> Findings:
    """Examine the bytes of a file. Whatever is wrong with them becomes `problem`, and is not raised.

    DataError if there is no room for temporary files.
    """
    digest, kind = hashlib.sha256(data).digest(), kind_of(data[:64])
    try:
        found = decode(data, kind, _SIDE)
        square = images.resize(found.rgb, _SIDE)
        return Findings(digest, kind, found.width, found.height, *measure(square), *_likeness(square), found.problem)
    except MemoryError:
        digest, problem = b"", "it does not fit into memory"  # without a digest it is looked at again
    except GancolorError as error:
        problem = _reason(error)
    except OSError as error:
        got = f"{tempfile.gettempdir()}: {error.strerror or error}"
        raise DataError(f"temporary folder must be writable, got {got}; make room there or set TMPDIR") from error
    except Exception as error:  # on damaged files the libraries raise almost anything
        problem = " ".join(f"it is damaged ({error})".split())
        if is_out_of_memory(error):
            digest, problem = b"", "it does not fit into memory"
    return Findings(digest, kind, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, b"", problem)


def judge(findings: Findings, name: str, rules: Rules, resized: bool) -> str:
    """Return the first reason (a key of rules.REASONS) against the picture by itself, "" if there is none.

    `name` is its file name, for the suffix. `resized`: training gets a copy, so what only copying reads is fine. What
    `rules.keep` has is never returned; a picture kept though it is blank or gray is not asked for more colours.
    """
    width, height = findings.width, findings.height
    if findings.problem and not width:
        return "broken"
    suffix = os.path.splitext(name)[1].lower()
    found = {
        "extension": _is_misnamed(findings, suffix) or not (resized or _is_trainable(findings, suffix)),
        "small": min(width, height) < rules.min_size,
        "shape": max(width, height) > rules.max_aspect * min(width, height),
        "blank": findings.contrast < rules.blank_contrast and findings.spread < rules.blank_contrast,
        "gray": rules.is_gray(findings.chroma, findings.colorfulness),
        "single-tone": rules.is_single_tone(findings.chroma, findings.spread),
    }
    first = next((reason for reason, holds in found.items() if holds and reason not in rules.keep), "")
    bare = "blank" if found["blank"] else "gray" if found["gray"] else ""
    return "" if bare in rules.keep and first in ("gray", "single-tone") else first


def kind_of(head: bytes) -> str:
    """Return the format that a file's first 16 to 64 bytes tell, a key of SUFFIXES; "" for any other."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:16] == b"\0":  # two letters alone could be a text
        return "bmp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))}
        return "avif" if brands & _AVIF_BRANDS else "heif" if brands & _HEIF_BRANDS else ""
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), "")


def looks_like_picture(head: bytes) -> bool:
    """Say whether a file that begins with these (16) bytes is a picture."""
    return bool(kind_of(head))


def mirrored(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The signatures (..., 256) of the mirrored pictures."""
    return signatures.reshape(-1, _SIGNATURE, _SIGNATURE)[..., ::-1].reshape(signatures.shape)


def to_signed(value: int) -> int:
    """An unsigned number of 64 bits as the signed one with the same bits, for SQLite."""
    return value - 2**64 if value >= 2**63 else value


def to_unsigned(value: int) -> int:
    """Undo `to_signed`."""
    return value % 2**64


def decode(data: bytes, kind: str, least: int) -> Decoded:
    """Decode a picture upright and in sRGB, its shorter side reduced to `least` pixels.

    Raises DataError whose message is the reason alone, MissingExtra, or what a decoder raises on damage.
    """
    if not data:
        raise DataError("the file is empty")
    if not kind:
        raise DataError("it is no picture of a kind that can be read")
    if images._is_cut(data):
        raise DataError("the file is cut off or damaged")
    header = _header(data)
    if header is not None and header.width * header.height > MAX_PIXELS:
        raise DataError(f"it has {header.width}x{header.height} pixels, more than {MAX_PIXELS // 10**6} megapixels")
    if header is not None and kind in _TRAINABLE and _is_plain(header):
        try:
            return _decode_plain(data, kind, header, least)
        except DataError:
            if kind == "jpeg":  # of other formats there are kinds that OpenCV does not know
                raise
    return _decode_photograph(data, kind, least)


def read_photograph(data: bytes, kind: str) -> Pixels:
    """Read by `photographs.reading`: uint8 RGB (H, W, 3), upright, in sRGB, alpha dropped. Raises what it raises."""
    with tempfile.TemporaryDirectory(prefix="gancolor-") as folder:
        path = Path(folder, f"it{SUFFIXES[kind][0]}")
        path.write_bytes(data)
        pixels = convert(reading.read(path, max_pixels=MAX_PIXELS).pixels, np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _is_misnamed(findings: Findings, suffix: str) -> bool:
    return any(suffix in suffixes for kind, suffixes in SUFFIXES.items() if kind != findings.kind)


def _is_trainable(findings: Findings, suffix: str) -> bool:
    return findings.kind in _TRAINABLE and suffix in images.SUFFIXES and not findings.problem


def _reason(error: GancolorError) -> str:
    """The part of a message that is not about the file's name."""
    text = str(error)
    return text.split(": ", 1)[-1] if text.startswith("picture must be read") else text.split("; raise", 1)[0]


def _decode_plain(data: bytes, kind: str, header: Image.Image, least: int) -> Decoded:
    """Decode what OpenCV reads as it is meant, but for a profile."""
    if kind == "jpeg":
        rgb, (width, height) = _decode_jpeg(data, header, least)
    else:
        rgb = images.decode_rgb(data, "it")
        height, width = rgb.shape[:2]
    profile = as_bytes(header.info.get("icc_profile"))
    to_srgb = profiles.conversion(profile, "rgb", np.dtype(np.uint8)).apply if profile else None
    rgb = reduce(rgb, least)
    return Decoded(rgb if to_srgb is None else to_srgb(rgb), width, height)


def _decode_jpeg(data: bytes, header: Image.Image, least: int) -> tuple[Pixels, tuple[int, int]]:
    """Decode to the whole, a half, quarter or eighth: large ones take little time and memory. With the whole's sides.

    DataError where libjpeg had to guess: what it makes up is gray, or garbage.
    """
    flag = next((flag for factor, flag in _REDUCED.items() if min(header.size) >= factor * least), cv2.IMREAD_COLOR_BGR)
    with images._codecs_silenced(), stderr_heard() as said:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flag)  # it cannot reduce and give RGB at once
    if bgr is None:
        raise DataError("it is damaged, or no picture that OpenCV decodes")
    if damage := next((line for line in said if "Corrupt JPEG data" in line and not line.endswith(_HARMLESS)), ""):
        raise DataError(f"the file is damaged ({damage})")
    is_turned = orientation_of(as_bytes(header.info.get("exif")) or b"") >= 5
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), header.size[::-1] if is_turned else header.size


def _decode_photograph(data: bytes, kind: str, least: int) -> Decoded:
    rgb, problem = read_photograph(data, kind), ""
    if kind in _TRAINABLE:
        try:
            images.decode_rgb(data, "it")
        except DataError as error:
            problem = _reason(error)
    return Decoded(reduce(rgb, least), rgb.shape[1], rgb.shape[0], problem)


def _is_plain(header: Image.Image) -> bool:
    """Say whether OpenCV reads the pixels as `photographs` does, a profile of RGB pixels aside."""
    return header.mode in _RGB_MODES or (header.mode not in ("CMYK", "LAB") and "icc_profile" not in header.info)


def _header(data: bytes) -> Image.Image | None:
    """The header as Pillow reads it; None if it cannot."""
    with warnings.catch_warnings(), plain.unlimited:
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data))
        except Exception:  # on damaged files it raises almost anything
            return None


def _likeness(rgb: Pixels) -> tuple[int, bytes]:
    """Return hash and signature."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    coarse = cv2.resize(gray, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(coarse.astype(np.float32))
    bits = int(_WEIGHTS[waves[_DOWN, _ACROSS] > 0].sum())
    return bits, cv2.resize(gray, (_SIGNATURE, _SIGNATURE), interpolation=cv2.INTER_AREA).tobytes()
