"""A stand-in for S3 on this machine: moto's server, behind one that can misbehave.

`Bucket` is what a test asks for. Requests go through a proxy that can break answers off, answer
with an error, and remembers what was asked for.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from serving import LocalServer

_ENDS = ("connection", "transfer-encoding", "content-length", "date", "server")


class Proxy(LocalServer):
    """Passes requests on to moto.

    `asked`: method, path and first byte of each. `cuts`: bytes after which the next answers with a
    body break off. `refuse`: parts of a request's line -> status. `broken_puts`: how many of the
    next uploads lose their connection.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.heal()
        super().__init__(_Handler)

    def heal(self) -> None:
        """Let nothing go wrong from now on, and forget what was asked for."""
        self.asked, self.checksums = list[tuple[str, str, str]](), list[str]()
        self.cuts, self.refuse, self.broken_puts = list[int](), dict[str, int](), 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        server = self.server
        line = f"{self.command} {unquote(self.path)}"
        server.asked.append((self.command, unquote(self.path), self.headers.get("Range", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "PUT":
            names = [name for name in self.headers if "checksum" in name.lower()]
            server.checksums.append(" ".join(names))
            if server.broken_puts:
                server.broken_puts -= 1
                self.close_connection = True
                return
        for part, status in server.refuse.items():
            if part in line:
                code = {403: "AccessDenied", 503: "SlowDown"}[status]
                text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                self._send(status, [("Content-Type", "application/xml")], text)
                return
        connection = http.client.HTTPConnection("127.0.0.1", server.upstream)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self._send(answer.status, answer.getheaders(), data)

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = dict((k.lower(), v) for k, v in headers).get("content-length", str(len(data)))
        for name, value in headers:
            if name.lower() not in _ENDS:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.cuts and self.command == "GET" and "list-type" not in self.path and data:
            self.wfile.write(data[: self.server.cuts.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Storage:
    """The stand-in: `proxy` says what goes wrong; the rest goes past it."""

    def __init__(self, proxy: Proxy) -> None:
        import boto3

        self.proxy = proxy
        address = f"http://127.0.0.1:{proxy.upstream}"
        self.client: Any = boto3.client("s3", endpoint_url=address)

    def bucket(self, name: str) -> str:
        """Make an empty bucket; its address."""
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def buckets(self) -> list[str]:
        """The names of all buckets."""
        return [each["Name"] for each in self.client.list_buckets()["Buckets"]]

    def put(self, address: str, data: bytes) -> None:
        parts = urlsplit(address)
        self.client.put_object(Bucket=parts.netloc, Key=address.split("/", 3)[3], Body=data)

    def put_folder(self, folder: Path, address: str) -> str:
        """Put all files of a folder; the address."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return address

    def get(self, address: str) -> bytes:
        key = address.split("/", 3)[3]
        found = self.client.get_object(Bucket=urlsplit(address).netloc, Key=key)["Body"].read()
        assert isinstance(found, bytes)
        return found

    def keys(self, address: str) -> list[str]:
        """All keys of an address's bucket."""
        found = self.client.list_objects_v2(Bucket=urlsplit(address).netloc)
        return sorted(each["Key"] for each in found.get("Contents", []))

    def open_uploads(self, address: str) -> int:
        """Uploads in parts that were neither ended nor given up."""
        found = self.client.list_multipart_uploads(Bucket=urlsplit(address).netloc)
        return len(found.get("Uploads", []))


@contextmanager
def running() -> Iterator[Storage]:
    """A stand-in, its address and made-up credentials in the environment."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIASTANDIN")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "stand-in-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(s3fs.S3FileSystem, "retries", 1)  # those of ours are to be seen
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            yield Storage(proxy)
        finally:
            s3fs.S3FileSystem.clear_instance_cache()  # the next module's is another server
            proxy.stop()
            server.stop()
