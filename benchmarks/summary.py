"""One row a run from their report.json, beside the gray picture: the tables of docs/training.md.

python benchmarks/summary.py runs/*-natural
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gancolor import tables


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/summary.py RUN...")
    rows = [describe(Path(run)) for run in sys.argv[1:] if (Path(run) / "report.json").exists()]
    gray = {tuple(row.pop("gray").items()) for row in rows}
    for values in sorted(gray):
        rows.append({"run": "gray picture", **dict(values)})
    print(tables.markdown(rows, digits=2))


def describe(run: Path) -> dict[str, object]:
    """The run's name, its length and speed, its metrics and their share of the gray picture's or
    the truth's.
    """
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    val, gray = report["val"], report["gray"]
    losses = [
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    d_loss = [line["D_loss"] for line in losses if "D_loss" in line][-5:]
    shown = ("ciede2000", "mae_ab", "mae_unit", "psnr", "colorfulness", "spread_a", "spread_b")
    return {
        "run": run.name.split("-", 1)[1],
        "steps": str(report["step"]),
        "images/s": f"{report['images_per_second']:.1f}",
        **{key: val.get(key) for key in shown},
        "CIEDE2000 / gray": val["ciede2000"] / gray["ciede2000"],
        "MAE ab / gray": val["mae_ab"] / gray["mae_ab"],
        "colorfulness / truth": val["colorfulness"] / val["colorfulness_truth"],
        "D_loss": sum(d_loss) / len(d_loss) if d_loss else None,
        "gray": {key: gray.get(key) for key in shown},
    }


if __name__ == "__main__":
    main()
