"""sRGB and CIE Lab (D65) on batched tensors: every scale of colour in this package is defined here.

| name        | what           | shape        | range                                             |
|-------------|----------------|--------------|---------------------------------------------------|
| `rgb`       | sRGB picture   | (B, 3, H, W) | uint8, or float in [0, 1]                         |
| `lab`       | CIE L*a*b*     | (B, 3, H, W) | L* in [0, 100], a*b* within about [-108, 99]      |
| `lightness` | L* / 50 - 1    | (B, 1, H, W) | [-1, 1]                                           |
| `ab`        | a*b* / 110     | (B, 2, H, W) | [-1, 1]                                           |

All of it runs in float32, whatever autocast says; half precision is raised to float32, float64 is
kept. Every function is differentiable, and its gradient is finite for any finite input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor.images.srgb import CIE_KNEE, SRGB_KNEE, TO_WHITE, WHITE
from gancolor.runtime.devices import without_autocast

LIGHTNESS_SCALE = 50.0
AB_SCALE = 110.0

# XYZ -> linear sRGB.
_RGB_FROM_XYZ = (
    (3.240481343200526, -1.537151516271318, -0.498536326168888),
    (-0.969254949996568, 1.875990001489891, 0.041555926558293),
    (0.055646639135177, -0.204041338366511, 1.057311069645344),
)

_FROM_WHITE = tuple(
    tuple(c * white for c, white in zip(row, WHITE, strict=True)) for row in _RGB_FROM_XYZ
)

_LINEAR_KNEE = SRGB_KNEE / 12.92

# How far outside [0, 1] linear light may lie and still count as inside: rounding, and the white of
# Lab is 8e-5 bluer than the sum of the three sRGB primaries above.
_BELOW, _ABOVE = -1e-5, 1 + 1e-4
_BISECTIONS = 14  # leaves 6e-5 of the chroma


@dataclass(frozen=True)
class ColorScale:
    """The units of a paper's network: CIE values are offset, then divided. Everything outside the
    network keeps `lightness` and `ab`.
    """

    lightness_offset: float
    lightness_divisor: float
    ab_offset: float
    ab_divisor: float

    @property
    def signed(self) -> bool:
        """Whether the colours lie in [-1, 1], else in [0, 1]."""
        return self.ab_offset == 0

    def lightness(self, lightness: Tensor) -> Tensor:
        """Convert `lightness` to the network's units."""
        return ((lightness + 1) * LIGHTNESS_SCALE + self.lightness_offset) / self.lightness_divisor

    def encode(self, ab: Tensor) -> Tensor:
        """Convert `ab` to the network's units."""
        return (ab * AB_SCALE + self.ab_offset) / self.ab_divisor

    def decode(self, units: Tensor) -> Tensor:
        """Convert the network's units to `ab`."""
        return (units * self.ab_divisor - self.ab_offset) / AB_SCALE


SCALES = {
    "ab110": ColorScale(-50, 50, 0, AB_SCALE),  # gancolor's own
    "ab127": ColorScale(-50, 50, 0, 127),  # koalarization, portrait, deep-cnn
    "unit": ColorScale(0, 100, 128, 255),  # face: [0, 1]
}

_P = ParamSpec("_P")
_Row = tuple[float, ...]


def in_full_precision(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Run `function` with autocast off on the device of its first tensor."""

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        device = next(x.device for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        with without_autocast(device):
            return function(*args, **kwargs)

    return run


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """A picture (H, W, 3) as a tensor (1, 3, H, W), uint8 both; it shares no memory."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


def to_arrays(rgb: Tensor) -> NDArray[np.uint8]:
    """Float sRGB (B, 3, H, W), clipped to [0, 1], as arrays (B, H, W, 3), uint8."""
    whole: NDArray[np.uint8] = (
        (rgb.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    )
    return whole


@in_full_precision
def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab.

    `rgb` (B, 3, H, W) is uint8 or float in [0, 1]; values outside continue the curves. Returns L*
    in [0, 100] and a*, b* in CIE units, (B, 3, H, W).
    """
    lightness, a, b = _lab_channels(rgb, 1.0, 0.0, 1.0)
    return torch.cat((lightness, a, b), dim=1)


def split(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Split an sRGB picture into (lightness, ab).

    `rgb` (B, 3, H, W) is uint8 (linearized by a look-up table: faster) or float in [0, 1].
    Returns (B, 1, H, W) and (B, 2, H, W), both in [-1, 1].
    """
    parts = _split(rgb)
    return parts[:, :1], parts[:, 1:]


@in_full_precision
def lightness_of(rgb: Tensor) -> Tensor:
    """The first part of `split` alone, (B, 1, H, W), in a third of the time."""
    return _scaled_lightness(
        _root(_mix(TO_WHITE[1], *_linear_channels(rgb))), 1 / LIGHTNESS_SCALE, -1.0
    )


@in_full_precision
def merge(lightness: Tensor, ab: Tensor, clip: bool = True) -> Tensor:
    """Join lightness (B, 1, H, W) and ab (B, 2, H, W) to float sRGB (B, 3, H, W).

    `clip` bounds the result to [0, 1]. Without it, colours outside sRGB lie outside [0, 1]: the
    curve goes on above and its line goes on below, so that the gradient lives on there.
    """
    rgb = torch.cat([_encode(channel) for channel in _linear(*_curves(lightness, ab))], dim=1)
    return rgb.clamp(0, 1) if clip else rgb


@in_full_precision
def reduce_to_gamut(lightness: Tensor, ab: Tensor) -> Tensor:
    """Shorten a*b* along the hue until the colour is inside sRGB at its own lightness.

    Lightness (B, 1, H, W), ab (B, 2, H, W); returns ab. Colours inside sRGB come back bit for bit.
    The gradient reaches ab through the product alone: the factor counts as a constant.
    """
    ab = _upcast(ab)
    with torch.no_grad():
        curves = _curves(lightness.clamp(-1, 1), ab)
        outside = _outside(*_linear(*curves))
        if not len(outside):
            return ab
        factor = torch.ones_like(curves[0])
        factor.put_(outside, _largest_factor(*(curve.take(outside) for curve in curves)))
    return ab * factor


@in_full_precision
@torch.no_grad()
def merge_in_gamut(lightness: Tensor, ab: Tensor) -> Tensor:
    """Join lightness and ab to float sRGB in [0, 1], keeping the lightness and the hue (see
    `reduce_to_gamut`). No gradient flows back.
    """
    curves = _curves(lightness.clamp(-1, 1), ab)
    channels = _linear(*curves)
    outside = _outside(*channels)
    if len(outside):
        height, a, b = (curve.take(outside) for curve in curves)
        factor = _largest_factor(height, a, b)
        for channel, reduced in zip(channels, _linear(height, a * factor, b * factor), strict=True):
            channel.put_(outside, reduced)
    return torch.cat([_encode(channel) for channel in channels], dim=1).clamp_(0, 1)


@in_full_precision
def gray(lightness: Tensor) -> Tensor:
    """Return the sRGB gray in [0, 1] whose L* is `lightness`; (B, 1, H, W) both."""
    height = (_upcast(lightness) + (1 + 16 / LIGHTNESS_SCALE)) * (LIGHTNESS_SCALE / 116)
    return _encode(_cube(height)).clamp(0, 1)


def _curves(lightness: Tensor, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CIE's (L* + 16) / 116, a* / 500 and -b* / 200, (B, 1, H, W) each."""
    height = (_upcast(lightness) + (1 + 16 / LIGHTNESS_SCALE)) * (LIGHTNESS_SCALE / 116)
    return height, _channel(ab, 0) * (AB_SCALE / 500), _channel(ab, 1) * (AB_SCALE / -200)


def _linear(height: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return red, green and blue in linear light."""
    x, y, z = _cube(height + a), _cube(height), _cube(height + b)
    red, green, blue = (_mix(row, x, y, z) for row in _FROM_WHITE)
    return red, green, blue


def _upcast(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _channel(x: Tensor, index: int) -> Tensor:
    return _upcast(x[:, index : index + 1])


@in_full_precision
def _split(rgb: Tensor) -> Tensor:
    return torch.cat(_lab_channels(rgb, 1 / LIGHTNESS_SCALE, -1.0, 1 / AB_SCALE), dim=1)


def _lab_channels(
    rgb: Tensor, scale: float, offset: float, ab_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale * L* + offset, ab_scale * a*, ab_scale * b*, (B, 1, H, W) each."""
    red, green, blue = _linear_channels(rgb)
    x, y, z = (_root(_mix(row, red, green, blue)) for row in TO_WHITE)
    a = (x - y).mul_(500 * ab_scale)
    b = (y - z).mul_(200 * ab_scale)
    return _scaled_lightness(y, scale, offset), a, b


def _scaled_lightness(y: Tensor, scale: float, offset: float) -> Tensor:
    return y * (116 * scale) + (offset - 16 * scale)


def _mix(row: _Row, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Return one row of a 3x3 matrix times three channels (no matmul: that would take TF32 or
    bfloat16).
    """
    return (first * row[0]).add_(second, alpha=row[1]).add_(third, alpha=row[2])


def _linear_channels(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three channels in linear light."""
    if rgb.dtype == torch.uint8:
        table = _linear_table(rgb.device)
        planes = rgb.transpose(0, 1).reshape(3, -1).int()
        shape = (rgb.shape[0], 1, *rgb.shape[2:])
        red, green, blue = (table.index_select(0, plane).view(shape) for plane in planes)
    else:
        red, green, blue = (_linearize(_channel(rgb, index)) for index in range(3))
    return red, green, blue


@functools.lru_cache(maxsize=16)
def _linear_table(device: torch.device) -> Tensor:
    # Not an inference tensor even if first called in inference mode: the table outlives the call.
    with torch.inference_mode(False):
        return (
            _linearize(torch.arange(256, dtype=torch.float64, device="cpu") / 255)
            .float()
            .to(device)
        )


# The four curves below are written as curve(max(x, knee)) + line(min(x, knee)): no mask, and the
# power is never taken where its gradient is infinite. In-place steps touch only fresh tensors that
# autograd has not kept.


def _linearize(x: Tensor) -> Tensor:
    """sRGB -> linear light; a line below the knee, also below zero."""
    line = x.clamp(max=SRGB_KNEE).sub_(SRGB_KNEE).mul_(1 / 12.92)
    return line.add_(_power(x.clamp(min=SRGB_KNEE).add_(0.055), 2.4), alpha=1.055**-2.4)


def _encode(x: Tensor) -> Tensor:
    """Linear light -> sRGB; a line below the knee, also below zero."""
    line = x.clamp(max=_LINEAR_KNEE).sub_(_LINEAR_KNEE).mul_(12.92).sub_(0.055)
    return line.add_(_power(x.clamp(min=_LINEAR_KNEE), 1 / 2.4), alpha=1.055)


def _root(x: Tensor) -> Tensor:
    """CIE's f: the cube root, a tangent line below the knee."""
    knee = CIE_KNEE**3
    line = x.clamp(max=knee).sub_(knee).mul_(1 / (3 * CIE_KNEE**2))
    return line.add_(_power(x.clamp(min=knee), 1 / 3))


def _cube(x: Tensor) -> Tensor:
    """Inverse of CIE's f."""
    line = x.clamp(max=CIE_KNEE).sub_(CIE_KNEE).mul_(3 * CIE_KNEE**2)
    return line.add_(x.clamp(min=CIE_KNEE).pow(3))


def _power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for positive x, in less than half the time of `pow` on the CPU, to 1e-6 of the
    value.
    """
    return x.log().mul_(exponent).exp_()


def _is_inside(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Say where a colour in linear light is in sRGB."""
    middle, reach = (_ABOVE + _BELOW) / 2, (_ABOVE - _BELOW) / 2
    furthest = functools.reduce(torch.maximum, ((x - middle).abs_() for x in (red, green, blue)))
    return furthest <= reach


def _outside(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Where colours in linear light are outside sRGB, as places in the flattened channels, (N,)."""
    return _is_inside(red, green, blue).logical_not_().flatten().nonzero().squeeze(1)


def _largest_factor(height: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Bisect for the largest factor of (a, b) that is inside; the answer is always on the inner
    side.
    """
    factor, width = torch.zeros_like(height), 1.0
    for _ in range(_BISECTIONS):
        width /= 2
        middle = factor + width
        factor.add_(_is_inside(*_linear(height, a * middle, b * middle)), alpha=width)
    return factor
