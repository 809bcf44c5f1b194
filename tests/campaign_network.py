"""Downloads and remote shards against a server that does everything wrong, by a seed.

    python tests/campaign_network.py --seed 1 --rounds 500

What comes is right to the byte, or there is one line that says why not, and nothing under the
file's name. Then the server is good, and the same call ends well with what was left.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from serving import LocalServer

from gancolor.data import shard_stream
from gancolor.errors import DataError, DownloadError, visible
from gancolor.runtime.download import fetch

TIMEOUT = 0.3  # seconds of silence that the clients bear here
_PATIENCE = 60.0  # and with a good server: this machine may be busy
STATUSES = (400, 403, 404, 408, 416, 429, 500, 502, 503, 504)
SILENT = ("stall", "stall before headers")
HONEST = (
    "cut",
    "slow",
    "status",
    "empty",
    "garbage",
    "no length",
    "no ranges",
    "chunks cut",
    "redirects",
    *SILENT,
)
LYING = (
    "length too long",
    "length too short",
    "other range",
    "other total",
    "flipped",
    "other file",
    "more than told",
)


class FaultyServer(LocalServer):
    """Serves one body; `faults` happen to the next requests, one each, drawn from `rng`."""

    def __init__(self, body: bytes) -> None:
        super().__init__(_Handler)
        self.body, self.faults, self.rng = body, list[str](), random.Random(0)
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"{self.address}/0.tar"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, rng = self.server, self.server.rng
        self.close_connection = True
        fault = server.faults.pop(0) if server.faults else ""
        if fault == "empty":
            return
        if fault == "garbage":
            self.wfile.write(rng.randbytes(rng.randrange(1, 400)))
            return
        if fault == "stall before headers":
            server.over.wait(2 * TIMEOUT)
            return
        if fault == "status":
            self.send_error(rng.choice(STATUSES))
            return
        if fault == "redirects":
            self.send_response(302)
            self.send_header(
                "Location",
                rng.choice(
                    [
                        self.path,
                        "file:///etc/passwd",
                        "http://",
                        "/\u00e9".encode().decode("latin-1"),
                    ]
                ),
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(
            fault, server.rng.randbytes(len(server.body)) if fault == "other file" else server.body
        )

    def _answer(self, fault: str, whole: bytes) -> None:
        rng = self.server.rng
        begin = 0
        asked = self.headers.get("Range", "")
        if asked and fault != "no ranges" and self.headers.get("If-Range", '"one"') == '"one"':
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        body, told = whole[begin:], begin
        if fault == "other range":
            told = rng.randrange(len(whole))
        if fault == "flipped" and body:
            place = rng.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
        self.send_response(206 if asked and (begin or fault == "other range") else 200)
        total = len(whole) + (rng.choice((-1, 1, 1000)) if fault == "other total" else 0)
        self.send_header("Content-Range", f"bytes {told}-{len(whole) - 1}/{total}")
        length = len(body)
        if fault == "length too long":
            length += rng.choice((1, 1000, 10**12))
        elif fault == "length too short":
            length = rng.randrange(length + 1)
        if fault == "chunks cut":
            self.send_header("Transfer-Encoding", "chunked")
        elif fault != "no length":
            self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"two"' if fault == "other file" else '"one"')
        self.end_headers()
        self._send(fault, body)

    def _send(self, fault: str, body: bytes) -> None:
        rng = self.server.rng
        if fault in ("cut", "stall"):
            body = body[: rng.randrange(len(body) + 1)]
        if fault == "more than told":
            body += b"more"
        if fault == "chunks cut":
            size = rng.randrange(1, len(body) + 2)
            self.wfile.write(f"{size:x}\r\n".encode() + body[: rng.randrange(size)])
        elif fault == "slow":
            step = max(1, len(body) // 20)
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                time.sleep(0.002)
        else:
            self.wfile.write(body)
        if fault == "stall":
            self.wfile.flush()
            self.server.over.wait(2 * TIMEOUT)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def served(body: bytes) -> Iterator[FaultyServer]:
    """A server of `body` that runs meanwhile."""
    os.environ["no_proxy"] = "*"
    server = FaultyServer(body)
    try:
        yield server
    finally:
        server.over.set()
        server.stop()


def download(server: FaultyServer, rng: random.Random, folder: Path) -> str:
    """One download by a random plan; returns what came of it, AssertionError where a promise was
    broken.
    """
    checked = rng.random() < 0.7
    kinds = (*HONEST, *LYING) if checked else HONEST
    server.faults = [rng.choice(kinds) for _ in range(rng.randrange(1, 6))]
    plan = list(server.faults)
    target, checksum = folder / "file", hashlib.sha256(server.body).hexdigest() if checked else None
    if rng.random() < 0.3:  # what an earlier call left, or somebody else
        (folder / "file.part").write_bytes(rng.randbytes(rng.randrange(2 * len(server.body))))
        (folder / "file.part.json").write_text(
            rng.choice(["{", "null", '{"url": 1}', f'{{"url": "{server.url}"}}'])
        )

    def get(timeout: float = TIMEOUT) -> bytes:
        return fetch(
            server.url, target, checksum, timeout=timeout, retries=2, backoff=0.001
        ).read_bytes()

    outcome = "right in spite of it"
    try:
        data = get()
    except DownloadError as error:
        _check_line(str(error), plan)
        assert not target.exists(), plan
        outcome, server.faults = "refused, right when it was tried again", []
        data = get(_PATIENCE)
    assert data == server.body, plan
    left = {path.name for path in folder.iterdir()} - {"file", "file.wrong-checksum"}
    assert not left, (plan, left)
    return outcome


def shard(server: FaultyServer, rng: random.Random, folder: Path) -> str:
    """One remote shard read by a random plan, from a random place on."""
    lying = ("length too long", "length too short", "other range", "other total", "more than told")
    server.faults = [rng.choice((*HONEST, *lying)) for _ in range(rng.randrange(1, 8))]
    plan, start = list(server.faults), rng.randrange(len(server.body))

    def read() -> bytes:
        with shard_stream.RemoteShard(server.url, start, len(server.body)) as file:
            return b"".join(iter(lambda: file.read(rng.randrange(1, 60_000)), b""))

    outcome = "right in spite of it"
    try:
        data = read()
    except DataError as error:
        _check_line(str(error), plan)
        outcome, server.faults, shard_stream.TIMEOUT = (
            "refused, right when it was tried again",
            [],
            _PATIENCE,
        )
        data = read()
        shard_stream.TIMEOUT = TIMEOUT
    assert data == server.body[start:], plan
    return outcome


def _check_line(words: str, plan: list[str]) -> None:
    assert visible(words) == words and len(words) < 2000 and "127.0.0.1" in words, (plan, words)


def campaign(
    seed: int, rounds: int, say: Callable[[str], object] = lambda words: None
) -> dict[str, int]:
    """Play `rounds` of each; returns how often what came of it."""
    rng = random.Random(seed)
    counts: collections.Counter[str] = collections.Counter()
    before = shard_stream.TIMEOUT, shard_stream.BACKOFF
    shard_stream.TIMEOUT, shard_stream.BACKOFF = TIMEOUT, 0.001
    level = logging.getLogger("gancolor").level
    logging.getLogger("gancolor").setLevel(logging.ERROR)
    try:
        with served(rng.randbytes(200_000)) as server:
            server.rng = rng
            for number in range(rounds):
                for play in (download, shard):
                    with tempfile.TemporaryDirectory() as folder:
                        counts[f"{play.__name__}: {play(server, rng, Path(folder))}"] += 1
                if number % 50 == 49:
                    say(f"{number + 1} of {rounds}: {dict(counts)}")
    finally:
        shard_stream.TIMEOUT, shard_stream.BACKOFF = before
        logging.getLogger("gancolor").setLevel(level)
    return dict(sorted(counts.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    print(campaign(options.seed, options.rounds, print))
