"""A study taken by a scripted participant in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import small_models

from gancolor.evaluation import study_answers

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


def make(folder: Path, painted: Path, cli: Command, form: str = "pairs") -> tuple[Path, Path]:
    """Make a page of six trials; returns it and the model whose pictures it shows."""
    model = small_models.write(folder / "tiny.safetensors")
    out = folder / "study.html"
    shape = ("--trials", 4, "--practice", 1, "--vigilance", 1, "--size", 64, "--split", "all")
    quick = ("--wait-ms", 50, "--show-ms", 300, "--gap-ms", 50, "--form", form)
    made = cli(*("study", "make", model, "--dataset", painted, "--out", out), *shape, *quick)
    assert made.exit_code == 0, made.stderr
    return out, model


def take_part(page: Any, form: str = "pairs") -> None:
    """Take the six trials of a page and see through everything, with the keys and the buttons."""
    assert page.locator("#begin").is_disabled()  # before one has agreed
    page.check("#agree")
    page.click("#begin")
    for number in range(6):
        page.locator("#left:not([disabled])").wait_for()
        trial = page.evaluate(f"order[{number}]")
        left = (
            trial["fake"] == "first" if form == "pairs" else trial["system"] != study_answers.TRUTH
        )
        if number % 2:
            page.keyboard.press("ArrowLeft" if left else "ArrowRight")
        else:
            page.click("#left" if left else "#right")
    page.locator("#end:not([hidden])").wait_for()


@pytest.mark.parametrize("form", study_answers.FORMS)
def test_a_participant_who_sees_through_everything(
    tmp_path: Path, painted: Path, cli: Command, form: str
) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    page_file, _ = make(tmp_path, painted, cli, form)
    wrong: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 700})  # a telephone's
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if _outside(request) else None)
        page.goto(f"{page_file.as_uri()}?seed=5")
        assert page.locator("#send").is_hidden() and "Nothing is sent anywhere" in page.inner_text(
            "body"
        )
        take_part(page, form)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.locator("#send").is_hidden()
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "answers.json")
        browser.close()
    assert wrong == []
    person = study_answers.read(tmp_path / "answers.json")
    assert len(person.trials) == 6 and person.vigilance == 1.0
    assert [trial.phase for trial in person.trials].count("scored") == 4
    for row in study_answers.score([tmp_path / "answers.json"]).rows:
        expected = 100.0 if row["system"] == study_answers.TRUTH else 0.0
        assert row["trials"] == 0 or row["fool rate %"] == expected


def test_a_participant_sends_the_answers_to_the_server(
    tmp_path: Path, painted: Path, cli: Command
) -> None:
    """Also one whom the server refuses at first, and who sends twice."""
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    pytest.importorskip("fastapi", reason="needs the extra 'studio'")
    from listening import listening

    from gancolor.coloring.colorizer import Colorizer
    from gancolor.server.application import create_app
    from gancolor.server.server_settings import ServerSettings

    page_file, model = make(tmp_path, painted, cli)
    app = create_app(Colorizer.load(model), ServerSettings(study=page_file))
    results, asked, wrong = tmp_path / "study-results", list[str](), list[str]()
    with listening(app) as address, browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 700})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{address}/study")
        assert "Nothing is sent unless you choose it" in page.inner_text("#welcome")
        take_part(page)
        assert list(results.iterdir()) == []  # nothing before one has chosen it
        page.route("**/study/results", lambda route: route.abort())
        page.click("#send")
        page.get_by_text("They could not be sent").wait_for()
        page.unroute("**/study/results")
        page.click("#send")
        page.get_by_text("Your answers have arrived").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.evaluate("at('send').disabled = false")  # as if the answer had been lost
        page.click("#send")
        page.get_by_text("Your answers have arrived").wait_for()
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "saved.json")
        browser.close()
    assert wrong == []
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert outside == []
    (kept,) = results.iterdir()
    assert kept.read_bytes() == (tmp_path / "saved.json").read_bytes()
    scored = cli("study", "score", results)
    assert scored.exit_code == 0 and "over 1 participants" in scored.stdout, scored.stderr


def _outside(request: object) -> bool:
    return not str(request.url).startswith(("file:", "data:", "blob:"))  # type: ignore[attr-defined]
