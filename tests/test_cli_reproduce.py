"""`gancolor reproduce`: the rows of a paper, one after another, resumable, and the table beside the
paper's.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gancolor.cli.reproduce import parse_weights
from gancolor.errors import ConfigError, TrainingError
from gancolor.evaluation import measurement
from gancolor.papers import reproduction
from gancolor.storage import checkpoint
from gancolor.training import loop

if TYPE_CHECKING:
    from click.testing import Result

    from gancolor.config import TrainConfig

Command = Callable[..., "Result"]

TINY = (
    *(
        "--image-size",
        32,
        "--batch-size",
        2,
        "--val-pictures",
        2,
        "--log-every",
        1,
        "--backbone-weights",
        "none",
    ),
    *("--workers", 0, "--device", "cpu", "--precision", "fp32"),
)
SMALL_GAN = ("--width", 4, "--levels", 0, "--frozen-blocks", 2, "--discriminator-units", 8)
ONE_ROW = ("poster", "--dataset", "food", "--lr", "2e-4", "--beta1", 0.5, *TINY, *SMALL_GAN)
TWO_ROWS = (*ONE_ROW, "--beta1", 0.9)
NAMES = ("0001-food-lr-2e-4-beta1-0.5", "0002-food-lr-2e-4-beta1-0.9")


@pytest.fixture
def sets(pictures: Path, tmp_path: Path) -> Path:
    """Return a datasets root with the sets food and natural."""
    root = tmp_path / "sets"
    shutil.copytree(pictures, root / "natural")
    shutil.copytree(pictures, root / "food")
    return root


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return (row, resumed run) of every training that begins from now on."""
    begun: list[tuple[str, str]] = []
    train = reproduction.train

    def spy(config: TrainConfig, *, runs_root: Path, resume: Path | None) -> Path:
        begun.append((str(config.name), resume.name if resume else ""))
        return train(config, runs_root=runs_root, resume=resume)

    monkeypatch.setattr(reproduction, "train", spy)
    return begun


def read_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "table.jsonl").read_text().splitlines()]


def logged_steps(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "images_per_second" in line]


def stamps(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


def step_of(out: Path, run: str) -> int:
    step: int = json.loads((out / run / "report.json").read_text())["step"]
    return step


# --- a whole table ---


@pytest.mark.slow
def test_the_poster_beside_the_paper(
    cli: Command, sets: Path, tmp_path: Path, trainings: list[tuple[str, str]]
) -> None:
    out = tmp_path / "out"
    arguments = ("reproduce", *TWO_ROWS, "--datasets-root", sets, "--steps", 3, "--out", out)
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in out.glob("[0-9]*")) == list(NAMES)
    assert [name for name, _ in trainings] == ["food-lr-2e-4-beta1-0.5", "food-lr-2e-4-beta1-0.9"]

    gray, first, second = read_rows(out)
    last = json.loads((out / NAMES[0] / "log.jsonl").read_text().splitlines()[-2])
    assert (first["run"], first["steps"], first["lr"], first["beta1"]) == (NAMES[0], 3, 2e-4, 0.5)
    assert [first[key] for key in ("D_loss", "G_loss", "mae_training")] == [
        last[key] for key in ("D_loss", "G_loss", "MAE")
    ]
    assert [first[f"{key}_paper"] for key in ("D_loss", "G_loss", "mae")] == [1.14, 20.90, 0.70]
    assert [second[f"{key}_paper"] for key in ("D_loss", "G_loss", "mae")] == [1.16, 21.60, 0.69]
    measured = [
        json.loads(line)
        for line in (out / "evaluation-food" / "metrics.jsonl").read_text().splitlines()
    ]
    values = {line["run"]: line["mae_rgb"] / 127.5 for line in measured}
    assert first["mae"] == pytest.approx(values[NAMES[0]], rel=1e-4)
    assert gray["mae"] == pytest.approx(values["gray"], rel=1e-4) and gray["D_loss"] is None
    assert (gray["row"], first["row"]) == ("food, gray picture", "food-lr-2e-4-beta1-0.5")

    with (out / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["G_loss_paper"] for row in table[1:]] == ["20.9", "21.6"]
    page = (out / "table.md").read_text()
    for text in (page, result.stdout):
        assert "leaves room for an L1 of about 0.20" in text
        assert "data: 1000 of food from free-download sites; here " in text
        assert "--image-size: 256; here 32" in text and "here random, never trained" in text
        assert "G_loss (paper)" in text and "split test" in text
    assert not list(out.glob(".*.part"))

    # again: nothing is trained, the tables are as they were
    before, texts = [stamps(out / name) for name in NAMES], (out / "table.jsonl").read_text()
    trainings.clear()
    again = cli(*arguments)
    assert again.exit_code == 0 and "row 2 of 2, food-lr-2e-4-beta1-0.9: finished" in again.stderr
    assert trainings == [] and [stamps(out / name) for name in NAMES] == before
    assert (out / "table.jsonl").read_text() == texts

    # more steps: both go on, as a run may
    assert cli(*arguments, "--steps", 4).exit_code == 0
    assert [resumed for _, resumed in trainings] == list(NAMES)
    assert [step_of(out, name) for name in NAMES] == [4, 4] and logged_steps(out / NAMES[0]) == [
        1,
        2,
        3,
        4,
    ]


def test_a_data_set_that_the_paper_has_not(cli: Command, pictures: Path, tmp_path: Path) -> None:
    row = ("--lr", "2e-3", "--steps", 1, "--out", tmp_path / "out")
    result = cli("reproduce", "poster", "--dataset", pictures, *row, *TINY, *SMALL_GAN)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "0001-pictures-lr-2e-3-beta1-0.5").is_dir()
    assert "natural-lr-2e-3-beta1-0.5: D_loss 0.69, G_loss 23.90, mae 0.22" in result.stdout
    assert "G_loss_paper" not in read_rows(tmp_path / "out")[1]


@pytest.mark.slow
@pytest.mark.usefixtures("small_embeddings")
def test_the_portraits_three_embeddings(cli: Command, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli(
        "reproduce", "portrait", "--dataset", pictures, "--epochs", 0.2, *TINY, "--out", out
    )
    assert result.exit_code == 0, result.stderr
    names = ["0001-vggface", "0002-vgg19", "0003-inception-resnet-v2"]
    assert sorted(path.name for path in out.glob("[0-9]*")) == names
    rows = {row["row"]: row for row in read_rows(out)}
    assert list(rows) == ["gray picture", "vggface", "vgg19", "inception-resnet-v2", "original"]
    assert (rows["original"]["colorfulness_paper"], rows["vggface"]["mse_rgb_paper"]) == (
        41.87,
        368.57,
    )
    assert rows["gray picture"]["colorfulness"] < 1 < rows["original"]["colorfulness"]
    difference = rows["vgg19"]["colorfulness"] - rows["original"]["colorfulness"]
    assert rows["vgg19"]["delta_colorfulness"] == pytest.approx(difference, abs=1e-4)
    assert "outputs of the embedding: 2622; here 6 (vggface)" in result.stdout
    assert "from 2.6 million faces; here random, never trained (vggface)" in result.stdout
    assert "from ImageNet; here random, never trained (vgg19, inception-resnet-v2)" in result.stdout
    assert "the tables are of 799" in result.stdout
    settings = json.loads((out / names[1] / "config.json").read_text())["settings"]
    assert (settings["embedding"], settings["epochs"], settings["loss"]) == ("vgg19", 0.2, "mse")


@pytest.mark.usefixtures("small_embeddings")
@pytest.mark.parametrize("paper", ["koalarization", "face", "deep-cnn"])
def test_smoke_says_that_its_figures_mean_nothing(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paper: str
) -> None:
    monkeypatch.setenv("GANCOLOR_RUNS", str(tmp_path / "runs"))
    few = (
        "--steps",
        2,
        "--image-size",
        32,
        "--val-pictures",
        2,
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    result = cli("reproduce", paper, "--smoke", "--dataset", pictures, *few)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "runs" / f"reproduce-{paper}-smoke"
    assert (out / f"0001-{paper}" / "report.json").exists()
    assert (
        "its figures mean nothing" in result.stdout
        and "its figures mean nothing" in (out / "table.md").read_text()
    )
    assert all(row["smoke"] for row in read_rows(out))
    assert ("45.87 %" in result.stdout) == (paper == "koalarization")


# --- interrupted ---


@pytest.mark.slow
def test_it_goes_on_inside_the_row_where_it_stopped(
    cli: Command,
    sets: Path,
    tmp_path: Path,
    trainings: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    arguments = ("reproduce", *TWO_ROWS, "--datasets-root", sets, "--steps", 4, "--out", out)
    step, steps = loop.train_step, 0

    def stop_in_row_two(*rest: Any, **named: Any) -> loop.StepReport:
        nonlocal steps
        steps += 1
        if steps == 6:
            signal.raise_signal(signal.SIGTERM)
        return step(*rest, **named)

    monkeypatch.setattr(loop, "train_step", stop_in_row_two)
    stopped = cli(*arguments)
    assert stopped.exit_code == 143
    assert "go on with the same command" in stopped.stderr and not (out / "table.md").exists()
    assert step_of(out, NAMES[0]) == 4 and not (out / NAMES[1] / "report.json").exists()
    before = stamps(out / NAMES[0])

    assert "food-lr-2e-4-beta1-0.9: goes on; 4 steps" in cli(*arguments, "--dry-run").stdout
    trainings.clear()
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    assert trainings == [("food-lr-2e-4-beta1-0.9", NAMES[1])]  # row 1 is not trained again
    assert stamps(out / NAMES[0]) == before
    assert steps == 8 and logged_steps(out / NAMES[1]) == [1, 2, 3, 4]
    assert [row.get("steps") for row in read_rows(out)] == [None, 4, 4]


def test_ctrl_c_while_measuring_says_how_to_go_on(
    cli: Command,
    sets: Path,
    tmp_path: Path,
    trainings: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = (
        "reproduce",
        *ONE_ROW,
        "--datasets-root",
        sets,
        "--steps",
        1,
        "--out",
        tmp_path / "out",
    )

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measurement, "evaluate", interrupt)
        stopped = cli(*arguments)
    assert stopped.exit_code == 130 and len(trainings) == 1
    assert "what is trained is kept; go on with the same command as before" in stopped.stderr
    (tmp_path / "out" / NAMES[0] / "log.jsonl").unlink()
    result = cli(*arguments)
    assert result.exit_code == 0 and len(trainings) == 1
    assert f"{NAMES[0]}/log.jsonl must hold lines of training steps" in result.stderr
    row = read_rows(tmp_path / "out")[1]
    assert row["D_loss"] is None and row["mae"] > 0


def test_a_kill_before_the_first_checkpoint_leaves_no_row(
    cli: Command, sets: Path, tmp_path: Path, trainings: list[tuple[str, str]]
) -> None:
    out = tmp_path / "out"
    (out / NAMES[0]).mkdir(parents=True)
    result = cli("reproduce", *ONE_ROW, "--datasets-root", sets, "--steps", 1, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert trainings == [("food-lr-2e-4-beta1-0.5", "")]
    assert step_of(out, "0002-food-lr-2e-4-beta1-0.5") == 1


@pytest.mark.slow
def test_rows_that_end_by_the_clock_are_finished_too(
    cli: Command, sets: Path, tmp_path: Path, trainings: list[tuple[str, str]]
) -> None:
    arguments = (
        "reproduce",
        *TWO_ROWS,
        "--datasets-root",
        sets,
        "--out",
        tmp_path / "out",
        "--time-limit",
    )
    assert cli(*arguments, "0.2s").exit_code == 0 and len(trainings) == 2
    assert cli(*arguments, "0.2s").exit_code == 0 and len(trainings) == 2
    longer = cli(*arguments, "1h", "--dry-run")
    assert longer.stdout.count("goes on; 3600 s") == 2, longer.stderr
    fewer = cli(*arguments, "1h", "--steps", 1, "--dry-run")
    assert fewer.stdout.count("finished; 1 steps or 3600 s") == 2


@pytest.mark.slow
def test_an_interrupted_row_has_only_the_rest_of_its_time(
    cli: Command, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("reproduce", *TWO_ROWS, "--datasets-root", sets, "--out", out)
    assert cli(*arguments, "--steps", 2).exit_code == 0
    seconds = {name: checkpoint.load(out / name / "last.pt")["seconds"] for name in NAMES}
    limits = {}

    def train(config: TrainConfig, *, runs_root: Path, resume: Path | None) -> Path:
        assert resume is not None and config.time_limit is not None
        limits[resume.name] = config.time_limit
        (resume / "report.json").write_text(json.dumps({"step": 3, "seconds": 3600.0}))
        return resume

    monkeypatch.setattr(reproduction, "train", train)
    assert cli(*arguments, "--time-limit", "1h").exit_code == 0
    assert min(seconds.values()) > 0 and limits == {
        name: 3600 - spent for name, spent in seconds.items()
    }
    saved = json.loads((out / NAMES[0] / "config.json").read_text())["settings"]
    assert saved["time_limit"] == 3600  # all of it: what the row was given


# --- what goes wrong ---


@pytest.mark.slow
def test_a_row_that_is_there_with_other_settings(cli: Command, sets: Path, tmp_path: Path) -> None:
    arguments = (
        "reproduce",
        *TWO_ROWS,
        "--datasets-root",
        sets,
        "--steps",
        1,
        "--out",
        tmp_path / "out",
    )
    assert cli(*arguments).exit_code == 0
    before = stamps(tmp_path / "out")
    result = cli(*arguments, "--seed", 5, "--image-size", 48)
    assert result.exit_code == 2 and "--out another" in result.stderr
    assert (
        "--image-size (saved 32, given 48)" in result.stderr
        and "--seed (saved 0, given 5)" in result.stderr
    )
    assert stamps(tmp_path / "out") == before


def test_missing_pictures_are_said_for_all_rows_before_any_training(
    cli: Command, tmp_path: Path
) -> None:
    result = cli(
        "reproduce",
        "poster",
        *TINY,
        "--datasets-root",
        tmp_path / "none",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "the dataset natural must be in the folder" in result.stderr
    assert "the dataset food must be in the folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pix2pix",), "is not one of 'poster', 'koalarization'"),
        (("poster", "--preset", "gan"), "No such option"),
        (("poster", "--lr", "1e-3"), "--lr must be one of the paper's 2e-4, 2e-3, got 1e-3"),
        (
            ("portrait", "--embedding", "vgg16"),
            "--embedding must be one of the paper's vggface, vgg19",
        ),
        (("face", "--lr", "1e-3", "--lr", "1e-4"), "--lr must be given once, got 2 values"),
        (
            ("face", "--backbone-weights", "vgg19=none"),
            "weights must be of vgg16, got some of vgg19",
        ),
        (
            ("face", "--backbone-weights", "resnet=none"),
            "--backbone-weights must name one of vgg16",
        ),
    ],
)
def test_bad_options(cli: Command, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = cli("reproduce", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2 and words in result.stderr
    assert not (tmp_path / "out").exists()


def test_weights_are_checked_before_any_training(cli: Command, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_text("not weights")
    arguments = ("reproduce", "portrait", "--dataset", sets / "food", "--out", tmp_path / "out")
    fit = ("--backbone-weights", "none", "--backbone-weights")
    result = cli(*arguments, *fit, f"vgg19={tmp_path / 'net.pt'}")
    assert result.exit_code == 1 and "net.pt must be a state_dict" in result.stderr
    assert not list((tmp_path / "out").glob("[0-9]*"))
    result = cli(*arguments, *fit, "vggface=imagenet")
    assert result.exit_code == 1 and "VGG-Face's weights must be a file or none" in result.stderr


def test_feature_weights_are_checked_before_any_training(
    cli: Command, sets: Path, tmp_path: Path, trainings: list[tuple[str, str]]
) -> None:
    result = cli(
        *("reproduce", *TWO_ROWS, "--datasets-root", sets, "--out", tmp_path / "out"),
        *("--feature-weights", "nowhere.pt"),
    )
    assert result.exit_code == 1 and "--feature-weights" in result.stderr and trainings == []


def test_a_folder_that_cannot_be_written(cli: Command, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli(
        "reproduce", *TWO_ROWS, "--datasets-root", sets, "--out", tmp_path / "file" / "out"
    )
    assert (
        result.exit_code == 1
        and "must be a writable folder, got 'Not a directory'" in result.stderr
    )


def test_a_row_that_fails_does_not_stop_the_others(
    cli: Command, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = reproduction.train

    def diverge(config: TrainConfig, **named: Any) -> Path:
        if config.beta1 == 0.5:
            raise TrainingError("D_loss must be a finite number, got nan")
        return train(config, **named)

    monkeypatch.setattr(reproduction, "train", diverge)
    result = cli(
        "reproduce", *TWO_ROWS, "--datasets-root", sets, "--steps", 1, "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert (
        "1 of 2 rows failed: food-lr-2e-4-beta1-0.5: D_loss must be a finite number, got nan"
        in result.stderr
    )
    assert [row["row"] for row in read_rows(tmp_path / "out")] == [
        "food, gray picture",
        "food-lr-2e-4-beta1-0.9",
    ]
    assert "got nan" in (tmp_path / "out" / "table.md").read_text()


def test_the_dry_run_does_nothing(
    cli: Command, sets: Path, tmp_path: Path, trainings: list[tuple[str, str]]
) -> None:
    result = cli(
        "reproduce",
        *TWO_ROWS,
        "--datasets-root",
        sets,
        "--steps",
        7,
        "--out",
        tmp_path / "out",
        "--dry-run",
    )
    assert result.exit_code == 0 and trainings == [] and not (tmp_path / "out").exists()
    assert result.stdout.splitlines()[0].startswith(
        "food-lr-2e-4-beta1-0.5: to be trained; 7 steps of 2 at 32 pixels"
    )


def test_weights_by_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_weights(("vggface=a/b=c.pt", "none", "vgg19=imagenet")) == {
        "vggface": "a/b=c.pt",
        "": "none",
        "vgg19": "imagenet",
    }
    monkeypatch.chdir(tmp_path)
    Path("lr=3.pt").touch()
    assert parse_weights(("lr=3.pt",)) == {"": "lr=3.pt"}
    for values, words in (
        (("none", "imagenet"), "must be given once for all networks, got none and imagenet"),
        (("vgg16=none", "vgg16=none"), "must be given once for vgg16"),
        (("vgg16=",), "must be imagenet, none or a file's path"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_weights(values)
