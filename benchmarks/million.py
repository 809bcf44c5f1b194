"""How long a training on a folder of very many pictures takes to start, and how much memory its
processes need.

    python benchmarks/million.py --count 10000 100000 1000000

makes folders of that many names, hard links to a few painted pictures, a thousand in a folder (or
all in one: --flat). Each set is opened four times, by a new process each time: when nothing is
known of it and its index is made, twice as it is, and after one picture was added. A start is the
seconds for opening the set plus those to the first batch of 16 pictures at 64 pixels, without
imports. Memory is that of the last start after --batches: "own" is what a process shares with no
other, the rest is counted in equal parts. --manifest adds a manifest with a row for each picture;
--without-index lists all pictures at each start and keeps their names in memory. The sets are
removed at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gancolor import presets, tables
from gancolor.data import folder, loader, manifest, walk
from gancolor.data.source import split_of
from gancolor.data.still_life import composition
from gancolor.data.walk import SETTLED
from gancolor.images import arrays

LINKS = 50_000  # to one file; ext4 allows 65,000


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    rows = []
    for count in options.count:
        place = Path(tempfile.mkdtemp(prefix="million-", dir=options.scratch))
        os.environ["GANCOLOR_CACHE"] = str(place / "cache")
        try:
            root = make_tree(place, count, options.flat, options.manifest)
            rows.append({"pictures": f"{count:,}"} | starts(root, options))
        finally:
            shutil.rmtree(place)
        print(tables.markdown(rows, digits=2), "\n", flush=True)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--count",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="names in the set",
    )
    parser.add_argument(
        "--scratch", type=Path, help="where the sets are made (default: the folder for such files)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that read pictures")
    parser.add_argument("--batches", type=int, default=2000, help="before memory is measured")
    parser.add_argument("--flat", action="store_true", help="all pictures in one folder")
    parser.add_argument(
        "--manifest", action="store_true", help="with a manifest of a row for each picture"
    )
    parser.add_argument(
        "--without-index",
        action="store_true",
        help="list all pictures at each start, names in memory",
    )
    # in the new process: the set to open
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_tree(place: Path, count: int, flat: bool, with_manifest: bool) -> Path:
    for number in range(count // LINKS + 1):
        arrays.write_rgb(
            place / f"{number}.jpg", composition.paint(0, number, (80, 100)), quality=92
        )
    names = [
        f"picture {n:08d}.jpg" if flat else f"class {n // 1000:05d}/picture {n:08d}.jpg"
        for n in range(count)
    ]
    for number, name in enumerate(names):
        if number % 1000 == 0:
            (place / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(place / f"{number // LINKS}.jpg", place / "set" / name)
    if with_manifest:
        with (place / "set" / manifest.MANIFEST).open("w", encoding="utf-8") as file:
            file.write("path,sha256,width,height,colorfulness,split,reject\n")
            for name in names:
                reject = "gray" if name.endswith("7.jpg") else ""
                file.write(f"{name},{'0' * 64},100,80,42.0,{split_of(name)},{reject}\n")
    return place / "set"


def starts(root: Path, options: Any) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in ("first", "second", "third", "one added"):
        if name == "one added":
            os.link(
                root.parent / "0.jpg",
                (root if options.flat else root / "class 00003") / "added.jpg",
            )
        # what changed just before a start is listed again by the next one
        time.sleep(SETTLED / 1e9 + 0.1)
        found = start(root, options, options.batches if name == "one added" else 0)
        row[f"{name}, s"] = f"{found.pop('opened'):.2f} + {found.pop('batch'):.2f}"
    sizes = [file.stat().st_size for file in (root / walk.INDEX_FOLDER).glob("*.names")]
    return row | found | {"index, MB": max(sizes, default=0) / 1e6}


def start(root: Path, options: Any, batches: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        str(root),
        "--workers",
        str(options.workers),
        "--batches",
        str(batches),
    ]
    command += ["--without-index"] if options.without_index else []
    return dict(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    )


def measure(options: Any) -> dict[str, float]:
    root = options.measure
    if options.without_index:
        walk.SMALLEST = sys.maxsize
    settings = dict(
        dataset=str(root), image_size=64, batch_size=16, workers=options.workers, device="cpu"
    )
    config = presets.build("regression", **settings)
    few = folder.FolderSource(root.parent, ["0.jpg"])
    next(loader.batches(few, config=config))  # imports
    began = time.perf_counter()
    source = folder.open_folder(root, "train")
    opened = time.perf_counter() - began
    made = loader.batches(source, config=config)
    next(made)
    batch = time.perf_counter() - began - opened
    for _ in itertools.islice(made, options.batches):
        pass
    main_pss, main_own = memory(os.getpid())
    others = [memory(child.pid) for child in multiprocessing.active_children() if child.pid]
    worker_pss, worker_own = (max(sizes) for sizes in zip(*others, strict=True))
    return {
        "opened": opened,
        "batch": batch,
        "main, MB": main_pss,
        "main's own": main_own,
        "worker, MB": worker_pss,
        "worker's own": worker_own,
        "pickled, KB": len(pickle.dumps(source)) / 1e3,
    }


def memory(process: int) -> tuple[float, float]:
    """Megabytes of a process: its proportional share (PSS), and what it alone holds (USS)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


if __name__ == "__main__":
    main()
