"""How fast a fusion network trains, with embeddings from the cache and without, in float32 and in
bfloat16.

    OMP_WAIT_POLICY=passive python benchmarks/fusion.py                      koalarization, 224 pixels, batch 16
    python benchmarks/fusion.py --preset portrait-vgg19 --size 128 --batch 8

The variants take turns in one process; the medians of several rounds count. Pictures are made up
and the embedding's weights are random: neither changes the speed.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import gancolor
from gancolor import presets, tables
from gancolor.data.example import content_key
from gancolor.data.loader import Batch
from gancolor.training import loop
from gancolor.training.state import State

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="koalarization")
    parser.add_argument("--size", type=int, default=224, help="side of the training pictures")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    options = parser.parse_args()
    logging.disable()
    print(
        f"gancolor {gancolor.__version__}, torch {torch.__version__}, Python"
        f" {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores,"
        f" {torch.get_num_threads()} threads, {datetime.date.today()}\n{options.preset},"
        f" {options.size}x{options.size}, batch {options.batch}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANCOLOR_CACHE"] = folder
        print(tables.markdown(measure(options), digits=2))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant: images a second, and how many times the slowest."""
    steps = {
        f"{precision}, {'cached' if cached else 'every picture through the embedding'}": make(
            options, precision, cached
        )
        for precision in ("fp32", "bf16")
        for cached in (False, True)
    }
    for step in steps.values():
        step()  # fills the cache too
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    slowest = next(iter(seconds.values()))
    return [
        {
            "variant": name,
            "images/s": options.batch / statistics.median(values),
            "x the first": statistics.median(b / a for a, b in zip(values, slowest, strict=True)),
        }
        for name, values in seconds.items()
    ]


def make(options: argparse.Namespace, precision: str, cached: bool) -> Callable[[], Any]:
    """A training step of a batch as the run would do it, from uint8 pictures on."""
    config = presets.build(
        options.preset,
        image_size=options.size,
        batch_size=options.batch,
        precision=precision,
        backbone_weights="none",
        embedding_cache=cached,
        framing="center",
        device="cpu",
    )
    state = State(config, CPU)
    assert state.embedder is not None
    random = torch.Generator().manual_seed(0)
    side = state.embedder.size
    rgb = torch.randint(
        0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8, generator=random
    )
    copies = torch.randint(
        0, 256, (options.batch, 3, side, side), dtype=torch.uint8, generator=random
    )
    keys = [content_key(copy.permute(1, 2, 0).numpy()) for copy in copies]
    batch = Batch(rgb=rgb, copies=copies, keys=keys)
    return lambda: loop.train_step(state, batch, embedding=state.embed(copies, keys))


if __name__ == "__main__":
    main()
