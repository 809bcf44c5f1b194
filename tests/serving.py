"""HTTP servers on this machine: of anything, of a folder, and one that can misbehave in every way that
a download must survive.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """Answers by a handler, on a thread of its own, until `stop`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: Callable[..., Any], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.shutdown()
            self.server_close()
            self.thread.join()


class FolderServer(LocalServer):
    """Serves the files of a folder; `paths`: what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, list[str]()
        super().__init__(functools.partial(_FileHandler, directory=str(folder)))


class _FileHandler(SimpleHTTPRequestHandler):
    server: FolderServer

    def log_message(self, format: str, *args: object) -> None:
        self.server.paths.append(self.path)


class Server(LocalServer):
    """Serves `bodies` by path, else `body` at any path; the rest says what goes wrong with the next
    requests.
    """

    def __init__(self, body: bytes, port: int = 0) -> None:
        super().__init__(Handler, port)
        self.body = body
        self.bodies: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}  # path -> address
        self.etag: str | None = '"one"'
        self.ranges = True
        self.says_length = True
        self.keeps_open = False  # after the body
        self.cuts: list[int] = []  # bytes after which the connection is closed, a request each
        self.statuses: list[int] = []  # answered instead, a request each
        self.stall = 0.0  # seconds between the headers and the body
        self.stall_after: list[int] = []  # bytes after which it says nothing more, a request each
        self.piece = 0  # bytes sent at a time, 5 ms apart; 0: all at once
        self.requests: list[dict[str, str]] = []  # headers of the requests, lower case
        self.paths: list[str] = []
        self.sent = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"{self.address}/weights.pth"

    def stop(self) -> None:
        self.released.set()
        super().stop()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        headers = {key.lower(): value for key, value in self.headers.items()}
        server.requests.append(headers)
        server.paths.append(self.path)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = server.bodies.get(self.path, server.body)
        begin = 0
        if (
            server.ranges
            and "range" in headers
            and headers.get("if-range", server.etag) == server.etag
        ):
            begin = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(whole):
                self.send_error(416)
                return
        body = whole[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        time.sleep(server.stall)
        self._send(body)

    def _send(self, body: bytes) -> None:
        server = self.server
        silent = bool(server.stall_after)
        if silent:
            body = body[: server.stall_after.pop(0)]
        elif server.cuts:
            body = body[: server.cuts.pop(0)]
        step = server.piece or len(body) or 1
        for begin in range(0, len(body), step):
            server.sent += len(body[begin : begin + step])
            self.wfile.write(body[begin : begin + step])
            time.sleep(0.005 if server.piece else 0)
        if silent or server.keeps_open:
            server.released.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
