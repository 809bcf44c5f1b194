"""What the page says, in English and German; the browser's language decides."""

from __future__ import annotations

import gradio as gr
from gradio.i18n import I18nData

WORDS: dict[str, tuple[str, str]] = {
    "photograph": ("Photograph", "Foto"),
    "drop": ("Drop photographs here", "Fotos hier ablegen"),
    "pictures": ("Photographs", "Fotos"),
    "remove": ("Remove", "Entfernen"),
    "colors_title": (
        "**Colours.** Click a place, then choose its colour.",
        "**Farben.** Klicken Sie auf eine Stelle und wählen Sie ihre Farbe.",
    ),
    "palette": ("Likely colours at the place", "Wahrscheinliche Farben an der Stelle"),
    "x": ("x", "x"),
    "y": ("y", "y"),
    "look": ("Go there", "Dorthin"),
    "picker": ("Any colour", "Beliebige Farbe"),
    "use": ("Use this colour", "Diese Farbe nehmen"),
    "marks": ("Colours that you gave", "Farben, die Sie gegeben haben"),
    "undo": ("Undo", "Zurück"),
    "redo": ("Redo", "Wieder vor"),
    "clear": ("Clear", "Alles weg"),
    "vividness": ("Vividness", "Farbigkeit"),
    "sure": ("Show where colours are sure", "Zeigen, wo Farben sicher sind"),
    "variants": ("Variants", "Varianten"),
    "vary": ("Show variants", "Varianten zeigen"),
    "reference": ("Colours of another picture", "Farben eines anderen Bildes"),
    "refer": ("Choose a picture in colour", "Farbbild wählen"),
    "references": ("Pictures that lend their colours", "Bilder, die ihre Farben leihen"),
    "save": ("Download the photograph", "Foto herunterladen"),
    "save_all": ("Colour and download all", "Alle färben und herunterladen"),
    "files": ("Files of hints and regions", "Dateien mit Farben und Bereichen"),
    "save_hints": ("Download the hints", "Farbangaben herunterladen"),
    "load_hints": ("Load hints", "Farbangaben laden"),
    "save_mask": ("Download the region", "Bereich herunterladen"),
    "tool": ("What a click does", "Was ein Klick tut"),
    "tool_point": ("Point", "Punkt"),
    "tool_brush": ("Brush", "Pinsel"),
    "tool_only": ("Colour only here", "Nur hier färben"),
    "tool_erase": ("Not here", "Hier nicht"),
    "brush_size": ("Size", "Größe"),
    "stage_help": (
        "The photograph. Arrow keys move a cross, Enter asks for the colours there.",
        "Das Foto. Pfeiltasten bewegen ein Kreuz, Enter fragt nach den Farben dort.",
    ),
    "gray": ("gray", "grau"),
    "colour": ("colour", "farbig"),
    "split": ("How much is shown in gray", "Wie viel grau gezeigt wird"),
    "hint": ("Colour", "Farbe"),
    "mark_help": (
        "Arrow keys move it, Delete removes it.",
        "Pfeiltasten bewegen sie, Entf entfernt sie.",
    ),
    "full_size": ("Full size", "Volle Größe"),
    "fit": ("Fit the screen", "Ganzes Bild"),
    "alt_after": ("The photograph in colour", "Das Foto in Farbe"),
    "alt_before": ("The photograph as it was", "Das Foto, wie es war"),
    "alt_sure": ("Yellow where colours are sure", "Gelb, wo Farben sicher sind"),
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
