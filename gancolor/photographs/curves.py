"""What an ICC profile says in numbers: tone curves and a matrix, as ICC.1:2022 lays them down."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Curve = Callable[[Floats], Floats]
"""From encoded values to linear light, both in [0, 1] (values outside count as the nearer end)."""

_MATRIX_TAGS, _CURVE_TAGS = ("rXYZ", "gXYZ", "bXYZ"), ("rTRC", "gTRC", "bTRC")
_PARAMETERS = (1, 3, 4, 5, 7)  # of the parametric curves 0-4


@dataclass(frozen=True)
class Described:
    """The parts of a profile. `space`: "RGB ", "GRAY", "CMYK", ...; `matrix`: (3, 3) from linear light to the XYZ of
    D50, or None; `curves`: three beside a matrix, one of a gray profile, none of profiles that are tables.
    """

    space: str
    matrix: NDArray[np.float64] | None = None
    curves: tuple[Curve, ...] = ()


def describe(profile: bytes) -> Described:
    """Parse a profile. ValueError if it is damaged."""
    try:
        return _describe(profile)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"profile must be whole, got {error!r}") from error


def encode_srgb(light: Floats) -> Floats:
    """Apply the transfer function of sRGB (IEC 61966-2-1) to linear light, clipped to [0, 1]; float32."""
    light = np.clip(light, 0, 1).astype(np.float32, copy=False)
    high = np.float32(1.055) * np.power(light, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), light * np.float32(12.92), high).astype(np.float32, copy=False)


def _describe(profile: bytes) -> Described:
    if profile[36:40] != b"acsp":
        raise ValueError("profile must carry its signature, got none")
    space, connection = profile[16:20].decode("ascii"), profile[20:24]
    tags = _tags(profile)
    if space == "GRAY":
        curve = _curve(tags["kTRC"])
        return Described(space, None, (_from_lightness(curve) if connection == b"Lab " else curve,))
    if space != "RGB " or connection != b"XYZ " or any(name not in tags for name in _MATRIX_TAGS + _CURVE_TAGS):
        return Described(space)
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in _MATRIX_TAGS]
    return Described(space, np.array(columns, np.float64).T / 65536, tuple(_curve(tags[name]) for name in _CURVE_TAGS))


def _tags(profile: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for index in range(min(count, 1000)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        tags[name.decode("latin-1")] = profile[offset : offset + size]
    return tags


def _curve(tag: bytes) -> Curve:
    kind, count = struct.unpack_from(">4s4xI", tag)
    if kind == b"para":
        return _parametric(tag)
    if kind != b"curv":
        raise ValueError(f"curve must be of a known type, got {kind!r}")
    if count == 0:
        return lambda values: np.clip(values, 0, 1)
    numbers = np.array(struct.unpack_from(f">{count}H", tag, 12), np.float64)
    if count == 1:
        return _power(float(numbers[0]) / 256)
    places = np.linspace(0, 1, count)
    return lambda values: np.interp(values, places, numbers / 65535).astype(np.float32)


def _power(gamma: float) -> Curve:
    if gamma <= 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    return lambda values: np.power(np.clip(values, 0, 1), np.float32(gamma))


def _parametric(tag: bytes) -> Curve:
    """Types 0-4 of 10.18 as one: y = (a x + b)^g + e where x >= d, else c x + f."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(_PARAMETERS):
        raise ValueError(f"curve must be of a known type, got {kind}")
    numbers = [number / 65536 for number in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
    g, a, b, c, d, e, f = numbers[:1] + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    if kind in (1, 2):
        g, a, b = numbers[:3]
        e = f = numbers[3] if kind == 2 else 0.0
        d = -b / a if a else 0.0
    elif kind >= 3:
        g, a, b, c, d = numbers[:5]
        e, f = numbers[5:] if kind == 4 else (0.0, 0.0)

    def curve(values: Floats) -> Floats:
        values = np.clip(values, 0, 1)
        upper = np.power(np.maximum(a * values + b, 0), g) + e
        return np.asarray(np.clip(np.where(values >= d, upper, c * values + f), 0, 1), np.float32)

    return curve


def _from_lightness(curve: Curve) -> Curve:
    """A gray profile may lead to L* instead of light: CIE 15's way back."""

    def light(values: Floats) -> Floats:
        root = (curve(values) * 100 + 16) / 116
        return np.where(root > 6 / 29, root**3, (root - 4 / 29) * 3 * (6 / 29) ** 2).astype(np.float32)

    return light
