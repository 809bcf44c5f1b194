"""The brush of the generated pictures: it paints solids of revolution with a skin, lit by one lamp.

Scene coordinates: x to the right, y down, the shorter side of the picture spans [-1, 1]. Colours
are linear light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.images import srgb

Raster = NDArray[np.floating[Any]]
"""Values of pixels, float32 throughout: (H, W), or (3, H, W) for colours in linear light."""

Colour = tuple[float, float, float]
"""Red, green and blue of sRGB, 0 to 255."""

Points = tuple[tuple[float, float], ...]
"""An outline: half-widths at places along the axis, from -1 (the stem end) to 1."""

LEAF_GREEN: Colour = (70, 122, 38)
STEM_BROWN: Colour = (104, 74, 40)


def linear(colour: Colour) -> Raster:
    """Linear light, shape (3, 1, 1), of an sRGB colour in 0-255."""
    value = np.asarray(colour, np.float32) / 255
    return srgb.to_light(value)[:, None, None]


def vary(colour: Colour, rng: np.random.Generator, spread: float = 9.0) -> Raster:
    """Linear light of an sRGB colour moved at random: brightness and a little hue, `spread` in
    levels of 255.
    """
    shift = rng.normal(0, spread, 1) + rng.normal(0, 0.5 * spread, 3)
    r, g, b = np.clip(np.asarray(colour) + np.clip(shift, -2 * spread, 2 * spread), 4, 252)
    return linear((float(r), float(g), float(b)))


@lru_cache(maxsize=1)
def noise_tile() -> Raster:
    """A 256x256 tile of smooth noise, cells of 4, mean 0, standard deviation 1, that repeats
    without a seam.
    """
    cells = np.random.default_rng(20240229).standard_normal((64, 64)).astype(np.float32)
    tile = cv2.resize(np.pad(cells, 4, mode="wrap"), (288, 288), interpolation=cv2.INTER_CUBIC)[
        16:272, 16:272
    ]
    return np.ascontiguousarray((tile - tile.mean()) / tile.std(), np.float32)


def noise(
    u: Raster, v: Raster, frequency: float, rng: np.random.Generator, octaves: int = 1
) -> Raster:
    """Smooth noise, mean 0 and standard deviation about 1, at (u, v) with `frequency` cells per
    unit.
    """
    du, dv = rng.uniform(0, 256, 2)
    total: Raster = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    norm = 0.0
    for octave in range(octaves):
        step = 4 * frequency * 2**octave
        columns = np.ascontiguousarray(
            np.broadcast_to(u * step + du * (octave + 1), total.shape), np.float32
        )
        lines = np.ascontiguousarray(
            np.broadcast_to(v * step + dv * (octave + 1), total.shape), np.float32
        )
        total += 0.5**octave * cv2.remap(
            noise_tile(), columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        norm += 0.25**octave
    total *= 1 / norm**0.5
    return total


def step(value: Raster, low: float, high: float) -> Raster:
    """0 below `low`, 1 above `high`, linear between (`low` above `high` turns it round)."""
    share: Raster = np.clip((value - low) * (1 / (high - low)), 0, 1)
    return share


@dataclass(frozen=True)
class Light:
    """One lamp and the light of the room: unit direction to the lamp (x, y, z to the viewer),
    colours (3, 1, 1).
    """

    direction: tuple[float, float, float]
    lamp: Raster
    above: Raster
    below: Raster
    throw: tuple[float, float]


class Canvas:
    """A picture in the making: `planes` (3, H, W) linear light, `scale` pixels per scene unit."""

    def __init__(self, height: int, width: int) -> None:
        self.planes: Raster = np.zeros((3, height, width), np.float32)
        self.scale = min(height, width) / 2
        self.xs: Raster = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.scale)[
            None, :
        ]
        self.ys: Raster = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / self.scale)[
            :, None
        ]
        self.edge = -9.0

    def window(self, x: float, y: float, across: float, down: float) -> tuple[slice, slice] | None:
        """Rows and columns that cover (x +- across, y +- down), or None outside the picture."""
        height, width = self.planes.shape[1:]
        left, right = (round((x + side * across) * self.scale + width / 2) for side in (-1, 1))
        top, bottom = (round((y + side * down) * self.scale + height / 2) for side in (-1, 1))
        left, right, top, bottom = (
            max(left - 1, 0),
            min(right + 1, width),
            max(top - 1, 0),
            min(bottom + 1, height),
        )
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def blend(self, where: tuple[slice, slice], colour: Raster, alpha: Raster) -> None:
        """Lay `colour` (3, h, w) over the window with opacity `alpha` (h, w)."""
        view = self.planes[(slice(None), *where)]
        view += (colour - view) * alpha

    def shade(self, where: tuple[slice, slice], alpha: Raster, base: float, light: Light) -> None:
        """Cast the shadow of the silhouette `alpha`, standing at y = `base`, on what is already
        there.
        """
        height, width = self.planes.shape[1:]
        foot = base * self.scale + height / 2 - where[0].start
        kx, ky = light.throw
        reach = alpha.shape[0] * (abs(kx) + 0.2) + 0.1 * self.scale
        left, right = max(int(where[1].start - reach), 0), min(int(where[1].stop + reach), width)
        top = max(where[0].start, int(self.edge * self.scale + height / 2), 0)
        bottom = min(int(where[0].stop + 0.1 * self.scale) + 1, height)
        if top >= bottom or left >= right:
            return
        matrix = np.array(
            [
                [1, -kx, foot * kx + where[1].start - left],
                [0, ky, foot * (1 - ky) + where[0].start - top],
            ],
            np.float32,
        )
        cast = cv2.warpAffine(alpha, matrix, (right - left, bottom - top))
        cast = cv2.GaussianBlur(cast, (0, 0), 0.035 * self.scale)
        self.planes[:, top:bottom, left:right] *= 1 - 0.72 * cast


@dataclass
class Surface:
    """The visible skin in a window: `s` along the axis (-1 the stem end), `t` across, `n*` the unit
    normal in the frame of the body (t, s, to the viewer), `albedo` (3, h, w), `relief` a height for
    bumps in scene units.
    """

    s: Raster
    t: Raster
    nt: Raster
    ns: Raster
    nz: Raster
    albedo: Raster
    rng: np.random.Generator
    relief: Raster | None = None
    gloss: float = 0.3
    tilt: float = 0.7

    @property
    def theta(self) -> Raster:
        """The angle round the axis, radians."""
        return np.arctan2(self.nt, self.nz)

    def polar(self) -> tuple[Raster, Raster]:
        """Cosine of the angle to the stem's pole, which leans to the viewer, and the longitude
        round it.
        """
        sine, cosine = np.float32(np.sin(self.tilt)), np.float32(np.cos(self.tilt))
        height = self.nz * sine - self.ns * cosine
        return height, np.arctan2(self.nt, self.ns * sine + self.nz * cosine)

    def flat(self) -> tuple[Raster, Raster]:
        """Coordinates on the skin without a seam, in [-1, 1]."""
        lift = 1 / (1 + self.nz)
        return self.nt * lift, self.ns * lift

    def mix(self, colour: Colour, amount: Raster) -> None:
        """Tint the skin."""
        self.albedo += (vary(colour, self.rng, 5) - self.albedo) * amount

    def mottle(self, pattern: Raster, amount: float) -> None:
        """Lighten and darken the skin by a pattern about 0."""
        self.albedo *= np.clip(1 + amount * pattern, 0.3, 1.7)


Skin = Callable[[Surface], None]


@lru_cache(maxsize=64)
def outline(points: Points) -> Raster:
    """Squared half-width and half its slope along the axis, shape (1, 289, 2) for s in [-1.125,
    1.125].
    """
    s = np.linspace(-1.125, 1.125, 289)
    at, width = np.array(points).T
    square = np.interp(s, at, width**2)
    square = np.convolve(
        np.pad(square, 18, mode="edge"), np.hanning(37) / np.hanning(37).sum(), mode="valid"
    )
    ends = np.abs(s) > 0.97
    square = np.where(
        ends, np.minimum(square, square + 8 * (0.97 - np.abs(s)) * square.max()), square
    )
    square = np.where(np.abs(s) > 1, -np.abs(np.abs(s) - 1) * 2 * square.max(), square)
    return np.stack([square, np.gradient(square, s) / 2], -1).astype(np.float32)[None]


@lru_cache(maxsize=64)
def oval(width: float, power: float = 1.0, skew: float = 0.0) -> Points:
    """An egg: half-width over the axis; `skew` above 0 makes the stem end the wider one."""
    s = np.linspace(-1, 1, 41)
    w = width * np.maximum(1 - s**2, 0) ** (0.5 * power) * (1 - skew * s)
    return tuple((float(a), float(b)) for a, b in zip(s, w, strict=True))


@dataclass(frozen=True)
class Pose:
    """Where a body is: centre, half-length, angle of its axis from upright, bend at each end
    (radians, 0 or more).
    """

    x: float
    y: float
    length: float
    angle: float = 0.0
    bend: float = 0.0


def revolve(
    canvas: Canvas,
    light: Light,
    pose: Pose,
    points: Points,
    skin: Skin,
    rng: np.random.Generator,
    *,
    colour: Colour = LEAF_GREEN,
    spread: float = 9.0,
    round_: float = 1.0,
    shadow: float | None = None,
    cut: Raster | None = None,
) -> None:
    """Paint a solid of revolution t^2 + z^2 = w(s)^2; `round_` below 1 flattens it, `shadow` is the
    y it stands on.
    """
    # Plain floats: a numpy double would turn the planes into doubles.
    pose = Pose(
        float(pose.x), float(pose.y), float(pose.length), float(pose.angle), float(pose.bend)
    )
    start = vary(colour, rng, spread)
    tilt = float(rng.uniform(0.5, 0.95))
    widest = max(w for _, w in points)
    sine, cosine = float(np.sin(pose.angle)), float(np.cos(pose.angle))
    sag = pose.bend * 0.5
    across = pose.length * (abs(sine) + (widest + sag) * abs(cosine)) * 1.04
    down = pose.length * (abs(cosine) + (widest + sag) * abs(sine)) * 1.04
    where = canvas.window(pose.x, pose.y, across, down)
    if where is None:
        return
    x = (canvas.xs[:, where[1]] - pose.x) / pose.length
    y = (canvas.ys[where[0]] - pose.y) / pose.length
    s, t = y * cosine - x * sine, x * cosine + y * sine
    turn: Raster | None = None
    if pose.bend > 0.02:
        radius = 1 / pose.bend
        t = t - 0.35 * pose.bend
        turn = np.arctan2(s, radius + t)
        t = np.hypot(s, radius + t) - radius
        s = turn * radius
    look = cv2.remap(
        outline(points),
        (s + 1.125) * 128,
        np.zeros_like(s),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    square, slope = look[..., 0], look[..., 1]
    inside = square - t * t
    alpha = np.clip(
        inside / (2 * np.sqrt(t * t + slope * slope) + 1e-4) * (canvas.scale * pose.length) + 0.5,
        0,
        1,
    )
    nz = np.sqrt(np.maximum(inside, 1e-6)) / round_
    norm = 1 / np.sqrt(t * t + slope * slope + nz * nz)
    albedo = np.empty((3, *s.shape), np.float32)
    albedo[:] = start
    body = Surface(s, t, t * norm, -slope * norm, nz * norm, albedo, rng, tilt=tilt)
    skin(body)
    nt, ns = body.nt, body.ns
    if turn is not None:
        c, d = np.cos(turn), np.sin(turn)
        nt, ns = nt * c - ns * d, ns * c + nt * d
    if shadow is not None:
        canvas.shade(where, alpha, shadow, light)
    if cut is not None:
        alpha = alpha * cut[where]
    normal = (nt * cosine - ns * sine, ns * cosine + nt * sine, body.nz)
    canvas.blend(where, lit(normal, body, light, canvas.scale), alpha)


def lit(normal: tuple[Raster, Raster, Raster], body: Surface, light: Light, scale: float) -> Raster:
    """Light on the skin (3, h, w): lamp with a soft edge, room light from above and table below,
    highlight.
    """
    nx, ny, nz = normal
    if body.relief is not None:
        nx = nx - cv2.Sobel(body.relief, cv2.CV_32F, 1, 0, ksize=1) * (0.5 * scale)
        ny = ny - cv2.Sobel(body.relief, cv2.CV_32F, 0, 1, ksize=1) * (0.5 * scale)
        norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-6)
        nx, ny, nz = nx * norm, ny * norm, nz * norm
    lx, ly, lz = light.direction
    facing = nx * lx + ny * ly + nz * lz
    lamp = np.clip((facing + 0.25) * 0.8, 0, 1)
    lamp *= lamp
    up = 0.5 - 0.5 * ny
    colour: Raster = body.albedo * (
        light.below + (light.above - light.below) * up + light.lamp * lamp
    )
    half = np.array([lx, ly, lz + 1]) / np.linalg.norm([lx, ly, lz + 1])
    glint = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1).astype(np.float32)
    glint = glint**2
    glint = glint**4
    sheen = glint * glint
    colour += light.lamp * (body.gloss * (0.08 * glint + 0.9 * (sheen * sheen) ** 2))
    return colour
