"""Random crop and flip: repeatable, and never touching colour."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gancolor.data import example, picture_cache
from gancolor.images import arrays


def _gradient(height: int, width: int) -> np.ndarray:
    """Red rises from left to right, green from top to bottom."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width).astype(np.uint8)[None]
    picture[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return picture


@pytest.mark.parametrize("shape", [(40, 90), (1, 1), (7, 3), (32, 32), (300, 200)])
def test_square_of_the_asked_size_whatever_the_picture(shape):
    square = example.Augment(32, 0.5, True)(_gradient(*shape), 0, 0)
    assert square.shape == (32, 32, 3) and square.dtype == np.uint8 and square.flags.c_contiguous


def test_same_seed_and_position_give_the_same_square_whatever_ran_before():
    first, second = example.Augment(32, 0.3, True), example.Augment(32, 0.3, True)
    picture = _gradient(64, 64)
    wanted = first(picture, 5, 17)
    for position in range(4):
        second(picture, 5, position)
    assert np.array_equal(second(picture, 5, 17), wanted)
    assert not np.array_equal(second(picture, 5, 18), wanted)
    assert not np.array_equal(second(picture, 6, 17), wanted)


def test_pickled_copy_gives_the_same_squares():
    original = example.Augment(32, 0.3, True)
    picture = _gradient(64, 64)
    wanted = original(picture, 1, 2)
    assert np.array_equal(pickle.loads(pickle.dumps(original))(picture, 1, 2), wanted)


@pytest.mark.parametrize(
    ("position", "corners"),
    [
        (0, (98, 233, 4, 193)),
        (1, (98, 236, 75, 233)),
        (2, (165, 52, 23, 215)),
        (3, (47, 179, 20, 207)),
    ],
)
@pytest.mark.parametrize("embedding_size", [None, 48])
def test_random_squares_stay_what_earlier_versions_made(position, corners, embedding_size):
    """A run that is resumed, or repeated from its seed, sees the crops and flips that it saw
    before.
    """
    augmentation = example.Augment(32, 0.3, True, embedding_size=embedding_size)
    square, _ = augmentation.views(_gradient(200, 300), 5, position)
    found = np.array([square[0, 0, 0], square[0, -1, 0], square[0, 0, 1], square[-1, 0, 1]], int)
    assert np.abs(found - corners).max() <= 1  # interpolation may round otherwise on other machines


def test_input_is_left_alone_and_the_result_is_its_own():
    picture = _gradient(32, 32)
    before = picture.copy()
    square = example.Augment(32, 1.0, False)(picture, 0, 0)
    square[:] = 7
    assert np.array_equal(picture, before)


def test_flip_happens_half_of_the_time_and_independently_of_the_crop():
    augmentation = example.Augment(32, 0.2, True)
    picture = _gradient(64, 64)
    squares = [augmentation(picture, 0, position).astype(int) for position in range(400)]
    flipped = np.array([square[16, 0, 0] > square[16, -1, 0] for square in squares])
    covered = np.array([abs(square[16, 0, 0] - square[16, -1, 0]) for square in squares], float)
    assert 0.4 < flipped.mean() < 0.6
    assert abs(np.corrcoef(flipped, covered)[0, 1]) < 0.15


def test_no_flip_when_switched_off():
    augmentation = example.Augment(32, 0.2, False)
    squares = [augmentation(_gradient(64, 64), 0, position).astype(int) for position in range(40)]
    assert all(square[16, 0, 0] < square[16, -1, 0] for square in squares)


def test_zoom_bounds_the_share_that_a_crop_keeps():
    picture = _gradient(256, 256)
    shares = []
    for position in range(200):
        square = example.Augment(64, 0.25, False)(picture, 3, position).astype(float)
        width = (square[32, -1, 0] - square[32, 0, 0]) / 255
        height = (square[-1, 32, 1] - square[0, 32, 1]) / 255
        shares.append(width * height)
    assert 0.2 < min(shares) < 0.35 and max(shares) > 0.85


def test_flat_colour_stays_exactly_that_colour():
    picture = np.full((50, 70, 3), (201, 30, 77), np.uint8)
    augmentation = example.Augment(32, 0.3, True)
    for position in range(20):
        assert np.array_equal(
            augmentation(picture, 0, position), np.full((32, 32, 3), (201, 30, 77), np.uint8)
        )


@pytest.mark.slow
def test_albumentations_does_not_ask_the_network_for_a_newer_version():
    code = (
        "import urllib.request, numpy\n"
        "def refuse(*a, **k): raise SystemExit('called home')\n"
        "urllib.request.OpenerDirector.open = refuse\n"
        "from gancolor.data import example\n"
        "print(example.Augment(32, 0.5, True)(numpy.zeros((40, 40, 3), numpy.uint8), 0, 0).shape)\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"
    }
    environment["PYTHONPATH"] = str(Path(example.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "(32, 32, 3)", done.stderr


# --- fixed framings, and the embedding's copies ---


@pytest.mark.parametrize("framing", ["center", "white", "stretch"])
def test_fixed_framings_depend_on_position_by_the_flip_alone(framing):
    augmentation = example.Augment(32, 0.3, True, framing)
    picture = _gradient(60, 90)
    plain = example.Augment(32, 0.3, False, framing)(picture, 0, 0)
    squares = [augmentation(picture, 4, position) for position in range(200)]
    flipped = [np.array_equal(square, plain[:, ::-1]) for square in squares]
    assert all(
        turned or np.array_equal(square, plain)
        for square, turned in zip(squares, flipped, strict=True)
    )
    assert 0.4 < np.mean(flipped) < 0.6
    again = example.Augment(32, 0.3, True, framing)
    assert all(np.array_equal(again(picture, 4, p), squares[p]) for p in (150, 3))


@pytest.mark.parametrize("framing", ["random", "center", "white", "stretch"])
def test_the_copy_shows_what_the_square_shows(framing):
    augmentation = example.Augment(32, 0.3, True, framing, embedding_size=96)
    picture = _gradient(200, 300)
    picture[..., 2] = np.where(np.arange(300) > 150, 200, 20)[None]
    for position in range(20):
        square, copy = augmentation.views(picture, 1, position)
        assert copy.shape == (96, 96, 3) and np.array_equal(
            square, augmentation(picture, 1, position)
        )
        shrunk = copy.reshape(32, 3, 32, 3, 3).mean((1, 3))
        # bars end between pixels
        assert np.abs(shrunk - square).mean() < (6 if framing == "white" else 3), position


@pytest.mark.parametrize("framing", ["random", "center", "white", "stretch"])
def test_the_copy_is_made_from_the_full_picture(framing):
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:, ::2] = 255  # lines that a square of 16 cannot hold
    square, copy = example.Augment(16, 1.0, False, framing, embedding_size=128).views(picture, 0, 0)
    assert copy.std() > 100 > 30 > square.std()
    assert arrays.resize(square, 128).std() < 30  # enlarging the square would not bring them back


@pytest.mark.parametrize("framing", ["random", "center", "white", "stretch"])
def test_a_copy_of_the_same_size_is_the_square_but_another_array(framing):
    square, copy = example.Augment(32, 0.5, True, framing, 32).views(_gradient(40, 60), 0, 1)
    assert np.array_equal(square, copy) and not np.shares_memory(square, copy)


def test_white_bars_belong_to_the_square_and_to_the_copy():
    picture = np.full((50, 100, 3), (20, 90, 160), np.uint8)
    for view in example.Augment(32, 0.3, True, "white", 64).views(picture, 0, 0):
        bar = len(view) // 4
        assert (view[:bar] == 255).all() and (view[-bar:] == 255).all()
        assert (view[bar:-bar] == (20, 90, 160)).all()


@pytest.mark.parametrize("framing", ["center", "white", "stretch"])
def test_the_flip_follows_from_seed_and_position_alone(framing):
    def flips(shape, size, zoom):
        augmentation = example.Augment(size, zoom, True, framing, 40)
        views = [augmentation.views(_gradient(*shape), 9, position) for position in range(40)]
        turned = [
            [view[len(view) // 2, 0, 0] > view[len(view) // 2, -1, 0] for view in pair]
            for pair in views
        ]
        assert all(square == copy for square, copy in turned)
        return [square for square, _ in turned]

    assert flips((60, 90), 32, 0.3) == flips((130, 200), 16, 0.9)
    assert 5 < sum(flips((60, 90), 32, 0.3)) < 35


def test_no_copy_without_an_embedding():
    assert example.Augment(32, 0.5, True).views(_gradient(40, 40), 0, 0)[1] is None


def test_a_pickled_copy_keeps_framing_and_embedding():
    original = example.Augment(32, 0.3, True, "white", 48)
    picture = _gradient(64, 40)
    for one, two in zip(
        original.views(picture, 1, 2),
        pickle.loads(pickle.dumps(original)).views(picture, 1, 2),
        strict=True,
    ):
        assert np.array_equal(one, two)


# --- pictures of mixed sizes and aspects ---


def test_the_pictures_of_a_step_have_one_shape_and_steps_have_many():
    augmentation = example.Augment(64, 0.5, True, "mixed", batch_size=3)
    picture = _gradient(90, 160)
    shapes = [
        [augmentation(picture, 1, position).shape for position in range(3 * step, 3 * step + 3)]
        for step in range(60)
    ]
    assert all(len(set(step)) == 1 for step in shapes)
    assert [step[0][:2] for step in shapes] == [
        example.mixed_shape(64, 1, step) for step in range(60)
    ]
    found = {step[0] for step in shapes}
    assert all(side % 32 == 0 and side >= 32 for shape in found for side in shape[:2])
    assert {(64, 64, 3), (64, 96, 3), (96, 64, 3), (32, 64, 3), (64, 32, 3)} <= found
    assert max(height * width for height, width, _ in found) == math.prod(
        example.largest_shape(64, "mixed")
    )
    assert example.largest_shape(64, "random") == (64, 64)
    assert [example.mixed_shape(64, 2, step) for step in range(9)] != [
        example.mixed_shape(64, 1, step) for step in range(9)
    ]


def test_mixed_pictures_have_on_average_the_pixels_of_squares():
    shapes = [example.mixed_shape(256, 0, step) for step in range(3000)]
    assert np.mean([height * width for height, width in shapes]) == pytest.approx(256**2, rel=0.1)
    wide = np.array([width / height for height, width in shapes])
    assert 0.6 <= wide.min() < 0.7 and 1.45 < wide.max() <= 1.7


def test_a_mixed_crop_is_hardly_stretched():
    augmentation = example.Augment(128, 0.5, False, "mixed")
    picture = _gradient(300, 300)
    for position in range(40):
        crop = augmentation(picture, 0, position)
        covered = [int(np.ptp(crop[..., channel])) for channel in (1, 0)]  # height, width
        stretch = covered[1] / covered[0] / (crop.shape[1] / crop.shape[0])
        assert 0.95 / example.MIXED_STRETCH < stretch < 1.05 * example.MIXED_STRETCH


def test_a_pickled_copy_gives_the_same_mixed_pictures():
    original = example.Augment(64, 0.5, True, "mixed", batch_size=4)
    copy = pickle.loads(pickle.dumps(original))
    picture = _gradient(70, 80)
    for position in (0, 5, 17):
        assert np.array_equal(original(picture, 3, position), copy(picture, 3, position))


# --- the side to which pictures may be reduced beforehand ---


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize("zoom", [0.08, 0.5, 1.0])
def test_no_crop_of_a_picture_of_the_needed_side_is_enlarged_and_it_is_the_smallest_such_side(
    size, zoom
):
    # the height of the crop of the least area and the widest shape, of a square picture
    def flattest(
        side,
    ):
        return side * np.sqrt(zoom / example.CROP_RATIO[1])

    side = example.needed_side(size, zoom)
    assert flattest(side) >= size > flattest(side - 1)
    assert example.needed_side(size, zoom, "random", 2 * size) == example.needed_side(
        2 * size, zoom
    )
    assert example.needed_side(size, zoom, "random", size // 2) == side


@pytest.mark.parametrize(("size", "zoom"), [(64, 0.3), (128, 0.5), (256, 1.0)])
def test_no_mixed_crop_of_a_picture_of_the_needed_side_is_enlarged(size, zoom):
    side = example.needed_side(size, zoom, "mixed")
    picture = _gradient(side, side)
    augmentation = example.Augment(size, zoom, False, "mixed")
    for position in range(60):
        crop = augmentation(picture, 0, position)
        for axis, channel in ((0, 1), (1, 0)):
            pixels = np.ptp(crop[..., channel]) / 255 * side
            assert pixels >= crop.shape[axis] * 0.98 - 2  # the gradient has 256 levels


@pytest.mark.parametrize("framing", ["center", "white", "stretch"])
def test_a_fixed_framing_needs_its_own_side(framing):
    assert example.needed_side(64, 0.1, framing) == 64 == example.needed_side(48, 0.1, framing, 64)


@pytest.mark.parametrize("framing", ["random", "center", "white", "stretch"])
def test_a_picture_reduced_to_the_needed_side_gives_the_same_square_but_for_rounding(framing):
    picture = _gradient(400, 600)
    augmentation = example.Augment(32, 0.3, True, framing)
    small = picture_cache.reduce(picture, example.needed_side(32, 0.3, framing))
    assert small.shape[0] == example.needed_side(32, 0.3, framing) < 100
    for position in range(20):
        wanted, found = (augmentation(rgb, 1, position).astype(int) for rgb in (picture, small))
        if framing == "white":
            # the bars may begin a pixel sooner or later
            assert np.abs(wanted - found)[8:-8].max() <= 3
        else:
            # crops begin and end at whole pixels
            assert np.abs(wanted - found).max() <= 6, position
