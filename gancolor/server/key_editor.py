"""A key frame of a film, given colours like a photograph: by clicks with suggested colours, and a
brush.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr

from gancolor.server import editing, finishing, stage
from gancolor.server.film_jobs import FilmJob, strip_of
from gancolor.server.line import Ticket
from gancolor.server.photograph_actions import PhotographActions, Updates, Visit
from gancolor.server.sessions import OpenPicture, Session
from gancolor.server.studio import Studio, mistakes_told
from gancolor.server.wording import tell

_MOST = 50  # frames of a visitor of which it is kept what was told


class KeyEditor:
    """The components, and what they do by the actions of photographs. Each visitor's frames keep what
    was told of them until the page is left.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio, self._actions = studio, PhotographActions(studio)

    def build(self) -> None:
        """Lay the components out where it is called, and wire them."""
        self.key = gr.State(
            lambda: secrets.token_urlsafe(16), delete_callback=self._actions.sessions.remove
        )
        self.stage = stage.stage("key-stage")
        self.notes = gr.HTML(elem_id="key-notes", apply_default_css=False)
        self.palette = stage.choices("palette", "key-palette")
        with gr.Row():
            self.x = gr.Number(label=tell("x"), precision=0, minimum=0, min_width=90)
            self.y = gr.Number(label=tell("y"), precision=0, minimum=0, min_width=90)
            self.look = gr.Button(tell("look"), min_width=70, size="sm")
            self.picker = gr.ColorPicker(label=tell("picker"), value="#963228", min_width=70)
            self.use = gr.Button(tell("use"), min_width=70, size="sm", elem_id="key-use")
        self.marks = stage.choices("marks", "key-marks", removable=True)
        with gr.Row():
            self.undo = gr.Button(tell("undo"), size="sm", min_width=60)
            self.redo = gr.Button(tell("redo"), size="sm", min_width=60)
            self.clear = gr.Button(tell("clear"), size="sm", min_width=60)
        self._wire()

    @property
    def shown(self) -> dict[str, Any]:
        """The components that change, by the names that actions have for them."""
        names = ("stage", "notes", "palette", "x", "y", "picker", "marks", "undo", "redo")
        return {name: getattr(self, name) for name in names}

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
            return self._named(await self._actions.choose_picture(Visit(session, said)))

    async def give(self, key: str, job: FilmJob, name: str) -> None:
        """Take the colours that are shown as the key frame's."""
        strip, session = strip_of(job), self._session(key)
        still, most = strip.still(name), self._studio.settings.max_pixels
        picture = next((each for each in session.pictures if each.path == still), None)
        if picture is None:
            picture = OpenPicture(still, still.name)

        def work(ticket: Ticket) -> None:
            done = finishing.color(self._studio.colorizer, picture, most, ticket)
            strip.give(name, Path(done.path), job.settings.saturation)

        await self._studio.do(work)

    def _session(self, key: str) -> Session:
        return self._actions.sessions.find(key, self._studio.folder)

    def _named(self, updates: Updates) -> dict[Any, Any]:
        """What changes, by components; what is not here is left out."""
        shown = self.shown
        return {shown[name]: value for name, value in updates.items() if name in shown}

    def _wire(self) -> None:
        do = self._actions
        self._on(self.stage.press, do.press)
        self._on(self.stage.take, do.take_mark)
        self._on(self.stage.move, do.move_mark)
        self._on(self.stage.remove, do.remove_mark)
        self._on(self.stage.stroke, do.stroke, self.picker)
        self._on(self.stage.enlarge, do.enlarge)
        self._on(self.marks.choose, do.take_mark)
        self._on(self.marks.remove, do.remove_mark)
        self._on(self.palette.choose, do.choose_color)
        self._on(self.look.click, do.look_at, self.x, self.y)
        self._on(self.use.click, do.use_color, self.x, self.y, self.picker)
        self._on(self.undo.click, do.go_back)
        self._on(self.redo.click, do.go_on)
        self._on(self.clear.click, do.clear_all)
        self.picker.change(
            lambda ink: gr.update(ink=editing.hex_of(editing.rgb_of(ink))),
            self.picker,
            self.stage,
            show_progress="hidden",
            api_visibility="private",
        )

    def _on(
        self, event: Callable[..., Any], action: Callable[..., Awaitable[Updates]], *inputs: Any
    ) -> None:
        """Let an event do something with the frame that is shown."""

        async def handle(said: gr.EventData, *values: Any) -> dict[Any, Any]:
            key, *rest = values
            session = self._session(key)
            with mistakes_told(session.folder):
                async with session.lock:
                    return self._named(await action(Visit(session, said._data or {}), *rest))

        event(
            handle,
            [self.key, *inputs],
            list(self.shown.values()),
            show_progress="minimal",
            show_progress_on=[self.notes],
            api_visibility="private",
        )
