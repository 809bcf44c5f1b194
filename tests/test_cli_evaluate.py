"""`gancolor evaluate`: what it prints, what it writes, and what it says of bad input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_settings import LOUD

from gancolor import presets
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.training import train

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

SMALL: dict[str, Any] = {**LOUD, "levels": 0, "steps": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train one run on the painted pictures; the folder of runs, read only."""
    root = tmp_path_factory.mktemp("trained")
    train(presets.build("regression", **SMALL, dataset=str(painted), name="first"), runs_root=root)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def at_home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder beside runs/ with 0001-first and its copy 0002-second."""
    (tmp_path / "home" / "runs").mkdir(parents=True)
    for name in ("0001-first", "0002-second"):
        (tmp_path / "home" / "runs" / name).mkdir()
        shutil.copy(trained / "0001-first" / "best.pt", tmp_path / "home" / "runs" / name)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_protocol_comes_before_the_tables(cli: Command, at_home: Path) -> None:
    result = cli("evaluate", 1, "second", "--no-perceptual")
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    assert text.startswith("pictures: ")
    assert (
        text.index("sha256 of the list")
        < text.index("run 0002-second: best.pt of step 3")
        < text.index("CIEDE2000")
    )
    for name in ("gray", "mean color", "0001-first", "0002-second"):
        tables = text[text.index("\n\n") :].splitlines()
        assert sum(line.startswith(f"{name} ") for line in tables) == 4  # a line in each table
    assert "empty: LPIPS, FID, KID: not asked for" in text
    # best.pt of two blocks
    assert "empty: FD VGG16, told apart %: no run's checkpoint holds a frozen VGG16" in text
    assert "pictures/s" in result.stderr and "pictures/s" not in text
    rows = [
        json.loads(line)
        for line in (at_home / "evaluation" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["run"] for row in rows] == ["gray", "mean color", "0001-first", "0002-second"]
    assert rows[2]["psnr"] == rows[3]["psnr"] and rows[0]["gray_rate"] == 1
    assert sorted(os.listdir(at_home / "evaluation")) == [
        "metrics.csv",
        "metrics.jsonl",
        "metrics.md",
        "pictures.csv",
    ]


def test_every_option_reaches_the_evaluation(
    cli: Command, at_home: Path, pictures: Path, tmp_path: Path
) -> None:
    (at_home / "runs").rename(at_home / "elsewhere")
    result = cli(
        *(
            "evaluate",
            "first",
            "--runs-root",
            "elsewhere",
            "--dataset",
            pictures.name,
            "--datasets-root",
        ),
        *(
            pictures.parent,
            "--split",
            "all",
            "--limit",
            3,
            "--size",
            40,
            "--fit",
            "stretch",
            "--no-truth",
        ),
        *(
            "--device",
            "cpu",
            "--precision",
            "bf16",
            "--out",
            tmp_path / "new" / "out",
            "--no-perceptual",
        ),
    )
    assert result.exit_code == 0, result.stderr
    for words in (
        "pictures: 3 of pictures, split all",
        "40 x 40",
        "(stretch)",
        "truth: none",
        "bfloat16 on cpu",
    ):
        assert words in result.stdout
    assert (tmp_path / "new" / "out" / "metrics.md").is_file() and not (
        at_home / "evaluation"
    ).exists()


def test_pictures_are_kept_in_their_tree(cli: Command, at_home: Path, pictures: Path) -> None:
    # the same stem
    arrays.write_rgb(pictures / "lakes" / "00.jpg", arrays.read_rgb(pictures / "lakes" / "00.png"))
    result = cli(
        *(
            "evaluate",
            1,
            "--dataset",
            pictures,
            "--split",
            "all",
            "--save-pictures",
            "--no-perceptual",
            "--out",
            "out",
        )
    )
    assert result.exit_code == 0, result.stderr
    kept = sorted(
        path.relative_to(at_home / "out" / "pictures") for path in (at_home / "out").rglob("*.png")
    )
    assert len(kept) == 25 and {path.parts[0] for path in kept} == {"0001-first"}
    assert {path.parts[1] for path in kept} == {"fields", "lakes"}
    assert arrays.read_rgb(at_home / "out" / "pictures" / kept[0]).shape == (32, 32, 3)


@pytest.mark.slow
def test_every_picture_has_a_file_of_its_own(cli: Command, at_home: Path) -> None:
    (at_home / "set").mkdir()
    for shade, name in enumerate(("a-2.jpg", "a.jpg", "a.png", "a.webp", "a-3.png")):
        arrays.write_rgb(
            at_home / "set" / name, np.full((40, 40, 3), (60 + 30 * shade, 90, 40), np.uint8)
        )
    result = cli(
        "evaluate", 1, "--dataset", "set", "--split", "all", "--save-pictures", "--no-perceptual"
    )
    assert result.exit_code == 0, result.stderr
    kept = sorted((at_home / "evaluation" / "pictures" / "0001-first").iterdir())
    assert len(kept) == 5
    assert len({arrays.read_rgb(path).tobytes() for path in kept}) == 5


def test_pictures_of_an_earlier_evaluation_are_replaced(
    cli: Command, at_home: Path, painted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancolor.evaluation import measurement

    kept, mine = (
        at_home / "evaluation" / "pictures",
        ("0001-first/notes.txt", "mine.png", "other-run/x.png"),
    )
    common = ("--dataset", painted, "--split", "all", "--save-pictures", "--no-perceptual")
    assert cli("evaluate", 1, *common, "--limit", 6).exit_code == 0
    before = sorted((kept / "0001-first").rglob("*.png"))
    for name in mine:
        (kept / name).parent.mkdir(exist_ok=True)
        (kept / name).write_text("mine")
    (at_home / "far").mkdir()
    (at_home / "far" / "away.png").write_text("mine")
    (kept / "0001-first" / "link").symlink_to(at_home / "far")

    with monkeypatch.context() as patch:
        patch.setattr(measurement, "write", fail)
        assert cli("evaluate", 1, *common, "--limit", 2).exit_code == 1
    assert sorted((kept / "0001-first").rglob("*.png")) == before  # nothing is lost when it fails

    result = cli("evaluate", 1, *common, "--limit", 2)
    assert result.exit_code == 0, result.stderr
    after = [path for path in (kept / "0001-first").rglob("*.png") if path.parent.name != "link"]
    assert len(before) == 6 and len(after) == 2
    assert (
        all((kept / name).read_text() == "mine" for name in mine)
        and (at_home / "far" / "away.png").exists()
    )
    assert not [name for name in os.listdir(at_home / "evaluation") if name.startswith(".")]


def fail(*arguments: object) -> None:
    raise DataError("the disk is full")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_several_processes_are_refused(
    cli: Command, at_home: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli(command, 1)
    assert result.exit_code == 2 and os.listdir(at_home) == ["runs"]
    assert (
        result.stderr
        == f"Error: {command} must run in one process, got 2; start it without torchrun\n"
    )


def test_a_checkpoint_file_is_a_run(cli: Command, at_home: Path) -> None:
    result = cli("evaluate", "runs/0001-first/best.pt", "--limit", 1, "--no-perceptual")
    assert result.exit_code == 0, result.stderr
    assert "0001-first-best" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "Missing argument 'RUN...'", 2),
        ([7], "the run must be a path, a name or a number", 1),
        (["runs/0003-empty"], "last.pt must be a checkpoint, got nothing there", 1),
        ([1, "--dataset", "nowhere"], "nowhere", 1),
        ([1, "--size", 8], "--size", 2),
        (
            [1, "--feature-weights", "nowhere.pt"],
            "feature weights must be imagenet, none or a file, got nowhere.pt",
            1,
        ),
        ([1, "--feature-weights", "file"], "file must be a state_dict saved by torch.save", 1),
        (
            [1, "--feature-weights", "runs/0001-first"],
            "must hold a frozen VGG16 of five blocks, got none",
            1,
        ),
        ([1, "--out", "file"], "file must be a writable folder", 1),
    ],
    ids=[
        "no run",
        "unknown run",
        "no checkpoint",
        "no dataset",
        "small size",
        "no weights",
        "no state_dict",
        "too few blocks",
        "out is a file",
    ],
)
def test_bad_input_is_one_line(
    cli: Command, at_home: Path, arguments: list[object], message: str, code: int
) -> None:
    (at_home / "runs" / "0003-empty").mkdir()
    (at_home / "file").write_text("in the way")
    result = cli("evaluate", *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")


def test_unwritable_out_is_said_before_the_work(
    cli: Command, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancolor.evaluation import measurement

    monkeypatch.setattr(
        measurement, "evaluate", lambda *args, **options: pytest.fail("work was begun")
    )
    (at_home / "file").write_text("in the way")
    result = cli("evaluate", 1, "--out", "file/deeper")
    assert result.exit_code == 1 and "choose another with --out" in result.stderr
