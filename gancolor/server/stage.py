"""What the page has beside Gradio's own components: the stage on which a photograph is shown and
marked, buttons with colours and pictures, and what saves a file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from gancolor.server.editing import Mark, Sweep
from gancolor.server.wording import WORDS

_HERE = Path(__file__).parent
_count = itertools.count(1)


def stage(elem_id: str = "stage") -> gr.HTML:
    """Where a photograph is shown: gray and in colour under a slider, with marks and a brush.

    Its events: press (x, y), stroke (places, radius, tool), move (number, x, y), take (number), remove
    (number), enlarge (large), all in pixels of the photograph.
    """
    return gr.HTML(
        html_template=(_HERE / "stage.html").read_text(encoding="utf-8"),
        js_on_load=_script(
            "stage",
            *("tool", "tool_point", "tool_brush", "tool_only", "tool_erase", "brush_size"),
            *("stage_help", "gray", "colour", "split", "hint", "mark_help", "full_size", "fit"),
            *("alt_after", "alt_before", "alt_sure"),
        ),
        apply_default_css=False,
        elem_id=elem_id,
        **_nothing(),
    )


def _nothing() -> dict[str, Any]:
    places = dict.fromkeys(("before", "after", "sure", "region"), "")
    sizes = {"width": 1, "height": 1, "large": False, "ink": "#963228"}
    return {**places, **sizes, "marks": [], "sweeps": [], "picked": [], "selected": -1}


def marks_shown(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """Marks, as the stage takes them."""
    return [{"x": mark.place[0], "y": mark.place[1], "color": mark.color} for mark in marks]


def sweeps_shown(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Strokes that say where to colour, as the stage takes them."""
    return [
        {"path": sweep.path, "radius": sweep.radius, "erases": sweep.erases} for sweep in sweeps
    ]


def choices(name: str, elem_id: str, *, removable: bool = False) -> gr.HTML:
    """Buttons of which one is chosen, called `name` (see `wording`) for who does not see them.

    Its events: choose (number), remove (number).
    """
    return gr.HTML(
        html_template='<div class="choices" role="group"></div>',
        js_on_load=_script("choices", name, "remove", name=name, removable=removable),
        apply_default_css=False,
        elem_id=elem_id,
        items=[],
    )


def choice(
    label: str, *, text: str = "", color: str = "", source: str = "", chosen: bool = False
) -> dict[str, Any]:
    """One of the buttons: its name, and what it shows: text, a colour #rrggbb, a picture's address."""
    return {"label": label, "text": text, "color": color, "source": source, "chosen": chosen}


def fetcher() -> gr.HTML:
    """Saves the file that it is told of."""
    return gr.HTML(
        html_template="<div></div>",
        js_on_load=_script("fetcher"),
        apply_default_css=False,
        elem_id="fetcher",
        file={},
    )


def fetch(path: Path) -> Any:
    """Let the browser save a file of the page's folder."""
    return gr.update(file={"path": str(path), "name": path.name, "number": next(_count)})


def _script(file: str, *words: str, **settings: Any) -> str:
    """A script, with what it says in both languages and its settings. They are no properties: of
    these, Gradio hands over only what changed to what was not shown before.
    """
    told = json.dumps({"words": {key: WORDS[key] for key in words}, **settings})
    return f"const told = {told};\n" + (_HERE / f"{file}.js").read_text(encoding="utf-8")
