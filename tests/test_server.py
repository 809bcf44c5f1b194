"""The API: each route, each error, and that nothing of a request stays."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import small_models
from serving import FolderServer

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")

from listening import HERE, listening, wait_until
from starlette.testclient import TestClient

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError, DataError
from gancolor.images import reader
from gancolor.server import access
from gancolor.server.application import create_app
from gancolor.server.line import LineFull, RequestLine
from gancolor.server.server_settings import ServerSettings

if TYPE_CHECKING:
    from click.testing import Result

Serve = Callable[..., TestClient]


@pytest.fixture(scope="module")
def colorizer(tmp_path_factory: pytest.TempPathFactory) -> Colorizer:
    """One that takes hints and gives distributions."""
    folder = tmp_path_factory.mktemp("model")
    return Colorizer.load(small_models.write(folder / "m.safetensors", hints=0.5, head="bins"))


@pytest.fixture
def serve(colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers whose files lie in `tmp_path / "temporary"`; nothing is there afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    clients: list[TestClient] = []

    def start(model: Colorizer = colorizer, **settings: Any) -> TestClient:
        app = create_app(model, ServerSettings(**{"api_only": True, **settings}))
        client = TestClient(app, HERE, raise_server_exceptions=False, follow_redirects=False)
        clients.append(client)
        client.__enter__()
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)
    assert list(folder.iterdir()) == []


def left_over(tmp_path: Path) -> list[Path]:
    """The files of requests that are still there."""
    found = os.walk(tmp_path / "temporary")  # what vanishes meanwhile is no error
    return [Path(folder, name) for folder, _, names in found for name in names if name != "lock"]


def picture(suffix: str = ".png", side: int = 24, dtype: Any = np.uint8) -> bytes:
    """A gray gradient as a file."""
    values = np.linspace(0.1, 0.9, side * side).reshape(side, side) * np.iinfo(dtype).max
    done, data = cv2.imencode(suffix, values.astype(dtype))
    assert done
    return bytes(data)


def scope_of(headers: Any) -> dict[str, Any]:
    """What a server tells an application of a request to colour a picture."""
    scope: dict[str, Any] = {
        **{"type": "http", "method": "POST", "path": "/v1/color", "query_string": b""},
        **{"headers": [(b"host", b"localhost")], "scheme": "http"},
        **{"server": ("testserver", 80), "client": ("a", 1), "http_version": "1.1"},
    }
    scope["headers"] += [(key.lower(), value) for key, value in headers]
    return scope


def send(client: TestClient, route: str = "color", **parts: Any) -> Any:
    """Ask for a picture; parts are bytes of files, and texts."""
    files = {name: (f"{name}.png", part) for name, part in parts.items() if isinstance(part, bytes)}
    texts = {name: part for name, part in parts.items() if not isinstance(part, bytes)}
    if "options" in texts and not isinstance(texts["options"], str):
        texts["options"] = json.dumps(texts["options"])
    files.setdefault("picture", ("old.png", picture()))
    return client.post(f"/v1/{route}", files=files, data=texts)


def refused(answer: Any, status: int, *words: str) -> None:
    """Assert a problem with these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail"} and told["status"] == status
    assert "\n" not in told["detail"] and "/tmp" not in told["detail"]
    assert "gancolor-serve" not in answer.text
    for word in words:
        assert word in told["detail"]


def test_a_picture_comes_back_in_its_format_and_depth(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    answer = send(client, picture=picture(".png", 30, np.uint16))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    (tmp_path / "got.png").write_bytes(answer.content)
    got = reader.read(tmp_path / "got.png")
    assert got.pixels.dtype == np.uint16 and got.pixels.shape == (30, 30, 3)
    assert (got.pixels.max(2) > got.pixels.min(2)).any()
    assert b"colorized by gancolor" in answer.content
    jpeg = client.post("/v1/color", files={"picture": ("no suffix", picture(".jpg"))})
    assert jpeg.headers["content-type"] == "image/jpeg" and jpeg.content[:2] == b"\xff\xd8"
    assert left_over(tmp_path) == []


def test_it_is_what_sample_writes(
    serve: Serve, colorizer: Colorizer, cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "old.jpg").write_bytes(picture(".jpg", 40))
    model = small_models.write(tmp_path / "m.safetensors", hints=0.5, head="bins")
    assert (
        cli("sample", tmp_path / "old.jpg", "--run", model, "--out", tmp_path / "new").exit_code
        == 0
    )
    answer = serve().post("/v1/color", files={"picture": ("old.jpg", picture(".jpg", 40))})
    assert answer.content == (tmp_path / "new" / "old.jpg").read_bytes()


def test_several_results_are_an_archive(serve: Serve, tmp_path: Path) -> None:
    options = {"variants": 2, "show_confidence": True, "format": "webp", "size": "auto"}
    answer = send(serve(), options=options)
    assert answer.headers["content-type"] == "application/zip"
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert names == ["colored.webp", "colored-2.webp", "colored-confidence.png"]
    assert left_over(tmp_path) == []


def test_hints_and_a_mask_count(serve: Serve) -> None:
    client = serve()
    plain = send(client).content
    hint = {"x": 12, "y": 12, "color": "#c02020", "radius": 2}
    told = send(client, options={"hints": [hint]}).content
    assert told != plain
    layer = json.dumps([hint]).encode()
    files = {"picture": ("a.png", picture()), "hints": ("h.json", layer)}
    assert client.post("/v1/color", files=files).content == told
    files |= {"mask": ("m.png", picture())}
    assert client.post("/v1/color", files=files).content not in (plain, told)
    both = client.post("/v1/color", files=files, data={"options": json.dumps({"hints": [hint]})})
    refused(both, 422, "got both")


def test_suggestions_are_those_of_the_model(
    serve: Serve, colorizer: Colorizer, tmp_path: Path
) -> None:
    client = serve()
    answer = send(client, "suggest", x="3", y="4", options={"count": 3})
    assert answer.status_code == 200, answer.text
    hint = {"x": 3, "y": 4, "color": "#c02020"}
    told = send(client, "suggest", x="3", y="4", options={"count": 3, "hints": [hint]})
    assert told.status_code == 200 and told.json() != answer.json()
    (tmp_path / "a.png").write_bytes(picture())
    expected = colorizer.suggest(tmp_path / "a.png", 3, 4, count=3)
    got = answer.json()
    assert (got["width"], got["height"], len(got["suggestions"])) == (24, 24, 3)
    for each, known in zip(got["suggestions"], expected, strict=True):
        assert each["color"] == "#{:02x}{:02x}{:02x}".format(*known.rgb)
        assert each["probability"] == pytest.approx(known.probability)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "x must be a number"),
        ({"x": "1", "y": "nan"}, "place"),
        ({"x": "99", "y": "1"}, "must lie in the picture"),
        ({"x": "1", "y": "1", "options": '{"count": 0}'}, "count must be"),
        ({"x": "1", "y": "1", "options": '{"variants": 2}'}, "options must be of count"),
    ],
)
def test_suggest_refuses(serve: Serve, texts: dict[str, str], words: str) -> None:
    refused(send(serve(), "suggest", **texts), 422, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{", "options must be JSON"),
        ("[" * 100_000, "options must be JSON"),
        ('{"variants": NaN}', "NaN is no number"),
        ('{"seed": 1, "seed": 2}', "a name comes twice"),
        ("[1]", "options must be a JSON object"),
        ('{"out": "/etc"}', "got out"),
        ('{"temperature": -1}', "--temperature must be at least 0.01, got -1"),
        ('{"variants": "2"}', "--variants must be int"),
        ('{"provenance": 1}', "provenance must be true or false"),
        ('{"format": "svg"}', "--format must be one of"),
        ('{"hints": [{"x": 1}]}', "hint 1 of hints.json must be like those in"),
        ('{"hints": [{"x": 99, "y": 1, "color": "#ffffff"}]}', "must lie in the picture of 24x24"),
        ('{"hints": []}', "at least one point"),
        ('{"show_matches": true}', "--show-matches must be used with --reference"),
    ],
)
def test_options_are_refused_in_the_words_of_the_command_line(
    serve: Serve, tmp_path: Path, options: str, words: str
) -> None:
    refused(send(serve(), options=options), 422, words)
    assert left_over(tmp_path) == []


def test_what_is_no_picture_is_refused(serve: Serve, tmp_path: Path) -> None:
    client = serve(max_megapixels=0.001)
    for data, words in (
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (picture()[:60], "picture.png"),
    ):
        refused(send(client, picture=data), 422, words)
    named = client.post("/v1/color", files={"picture": ("../../x.svg", b"<svg></svg>")})
    refused(named, 422, "no picture")
    refused(send(client, picture=picture(side=40)), 413, "at most 0.001 megapixels", "raise")
    refused(send(client, mask=picture(side=40)), 413, "mask.png")
    refused(send(client, reference=picture()), 422, "--reference")
    assert left_over(tmp_path) == []


def test_names_of_files_are_never_paths(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    for name in ("../../../evil.png", "/etc/passwd", "a\x00b.png", "x" * 2000, "..", "con.PNG"):
        answer = client.post("/v1/color", files={"picture": (name, picture())})
        assert answer.status_code == 200, answer.text
    assert not list(tmp_path.parent.rglob("evil*"))


def test_an_address_in_a_request_is_never_fetched(
    serve: Serve, folder_server: FolderServer, tmp_path: Path
) -> None:
    (folder_server.folder / "a.png").write_bytes(picture())
    address = f"{folder_server.address}/a.png"
    client = serve()
    named = client.post("/v1/color", files={"picture": (address, picture())})
    assert named.status_code == 200  # it is a name, and what it names comes with it
    for part in (address.encode(), f"path\n{address}\n".encode()):
        refused(send(client, picture=part), 422)
    refused(send(client, hints=address.encode()), 422)
    as_text = client.post("/v1/color", files={"picture": (None, address)})
    assert as_text.status_code in (400, 422)
    for options in ({"mask": address}, {"hints": address}, {"reference": address}):
        assert send(client, options=options).status_code == 422
    assert folder_server.paths == [] and left_over(tmp_path) == []


def test_requests_of_another_kind_are_refused(serve: Serve) -> None:
    client = serve(max_megabytes=0.01)
    refused(client.post("/v1/color", content=b"x"), 415, "multipart/form-data, got nothing")
    refused(client.post("/v1/color", json={}), 415, "application/json")
    refused(client.post("/v1/color", files={"other": b"x"}), 400, "got 'other'")
    refused(client.post("/v1/color", files={"hints": b"x"}), 400, "a file as picture, got none")
    twice = [("picture", ("a.png", picture())), ("picture", ("b.png", picture()))]
    refused(client.post("/v1/color", files=twice), 400, "picture must be given once")
    large = {"picture": ("a.png", picture() + bytes(20_000))}
    refused(client.post("/v1/color", files=large), 413, "at most 0.01 megabytes")
    refused(client.get("/v1/color"), 405, "got GET")
    refused(client.get("/v1/nothing"), 404, "/docs")

    def unannounced() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        yield bytes(20_000)

    kind = {"content-type": "multipart/form-data; boundary=b"}
    refused(client.post("/v1/color", content=unannounced(), headers=kind), 413, "megabytes")


def test_malformed_bodies_are_refused_and_leave_nothing(serve: Serve, tmp_path: Path) -> None:
    client, rng = serve(), random.Random(5)
    whole = client.build_request(
        "POST", "http://localhost/v1/color", files={"picture": ("a.png", picture(side=8))}
    )
    body, kind = whole.read(), whole.headers["content-type"]
    for number in range(50):
        broken = bytearray(body)
        if number % 2:
            del broken[rng.randrange(len(broken) - 30) :]
        else:
            for _ in range(1 + number // 4):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        answer = client.post("/v1/color", content=bytes(broken), headers={"content-type": kind})
        assert answer.status_code in (200, 400, 413, 422), answer.text
        if number % 2:
            refused(answer, 400, "whole multipart/form-data")
    assert left_over(tmp_path) == []
    assert send(client).status_code == 200


class Slow:
    """A colorizer that waits for leave to answer, or fails."""

    def __init__(self, inner: Colorizer) -> None:
        self.inner, self.asked, self.go = inner, threading.Event(), threading.Event()
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def predict_view(self, view: Any) -> Any:
        self.asked.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        return self.inner.predict_view(view)

    def suggest(self, *place: Any, **how: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.inner.suggest(*place, **how)


def test_a_full_line_says_when_to_come_back(
    serve: Serve, colorizer: Colorizer, tmp_path: Path
) -> None:
    slow = Slow(colorizer)
    client = serve(slow, concurrency=2)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(send(client))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: "requests_present 2" in client.get("/metrics").text)
    full = send(client)
    refused(full, 429, "the line must have a place")
    assert int(full.headers["retry-after"]) >= 1
    assert client.get("/healthz").status_code == 200
    slow.go.set()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    text = client.get("/metrics").text
    assert "gancolor_refused_total 1\n" in text and "gancolor_requests_present 0\n" in text
    assert 'requests_total{method="POST",route="/v1/color",status="429"} 1\n' in text
    assert "gancolor_pictures_colored_total 2\n" in text
    assert left_over(tmp_path) == []


def test_a_fault_of_the_network_is_not_told_and_the_next_is_served(
    serve: Serve, colorizer: Colorizer, tmp_path: Path
) -> None:
    slow = Slow(colorizer)
    slow.go.set()
    client = serve(slow)
    slow.error = ValueError("at /tmp/secret")
    refused(send(client), 500, "the server failed")
    slow.error = DataError("the network's colours must be numbers")
    refused(send(client), 422, "the network's colours must be numbers")
    for slow.error in (MemoryError(), RuntimeError("[enforce fail] can't allocate memory")):
        starved = send(client)
        refused(starved, 503, "must have memory for this, it ran out")
        assert starved.headers["retry-after"] == "30"
        refused(send(client, "suggest", x="1", y="1"), 503, "must have memory for this")
    slow.error = None
    assert send(client).status_code == 200
    assert left_over(tmp_path) == []


def test_what_takes_too_long_is_given_up(
    serve: Serve, colorizer: Colorizer, tmp_path: Path
) -> None:
    slow = Slow(colorizer)
    client = serve(slow, max_seconds=0.2)
    answer = send(client)
    refused(answer, 503, "within 0.2 seconds")
    assert "retry-after" in answer.headers
    slow.go.set()
    wait_until(lambda: left_over(tmp_path) == [])


def test_a_page_of_another_site_is_refused(serve: Serve) -> None:
    client = serve()
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        files = {"picture": ("a.png", picture())}
        answer = client.post("/v1/color", files=files, headers={"sec-fetch-site": site})
        assert answer.status_code == status
    assert client.get("/docs", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_what_arrives_too_slowly_is_given_up(serve: Serve, tmp_path: Path) -> None:
    import anyio

    client, told = serve(max_seconds=0.05), list[Any]()

    async def receive() -> dict[str, Any]:
        await anyio.sleep(0.02)
        part = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\nx'
        return {"type": "http.request", "body": b"x" if told else part, "more_body": True}

    async def keep(message: Any) -> None:
        told.append(message)

    kind = [(b"content-type", b"multipart/form-data; boundary=b")]
    anyio.run(client.app, scope_of(kind), receive, keep)
    assert told[0]["status"] == 408
    assert left_over(tmp_path) == []


def test_what_is_fetched_too_slowly_is_given_up(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import anyio

    client = serve(max_seconds=1)
    whole = client.build_request(
        "POST", "http://localhost/v1/color", files={"picture": ("a.png", picture())}
    )
    body, told = whole.read(), list[Any]()

    async def receive() -> dict[str, Any]:
        if told:
            await anyio.sleep(60)
        told.append(None)
        return {"type": "http.request", "body": body, "more_body": False}

    async def stall(message: Any) -> None:
        told.append(message)
        if message["type"] == "http.response.body":
            assert left_over(tmp_path) != []
            await anyio.sleep(60)

    anyio.run(client.app, scope_of(whole.headers.raw), receive, stall)
    assert told[1]["status"] == 200 and "not fetched" in caplog.text
    assert left_over(tmp_path) == []


def test_who_hangs_up_leaves_nothing(serve: Serve, colorizer: Colorizer, tmp_path: Path) -> None:
    import anyio

    slow = Slow(colorizer)
    client = serve(slow)
    whole = client.build_request(
        "POST", "http://localhost/v1/color", files={"picture": ("a.png", picture())}
    )
    body = whole.read()

    def hang_up(messages: list[dict[str, Any]], before_last: Callable[[], bool]) -> None:
        async def receive() -> dict[str, Any]:
            if len(messages) == 1:
                with anyio.fail_after(10):
                    while not before_last():
                        await anyio.sleep(0.005)
            return messages.pop(0)

        async def send_nowhere(message: Any) -> None:
            pass

        async def ask() -> None:
            await client.app(scope_of(whole.headers.raw), receive, send_nowhere)  # type: ignore[arg-type]

        anyio.run(ask)

    gone = {"type": "http.disconnect"}
    half = {"type": "http.request", "body": body[:-60], "more_body": True}
    hang_up([half, gone], lambda: left_over(tmp_path) != [])  # while it arrives
    assert left_over(tmp_path) == []
    all_of_it = {"type": "http.request", "body": body, "more_body": False}
    hang_up([all_of_it, gone], slow.asked.is_set)  # while it is coloured
    slow.go.set()
    wait_until(lambda: left_over(tmp_path) == [])
    assert 'status="499"} 2\n' in client.get("/metrics").text
    assert send(client).status_code == 200


def film_of(path: Path, frames: int = 12, **how: Any) -> bytes:
    """A tiny film as a file."""
    pytest.importorskip("av")
    import clips

    clips.film(path, frames=frames, **how)
    return path.read_bytes()


def job_at_end(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is done or has failed."""
    wait_until(lambda: client.get(job["self"]).json()["state"] in ("done", "failed"))
    told: dict[str, Any] = client.get(job["self"]).json()
    return told


def send_film(client: TestClient, data: bytes, name: str = "old.mkv", **options: Any) -> Any:
    """Ask for a film."""
    parts = {"options": json.dumps(options)} if options else {}
    return client.post("/v1/films", files={"film": (name, data)}, data=parts)


def test_a_film_is_a_job(serve: Serve, tmp_path: Path) -> None:
    from gancolor.video.probe import probe

    client = serve()
    made = send_film(client, film_of(tmp_path / "old.mkv"), key_interval=4, **{"to": 0.4})
    assert made.status_code == 202, made.text
    assert made.headers["location"] == made.json()["self"]
    job = job_at_end(client, made.json())
    assert job["state"] == "done", job
    assert (job["progress"], job["frames_done"], job["error"]) == (1.0, 10, None)
    result = client.get(job["result"])
    assert (
        result.status_code == 200
        and 'filename="colored.mkv"' in result.headers["content-disposition"]
    )
    (tmp_path / "new.mkv").write_bytes(result.content)
    info = probe(tmp_path / "new.mkv")
    assert (info.width, info.height) == (64, 48)
    assert [path.name for path in left_over(tmp_path)] == ["colored.mkv"]
    assert client.delete(job["self"]).status_code == 204
    assert left_over(tmp_path) == []
    refused(client.get(job["self"]), 404, "it may be over")
    refused(client.delete(job["self"]), 404)


def test_a_film_lets_pictures_go_first_and_is_cancelled(
    serve: Serve, colorizer: Colorizer, tmp_path: Path
) -> None:
    slow = Slow(colorizer)
    client = serve(slow, max_films=1)
    job = send_film(client, film_of(tmp_path / "old.mp4", 60), "old.mp4", key_interval=1).json()
    assert slow.asked.wait(10)
    assert client.get(job["self"]).json()["state"] == "running"
    refused(client.get(job["self"] + "/result"), 409, "got it running")
    full = send_film(client, b"")
    refused(full, 429, "the line must have a place")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(send(client)))
    thread.start()
    wait_until(lambda: "requests_waiting 1" in client.get("/metrics").text)
    slow.go.set()
    thread.join()
    assert answers[0].status_code == 200
    told = client.get(job["self"]).json()
    assert told["state"] == "running" and told["frames_done"] < 60, told
    assert client.delete(job["self"]).status_code == 204
    wait_until(lambda: left_over(tmp_path) == [])
    wait_until(lambda: "films_present 0" in client.get("/metrics").text)
    assert send(client).status_code == 200


def test_films_are_refused(serve: Serve, tmp_path: Path) -> None:
    data = film_of(tmp_path / "old.mkv", 3)
    client = serve(max_megapixels=0.003, max_film_megabytes=1)
    refused(send_film(client, data), 413, "at most 0.003 megapixels, got 64x48")
    refused(send_film(client, bytes(1_000_001)), 413, "at most 1 megabytes")
    client = serve()
    for text in (
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        picture(),
        b"",
        b"ffconcat version 1.0",
    ):
        refused(send_film(client, text, "a.mp4"), 422, "film must be of a kind that is read")
    refused(send_film(client, data[:200]), 422, "film.mkv")
    refused(send_film(client, data, keys="/etc"), 422, "options must be of", "got keys")
    refused(send_film(client, data, crf=99), 422, "quality of libx264 must be")
    refused(send_film(client, data, codec="nothing"), 422, "codec")
    refused(send_film(client, data, **{"from": 2, "to": 1}), 422, "--to must be behind --from")
    refused(client.get("/v1/jobs/..%2f..%2fetc"), 404)
    assert left_over(tmp_path) == []


def test_a_film_that_fails_says_why(serve: Serve, colorizer: Colorizer, tmp_path: Path) -> None:
    slow = Slow(colorizer)
    slow.go.set()
    client, data = serve(slow), film_of(tmp_path / "old.mkv", 3)
    for error, status, words in (
        (DataError("the network's colours must be numbers"), 422, "must be numbers"),
        (ValueError("at /tmp/secret"), 422, "must be coloured without an error"),
    ):
        slow.error = error
        job = job_at_end(client, send_film(client, data).json())
        assert job["state"] == "failed" and job["result"] is None
        assert job["error"]["status"] == status and words in job["error"]["detail"]
        assert "kept" not in job["error"]["detail"]
        assert left_over(tmp_path) == []


def test_a_film_that_nobody_fetches_is_removed(serve: Serve, tmp_path: Path) -> None:
    client = serve(keep_hours=0.1 / 3600)
    job = send_film(client, film_of(tmp_path / "old.mkv", 3)).json()
    wait_until(lambda: client.get(job["self"]).status_code == 404)
    assert left_over(tmp_path) == []
    assert "films_present 0" in client.get("/metrics").text


def test_who_has_no_password_is_refused(serve: Serve, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("ann:it's:long\nböb:x\n", encoding="utf-8")
    client = serve(auth_file=users)

    def header(text: str) -> dict[str, str]:
        return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    refused(client.get("/v1/models"), 401, "got none")
    answer = client.get("/v1/models", headers=header("ann:it's"))
    refused(answer, 401, "got another")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    for wrong in ("Basic ?", "Bearer x", "Basic", "basic " + "A" * 5000):
        refused(client.get("/docs", headers={"authorization": wrong}), 401)
    for right in ("ann:it's:long", "böb:x"):
        assert client.get("/v1/models", headers=header(right)).status_code == 200
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got none"),
        ("ann\n", "another as line 1"),
        ("ann:\n", "another as line 1"),
        ("\nann:secret\nann:other\n", "ann again as line 3"),
    ],
)
def test_a_wrong_file_of_users_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "users").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        access.read_users(tmp_path / "users")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        access.read_users(tmp_path / "nothing")


def test_the_api_is_described_without_anything_from_elsewhere(serve: Serve) -> None:
    client = serve()
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/color"]["post"]["requestBody"]["content"]["multipart/form-data"]
    options = body["schema"]["properties"]["options"]["properties"]
    assert options["variants"]["maximum"] == 64 and "show_confidence" in options
    page = client.get("/docs").text
    assert "POST /v1/suggest" in page and "keep_color" in page
    assert "http://" not in page and "https://" not in page and "src=" not in page
    assert client.get("/").headers["location"] == "/docs"
    below = TestClient(client.app, HERE, root_path="/under", follow_redirects=False)
    assert below.get("/under/").headers["location"] == "/under/docs"
    assert 'href="/under/openapi.json"' in below.get("/under/docs").text
    assert below.get("/under/healthz").status_code == 200
    (model,) = client.get("/v1/models").json()["models"]
    assert model["hints"] and model["suggestions"]


def test_a_page_elsewhere_whose_name_points_here_is_refused(serve: Serve) -> None:
    def asked(client: TestClient, *hosts: str) -> list[int]:
        return [client.get("/healthz", headers={"host": host}).status_code for host in hosts]

    here = ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8000")
    others = ("evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1", "[::2]")
    torn = ("127.0.0.1.evil.example", "[::1].evil.example", "a@localhost", "localhost:a", "")
    own, name = serve(), "photos.example.org"
    assert asked(own, *here) == [200] * len(here)
    assert asked(own, *others, *torn, name) == [421] * (len(others) + len(torn) + 1)
    answer = own.get("/healthz", headers={"host": "evil.example"})
    refused(answer, 421, "must ask for localhost or the name of --server-name, got evil.example")
    for named in (serve(server_name=name), serve(server_name=name, host="0.0.0.0")):
        assert asked(named, *here, name, "Photos.Example.org:443") == [200] * (len(here) + 2)
        assert asked(named, *others, *torn) == [421] * (len(others) + len(torn))
    assert asked(serve(host="0.0.0.0"), *here, *others) == [200] * (len(here) + len(others))
    for wrong in ("https://photos.example.org", "photos.example.org:443", "a b"):
        with pytest.raises(ConfigError, match="--server-name must be a name alone"):
            ServerSettings(server_name=wrong)


def test_a_line_that_is_closed_takes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    line = RequestLine(1, 1)
    with pytest.raises(LineFull):
        line.enter()
    left = tmp_path / "gancolor-serve-killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "upload").touch()
    line.open()
    other = RequestLine(1, 1)
    other.open()
    assert not left.exists() and line.root.exists()
    other.close()
    ticket = line.enter()
    with pytest.raises(LineFull):
        line.enter()
    line.close()
    assert not line.is_alive and not ticket.folder.exists() and list(tmp_path.iterdir()) == []
    with pytest.raises(LineFull):
        line.enter()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "70000 is not in the range"),
        (["--root-path", "x"], "--root-path must begin with /"),
        (["--host", "nowhere.invalid"], "--host must be an address of this machine"),
        (["--port", "0", "--run", "missing"], "missing"),
    ],
)
def test_serve_refuses(cli: Callable[..., Result], arguments: list[str], words: str) -> None:
    result = cli("serve", *arguments)
    assert result.exit_code != 0 and words in result.output and "Traceback" not in result.output


def test_serve_says_which_extra_is_missing(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = cli("serve")
    assert result.exit_code == 1 and "pip install 'gancolor[studio]'" in result.output


def test_serve_says_where_and_what_opening_it_means(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    model = small_models.write(tmp_path / "m.safetensors")
    local = cli("serve", "--api-only", "--run", model, "--port", "0")
    assert local.exit_code == 0, local.output
    assert "serving on http://127.0.0.1:" in local.output and "open to other" not in local.output
    opened = cli("serve", "--api-only", "--run", model, "--port", "0", "--host", "0.0.0.0")
    assert "WARNING: 0.0.0.0 is open to other machines: everybody" in opened.output


def is_done(address: str) -> bool:
    """Whether the job at an address is done."""
    with urllib.request.urlopen(address) as answer:
        return bool(json.load(answer)["state"] == "done")


@pytest.mark.slow
def test_the_examples_of_the_documentation_work(
    colorizer: Colorizer, repository: Path, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    clips = pytest.importorskip("clips")
    page = (repository / "docs" / "studio.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 16
    (tmp_path / "old.mp4").write_bytes(film_of(tmp_path / "made.mp4", 3))
    cv2.imwrite(str(tmp_path / "0.04.png"), clips.picture(1)[..., ::-1])
    (tmp_path / "old.jpg").write_bytes(picture(".jpg"))
    (tmp_path / "mask.png").write_bytes(picture())
    colors = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "cousin.jpg"), cv2.resize(colors, (96, 96)))
    (tmp_path / "hints.csv").write_text("3,4,#802020\n")
    with listening(create_app(colorizer, ServerSettings(api_only=True))) as address:
        for command in commands:
            there = command.replace("http://127.0.0.1:8000", address)
            if "jobs/ID" in command:
                job = json.loads((tmp_path / "job.json").read_text())
                there = there.replace("jobs/ID", f"jobs/{job['id']}")
                wait_until(lambda job=job: is_done(f"{address}{job['self']}"))  # type: ignore[misc]
            done = subprocess.run(there, shell=True, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    assert zipfile.ZipFile(tmp_path / "new.zip").namelist()[-1] == "colored-confidence.png"
    assert reader.read(tmp_path / "new.png").size == (24, 24)


@pytest.mark.slow
def test_many_clients_at_once_find_an_answer_or_are_told_to_come_back(
    colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx2

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    statuses: list[int] = []
    end = time.monotonic() + 6

    def client(number: int, address: str) -> None:
        with httpx2.Client(base_url=address, timeout=60) as session:
            while time.monotonic() < end:
                data = picture(side=16 + number) if number % 5 else b"broken"
                answer = session.post("/v1/color", files={"picture": ("a.png", data)})
                statuses.append(answer.status_code)
                if answer.status_code == 429:
                    time.sleep(0.1)  # so that those who have a place get the processor

    with listening(create_app(colorizer, ServerSettings(api_only=True, concurrency=8))) as address:
        threads = [threading.Thread(target=client, args=(each, address)) for each in range(50)]
        files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: left_over(tmp_path) == [])  # a file may go after its answer
        if files:
            wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert set(statuses) == {200, 422, 429}, set(statuses)
