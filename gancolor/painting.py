"""Joins a picture's own lightness, at its full size and depth, with colours that were predicted at a small one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color, views
from gancolor.hints import REACH, Hint, Holder
from gancolor.upsampling import Upsampler

_STRIP = 1 << 20  # pixels that are worked on at once: bounds the memory of large pictures
_WHITES = {"uint8": 255, "uint16": 65535}


@torch.inference_mode()
def paint(
    pixels: NDArray[Any],
    colors: NDArray[np.float32],
    *,
    method: str = "guided",
    saturation: float = 1.0,
    keep_color: float = 0.0,
    hints: Sequence[Hint] = (),
) -> NDArray[Any]:
    """Give a picture colours at its full size; returns (H, W, 3) of the picture's type.

    `pixels`: (H, W) or (H, W, 3); uint8, uint16, or float32 in [0, 1] (not-a-number counts as black). `colors`: ab
    (h, w, 2), brought to full size by `method` (see `upsampling.METHODS`), or lightness and ab (h, w, 3), which then is
    bilinear: the picture's lightness is no guide to one that is made up. `saturation` multiplies ab; `keep_color` is
    the share of the picture's own ab; `hints`, in pixels of the picture, are kept at their places. Where no colour of
    that lightness and hue is as strong, it is as strong as sRGB allows; lightness stays the picture's own to the
    accuracy of its type. Works in strips: the memory beside `pixels` and the result does not grow with the picture.
    """
    height, width = pixels.shape[:2]
    if colors.shape[2] == 3:
        method = "bilinear"
    upsampler = Upsampler(colors, guide_of(pixels, colors.shape[:2]), (height, width), method)

    def color_rows(part: slice) -> tuple[Tensor, Tensor]:
        """Lightness (1, 1, n, W) and ab (1, 2, n, W) of some rows."""
        lightness, own = _split(pixels[part])
        guess = upsampler.rows(part.start, lightness)
        ab = guess[:, -2:] * saturation
        if keep_color and own is not None:
            ab = torch.lerp(ab, own, keep_color)
        return (guess[:, :1] if guess.shape[1] == 3 else lightness), ab

    rows = max(1, _STRIP // width)
    parts = [slice(start, min(height, start + rows)) for start in range(0, height, rows)]
    holder = None
    if hints:
        reach = REACH * max(height / colors.shape[0], width / colors.shape[1])
        strips = ((part.start, *_as_rows(*color_rows(part))) for part in parts)
        holder = Holder(hints, (height, width), reach, strips)
    result = np.empty((height, width, 3), pixels.dtype)
    for part in parts:
        lightness, ab = color_rows(part)
        if holder is not None:
            tone, held = _as_rows(lightness, ab)
            holder.hold(part.start, tone, held)
            ab = torch.from_numpy(held).permute(2, 0, 1)[None].contiguous()
        _store(_merge(lightness, ab, deep=pixels.dtype != np.uint8), result[part])
    return result


def _as_rows(lightness: Tensor, ab: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lightness (n, W) and ab (n, W, 2) as arrays."""
    return lightness[0, 0].numpy(), np.ascontiguousarray(ab[0].permute(1, 2, 0).numpy())


def guide_of(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The lightness of a picture averaged down to `size` = (h, w), float32 in [-1, 1]: what the network sees of it."""
    lightness, _ = _split(views.shrink(pixels, *size))
    guide: NDArray[np.float32] = lightness[0, 0].numpy()
    return guide


def samples_of(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The lightness of single pixels on a grid of `size` = (h, w), float32 in [-1, 1]: what will carry the colours."""
    lightness, _ = _split(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_NEAREST))
    samples: NDArray[np.float32] = lightness[0, 0].numpy()
    return samples


@torch.inference_mode()
def mean_chroma(colors: NDArray[np.float32], guide: NDArray[np.float32]) -> float:
    """Mean CIE chroma, sqrt(a*^2 + b*^2), of ab (h, w, 2), or of lightness and ab (h, w, 3), as far as sRGB holds it.

    `guide`: the lightness that goes with ab, (h, w). Not-a-number when a colour is.
    """
    guess = torch.from_numpy(np.ascontiguousarray(colors)).permute(2, 0, 1)[None]
    lightness = guess[:, :1] if guess.shape[1] == 3 else torch.from_numpy(guide)[None, None]
    if not guess.isfinite().all():
        return float("nan")
    ab = color.reduce_to_gamut(lightness, guess[:, -2:]) * color.AB_SCALE
    return float(ab.square().sum(1).sqrt().mean())


def own_chroma(pixels: NDArray[Any]) -> float:
    """Mean CIE chroma of a picture's own colours, 0 for (H, W); of RGB looked at small."""
    if pixels.ndim == 2:
        return 0.0
    _, ab = _split(views.shrink(pixels, *views.fit(pixels.shape[0], pixels.shape[1], 256)))
    return 0.0 if ab is None else float((ab * color.AB_SCALE).square().sum(1).sqrt().mean())


def _split(pixels: NDArray[Any]) -> tuple[Tensor, Tensor | None]:
    """Lightness (1, 1, n, W) and ab (1, 2, n, W), None of a gray picture."""
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels.astype(np.float32, copy=False), nan=0.0).clip(0, 1)
    if pixels.ndim == 2:
        return _gray_lightness(pixels), None
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    if values.dtype == np.uint16:
        values = values.astype(np.float32)
        values /= 65535
    if not values.flags.writeable:
        values = values.copy()  # torch warns of arrays that it could write to
    return color.split(torch.from_numpy(values))


def _gray_lightness(pixels: NDArray[Any]) -> Tensor:
    if pixels.dtype.kind != "f":
        return torch.from_numpy(_table(_WHITES[pixels.dtype.name])[pixels])[None, None]
    return _lightness_of(torch.from_numpy(np.ascontiguousarray(pixels))[None, None])


@functools.cache
def _table(white: int) -> NDArray[np.float32]:
    """Lightness of every gray value from black to `white`."""
    grays = torch.arange(white + 1, dtype=torch.float64) / white
    table: NDArray[np.float32] = _lightness_of(grays.view(1, 1, 1, -1)).float().view(-1).numpy()
    return table


def _lightness_of(gray: Tensor) -> Tensor:
    return color.split(gray.expand(-1, 3, -1, -1))[0]


def _merge(lightness: Tensor, ab: Tensor, deep: bool) -> Tensor:
    """Float sRGB in [0, 1] of that lightness; `deep`: to 16 bits of it."""
    if not deep:
        return color.merge_in_gamut(lightness, ab)
    # What counts as inside of sRGB may be 1e-5 of linear light outside; clipping that shifts lightness by up to six
    # steps of 16 bits. Colours as pale as it takes, and by less than 1 % where it matters, are all inside.
    ab = color.reduce_to_gamut(lightness, ab)
    rgb, gray = color.merge(lightness, ab, clip=False), color.gray(lightness)
    low, high = rgb.amin(1, keepdim=True), rgb.amax(1, keepdim=True)
    below, above = -low / (gray - low).clamp(min=1e-9), (high - 1) / (high - gray).clamp(min=1e-9)
    return color.merge(lightness, ab * (1 - 2 * torch.maximum(below, above)).clamp(0, 1))


def _store(rgb: Tensor, result: NDArray[Any]) -> None:
    """Write float sRGB (1, 3, n, W) into rows of a result, (n, W, 3)."""
    if result.dtype.name in _WHITES:
        rgb = (rgb * _WHITES[result.dtype.name]).round()
    if result.dtype == np.uint8:
        rgb = rgb.byte()  # three quarters less to turn around
    np.copyto(result, rgb[0].permute(1, 2, 0).numpy(), casting="unsafe")
