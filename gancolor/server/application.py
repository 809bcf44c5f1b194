"""The server's application, put together: the API and, unless it is left out, the page, which
shares the line and the network.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from gancolor import __version__
from gancolor.coloring.colorizer import Colorizer
from gancolor.server import access, error_answers
from gancolor.server.counters import Counters
from gancolor.server.film_folder import FilmFolder
from gancolor.server.film_jobs import FilmJobs
from gancolor.server.film_routes import film_router
from gancolor.server.gate import Gate
from gancolor.server.line import RequestLine
from gancolor.server.picture_routes import picture_router
from gancolor.server.server_settings import ServerSettings
from gancolor.server.status_routes import status_router
from gancolor.server.study_results import StudyResults
from gancolor.server.study_routes import study_router
from gancolor.storage import checkpoint

_PURGE_SECONDS = 60.0


def create_app(
    colorizer: Colorizer,
    settings: ServerSettings,
    runs_root: str | Path | None = None,
    precision: str = "auto",
) -> FastAPI:
    """The application that colours with `colorizer`, and shows the runs under `runs_root` (default:
    see `checkpoint.runs_root`), whose models it loads in `precision`. ConfigError and DataError for
    a file of users, or a page or folder of a study, that is wrong.

    Its thread and its folder end with the application's lifespan.
    """
    if settings.films is not None:
        FilmFolder(settings.films)
    users = None if settings.auth_file is None else access.read_users(settings.auth_file)
    line, counted = RequestLine(settings.concurrency, settings.max_films), Counters()
    films, root = FilmJobs(settings, line), checkpoint.runs_root(runs_root)
    study = StudyResults.of(settings)
    if not settings.api_only:
        from gancolor.server import studio_page  # takes seconds, and a hundred megabytes
        from gancolor.server.studio import Studio

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(line.open)
        purging = asyncio.create_task(_purge(films))
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not settings.api_only:
                    studio = Studio(colorizer, settings, line, films, root, precision)
                    await stack.enter_async_context(studio_page.mounted(app, studio))
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
    app.add_middleware(Gate, users=users, answers_to=settings.answers_to, counted=counted)
    error_answers.add_to(app, counted)
    app.include_router(picture_router(colorizer, settings, line, counted))
    app.include_router(film_router(colorizer, films, settings, line, counted))
    if study is not None:
        app.include_router(study_router(study, settings, counted))
    app.include_router(status_router(app, colorizer, line, counted))
    return app


def let_go(app: FastAPI) -> None:
    """Close the connections that open pages hold, so that the server can end."""
    if (page := getattr(app.state, "page", None)) is not None:
        page.stop_event.set()


async def _purge(films: FilmJobs) -> None:
    """Remove films that nobody fetched, now and then, without an end."""
    while True:
        await asyncio.sleep(_PURGE_SECONDS)
        films.purge()
