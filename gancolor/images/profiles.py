"""Colour profiles (ICC): what one says in numbers, one made of what a PNG file tells of its colours
in other words, and from the colours that a file's numbers mean to sRGB.

Eight bits go through Pillow's ImageCms (Little CMS). Deeper pixels would lose their depth there:
profiles made of curves and a matrix, which cameras and scanners write, are applied here in float32
(ICC.1:2022, 10.6 and 10.18, F.3). PNG's third edition has cICP come before iCCP, that before sRGB,
that before gAMA and cHRM.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gancolor.errors import shown
from gancolor.images import srgb
from gancolor.images.pixels import Pixels, convert

ToneCurve = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From encoded values to linear light, both in [0, 1] (values outside count as the nearer end)."""

_MATRIX_TAGS, _CURVE_TAGS = ("rXYZ", "gXYZ", "bXYZ"), ("rTRC", "gTRC", "bTRC")
_PARAMETERS = (1, 3, 4, 5, 7)  # of the parametric curves 0-4

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
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)
# A file that says about this gamma means sRGB's own curve, as libpng has it.
_SRGB_GAMMA, _NEAR_GAMMA = 0.45455, 0.01
_NEAR_XY = 0.003
_PAPER = 203.0  # cd/m2 of white in pictures of high dynamic range (ITU-R BT.2408)
_SAMPLES = 4096  # of a curve
_HDR = {16: "PQ", 18: "HLG"}

# By a file's pixels: the spaces of profiles that fit.
_COLOR_SPACES = {"gray": ("GRAY", "RGB "), "rgb": ("RGB ",), "cmyk": ("CMYK",)}
_MODES = {"rgb": "RGB", "cmyk": "CMYK", "lab": "LAB"}

# Linear sRGB from the XYZ of profiles, which have D50 as their white (IEC 61966-2-1 adapted by
# Bradford).
_SRGB = np.array(
    (
        (0.4360747, 0.3850649, 0.1430804),
        (0.2225045, 0.7168786, 0.0606169),
        (0.0139322, 0.0971045, 0.7141733),
    )
)
# A profile nearer to sRGB than this is sRGB, rounded by its maker.
_SAME_MATRIX, _SAME_CURVE = 2e-3, 2e-3


@dataclass(frozen=True)
class Described:
    """The parts of a profile. `space`: "RGB ", "GRAY", "CMYK", ...; `matrix`: (3, 3) from linear
    light to the XYZ of D50, or None; `curves`: three beside a matrix, one of a gray profile, none
    of profiles that are tables.
    """

    space: str
    matrix: NDArray[np.float64] | None = None
    curves: tuple[ToneCurve, ...] = ()


class Conversion(NamedTuple):
    """How pixels become sRGB: `apply` takes (n, W[, channels]) and returns gray (n, W) or RGB (n,
    W, 3) of the same type, None where they are sRGB already. `notes`: what the user should know.
    """

    apply: Callable[[Pixels], Pixels] | None
    notes: tuple[str, ...] = ()


def describe(profile: bytes) -> Described:
    """Parse a profile. ValueError if it is damaged."""
    try:
        return _describe(profile)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"profile must be whole, got {error!r}") from error


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


def conversion(profile: bytes | None, space: str, dtype: np.dtype[Any]) -> Conversion:
    """Return the conversion to sRGB of pixels in `space`: gray, rgb, cmyk or lab; uint8, uint16 or
    float32 in [0, 1].

    Gray and RGB without a profile are sRGB; so are those whose profile is damaged or of another
    kind, with a note. CMYK (uint8) without one is converted by the plain formula, also noted; lab
    (uint8, as in TIFF) needs none.
    """
    if space == "lab":
        return Conversion(_managed(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), space))
    found, notes = (None, ()) if profile is None else _described(profile, space)
    if found is not None and profile is not None:
        try:
            return _by_profile(profile, found, space, dtype)
        except (ImageCms.PyCMSError, OSError, ValueError, np.linalg.LinAlgError):
            notes = (_damaged("cannot be applied", space),)
    if space == "cmyk":
        return Conversion(
            _plain_cmyk, notes or ("CMYK without a colour profile: converted by the plain formula",)
        )
    return Conversion(None, notes)


def _describe(profile: bytes) -> Described:
    if profile[36:40] != b"acsp":
        raise ValueError("profile must carry its signature, got none")
    space, connection = profile[16:20].decode("ascii"), profile[20:24]
    tags = _tags(profile)
    if space == "GRAY":
        curve = _curve(tags["kTRC"])
        return Described(space, None, (_from_lightness(curve) if connection == b"Lab " else curve,))
    if (
        space != "RGB "
        or connection != b"XYZ "
        or any(name not in tags for name in _MATRIX_TAGS + _CURVE_TAGS)
    ):
        return Described(space)
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in _MATRIX_TAGS]
    return Described(
        space,
        np.array(columns, np.float64).T / 65536,
        tuple(_curve(tags[name]) for name in _CURVE_TAGS),
    )


def _tags(profile: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for index in range(min(count, 1000)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        tags[name.decode("latin-1")] = profile[offset : offset + size]
    return tags


def _curve(tag: bytes) -> ToneCurve:
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


def _power(gamma: float) -> ToneCurve:
    if gamma <= 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    return lambda values: np.power(np.clip(values, 0, 1), np.float32(gamma))


def _parametric(tag: bytes) -> ToneCurve:
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

    def curve(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values = np.clip(values, 0, 1)
        upper = np.power(np.maximum(a * values + b, 0), g) + e
        return np.asarray(np.clip(np.where(values >= d, upper, c * values + f), 0, 1), np.float32)

    return curve


def _from_lightness(curve: ToneCurve) -> ToneCurve:
    """A gray profile may lead to L* instead of light: CIE 15's way back."""

    def light(values: NDArray[np.float32]) -> NDArray[np.float32]:
        root = (curve(values) * 100 + 16) / 116
        return np.where(root > 6 / 29, root**3, (root - 4 / 29) * 3 * (6 / 29) ** 2).astype(
            np.float32
        )

    return light


def _of_code(code: bytes, profile: bytes | None) -> tuple[bytes | None, list[str]]:
    primaries, transfer, matrix, full = code
    curve = _transfer(transfer)
    if primaries not in _PRIMARIES or curve is None or matrix or not full:
        words = " ".join(map(str, code))
        return profile, [
            f"colours by the code {words} (cICP) are not known:"
            f" {'the profile' if profile else 'sRGB'} used"
        ]
    if primaries == 1 and transfer == 13:
        return None, []
    tones = (
        f"tones of high dynamic range ({_HDR.get(transfer)}): what is brighter than paper white is"
        " white"
    )
    return _profile(_PRIMARIES[primaries], curve), [tones] if transfer in _HDR else []


def _transfer(number: int) -> NDArray[np.float64] | None:
    """From encoded values to light, white 1, at even steps."""
    values = np.linspace(0, 1, _SAMPLES)
    if number in (1, 6, 14, 15):  # what is so written, screens show by their own curve (BT.1886)
        return values**2.4
    if number in (4, 5):
        return values ** (2.2 if number == 4 else 2.8)
    if number == 8:
        return values
    if number == 13:
        return srgb.to_light(values)
    if number == 16:
        root = values ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
            1 / 0.1593017578125
        )
        return np.minimum(light * 10000 / _PAPER, 1)
    if number == 18:
        scene = np.where(
            values <= 0.5,
            values**2 / 3,
            (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12,
        )
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
    if (
        not 0.01 < exponent < 10
        or (given[:, 1] <= 0).any()
        or (given < 0).any()
        or (given > 1).any()
    ):
        return None  # no such colours
    has_srgb_tone = abs(exponent - _SRGB_GAMMA) < _NEAR_GAMMA
    if has_srgb_tone and is_srgb:
        return None
    steps = np.linspace(0, 1, _SAMPLES)
    curve = srgb.to_light(steps) if has_srgb_tone else steps ** (1 / exponent)
    try:
        return _profile(places, curve)
    except np.linalg.LinAlgError:  # three primaries on one line
        return None


def _profile(places: tuple[tuple[float, float], ...], curve: NDArray[np.float64]) -> bytes:
    """A profile of a matrix and one sampled curve, laid out as ICC.1 wants it."""
    columns = np.array(
        [(x / y, 1, (1 - x - y) / y) for x, y in places]
    ).T  # (3, 4): red, green, blue, white
    primaries, white = columns[:, :3], columns[:, 3]
    matrix = primaries * np.linalg.solve(primaries, white)
    adapted = (
        np.linalg.inv(_BRADFORD)
        @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
        @ _BRADFORD
        @ matrix
    )
    tone = (
        struct.pack(">4s4xL", b"curv", len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()
    )
    tags = {b"wtpt": _xyz(_D50), b"rTRC": tone, b"gTRC": tone, b"bTRC": tone}
    tags |= {
        name: _xyz(adapted[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    }
    body, table, places_of = b"", b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in places_of:
            places_of[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sLL", name, places_of[data], len(data))
    head = struct.pack(
        ">L4sL4s4s4s12x4s",
        start + len(body),
        b"\0\0\0\0",
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
    )
    head = head.ljust(68, b"\0") + struct.pack(">3l", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return struct.pack(">4s4x3l", b"XYZ ", *(round(float(value) * 65536) for value in values))


def _described(profile: bytes, space: str) -> tuple[Described | None, tuple[str, ...]]:
    try:
        found = describe(profile)
    except ValueError:
        return None, (_damaged("is damaged", space),)
    if found.space not in _COLOR_SPACES[space]:
        return None, (
            _damaged(f"is for {shown(found.space.strip(), 20)} pixels, not {space}", space),
        )
    return found, ()


def _damaged(what: str, space: str) -> str:
    return f"the colour profile {what}: " + (
        "the plain formula was used" if space == "cmyk" else "sRGB assumed"
    )


def _by_profile(profile: bytes, found: Described, space: str, dtype: np.dtype[Any]) -> Conversion:
    if space == "gray":
        return _gray(profile, found, dtype)
    if space == "cmyk":
        return Conversion(_managed(_opened(profile), space))
    if found.matrix is not None and _is_srgb(found):
        return Conversion(None)
    if dtype == np.uint8:
        return Conversion(_managed(_opened(profile), space))
    if found.matrix is not None:
        return Conversion(_by_matrix(found, dtype))
    return Conversion(
        _through_eight_bits(_managed(_opened(profile), space)),
        ("the colour profile is a table: applied with 8 bits",),
    )


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _managed(source: ImageCms.ImageCmsProfile, space: str) -> Callable[[Pixels], Pixels]:
    """Little CMS, relative colorimetric: uint8 (n, W, channels) to sRGB (n, W, 3)."""
    mode = _MODES[space]
    # The black of paper is lighter than that of a screen: compensated, or scans of prints turn out
    # flat.
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def apply(pixels: Pixels) -> Pixels:
        converted = ImageCms.applyTransform(_picture(pixels, mode), transform)
        assert converted is not None  # it is not in place
        return np.asarray(converted)

    return apply


def _picture(pixels: Pixels, mode: str) -> Image.Image:
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def _plain_cmyk(pixels: Pixels) -> Pixels:
    return np.asarray(_picture(pixels, "CMYK").convert("RGB"))


def _through_eight_bits(eight: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: convert(eight(convert(pixels, np.uint8)), pixels.dtype)


def _is_srgb(found: Described) -> bool:
    assert found.matrix is not None
    return bool(np.abs(found.matrix - _SRGB).max() < _SAME_MATRIX) and all(
        map(_has_srgb_tone, found.curves)
    )


def _has_srgb_tone(curve: ToneCurve) -> bool:
    steps = np.linspace(0, 1, 256, dtype=np.float32)
    return bool(np.abs(srgb.from_light(curve(steps)) - steps).max() < _SAME_CURVE)


def _gray(profile: bytes, found: Described, dtype: np.dtype[Any]) -> Conversion:
    """Gray stays gray: its tones are converted through a table, or by the curve where they are
    float.
    """
    if found.curves:
        # Of RGB profiles, green: on gray all three say the same.
        tone = found.curves[len(found.curves) // 2]
        if _has_srgb_tone(tone):
            return Conversion(None)
    else:
        tone = _tone_of_table(profile)

    def converted(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return srgb.from_light(tone(values))

    if dtype == np.float32:
        return Conversion(converted)
    table = convert(converted(_steps(dtype)), dtype)
    return Conversion(lambda pixels: table[pixels])


def _tone_of_table(profile: bytes) -> ToneCurve:
    """The tones of an RGB profile that is a table: Little CMS tells those of 256 grays, between
    them lie lines.
    """
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    seen = _managed(_opened(profile), "rgb")(ramp)[0].mean(axis=1) / 255
    light = srgb.to_light(seen)
    return lambda values: np.interp(values, np.linspace(0, 1, 256), light).astype(np.float32)


def _by_matrix(found: Described, dtype: np.dtype[Any]) -> Callable[[Pixels], Pixels]:
    """Curves to linear light, a matrix to linear sRGB, clipped to its gamut, and sRGB's own curve."""
    assert found.matrix is not None
    matrix = np.linalg.inv(_SRGB) @ found.matrix
    # Profiles round their numbers: without this, neutral gray would come out tinted in the last
    # bits.
    white = matrix.sum(axis=1, keepdims=True)
    if not (white > 0.1).all():
        raise ValueError("white of a profile must be light")
    matrix = (matrix / white).astype(np.float32)
    tables = [] if dtype == np.float32 else [curve(_steps(dtype)) for curve in found.curves]

    def apply(pixels: Pixels) -> Pixels:
        light = np.empty(pixels.shape, np.float32)
        for channel, curve in enumerate(found.curves):
            values = pixels[..., channel]
            light[..., channel] = tables[channel][values] if tables else curve(values)
        return convert(srgb.from_light(light @ matrix.T), dtype)

    return apply


def _steps(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """All values of an integer type, as float in [0, 1]."""
    top = np.iinfo(dtype).max
    return (np.arange(top + 1) / top).astype(np.float32)
