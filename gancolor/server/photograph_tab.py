"""The tab on which photographs are coloured: its layout, and which button does what."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from gancolor.server import editing, stage
from gancolor.server.photograph_actions import PhotographActions, Updates, Visit
from gancolor.server.studio import Studio, mistakes_told
from gancolor.server.wording import tell


def build(studio: Studio) -> None:
    """Build the tab where it is called, inside `gr.Tab`."""
    tab = _Tab(studio)
    tab.lay_out()
    tab.connect()


class _Tab:
    """The tab's components, and what they do. A visitor is known by a key that only the server and
    their browser's session have.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio, self.actions = studio, PhotographActions(studio)

    # --- layout ---

    def lay_out(self) -> None:
        """Make all components, where they belong."""
        self.key = gr.State(
            lambda: secrets.token_urlsafe(16), delete_callback=self.actions.sessions.remove
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self.drop = gr.File(
                    label=tell("drop"), file_count="multiple", height=110, elem_id="drop"
                )
                self.strip = stage.choices("pictures", "strip", removable=True)
                self.stage = stage.stage()
                self.notes = gr.HTML(elem_id="notes", apply_default_css=False)
            with gr.Column(scale=1, min_width=300, visible=False) as self.tools:
                self._lay_out_colors()
                self._lay_out_looks()
                self._lay_out_files()
        self.fetcher = stage.fetcher()

    def _lay_out_colors(self) -> None:
        gr.Markdown(tell("colors_title"))
        self.palette = stage.choices("palette", "palette")
        with gr.Row():
            self.x = gr.Number(label=tell("x"), precision=0, minimum=0, min_width=90)
            self.y = gr.Number(label=tell("y"), precision=0, minimum=0, min_width=90)
            self.look = gr.Button(tell("look"), min_width=70, size="sm")
        with gr.Row():
            self.picker = gr.ColorPicker(
                label=tell("picker"), value="#963228", min_width=70, elem_id="picker"
            )
            self.use = gr.Button(tell("use"), min_width=70, size="sm", elem_id="use")
        self.marks = stage.choices("marks", "marks", removable=True)
        with gr.Row():
            self.undo = gr.Button(tell("undo"), size="sm", min_width=60, elem_id="undo")
            self.redo = gr.Button(tell("redo"), size="sm", min_width=60, elem_id="redo")
            self.clear = gr.Button(tell("clear"), size="sm", min_width=60, elem_id="clear")

    def _lay_out_looks(self) -> None:
        self.saturation = gr.Slider(0, 2, 1, step=0.05, label=tell("vividness"))
        self.sure = gr.Checkbox(label=tell("sure"), value=False)
        able = self.studio.colorizer.sight.variants
        with gr.Accordion(tell("variants"), open=False, visible=able):
            self.vary = gr.Button(tell("vary"), size="sm", elem_id="vary")
            self.variants = stage.choices("variants", "variants")
        able = self.studio.colorizer.sight.hints and self.studio.colorizer.sight.features
        with gr.Accordion(tell("reference"), open=False, visible=able):
            self.refer = _upload_button("refer")
            self.references = stage.choices("references", "references", removable=True)

    def _lay_out_files(self) -> None:
        self.save = gr.Button(tell("save"), variant="primary", elem_id="save")
        self.save_all = gr.Button(tell("save_all"), size="sm", visible=False, elem_id="save-all")
        with gr.Accordion(tell("files"), open=False):
            self.save_hints = gr.Button(tell("save_hints"), size="sm", elem_id="save-hints")
            self.load_hints = _upload_button("load_hints")
            self.save_mask = gr.Button(tell("save_mask"), size="sm", elem_id="save-mask")

    # --- which does what ---

    def connect(self) -> None:
        """Say what each component does."""
        do = self.actions
        self._on(self.drop.upload, do.take_files, self.drop)
        self._on(self.strip.choose, do.choose_picture)
        self._on(self.strip.remove, do.remove_picture)
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
        self._on(self.saturation.release, do.set_saturation, self.saturation)
        self._on(self.sure.input, do.show_sure, self.sure)
        self._on(self.vary.click, do.vary)
        self._on(self.variants.choose, do.take_variant)
        self._on(self.refer.upload, do.add_reference, self.refer)
        self._on(self.references.remove, do.remove_reference)
        self._on(self.save.click, do.save_one)
        self._on(self.save_all.click, do.save_every)
        self._on(self.save_hints.click, do.save_hints)
        self._on(self.load_hints.upload, do.load_hints, self.load_hints)
        self._on(self.save_mask.click, do.save_mask)
        self.picker.change(
            lambda ink: gr.update(ink=editing.hex_of(editing.rgb_of(ink))),
            self.picker,
            self.stage,
            show_progress="hidden",
            api_visibility="private",
        )

    @property
    def _shown(self) -> dict[str, Any]:
        """The components that actions change, by their names."""
        names = (
            *("drop", "strip", "stage", "notes", "tools", "palette", "x", "y", "picker", "marks"),
            *("undo", "redo", "saturation", "variants", "references", "save_all", "fetcher"),
        )
        return {name: getattr(self, name) for name in names}

    def _on(
        self, event: Callable[..., Any], action: Callable[..., Awaitable[Updates]], *inputs: Any
    ) -> None:
        """Let an event do something for the visitor whose it is: one thing at a time, and with what
        goes wrong told in a line.
        """
        sessions, components = self.actions.sessions, self._shown

        async def handle(
            said: gr.EventData,
            progress: gr.Progress = gr.Progress(),  # noqa: B008  # so Gradio knows that it is wanted
            *values: Any,
        ) -> dict[Any, Any]:
            key, *rest = values
            session = sessions.find(key, self.studio.folder)
            with mistakes_told(session.folder):
                async with session.lock:
                    visit = Visit(
                        session, said._data or {}, lambda words: progress(None, desc=words)
                    )
                    shown = await action(visit, *rest)
            return {components[name]: value for name, value in shown.items()}

        event(
            handle,
            [self.key, *inputs],
            list(components.values()),
            show_progress="minimal",
            show_progress_on=[self.notes],
            api_visibility="private",
        )


def _upload_button(word: str) -> gr.UploadButton:
    label: Any = tell(word)  # Gradio's annotation lacks what it takes
    return gr.UploadButton(label, size="sm", elem_id=word)
