"""A distribution over colours: the bins of an a*b* grid inside sRGB's gamut, and what goes between
them and `ab`.

Zhang, Isola and Efros (2016): colours are soft-encoded over the nearest bins, rare ones weigh more,
and a colour is taken from a distribution as its annealed mean.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gancolor import color
from gancolor.errors import DataError

STEP = 10.0  # CIE units between bins
NEAREST = 5  # bins over which a colour is spread
SIGMA = 5.0  # CIE units: of the Gaussian that spreads it
LEAST_COLORED = (
    1e-3  # share of colours outside the nearest bins of gray, below which rarity means nothing
)
MOST_VIVID = 1.75  # how many times the pictures' mean chroma the weighted bins' may have

_STEPS = 101  # from the least l to 1
_NEAR = 25.0  # CIE units: of the Gaussian around a colour that a distribution leans towards
_LEAST_DIVERSITY = 1e-3  # of a draw: below it only the likeliest bin is drawn
_REACH = 110  # CIE units: no colour of sRGB has a larger |a*| or |b*|
_LIGHTNESSES = 101  # of L* at which a bin is looked for in the gamut


class Encoded(NamedTuple):
    """Colours as weights of bins: numbers of the `nearest`, int64, and their `weight`, which sums
    to 1; (N, 5) both.
    """

    nearest: Tensor
    weight: Tensor


@functools.lru_cache(maxsize=8)
def centers(device: torch.device | None = None) -> Tensor:
    """Return the bins' `ab`, (Q, 2), float32 in [-1, 1]: those grid points that sRGB shows at some
    whole L*.
    """
    with torch.inference_mode(False), torch.no_grad():
        axis = torch.arange(-_REACH, _REACH + 1, STEP, device="cpu")
        grid = torch.cartesian_prod(axis, axis) / color.AB_SCALE  # (G, 2)
        lightness = (
            torch.linspace(-1, 1, _LIGHTNESSES, device="cpu")
            .view(1, 1, 1, -1)
            .expand(len(grid), -1, -1, -1)
        )
        ab = grid[:, :, None, None].expand(-1, -1, 1, _LIGHTNESSES)
        kept = (color.reduce_to_gamut(lightness, ab) == ab).all(1).any(-1).flatten()
        return grid[kept].to(device)


def encode(ab: Tensor) -> Encoded:
    """Spread colours, `ab` (N, 2), over their nearest bins by a Gaussian of the distance."""
    grid = centers(ab.device)
    squared = (
        torch.cdist(ab.float(), grid, compute_mode="donot_use_mm_for_euclid_dist").square()
        * color.AB_SCALE**2
    )
    distance, nearest = squared.topk(NEAREST, dim=1, largest=False)
    # from the nearest: never 0 / 0
    weight = torch.exp((distance[:, :1] - distance) / (2 * SIGMA**2))
    return Encoded(nearest, weight / weight.sum(1, keepdim=True))


def frequencies(encoded: Encoded) -> Tensor:
    """Return the share of each bin, (Q,), float64, which sum to 1."""
    total = torch.zeros(len(centers()), dtype=torch.float64)
    total.index_add_(0, encoded.nearest.flatten().cpu(), encoded.weight.flatten().cpu().double())
    return total / total.sum()


def class_weights(share: Tensor, rebalance: float) -> Tensor:
    """Return how much each bin weighs, (Q,), float32: 1 / ((1 - l) p + l / Q), with mean 1 under p.

    `share`: p of `frequencies`; `rebalance`: l. DataError when there are hardly any colours.
    """
    if (colored := float(share[~_is_gray(centers())].sum())) < LEAST_COLORED:
        raise DataError(
            f"the training pictures must have colours, got {100 * colored:.2f} % of colours that"
            " are not gray; choose pictures in colour with --dataset"
        )
    weight = 1 / ((1 - rebalance) * share + rebalance / len(share)).clamp_min(1e-6)
    return (weight / (share * weight).sum()).float()


def share_colored(ab: Tensor) -> float:
    """Return the share of `ab` (B, 2, H, W) that is not gray, as the bins see it."""
    return 1 - float(_is_gray(ab.permute(0, 2, 3, 1)).float().mean())


def _is_gray(ab: Tensor) -> Tensor:
    gray: Tensor = ab.norm(dim=-1) < 1.5 * STEP / color.AB_SCALE
    return gray


def tempered(share: Tensor, rebalance: float) -> float:
    """Return the least l from `rebalance` on whose weighted bins are not more than `MOST_VIVID`
    times as colourful.

    The paler the pictures, the more the same l makes of their few colours; at 1 all bins weigh the
    same. By the mean chroma of the bins, weighted and as they are.
    """
    chroma = share * centers().norm(dim=1)
    candidates: list[float] = torch.linspace(rebalance, 1, _STEPS, dtype=torch.float64).tolist()
    return next(
        x
        for x in candidates
        if (class_weights(share, x) * chroma).sum() <= MOST_VIVID * chroma.sum()
    )


def confidence(logits: Tensor) -> Tensor:
    """Return how sure a distribution is, (B, H, W) in [0, 1]: 1 minus its entropy over that of no
    knowledge.
    """
    return (1 - entropy(logits) / math.log(logits.shape[1])).clamp(0, 1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of distributions, (B, Q, H, W) to (B, H, W), in nats: 0 where one colour
    is certain.
    """
    logarithms = F.log_softmax(logits.float(), dim=1)
    nats: Tensor = -(logarithms.exp() * logarithms).sum(1)
    return nats


def cross_entropy(logits: Tensor, encoded: Encoded, weights: Tensor) -> Tensor:
    """Return the mean cross-entropy of `logits` (B, Q, H, W) against colours at the same places, a
    scalar.

    `encoded`: of (B * H * W, 2), rows in the order B, H, W. `weights`: (Q,) of `class_weights`, by
    the nearest bin.
    """
    logarithms = F.log_softmax(logits.float().permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    entropy = -(logarithms.gather(1, encoded.nearest) * encoded.weight).sum(1)
    return (entropy * weights[encoded.nearest[:, 0]]).mean()


@color.in_full_precision
def decode(logits: Tensor, temperature: float) -> Tensor:
    """Return the annealed mean colour, `ab` (B, 2, H, W), float32, of `logits` (B, Q, H, W);
    differentiable.

    The distribution is raised to the power 1 / `temperature`: 1 gives its mean, towards 0 its
    likeliest bin.
    """
    share = torch.softmax(logits.float() / temperature, dim=1)
    return torch.einsum("bqhw,qc->bchw", share, centers(logits.device))


def draw(logits: Tensor, diversity: float, place: float) -> int:
    """Return the number of a bin drawn from a distribution, logits (Q,).

    `diversity`: the distribution is raised to the power 1 / `diversity`: 1 draws from it as it is,
    less prefers the likely colours, 0 takes the likeliest, more flattens it. `place`: in [0, 1), of
    the draw in the distribution, whose bins lie in order along the line on which its colours differ
    most: places that are spread evenly give colours that are.
    """
    grid = centers().double()
    share = torch.softmax(logits.cpu().double() / max(diversity, _LEAST_DIVERSITY), 0)
    away = grid - share @ grid
    (aa, ab), (_, bb) = (away.T @ (share[:, None] * away)).tolist()
    angle = math.atan2(2 * ab, aa - bb) / 2  # of the principal axis
    order = (away @ grid.new_tensor([math.cos(angle), math.sin(angle)])).argsort(stable=True)
    steps = share[order].cumsum(0)
    found = int(torch.searchsorted(steps, place * float(steps[-1]), right=True))
    return int(order[min(found, len(order) - 1)])


@color.in_full_precision
def lean(logits: Tensor, number: int) -> Tensor:
    """Return logits (B, Q, H, W) of distributions that lean towards the bin `number`, each as far as
    it holds the colours near it possible.
    """
    grid = centers(logits.device)
    away = (grid - grid[number]).norm(dim=1) * color.AB_SCALE / _NEAR
    leaning: Tensor = logits.float() - away.square()[:, None, None] / 2
    return leaning


def at_centers(ab: Tensor, stride: int) -> Tensor:
    """Return the colours in the middle of squares of `stride` pixels: (B, 2, H, W) to (B, 2, H /
    stride, W / stride).

    The mean of the middle 2x2 pixels: averaged over the whole square, neighbouring colours would
    gray each other.
    """
    begin = stride // 2 - 1
    return F.avg_pool2d(ab[..., begin:, begin:], 2, stride)
