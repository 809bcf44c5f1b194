"""How much two sets of pictures look alike to a network: a distance of their features, and whether they are told apart.

Pure functions on arrays of features, float64 inside, on the CPU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]

FOLDS = 5
FEWEST = 10
"""Pictures that `told_apart` needs: two a fold."""

RIDGE = 0.001
"""What the squared weights of `told_apart`'s classifier cost; docs/evaluation.md says how it was chosen."""

LEAST_SHARE = 0.1
"""Share of the true pictures in which a channel must answer: a rarer one would be decided by a picture or two."""

_ROUNDING = 1e-6  # a channel's deviation over its mean below which the deviation is rounding


def standardize(features: Features, true: Features) -> Features:
    """Divide channels by their standard deviations over the true pictures; (N, width), (M, width) -> (N, kept).

    Channels that are the same in all true pictures, or 0 in more than 1 - `LEAST_SHARE` of them, are left out. So the
    scale of a channel, or of a network, plays no part.
    """
    deviation = true.std(axis=0)
    kept = deviation > _ROUNDING * np.abs(true).mean(axis=0)
    kept &= (true != 0).mean(axis=0) >= LEAST_SHARE
    standard: Features = features[:, kept] / deviation[kept]
    return standard


def frechet_distance(first: Features, second: Features) -> float:
    """The squared Frechet distance of two Gaussians with the sets' means and covariances; (N, width), (M, width).

    Dowson and Landau (1982), as in Heusel et al. (2017): |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)), covariances over
    N - 1. With A'A = C1 and B'B = C2 the trace of the root is the sum of the singular values of AB', which is as small
    as the sets are: exact with fewer pictures than channels too. ValueError for fewer than two of either.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"each set must have at least two pictures, got {len(first)} and {len(second)}")
    roots = [_root(features) for features in (first, second)]
    shift = first.mean(axis=0) - second.mean(axis=0)
    together = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + sum((root**2).sum() for root in roots) - 2 * together))


def _root(features: Features) -> Features:
    """A with A'A = the covariance, of at most as many rows as channels."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def told_apart(true: Features, colored: Features, seed: int = 0) -> NDArray[np.float64]:
    """How often a linear classifier tells each picture's true and coloured version right that it was not trained on.

    Takes the features of the same N pictures in the same order, standardized, (N, width) twice. Returns 0, 0.5 or 1 for
    each picture, (N,): the mean is 0.5 when nobody can tell, 1 when everybody can. Ridge regression on +1 for true and
    -1 for coloured, trained on four fifths of the pictures; both versions are in the same fold. Which is
    which fold comes from `seed` and N alone. ValueError for fewer than `FEWEST`.
    """
    count = len(true)
    if count < FEWEST:
        raise ValueError(f"there must be at least {FEWEST} pictures, got {count}")
    fold = np.empty(count, np.int64)
    fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % FOLDS
    correct = np.empty(count)
    for number in range(FOLDS):
        held = fold == number
        known = np.concatenate((true[~held], colored[~held]))
        center = known.mean(axis=0)
        weights = _ridge(known - center, np.repeat((1.0, -1.0), len(known) // 2))
        scores = ((true[held] - center) @ weights, -(colored[held] - center) @ weights)  # above 0 where it is right
        correct[held] = np.heaviside(scores, 0.5).mean(axis=0)
    return correct


def _ridge(x: Features, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The w that minimizes the mean of (x w - y)^2 + `RIDGE` width |w|^2; (n, width), (n,) -> (width,)."""
    count, width = x.shape
    cost = RIDGE * count * width
    if count > width:
        return np.linalg.solve(x.T @ x + cost * np.eye(width), x.T @ y)
    return x.T @ np.linalg.solve(x @ x.T + cost * np.eye(count), y)  # the same: (X'X + c)^-1 X' = X' (XX' + c)^-1
