"""The tab on which photographs are coloured: its layout, and which button does what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gancolor.server import stage
from gancolor.server.easel import Easel
from gancolor.server.studio import Studio
from gancolor.server.wording import tell


def build(studio: Studio) -> None:
    """Build the tab where it is called, inside `gr.Tab`."""
    tab = _Tab(studio)
    tab.lay_out()
    tab.connect()


class _Tab(Easel):
    """The tab's components, and what they do."""

    names = (
        *Easel.names,
        *("drop", "strip", "tools", "saturation", "variants", "references", "save_all", "fetcher"),
    )

    # --- layout ---

    def lay_out(self) -> None:
        """Make all components, where they belong."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self.drop = gr.File(
                    label=tell("drop"), file_count="multiple", height=140, elem_id="drop"
                )
                self.strip = stage.choices("pictures", "strip", removable=True)
                self.lay_out_stage()
            with gr.Column(scale=1, min_width=300, visible=False) as self.tools:
                gr.Markdown(tell("colors_title"))
                self.lay_out_colors()
                self._lay_out_looks()
                self._lay_out_files()
        self.fetcher = stage.fetcher()

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
            self.load_mask = _upload_button("load_mask")

    # --- which does what ---

    def connect(self) -> None:
        """Say what each component does."""
        super().connect()
        do = self.actions
        self.on(self.drop.upload, do.take_files, self.drop)
        self.on(self.strip.choose, do.choose_picture)
        self.on(self.strip.remove, do.remove_picture)
        self.on(self.saturation.release, do.set_saturation, self.saturation)
        self.on(self.sure.input, do.show_sure, self.sure)
        self.on(self.vary.click, do.vary)
        self.on(self.variants.choose, do.take_variant)
        self.on(self.refer.upload, do.add_reference, self.refer)
        self.on(self.references.remove, do.remove_reference)
        self.on(self.save.click, do.save_one)
        self.on(self.save_all.click, do.save_every)
        self.on(self.save_hints.click, do.save_hints)
        self.on(self.load_hints.upload, do.load_hints, self.load_hints)
        self.on(self.save_mask.click, do.save_mask)
        self.on(self.load_mask.upload, do.load_mask, self.load_mask)


def _upload_button(word: str) -> gr.UploadButton:
    label: Any = tell(word)  # Gradio's annotation lacks what it takes
    return gr.UploadButton(label, size="sm", elem_id=word)
