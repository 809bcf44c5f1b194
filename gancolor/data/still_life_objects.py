"""Kinds of fruit, vegetables, leaves and crockery of the generated pictures: each has its shape, its skin and its colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gancolor.data.still_life_bodies import (
    LEAF_GREEN,
    STEM_BROWN,
    Canvas,
    Colour,
    Light,
    Plane,
    Pose,
    Skin,
    Surface,
    cluster,
    noise,
    oval,
    revolve,
    step,
)

Points = tuple[tuple[float, float], ...]
APPLE = tuple((s, 0.98 * w * (1 - 0.09 * s)) for s, w in oval(1.0, 0.86))
GREEN_APPLE = tuple((s, w * (1 - 0.2 * s)) for s, w in oval(0.84, 0.72))
PEAR: Points = ((-1, 0), (-0.97, 0.12), (-0.8, 0.24), (-0.5, 0.31), (-0.2, 0.42), (0.1, 0.6), (0.4, 0.7), (0.7, 0.62), (0.9, 0.38), (1, 0))
LEMON: Points = ((-1, 0), (-0.97, 0.1), (-0.86, 0.17), (-0.72, 0.36), (-0.4, 0.6), (0, 0.68), (0.4, 0.6), (0.72, 0.36), (0.86, 0.17), (0.97, 0.1), (1, 0))
CARROT: Points = ((-1, 0), (-0.96, 0.15), (-0.8, 0.2), (-0.3, 0.165), (0.3, 0.11), (0.8, 0.05), (1, 0.0))
BANANA: Points = ((-1, 0), (-0.98, 0.05), (-0.84, 0.06), (-0.7, 0.13), (-0.4, 0.19), (0.1, 0.205), (0.5, 0.18), (0.8, 0.11), (0.93, 0.05), (1, 0))
AUBERGINE: Points = ((-1, 0), (-0.97, 0.16), (-0.8, 0.24), (-0.4, 0.29), (0, 0.37), (0.4, 0.44), (0.7, 0.4), (0.9, 0.25), (1, 0))
COURGETTE: Points = ((-1, 0), (-0.97, 0.1), (-0.86, 0.12), (-0.7, 0.18), (0, 0.21), (0.7, 0.2), (0.92, 0.13), (1, 0))
STRAWBERRY: Points = ((-1, 0), (-0.95, 0.4), (-0.75, 0.66), (-0.4, 0.74), (0, 0.64), (0.5, 0.42), (0.85, 0.18), (1, 0))
VASE: Points = ((-1, 0), (-0.99, 0.3), (-0.9, 0.3), (-0.7, 0.2), (-0.5, 0.24), (-0.15, 0.46), (0.2, 0.54), (0.6, 0.42), (0.9, 0.3), (0.99, 0.32), (1, 0))
LEAF: Points = ((-1, 0), (-0.85, 0.12), (-0.4, 0.36), (0, 0.4), (0.4, 0.3), (0.8, 0.1), (1, 0))
STICK: Points = ((-1, 0), (-0.97, 0.12), (0, 0.09), (0.97, 0.14), (1, 0))


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
    skin.mix((70, 50, 30), np.maximum(step(end, 0.9, 0.94), 0.6 * step(noise(theta, skin.s * 3, 3.5, skin.rng), 1.7, 2.1)))
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
    band = step(np.abs(np.abs(skin.s - 0.1) - 0.36), 0.05, 0.03) + step(np.abs(skin.s + 0.9), 0.06, 0.03)
    curls = step(np.abs(noise(skin.theta, skin.s * 1.5, 2.4, skin.rng)), 0.45, 0.25) * step(np.abs(skin.s - 0.1), 0.33, 0.3)
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
class Kind:
    """One kind of thing: sRGB colour and its spread, half-length in scene units, shape, skin, how it lies."""

    colour: Colour
    length: float
    points: Points
    skin: Skin
    lean: tuple[float, float] = (0.0, 0.25)
    spread: float = 8.0
    bend: tuple[float, float] = (0.0, 0.0)
    trim: str = ""


LYING = (1.57, 0.45)
KINDS: dict[str, Kind] = {
    "orange": Kind((240, 138, 24), 0.27, oval(0.99), orange, trim="leaf"),
    "apple": Kind((182, 30, 34), 0.26, APPLE, apple, trim="stem"),
    "green apple": Kind((142, 176, 48), 0.27, GREEN_APPLE, green_apple, trim="stem leaf"),
    "banana": Kind((240, 200, 52), 0.42, BANANA, banana, LYING, 7, (0.6, 0.95)),
    "grapes": Kind((86, 40, 104), 0.34, (), grape),
    "pear": Kind((196, 186, 70), 0.34, PEAR, pear, (0.0, 0.2), trim="stem"),
    "lemon": Kind((244, 212, 46), 0.28, LEMON, lemon, LYING, 7, trim="leaf"),
    "carrot": Kind((232, 118, 30), 0.46, CARROT, carrot, LYING, 8, (0, 0.15), "top"),
    "tomato": Kind((206, 42, 28), 0.24, oval(1.16, 0.9), tomato),
    "aubergine": Kind((60, 26, 66), 0.42, AUBERGINE, aubergine, LYING, 7, (0, 0.35), "stem"),
    "courgette": Kind((60, 104, 44), 0.45, COURGETTE, courgette, LYING, 7, (0, 0.2)),
    "broccoli": Kind((74, 116, 44), 0.3, (), broccoli),
    "strawberry": Kind((204, 30, 42), 0.2, STRAWBERRY, strawberry, (0.3, 0.9)),
    "pumpkin": Kind((222, 122, 30), 0.3, oval(1.3, 0.8), pumpkin, (0, 0.1), trim="stem"),
    "blueberries": Kind((66, 80, 142), 0.22, (), blueberry),
}


def balls(name: str, x: float, y: float, length: float, rng: np.random.Generator) -> np.ndarray:
    """Balls (n, 4) of a bunch of grapes, a head of broccoli or a heap of blueberries around (x, y)."""
    if name == "grapes":
        rows = np.repeat(np.arange(5), (4, 5, 4, 3, 2))
        across = np.concatenate([np.arange(n) - (n - 1) / 2 for n in (4, 5, 4, 3, 2)])
        spot = np.stack([0.34 * across, 0.36 * rows - 0.72], -1) + rng.normal(0, 0.05, (len(rows), 2))
        radius, near = rng.uniform(0.22, 0.27, len(rows)), 0.1 * rng.random(len(rows)) + 0.35 - 0.3 * np.abs(across) / 2.5
    elif name == "broccoli":
        turn = np.arange(15) * 2.4
        reach = np.sqrt(np.arange(15) / 15)
        spot = np.stack([0.8 * reach * np.cos(turn), 0.55 * reach * np.sin(turn) - 0.3], -1)
        radius, near = rng.uniform(0.28, 0.38, 15), 0.5 * (1 - reach**2) + 0.1 * rng.random(15)
    else:
        turn = rng.uniform(0, 6.28, 11)
        reach = np.sqrt(rng.random(11))
        spot = np.stack([1.2 * reach * np.cos(turn), 0.5 * reach * np.sin(turn)], -1)
        radius, near = rng.uniform(0.3, 0.36, 11), spot[:, 1] * 1.5
    return np.concatenate([x + length * spot[:, :1], y + length * spot[:, 1:], length * radius[:, None], length * near[:, None]], 1)


def place(canvas: Canvas, light: Light, name: str, x: float, base: float, size: float, rng: np.random.Generator) -> None:
    """Paint one thing of a kind that stands at (x, base), `size` times its usual size, with shadow and trimmings."""
    kind = KINDS[name]
    length = kind.length * size
    lean = float(rng.normal(0, kind.lean[1]) + kind.lean[0]) * (1 if rng.random() < 0.5 else -1)
    if not kind.points:
        heap = balls(name, x, base - length * (0.55 if name == "blueberries" else 0.9), length, rng)
        if name == "broccoli":
            stalk = Pose(x, base - 0.4 * length, 0.55 * length, 0.15 * lean)
            revolve(canvas, light, stalk, oval(0.5, 0.4, -0.2), plain, rng, colour=(158, 182, 104), shadow=base)
        elif name == "grapes":
            twig = Pose(x, base - 1.9 * length, 0.3 * length, 0.4)
            revolve(canvas, light, twig, STICK, plain, rng, colour=STEM_BROWN)
        cluster(canvas, light, heap, kind.skin, rng, colour=kind.colour, spread=kind.spread, shadow=base - 0.02)
        return
    widest = max(w for _, w in kind.points)
    bend = float(rng.uniform(*kind.bend))
    if kind.bend[0] > 0:
        lean = abs(lean)  # a banana lies on its back
    half = length * float(np.hypot(np.cos(lean), (widest + 0.3 * bend) * np.sin(lean)))
    pose = Pose(x, base - half, length, lean, bend)
    top = (pose.x + length * np.sin(lean), pose.y - length * np.cos(lean))
    if kind.trim == "top":
        for turn in rng.normal(0, 0.35, 5):
            sprig(canvas, light, top, lean + float(turn), 0.32 * size, rng, (84, 138, 44))
    revolve(canvas, light, pose, kind.points, kind.skin, rng, colour=kind.colour, spread=kind.spread, shadow=base - 0.1 * half)
    crown = (pose.x + 0.75 * length * np.sin(lean), pose.y - 0.75 * length * np.cos(lean))
    if "stem" in kind.trim:
        at = crown if widest > 0.75 else top
        reach = 0.06 if kind.lean[0] else 0.085
        stem = Pose(at[0] + reach * size * np.sin(lean + 0.2), at[1] - reach * size * np.cos(lean + 0.2), reach * size, lean + 0.2, 0.3)
        thick: Points = tuple((s, w * (3.0 if name in ("pumpkin", "aubergine") else 1.5)) for s, w in STICK)
        revolve(canvas, light, stem, thick, plain, rng, colour=(112, 124, 60) if len(thick) and widest > 1.2 else STEM_BROWN)
    if "leaf" in kind.trim and rng.random() < 0.5:
        sprig(canvas, light, top if kind.lean[0] else crown, lean + float(rng.choice([-1.2, 1.2])), 0.22 * size, rng)


def sprig(
    canvas: Canvas,
    light: Light,
    root: tuple[float, float],
    angle: float,
    length: float,
    rng: np.random.Generator,
    colour: Colour = LEAF_GREEN,
    shadow: float | None = None,
) -> None:
    """Paint one leaf that grows from `root` towards `angle` (0 is up)."""
    pose = Pose(root[0] + length * np.sin(angle), root[1] - length * np.cos(angle), length, angle + np.pi, float(rng.uniform(0, 0.5)))
    revolve(canvas, light, pose, LEAF, leaf, rng, colour=colour, round_=0.35, shadow=shadow)


Painter = Callable[[], None]
EMPTY: Plane = np.zeros((0, 0), np.float32)
