"""How many training pictures a core makes a second, by where they lie, and how many cores a GPU needs.

    python benchmarks/loaders.py                    minutes on one core; --sizes 256 512 for both sizes

The pictures are painted, 4:3, JPEG of quality 92. They lie as files of 2 megapixels, as files that
`gancolor data prepare --resize` has reduced, in `--cache ram` (in its later passes), in shards as
they are, and in shards that `gancolor data pack --resize` has reduced. The ways take turns in one
process, and the processor's time counts, so that a busy machine slows none of them down.

The GPU's rate is an estimate, nothing that was measured: from the operations and bytes of a step,
which are counted (bytes in float32, of which bfloat16 moves half), and the stated share of what an
H100 can do. The slower of the two counts.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import gpu
import torch
from device_rates import count
from train_step import describe_machine

from gancolor import presets, tables
from gancolor.config import TrainConfig
from gancolor.data import dataset, example, loader, picture_cache, shard_packer
from gancolor.data.still_life import composition
from gancolor.images import arrays
from gancolor.training import loop

H100 = {"TFLOP/s in bf16": 989.0, "GB/s": 3350.0}
SHARE = {"TFLOP/s in bf16": 0.35, "GB/s": 0.7}
"""Of what an H100 can do, that a step is taken to reach."""
ORIGINAL = (1224, 1632)


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.disable()
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GANCOLOR_CACHE"] = str(Path(scratch) / "cache")
        originals = paint(Path(scratch) / "originals", options.count, tuple(options.original))
        for size in options.sizes:
            rates = measure(originals, Path(scratch) / str(size), size, options)
            report(rates, size, options)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="of training pictures")
    parser.add_argument("--count", type=int, default=96, help="pictures")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--batch", type=int, default=16, help="pictures a batch")
    parser.add_argument(
        "--original", type=int, nargs=2, default=ORIGINAL, help="height and width of the originals"
    )
    parser.add_argument(
        "--presets",
        nargs="+",
        default=["gan", "fast", "regression"],
        help="whose steps are counted",
    )
    return parser.parse_args()


def paint(root: Path, count: int, size: tuple[int, int]) -> Path:
    for index in range(count):
        picture = arrays.resize(composition.paint(0, index, (360, 480)), size)
        arrays.write_rgb(root / f"{index:04d}.jpg", picture, quality=92)
    return root


def settings(place: Path, size: int, batch: int, cache: str = "none") -> TrainConfig:
    given: dict[str, Any] = {"dataset": str(place), "image_size": size, "batch_size": batch}
    return presets.build("gan", **given, workers=0, cache=cache, device="cpu")


def measure(originals: Path, place: Path, size: int, options: Any) -> dict[str, float]:
    """Pictures a second of one core, by where they lie."""
    zoom = presets.build("gan").zoom
    side = example.needed_side(size, zoom)
    for name, resize in (("as they are", None), (f"--resize {side}", side)):
        shard_packer.pack(str(originals), place / name, resize=resize)
    reduced = place / "reduced"
    for file in originals.iterdir():
        picture = arrays.read_rgb(file)
        height, width = picture.shape[:2]
        short = min(height, width, side)
        whole = (
            round(height * short / min(height, width)),
            round(width * short / min(height, width)),
        )
        arrays.write_rgb(reduced / file.name, arrays.resize(picture, whole), quality=92)
    given = {
        "files of 2 MP": settings(originals, size, options.batch),
        f"files, prepare --resize {side}": settings(reduced, size, options.batch),
        "--cache ram, later passes": settings(originals, size, options.batch, "ram"),
        "shards as they are": settings(place / "as they are", size, options.batch),
        f"shards, pack --resize {side}": settings(place / f"--resize {side}", size, options.batch),
    }
    made = {name: batches(config) for name, config in given.items()}
    epoch = -(-options.count // options.batch)
    for name, each in made.items():
        take(each, 2 * epoch if "cache" in name else 1)
        time.sleep(2 * picture_cache.DELAY if "cache" in name else 0)
    rates: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(options.rounds):
        for name, each in made.items():
            start = time.process_time()
            take(each, epoch)
            rates[name].append(epoch * options.batch / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def batches(config: TrainConfig) -> Iterator[Any]:
    return loader.batches(dataset.open_source(config.dataset, "train"), config=config)


def take(made: Iterator[Any], number: int) -> None:
    for _ in itertools.islice(made, number):
        pass


def estimate(preset: str, size: int) -> dict[str, float]:
    """What an H100 is taken to train, by the work of a step of two pictures, which is counted."""
    device, batch = torch.device("cpu"), 2
    rgb = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    state, given = gpu.begin(preset, size, batch, device, rgb)
    operations, work = count(lambda: loop.train_step(state, given))
    found = {"GFLOP": operations / batch / 1e9, "GB in bf16": work.bytes / batch / 2e9}
    rates = {
        "by operations": 1e3 * SHARE["TFLOP/s in bf16"] * H100["TFLOP/s in bf16"] / found["GFLOP"],
        "by bytes": SHARE["GB/s"] * H100["GB/s"] / found["GB in bf16"],
    }
    return found | rates | {"images/s, estimate": min(rates.values())}


def report(rates: dict[str, float], size: int, options: Any) -> None:
    print(
        f"{size} x {size}. An H100: {SHARE['TFLOP/s in bf16']:.0%} of"
        f" {H100['TFLOP/s in bf16']:.0f} TFLOP/s in bf16, {SHARE['GB/s']:.0%} of"
        f" {H100['GB/s']:.0f} GB/s; work is for each picture, rates are images/s\n"
    )
    needs = {preset: estimate(preset, size) for preset in options.presets}
    rows = [{"preset": preset, **found} for preset, found in needs.items()]
    print(tables.markdown(rows, digits=1), "\n")
    rows = []
    for name, rate in rates.items():
        row: dict[str, Any] = {"pictures": name, "images/s a core": rate}
        for preset, found in needs.items():
            row[f"cores for {preset}"] = found["images/s, estimate"] / rate
        rows.append(row)
    print(tables.markdown(rows, digits=1), flush=True)


if __name__ == "__main__":
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    main()
