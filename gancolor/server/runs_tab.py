"""The tab on which trainings are watched and compared."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from gancolor.errors import DataError
from gancolor.images.arrays import Picture
from gancolor.server.line import Ticket
from gancolor.server.run_list import COLUMNS, RunList
from gancolor.server.run_models import RunModels
from gancolor.server.studio import Studio, mistakes_told
from gancolor.server.wording import named, say, tell, written

_PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of events: the API is the server's own
_AT_ONCE = 4  # runs whose curves are drawn at first


def build(studio: Studio) -> None:
    """Build the tab where it is called, inside `gr.Tab`."""
    RunsTab(studio).build()


class RunsTab:
    """The components of the tab, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._runs = RunList(studio.runs_root)
        self._models = RunModels(studio.colorizer, self._runs, studio.precision)

    def build(self) -> None:
        """Lay the components out, and wire them."""
        self._table = gr.HTML("", elem_id="runs-table")
        self._refresh = gr.Button(tell("runs_refresh"), size="sm")
        with gr.Row():
            with gr.Column(min_width=320):
                self._run = gr.Dropdown(label=tell("runs_run"), choices=[])
                self._step = gr.Slider(0, 1, 0, step=1, label=tell("runs_step"))
                self._caption = gr.Markdown("", elem_id="runs-caption")
                self._grid = gr.Image(
                    label=tell("runs_grid"),
                    show_label=False,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="runs-grid",
                )
            with gr.Column(min_width=320):
                self._drawn = gr.Dropdown(label=tell("runs_drawn"), choices=[], multiselect=True)
                self._curves = gr.HTML("", elem_id="runs-curves")
                gr.Markdown(tell("runs_more") + self._board())
        gr.Markdown(tell("runs_compare_title"))
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self._picture = gr.Image(
                    label=tell("runs_picture"),
                    type="filepath",
                    sources=["upload", "clipboard"],
                    elem_id="runs-picture",
                )
                names = self._models.names()
                self._left = gr.Dropdown(label=tell("runs_left"), choices=names, value=names[0])
                self._right = gr.Dropdown(label=tell("runs_right"), choices=names, value=names[-1])
                self._compare = gr.Button(tell("runs_compare"), variant="primary")
            with gr.Column(scale=2, min_width=320):
                self._both = gr.ImageSlider(
                    label=tell("runs_both"),  # type: ignore[arg-type]  # as any other component
                    interactive=False,
                    elem_id="runs-both",
                )
        self._wire()

    def _wire(self) -> None:
        listed = [self._table, self._run, self._drawn, self._left, self._right]
        grid = [self._caption, self._grid]
        gr.on(None, self._list, None, listed, **_PRIVATE)
        self._refresh.click(self._list, None, listed, **_PRIVATE)
        self._run.change(self._choose, [self._run], [self._step, *grid], **_PRIVATE)
        self._step.change(self._turn, [self._run, self._step], grid, **_PRIVATE)
        self._drawn.change(self._draw, [self._drawn], [self._curves], **_PRIVATE)
        self._compare.click(
            self._color, [self._picture, self._left, self._right], [self._both], **_PRIVATE
        )

    def _board(self) -> str:
        """What shows more of a run; the server's folders are told to those at this machine only."""
        root = str(self._studio.runs_root) if self._studio.settings.is_local else "RUNS"
        return f" `tensorboard --logdir {root}`"

    def _list(self) -> tuple[Any, ...]:
        with mistakes_told():
            rows = self._runs.rows()
            names = [row["run"] for row in rows]
            own, *others = self._models.names()
            models = [
                (say("runs_own", name=self._studio.colorizer.name), own),
                *zip(others, others, strict=True),
            ]
            first = names[0] if names else None
            return (
                _table_of(rows),
                gr.Dropdown(choices=names, value=first),
                gr.Dropdown(choices=names, value=names[:_AT_ONCE]),
                gr.Dropdown(choices=models),
                gr.Dropdown(choices=models),
            )

    def _choose(self, name: str | None) -> tuple[Any, ...]:
        """Show the newest grid of a run."""
        with mistakes_told():
            grids = self._runs.grids(name) if name else []
            if not grids:
                return gr.Slider(0, 1, 0, interactive=False), "", None
            last = len(grids) - 1
            slider = gr.Slider(0, max(1, last), last, interactive=last > 0)
            return (slider, *self._turn(name, last))

    def _turn(self, name: str | None, number: int) -> tuple[str, Picture | None]:
        with mistakes_told():
            if not name or not 0 <= number < len(self._runs.grids(name)):
                return "", None
            picture, step = self._runs.grid(name, int(number))
            return say("runs_after", step=written(step)), picture

    def _draw(self, names: list[str]) -> str:
        with mistakes_told():
            drawn = self._runs.curves(names or [])
            if drawn is not None:
                return f'<div class="runs-curves">{drawn}</div>'
            return f"<p>{say('runs_no_curves')}</p>"

    async def _color(self, picture: str | None, left: str, right: str) -> tuple[Picture, Picture]:
        with mistakes_told(self._studio.folder):
            if picture is None:
                raise DataError(say("runs_no_picture"))

            def work(_: Ticket) -> list[Picture]:
                most = self._studio.settings.max_pixels
                return self._models.compare(Path(picture), (left, right), most)

            first, second = await self._studio.do(work)
            return first, second


def _table_of(rows: Sequence[dict[str, Any]]) -> str:
    """The runs as a table, which scrolls by itself where the screen is narrow."""
    if not rows:
        return f"<p>{say('runs_none', command='<code>gancolor train</code>')}</p>"
    head = "".join(
        f'<th scope="col">{html.escape(named("column", title))}</th>' for title in COLUMNS
    )
    body = "".join(f"<tr>{''.join(map(_cell, row, row.values()))}</tr>" for row in rows)
    return (
        f'<div class="runs-table" tabindex="0" role="region" aria-label="{say("runs_list")}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(title: str, value: object) -> str:
    if isinstance(value, int | float):
        return f"<td class=number>{written(value)}</td>"
    return f"<td>{'' if value is None else html.escape(named(title, str(value)))}</td>"
