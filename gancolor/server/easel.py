"""Where a picture is given colours: its stage, the colours at its places, and the marks, which the tab
for photographs and the key frames of films have in common.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from gancolor.server import editing, stage
from gancolor.server.photograph_actions import PhotographActions, Updates, Visit
from gancolor.server.studio import Studio, mistakes_told
from gancolor.server.wording import tell


class VisitorKey(str):
    """What a visitor is known by: as a state's initial value, of which each browser's session gets a
    copy when it is first asked for, another for each. (A state whose initial value is a function is
    given another one when the page says that it is loaded, which may be after its first upload.)
    """

    def __deepcopy__(self, memo: object) -> VisitorKey:
        return VisitorKey(secrets.token_urlsafe(16))


class Easel:
    """The components, and what they do by the actions of photographs. A visitor is known by a key that
    only the server and their browser's session have. `prefix`: of the components' names on the page.
    """

    names: tuple[str, ...] = (
        *("stage", "notes", "palette", "x", "y", "picker", "marks", "undo", "redo"),
    )
    """The components that actions change, by the names that these have for them."""

    def __init__(self, studio: Studio, prefix: str = "") -> None:
        self.studio, self.actions, self._prefix = studio, PhotographActions(studio), prefix

    def lay_out_stage(self) -> None:
        """Make the stage, and what is noted of its picture, where it is called."""
        self.key = gr.State(VisitorKey(), delete_callback=self.actions.sessions.remove)
        self.stage = stage.stage(f"{self._prefix}stage")
        self.notes = gr.HTML(elem_id=f"{self._prefix}notes", apply_default_css=False)

    def lay_out_colors(self) -> None:
        """Make the colours and the marks, where it is called."""
        self.palette = stage.choices("palette", f"{self._prefix}palette")
        with gr.Row():
            self.x = gr.Number(label=tell("x"), precision=0, minimum=0, min_width=90)
            self.y = gr.Number(label=tell("y"), precision=0, minimum=0, min_width=90)
            self.look = gr.Button(tell("look"), min_width=70, size="sm")
        with gr.Row():
            self.picker = gr.ColorPicker(
                label=tell("picker"),
                value="#963228",
                min_width=70,
                elem_id=f"{self._prefix}picker",
            )
            self.use = self._button("use", 70)
        self.marks = stage.choices("marks", f"{self._prefix}marks", removable=True)
        with gr.Row():
            self.undo, self.redo = self._button("undo"), self._button("redo")
            self.clear = self._button("clear")

    def _button(self, word: str, width: int = 60) -> gr.Button:
        return gr.Button(tell(word), size="sm", min_width=width, elem_id=f"{self._prefix}{word}")

    def connect(self) -> None:
        """Say what each component does."""
        do = self.actions
        self.on(self.stage.press, do.press)
        self.on(self.stage.take, do.take_mark)
        self.on(self.stage.move, do.move_mark)
        self.on(self.stage.remove, do.remove_mark)
        self.on(self.stage.stroke, do.stroke, self.picker)
        self.on(self.stage.enlarge, do.enlarge)
        self.on(self.marks.choose, do.take_mark)
        self.on(self.marks.remove, do.remove_mark)
        self.on(self.palette.choose, do.choose_color)
        self.on(self.look.click, do.look_at, self.x, self.y)
        self.on(self.use.click, do.use_color, self.x, self.y, self.picker)
        self.on(self.undo.click, do.go_back)
        self.on(self.redo.click, do.go_on)
        self.on(self.clear.click, do.clear_all)
        self.picker.change(
            lambda ink: gr.update(ink=editing.hex_of(editing.rgb_of(ink))),
            self.picker,
            self.stage,
            show_progress="hidden",
            api_visibility="private",
        )

    @property
    def components(self) -> list[Any]:
        """The components that actions change, and the visitor's key, which they leave as it is: only
        a state that was set is told when its visitor goes.
        """
        return [self.key, *(getattr(self, name) for name in self.names)]

    def named(self, key: str, updates: Updates) -> dict[Any, Any]:
        """What changes for a visitor, by components; what is not here is left out."""
        here = {getattr(self, name): updates[name] for name in self.names if name in updates}
        return {self.key: key, **here}

    def on(
        self, event: Callable[..., Any], action: Callable[..., Awaitable[Updates]], *inputs: Any
    ) -> None:
        """Let an event do something for the visitor whose it is: one thing at a time, and with what
        goes wrong told in a line.
        """

        async def handle(
            said: gr.EventData,
            progress: gr.Progress = gr.Progress(),  # noqa: B008  # so Gradio knows that it is wanted
            *values: Any,
        ) -> dict[Any, Any]:
            key, *rest = values
            session = self.actions.sessions.find(key, self.studio.folder)
            with mistakes_told(session.folder):
                async with session.lock:
                    visit = Visit(
                        session, said._data or {}, lambda words: progress(None, desc=words)
                    )
                    return self.named(key, await action(visit, *rest))

        event(
            handle,
            [self.key, *inputs],
            self.components,
            show_progress="minimal",
            show_progress_on=[self.notes],
            api_visibility="private",
        )
