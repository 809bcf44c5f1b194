"""Models on any web server: learned at first, checked afterwards, and every way in which that can
fail.
"""

from __future__ import annotations

import hashlib
import pickle
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_models
import torch
from serving import Server
from support import refused_fetch as refused

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import CheckpointError, DownloadError
from gancolor.hub import addresses, retrieval
from gancolor.images import arrays
from gancolor.runtime import download
from gancolor.runtime.download import Unanswered

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]


@pytest.fixture
def server(bodies: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(retrieval, "BACKOFF", 0.001)
    server = Server(bodies[0])
    yield server
    server.stop()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def url(server: Server) -> str:
    return f"{server.address}/models/old%20town.safetensors"


def kept() -> list[str]:
    """Names of what of models lies in the cache."""
    return sorted(path.name for path in addresses.root().rglob("*") if path.is_file())


# --- what works ---


def test_a_model_is_fetched_once(server: Server, bodies: list[bytes]) -> None:
    fetched = retrieval.fetch(url(server))
    assert fetched.path.read_bytes() == bodies[0] and fetched.sha256 == sha256(bodies[0])
    assert fetched.name == f"old-town-{sha256(bodies[0])[:8]}"
    assert kept() == [f"{fetched.name}.safetensors", "record.json"]
    server.sent = 0
    assert retrieval.fetch(url(server)).path == fetched.path
    assert server.requests[-1]["if-none-match"] == '"one"'
    assert Colorizer.load(url(server)).name == f"{fetched.name} step 7"
    asked = len(server.requests)
    assert retrieval.fetch(f"{url(server)}#sha256={sha256(bodies[0]).upper()}").path == fetched.path
    assert len(server.requests) == asked  # the address says what it must be: nobody is asked


def test_an_address_with_a_checksum_fetches_just_that(server: Server, bodies: list[bytes]) -> None:
    fetched = retrieval.fetch(f"{url(server)}#sha256={sha256(bodies[0])}")
    assert fetched.path.read_bytes() == bodies[0]
    assert len(server.requests) == 1


def test_a_checkpoint_of_torch_is_read_without_running_code(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_models.make_run(tmp_path, "0001-mine")
    server.body = (run / "best.pt").read_bytes()
    fetched = retrieval.fetch(f"{server.address}/best.pt")
    assert fetched.path.suffix == ".pt"
    picture = np.full((40, 40, 3), 99, np.uint8)
    assert np.array_equal(Colorizer.load(fetched.path)(picture), Colorizer.load(run)(picture))

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("code ran",)

    torch.save({"format": 1, "config": {}, "evil": Evil()}, tmp_path / "evil.pt")
    server.body, server.etag = (tmp_path / "evil.pt").read_bytes(), '"two"'
    refused(CheckpointError, f"{server.address}/evil.pt", "/evil.pt", "it would run code: print")
    server.body = pickle.dumps(Evil())
    refused(CheckpointError, f"{server.address}/evil2.pt", "damaged or not a checkpoint")
    assert "code ran" not in capsys.readouterr().out
    assert kept() == [fetched.path.name, "record.json"]


def test_an_onnx_model_is_fetched_too(server: Server, bodies: list[bytes], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from gancolor import interchange
    from gancolor.hub import choice

    source, out = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    source.write_bytes(bodies[0])
    interchange.export(choice.find(str(source), tmp_path), out)
    server.body = out.read_bytes()
    fetched = retrieval.fetch(url(server))
    assert fetched.path.suffix == ".onnx"
    gray = np.full((20, 20), 99, np.uint8)
    assert np.array_equal(Colorizer.load(fetched.path)(gray), Colorizer.load(out)(gray))


def test_without_network_the_kept_copy_is_used_and_that_is_said(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fetched = retrieval.fetch(url(server))
    server.statuses = [404]
    assert retrieval.fetch(url(server)).path == fetched.path
    server.stop()
    assert retrieval.fetch(url(server)).path == fetched.path
    first, second = [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ]
    assert "does not answer (HTTP 404" in first and "the kept copy is used" in second


def test_the_same_file_with_another_tag_is_no_change(server: Server, bodies: list[bytes]) -> None:
    fetched = retrieval.fetch(url(server))
    server.etag = '"of another machine"'
    assert retrieval.fetch(url(server)).path == fetched.path
    server.etag = None
    assert retrieval.fetch(url(server)).path == fetched.path
    asked = len(server.requests)
    assert retrieval.fetch(url(server)).path == fetched.path
    assert len(server.requests) == asked + 1  # its length is what the server still says


# --- what has become another ---


def test_a_file_that_changed_is_one_line_that_says_how_to_accept_it(
    server: Server, bodies: list[bytes]
) -> None:
    first = retrieval.fetch(url(server))
    server.body, server.etag = bodies[1], '"two"'
    old, new = sha256(bodies[0]), sha256(bodies[1])
    for _ in range(2):
        message = refused(
            DownloadError,
            url(server),
            f"has changed: SHA-256 {old} when it was accepted, {new} now",
        )
        assert f"{url(server)}#sha256={new}" in message and f"{url(server)}#sha256={old}" in message
    assert retrieval.fetch(f"{url(server)}#sha256={old}").path == first.path
    refused(DownloadError, url(server), "has changed")
    assert retrieval.fetch(f"{url(server)}#sha256={new}").path.read_bytes() == bodies[1]
    assert retrieval.fetch(url(server)).path.read_bytes() == bodies[1]  # accepted
    assert retrieval.fetch(f"{url(server)}#sha256={old}").path == first.path
    refused(DownloadError, url(server), f"SHA-256 {old} when it was accepted, {new} now")


def test_a_copy_that_was_lost_is_checked_against_what_it_was(
    server: Server, bodies: list[bytes]
) -> None:
    first = retrieval.fetch(url(server))
    first.path.unlink()
    server.body = bodies[1]
    refused(DownloadError, url(server), "has changed")
    server.body = bodies[0]
    assert retrieval.fetch(url(server)).path.read_bytes() == bodies[0]


# --- what fails ---


def test_another_checksum_than_the_address_says(server: Server, bodies: list[bytes]) -> None:
    wanted = sha256(bodies[1])
    refused(
        DownloadError, f"{url(server)}#sha256={wanted}", "wrong checksum", wanted, sha256(bodies[0])
    )
    assert not [name for name in kept() if name.endswith((".safetensors", "record.json"))]


def test_a_server_that_sends_fewer_bytes(server: Server, bodies: list[bytes]) -> None:
    server.cuts = [0, *[50] * 9]  # the first question is about the headers
    refused(DownloadError, url(server), f"of {len(bodies[0])} bytes")
    server.cuts, server.ranges = [], False
    assert retrieval.fetch(url(server)).path.read_bytes() == bodies[0]


def test_a_file_that_was_truncated_before_it_was_served(
    server: Server, bodies: list[bytes]
) -> None:
    server.body = bodies[0][:-10]
    refused(CheckpointError, url(server), f"{url(server)} is damaged or no safetensors file")
    assert kept() == []


@pytest.mark.parametrize("body", [b"", b"<html>not here</html>", b"\x89PNG\r\n\x1a\n" * 9])
def test_a_file_that_is_no_model(server: Server, body: bytes) -> None:
    server.body = body
    refused(CheckpointError, url(server), url(server), "not a checkpoint")
    assert kept() == []


def test_what_is_not_there_and_no_server(server: Server) -> None:
    server.statuses = [404, 404]
    refused(DownloadError, url(server), "HTTP 404")
    server.stop()
    refused(DownloadError, url(server), "failed")
    assert kept() == []


def test_a_redirect_to_plain_http(server: Server) -> None:
    server.redirects["/models/old%20town.safetensors"] = "http://files.example.org/m.safetensors"
    refused(
        DownloadError,
        url(server),
        "redirects to http://files.example.org/m.safetensors, which is not encrypted",
    )
    assert kept() == []


def test_the_command_says_it_in_one_line_and_writes_nothing(
    server: Server, cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays.write_rgb(tmp_path / "a.png", np.full((40, 48, 3), 120, np.uint8))
    server.body = b"words"
    result = cli("sample", "a.png", "--out", "new", "--run", url(server))
    assert result.exit_code == 1 and result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    assert not (tmp_path / "new").exists() and kept() == []


# --- asking ---


@pytest.mark.parametrize(
    ("before", "after", "good"),
    [
        ("https://a.org/m", "https://b.org/m", True),
        ("https://a.org/m", "http://a.org/m", False),
        ("https://a.org/m", "http://127.0.0.1/m", False),
        ("http://127.0.0.1:1/m", "http://localhost:2/m", True),
        ("http://127.0.0.1:1/m", "http://a.org/m", False),
        ("http://[::1]/m", "https://a.org/m", True),
    ],
)
def test_redirects_that_keep_the_connection_encrypted_are_followed(
    before: str, after: str, good: bool
) -> None:
    import email.message
    import io

    request = urllib.request.Request(before)
    request.add_unredirected_header("Authorization", "Bearer secret")
    follow = download._Redirects(encrypted=True).redirect_request
    arguments = (request, io.BytesIO(), 302, "Found", email.message.Message(), after)
    if not good:
        with pytest.raises(Unanswered, match="not encrypted"):
            follow(*arguments)  # type: ignore[arg-type]
        return
    new = follow(*arguments)  # type: ignore[arg-type]
    assert new is not None and new.full_url == after
    assert not new.has_header("Authorization")


def test_the_token_stays_with_a_server_that_redirects_to_itself(server: Server) -> None:
    server.redirects["/old"] = f"{server.address}/new"
    with download.ask(f"{server.address}/old", token="secret") as response:
        response.read()
    assert [headers.get("authorization") for headers in server.requests] == [
        "Bearer secret",
        "Bearer secret",
    ]


def test_what_a_kill_left_is_not_taken_for_the_file(server: Server, bodies: list[bytes]) -> None:
    folder = addresses.folder_of(addresses.parse(url(server)))
    folder.mkdir(parents=True)
    (folder / "incoming-model").write_bytes(bodies[1])
    assert retrieval.fetch(url(server)).path.read_bytes() == bodies[0]
    assert len(kept()) == 2


def test_names_of_files_are_harmless() -> None:
    names = {
        "a/../..%2f..%2fetc": "etc",
        "": "model",
        ".hidden.pt": "hidden",
        "ü ñ?x=1": "ü-ñ",
        "a" * 300: "a" * 80,
    }
    for path, stem in names.items():
        address = addresses.parse(f"https://example.org/{path}".replace(" ", "%20"))
        assert isinstance(address, addresses.WebAddress) and address.stem == stem
