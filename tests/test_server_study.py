"""A study's page on the server, and the results that its participants send."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_models
from participants import simulate

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")

import httpx2
from listening import HERE, listening, wait_until
from starlette.testclient import TestClient

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError, DataError
from gancolor.evaluation import study_answers, study_page
from gancolor.evaluation.study_page import StudyPage
from gancolor.server.application import create_app
from gancolor.server.server_settings import ServerSettings

if TYPE_CHECKING:
    from click.testing import Result

RATES = {"gray": 0.0, "tiny": 0.5, study_answers.TRUTH: 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.write(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def colorizer(model: Path) -> Colorizer:
    return Colorizer.load(model)


@pytest.fixture(scope="module")
def made(model: Path, painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small study, only to be read."""
    out = tmp_path_factory.mktemp("study") / "study.html"
    how = {"trials": 4, "practice": 1, "vigilance": 1, "size": 32, "split": "all"}
    study_page.make([model], out, dataset=str(painted), **how)
    return out


@pytest.fixture
def page_file(made: Path, tmp_path: Path) -> Path:
    """A copy of it in a folder of the test's own."""
    copy = tmp_path / "study.html"
    copy.write_bytes(made.read_bytes())
    return copy


@pytest.fixture
def serve(colorizer: Colorizer, page_file: Path) -> Iterator[Callable[..., TestClient]]:
    clients: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        app = create_app(colorizer, ServerSettings(study=page_file, api_only=True, **settings))
        clients.append(TestClient(app, HERE, raise_server_exceptions=False).__enter__())
        return clients[-1]

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def page(made: Path) -> StudyPage:
    return study_page.read(made)


def results_of(page: StudyPage, name: str, seed: int = 0, **changes: Any) -> bytes:
    """What the page saves of a simulated participant."""
    rng = np.random.default_rng(seed)
    pictures = sorted(page.pictures)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.json")
        simulate(path, RATES, rng, protocol=page.protocol, pictures=pictures, **changes)
        return path.read_bytes()


def send(client: TestClient, data: bytes, kind: str = "application/json") -> Any:
    return client.post("/study/results", content=data, headers={"content-type": kind})


def refused(answer: Any, status: int, words: str) -> None:
    """Assert a problem with these words, in one line."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_the_served_page_offers_to_send(serve: Callable[..., TestClient], page: StudyPage) -> None:
    client = serve()
    text = client.get("/study").text
    assert '<meta name="results-to" content="study/results">' in text
    assert text.replace('content="study/results"', 'content=""') == page.text
    assert "/study/results" in client.get("/openapi.json").json()["paths"]
    assert "POST /study/results" in client.get("/docs").text


def test_results_are_kept_and_scored(
    serve: Callable[..., TestClient],
    page: StudyPage,
    tmp_path: Path,
    cli: Callable[..., Result],
) -> None:
    client, sent = serve(), [results_of(page, f"person {n}", n) for n in range(3)]
    for data in sent:
        answer = send(client, data)
        assert (answer.status_code, answer.json()) == (201, {"taken": True})
    again = send(client, sent[1])
    assert (again.status_code, again.json()) == (200, {"taken": True})
    folder = tmp_path / "study-results"
    assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(sent)
    assert all(
        path.name.startswith(f"answers-{page.protocol.digest}-") for path in folder.iterdir()
    )
    assert "gancolor_study_results_total 3\n" in client.get("/metrics").text
    scored = cli("study", "score", folder)
    assert scored.exit_code == 0 and "over 3 participants" in scored.stdout, scored.stderr
    (folder / ".1-2.part").write_text("half of a file that a killed server left")
    one = cli("study", "score", *sorted(folder.glob("*.json")), "--out", tmp_path / "one.json")
    two = cli("study", "score", folder, "--out", tmp_path / "two.json")
    assert one.exit_code == two.exit_code == 0
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()


def test_who_sends_at_the_same_time_is_kept_once(
    serve: Callable[..., TestClient], page: StudyPage, tmp_path: Path
) -> None:
    client, data = serve(), results_of(page, "one")
    with ThreadPoolExecutor(8) as pool:
        statuses = [
            answer.status_code for answer in pool.map(lambda _: send(client, data), range(8))
        ]
    assert sorted(statuses) == [200] * 7 + [201]
    assert len(list((tmp_path / "study-results").iterdir())) == 1


def changed(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}).encode()


def test_other_results_are_refused(
    serve: Callable[..., TestClient], page: StudyPage, tmp_path: Path
) -> None:
    client, data = serve(max_participants=2), results_of(page, "one")
    trials = json.loads(data)["trials"]
    other = page._replace(protocol=replace(page.protocol, show_ms=500))
    cases = [
        (b"", 422, "must hold answers to a study"),
        (b"[" * 9000, 422, "must hold answers to a study"),
        (b"\xff", 422, "must hold answers to a study"),
        (changed(data, gancolor_study=9), 422, "must be of version 1"),
        (results_of(other, "x"), 422, f"must be of the study {page.protocol.digest}, got"),
        (changed(data, trials=trials[:-1]), 422, "4 trials of the kind scored, got 3"),
        (changed(data, trials=[*trials, *trials]), 422, "1 trials of the kind practice, got 2"),
        (changed(data, trials=[*trials[:-1], trials[-2]]), 422, "each once at most"),
        (
            changed(data, trials=[*trials[:-1], trials[-1] | {"picture": "/etc/passwd"}]),
            422,
            "must be of pictures of the page",
        ),
        (
            changed(data, trials=[*trials[:-1], trials[-1] | {"shown_ms": []}]),
            422,
            "must hold answers to a study",
        ),
        (data + b" " * 30_000, 413, "at most 0.026 megabytes"),
    ]
    for body, status, words in cases:
        refused(send(client, body), status, words)
    refused(send(client, data, "text/plain"), 415, "must be application/json, got text/plain")
    assert list((tmp_path / "study-results").iterdir()) == []
    assert send(client, data).status_code == 201
    refused(send(client, results_of(page, "one", 5)), 409, "got others of the same one")
    assert send(client, results_of(page, "../../two", 1)).status_code == 201
    refused(send(client, results_of(page, "three", 2)), 507, "results of 2 participants already")
    assert send(client, data).status_code == 200  # who is there already may send again
    assert len(list((tmp_path / "study-results").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == []


def test_a_full_disk_keeps_nothing_by_half(
    serve: Callable[..., TestClient],
    page: StudyPage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    client, data = serve(), results_of(page, "one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused(send(client, data), 507, "cannot keep the results: No space left")
    assert list((tmp_path / "study-results").iterdir()) == []
    assert send(client, data).status_code == 201


def test_too_many_at_once_are_told_to_come_back(
    colorizer: Colorizer, page_file: Path, page: StudyPage
) -> None:
    app = create_app(colorizer, ServerSettings(study=page_file, api_only=True, concurrency=1))
    data, kind = results_of(page, "one"), {"content-type": "application/json"}
    head = "POST /study/results HTTP/1.0\r\nHost: localhost\r\n"
    head += "Content-Type: application/json\r\n"
    head += f"Content-Length: {len(data)}\r\n\r\n"
    with listening(app) as address, httpx2.Client(base_url=address) as client:

        def sends(name: str) -> Any:
            return client.post("/study/results", content=results_of(page, name), headers=kind)

        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as slow:
            slow.sendall(head.encode() + data[:50])
            wait_until(lambda: sends("two").status_code == 429)
            assert sends("two").headers["retry-after"] == "2"
            slow.sendall(data[50:])
            assert b" 201 " in slow.makefile("rb").readline()
        wait_until(lambda: sends("three").status_code in (200, 201))


def test_a_study_that_cannot_be_served(
    colorizer: Colorizer, page_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--study-results must be used with --study"):
        ServerSettings(study_results=tmp_path)
    text = page_file.read_text()
    for content, words in (
        (b"\xff", "gancolor study make"),
        (b"<html>", "it holds no study"),
        (text.replace('"show_ms": 1000', '"show_ms": 1001').encode(), "its protocol is"),
        (text.replace('<meta name="results-to" content="">', "").encode(), "of another version"),
    ):
        page_file.write_bytes(content)
        with pytest.raises(DataError, match=words) as caught:
            create_app(colorizer, ServerSettings(study=page_file, api_only=True))
        assert str(page_file) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        create_app(colorizer, ServerSettings(study=tmp_path / "gone.html"))
    page_file.write_text(text)
    (tmp_path / "file").touch()
    settings = ServerSettings(study=page_file, study_results=tmp_path / "file")
    with pytest.raises(ConfigError, match="--study-results must be a folder"):
        create_app(colorizer, settings)


def test_a_folder_without_answers(tmp_path: Path, cli: Callable[..., Result]) -> None:
    result = cli("study", "score", tmp_path)
    assert (
        result.exit_code == 1 and "must hold answers to a study (.json), got none" in result.stderr
    )
