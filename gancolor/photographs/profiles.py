"""ICC profiles: from the colours that a file's numbers mean to sRGB.

Eight bits go through Pillow's ImageCms (Little CMS). Deeper pixels would lose their depth there: profiles made of
curves and a matrix, which cameras and scanners write, are applied here in float32 (ICC.1:2022, 10.6 and 10.18, F.3).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gancolor.errors import shown
from gancolor.photographs.curves import Curve, Described, describe, encode_srgb

Pixels = NDArray[Any]

_COLOR_SPACES = {"gray": ("GRAY", "RGB "), "rgb": ("RGB ",), "cmyk": ("CMYK",)}  # a file's pixels -> profiles that fit
_MODES = {"rgb": "RGB", "cmyk": "CMYK", "lab": "LAB"}

# Linear sRGB from the XYZ of profiles, which have D50 as their white (IEC 61966-2-1 adapted by Bradford).
_SRGB = np.array(
    ((0.4360747, 0.3850649, 0.1430804), (0.2225045, 0.7168786, 0.0606169), (0.0139322, 0.0971045, 0.7141733))
)
_SAME_MATRIX, _SAME_CURVE = 2e-3, 2e-3  # a profile nearer to sRGB than this is sRGB, rounded by its maker


class Conversion(NamedTuple):
    """How pixels become sRGB: `apply` takes (n, W[, channels]) and returns gray (n, W) or RGB (n, W, 3) of the same
    type, None where they are sRGB already. `notes`: what the user should know.
    """

    apply: Callable[[Pixels], Pixels] | None
    notes: tuple[str, ...] = ()


def conversion(profile: bytes | None, space: str, dtype: np.dtype[Any]) -> Conversion:
    """Return the conversion to sRGB of pixels in `space`: gray, rgb, cmyk or lab; uint8, uint16 or float32 in [0, 1].

    Gray and RGB without a profile are sRGB; so are those whose profile is damaged or of another kind, with a note.
    CMYK (uint8) without one is converted by the plain formula, also noted; lab (uint8, as in TIFF) needs none.
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
        return Conversion(_plain_cmyk, notes or ("CMYK without a colour profile: converted by the plain formula",))
    return Conversion(None, notes)


def _described(profile: bytes, space: str) -> tuple[Described | None, tuple[str, ...]]:
    try:
        found = describe(profile)
    except ValueError:
        return None, (_damaged("is damaged", space),)
    if found.space not in _COLOR_SPACES[space]:
        return None, (_damaged(f"is for {shown(found.space.strip())} pixels, not {space}", space),)
    return found, ()


def _damaged(what: str, space: str) -> str:
    return f"the colour profile {what}: " + ("the plain formula was used" if space == "cmyk" else "sRGB assumed")


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
        _through_eight_bits(_managed(_opened(profile), space)), ("the colour profile is a table: applied with 8 bits",)
    )


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _managed(source: ImageCms.ImageCmsProfile, space: str) -> Callable[[Pixels], Pixels]:
    """Little CMS, relative colorimetric: uint8 (n, W, channels) to sRGB (n, W, 3)."""
    mode = _MODES[space]
    # The black of paper is lighter than that of a screen: compensated, or scans of prints turn out flat.
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
    def apply(pixels: Pixels) -> Pixels:
        if pixels.dtype == np.uint16:
            return eight(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)).astype(np.uint16) * np.uint16(257)
        return eight((pixels * 255 + 0.5).astype(np.uint8)).astype(np.float32) / np.float32(255)

    return apply


def _is_srgb(found: Described) -> bool:
    assert found.matrix is not None
    return bool(np.abs(found.matrix - _SRGB).max() < _SAME_MATRIX) and all(map(_has_srgb_tone, found.curves))


def _has_srgb_tone(curve: Curve) -> bool:
    steps = np.linspace(0, 1, 256, dtype=np.float32)
    return bool(np.abs(encode_srgb(curve(steps)) - steps).max() < _SAME_CURVE)


def _gray(profile: bytes, found: Described, dtype: np.dtype[Any]) -> Conversion:
    """Gray stays gray: its tones are converted through a table, or by the curve where they are float."""
    if found.curves:
        tone = found.curves[len(found.curves) // 2]  # of RGB profiles, green: on gray all three say the same
        if _has_srgb_tone(tone):
            return Conversion(None)
    else:
        tone = _tone_of_table(profile)

    def converted(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return encode_srgb(tone(values))

    if dtype == np.float32:
        return Conversion(converted)
    table = _rounded(converted(_steps(dtype)), dtype)
    return Conversion(lambda pixels: table[pixels])


def _tone_of_table(profile: bytes) -> Curve:
    """The tones of an RGB profile that is a table: Little CMS tells those of 256 grays, between them lie lines."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    seen = _managed(_opened(profile), "rgb")(ramp)[0].mean(axis=1) / 255
    light = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    return lambda values: np.interp(values, np.linspace(0, 1, 256), light).astype(np.float32)


def _by_matrix(found: Described, dtype: np.dtype[Any]) -> Callable[[Pixels], Pixels]:
    """Curves to linear light, a matrix to linear sRGB, clipped to its gamut, and sRGB's own curve."""
    assert found.matrix is not None
    matrix = np.linalg.inv(_SRGB) @ found.matrix
    # Profiles round their numbers: without this, neutral gray would come out tinted in the last bits.
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
        return _rounded(encode_srgb(light @ matrix.T), dtype)

    return apply


def _steps(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """All values of an integer type, as float in [0, 1]."""
    top = np.iinfo(dtype).max
    return (np.arange(top + 1) / top).astype(np.float32)


def _rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Pixels:
    if dtype == np.float32:
        return values
    return (values * np.float32(np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)
