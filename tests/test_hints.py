"""Colour hints: where training has them, as a user gives them, on their way into a network, and
held in its answer.
"""

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
        draw_squares(side, share, np.random.default_rng([3, number])) for number in range(count)
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
    first, again, other = (draw_squares(32, 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
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


def hold(
    given: list[Hint], guide: NDArray[np.float32] | None = None, rows: int = 30, reach: float = 2.0
) -> NDArray[np.float32]:
    """Colours of 0.1 all over 30 x 40 pixels with hints held in them, in strips of so many rows."""
    guide = np.zeros((30, 40), np.float32) if guide is None else guide
    colors = np.full((30, 40, 2), 0.1, np.float32)
    strips = [
        (start, guide[start : start + rows], colors[start : start + rows])
        for start in range(0, 30, rows)
    ]
    holder = hints.Holder(given, (30, 40), reach, strips)
    held = colors.copy()
    for start in range(0, 30, rows):
        holder.hold(start, guide[start : start + rows], held[start : start + rows])
    return held


def test_each_hint_is_kept_at_its_place_and_what_is_far_away_is_left_alone() -> None:
    held = hold([Hint(10, 12, RED), Hint(30, 20, BLUE, 2)])
    np.testing.assert_allclose(held[12, 10], ab_of(RED), atol=1e-5)
    np.testing.assert_allclose(held[18:23, 28:33].mean((0, 1)), ab_of(BLUE), atol=1e-5)
    assert (held[:, 19:20] == np.float32(0.1)).all() and (held[27:, :20] == np.float32(0.1)).all()
    way = np.linalg.norm(held[12, 10:17] - 0.1, axis=1)
    assert (np.diff(way) < 0).all() and way[2] > 0.5 * way[0]  # no dot: it falls off around


def test_a_wider_reach_spreads_a_correction_further() -> None:
    near, far = (
        np.linalg.norm(hold([Hint(10, 12, RED)], reach=reach)[12, 15] - 0.1) for reach in (2.0, 6.0)
    )
    assert far > 1.5 * near


def test_strips_change_nothing() -> None:
    given = [Hint(10, 12, RED), Hint(11, 13, BLUE, 3), Hint(39, 29, RED, 1)]
    for rows in (1, 7):
        np.testing.assert_allclose(hold(given, rows=rows), hold(given), atol=1e-6)


def test_neighbouring_hints_are_both_kept_and_the_mean_of_those_at_one_place() -> None:
    held = hold([Hint(10, 10, RED), Hint(11, 10, BLUE), Hint(10, 11, (90, 90, 90), 0)])
    for (row, column), rgb in {(10, 10): RED, (10, 11): BLUE, (11, 10): (90, 90, 90)}.items():
        np.testing.assert_allclose(held[row, column], ab_of(rgb), atol=1e-5)
    held = hold([Hint(10, 10, RED), Hint(10, 10, BLUE)])
    np.testing.assert_allclose(held[10, 10], (ab_of(RED) + ab_of(BLUE)) / 2, atol=1e-5)


def test_a_correction_stops_at_an_edge_of_the_lightness() -> None:
    guide = np.zeros((30, 40), np.float32)
    guide[:, 12:] = 1.0
    held = hold([Hint(11, 10, RED)], guide)
    np.testing.assert_allclose(held[10, 11], ab_of(RED), atol=1e-5)
    same, other = (np.linalg.norm(held[10, at] - 0.1) for at in (10, 12))
    assert other < 1e-3 < 0.1 < same


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
