"""References and series in a batch: which picture is whose reference, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from panning import scene

from gancolor import color
from gancolor.batch import dispatch, exemplars
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item, expand
from gancolor.batch.records import Report, Summary
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.references import Features
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError
from gancolor.images import arrays

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]
Array = NDArray[np.uint8]

SIZE, STEP = 96, 8  # pixels of a picture, and of a position of what the network sees


class Network:
    """Colours a picture by its mean gray, and sees its pixels as they are."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.sight = Sight(32, hints=True, features=True)
        self.described = 0

    def predict_view(self, view: View) -> Prediction:
        tone = view.rgb.mean() / 255 - 0.5
        ab = np.array((4 * tone, 0.1), np.float32).clip(-0.4, 0.4)
        return Prediction(np.broadcast_to(ab, (*view.rgb.shape[:2], 2)).copy())

    def describe_view(self, view: View) -> Features:
        self.described += 1
        gray = view.rgb[..., 1].astype(np.float32)
        height, width = (length // STEP for length in gray.shape)
        parts = gray[: height * STEP, : width * STEP].reshape(height, STEP, width, STEP)
        maps = parts.transpose(0, 2, 1, 3).reshape(height, width, STEP**2)
        rows, columns = ((np.arange(n) + 0.5).astype(np.float32) / n for n in (height, width))
        return Features(maps - maps.mean(2, keepdims=True), maps, rows, columns)


def view_of(picture: Array, left: int, darker: int = 0) -> Array:
    return picture[:, left : left + SIZE] - np.uint8(darker)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Gray pictures of one wide scene, each lighter or darker than the others, and one of another."""
    wide = scene(3, 2 * SIZE, SIZE)[0].clip(40, 250)
    folder = tmp_path / "album"
    (folder / "trip").mkdir(parents=True)
    for number in range(4):
        arrays.write_rgb(folder / f"{number}.png", _rgb(view_of(wide, STEP * number, 10 * number)))
    for number in range(2):
        arrays.write_rgb(folder / "trip" / f"{number}.png", _rgb(view_of(wide, 0, 39 * number)))
    return folder


def _rgb(gray: Array) -> Array:
    return np.repeat(gray[..., None], 3, axis=2)


def painted(gray: Array, ab: tuple[float, float]) -> Array:
    """A gray picture in one colour, and in another at the left."""
    lightness, _ = color.split(color.to_tensor(gray))
    flat = torch.tensor(ab).view(1, 2, 1, 1).expand(1, 2, *gray.shape[:2]).clone()
    flat[..., :16] *= -1
    rgb = color.merge_in_gamut(lightness, flat)[0].permute(1, 2, 0)
    return (rgb * 255).round().byte().numpy()


def hue(path: Path) -> float:
    """Mean a* of a picture without its edge, in CIE units."""
    ab = color.split(color.to_tensor(arrays.read_rgb(path)))[1]
    return float(ab[0, 0, 24:-24, 24:-24].mean()) * 110


def go(source: Path, out: Path, **options: Any) -> tuple[Summary, dict[str, dict[str, Any]]]:
    """What became of the files, and the report by their names below `source`."""
    network = options.pop("network", Network())
    settings = BatchSettings(**{"workers": 0, **options})
    exemplars.check(settings)
    with Report(out) as report:
        summary = dispatch.run(network, expand([str(source)], out), settings, report=report)
    records = map(json.loads, (out / "report.jsonl").read_text().splitlines())
    return summary, {
        Path(record["source"]).relative_to(source).as_posix(): record for record in records
    }


def pixels(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.png"))
    }


@pytest.mark.slow
def test_one_reference_for_all(album: Path, tmp_path: Path) -> None:
    reference = tmp_path / "red.png"
    arrays.write_rgb(reference, painted(arrays.read_rgb(album / "1.png"), (0.4, 0.0)))
    network = Network()
    summary, report = go(
        album, tmp_path / "new", reference=(reference,), show_matches=True, network=network
    )
    assert summary.done == 6 and summary.failed == 0
    assert network.described == 7  # each once
    go(album, tmp_path / "plain")
    for name in ("0.png", "1.png", "2.png"):
        assert hue(tmp_path / "new" / name) > max(18, hue(tmp_path / "plain" / name) + 8)
        shown = arrays.read_rgb(tmp_path / "new" / name.replace(".png", "-matches.png"))
        assert shown.shape[1] > 2 * 2 * SIZE
    other = tmp_path / "other"
    other.mkdir()
    unlike = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    arrays.write_rgb(other / "a.png", _rgb(unlike))
    _, report = go(other, tmp_path / "third", reference=(reference,))
    assert report["a.png"]["notes"] == [
        "nothing of it was found in its reference: coloured without"
    ]


def test_a_folder_of_references_named_alike(album: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    (given / "trip").mkdir(parents=True)
    for name, ab in (("0", (0.4, 0.0)), ("1", (-0.3, 0.2)), ("trip/0", (-0.3, 0.2))):
        arrays.write_rgb(given / f"{name}.jpg", painted(arrays.read_rgb(album / f"{name}.png"), ab))
    (given / "2.jpg").write_bytes(b"no picture")
    arrays.write_rgb(given / "3.png", arrays.read_rgb(album / "3.png"))
    summary, report = go(album, tmp_path / "new", reference=(given,))
    assert (summary.done, summary.failed) == (4, 2)
    assert hue(tmp_path / "new" / "0.png") > 25
    assert max(hue(tmp_path / "new" / name) for name in ("1.png", "trip/0.png")) < -15
    assert report["trip/1.png"]["notes"] == [
        f"{given} has no file for it: coloured without --reference"
    ]
    assert "--reference must be a picture that can be read: " in report["2.png"]["error"]
    assert f"got {given / '3.png'} in gray; choose another --reference" in report["3.png"]["error"]
    assert sorted(pixels(tmp_path / "new")) == ["0.png", "1.png", "trip/0.png", "trip/1.png"]


@pytest.mark.slow
def test_a_series_is_coloured_like_its_first(album: Path, tmp_path: Path) -> None:
    plain, alike = tmp_path / "plain", tmp_path / "alike"
    assert go(album, plain)[0].done == 6
    summary, _ = go(album, alike, consistent=True)
    assert summary.done == 6
    hues = {name: (hue(plain / name), hue(alike / name)) for name in pixels(plain)}
    assert hues["0.png"][0] == hues["0.png"][1] and hues["trip/0.png"][0] == hues["trip/0.png"][1]
    for name in ("1.png", "2.png", "3.png"):
        assert abs(hues[name][1] - hues["0.png"][0]) < 0.5 * abs(hues[name][0] - hues["0.png"][0])
    # the same with processes, and when a batch goes on
    shared = tmp_path / "shared"
    assert go(album, shared, consistent=True, workers=2)[0].done == 6
    assert pixels(shared) == pixels(alike)
    for name in ("0.png", "2.png"):
        (shared / name).unlink()
    (shared / "0.png").write_bytes(b"another's")
    assert go(album, shared, consistent=True, existing="skip")[0].done == 1
    (shared / "0.png").write_bytes((alike / "0.png").read_bytes())
    assert pixels(shared) == pixels(alike)


def test_the_first_that_can_be_coloured_leads(album: Path, tmp_path: Path) -> None:
    (album / "0.png").write_bytes(b"broken")
    summary, report = go(album, tmp_path / "new", consistent=True)
    assert (summary.done, summary.failed) == (5, 1) and report["0.png"]["status"] == "failed"
    plain = tmp_path / "plain"
    go(album, plain)
    assert hue(tmp_path / "new" / "1.png") == hue(plain / "1.png")
    first, own = hue(plain / "1.png"), hue(plain / "3.png")
    assert abs(hue(tmp_path / "new" / "3.png") - first) < 0.5 * abs(own - first)


@pytest.mark.slow
def test_the_user_names_the_one_that_leads(album: Path, tmp_path: Path) -> None:
    plain, new = tmp_path / "plain", tmp_path / "new"
    go(album, plain)
    assert go(album, new, consistent=True, reference=(album / "3.png",))[0].failed == 0
    lead = hue(plain / "3.png")
    assert abs(hue(new / "0.png") - lead) < 0.5 * abs(hue(plain / "0.png") - lead)


def test_a_picture_in_colour_leads_with_its_own_colours(album: Path, tmp_path: Path) -> None:
    arrays.write_rgb(album / "0.png", painted(arrays.read_rgb(album / "0.png"), (-0.3, 0.2)))
    summary, _ = go(album, tmp_path / "new", consistent=True, skip_colored=True)
    assert (summary.done, summary.left) == (5, 1)
    assert hue(tmp_path / "new" / "1.png") < -15


def test_each_picture_knows_the_first_of_its_series(tmp_path: Path) -> None:
    items = [Item(Path(f"old/{n % 3}/{n}.png"), tmp_path / f"{n}.png") for n in range(40)]
    found: dict[Path, Path] = {}
    for item in dispatch.preview(items, BatchSettings(consistent=True), lambda record: None):
        assert 1 <= len(item.series) <= exemplars.LEADERS
        found[item.source] = item.series[0].source
    assert len(found) == 40
    assert all(
        first == Path(f"old/{int(source.stem) % 3}/{int(source.stem) % 3}.png")
        for source, first in found.items()
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--reference", "nothing.png"),
            "--reference must name a file or a folder, got nothing.png",
        ),
        (("--reference", "text.png"), "--reference must be a picture that can be read: "),
        (
            ("--reference", "gray.png"),
            "a reference must be a picture in colour, got gray.png in gray; ",
        ),
        (("--reference", "empty"), "--reference must name a folder with files of its kinds"),
        (("--show-matches",), "--show-matches must be used with --reference or --consistent"),
        (("--reference", "red.png") * 33, "--reference must be given at most 32 times, got 33"),
    ],
)
def test_bad_references_are_refused_at_once(
    cli: Command,
    album: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    arrays.write_rgb(tmp_path / "gray.png", arrays.read_rgb(album / "0.png"))
    arrays.write_rgb(tmp_path / "red.png", painted(arrays.read_rgb(album / "0.png"), (0.4, 0.0)))
    result = cli("sample", str(album), "--out", "new", "--run", "general", *options)
    assert result.exit_code in (1, 2) and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "new").exists()


def test_films_take_no_reference(album: Path, tmp_path: Path) -> None:
    items = [Item(Path("a.mp4"), tmp_path / "a.mp4", film=True)]
    told: list[Any] = []
    arrays.write_rgb(tmp_path / "red.png", painted(arrays.read_rgb(album / "0.png"), (0.4, 0.0)))
    settings = BatchSettings(reference=(tmp_path / "red.png",))
    assert not list(dispatch.preview(items, settings, told.append))
    assert "--reference must be left out with films, got a.mp4" in told[0].error


def test_the_user_hints_of_a_file_win(album: Path, tmp_path: Path) -> None:
    reference = tmp_path / "red.png"
    arrays.write_rgb(reference, painted(arrays.read_rgb(album / "1.png"), (0.4, 0.0)))
    layer = np.zeros((SIZE, SIZE, 4), np.uint8)
    layer[44:52, 44:52] = (200, 40, 40, 255)  # blue: BGRA
    hints = tmp_path / "hints"
    hints.mkdir()
    assert cv2.imwrite(str(hints / "1.png"), layer)
    _, report = go(
        album,
        tmp_path / "new",
        reference=(reference,),
        hints=hints,
        coloring=PhotographSettings(show_hints=True),
    )
    result = arrays.read_rgb(tmp_path / "new" / "1.png").astype(int)
    assert result[48, 48, 2] > result[48, 48, 0] + 20 and result[70, 70, 0] > result[70, 70, 2] + 10


def test_settings_of_several_paths_are_checked() -> None:
    with pytest.raises(ConfigError, match="--reference must be several paths, got 'a'"):
        BatchSettings(reference="a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--reference must be Path, got 'a'"):
        BatchSettings(reference=("a",))  # type: ignore[arg-type]
