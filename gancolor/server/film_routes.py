"""Films that are coloured over HTTP: taken, told of, fetched and removed."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import GancolorError
from gancolor.server import film_requests, film_tasks, problems, request_options, uploads
from gancolor.server.counters import Counters
from gancolor.server.descriptions import ANSWERS_OF_JOB, described
from gancolor.server.film_jobs import FilmJob, FilmJobs
from gancolor.server.gate import root_of
from gancolor.server.line import RequestLine, Ticket
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import Upload


def film_router(
    colorizer: Colorizer,
    films: FilmJobs,
    settings: ServerSettings,
    line: RequestLine,
    counted: Counters,
) -> APIRouter:
    """The routes `/v1/films` and `/v1/jobs`."""
    router = APIRouter()

    @router.post(
        "/v1/films",
        **described(film_requests.FILM_PARTS, film_requests.FILM_OPTIONS, first="film", status=202),
    )
    async def take_film(request: Request) -> Response:
        """Take a film, whose sound, subtitles, size and timestamps stay. The answer is a job, which
        says under its own address how far it is. Frames that came as keys lend their colours to
        their shots. A codec says how the film is written; from and to are seconds.
        """
        films.purge()
        ticket = line.enter(long=True)
        try:
            upload = await uploads.receive(
                request,
                ticket.folder,
                film_requests.FILM_PARTS,
                required="film",
                most_bytes=settings.max_film_bytes,
                seconds=60 * settings.max_film_minutes,
            )
            job = await asyncio.to_thread(_begin, ticket, upload, colorizer, settings, films)
        except BaseException:
            line.leave(ticket)
            raise
        counted.add("films_total")
        told = job.told(root_of(request.scope))
        return JSONResponse(told, 202, headers={"Location": told["self"]})

    @router.get("/v1/jobs/{key}", responses=ANSWERS_OF_JOB)
    async def tell_job(request: Request, key: str) -> Response:
        """A film's job: its state (waiting, running, done, failed), progress from 0 to 1, the
        seconds left as far as they can be told, the address of the result when it is done, notes,
        and the error of one that failed.
        """
        return JSONResponse(films.find(key).told(root_of(request.scope)))

    @router.get("/v1/jobs/{key}/result", responses=ANSWERS_OF_JOB)
    async def fetch_film(key: str) -> Response:
        """The film, when its job is done."""
        job = films.find(key)
        if job.result is None:
            raise Problem(409, f"a job must be done before its film is fetched, got it {job.state}")
        return FileResponse(
            job.result, media_type="application/octet-stream", filename=job.result.name
        )

    @router.get("/v1/jobs/{key}/preview", include_in_schema=False)
    async def fetch_preview(key: str) -> Response:
        """A part of a film that is worked at on the page."""
        job = films.find(key)
        if job.preview is None:
            raise Problem(404, "a job must have a preview before it is fetched, got none")
        return FileResponse(job.preview, media_type="video/mp4")

    @router.delete("/v1/jobs/{key}", status_code=204, responses=ANSWERS_OF_JOB)
    async def remove_job(key: str) -> Response:
        """Cancel a film's job, and remove it with all its files."""
        films.remove(films.find(key))
        return Response(status_code=204)

    return router


def _begin(
    ticket: Ticket,
    upload: Upload,
    colorizer: Colorizer,
    settings: ServerSettings,
    films: FilmJobs,
) -> FilmJob:
    """The job for a film that came, in the line. Problem when it cannot be coloured."""
    try:
        options = request_options.parse(
            upload.texts.get("options"), list(film_requests.FILM_OPTIONS)
        )
    except GancolorError as error:
        raise problems.of_error(error) from error
    keys = upload.file("keys")
    job, _ = film_requests.job_of(
        *(ticket, upload.files["film"][0], options, colorizer, settings),
        keys=None if keys is None else keys.parent,
    )
    films.add(job)
    films.start(job, "film", lambda progress: film_tasks.color_once(colorizer, job, progress))
    return job
