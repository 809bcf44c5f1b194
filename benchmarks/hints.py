"""Whether known colours are kept at their places and end at edges, and what they bring.

    python benchmarks/hints.py RUN --photographs FOLDER --dataset held-mixed --limit 12

Kept: photographs in 8 and in 16 bits, enlarged if they are small, with points of drawn colours, as
written and read again: CIEDE2000 at the points from the colour that was asked for, at the
photograph's lightness, of those that sRGB has there. Strokes: the same over all pixels of a stroke
in a layer. Edges: generated pictures of two regions and a red point in one; how far each
region changes. Points: the error of photographs with true points, where the network's answer ends
at strong edges and where it does not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color, metrics, tables
from gancolor.coloring import full_size, hint_files, painting, views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.settings import PhotographSettings
from gancolor.data.dataset import open_source
from gancolor.evaluation.true_points import points_of
from gancolor.hints import Hint, ab_of
from gancolor.hub import choice
from gancolor.images import arrays, reader, writer
from gancolor.images.arrays import Picture
from gancolor.images.photograph import Photograph
from gancolor.images.pixels import convert
from gancolor.storage import checkpoint

POINTS = 12  # drawn in each photograph
SIDE = 384  # of the pictures with true points
RED = (200, 60, 50)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, default=2.0, help="of the photographs")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--datasets-root", type=Path)
    parser.add_argument("--runs-root")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--points", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    found = choice.find(options.run, checkpoint.runs_root(options.runs_root))
    colorizer = Colorizer.load(found.path, precision="fp32")

    rows = [
        keep(colorizer, path, options.megapixels, depth, seed)
        for path in sorted(options.photographs.iterdir())
        for depth in ("uint8", "uint16")
        for seed in options.seeds
    ]
    print(tables.terminal(rows, digits=2))
    photographs = sorted(options.photographs.iterdir())
    rows = [stroke(colorizer, path, options.megapixels) for path in photographs]
    print(tables.terminal(rows, digits=2))
    print(tables.terminal([part(colorizer, kind) for kind in ("step", "line", "soft")], digits=2))

    source = open_source(options.dataset, "test", datasets_root=options.datasets_root)
    count = min(options.limit, len(source))
    truths = [arrays.resize(source.read(at * len(source) // count), SIDE) for at in range(count)]
    print(tables.terminal(gain(colorizer, truths, options.points, options.seeds), digits=3))


def enlarged(path: Path, megapixels: float, depth: str) -> NDArray[Any]:
    """A photograph of that size, with grain of its own where it had to be enlarged."""
    pixels = convert(reader.read(path).pixels, np.float32)
    scale = (megapixels * 1e6 / (pixels.shape[0] * pixels.shape[1])) ** 0.5
    if scale > 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        grain = np.random.default_rng(0).normal(0, 0.02, pixels.shape[:2])
        pixels = pixels + (grain if pixels.ndim == 2 else grain[..., None]).astype(np.float32)
    return convert(pixels.clip(0, 1), depth)


def keep(
    colorizer: Colorizer, path: Path, megapixels: float, depth: str, seed: int
) -> dict[str, object]:
    """How near the points of one photograph are to their colours in the file that is written."""
    pixels = enlarged(path, megapixels, depth)
    height, width = pixels.shape[:2]
    random = np.random.default_rng(seed)
    rows, columns = random.integers(0, height, 3 * POINTS), random.integers(0, width, 3 * POINTS)
    lightness = torch.from_numpy(painting.lightness_at(pixels, rows, columns)).view(-1, 1, 1, 1)
    angle = torch.from_numpy(random.uniform(0, 2 * np.pi, 3 * POINTS)).float()
    wanted = (torch.stack((angle.cos(), angle.sin()), 1) * 30 / color.AB_SCALE)[..., None, None]
    there = (color.reduce_to_gamut(lightness, wanted) == wanted).flatten(1).all(1)
    chosen = torch.nonzero(there).flatten()[:POINTS]
    rgb = color.merge(lightness, wanted)[chosen].flatten(1) * 255
    known = tuple(
        Hint(int(columns[at]), int(rows[at]), (r, g, b), float(random.integers(0, 9)))
        for at, (r, g, b) in zip(chosen.tolist(), rgb.tolist(), strict=True)
    )
    photograph = Photograph(pixels=pixels)
    colored = colorizer.color(photograph, PhotographSettings(hints=known))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "colored.png")
        writer.write(file, colored.pictures[0], photograph)
        result = reader.read(file).pixels
    off = distances(
        result,
        pixels,
        np.array([int(hint.y) for hint in known]),
        np.array([int(hint.x) for hint in known]),
        ab_of(known),
    )
    return {
        "photograph": path.stem[:24],
        "megapixels": height * width / 1e6,
        "depth": depth,
        "seed": str(seed),
        "points": len(known),
        "mean": float(off.mean()),
        "most": float(off.max()),
        "within 2, %": 100 * float((off <= 2).mean()),
    }


def stroke(colorizer: Colorizer, path: Path, megapixels: float) -> dict[str, object]:
    """How near all pixels of a stroke in a layer are to its colour."""
    pixels = enlarged(path, megapixels, "uint8")
    height, width = pixels.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    corners = np.array([(0.2, 0.6), (0.5, 0.7), (0.7, 0.5)]) * (width, height)
    cv2.polylines(alpha, [corners.astype(np.int32)], False, 255, 24, cv2.LINE_AA)
    skin = Hint(0, 0, (190, 140, 110))
    colors = np.broadcast_to(np.array(skin.rgb, np.uint8), (height, width, 3))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "layer.png")
        writer.write(file, colors, Photograph(pixels=colors, alpha=alpha))
        known = hint_files.read(
            file, pixels, seen=views.fit(height, width, colorizer.sight.size)
        ).hints
    (result,) = colorizer.color(Photograph(pixels=pixels), PhotographSettings(hints=known)).pictures
    rows, columns = np.nonzero(alpha == 255)
    off = distances(result, pixels, rows, columns, ab_of([skin]).repeat(len(rows), 0))
    return {
        "photograph": path.stem[:24],
        "points": len(known),
        "pixels": len(rows),
        "mean": float(off.mean()),
        "90 % below": float(np.quantile(off, 0.9)),
        "within 2, %": 100 * float((off <= 2).mean()),
    }


def distances(
    result: NDArray[Any],
    pixels: NDArray[Any],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    wanted: NDArray[np.float32],
) -> NDArray[np.float32]:
    """CIEDE2000 at some places between a result and the ab `wanted` (N, 2) there, as far as sRGB has
    it at the picture's lightness.
    """
    lightness = torch.from_numpy(painting.lightness_at(pixels, rows, columns)).view(-1, 1, 1, 1)
    light = (lightness + 1) * color.LIGHTNESS_SCALE
    ab = color.reduce_to_gamut(lightness, torch.from_numpy(wanted).view(-1, 2, 1, 1))
    ab = ab * color.AB_SCALE
    white = 255 if result.dtype == np.uint8 else 65535
    found = torch.from_numpy(result[rows, columns].astype(np.float32) / white)[..., None, None]
    off: NDArray[np.float32] = (
        metrics.ciede2000(color.rgb_to_lab(found), torch.cat((light, ab), 1)).flatten().numpy()
    )
    return off


def part(colorizer: Colorizer, kind: str) -> dict[str, object]:
    """How far two regions of a generated picture change by a point in the left one."""
    gray = np.full((600, 900), 130, np.uint8)
    if kind == "line":
        gray[:, 445:455] = 40
    else:
        gray[:, 450:] = 190 if kind == "step" else 165
    gray = (gray + np.random.default_rng(0).normal(0, 3, gray.shape)).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, 2)
    known = [Hint(300, 300, RED, 8)]
    view = views.look(colorizer.sight, pixels, hints=known)
    plain = labs(colorizer(pixels))
    row: dict[str, object] = {"edge": kind}
    for name, colors in (
        ("network alone", colorizer.predict_view(view).colors),
        ("ending at edges", full_size.ask(view, colorizer.predict_view).colors),
    ):
        told = labs(painting.paint(pixels, colors, hints=known))
        change = metrics.ciede2000(told, plain)[0].numpy()
        row |= {f"{name}: left": float(change[:, 150:440].mean())}
        row |= {f"{name}: right": float(change[:, 460:600].mean())}
    return row


def gain(
    colorizer: Colorizer, truths: Sequence[Picture], counts: Sequence[int], seeds: Sequence[int]
) -> list[dict[str, object]]:
    """The error with so many true points, with and without an end at edges."""
    rows: list[dict[str, object]] = []
    for count in counts:
        errors: dict[str, list[float]] = {
            "no points": [],
            "network alone": [],
            "ending at edges": [],
        }
        for seed in seeds:
            for number, truth in enumerate(truths):
                known = points_of(truth, seed * len(truths) + number, count)
                view = views.look(colorizer.sight, truth, hints=known)
                plain = views.look(colorizer.sight, truth)
                for name, colors, given in (
                    ("no points", colorizer.predict_view(plain).colors, []),
                    ("network alone", colorizer.predict_view(view).colors, known),
                    ("ending at edges", full_size.ask(view, colorizer.predict_view).colors, known),
                ):
                    told = labs(painting.paint(truth, colors, hints=given))
                    errors[name].append(float(metrics.ciede2000(told, labs(truth)).mean()))
        rows.append(
            {"points": count, **{name: float(np.mean(values)) for name, values in errors.items()}}
        )
    return rows


def labs(rgb: Picture) -> torch.Tensor:
    """A picture, uint8 (H, W, 3), in CIE Lab."""
    return color.rgb_to_lab(color.to_tensor(rgb))


if __name__ == "__main__":
    main()
