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
    film_jobs,
    picture_tasks,
    problems,
    request_options,
    uploads,
)
from gancolor.server.counters import Counters
from gancolor.server.film_jobs import FilmJobs
from gancolor.server.line import GivenUp, LineFull, RequestLine, Ticket
from gancolor.server.picture_tasks import FAULT, ColoredFile
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import PartRule, Upload

_log = logging.getLogger("gancolor")

_CLOSED = 499  # the client has gone; nobody sees it, it is counted
_MOST_NOTES = 4000  # letters of the header that holds notes
_PURGE_SECONDS = 60.0
_OPEN = "/healthz"  # needs no password

_PART_WORDS = {
    "film": "The film, a file of any kind that gancolor reads.",
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
    line, counted = RequestLine(settings.concurrency, settings.max_films), Counters()
    films = FilmJobs(colorizer, settings, line)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(line.open)
        purging = asyncio.create_task(_purge(films))
        try:
            yield
        finally:
            purging.cancel()
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
        leave = functools.partial(line.leave, ticket)
        return _ResultResponse(done, settings.max_seconds, leave)

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

    @app.post(
        "/v1/films",
        **_described(film_jobs.FILM_PARTS, film_jobs.FILM_OPTIONS, first="film", status=202),
    )
    async def take_film(request: Request) -> Response:
        """Take a film, whose sound, subtitles, size and timestamps stay. The answer is a job, which
        says under its own address how far it is. A codec says how the film is written; from and to
        are seconds.
        """
        films.purge()
        ticket = line.enter(long=True)
        try:
            upload = await uploads.receive(
                request,
                ticket.folder,
                film_jobs.FILM_PARTS,
                required="film",
                most_bytes=settings.max_film_bytes,
                seconds=60 * settings.max_film_minutes,
            )
            job = await asyncio.to_thread(films.add, ticket, upload)
        except BaseException:
            line.leave(ticket)
            raise
        counted.add("films_total")
        told = job.told(_root_of(request))
        return JSONResponse(told, 202, headers={"Location": told["self"]})

    @app.get("/v1/jobs/{key}", responses=_ANSWERS_OF_JOB)
    async def tell_job(request: Request, key: str) -> Response:
        """A film's job: its state (waiting, running, done, failed), progress from 0 to 1, the
        seconds left as far as they can be told, the address of the result when it is done, notes,
        and the error of one that failed.
        """
        return JSONResponse(films.find(key).told(_root_of(request)))

    @app.get("/v1/jobs/{key}/result", responses=_ANSWERS_OF_JOB)
    async def fetch_film(key: str) -> Response:
        """The film, when its job is done."""
        job = films.find(key)
        if job.result is None:
            raise Problem(409, f"a job must be done before its film is fetched, got it {job.state}")
        return FileResponse(
            job.result, media_type="application/octet-stream", filename=job.result.name
        )

    @app.delete("/v1/jobs/{key}", status_code=204, responses=_ANSWERS_OF_JOB)
    async def remove_job(key: str) -> Response:
        """Cancel a film's job, and remove it with all its files."""
        films.remove(films.find(key))
        return Response(status_code=204)

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
            return Problem(503, "the thread that owns the network has ended").response()
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse, responses=_ANSWERS_OF_GET)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        gauges = {
            "requests_present": line.present,
            "requests_waiting": line.waiting,
            "films_present": line.present_long,
        }
        return Response(counted.text(gauges), media_type=counters.MEDIA_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = api_page.render(app.openapi(), colorizer.name, _root_of(request))
        return HTMLResponse(page)

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{_root_of(request)}/docs")

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


async def _purge(films: FilmJobs) -> None:
    """Remove films that nobody fetched, now and then, without an end."""
    while True:
        await asyncio.sleep(_PURGE_SECONDS)
        films.purge()


def _root_of(request: Request) -> str:
    """The path that the server is under."""
    return str(request.scope.get("root_path", ""))


async def _disconnection(request: Request) -> None:
    """Ends when the client has gone; ask when the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _ResultResponse(FileResponse):
    """A result's file, of which nothing stays whether it arrives, within so many seconds, or not."""

    def __init__(self, done: ColoredFile, seconds: float, leave: Callable[[], None]) -> None:
        headers = {}
        if done.notes:
            notes = list(done.notes)
            while len(words := json.dumps(notes)) > _MOST_NOTES:
                notes.pop()
            headers["Gancolor-Notes"] = words
        super().__init__(
            done.path, headers=headers, media_type=done.media_type, filename=done.path.name
        )
        self._seconds, self._leave = seconds, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            _log.warning("a result was not fetched within %g seconds", self._seconds)
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
        return Problem(
            429,
            f"the line must have a place, got it full; come back in {full.seconds} s",
            Retry_After=str(full.seconds),
        ).response()

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        words = {
            404: "a path must be one of those that /docs lists, got another",
            405: f"this path must be asked in another way, got {request.method}; see /docs",
        }
        detail = words.get(error.status_code, str(error.detail))
        return Problem(error.status_code, detail, **dict(error.headers or {})).response()

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(GivenUp)
    async def answer_nobody(_: Request, error: Exception) -> Response:
        return Response(status_code=_CLOSED)

    @app.exception_handler(Exception)
    async def answer_fault(_: Request, error: Exception) -> Response:
        return Problem(500, FAULT).response()


_PROBLEM: dict[str, Any] = {"content": {problems.MEDIA_TYPE: {}}}
_ANSWERS_OF_GET: dict[int | str, dict[str, Any]] = {
    200: {"description": "as told"},
    401: {"description": "no user of --auth-file", **_PROBLEM},
}
_ANSWERS_OF_JOB: dict[int | str, dict[str, Any]] = {
    **_ANSWERS_OF_GET,
    404: {"description": "there is no such job, or it is over", **_PROBLEM},
    409: {"description": "the film is not done", **_PROBLEM},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the body is torn, or has other parts", **_PROBLEM},
    401: {"description": "no user of --auth-file", **_PROBLEM},
    403: {"description": "a browser sent it for another site's page", **_PROBLEM},
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
    parts: Mapping[str, PartRule],
    options: dict[str, Any],
    required: tuple[str, ...] = (),
    *,
    first: str = "picture",
    status: int = 200,
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
    schema = {"type": "object", "required": [first, *required], "properties": properties}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    answers = {status: {"description": "as told"}, **_ANSWERS}
    return {
        "responses": answers,
        "status_code": status,
        "openapi_extra": {"requestBody": body},
    }
