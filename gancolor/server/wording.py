"""What the page says, in English and German; the browser's language decides."""

from __future__ import annotations

import gradio as gr
from gradio.i18n import I18nData

WORDS: dict[str, tuple[str, str]] = {
    "photograph": ("Photograph", "Foto"),
}
"""The page's sentences by their keys: English, German."""


def tell(key: str) -> I18nData:
    """A sentence of the page, for a component's label, value or placeholder. KeyError for an unknown
    key.
    """
    WORDS[key]  # a word that lacks is found here, and not by a user
    return I18nData(key)


def translations() -> gr.I18n:
    """All sentences, for the page."""
    english = {key: words[0] for key, words in WORDS.items()}
    german = {key: words[1] for key, words in WORDS.items()}
    return gr.I18n(en=english, de=german)
