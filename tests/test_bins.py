"""The distribution over colours: its bins, what goes in and out of it, how rare colours count, and
draws from it.
"""

from __future__ import annotations

import math

import pytest
import torch
from colors import lab_to_rgb
from torch import Tensor

from gancolor import color
from gancolor.errors import DataError
from gancolor.models import bins

COUNT = 225


def some_colors(count: int, seed: int = 0) -> Tensor:
    """`ab` (count, 2) of random sRGB colours."""
    rgb = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    return color.split(rgb)[1].flatten(1)


def as_logits(encoded: bins.Encoded) -> Tensor:
    """Logits (N, Q, 1, 1) whose softmax is the encoded distribution."""
    empty = torch.full((len(encoded.nearest), COUNT), -1e4)
    return empty.scatter_(1, encoded.nearest, encoded.weight.log())[:, :, None, None]


def one_hot(number: int, *shape: int) -> Tensor:
    logits = torch.zeros(shape[0], COUNT, *shape[1:])
    logits[:, number] = 1e4
    return logits


def test_bins_are_the_grid_points_that_srgb_shows() -> None:
    ab = bins.centers() * color.AB_SCALE
    assert ab.shape == (COUNT, 2) and ab.dtype == torch.float32
    assert torch.equal(ab.round(), (ab / 10).round() * 10)  # a grid of step 10
    assert float((ab - ab.round()).abs().max()) < 1e-4
    assert len({tuple(row) for row in ab.round().tolist()}) == COUNT


def test_bins_are_all_that_srgb_shows_at_some_whole_lightness() -> None:
    """By another way than the code's: out of Lab, unclipped, and looked whether it fits."""
    axis = 10 * torch.arange(-13.0, 14.0)
    grid = torch.cartesian_prod(axis, axis)
    lightness = torch.arange(101.0).expand(len(grid), 1, 101)
    lab = torch.cat([lightness, grid[:, :, None].expand(-1, -1, 101)], 1)[:, :, None]
    rgb = lab_to_rgb(lab, clip=False)
    shown = torch.maximum(-rgb, rgb - 1).amax((1, 2)).amin(1) < 1e-4
    assert torch.equal(grid[shown], (bins.centers() * color.AB_SCALE).round())


def test_a_colour_is_spread_over_its_five_nearest_bins() -> None:
    ab = some_colors(200)
    nearest, weight = bins.encode(ab)
    assert nearest.shape == weight.shape == (200, 5) and nearest.dtype == torch.int64
    torch.testing.assert_close(weight.sum(1), torch.ones(200))
    distance = (ab[:, None] - bins.centers()[None]).norm(dim=2) * color.AB_SCALE
    expected, order = distance.sort(1)
    torch.testing.assert_close(distance.gather(1, nearest), expected[:, :5])
    assert torch.equal(nearest[:, 0], order[:, 0])
    gauss = torch.exp(-(expected[:, :5] ** 2) / (2 * 5.0**2))
    torch.testing.assert_close(weight, gauss / gauss.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)
    far = bins.encode(torch.tensor([[3.0, -3.0]])).weight  # far from every bin: not 0 / 0
    assert bool(far.isfinite().all()) and float(far.sum()) == pytest.approx(1)


def test_decoding_recovers_an_encoded_colour() -> None:
    ab = some_colors(500)
    inside = bins.encode(ab)
    error = (bins.decode(as_logits(inside), 1.0).flatten(1) - ab).norm(dim=1) * color.AB_SCALE
    assert float(error.median()) < 0.5 and float(error.mean()) < 0.6
    around = {(a, b) for a in (-10, 0, 10) for b in (-10, 0, 10)}
    known = {tuple(row) for row in (bins.centers() * color.AB_SCALE).round().int().tolist()}
    whole = torch.tensor(  # with bins on all sides: not at the gamut's border
        [
            {(a + x, b + y) for x, y in around} <= known
            for a, b in (10 * (ab * 11).round().int()).tolist()
        ]
    )
    assert int(whole.sum()) > 300 and float(error[whole].max()) < 1
    exact = bins.centers()[::10]
    likeliest = bins.decode(as_logits(bins.encode(exact)), 0.01).flatten(1)
    torch.testing.assert_close(likeliest, exact, atol=1e-4, rtol=0)


def test_temperature_goes_from_the_likeliest_colour_to_the_mean_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, COUNT, 2, 3, generator=generator)
    likeliest = bins.centers()[logits.argmax(1)].permute(0, 3, 1, 2)
    temperatures = (0.001, 0.1, 0.2, 0.38, 0.6, 1.0, 2.0, 1e6)
    away = [(bins.decode(logits, t) - likeliest).norm(dim=1).mean().item() for t in temperatures]
    assert away == sorted(away) and away[0] < 1e-3 < away[3] < away[-1]
    mean = (torch.softmax(logits, 1)[:, :, None] * bins.centers()[None, :, :, None, None]).sum(1)
    torch.testing.assert_close(bins.decode(logits, 1.0), mean, atol=1e-6, rtol=1e-5)
    everything = bins.centers().mean(0)[None, :, None, None].expand(4, 2, 2, 3)
    torch.testing.assert_close(bins.decode(logits, 1e6), everything, atol=1e-4, rtol=0)


def test_decoding_stays_in_float32_under_autocast() -> None:
    logits = torch.randn(1, COUNT, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ab = bins.decode(logits, 0.38)
    assert ab.dtype == torch.float32 and torch.equal(ab, bins.decode(logits, 0.38))


def test_gradient_flows_through_the_annealed_mean() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, COUNT, 2, 2, requires_grad=True)
    bins.decode(logits, 0.38).square().sum().backward()
    gradient = logits.grad
    assert gradient is not None and bool((gradient.abs().sum(1) > 0).all())
    moved = logits.detach().clone()
    moved[0, 7, 1, 1] += 1e-2
    step = (
        bins.decode(moved, 0.38).square().sum() - bins.decode(logits.detach(), 0.38).square().sum()
    )
    assert float(step) / 1e-2 == pytest.approx(float(gradient[0, 7, 1, 1]), rel=0.1, abs=1e-5)
    # A distribution moves towards the colour that it is asked for.
    sought = bins.centers()[100][None, :, None, None]
    for _ in range(60):
        (slope,) = torch.autograd.grad((bins.decode(logits, 0.38) - sought).abs().mean(), logits)
        logits = (logits - 20 * slope).detach().requires_grad_()
    assert float((bins.decode(logits.detach(), 0.38) - sought).abs().mean()) * color.AB_SCALE < 3


def test_cross_entropy_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    ab = some_colors(2 * 3 * 4).view(2, 3, 4, 2)
    logits = torch.randn(2, COUNT, 3, 4)
    weights = torch.rand(COUNT) + 0.5
    got = bins.cross_entropy(logits, bins.encode(ab.flatten(0, 2)), weights)
    total = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                nearest, weight = bins.encode(ab[b, y, x][None])
                exponentials = [math.exp(v) for v in logits[b, :, y, x].tolist()]
                own = 0.0
                for number, share in zip(nearest[0].tolist(), weight[0].tolist(), strict=True):
                    own -= share * math.log(exponentials[number] / sum(exponentials))
                total += own * float(weights[nearest[0, 0]])
    assert float(got) == pytest.approx(total / 24, rel=1e-4)


def test_cross_entropy_is_least_for_the_colours_distribution() -> None:
    encoded = bins.encode(some_colors(6))
    weights = torch.ones(COUNT)

    def entropy(logits: Tensor) -> float:
        # (1, Q, 6, 1)
        return float(bins.cross_entropy(logits.permute(2, 1, 0, 3), encoded, weights))

    right = as_logits(encoded)
    assert entropy(torch.zeros_like(right)) == pytest.approx(math.log(COUNT), rel=1e-5)
    own = -(encoded.weight * encoded.weight.log()).sum(1).mean()
    assert entropy(right) == pytest.approx(float(own), rel=1e-4)
    assert entropy(right) < entropy(right.roll(1, 0))


def test_frequencies_are_shares() -> None:
    encoded = bins.encode(some_colors(300))
    share = bins.frequencies(encoded)
    assert share.shape == (COUNT,) and share.dtype == torch.float64
    assert float(share.sum()) == pytest.approx(1, abs=1e-12)
    number = int(encoded.nearest[0, 0])
    expected = encoded.weight[encoded.nearest == number].double().sum() / 300
    assert float(share[number]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("rebalance", [0.0, 0.5, 1.0])
def test_rare_colours_weigh_more_and_the_mean_is_1(rebalance: float) -> None:
    share = bins.frequencies(bins.encode(some_colors(300)))
    share[:20] = 0
    share /= share.sum()
    weights = bins.class_weights(share, rebalance)
    assert weights.shape == (COUNT,) and weights.dtype == torch.float32
    assert float((share * weights).sum()) == pytest.approx(1, rel=1e-5)
    formula = 1 / ((1 - rebalance) * share + rebalance / COUNT)
    seen = share > 0
    ratio = weights[seen] / formula[seen]
    assert float(ratio.min()) == pytest.approx(float(ratio.max()), rel=1e-4)
    common, rare = int(share.argmax()), int(torch.where(share > 0, share, 1).argmin())
    if rebalance == 1:
        torch.testing.assert_close(weights, torch.ones(COUNT))
    else:
        assert float(weights[rare]) > 1.5 * float(weights[common])
    assert bool(weights.isfinite().all())


def mean_chroma(share: Tensor) -> float:
    return float((share / share.sum() * bins.centers().norm(dim=1)).sum())


def test_pale_pictures_are_rebalanced_less() -> None:
    pale = torch.cat([0.04 * torch.randn(9000, 2), some_colors(1000)])
    share = bins.frequencies(bins.encode(pale))
    most = bins.MOST_VIVID * mean_chroma(share)
    assert mean_chroma(share * bins.class_weights(share, 0.5)) > 1.2 * most
    tempered = bins.tempered(share, 0.5)
    assert 0.5 < tempered < 1
    assert 0.97 * most < mean_chroma(share * bins.class_weights(share, tempered)) <= most
    assert bins.tempered(share, 0.0) == pytest.approx(tempered, abs=0.02)
    assert bins.tempered(share, 1.0) == 1
    vivid = bins.frequencies(bins.encode(some_colors(300)))
    assert bins.tempered(vivid, 0.5) == 0.5  # left as it is


def test_pictures_without_colours_are_refused() -> None:
    gray = bins.frequencies(bins.encode(torch.zeros(100, 2)))
    with pytest.raises(DataError, match=r"must have colours, got 0\.00 % .*--dataset"):
        bins.class_weights(gray, 0.5)
    # two CIE units: what JPEG does to gray
    tinted = bins.frequencies(bins.encode(0.02 * torch.randn(1000, 2)))
    with pytest.raises(DataError, match="colours that are not gray"):
        bins.class_weights(tinted, 0.5)
    few = torch.zeros(1000, 2)
    few[:10, 0] = 0.5
    assert bins.class_weights(bins.frequencies(bins.encode(few)), 0.5).shape == (COUNT,)


def test_confidence_is_0_without_knowledge_and_1_with_one_colour() -> None:
    assert bins.confidence(torch.zeros(2, COUNT, 3, 4)).shape == (2, 3, 4)
    assert float(bins.confidence(torch.zeros(1, COUNT, 2, 2)).abs().max()) < 1e-6
    assert float(bins.confidence(one_hot(3, 1, 2, 2)).min()) == 1
    two = torch.full((1, COUNT, 1, 1), -1e4)
    two[:, 5:7] = 0
    assert float(bins.confidence(two)) == pytest.approx(1 - math.log(2) / math.log(COUNT), rel=1e-5)


def far_apart() -> tuple[int, int]:
    """Two bins of very different colours: a red and a green."""
    grid = bins.centers() * color.AB_SCALE
    return int((grid - torch.tensor([60.0, 40.0])).norm(dim=1).argmin()), int(
        (grid - torch.tensor([-60.0, 40.0])).norm(dim=1).argmin()
    )


@pytest.mark.slow
def test_draws_follow_the_distribution_as_far_as_they_are_to_be_diverse() -> None:
    red, green = far_apart()
    share = torch.full((COUNT,), 1e-12)
    share[red], share[green] = 0.7, 0.3

    def reds(diversity: float) -> float:
        places = [(k + 0.5) / 200 for k in range(200)]
        drawn = [bins.draw(share.log(), diversity, place) for place in places]
        assert set(drawn) <= {red, green}
        return drawn.count(red) / len(drawn)

    assert reds(1) == pytest.approx(0.7, abs=0.006)
    assert reds(0.5) == pytest.approx(0.49 / (0.49 + 0.09), abs=0.006)
    assert reds(2) == pytest.approx(0.7**0.5 / (0.7**0.5 + 0.3**0.5), abs=0.006)
    assert reds(0) == 1
    ends = [bins.centers()[bins.draw(torch.zeros(COUNT), 1, place)] for place in (0, 1 - 1e-16)]
    assert float((ends[0] - ends[1]).norm()) * color.AB_SCALE > 150


def test_a_distribution_leans_towards_a_colour_as_far_as_it_holds_it_possible() -> None:
    red, green = far_apart()
    undecided = torch.full((1, COUNT, 1, 1), -12.0)
    undecided[:, [red, green]] = 0
    sure = torch.full((1, COUNT, 1, 1), -40.0)
    sure[:, green] = 0
    for number in (red, green):
        leaning = bins.lean(undecided, number)
        away = bins.decode(leaning, 0.38)[0, :, 0, 0] - bins.centers()[number]
        assert float(away.norm()) * color.AB_SCALE < 5
    assert bins.lean(sure, red).argmax() == green


def test_colours_are_taken_in_the_middle_of_squares() -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    ab = torch.stack([rows, columns])[None]
    taken = bins.at_centers(ab, 4)
    assert taken.shape == (1, 2, 2, 3)
    assert taken[0, 0, :, 0].tolist() == [1.5, 5.5] and taken[0, 1, 0].tolist() == [1.5, 5.5, 9.5]
    halves = torch.zeros(1, 2, 8, 8)
    halves[..., 4:] = 1  # colours of two things beside each other stay apart
    assert bins.at_centers(halves, 4).unique().tolist() == [0, 1]
