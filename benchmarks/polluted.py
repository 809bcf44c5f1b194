"""What gray pictures among the training pictures cost, and what `gancolor data prepare` gives back.

    python benchmarks/polluted.py PICTURES --out FOLDER --share 0.2 --seeds 0 1 -- --image-size 64 --steps 3400

makes two copies of a folder of colour pictures, one with a share of them turned gray (the same in
every split), prepares the second as a third set, trains each preset on each set with the options
behind `--`, and measures all runs on the test pictures of the clean copy. A picture has the same
name in all sets, so no run was trained on them. Runs that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from gancolor import tables
from gancolor.data import folder, source
from gancolor.images import arrays

SETS = ("clean", "polluted", "prepared")


def main() -> None:
    options = _parse()
    sets, runs = options.out / "datasets", options.out / "runs"
    _make_sets(options.pictures, sets, options.share)
    for seed in options.seeds:
        for preset in options.presets:
            for name in options.sets:
                if name == "prepared" and not (sets / name).exists():
                    _gancolor(
                        "data",
                        "prepare",
                        sets / "polluted",
                        "--name",
                        name,
                        "--datasets-root",
                        sets,
                    )
                _train(runs, sets, name, preset, seed, options.rest)
    rows = []
    for preset in options.presets:
        for name in options.sets:
            measured = [
                _evaluate(runs, sets, f"{name}-{preset}-{seed}", options.device)
                for seed in options.seeds
            ]
            mean = {key: statistics.fmean(row[key] for row in measured) for key in measured[0]}
            rows.append({"preset": preset, "set": name, "runs": len(measured), **mean})
    print(tables.markdown(rows, digits=2))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="a folder of colour pictures")
    parser.add_argument("--out", type=Path, required=True, help="where sets and runs are made")
    parser.add_argument(
        "--share", type=float, default=0.2, help="of the pictures that are turned gray"
    )
    parser.add_argument("--presets", nargs="+", default=["gan", "regression"])
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto")
    words = sys.argv[1:]
    behind = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:behind], argparse.Namespace(rest=words[behind + 1 :]))


def _make_sets(pictures: Path, sets: Path, share: float) -> None:
    if (sets / "polluted").exists():
        return
    making = sets / "making"
    shutil.rmtree(making, ignore_errors=True)
    for name in folder.find_pictures(pictures):
        (making / "clean" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / name, making / "clean" / name)
        (making / "polluted" / name).parent.mkdir(parents=True, exist_ok=True)
        # of every split alike: the split is the hash of the name alone
        if source.position_of(f"gray {name}") < share:
            rgb = arrays.read_rgb(pictures / name)
            gray = np.rint(rgb @ (0.299, 0.587, 0.114)).astype(np.uint8)
            arrays.write_rgb(making / "polluted" / name, np.repeat(gray[..., None], 3, axis=2))
        else:
            shutil.copy(pictures / name, making / "polluted" / name)
    (making / "clean").rename(sets / "clean")
    (making / "polluted").rename(sets / "polluted")
    making.rmdir()


def _train(runs: Path, sets: Path, name: str, preset: str, seed: int, rest: list[str]) -> None:
    run = f"{name}-{preset}-{seed}"
    if list(runs.glob(f"*-{run}/report.json")):
        return
    about = [
        "--dataset",
        sets / name,
        "--preset",
        preset,
        "--seed",
        seed,
        "--name",
        run,
        "--runs-root",
        runs,
    ]
    _gancolor("train", *about, *rest)


def _evaluate(runs: Path, sets: Path, run: str, device: str) -> dict[str, float]:
    path = next(runs.glob(f"*-{run}"))
    out = runs.parent / "measured" / run
    what = [
        "--dataset",
        sets / "clean",
        "--split",
        "test",
        "--no-perceptual",
        "--device",
        device,
        "--out",
        out,
    ]
    _gancolor("evaluate", path, *what)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["run"] == path.name)
    return {key: row[key] for key in ("colorfulness", "colorfulness_truth", "ciede2000")}


def _gancolor(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "gancolor", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
