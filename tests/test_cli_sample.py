"""`gancolor sample`: held-out pictures of a run, files and folders, and what it does when some are
broken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_settings import LOUD

from gancolor import color, presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.settings import PhotographSettings
from gancolor.data.dataset import open_source
from gancolor.images import arrays
from gancolor.images.photograph import Photograph
from gancolor.runtime import workers
from gancolor.training import train

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]
Array = NDArray[np.uint8]

SMALL = {**LOUD, "levels": 1, "steps": 6, "lr": 0.01}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, painted: Path) -> Iterator[Path]:
    """Train once on the painted pictures; the colours are loud. Read only."""
    root = tmp_path_factory.mktemp("trained")
    config = presets.build("regression", **SMALL, dataset=str(painted), validate_every=3)
    yield train(config, runs_root=root)
    shutil.rmtree(root)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a fresh runs/0004-first with the trained best.pt in it."""
    folder = tmp_path / "runs" / "0004-first"
    folder.mkdir(parents=True)
    for name in ("best.pt", "config.json"):
        shutil.copy(trained / name, folder)
    return folder


@pytest.fixture
def at_home(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder that holds runs/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> Array:
    return arrays.read_rgb(path)


def lightness(rgb: Array) -> Array:
    values: Array = (
        color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0][0, 0].numpy() + 1
    ) * 50
    return values


def relative(folder: Path) -> list[str]:
    """Return the files in a folder but for the report."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "report.jsonl")
    return sorted(path.relative_to(folder).as_posix() for path in files)


# --- held-out pictures ---


def test_with_nothing_the_newest_runs_held_out_pictures_are_coloured(
    cli: Command, at_home: Path, run: Path, painted: Path
) -> None:
    newest = shutil.copytree(run, run.parent / "0010-second")
    content = torch.load(newest / "best.pt", weights_only=True)
    last = [
        key
        for key in content["generator"]
        if key.endswith("weight") and not key.startswith("encoder.")
    ][-1]
    content["generator"][last] *= -1  # other colours than those of the first run
    torch.save(content, newest / "best.pt")
    (run.parent / "0011-never-trained").mkdir()

    result = cli("sample")
    assert result.exit_code == 0, result.stderr
    samples = newest / "samples"
    assert "look at runs/0010-second/samples/sheet.png" in result.stdout
    assert not (run / "samples").exists()

    source = open_source(str(painted), "test", datasets_root=None, seed=0, image_size=32)
    names = [source.name(index) for index in range(len(source))]
    assert 1 <= len(names) <= 16
    flat = [name.rsplit(".", 1)[0].replace("/", "-") + ".png" for name in names]
    assert relative(samples) == sorted([*flat, "sheet.png"])
    colorizer, other = Colorizer.load(newest / "best.pt"), Colorizer.load(run)
    for index, name in enumerate(flat):
        found = read(samples / name)
        assert np.array_equal(found, colorizer(source.read(index)))
        assert not np.array_equal(found, other(source.read(index)))


def test_the_sheet_shows_gray_predicted_and_original(
    cli: Command, at_home: Path, run: Path, painted: Path
) -> None:
    assert cli("sample", "--count", 1).exit_code == 0
    sheet = read(run / "samples" / "sheet.png")
    source = open_source(str(painted), "test", datasets_root=None, seed=0, image_size=32)
    truth = source.read(0)
    colorizer = Colorizer.load(run)
    cells = [colorizer.seen(truth), colorizer(truth), truth]
    assert sheet.shape[1] > 3 * truth.shape[1]
    for column, cell in enumerate(cells):  # each cell stands somewhere in its third
        part = sheet[:, column * sheet.shape[1] // 3 : (column + 1) * sheet.shape[1] // 3]
        difference = cv2.matchTemplate(part, cell, cv2.TM_SQDIFF)
        assert difference.min() < 0.05 * cell.size
    assert np.ptp(cells[0].astype(int), axis=2).max() <= 1  # gray
    assert np.ptp(cells[1].astype(int), axis=2).max() > 20  # the run was trained to be loud


def test_count_split_out_and_dataset(cli: Command, at_home: Path, pictures: Path) -> None:
    result = cli("sample", "--split", "train", "--count", 3, "--out", "chosen")
    assert result.exit_code == 0, result.stderr
    assert "3 train pictures coloured" in result.stdout
    assert len(relative(at_home / "chosen")) == 4
    result = cli(
        "sample", "--split", "all", "--dataset", pictures / "lakes", "--count", 99, "--out", "lakes"
    )
    assert result.exit_code == 0, result.stderr
    assert [name for name in relative(at_home / "lakes") if name != "sheet.png"] == [
        f"{n:02d}.png" for n in range(0, 24, 2)
    ]


def test_pictures_of_the_same_name_all_appear(
    cli: Command, at_home: Path, tmp_path: Path, painted: Path
) -> None:
    twins = tmp_path / "twins"
    for name in ("a/1.jpg", "a/1.bmp", "a-1.png", "sheet.png"):
        arrays.write_rgb(twins / name, read(painted / "lakes" / "00.png"))
    result = cli("sample", "--split", "all", "--dataset", twins, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert relative(at_home / "out") == [
        "a-1-2.png",
        "a-1-3.png",
        "a-1.png",
        "sheet-2.png",
        "sheet.png",
    ]


def test_a_broken_held_out_picture_is_listed(cli: Command, at_home: Path, pictures: Path) -> None:
    (pictures / "lakes" / "04.jpg").write_bytes(b"no picture")
    result = cli("sample", "--split", "all", "--dataset", pictures, "--count", 24, "--out", "out")
    assert result.exit_code == 1
    assert "1 failed:" in result.stderr and "lakes/04.jpg" in result.stderr
    assert "23 all pictures coloured" in result.stdout
    assert len(relative(at_home / "out")) == 24


def test_the_generated_set_is_sampled_too(cli: Command, at_home: Path) -> None:
    result = cli("sample", "--dataset", "still-life", "--count", 2, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert len(relative(at_home / "out")) == 3


# --- which run ---


@pytest.mark.parametrize(
    "name", ["4", "0004-first", "first", "runs/0004-first", "runs/0004-first/best.pt"]
)
def test_a_run_by_path_name_number_or_file(
    cli: Command, at_home: Path, painted: Path, name: str
) -> None:
    result = cli("sample", painted / "lakes" / "00.png", "--run", name, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert relative(at_home / "out") == ["00.png"]


def test_runs_by_root_and_variable(
    cli: Command, run: Path, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    picture = painted / "lakes" / "00.png"
    result = cli("sample", picture, "--out", "none")
    assert (
        result.exit_code == 0
        and "colouring with general: it comes with gancolor, and there is no" in result.stdout
    )
    assert cli("sample", picture, "--out", "one", "--runs-root", run.parent).exit_code == 0
    monkeypatch.setenv("GANCOLOR_RUNS", str(run.parent))
    assert cli("sample", picture, "--out", "two").exit_code == 0
    assert relative(tmp_path / "elsewhere") == ["none/00.png", "one/00.png", "two/00.png"]


# --- files and folders ---


def test_a_folder_is_mirrored_and_size_and_lightness_stay(
    cli: Command, at_home: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    sizes = {
        "a.png": (7, 300),
        "b/c.png": (41, 63),
        "b/d/e.png": (1, 1),
        "f.bmp": (1, 9),
        "g.tif": (200, 3),
    }
    for name, size in sizes.items():
        arrays.write_rgb(tmp_path / "old" / name, generator.integers(0, 256, (*size, 3), np.uint8))
    (tmp_path / "old" / "notes.txt").write_text("left alone")
    result = cli("sample", "old", "--out", "new", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert "5 of 5 files coloured" in result.stdout
    assert relative(tmp_path / "new") == sorted(sizes)
    for name, size in sizes.items():
        before, after = read(tmp_path / "old" / name), read(tmp_path / "new" / name)
        assert after.shape == (*size, 3)
        assert np.abs(lightness(before) - lightness(after)).max() < 0.3  # rounding to 8 bits
        assert not np.array_equal(before, after)


@pytest.mark.slow
def test_files_and_folders_together(cli: Command, at_home: Path, pictures: Path) -> None:
    result = cli(
        "sample",
        pictures / "lakes",
        pictures / "fields",
        pictures / "lakes" / "00.png",
        "--out",
        "new",
    )
    assert result.exit_code == 0, result.stderr
    found = relative(at_home / "new")
    assert len(found) == 25
    assert {name.split("/")[0] for name in found} == {"lakes", "fields", "00.png"}


@pytest.mark.slow
def test_results_below_the_input_are_no_inputs(cli: Command, at_home: Path, pictures: Path) -> None:
    shutil.rmtree(pictures / "fields")
    flags = (pictures, "--out", pictures / "colored", "--workers", 0)
    result = cli("sample", *flags)
    assert result.exit_code == 0, result.stderr
    assert "12 of 12 files coloured" in result.stdout
    before = {
        name: (pictures / "colored" / name).stat().st_mtime_ns
        for name in relative(pictures / "colored")
    }
    assert len(before) == 12

    result = cli("sample", *flags)  # nothing is replaced without a word
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr and "--skip-existing" in result.stderr
    result = cli("sample", *flags, "--skip-existing")
    assert result.exit_code == 0, result.stderr
    assert "0 of 12 files coloured, 12 had a result already" in result.stdout
    assert before == {name: (pictures / "colored" / name).stat().st_mtime_ns for name in before}
    result = cli("sample", *flags, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert "12 of 12 files coloured" in result.stdout
    assert all(
        (pictures / "colored" / name).stat().st_mtime_ns > time for name, time in before.items()
    )
    assert len(relative(pictures)) == 24


def test_jpeg_quality(cli: Command, at_home: Path, painted: Path) -> None:
    picture = painted / "lakes" / "02.jpg"
    assert cli("sample", picture, "--out", "fine", "--quality", 100).exit_code == 0
    assert cli("sample", picture, "--out", "coarse", "--quality", 10).exit_code == 0
    fine, coarse = (at_home / name / "02.jpg" for name in ("fine", "coarse"))
    assert coarse.stat().st_size < fine.stat().st_size / 2


def test_size_is_that_of_what_the_network_sees(
    cli: Command, at_home: Path, painted: Path, run: Path
) -> None:
    picture = painted / "lakes" / "00.png"
    assert cli("sample", picture, "--out", "small", "--size", 16).exit_code == 0
    assert cli("sample", picture, "--out", "usual").exit_code == 0
    small, usual = read(at_home / "small" / "00.png"), read(at_home / "usual" / "00.png")
    assert small.shape == usual.shape and not np.array_equal(small, usual)
    assert np.array_equal(small, Colorizer.load(run)(picture, size=16))


def write_kinds(folder: Path) -> dict[str, Array]:
    """Write pictures of many kinds, 24 x 20; return the gray or RGB values that each must be read
    as, to 1 of 255.
    """
    folder.mkdir()
    rgb = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
    smooth = cv2.GaussianBlur(rgb, (9, 9), 4)
    gray = np.asarray(Image.fromarray(smooth).convert("L"))
    grays = np.repeat(gray[..., None], 3, axis=2)
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(gray).save(folder / "gray.jpg", quality=100)
    Image.fromarray(np.dstack([gray, 255 - gray]), "LA").save(folder / "gray-alpha.png")
    Image.fromarray(np.dstack([smooth, gray])).save(folder / "rgba.png")
    palette = Image.fromarray(smooth).quantize(16)
    palette.save(folder / "palette.png")
    assert cv2.imwrite(str(folder / "deep.png"), smooth[..., ::-1].astype(np.uint16) * 257)
    assert cv2.imwrite(str(folder / "deep-gray.tif"), gray.astype(np.uint16) * 257)
    Image.fromarray(grays).convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    colored = {
        "rgba.png": smooth,
        "palette.png": np.asarray(palette.convert("RGB")),
        "deep.png": smooth,
    }
    return {path.name: colored.get(path.name, grays) for path in folder.iterdir()}


def test_every_kind_of_picture_keeps_its_lightness(
    cli: Command, at_home: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    kinds = write_kinds(tmp_path / "kinds")
    result = cli("sample", "kinds", "--out", "colored", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert relative(tmp_path / "colored") == sorted(kinds)
    for name, expected in kinds.items():
        after = read(tmp_path / "colored" / name)
        assert after.shape == (20, 24, 3)
        slack = 3 if name.endswith(".jpg") else 0.7  # JPEG's own loss
        assert np.abs(lightness(expected) - lightness(after)).mean() < slack, name


# --- what goes wrong ---


@pytest.mark.slow
def test_broken_pictures_do_not_stop_the_others(
    cli: Command, at_home: Path, pictures: Path
) -> None:
    (pictures / "lakes" / "00.png").write_bytes(b"")
    whole = (pictures / "fields" / "01.jpg").read_bytes()
    (pictures / "fields" / "01.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "notes.txt").write_text("words")
    result = cli(
        "sample", pictures, "missing.jpg", pictures / "notes.txt", "--out", "new", "--workers", 0
    )
    assert result.exit_code == 1
    assert "22 of 26 files coloured" in result.stdout
    assert len(relative(at_home / "new")) == 22
    summary = result.stderr[result.stderr.index("4 failed:") :]
    for name in ("lakes/00.png", "fields/01.jpg", "missing.jpg", "notes.txt"):
        assert summary.count(name) == 1
    assert "Traceback" not in result.stderr


def refused(result: Result, code: int, *words: str) -> None:
    """Assert one clear line on stderr and the exit code."""
    assert result.exit_code == code, result.output
    assert all(line.startswith("colouring with ") for line in result.stdout.splitlines())
    assert [line for line in result.stderr.splitlines() if line.startswith("Error: ")] == [
        result.stderr.splitlines()[-1]
    ]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_the_output_folder_is_needed_and_not_the_input(
    cli: Command, at_home: Path, pictures: Path
) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    refused(cli("sample", pictures), 2, "--out", "got none")
    refused(cli("sample", pictures, "--out", pictures), 2, "--out must not be the input folder")
    refused(
        cli("sample", pictures, "--out", f"{pictures}/lakes/.."),
        2,
        "--out must not be the input folder",
    )
    picture = pictures / "lakes" / "00.png"
    result = cli("sample", picture, "--out", picture.parent, "--overwrite")
    assert result.exit_code == 1 and "output must not" in result.stderr
    (picture.parent / "report.jsonl").unlink()
    refused(cli("sample", pictures / "lakes", "--out", picture), 2, "--out must be a folder")
    (at_home / "link").symlink_to(pictures)
    refused(cli("sample", pictures, "--out", "link"), 2, "--out must not be the input folder")
    assert before == {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}


def test_two_inputs_must_not_have_the_same_name(
    cli: Command, at_home: Path, pictures: Path
) -> None:
    (pictures / "fields" / "00.png").write_bytes((pictures / "lakes" / "00.png").read_bytes())
    result = cli(
        "sample", pictures / "fields" / "00.png", pictures / "lakes" / "00.png", "--out", "new"
    )
    assert result.exit_code == 1
    assert "inputs must have different results" in result.stderr and "lakes/00.png" in result.stderr
    assert relative(at_home / "new") == ["00.png"]


def test_a_folder_without_pictures_is_named(cli: Command, at_home: Path) -> None:
    (at_home / "empty").mkdir()
    result = cli("sample", "empty", "--out", "new")
    assert result.exit_code == 1
    assert (
        "folder must hold a picture or film that gancolor reads, got none in empty" in result.stderr
    )
    assert relative(at_home / "new") == []


@pytest.mark.parametrize("folder", ["new", "blocked/new"])
def test_a_folder_that_cannot_be_written(
    cli: Command, at_home: Path, painted: Path, folder: str
) -> None:
    (at_home / folder.split("/")[0]).write_text("a file in the way")
    result = cli("sample", painted / "lakes" / "00.png", "--out", folder)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.stderr and folder in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    result = cli("sample", "--out", folder)
    refused(result, 1, folder, "must be a writable folder")


@pytest.mark.parametrize("name", ["one.jpg", "one.PNG", "film.mp4"])
def test_out_that_looks_like_a_file_is_refused(cli: Command, at_home: Path, name: str) -> None:
    (at_home / "own.mp4").touch()
    refused(cli("sample", "own.mp4", "--out", name), 2, "--out must name a folder", name)
    assert not (at_home / name).exists()


def test_no_run_at_all(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("sample"), 1, "runs must hold a trained run", "--runs-root")
    (tmp_path / "runs" / "3d-models").mkdir(parents=True)
    refused(cli("sample"), 1, "runs must hold a trained run")
    refused(cli("sample", "--run", "9"), 1, "a path, a name or a number", "'9'")
    (tmp_path / "text.pt").write_text("words")
    refused(cli("sample", "--run", "text.pt"), 1, "text.pt is damaged or not a checkpoint")
    assert relative(tmp_path) == ["text.pt"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--size", 3), ("--count", 0), ("--quality", 101), ("--split", "best"), ("--precision", "x")],
)
def test_options_out_of_bounds(cli: Command, at_home: Path, option: str, value: object) -> None:
    refused(cli("sample", option, value), 2, option)


def test_a_missing_dataset_names_the_known_ones(cli: Command, at_home: Path, run: Path) -> None:
    refused(
        cli("sample", "--dataset", "fod"), 1, "'fod'", "food", "natural", "people", "still-life"
    )
    assert not (run / "samples").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu(cli: Command, at_home: Path) -> None:
    refused(cli("sample", "--device", "cuda"), 2, "--device must be present", "--device cpu")


# --- edges ---


@pytest.mark.slow
def test_edges_end_to_end(
    cli: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [
        f"--{key.replace('_', '-')}={value}"
        for key, value in SMALL.items()
        if key not in ("steps", "ema")
    ]
    phases = ("--warmup", 0.25, "--discriminator-warmup", 0.25, "--ramp", 0.25, "--ema", 0.5)
    trained = cli(
        "train", *flags, *phases, "--condition", "edges", "--dataset", pictures, "--steps", 4
    )
    assert trained.exit_code == 0, trained.stderr
    run = tmp_path / "runs" / "0001-gan-pictures"
    colorizer = Colorizer.load(run)
    assert colorizer.condition == "edges" and colorizer.config.out_channels == 3

    assert cli("sample", "--count", 1).exit_code == 0
    assert "sheet.png" in relative(run / "samples")
    shutil.rmtree(pictures / "fields")
    result = cli("sample", pictures, "--out", "new", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert len(relative(tmp_path / "new")) == 12
    drawn = read(pictures / "lakes" / "00.png")
    assert read(tmp_path / "new" / "lakes" / "00.png").shape == drawn.shape
    assert set(np.unique(colorizer.seen(drawn))) == {0, 255}

    # Lightness is predicted from the outlines: it is not the picture's own, and a picture without
    # any gives one result.
    assert np.abs(lightness(colorizer(drawn)) - lightness(drawn)).mean() > 5
    flat = [colorizer(np.full((40, 40, 3), level, np.uint8)) for level in (60, 200)]
    assert np.array_equal(*flat)


# --- options for photographs ---


def test_variants_and_confidence_are_written_beside(
    cli: Command, at_home: Path, painted: Path
) -> None:
    picture = painted / "lakes" / "00.png"
    flags = ("--run", "general", "--variants", 3, "--seed", 5, "--diversity", 1.5)
    flags += ("--show-confidence", "--workers", 0, "--size", 32)
    result = cli("sample", picture, "--out", "new", *flags)
    assert result.exit_code == 0, result.stderr
    names = ["00-2.png", "00-3.png", "00-confidence.png", "00.png"]
    assert relative(at_home / "new") == names
    first, second = read(at_home / "new" / "00.png"), read(at_home / "new" / "00-2.png")
    assert np.abs(lightness(first) - lightness(second)).max() < 0.8 and not np.array_equal(
        first, second
    )
    assert read(at_home / "new" / "00-confidence.png").shape == first.shape
    assert cli("sample", picture, "--out", "again", *flags).exit_code == 0
    for name in names:
        assert np.array_equal(read(at_home / "new" / name), read(at_home / "again" / name))


@pytest.mark.slow
def test_saturation_keep_color_format_and_consensus(
    cli: Command, at_home: Path, painted: Path
) -> None:
    picture = painted / "lakes" / "00.png"

    def chroma(out: str, *flags: object) -> float:
        assert cli("sample", picture, "--out", out, *flags).exit_code == 0
        rgb = torch.from_numpy(read(at_home / out / "00.png")).permute(2, 0, 1)[None]
        return float(color.split(rgb)[1].norm(dim=1).mean())

    usual = chroma("usual")
    assert chroma("pale", "--saturation", 0.2) < 0.5 * usual
    assert chroma("none", "--saturation", 0) < 0.01
    assert cli("sample", picture, "--out", "kept", "--keep-color", 1).exit_code == 0
    assert (
        np.abs(read(at_home / "kept" / "00.png").astype(int) - read(picture).astype(int)).max() <= 2
    )
    assert cli("sample", picture, "--out", "sure", "--consensus", 3).exit_code == 0
    assert not np.array_equal(read(at_home / "sure" / "00.png"), read(at_home / "usual" / "00.png"))
    assert cli("sample", picture, "--out", "other", "--format", "webp").exit_code == 0
    assert relative(at_home / "other") == ["00.webp"]


def test_provenance_is_written_unless_it_is_unwanted(
    cli: Command, at_home: Path, painted: Path
) -> None:
    picture = painted / "lakes" / "00.png"
    assert cli("sample", picture, "--out", "said").exit_code == 0
    assert cli("sample", picture, "--out", "unsaid", "--no-provenance").exit_code == 0
    assert b"colorized by gancolor" in (at_home / "said" / "00.png").read_bytes()
    assert b"model 0004-first step " in (at_home / "said" / "00.png").read_bytes()
    assert b"gancolor" not in (at_home / "unsaid" / "00.png").read_bytes()


def test_large_pictures_are_refused_with_the_option(
    cli: Command, at_home: Path, painted: Path
) -> None:
    result = cli("sample", painted / "lakes" / "00.png", "--out", "new", "--max-megapixels", 0.001)
    assert result.exit_code == 1 and "--max-megapixels" in result.stderr
    assert relative(at_home / "new") == []


def test_a_list_on_standard_input(cli: Command, at_home: Path, painted: Path) -> None:
    names = [painted / "lakes" / "00.png", painted / "lakes" / "02.jpg"]
    result = cli("sample", "-", "--out", "new", input="\n".join(map(str, names)) + "\n")
    assert result.exit_code == 0, result.stderr
    assert [Path(name).name for name in relative(at_home / "new")] == ["00.png", "02.jpg"]


def test_an_empty_list_is_told(cli: Command, at_home: Path) -> None:
    result = cli("sample", "-", "--out", "new", input="\n")
    assert result.exit_code == 1 and "got an empty list" in result.stderr


def test_a_note_is_said_once(cli: Command, at_home: Path, painted: Path) -> None:
    for name in ("a.png", "b.png"):
        arrays.write_rgb(at_home / "gray" / name, np.full((40, 50, 3), 90, np.uint8))
    result = cli("sample", "gray", "--out", "new", "--keep-color", 0.5, "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("--keep-color left out") == 1


def test_options_that_would_do_nothing_are_refused(
    cli: Command, at_home: Path, painted: Path
) -> None:
    refused(cli("sample", "--variants", 2), 2, "--variants must be used with INPUT")
    for flag in ("--seed", "--diversity"):
        told = f"{flag} must be used with --variants of 2 or more, got 1"
        refused(cli("sample", "a.png", "--out", "new", flag, 1), 2, told)
    picture = painted / "lakes" / "00.png"
    told = "--variants must be 1 with a network that gives no distribution of colours, got 2; use"
    refused(cli("sample", picture, "--out", "new", "--variants", 2), 2, told)
    assert not (at_home / "new").exists()
    refused(cli("sample", "--resume"), 2, "--resume must be used with INPUT")
    refused(cli("sample", "--temperature", 1), 2, "--temperature must be used with INPUT")
    picture = painted / "lakes" / "00.png"
    refused(
        cli("sample", picture, "--out", "new", "--count", 2),
        2,
        "--count must be used without INPUT",
    )
    refused(
        cli("sample", picture, "--out", "new", "--overwrite", "--skip-existing"), 2, "choose one"
    )
    for option, value in (
        ("--from", "1:75"),
        ("--from", "soon"),
        ("--size", "big"),
        ("--size", 8),
        ("--to", "1:2:3:4"),
        ("--temperature", 0),
        ("--temperature", 2.1),
        ("--temperature", "nan"),
    ):
        refused(cli("sample", picture, "--out", "new", option, value), 2, option)
    assert not (at_home / "new").exists()


def test_a_temperature_needs_a_distribution(cli: Command, at_home: Path, painted: Path) -> None:
    for given in (painted / "lakes" / "00.png", painted / "lakes"):
        result = cli("sample", given, "--out", "new", "--temperature", 0.5)
        refused(
            result,
            2,
            "--temperature must be left out with a network that gives no distribution",
            "--head bins",
        )
    assert not (at_home / "new").exists()


@pytest.mark.slow
def test_pictures_are_coloured_from_a_distribution_in_processes_too(
    cli: Command, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes: dict[str, Any] = {
        "objective": "regression",
        "adversarial_weight": 0.0,
        "frozen_blocks": 3,
        "lr": 0.03,
    }
    changes |= {"bins_weight": 10.0, "l1_weight": 1.0}
    train(
        presets.build("gan", **SMALL | changes, dataset=str(painted)), runs_root=tmp_path / "runs"
    )
    flags = ("--temperature", 1.5, "--variants", 3, "--show-confidence", "--precision", "fp32")
    for count, out in ((0, "alone"), (1, "helped")):
        result = cli("sample", painted / "lakes", "--out", out, "--workers", count, *flags)
        assert result.exit_code == 0, result.stderr
    names = relative(tmp_path / "alone")
    assert names == relative(tmp_path / "helped") and len(names) == 12 * 4
    assert all(
        np.array_equal(read(tmp_path / "alone" / name), read(tmp_path / "helped" / name))
        for name in names
    )
    colorizer = Colorizer.load(next((tmp_path / "runs").iterdir()), device="cpu", precision="fp32")
    look = PhotographSettings(temperature=1.5, variants=3, confidence=True)
    pixels = read(painted / "lakes" / "00.png")
    expected = colorizer.color(Photograph(pixels=pixels), look)
    found = {name: read(tmp_path / "alone" / name) for name in names if name.startswith("00")}
    assert len(found) == 4
    for picture in expected.pictures:
        assert any(
            np.abs(picture.astype(int) - one).max() <= 1 for one in found.values() if one.ndim == 3
        )


def test_a_checkpoint_that_hardly_colours_is_told(
    cli: Command, at_home: Path, run: Path, painted: Path
) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    for key in [key for key in content["generator"] if not key.startswith("encoder.")][-2:]:
        content["generator"][key] *= 0
    torch.save(content, run / "best.pt")
    result = cli("sample", painted / "lakes" / "00.png", "--out", "new")
    assert (
        "WARNING: 0004-first step" in result.stderr
        and "hardly colours (mean chroma 0.00)" in result.stderr
    )


# --- lists, limits and previews ---


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["a.png", "--null"], "--null must be used with a list on standard input"),
        (["a.png", "--list-folders"], "--list-folders must be used with a list on standard input"),
        (
            ["a.png", "--workers", 0, "--deadline", 5],
            "--deadline must be used with at least one of --workers",
        ),
        (["a.png", "--deadline", 0], "0 is not in the range"),
        (["--limit", 3], "--limit must be used with INPUT"),
        (["--sheet"], "--sheet must be used with INPUT"),
    ],
)
def test_options_that_would_do_nothing(cli: Command, flags: list[object], words: str) -> None:
    result = cli("sample", "--out", "new", *flags)
    assert result.exit_code == 2 and words in " ".join(result.stderr.replace("│", " ").split())


def test_a_list_of_windows_is_coloured(cli: Command, at_home: Path, painted: Path) -> None:
    names = "".join(f"{painted}/lakes/{name}\r\n" for name in ("00.png", "02.jpg"))
    result = cli(
        "sample", "-", "--out", "new", "--workers", 0, input=b"\xff\xfe" + names.encode("utf-16-le")
    )
    assert result.exit_code == 0, result.stderr
    assert [Path(name).name for name in relative(at_home / "new")] == ["00.png", "02.jpg"]
    listed = f"{painted}\0{painted}/lakes/00.png\0".encode()
    result = cli("sample", "-", "-0", "--out", "other", "--workers", 0, input=listed)
    assert result.exit_code == 1 and "list must name files, got the folder" in result.stderr
    assert len(relative(at_home / "other")) == 1


@pytest.mark.slow
def test_a_dry_run_says_what_and_where(cli: Command, at_home: Path, painted: Path) -> None:
    shutil.copytree(painted / "lakes", at_home / "old")
    (at_home / "old" / "words.png").write_text("no picture")
    result = cli(
        "sample",
        "old",
        "--out",
        "new",
        "--run",
        "general",
        "--variants",
        2,
        "--size",
        32,
        "--limit",
        3,
        "--dry-run",
        "--workers",
        0,
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("colouring with ")
    lines = result.stdout.splitlines()[1:]
    assert lines[0] == "old/00.png -> new/00.png, new/00-2.png (80x60)" and len(lines) == 4
    assert lines[3].startswith(
        "3 pictures (0.0 megapixels) would be coloured; one after another in about "
    )
    assert lines[3].endswith("by what 3 of them took; nothing was written")
    assert not (at_home / "new").exists()
    result = cli("sample", "old", "--out", "new", "--dry-run", "--workers", 0)
    assert (
        result.exit_code == 1 and "words.png" in result.stderr and "1 would fail" in result.stdout
    )
    result = cli("sample", "old/00.png", "--out", "new", "--dry-run", "--max-megapixels", 0.001)
    assert result.exit_code == 1 and "at most 0.001 megapixels" in result.stderr
    assert "0 pictures (0.0 megapixels) would be coloured, 1 would fail" in result.stdout


# --- films ---


@pytest.mark.slow
def test_films_and_pictures_together(cli: Command, at_home: Path, painted: Path) -> None:
    pytest.importorskip("av")
    import clips

    from gancolor.video.decoding import FilmReader

    (at_home / "old").mkdir()
    clips.film(at_home / "old" / "film.mkv", frames=12, sound=True)
    (at_home / "old" / "broken.mp4").write_text("words")
    shutil.copy(painted / "lakes" / "00.png", at_home / "old")
    flags = ("--key-interval", 3, "--codec", "ffv1", "--variants", 1)
    result = cli("sample", "old", "--out", "new", "--workers", 0, *flags)
    assert result.exit_code == 1
    assert "2 of 3 files coloured" in result.stdout and "broken.mp4" in result.stderr
    assert "--variants does nothing for a film" in result.stderr
    assert relative(at_home / "new") == ["00.png", "film.mkv"]
    with (
        FilmReader(at_home / "old" / "film.mkv") as before,
        FilmReader(at_home / "new" / "film.mkv", chroma=True) as after,
    ):
        for one, two in zip(before, after, strict=True):
            assert one.pts == two.pts and np.array_equal(one.luma, two.luma)
            assert two.chroma is not None and np.ptp(two.chroma[0]) > 0

    clips.film(at_home / "old" / "gray.mkv", frames=4, gray=True)
    (at_home / "old" / "broken.mp4").unlink()
    result = cli("sample", "old", "--out", "gray", "--skip-colored")
    assert result.exit_code == 0, result.stderr
    assert "1 of 3 files coloured, 2 left alone: in colour already" in result.stdout
    assert relative(at_home / "gray") == ["gray.mkv"]

    result = cli(
        "sample",
        "old/film.mkv",
        "--out",
        "part",
        "--from",
        "0:00.2",
        "--to",
        "0.4s",
        "--codec",
        "ffv1",
    )
    assert result.exit_code == 0, result.stderr
    with FilmReader(at_home / "part" / "film.mkv") as part:
        assert 0 < len(list(part)) < 12
    refused(
        cli("sample", "old/film.mkv", "--out", "worse", "--codec", "theora"),
        2,
        "codec must be one of",
    )
    refused(
        cli("sample", "old/film.mkv", "--out", "worse", "--from", 5, "--to", "0:03"),
        2,
        "--to must be behind --from",
    )
    assert not (at_home / "worse").exists()
    result = cli("sample", "old/00.png", "--out", "picture", "--from", 1, "--strength", 0.5)
    assert (
        result.exit_code == 0
        and "--strength, --from: there was no film to use them for" in result.stderr
    )


@pytest.mark.slow
def test_key_frames_of_a_film_go_out_and_come_back(cli: Command, at_home: Path) -> None:
    pytest.importorskip("av")
    import clips

    film = clips.film(at_home / "film.mkv", frames=8)
    exported = cli("sample", film, "--export-keys", "keys", "--key-interval", 4)
    assert exported.exit_code == 0, exported.stderr
    assert "3 key frames of 8 frames in 1 shot written to keys (0.0 MB)" in exported.stdout
    names = ["000000.000.png", "000000.160.png", "000000.280.png"]
    assert relative(at_home / "keys") == names
    for name in names[1:]:
        (at_home / "keys" / name).unlink()
    result = cli("sample", film, "--keys", "keys", "--out", "new")
    assert result.exit_code == 0, result.stderr
    assert "1 key frame in 1 of 1 shots; 1 made anew" in result.stderr
    assert (at_home / "new" / "film.mkv").exists()

    again = ("sample", film, "--keys", "keys", "--out", "new")
    refused(cli("sample", film, "--export-keys", "keys"), 2, "must name a new or an empty folder")
    for flags, words in (
        (("--out", "x"), "--out must be left out with --export-keys"),
        (("--keys", "keys"), "--keys must be left out with --export-keys"),
        (("--crf", 20), "--crf must be left out with --export-keys"),
    ):
        refused(cli("sample", film, "--export-keys", "more", *flags), 2, words)
    refused(cli("sample", "keys", "--keys", "keys", "--out", "x"), 2, "with one film, got keys")
    refused(cli(*again[:2], film, *again[2:]), 2, "--keys must be used with one film, got 2 inputs")
    refused(cli("sample", "--keys", "keys"), 2, "--keys must be used with INPUT")
    shutil.copy(at_home / "keys" / names[0], at_home / "keys" / "0.050.png")
    shutil.copy(at_home / "keys" / names[0], at_home / "keys" / "9.png")
    tried = cli(*again[:-1], "tried", "--dry-run")
    assert tried.exit_code == 1 and "must lie inside the film" in tried.stderr
    assert not any((at_home / name).exists() for name in ("x", "more", "tried"))


def test_what_is_passed_over_is_counted(cli: Command, at_home: Path, painted: Path) -> None:
    old = at_home / "old"
    (old / "private").mkdir(parents=True)
    first = min(painted.rglob("*.jpg"))
    for name in ("a.jpg", "a-thumb.jpg", "private/b.jpg"):
        shutil.copy(first, old / name)
    os.utime(old / "a.jpg", ns=(10**9, 2 * 10**9))
    for name in ("notes.txt", "more.txt", "layers.psb"):
        (old / name).write_bytes(b"x")
    options = ("--exclude", "*-thumb.jpg", "--exclude", "private", "--keep-dates")
    result = cli("sample", old, "--out", at_home / "new", *options)
    assert result.exit_code == 0, result.stderr
    assert (
        "passed over: 2 .txt, 1 .psb" in result.stdout and "1 of 1 files coloured" in result.stdout
    )
    assert (at_home / "new" / "a.jpg").stat().st_mtime_ns == 2 * 10**9


def test_prepare_counts_what_it_passes_over(cli: Command, pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.txt").write_bytes(b"x")
    (pictures / "layers.psb").write_bytes(b"x")
    options = (
        "--name",
        "mine",
        "--datasets-root",
        tmp_path / "sets",
        "--workers",
        0,
        "--min-size",
        16,
    )
    result = cli("data", "prepare", pictures, *options, "--exclude", "lakes")
    assert "2 other file(s), passed over: 1 .psb, 1 .txt" in result.stdout
    assert "12 left out by --exclude" in result.stdout and "12 pictures looked at" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "ahead"),
    [
        ("old", True),
        ("a.png b.png c.png d.png e.png", True),
        ("a.png b.png", False),
        ("a.png --workers 1", True),
        ("old --workers 0", False),
        ("old --limit 3", False),
        ("old --dry-run", False),
    ],
)
def test_a_worker_is_started_ahead_where_there_will_be_one(
    cli: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    ahead: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    loaded = list[str]()

    @contextlib.contextmanager
    def spare(module: str) -> Iterator[None]:
        loaded.append(module)
        yield

    monkeypatch.setattr(workers, "spare", spare)
    result = cli("sample", *arguments.split(), "--out", "new", "--run", "missing")
    assert result.exit_code != 0 and loaded == ["gancolor.batch.pool"] * ahead
