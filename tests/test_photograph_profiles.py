"""ICC profiles: what is sRGB already, own arithmetic against Little CMS, tables, gray, CMYK,
damage.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ImageCms

from gancolor.images import srgb
from gancolor.images.profiles import conversion, describe

U8, U16, F32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(value * 256)) + bytes(2)


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """A profile with these tags; the header holds what Little CMS asks for."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249), **tags}
    head, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        head += struct.pack(">4sII", name, start + len(body), len(data))
        body += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(
        ">I4sI4s4s4s12x4s4xI4x8xI12s",
        start + len(body), b"lcms", 0x02400000, kind, space, connection, b"acsp", 0, 0, fixed(0.9642, 1, 0.8249),
    )  # fmt: skip
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + head + body


def matrix_profile(columns: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    tags = {
        name + b"XYZ": b"XYZ " + bytes(4) + fixed(*column)
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return profile(b"RGB ", {**tags, **{name + b"TRC": curve for name in (b"r", b"g", b"b")}})


def table_profile(space: bytes, channels: int, colors: list[tuple[int, int, int]]) -> bytes:
    """A profile that is a table of Lab (8 bits, a* and b* from 128) at the corners of the colour
    cube.
    """
    lut = struct.pack(">4s4x4B", b"mft1", channels, 3, 2, 0) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += (
        bytes(range(256)) * channels
        + bytes(value for color in colors for value in color)
        + bytes(range(256)) * 3
    )
    return profile(space, {b"A2B0": lut, b"A2B1": lut}, b"Lab ")


def gray_profile(curve: bytes, connection: bytes = b"XYZ ") -> bytes:
    return profile(b"GRAY", {b"kTRC": curve}, connection)


def colors(count: int = 400) -> np.ndarray:
    return np.random.default_rng(0).random((1, count, 3))


@pytest.mark.parametrize("space", ["gray", "rgb"])
@pytest.mark.parametrize("dtype", [U8, U16, F32], ids=str)
def test_srgb_is_left_as_it_is(space: str, dtype: np.dtype) -> None:
    assert conversion(SRGB, space, dtype) == (None, ())
    assert conversion(None, space, dtype) == (None, ())


@pytest.mark.parametrize("columns", [P3, ADOBE], ids=["p3", "adobe"])
def test_deep_pixels_agree_with_little_cms(columns: tuple[tuple[float, ...], ...]) -> None:
    icc = matrix_profile(columns, gamma(2.2))
    eight = (colors() * 255).round().astype(np.uint8)
    managed, deep, floating = (conversion(icc, "rgb", dtype) for dtype in (U8, U16, F32))
    assert managed.notes == deep.notes == floating.notes == ()
    expected = managed.apply(eight).astype(float) / 255
    assert np.abs(expected - eight / 255).max() > 0.1  # there was something to convert
    assert np.abs(deep.apply(eight.astype(np.uint16) * 257) / 65535 - expected).max() < 1.5 / 255
    assert np.abs(floating.apply((eight / 255).astype(np.float32)) - expected).max() < 1.5 / 255


def test_sixteen_bits_keep_their_steps_and_neutrals_stay_neutral() -> None:
    convert = conversion(matrix_profile(P3, gamma(2.2)), "rgb", U16).apply
    gray = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, axis=2)
    out = convert(gray).astype(int)
    assert out.dtype.kind == "i" and len(np.unique(out)) > 4000
    assert (out.max(axis=2) - out.min(axis=2)).max() <= 1
    assert out[0, -1].min() > 65500 and out[0, 0].max() == 0


def test_known_color() -> None:
    """The green of Display P3 lies outside sRGB; its middle red within: by hand, through XYZ of
    D50.
    """
    convert = conversion(matrix_profile(P3, gamma(1.0)), "rgb", F32).apply
    out = convert(np.array([[[0.0, 1, 0], [0.5, 0.25, 0.25]]], np.float32))
    assert out[0, 0].tolist() == pytest.approx([0, 1, 0], abs=0.03)
    light = 0.25 + 0.25 * np.array([1.2249, -0.0420, -0.0196])  # the first column of P3 -> sRGB
    assert out[0, 1].tolist() == pytest.approx(
        srgb.from_light(light.astype(np.float32)).tolist(), abs=2e-3
    )


@pytest.mark.parametrize(
    ("curve", "at_half"),
    [
        (gamma(1.0), 0.5),
        (struct.pack(">4s4xI", b"curv", 0), 0.5),
        (struct.pack(">4s4xI3H", b"curv", 3, 0, 13107, 65535), 0.2),
        (b"para" + bytes(4) + struct.pack(">Hxx", 0) + fixed(2), 0.25),
        (b"para" + bytes(4) + struct.pack(">Hxx", 1) + fixed(2, 2, -0.5), 0.25),
        (b"para" + bytes(4) + struct.pack(">Hxx", 2) + fixed(2, 1, -0.25, 0.1), 0.1625),
        (
            b"para"
            + bytes(4)
            + struct.pack(">Hxx", 3)
            + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04),
            0.21404,
        ),
        (b"para" + bytes(4) + struct.pack(">Hxx", 4) + fixed(1, 1, 0, 0.5, 0.6, 0.3, 0.1), 0.35),
    ],
    ids=["gamma", "identity", "table", "para0", "para1", "para2", "para3", "para4"],
)
def test_curves(curve: bytes, at_half: float) -> None:
    found = describe(gray_profile(curve))
    assert found.curves[0](np.array([0.5], np.float32))[0] == pytest.approx(at_half, abs=1e-4)


@pytest.mark.parametrize("dtype", [U8, U16, F32], ids=str)
def test_gray_takes_the_tones_of_its_profile(dtype: np.dtype) -> None:
    top = 1 if dtype == F32 else np.iinfo(dtype).max
    convert = conversion(gray_profile(gamma(1.0)), "gray", dtype).apply
    out = convert(np.array([[0, 0.2 * top, top]]).astype(dtype))
    assert out.dtype == dtype and out.shape == (1, 3)
    assert (out / top)[0].tolist() == pytest.approx([0, 0.4845, 1], abs=0.003)


def test_gray_with_a_profile_of_colors_or_of_lightness() -> None:
    half = np.array([[0.5]], np.float32)
    by_color = conversion(matrix_profile(P3, gamma(1.0)), "gray", F32).apply
    assert by_color(half)[0, 0] == pytest.approx(0.7354, abs=1e-3)
    by_lightness = conversion(gray_profile(gamma(1.0), b"Lab "), "gray", F32).apply
    assert by_lightness(half)[0, 0] == pytest.approx(0.4663, abs=1e-3)  # L* 50
    corners = [(step * 255 // 7, 128, 128) for step in range(8)]
    by_table = conversion(table_profile(b"RGB ", 3, corners), "gray", U16)
    out = by_table.apply(np.array([[0, 32768, 65535]], np.uint16))
    assert (
        out[0, 0] < 300
        and out[0, 2] > 65000
        and out[0, 1] == pytest.approx(0.4663 * 65535, rel=0.03)
    )


def test_tables_of_deep_pixels_are_applied_with_eight_bits() -> None:
    corners = (
        [(0, 128, 128)]
        + [(200, 128 + 30 * (i & 1), 128 + 20 * (i >> 1 & 1)) for i in range(6)]
        + [(255, 128, 128)]
    )
    icc = table_profile(b"RGB ", 3, corners)
    eight, deep, floating = (conversion(icc, "rgb", dtype) for dtype in (U8, U16, F32))
    pixels = (colors() * 255).round().astype(np.uint8)
    expected = eight.apply(pixels)
    assert eight.notes == () and "8 bits" in deep.notes[0] and deep.notes == floating.notes
    assert expected.std() > 5
    assert (deep.apply(pixels.astype(np.uint16) * 257) == expected.astype(np.uint16) * 257).all()
    assert np.abs(floating.apply((pixels / 255).astype(np.float32)) * 255 - expected).max() < 1e-3


def test_cmyk_by_its_profile_and_without() -> None:
    ink = [(255 - 16 * index, 128 + 5 * index, 128 - 5 * index) for index in range(16)]
    pixels = np.array([[[0, 0, 0, 0], [255, 255, 255, 255], [255, 0, 0, 0]]], np.uint8)
    found = conversion(table_profile(b"CMYK", 4, ink), "cmyk", U8)
    out = found.apply(pixels).astype(int)
    assert found.notes == () and out.shape == (1, 3, 3)
    # all inks together are a dark violet
    assert out[0, 0].min() > 250 and out[0, 1, 2] > out[0, 1, 1] + 50
    plain = conversion(None, "cmyk", U8)
    assert plain.apply(pixels).tolist() == [[[255, 255, 255], [0, 0, 0], [0, 255, 255]]]
    assert plain.notes == ("CMYK without a colour profile: converted by the plain formula",)


def test_lab_needs_no_profile() -> None:
    found = conversion(None, "lab", U8)
    # white; L*53 a*80 b*67
    out = found.apply(np.array([[[255, 0, 0], [136, 80, 67]]], np.uint8)).astype(int)
    assert out[0, 0].min() >= 253 and out[0, 1, 0] > 245 and out[0, 1, 1:].max() < 40


@pytest.mark.parametrize("size", [0, 100, 140, 200, 300])
@pytest.mark.parametrize("space", ["rgb", "gray", "cmyk"])
def test_damaged_profiles_are_noted(size: int, space: str) -> None:
    found = conversion(SRGB[:size], space, U16 if space != "cmyk" else U8)
    assert len(found.notes) == 1 and found.notes[0].startswith("the colour profile")
    assert (found.apply is None) == (space != "cmyk")


def test_profiles_of_other_pixels_are_noted() -> None:
    assert conversion(gray_profile(gamma(2.2)), "rgb", U8).notes == (
        "the colour profile is for GRAY pixels, not rgb: sRGB assumed",
    )
    broken = matrix_profile(((0.0, 0, 0),) * 3, gamma(2.2))
    assert conversion(broken, "rgb", U16) == (
        None,
        ("the colour profile cannot be applied: sRGB assumed",),
    )
