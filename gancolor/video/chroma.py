"""Chroma planes that colour a film whose luma plane stays as it is, bit for bit."""

from __future__ import annotations

import functools
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color
from gancolor.video.flow import FloatMap
from gancolor.video.planes import Plane

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
_FAR = 1e6  # black and white hold no colour at all: stands for 1 / 0


class Tagged(Protocol):
    """What must be known of a film: its size, whether its luma fills 0..255, and the number of its
    matrix in ITU-T H.273.
    """

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def full_range(self) -> bool: ...
    @property
    def color_space(self) -> int: ...


def luma_weights(info: Tagged) -> tuple[float, float]:
    """Red's and blue's share of luma.

    They follow from the film's matrix. A film that names none is taken for BT.709 from 720 lines or
    1280 columns on, else for BT.601.
    """
    hd = info.height >= _HD_HEIGHT or info.width >= _HD_WIDTH
    return _WEIGHTS.get(info.color_space, _WEIGHTS[_BT709 if hd else 5])


def halve(luma: Plane) -> Plane:
    """Luma (H, W) averaged to the size of the chroma planes, (ceil(H / 2), ceil(W / 2))."""
    odd_rows, odd_columns = luma.shape[0] % 2, luma.shape[1] % 2
    if odd_rows or odd_columns:
        luma = np.pad(luma, ((0, odd_rows), (0, odd_columns)), mode="edge")
    size = (luma.shape[1] // 2, luma.shape[0] // 2)
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def grays(luma: Plane, full_range: bool) -> Plane:
    """The sRGB grays 0..255 that a player shows for luma without colour."""
    if full_range:
        return luma
    return np.asarray(cv2.LUT(luma, _gray_table()), np.uint8)


def lightness(luma: Plane, full_range: bool) -> FloatMap:
    """The `lightness`, in [-1, 1], of luma shown without colour; float32 of the same shape."""
    return np.asarray(cv2.LUT(luma, _lightness_table(full_range)), np.float32)


def chroma_planes(luma_half: Plane, ab: Tensor | FloatMap, info: Tagged) -> tuple[Plane, Plane]:
    """Return the planes (u, v), uint8 (h, w), that colour a film's luma without changing it.

    `luma_half`: the luma at the chroma planes' size, (h, w), see `halve`. `ab`: (h, w, 2), or a
    tensor (1, 2, h, w); beyond [-1, 1] it is shortened, its hue kept. The colour is the one of the
    gray's L* and this ab. Where R'G'B' would leave [0, 1] with the film's own luma, (Cb, Cr) are
    multiplied by the largest factor that keeps it in: less chroma, the same hue, nothing clipped.
    ValueError if `ab` has another size.
    """
    if isinstance(ab, Tensor):
        ab = ab[0].permute(1, 2, 0).contiguous().cpu().numpy()  # (h, w, 2)
    if ab.shape != (*luma_half.shape, 2):
        raise ValueError(f"ab must be {(*luma_half.shape, 2)}, got {ab.shape}")
    red, blue = luma_weights(info)
    scale = 255.0 if info.full_range else 224.0
    cb, cr = _look_up(luma_half, ab, _chroma_table(red, blue, info.full_range))
    overshoot = _overshoot(luma_half, cb, cr, (red, blue), info.full_range)
    factor = np.divide(scale, overshoot, out=overshoot)
    return _to_codes(cb, factor), _to_codes(cr, factor)


def _to_codes(chroma: FloatMap, factor: FloatMap) -> Plane:
    """128 + factor * chroma, rounded and bounded to 8 bits."""
    codes = cv2.multiply(chroma, factor, dst=chroma)
    codes += 128
    return np.asarray(cv2.convertScaleAbs(np.maximum(codes, 0, out=codes)), np.uint8)


def _look_up(luma: Plane, ab: FloatMap, table: FloatMap) -> tuple[FloatMap, FloatMap]:
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
    luma: Plane, cb: FloatMap, cr: FloatMap, weights: tuple[float, float], full_range: bool
) -> FloatMap:
    """How many times too long (Cb, Cr) is for R'G'B' to stay in [0, 1]; 1 where it fits.

    With Y fixed, R' = Y + d stays below 1 while d <= 1 - Y, and above 0 while -d <= Y. G' and B' do
    likewise.
    """
    red, blue = weights
    green = 1 - red - blue
    to_white, to_black = (cv2.LUT(luma, table) for table in _room_tables(full_range))
    to_red, to_blue = cr * (2 * (1 - red)), cb * (2 * (1 - blue))
    to_green = cv2.addWeighted(to_red, -red / green, to_blue, -blue / green, 0)
    highest = cv2.max(cv2.max(to_red, to_green), to_blue)
    lowest = cv2.min(cv2.min(to_red, to_green), to_blue)
    upper, lower = cv2.multiply(highest, to_white), cv2.multiply(lowest, to_black, scale=-1)
    return np.maximum(cv2.max(upper, lower), 1)


def _shares(full_range: bool) -> NDArray[np.float64]:
    """Luma in [0, 1] of the codes 0..255; what is blacker than black or whiter than white counts as
    black or white.
    """
    codes = np.arange(256.0)
    return codes / 255 if full_range else ((codes - 16) / 219).clip(0, 1)


@functools.lru_cache(maxsize=1)
def _gray_table() -> Plane:
    """The gray in full range that each code of limited range is shown as."""
    return np.rint(_shares(False) * 255).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def _lightness_table(full_range: bool) -> FloatMap:
    """The lightness in [-1, 1] of the codes 0..255."""
    gray = torch.from_numpy(_shares(full_range).astype(np.float32))
    with torch.inference_mode():
        found = color.split(gray.view(1, 1, 1, 256).expand(1, 3, 1, 256))[0]
    return np.asarray(found.view(256).numpy(), np.float32).copy()


@functools.lru_cache(maxsize=2)
def _room_tables(full_range: bool) -> tuple[FloatMap, FloatMap]:
    """1 / (1 - Y) and 1 / Y of the codes 0..255."""
    luma = _shares(full_range)
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
    gray = torch.from_numpy(_lightness_table(full_range))
    light, b, a = torch.meshgrid(gray, nodes, nodes, indexing="ij")  # (256, nodes, nodes)
    with torch.inference_mode():
        planes = torch.stack((light, a, b)).view(1, 3, -1, _NODES)  # (1, 3, 256 * nodes, nodes)
        r, g, b = color.merge(planes[:, :1], planes[:, 1:], clip=False)[0]
        luma = red * r + (1 - red - blue) * g + blue * b
        table = torch.stack(((b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))), dim=-1)
    return np.asarray(table.numpy(), np.float32).copy()
