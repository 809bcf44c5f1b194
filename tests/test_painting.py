from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color, metrics
from gancolor.coloring.painting import Upsampler
from gancolor.coloring.settings import METHODS
from gancolor.errors import ConfigError

Array = NDArray[np.float32]

SIZE = 256


def to_lab(rgb: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Lightness (H, W) and ab (H, W, 2)."""
    lightness, ab = color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])
    return lightness[0, 0].numpy(), ab[0].permute(1, 2, 0).contiguous().numpy()


def shrink(picture: NDArray, factor: int) -> NDArray:
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def grow(
    predicted: Array, guide: Array, lightness: Array, method: str, strip: int | None = None
) -> Array:
    upsampler = Upsampler(predicted, guide, lightness.shape, method)
    full = torch.from_numpy(lightness)[None, None]
    strip = strip or lightness.shape[0]
    parts = [
        upsampler.rows(start, full[:, :, start : start + strip])
        for start in range(0, lightness.shape[0], strip)
    ]
    return torch.cat(parts, dim=2)[0].permute(1, 2, 0).numpy()


def error(lightness: Array, ab: Array, truth: Array) -> Array:
    """CIEDE2000 of each pixel."""

    def lab(colors: Array) -> Tensor:
        return torch.from_numpy(np.dstack(((lightness + 1) * 50, colors * 110))).permute(2, 0, 1)[
            None
        ]

    return metrics.ciede2000(lab(ab), lab(truth))[0].numpy()


def shapes(seed: int) -> NDArray[np.uint8]:
    """Flat-coloured shapes with hard edges, smoothed over one pixel as a scan is: (SIZE, SIZE, 3)
    uint8.
    """
    random = np.random.default_rng(seed)
    large = SIZE * 4
    canvas = np.full((large, large, 3), random.uniform(40, 220, 3), np.float32)
    for index in range(8):
        shade, (x, y) = tuple(random.uniform(20, 235, 3)), random.integers(0, large, 2).tolist()
        reach = int(random.integers(large // 12, large // 4))
        if index % 2:
            cv2.circle(canvas, (x, y), reach, shade, -1)
        else:
            cv2.rectangle(canvas, (x, y), (x + reach, y + 2 * reach), shade, -1)
    return cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA).round().astype(np.uint8)


def find_band(ab: Array, reach: int) -> NDArray[np.bool_]:
    """The pixels within `reach` of a change of colour."""
    change = np.zeros(ab.shape[:2], np.uint8)
    change[1:] |= np.abs(np.diff(ab, axis=0)).sum(2) > 0.02
    change[:, 1:] |= np.abs(np.diff(ab, axis=1)).sum(2) > 0.02
    return cv2.dilate(change, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0


@pytest.mark.parametrize("factor", [4, 8])
def test_guided_halves_the_error_at_hard_edges(factor: int) -> None:
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(4):
        rgb = shapes(seed)
        lightness, truth = to_lab(rgb)
        guide, predicted = to_lab(shrink(rgb, factor))
        band = find_band(truth, factor // 2)
        for method in METHODS:
            errors[method].append(
                error(lightness, grow(predicted, guide, lightness, method), truth)[band].mean()
            )
    assert np.mean(errors["bilinear"]) > 5
    assert np.mean(errors["guided"]) < 0.45 * np.mean(errors["bilinear"])
    assert max(np.divide(errors["guided"], errors["bilinear"])) < 0.6


def test_guided_sharpens_the_soft_colors_of_a_network() -> None:
    ratios = []
    for seed in range(4):
        rgb = shapes(seed)
        lightness, truth = to_lab(rgb)
        guide, predicted = to_lab(shrink(rgb, 4))
        soft = cv2.GaussianBlur(predicted, (0, 0), 1.2)
        band = find_band(truth, 4)
        guided, bilinear = (
            error(lightness, grow(soft, guide, lightness, method), truth)[band]
            for method in METHODS
        )
        ratios.append(guided.mean() / bilinear.mean())
    assert np.mean(ratios) < 0.7


@pytest.mark.parametrize("coarseness", [1, 4, 12])
def test_texture_is_not_copied_into_flat_colors(coarseness: int) -> None:
    random = np.random.default_rng(coarseness)
    texture = cv2.GaussianBlur(
        random.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), coarseness
    )
    lightness = (0.1 + 0.25 * texture / texture.std()).clip(-0.7, 0.8)
    truth = np.full((SIZE, SIZE, 2), (0.15, -0.1), np.float32)
    guide, exact = shrink(lightness, 8), shrink(truth, 8)
    assert np.allclose(grow(exact, guide, lightness, "guided"), truth, atol=1e-6)
    noisy = exact + 0.03 * cv2.GaussianBlur(
        random.normal(size=exact.shape).astype(np.float32), (0, 0), 1
    )
    guided, bilinear = (
        error(lightness, grow(noisy, guide, lightness, method), truth).mean() for method in METHODS
    )
    assert guided < 1.05 * bilinear


def test_grain_gets_no_colors_of_its_own() -> None:
    random = np.random.default_rng(0)
    across = np.linspace(-1, 1, SIZE, dtype=np.float32)[None].repeat(SIZE, 0)
    truth = np.dstack((0.2 * across, 0.2 * across.T))
    lightness = 0.3 * across + 0.1 * random.normal(size=truth.shape[:2]).astype(np.float32)
    for noise in (0.0, 0.005):
        predicted = shrink(truth, 8) + noise * random.normal(size=(SIZE // 8, SIZE // 8, 2)).astype(
            np.float32
        )
        ab = {
            method: grow(predicted, shrink(lightness, 8), lightness, method) for method in METHODS
        }
        roughness = {
            method: np.abs(np.diff(colors, axis=0)).mean() for method, colors in ab.items()
        }
        assert roughness["guided"] < 1.1 * roughness["bilinear"]


def test_smooth_gradients_stay_smooth() -> None:
    down, across = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    truth, lightness = np.dstack((0.4 * across - 0.2, 0.3 - 0.5 * down)), 1.2 * across * down - 0.5
    guide, predicted = shrink(lightness, 4), shrink(truth, 4)
    guided = error(lightness, grow(predicted, guide, lightness, "guided"), truth)

    assert guided.mean() < 0.15
    assert guided.max() < 1


def test_scratches_stay_within_the_colors_around() -> None:
    rgb = shapes(0)
    lightness, _ = to_lab(rgb)
    guide, predicted = to_lab(shrink(rgb, 8))
    lightness = lightness.copy()
    lightness[::9], lightness[:, ::11] = 1, -1
    ab = grow(predicted, guide, lightness, "guided")
    window = np.ones((5, 5), np.uint8)
    low, high = (
        cv2.resize(extreme(predicted, window), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        for extreme in (cv2.erode, cv2.dilate)
    )
    # Averages of a side reach four small pixels, colours between them one more: the picture's range
    # bounds them all.
    assert (ab >= predicted.min((0, 1)) - 1e-6).all() and (ab <= predicted.max((0, 1)) + 1e-6).all()
    assert ((ab >= low - 0.02) & (ab <= high + 0.02)).mean() > 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strip", [1, 7, 64])
def test_strips_do_not_change_the_result(method: str, strip: int) -> None:
    rgb = shapes(1)[:201, :173]
    lightness, _ = to_lab(rgb)
    guide, predicted = to_lab(cv2.resize(rgb, (40, 47), interpolation=cv2.INTER_AREA))
    whole = grow(predicted, guide, lightness, method)
    assert np.abs(grow(predicted, guide, lightness, method, strip) - whole).max() < 1e-6


@pytest.mark.parametrize("factor", [2, 8])
@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("_BLOCK", 1),
        ("_BLOCK", 1000),
        ("_PART", 1),
        ("_PART", 1000),
        ("_PART", 1 << 30),
        ("_SPOTS", 7),
    ],
)
def test_blocks_do_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch, factor: int, limit: str, value: int
) -> None:
    lightness, _ = to_lab(shapes(1))
    guide, predicted = to_lab(shrink(shapes(1), factor))
    whole = grow(predicted, guide, lightness, "guided")
    monkeypatch.setattr(f"gancolor.coloring.painting.{limit}", value)
    assert np.abs(grow(predicted, guide, lightness, "guided") - whole).max() < 1e-6


def test_colors_are_averaged_over_their_own_side_of_an_edge() -> None:
    random = np.random.default_rng(0)
    guide = np.where(np.arange(24) < 12, -0.5, 0.5)[None].repeat(20, 0).astype(np.float32)
    predicted = np.dstack((0.4 * guide, -0.2 * guide)) + 0.01 * random.normal(
        size=(20, 24, 2)
    ).astype(np.float32)
    # In the middle of a small pixel, with its lightness, its own colour is read.
    colors = grow(predicted, guide, guide.repeat(3, 0).repeat(3, 1), "guided")[1::3, 1::3]

    expected = np.zeros(2)
    total, around = 0.0, range(-4, 5, 2)
    for down, right in ((down, right) for down in around for right in around):
        if 11 + right < 12:  # the other side, a whole edge darker, counts for nothing
            weight = np.exp(-(down**2 + right**2) / 18)
            expected, total = expected + weight * predicted[10 + down, 11 + right], total + weight
    assert np.abs(colors[10, 11] - expected / total).max() < 1e-3
    assert np.abs(colors[10, 11] - predicted[10, 11]).max() > 5e-3
    # far from the edge nothing is averaged
    assert np.abs(colors[:, :6] - predicted[:, :6]).max() < 1e-6


@pytest.mark.parametrize("size", [(64, 96), (65, 131), (40, 400), (17, 23)])
def test_bilinear_agrees_with_opencv(size: tuple[int, int]) -> None:
    predicted = np.random.default_rng(0).random((17, 23, 3), dtype=np.float32)
    lightness = np.zeros(size, np.float32)
    expected = cv2.resize(predicted, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(grow(predicted, predicted[..., 0], lightness, "bilinear") - expected).max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_equal_size_returns_the_colors_as_they_are(method: str) -> None:
    lightness, ab = to_lab(shapes(2)[:64, :80])
    assert (grow(ab, lightness, lightness, method) == ab).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("small", "size"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (1, 50)),
        ((1, 30), (2, 61)),
        ((2, 1), (5, 3)),
        ((3, 2), (3, 5)),
        ((900, 2), (20000, 30)),
        ((2, 900), (30, 20000)),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_size_and_number_of_channels(
    method: str, small: tuple[int, int], size: tuple[int, int], channels: int
) -> None:
    random = np.random.default_rng(0)
    predicted = random.uniform(-1, 1, (*small, channels)).astype(np.float32)
    lightness = random.uniform(-1, 1, size).astype(np.float32)
    colors = grow(
        predicted, random.uniform(-1, 1, small).astype(np.float32), lightness, method, strip=9000
    )
    assert colors.shape == (*size, channels) and colors.dtype == np.float32
    assert colors.min() >= predicted.min() - 1e-5 and colors.max() <= predicted.max() + 1e-5


def test_arrays_in_another_layout_are_taken_and_left_alone() -> None:
    random = np.random.default_rng(0)
    predicted, guide = random.random((2, 12, 9)).transpose(2, 1, 0), random.random((12, 9)).T
    before = predicted.copy()
    lightness = random.random((36, 48), dtype=np.float32)
    for method in METHODS:
        colors = grow(predicted, guide, lightness, method)
        plain = grow(
            predicted.astype(np.float32).copy(), guide.astype(np.float32).copy(), lightness, method
        )
        assert (colors == plain).all()
    assert (predicted == before).all()


@pytest.mark.parametrize("method", METHODS)
def test_colors_given_can_be_changed_afterwards(method: str) -> None:
    planes, guide = np.ones((2, 4, 4), np.float32), np.zeros((4, 4), np.float32)
    upsampler = Upsampler(planes.transpose(1, 2, 0), guide, (8, 8), method)
    planes[:] = 0
    assert (upsampler.rows(0, torch.zeros(1, 1, 8, 8)) == 1).all()


def test_colors_can_be_worked_on_in_place() -> None:
    rows = Upsampler(np.ones((2, 2, 2), np.float32), np.zeros((2, 2), np.float32), (4, 4)).rows(
        1, torch.zeros(1, 1, 2, 4)
    )
    assert (rows.mul_(2) == 2).all() and rows.shape == (1, 2, 2, 4)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match="^--upsample must be one of guided, bilinear, got cubic$",
    ):
        Upsampler(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.float32), (4, 4), "cubic")


@pytest.mark.parametrize(
    ("predicted", "guide", "size"),
    [
        ((2, 2), (2, 2), (4, 4)),
        ((2, 2, 2), (2, 3), (4, 4)),
        ((0, 2, 2), (0, 2), (4, 4)),
        ((2, 2, 2), (2, 2), (0, 4)),
    ],
)
def test_other_shapes_are_refused(
    predicted: tuple[int, ...], guide: tuple[int, ...], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="predicted must be"):
        Upsampler(np.zeros(predicted, np.float32), np.zeros(guide, np.float32), size)


@pytest.mark.parametrize(("start", "shape"), [(-1, (2, 6)), (3, (2, 6)), (0, (2, 5)), (0, (5, 6))])
def test_rows_outside_are_refused(start: int, shape: tuple[int, int]) -> None:
    upsampler = Upsampler(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.float32), (4, 6))
    with pytest.raises(ValueError, match="rows must lie within"):
        upsampler.rows(start, torch.zeros(1, 1, *shape))


def test_no_rows_are_no_colors() -> None:
    upsampler = Upsampler(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.float32), (4, 6))
    assert upsampler.rows(4, torch.zeros(1, 1, 0, 6)).shape == (1, 2, 0, 6)
