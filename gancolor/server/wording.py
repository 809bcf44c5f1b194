"""What the page says, in English and German; the browser's language decides."""

from __future__ import annotations

import gradio as gr
from gradio.i18n import I18nData

WORDS: dict[str, tuple[str, str]] = {
    "welcome": (
        "Drop a black-and-white photograph: it is coloured at once. Colours are guesses, not facts.",
        "Legen Sie ein Schwarzweißfoto ab: Es wird sofort gefärbt. Die Farben sind Vermutungen, keine"
        " Tatsachen.",
    ),
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
    "film": ("Film", "Film"),
    "film_add": ("Add this frame", "Dieses Bild dazunehmen"),
    "film_back": ("Earlier", "Frühere"),
    "film_file": ("A film", "Ein Film"),
    "film_forth": ("Later", "Spätere"),
    "film_gather": ("Look for key frames again", "Schlüsselbilder noch einmal suchen"),
    "film_given": (
        "Your colours: this frame painted by you, or a layer that is transparent elsewhere",
        "Ihre Farben: dieses Bild von Ihnen gemalt, oder eine sonst durchsichtige Ebene",
    ),
    "film_keep": ("Give this frame these colours", "Diesem Bild diese Farben geben"),
    "film_paint": ("Or paint it with another program", "Oder mit einem anderen Programm malen"),
    "film_job": ("Come back later", "Später zurückkommen"),
    "film_make": ("Colour the film", "Film färben"),
    "film_name": ("Or one of the server's films", "Oder ein Film vom Server"),
    "film_number": ("Number of the job", "Nummer des Auftrags"),
    "film_number_info": (
        "With it the film is found again, in any browser.",
        "Damit findet sich der Film wieder, in jedem Browser.",
    ),
    "film_open": ("Open it", "Öffnen"),
    "film_options": ("How it is coloured", "Wie gefärbt wird"),
    "film_preview": ("Preview of four seconds", "Vorschau von vier Sekunden"),
    "film_remove": ("Remove the film from the server", "Film vom Server entfernen"),
    "film_saturation": ("Saturation", "Sättigung"),
    "film_seconds": ("Another frame, at second", "Ein anderes Bild, bei Sekunde"),
    "film_show": ("Show it", "Zeigen"),
    "film_still": ("The frame in gray, to be painted", "Das Bild in Grau, zum Bemalen"),
    "film_stop": ("Stop", "Anhalten"),
    "film_strength": (
        "How much colour is carried along the motion",
        "Wie viel Farbe mit der Bewegung wandert",
    ),
    "film_strip": ("Key frames: choose one", "Schlüsselbilder: wählen Sie eines"),
    "film_take_back": ("Leave this frame to the network", "Dieses Bild dem Netz überlassen"),
    "runs": ("Runs", "Läufe"),
    "runs_both": ("Left and right", "Links und rechts"),
    "runs_compare": ("Compare", "Vergleichen"),
    "runs_compare_title": (
        "### Two models on one picture",
        "### Zwei Modelle an einem Bild",
    ),
    "runs_drawn": ("Curves of", "Kurven von"),
    "runs_grid": ("Validation", "Prüfbilder"),
    "runs_left": ("Left", "Links"),
    "runs_picture": ("A picture", "Ein Bild"),
    "runs_refresh": ("Look again", "Neu laden"),
    "runs_right": ("Right", "Rechts"),
    "runs_run": ("Validation grids of", "Prüfbilder von"),
    "runs_step": ("Which grid, the newest last", "Welche Prüfbilder, die neuesten zuletzt"),
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
