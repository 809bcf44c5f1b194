"""The real download code against a local HTTP server that can misbehave."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import forkserver
import pytest
from serving import Server

from gancolor.errors import DownloadError
from gancolor.runtime.download import RemoteFile, fetch

BODY = random.Random(0).randbytes(700_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server(BODY)
    yield server
    server.stop()


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def get(
    server: Server, target: Path, sha256: str | None = SHA, retries: int = 2, timeout: float = 5.0
) -> Path:
    return fetch(server.url, target, sha256, timeout=timeout, retries=retries, backoff=0.01)


def test_good_file_arrives_whole_and_alone(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "weights.pth"
    reports: list[tuple[int, int | None]] = []
    assert (
        fetch(
            server.url, target, SHA[:8], progress=lambda done, total: reports.append((done, total))
        )
        == target
    )
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
    assert (tmp_path / "w.wrong-checksum").read_bytes() == BODY[:-1]  # it may be the user's own


def test_truncated_every_time_fails_with_a_way_out(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    target = tmp_path / "w"
    with pytest.raises(DownloadError) as caught:
        get(server, target)
    message = str(caught.value)
    assert (
        server.url in message and f"3000 of {len(BODY)} bytes" in message and str(target) in message
    )
    assert "\n" not in message
    assert not target.exists()
    assert len(server.requests) == 3
    assert leftovers(target) == ["w.part", "w.part.json"]  # to be resumed some day


def test_wrong_checksum_is_said_and_the_file_kept_aside(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "w"
    with pytest.raises(DownloadError, match="wrong checksum.*00000000.*kept as w.wrong-checksum"):
        get(server, target, "00000000")
    assert leftovers(target) == ["w.wrong-checksum"] and not target.exists()
    assert (tmp_path / "w.wrong-checksum").read_bytes() == BODY
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_other_checksums(server: Server, tmp_path: Path, kind: str) -> None:
    digest = hashlib.new(kind, BODY).hexdigest()
    assert get(server, tmp_path / "w", f"{kind}:{digest.upper()}").read_bytes() == BODY
    with pytest.raises(
        DownloadError, match=f"wrong checksum: {kind} must begin with 0000, got {digest}"
    ):
        get(server, tmp_path / "other", f"{kind}:0000")
    with pytest.raises(DownloadError, match=f"wrong checksum: {kind} must be 0+, got {digest}"):
        get(server, tmp_path / "other", f"{kind}:{'0' * len(digest)}")


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
    again = Server(BODY, port)
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
def test_without_a_strong_validator_nothing_is_resumed(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
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


@pytest.mark.parametrize(
    "part", [b"x" * 1000, b"x" * (len(BODY) + 5)], ids=["other bytes", "too long"]
)
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


def test_stall_in_the_middle_is_a_timeout_and_what_came_is_kept(
    server: Server, tmp_path: Path
) -> None:
    server.stall_after = [300_001]
    assert get(server, tmp_path / "w", timeout=0.3).read_bytes() == BODY
    assert [request.get("range") for request in server.requests] == [None, "bytes=300001-"]


def test_slow_but_steady_server_is_waited_for(server: Server, tmp_path: Path) -> None:
    # 50 pieces, 5 ms apart: longer than the timeout in all
    server.body, server.piece = (
        BODY[:50_000],
        1000,
    )
    target = tmp_path / "w"
    assert get(server, target, None, retries=0, timeout=0.2).read_bytes() == BODY[:50_000]
    assert leftovers(target) == []


def test_connection_that_stays_open_does_not_hold_up_the_end(
    server: Server, tmp_path: Path
) -> None:
    server.keeps_open = True
    assert get(server, tmp_path / "w", retries=0, timeout=2.0).read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_file_of_known_length_is_read_on_from_any_place(server: Server, ranges: bool) -> None:
    server.cuts, server.ranges = [50_000, 60_000], ranges
    with RemoteFile(
        server.url, position=10, length=len(BODY), fixed=True, checked=True, backoff=0.001
    ) as file:
        assert b"".join(iter(lambda: file.read(1 << 16), b"")) == BODY[10:]
    assert (server.sent == len(BODY) - 10) == ranges


def test_redirects_are_followed_also_when_resuming(server: Server, tmp_path: Path) -> None:
    server.redirects = {"/old": f"{server.address}/new"}
    server.cuts = [1000]
    fetch(f"{server.address}/old", tmp_path / "w", SHA, retries=1, backoff=0.01)
    assert (tmp_path / "w").read_bytes() == BODY
    assert server.paths == ["/old", "/new", "/old", "/new"]
    assert server.requests[3]["range"] == "bytes=1000-" and server.sent == len(BODY)


def test_redirect_in_a_circle_fails_in_one_line(server: Server, tmp_path: Path) -> None:
    server.redirects = {"/weights.pth": server.url}
    with pytest.raises(DownloadError, match="HTTP 302") as caught:
        get(server, tmp_path / "w")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 410])
def test_next_mirror_is_tried_when_one_fails(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    urls = [f"{server.address}/gone", f"{server.address}/here"]
    fetch(urls, tmp_path / "w", SHA)
    assert (tmp_path / "w").read_bytes() == BODY
    assert server.paths == ["/gone", "/here"]


def test_mirror_with_another_file_is_passed_over(server: Server, tmp_path: Path) -> None:
    server.bodies = {"/other": BODY[::-1]}
    fetch([f"{server.address}/other", server.url], tmp_path / "w", SHA)
    assert (tmp_path / "w").read_bytes() == BODY
    assert leftovers(tmp_path / "w") == ["w.wrong-checksum"]


def test_all_mirrors_failing_are_all_named(server: Server, tmp_path: Path) -> None:
    server.statuses = [404, 403]
    urls = [f"{server.address}/a", f"{server.address}/b"]
    with pytest.raises(DownloadError) as caught:
        fetch(urls, tmp_path / "w", SHA)
    message = str(caught.value)
    assert (
        f"{urls[0]} failed: HTTP 404" in message
        and f"{urls[1]}: HTTP 403" in message
        and "\n" not in message
    )


def test_mirror_goes_on_where_the_other_ended_if_a_checksum_has_the_last_word(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = [1000]
    urls = [f"{server.address}/a", f"{server.address}/b"]
    fetch(urls, tmp_path / "w", SHA, retries=0)
    assert (tmp_path / "w").read_bytes() == BODY and server.sent == len(BODY)
    server.cuts, server.sent = [1000], 0
    fetch(urls, tmp_path / "v", None, retries=0)
    assert (tmp_path / "v").read_bytes() == BODY and server.sent == 1000 + len(BODY)


def test_mirror_with_a_file_of_another_length_starts_over(server: Server, tmp_path: Path) -> None:
    server.bodies = {"/a": BODY + b"longer"}
    server.cuts = [1000, 500]
    fetch(
        [f"{server.address}/a", f"{server.address}/b"], tmp_path / "w", SHA, retries=1, backoff=0.01
    )
    assert (tmp_path / "w").read_bytes() == BODY
    ranges = [
        (path, request.get("range"))
        for path, request in zip(server.paths, server.requests, strict=True)
    ]
    assert ranges == [("/a", None), ("/a", "bytes=1000-"), ("/b", "bytes=1500-"), ("/b", None)]


def test_part_that_was_whole_is_checked_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(BODY)
    note = {"url": server.url, "validator": '"one"', "total": len(BODY)}
    (tmp_path / "w.part.json").write_text(json.dumps(note))
    assert get(server, tmp_path / "w").read_bytes() == BODY
    assert server.requests == [] and leftovers(tmp_path / "w") == []


def test_disk_that_is_too_small_is_said_before_a_byte_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=600_000))
    with pytest.raises(DownloadError, match="0.7 MB are needed, 0.6 MB are free"):
        fetch([server.url, f"{server.address}/mirror"], tmp_path / "w", SHA)
    assert not (tmp_path / "w.part").exists() and len(server.requests) == 1


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w"
        with pytest.raises(DownloadError, match="(?i)refused"):
            fetch(url, tmp_path / "w", None, retries=1, backoff=0.01)


@pytest.mark.parametrize(
    "url", ["weights.pth", "nonsense://host/w", "file:///etc/hostname", "http://127.0.0.1:port/w"]
)
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
    code = "import sys, pathlib, gancolor.runtime.download as d; "
    code += "d.fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])"
    command = ["-c", code, server.url, str(target), SHA]
    both = [forkserver.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
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


def test_what_a_server_says_is_shown_on_one_short_line(tmp_path: Path) -> None:
    """A server may answer with anything, also with what a terminal would obey."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"\x1b]0;title\x07\x9b31m" + b"x" * 5000 + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/w"
        with pytest.raises(DownloadError) as raised:
            fetch(url, tmp_path / "w", SHA, retries=1, backoff=0.001)
        thread.join()
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1500
