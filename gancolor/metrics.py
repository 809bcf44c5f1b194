"""Measures of a coloured picture against the true one: pure functions on tensors, one number per
picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color

KEYS = (
    "mae_rgb",
    "mse_rgb",
    "mae_unit",
    "mae_ab",
    "psnr",
    "ciede2000",
    "colorfulness",
    "colorfulness_truth",
    "delta_colorfulness",
    "spread_a",
    "spread_b",
)
"""Names that `summarize` returns, in the order of the tables: means over the pictures, then what is
of all at once.
"""

_CHANNELS = ("a", "b")
MOMENTS = tuple(
    f"{of}_{name}" for name in _CHANNELS for of in ("mean", "square", "truth_mean", "truth_square")
)
"""What `spreads` is made of, from `measure`: each picture's mean of a* (b*) and of its square, and
the true one's.
"""

LEAST_SPREAD = 0.01
"""CIE units: a standard deviation below it is rounding (that of gray is about 0.001) and counts as
none.
"""

_SSIM_WINDOW = 11  # pixels
# of RGB in [0, 1]: caps PSNR at 100 dB, so that equal pictures do not make a mean infinite
_LEAST_MSE = 1e-10


@torch.no_grad()
def measure(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Measure predicted against true pictures, float sRGB in [0, 1], (B, 3, H, W) both; ValueError
    on other shapes.

    Returns a float32 tensor (B,) for each of `KEYS` but the spreads, independent of what else is in
    the batch: mean absolute and squared error of RGB in 0-255, mean absolute error of RGB in [-1,
    1] (the poster's) and of a*b* in CIE units, PSNR in dB (peak 1, at most 100), mean CIEDE2000,
    colorfulness of both (see `colorfulness`), and predicted - true; and for each of `MOMENTS`, in
    CIE units and their squares.
    """
    check_shapes(predicted, truth)
    predicted, truth = predicted.float(), truth.float()
    difference = predicted - truth
    absolute, squared = _mean(difference.abs()), _mean(difference.square())
    lab_predicted, lab_truth = color.rgb_to_lab(predicted), color.rgb_to_lab(truth)
    colorful, colorful_truth = colorfulness(predicted), colorfulness(truth)
    return {
        "mae_rgb": absolute * 255,
        "mse_rgb": squared * 255**2,
        "mae_unit": absolute * 2,
        "mae_ab": _mean((lab_predicted[:, 1:] - lab_truth[:, 1:]).abs()),
        "psnr": -10 * squared.clamp(min=_LEAST_MSE).log10(),
        "ciede2000": _mean(ciede2000(lab_predicted, lab_truth)),
        "colorfulness": colorful,
        "colorfulness_truth": colorful_truth,
        "delta_colorfulness": colorful - colorful_truth,
        **_moments(lab_predicted, lab_truth),
    }


def summarize(measured: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return `KEYS` of batches from `measure`: means over all pictures (not over batches), and
    their `spreads`.

    ValueError when there is none.
    """
    batches = list(measured)
    if not batches:
        raise ValueError("measured must hold at least one batch, got none")
    means = {
        key: torch.cat([batch[key].cpu().double() for batch in batches]).mean().item()
        for key in batches[0]
    }
    moments = {key: np.float64(means.pop(key)) for key in MOMENTS}
    return means | {key: float(value) for key, value in spreads(moments).items()}


def spreads(
    means: Mapping[str, NDArray[np.float64] | np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Return `spread_a` and `spread_b` from means over pictures of one size of each of `MOMENTS`,
    arrays of any shape.

    The standard deviation of a* (b*) over all pixels of all pictures, divided by that of the true
    ones: 1 as in the truth, 0 for gray. What is below `LEAST_SPREAD` counts as 0; two such are a
    spread of 1, and a true one is taken as `LEAST_SPREAD`, so that every spread is a finite number.
    """
    found = {}
    for name in _CHANNELS:
        predicted, truth = (
            np.sqrt(np.maximum(means[f"{of}square_{name}"] - means[f"{of}mean_{name}"] ** 2, 0))
            for of in ("", "truth_")
        )
        ratio = np.where(predicted < LEAST_SPREAD, 0, predicted) / np.maximum(truth, LEAST_SPREAD)
        found[f"spread_{name}"] = np.where(np.maximum(predicted, truth) < LEAST_SPREAD, 1.0, ratio)
    return found


def _moments(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """`MOMENTS` of Lab pictures, (B, 3, H, W) twice -> (B,) each."""
    found = {}
    for of, lab in (("", predicted), ("truth_", truth)):
        variance, mean = torch.var_mean(lab[:, 1:].flatten(2), dim=2, correction=0)  # (B, 2)
        for at, name in enumerate(_CHANNELS):
            found[f"{of}mean_{name}"] = mean[:, at]
            found[f"{of}square_{name}"] = variance[:, at] + mean[:, at].square()
    return found


def gray_picture(truth: Tensor) -> Tensor:
    """Return the baseline, gray of the same lightness. uint8 or float [0, 1] in, float out; (B, 3,
    H, W).
    """
    lightness, _ = color.split(truth)
    return color.gray(lightness).repeat(1, 3, 1, 1)


def colorfulness(rgb: Tensor, absolute: bool = False) -> Tensor:
    """Return the colorfulness M of Hasler and Süsstrunk (2003) for float sRGB in [0, 1], (B, 3, H,
    W) -> (B,).

    M = sigma + 0.3 mu of rg = R - G and yb = (R + G) / 2 - B on the 0-255 scale, with their signs.
    Gray is 0; photographs lie around 20 to 60. `absolute`: of |rg| and |yb| instead, as some
    projects' code has it: other numbers under the same name.
    """
    red, green, blue = (rgb.float() * 255).unbind(dim=1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1)  # (B, 2, H, W)
    opponents = opponents.flatten(2)
    variance, mean = torch.var_mean(opponents.abs() if absolute else opponents, dim=2, correction=0)
    return variance.sum(dim=1).sqrt() + 0.3 * mean.square().sum(dim=1).sqrt()


@torch.no_grad()
def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity of float sRGB pictures in [0, 1], (B, 3, H, W) twice ->
    (B,); 1 when equal.

    Wang et al. (2004): Gaussian window of 11 x 11 pixels, sigma 1.5, data range 1, only where the
    window lies inside; the mean over positions and R, G and B. ValueError for other shapes and for
    pictures smaller than the window.
    """
    check_shapes(predicted, truth)
    if min(predicted.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"pictures must be at least {_SSIM_WINDOW} pixels wide and high, got"
            f" {tuple(truth.shape)}"
        )
    # About 0.5, which changes no variance but costs it fewer digits.
    x, y = predicted.float() - 0.5, truth.float() - 0.5
    mean_x, mean_y, square_x, square_y, product = _blur(
        torch.stack((x, y, x * x, y * y, x * y))
    ).unbind()
    spread = square_x - mean_x.square() + square_y - mean_y.square()
    together = product - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    alike = (2 * mean_x * mean_y + 0.01**2) / (mean_x.square() + mean_y.square() + 0.01**2)
    return _mean(alike * (2 * together + 0.03**2) / (spread + 0.03**2))


def _blur(maps: Tensor) -> Tensor:
    """The means under SSIM's window, (..., H, W) -> (..., H - 10, W - 10)."""
    reach = range(-(_SSIM_WINDOW // 2), _SSIM_WINDOW // 2 + 1)
    weights = [math.exp(-((step / 1.5) ** 2) / 2) for step in reach]
    # Sums of shifted maps: much faster on the CPU than a convolution of one channel.
    for axis in (-2, -1):
        size = maps.shape[axis] - _SSIM_WINDOW + 1
        total = torch.zeros_like(maps.narrow(axis, 0, size))
        for start, weight in enumerate(weights):
            total.add_(maps.narrow(axis, start, size), alpha=weight / sum(weights))
        maps = total
    return maps


def ciede2000(lab1: Tensor, lab2: Tensor) -> Tensor:
    """Return the CIEDE2000 colour difference of CIE Lab pictures, (B, 3, H, W) twice -> (B, H, W),
    kL = kC = kH = 1.

    Sharma, Wu and Dalal (2005); a difference of 1 is about the least that is seen. A measure, not a
    loss: its gradient is not finite at gray or between equal colours.
    """
    l1, a1, b1 = lab1.float().unbind(dim=1)
    l2, a2, b2 = lab2.float().unbind(dim=1)
    # G: stretches a* of nearly gray colours
    stretch = 1.5 - 0.5 * _saturate((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    hue1, hue2 = torch.atan2(b1, a1), torch.atan2(b2, a2)
    hue_step, hue = _compare_hues(hue1, hue2, (chroma1 * chroma2) == 0)

    lightness, chroma = (l1 + l2) / 2, (chroma1 + chroma2) / 2
    bright = (lightness - 50).square()
    scale_l = 1 + 0.015 * bright / (20 + bright).sqrt()
    scale_c = 1 + 0.045 * chroma
    scale_h = 1 + 0.015 * chroma * _weigh_hue(hue)
    delta_l = (l2 - l1) / scale_l
    delta_c = (chroma2 - chroma1) / scale_c
    delta_h = 2 * (chroma1 * chroma2).sqrt() * torch.sin(hue_step / 2) / scale_h
    # R_T: in the blue, hue and chroma differences are not independent
    blueness = torch.exp(-((hue * (180 / math.pi) - 275) / 25).square())
    turn = -2 * _saturate(chroma) * torch.sin(blueness * (math.pi / 3))
    total = delta_l.square() + delta_c.square() + delta_h.square() + turn * delta_c * delta_h
    return total.clamp(min=0).sqrt()  # rounding can bring equal colours below zero


def check_shapes(predicted: Tensor, truth: Tensor) -> None:
    """ValueError unless the shapes agree."""
    if predicted.shape != truth.shape:
        raise ValueError(
            f"truth must have the shape of predicted {tuple(predicted.shape)}, got"
            f" {tuple(truth.shape)}"
        )


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _saturate(chroma: Tensor) -> Tensor:
    """sqrt(C^7 / (C^7 + 25^7)), written so that float32 does not overflow."""
    ratio = chroma / 25
    cubed = ratio.pow(3)
    ratio = cubed * cubed * ratio
    return (ratio / (ratio + 1)).sqrt()


def _compare_hues(hue1: Tensor, hue2: Tensor, colourless: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shorter way from hue1 to hue2 and the hue in its middle, in [0, 2 pi); radians.

    Where one colour is `colourless` the way is 0 and the middle the sum of the two hues, as Sharma
    sets it.
    """
    turn = 2 * math.pi
    hue1, hue2 = hue1.remainder(turn), hue2.remainder(turn)
    step = hue2 - hue1
    step = torch.where(step > math.pi, step - turn, torch.where(step < -math.pi, step + turn, step))
    middle = (hue1 + step / 2).remainder(turn)
    return step.masked_fill(colourless, 0), torch.where(colourless, hue1 + hue2, middle)


def _weigh_hue(hue: Tensor) -> Tensor:
    """T: the hue's weight in S_H; `hue` in radians."""
    degree = math.pi / 180
    return (
        1
        - 0.17 * torch.cos(hue - 30 * degree)
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + 6 * degree)
        - 0.20 * torch.cos(4 * hue - 63 * degree)
    )
