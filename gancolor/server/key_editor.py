"""A key frame of a film, given colours like a photograph: by clicks with suggested colours, and a
brush.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gancolor.server import finishing
from gancolor.server.easel import Easel
from gancolor.server.film_jobs import FilmJob, strip_of
from gancolor.server.line import Ticket
from gancolor.server.photograph_actions import Visit
from gancolor.server.sessions import OpenPicture, Session
from gancolor.server.studio import Studio

_MOST = 50  # frames of a visitor of which it is kept what was told


class KeyEditor(Easel):
    """The components, and what they do. Each visitor's frames keep what was told of them until the
    page is left.
    """

    def __init__(self, studio: Studio) -> None:
        super().__init__(studio, "key-")

    def build(self) -> None:
        """Lay the components out where it is called, and wire them."""
        self.lay_out_stage()
        self.lay_out_colors()
        self.connect()

    async def open(self, key: str, job: FilmJob, name: str) -> dict[Any, Any]:
        """Show a key frame as it was told so far."""
        session = self._session(key)
        still = strip_of(job).still(name)
        paths = [picture.path for picture in session.pictures]
        if still not in paths:
            session.pictures = [*session.pictures[1 - _MOST :], OpenPicture(still, still.name)]
            paths = [picture.path for picture in session.pictures]
        said = {"number": paths.index(still)}
        async with session.lock:
            return self.named(key, await self.actions.choose_picture(Visit(session, said)))

    async def give(self, key: str, job: FilmJob, name: str) -> None:
        """Take the colours that are shown as the key frame's."""
        strip, session = strip_of(job), self._session(key)
        still, most = strip.still(name), self.studio.settings.max_pixels
        picture = next((each for each in session.pictures if each.path == still), None)
        if picture is None:
            picture = OpenPicture(still, still.name)

        def work(ticket: Ticket) -> None:
            done = finishing.color(self.studio.colorizer, picture, most, ticket)
            strip.give(name, Path(done.path), job.settings.saturation)

        await self.studio.do(work)

    def _session(self, key: str) -> Session:
        return self.actions.sessions.find(key, self.studio.folder)
