"""`gancolor compare`: real runs on real files, from the command to the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_settings import LOUD

from gancolor import presets
from gancolor.images import arrays
from gancolor.training import train

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

SMALL: dict[str, Any] = {**LOUD, "levels": 0, "steps": 2, "log_every": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train two runs of different sizes on the painted pictures; the folder of runs, read only."""
    root = tmp_path_factory.mktemp("trained")
    for name, size in (("small", 32), ("large", 48)):
        train(
            presets.build(
                "regression", **SMALL | {"image_size": size}, dataset=str(painted), name=name
            ),
            runs_root=root,
        )
    yield root
    shutil.rmtree(root)


@pytest.fixture
def at_home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a fresh folder, with the runs by $GANCOLOR_RUNS."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("GANCOLOR_RUNS", str(trained))
    return tmp_path / "home"


@pytest.mark.slow
def test_two_runs_side_by_side(cli: Command, at_home: Path, undrawn: None) -> None:
    result = cli(
        "compare",
        1,
        "large",
        "--split",
        "all",
        "--limit",
        6,
        "--no-perceptual",
        "--out",
        "new/report.html",
        "--feature-weights",
        os.environ["GANCOLOR_RUNS"] + "/0002-large",
    )
    assert result.exit_code == 0, result.stderr
    assert "CIEDE2000" in result.stdout and result.stdout.rstrip().endswith(
        "the page is new/report.html, its pictures are in new/report-sheets"
    )
    page = (at_home / "new" / "report.html").read_text(encoding="utf-8")
    assert (
        "VGG16 of FD VGG16 and told apart: 0002-large" in page
        and "needs at least 10 pictures, got 6" in page
    )
    assert "48 pixels wide and high" in page and "Loss against epoch" in page
    assert page.count("<img ") == (6 + 3 + 3) * 4
    assert page.index("0001-small") < page.index("0002-large")
    assert sorted(os.listdir(at_home / "new" / "report-sheets")) == [
        *("best.png", "channels.png", "colorfulness.png", "fixed.png", "losses.png", "worst.png")
    ]


@pytest.mark.slow
def test_a_folder_without_colours(
    cli: Command, at_home: Path, pictures: Path, undrawn: None
) -> None:
    for path in sorted(pictures.rglob("*.*"))[12:]:
        path.unlink()
    for path in pictures.rglob("*.*"):
        arrays.write_rgb(path, arrays.read_rgb(path)[..., 1:2].repeat(3, axis=2))
    result = cli("compare", 1, 2, "--dataset", pictures, "--split", "all")
    assert result.exit_code == 0, result.stderr
    assert "M true  " not in result.stdout and "gray rate" in result.stdout  # no column of nothing
    page = (at_home / "comparison.html").read_text(encoding="utf-8")
    assert "Most colourful pictures" in page and "Worst pictures" not in page
    assert not (at_home / "comparison-sheets" / "colorfulness.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "Missing argument 'RUN...'", 2),
        ([9], "the run must be a path, a name or a number", 1),
        ([1, "--out", "report.pdf"], "--out must be a file that ends in .html", 2),
        ([1, "--out", "file/report.html"], "must be in a writable folder", 1),
        ([1, "--save-pictures"], "No such option", 2),
    ],
    ids=["no run", "unknown run", "no page", "unwritable", "an option of evaluate alone"],
)
def test_bad_input_is_one_line(
    cli: Command, at_home: Path, arguments: list[object], message: str, code: int
) -> None:
    (at_home / "file").write_text("in the way")
    result = cli("compare", *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert os.listdir(at_home) == ["file"]
