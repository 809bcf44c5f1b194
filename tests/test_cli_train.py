"""`gancolor train`: every option does what its name says, run directories, sweeps and the dry run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancolor.cli.train import expand_sweep
from gancolor.data import loader
from gancolor.models import PatchDiscriminator, count_parameters
from gancolor.models.backbones import VGG16
from gancolor.storage import checkpoint

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

# The smallest networks; everything that a test is not about.
TINY = (
    *("--image-size", 32, "--batch-size", 2, "--width", 4, "--levels", 1, "--frozen-blocks", 2),
    *("--backbone-weights", "none", "--val-pictures", 2),
    *("--workers", 0, "--device", "cpu", "--precision", "fp32"),
)
REGRESSION = ("train", "--preset", "regression", *TINY)


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return the (file name, step) of every checkpoint that is written from now on."""
    seen: list[tuple[str, int]] = []
    save = checkpoint.save

    def spy(path: Path, content: dict[str, Any], *rest: Any, **options: Any) -> None:
        seen.append((path.name, content["step"]))
        save(path, content, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", spy)
    return seen


def train(
    cli: Command, root: Path, *arguments: object, command: tuple[object, ...] = REGRESSION
) -> Path:
    """Train in `root` and return the run directory that the command prints last."""
    result = cli(*command, "--runs-root", root, *arguments)
    assert result.exit_code == 0, result.stderr
    return Path(result.stdout.strip().splitlines()[-1])


def report(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "report.json").read_text())
    return content


def saved_settings(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "config.json").read_text())["settings"]
    return content


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the trained part of a run's generator."""
    generator: dict[str, torch.Tensor] = checkpoint.load(run / "last.pt")["generator"]
    return generator


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- a whole run ---


def test_a_run_leaves_everything_behind(cli: Command, pictures: Path, tmp_path: Path) -> None:
    phases = ("--warmup", 0.25, "--discriminator-warmup", 0.25, "--ramp", 0.5)
    rhythm = ("--steps", 4, "--log-every", 1, "--validate-every", 2, "--checkpoint-every", 2)
    result = cli(
        "train", *TINY, *phases, *rhythm, "--dataset", pictures, "--runs-root", tmp_path / "runs"
    )
    assert result.exit_code == 0, result.stderr
    run = tmp_path / "runs" / "0001-gan-pictures"
    assert result.stdout.splitlines() == [str(run)]  # the rest is news, on stderr
    names = {path.name for path in run.iterdir()}
    wanted = {
        "config.json",
        "log.jsonl",
        "last.pt",
        "last-1.pt",
        "best.pt",
        "preview",
        "card.md",
        "report.json",
    }
    assert {name for name in names if not name.startswith("events.out")} == wanted
    assert any(name.startswith("events.out.") for name in names)
    assert [path.name for path in sorted((run / "preview").iterdir())] == [
        "step-000002.png",
        "step-000004.png",
    ]

    numbers = report(run)
    assert {"step", "seen", "seconds", "images_per_second", "val", "gray"} == set(numbers)
    assert (numbers["step"], numbers["seen"]) == (4, 8)
    keys = {"mae_rgb", "mse_rgb", "mae_unit", "mae_ab", "psnr", "ciede2000"}
    keys |= {"colorfulness", "colorfulness_truth", "delta_colorfulness", "spread_a", "spread_b"}
    assert set(numbers["val"]) == set(numbers["gray"]) == keys
    assert numbers["gray"]["colorfulness"] < 1 < numbers["gray"]["colorfulness_truth"]

    lines = {line["step"]: line for line in log(run) if "images_per_second" in line}
    assert list(lines) == [1, 2, 3, 4]
    assert "G_loss" in lines[1] and "D_loss" not in lines[1]  # the generator alone
    assert "D_loss" in lines[2] and "G_loss" not in lines[2]  # the discriminator alone
    assert "D_loss" in lines[3] and "G_loss" in lines[3]
    assert "random" in (run / "card.md").read_text()

    settings = saved_settings(run)
    assert (settings["preset"], settings["dataset"], settings["steps"]) == ("gan", str(pictures), 4)
    whole = json.loads((run / "config.json").read_text())
    assert whole["versions"]["torch"] == torch.__version__ and "gancolor" in whole["versions"]


def test_random_features_are_said_loudly_and_the_progress_is_told(
    cli: Command, tmp_path: Path
) -> None:
    result = cli(*REGRESSION, "--steps", 1, "--log-every", 1, "--runs-root", tmp_path)
    assert "Warning: backbone weights: none" in result.stderr and "RANDOM" in result.stderr
    assert re.search(r"^step 1/1 .* images/s", result.stderr, re.MULTILINE)
    assert "4000 pictures to train on, 2 held out" in result.stderr  # still-life is the default
    assert "cpu, float32" in result.stderr
    assert "best.pt is chosen by" in result.stderr


# --- how long, how often ---


def test_log_validate_and_checkpoint_every(
    cli: Command, tmp_path: Path, saves: list[tuple[str, int]]
) -> None:
    rhythm = ("--steps", 7, "--log-every", 2, "--validate-every", 3, "--checkpoint-every", 4)
    run = train(cli, tmp_path, *rhythm)
    assert [line["step"] for line in log(run) if "images_per_second" in line] == [2, 4, 6, 7]
    assert [line["step"] for line in log(run) if "val" in line] == [3, 6, 7]
    assert [path.name for path in sorted((run / "preview").iterdir())] == [
        f"step-{n:06d}.png" for n in (3, 6, 7)
    ]
    assert {step for name, step in saves if name == "last.pt"} == {4, 7}
    assert {step for name, step in saves if name == "best.pt"} <= {3, 6, 7}
    assert report(run)["step"] == 7


@pytest.mark.parametrize(("epochs", "batch", "steps"), [("0.5", 4, 3), ("1", 9, 2)])
def test_epochs(
    cli: Command, pictures: Path, tmp_path: Path, epochs: str, batch: int, steps: int
) -> None:
    run = train(cli, tmp_path, "--dataset", pictures, "--epochs", epochs, "--batch-size", batch)
    found = re.search(r"(\d+) to train on", (run / "card.md").read_text())
    assert found is not None and 16 <= int(found[1]) <= 22  # of 24
    assert steps == round(float(epochs) * int(found[1]) / batch)
    assert (report(run)["step"], report(run)["seen"]) == (steps, steps * batch)


def test_the_first_end_counts(cli: Command, tmp_path: Path) -> None:
    run = train(cli, tmp_path, "--steps", 1, "--epochs", 50, "--time-limit", "1h")
    assert report(run)["step"] == 1


@pytest.mark.slow
def test_time_limit_stops_with_a_checkpoint_and_a_report(cli: Command, tmp_path: Path) -> None:
    result = cli(*REGRESSION, "--time-limit", "0.5s", "--runs-root", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "the time is up" in result.stderr
    run = tmp_path / "0001-regression-still-life"
    steps = report(run)["step"]
    assert 1 <= steps < 4000
    assert checkpoint.load(run / "last.pt")["step"] == steps
    assert (run / "best.pt").exists()


# --- what is computed ---


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    cli: Command, tmp_path: Path
) -> None:
    first = weights(train(cli, tmp_path, "--steps", 1, "--seed", 3))
    again = weights(train(cli, tmp_path, "--steps", 1, "--seed", 3))
    other = weights(train(cli, tmp_path, "--steps", 1, "--seed", 4))
    assert same(first, again)
    assert first.keys() == other.keys() and not same(first, other)


def test_batch_size_and_image_size(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    batches = loader.batches

    def spy(*arguments: Any, **options: Any) -> Any:
        for batch in batches(*arguments, **options):
            shapes.append(tuple(batch.rgb.shape))
            yield batch

    monkeypatch.setattr(loader, "batches", spy)
    sizes = ("--batch-size", 3, "--image-size", 40)
    run = train(cli, tmp_path, *sizes, "--steps", 2, "--dataset", pictures)
    assert set(shapes) == {(3, 3, 40, 40)}
    assert report(run)["seen"] == 6


@pytest.mark.slow
def test_workers_change_the_processes_but_not_the_weights(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    plain = loader.DataLoader

    def spy(*arguments: Any, **options: Any) -> Any:
        counts.append(options["num_workers"])
        return plain(*arguments, **options)

    monkeypatch.setattr(loader, "DataLoader", spy)
    alone = weights(train(cli, tmp_path, "--steps", 2, "--dataset", pictures))
    assert counts == []
    helped = weights(train(cli, tmp_path, "--steps", 2, "--dataset", pictures, "--workers", 2))
    assert counts == [2]
    assert same(alone, helped)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision(cli: Command, tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    result = cli(*REGRESSION, "--precision", precision, "--steps", 1, "--runs-root", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert f"cpu, {str(dtype).removeprefix('torch.')};" in result.stderr
    content = checkpoint.load(tmp_path / "0001-regression-still-life" / "last.pt")
    frozen = content["backbone"]["features.0.weight"].dtype
    assert frozen == dtype
    assert {
        value.dtype for value in content["generator"].values() if value.is_floating_point()
    } == {torch.float32}


def test_presets_and_their_overrides_reach_the_run(cli: Command, tmp_path: Path) -> None:
    result = cli(
        "train", "--preset", "poster", *TINY, "--steps", 1, "--lambda", 7, "--runs-root", tmp_path
    )
    assert result.exit_code == 0, result.stderr
    settings = saved_settings(tmp_path / "0001-poster-still-life")
    assert (settings["preset"], settings["l1_space"], settings["ema"]) == ("poster", "rgb", 0.0)
    assert settings["l1_weight"] == 7.0
    lines = log(tmp_path / "0001-poster-still-life")
    assert {"D_loss", "G_loss", "MAE"} <= set(lines[0])  # no warm-up: all from the first step on


def test_device_cpu_is_used(cli: Command, tmp_path: Path) -> None:
    run = train(
        cli, tmp_path, "--steps", 1, "--device", "auto" if not torch.cuda.is_available() else "cpu"
    )
    assert saved_settings(run)["device"] in ("auto", "cpu")
    assert all(value.device.type == "cpu" for value in weights(run).values())


# --- where ---


def test_run_numbers_count_up_and_names_are_used(cli: Command, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for taken in ("0007-old", "0003-x", "notes", "3d-models"):
        (root / taken).mkdir(parents=True)
    assert train(cli, root, "--steps", 1).name == "0008-regression-still-life"
    assert train(cli, root, "--steps", 1, "--name", "fruit").name == "0009-fruit"


def test_the_variable_names_the_root_and_the_option_wins(
    cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANCOLOR_RUNS", str(tmp_path / "by-variable"))
    result = cli(*REGRESSION, "--steps", 1)
    assert result.stdout.strip() == str(tmp_path / "by-variable" / "0001-regression-still-life")
    assert train(cli, tmp_path / "by-option", "--steps", 1).parent == tmp_path / "by-option"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by-option", "by-variable"]


def test_without_either_runs_is_the_root(
    cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*REGRESSION, "--steps", 1)
    assert result.stdout.strip() == "runs/0001-regression-still-life"
    assert (tmp_path / result.stdout.strip() / "best.pt").exists()


def dry(cli: Command, *arguments: object) -> Result:
    return cli(*REGRESSION, "--dry-run", "--steps", 3, *arguments)


def test_datasets_root_and_its_variable(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in ("one", "two"):
        shutil.copytree(pictures, tmp_path / root / "food")
    for extra in range(5):
        shutil.copy(tmp_path / "two/food/fields/01.jpg", tmp_path / f"two/food/extra{extra}.jpg")

    def found(result: Result) -> int:
        assert result.exit_code == 0, result.stderr
        match = re.search(
            r"^pictures: (\d+) to train on, \d+ of (\d+) held out", result.stdout, re.MULTILINE
        )
        assert match is not None
        return int(match[1])

    monkeypatch.setenv("GANCOLOR_DATASETS", str(tmp_path / "one"))
    small = found(dry(cli, "--dataset", "food"))
    large = found(dry(cli, "--dataset", "food", "--datasets-root", tmp_path / "two"))
    assert small < large


# --- sweeps ---


def test_a_sweep_is_one_run_each_and_names_tell_the_values(
    cli: Command, pictures: Path, tmp_path: Path
) -> None:
    spaced = pictures.rename(tmp_path / "my pictures")
    several = ("--lr", "1e-3", "--lr", "2e-4", "--beta1", "0.9", "--dataset", spaced)
    result = cli(*REGRESSION, *several, "--steps", 1, "--runs-root", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    runs = sorted((tmp_path / "runs").iterdir())
    names = ["0001-regression-my-pictures-lr-0.001", "0002-regression-my-pictures-lr-0.0002"]
    assert [run.name for run in runs] == names
    assert result.stdout.splitlines() == [str(run) for run in runs]
    assert [saved_settings(run)["lr"] for run in runs] == [1e-3, 2e-4]
    assert [saved_settings(run)["beta1"] for run in runs] == [0.9, 0.9]
    assert not same(weights(runs[0]), weights(runs[1]))


def test_a_sweep_is_the_product_of_what_was_repeated() -> None:
    given = {
        "lr": (2e-4, 2e-3),
        "beta1": (0.5, 0.9),
        "l1_weight": (10.0,),
        "preset": "poster",
        "name": "table",
    }
    configs = expand_sweep(given)
    assert [(config.lr, config.beta1) for config in configs] == [
        (2e-4, 0.5),
        (2e-4, 0.9),
        (2e-3, 0.5),
        (2e-3, 0.9),
    ]
    assert {config.l1_weight for config in configs} == {10.0}
    assert {config.l1_space for config in configs} == {"rgb"}
    assert [config.name for config in configs][:2] == [
        "table-lr-0.0002-beta1-0.5",
        "table-lr-0.0002-beta1-0.9",
    ]
    assert expand_sweep({"lr": (1e-3,)})[0].name is None


def test_a_lambda_sweep_says_lambda() -> None:
    names = [
        config.name for config in expand_sweep({"l1_weight": (0.0, 100.0), "dataset": "food/"})
    ]
    assert names == ["gan-food-lambda-0", "gan-food-lambda-100"]


# --- dry run ---


def test_a_dry_run_tells_everything_and_writes_nothing(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = cli("train", *TINY, "--dry-run", "--dataset", pictures, "--steps", 5, "--lr", "1e-3")
    assert result.exit_code == 0, result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    settings, rest = result.stdout.rsplit("\n}\n", 1)
    printed = json.loads(settings + "\n}")
    assert (printed["steps"], printed["lr"], printed["image_size"]) == (5, 1e-3, 32)
    assert re.search(r"^pictures: \d+ to train on, 1 of 1 held out", rest, re.MULTILINE)
    found = re.search(r"^parameters: ([\d,]+) trainable, ([\d,]+) frozen", rest, re.MULTILINE)
    judge = PatchDiscriminator(VGG16().freeze(), size=32)  # with its random projections
    assert found is not None and int(found[2].replace(",", "")) == count_parameters(judge)[1]
    assert re.search(r"^a step of 2: .* s \(.* images/s\)", rest, re.MULTILINE)
    assert re.search(r"^training: 5 steps, about .* minutes", rest, re.MULTILINE)
    assert re.search(r"^memory: \d+\.\d\d GiB", rest, re.MULTILINE)


def test_a_dry_run_of_a_sweep_describes_each_run(cli: Command, tmp_path: Path) -> None:
    result = dry(
        cli, "--lr", "1e-3", "--lr", "1e-4", "--runs-root", tmp_path / "runs", "--time-limit", "1m"
    )
    assert result.exit_code == 0, result.stderr
    assert re.findall(r'"lr": ([\d.]+)', result.stdout) == ["0.001", "0.0001"]
    assert not (tmp_path / "runs").exists()


# --- resuming ---


@pytest.mark.slow
def test_resuming_needs_the_run_only_and_goes_on_in_it(
    cli: Command, pictures: Path, tmp_path: Path
) -> None:
    whole = train(cli, tmp_path / "whole", "--dataset", pictures, "--steps", 4)
    run = train(cli, tmp_path / "parts", "--dataset", pictures, "--steps", 2)
    more = cli("train", "--resume", 1, "--steps", 4, "--runs-root", tmp_path / "parts")
    assert more.exit_code == 0, more.stderr
    assert more.stdout.strip() == str(run)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [run.name]
    assert report(run)["step"] == 4
    assert same(weights(run), weights(whole))


@pytest.mark.slow
def test_what_may_change_can_be_changed_when_resuming(
    cli: Command, tmp_path: Path, saves: list[tuple[str, int]]
) -> None:
    run = train(cli, tmp_path, "--steps", 1, "--preset", "gan")
    saves.clear()
    changed = (
        "--log-every",
        1,
        "--checkpoint-every",
        1,
        "--validate-every",
        2,
        "--workers",
        1,
        "--device",
        "cpu",
    )
    result = cli("train", "--resume", run, "--steps", 4, *changed)
    assert result.exit_code == 0, result.stderr
    assert {step for name, step in saves if name == "last.pt"} == {2, 3, 4}
    assert [line["step"] for line in log(run) if "val" in line] == [1, 2, 4]
