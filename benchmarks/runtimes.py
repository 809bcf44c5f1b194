"""Colouring through torch and through onnxruntime: seconds a picture, seconds to load, peak memory,
size of the file.

    OMP_WAIT_POLICY=passive python benchmarks/runtimes.py [RUN...]

Without RUN the networks are untrained ones of the presets `gan` and `fast`: training does not
change the speed. The network alone is timed, on the CPU in float32 and, where the processor has it,
in bfloat16; `bare` is a process that has numpy and onnxruntime and neither torch nor gancolor
(Linux only). The median of turns that take each in turn.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sample import save_checkpoint
from train_step import describe_machine, peak_kib

from gancolor import interchange, tables
from gancolor.coloring import views
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.still_life import composition
from gancolor.hub import choice
from gancolor.storage import checkpoint

SIDES = (256, 384, 512)
PRESETS = ("gan", "fast")

BARE = """
import sys, time
start = time.perf_counter()
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = int(sys.argv[2]), 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
side = int(sys.argv[3])
given = {item.name: numpy.zeros((1, item.shape[1], side, side), numpy.float32) for item in session.get_inputs()
         if item.name in ("gray", "hints")}
session.run(["ab"], given)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - start, peak)
"""


def main() -> None:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only:
        start = time.perf_counter()
        colorizer = Colorizer.load(Path(options.only[0]), precision=options.only[1], device="cpu")
        loaded = time.perf_counter() - start
        see(colorizer, SIDES[0])
        print(loaded, peak_kib())
        return
    logging.disable()
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.runs:
            models = [choice.find(run, checkpoint.runs_root()) for run in options.runs]
        else:
            saved = [save_checkpoint(folder / f"{preset}.pt", preset) for preset in PRESETS]
            models = [choice.find(str(path), folder) for path in saved]
        rows = [row for model in models for row in compare(model, folder, options)]
    print(tables.markdown(rows, digits=3))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="as --run takes them")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument(
        "--threads", type=int, default=0, help="of both (default: as torch chooses)"
    )
    parser.add_argument(
        "--only",
        nargs=2,
        help="FILE PRECISION: load, colour, print seconds and the peak memory in KiB",
    )
    return parser.parse_args()


def compare(model: choice.Choice, folder: Path, options: Any) -> list[dict[str, Any]]:
    """A row for each way to run a model."""
    name = Path(model.name).stem
    files = {kind: folder / f"{name}{suffix}" for kind, suffix in interchange.FORMATS.items()}
    for kind, path in files.items():
        interchange.export(model, path, format=kind, precision="fp32")
    ways = {
        "torch fp32": (files["safetensors"], "fp32"),
        "onnxruntime fp32": (files["onnx"], "fp32"),
    }
    if torch.cpu._is_avx512_bf16_supported():
        ways["torch bf16"] = (files["safetensors"], "bf16")
    colorizers = {
        way: Colorizer.load(path, precision=each, device="cpu")
        for way, (path, each) in ways.items()
    }
    spent: dict[tuple[str, int], list[float]] = {(way, side): [] for way in ways for side in SIDES}
    for turn in range(options.turns + 1):
        for (way, side), seconds in spent.items():
            each = see(colorizers[way], side)
            if turn:  # the first makes the kernels ready
                seconds.append(each)
    rows = []
    for way, (path, precision) in ways.items():
        row: dict[str, Any] = {"model": name, "way": way}
        row |= {f"{side} px, s": statistics.median(spent[way, side]) for side in SIDES}
        seconds, peak = measure(__file__, options, "--only", str(path), precision)
        rows.append(
            {**row, "load, s": seconds, "peak, MiB": int(peak) // 1024, "file, MiB": size_of(path)}
        )
    seconds, peak = bare(files["onnx"])
    told = {"load and one picture, s": seconds, "peak, MiB": int(peak) // 1024}
    print(f"{name}, bare onnxruntime with imports: {told}")
    return rows


def see(colorizer: Colorizer, side: int) -> float:
    """Seconds of the network's answer about a square picture."""
    view = views.look(colorizer.sight, composition.paint(0, 0, side), side)
    start = time.perf_counter()
    colors = colorizer.predict_view(view).colors
    seconds = time.perf_counter() - start
    assert colors.shape[:2] == (side, side) and np.isfinite(colors).all()
    return seconds


def size_of(path: Path) -> float:
    return path.stat().st_size / 2**20


def bare(path: Path) -> tuple[float, float]:
    return parse(
        [sys.executable, "-c", BARE, str(path), str(torch.get_num_threads()), str(SIDES[0])]
    )


def measure(script: str, options: Any, *arguments: str) -> tuple[float, float]:
    return parse([sys.executable, script, "--threads", str(options.threads), *arguments])


def parse(command: list[str]) -> tuple[float, float]:
    """The two numbers that a command prints last."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    first, second = done.stdout.split()[-2:]
    return float(first), float(second)


if __name__ == "__main__":
    main()
