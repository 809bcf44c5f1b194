"""What the page does with a photograph, without a browser."""

from __future__ import annotations

import asyncio
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import small_models

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError, DataError, GancolorError
from gancolor.images import reader
from gancolor.server import previews, sessions
from gancolor.server.film_jobs import FilmJobs
from gancolor.server.line import RequestLine
from gancolor.server.server_settings import ServerSettings

if TYPE_CHECKING:
    from click.testing import Result

    from gancolor.server.studio import Studio

# To import it takes seconds, so only a test does.
pytestmark = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra 'studio'")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes hints and gives distributions."""
    folder = tmp_path_factory.mktemp("model")
    return Path(small_models.write(folder / "m.safetensors", hints=0.5, head="bins"))


@pytest.fixture(scope="module")
def colorizer(model: Path) -> Colorizer:
    """The model, loaded."""
    return Colorizer.load(model)


class Page:
    """A visitor of a page that is not there."""

    def __init__(self, studio: Studio) -> None:
        from gancolor.server.photograph_actions import PhotographActions

        self.actions = PhotographActions(studio)
        self.folder = studio.folder
        self.session = self.actions.sessions.find("ann", self.folder)

    def do(self, action: str, *values: Any, **said: Any) -> dict[str, Any]:
        """What an action shows."""
        from gancolor.server.photograph_actions import Visit

        done = getattr(self.actions, action)(Visit(self.session, said), *values)
        shown: dict[str, Any] = asyncio.run(done)
        return shown

    def upload(self, path: Path) -> str:
        """A copy of a file, where uploads lie."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / path.name).write_bytes(path.read_bytes())
        return str(folder / path.name)

    def saved(self, action: str) -> Path:
        """The file that the browser is told to save."""
        return Path(self.do(action)["fetcher"]["file"]["path"])


@pytest.fixture
def page(colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """One that leaves nothing behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    settings = ServerSettings(max_megabytes=0.2)
    line = RequestLine(settings.concurrency, settings.max_films)
    line.open()
    from gancolor.server.studio import Studio

    studio = Studio(colorizer, settings, line, FilmJobs(settings, line), tmp_path)
    studio.folder.mkdir()
    yield Page(studio)
    line.close()
    assert list(folder.iterdir()) == []


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A gray gradient of 16 bits, with a corner."""
    values = np.linspace(0.2, 0.8, 60 * 80).reshape(60, 80) * 65535
    values[:30, :40] *= 0.5
    cv2.imwrite(str(tmp_path / "old.png"), values.astype(np.uint16))
    return tmp_path / "old.png"


def props(shown: dict[str, Any]) -> dict[str, Any]:
    """What the stage is told."""
    told: dict[str, Any] = shown["stage"]
    return told


def test_a_photograph_that_is_dropped_is_coloured_at_once(page: Page, old: Path) -> None:
    shown = page.do("take_files", [page.upload(old)])
    stage = props(shown)
    assert (stage["width"], stage["height"]) == (80, 60) and stage["marks"] == []
    assert (
        stage["after"].startswith("data:image/jpeg;base64,") and stage["after"] != stage["before"]
    )
    assert shown["tools"]["visible"] and not shown["save_all"]["visible"] and shown["drop"] is None


@pytest.mark.slow
def test_the_download_is_what_sample_makes_of_the_hints_that_are_downloaded(
    page: Page, old: Path, model: Path, cli: Callable[..., Result], tmp_path: Path
) -> None:
    page.do("take_files", [page.upload(old)])
    shown = page.do("press", x=10.25, y=12.0)
    assert shown["palette"]["items"] and props(shown)["picked"] == [10.25, 12.0]
    shown = page.do("choose_color", number=1)
    assert [mark["x"] for mark in props(shown)["marks"]] == [10.25]
    page.do("press", x=60, y=40)
    page.do("use_color", 60, 40, "rgba(150, 50, 40, 1)")
    page.do("stroke", "#2040c0", places=[[30, 45], [50, 50]], radius=4, tool="brush")
    photograph, hints = page.saved("save_one"), page.saved("save_hints")
    assert photograph.name == "old-colored.png" and hints.name == "old.json"
    assert len(json.loads(hints.read_text())) >= 3
    result = cli("sample", old, "--run", model, "--hints", hints, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    (made,) = (tmp_path / "new").rglob("*.png")
    expected, got = reader.read(made), reader.read(photograph)
    assert got.pixels.dtype == np.uint16
    np.testing.assert_array_equal(got.pixels, expected.pixels)
    y, x = 40, 60
    assert got.pixels[y, x, 0] > got.pixels[y, x, 2] + 2000  # the red that was given

    page.do("clear_all")
    loaded = page.do("load_hints", page.upload(hints))
    assert len(props(loaded)["marks"]) == len(json.loads(hints.read_text()))
    assert json.loads(page.saved("save_hints").read_text()) == json.loads(hints.read_text())


def test_marks_are_moved_recoloured_removed_and_all_is_undone(page: Page, old: Path) -> None:
    page.do("take_files", [page.upload(old)])
    first = props(page.do("use_color", 10, 10, "#c02020"))
    assert first["selected"] == 0
    recolored = page.do("use_color", 0, 0, "#20c020")  # of the mark that is selected
    assert [mark["color"] for mark in props(recolored)["marks"]] == ["#20c020"]
    moved = props(page.do("move_mark", number=0, x=70, y=50))
    assert (moved["marks"][0]["x"], moved["marks"][0]["y"]) == (70, 50)
    typed = props(page.do("look_at", 65, 45))
    assert (typed["marks"][0]["x"], typed["marks"][0]["y"]) == (65, 45)
    assert page.do("take_mark", number=0)["picker"] == "#20c020"
    with pytest.raises(ConfigError, match="80x60 pixels, got x=90"):
        page.do("move_mark", number=0, x=90, y=5)
    removed = page.do("remove_mark", number=0)
    assert props(removed)["marks"] == [] and not removed["redo"]["interactive"]
    for _ in range(3):
        undone = page.do("go_back")
    assert props(undone)["marks"][0]["color"] == "#20c020"
    assert props(undone)["marks"][0]["x"] == 10 and undone["redo"]["interactive"]
    undone = page.do("go_back")
    assert props(undone)["after"] == first["after"]
    assert props(page.do("go_back"))["marks"] == []
    assert props(page.do("go_on"))["after"] == first["after"]


def test_a_region_is_coloured_alone(page: Page, old: Path) -> None:
    page.do("take_files", [page.upload(old)])
    before = reader.read(old).pixels
    page.do("stroke", "#000000", places=[[20, 30]], radius=12, tool="only")
    shown = props(page.do("stroke", "#000000", places=[[20, 30]], radius=4, tool="erase"))
    assert [sweep["erases"] for sweep in shown["sweeps"]] == [False, True]
    mask = reader.read(page.saved("save_mask")).pixels
    assert mask[30, 20].max() == 0 and mask[30, 28].min() == 255 and mask[5, 70].max() == 0
    got = reader.read(page.saved("save_one")).pixels
    chroma = got.max(2).astype(int) - got.min(2)
    assert (chroma[mask[..., 0] == 0] == 0).all() and chroma[mask[..., 0] == 255].max() > 300
    np.testing.assert_array_equal(got[mask[..., 0] == 0][:, 0], before[mask[..., 0] == 0])
    page.do("clear_all")
    with pytest.raises(ConfigError, match="a region must be painted first"):
        page.do("save_mask")
    with pytest.raises(ConfigError, match="hints must be at least one"):
        page.do("save_hints")


def test_a_region_comes_as_a_picture_too_and_is_painted_on(
    page: Page, old: Path, model: Path, cli: Callable[..., Result], tmp_path: Path
) -> None:
    page.do("take_files", [page.upload(old)])
    half = np.zeros((30, 40), np.uint8)
    half[:, 20:] = 255
    cv2.imwrite(str(tmp_path / "half.png"), half)
    plain = props(page.do("show_sure", False))["after"]
    shown = props(page.do("load_mask", page.upload(tmp_path / "half.png")))
    assert shown["region"].startswith("data:image/png") and shown["sweeps"] == []
    assert shown["after"] != plain
    got, before = reader.read(page.saved("save_one")).pixels, reader.read(old).pixels
    chroma = got.max(2).astype(int) - got.min(2)
    assert chroma[:, :39].max() == 0 and chroma[:, 41:].max() > 300
    np.testing.assert_array_equal(got[:, :39, 0], before[:, :39])
    result = cli(
        *("sample", old, "--run", model, "--mask", tmp_path / "half.png", "--out", tmp_path / "new")
    )
    assert result.exit_code == 0, result.output
    (made,) = (tmp_path / "new").rglob("*.png")
    np.testing.assert_array_equal(got, reader.read(made).pixels)

    page.do("stroke", "#000000", places=[[20, 30]], radius=6, tool="only")
    page.do("stroke", "#000000", places=[[60, 30]], radius=6, tool="erase")
    mask = reader.read(page.saved("save_mask")).pixels[..., 0]
    assert (mask[30, 20], mask[5, 5], mask[30, 60], mask[5, 75]) == (255, 0, 0, 255)
    again = props(page.do("load_mask", page.upload(page.saved("save_mask"))))
    assert again["sweeps"] == []
    assert (reader.read(page.saved("save_mask")).pixels[..., 0] == mask).all()
    for _ in range(4):
        undone = props(page.do("go_back"))
    assert undone["region"] == "" and undone["after"] == plain

    for name, wrong, words in (
        (
            "wide.png",
            np.full((30, 60), 255, np.uint8),
            r"shape, which is 80x60 .* 60x30 in wide\.png",
        ),
        ("black.png", np.zeros((60, 80), np.uint8), r"white or opaque .* got black\.png"),
    ):
        cv2.imwrite(str(tmp_path / name), wrong)
        with pytest.raises(DataError, match=words) as caught:
            page.do("load_mask", page.upload(tmp_path / name))
        assert "/" not in str(caught.value)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"torn\.png"):
        page.do("load_mask", page.upload(tmp_path / "torn.png"))
    assert page.session.picture.history.present.region is None
    assert len(list(page.session.picture.path.parent.iterdir())) == 3  # it, and two regions to redo


def test_looks_change_the_download_as_they_change_the_preview(page: Page, old: Path) -> None:
    likely = props(page.do("take_files", [page.upload(old)]))["after"]
    plain = reader.read(page.saved("save_one")).pixels
    with pytest.raises(ConfigError, match="a variant must be one of those shown"):
        page.do("take_variant", number=3)
    variants = page.do("vary")["variants"]["items"]
    assert len(variants) == previews.VARIANTS and variants[0]["chosen"]
    taken = page.do("take_variant", number=3)
    assert taken["variants"]["items"][3]["chosen"] and props(taken)["after"] != likely
    varied = reader.read(page.saved("save_one")).pixels
    assert not np.array_equal(varied, plain)
    page.do("go_back")
    gray = page.do("set_saturation", 0)
    assert gray["saturation"] == 0
    faded = reader.read(page.saved("save_one")).pixels.astype(int)
    assert (faded.max(2) - faded.min(2)).max() < 200
    assert page.do("go_back")["saturation"] == 1.0
    sure = props(page.do("show_sure", True))
    assert sure["sure"].startswith("data:") and props(page.do("show_sure", False))["sure"] == ""
    large = props(page.do("enlarge", large=True))
    assert large["large"] and not props(page.do("enlarge", large=False))["large"]


def test_a_reference_lends_its_colours(page: Page, old: Path, tmp_path: Path) -> None:
    page.do("take_files", [page.upload(old)])
    with pytest.raises(DataError, match=r"picture in colour, got old\.png"):
        page.do("add_reference", page.upload(old))
    colors = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "cousin.png"), cv2.resize(colors, (96, 96)))
    shown = page.do("add_reference", page.upload(tmp_path / "cousin.png"))
    assert [item["label"] for item in shown["references"]["items"]] == ["cousin.png"]
    assert page.saved("save_one").exists()
    assert page.do("remove_reference", number=0)["references"]["items"] == []


def test_bad_files_lose_nothing(page: Page, old: Path, tmp_path: Path) -> None:
    page.do("take_files", [page.upload(old)])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing <b>")
    with pytest.warns(UserWarning, match=r"broken\.jpg") as caught:
        shown = page.do("take_files", [page.upload(tmp_path / "broken.jpg")])
    assert shown == {"drop": None} and len(page.session.pictures) == 1
    words = str(caught[0].message)
    assert str(tmp_path) not in words and "/" not in words, words
    (tmp_path / "large.jpg").write_bytes(b"x" * 300_000)
    with pytest.warns(UserWarning, match="at most 0.2 megabytes, got 0.3 of large"):
        assert page.do("take_files", [page.upload(tmp_path / "large.jpg")]) == {"drop": None}
    (tmp_path / "hints.csv").write_text("10,10,red\n")
    with pytest.raises(DataError, match=r"line 1 of hints\.csv"):
        page.do("load_hints", page.upload(tmp_path / "hints.csv"))
    with pytest.raises(DataError, match="hints must be a file of"):
        page.do("load_hints", page.upload(tmp_path / "broken.jpg"))
    for action, said in (
        ("press", {"x": 500, "y": 1}),
        ("press", {"x": "a", "y": 1}),
        ("move_mark", {"number": 0, "x": 1, "y": 1}),
        ("choose_picture", {"number": 4}),
        ("choose_color", {"number": 0}),
    ):
        with pytest.raises(GancolorError):
            page.do(action, **said)
    assert page.session.picture.history.past == ()


def test_several_photographs_are_chosen_and_packed(page: Page, old: Path) -> None:
    shown = page.do("take_files", [page.upload(old), page.upload(old)])
    assert [item["chosen"] for item in shown["strip"]["items"]] == [True, False]
    assert shown["save_all"]["visible"]
    page.do("use_color", 10, 10, "#c02020")
    other = page.do("choose_picture", number=1)
    assert props(other)["marks"] == [] and other["strip"]["items"][1]["chosen"]
    with zipfile.ZipFile(page.saved("save_every")) as archive:
        assert archive.namelist() == ["old-colored.png", "old-colored-2.png"]
        first, second = (archive.read(name) for name in archive.namelist())
    assert first != second
    left = page.do("remove_picture", number=0)
    assert len(left["strip"]["items"]) == 1 and not left["save_all"]["visible"]
    nothing = page.do("remove_picture", number=0)
    assert not nothing["tools"]["visible"]
    with pytest.raises(ConfigError, match="a photograph must be there first"):
        page.do("save_one")


def test_visitors_are_bounded(page: Page, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.do("take_files", [page.upload(old)])
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
    known = page.actions.sessions
    folder = page.session.folder
    assert folder.is_dir()
    for name in ("bob", "cid"):
        known.find(name, page.folder)
    assert not folder.exists() and known.find("ann", page.folder) is not page.session
    mine = known.find("ann", page.folder)
    mine.new_folder()
    known.remove("ann")
    assert not mine.folder.exists()
    small = sessions.Sessions(1)
    theirs = small.find("dan", page.folder)
    (theirs.new_folder() / "large").write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="megabytes together"):
        small.make_room(theirs)
    monkeypatch.setattr(sessions, "_HOURS", 0.0)
    other = small.find("eve", page.folder)
    assert small.find("dan", page.folder) is not theirs and other is not theirs
