"""The page in a real browser: two clicks to a photograph in colour, and a colour that a user gives."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_models

from gancolor.images import reader

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VEILED = """() => {
    const canvas = document.querySelector(".strokes");
    return canvas.getContext("2d").getImageData(1, 1, 1, 1).data[3] > 100;
}"""
"""Whether the photograph's corner lies under what stays as it is."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server with a page listens; it ends although a browser is there, and leaves nothing."""
    pytest.importorskip("gradio", reason="needs the extra 'studio'")
    import uvicorn

    from gancolor.coloring.colorizer import Colorizer
    from gancolor.server import application
    from gancolor.server.server_settings import ServerSettings

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    model = Colorizer.load(small_models.write(tmp_path / "m.safetensors", hints=0.5, head="bins"))
    app = application.create_app(model, ServerSettings())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        end = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < end and thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        application.let_go(app)
        server.should_exit = True
        thread.join()
    assert list(folder.iterdir()) == []


def test_a_colour_that_is_given_is_in_the_file(address: str, tmp_path: Path) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    values = np.linspace(0.3, 0.7, 96 * 128).reshape(96, 128) * 65535
    cv2.imwrite(str(tmp_path / "old.png"), values.astype(np.uint16))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    wrong: list[str] = []

    def watch(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(request.url)

    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800}, locale="en-US")
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", watch)
        page.goto(address)
        page.locator("#drop input[type=file]").set_input_files(tmp_path / "old.png")
        page.locator(".stage:not([hidden])").wait_for()  # coloured, without another click
        assert page.evaluate("document.documentElement.scrollWidth") <= 400

        def save(name: str) -> Any:
            with page.expect_download() as download:
                page.locator("#save").click()
            assert download.value.suggested_filename == "old-colored.png"
            download.value.save_as(tmp_path / name)
            return reader.read(tmp_path / name).pixels

        before = save("before.png")
        frame = page.locator(".stage-frame")
        frame.focus()  # a place by the keyboard alone: the middle, and 12 pixels to the left
        for _ in range(12):
            page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.locator("#palette .choice-button").first.wait_for()
        colors = page.locator("#palette .choice-button")
        wanted = max(range(colors.count()), key=lambda number: _chroma(colors, number))
        color = colors.nth(wanted).get_attribute("aria-label").split(",")[0]
        colors.nth(wanted).click()
        page.locator(".mark").wait_for()
        after = save("after.png")
        y, x = 48, 52
        rgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) * 257.0
        far = np.abs(after[y, x] - rgb).max()
        assert far < np.abs(before[y, x] - rgb).max() and far < 257 * 12, (after[y, x], rgb)

        page.locator("#drop input[type=file]").set_input_files(tmp_path / "broken.jpg")
        page.get_by_text("broken.jpg").first.wait_for()
        assert page.locator(".mark").count() == 1  # nothing of it was lost
        page.locator(".mark").focus()
        page.keyboard.press("Delete")
        page.locator(".mark").wait_for(state="detached")
        page.locator("#undo").click()
        page.locator(".mark").wait_for()
        assert page.locator(".mark").evaluate("node => node.style.background") == _css(color)

        page.locator(".tool[value=brush]").check()
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"], steps=4)
        page.mouse.up()
        page.locator(".mark").nth(1).wait_for()

        page.locator(".tool[value=only]").check()  # a region by the keyboard alone, in the middle
        page.locator(".size").fill("100")
        frame.focus()
        for key in ("Enter", "ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function(VEILED)
        only = save("only.png")
        chroma = only.max(2).astype(int) - only.min(2)
        assert chroma[y, x] > 257 and chroma[:, :40].max() == 0 and chroma[:, 90:].max() == 0
        browser.close()
    assert wrong == []


def _chroma(colors: Any, number: int) -> int:
    color = colors.nth(number).get_attribute("aria-label")
    values = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return max(values) - min(values)


def _css(color: str) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"
