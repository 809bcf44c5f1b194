"""Chroma planes that colour a film whose luma plane stays as it is, bit for bit."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color
from gancolor.video.flow import FloatMap
from gancolor.video.planes import DeepPlane, Plane

_BT709, _BT2020 = 1, 9  # of ITU-T H.273, MatrixCoefficients
_WEIGHTS = {  # red's and blue's share of luma
    _BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    _BT2020: (0.2627, 0.0593),
}
_HD_HEIGHT, _HD_WIDTH = 720, 1280  # from here on players take BT.709 when nothing is said

# Nodes of the table along a and along b. All over sRGB, what lies between them is off by 0.18 codes
# (root mean square; 0.35 with 65 nodes), where rounding to 8 bits costs 0.29 anyhow. It takes 20
# MB, and `remap` reads at most 32,767 rows.
_NODES = 97
_STRIP = 1 << 18  # pixels of more than 8 bits whose chroma is computed at once
_FAR = 1e6  # black and white hold no colour at all: stands for 1 / 0


class Tagged(Protocol):
    """What must be known of a film: its size, whether its luma fills all codes (0..255 with 8
    bits), the bits of its samples, the order of its fields (None where it has none), and the number
    of its matrix in ITU-T H.273.
    """

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def full_range(self) -> bool: ...
    @property
    def depth(self) -> int: ...
    @property
    def fields(self) -> str | None: ...
    @property
    def color_space(self) -> int: ...


def luma_weights(info: Tagged) -> tuple[float, float]:
    """Red's and blue's share of luma.

    They follow from the film's matrix. A film that names none is taken for BT.709 from 720 lines or
    1280 columns on, else for BT.601.
    """
    hd = info.height >= _HD_HEIGHT or info.width >= _HD_WIDTH
    return _WEIGHTS.get(info.color_space, _WEIGHTS[_BT709 if hd else 5])


def halve(luma: DeepPlane, *, interlaced: bool = False) -> DeepPlane:
    """Luma (H, W) averaged to the size of the chroma planes, (ceil(H / 2), ceil(W / 2)).

    `interlaced`: each field is averaged by itself, and their rows take turns as the frame's do, so
    that no row of chroma is made of both fields, which show different moments.
    """
    if not interlaced:
        return _averaged(luma)
    woven = np.empty(((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2), luma.dtype)
    for first in (0, 1):  # the upper field has the rows 0, 2, 4, ...
        rows = woven[first::2]
        rows[:] = _averaged(luma[first::2])[: len(rows)]
    return woven


def _averaged(luma: DeepPlane) -> DeepPlane:
    """The mean of each two by two pixels; those at an odd edge count twice."""
    odd_rows, odd_columns = luma.shape[0] % 2, luma.shape[1] % 2
    whole: NDArray[Any] = luma
    if odd_rows or odd_columns:
        whole = np.pad(luma, ((0, odd_rows), (0, odd_columns)), mode="edge")
    size = (whole.shape[1] // 2, whole.shape[0] // 2)
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), luma.dtype)


def blended(luma: DeepPlane) -> DeepPlane:
    """The mean of both fields of an interlaced frame, (H // 2, W): what is seen of it without combs."""
    height, width = luma.shape
    pairs = luma[: height // 2 * 2]
    return np.asarray(
        cv2.resize(pairs, (width, height // 2), interpolation=cv2.INTER_AREA), luma.dtype
    )


def grays(luma: DeepPlane, full_range: bool, depth: int = 8) -> Plane:
    """The sRGB grays 0..255 that a player shows for luma of so many bits without colour."""
    if full_range and depth == 8:
        return np.asarray(luma, np.uint8)
    return np.asarray(_at(luma, _gray_table(full_range, depth)), np.uint8)


def deep_grays(luma: DeepPlane, full_range: bool, depth: int) -> NDArray[np.uint16]:
    """As `grays`, of 16 bits: 0..65535."""
    return np.asarray(_at(luma, _deep_gray_table(full_range, depth)), np.uint16)


def lightness(luma: DeepPlane, full_range: bool, depth: int = 8) -> FloatMap:
    """The `lightness`, in [-1, 1], of luma shown without colour; float32 of the same shape."""
    return np.asarray(_at(luma, _lightness_table(full_range, depth)), np.float32)


def chroma_planes(
    luma_half: DeepPlane, ab: Tensor | FloatMap, info: Tagged
) -> tuple[DeepPlane, DeepPlane]:
    """Return the planes (u, v), (h, w) of the film's depth, that colour a film's luma without
    changing it.

    `luma_half`: the luma at the chroma planes' size, (h, w), see `halve`. `ab`: (h, w, 2), or a
    tensor (1, 2, h, w); beyond [-1, 1] it is shortened, its hue kept. The colour is the one of the
    gray's L* and this ab. Where R'G'B' would leave [0, 1] with the film's own luma, (Cb, Cr) are
    multiplied by the largest factor that keeps it in: less chroma, the same hue, nothing clipped.
    With more than 8 bits nothing is rounded before the end, so that slopes have no steps of 8 bits.
    ValueError if `ab` has another size.
    """
    if isinstance(ab, Tensor):
        ab = ab[0].permute(1, 2, 0).contiguous().cpu().numpy()  # (h, w, 2)
    if ab.shape != (*luma_half.shape, 2):
        raise ValueError(f"ab must be {(*luma_half.shape, 2)}, got {ab.shape}")
    weights, depth = luma_weights(info), info.depth
    scale = float((1 << depth) - 1 if info.full_range else 224 << (depth - 8))
    if depth == 8:
        cb, cr = _look_up(luma_half, ab, _chroma_table(*weights, info.full_range))
    else:
        cb, cr = _compute(lightness(luma_half, info.full_range, depth), ab, weights)
    overshoot = _overshoot(luma_half, cb, cr, weights, _room_tables(info.full_range, depth))
    factor = np.divide(scale, overshoot, out=overshoot)
    return _to_codes(cb, factor, depth), _to_codes(cr, factor, depth)


def _to_codes(chroma: FloatMap, factor: FloatMap, depth: int) -> DeepPlane:
    """Neutral + factor * chroma, rounded and bounded to the depth."""
    codes = cv2.multiply(chroma, factor, dst=chroma)
    codes += 1 << (depth - 1)
    if depth > 8:
        return np.rint(codes, out=codes).clip(0, (1 << depth) - 1).astype(np.uint16)
    return np.asarray(cv2.convertScaleAbs(np.maximum(codes, 0, out=codes)), np.uint8)


def _at(luma: DeepPlane, table: NDArray[Any]) -> NDArray[Any]:
    """The table's entry of every code."""
    return np.asarray(cv2.LUT(luma, table)) if luma.dtype == np.uint8 else table[luma]


def _compute(
    light: FloatMap, ab: FloatMap, weights: tuple[float, float]
) -> tuple[FloatMap, FloatMap]:
    """(Cb, Cr), in [-0.5, 0.5] and beyond, of the colours with this lightness (h, w) and ab."""
    cb, cr = np.empty_like(light), np.empty_like(light)
    rows = max(1, _STRIP // light.shape[1])
    for start in range(0, light.shape[0], rows):
        part = slice(start, start + rows)
        longest = np.abs(ab[part]).max(axis=2, keepdims=True)
        colors = torch.from_numpy(ab[part] / np.maximum(longest, 1))  # (n, w, 2)
        lit = torch.from_numpy(light[part])
        cb[part], cr[part] = _differences(lit, colors.permute(2, 0, 1), weights)
    return cb, cr


def _differences(light: Tensor, ab: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(Cb, Cr), each (n, w), of the colours of `light` (n, w) and `ab` (2, n, w), also outside sRGB."""
    red, blue = weights
    with torch.inference_mode():
        r, g, b = color.merge(light[None, None], ab[None], clip=False)[0]
        luma = red * r + (1 - red - blue) * g + blue * b
        return (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))


def _look_up(luma: DeepPlane, ab: FloatMap, table: FloatMap) -> tuple[FloatMap, FloatMap]:
    """(Cb, Cr), in [-0.5, 0.5] and beyond: the table at every luma, linear between its nodes of a
    and b.

    The table's 256 squares lie below each other in one tall picture, which OpenCV's `remap` can
    read.
    """
    a, b = cv2.split(np.ascontiguousarray(ab, np.float32))  # each (h, w)
    longest = max(abs(value) for plane in (a, b) for value in cv2.minMaxLoc(plane)[:2])
    if not longest <= 1:  # also where it is not a number
        shortening = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1)
        a, b = np.divide(a, shortening), np.divide(b, shortening)
    half = np.float32((_NODES - 1) / 2)
    columns, rows = a * half + half, b * half + cv2.LUT(luma, _first_rows())
    found = cv2.remap(table, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cb, cr = cv2.split(found)  # each (h, w)
    return np.asarray(cb, np.float32), np.asarray(cr, np.float32)


def _overshoot(
    luma: DeepPlane,
    cb: FloatMap,
    cr: FloatMap,
    weights: tuple[float, float],
    rooms: tuple[FloatMap, FloatMap],
) -> FloatMap:
    """How many times too long (Cb, Cr) is for R'G'B' to stay in [0, 1]; 1 where it fits.

    With Y fixed, R' = Y + d stays below 1 while d <= 1 - Y, and above 0 while -d <= Y. G' and B' do
    likewise. `rooms`: see `_room_tables`.
    """
    red, blue = weights
    green = 1 - red - blue
    to_white, to_black = (_at(luma, table) for table in rooms)
    to_red, to_blue = cr * (2 * (1 - red)), cb * (2 * (1 - blue))
    to_green = cv2.addWeighted(to_red, -red / green, to_blue, -blue / green, 0)
    highest = cv2.max(cv2.max(to_red, to_green), to_blue)
    lowest = cv2.min(cv2.min(to_red, to_green), to_blue)
    upper, lower = cv2.multiply(highest, to_white), cv2.multiply(lowest, to_black, scale=-1)
    return np.maximum(cv2.max(upper, lower), 1)


def _shares(full_range: bool, depth: int) -> NDArray[np.float64]:
    """Luma in [0, 1] of all codes; what is blacker than black or whiter than white counts as black
    or white.
    """
    codes = np.arange(float(1 << depth))
    unit = 1 << (depth - 8)  # so many codes are one of 8 bits
    return codes / codes[-1] if full_range else ((codes - 16 * unit) / (219 * unit)).clip(0, 1)


@functools.lru_cache(maxsize=2)
def _gray_table(full_range: bool, depth: int) -> Plane:
    """The gray with 8 bits and full range that each code is shown as."""
    return np.rint(_shares(full_range, depth) * 255).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def _deep_gray_table(full_range: bool, depth: int) -> NDArray[np.uint16]:
    """The gray with 16 bits and full range that each code is shown as."""
    return np.rint(_shares(full_range, depth) * 65535).astype(np.uint16)


@functools.lru_cache(maxsize=4)
def _lightness_table(full_range: bool, depth: int) -> FloatMap:
    """The lightness in [-1, 1] of all codes."""
    gray = torch.from_numpy(_shares(full_range, depth).astype(np.float32))
    with torch.inference_mode():
        found = color.split(gray.view(1, 1, 1, -1).expand(1, 3, 1, -1))[0]
    return np.asarray(found.view(-1).numpy(), np.float32).copy()


@functools.lru_cache(maxsize=2)
def _room_tables(full_range: bool, depth: int) -> tuple[FloatMap, FloatMap]:
    """1 / (1 - Y) and 1 / Y of all codes."""
    luma = _shares(full_range, depth)
    with np.errstate(divide="ignore"):
        to_white, to_black = (
            np.minimum(1 / room, _FAR).astype(np.float32) for room in (1 - luma, luma)
        )
    return to_white, to_black


@functools.lru_cache(maxsize=1)
def _first_rows() -> FloatMap:
    """Where b = 0 lies in the table, for the luma codes 0..255."""
    return (np.arange(256) * _NODES + (_NODES - 1) / 2).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _chroma_table(red: float, blue: float, full_range: bool) -> FloatMap:
    """(Cb, Cr) of the colour with a gray's L* and an ab, (256 * nodes of b, nodes of a, 2).

    Colours outside sRGB are left outside, because linear interpolation needs a smooth table.
    """
    nodes = torch.linspace(-1, 1, _NODES)
    gray = torch.from_numpy(_lightness_table(full_range, 8))
    light, b, a = torch.meshgrid(gray, nodes, nodes, indexing="ij")  # (256, nodes, nodes)
    ab = torch.stack((a, b)).view(2, -1, _NODES)  # (2, 256 * nodes, nodes)
    table = torch.stack(_differences(light.reshape(-1, _NODES), ab, (red, blue)), dim=-1)
    return np.asarray(table.numpy(), np.float32).copy()
