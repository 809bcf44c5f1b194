"""How well small colours are brought to full size: CIEDE2000 of each method, its speed and its
memory.

    python benchmarks/upsampling.py --pictures FOLDER --run RUN         two or three minutes on one core

Columns: `edges`, made pictures, in a band about hard edges, of colours that are 1/8 in size, exact
and as soft as a network's; `texture`, flat colours under textured lightness; `1/4`, `1/8`, the
pictures' own colours made small, and `1/4 soft`, blurred as a network's are; `network`, what the
run says at its training size, at twice that size, against the truth. Pictures are of FOLDER's test
split and the made ones have seeds of their own: the constants were chosen on others. Beside
`guided` and `bilinear` stand those from which it was chosen: cubic, the fast guided filter, joint
bilateral upsampling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from train_step import describe_machine, peak_kib

from gancolor import color, metrics, tables
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.painting import Upsampler
from gancolor.coloring.settings import METHODS
from gancolor.data import folder
from gancolor.data.still_life import composition
from gancolor.images import arrays

Array = NDArray[np.float32]
# small colours, small lightness, full lightness -> full colours
Method = Callable[[Array, Array, Array], Array]

SIZE = 256
SOFT = 1.5  # sigma in small pixels: about that of networks of 64 and 128 pixels
SPEEDS = {
    "film 480 x 270": ((128, 228), (270, 480)),
    "2 MP": ((128, 171), (1224, 1632)),
    "12 MP": ((128, 171), (3000, 4000)),
    "100 MP": ((256, 341), (8660, 11547)),
}
STRIP = 1 << 20  # pixels


class Case(NamedTuple):
    """Small colours (h, w, 2) and lightness (h, w), full lightness (H, W), true colours, and where
    to look.
    """

    predicted: Array
    guide: Array
    lightness: Array
    truth: Array
    where: NDArray[np.bool_] | None = None


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(f"{describe_machine()}\n")
    print(tables.markdown(measure_speed(), digits=1), end="\n\n")
    print(tables.markdown(measure_errors(options), digits=2))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pictures", type=Path, help="folder of colour pictures; without one, generated pictures"
    )
    parser.add_argument("--run", type=Path, help="run directory or checkpoint")
    parser.add_argument("--count", type=int, default=40, help="how many of the pictures")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure_speed() -> list[dict[str, Any]]:
    """Milliseconds to prepare, megapixels a second of the rest, and by how much the peak memory
    rises, in MiB.
    """
    rows = []
    random = np.random.default_rng(0)
    for name, (small, size) in SPEEDS.items():
        guide = cv2.GaussianBlur(random.uniform(-1, 1, small).astype(np.float32), (0, 0), 1)
        predicted = (
            0.3 * np.dstack((guide, -guide)) + 0.02 * random.normal(size=(*small, 2))
        ).astype(np.float32)
        strip = torch.rand(1, 1, max(1, min(size[0], STRIP // size[1])), size[1])
        for method in reversed(METHODS):
            before = peak_kib()
            prepare, fill = min(time_once(predicted, guide, size, method, strip) for _ in range(3))
            rate, risen = size[0] * size[1] / fill / 1e6, (peak_kib() - before) / 1024
            rows.append(
                {
                    "size": name,
                    "method": method,
                    "prepare, ms": prepare * 1e3,
                    "MP/s": rate,
                    "MiB": risen,
                }
            )
    return rows


def time_once(
    predicted: Array, guide: Array, size: tuple[int, int], method: str, strip: Tensor
) -> tuple[float, float]:
    start = time.perf_counter()
    upsampler = Upsampler(predicted, guide, size, method)
    ready = time.perf_counter()
    for row in range(0, size[0], strip.shape[2]):
        upsampler.rows(row, strip[:, :, : size[0] - row])
    return ready - start, time.perf_counter() - ready


def measure_errors(options: Any) -> list[dict[str, Any]]:
    methods: dict[str, Method] = {
        "bilinear": grow_by("bilinear"),
        "cubic": lambda predicted, guide, lightness: enlarge(predicted, lightness, cv2.INTER_CUBIC),
        "fast guided filter": average_lines,
        "joint bilateral": join_bilaterally,
        "guided": grow_by("guided"),
    }
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
    for column, case in all_cases(options):
        for name, method in methods.items():
            colors = method(case.predicted, case.guide, case.lightness)
            error = difference(case.lightness, colors, case.truth)
            errors[name].setdefault(column, []).append(float(error[case.where].mean()))
    return [{"CIEDE2000": name, **{key: float(np.mean(values)) for key, values in row.items()}}
            for name, row in errors.items()]  # fmt: skip


def all_cases(options: Any) -> Iterator[tuple[str, Case]]:
    for seed in range(100, 112):
        yield "edges", (sharp := shrink(draw_shapes(seed), 8, band=4))
        yield "edges, soft", soften(sharp)
        yield "texture", draw_texture(seed)
    colorizer = Colorizer.load(options.run, device="cpu") if options.run else None
    for rgb in read_pictures(options.pictures, options.count):
        yield "1/4", (quarter := shrink(rgb, 4))
        yield "1/4 soft", soften(quarter)
        yield "1/8", shrink(rgb, 8)
        if colorizer:
            size = colorizer.config.image_size
            lightness, truth = to_lab(arrays.resize(rgb, 2 * size))
            small = arrays.resize(rgb, size)
            yield "network", Case(colorizer.predict(small), to_lab(small)[0], lightness, truth)


def read_pictures(root: Path | None, count: int) -> Iterator[NDArray[np.uint8]]:
    """Square pictures of the test split, spread over it: the constants were chosen on others."""
    if root is None:
        yield from (composition.paint(0, index, SIZE) for index in range(count))
        return
    source = folder.open_folder(root, "test")
    for index in sorted(set(np.linspace(0, len(source) - 1, count).astype(int).tolist())):
        yield arrays.center_square(source.read(index), SIZE)


def shrink(rgb: NDArray[np.uint8], factor: int, band: int = 0) -> Case:
    """The picture's own colours at 1/factor of its size; `band`: only this near to changes of
    colour.
    """
    lightness, truth = to_lab(rgb)
    guide, predicted = to_lab(
        cv2.resize(rgb, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    )
    change = np.zeros(lightness.shape, np.uint8)
    change[1:] |= np.abs(np.diff(truth, axis=0)).sum(2) > 0.02
    change[:, 1:] |= np.abs(np.diff(truth, axis=1)).sum(2) > 0.02
    near = cv2.dilate(change, np.ones((2 * band + 1, 2 * band + 1), np.uint8)) > 0
    return Case(predicted, guide, lightness, truth, near if band else None)


def soften(case: Case) -> Case:
    return case._replace(predicted=cv2.GaussianBlur(case.predicted, (0, 0), SOFT))


def draw_shapes(seed: int) -> NDArray[np.uint8]:
    """Flat-coloured circles and rectangles."""
    random = np.random.default_rng(seed)
    large = SIZE * 4
    canvas = np.full((large, large, 3), random.uniform(40, 220, 3), np.float32)
    for index in range(14):
        shade, (x, y) = tuple(random.uniform(20, 235, 3)), random.integers(0, large, 2).tolist()
        reach = int(random.integers(large // 16, large // 4))
        if index % 2:
            cv2.circle(canvas, (x, y), reach, shade, -1)
        else:
            cv2.rectangle(canvas, (x, y), (x + reach, y + 2 * reach), shade, -1)
    return (
        cv2.resize(canvas, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_AREA)
        .round()
        .astype(np.uint8)
    )


def draw_texture(seed: int) -> Case:
    """One colour, with a network's noise in it, under fine to coarse texture."""
    random = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(
        random.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 1 + 4 * (seed % 3)
    )
    lightness = (0.1 + 0.25 * texture / texture.std()).clip(-0.7, 0.8)
    truth = np.full((SIZE, SIZE, 2), random.uniform(-0.25, 0.25, 2), np.float32)
    noise = cv2.GaussianBlur(
        random.normal(size=(SIZE // 8, SIZE // 8, 2)).astype(np.float32), (0, 0), 1
    )
    guide = cv2.resize(lightness, (SIZE // 8, SIZE // 8), interpolation=cv2.INTER_AREA)
    return Case(truth[::8, ::8] + 0.1 * noise, guide, lightness, truth)


def grow_by(method: str) -> Method:
    def grow(predicted: Array, guide: Array, lightness: Array) -> Array:
        upsampler = Upsampler(predicted, guide, lightness.shape, method)
        return (
            upsampler.rows(0, torch.from_numpy(lightness)[None, None])[0].permute(1, 2, 0).numpy()
        )

    return grow


def average_lines(
    predicted: Array, guide: Array, lightness: Array, radius: int = 2, flat: float = 0.02**2
) -> Array:
    """The fast guided filter (He and Sun 2015)."""

    def blur(maps: Array) -> Array:
        return cv2.blur(maps, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean, center = blur(guide)[..., None], blur(predicted)
    variance = (blur(guide * guide)[..., None] - mean**2).clip(0)
    slope = (blur(predicted * guide[..., None]) - center * mean) / (variance + flat)
    offset = blur(center - slope * mean)
    return enlarge(blur(slope), lightness) * lightness[..., None] + enlarge(offset, lightness)


def join_bilaterally(
    predicted: Array, guide: Array, lightness: Array, near: float = 0.7, alike: float = 0.1
) -> Array:
    """Joint bilateral upsampling (Kopf et al. 2007) over 5 x 5 small pixels."""
    places = [
        (np.arange(full) + 0.5) * small / full - 0.5
        for small, full in zip(guide.shape, lightness.shape, strict=True)
    ]
    total, sums = np.zeros((*lightness.shape, 1)), np.zeros((*lightness.shape, predicted.shape[2]))
    for down in range(-2, 3):
        for right in range(-2, 3):
            spots = [
                np.round(place) + step for place, step in zip(places, (down, right), strict=True)
            ]
            weights = [
                np.exp(-((spot - place) ** 2) / (2 * near**2))
                for spot, place in zip(spots, places, strict=True)
            ]
            grid = np.ix_(
                *(
                    spot.clip(0, small - 1).astype(int)
                    for spot, small in zip(spots, guide.shape, strict=True)
                )
            )
            likeness = np.exp(-((guide[grid] - lightness) ** 2) / (2 * alike**2)) + 1e-4
            weight = (weights[0][:, None] * weights[1] * likeness)[..., None]
            total += weight
            sums += weight * predicted[grid]
    return (sums / total).astype(np.float32)


def enlarge(maps: Array, lightness: Array, interpolation: int = cv2.INTER_LINEAR) -> Array:
    return cv2.resize(maps, lightness.shape[::-1], interpolation=interpolation)


def to_lab(rgb: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Lightness (H, W) and ab (H, W, 2)."""
    lightness, ab = color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])
    return lightness[0, 0].numpy(), ab[0].permute(1, 2, 0).contiguous().numpy()


def difference(lightness: Array, ab: Array, truth: Array) -> Array:
    """CIEDE2000 of each pixel, of the colours as they are shown: within sRGB."""
    light = torch.from_numpy(lightness)[None, None]
    pair = [
        color.reduce_to_gamut(light, torch.from_numpy(x).permute(2, 0, 1)[None])
        for x in (ab, truth)
    ]
    first, second = (
        torch.cat(((light + 1) * color.LIGHTNESS_SCALE, x * color.AB_SCALE), dim=1) for x in pair
    )
    return metrics.ciede2000(first, second)[0].numpy()


if __name__ == "__main__":
    main()
