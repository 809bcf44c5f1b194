"""Views: sizes, depths, tones, and what a fusion network sees beside the picture."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor.coloring import views
from gancolor.coloring.views import Draw, Sight
from gancolor.errors import ConfigError
from gancolor.hints import Hint
from gancolor.images import arrays

SIGHT = Sight(size=32)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (64, 96, 32, (32, 48)),
        (96, 64, 32, (48, 32)),
        (20, 24, 32, (20, 24)),  # never enlarged
        (1, 1, 32, (1, 1)),
        (1, 20_000, 32, (1, 12_800)),  # 8 x 32 x 32 / 20,000 of the area
        (20_000, 30, 128, (9348, 14)),
        (10_000, 10_000, 128, (128, 128)),
    ],
)
def test_fit_keeps_the_aspect_and_bounds_the_area(
    height: int, width: int, size: int, expected: tuple[int, int]
) -> None:
    assert views.fit(height, width, size) == expected


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="size must be at least 1, got 0"):
        views.look(SIGHT, noise(4, 4, 3), 0)


def test_the_training_size_is_the_default() -> None:
    assert views.look(SIGHT, noise(64, 96, 3)).rgb.shape == (32, 48, 3)
    assert views.look(SIGHT, noise(64, 96, 3), 16).rgb.shape == (16, 24, 3)


@pytest.mark.parametrize("shape", [(90, 70), (90, 70, 3), (24, 20, 3), (24, 20)])
def test_every_depth_gives_the_same_view(shape: tuple[int, ...]) -> None:
    eight = noise(*shape)
    forms: list[NDArray[Any]] = [
        eight,
        eight.astype(np.uint16) * 257,
        (eight / 255).astype(np.float32),
    ]
    seen = [views.look(SIGHT, form).rgb for form in forms]
    assert seen[0].dtype == np.uint8 and seen[0].ndim == 3 and seen[0].shape[2] == 3
    for other in seen[1:]:
        assert np.abs(other.astype(int) - seen[0]).max() <= 1  # areas of bytes are rounded, then


def test_large_pictures_are_averaged_not_sampled() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    small = views.look(SIGHT, board.astype(np.uint8)).rgb
    assert set(np.unique(small)) <= {127, 128}


def test_not_a_number_is_black_and_what_lies_outside_is_cut() -> None:
    pixels = np.array([[np.nan, -0.5, 0.5, 2.0]], np.float32)
    assert views.look(SIGHT, pixels).rgb[0, :, 0].tolist() == [0, 0, 128, 255]


def test_tone_bends_picture_and_copy_alike() -> None:
    sight = Sight(32, embedding_size=16)
    gray = np.full((40, 40), 64, np.uint8)
    plain, bright, dark = (views.look(sight, gray, tone=tone) for tone in (1.0, 0.5, 2.0))
    assert (plain.rgb == 64).all() and (bright.rgb == 128).all() and (dark.rgb == 16).all()
    assert bright.copy is not None and (bright.copy == 128).all()
    ends = views.look(sight, np.array([[0, 255]], np.uint8), tone=0.7).rgb
    assert ends[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("fit", ["crop", "stretch", "white", "reflect"])
def test_the_copy_for_an_embedding(fit: str) -> None:
    rgb = noise(50, 70, 3)
    sight = Sight(32, embedding_size=24, embedding_fit=fit)
    view = views.look(sight, rgb, flip=True)
    assert view.copy is not None and np.array_equal(view.copy, arrays.square(rgb, 24, fit))
    assert view.flip  # the network's business: the pixels are upright
    assert np.array_equal(view.rgb, views.look(SIGHT, rgb).rgb)
    assert views.look(SIGHT, rgb).copy is None


def test_the_copy_of_a_large_or_deep_picture_is_nearly_that_of_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smooth = arrays.resize(noise(6, 8, 3), (300, 400))
    sight = Sight(32, embedding_size=16)
    whole = views.look(sight, smooth).copy
    deep = views.look(sight, smooth.astype(np.uint16) * 257).copy
    monkeypatch.setattr("gancolor.coloring.views._LARGE", 1000)
    large = views.look(sight, smooth).copy
    assert whole is not None and deep is not None and large is not None
    assert np.array_equal(deep, whole)
    assert not np.array_equal(large, whole)  # it is another way
    assert np.abs(large.astype(int) - whole).mean() < 2


def test_a_sight_and_a_view_travel_between_processes() -> None:
    sight = Sight(48, "edges", 24, "white")
    assert pickle.loads(pickle.dumps(sight)) == sight
    known = [Hint(30, 20, (200, 40, 40))]
    view = views.look(sight, noise(60, 60), flip=True, temperature=0.5, hints=known)
    view.draw = Draw(3, 1, 0.5)
    again = pickle.loads(pickle.dumps(view))
    assert np.array_equal(again.rgb, view.rgb) and np.array_equal(again.copy, view.copy)
    assert np.array_equal(again.hints, view.hints) and view.hints.any()
    assert (again.flip, again.draw, again.temperature) == (True, Draw(3, 1, 0.5), 0.5)


def test_hints_are_drawn_at_the_size_of_the_view() -> None:
    rgb = noise(96, 64, 3)
    assert views.look(SIGHT, rgb).hints is None
    view = views.look(
        SIGHT, rgb, hints=[Hint(63, 95, (200, 40, 40), radius=3), Hint(0, 0, (0, 0, 200))]
    )
    assert view.hints is not None and view.hints.shape == (*view.rgb.shape[:2], 3) == (48, 32, 3)
    assert view.hints.dtype == np.float32
    assert np.argwhere(view.hints[..., 2]).tolist() == [
        [0, 0],
        *([y, x] for y in (46, 47) for x in (30, 31)),
    ]
    assert (view.hints[46:, 30:, 0] > 0.3).all() and view.hints[0, 0, 1] < -0.5  # red; blue
