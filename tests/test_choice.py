"""Which model colours, by the one rule for the command line and Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_models
import torch

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import CheckpointError
from gancolor.hub import choice
from gancolor.images import arrays

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]


@pytest.fixture
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a small model in the place of the one that comes with gancolor, and work in a folder of
    its own.
    """
    folder = tmp_path / "package" / "general"
    monkeypatch.setattr(choice, "GENERAL_FOLDER", folder)
    small_models.write(folder / choice.GENERAL_FILE, "everything", seed=3)
    (folder / choice.GENERAL_CARD).write_text("# general\n\nColours are guesses.\n")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "old" / "a.png"
    arrays.write_rgb(path, np.full((40, 48, 3), 120, np.uint8))
    return path


def test_without_runs_general_colours(general: Path) -> None:
    found = choice.choose(None, Path("runs"))
    assert (found.name, found.path) == ("general", general / "general.safetensors")
    assert (
        found.sentence()
        == "colouring with general: it comes with gancolor, and there is no run under runs"
    )
    assert not found.own


def test_a_run_on_generated_pictures_is_never_chosen_by_itself(general: Path) -> None:
    root = Path("runs")
    small_models.make_run(root, "0001-demo", "still-life")
    found = choice.choose(None, root)
    assert found.name == "general"
    assert "none of the runs under runs was trained on photographs" in found.sentence()
    small_models.make_run(root, "0002-mine", "holidays")
    small_models.make_run(root, "0003-demo", "still-life")
    (root / "0004-empty").mkdir()
    found = choice.choose(None, root)
    assert (found.name, found.own) == ("0002-mine", True)
    assert found.why == "the newest run under runs that was trained on photographs"
    assert choice.newest_run(root).name == "0003-demo"


def test_general_is_listed_and_shown(general: Path, cli: Command) -> None:
    assert cli("models", "show", "general").stdout == "# general\n\nColours are guesses.\n\n"
    (line,) = cli("models", "list").stdout.splitlines()[2:]
    assert (
        line.startswith("general")
        and "comes with gancolor: regression, everything at 32 px" in line
    )
    (general / "card.md").unlink()
    assert cli("models", "show", "general").stdout == "# A card\n\n"  # that in its header
    (general / "general.safetensors").unlink()
    assert "comes with gancolor: missing, install it again" in cli("models", "list").stdout
    assert cli("models", "show", "general").exit_code == 1


def test_what_is_named_wins(general: Path) -> None:
    root = Path("runs")
    small_models.make_run(root, "0001-demo", "still-life")
    small_models.make_run(root, "0002-general", "holidays")
    assert choice.choose("1", root).name == "0001-demo"
    assert choice.choose("general", root).path == general / "general.safetensors"
    assert choice.choose("0002-general", root).path == root / "0002-general"
    assert choice.choose("runs/0001-demo/best.pt", root).path == root / "0001-demo" / "best.pt"
    with pytest.raises(CheckpointError, match="a path, a name or a number"):
        choice.choose("9", root)


def test_a_run_whose_settings_cannot_be_read_is_left_out_and_said(
    general: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_models.make_run(Path("runs"), "0001-mine")
    (run / "config.json").write_text("{")
    assert choice.choose(None, Path("runs")).name == "general"
    assert "runs/0001-mine is not taken by itself" in caplog.text


def test_an_installation_without_its_model_is_one_line(
    general: Path, cli: Command, picture: Path
) -> None:
    (general / "general.safetensors").unlink()
    result = cli("sample", picture, "--out", "new")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"Error: {general / 'general.safetensors'} must be the model that comes with gancolor, got"
        " nothing there; install gancolor again, or name a run, a file or an address with --run"
    ]
    assert not Path("new").exists()
    small_models.make_run(Path("runs"), "0001-mine")
    assert cli("sample", picture, "--out", "new").exit_code == 0


def test_a_folder_is_coloured_without_any_run_and_the_first_line_says_by_what(
    general: Path, cli: Command, picture: Path
) -> None:
    result = cli("sample", picture.parent, "--out", "new")
    assert result.exit_code == 0, result.stderr
    assert (
        result.stdout.splitlines()[0]
        == "colouring with general: it comes with gancolor, and there is no run under runs"
    )
    expected = Colorizer.load()(picture)
    assert np.array_equal(arrays.read_rgb(Path("new") / "a.png"), expected)
    assert "general step 7" in (Path("new") / "a.png").read_bytes().decode("latin-1")

    small_models.make_run(Path("runs"), "0001-mine", seed=5)
    result = cli("sample", picture.parent, "--out", "other")
    assert result.stdout.splitlines()[0].startswith(
        "colouring with 0001-mine: the newest run under runs that was"
    )
    assert np.array_equal(arrays.read_rgb(Path("other") / "a.png"), Colorizer.load()(picture))
    result = cli("sample", picture.parent, "--out", "again", "--run", "general")
    assert result.stdout.splitlines()[0] == "colouring with general: it comes with gancolor"
    assert np.array_equal(arrays.read_rgb(Path("again") / "a.png"), expected)


def test_python_follows_the_same_rule(general: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Colorizer.load().name == Colorizer.load("general").name == "general step 7"
    small_models.make_run(Path("runs"), "0001-demo", "still-life")
    assert Colorizer.load().name == "general step 7"
    small_models.make_run(Path("elsewhere"), "0002-mine")
    assert Colorizer.load(runs_root="elsewhere").name == "0002-mine step 7"
    monkeypatch.setenv("GANCOLOR_RUNS", "elsewhere")
    assert Colorizer.load().name == Colorizer.load("2").name == "0002-mine step 7"


def test_without_input_the_newest_run_shows_its_pictures_and_general_needs_a_place(
    general: Path, cli: Command, painted: Path
) -> None:
    result = cli("sample")
    assert result.exit_code == 1 and "runs must hold a trained run" in result.stderr
    small_models.make_run(Path("runs"), "0001-mine", str(painted))
    small_models.make_run(Path("runs"), "0002-demo", "still-life")
    result = cli("sample", "--count", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "colouring with 0002-demo: the newest run under runs"
    assert Path("runs/0002-demo/samples/sheet.png").is_file()
    result = cli("sample", "--run", "general", "--dataset", painted)
    assert result.exit_code == 2 and "--out must name a folder" in result.stderr
    result = cli("sample", "--run", "general", "--dataset", painted, "--count", 1, "--out", "shown")
    assert result.exit_code == 0, result.stderr
    assert Path("shown/sheet.png").is_file()
    assert sorted(path.name for path in general.iterdir()) == ["card.md", "general.safetensors"]


def test_evaluate_takes_general(general: Path, cli: Command, painted: Path) -> None:
    result = cli(
        "evaluate",
        "general",
        "--dataset",
        painted,
        "--split",
        "all",
        "--limit",
        2,
        "--no-perceptual",
    )
    assert result.exit_code == 0, result.stderr
    assert "run general: general.safetensors of step 7" in result.stdout


def test_a_training_starts_from_general(general: Path, cli: Command, painted: Path) -> None:
    small = (
        "--workers",
        0,
        "--precision",
        "fp32",
        "--batch-size",
        2,
        "--val-pictures",
        2,
        "--image-size",
        32,
    )
    shape = ("--preset", "regression", "--width", 4, "--levels", 1, "--frozen-blocks", 5)
    result = cli("train", "--dataset", painted, "--init", "general", "--steps", 1, *shape, *small)
    assert result.exit_code == 0, result.stderr
    (run,) = Path("runs").iterdir()  # of photographs
    assert choice.choose(None, Path("runs")).name == run.name


@pytest.mark.parametrize(("given", "factor"), [((), 1.3), (("--saturation", 1.1), 1.1)])
def test_a_training_takes_over_the_factor_of_colours(
    cli: Command, painted: Path, tmp_path: Path, given: tuple[str | float, ...], factor: float
) -> None:
    model = small_models.write(tmp_path / "bold.safetensors", saturation=1.3)
    options = ("--init", model, "--backbone-weights", "none", *given)
    result = cli("train", "--dataset", painted, *options, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert f'"saturation": {factor}' in result.stdout


@pytest.mark.parametrize("kept", [True, False])
def test_few_pictures_do_not_measure_anew_what_the_network_knows(
    cli: Command, painted: Path, tmp_path: Path, kept: bool
) -> None:
    model = small_models.write(tmp_path / "known.safetensors")
    options = ("--preset", "tune-5", "--init", model, "--steps", 2, "--batch-size", 2)
    more = ("--backbone-weights", "none", "--workers", 0, "--runs-root", tmp_path / "runs")
    norm = () if kept else ("--train-norm",)
    result = cli("train", "--dataset", painted, *options, *more, *norm)
    assert result.exit_code == 0, result.stderr
    (run,) = (tmp_path / "runs").iterdir()
    before, after = (
        {
            name: value
            for name, value in Colorizer.load(path).generator.state_dict().items()
            if "running" in name and "encoder" not in name
        }
        for path in (model, run)
    )
    assert before.keys() == after.keys() and before
    same = [torch.equal(before[name], after[name]) for name in before]
    assert all(same) if kept else not any(same)
