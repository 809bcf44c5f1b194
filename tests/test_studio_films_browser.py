"""The tabs for films and runs, used in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_models

pytest.importorskip("av")

import clips
import test_film
import test_film_keys
import test_server

from gancolor.coloring.colorizer import Colorizer
from gancolor.images import arrays
from gancolor.server.application import create_app
from gancolor.server.server_settings import ServerSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra 'studio'"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    # Gradio asks pandas for what pandas will not know one day.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film of two shots."""
    folder = tmp_path_factory.mktemp("films")
    clips.film(folder / "old.mkv", frames=24, shots=(12,), codec="ffv1", sound=True)
    return folder


@pytest.fixture(scope="module")
def address(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with that folder and a run."""
    root = tmp_path_factory.mktemp("runs")
    run = small_models.make_run(root, "0001-first")
    measures = {"ciede2000": 12.34, "mae_ab": 9.0, "psnr": 20.0, "spread_a": 1.0}
    (run / "report.json").write_text(json.dumps({"step": 40, "seconds": 60, "val": measures}))
    lines = [{"step": 10 * k, "epoch": k, "G_loss": 2.0 / k} for k in (1, 2, 3)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, side in ((20, 40), (40, 80)):
        arrays.write_rgb(
            run / "preview" / f"step-{step:06d}.png", np.zeros((side, 3 * side, 3), np.uint8)
        )
    model = small_models.write(
        tmp_path_factory.mktemp("model") / "m.safetensors", hints=0.5, head="bins"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        settings = ServerSettings(films=films)
        with test_server.listening(create_app(Colorizer.load(model), settings, root)) as address:
            yield address


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """A page as wide as a telephone, which nothing went wrong on and which left this machine alone."""
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    wrong: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: _note_outside(request.url, address, wrong))
        page.goto(address)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        browser.close()
    assert wrong == []


def _note_outside(url: str, address: str, wrong: list[str]) -> None:
    if not url.startswith((address, "data:", "blob:")):
        wrong.append(url)


def finished(page: Any, what: str) -> None:
    """Wait until the film's status says so."""
    page.locator("#film-status", has_text=f"{what}: done").wait_for()


def test_a_key_frame_gets_colors_and_the_film_shows_them(
    page: Any, films: Path, tmp_path: Path
) -> None:
    page.get_by_role("tab", name="Film").click()
    page.locator("#film-file input").set_input_files(films / "old.mkv")
    finished(page, "Looking for key frames")
    strip = page.locator("#film-strip button.thumbnail-item")
    strip.nth(1).wait_for()
    assert strip.count() == 2
    strip.nth(1).click()
    page.locator("#film-frame", has_text="shot 2").wait_for()
    page.locator("#key-stage .after[src^='data:']").wait_for()
    page.locator("#key-stage .stage-frame").click(position={"x": 60, "y": 60})
    page.locator("#key-palette button").first.wait_for()  # colours that the network suggests
    page.locator("#key-use").click()  # but a red one is wanted
    page.locator("#key-marks button").first.wait_for()
    page.locator("#film-keep").click()
    page.locator("#film-frame", has_text="in your colours").wait_for()
    place = page.evaluate("document.querySelector('#key-marks button').textContent")
    strip.nth(0).click()
    page.locator("#film-frame", has_text="shot 1").wait_for()
    page.get_by_role("button", name="Or paint it").click()
    with page.expect_download() as download:
        page.locator("#film-still a").first.click()
    download.value.save_as(tmp_path / "still.png")
    still = cv2.imread(str(tmp_path / "still.png"))
    assert still.shape == (48, 64, 3)
    true = test_film_keys.with_keys(tmp_path / "keys", [6]) / "000000.240.png"
    page.locator("#film-given input").set_input_files(true)
    page.locator("#film-frame", has_text="in your colours").wait_for()
    page.get_by_role("button", name="Preview").click()
    finished(page, "Preview")
    page.wait_for_function("document.querySelector('#film-preview video').readyState >= 2")
    page.get_by_role("button", name="Colour the film").click()
    finished(page, "Film")
    page.reload()  # and come back
    page.get_by_role("tab", name="Film").click()
    with page.expect_download() as download:
        page.locator(".film-download").click()
    download.value.save_as(tmp_path / "new.mkv")
    assert test_film_keys.errors(tmp_path / "new.mkv", [6])[0] < 1.5
    x, y = (int(number) for number in re.findall(r"[0-9]+", place)[1:3])
    made = test_film.show(tmp_path / "new.mkv")
    assert made.v[18][y // 2, x // 2] > 145 > 110 > made.u[18][y // 2, x // 2] - 10
    assert clips.packets(tmp_path / "new.mkv", "audio") == clips.packets(films / "old.mkv", "audio")


def test_runs_are_listed_and_two_models_compared(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Runs").click()
    table = page.locator("#runs-table")
    table.get_by_text("0001-first").first.wait_for()
    table.get_by_text("12.34").first.wait_for()
    width = "document.querySelector('#runs-grid img')?.naturalWidth"
    page.wait_for_function(f"{width} == 240")  # the newest
    page.get_by_label("Which grid").first.fill("0")
    page.get_by_label("Which grid").first.press("Enter")
    page.wait_for_function(f"{width} == 120")
    # While they are drawn, there is another svg that turns.
    page.locator("#runs-curves", has_text="0001-first").locator("svg").first.wait_for()
    (tmp_path / "a.png").write_bytes(test_server.picture(side=60))
    page.locator("#runs-picture input").set_input_files(tmp_path / "a.png")
    page.locator("#runs-picture img").wait_for()
    page.get_by_role("button", name="Compare").click()
    page.locator("#runs-both img").nth(1).wait_for()
    page.wait_for_function("document.querySelector('#runs-both img').naturalWidth == 60")
