"""What the page says, in English and German; the browser's language decides. What comes with a page is
translated in the browser (`tell`), and what is said later on the server (`say`).
"""

from __future__ import annotations

import gradio as gr
from gradio.context import LocalContext
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
    "load_mask": ("Load a region: white is coloured", "Bereich laden: Weiß wird gefärbt"),
    "save_mask": ("Download the region", "Bereich herunterladen"),
    "tool": ("What a click does", "Was ein Klick tut"),
    "tool_point": ("Point", "Punkt"),
    "tool_brush": ("Brush", "Pinsel"),
    "tool_only": ("Colour only here", "Nur hier färben"),
    "tool_erase": ("Not here", "Hier nicht"),
    "brush_size": ("Size", "Größe"),
    "stage_help": (
        "The photograph. Arrow keys move a cross, Enter asks for the colours there; with a brush Enter"
        " begins a stroke, which follows the cross, and ends it.",
        "Das Foto. Pfeiltasten bewegen ein Kreuz, Enter fragt nach den Farben dort; mit einem Pinsel"
        " beginnt Enter einen Strich, der dem Kreuz folgt, und beendet ihn.",
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
    "error": ("Error", "Fehler"),
    "warning": ("Warning", "Hinweis"),
    "ahead": ("{count} ahead", "{count} davor"),
    "line_full": ("the line is full", "die Warteschlange ist voll"),
    "come_back": (
        "the line must have a place, got it full; come back in {seconds} s",
        "Die Warteschlange ist voll; kommen Sie in {seconds} s wieder",
    ),
    "late": (
        "a request must be answered within {seconds} seconds, it took longer; ask for less at once,"
        " or come back later",
        "Das hat länger als {seconds} Sekunden gedauert; verlangen Sie weniger auf einmal, oder kommen"
        " Sie später wieder",
    ),
    "no_photograph": (
        "a photograph must be there first, got none; drop one above",
        "Zuerst muss ein Foto da sein; legen Sie oben eines ab",
    ),
    "many_photographs": (
        "photographs must be at most {most} at once, got {found}; reload the page to begin anew",
        "Höchstens {most} Fotos auf einmal, es wären {found}; laden Sie die Seite neu, um von vorn"
        " anzufangen",
    ),
    "many_bytes": (
        "photographs must have at most {most} megabytes together, got more; reload the page to begin"
        " anew",
        "Höchstens {most} Megabyte an Fotos zusammen, es wären mehr; laden Sie die Seite neu, um von"
        " vorn anzufangen",
    ),
    "many_references": (
        "references must be at most {most}, got another",
        "Höchstens {most} Bilder, die ihre Farben leihen; entfernen Sie zuerst eines",
    ),
    "large_file": (
        "a picture must have at most {most} megabytes, got {found} of {name}",
        "Ein Bild darf höchstens {most} Megabyte haben, {name} hat {found}",
    ),
    "large_picture": (
        "a photograph must have at most {most} megapixels to be shown at its full size, got"
        " {width}x{height}; download it",
        "In voller Größe wird ein Foto bis {most} Megapixel gezeigt, dieses hat {width}x{height};"
        " laden Sie es herunter",
    ),
    "no_number": (
        "{name} must be a number, got {value}",
        "{name} muss eine Zahl sein, nicht {value}",
    ),
    "no_place": (
        "a place must be picked first, got none; click the photograph",
        "Wählen Sie zuerst eine Stelle; klicken Sie auf das Foto",
    ),
    "no_hints": (
        "hints must be at least one, got none; click on the photograph",
        "Es gibt noch keine Farbangaben; klicken Sie auf das Foto",
    ),
    "no_region": (
        "a region must be painted first, got none; choose its brush, or load one",
        "Es gibt noch keinen Bereich; malen Sie einen mit seinem Pinsel, oder laden Sie einen",
    ),
    "hints_kind": (
        "hints must be a file of {known}, got {name}",
        "Farbangaben müssen eine Datei mit {known} sein, nicht {name}",
    ),
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
    "film_busy": (
        "a film must be at rest before it is set up, got it busy",
        "Der Film ist in Arbeit; halten Sie ihn an, bevor Sie etwas daran ändern",
    ),
    "film_doing_film": ("Film", "Film"),
    "film_doing_keys": ("Looking for key frames", "Schlüsselbilder werden gesucht"),
    "film_doing_preview": ("Preview", "Vorschau"),
    "film_done": ("{doing}: done", "{doing}: fertig"),
    "film_frame": ("{time}: shot {shot}", "{time}: Einstellung {shot}"),
    "film_frames": ("{doing}: {done} frames", "{doing}: {done} Bilder"),
    "film_frames_of": (
        "{doing}: {done} of {frames} frames",
        "{doing}: {done} von {frames} Bildern",
    ),
    "film_gone": (
        "This film is over: its time is up, or it was removed.",
        "Diesen Film gibt es nicht mehr: Seine Zeit ist um, oder er wurde entfernt.",
    ),
    "film_large": (
        "a film must have at most {most} megabytes, got more",
        "Ein Film darf höchstens {most} Megabyte haben, dieser hat mehr",
    ),
    "film_left": (", about {time} left", ", noch etwa {time}"),
    "film_own": (", in your colours", ", in Ihren Farben"),
    "film_stopped": (
        "{doing}: stopped, as it was asked; start it again to go on",
        "{doing}: angehalten, wie verlangt; starten Sie es noch einmal, damit es weitergeht",
    ),
    "film_unchosen": (
        "a film must be chosen first, got none",
        "Wählen Sie zuerst einen Film",
    ),
    "film_unknown": (
        "a film must be one that is there, got another number; it may be over",
        "Unter dieser Nummer gibt es keinen Film, oder nicht mehr",
    ),
    "film_waits": ("{doing}: waits for its turn", "{doing}: wartet, bis es an der Reihe ist"),
    "films_full": (
        "a server must have room for another of {most} films, got it full; remove one, or come back"
        " later",
        "Auf dem Server liegen schon {most} Filme, mehr dürfen es nicht sein; entfernen Sie einen, oder"
        " kommen Sie später wieder",
    ),
    "runs": ("Runs", "Läufe"),
    "runs_after": (
        "After {step} steps: gray, predicted, original",
        "Nach {step} Schritten: grau, vorhergesagt, Original",
    ),
    "runs_both": ("Left and right", "Links und rechts"),
    "runs_compare": ("Compare", "Vergleichen"),
    "runs_compare_title": (
        "## Two models on one picture",
        "## Zwei Modelle an einem Bild",
    ),
    "runs_drawn": ("Curves of", "Kurven von"),
    "runs_grid": ("Validation", "Prüfbilder"),
    "runs_left": ("Left", "Links"),
    "runs_list": ("Runs, the newest first", "Läufe, die neuesten zuerst"),
    "runs_more": (
        "More, step by step, shows TensorBoard:",
        "Mehr, Schritt für Schritt, zeigt TensorBoard:",
    ),
    "runs_no_curves": ("There are no curves yet.", "Es gibt noch keine Kurven."),
    "runs_no_picture": (
        "a picture must be there to be compared on, got none",
        "Zum Vergleichen muss ein Bild da sein; wählen Sie eines",
    ),
    "runs_none": (
        "There are no runs yet: {command} makes one.",
        "Es gibt noch keine Läufe: {command} macht einen.",
    ),
    "runs_own": ("this server's: {name}", "Server: {name}"),
    "runs_picture": ("A picture", "Ein Bild"),
    "runs_refresh": ("Look again", "Neu laden"),
    "runs_right": ("Right", "Rechts"),
    "runs_run": ("Validation grids of", "Prüfbilder von"),
    "runs_step": ("Which grid, the newest last", "Welche Prüfbilder, die neuesten zuletzt"),
    # The columns of its table, and words in them; what is not here is called alike in both.
    "column_run": ("run", "Lauf"),
    "column_preset": ("preset", "Vorgabe"),
    "column_pictures": ("pictures", "Bilder"),
    "column_side": ("side", "Seite"),
    "column_state": ("state", "Stand"),
    "column_step": ("step", "Schritt"),
    "column_minutes": ("minutes", "Minuten"),
    "column_gray's": ("gray's", "von Grau"),
    "column_M true": ("M true", "M wahr"),
    "column_spread a*": ("spread a*", "Streuung a*"),
    "preset_not readable": ("not readable", "nicht lesbar"),
    "state_done": ("done", "fertig"),
    "state_not at its end": ("not at its end", "nicht zu Ende"),
}
"""The page's sentences by their keys: English, German."""


def tell(key: str) -> I18nData:
    """A sentence of the page, for a component's label, value or placeholder. KeyError for an unknown
    key.
    """
    WORDS[key]  # a word that lacks is found here, and not by a user
    return I18nData(key)


def say(key: str, **values: object) -> str:
    """A sentence in the language of the visitor for whom something is done just now, with `values` in
    its gaps; English elsewhere, as on the thread that owns the network. KeyError for an unknown key.
    """
    return WORDS[key][_is_german()].format(**values)


def written(value: float) -> str:
    """A number as the visitor writes it: 1,234.5 or 1.234,5."""
    return f"{value:,}".translate(str.maketrans(",.", ".,") if _is_german() else {})


def named(kind: str, name: str) -> str:
    """What something of a kind is called, which may be called alike in both languages."""
    return say(key) if (key := f"{kind}_{name}") in WORDS else name


def _is_german() -> bool:
    """Whether the visitor's browser asks for German first, as the page's own scripts decide it."""
    request = LocalContext.request.get(None)
    asked = "" if request is None else request.headers.get("accept-language", "")
    return str(asked).lower().startswith("de")


def translations() -> gr.I18n:
    """All sentences, for the page."""
    english = {key: words[0] for key, words in WORDS.items()}
    german = {key: words[1] for key, words in WORDS.items()}
    return gr.I18n(en=english, de=german)
