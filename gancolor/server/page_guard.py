"""What of Gradio can be reached: the routes that the page needs, within the server's bounds, and
nothing that fetches, or reads a file that is not the page's.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gancolor.server import uploads
from gancolor.server.problems import Problem
from gancolor.server.studio import Studio

_API = "/gradio_api"
_UPLOAD = f"{_API}/upload"
_FILE = f"{_API}/file="
_READ = re.compile(
    rf"/|/(config|theme\.css|favicon\.ico)|/(assets|static)/.+"
    rf"|{_API}/(queue/data|upload_progress|startup-events|heartbeat/\w+|file=.+)"
)
_HASHED = re.compile(r"/assets/[^/]+-[\w-]{8,}\.(?:js|css)")  # named after what they hold
_WRITE = re.compile(rf"{_API}/(upload|queue/join|cancel|reset)")
_MOST_TEXT = 8 << 20  # bytes of what an event says
# What tells other sites about the page, of which there are none, with addresses among it.
_ABOUT = re.compile(rb'<(?:meta|link)[^>]*(?:"og:|"twitter:|https?://|rel="manifest")[^>]*>')


def is_of_page(path: str) -> bool:
    """Whether a path, as the server has it, is the page's."""
    return bool(_READ.fullmatch(path) or _WRITE.fullmatch(path))


class PageGuard:
    """Stands before Gradio's application. Raises Problem for what it refuses."""

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self.app, self.studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        request = Request(scope, receive)
        reads = scope["method"] in ("GET", "HEAD")
        if not (_READ if reads else _WRITE).fullmatch(path):
            raise Problem(405, f"this path must be asked in another way, got {request.method}")
        if path.startswith(_FILE) and not self._is_own(path.removeprefix(_FILE)):
            raise Problem(404, "a file must be one of the page's, got another")
        if not reads:
            receive = await self._checked(request, path)
        if _HASHED.fullmatch(path):
            send = _kept(send)
        if path == "/":
            await _send_without_addresses(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_own(self, path: Any) -> bool:
        """Whether a file is one that Gradio keeps for the page, by its name."""
        own = f"{self.studio.folder}/"
        return isinstance(path, str) and path.startswith(own) and ".." not in path.split("/")

    async def _checked(self, request: Request, path: str) -> Receive:
        """The body of a request, which is within bounds and names no file but the page's own."""
        most = self.studio.upload_bytes if path == _UPLOAD else _MOST_TEXT
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise Problem(411, "a request must say its length, got none")
        if int(length) > most:
            await uploads.drain(request)
            raise Problem(413, f"a request must have at most {most / 1e6:g} megabytes, got more")
        if path == _UPLOAD:
            return request.receive
        body = await request.body()
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Problem(400, "a request must be JSON, got something else") from error
        if any(not self._is_own(each) for each in _files_in(said)):
            raise Problem(403, "a file must be one that was uploaded here, got another")

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return _once(receive, request)


def _kept(send: Send) -> Send:
    """Let who is sent a file keep it: another one would have another name."""

    async def note(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (200, 304):
            message["headers"] = list(message["headers"])
            kept = "private, max-age=31536000, immutable"
            MutableHeaders(raw=message["headers"])["cache-control"] = kept
        await send(message)

    return note


def _once(first: Receive, request: Request) -> Receive:
    """What is received: a body that was read already, and then what the client says next."""
    was_read = False

    async def receive() -> Message:
        nonlocal was_read
        if was_read:
            return await request.receive()
        was_read = True
        return await first()

    return receive


def _files_in(said: Any) -> list[Any]:
    """The paths of all files that JSON names as Gradio does."""
    found, left = [], [said]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found += [value[key] for key in ("path",) if key in value]
            left += value.values()
        elif isinstance(value, list):
            left += value
    return found


async def _send_without_addresses(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the page, from which addresses of other hosts are taken."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    begin: Message = {}
    body = b""

    async def gather(message: Message) -> None:
        nonlocal begin, body
        if message["type"] == "http.response.start":
            begin = message
            return
        if message["type"] != "http.response.body":
            await send(message)
            return
        body += message.get("body", b"")
        if not message.get("more_body", False):
            whole = _ABOUT.sub(b"", body)
            MutableHeaders(raw=begin["headers"])["content-length"] = str(len(whole))
            await send(begin)
            await send({"type": "http.response.body", "body": whole})

    await app({**scope, "headers": headers}, receive, gather)
