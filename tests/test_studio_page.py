"""The page: mounted beside the API, behind the same gate, and nothing of it from elsewhere."""

from __future__ import annotations

import base64
import copy
import re
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import small_models

pytest.importorskip("starlette", reason="needs the extra 'studio'")

from listening import HERE
from starlette.testclient import TestClient

from gancolor.coloring.colorizer import Colorizer
from gancolor.server.application import create_app
from gancolor.server.server_settings import ServerSettings

# To import it takes seconds, so only a test does.
pytestmark = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra 'studio'")


@pytest.fixture(scope="module")
def colorizer(tmp_path_factory: pytest.TempPathFactory) -> Colorizer:
    """One that takes hints and gives distributions."""
    folder = tmp_path_factory.mktemp("model")
    return Colorizer.load(small_models.write(folder / "m.safetensors", hints=0.5, head="bins"))


@pytest.fixture(scope="module")
def client(colorizer: Colorizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with a page, which leaves nothing behind."""
    folder = tmp_path_factory.mktemp("temporary")
    users = tmp_path_factory.mktemp("users") / "users"
    users.write_text("ann:secret\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr("gradio.routes.DEFAULT_TEMP_DIR", str(folder / "gradio"))
        app = create_app(
            colorizer, ServerSettings(auth_file=users, max_megabytes=0.05, max_film_megabytes=0.05)
        )
        client = TestClient(app, HERE, raise_server_exceptions=False, follow_redirects=False)
        client.headers["authorization"] = f"Basic {base64.b64encode(b'ann:secret').decode()}"
        with client:
            yield client
    assert list(folder.iterdir()) == []


def test_the_page_names_no_other_host(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "<gradio-app" in page.text and "og:" not in page.text
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", page.text))
    assert hosts <= {"www.w3.org"}, hosts
    assert not re.search(r"url\(['\"]?(?:https?:)?//", client.get("/theme.css").text)
    assets = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)
    assert assets and all(client.get(f"/{asset}").status_code == 200 for asset in assets)
    # What is named after what it holds is kept by browsers, everything else is asked for anew.
    kept = [client.get(f"/{asset}").headers["cache-control"] for asset in assets]
    assert set(kept) == {"private, max-age=31536000, immutable"}
    for path in ("/", "/config", "/v1/models", "/assets/nothing-12345678.js"):
        assert client.get(path).headers["cache-control"] == "no-store", path
    assert client.get("/config").json()["i18n_translations"]["de"]["photograph"] == "Foto"


def luminance(shade: str) -> float:
    """Of a colour #rrggbb, from 0 to 1, as WCAG has it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_can_be_read(client: TestClient) -> None:
    css = client.get("/theme.css").text
    hues = {name: shade for name, shade in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css)}
    quiet = re.findall(r"--body-text-color-subdued: var\(--([\w-]+)\);", css)
    assert len(quiet) == 2, quiet  # light and dark
    assert 1.05 / (luminance(hues[quiet[0]]) + 0.05) > 4.5, quiet
    assert (luminance(hues[quiet[1]]) + 0.05) / (luminance(hues["neutral-800"]) + 0.05) > 4.5
    for button in ("primary", "cancel"):
        for state in ("", "-hover"):
            fills = re.findall(rf"--button-{button}-background-fill{state}: ([^;]+);", css)
            assert len(fills) == 2, fills  # light and dark
            for fill in fills:
                shade = hues[fill[6:-1]] if fill.startswith("var(") else fill
                assert 1.05 / (luminance(shade) + 0.05) > 4.5, (button, state, shade)


def test_a_page_behind_a_proxy_knows_its_path(client: TestClient) -> None:
    below = TestClient(client.app, HERE, root_path="/under")
    page = below.get("/under/", headers=dict(client.headers))
    assert page.status_code == 200 and '"root": "http://localhost/under"' in page.text.replace(
        '"root":"', '"root": "'
    )


def test_the_password_is_asked_for_the_page_too(client: TestClient) -> None:
    stranger = TestClient(client.app, HERE)
    for path in ("/", "/config", "/theme.css", "/gradio_api/startup-events"):
        assert stranger.get(path).status_code == 401, path
    assert stranger.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
    assert stranger.get("/healthz").status_code == 200


def test_the_api_is_still_there(client: TestClient) -> None:
    assert client.get("/v1/models").status_code == 200
    assert "POST /v1/color" in client.get("/docs").text
    wrong = client.get("/nothing")
    assert wrong.status_code == 404 and wrong.headers["content-type"] == "application/problem+json"
    assert client.put("/v1/color").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://example.invalid/",
        "/gradio_api/file=http://example.invalid/a.png",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={folder}/../lock",
        "/gradio_api/info",
        "/gradio_api/vibe-code",
        "/gradio_api/deep_link",
        "/monitoring",
        "/login",
    ],
)
def test_what_the_page_does_not_need_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path.replace("{folder}", str(page_folder())))
    assert answer.status_code == 404, answer.text


def page_folder() -> Path:
    """Where the page of the server that runs keeps files."""
    (folder,) = Path(tempfile.gettempdir()).glob("gancolor-serve-*/page")
    return folder


def send(client: TestClient, said: Any) -> int:
    """The status of an event that says that."""
    body = {"data": [said], "fn_index": 0, "session_hash": "abc"}
    return int(client.post("/gradio_api/queue/join", json=body).status_code)


def test_an_event_names_no_file_but_its_own(client: TestClient) -> None:
    kind = {"meta": {"_type": "gradio.FileData"}}
    for path in ("http://example.invalid/a.png", "/etc/passwd", "../lock", 3, None):
        assert send(client, {"path": path, **kind}) == 403, path
        assert send(client, [{"image": {"path": path, **kind}}]) == 403, path


def told(client: TestClient, handler: str, language: str, *values: Any) -> str:
    """All that an event of the page is answered in a language."""
    parts = client.get("/config").json()["dependencies"]
    (number,) = (part["id"] for part in parts if part["api_name"] == handler)
    body = {"data": values, "fn_index": number, "session_hash": f"{handler}{language}"}
    client.post("/gradio_api/queue/join", json=body, headers={"accept-language": language})
    answer = client.get("/gradio_api/queue/data", params={"session_hash": body["session_hash"]})
    return str(answer.text)


def test_each_browser_has_a_key_of_its_own_from_its_first_event_on(client: TestClient) -> None:
    from gancolor.server.easel import VisitorKey

    config = client.get("/config").json()
    states = {part["id"] for part in config["components"] if part["type"] == "state"}
    asked = [part for part in config["dependencies"] if states & set(part["inputs"])]
    # Nothing that happens when the page is loaded gives a state its value: an upload may be earlier.
    assert asked and not [
        part
        for part in config["dependencies"]
        if any(event == "load" for _, event in part["targets"])
        and not part["inputs"]
        and states & set(part["outputs"])
    ]
    key = VisitorKey()
    one, two = copy.deepcopy(key), copy.deepcopy(key)
    assert len({key, one, two}) == 3 and len(two) >= 20


def test_what_is_said_later_has_the_browsers_language_too(client: TestClient) -> None:
    for language, bare, unknown, title in (
        ("en-US,en;q=0.9,de;q=0.8", "There are no curves yet.", "a film must be one", "Error"),
        ("de-AT,de;q=0.9,en;q=0.8", "Es gibt noch keine Kurven.", "gibt es keinen", "Fehler"),
    ):
        assert bare in told(client, "_draw", language, [])
        wrong = told(client, "_again", language, "nothing")
        assert unknown in wrong and f'"title":"{title}"' in wrong, wrong


def test_uploads_are_bounded_and_lie_in_the_servers_folder(client: TestClient) -> None:
    small = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 100)})
    assert small.status_code == 200
    (path,) = small.json()
    assert Path(path).is_relative_to(page_folder()) and Path(path).stat().st_size == 100
    large = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 100_000)})
    assert large.status_code == 413 and "0.05 megabytes" in large.json()["detail"]
    torn = client.post("/gradio_api/upload", content=iter([b"x"]))
    assert torn.status_code == 411
    elsewhere = {"sec-fetch-site": "cross-site"}
    refused = client.post("/gradio_api/upload", files={"files": b"x"}, headers=elsewhere)
    assert refused.status_code == 403


def test_without_the_page_gradio_is_not_there(colorizer: Colorizer) -> None:
    with TestClient(create_app(colorizer, ServerSettings(api_only=True)), HERE) as alone:
        assert alone.get("/", follow_redirects=False).headers["location"] == "/docs"
        assert alone.get("/config").status_code == 404
