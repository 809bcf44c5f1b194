"""Bad input to `gancolor train`: one clear line on stderr, an exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import forkserver
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_settings import TINY

from gancolor import presets
from gancolor.data.source import split_of
from gancolor.storage import checkpoint
from gancolor.training import train
from gancolor.training.logbook import Logbook

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

SMALL: dict[str, Any] = {**TINY, "levels": 0, "frozen_blocks": 2}
FLAGS = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own: runs/ would appear there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train two steps, a checkpoint after each. Read only: `run` is the copy to work on."""
    root = tmp_path_factory.mktemp("trained")
    config = presets.build("regression", **SMALL, dataset=str(painted), steps=2, checkpoint_every=1)
    yield train(config, runs_root=root)
    shutil.rmtree(root)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the trained run as runs/0001-it; its files are links, to be replaced and
    never changed.
    """
    folder = tmp_path / "runs" / "0001-it"
    shutil.copytree(trained, folder, copy_function=os.link)
    for name in ("log.jsonl", "config.json"):
        (folder / name).unlink()
        shutil.copy(trained / name, folder)
    return folder


def attempt(cli: Command, *arguments: object) -> Result:
    return cli("train", "--preset", "regression", *FLAGS, "--steps", 1, *arguments)


def refused(result: Result, code: int, *words: str) -> str:
    """Assert one line that begins with Error, the exit code, no traceback and no output; return the
    line.
    """
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    *before, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert not any(line.startswith("Error: ") or "Traceback" in line for line in before)
    for word in words:
        assert word in last
    return last


def write_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content["settings"] |= changes
    path.write_text(json.dumps(content))


def rewrite(path: Path, **changes: Any) -> None:
    """Replace entries of a checkpoint; None removes them."""
    content = torch.load(path, weights_only=True) | changes
    path.unlink()
    torch.save({key: value for key, value in content.items() if value is not None}, path)


# --- settings ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lambda", "-1"], ["--lambda must be at least 0, got -1"]),
        (["--batch-size", "0"], ["--batch-size must be at least 1, got 0"]),
        (["--image-size", "31"], ["--image-size must be at least 32, got 31"]),
        (["--lr", "nan"], ["--lr must be a finite number, got nan"]),
        (["--lambda", "nan"], ["--lambda must be a finite number"]),
        (["--beta1", "inf"], ["--beta1 must be a finite number"]),
        (["--lr", "0"], ["--lr must be above 0"]),
        (["--lr", "1e-3", "--lr", "-1"], ["--lr must be above 0, got -1"]),  # the second of a sweep
        (["--steps", "0"], ["--steps must be at least 1"]),
        (["--epochs", "-2"], ["--epochs must be above 0"]),
        (["--time-limit", "0"], ["--time-limit must be above 0"]),
        (["--time-limit", "soon"], ["--time-limit", "90s, 20m or 1.5h", "'soon'"]),
        (["--time-limit", "9" * 400], ["--time-limit must be a finite number"]),
        (["--workers", "-1"], ["--workers must be at least 0"]),
        (["--batch-size", "many"], ["--batch-size", "'many'"]),
        (["--discriminator-units", "8,x"], ["--discriminator-units", "'8,x'"]),
        (["--precision", "int8"], ["--precision", "fp32"]),
        (["--precision", "fp16"], ["--precision must be fp32 or bf16 on the CPU"]),
        (["--device", "tpu"], ["--device must be auto, cpu, cuda"]),
        (["--preset", "artist"], ["artist", "gan", "poster", "regression"]),
        (["--condition", "sepia"], ["sepia", "gray", "edges"]),
        (["--name", "a/b"], ["--name must be letters"]),
        (["--lamda", "1"], ["--lamda", "--lambda"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["train", "dry"])
def test_wrong_settings(
    cli: Command, tmp_path: Path, arguments: list[str], words: list[str], mode: list[str]
) -> None:
    refused(attempt(cli, *arguments, *mode), 2, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_missing_gpu(cli: Command, tmp_path: Path, device: str) -> None:
    refused(
        attempt(cli, "--device", device), 2, f"got {device} without a usable GPU", "--device cpu"
    )
    assert not list(tmp_path.iterdir())


def test_a_batch_that_the_processes_cannot_share(
    cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    refused(
        attempt(cli, "--batch-size", 4),
        2,
        "--batch-size must be a multiple of the 3 processes, got 4",
    )
    assert not list(tmp_path.iterdir())


# --- datasets ---


@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["train", "dry"])
def test_an_unknown_dataset_names_the_known_ones(
    cli: Command, tmp_path: Path, mode: list[str]
) -> None:
    known = ("food", "natural", "people", "still-life")
    refused(attempt(cli, "--dataset", "fod", *mode), 1, "'fod'", *known)
    refused(attempt(cli, "--dataset", "./nowhere/at/all", *mode), 1, "'./nowhere/at/all'", *known)
    line = refused(
        attempt(cli, "--dataset", "food", *mode), 1, "food must be in the folder", "--datasets-root"
    )
    assert str(tmp_path / "datasets" / "food") in line and "GANCOLOR_DATASETS" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["train", "dry"])
def test_folders_without_a_good_picture(cli: Command, tmp_path: Path, mode: list[str]) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    (empty / "sub").mkdir(parents=True)
    (empty / "sub" / "notes.txt").write_text("words")
    broken.mkdir()
    for number in range(12):
        (broken / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(number))
    (tmp_path / "file.jpg").touch()
    refused(
        attempt(cli, "--dataset", "empty", *mode),
        1,
        "at least one picture",
        "JPEG",
        "got none in empty",
    )
    refused(attempt(cli, "--dataset", "broken", *mode), 1, "only broken ones", "broken/", "more")
    refused(attempt(cli, "--dataset", "file.jpg", *mode), 1, "got the file file.jpg")
    assert not (tmp_path / "runs").exists()


def test_a_truncated_jpeg_among_good_ones_is_named_and_left_out(
    cli: Command, pictures: Path
) -> None:
    name = next(
        path.relative_to(pictures).as_posix()
        for path in sorted(pictures.rglob("*.jpg"))
        if split_of(path.relative_to(pictures).as_posix()) == "train"
    )
    whole = (pictures / name).read_bytes()
    (pictures / name).write_bytes(whole[: len(whole) * 2 // 3])
    result = cli(
        "train",
        "--preset",
        "regression",
        *FLAGS,
        "--dataset",
        pictures,
        "--epochs",
        2,
        "--batch-size",
        8,
    )
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if name in line]
    assert len(lines) == 1  # though it was met twice
    assert lines[0].startswith("Warning: broken picture left out") and "cut off" in lines[0]
    card = Path("runs/0001-regression-pictures/card.md").read_text()
    assert "; 1 broken pictures were left out" in card


def odd_pictures(folder: Path) -> None:
    """Fill a folder with every kind of picture and with sizes far below 32."""
    generator = np.random.default_rng(3)
    rgb = generator.integers(0, 256, (20, 26, 3), np.uint8)
    gray = rgb[..., 0]
    folder.mkdir()
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(gray).save(folder / "gray.jpg")
    Image.fromarray(gray > 100).save(folder / "one-bit.png")
    Image.fromarray(np.dstack([gray, gray]), "LA").save(folder / "gray-alpha.png")
    Image.fromarray(rgb).quantize(8).save(folder / "palette.png")
    Image.fromarray(np.dstack([rgb, gray])).save(folder / "rgba.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rgb).save(folder / "progressive.jpg", progressive=True)
    assert cv2.imwrite(str(folder / "deep.png"), rgb.astype(np.uint16) * 257)
    assert cv2.imwrite(str(folder / "deep-gray.tif"), gray.astype(np.uint16) * 257)
    for height, width in ((1, 1), (1, 40), (50, 1), (5, 300), (31, 31)):
        assert cv2.imwrite(
            str(folder / f"{height}x{width}.png"), generator.integers(0, 256, (height, width, 3))
        )


def test_every_kind_of_picture_and_small_ones_are_trained_on(cli: Command, tmp_path: Path) -> None:
    odd_pictures(tmp_path / "odd")
    result = cli(
        "train",
        "--preset",
        "regression",
        *FLAGS,
        "--dataset",
        "odd",
        "--epochs",
        1,
        "--batch-size",
        4,
    )
    assert result.exit_code == 0, result.stderr
    assert "broken" not in result.stderr
    report = json.loads((tmp_path / "runs/0001-regression-odd/report.json").read_text())
    assert report["seen"] >= 12 and np.isfinite(report["val"]["ciede2000"])


def test_a_single_picture_is_enough_to_train(cli: Command, tmp_path: Path, painted: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(painted / "lakes" / "00.png", tmp_path / "one")
    result = attempt(cli, "--dataset", "one")
    assert result.exit_code == 0, result.stderr
    assert "too few good pictures for a val split" in result.stderr


# --- what the default network needs beside ---


GAN = (
    "train",
    *(flag for flag in FLAGS if "levels" not in flag and "blocks" not in flag),
    "--frozen-blocks=3",
)


@pytest.mark.parametrize("hue", [(1.0, 1.0, 1.0), (1.0, 0.96, 0.9)], ids=["gray", "hardly tinted"])
def test_a_training_set_without_colours_is_one_line_before_a_run_begins(
    cli: Command, tmp_path: Path, hue: tuple[float, ...]
) -> None:
    (tmp_path / "gray").mkdir()
    for number in range(12):
        gray = np.random.default_rng(number).integers(0, 256, (40, 50, 1), np.uint8)
        Image.fromarray((gray * np.array(hue)).astype(np.uint8)).save(
            tmp_path / "gray" / f"{number}.png"
        )
    line = refused(
        cli(*GAN, "--steps", 1, "--dataset", "gray"),
        1,
        "the training pictures must have colours, got 0.00 %",
    )
    assert "--dataset" in line
    assert [path.name for path in tmp_path.iterdir()] == ["gray"]
    # which counts no colours
    done = cli(*GAN, "--steps", 1, "--dataset", "gray", "--head", "ab", "--hints", 0)
    assert done.exit_code == 0, done.stderr


def test_a_single_picture_is_enough_to_train_the_default_network(
    cli: Command, tmp_path: Path, painted: Path
) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(painted / "lakes" / "00.png", tmp_path / "one")
    result = cli(*GAN, "--steps", 3, "--warmup", 0, "--discriminator-warmup", 0, "--dataset", "one")
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "runs/0001-gan-one/report.json").read_text())
    assert report["seen"] == 6 and np.isfinite(report["val"]["ciede2000"])


@pytest.mark.slow
def test_broken_pictures_in_what_is_measured_first_are_named_once(
    cli: Command, pictures: Path
) -> None:
    train_pictures = [
        path
        for path in sorted(pictures.rglob("*.*"))
        if split_of(path.relative_to(pictures).as_posix()) == "train"
        and path.suffix in (".jpg", ".png")
    ]
    for path in train_pictures[:6]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = cli(*GAN, "--epochs", 1, "--dataset", pictures)
    assert result.exit_code == 0, result.stderr
    named = re.findall(r"broken picture left out: .* got (\S+): ", result.stderr)
    # not twice, when they are met in the training too
    assert sorted(named) == sorted(map(str, train_pictures[:6]))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--init", "nowhere"], 1, ["'nowhere'", "0001-it"]),
        (
            ["--init", "1", "--preset", "gan"],
            1,
            ["--init must have the network", "--frozen-blocks 2 instead of 3"],
        ),
        (
            ["--init", "1", "--width", "2", "--frozen-blocks", "2"],
            1,
            ["got --width 4 instead of 2"],
        ),
        (["--init", "words.pt"], 1, ["words.pt is damaged or not a checkpoint"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_start_from_what_does_not_fit(
    cli: Command, run: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    Path("words.pt").write_text("no weights")
    refused(cli(*GAN, "--steps", 1, *arguments), code, *words)
    assert [path.name for path in run.parent.iterdir()] == ["0001-it"]


@pytest.mark.parametrize("preset", [(), ("--preset", "tune-5")], ids=" ".join)
def test_fine_tuning_takes_network_and_size_of_the_run(
    cli: Command, run: Path, preset: tuple[str, ...]
) -> None:
    result = cli(
        "train", "--init", 1, *preset, "--width", 4, "--backbone-weights", "none", "--dry-run"
    )
    assert result.exit_code == 0, result.stderr
    own = json.loads((run / "config.json").read_text())["settings"]
    for name in ("frozen_blocks", "levels", "width", "head", "image_size"):
        assert f'"{name}": {json.dumps(own[name])}' in result.stdout


# --- weights ---


def test_weights_of_another_network(cli: Command, tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)}, "resnet.pt")
    line = refused(attempt(cli, "--backbone-weights", "resnet.pt"), 1, "resnet.pt", "features.0")
    assert "imagenet" in line or "VGG16" in line  # the way out
    assert [path.name for path in tmp_path.iterdir()] == ["resnet.pt"]


def test_weights_that_are_missing_or_no_weights(cli: Command, tmp_path: Path) -> None:
    refused(attempt(cli, "--backbone-weights", "none.pt"), 1, "none.pt")
    Path("words.pt").write_text("these are no weights")
    refused(attempt(cli, "--backbone-weights", "words.pt"), 1, "words.pt")
    Path("empty.pth").touch()
    refused(attempt(cli, "--backbone-weights", "empty.pth"), 1, "empty.pth")
    refused(attempt(cli, "--backbone-weights", str(tmp_path)), 1, str(tmp_path))
    torch.save(torch.zeros(3), "tensor.pt")
    refused(attempt(cli, "--backbone-weights", "tensor.pt"), 1, "tensor.pt")
    refused(attempt(cli, "--backbone-weights", "words.pt", "--dry-run"), 1, "words.pt")
    assert not (tmp_path / "runs").exists()


# --- resuming ---


def resume(cli: Command, *arguments: object) -> Result:
    return cli("train", "--resume", *arguments, "--steps", 3)


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_resuming_with_other_settings_names_the_keys(cli: Command, run: Path) -> None:
    before = contents(run)
    changed = ("--batch-size", 4, "--lr", "1e-3", "--lambda", 5, "--preset", "poster")
    line = refused(
        resume(cli, run, *changed),
        2,
        "--batch-size (saved 2, given 4)",
        "--lr (saved 0.0002, given 0.001)",
    )
    assert "--lambda (saved 100.0, given 5.0)" in line and "--preset" in line
    assert "--steps" not in line
    refused(
        resume(cli, run, "--lr", "1e-3", "--lr", "1e-4"), 2, "--lr must be given once with --resume"
    )
    assert contents(run) == before
    same = resume(cli, run, "--batch-size", 2, "--lr", "2e-4", "--preset", "regression")
    assert same.exit_code == 0, same.stderr


def test_resuming_a_run_that_does_not_exist(cli: Command, run: Path, tmp_path: Path) -> None:
    refused(resume(cli, 9), 1, "'9'", "0001-it")
    refused(resume(cli, "that"), 1, "'that'", "0001-it")
    (tmp_path / "runs" / "0002-bare").mkdir()
    refused(resume(cli, 2), 1, "0002-bare must be a run directory, got no config.json")
    refused(resume(cli, 1, "--runs-root", "elsewhere"), 1, "elsewhere", "no run yet")
    assert not (tmp_path / "elsewhere").exists()


def test_resuming_without_a_checkpoint(cli: Command, run: Path) -> None:
    for name in ("last.pt", "last-1.pt", "best.pt"):
        (run / name).unlink()
    before = contents(run)
    refused(resume(cli, run), 1, "last.pt must be a checkpoint, got nothing there")
    assert contents(run) == before


def test_resuming_from_a_torn_checkpoint_takes_the_one_before_it(cli: Command, run: Path) -> None:
    data = (run / "last.pt").read_bytes()
    (run / "last.pt").unlink()
    (run / "last.pt").write_bytes(data[: len(data) // 2])
    result = resume(cli, run)
    assert result.exit_code == 0, result.stderr
    line = next(line for line in result.stderr.splitlines() if "going on from last-1.pt" in line)
    assert line.startswith("Warning: ") and "last.pt is damaged" in line
    assert checkpoint.load(run / "last.pt")["step"] == 3


@pytest.mark.parametrize("damage", ["torn", "text", "empty"])
def test_resuming_when_both_checkpoints_are_damaged(cli: Command, run: Path, damage: str) -> None:
    data = {"torn": (run / "last.pt").read_bytes()[:200_000], "text": b"words", "empty": b""}[
        damage
    ]
    for name in ("last.pt", "last-1.pt"):
        (run / name).unlink()
        (run / name).write_bytes(data)
    before = contents(run)
    refused(resume(cli, run), 1, "last-1.pt is damaged or not a checkpoint")
    assert contents(run) == before


def test_resuming_from_what_is_for_colouring_only(cli: Command, run: Path) -> None:
    (run / "last.pt").unlink()
    shutil.copy(run / "best.pt", run / "last.pt")
    refused(resume(cli, run), 1, "must hold a whole run", "best.pt is for colouring only")


def test_resuming_a_run_of_another_version(cli: Command, run: Path) -> None:
    for name in ("last.pt", "last-1.pt"):
        rewrite(run / name, format=2, version="7.0")
    refused(resume(cli, run), 1, "must have checkpoint format 1, got 2 written by gancolor 7.0")
    rewrite(run / "last.pt", format=1, optimizers={})
    refused(resume(cli, run), 1, "does not fit")
    write_json(run / "config.json", attention=True, zeal=3)
    refused(resume(cli, run), 1, "written by gancolor", "unknown attention, zeal")


def test_resuming_a_run_from_before_the_shares_says_which_version_reads_it(
    cli: Command, run: Path
) -> None:
    content = json.loads((run / "config.json").read_text())
    for name in ("warmup", "head", "hints"):
        del content["settings"][name]
    content["versions"]["gancolor"] = "0.9.1"
    (run / "config.json").write_text(json.dumps(content))
    words = (
        "config.json, written by gancolor 0.9.1",
        "got none for head, hints, warmup",
        "use the version that wrote",
    )
    refused(resume(cli, run), 1, *words)
    content["settings"]["warmup_steps"] = 500
    (run / "config.json").write_text(json.dumps(content))
    refused(
        resume(cli, run),
        1,
        "written by gancolor 0.9.1",
        "unknown warmup_steps",
        "use the version that wrote them",
    )


@pytest.mark.parametrize(
    "words", ["", "{", "[]", '{"settings": []}', '{"settings": {"image_size": "x"}}']
)
def test_resuming_with_a_damaged_config(cli: Command, run: Path, words: str) -> None:
    (run / "config.json").write_text(words)
    refused(resume(cli, run), 1, "config.json")


def test_resuming_when_config_and_checkpoint_differ(cli: Command, run: Path) -> None:
    write_json(run / "config.json", lr=0.5)
    refused(
        resume(cli, run),
        1,
        "config.json and its checkpoint differ",
        "--lr (saved 0.0002, given 0.5)",
    )


# --- places that cannot be written ---


def places() -> list[str]:
    return [
        "file",
        "file/runs",
        *(["/proc/runs"] if sys.platform == "linux" and Path("/proc").is_dir() else []),
    ]


@pytest.mark.parametrize("root", places())
def test_runs_that_cannot_be_written(cli: Command, tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(
        attempt(cli, "--runs-root", root), 1, f"{root} must be a writable folder", "--runs-root"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere"
)
def test_a_read_only_runs_folder(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    refused(attempt(cli), 1, "runs must be a writable folder")
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_while_saving_keeps_the_checkpoint_before(run: Path, repository: Path) -> None:
    kept = {name: (run / name).read_bytes() for name in ("last.pt", "last-1.pt", "best.pt")}
    room = len(kept["last.pt"]) - 1000
    limited = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));"
        "from gancolor.cli import main; main(sys.argv[1:])"
    )
    arguments = ["train", "--resume", str(run), "--steps", "9", "--checkpoint-every", "1"]
    done = forkserver.run(["-c", limited, *arguments], cwd=repository)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0]
    assert re.search(
        r"last\.pt could not be written \(.+\); the checkpoint before it is intact", errors[0]
    )
    assert "Traceback" not in done.stderr
    assert kept == {name: (run / name).read_bytes() for name in kept}
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]


def test_a_full_disk_while_logging_is_one_line_too(
    cli: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Logbook, "_write", full)
    before = (run / "last.pt").read_bytes()
    refused(
        resume(cli, run, "--log-every", 1),
        1,
        "0001-it could not be written (No space left on device)",
    )
    assert (run / "last.pt").read_bytes() == before
