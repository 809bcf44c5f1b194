"""Files that go with photographs: hints and masks, one or a folder of them, in a batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import small_models
from PIL import Image

from gancolor.batch import dispatch, partners
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item, expand
from gancolor.batch.records import Record, Report, Summary
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

TABLE = "x,y,color,radius\n20,15,#2846be,3\n"


class Network:
    """Everything is reddish; it notes the views that it is shown."""

    def __init__(self) -> None:
        self.sight = Sight(32, hints=True)
        self.views: list[View] = []

    def predict_view(self, view: View) -> Prediction:
        self.views.append(view)
        return Prediction(np.full((*view.rgb.shape[:2], 2), (0.3, 0.1), np.float32))


def make(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((30, 40), 110 + number, np.uint8))
    return folder


def go(source: Path, out: Path, **options: Any) -> tuple[Summary, dict[str, dict[str, Any]]]:
    """What became of the files, and the report by the sources' names."""
    network = options.pop("network", Network())
    settings = BatchSettings(**{"workers": 0, **options})
    with Report(out) as report:
        summary = dispatch.run(network, expand([str(source)], out), settings, report=report)
    records = map(json.loads, (out / "report.jsonl").read_text().splitlines())
    return summary, {Path(record["source"]).name: record for record in records}


def test_a_partner_is_named_like_the_photograph_and_lies_like_it(tmp_path: Path) -> None:
    given = tmp_path / "hints"
    for name in ("a.png", "a.jpg.csv", "b.CSV", "sub/a.json", "c.png", "c.csv", "d.txt"):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).touch()

    def find(source: str, folder: str = "") -> Path | None:
        item = Item(tmp_path / source, tmp_path / "out" / source, folder=Path(folder))
        return partners.find(given, item, "--hints", {".png", ".csv", ".json"})

    assert find("a.jpg") == given / "a.jpg.csv" and find("a.tif") == given / "a.png"
    assert find("b.jpg") == given / "b.CSV"
    assert find("a.jpg", "sub") == given / "sub" / "a.json" and find("b.jpg", "sub") is None
    assert find("d.jpg") is None
    with pytest.raises(DataError, match=r"--hints must hold one file for .*c.jpg, got .*c.csv, .*"):
        find("c.jpg")
    item = Item(given / "c.png", tmp_path / "out" / "c.png")  # itself is none
    assert partners.find(given, item, "--hints", {".png", ".csv"}) == given / "c.csv"
    assert partners.find(given / "d.txt", item, "--hints", set()) == given / "d.txt"


def test_a_folder_of_hints(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.png", "b.png", "sub/c.png", "d.png")
    given = tmp_path / "hints"
    (given / "sub").mkdir(parents=True)
    (given / "a.csv").write_text(TABLE)
    (given / "sub" / "c.csv").write_text(TABLE.replace("20,15", "40,15"))
    (given / "d.csv").write_text("x\n")
    network = Network()
    summary, report = go(
        old,
        tmp_path / "out",
        network=network,
        hints=given,
        coloring=PhotographSettings(show_hints=True),
    )
    assert (summary.done, summary.failed) == (2, 2)
    assert report["b.png"]["notes"] == [f"{given} has no file for it: coloured without --hints"]
    assert "line 2 of" in report["c.png"]["error"] and "40x30 pixels" in report["c.png"]["error"]
    assert "line 1 of" in report["d.png"]["error"]
    told = [view.hints for view in network.views if view.hints is not None]
    assert told and {tuple(np.argwhere(hints[..., 2]).mean(0)) for hints in told} == {(15, 20)}
    files = {path.name for path in (tmp_path / "out").iterdir()} - {"report.jsonl", "sub"}
    assert files == {"a.png", "a-hints.png", "b.png", "b-hints.png"}  # of each that was coloured
    colored = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert colored is not None
    assert colored[15, 20, 0] > colored[15, 20, 2] + 60 and colored[2, 2, 2] > colored[2, 2, 0]
    shown = cv2.imread(str(tmp_path / "out" / "a-hints.png"))
    assert shown is not None and min(shown.shape[:2]) >= 512
    middle, corner = (
        shown[y * shown.shape[0] // 30, x * shown.shape[1] // 40] for y, x in ((15, 20), (2, 2))
    )
    assert int(middle[0]) > int(middle[2]) + 60 and np.ptp(corner) == 0


@pytest.mark.parametrize("orientation", [1, 6])
def test_coordinates_count_in_the_upright_photograph(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.full((30, 40), 120, np.uint8))
    (tmp_path / "old").mkdir()
    image.save(tmp_path / "old" / "a.png", exif=exif)
    table = tmp_path / "a.csv"
    table.write_text("4,25,#2846be,2\n")
    summary, _ = go(tmp_path / "old", tmp_path / "out", hints=table)
    assert summary.done == 1
    colored = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert colored is not None and colored.shape[:2] == ((30, 40) if orientation == 1 else (40, 30))
    assert colored[25, 4, 0] > colored[25, 4, 2] + 60


def test_a_mask_leaves_the_rest_to_the_bit(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    shape = (30, 40, 3)
    pixels = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    assert cv2.imwrite(str(tmp_path / "old" / "deep.png"), pixels)
    assert cv2.imwrite(str(tmp_path / "old" / "plain.tif"), pixels.astype(np.uint8))
    mask = np.zeros(shape[:2], np.uint8)
    mask[10:20, 10:30] = 255
    given = tmp_path / "masks"
    given.mkdir()
    for name in ("deep.png", "plain.png"):
        assert cv2.imwrite(str(given / name), mask)
    summary, report = go(tmp_path / "old", tmp_path / "out", mask=given)
    assert summary.done == 2 and not report["deep.png"]["notes"]
    for name, truth in (("deep.png", pixels), ("plain.tif", pixels.astype(np.uint8))):
        colored = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert colored is not None and colored.dtype == truth.dtype
        assert np.array_equal(colored[mask == 0], truth[mask == 0])
        assert (colored != truth)[mask > 0].any(1).all()


def test_what_is_wrong_with_a_mask_fails_its_photograph(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.png", "b.png", "c.png")
    given = make(tmp_path / "masks", "a.png")
    assert cv2.imwrite(str(given / "b.png"), np.zeros((30, 40), np.uint8))
    assert cv2.imwrite(str(given / "c.png"), np.full((33, 40), 255, np.uint8))
    summary, report = go(old, tmp_path / "out", mask=given)
    assert (summary.done, summary.failed) == (1, 2)
    assert "black or transparent everywhere" in report["b.png"]["error"]
    assert "40x30 pixels upright, got 40x33" in report["c.png"]["error"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "report.jsonl"}


def test_one_file_is_for_one_photograph(tmp_path: Path) -> None:
    old, table = make(tmp_path / "old", "a.png", "b.png"), tmp_path / "points.csv"
    table.write_text(TABLE)
    with pytest.raises(ConfigError, match=r"--hints must name a folder for several photographs"):
        go(old, tmp_path / "out", hints=table)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.jsonl"}
    settings = BatchSettings(mask=table, workers=0)
    items = expand([str(old)], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--mask must .* got the file .*a.png and .*b.png; put"):
        list(dispatch.preview(items, settings, lambda record: None))
    assert go(old / "a.png", tmp_path / "single", hints=table)[0].done == 1


def test_a_film_is_refused_and_the_photographs_go_on(tmp_path: Path) -> None:
    old, table = make(tmp_path / "old", "a.png"), tmp_path / "points.csv"
    (old / "b.mp4").write_bytes(b"")
    table.write_text(TABLE)
    summary, report = go(old, tmp_path / "out", hints=table)
    assert (summary.done, summary.failed) == (1, 1)
    assert "--hints must be left out with films, got" in report["b.mp4"]["error"]
    told: list[Record] = []
    settings = BatchSettings(hints=table, workers=0)
    items = list(dispatch.preview(expand([str(old)], tmp_path / "new"), settings, told.append))
    assert [item.source.name for item in items] == ["a.png"]
    assert [record.status for record in told] == ["failed"]


def test_results_that_exist_are_skipped_without_a_look_at_the_hints(tmp_path: Path) -> None:
    old, table = make(tmp_path / "old", "a.png"), tmp_path / "points.csv"
    table.write_text(TABLE)
    assert go(old, tmp_path / "out", hints=table)[0].done == 1
    table.write_text("wrong\n")
    summary, _ = go(old, tmp_path / "out", hints=table, existing="skip")
    assert (summary.skipped, summary.failed) == (1, 0)


# --- the command ---


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model that takes hints, in the folder where the test works."""
    monkeypatch.chdir(tmp_path)
    made = small_models.content(hints=0.5)
    path = tmp_path / "model.safetensors"
    small_models.model_file.write(path, made, made["config"], card="# A card\n")
    return path


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3 and "Traceback" not in result.output


@pytest.mark.slow
def test_the_command_takes_hints_and_masks(cli: Command, model: Path) -> None:
    make(Path("old"), "a.png", "b.png")
    Path("hints").mkdir()
    Path("hints/a.csv").write_text(TABLE)
    arguments = ["sample", "old", "--out", "new", "--run", model, "--hints", "hints"]
    result = cli(*arguments, "--show-hints", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "a-hints.png (40x30, hints hints/a.csv)" in result.stdout
    assert "(40x30, hints none)" in result.stdout and not Path("new").exists()
    Path("hints/b.csv").write_text("x,y,color\n40,1,#102030\n")
    result = cli(*arguments, "--dry-run")
    assert result.exit_code == 1 and "1 would fail" in result.stdout
    assert "line 2 of hints/b.csv must lie in the picture of 40x30 pixels" in result.stderr
    Path("hints/b.csv").unlink()
    cv2.imwrite("mask.png", np.full((40, 30), 255, np.uint8))
    result = cli(
        "sample", "old/a.png", "--out", "new", "--run", model, "--mask", "mask.png", "--dry-run"
    )
    assert result.exit_code == 1 and "got 30x40 in mask.png" in result.stderr
    result = cli(*arguments, "--show-hints")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("hints has no file for it: coloured without --hints") == 1
    assert Path("new/a-hints.png").is_file()
    colored = cv2.imread("new/a.png")
    assert colored is not None and colored[15, 20, 0] > colored[15, 20, 2] + 60


def test_the_command_refuses_what_cannot_be(cli: Command, model: Path, painted: Path) -> None:
    make(Path("old"), "a.png")
    Path("empty").mkdir()
    Path("points.csv").write_text(TABLE)
    start = ["sample", "old", "--out", "new", "--run", model]
    refused(cli(*start, "--hints", "none.csv"), 2, "--hints must name a file or a folder, got none")
    refused(cli(*start, "--mask", "empty"), 2, "--mask must name a folder with files", ".png")
    refused(cli(*start, "--show-hints"), 2, "--show-hints must be used with --hints, --reference")
    refused(cli("sample", "--hints", "points.csv"), 2, "--hints must be used with INPUT")
    other = small_models.write(Path("other.safetensors"))
    refused(
        cli("sample", "old", "--out", "new", "--run", other, "--hints", "points.csv"),
        2,
        "--hints must be left out with a model that takes none",
    )
    assert not Path("new").exists()
    result = cli("sample", painted, "--out", "new", "--run", model, "--hints", "points.csv")
    refused(result, 2, "--hints must name a folder for several photographs")
