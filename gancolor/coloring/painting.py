"""A picture in colour at its full size and depth: its own lightness, joined with colours that were
predicted at a small size and are brought up along the edges of that lightness.

A network's colours are small and soft: over an edge they fade across several of its pixels, each as
wide as many of the picture's. Two things are known better than its colours: the lightness that it
saw, and the full-size lightness. The method "guided" uses both, and both only where colour does
follow lightness: r2, the share of the colours' local variance that a straight line on the lightness
explains, is near 1 at an edge between two colours and near 0 in texture and grain.

1. At the network's size, where r2 is high, a colour is replaced by the average of the colours on its own side of the
   edge: a joint bilateral filter (Petschnigg et al. 2004) whose tolerance follows the local contrast.
2. At full size, colour = interpolated colour + slope * (lightness - interpolated lightness): the local lines of the
   fast guided filter (He and Sun 2015), but through the small colours, not through their averages, so that where the
   slope is 0 bilinear interpolation is left. The result stays between the colours about it: dust and scratches,
   lighter or darker than all else, get no colours of their own.

`benchmarks/upsampling.py` measures it against the alternatives from which it was chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color, fields
from gancolor.coloring import spreading, views
from gancolor.coloring.settings import ColoringSettings
from gancolor.hints import Hint

STRIP = 1 << 19  # pixels that are worked on at once: bounds the memory, and stays in the cache
_WHITES = {"uint8": 255, "uint16": 65535}

# Variances of lightness in [-1, 1] that count as none: 0.02 and 0.03 are 1 and 1.5 units of L*; and
# of ab.
_FLAT_SIDES, _FLAT_LINES, _FLAT_COLORS = 0.02**2, 0.03**2, 1e-5

# Step 1: window of the fit, and from which r2 on colours are replaced, and from which on wholly.
_SIDES_RADIUS, _SIDES_FROM, _SIDES_TO = 3, 0.4, 0.8

# Neighbours at these distances in both directions (every second pixel will do: the colours are
# soft), their Gaussian, and the tolerance to their lightness as a share of the local variance.
_REACH, _SPREAD, _TOLERANCE = (-4, -2, 0, 2, 4), 3.0, 0.05
_RIGHT, _DOWN = (steps.reshape(-1, 1) for steps in np.meshgrid(_REACH, _REACH))
_DISTANCE = ((_DOWN**2 + _RIGHT**2) / (2 * _SPREAD**2)).astype(np.float32)
_LEAST = np.float32(-40)  # exponent of a weight of nothing: smaller numbers slow processors down

# Step 2: window of the fit, as small as can be since lines hold about one edge only; slopes count
# from this r2 on.
_LINES_RADIUS, _LINES_FROM = 1, 0.3

# How much is worked on at once, to stay in the cache: full pixels being widened, full pixels then
# being brought to full height, small pixels being averaged.
_BLOCK, _PART, _SPOTS = 1 << 16, 1 << 13, 1 << 10
_Array = NDArray[np.float32]
_Places = NDArray[np.intp]


@torch.inference_mode()
def paint(
    pixels: NDArray[Any],
    colors: NDArray[np.float32],
    *,
    method: str = "guided",
    saturation: float = 1.0,
    keep_color: float = 0.0,
    hints: Sequence[Hint] = (),
    mask: NDArray[np.uint8] | None = None,
) -> NDArray[Any]:
    """Give a picture colours at its full size; returns (H, W, 3) of the picture's type.

    `pixels`: (H, W) or (H, W, 3); uint8, uint16, or float32 in [0, 1] (not-a-number counts as
    black). `colors`: ab (h, w, 2), brought to full size by `method` (see `settings.METHODS`), or
    lightness and ab (h, w, 3), which then is bilinear: the picture's lightness is no guide to one
    that is made up. `saturation` multiplies ab; `keep_color` is the share of the picture's own ab;
    `hints`, in pixels of the picture, are kept at their places. `mask`, (H, W): where it is 0 the
    picture stays to the bit, below 255 its own colours have the rest. Where no colour of that lightness
    and hue is as strong, it is as strong as sRGB allows; lightness stays the picture's own to the
    accuracy of its type. Works in strips: the memory beside `pixels` and the result does not grow
    with the picture.
    """
    height, width = pixels.shape[:2]
    if colors.shape[2] == 3:
        method = "bilinear"
    guide = guide_of(pixels, colors.shape[:2])
    upsampler = Upsampler(colors, guide, (height, width), method)
    correction = None
    if hints:
        seen = _seen_colors(pixels, colors, saturation, keep_color)
        change = spreading.correct(hints, height, width, guide, seen)
        correction = Upsampler(change, guide, (height, width), method)

    def color_rows(part: slice) -> tuple[Tensor, Tensor]:
        """Lightness (1, 1, n, W) and ab (1, 2, n, W) of some rows."""
        lightness, own = _split(pixels[part]) if keep_color else (_lightness(pixels[part]), None)
        guess = upsampler.rows(part.start, lightness)
        ab = guess[:, -2:] * saturation
        if keep_color and own is not None:
            ab = torch.lerp(ab, own, keep_color)
        if correction is not None:
            ab = ab + correction.rows(part.start, lightness)
        return (guess[:, :1] if guess.shape[1] == 3 else lightness), ab

    rows = max(1, STRIP // width)
    parts = [slice(start, min(height, start + rows)) for start in range(0, height, rows)]
    holder = None
    if hints:
        reach = max(height / colors.shape[0], width / colors.shape[1])
        strips = ((part.start, *_as_rows(*color_rows(part))) for part in parts)
        holder = spreading.Holder(hints, (height, width), reach, strips)
    result = np.empty((height, width, 3), pixels.dtype)
    for part in parts:
        lightness, ab = color_rows(part)
        if holder is not None:
            tone, held = _as_rows(lightness, ab)
            holder.hold(part.start, tone, held)
            ab = torch.from_numpy(held).permute(2, 0, 1)[None].contiguous()
        if mask is not None:
            lightness, ab = _mix(pixels[part], mask[part], lightness, ab)
        _store(_merge(lightness, ab, deep=pixels.dtype != np.uint8), result[part])
        if mask is not None:
            kept = mask[part] == 0
            own = pixels[part][kept]
            result[part][kept] = own if own.ndim == 2 else own[:, None]
    return result


def _seen_colors(
    pixels: NDArray[Any], colors: _Array, saturation: float, keep_color: float
) -> _Array:
    """The ab (h, w, 2) that a picture is to have, as small as the network saw it."""
    ab = colors[..., -2:] * np.float32(saturation)
    if keep_color and pixels.ndim == 3:
        _, own = _split(views.shrink(pixels, *colors.shape[:2]))
        if own is not None:
            ab += np.float32(keep_color) * (own[0].permute(1, 2, 0).numpy() - ab)
    return ab


def guide_of(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The lightness of a picture averaged down to `size` = (h, w), float32 in [-1, 1]: what the
    network sees of it.
    """
    guide: NDArray[np.float32] = _lightness(views.shrink(pixels, *size))[0, 0].numpy()
    return guide


def samples_of(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The lightness of single pixels on a grid of `size` = (h, w), float32 in [-1, 1]: what will
    carry the colours.
    """
    small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_NEAREST)
    samples: NDArray[np.float32] = _lightness(small)[0, 0].numpy()
    return samples


@torch.inference_mode()
def mean_chroma(colors: NDArray[np.float32], guide: NDArray[np.float32]) -> float:
    """Mean CIE chroma, sqrt(a*^2 + b*^2), of ab (h, w, 2), or of lightness and ab (h, w, 3), as far
    as sRGB holds it.

    `guide`: the lightness that goes with ab, (h, w). Not-a-number when a colour is.
    """
    guess = torch.from_numpy(np.ascontiguousarray(colors)).permute(2, 0, 1)[None]
    lightness = guess[:, :1] if guess.shape[1] == 3 else torch.from_numpy(guide)[None, None]
    if not guess.isfinite().all():
        return float("nan")
    ab = color.reduce_to_gamut(lightness, guess[:, -2:]) * color.AB_SCALE
    return float(ab.square().sum(1).sqrt().mean())


def lightness_at(pixels: NDArray[Any], rows: _Places, columns: _Places) -> _Array:
    """The lightness of some pixels of a picture, float32 (N,) in [-1, 1]."""
    found: _Array = _lightness(pixels[rows, columns][:, None]).flatten().float().numpy()
    return found


def own_chroma(pixels: NDArray[Any]) -> float:
    """Mean CIE chroma of a picture's own colours, 0 for (H, W); of RGB looked at small."""
    if pixels.ndim == 2:
        return 0.0
    _, ab = _split(views.shrink(pixels, *views.fit(pixels.shape[0], pixels.shape[1], 256)))
    return 0.0 if ab is None else float((ab * color.AB_SCALE).square().sum(1).sqrt().mean())


class Upsampler:
    """Colours at the network's size, ready to be read at the picture's full size, row by row."""

    def __init__(
        self, predicted: _Array, guide: _Array, size: tuple[int, int], method: str = "guided"
    ) -> None:
        """Prepare `predicted` (h, w, C), ab or any other channels, for pictures of `size` =
        (height, width).

        `guide` (h, w) is the lightness that the network saw, in [-1, 1]; both float32. At equal
        size the colours stay as they are, whatever the method. ConfigError for an unknown method,
        ValueError for shapes that do not fit.
        """
        fields.check_values(ColoringSettings, {"upsample": method})
        if (
            predicted.ndim != 3
            or guide.shape != predicted.shape[:2]
            or 0 in (*predicted.shape, *size)
        ):
            raise ValueError(
                f"predicted must be (h, w, C) and guide (h, w), got {predicted.shape} and"
                f" {guide.shape} for {size}"
            )
        self._size, self._channels = size, predicted.shape[2]
        self._guided = method == "guided" and predicted.shape[:2] != tuple(size)
        # a short last axis would be slow
        maps = np.array(predicted.transpose(2, 0, 1), np.float32, order="C")
        if self._guided:
            guide = np.ascontiguousarray(guide, np.float32)
            maps = _fit_lines(_separate_sides(maps, guide), guide)
        self._maps = maps  # (maps, h, w)
        self._left, self._right, shares = _places(0, size[1], size[1], predicted.shape[1])
        self._shares = torch.from_numpy(shares)

    @torch.no_grad()
    def rows(self, start: int, lightness: Tensor) -> Tensor:
        """Return the colours (1, C, n, W) of n full rows from `start` on, given their lightness (1,
        1, n, W).

        `lightness` is on the CPU, in [-1, 1]. Whatever the strips, the colours are the same.
        ValueError for rows that lie outside the size.
        """
        count, width = lightness.shape[2:]
        if width != self._size[1] or not 0 <= start <= start + count <= self._size[0]:
            raise ValueError(
                f"rows must lie within {self._size}, got {count} rows of {width} from {start}"
            )
        result = torch.empty(self._channels, count, width)
        step = max(1, _BLOCK // width)
        for first in range(0, count, step):
            block = result[:, first : first + step]
            self._fill(block, start + first, lightness[0, :, first : first + step].float())
        return result[None]

    def _fill(self, result: Tensor, start: int, lightness: Tensor) -> None:
        """Write the colours (C, n, W) of rows from `start` on, whose lightness is (1, n, W)."""
        above, below, shares = _places(start, result.shape[1], self._size[0], self._maps.shape[1])
        near = self._maps[:, above[0] : below[-1] + 1]
        wide = torch.lerp(
            _take(near, self._left, 2), _take(near, self._right, 2), self._shares
        ).numpy()
        above, below = above - above[0], below - above[0]
        for part in _parts(above, result.shape[2]):
            single = above[part.start] == above[part.stop - 1]
            ends = slice(part.start, part.start + 1) if single else part
            upper, lower = _take(wide, above[ends], 1), _take(wide, below[ends], 1)
            values = torch.lerp(
                upper, lower, torch.from_numpy(shares[part, None]), out=None if single else upper
            )
            if not self._guided:
                result[:, part] = values
                continue
            slope, offset, low, high = values.chunk(4)
            torch.clamp(offset.addcmul_(slope, lightness[:, part]), low, high, out=result[:, part])


def _mix(
    pixels: NDArray[Any], mask: NDArray[np.uint8], lightness: Tensor, ab: Tensor
) -> tuple[Tensor, Tensor]:
    """Lightness (1, 1, n, W) and ab (1, 2, n, W) with what the picture has of its own where the mask
    (n, W) is below 255.
    """
    share = torch.from_numpy(mask)[None, None] / 255
    own_lightness, own = _split(pixels)
    return torch.lerp(own_lightness, lightness, share), ab * share if own is None else torch.lerp(
        own, ab, share
    )


def _as_rows(lightness: Tensor, ab: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lightness (n, W) and ab (n, W, 2) as arrays."""
    return lightness[0, 0].numpy(), np.ascontiguousarray(ab[0].permute(1, 2, 0).numpy())


def _split(pixels: NDArray[Any]) -> tuple[Tensor, Tensor | None]:
    """Lightness (1, 1, n, W) and ab (1, 2, n, W), None of a gray picture."""
    if pixels.ndim == 2:
        return _lightness(pixels), None
    return color.split(_rgb(pixels))


def _lightness(pixels: NDArray[Any]) -> Tensor:
    """Lightness (1, 1, n, W)."""
    if pixels.ndim == 3:
        return color.lightness_of(_rgb(pixels))
    if pixels.dtype.kind == "f":
        return _lightness_of(torch.from_numpy(_finite(pixels).copy())[None, None])
    return torch.from_numpy(_table(_WHITES[pixels.dtype.name])[pixels])[None, None]


def _rgb(pixels: NDArray[Any]) -> Tensor:
    """Rows (n, W, 3) as sRGB (1, 3, n, W): uint8, or float in [0, 1]."""
    if pixels.dtype.kind == "f":
        pixels = _finite(pixels)
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    if values.dtype == np.uint16:
        values = values.astype(np.float32)
        values /= 65535
    if not values.flags.writeable:
        values = values.copy()  # torch warns of arrays that it could write to
    return torch.from_numpy(values)


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    """Floats in [0, 1]; not-a-number counts as black."""
    return np.nan_to_num(pixels.astype(np.float32, copy=False), nan=0.0).clip(0, 1)


@functools.cache
def _table(white: int) -> NDArray[np.float32]:
    """Lightness of every gray value from black to `white`."""
    grays = torch.arange(white + 1, dtype=torch.float64) / white
    table: NDArray[np.float32] = _lightness_of(grays.view(1, 1, 1, -1)).float().view(-1).numpy()
    return table


def _lightness_of(gray: Tensor) -> Tensor:
    return color.lightness_of(gray.expand(-1, 3, -1, -1))


def _merge(lightness: Tensor, ab: Tensor, deep: bool) -> Tensor:
    """Float sRGB in [0, 1] of that lightness; `deep`: to 16 bits of it."""
    if not deep:
        return color.merge_in_gamut(lightness, ab)
    # What counts as inside of sRGB may be 1e-5 of linear light outside; clipping that shifts
    # lightness by up to six steps of 16 bits. Colours as pale as it takes, and by less than 1 %
    # where it matters, are all inside.
    ab = color.reduce_to_gamut(lightness, ab)
    rgb, gray = color.merge(lightness, ab, clip=False), color.gray(lightness)
    low, high = rgb.amin(1, keepdim=True), rgb.amax(1, keepdim=True)
    below, above = -low / (gray - low).clamp(min=1e-9), (high - 1) / (high - gray).clamp(min=1e-9)
    return color.merge(lightness, ab * (1 - 2 * torch.maximum(below, above)).clamp(0, 1))


def _store(rgb: Tensor, result: NDArray[Any]) -> None:
    """Write float sRGB (1, 3, n, W) into rows of a result, (n, W, 3)."""
    if result.dtype.name in _WHITES:
        rgb = (rgb * _WHITES[result.dtype.name]).round_()
    if result.dtype == np.uint8:
        # three times as fast as turning the axes
        result[...] = cv2.merge(tuple(rgb[0].byte().numpy()))
    else:
        np.copyto(result, rgb[0].permute(1, 2, 0).numpy(), casting="unsafe")


def _separate_sides(colors: _Array, guide: _Array) -> _Array:
    """Step 1: replace colours (C, h, w) by the average of their own side of an edge."""
    _, explained, variance = _regress(colors, guide, _SIDES_RADIUS, _FLAT_SIDES)
    weight = (
        ((_blur(explained[None], 1) - _SIDES_FROM) / (_SIDES_TO - _SIDES_FROM)).clip(0, 1).ravel()
    )
    narrowness = -0.5 / (_TOLERANCE * variance + _FLAT_SIDES).ravel()
    border = (_REACH[-1],) * 4
    around = np.stack(
        [cv2.copyMakeBorder(plane, *border, cv2.BORDER_REFLECT) for plane in (guide, *colors)]
    )
    separated = colors.reshape(len(colors), -1).copy()
    spots = np.flatnonzero(weight)  # edges are often near a tenth of the pixels only
    for first in range(0, len(spots), _SPOTS):
        here = spots[first : first + _SPOTS]
        before = separated.take(here, axis=1)
        average = _average_sides(around, here, narrowness.take(here))
        separated[:, here] = before + weight.take(here) * (average - before)
    return separated.reshape(colors.shape)


def _average_sides(around: _Array, spots: _Places, narrowness: _Array) -> _Array:
    """Average the colours of like lightness about pixels: (C, n).

    `around`: guide and colours with a border, (1 + C, h + border, w + border). `spots`: the pixels'
    places (n,) in the flattened picture without it. `narrowness` (n,): what the squared difference
    in lightness is multiplied by.
    """
    reach, width = _REACH[-1], around.shape[2]
    spots = spots + 2 * reach * (spots // (width - 2 * reach)) + reach * (width + 1)
    # (1 + C, 25, n)
    neighbours = around.reshape(len(around), -1).take(spots + (_DOWN * width + _RIGHT), axis=1)
    weights = neighbours[0] - around[0].take(spots)
    weights *= weights
    weights *= narrowness
    weights -= _DISTANCE
    np.exp(np.maximum(weights, _LEAST, out=weights), out=weights)
    neighbours[1:] *= weights
    average: _Array = neighbours[1:].sum(1) / weights.sum(0)
    return average


def _fit_lines(colors: _Array, guide: _Array) -> _Array:
    """Step 2: slope, offset, lowest and highest colour about each small pixel of (C, h, w),
    together (4 C, h, w).
    """
    covariance, explained, variance = _regress(colors, guide, _LINES_RADIUS, _FLAT_LINES)
    weight = ((explained - _LINES_FROM) / (1 - _LINES_FROM)).clip(0, 1)
    slope = covariance * (weight / (variance + _FLAT_LINES))
    window = np.ones((3, 3), np.uint8)
    extremes = [change(plane, window) for change in (cv2.erode, cv2.dilate) for plane in colors]
    return np.concatenate(
        (slope, colors - slope * guide, np.asarray(extremes, np.float32).reshape(-1, *guide.shape))
    )


def _regress(
    colors: _Array, guide: _Array, radius: int, flat: float
) -> tuple[_Array, _Array, _Array]:
    """Fit colour (C, h, w) to guide (h, w) in a window about each pixel; `flat` is a variance that
    counts as none.

    Returns their covariance (C, h, w), r2 (h, w) over all channels, and the variance of the guide
    (h, w).
    """
    light, count = guide[None], len(colors)
    means = _blur(np.concatenate((light, colors)), radius)
    moments = _blur(_products(light, colors), radius)
    moments -= _products(means[:1], means[1:])
    variance, covariance, spread = moments[0], moments[1 : 1 + count], moments[1 + count :]
    np.maximum(variance, 0, out=variance)
    np.maximum(spread, 0, out=spread)
    explained = np.square(covariance).sum(0)
    explained /= (spread.sum(0) + _FLAT_COLORS) * (variance + flat)
    return covariance, np.minimum(explained, 1, out=explained), variance


def _products(light: _Array, colors: _Array) -> _Array:
    """Light (1, h, w) squared, colours (C, h, w) times light, colours squared: (1 + 2 C, h, w)."""
    return np.concatenate((light * light, colors * light, colors * colors))


def _blur(planes: _Array, radius: int) -> _Array:
    """The mean of each plane over a square window, mirrored at the border."""
    side, result = (2 * radius + 1, 2 * radius + 1), np.empty_like(planes)
    for plane, mean in zip(planes, result, strict=True):
        cv2.blur(plane, side, mean, borderType=cv2.BORDER_REFLECT)
    return result


def _places(start: int, count: int, size: int, small: int) -> tuple[_Places, _Places, _Array]:
    """Between which of `small` pixels those from `start` on of `size` lie: before, behind, share of
    the one behind.
    """
    places = ((np.arange(start, start + count) + 0.5) * (small / size) - 0.5).clip(0, small - 1)
    before = places.astype(np.intp)
    return before, np.minimum(before + 1, small - 1), (places - before).astype(np.float32)


def _parts(above: _Places, width: int) -> list[slice]:
    """The rows to work on at once: all between the same two small rows where these are many, else
    as many as fit.
    """
    if (above[-1] - above[0] + 1) * _PART <= len(above) * width:
        starts = [0, *(np.flatnonzero(np.diff(above)) + 1).tolist()]
    else:
        starts = list(range(0, len(above), max(1, _PART // width)))
    return [
        slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(above)], strict=True)
    ]


def _take(planes: _Array, places: _Places, axis: int) -> Tensor:
    """The rows (`axis` 1) or columns (2) at these places: numpy copies columns several times as
    fast as torch.
    """
    return torch.from_numpy(planes.take(places, axis))
