"""Seconds from a picture file to a coloured file, in Python and by the command, and the peak
memory.

    OMP_WAIT_POLICY=passive python benchmarks/sample.py            some minutes on two cores

The checkpoints are untrained ones of two presets at 256 pixels: training does not change the speed.
A picture's sizes are 256 x 256 and, 4:3, about 0.3, 2, 12 and 100 megapixels, JPEG at quality 92;
the last also as a gray 16-bit TIFF, as scanners write it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from train_step import describe_machine, peak_kib

from gancolor import presets, tables
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item
from gancolor.batch.worker import color_file as color_item
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.still_life import composition
from gancolor.images import arrays
from gancolor.storage import checkpoint
from gancolor.training.state import State

SIZES = {
    "256 x 256": (256, 256),
    "0.3 MP": (480, 640),
    "2 MP": (1224, 1632),
    "12 MP": (3000, 4000),
    "100 MP": (8660, 11547),
    "100 MP, 16-bit gray TIFF": (8660, 11547),
}
TIMES = {
    "256 x 256": 15,
    "0.3 MP": 9,
    "2 MP": 5,
    "12 MP": 3,
    "100 MP": 1,
    "100 MP, 16-bit gray TIFF": 1,
}
PRESETS = ("gan", "fast")
PRECISIONS = ("bf16", "fp32")


def main() -> None:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only:
        model, precision, *files = options.only
        colorizer = Colorizer.load(model, precision=precision)
        seconds = statistics.median(color_file(colorizer, Path(file)) for file in files)
        print(f"median of {len(files)}: {seconds:.2f} s", file=sys.stderr)
        print(peak_kib())
        return
    logging.disable()
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = {preset: save_checkpoint(folder / f"{preset}.pt", preset) for preset in PRESETS}
        files = paint_files(folder)
        report_files(weights, files, options)
        report_command(weights, folder, options)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=50, help="pictures that the command colours")
    parser.add_argument(
        "--threads", type=int, default=0, help="torch's threads (default: as torch chooses)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        help="MODEL PRECISION FILE...: colour, print median seconds and the peak memory in KiB",
    )
    return parser.parse_args()


def save_checkpoint(path: Path, preset: str) -> Path:
    """Write a best.pt as training does."""
    config = dataclasses.replace(presets.build(preset), image_size=256, backbone_weights="none")
    if preset == "fast":
        config = dataclasses.replace(config, encoder_weights="none")
    state = State(config, torch.device("cpu"))
    checkpoint.save(path, state.colorizer_dict(), config)
    return path


def paint_files(folder: Path) -> dict[str, Path]:
    files = {}
    for name, (height, width) in SIZES.items():
        picture = arrays.resize(
            composition.paint(0, len(files), (min(height, 480), min(width, 640))), (height, width)
        )
        if "16-bit" in name:
            files[name] = folder / f"{width}x{height}.tif"
            tifffile.imwrite(files[name], picture[..., 1].astype(np.uint16) * 257)
        else:
            files[name] = folder / f"{width}x{height}.jpg"
            arrays.write_rgb(files[name], picture, quality=92)
    return files


def color_file(colorizer: Colorizer, file: Path) -> float:
    """Seconds from the file to a file beside it."""
    item = Item(file, file.with_name(f"colored-{file.name}"))
    record = color_item(
        item, BatchSettings(existing="overwrite"), colorizer.sight, colorizer.predict_view
    )
    if record.error is not None:
        sys.exit(record.error)
    return record.seconds


def report_files(weights: dict[str, Path], files: dict[str, Path], options: Any) -> None:
    variants = {
        f"{preset} {precision}": (path, precision)
        for preset, path in weights.items()
        for precision in PRECISIONS
    }
    colorizers = {
        name: Colorizer.load(path, precision=precision)
        for name, (path, precision) in variants.items()
    }
    rows = []
    for name, file in files.items():
        row: dict[str, Any] = {"picture": name}
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        for turn in range(TIMES[name] + (TIMES[name] > 1)):
            for variant, colorizer in colorizers.items():
                spent = color_file(colorizer, file)
                if turn or TIMES[name] == 1:  # else the first makes the kernels ready
                    seconds[variant].append(spent)
        row |= {f"{variant}, s": statistics.median(seconds[variant]) for variant in variants}
        for variant, (path, precision) in variants.items():
            command = ["--only", str(path), precision, str(file)]
            row[f"{variant}, MiB"] = int(run(__file__, options, *command).split()[-1]) // 1024
        rows.append(row)
    print("File to file, one picture at a time, median; peak memory of a process\n")
    print(tables.markdown(rows), flush=True)


def report_command(weights: dict[str, Path], folder: Path, options: Any) -> None:
    """`gancolor sample` on a folder and on one picture of it: the difference is the pictures, the
    rest the start.
    """
    source = folder / "many"
    source.mkdir()
    for index in range(options.count):
        arrays.write_rgb(source / f"{index:03d}.jpg", composition.paint(1, index, 256), quality=92)
    rows = []
    for preset, precision in itertools.product(PRESETS, PRECISIONS):
        spent = []
        for given in (source, source / "000.jpg"):
            command = [
                "-m",
                "gancolor",
                "sample",
                str(given),
                "--run",
                str(weights[preset]),
                "--precision",
                precision,
            ]
            start = time.perf_counter()
            subprocess.run(
                [
                    sys.executable,
                    *command,
                    "--out",
                    str(folder / f"out-{preset}-{precision}-{given.name}"),
                ],
                check=True,
                capture_output=True,
            )
            spent.append(time.perf_counter() - start)
        each = (spent[0] - spent[1]) / (options.count - 1)
        rows.append(
            {
                "preset": preset,
                "precision": precision,
                "whole command, s": spent[0],
                "start, s": spent[1] - each,
                "per picture with start, s": spent[0] / options.count,
                "per picture, s": each,
            }
        )
    print(f"\n`gancolor sample` on a folder of {options.count} pictures of 256 x 256\n")
    print(tables.markdown(rows))


def run(script: str, options: Any, *arguments: str) -> str:
    command = [sys.executable, script, "--threads", str(options.threads), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
