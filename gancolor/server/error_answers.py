"""What is answered when a request cannot be: every error as a problem in its own words."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gancolor.errors import GancolorError
from gancolor.server import problems, uploads
from gancolor.server.counters import Counters
from gancolor.server.line import GivenUp, LineFull
from gancolor.server.problems import CLOSED, Problem


def add_to(app: FastAPI, counted: Counters) -> None:
    """Let the application answer errors."""

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
        return Response(status_code=CLOSED)

    @app.exception_handler(Exception)
    async def answer_fault(_: Request, error: Exception) -> Response:
        return problems.of_fault(error).response()
