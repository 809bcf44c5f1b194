"""ICC profiles made of what a PNG file tells of its colours in other words: cICP, gAMA and cHRM.

PNG's third edition: cICP comes before iCCP, that before sRGB, that before gAMA and cHRM.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_WHITE, _SRGB_XY = (0.3127, 0.3290), ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES = {  # by ITU-T H.273: red, green, blue, white
    1: (*_SRGB_XY, _WHITE),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _WHITE),
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _WHITE),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _WHITE),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _WHITE),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _WHITE),
}
_D50 = np.array((0.9642, 1.0, 0.8249))
_BRADFORD = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
_SRGB_GAMMA, _NEAR_GAMMA = 0.45455, 0.01  # a file that says about this means sRGB's own curve, as libpng has it
_NEAR_XY = 0.003
_PAPER = 203.0  # cd/m2 of white in pictures of high dynamic range (ITU-R BT.2408)
_STEPS = 4096  # of a sampled curve
_HDR = {16: "PQ", 18: "HLG"}


def of_png(colors: Mapping[bytes, bytes], profile: bytes | None) -> tuple[bytes | None, list[str]]:
    """Return the ICC profile that holds for a PNG file's pixels, None for sRGB, and notes.

    `colors`: the data of its chunks cICP, sRGB, gAMA and cHRM; `profile`: that of iCCP.
    """
    code = colors.get(b"cICP", b"")
    if len(code) == 4:
        return _of_code(code, profile)
    if profile is not None or b"sRGB" in colors:
        return profile, []
    return _of_numbers(colors.get(b"gAMA", b""), colors.get(b"cHRM", b"")), []


def _of_code(code: bytes, profile: bytes | None) -> tuple[bytes | None, list[str]]:
    primaries, transfer, matrix, full = code
    curve = _transfer(transfer)
    if primaries not in _PRIMARIES or curve is None or matrix or not full:
        words = " ".join(map(str, code))
        return profile, [
            f"colours by the code {words} (cICP) are not known: {'the profile' if profile else 'sRGB'} used"
        ]
    if primaries == 1 and transfer == 13:
        return None, []
    tones = f"tones of high dynamic range ({_HDR.get(transfer)}): what is brighter than paper white is white"
    return _profile(_PRIMARIES[primaries], curve), [tones] if transfer in _HDR else []


def _transfer(number: int) -> Values | None:
    """From encoded values to light, white 1, at even steps."""
    values = np.linspace(0, 1, _STEPS)
    if number in (1, 6, 14, 15):  # what cameras wrote by these is shown by a screen's own curve (BT.1886)
        return values**2.4
    if number in (4, 5):
        return values ** (2.2 if number == 4 else 2.8)
    if number == 8:
        return values
    if number == 13:
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if number == 16:
        root = values ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return np.minimum(light * 10000 / _PAPER, 1)
    if number == 18:
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return np.minimum(1000 * scene**1.2 / _PAPER, 1)
    return None


def _of_numbers(gamma: bytes, chromaticities: bytes) -> bytes | None:
    exponent = struct.unpack(">L", gamma)[0] / 100_000 if len(gamma) == 4 else _SRGB_GAMMA
    places: tuple[tuple[float, float], ...] = (*_SRGB_XY, _WHITE)
    if len(chromaticities) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8L", chromaticities)]
        white, *others = ((numbers[at], numbers[at + 1]) for at in range(0, 8, 2))
        places = (*others, white)
    given = np.array(places)
    is_srgb = bool(np.abs(given - np.array((*_SRGB_XY, _WHITE))).max() < _NEAR_XY)
    if not 0.01 < exponent < 10 or (given[:, 1] <= 0).any() or (given < 0).any() or (given > 1).any():
        return None  # no such colours
    has_srgb_tone = abs(exponent - _SRGB_GAMMA) < _NEAR_GAMMA
    if has_srgb_tone and is_srgb:
        return None
    curve = _transfer(13) if has_srgb_tone else np.linspace(0, 1, _STEPS) ** (1 / exponent)
    assert curve is not None
    try:
        return _profile(places, curve)
    except np.linalg.LinAlgError:  # three primaries on one line
        return None


def _profile(places: tuple[tuple[float, float], ...], curve: Values) -> bytes:
    """A profile of a matrix and one sampled curve, laid out as ICC.1 wants it."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in places]).T  # (3, 4): red, green, blue, white
    primaries, white = columns[:, :3], columns[:, 3]
    matrix = primaries * np.linalg.solve(primaries, white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD @ matrix
    tone = struct.pack(">4s4xL", b"curv", len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()
    tags = {b"wtpt": _xyz(_D50), b"rTRC": tone, b"gTRC": tone, b"bTRC": tone}
    tags |= {name: _xyz(adapted[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    body, table, places_of = b"", b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in places_of:
            places_of[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sLL", name, places_of[data], len(data))
    head = struct.pack(
        ">L4sL4s4s4s12x4s", start + len(body), b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">3l", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body


def _xyz(values: Values) -> bytes:
    return struct.pack(">4s4x3l", b"XYZ ", *(round(float(value) * 65536) for value in values))
