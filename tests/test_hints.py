"""Colour hints: where training has them, as a user gives them, and on their way into a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color, hints
from gancolor.data.example import MOST_HINTS, draw_squares, most_hints
from gancolor.errors import ConfigError
from gancolor.hints import Hint
from gancolor.models.generator import CHANNELS, HintEncoder, shrink

RED, BLUE = (200, 60, 50), (40, 70, 190)


def ab_of(rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    ab: NDArray[np.float32] = (
        color.split(torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1))[1].flatten().numpy()
    )
    return ab


# --- the squares of training ---


def squares(count: int, share: float, side: int = 64) -> list[NDArray[np.uint8]]:
    return [
        draw_squares((side, side), share, np.random.default_rng([3, number]))
        for number in range(count)
    ]


def numbers(picture: NDArray[np.uint8]) -> list[int]:
    return [int(n) for n in np.unique(picture) if n]


def test_squares_have_their_share_of_the_pictures() -> None:
    drawn = squares(600, 0.5)
    assert all(picture.shape == (64, 64) and picture.dtype == np.uint8 for picture in drawn)
    # One of eight of the few has none: geometric from 0.
    assert sum(picture.any() for picture in drawn) / 600 == pytest.approx(
        0.5 * (0.5 * 7 / 8 + 0.5 * 32 / 33), abs=0.05
    )
    assert not any(picture.any() for picture in squares(50, 0.0))


def test_half_of_them_have_few_hints_and_half_any_number() -> None:
    # covered numbers count too
    counts = [max(numbers(picture), default=0) for picture in squares(800, 1.0, 256)]
    assert max(counts) <= MOST_HINTS and max(counts) > 110
    # geometric with a mean of 7, or uniform up to 128
    few = 0.5 * (1 - (7 / 8) ** 8) + 0.5 * 8 / 129
    assert sum(count < 8 for count in counts) / 800 == pytest.approx(few, abs=0.05)
    assert np.median(counts) == pytest.approx(16, abs=10)
    assert sum(count > 64 for count in counts) / 800 == pytest.approx(0.25, abs=0.05)


def test_small_pictures_have_fewer_hints() -> None:
    assert [most_hints(side) for side in (32, 64, 128, 256, 512)] == [16, 32, 64, 128, 128]
    counts = [max(numbers(picture), default=0) for picture in squares(300, 1.0, 64)]
    assert 28 < max(counts) <= 32


def test_squares_are_1_to_9_pixels_wide_and_lie_everywhere_but_more_in_the_middle() -> None:
    sides, total = set(), np.zeros((96, 96))
    for picture in squares(800, 1.0, 96):
        total += picture > 0
        if (last := max(numbers(picture), default=0)) == 0:
            continue
        rows, columns = np.nonzero(picture == last)  # the last one is covered by none
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        # a rectangle: cut at the border only
        assert len(rows) == height * width and max(height, width) <= 9
        if 9 <= rows.min() and rows.max() < 87 and 9 <= columns.min() and columns.max() < 87:
            assert height == width
            sides.add(int(height))
    assert sides == set(range(1, 10))
    assert (total > 0).mean() > 0.99
    for axis in (0, 1):
        # the middle, rounded down
        assert np.average(np.arange(96), weights=total.sum(axis)) == pytest.approx(47, abs=1.2)
    assert total[32:64, 32:64].mean() > 1.5 * total[:32, :32].mean()


def test_squares_are_a_function_of_the_generator_alone() -> None:
    first, again, other = (
        draw_squares((32, 32), 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


# --- what a user gives ---


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Hint(20, 5, RED), r"hint 2 must lie in the picture of 20x10 pixels, got x=20, y=5"),
        (Hint(5, 10, RED), r"got x=5, y=10"),
        (Hint(-0.6, 5, RED), r"got x=-0.6"),
        (Hint(5, 5, (0, 256, 0)), r"hint 2 must have a colour from 0 to 255, got \(0, 256, 0\)"),
        (Hint(5, 5, (-1, 0, 0)), "from 0 to 255"),
        (Hint(5, 5, (1, 2)), "finite numbers"),  # type: ignore[arg-type]
        (Hint(math.nan, 5, RED), "hint 2 must be of finite numbers"),
        (Hint(5, math.inf, RED), "finite numbers"),
        (Hint(5, 5, RED, -1), "radius of 0 or more pixels, got -1"),
    ],
)
def test_a_wrong_hint_is_named(hint: Hint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hints.check([Hint(5, 5, RED), hint], 10, 20)


def test_hints_at_the_picture_s_edges_are_in_it_and_too_many_are_refused() -> None:
    hints.check([Hint(-0.5, -0.5, RED), Hint(19.5, 9.5, RED), Hint(0, 9, BLUE, 100)], 10, 20)
    hints.check([], 1, 1)
    with pytest.raises(ConfigError, match="hints must be at most 10000, got 10001"):
        hints.check([Hint(0, 0, RED)] * 10_001, 10, 20)


def test_a_map_shows_each_hint_at_its_place() -> None:
    drawn = hints.draw([Hint(3, 1, RED), Hint(8, 6, BLUE, 1)], 10, 20, (10, 20))
    assert drawn.shape == (10, 20, 3) and drawn.dtype == np.float32
    expected = np.zeros((10, 20), bool)
    expected[1, 3] = True
    expected[5:8, 7:10] = True  # a radius of one pixel around it
    assert np.array_equal(drawn[..., 2], expected)
    np.testing.assert_allclose(drawn[1, 3, :2], ab_of(RED), atol=1e-5)
    np.testing.assert_allclose(
        drawn[5:8, 7:10, :2], np.broadcast_to(ab_of(BLUE), (3, 3, 2)), atol=1e-5
    )
    assert not drawn[~expected].any()
    assert not hints.draw([], 10, 20, (10, 20)).any()


def test_a_map_of_another_size_shows_each_hint_too() -> None:
    given = [Hint(150, 70, RED), Hint(199.5, 99.5, BLUE), Hint(100, 20, BLUE, 12)]
    small = hints.draw(given, 100, 200, (10, 20))
    assert np.argwhere(small[..., 2])[-1].tolist() == [9, 19] and small[7, 15, 2] == 1
    # 88.5 to 112.5, and 8.5 to 32.5 pixels of the picture
    assert small[..., 2].sum() == 1 + 1 + 4 * 4
    large = hints.draw([Hint(2, 1, RED)], 4, 4, (40, 40))
    assert np.argwhere(large[..., 2]).tolist() == [[15, 25]]
    # the whole pixel
    assert hints.draw([Hint(2, 1, RED, 0.5)], 4, 4, (40, 40))[10:20, 20:30, 2].sum() == 100


def test_where_hints_meet_their_mean_is_drawn() -> None:
    drawn = hints.draw([Hint(2, 2, RED, 1), Hint(3, 2, BLUE, 1)], 6, 6, (6, 6))
    np.testing.assert_allclose(drawn[2, 2, :2], (ab_of(RED) + ab_of(BLUE)) / 2, atol=1e-5)
    np.testing.assert_allclose(drawn[2, 1, :2], ab_of(RED), atol=1e-5)
    assert set(np.unique(drawn[..., 2])) == {0, 1}


def test_a_picture_of_hints_shows_them_in_their_colours_over_the_gray_view() -> None:
    view = np.repeat(np.tile(np.linspace(40, 220, 40).astype(np.uint8), (30, 1))[..., None], 3, 2)
    view[..., 0] += 20  # its colours are not shown
    drawn = hints.draw([Hint(8, 6, RED, 2), Hint(30, 20, (128, 128, 128))], 30, 40, (30, 40))
    shown = hints.show(view, drawn)
    assert shown.shape[:2] == (30 * 18, 40 * 18) and shown.dtype == np.uint8
    red, gray, corner, plain = (
        shown[y * 18 + 9, x * 18 + 9].astype(int) for x, y in ((8, 6), (30, 20), (0, 0), (20, 28))
    )
    assert red[0] > red[2] + 60 and np.ptp(gray) <= 2 and np.ptp(plain) <= 2
    assert np.ptp(corner) <= 2 and corner[0] < plain[0]
    assert shown[20 * 18 - 1, 30 * 18 + 9].tolist() == [0] * 3  # framed, so that gray ones show too
    assert shown[20 * 18 - 2, 30 * 18 + 9].tolist() == [255] * 3
    assert np.ptp(hints.show(view, None).astype(int), axis=2).max() <= 2


# --- on the way into a network ---


def hint_map(*places: tuple[int, int, tuple[float, float]], size: int = 32) -> Tensor:
    """A map (1, 3, size, size) of single pixels (row, column, ab)."""
    drawn = torch.zeros(1, 3, size, size)
    for row, column, ab in places:
        drawn[0, :, row, column] = torch.tensor([*ab, 1.0])
    return drawn


def test_a_smaller_map_holds_the_mean_of_the_hints_however_few() -> None:
    given = hint_map((0, 0, (0.4, -0.2)), (9, 13, (0.5, 0.5)), (10, 14, (-0.1, 0.3)))
    small = shrink(given, 8, 8)
    expected = torch.zeros(1, 3, 8, 8)
    expected[0, :, 0, 0] = torch.tensor([0.4, -0.2, 1.0])
    expected[0, :, 2, 3] = torch.tensor([0.2, 0.4, 1.0])
    torch.testing.assert_close(small, expected)
    assert shrink(given, 32, 32) is given
    whole = torch.cat([torch.full((1, 2, 32, 32), 0.3), torch.ones(1, 1, 32, 32)], 1)
    torch.testing.assert_close(shrink(whole, 4, 8), whole[..., :4, :8])
    odd = shrink(hint_map((16, 16, (0.5, 0.1)), size=33), 8, 8)  # where the size does not divide
    assert set(odd[0, 2].unique().tolist()) == {0, 1}
    torch.testing.assert_close(odd[0, :2, odd[0, 2] > 0].mean(1), torch.tensor([0.5, 0.1]))


def test_the_encoder_has_a_map_for_each_level() -> None:
    levels = [48, 40, 24]  # from the coarsest to the finest
    encoder = HintEncoder(levels, stride=4)
    maps = encoder(torch.rand(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 48, 4, 6), (2, 40, 8, 12), (2, 24, 16, 24)]
    assert [layer.out_channels for layer in encoder.known] == list(CHANNELS)
    deep = HintEncoder([16] * 5, stride=1)(torch.rand(1, 3, 32, 32))
    assert [x.shape[-1] for x in deep] == [2, 4, 8, 16, 32]
    assert HintEncoder([], stride=4)(torch.rand(1, 3, 32, 32)) == []


def test_no_hints_add_exactly_nothing() -> None:
    encoder = HintEncoder([8, 8, 8], stride=4)
    assert all(parameter.dim() > 1 for parameter in encoder.parameters())  # no biases
    assert all(torch.equal(x, torch.zeros_like(x)) for x in encoder(torch.zeros(1, 3, 64, 64)))


def test_the_coarsest_level_hears_of_a_single_hint_about_as_loudly() -> None:
    torch.manual_seed(0)
    maps = HintEncoder([64, 64, 64, 64, 64], stride=4)(hint_map((64, 64, (0.2, 0.2)), size=128))
    coarse, fine = (float(maps[at].detach().abs().amax()) for at in (0, -1))
    assert coarse > fine / 2


def test_a_hint_reaches_its_neighbourhood_and_its_colour_counts() -> None:
    torch.manual_seed(0)
    encoder = HintEncoder([8, 8, 8], stride=4)
    red, blue = (encoder(hint_map((18, 41, ab), size=64)) for ab in ((0.5, 0.4), (0.1, -0.6)))
    assert not torch.allclose(red[-1], blue[-1])
    for x, (row, column) in zip(red, ((1, 2), (2, 5), (4, 10)), strict=True):
        strength = x[0].detach().abs().sum(0)
        assert float(strength[row, column]) > 0
        reached = F.max_pool2d((strength > 0).float()[None], 3, 1, 1)[0]
        assert float(reached[row, column]) == 1 and float((strength > 0).float().mean()) < 1
    away = (red[-1][0].detach().abs().sum(0) > 0).nonzero() - torch.tensor([4, 10])
    assert int(away.abs().max()) == 1  # one convolution at the finest level
