"""Distances of features against closed forms, and whether sets are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from gancolor.evaluation import features
from gancolor.evaluation.features import (
    RIDGE,
    FeatureArray,
    frechet_distance,
    standardize,
    told_apart,
)


def draw(count: int, width: int, seed: int) -> FeatureArray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width)) + random.normal(
        size=width
    )


def directly(first: FeatureArray, second: features.FeatureArray) -> float:
    """The formula as it is written, with scipy's root of a matrix."""
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(one @ two).real
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(one + two - 2 * root))


@pytest.mark.parametrize(("counts", "width"), [((40, 55), 6), ((9, 30), 8), ((300, 12), 5)])
def test_frechet_distance_is_that_of_scipy(counts: tuple[int, int], width: int) -> None:
    first, second = (draw(count, width, seed) for seed, count in enumerate(counts))
    assert frechet_distance(first, second) == pytest.approx(directly(first, second), rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


def test_frechet_distance_of_fewer_pictures_than_channels() -> None:
    """Padded with channels that do not vary, and turned: the distance stays what it was in few
    channels.
    """
    first, second = draw(9, 4, 0), draw(7, 4, 1)
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(60, 60))).Q[:4]
    assert frechet_distance(first @ turned, second @ turned) == pytest.approx(
        directly(first, second), rel=1e-6
    )


def test_frechet_distance_by_hand() -> None:
    features = draw(20, 7, 3)
    center = features.mean(axis=0)
    shift = np.arange(7.0)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features + shift, features) == pytest.approx((shift**2).sum())
    wider = center + 3 * (features - center)  # tr(9C + C - 6C)
    assert frechet_distance(wider, features) == pytest.approx(
        4 * np.trace(np.cov(features, rowvar=False))
    )
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(features[:1], features)


def test_the_scale_of_a_channel_plays_no_part() -> None:
    true, colored = draw(30, 5, 4), draw(30, 5, 5)
    scale = np.array([1e-4, 0.1, 1, 500, 1e5])
    plain = [standardize(features, true) for features in (colored, true)]
    scaled = [standardize(features * scale, true * scale) for features in (colored, true)]
    assert frechet_distance(*plain) == pytest.approx(frechet_distance(*scaled))
    assert np.array_equal(told_apart(*plain), told_apart(*scaled))
    assert plain[1].std(axis=0) == pytest.approx(np.ones(5))


def test_channels_that_hardly_answer_are_left_out() -> None:
    true = np.abs(draw(40, 4, 6)) + 1
    true[:, 1] = 0.3  # the same everywhere, but for rounding
    true[::2, 1] += 1e-12
    true[3:, 2] = 0  # in three of 40
    true[4:, 3] = 0  # in four
    found = standardize(true, true)
    assert found.shape == (40, 2) and found[:, 1] == pytest.approx(true[:, 3] / true[:, 3].std())


# --- told apart ---


def test_equal_pictures_are_never_told_apart() -> None:
    """Each picture has a channel of its own: were its two versions in different folds, it would be
    known again.
    """
    features = np.eye(20) + draw(20, 20, 7) / 100
    assert told_apart(features, features.copy()).tolist() == [0.5] * 20
    assert told_apart(draw(12, 3, 8), draw(12, 3, 8)).tolist() == [0.5] * 12  # more than channels


@pytest.mark.parametrize("width", [4, 200])
def test_what_differs_in_a_channel_is_told_apart(width: int) -> None:
    true = np.random.default_rng(9).normal(size=(50, width))
    colored = true.copy()
    colored[:, 0] -= 3
    if width == 4:
        assert told_apart(true, colored).mean() > 0.9
    colored[:, : width // 2] -= 5
    assert told_apart(true, colored).tolist() == [1] * 50
    assert told_apart(colored, true).tolist() == [1] * 50


@pytest.mark.parametrize("width", [4, 200])
def test_sets_of_one_kind_are_near_a_half(width: int) -> None:
    """Correlated as a picture and its colouring are, and different by chance alone."""
    random = np.random.default_rng(10)
    common = random.normal(size=(300, width))
    true, colored = (common + random.normal(size=common.shape) for _ in range(2))
    found = told_apart(true, colored)
    assert 0.4 < found.mean() < 0.6 and set(found) <= {0, 0.5, 1}
    assert np.array_equal(found, told_apart(true, colored))
    assert not np.array_equal(found, told_apart(true, colored, seed=1))


def test_ridge_by_its_definition() -> None:
    """At the minimum the gradient is zero, with more rows than channels and with fewer."""
    for count, width in ((30, 8), (8, 30)):
        x, y = draw(count, width, 11), np.repeat((1.0, -1.0), count // 2)
        weights = features._ridge(x, y)
        gradient = x.T @ (x @ weights - y) / count + RIDGE * width * weights
        assert np.abs(gradient).max() < 1e-9 * np.abs(x.T @ y).max()


def test_too_few_pictures() -> None:
    with pytest.raises(ValueError, match="at least 10 pictures, got 9"):
        told_apart(draw(9, 3, 0), draw(9, 3, 1))
