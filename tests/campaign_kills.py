"""`gancolor sample` killed at random moments, by a seed, and gone on with.

    python tests/campaign_kills.py --seed 1 --rounds 50

After each SIGKILL everything under a result's name is whole, and equal to what a run that nobody
killed has written; the report has whole lines but perhaps for its last. Then the same command with
--skip-existing does the rest.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import forkserver
import numpy as np
from tiny_settings import LOUD

SMALL = {
    **LOUD,
    "levels": 1,
    "frozen_blocks": 3,
    "steps": 4,
    "lr": 0.01,
    "head": "bins",
    "hints": 0.5,
}
KINDS = (
    "a.png",
    "b.jpg",
    "sub/c.tif",
    "sub/d.webp",
    "sub/deep/e.bmp",
    "f.png",
    "g.jpg",
    "sub/h.png",
)


def train_small(folder: Path) -> Path:
    """Train a small network for a moment; returns its run."""
    from gancolor import presets
    from gancolor.training import train

    config = presets.build("regression", **SMALL, dataset="still-life", validate_every=4)
    return train(config, runs_root=folder)


def make_pictures(folder: Path, rng: random.Random) -> Path:
    """Gray noise, so that results are large enough to be caught half written."""
    for name in KINDS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (220, 300), np.uint8)
        assert cv2.imwrite(str(path), noise)
    return folder


def results(out: Path) -> dict[str, bytes]:
    """What lies in a folder of results under a result's name."""
    found = (path for path in out.rglob("*") if path.is_file())
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in found
        if not path.name.startswith(".") and path.name != "report.jsonl"
    }


def _start(run: Path, old: Path, new: Path, workers: int) -> forkserver.Popen:
    arguments = [
        "-m",
        "gancolor",
        "sample",
        str(old),
        "--out",
        str(new),
        "--run",
        str(run),
        "--skip-existing",
    ]
    arguments += [
        "--variants",
        "2",
        "--sheet",
        "--workers",
        str(workers),
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    return forkserver.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _check(new: Path, expected: dict[str, bytes]) -> int:
    found = results(new)
    for name, data in found.items():
        assert data == expected[name], f"{name} is not what it is when nobody kills"
    if (new / "report.jsonl").exists():
        lines = (new / "report.jsonl").read_text().split("\n")
        for line in lines[:-1]:
            json.loads(line)
    return len(found)


def campaign(
    run: Path,
    folder: Path,
    seed: int,
    rounds: int,
    say: Callable[[str], object] = lambda words: None,
) -> dict[str, int]:
    """Kill and go on `rounds` times; returns how many kills found how much done. Call it in
    `forkserver.server`.
    """
    rng = random.Random(seed)
    old, whole = make_pictures(folder / "old", rng), folder / "whole"
    for out in (folder / "first", whole):  # the first one also loads all modules
        begun = time.monotonic()
        with _start(run, old, out, 0) as process:
            _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    usual, expected = time.monotonic() - begun, results(whole)
    assert results(folder / "first") == expected
    assert len(expected) == 3 * len(KINDS)
    counts: collections.Counter[str] = collections.Counter()
    for number in range(rounds):
        new, workers = folder / f"new{number}", rng.choice((0, 1))
        for _ in range(rng.randrange(1, 4)):
            with _start(run, old, new, workers) as process:
                awaited = rng.randrange(len(expected))
                while process.poll() is None and (not new.is_dir() or len(results(new)) < awaited):
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, 2 * usual / len(expected)))
                process.kill()
                # its workers have the same output: until they have ended too
                process.communicate(timeout=600)
            there = _check(new, expected)
            share = "none" if not there else "all" if there == len(expected) else "some"
            counts[f"killed with {share} of the results there"] += 1
        with _start(run, old, new, rng.choice((0, 1))) as process:
            _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert _check(new, expected) == len(expected)
        counts["gone on with to the end"] += 1
        say(f"{number + 1} of {rounds}: {dict(counts)}")
    return dict(sorted(counts.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [os.path.abspath(".."), os.environ.get("PYTHONPATH")])
    )
    sys.path.insert(0, os.path.abspath(".."))
    with tempfile.TemporaryDirectory() as place, forkserver.server(f"{place}/socket"):
        trained = train_small(Path(place, "runs"))
        print(campaign(trained, Path(place), options.seed, options.rounds, print))
