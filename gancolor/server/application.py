"""The server's application: routes, who may ask, and what is counted.

A page, when there is one, is mounted into the same application (`app.mount`), so that it shares the
line and the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gancolor import __version__
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import GancolorError
from gancolor.server import (
    access,
    api_page,
    counters,
    picture_tasks,
    problems,
    request_options,
    uploads,
)
from gancolor.server.counters import Counters
from gancolor.server.line import GivenUp, LineFull, RequestLine, Ticket
from gancolor.server.picture_tasks import FAULT, ColoredFile
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import PartRule, Upload

_log = logging.getLogger("gancolor")

_CLOSED = 499  # the client has gone; nobody sees it, it is counted
_MOST_NOTES = 4000  # letters of the header that holds notes
_OPEN = "/healthz"  # needs no password

_PART_WORDS = {
    "picture": "The picture, a file of any kind that gancolor reads.",
    "reference": "A picture in colour that shows the same things; may be given several times.",
    "mask": "Colour only where this picture is white, or opaque.",
    "hints": "Colours that are known: a layer that is opaque where they are, or a .csv or .json file.",
    "x": "The column of the place, in pixels of the upright picture from 0.",
    "y": "Its row.",
    "options": "A JSON object.",
}


def create_app(colorizer: Colorizer, settings: ServerSettings) -> FastAPI:
    """The application that colours with `colorizer`. ConfigError for a file of users that is wrong.

    Its thread and its folder end with the application's lifespan.
    """
    users = None if settings.auth_file is None else access.read_users(settings.auth_file)
    line, counted = RequestLine(settings.concurrency), Counters()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(line.close)

    app = FastAPI(
        title="gancolor",
        version=__version__,
        description="Colours black-and-white pictures. Colours are guesses, not facts.",
        docs_url=None,  # these pages load scripts from elsewhere; `/docs` below does not
        redoc_url=None,
        lifespan=lifespan,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.add_middleware(_Gate, users=users, counted=counted)
    _add_answers_to_errors(app, counted)
    requests = _Requests(colorizer, settings, line)

    @app.post("/v1/color", **_described(picture_tasks.COLOR_PARTS, picture_tasks.COLOR_OPTIONS))
    async def color(request: Request) -> Response:
        """Colour a picture. The answer is the picture in its own format and depth with its
        metadata; where there are several results (variants, show_confidence, show_hints,
        show_matches, sheet), it is a ZIP archive of them. The header Gancolor-Notes holds what the
        user should know, a JSON list of sentences.
        """
        ticket = requests.enter()
        try:
            done = await requests.do(
                request,
                ticket,
                picture_tasks.COLOR_PARTS,
                picture_tasks.COLOR_OPTIONS,
                picture_tasks.color,
            )
        except BaseException:
            line.leave(ticket)
            raise
        counted.add("pictures_colored_total")
        counted.add("pixels_colored_total", done.pixels)
        return _ResultResponse(done, functools.partial(line.leave, ticket))

    @app.post(
        "/v1/suggest",
        **_described(picture_tasks.SUGGEST_PARTS, picture_tasks.SUGGEST_OPTIONS, ("x", "y")),
    )
    async def suggest(request: Request) -> Response:
        """The most probable colours of a picture at a place, the likeliest first, with their
        probabilities: {"suggestions": [{"color": "#rrggbb", "probability": 0.4}, ...], ...}.
        """
        ticket = requests.enter()
        try:
            return JSONResponse(
                await requests.do(
                    request,
                    ticket,
                    picture_tasks.SUGGEST_PARTS,
                    picture_tasks.SUGGEST_OPTIONS,
                    picture_tasks.suggest,
                )
            )
        finally:
            line.leave(ticket)

    @app.get("/v1/models", responses=_ANSWERS_OF_GET)
    async def models() -> Response:
        """The model that this server colours with, and what it can do."""
        sight = colorizer.sight
        model = {
            "name": colorizer.name,
            "preset": colorizer.config.preset,
            "image_size": colorizer.config.image_size,
            "condition": colorizer.condition,
            "hints": sight.hints,
            "references": sight.hints and sight.features,
            "suggestions": sight.distribution,
        }
        return JSONResponse({"models": [model]})

    @app.get(_OPEN, responses={200: {"description": "it is at work"}, 503: {"description": "not"}})
    async def healthz() -> Response:
        """Whether the server is at work; needs no password."""
        if not line.is_alive:
            return problems.respond(503, "the thread that owns the network has ended")
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse, responses=_ANSWERS_OF_GET)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        gauges = {"requests_present": line.present, "requests_waiting": line.waiting}
        return Response(counted.text(gauges), media_type=counters.MEDIA_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return HTMLResponse(api_page.render(app.openapi(), colorizer.name, root))

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    return app


class _Requests:
    """What requests with a picture have in common."""

    def __init__(self, colorizer: Colorizer, settings: ServerSettings, line: RequestLine) -> None:
        self.colorizer, self.settings, self.line = colorizer, settings, line

    def enter(self) -> Ticket:
        """A place in the line, which the caller must give back."""
        return self.line.enter()

    async def do(
        self,
        request: Request,
        ticket: Ticket,
        rules: Mapping[str, PartRule],
        known: Mapping[str, Any],
        task: Callable[[Colorizer, Upload, dict[str, Any], int, Ticket], Any],
    ) -> Any:
        """Receive a request, wait for the thread to do the task, and return what that returns.
        Problem for what is wrong, and when it takes too long; ClientDisconnect when the client has
        gone.
        """
        upload = await uploads.receive(
            request,
            ticket.folder,
            rules,
            required="picture",
            most_bytes=self.settings.max_bytes,
            seconds=self.settings.max_seconds,
        )
        options = request_options.parse(upload.texts.get("options"), list(known))

        def work(ticket: Ticket) -> Any:
            return task(self.colorizer, upload, options, self.settings.max_pixels, ticket)

        result = asyncio.wrap_future(self.line.submit(ticket, work))
        gone = asyncio.ensure_future(_disconnection(request))
        try:
            await asyncio.wait(
                {result, gone},
                timeout=self.settings.max_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if result.done():
                return result.result()
            if gone.done():
                raise ClientDisconnect()
            raise Problem(
                503,
                f"a request must be answered within {self.settings.max_seconds:g} seconds, it took"
                " longer; ask for less at once, or come back later",
                Retry_After="30",
            )
        finally:
            gone.cancel()
            result.cancel()


async def _disconnection(request: Request) -> None:
    """Ends when the client has gone; ask when the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _ResultResponse(FileResponse):
    """A result's file, of which nothing stays whether it arrives or not."""

    def __init__(self, done: ColoredFile, leave: Callable[[], None]) -> None:
        headers = {}
        if done.notes:
            notes = list(done.notes)
            while len(words := json.dumps(notes)) > _MOST_NOTES:
                notes.pop()
            headers["Gancolor-Notes"] = words
        super().__init__(
            done.path, headers=headers, media_type=done.media_type, filename=done.path.name
        )
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


class _Gate:
    """Counts every request, and asks who it is from; pure ASGI, so that bodies stream."""

    def __init__(self, app: ASGIApp, users: dict[bytes, bytes] | None, counted: Counters) -> None:
        self.app, self.users, self.counted = app, users, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), _CLOSED

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        request = Request(scope, receive)
        answer: ASGIApp = self.app
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self.users is not None and path != _OPEN:
            given = request.headers.get("authorization", "")
            if not access.is_known(self.users, given):
                await uploads.drain(request)
                answer = Problem(
                    401,
                    "a request must name a user of --auth-file and the password, got "
                    + ("another" if given else "none"),
                    WWW_Authenticate='Basic realm="gancolor", charset="UTF-8"',
                ).response()
        try:
            await answer(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "any"
            self.counted.count_request(method, route, status, time.monotonic() - start)


def _add_answers_to_errors(app: FastAPI, counted: Counters) -> None:
    @app.exception_handler(Problem)
    async def answer_problem(_: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(GancolorError)
    async def answer_error(_: Request, error: GancolorError) -> Response:
        return problems.of_error(error).response()

    @app.exception_handler(LineFull)
    async def answer_full(request: Request, full: LineFull) -> Response:
        counted.add("refused_total")
        await uploads.drain(request)
        return problems.respond(
            429,
            f"the line must have a place, got it full; come back in {full.seconds} s",
            {"Retry-After": str(full.seconds)},
        )

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        words = {
            404: "a path must be one of those that /docs lists, got another",
            405: f"this path must be asked in another way, got {request.method}; see /docs",
        }
        detail = words.get(error.status_code, str(error.detail))
        return problems.respond(error.status_code, detail, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(GivenUp)
    async def answer_nobody(_: Request, error: Exception) -> Response:
        return Response(status_code=_CLOSED)

    @app.exception_handler(Exception)
    async def answer_fault(_: Request, error: Exception) -> Response:
        return problems.respond(500, FAULT)


_PROBLEM: dict[str, Any] = {"content": {problems.MEDIA_TYPE: {}}}
_ANSWERS_OF_GET: dict[int | str, dict[str, Any]] = {
    200: {"description": "as told"},
    401: {"description": "no user of --auth-file", **_PROBLEM},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "as told"},
    400: {"description": "the body is torn, or has other parts", **_PROBLEM},
    401: {"description": "no user of --auth-file", **_PROBLEM},
    408: {"description": "it arrived too slowly", **_PROBLEM},
    413: {"description": "too many bytes or pixels", **_PROBLEM},
    415: {"description": "no multipart/form-data", **_PROBLEM},
    422: {
        "description": "the picture or an option is wrong, in the command line's words",
        **_PROBLEM,
    },
    429: {"description": "the line is full; Retry-After says when to come back", **_PROBLEM},
    500: {"description": "a fault of the server", **_PROBLEM},
    501: {"description": "the server lacks an extra that this kind of file needs", **_PROBLEM},
    503: {"description": "it took too long", **_PROBLEM},
    507: {"description": "the server's disk is full", **_PROBLEM},
}


def _described(
    parts: Mapping[str, PartRule], options: dict[str, Any], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What openapi.json says of a route that takes these parts and options."""
    properties: dict[str, Any] = {}
    for name, rule in parts.items():
        words = {"description": _PART_WORDS[name]}
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        if rule.most > 1:
            properties[name] = {"type": "array", "items": file, "maxItems": rule.most, **words}
        else:
            properties[name] = {**(file if rule.most else {"type": "number"}), **words}
    properties["options"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": options,
        "description": _PART_WORDS["options"],
    }
    schema = {"type": "object", "required": ["picture", *required], "properties": properties}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return {"responses": _ANSWERS, "openapi_extra": {"requestBody": body}}
