"""Colours of a single frame: what the network sees of it, what the network says, and the chroma
planes that this makes at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.coloring import full_size, painting, views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.painting import Upsampler
from gancolor.coloring.settings import ColoringSettings
from gancolor.errors import ConfigError, DataError
from gancolor.video import chroma
from gancolor.video.flow import FloatMap, warp
from gancolor.video.planes import DeepPlane, Plane
from gancolor.video.tracking import Truth

_Values = TypeVar("_Values", np.uint8, np.uint8 | np.uint16, np.float32)


class FrameColors(NamedTuple):
    """What the network says of a frame: `ab` (h, w, 2) in [-1, 1], its mean CIE `chroma`, and
    `notes` on how it was asked.
    """

    ab: FloatMap
    chroma: float
    notes: list[str]


def check_able(colorizer: Colorizer, settings: ColoringSettings) -> None:
    """Raise ConfigError unless the network can colour frames as `settings` wish."""
    full_size.check_able(colorizer.sight, temperature=settings.temperature)
    if colorizer.condition != "gray":
        raise ConfigError(
            f"a film needs a network that sees gray, got {colorizer.condition}; choose another"
            " --run"
        )


def small_gray(luma: DeepPlane, size: int, info: chroma.Tagged) -> Plane:
    """What the network sees of luma (H, W): sRGB grays (h, w), the shorter side at most `size`.

    Of an interlaced frame it sees the mean of both fields.
    """
    height, width = views.fit(luma.shape[0], luma.shape[1], size)
    whole = chroma.blended(luma) if info.fields else luma
    small = _resize(whole, height, width, cv2.INTER_AREA)
    return chroma.grays(small, info.full_range, info.depth)


def predict(
    colorizer: Colorizer, gray: Plane, temperature: float | None, hints: FloatMap | None = None
) -> FrameColors:
    """Ask the network about a frame, (h, w), with a map (h, w, 3) of `hints` for a network that
    takes some. DataError for colours that are no numbers.
    """
    view = views.look(colorizer.sight, gray, max(gray.shape), temperature=temperature)
    view.hints = hints
    colors, notes, _ = colorizer.predict_view(view)
    if not np.isfinite(colors).all():
        raise DataError(
            f"{colorizer.name} must give finite colours, got others; choose another --run"
        )
    if colors.shape[:2] != gray.shape:  # memory ran out: see `Colorizer.predict_view`
        colors = _resize(colors, gray.shape[0], gray.shape[1], cv2.INTER_LINEAR)
    strength = painting.mean_chroma(colors, chroma.lightness(gray, full_range=True))
    return FrameColors(colors, strength, list(notes))


def chroma_planes(
    luma: DeepPlane,
    gray: Plane,
    ab: FloatMap,
    info: chroma.Tagged,
    settings: ColoringSettings,
    truths: Sequence[Truth] = (),
) -> tuple[DeepPlane, DeepPlane]:
    """The planes (u, v), (ceil(H / 2), ceil(W / 2)), that give luma (H, W) the small colours `ab`
    (h, w, 2).

    `gray` (h, w): what the network saw. Of `settings` the upsampling and the saturation count. In
    an interlaced film, each row of the planes belongs to one field. `truths`: known frames whose
    colours are taken as they are, at this size.
    """
    half = chroma.halve(luma, interlaced=info.fields is not None)
    guide = chroma.lightness(gray, full_range=True)
    ab = ab * np.float32(settings.saturation)
    height, width = min(half.shape[0], ab.shape[0]), min(half.shape[1], ab.shape[1])
    if ab.shape[:2] != (height, width):  # a film hardly larger than what the network sees
        ab, guide = (_resize(x, height, width, cv2.INTER_AREA) for x in (ab, guide))
    upsampler = Upsampler(ab, guide, half.shape, settings.upsample)
    light = torch.from_numpy(chroma.lightness(half, info.full_range, info.depth))  # (h, w)
    colors = upsampler.rows(0, light[None, None])  # (1, 2, H / 2, W / 2)
    if not truths:
        return chroma.chroma_planes(half, colors, info)
    whole = np.ascontiguousarray(colors[0].permute(1, 2, 0).numpy())
    return chroma.chroma_planes(half, _with_truths(whole, truths), info)


def rgb(
    luma: DeepPlane, ab: FloatMap, info: chroma.Tagged, settings: ColoringSettings
) -> NDArray[np.uint8 | np.uint16]:
    """RGB (H, W, 3) of luma (H, W) and the small colours `ab` (h, w, 2), painted as a photograph is:
    at full size, and with the lightness of the luma; of 8 bits, or of 16 for deeper luma.
    """
    grays = chroma.grays if info.depth == 8 else chroma.deep_grays
    return painting.paint(
        grays(luma, info.full_range, info.depth),
        ab,
        method=settings.upsample,
        saturation=settings.saturation,
    )


@torch.inference_mode()
def luma_of_rgb(pixels: NDArray[np.uint8]) -> Plane:
    """Luma (H, W) in full range: the grays that are as light as the pixels (H, W, 3)."""
    lightness, _ = color.split(color.to_tensor(pixels))
    grays = color.gray(lightness).mul_(255).round_().byte()  # (1, 1, H, W)
    return np.asarray(grays[0, 0].numpy(), np.uint8)


def pale(mean_chroma: float, passes: int) -> list[str]:
    """A note where the network hardly colours; `passes`: how many frames it saw."""
    least = full_size.LEAST_CHROMA
    if not passes or mean_chroma >= least:
        return []
    return [
        f"hardly coloured: mean chroma {mean_chroma:.2f}, less than {least:g}; try another --size"
        " or run"
    ]


def _with_truths(ab: FloatMap, truths: Sequence[Truth]) -> FloatMap:
    """Colours (h, w, 2) at half the film's size, with those of known frames over them."""
    height, width = ab.shape[:2]
    colors, rest = np.zeros_like(ab), np.ones((height, width), np.float32)
    for known, flow, share in truths:
        if not share.any():
            continue
        scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
        whole = _resize(flow, height, width, cv2.INTER_LINEAR) * scale
        weight = _resize(share, height, width, cv2.INTER_LINEAR)
        colors += weight[..., None] * warp(known.half_colors, whole)
        rest -= weight * warp(known.half_alpha, whole)
    return np.asarray(ab * np.maximum(rest, 0)[..., None] + colors, np.float32)


def _resize(values: NDArray[_Values], height: int, width: int, method: int) -> NDArray[_Values]:
    """Values (H, W) or (H, W, C) at another size; `method` is OpenCV's."""
    resized = np.asarray(cv2.resize(values, (width, height), interpolation=method), values.dtype)
    return resized.reshape(height, width, *values.shape[2:])
