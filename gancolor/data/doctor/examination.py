"""Numbers that tell how much colour a picture has.

Look at one picture: its size, how much colour it has, what it looks like, and what speaks against
it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.data.doctor.rules import Rules
from gancolor.data.picture_cache import reduce
from gancolor.errors import GancolorError, is_out_of_memory
from gancolor.images import arrays, formats, rgb
from gancolor.images.formats import HEAD, KINDS, has_rawpy

Pixels = NDArray[Any]

SIDE = 96
"""Of the square copy in sRGB that all figures are taken from: there grain and the noise of JPEG
count little.
"""

_TONES = 48  # steps of lightness, of as many pixels each, within which a single tone has one colour
_TONES_SIDE = 48  # of the copy that tones are taken from


def measure(rgb: Pixels) -> tuple[float, float, float, float]:
    """Return colorfulness, chroma, spread and contrast of uint8 RGB (96, 96, 3): see
    `examining.Findings`.
    """
    red, green, blue = rgb.reshape(-1, 3).T.astype(np.float32)
    opponents = np.stack((red - green, (red + green) / 2 - blue))
    # As metrics.colorfulness, which needs torch: worker processes do not load it.
    colorfulness = np.sqrt(opponents.var(axis=1).sum()) + 0.3 * np.sqrt(
        np.square(opponents.mean(axis=1)).sum()
    )
    lab = _lab(rgb)
    darkest, lightest = np.percentile(lab[:, 0], (1, 99))
    chroma = np.linalg.norm(lab[:, 1:], axis=1).mean()
    return float(colorfulness), float(chroma), _spread(rgb), float(lightest - darkest)


def has_colors(rgb: Pixels) -> bool:
    """Whether uint8 RGB (H, W, 3) is a picture in colour, and neither black and white nor of one
    tone such as sepia.

    It is judged by the thresholds with which `gancolor data prepare` leaves out gray and toned
    pictures.
    """
    rules = Rules()
    colorfulness, chroma, spread, _ = measure(arrays.resize(rgb, SIDE))
    return not rules.is_gray(chroma, colorfulness) and not rules.is_single_tone(chroma, spread)


def _lab(rgb: Pixels) -> Pixels:
    """CIE Lab of uint8 RGB, (n, 3) float32."""
    return cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB).reshape(-1, 3)


def _spread(rgb: Pixels) -> float:
    """How far colours lie from a single tone, in units of a*b*.

    Two deviations together: within pixels of nearly the same lightness from their mean, the
    farthest tenth (stamps, borders) left out, and of all hues from one. The copy is reduced once
    more, because what JPEG does to the colours of edges is no second tone.
    """
    lab = _lab(arrays.resize(rgb, _TONES_SIDE))
    steps = lab[lab[:, 0].argsort(kind="stable"), 1:].reshape(_TONES, -1, 2)
    distances = np.linalg.norm(steps - steps.mean(axis=1, keepdims=True), axis=2).ravel()
    kept = len(distances) * 9 // 10
    within = np.partition(distances, kept)[:kept].mean()
    opposed = np.linalg.norm(lab[:, 1:], axis=1).mean() - np.linalg.norm(lab[:, 1:].mean(axis=0))
    return float(np.hypot(within, opposed))


SUFFIXES = {kind.name: kind.suffixes for kind in KINDS.values()}
"""Kinds of pictures, and the suffixes of each; the first one is the usual."""

_SIDE = 96  # of the square copy that all statistics are taken from
_COARSE, _SIGNATURE = 32, 16  # sides of the gray copies that hash and signature are taken from

# The hash has a bit for the sign of each of these frequencies (down, across): the lowest 8 x 8, but
# for the mean, which is always positive, the next one down.
_DOWN, _ACROSS = (axis.ravel().copy() for axis in np.mgrid[:8, :8])
_DOWN[0] = 8
_WEIGHTS = np.uint64(1) << np.arange(64, dtype=np.uint64)

MIRROR = int(_WEIGHTS[_ACROSS % 2 == 1].sum())
"""The bits in which the hash of the mirrored picture differs: the odd frequencies across change
their sign.
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one picture.

    `sha256`: 32 bytes. `kind`: a key of SUFFIXES, or "" for another file. `width`, `height`:
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
    return f"2 heif={importlib.util.find_spec('pi_heif') is not None} raw={has_rawpy()}"


def examine(data: bytes, name: str) -> Findings:
    """Examine the bytes of a file. Whatever is wrong with them becomes `problem`, and is not
    raised.
    """
    digest, kind = hashlib.sha256(data).digest(), kind_of(data[:HEAD], name)
    try:
        found = decode(data, name, _SIDE)
        square = arrays.resize(found.pixels, _SIDE)
        return Findings(
            digest, kind, found.width, found.height, *measure(square), *_likeness(square), ""
        )
    except MemoryError:
        digest, problem = (
            b"",
            "it does not fit into memory",
        )  # without a digest it is looked at again
    except GancolorError as error:
        problem = _reason(error)
    except Exception as error:  # on damaged files the libraries raise almost anything
        problem = " ".join(f"it is damaged ({error})".split())
        if is_out_of_memory(error):
            digest, problem = b"", "it does not fit into memory"
    return Findings(digest, kind, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, b"", problem)


def judge(findings: Findings, name: str, rules: Rules, resized: bool) -> str:
    """Return the first reason (a key of rules.REASONS) against the picture by itself, "" if there
    is none.

    `name` is its file name, for the suffix. `resized`: training gets a copy with another suffix.
    What `rules.keep` has is never returned; a picture kept though it is blank or gray is not asked
    for more colours.
    """
    width, height = findings.width, findings.height
    if findings.problem and not width:
        return "broken"
    suffix = os.path.splitext(name)[1].lower()
    found = {
        "extension": _is_misnamed(findings, suffix) or not (resized or suffix in formats.SUFFIXES),
        "small": min(width, height) < rules.min_size,
        "shape": max(width, height) > rules.max_aspect * min(width, height),
        "blank": findings.contrast < rules.blank_contrast
        and findings.spread < rules.blank_contrast,
        "gray": rules.is_gray(findings.chroma, findings.colorfulness),
        "single-tone": rules.is_single_tone(findings.chroma, findings.spread),
    }
    first = next(
        (reason for reason, holds in found.items() if holds and reason not in rules.keep), ""
    )
    bare = "blank" if found["blank"] else "gray" if found["gray"] else ""
    return "" if bare in rules.keep and first in ("gray", "single-tone") else first


def kind_of(head: bytes, name: str = "") -> str:
    """Return the kind of picture that a file's first bytes tell, a key of SUFFIXES; "" for any
    other. See `kinds`.
    """
    kind = formats.kind_of(head, name)
    return "" if kind is None else kind.name


def mirrored(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The signatures (..., 256) of the mirrored pictures."""
    return signatures.reshape(-1, _SIGNATURE, _SIGNATURE)[..., ::-1].reshape(signatures.shape)


def to_signed(value: int) -> int:
    """An unsigned number of 64 bits as the signed one with the same bits, for SQLite."""
    return value - 2**64 if value >= 2**63 else value


def to_unsigned(value: int) -> int:
    """Undo `to_signed`."""
    return value % 2**64


def decode(data: bytes, name: str, least: int) -> rgb.Rgb:
    """Decode a picture upright and in sRGB, its shorter side reduced to `least` pixels. DataError
    if it is broken.
    """
    found = rgb.decode(data, name, least)
    return found._replace(pixels=reduce(found.pixels, least))


def _is_misnamed(findings: Findings, suffix: str) -> bool:
    return any(suffix in suffixes for kind, suffixes in SUFFIXES.items() if kind != findings.kind)


def _reason(error: GancolorError) -> str:
    """The part of a message that is not about the file's name."""
    text = str(error)
    return text.split(": ", 1)[-1] if text.startswith("picture must be read") else text


def _likeness(picture: Pixels) -> tuple[int, bytes]:
    """Return hash and signature."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    coarse = cv2.resize(gray, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(coarse.astype(np.float32))
    bits = int(_WEIGHTS[waves[_DOWN, _ACROSS] > 0].sum())
    return bits, cv2.resize(gray, (_SIGNATURE, _SIGNATURE), interpolation=cv2.INTER_AREA).tobytes()
