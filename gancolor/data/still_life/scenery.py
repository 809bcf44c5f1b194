"""Tables, walls, windows and landscapes of the generated pictures: the pattern tells the material
and its colour.
"""

from __future__ import annotations

import cv2
import numpy as np

from gancolor.data.still_life.bodies import Canvas, Colour, Light, Raster, linear, noise, step, vary
from gancolor.images.arrays import Picture

TABLES = ("wood", "wood", "gingham", "linen", "marble")
# Paint is purer than what a camera sees: this share of every colour is taken towards gray.
PALE = np.float32(0.16)
LUMA = np.repeat(np.array([[0.2126], [0.7152], [0.0722]], np.float32), 3, 1)
WALLS = ("plaster", "wallpaper", "tiles", "brick", "dark")


def tinted(start: Raster, height: int, width: int) -> Raster:
    """One colour (3, 1, 1) as planes (3, height, width)."""
    planes = np.empty((3, height, width), np.float32)
    planes[:] = start
    return planes


def mix(planes: Raster, colour: Colour, amount: Raster, rng: np.random.Generator) -> None:
    """Tint `planes` in place."""
    planes += (vary(colour, rng, 5) - planes) * amount


def wave(phase: Raster, sharp: float) -> Raster:
    """A square wave with soft edges, 0 to 1, period 1; `sharp` is pixels a period or so."""
    return np.clip(0.5 + sharp * (np.abs(np.mod(phase, 1) - 0.5) - 0.25), 0, 1)


def paint_table(
    canvas: Canvas, kind: str, edge: float, light: Light, rng: np.random.Generator
) -> None:
    """Paint a table whose far edge is at y = `edge`, seen in perspective."""
    canvas.edge = edge
    first = int(
        np.clip(round(edge * canvas.scale + canvas.planes.shape[1] / 2), 0, canvas.planes.shape[1])
    )
    ys = canvas.ys[first:]
    if not len(ys):
        return
    near = max(edge, -1.6)  # seen from above, the table has no far edge in the picture
    far = 1.6 / (ys - near + 1.6)
    turn = float(rng.uniform(-0.6, 0.6))
    across, deep = canvas.xs * far, np.broadcast_to(1.9 * far * 1.6, (len(ys), canvas.xs.shape[1]))
    u, v = across * np.cos(turn) - deep * np.sin(turn), across * np.sin(turn) + deep * np.cos(turn)
    u, v = u.astype(np.float32), v.astype(np.float32)
    height, width = u.shape
    soft = 0.25 * canvas.scale
    if kind == "wood":
        planes = tinted(vary((158, 104, 60), rng, 12), height, width)
        grain = noise(u * 0.5, v * 6, 3.0, rng, 2)
        rings = np.sin(14 * v + 3 * noise(u, v * 2, 0.8, rng))
        planes *= np.clip(1 + 0.16 * grain + 0.16 * rings, 0.3, 1.7)
        planes *= 1 - 0.6 * step(np.abs(np.mod(v * 1.6 + 0.3, 1) - 0.5), 0.02, 0.006)
    elif kind == "gingham":
        planes = tinted(vary((236, 228, 216), rng, 5), height, width)
        check = 0.5 * wave(u * 3.2, 0.4 * soft) + 0.5 * wave(v * 3.2, 0.4 * soft)
        mix(planes, (190, 34, 40), check, rng)
        planes *= 1 + 0.05 * noise(u, v, 30, rng)
    elif kind == "linen":
        planes = tinted(vary((222, 220, 214), rng, 5), height, width)
        lines = wave(u * 2.2, 0.6 * soft) * (1 - wave(u * 8.8, 0.2 * soft) * 0.6)
        mix(planes, (58, 92, 150), lines, rng)
        planes *= 1 + 0.06 * noise(u * 2, v * 2, 9, rng)
    else:
        planes = tinted(vary((214, 216, 220), rng, 5), height, width)
        bent = noise(u, v, 1.2, rng, 3)
        mix(planes, (112, 120, 134), 0.75 * step(np.abs(bent), 0.3, 0.0) ** 2, rng)
        planes *= 1 + 0.05 * noise(u, v, 2.0, rng)
    lx, ly, lz = light.direction
    fall = 1 + 0.22 * np.sign(lx) * canvas.xs - 0.1 * (ys - near)
    canvas.planes[:, first:] = (
        planes * (light.above + light.lamp * (0.55 * -ly + 0.15)) * np.clip(fall, 0.4, 1.5)
    )
    if first > 0:  # the front of the far edge: a thin dark line where the wall meets the table
        canvas.planes[:, max(first - max(int(0.02 * canvas.scale), 1), 0) : first] *= 0.55


def paint_wall(
    canvas: Canvas, kind: str, edge: float, light: Light, rng: np.random.Generator
) -> None:
    """Paint a wall down to y = `edge`."""
    height, width = canvas.planes.shape[1:]
    last = int(np.clip(round(edge * canvas.scale + height / 2), 0, height))
    if not last:
        return
    u, v = (
        np.broadcast_to(canvas.xs, (last, width)),
        np.broadcast_to(canvas.ys[:last], (last, width)),
    )
    soft = 0.25 * canvas.scale
    if kind == "plaster":
        planes = tinted(vary((216, 188, 140), rng, 10), last, width)
        planes *= np.clip(1 + 0.07 * noise(u, v, 1.2, rng, 3), 0.6, 1.4)
    elif kind == "wallpaper":
        planes = tinted(vary((150, 176, 140), rng, 8), last, width)
        mix(planes, (196, 206, 170), wave(u * 2.5, 0.6 * soft), rng)
        flower = np.cos(31.4 * u) * np.cos(12 * v)
        mix(planes, (104, 140, 100), step(flower, 0.5, 0.7), rng)
    elif kind == "tiles":
        planes = tinted(vary((84, 136, 176), rng, 9), last, width)
        a, b = np.mod(u * 2.4, 1) - 0.5, np.mod(v * 2.4, 1) - 0.5
        star = np.abs(a) + np.abs(b)
        mix(
            planes,
            (226, 230, 230),
            step(np.abs(star - 0.38), 0.07, 0.04) + step(np.maximum(abs(a), abs(b)), 0.46, 0.48),
            rng,
        )
    elif kind == "brick":
        planes = tinted(vary((166, 86, 60), rng, 9), last, width)
        row = np.floor(v * 5)
        a, b = np.mod(u * 2.2 + 0.5 * row, 1), np.mod(v * 5, 1)
        planes *= np.clip(
            1
            + 0.2 * np.sin(12.9 * np.floor(u * 2.2 + 0.5 * row) + 78 * row)
            + 0.1 * noise(u, v, 9, rng, 2),
            0.4,
            1.7,
        )
        mix(
            planes,
            (190, 178, 160),
            np.maximum(step(np.abs(a - 0.5), 0.46, 0.48), step(np.abs(b - 0.5), 0.4, 0.44)),
            rng,
        )
    else:
        planes = tinted(vary((66, 52, 40), rng, 7), last, width)
        planes *= np.clip(1 + 0.2 * noise(u, v, 1.0, rng, 3), 0.4, 1.8)
    lx = light.direction[0]
    spot = np.exp(-((u - 0.7 * np.sign(lx)) ** 2 + (v + 0.7) ** 2) / 2.2)
    canvas.planes[:, :last] = planes * (light.above * 0.9 + light.lamp * (0.1 + 0.6 * spot))


def landscape(u: Raster, v: Raster, rng: np.random.Generator) -> Raster:
    """Sky with clouds over hills and trees, (3, h, w); v from -1 (top) to 1 (bottom)."""
    height, width = u.shape
    low = vary((196, 220, 240), rng, 6)
    planes = low + (vary((74, 134, 210), rng, 9) - low) * step(v, 0.3, -1.1)
    cloud = noise(u * 0.8, v * 1.7, 1.3, rng, 4)
    planes = planes + (
        linear((250, 250, 250)) * (1.0 - 0.15 * step(cloud, 1.0, 2.0)) - planes
    ) * step(cloud, 0.25, 1.1)
    skyline = float(rng.uniform(0.0, 0.35))
    greens: tuple[Colour, ...] = ((128, 160, 140), (104, 146, 72), (78, 124, 46))
    for layer, green in enumerate(greens):
        ridge = (
            skyline
            + 0.2 * layer
            + (0.13 - 0.02 * layer) * noise(u[:1], np.zeros_like(u[:1]), 0.8 + 0.3 * layer, rng, 2)
        )
        if layer == 2:
            ridge = ridge - 0.12 * np.abs(noise(u[:1], np.zeros_like(u[:1]), 4.0, rng))
        texture = 1 + (0.08 + 0.1 * layer) * noise(u, v * 2, 5.0 + 3 * layer, rng, 2)
        planes += (vary(green, rng, 6) * np.clip(texture, 0.3, 1.8) - planes) * step(
            v - ridge, -0.01, 0.01
        )
    return planes


def paint_landscape(canvas: Canvas, edge: float, light: Light, rng: np.random.Generator) -> None:
    """Paint the open air behind the table."""
    height, width = canvas.planes.shape[1:]
    last = int(np.clip(round(edge * canvas.scale + height / 2), 0, height))
    if last:
        v = (canvas.ys[:last] + 1) / (edge + 1) * 2 - 1
        u, v = np.broadcast_to(canvas.xs, (last, width)), np.broadcast_to(v, (last, width))
        canvas.planes[:, :last] = landscape(u, v.astype(np.float32), rng) * 0.95


def paint_window(canvas: Canvas, edge: float, light: Light, rng: np.random.Generator) -> None:
    """Paint a window with a white frame into the wall."""
    x, across = float(rng.uniform(-0.7, 0.7)), float(rng.uniform(0.4, 0.75))
    bottom = edge - float(rng.uniform(0.06, 0.2))
    down = 0.5 * (bottom + float(rng.uniform(0.95, 1.4)))
    y = bottom - down
    where = canvas.window(x, y, across + 0.1, down + 0.1)
    if down < 0.15 or where is None:
        return
    u = np.broadcast_to(canvas.xs[:, where[1]] - x, canvas.planes[0][where].shape)
    v = np.broadcast_to(canvas.ys[where[0]] - y, u.shape)
    sharp = 0.5 / canvas.scale
    frame = np.maximum(np.abs(u) - across, np.abs(v) - down)
    view = landscape(u / across, v / down, rng) * 1.05
    bars = np.minimum(np.abs(u), np.abs(v + 0.2 * down)) - 0.025
    wood = np.maximum(step(bars, sharp, -sharp), step(frame, -0.06 - sharp, -0.06 + sharp))
    groove = 1 - 0.3 * step(np.abs(np.minimum(np.abs(frame + 0.03), np.abs(bars))), 0.012, 0.004)
    view += (linear((232, 228, 218)) * (light.above + 0.35 * light.lamp) * groove - view) * wood
    canvas.blend(where, view, step(frame, sharp, -sharp))


def paint_plate(
    canvas: Canvas, x: float, y: float, radius: float, light: Light, rng: np.random.Generator
) -> None:
    """Paint a white plate with blue rings round its rim, lying flat at (x, y)."""
    flat = 0.42
    where = canvas.window(x, y, radius * 1.05, radius * flat * 1.1)
    if where is None:
        return
    u, v = (canvas.xs[:, where[1]] - x) / radius, (canvas.ys[where[0]] - y) / (radius * flat)
    reach = np.sqrt(u * u + v * v)
    sharp = 1 / (radius * flat * canvas.scale)
    alpha = step(reach, 1 + 0.5 * sharp, 1 - 0.5 * sharp)
    canvas.shade(where, alpha, y + 0.1 * radius, light)
    planes = tinted(vary((236, 234, 228), rng, 4), *reach.shape)
    mix(
        planes,
        (44, 76, 158),
        np.maximum(step(np.abs(reach - 0.93), 0.05, 0.03), step(np.abs(reach - 0.8), 0.03, 0.015)),
        rng,
    )
    lx, ly, _ = light.direction
    slope = np.exp(-(((reach - 0.68) / 0.07) ** 2)) * (u * lx + v * ly)
    planes *= (light.above + light.lamp * 0.55) * (
        1 - 0.35 * slope + 0.12 * step(np.abs(reach - 0.985), 0.02, 0.0)
    )
    canvas.blend(where, planes, alpha)


def ellipse(canvas: Canvas, x: float, y: float, across: float, down: float) -> Raster:
    """Coverage (H, W) of an ellipse."""
    u, v = (canvas.xs - x) / across, (canvas.ys - y) / down
    reach = np.sqrt(u * u + v * v)
    cover: Raster = np.clip((1 - reach) * (down * canvas.scale) + 0.5, 0, 1)
    return cover


def finish(
    canvas: Canvas,
    shape: tuple[int, int],
    exposure: float,
    blur: float,
    grain: float,
    seed: list[int],
) -> Picture:
    """The photograph, uint8 (H, W, 3): exposure, a soft shoulder, lens blur and sensor noise."""
    height, width = shape
    picture = cv2.merge(list(canvas.planes))
    if picture.shape[:2] != shape:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    scale = min(shape) / 2
    if blur * scale > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), blur * scale)
    picture = np.maximum(picture * exposure, 0)
    picture += (picture @ LUMA - picture) * PALE
    bright = picture / (1 + np.maximum(picture - 0.6, 0) * 0.55)
    coded = np.sqrt(bright)
    rng = np.random.default_rng(seed)
    coded = coded * 255 + rng.standard_normal((height, width, 1), np.float32) * grain
    photograph: Picture = np.clip(coded + 0.5, 0, 255).astype(np.uint8)
    return photograph
