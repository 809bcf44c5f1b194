"""How many training pictures one core makes per second: read a 256-pixel JPEG, crop, resize, flip.

Three ways take turns on the same files: gancolor's own path, albumentations called the plain way
after cv2.imread, and PIL with scikit-image. Also gancolor's share of each part, the loader as a
whole, and what `--cache` brings from the second epoch on. Run: python benchmarks/data.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from gancolor.data import example, folder, loader, picture_cache
from gancolor.data.source import PictureSource
from gancolor.data.still_life import composition
from gancolor.images import arrays

ZOOM = 0.5


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.folder or paint_folder(Path(scratch), options.count)
        source = folder.open_folder(root, "all")
        source.paths = source.paths[: options.count]
        files = [root / path for path in source.paths]
        print(describe_machine())
        print(
            f"{len(files)} pictures,"
            f" {statistics.mean(file.stat().st_size for file in files) / 1024:.0f} KiB each\n"
        )
        for size in options.size:
            measure(source, files, size, options.rounds)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder",
        type=Path,
        help="pictures to use (default: painted ones, 256x320, JPEG quality 92)",
    )
    parser.add_argument("--count", type=int, default=200, help="pictures per round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds; the median counts")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[256, 64], help="sides of the training squares"
    )
    return parser.parse_args()


def measure(source: folder.FolderSource, files: list[Path], size: int, rounds: int) -> None:
    reduced = picture_cache.open_reduced(source, example.needed_side(size, ZOOM), "none")
    config: Any = SimpleNamespace(condition="gray", old_photos=0.0, seed=0)
    pictures = example.TrainingPictures(reduced, example.Augment(size, ZOOM, True), config)
    ways = {
        "gancolor": lambda index: pictures[index, index],
        "albumentations, plain": plain_albumentations(files, size),
        "PIL + scikit-image": pil_and_skimage(files, size),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(0)  # imports and first calls
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(rate(way, len(files)))
    report(f"{size}x{size}, one core, images/s", rates)
    report_parts(reduced, size, rounds)
    report_loader(source, size)
    report_cache(source, size, rounds)


def rate(way: Callable[[int], Any], count: int) -> float:
    start = time.process_time()  # of this core alone: other programs on the machine do not count
    for index in range(count):
        way(index)
    return count / (time.process_time() - start)


def plain_albumentations(files: list[Path], size: int) -> Callable[[int], Any]:
    """As the library's guide shows it: imread, cvtColor, Compose."""
    import albumentations

    pipeline = albumentations.Compose(
        [
            albumentations.RandomResizedCrop(size=(size, size), scale=(ZOOM, 1.0)),
            albumentations.HorizontalFlip(),
        ]
    )

    def make(index: int) -> torch.Tensor:
        picture = cv2.cvtColor(np.asarray(cv2.imread(str(files[index]))), cv2.COLOR_BGR2RGB)
        return torch.from_numpy(pipeline(image=picture)["image"].transpose(2, 0, 1).copy())

    return make


def pil_and_skimage(files: list[Path], size: int) -> Callable[[int], Any]:
    from PIL import Image
    from skimage.transform import resize

    numbers = np.random.default_rng(0)

    def make(index: int) -> torch.Tensor:
        with Image.open(files[index]) as file:
            picture = np.asarray(file.convert("RGB"))
        side = int(min(picture.shape[:2]) * numbers.uniform(ZOOM, 1) ** 0.5)
        top, left = (numbers.integers(0, picture.shape[axis] - side + 1) for axis in (0, 1))
        square = resize(  # type: ignore[no-untyped-call]
            picture[top : top + side, left : left + side], (size, size), anti_aliasing=side > size
        )
        square = square[:, ::-1] if numbers.random() < 0.5 else square
        return torch.from_numpy((square * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1).copy())

    return make


def report_parts(source: PictureSource, size: int, rounds: int) -> None:
    augmentation = example.Augment(size, ZOOM, True)
    pictures = [source.read(index) for index in range(len(source))]
    read = statistics.median(rate(source.read, len(source)) for _ in range(rounds))
    crop = statistics.median(
        rate(lambda i: augmentation(pictures[i], 0, i), len(source)) for _ in range(rounds)
    )
    print(
        f"  gancolor's parts: read + reduce {1e3 / read:.3f} ms, crop + resize + flip"
        f" {1e3 / crop:.3f} ms a picture"
    )


def report_loader(
    source: folder.FolderSource, size: int, batch_size: int = 16, batches: int = 40
) -> None:
    """Wall clock over the whole loader, so it depends on what else runs."""
    found = []
    for workers in (0, 1, 2):
        made = open_loader(source, size, workers, "none", batch_size)
        # what was made while the workers started
        list(itertools.islice(made, 2 * loader.PREFETCH + 2))
        found.append(f"{batches_rate(made, batches, batch_size):.0f} with {workers}")
        del made
    print(f"  loader, images/s by worker processes (wall clock): {', '.join(found)}")


def report_cache(
    source: folder.FolderSource, size: int, rounds: int, workers: int = 2, batch_size: int = 16
) -> None:
    """Images per second in the first epoch and in later ones, wall clock with two workers; the
    caches take turns.
    """
    epoch = -(-len(source) // batch_size)
    first: dict[str, list[float]] = {"none": [], "ram": [], "disk": []}
    later: dict[str, list[float]] = {"none": [], "ram": [], "disk": []}
    for _ in range(rounds):
        for cache in first:
            with tempfile.TemporaryDirectory() as kept:
                os.environ["GANCOLOR_CACHE"] = kept
                made = open_loader(source, size, workers, cache, batch_size)
                next(made)  # the workers have started
                first[cache].append(batches_rate(made, epoch, batch_size))
                time.sleep(2 * picture_cache.DELAY)
                list(itertools.islice(made, epoch))  # on disk, the last are written now
                later[cache].append(batches_rate(made, 2 * epoch, batch_size))
                del made
    side = example.needed_side(size, ZOOM)
    print(
        f"  --cache, images/s with {workers} workers, pictures kept with a shorter side of at most"
        f" {side}:"
    )
    for cache in first:
        ratio = statistics.median(a / b for a, b in zip(later[cache], later["none"], strict=True))
        print(
            f"    {cache:6s} {statistics.median(first[cache]):7.0f} in the first epoch,"
            f" {statistics.median(later[cache]):7.0f} in later ones ({ratio:.2f}x)"
        )
    print()


def open_loader(
    source: folder.FolderSource, size: int, workers: int, cache: str, batch_size: int
) -> Any:
    settings: dict[str, Any] = {"image_size": size, "zoom": ZOOM, "flip": True, "framing": "random"}
    settings |= {"condition": "gray", "batch_size": batch_size, "seed": 0, "device": "cpu"}
    config: Any = SimpleNamespace(**settings, old_photos=0.0, workers=workers, cache=cache)
    return loader.batches(source, config=config)


def batches_rate(made: Any, batches: int, batch_size: int) -> float:
    start = time.perf_counter()
    for _ in itertools.islice(made, batches):
        pass
    return batches * batch_size / (time.perf_counter() - start)


def report(title: str, rates: dict[str, list[float]]) -> None:
    print(title)
    first = next(iter(rates))
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[first], values, strict=True)]
        print(
            f"  {name:24s} {statistics.median(values):7.0f}  ({min(values):.0f} to"
            f" {max(values):.0f})   gancolor is {statistics.median(ratios):.2f}x"
        )


def paint_folder(root: Path, count: int) -> Path:
    for index in range(count):
        arrays.write_rgb(
            root / f"{index:04d}.jpg", composition.paint(0, index, (256, 320)), quality=92
        )
    return root


def describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    versions = {
        "Python": platform.python_version(),
        "OpenCV": cv2.__version__,
        "numpy": np.__version__,
    }
    versions |= {
        name: metadata.version(name)
        for name in ("albumentations", "torch", "pillow", "scikit-image")
    }
    return f"{model}, {os.cpu_count()} cores; " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )


if __name__ == "__main__":
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    main()
