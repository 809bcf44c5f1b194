"""A study taken by a scripted participant in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import small_models

from gancolor.evaluation import study

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.mark.parametrize("form", study.FORMS)
def test_a_participant_who_sees_through_everything(
    tmp_path: Path, painted: Path, cli: Command, form: str
) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    model = small_models.write(tmp_path / "tiny.safetensors")
    page_file = tmp_path / "study.html"
    shape = ("--trials", 4, "--practice", 1, "--vigilance", 1, "--size", 64, "--split", "all")
    quick = ("--wait-ms", 50, "--show-ms", 300, "--gap-ms", 50, "--form", form)
    made = cli(*("study", "make", model, "--dataset", painted, "--out", page_file), *shape, *quick)
    assert made.exit_code == 0, made.stderr
    wrong: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 700})  # a telephone's
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if _outside(request) else None)
        page.goto(f"{page_file.as_uri()}?seed=5")
        assert page.locator("#begin").is_disabled()  # before one has agreed
        page.check("#agree")
        page.click("#begin")
        for number in range(6):
            page.locator("#left:not([disabled])").wait_for()
            trial = page.evaluate(f"order[{number}]")
            left = trial["fake"] == "first" if form == "pairs" else trial["system"] != study.TRUTH
            if number % 2:
                page.keyboard.press("ArrowLeft" if left else "ArrowRight")
            else:
                page.click("#left" if left else "#right")
        page.locator("#end:not([hidden])").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "answers.json")
        browser.close()
    assert wrong == []
    person = study.read(tmp_path / "answers.json")
    assert len(person.trials) == 6 and person.vigilance == 1.0
    assert [trial.phase for trial in person.trials].count("scored") == 4
    for row in study.score([tmp_path / "answers.json"]).rows:
        expected = 100.0 if row["system"] == study.TRUTH else 0.0
        assert row["trials"] == 0 or row["fool rate %"] == expected


def _outside(request: object) -> bool:
    return not str(request.url).startswith(("file:", "data:", "blob:"))  # type: ignore[attr-defined]
