"""The tab on which photographs are coloured."""

from __future__ import annotations

import gradio as gr

from gancolor.server.studio import Studio


def build(studio: Studio) -> None:
    """Build the tab where it is called, inside `gr.Tab`."""
    gr.Markdown(f"Colours with {studio.colorizer.name}.")
