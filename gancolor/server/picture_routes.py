"""Pictures that are coloured, and colours that are suggested, over HTTP."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from gancolor.coloring.colorizer import Colorizer
from gancolor.server import picture_tasks, request_options, uploads
from gancolor.server.counters import Counters
from gancolor.server.descriptions import described
from gancolor.server.line import RequestLine, Ticket
from gancolor.server.picture_tasks import ColoredFile
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import PartRule, Upload

_log = logging.getLogger("gancolor")

_MOST_NOTES = 4000  # letters of the header that holds notes


def picture_router(
    colorizer: Colorizer, settings: ServerSettings, line: RequestLine, counted: Counters
) -> APIRouter:
    """The routes `/v1/color` and `/v1/suggest`."""
    router, requests = APIRouter(), _Requests(colorizer, settings, line)

    @router.post("/v1/color", **described(picture_tasks.COLOR_PARTS, picture_tasks.COLOR_OPTIONS))
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

    @router.post(
        "/v1/suggest",
        **described(picture_tasks.SUGGEST_PARTS, picture_tasks.SUGGEST_OPTIONS, ("x", "y")),
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

    return router


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
