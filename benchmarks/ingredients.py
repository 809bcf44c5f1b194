"""What each part of the colour engine brings: runs of equal minutes that differ in one thing.

    python benchmarks/ingredients.py PICTURES --out FOLDER --seeds 0 1 --minutes 10 -- --backbone-weights vgg16.pt

trains every arm below with every seed, as many side by side as `--jobs` says and each on one
thread, with the options behind `--`; then `gancolor evaluate` measures all of them on the same test
pictures, and the table has each arm's mean over its seeds, with the largest distance of a seed from
it. Runs that are finished are neither trained nor measured again, so arms and seeds can be added to
a folder.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gancolor import tables

_SETTINGS = (
    "--image-size",
    64,
    "--batch-size",
    16,
    "--workers",
    0,
    "--cache",
    "ram",
    "--validate-every",
    10**6,
)
_SCHEDULED = (
    "--preset",
    "regression",
    "--lr",
    1e-3,
    "--lr-schedule",
    "cosine",
    "--lr-warmup",
    0.02,
)
# of `gan`: without an adversary
_ALONE = (
    "--objective",
    "regression",
    "--adversarial-weight",
    0,
    "--warmup",
    0,
)
# The preset `gan` before colours were a distribution and verdicts had places.
_BEFORE = (
    *("--head", "ab", "--hints", 0, "--perceptual", 0, "--discriminator", "units", "--lambda", 100),
    *(
        "--adversarial-weight",
        3,
        "--lr",
        2e-4,
        "--discriminator-lr",
        5e-5,
        "--lr-schedule",
        "constant",
    ),
    *("--lr-warmup", 0, "--warmup", 0.3, "--discriminator-warmup", 0.06, "--ramp", 0.3),
)
ARMS: dict[str, tuple[object, ...]] = {
    "before": _BEFORE,
    "regression": ("--preset", "regression"),
    "schedule": _SCHEDULED,
    "perceptual": (*_SCHEDULED, "--perceptual", 25),
    "patches": ("--head", "ab", "--hints", 0, "--perceptual", 0),
    "bins": (*_ALONE, "--hints", 0, "--perceptual", 0),
    "bins+hints": (*_ALONE, "--perceptual", 0),
    "bins+perceptual": (*_ALONE, "--hints", 0),
    "bins+patches": ("--hints", 0, "--perceptual", 0),
    "no-hints": ("--hints", 0),
    "no-perceptual": ("--perceptual", 0),
    "gan": (),
    "hinge": ("--adversarial-loss", "hinge"),
    "relativistic": ("--adversarial-loss", "relativistic"),
    "fast": ("--preset", "fast"),
}
_COLUMNS = {
    "ciede2000": "CIEDE2000",
    "psnr": "PSNR",
    "colorfulness_share": "colorfulness, %",
    "spread_a": "spread a*",
    "spread_b": "spread b*",
    "fd_vgg16": "FD VGG16",
    "told_apart": "told apart, %",
}


def main() -> None:
    options = _parse()
    runs = [(arm, seed) for arm in options.arms for seed in options.seeds]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda run: _train(options, *run), runs):
            pass
    gray, measured = _evaluate(options, [_name(*run) for run in runs])
    rows: list[dict[str, Any]] = [
        {"arm": "gray picture", **{_COLUMNS[key]: gray.get(key) for key in _COLUMNS}}
    ]
    for arm in options.arms:
        seeds = [measured[_name(arm, seed)] for seed in options.seeds]
        row: dict[str, Any] = {"arm": arm, "steps": ", ".join(str(seed["step"]) for seed in seeds)}
        for key, title in _COLUMNS.items():
            # too few pictures for some measures
            values = [seed[key] for seed in seeds if seed[key] is not None]
            if values:
                mean = statistics.fmean(values)
                row[title] = f"{mean:.2f} ± {max(abs(value - mean) for value in values):.2f}"
        rows.append(row)
    print(tables.markdown(rows, digits=2))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="a folder of colour pictures")
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM", help=", ".join(ARMS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=10, help="of each run")
    parser.add_argument(
        "--encoder-weights", default="imagenet", help="of the arm fast (see gancolor train)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, of one thread each")
    words = sys.argv[1:]
    behind = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:behind], argparse.Namespace(rest=words[behind + 1 :]))


def _name(arm: str, seed: int) -> str:
    return f"{arm}-{seed}"


def _train(options: argparse.Namespace, arm: str, seed: int) -> None:
    runs, name = options.out / "runs", _name(arm, seed)
    if list(runs.glob(f"*-{name}/report.json")):
        return
    about = ["--dataset", options.pictures, "--name", name, "--seed", seed, "--runs-root", runs]
    if arm == "fast":  # the others have no encoder but VGG16, and refuse the option
        about += ["--encoder-weights", options.encoder_weights]
    _gancolor(
        options.out / f"{name}.log",
        *(
            "train",
            *about,
            "--time-limit",
            f"{options.minutes}m",
            *_SETTINGS,
            *ARMS[arm],
            *options.rest,
        ),
    )


def _evaluate(
    options: argparse.Namespace, names: list[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Figures of the gray picture, and of each run by its name."""
    out, found = options.out / "measured", {}
    for name in names:
        path = next((options.out / "runs").glob(f"*-{name}"))
        if not (out / name / "metrics.jsonl").exists():
            what = (
                "--dataset",
                options.pictures,
                "--split",
                "test",
                "--no-perceptual",
                "--out",
                out / name,
            )
            _gancolor(options.out / f"{name}.log", "evaluate", path, *what)
        rows = [
            json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()
        ]
        for row in rows:
            row["colorfulness_share"] = 100 * row["colorfulness"] / row["colorfulness_truth"]
        found[name] = next(row for row in rows if row["run"] == path.name)
        found[name]["step"] = json.loads((path / "report.json").read_text())["step"]
        gray = next(row for row in rows if row["run"].startswith("gray"))
    return gray, found


def _gancolor(log: Path, *words: object) -> None:
    """Run the command, with its words added to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with log.open("a") as file:
        command = [sys.executable, "-m", "gancolor", *map(str, words)]
        subprocess.run(command, check=True, env=one, stdout=file, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()
