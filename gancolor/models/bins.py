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
_NOISE = 0.5  # of a draw: 1 draws from the distribution as it is, less prefers the likely colours
_SIMILAR = 15.0  # CIE units: deviation of the Gaussian over which bins share a draw's noise
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
    total.index_add_(0, encoded.nearest.flatten().cpu(), encoded.weight.flatten().double().cpu())
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
    logarithms = F.log_softmax(logits.float(), dim=1)
    entropy = -(logarithms.exp() * logarithms).sum(1)
    return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)


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


@color.in_full_precision
def draw(logits: Tensor, seed: int) -> Tensor:
    """Return logits (B, Q, H, W) whose colours are a draw from the distribution, for `decode`.

    The likeliest bin of logits with Gumbel noise is a draw from their softmax (Gumbel, 1954); with
    `_NOISE` times the noise it is one from the softmax raised to the power 1 / `_NOISE`, which
    takes back that rare colours weighed more. Bins of similar colours share noise, or a draw would
    be a mixture, and the noise is the same all over the picture: what could as well be red turns
    red everywhere.
    """
    return logits + draw_noise(seed).to(logits.device)[:, None, None]


def draw_noise(seed: int) -> Tensor:
    """Return what `draw` adds to the logits of each bin, (Q,), float32. On the CPU: every device
    gets the same.
    """
    normal = torch.randn(len(centers()), generator=torch.Generator().manual_seed(seed))
    # from normal to Gumbel by their quantiles
    uniform = torch.special.ndtr(_kinship() @ normal).clamp(1e-6, 1 - 1e-6)
    noise: Tensor = -_NOISE * (-uniform.log()).log()
    return noise


@functools.lru_cache(maxsize=1)
def _kinship() -> Tensor:
    """How bins share noise, (Q, Q): by a Gaussian of their distance, so that each bin's has the
    deviation 1.
    """
    with torch.inference_mode(False), torch.no_grad():
        distance = color.AB_SCALE * torch.cdist(
            centers(), centers(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        share = torch.exp(-distance.square() / (2 * _SIMILAR**2))
        return share / share.square().sum(1, keepdim=True).sqrt()


def at_centers(ab: Tensor, stride: int) -> Tensor:
    """Return the colours in the middle of squares of `stride` pixels: (B, 2, H, W) to (B, 2, H /
    stride, W / stride).

    The mean of the middle 2x2 pixels: averaged over the whole square, neighbouring colours would
    gray each other.
    """
    begin = stride // 2 - 1
    return F.avg_pool2d(ab[..., begin:, begin:], 2, stride)
