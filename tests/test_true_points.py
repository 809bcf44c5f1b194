"""What true points bring a network that takes hints: the points, the figures, and `evaluate
--hints`.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_settings import LOUD

from gancolor import presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError
from gancolor.evaluation import true_points
from gancolor.evaluation.measurement import evaluate
from gancolor.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

SMALL: dict[str, Any] = {**LOUD, "levels": 1, "steps": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> tuple[Path, Path]:
    """Return a run that takes hints and one that does not, of bins both."""
    root = tmp_path_factory.mktemp("hinted")
    settings = {**SMALL, "dataset": str(painted), "head": "bins"}
    first = train(presets.build("regression", **settings, hints=0.5), runs_root=root)
    return first, train(presets.build("regression", **settings), runs_root=root)


def truth(side: int = 40) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_numbers_are_read_in_rising_order_and_once() -> None:
    assert true_points.parse("5, 0,1,5") == (0, 1, 5)
    for text in ("", "a", "1,", "-1", "10001", "1.5"):
        with pytest.raises(ConfigError, match="--hints must be numbers of points up to 10000"):
            true_points.parse(text)


def test_points_are_the_same_for_every_run_and_fewer_are_the_beginning_of_more() -> None:
    picture = truth()
    ten, three = true_points.points_of(picture, 7, 10), true_points.points_of(picture, 7, 3)
    assert ten[:3] == three and true_points.points_of(picture, 8, 3) != three
    for point in ten:
        rows = slice(max(0, int(point.y) - 3), int(point.y) + 4)
        columns = slice(max(0, int(point.x) - 3), int(point.x) + 4)
        np.testing.assert_allclose(point.rgb, picture[rows, columns].reshape(-1, 3).mean(0))


@pytest.mark.slow
def test_true_points_bring_a_picture_nearer_and_its_first_has_a_reach(
    runs: tuple[Path, Path], painted: Path
) -> None:
    options: dict[str, Any] = {
        "perceptual": False,
        "device": "cpu",
        "precision": "fp32",
        "feature_weights": "none",
    }
    measured = evaluate(
        list(runs), dataset=str(painted), split="all", limit=3, points=(0, 1, 60), **options
    )
    rows = {row["points"]: row for row in measured.gains}
    assert [row["run"] for row in measured.gains] == [runs[0].name] * 3  # the other one takes none
    (row,) = [row for row in measured.rows if row.name == runs[0].name]
    assert math.isclose(float(str(rows[0]["psnr"])), float(row.values["psnr"] or 0), rel_tol=1e-6)
    assert float(str(rows[60]["psnr"])) > float(str(rows[0]["psnr"])) + 1
    assert float(str(rows[60]["ciede2000"])) < float(str(rows[0]["ciede2000"]))
    assert 0 < float(str(rows[1]["reach"])) < 1.5 and rows[0]["reach"] is rows[60]["reach"] is None
    assert any(line.startswith("true points: ") for line in measured.protocol.lines())


def test_a_point_is_kept_in_a_square_that_is_measured_smaller(runs: tuple[Path, Path]) -> None:
    colorizer = Colorizer.load(runs[0], device="cpu", precision="fp32")
    full, small = truth(80), truth(40)
    (point,) = true_points.points_of(small, 0, 1)
    with_one, without = (
        true_points.color_with(colorizer, full, small, hints) for hints in ([point], [])
    )
    difference = np.abs(with_one.astype(int) - without).sum(2)
    assert difference[int(point.y), int(point.x)] > 0 and (difference == 0).any()


@pytest.mark.slow
def test_evaluate_prints_and_writes_them(
    runs: tuple[Path, Path], painted: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    asked = (
        "--dataset",
        painted,
        "--split",
        "all",
        "--limit",
        2,
        "--no-perceptual",
        "--precision",
        "fp32",
    )
    out = tmp_path / "out"
    result = cli("evaluate", *runs, *asked, "--hints", "0,2", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "With true points of the picture" in result.stdout and "points.csv" in result.stdout
    with (out / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["points"]) for row in rows] == [
        (runs[0].name, "0"),
        (runs[0].name, "2"),
    ]
    assert "With true points" in (out / "metrics.md").read_text()
    again = cli("evaluate", *runs, *asked, "--out", out)
    # it would belong to the evaluation before
    assert again.exit_code == 0 and not (out / "points.csv").exists()


def test_runs_that_take_no_hints_are_refused(
    runs: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    result = cli("evaluate", runs[1], "--hints", "0,1", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--hints must be left out unless a run takes hints, got 0,1" in result.stderr
