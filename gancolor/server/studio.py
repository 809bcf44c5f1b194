"""What the tabs of the page share: the network, whose line they stand in like every request, and how
mistakes are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import gradio as gr

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import GancolorError
from gancolor.server import problems
from gancolor.server.film_jobs import FilmJobs
from gancolor.server.line import LineFull, RequestLine, Ticket
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.wording import say

_log = logging.getLogger("gancolor")
_T = TypeVar("_T")

_ASK_AGAIN = 0.3  # seconds after which it is asked again for a place, and where it is


@dataclass(frozen=True)
class Studio:
    """The server, as the page sees it. `runs_root`: where the runs lie. `precision`: what was asked
    for the network, as `--precision` has it.
    """

    colorizer: Colorizer
    settings: ServerSettings
    line: RequestLine
    films: FilmJobs
    runs_root: Path
    precision: str = "auto"

    @property
    def upload_bytes(self) -> int:
        """What is uploaded is refused when it has more bytes."""
        return max(self.settings.max_bytes, self.settings.max_film_bytes)

    @property
    def folder(self) -> Path:
        """Where the page's files lie; there while the server runs, and removed with it."""
        return self.line.root / "page"

    async def do(
        self, work: Callable[[Ticket], _T], tell: Callable[[str], None] = lambda words: None
    ) -> _T:
        """Let the thread that owns the network do the work, and return what that returns.

        work: gets a ticket, whose folder is removed when this returns. tell: is told now and then
        how many wait before it. Waits for a place in the line where it is full. Problem when that,
        or the work, takes longer than `--max-seconds`.
        """
        end = time.monotonic() + self.settings.max_seconds
        ticket = await self._enter(end, tell)
        try:
            result: asyncio.Future[_T] = asyncio.wrap_future(self.line.submit(ticket, work))
            try:
                while not result.done():
                    if (ahead := self.line.ahead(ticket)) > 0:
                        tell(say("ahead", count=ahead))
                    if time.monotonic() > end:
                        raise self._late()
                    await asyncio.wait({result}, timeout=_ASK_AGAIN)
                return result.result()
            finally:
                result.cancel()
        finally:
            self.line.leave(ticket)

    async def _enter(self, end: float, tell: Callable[[str], None]) -> Ticket:
        while True:
            try:
                return self.line.enter()
            except LineFull as full:
                if time.monotonic() > end:
                    raise Problem(429, say("come_back", seconds=full.seconds)) from full
            tell(say("line_full"))
            await asyncio.sleep(_ASK_AGAIN)

    def _late(self) -> Problem:
        return Problem(503, say("late", seconds=f"{self.settings.max_seconds:g}"))


@contextlib.contextmanager
def mistakes_told(folder: Path | None = None) -> Iterator[None]:
    """Show what goes wrong in here as one line on the page, in the words of the command line.

    folder: of files whose names alone are told.
    """
    try:
        yield
    except gr.Error:
        raise
    except Problem as problem:
        words = (
            problem.detail if folder is None else problems.without_folder(problem.detail, folder)
        )
        raise _mistake(words) from problem
    except GancolorError as error:
        raise _mistake(problems.of_error(error, folder).detail) from error
    except Exception as error:
        _log.exception("the page failed over a request")
        raise _mistake(problems.of_fault(error).detail) from error


def _mistake(words: str) -> gr.Error:
    return gr.Error(html.escape(words), title=say("error"), print_exception=False)
