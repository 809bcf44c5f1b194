"""Chroma planes: right colours, the largest chroma that fits, nothing clipped, at all sizes, ranges
and matrices.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gancolor import color
from gancolor.video import chroma

BT601, BT709, SILENT = 6, 1, 2
FILMS = pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
MATRICES = pytest.mark.parametrize("space", [BT601, BT709], ids=["601", "709"])


def film(
    width: int = 64, height: int = 48, full_range: bool = False, space: int = SILENT, depth: int = 8
) -> Any:
    return SimpleNamespace(
        width=width,
        height=height,
        full_range=full_range,
        color_space=space,
        depth=depth,
        fields=None,
    )


def decode(luma: Any, u: Any, v: Any, info: Any) -> Any:
    """Return R'G'B' (3, h, w), not clipped, as a player computes it."""
    red, blue = chroma.luma_weights(info)
    unit = 1 << (info.depth - 8)
    y, cb, cr = luma.astype(np.float64), u - 128.0 * unit, v - 128.0 * unit
    if info.full_range:
        y, cb, cr = (plane / (256 * unit - 1) for plane in (y, cb, cr))
    else:
        y, cb, cr = (y / unit - 16) / 219, cb / unit / 224, cr / unit / 224
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.stack((r, (y - red * r - blue * b) / (1 - red - blue), b))


def exact(luma: Any, ab: Any, info: Any) -> Any:
    """Return Cb and Cr (2, h, w), in codes from neutral, of the gray's L* with the colour ab,
    fitting or not.
    """
    light = torch.from_numpy(chroma.lightness(luma, info.full_range, info.depth))[None, None]
    r, g, b = (
        color.merge(light, torch.from_numpy(ab).permute(2, 0, 1)[None], clip=False)[0]
        .double()
        .numpy()
    )
    red, blue = chroma.luma_weights(info)
    y = red * r + (1 - red - blue) * g + blue * b
    scale = (1 << info.depth) - 1 if info.full_range else 224 << (info.depth - 8)
    return np.stack(((b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red)))) * scale


def random_frame(
    reach: float, size: tuple[int, int] = (160, 200), depth: int = 8
) -> tuple[Any, Any]:
    generator = np.random.default_rng(3)
    unit = 1 << (depth - 8)
    kind = np.uint8 if depth == 8 else np.uint16
    luma = generator.integers(16 * unit, 235 * unit + 1, size, dtype=kind)
    return luma, generator.uniform(-reach, reach, (*size, 2)).astype(np.float32)


@FILMS
@MATRICES
def test_colours_that_fit_come_out_as_color_merge_makes_them(full_range: bool, space: int) -> None:
    info = film(full_range=full_range, space=space)
    luma, ab = random_frame(0.5)
    wanted = exact(luma, ab, info)
    fits = (np.abs(decode(luma, *(wanted + 128), info) - 0.5) < 0.48).all(0)
    error = np.stack(chroma.chroma_planes(luma, ab, info)) - 128.0 - wanted
    assert 0.2 < fits.mean() < 0.9
    assert np.sqrt((error[:, fits] ** 2).mean()) < 0.45  # rounding alone: 0.29
    assert np.abs(error[:, fits]).max() < 5
    modest = fits & (np.abs(ab).max(2) < 0.15) & (luma > 100)
    assert np.abs(error[:, modest]).max() < 0.6


@FILMS
@pytest.mark.parametrize("depth", [9, 10, 12, 16])
def test_more_bits_are_right_to_half_a_code(full_range: bool, depth: int) -> None:
    info = film(full_range=full_range, space=BT709, depth=depth)
    luma, ab = random_frame(0.5, depth=depth)
    wanted = exact(luma, ab, info)
    neutral = 1 << (depth - 1)
    fits = (np.abs(decode(luma, *(wanted + neutral), info) - 0.5) < 0.49).all(0)
    planes = chroma.chroma_planes(luma, ab, info)
    assert [plane.dtype for plane in planes] == [np.uint16, np.uint16] and fits.mean() > 0.2
    assert np.abs(np.stack(planes) - float(neutral) - wanted)[:, fits].max() < 0.51 + depth / 1000
    rgb = decode(luma, *planes, info)
    assert rgb.min() > -2 / neutral and rgb.max() < 1 + 2 / neutral
    none = chroma.chroma_planes(luma, np.zeros_like(ab), info)
    assert all(np.abs(plane.astype(int) - neutral).max() <= depth // 16 for plane in none)


def test_a_slope_of_colour_has_the_steps_of_its_depth() -> None:
    ab = np.zeros((2, 512, 2), np.float32)
    ab[..., 0] = np.linspace(0.1, 0.2, 512)
    steps = [
        len(np.unique(chroma.chroma_planes(luma, ab, film(depth=depth))[1]))
        for depth, luma in (
            (8, np.full((2, 512), 120, np.uint8)),
            (10, np.full((2, 512), 480, np.uint16)),
        )
    ]
    assert steps[1] > 3.5 * steps[0]


def test_fields_are_halved_each_by_itself() -> None:
    luma = np.zeros((12, 8), np.uint16)
    luma[1::2] = 1000
    half = chroma.halve(luma, interlaced=True)
    assert half[:, 0].tolist() == [0, 1000, 0, 1000, 0, 1000]
    assert (chroma.halve(luma) == 500).all() and (chroma.blended(luma) == 500).all()
    for height in range(4, 12):  # odd fields too
        assert chroma.halve(luma[:height], interlaced=True).shape == ((height + 1) // 2, 4)
        assert chroma.halve(luma[:height], interlaced=True)[::2].max() == 0


def test_the_picture_has_the_colours_that_were_asked() -> None:
    luma = np.tile(np.linspace(60, 200, 32).astype(np.uint8), (32, 1))
    a, b = np.meshgrid(np.linspace(-0.1, 0.1, 32), np.linspace(-0.1, 0.1, 32))
    ab = np.stack((a, b), axis=2).astype(np.float32)
    rgb = torch.from_numpy(decode(luma, *chroma.chroma_planes(luma, ab, film()), film()))[None]
    error = color.split(rgb)[1][0].permute(1, 2, 0).numpy() - ab
    assert np.sqrt((error**2).mean()) * 110 < 0.7


@FILMS
@MATRICES
def test_no_colour_leaves_srgb_and_none_is_shortened_too_far(full_range: bool, space: int) -> None:
    info = film(full_range=full_range, space=space)
    luma = np.arange(256, dtype=np.uint8).repeat(64).reshape(256, 64)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    ab = np.tile(np.stack((np.cos(angles), np.sin(angles)), axis=1), (256, 1, 1)).astype(np.float32)
    u, v = chroma.chroma_planes(luma, ab, info)
    shown = slice(None) if full_range else slice(16, 236)
    got, asked = (
        decode(luma, *planes, info)[:, shown] for planes in ((u, v), exact(luma, ab, info) + 128)
    )
    rounding = 1.6 / 255
    assert got.min() > -rounding
    assert got.max() < 1 + rounding
    outside = (asked.min(0) < -0.02) | (asked.max(0) > 1.02)
    assert outside.mean() > 0.5
    # each touches a face of the cube
    assert np.minimum(got, 1 - got).min(0)[outside].max() < 2 * rounding
    without = [0, 255] if full_range else [*range(17), *range(235, 256)]
    assert (u[without] == 128).all() and (v[without] == 128).all()  # black and white have no room


def test_what_does_not_fit_keeps_its_hue() -> None:
    luma, ab = random_frame(0.9)
    wanted = exact(luma, ab, film())
    got = np.stack(chroma.chroma_planes(luma, ab, film())) - 128.0
    visible = np.hypot(*got) > 20
    outside = visible & (np.hypot(*got) < 0.8 * np.hypot(*wanted))
    cosine = (got * wanted).sum(0) / np.hypot(*got).clip(1) / np.hypot(*wanted).clip(1)
    assert outside.mean() > 0.1
    assert cosine[outside].min() > np.cos(np.radians(5))


def test_ab_beyond_one_is_shortened_along_its_hue() -> None:
    luma = np.full((2, 2), 128, np.uint8)
    ab = np.full((2, 2, 2), (0.9, -0.3), np.float32)
    expected = chroma.chroma_planes(luma, ab / 0.9, film())
    assert np.array_equal(chroma.chroma_planes(luma, ab * 4, film()), expected)


@pytest.mark.parametrize("full_range", [False, True])
def test_no_colour_is_128(full_range: bool) -> None:
    luma, ab = random_frame(0.5)
    planes = chroma.chroma_planes(luma, np.zeros_like(ab), film(full_range=full_range))
    assert all((plane == 128).all() for plane in planes)


def test_tensors_and_arrays_give_the_same_and_stay_as_they_are() -> None:
    luma, ab = random_frame(0.6, (5, 7))
    kept = luma.copy(), ab.copy()
    tensor = torch.from_numpy(ab).permute(2, 0, 1)[None]
    planes = chroma.chroma_planes(luma, ab, film())
    assert np.array_equal(planes, chroma.chroma_planes(luma, tensor, film()))
    assert [plane.dtype for plane in planes] == [np.uint8, np.uint8]
    assert np.array_equal(luma, kept[0]) and np.array_equal(ab, kept[1])


def test_another_size_is_refused() -> None:
    luma, ab = random_frame(0.5)
    with pytest.raises(ValueError, match=r"ab must be \(160, 199, 2\), got \(160, 200, 2\)"):
        chroma.chroma_planes(luma[:, :199], ab, film())


@pytest.mark.parametrize(
    ("info", "weights"),
    [
        (film(640, 480), (0.299, 0.114)),
        (film(1280, 544), (0.2126, 0.0722)),
        (film(960, 720), (0.2126, 0.0722)),
        (film(960, 540, space=BT709), (0.2126, 0.0722)),
        (film(1920, 1080, space=BT601), (0.299, 0.114)),
        (film(1920, 1080, space=9), (0.2627, 0.0593)),
        (film(320, 240, space=0), (0.299, 0.114)),
    ],
)
def test_the_matrix_is_the_films_or_what_players_take(
    info: Any, weights: tuple[float, float]
) -> None:
    assert chroma.luma_weights(info) == weights


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 1), (1, 5), (6, 1)])
def test_luma_is_halved_to_the_size_of_the_chroma_planes(height: int, width: int) -> None:
    luma = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    half = chroma.halve(luma)
    assert half.shape == ((height + 1) // 2, (width + 1) // 2)
    assert abs(int(half[0, 0]) - luma[:2, :2].mean()) <= 0.5
    assert (
        abs(int(half[-1, -1]) - luma[2 * half.shape[0] - 2 :, 2 * half.shape[1] - 2 :].mean())
        <= 0.5
    )


def test_grays_are_what_a_player_shows() -> None:
    luma = np.array([[0, 16, 125, 126, 235, 255]], np.uint8)
    assert chroma.grays(luma, full_range=False).tolist() == [[0, 0, 127, 128, 255, 255]]
    assert chroma.grays(luma, full_range=True).tolist() == luma.tolist()


@FILMS
def test_lightness_is_that_of_the_gray(full_range: bool) -> None:
    luma = np.arange(256, dtype=np.uint8)[None]
    gray = torch.from_numpy(chroma.grays(luma, full_range))[None, None].expand(1, 3, 1, 256)
    expected = color.split(gray.contiguous())[0][0, 0].numpy()
    assert np.abs(chroma.lightness(luma, full_range) - expected).max() < (
        1e-6 if full_range else 0.02
    )
    assert chroma.lightness(luma, full_range).dtype == np.float32
