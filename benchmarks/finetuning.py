"""What starting from another network brings with few pictures: fine-tuned beside trained from
scratch, in equal time.

    python benchmarks/finetuning.py PICTURES --only food --out FOLDER -- --image-size 128 --encoder-weights encoder.pt

For each number of pictures (`--pictures 5 25 200`) and each seed, so many of the training pictures
of the set or folder PICTURES are drawn. The preset tune-N goes on from `--init` with them; then the
preset fast learns from the same pictures from scratch, with the options behind `--` and as many
seconds as the tuning took. All are measured on the test pictures, beside the gray picture and the
network that was started from. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gancolor import tables
from gancolor.data.dataset import open_source

_COLUMNS = {
    "ciede2000": "CIEDE2000",
    "psnr": "PSNR",
    "colorfulness_share": "colorfulness, %",
    "spread_a": "spread a*",
    "seconds": "seconds",
}


def main() -> None:
    options = _parse()
    rows: list[dict[str, Any]] = []
    for number in options.pictures:
        found: dict[str, list[dict[str, Any]]] = {
            "gray picture": [],
            options.init: [],
            "from scratch": [],
            "tuned": [],
        }
        for seed in options.seeds:
            folder = _draw(options, number, seed)
            tuning = ("--preset", f"tune-{number}", "--init", options.init)
            tuned = _train(options, folder, "tuned", seed, *tuning, *shlex.split(options.tuning))
            limit = ("--time-limit", f"{_seconds(tuned):.0f}s")
            scratch = _train(
                options, folder, "scratch", seed, "--preset", "fast", *limit, *options.rest
            )
            measured = _measure(options, folder, [tuned, scratch])
            for name, row in zip(
                found, (measured[0], measured[1], measured[3], measured[2]), strict=True
            ):
                found[name].append(row)
        for name, seeds in found.items():
            row = {"pictures": str(number), "": name}
            for key, title in _COLUMNS.items():
                values = [seed[key] for seed in seeds if seed.get(key) is not None]
                if values:
                    mean = statistics.fmean(values)
                    row[title] = f"{mean:.2f} ± {max(abs(value - mean) for value in values):.2f}"
            rows.append(row)
    print(tables.markdown(rows, digits=2))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "set", metavar="PICTURES", help="a set's name or a folder of colour pictures"
    )
    parser.add_argument("--only", default="", help="take pictures whose name has this in it")
    parser.add_argument(
        "--out", type=Path, required=True, help="where sets, runs and figures are kept"
    )
    parser.add_argument(
        "--pictures", nargs="+", type=int, default=[5, 25, 200], choices=[5, 25, 200]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--init", default="general", help="what is started from")
    parser.add_argument(
        "--tuning", default="", help='more options of the tuning, in quotes: "--lr 1e-4"'
    )
    words = sys.argv[1:]
    behind = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:behind], argparse.Namespace(rest=words[behind + 1 :]))


def _draw(options: argparse.Namespace, number: int, seed: int) -> Path:
    """A set of `number` training pictures and all test pictures."""
    folder: Path = options.out / "sets" / f"{number}-{seed}"
    if folder.exists():
        return folder
    rows = []
    for split in ("train", "test"):
        source = open_source(options.set, split)  # type: ignore[arg-type]
        names = [
            source.name(index) for index in range(len(source)) if options.only in source.name(index)
        ]
        if split == "train":
            names = random.Random(seed).sample(names, number)
        root = getattr(source, "root", Path())
        rows += [(str((root / name).resolve()), split) for name in names]
    folder.mkdir(parents=True)
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "split"), *rows])
    return folder


def _train(options: argparse.Namespace, folder: Path, name: str, seed: int, *words: object) -> Path:
    runs = options.out / "runs"
    full = f"{name}-{folder.name}"
    if not list(runs.glob(f"*-{full}/report.json")):
        about = ("--dataset", folder, "--name", full, "--seed", seed, "--runs-root", runs)
        _gancolor(options.out / f"{full}.log", "train", *about, *words)
    return next(path.parent for path in runs.glob(f"*-{full}/report.json"))


def _seconds(run: Path) -> float:
    return float(json.loads((run / "report.json").read_text())["seconds"])


def _measure(options: argparse.Namespace, folder: Path, runs: list[Path]) -> list[dict[str, Any]]:
    """Figures of the gray picture, of the network that was started from, and of `runs`."""
    out = options.out / "measured" / folder.name
    if not (out / "metrics.jsonl").exists():
        what = ("--dataset", folder, "--split", "test", "--no-perceptual", "--out", out)
        _gancolor(
            options.out / f"measured-{folder.name}.log", "evaluate", options.init, *runs, *what
        )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["colorfulness_share"] = 100 * row["colorfulness"] / row["colorfulness_truth"]
    gray = next(row for row in rows if row["run"].startswith("gray"))
    others = [row for row in rows if not row["run"].startswith(("gray", "mean"))]
    for row, run in zip(others[1:], runs, strict=True):
        row["seconds"] = _seconds(run)
    return [gray, *others]


def _gancolor(log: Path, *words: object) -> None:
    """Run the command, with its words added to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        command = [sys.executable, "-m", "gancolor", *map(str, words)]
        subprocess.run(command, check=True, stdout=file, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()
