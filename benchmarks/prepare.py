"""How many pictures a second `gancolor data prepare` looks through, and in how much memory.

    python benchmarks/prepare.py --pictures 5000
    python benchmarks/prepare.py --folder PICTURES --workers 2

Without a folder it makes JPEGs of 256 x 320 from painted still lifes, blended two by two so that no
two are alike. Each row is the median of several runs of the command, start of Python included: into
a new set, again when all is known, and with copies of 128 pixels.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from gancolor import tables
from gancolor.data import folder
from gancolor.data.still_life import composition
from gancolor.images import arrays


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=3000, help="how many to make")
    parser.add_argument("--folder", type=Path, help="a folder of your own instead")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}")
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        pictures = options.folder or _make(work / "pictures", options.pictures)
        count = len(folder.find_pictures(pictures))
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(options.times):
            shutil.rmtree(work / "sets", ignore_errors=True)
            command = [pictures, "--datasets-root", work / "sets"]
            command += ["--workers", options.workers] if options.workers is not None else []
            for title, more in (
                ("new", ["--name", "one"]),
                ("again, nothing new", ["--name", "one"]),
                ("new, with --resize 128", ["--name", "two", "--resize", 128]),
            ):
                found.setdefault(title, []).append(_run(["data", "prepare", *command, *more]))
    rows = []
    for title, measured in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*measured, strict=True))
        rows.append(
            {
                "": title,
                "pictures": count,
                "seconds": seconds,
                "pictures/s": count / seconds,
                "MiB in all": memory,
            }
        )
    print(tables.markdown(rows, digits=1))


def _make(target: Path, count: int) -> Path:
    base = [composition.paint(0, number, (256, 320)) for number in range(60)]
    numbers = np.random.default_rng(0)
    for index in range(count):
        first, second = numbers.choice(len(base), 2, replace=False)
        shift = numbers.integers(0, 320)
        mixed = cv2.addWeighted(np.roll(base[first], shift, axis=1), 0.6, base[second], 0.4, 0)
        arrays.write_rgb(target / f"{index // 1000:03d}" / f"{index:06d}.jpg", mixed, quality=92)
    return target


def _run(words: list[object]) -> tuple[float, float]:
    """Seconds, and the largest memory of the process and its children together (proportional set
    size, MiB).
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "gancolor", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watch.start()
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}: {said.strip()}")
    watch.join()
    return time.monotonic() - start, peak[0]


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_memory, [process.pid, *_children(process.pid)])))
        time.sleep(0.2)


def _children(pid: int) -> list[int]:
    try:
        words = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return words + [child for word in words for child in _children(word)]


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended, or there is no /proc
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


if __name__ == "__main__":
    main()
