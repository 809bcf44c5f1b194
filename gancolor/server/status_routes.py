"""What the server is, how it fares, and what it can be asked."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from gancolor.coloring.colorizer import Colorizer
from gancolor.server import api_page, counters
from gancolor.server.counters import Counters
from gancolor.server.descriptions import ANSWERS_OF_GET
from gancolor.server.gate import OPEN_PATH, root_of
from gancolor.server.line import RequestLine
from gancolor.server.problems import Problem


def status_router(
    app: FastAPI, colorizer: Colorizer, line: RequestLine, counted: Counters
) -> APIRouter:
    """The routes `/v1/models`, `/healthz`, `/metrics`, `/docs` and `/`."""
    router = APIRouter()

    @router.get("/v1/models", responses=ANSWERS_OF_GET)
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

    @router.get(
        OPEN_PATH, responses={200: {"description": "it is at work"}, 503: {"description": "not"}}
    )
    async def healthz() -> Response:
        """Whether the server is at work; needs no password."""
        if not line.is_alive:
            return Problem(503, "the thread that owns the network has ended").response()
        return JSONResponse({"status": "ok"})

    @router.get("/metrics", response_class=PlainTextResponse, responses=ANSWERS_OF_GET)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        gauges = {
            "requests_present": line.present,
            "requests_waiting": line.waiting,
            "films_present": line.present_long,
        }
        return Response(counted.text(gauges), media_type=counters.MEDIA_TYPE)

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = api_page.render(app.openapi(), colorizer.name, root_of(request.scope))
        return HTMLResponse(page)

    @router.get("/", include_in_schema=False)
    async def start(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{root_of(request.scope)}/docs")

    return router
