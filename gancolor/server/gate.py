"""The gate that every request passes: who it is from, where it lies, and that it is counted."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gancolor.errors import shown
from gancolor.server import access, uploads
from gancolor.server.counters import Counters
from gancolor.server.problems import CLOSED, Problem

OPEN_PATH = "/healthz"
"""The path that needs no password."""


class Gate:
    """Counts every request, and asks who it is from and for whom; pure ASGI, so that bodies stream.

    `users`: passwords by names, None for everybody. `answers_to`: whether a Host may be asked for.
    """

    def __init__(
        self,
        app: ASGIApp,
        users: dict[bytes, bytes] | None,
        answers_to: Callable[[str], bool],
        counted: Counters,
    ) -> None:
        self.app, self.users, self.answers_to, self.counted = app, users, answers_to, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), CLOSED

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = list(message["headers"])
                headers = MutableHeaders(raw=message["headers"])
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope, receive)
        answer: ASGIApp = self.app
        path = scope["path"].removeprefix(root_of(scope))
        if self.users is not None and path != OPEN_PATH:
            given = request.headers.get("authorization", "")
            if not access.is_known(self.users, given):
                await uploads.drain(request)
                answer = Problem(
                    401,
                    "a request must name a user of --auth-file and the password, got "
                    + ("another" if given else "none"),
                    WWW_Authenticate='Basic realm="gancolor", charset="UTF-8"',
                ).response()
        if not self.answers_to(host := request.headers.get("host", "")):
            await uploads.drain(request)
            answer = Problem(
                421,
                "a request must ask for localhost or the name of --server-name, got"
                f" {shown(host, 80) or 'none'}",
            ).response()
        if request.headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            answer = Problem(
                403, "a request must come from a page of this server or from no page, got another"
            ).response()
        try:
            await answer(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "any"
            self.counted.count_request(method, route, status, time.monotonic() - start)


def root_of(scope: Scope) -> str:
    """The path that the server is under, as a proxy shows it: without a slash at its end."""
    return str(scope.get("root_path", ""))
