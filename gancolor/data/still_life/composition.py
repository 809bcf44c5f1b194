"""The generated dataset: still lifes drawn from (seed, index), in which shape, texture and shade
tell the colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gancolor.data.still_life import scenery
from gancolor.data.still_life.bodies import (
    LEAF_GREEN,
    STEM_BROWN,
    Canvas,
    Colour,
    Light,
    Points,
    Pose,
    linear,
    oval,
    revolve,
)
from gancolor.data.still_life.objects import (
    LEAF,
    PRODUCE,
    STICK,
    VASE,
    bowl,
    cluster,
    leaf,
    plain,
    vase,
)
from gancolor.errors import DataError
from gancolor.images.arrays import Picture

SCENES = {"train": (0, 4000), "val": (4000, 400), "test": (4400, 400), "all": (0, 4800)}
"""Of each split: the number of its first scene, and how many it has."""

_SMALL = 128  # pixels: side below which a picture is painted larger


def paint(seed: int, index: int, size: int | tuple[int, int]) -> Picture:
    """Picture `index` of the dataset `seed`, uint8 (H, W, 3) RGB: the same scene at any size (side,
    or (height, width)).
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise DataError(f"picture size must be at least 1 pixel, got {height}x{width}")
    # Small pictures are painted larger and averaged, so that fine textures do not alias.
    factor = max(min(-(-_SMALL // min(height, width)), 1024 // max(height, width)), 1)
    canvas = Canvas(height * factor, width * factor)
    rng = np.random.default_rng([seed, index])
    light = lamp(rng)
    edge = background(canvas, light, rng)
    furnish(canvas, light, edge, rng)
    exposure, blur, grain = (
        rng.uniform(0.95, 1.35),
        rng.uniform(0.001, 0.006),
        rng.uniform(0.8, 3.5),
    )
    return scenery.finish(
        canvas, (height, width), exposure, blur, grain, [seed, index, height, width]
    )


def lamp(rng: np.random.Generator) -> Light:
    """The light of a scene: from the left or the right, warm to cool, hard to soft."""
    side = float(rng.choice([-1.0, 1.0]))
    direction = np.array(
        [side * rng.uniform(0.35, 0.9), -rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.75)]
    )
    direction /= np.linalg.norm(direction)
    warmth, strength = rng.uniform(-0.3, 1.0), rng.uniform(0.75, 1.1)
    tint = np.array([1 + 0.06 * warmth, 1.0, 1 - 0.14 * warmth], np.float32)[:, None, None]
    room = rng.uniform(0.26, 0.42)
    throw = (float(-direction[0] / -direction[1]) * 0.8, float(rng.uniform(0.1, 0.4)))
    return Light(
        (float(direction[0]), float(direction[1]), float(direction[2])),
        tint * np.float32(strength),
        (np.array([0.97, 1, 1.05], np.float32)[:, None, None] * np.float32(room)),
        linear((150, 128, 108)) * np.float32(0.45 * room / 0.34),
        throw,
    )


def background(canvas: Canvas, light: Light, rng: np.random.Generator) -> float:
    """Paint wall or open air and the table; returns the y of the table's far edge."""
    edge = float(rng.uniform(-0.55, 0.05)) if rng.random() < 0.8 else -9.0
    kind, air, pane = str(rng.choice(scenery.WALLS)), rng.random() < 0.22, rng.random() < 0.4
    table = str(rng.choice(scenery.TABLES))
    parts = rng.spawn(3)
    if air:
        scenery.paint_landscape(canvas, edge, light, parts[0])
    else:
        scenery.paint_wall(canvas, kind, edge, light, parts[0])
        if pane:
            scenery.paint_window(canvas, edge, light, parts[1])
    scenery.paint_table(canvas, table, edge, light, parts[2])
    return edge


def furnish(canvas: Canvas, light: Light, edge: float, rng: np.random.Generator) -> None:
    """Put a plate, a bowl or a vase and a few kinds of fruit and vegetables on the table, far ones
    first.
    """
    names = [
        str(name) for name in rng.choice(sorted(PRODUCE), int(rng.integers(2, 5)), replace=False)
    ]
    far = max(edge, -1.0) + 0.25
    size = float(rng.uniform(0.85, 1.35))
    things: list[tuple[float, float, str]] = []
    piece = rng.random()
    if piece < 0.3:
        things.append((float(rng.uniform(-0.5, 0.5)), float(rng.uniform(far + 0.1, 0.4)), "plate"))
        things.append((things[0][0], things[0][1] + 0.08, names[0]))
    elif piece < 0.5:
        things.append((float(rng.uniform(-0.5, 0.5)), float(rng.uniform(far + 0.1, 0.4)), "bowl"))
    elif piece < 0.68 and edge > -1:
        things.append((float(rng.uniform(-0.6, 0.6)), far + 0.05, "vase"))
    count = int(rng.integers(4, 10))
    for _ in range(60):
        x, y = float(rng.uniform(-0.95, 0.95)), float(rng.uniform(far, 1.0))
        room = min(
            (np.hypot(x - a, 1.7 * (y - b)) - 0.25 * (k in ("bowl", "vase")) for a, b, k in things),
            default=9.0,
        )
        if room > 0.36 * size and len(things) < count:
            things.append((x, y, names[int(rng.integers(len(names)))]))
    things.sort(key=lambda thing: thing[1] - (0.6 if thing[2] == "plate" else 0.0))
    for (x, y, name), own in zip(things, rng.spawn(len(things)), strict=True):
        near = size * (0.85 + 0.25 * (y - far))
        if name == "plate":
            scenery.paint_plate(canvas, x, y, 0.62 * near, light, own)
        elif name == "bowl":
            fill_bowl(canvas, light, x, y, near, names, own)
        elif name == "vase":
            fill_vase(canvas, light, x, y, near, own)
        else:
            place(canvas, light, name, x, y, near, own)


def fill_bowl(
    canvas: Canvas,
    light: Light,
    x: float,
    y: float,
    size: float,
    names: list[str],
    rng: np.random.Generator,
) -> None:
    """Paint a blue bowl at (x, y) with fruit in it."""
    radius, high = 0.46 * size, 0.36 * size
    rim, flat = y - high, 0.3 * 0.46 * size
    body, inner = rng.spawn(2)
    mouth = scenery.ellipse(canvas, x, rim, radius, flat)
    whole = (slice(0, canvas.planes.shape[1]), slice(0, canvas.planes.shape[2]))
    canvas.blend(whole, linear((70, 84, 120)) * light.above, mouth)
    for k, spot in enumerate((-0.5, 0.45, 0.0)):
        own = inner.spawn(1)[0]
        small = [
            n for n in names if PRODUCE[n].points and not PRODUCE[n].bend[1] and n != "pumpkin"
        ] or ["apple"]
        place(
            canvas,
            light,
            small[k % len(small)],
            x + spot * radius,
            rim + (0.16 if k == 2 else 0.1) * size,
            0.75 * size,
            own,
        )
    below = np.where(canvas.ys > rim, 1 - mouth, 0).astype(np.float32)
    pose = Pose(x, rim, high, 0.0)
    axis = [float(s) for s in np.linspace(-1, 1, 41)]
    points = tuple((s, radius / high * max(1 - max(s, 0.0) ** 2, 0.0) ** 0.5) for s in axis)
    revolve(
        canvas, light, pose, points, bowl, body, colour=(52, 88, 164), cut=below, shadow=y - 0.05
    )


def fill_vase(
    canvas: Canvas, light: Light, x: float, y: float, size: float, rng: np.random.Generator
) -> None:
    """Paint a white vase with blue pattern at (x, y), leaves in it."""
    length = 0.46 * size
    for own in rng.spawn(7):
        angle = float(own.normal(0, 0.55))
        sprig(
            canvas,
            light,
            (x + 0.2 * length * np.sin(angle), y - 1.95 * length),
            angle,
            float(own.uniform(0.16, 0.3)) * size,
            own,
        )
    revolve(
        canvas,
        light,
        Pose(x, y - length, length),
        VASE,
        vase,
        rng,
        colour=(232, 232, 228),
        spread=4,
        shadow=y - 0.05,
    )


def place(
    canvas: Canvas,
    light: Light,
    name: str,
    x: float,
    base: float,
    size: float,
    rng: np.random.Generator,
) -> None:
    """Paint one thing of a kind that stands at (x, base), `size` times its usual size, with shadow
    and trimmings.
    """
    kind = PRODUCE[name]
    length = kind.length * size
    lean = float(rng.normal(0, kind.lean[1]) + kind.lean[0]) * (1 if rng.random() < 0.5 else -1)
    if not kind.points:
        heap = balls(name, x, base - length * (0.55 if name == "blueberries" else 0.9), length, rng)
        if name == "broccoli":
            stalk = Pose(x, base - 0.4 * length, 0.55 * length, 0.15 * lean)
            revolve(
                canvas,
                light,
                stalk,
                oval(0.5, 0.4, -0.2),
                plain,
                rng,
                colour=(158, 182, 104),
                shadow=base,
            )
        elif name == "grapes":
            twig = Pose(x, base - 1.9 * length, 0.3 * length, 0.4)
            revolve(canvas, light, twig, STICK, plain, rng, colour=STEM_BROWN)
        cluster(
            canvas,
            light,
            heap,
            kind.skin,
            rng,
            colour=kind.colour,
            spread=kind.spread,
            shadow=base - 0.02,
        )
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
            sprig(canvas, light, top, lean + float(turn), 0.26 * size, rng, (84, 138, 44))
    revolve(
        canvas,
        light,
        pose,
        kind.points,
        kind.skin,
        rng,
        colour=kind.colour,
        spread=kind.spread,
        shadow=base - 0.1 * half,
    )
    crown = (pose.x + 0.75 * length * np.sin(lean), pose.y - 0.75 * length * np.cos(lean))
    if "stem" in kind.trim:
        at = crown if widest > 0.75 else top
        reach = 0.06 if kind.lean[0] else 0.085
        stem = Pose(
            at[0] + reach * size * np.sin(lean + 0.2),
            at[1] - reach * size * np.cos(lean + 0.2),
            reach * size,
            lean + 0.2,
            0.3,
        )
        thick: Points = tuple(
            (s, w * (3.0 if name in ("pumpkin", "aubergine") else 1.5)) for s, w in STICK
        )
        revolve(
            canvas,
            light,
            stem,
            thick,
            plain,
            rng,
            colour=(112, 124, 60) if widest > 1.2 else STEM_BROWN,
        )
    if "leaf" in kind.trim and rng.random() < 0.5:
        sprig(
            canvas,
            light,
            top if kind.lean[0] else crown,
            lean + float(rng.choice([-1.2, 1.2])),
            0.22 * size,
            rng,
        )


def balls(
    name: str, x: float, y: float, length: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Balls (n, 4) of a bunch of grapes, a head of broccoli or blueberries around (x, y)."""
    if name == "grapes":
        rows = np.repeat(np.arange(5), (4, 5, 4, 3, 2))
        across = np.concatenate([np.arange(n) - (n - 1) / 2 for n in (4, 5, 4, 3, 2)])
        spot = np.stack([0.34 * across, 0.36 * rows - 0.72], -1) + rng.normal(
            0, 0.05, (len(rows), 2)
        )
        radius, near = (
            rng.uniform(0.22, 0.27, len(rows)),
            0.1 * rng.random(len(rows)) + 0.35 - 0.3 * np.abs(across) / 2.5,
        )
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
    return np.concatenate(
        [
            x + length * spot[:, :1],
            y + length * spot[:, 1:],
            length * radius[:, None],
            length * near[:, None],
        ],
        1,
    )


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
    pose = Pose(
        root[0] + length * np.sin(angle),
        root[1] - length * np.cos(angle),
        length,
        angle + np.pi,
        float(rng.uniform(0, 0.5)),
    )
    revolve(canvas, light, pose, LEAF, leaf, rng, colour=colour, round_=0.35, shadow=shadow)


class StillLife:
    """A source of generated pictures: `split` is train (4000), val (400), test (400) or all, on
    disjoint scenes.
    """

    def __init__(
        self, seed: int, split: str, size: int | tuple[int, int], count: int | None = None
    ) -> None:
        if split not in SCENES:
            raise DataError(f"split must be one of {', '.join(SCENES)}, got {split!r}")
        self.seed, self.split, self.size = seed, split, size
        self.first, full = SCENES[split]
        self.count = full if count is None else min(count, full)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The name of a picture, stable over splits and sizes."""
        return f"still-life-{self.seed}-{self.first + index:05d}"

    def read(self, index: int) -> Picture:
        """The picture, uint8 (H, W, 3) RGB."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return paint(self.seed, self.first + index, self.size)
