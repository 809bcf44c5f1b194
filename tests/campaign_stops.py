"""A tiny training that is killed at random moments and gone on with, until its steps are done.

    python tests/campaign_stops.py --kills 50 --seed 1

Signals: mostly SIGKILL, else SIGTERM, SIGHUP or SIGINT; at any moment, also while it starts, saves
or validates, and now and then at one of the processes that read its pictures. After each there must
be a checkpoint that is no older than the one before, no line of a traceback, and nothing that keeps
the next one out. In the end the run must equal one that nobody killed, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forkserver
import torch

from gancolor.storage import checkpoint

SETTINGS = (
    "--preset regression --image-size 32 --batch-size 2 --backbone-weights none --frozen-blocks 3"
    " --width 4 --val-pictures 2 --device cpu --precision fp32 --checkpoint-every 1"
    " --validate-every 3 --log-every 1"
).split()
KINDS = [signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
_ORPHANS_WORDS = ("EOFError", "ConnectionResetError: [Errno 104] Connection reset by peer")
EXPECTED = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 143, 129, 130}
"""Of a process that was killed, or that was told to end while it still started, or that saved."""


def command(root: Path, steps: int, workers: int, run: Path | None = None) -> list[str]:
    """`gancolor train`, or going on with a run."""
    how = (
        ["--resume", str(run)]
        if run
        else [*SETTINGS, "--steps", str(steps), "--runs-root", str(root)]
    )
    return ["-m", "gancolor", "train", *how, "--workers", str(workers)]


def children(pid: int) -> list[int]:
    """Processes that it started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def different(one: Any, two: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ in a bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return [f"{where}: other keys"]
        return [found for key in one for found in different(one[key], two[key], f"{where}/{key}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, two) else [where]
    return [] if one == two else [where]


def campaign(
    folder: Path, kills: int, seed: int, steps: int = 10_000
) -> tuple[Counter[str], list[str]]:
    """Kill a run so many times at most, then let it end; what happened how often, and what was
    wrong.
    """
    draw = random.Random(seed)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    root = folder / "killed"
    run, reached, longest = root / "0001-regression-still-life", 0, 6.0
    while counts["killed"] < kills:
        began = time.monotonic()
        has_one = any((run / name).exists() for name in ("last.pt", "last-1.pt"))
        if not has_one and root.exists():
            run = root / f"{len(list(root.glob('0*'))) + 1:04d}-regression-still-life"
        workers = draw.choice([0, 0, 1, 2])
        process = forkserver.Popen(
            command(root, steps, workers, run if has_one else None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        kind, at_reader = draw.choice(KINDS), workers > 0 and draw.random() < 0.2
        # soon after a step, where it saves and validates
        if draw.random() < 0.3 and process.stderr is not None:
            for line in process.stderr:
                if line.startswith("step "):
                    break
            time.sleep(draw.uniform(0, 0.2))
        else:
            time.sleep(draw.uniform(0.05, longest))
        targets = children(process.pid) if at_reader else [process.pid]
        for target in targets[:1] or [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL if at_reader else kind)
        try:
            words = process.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            words = process.communicate()[1]
            wrong.append(f"it went on for a minute after {kind!r}: {words[-2000:]}")
        counts["killed"] += 1
        counts[
            f"{'a reader' if at_reader and targets else signal.Signals(kind).name}: exit code"
            f" {process.returncode}"
        ] += 1
        expected = {*EXPECTED, 1} if at_reader else EXPECTED
        # A reader that is just starting when its process is killed says so in its own words.
        orphaned = kind == signal.SIGKILL and words.rstrip().endswith(_ORPHANS_WORDS)
        if process.returncode not in expected or ("Traceback" in words and not orphaned):
            wrong.append(f"exit code {process.returncode} of {kind!r}: {words[-2000:]}")
        if (run / "last.pt").exists() or (run / "last-1.pt").exists():
            try:
                step = checkpoint.load_last(run)["step"]
            except Exception as error:
                wrong.append(f"nothing to go on from after step {reached}: {error}")
                break
            if step < reached:
                wrong.append(f"step {step} after step {reached}")
            reached = step
        elif reached:
            wrong.append(f"no checkpoint after step {reached}")
        longest = max(2.0, min(10.0, 2 * (time.monotonic() - began)))
    counts["steps reached"] = reached
    last = max(steps if steps < 10_000 else 0, reached + 2)
    for whole, of in ((root, run), (folder / "whole", None)):
        done = forkserver.run(
            [*command(whole, last, 0, of), *(["--steps", str(last)] if of else [])], timeout=None
        )
        if done.returncode:
            wrong.append(f"the end: exit code {done.returncode}: {done.stderr[-2000:]}")
            return counts, wrong
    ends = [
        checkpoint.load(each / "last.pt")
        for each in (run, folder / "whole" / "0001-regression-still-life")
    ]
    for end in ends:
        for key in ("seconds", "config", "set"):
            end.pop(key)
    return counts, wrong + [f"differs: {where}" for where in different(*ends)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its counts; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, forkserver.server(str(Path(folder, "server"))):
        os.environ[forkserver.NARROW] = "1"
        counts, wrong = campaign(Path(folder), chosen.kills, chosen.seed)
    for words, count in sorted(counts.items()):
        print(f"{words}: {count}")
    print("\n\n".join(wrong[:20]), file=sys.stderr)
    print(f"seed {chosen.seed}: {counts['killed']} killed, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
