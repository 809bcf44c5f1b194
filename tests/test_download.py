"""The real download code against a local HTTP server that can misbehave."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gancolor.download import fetch
from gancolor.errors import DownloadError

BODY = random.Random(0).randbytes(700_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` at any path; `cuts` and `statuses` say what goes wrong with the next requests."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.body = BODY
        self.etag: str | None = '"one"'
        self.ranges = True
        self.says_length = True
        self.cuts: list[int] = []  # bytes after which the connection is closed, a request each
        self.statuses: list[int] = []  # answered instead, a request each
        self.stall = 0.0  # seconds between the headers and the body
        self.requests: list[dict[str, str]] = []  # headers of the requests, lower case
        self.sent = 0
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.pth"

    def stop(self) -> None:
        if not self.thread.is_alive():
            return
        self.shutdown()
        self.server_close()
        self.thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        headers = {key.lower(): value for key, value in self.headers.items()}
        server.requests.append(headers)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        begin = 0
        if server.ranges and "range" in headers and headers.get("if-range") == server.etag:
            begin = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(server.body):
                self.send_error(416)
                return
        body = server.body[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.body) - 1}/{len(server.body)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        time.sleep(server.stall)
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body)
        server.sent += len(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.stop()


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def get(server: Server, target: Path, sha256: str | None = SHA, retries: int = 2, timeout: float = 5.0) -> Path:
    return fetch(server.url, target, sha256, timeout=timeout, retries=retries, backoff=0.01)


def test_good_file_arrives_whole_and_alone(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "weights.pth"
    reports: list[tuple[int, int | None]] = []
    assert fetch(server.url, target, SHA[:8], progress=lambda done, total: reports.append((done, total))) == target
    assert target.read_bytes() == BODY
    assert leftovers(target) == []
    assert reports[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_cached_file_needs_no_request(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert get(server, tmp_path / "w").read_bytes() == BODY
    assert len(server.requests) == 1


def test_cached_file_needs_no_writable_folder(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "w"
    target.write_bytes(BODY)
    (tmp_path / "w.lock").mkdir()  # no lock can be had
    assert get(server, target).read_bytes() == BODY
    assert server.requests == []


def test_damaged_cached_file_is_said_and_replaced(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "w"
    target.write_bytes(BODY[:-1])
    with caplog.at_level(logging.WARNING, "gancolor"):
        get(server, target)
    assert target.read_bytes() == BODY
    assert "wrong checksum" in caplog.text


def test_truncated_every_time_fails_with_a_way_out(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    target = tmp_path / "w"
    with pytest.raises(DownloadError) as caught:
        get(server, target)
    message = str(caught.value)
    assert server.url in message and f"3000 of {len(BODY)} bytes" in message and str(target) in message
    assert "\n" not in message
    assert not target.exists()
    assert len(server.requests) == 3
    assert leftovers(target) == ["w.part", "w.part.json"]  # to be resumed some day


def test_wrong_checksum_is_said_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "w"
    with pytest.raises(DownloadError, match="wrong checksum.*00000000.*not kept"):
        get(server, target, "00000000")
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_not_found_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(DownloadError, match="HTTP 404"):
        get(server, tmp_path / "w")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_busy_server_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert get(server, tmp_path / "w").read_bytes() == BODY
    assert len(server.requests) == 3


def test_interrupted_transfer_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000]
    assert get(server, tmp_path / "w").read_bytes() == BODY
    assert server.requests[1]["range"] == "bytes=1000-"
    assert server.requests[1]["if-range"] == '"one"'
    assert server.sent == len(BODY)  # nothing twice


def test_server_gone_in_the_middle_and_back_later(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000]
    target = tmp_path / "w"
    with pytest.raises(DownloadError, match="1000 of"):
        get(server, target, retries=0)
    port = server.server_address[1]
    server.stop()
    with pytest.raises(DownloadError, match="(?i)refused.*tried 2 times"):
        get(server, target, retries=1)
    again = Server(port)
    try:
        assert get(again, target).read_bytes() == BODY
    finally:
        again.stop()
    assert [request.get("range") for request in again.requests] == ["bytes=1000-"]
    assert leftovers(target) == []


def test_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = [1000], False
    assert get(server, tmp_path / "w").read_bytes() == BODY
    assert server.sent == 1000 + len(BODY)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_resumed(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.cuts, server.etag = [1000], etag
    assert get(server, tmp_path / "w", None).read_bytes() == BODY
    assert "range" not in server.requests[1]


def test_file_that_changed_meanwhile_comes_whole(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000]
    target = tmp_path / "w"
    with pytest.raises(DownloadError):
        get(server, target, None, retries=0)
    server.body, server.etag = BODY[::-1], '"two"'
    assert get(server, target, None).read_bytes() == BODY[::-1]


def test_part_of_unknown_origin_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(b"x" * 1000)
    assert get(server, tmp_path / "w", None).read_bytes() == BODY
    assert "range" not in server.requests[0]
    assert leftovers(tmp_path / "w") == []


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * (len(BODY) + 5)], ids=["other bytes", "too long"])
def test_stale_part_is_found_out_and_dropped(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "w.part").write_bytes(part)
    (tmp_path / "w.part.json").write_text(json.dumps({"url": server.url, "validator": '"one"'}))
    assert get(server, tmp_path / "w").read_bytes() == BODY
    assert "range" in server.requests[0] and "range" not in server.requests[1]
    assert leftovers(tmp_path / "w") == []


def test_length_untold_is_accepted_when_the_checksum_fits(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    assert get(server, tmp_path / "w").read_bytes() == BODY
    server.cuts = [1000]
    with pytest.raises(DownloadError, match="wrong checksum"):
        get(server, tmp_path / "other")


def test_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    server.stall = 1.0
    with pytest.raises(DownloadError, match="timed out"):
        get(server, tmp_path / "w", retries=0, timeout=0.1)


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w"
        with pytest.raises(DownloadError, match="(?i)refused"):
            fetch(url, tmp_path / "w", None, retries=1, backoff=0.01)


@pytest.mark.parametrize("url", ["weights.pth", "nonsense://host/w", "http://127.0.0.1:port/w"])
def test_useless_address_fails_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(url, tmp_path / "w", None, retries=0)
    assert url in str(caught.value)


def test_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot write there"):
        get(server, tmp_path / "file" / "w")
    assert server.requests == []


def test_two_processes_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.stall = 1.0
    target = tmp_path / "w"
    code = "import sys, pathlib, gancolor.download as d; d.fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])"
    command = [sys.executable, "-c", code, server.url, str(target), SHA]
    root = Path(__file__).parents[1]
    both = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outcomes: list[tuple[int, str]] = []
    for process in both:
        _, errors = process.communicate(timeout=60)
        outcomes.append((process.returncode, errors))
    assert outcomes == [(0, ""), (0, "")]
    assert len(server.requests) == 1
    assert target.read_bytes() == BODY
    assert leftovers(target) == []


def test_many_threads_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.stall = 0.1
    threads = [threading.Thread(target=get, args=(server, tmp_path / "w")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert leftovers(tmp_path / "w") == []
