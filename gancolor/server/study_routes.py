"""The page of a study over HTTP, and the results that it sends back."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import Request
from starlette.responses import Response

from gancolor.server import uploads
from gancolor.server.counters import Counters
from gancolor.server.descriptions import ANSWERS_OF_RESULTS
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.study_results import StudyResults

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


def study_router(results: StudyResults, settings: ServerSettings, counted: Counters) -> APIRouter:
    """The routes `/study` and `/study/results`."""
    router = APIRouter()

    @router.get("/study", include_in_schema=False)
    async def study() -> Response:
        return HTMLResponse(results.page)

    @router.post(
        "/study/results", status_code=201, responses=ANSWERS_OF_RESULTS, openapi_extra=_BODY
    )
    async def take_results(request: Request) -> Response:
        """Take the results of a participant of the study that this server shows at /study: the JSON
        that its page saves as a file. The answer is 201, or 200 when the same came before.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            await uploads.drain(request)
            raise Problem(415, f"results must be application/json, got {kind[:60] or 'nothing'}")
        with results.entered():
            body = bytearray()
            await uploads.take_bounded(
                request, body.extend, most_bytes=results.most_bytes, seconds=settings.max_seconds
            )
            new = await asyncio.to_thread(results.take, bytes(body))
        if new:
            counted.add("study_results_total")
        return JSONResponse({"taken": True}, 201 if new else 200)

    return router
