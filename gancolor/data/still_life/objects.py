"""What lies on the tables of the generated pictures: each kind of fruit, vegetable or pot has its
own shape, skin and colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gancolor.data.still_life.bodies import (
    Canvas,
    Colour,
    Light,
    Points,
    Skin,
    Surface,
    lit,
    noise,
    oval,
    step,
    vary,
)


def knots(at: tuple[float, ...], width: tuple[float, ...]) -> Points:
    """An outline of the half-widths `width` at the places `at`."""
    return tuple(zip(at, width, strict=True))


APPLE = tuple((s, 0.98 * w * (1 - 0.09 * s)) for s, w in oval(1.0, 0.86))
GREEN_APPLE = tuple((s, w * (1 - 0.2 * s)) for s, w in oval(0.84, 0.72))
PEAR = knots(
    (-1, -0.97, -0.8, -0.5, -0.2, 0.1, 0.4, 0.7, 0.9, 1),
    (0, 0.12, 0.24, 0.31, 0.42, 0.6, 0.7, 0.62, 0.38, 0),
)
LEMON = knots(
    (-1, -0.97, -0.86, -0.72, -0.4, 0, 0.4, 0.72, 0.86, 0.97, 1),
    (0, 0.1, 0.17, 0.36, 0.6, 0.68, 0.6, 0.36, 0.17, 0.1, 0),
)
CARROT = knots((-1, -0.96, -0.8, -0.3, 0.3, 0.8, 1), (0, 0.15, 0.2, 0.165, 0.11, 0.05, 0.0))
BANANA = knots(
    (-1, -0.98, -0.84, -0.7, -0.4, 0.1, 0.5, 0.8, 0.93, 1),
    (0, 0.05, 0.06, 0.13, 0.19, 0.205, 0.18, 0.11, 0.05, 0),
)
AUBERGINE = knots(
    (-1, -0.97, -0.8, -0.4, 0, 0.4, 0.7, 0.9, 1), (0, 0.16, 0.24, 0.29, 0.37, 0.44, 0.4, 0.25, 0)
)
COURGETTE = knots(
    (-1, -0.97, -0.86, -0.7, 0, 0.7, 0.92, 1), (0, 0.1, 0.12, 0.18, 0.21, 0.2, 0.13, 0)
)
STRAWBERRY = knots(
    (-1, -0.95, -0.75, -0.4, 0, 0.5, 0.85, 1), (0, 0.4, 0.66, 0.74, 0.64, 0.42, 0.18, 0)
)
VASE = knots(
    (-1, -0.99, -0.9, -0.7, -0.5, -0.15, 0.2, 0.6, 0.9, 0.99, 1),
    (0, 0.3, 0.3, 0.2, 0.24, 0.46, 0.54, 0.42, 0.3, 0.32, 0),
)
LEAF = knots((-1, -0.85, -0.4, 0, 0.4, 0.8, 1), (0, 0.12, 0.36, 0.4, 0.3, 0.1, 0))
STICK = knots((-1, -0.97, 0, 0.97, 1), (0, 0.12, 0.09, 0.14, 0))


# The skins: each paints the surface that it is given.


def orange(skin: Surface) -> None:
    u, v = skin.flat()
    pores = noise(u, v, 13, skin.rng)
    skin.relief = 0.0016 * pores
    height, _ = skin.polar()
    skin.mottle(pores, 0.06)
    skin.mix((120, 120, 50), step(height, 0.985, 0.995))
    skin.mottle(step(height, 0.9, 0.98) - 0.2, -0.25)
    skin.gloss = 0.35


def apple(skin: Surface) -> None:
    height, turn = skin.polar()
    streaks = noise(turn * 2.5, height * 0.8, 2.0, skin.rng)
    skin.mix((222, 160, 64), 0.6 * np.clip(0.3 * streaks + step(height, 0.35, 1.15), 0, 1) ** 2)
    skin.mottle(streaks, 0.12)
    skin.mottle(step(height, 0.8, 0.97), -0.6)
    skin.gloss = 0.7


def green_apple(skin: Surface) -> None:
    u, v = skin.flat()
    height, _ = skin.polar()
    skin.mix((214, 226, 150), 0.8 * step(noise(u, v, 9, skin.rng), 1.3, 2.0))
    skin.mottle(step(height, 0.85, 0.98), -0.5)
    skin.gloss = 0.6


def tomato(skin: Surface) -> None:
    height, turn = skin.polar()
    angle = np.arccos(np.clip(height, -1, 1))
    skin.relief = -0.05 * np.abs(np.cos(2.5 * turn + 0.5)) * step(height, 0.2, 1.0)
    star = 0.12 + 0.55 * np.abs(np.cos(2.5 * turn)) ** 5
    skin.mix((66, 112, 40), step(angle - star, 0.04, -0.04))
    skin.gloss = 0.9


def pumpkin(skin: Surface) -> None:
    height, turn = skin.polar()
    rib = np.abs(np.sin(4.5 * turn))
    skin.relief = 0.09 * np.sqrt(rib) * step(1 - height * height, 0.0, 0.5)
    skin.mottle(step(rib, 0.35, 0.0), -0.45)
    skin.mix((150, 140, 80), step(height, 0.955, 0.975))
    skin.gloss = 0.25


def banana(skin: Surface) -> None:
    theta = skin.theta
    skin.mottle(np.cos(5 * theta), 0.07)
    end = skin.s if skin.rng.random() < 0.5 else -skin.s
    skin.mix((150, 170, 60), step(end, -0.6, -0.95))
    skin.mix(
        (70, 50, 30),
        np.maximum(
            step(end, 0.9, 0.94), 0.6 * step(noise(theta, skin.s * 3, 3.5, skin.rng), 1.7, 2.1)
        ),
    )
    skin.mix((90, 74, 40), step(end, -0.93, -0.97))
    skin.gloss = 0.2


def pear(skin: Surface) -> None:
    u, v = skin.flat()
    skin.mix((140, 100, 50), 0.7 * step(noise(u, skin.s, 10, skin.rng), 1.2, 1.8))
    skin.mix((170, 120, 60), 0.5 * step(skin.s, -0.7, -1.0))
    skin.gloss = 0.35


def lemon(skin: Surface) -> None:
    skin.relief = 0.002 * noise(skin.theta, skin.s * 1.6, 6, skin.rng)
    skin.mix((176, 186, 70), 0.6 * step(np.abs(skin.s), 0.8, 1.0))
    skin.gloss = 0.4


def carrot(skin: Surface) -> None:
    rings = noise(skin.theta * 0.4, skin.s * 9, 1.6, skin.rng)
    skin.relief = 0.01 * rings
    skin.mottle(step(rings, 0.9, 1.5), -0.35)
    skin.gloss = 0.15


def aubergine(skin: Surface) -> None:
    edge = -0.66 + 0.14 * np.abs(np.cos(2.5 * skin.theta))
    skin.mix((96, 120, 60), step(skin.s - edge, 0.02, -0.02))
    skin.gloss = 1.0


def courgette(skin: Surface) -> None:
    stripes = np.cos(9 * skin.theta + noise(skin.theta, skin.s, 3, skin.rng))
    skin.mix((120, 158, 78), 0.7 * step(stripes, 0.3, 0.8))
    skin.mix((170, 180, 110), step(np.abs(skin.s), 0.88, 0.93))
    skin.gloss = 0.5


def strawberry(skin: Surface) -> None:
    row = skin.s * 4.5
    line = np.floor(row)
    spot = np.hypot(row - line - 0.5, (np.mod(skin.theta * 2.2 + 0.5 * line, 1) - 0.5) * 0.8)
    skin.relief = -0.02 * step(spot, 0.4, 0.1)
    skin.mix((236, 190, 96), step(spot, 0.22, 0.13))
    edge = -0.82 + 0.4 * np.abs(np.cos(2 * skin.theta)) ** 2
    skin.mix((88, 140, 50), step(skin.s - edge, 0.03, -0.03))
    skin.gloss = 0.6


def vase(skin: Surface) -> None:
    band = step(np.abs(np.abs(skin.s - 0.1) - 0.36), 0.05, 0.03) + step(
        np.abs(skin.s + 0.9), 0.06, 0.03
    )
    curls = step(np.abs(noise(skin.theta, skin.s * 1.5, 2.4, skin.rng)), 0.45, 0.25) * step(
        np.abs(skin.s - 0.1), 0.33, 0.3
    )
    skin.mix((36, 66, 150), 0.9 * np.clip(band + curls, 0, 1))
    skin.gloss = 0.9


def bowl(skin: Surface) -> None:
    skin.mix((236, 234, 226), step(np.abs(skin.s - 0.3), 0.1, 0.08))
    skin.gloss = 0.8


def leaf(skin: Surface) -> None:
    vein = np.abs(np.mod(7 * (skin.s - 0.9 * np.abs(skin.t)), 1) - 0.5)
    skin.mottle(step(vein, 0.14, 0.02), 0.25)
    skin.mix((150, 180, 90), 0.8 * step(np.abs(skin.t), 0.035, 0.015))
    skin.gloss = 0.25


def plain(skin: Surface) -> None:
    skin.gloss = 0.1


def grape(skin: Surface) -> None:
    skin.mix((120, 110, 150), 0.35 * step(noise(skin.t, skin.s, 9, skin.rng), 0.0, 1.5))
    skin.gloss = 0.6


def blueberry(skin: Surface) -> None:
    skin.mix((24, 26, 60), step(np.hypot(skin.nt - 0.1, skin.ns + 0.35), 0.34, 0.28))
    skin.gloss = 0.15


def broccoli(skin: Surface) -> None:
    buds = noise(skin.t, skin.s, 26, skin.rng, 2)
    skin.relief = 0.012 * buds
    skin.mottle(buds, 0.3)
    skin.gloss = 0.05


@dataclass(frozen=True)
class Produce:
    """One kind of fruit or vegetable: sRGB colour and its spread, half-length in scene units,
    shape, skin, how it lies.
    """

    colour: Colour
    length: float
    points: Points
    skin: Skin
    lean: tuple[float, float] = (0.0, 0.25)
    spread: float = 8.0
    bend: tuple[float, float] = (0.0, 0.0)
    trim: str = ""


LYING = (1.57, 0.45)
PRODUCE: dict[str, Produce] = {
    "orange": Produce((240, 138, 24), 0.27, oval(0.99), orange, trim="leaf"),
    "apple": Produce((182, 30, 34), 0.26, APPLE, apple, trim="stem"),
    "green apple": Produce((142, 176, 48), 0.27, GREEN_APPLE, green_apple, trim="stem leaf"),
    "banana": Produce((240, 200, 52), 0.42, BANANA, banana, LYING, 7, (0.6, 0.95)),
    "grapes": Produce((86, 40, 104), 0.34, (), grape),
    "pear": Produce((196, 186, 70), 0.34, PEAR, pear, (0.0, 0.2), trim="stem"),
    "lemon": Produce((244, 212, 46), 0.28, LEMON, lemon, LYING, 7, trim="leaf"),
    "carrot": Produce((232, 118, 30), 0.46, CARROT, carrot, LYING, 8, (0, 0.15), "top"),
    "tomato": Produce((206, 42, 28), 0.24, oval(1.16, 0.9), tomato),
    "aubergine": Produce((60, 26, 66), 0.42, AUBERGINE, aubergine, LYING, 7, (0, 0.35), "stem"),
    "courgette": Produce((60, 104, 44), 0.45, COURGETTE, courgette, LYING, 7, (0, 0.2)),
    "broccoli": Produce((74, 116, 44), 0.3, (), broccoli),
    "strawberry": Produce((204, 30, 42), 0.2, STRAWBERRY, strawberry, (0.3, 0.9)),
    "pumpkin": Produce((222, 122, 30), 0.3, oval(1.3, 0.8), pumpkin, (0, 0.1), trim="stem"),
    "blueberries": Produce((66, 80, 142), 0.22, (), blueberry),
}


def cluster(
    canvas: Canvas,
    light: Light,
    balls: NDArray[np.float64],
    skin: Skin,
    rng: np.random.Generator,
    *,
    colour: Colour,
    spread: float = 8.0,
    shadow: float | None = None,
) -> None:
    """Paint balls (n, 4: x, y, radius, nearness) as one body."""
    start = vary(colour, rng, spread)
    tones = 1 + rng.normal(0, 0.12, len(balls))
    low, high = (balls[:, :2] - balls[:, 2:3]).min(0), (balls[:, :2] + balls[:, 2:3]).max(0)
    (x, y), (across, down) = (low + high) / 2, (high - low) / 2
    where = canvas.window(float(x), float(y), float(across), float(down))
    if where is None:
        return
    xs, ys = canvas.xs[:, where[1]], canvas.ys[where[0]]
    shape = (ys.shape[0], xs.shape[1])
    alpha, depth, tone = (
        np.zeros(shape, np.float32),
        np.full(shape, -9, np.float32),
        np.ones(shape, np.float32),
    )
    nx, ny, nz = (
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.ones(shape, np.float32),
    )
    for (bx, by, radius, near), shade in zip(balls.astype(np.float32), tones, strict=True):
        u, v = (xs - bx) / radius, (ys - by) / radius
        cols, rows = np.flatnonzero(np.abs(u[0]) < 1.1), np.flatnonzero(np.abs(v[:, 0]) < 1.1)
        if not len(cols) or not len(rows):
            continue
        part = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        u, v = u[:, part[1]], v[part[0]]
        rest = 1 - u * u - v * v
        z = np.sqrt(np.maximum(rest, 0))
        np.maximum(
            alpha[part], np.clip(rest * (0.5 * radius * canvas.scale) + 0.5, 0, 1), out=alpha[part]
        )
        height = np.where(rest > 0, near + radius * z, -8)
        front = height > depth[part]
        for plane, value in ((depth, height), (nx, u), (ny, v), (nz, z), (tone, np.float32(shade))):
            np.copyto(plane[part], value, where=front)
    # What lies deep between the balls gets little light of the room.
    crease = step(nz, 0.0, 0.55)
    tone *= 0.35 + 0.65 * crease
    body = Surface(ys - y + 0 * xs, xs - x + 0 * ys, nx, ny, nz, start * tone, rng)
    skin(body)
    if shadow is not None:
        canvas.shade(where, alpha, shadow, light)
    canvas.blend(where, lit((nx, ny, nz), body, light, canvas.scale), alpha)
