"""What numbers mean: gAMA, cHRM and cICP of PNG files, whole numbers of 32 bits."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from campaign_pictures import scene
from scans import chunk, png

from gancolor.images import arrays, profiles, reader
from gancolor.images.profiles import describe

RAMP = np.linspace(0, 1, 64)
STEPS = np.repeat((RAMP * 255 + 0.5).astype(np.uint8)[None, :, None], 3, axis=2)  # (1, 64, 3)
SRGB = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
DISPLAY_P3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)


def shallow(pixels: np.ndarray, early: bytes) -> bytes:
    """A PNG file of 8 bits with chunks before its pixels."""
    good, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert good
    place = data.tobytes().index(b"IDAT") - 4
    return data.tobytes()[:place] + early + data.tobytes()[place:]


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">L", round(value * 100_000)))


def chromaticities(numbers: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8L", *numbers))


def code(primaries: int, transfer: int, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, 0, full)))


def encoded(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("value", [1.0, 0.5556, 0.35])
def test_gamma_is_obeyed(value: float) -> None:
    expected = encoded(RAMP ** (1 / value))
    for pixels in (STEPS, STEPS[..., 0]):
        found = reader.decode(shallow(pixels, gamma(value)), "a.png")
        assert np.abs(found.pixels.reshape(64, -1)[:, 0] / 255 - expected).max() < 0.015
    deep = (RAMP * 65535 + 0.5).astype(np.uint16)[None]
    found = reader.decode(png(deep, 0, early=gamma(value)), "a.png")
    assert np.abs(found.pixels[0] / 65535 - expected).max() < 1e-3


@pytest.mark.parametrize(
    "early",
    [
        b"",
        gamma(0.45455),
        gamma(0.45455) + chromaticities(SRGB),
        chunk(b"sRGB", b"\0") + gamma(1),
        code(1, 13),
        code(1, 13) + gamma(1),
        gamma(0),
        chromaticities((0,) * 8),
    ],
)
def test_what_means_srgb_or_nothing_changes_nothing(early: bytes) -> None:
    found = reader.decode(shallow(STEPS, early), "a.png")
    assert np.array_equal(found.pixels, STEPS) and found.notes == []


@pytest.mark.parametrize(
    "early", [chromaticities(DISPLAY_P3), code(12, 13), code(12, 13) + gamma(1)]
)
def test_primaries_are_obeyed(early: bytes) -> None:
    rgb = np.array([[(200, 80, 90), (90, 190, 100), (128, 128, 128), (80, 90, 200)]], np.uint8)
    to_xyz = np.array(
        ((0.48657, 0.26567, 0.19822), (0.22897, 0.69174, 0.07929), (0, 0.04511, 1.04394))
    )
    srgb = np.array(
        ((0.41239, 0.35758, 0.18048), (0.21264, 0.71517, 0.07219), (0.01933, 0.11919, 0.95053))
    )
    light = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    expected = encoded((light @ (np.linalg.inv(srgb) @ to_xyz).T).clip(0, 1)) * 255
    found = reader.decode(shallow(rgb, early), "a.png").pixels
    assert np.abs(found - expected).max() < 2.5
    deep = png(rgb.astype(np.uint16) * 257, 2, early=early)
    assert np.abs(reader.decode(deep, "a.png").pixels / 257 - expected).max() < 1


def test_tones_of_high_dynamic_range_are_brought_down() -> None:
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        found = reader.decode(shallow(STEPS, code(9, transfer)), "a.png")
        assert found.notes == [
            f"tones of high dynamic range ({name}): what is brighter than paper white is white"
        ]
        tones = found.pixels[0, :, 1].astype(int)
        assert (np.diff(tones) >= 0).all() and tones[0] == 0 and tones[-1] == 255
    white = profiles._transfer(16)
    assert white is not None and np.interp(
        0.5807, np.linspace(0, 1, len(white)), white
    ) == pytest.approx(1, abs=0.01)


def test_unknown_codes_are_said() -> None:
    for early in (code(2, 2), code(9, 99), code(1, 13, 0)):
        found = reader.decode(shallow(STEPS, early), "a.png")
        assert (
            np.array_equal(found.pixels, STEPS)
            and "cICP) are not known: sRGB used" in found.notes[0]
        )


def test_the_profiles_that_are_made_say_what_they_mean() -> None:
    profile, notes = profiles.of_png({b"gAMA": struct.pack(">L", 100_000)}, None)
    assert profile is not None and notes == []
    found = describe(profile)
    expected = (
        (0.4360747, 0.3850649, 0.1430804),
        (0.2225045, 0.7168786, 0.0606169),
        (0.0139322, 0.0971045, 0.7141733),
    )
    assert found.matrix is not None and np.abs(found.matrix - np.array(expected)).max() < 5e-4
    assert np.abs(found.curves[0](RAMP.astype(np.float32)) - RAMP).max() < 1e-4
    assert profiles.of_png({b"gAMA": struct.pack(">L", 100_000)}, b"own") == (b"own", [])


def tiff(numbers: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if numbers.ndim == 3 else "minisblack"
    tifffile.imwrite(buffer, numbers, photometric=photometric, metadata=None, rowsperstrip=16)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint32, np.int32])
@pytest.mark.parametrize("top", [4095, 65535, 1 << 23])
def test_whole_numbers_of_32_bits_are_scaled_by_what_is_there(dtype: type, top: int) -> None:
    shares = scene().astype(np.float64) / scene().max()
    numbers = np.rint(shares * top).astype(dtype)
    photograph = reader.decode(tiff(numbers), "a.tif")
    assert (
        photograph.pixels.dtype == np.uint16
        and np.abs(photograph.pixels / 65535 - shares).max() < 1 / 4000
    )
    words = f"32-bit numbers from 0 to {top} read as 16 bits: 0 is black, the largest white"
    assert photograph.notes == [words]
    assert np.abs(arrays.decode_rgb(tiff(numbers), "a.tif") / 255 - shares).max() < 1 / 250


def test_numbers_below_zero_and_those_that_fill_32_bits() -> None:
    ramp = np.linspace(-1000, 3000, 64).astype(np.int32)[None].repeat(16, 0)
    photograph = reader.decode(tiff(ramp), "a.tif")
    assert (photograph.pixels[0, 0], photograph.pixels[0, -1]) == (0, 65535)
    assert photograph.notes == [
        "32-bit numbers from -1000 to 3000 read as 16 bits: the least is black, the largest white"
    ]
    # half of all, and not brightened
    wide = np.linspace(0, 2**31, 64).astype(np.uint32)[None].repeat(16, 0)
    photograph = reader.decode(tiff(wide), "a.tif")
    assert photograph.notes == ["32 bits read as 16"] and photograph.pixels.max() == 32768
    flat = reader.decode(tiff(np.zeros((4, 4), np.uint32)), "a.tif")
    assert flat.pixels.max() == 0 and flat.notes == ["32 bits read as 16"]
