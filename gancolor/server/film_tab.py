"""The tab on which films are coloured, by their key frames."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from gancolor.images import formats
from gancolor.server.film_desk import FilmDesk, FilmStatus
from gancolor.server.film_jobs import FilmJob, strip_of
from gancolor.server.key_editor import KeyEditor
from gancolor.server.line import Ticket
from gancolor.server.studio import Studio, mistakes_told
from gancolor.server.wording import say, tell
from gancolor.video import opening
from gancolor.video.damage import clock
from gancolor.video.film_settings import FilmSettings

_PAGE = 24  # key frames that are shown at once
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of events: the API is the server's own
_ASKED = 1.0  # seconds after which it is asked again how far a film is


def build(studio: Studio) -> None:
    """Build the tab where it is called, inside `gr.Tab`."""
    FilmTab(studio).build()


class FilmTab:
    """The components of the tab, and what they do. A session knows its job by the job's number."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._desk = FilmDesk(studio.colorizer, studio.settings, studio.line, studio.films)
        self._colors = KeyEditor(studio)

    def build(self) -> None:
        """Lay the components out, and wire them."""
        self._key = gr.State("")
        self._frame = gr.State("")
        self._shown = gr.State("")
        self._from = gr.State(0)
        self._kept = gr.BrowserState("", storage_key="gancolor-film")
        self._timer = gr.Timer(_ASKED, active=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self._build_source()
            with gr.Column(scale=2, min_width=320):
                self._build_strip()
        self._wire()

    def _build_source(self) -> None:
        suffixes = sorted(opening.SUFFIXES | opening.UNSURE)
        self._file = gr.File(
            label=tell("film_file"), file_types=suffixes, height=140, elem_id="film-file"
        )
        folder = self._studio.settings.films is not None
        self._name = gr.Dropdown(label=tell("film_name"), choices=[], visible=folder)
        self._open = gr.Button(tell("film_open"), visible=folder)
        with gr.Accordion(tell("film_options"), open=False):
            defaults = FilmSettings()
            self._saturation = gr.Slider(
                0, 2, defaults.saturation, step=0.05, label=tell("film_saturation")
            )
            self._strength = gr.Slider(
                0.05, 1, defaults.strength, step=0.05, label=tell("film_strength")
            )
        self._status = gr.HTML("", elem_id="film-status")
        with gr.Row():
            self._make = gr.Button(tell("film_make"), variant="primary", interactive=False)
            self._stop = gr.Button(tell("film_stop"), interactive=False)
        self._result = gr.HTML("", elem_id="film-result")
        with gr.Accordion(tell("film_job"), open=False):
            self._number = gr.Textbox(
                label=tell("film_number"), info=tell("film_number_info"), max_lines=1
            )
            with gr.Row():
                self._show = gr.Button(tell("film_show"))
                self._gather = gr.Button(tell("film_gather"), interactive=False)
                self._remove = gr.Button(tell("film_remove"), variant="stop", interactive=False)

    def _build_strip(self) -> None:
        self._strip = gr.Gallery(
            label=tell("film_strip"),
            columns=4,
            height=340,
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            elem_id="film-strip",
            buttons=[],
        )
        with gr.Row():
            self._back = gr.Button(tell("film_back"), size="sm", interactive=False)
            self._forth = gr.Button(tell("film_forth"), size="sm", interactive=False)
            self._seconds = gr.Number(
                label=tell("film_seconds"), minimum=0, value=0, min_width=120, scale=2
            )
            self._add = gr.Button(tell("film_add"), size="sm", interactive=False)
        self._preview = gr.Button(tell("film_preview"), interactive=False)
        self._clip = gr.HTML("", elem_id="film-preview")
        with gr.Column(visible=False) as self._editor:
            self._title = gr.Markdown("", elem_id="film-frame")
            self._colors.build()
            self._keep = gr.Button(tell("film_keep"), variant="primary", elem_id="film-keep")
            with gr.Accordion(tell("film_paint"), open=False, elem_id="film-paint"):
                self._still = gr.File(
                    label=tell("film_still"), interactive=False, height=80, elem_id="film-still"
                )
                self._given = gr.File(
                    label=tell("film_given"),
                    file_types=sorted(formats.SUFFIXES),
                    height=120,
                    elem_id="film-given",
                )
            self._back_to_network = gr.Button(tell("film_take_back"))

    def _wire(self) -> None:
        job = [self._key]
        setup = [self._key, self._saturation, self._strength]
        opened = [self._key, self._kept, self._number, self._frame, self._shown, self._from]
        watched = [
            *(self._status, self._result, self._clip, self._strip, self._shown, self._timer),
            *(self._make, self._stop, self._gather, self._remove, self._preview, self._add),
            *(self._back, self._forth),
        ]
        look: dict[str, Any] = {
            **{"fn": self._look, "inputs": [self._key, self._shown, self._from]},
            **{"outputs": watched, "show_progress": "hidden", **_PRIVATE},
        }
        frame = [self._frame, self._editor, self._title, self._still, self._given]
        at_frame = [self._key, self._frame]
        edit: dict[str, Any] = {"fn": self._edit, "inputs": at_frame, "outputs": frame, **_PRIVATE}
        stage: dict[str, Any] = {
            **{"fn": self._open_frame, "inputs": [*at_frame, self._colors.key]},
            **{"outputs": self._colors.components, **_PRIVATE},
        }

        def do(trigger: Any, fn: Callable[..., Any], inputs: Any, outputs: Any = None) -> None:
            """Do something, and look how things are then."""
            trigger(fn, inputs, outputs, **_PRIVATE).then(**look)

        do(self._file.upload, self._take, [self._file], [self._file, *opened])
        do(self._open.click, self._choose, [self._name], opened)
        do(self._show.click, self._again, [self._number], opened)
        # Also when the page is loaded: what the browser remembers is shown again.
        remembered = gr.on(None, self._remember, [self._kept, self._key], opened, **_PRIVATE)
        remembered.then(**look)
        gr.on(None, self._list, None, [self._name], **_PRIVATE)
        self._timer.tick(**look)
        do(self._make.click, self._start_film, setup)
        do(self._preview.click, self._start_preview, [*setup, self._frame])
        do(self._gather.click, self._start_gathering, job)
        do(self._stop.click, self._end, job)
        do(self._remove.click, self._forget, job, [*opened, *frame])
        do(self._back.click, lambda first: max(0, first - _PAGE), [self._from], [self._from])
        do(self._forth.click, lambda first: first + _PAGE, [self._from], [self._from])
        at_strip = [self._key, self._from]
        self._strip.select(self._select, at_strip, frame, **_PRIVATE).then(**stage)
        add = self._add.click(
            self._add_frame, [self._key, self._seconds], [self._frame], **_PRIVATE
        )
        add.success(**edit).then(**stage).then(**look)
        for trigger, fn, more in (
            (self._given.upload, self._give, [self._given]),
            (self._keep.click, self._keep_colors, [self._colors.key]),
            (self._back_to_network.click, self._take_back, []),
        ):
            trigger(fn, [*at_frame, *more], None, **_PRIVATE).then(**edit).then(**look)

    # --- films ---

    def _take(self, file: str) -> tuple[Any, ...]:
        with mistakes_told(self._studio.folder):
            return (None, *_opened(self._desk.take(Path(file))))

    def _choose(self, name: str | None) -> tuple[Any, ...]:
        with mistakes_told():
            return _opened(self._desk.choose(name or ""))

    def _again(self, number: str) -> tuple[Any, ...]:
        with mistakes_told():
            return _opened(self._desk.find(number))

    def _remember(self, kept: str, key: str) -> tuple[Any, ...]:
        """The job that the browser knew when the page was left, if it is still there."""
        if not kept or key:
            return (gr.skip(),) * 6
        try:
            return _opened(self._desk.find(kept))
        except Exception:
            return ("", "", "", "", "", 0)

    def _list(self) -> Any:
        return gr.Dropdown(choices=self._desk.names())

    def _start_film(self, key: str, saturation: float, strength: float) -> None:
        with mistakes_told():
            job = self._desk.find(key)
            self._desk.set_up(job, saturation, strength)
            self._desk.make(job)

    def _start_preview(self, key: str, saturation: float, strength: float, frame: str) -> None:
        with mistakes_told():
            job = self._desk.find(key)
            self._desk.set_up(job, saturation, strength)
            self._desk.preview(job, frame or None)

    def _start_gathering(self, key: str) -> None:
        with mistakes_told():
            self._desk.gather(self._desk.find(key))

    def _end(self, key: str) -> None:
        with mistakes_told():
            self._desk.stop(self._desk.find(key))

    def _forget(self, key: str) -> tuple[Any, ...]:
        with mistakes_told():
            self._desk.remove(self._desk.find(key))
            return ("", "", "", "", "", 0, *_no_frame())

    def _look(self, key: str, shown: str, first: int) -> tuple[Any, ...]:
        """How a job is, and what has changed since it was looked at."""
        try:
            job = self._desk.find(key) if key else None
        except Exception:
            job = None
        if job is None:
            words = "" if not key else say("film_gone")
            off = gr.Button(interactive=False)
            nothing = (_status_of(FilmStatus(words, None, False, bool(key))) if key else "", "", "")
            return (*nothing, [], "", gr.Timer(active=False), *(off,) * 8)
        status = self._desk.status(job)
        strip, places = job.strip, [] if job.strip is None else job.strip.places
        first = min(first, max(0, (len(places) - 1) // _PAGE * _PAGE))
        now = f"{first} {len(places)} {'' if strip is None else strip.own()}"
        here = f"{self._studio.settings.root_path}/v1/jobs/{job.key}"
        rest = gr.Button(interactive=strip is not None and not status.busy)
        return (
            _status_of(status),
            _result_of(job, here),
            "" if job.preview is None else _clip_of(job, here),
            gr.skip() if now == shown else self._pictures(job, first),
            now,
            gr.Timer(active=status.busy),
            *(rest, gr.Button(interactive=status.busy), rest, gr.Button(interactive=True), rest),
            gr.Button(interactive=bool(places)),
            gr.Button(interactive=first > 0),
            gr.Button(interactive=first + _PAGE < len(places)),
        )

    # --- key frames ---

    def _pictures(self, job: FilmJob, first: int) -> list[tuple[str, str]]:
        strip = strip_of(job)
        return [
            (
                str(strip.picture(place.name)),
                clock(strip.seconds(place.name)) + (" ✓" if strip.is_own(place.name) else ""),
            )
            for place in strip.places[first : first + _PAGE]
        ]

    def _select(self, key: str, first: int, event: gr.SelectData) -> tuple[Any, ...]:
        with mistakes_told():
            places = strip_of(self._desk.find(key)).places
            return self._edit(key, places[min(first + event.index, len(places) - 1)].name)

    def _edit(self, key: str, name: str) -> tuple[Any, ...]:
        """Show a key frame, to be given colours."""
        with mistakes_told():
            if not name:
                return _no_frame()
            strip = strip_of(self._desk.find(key))
            time, shot = clock(strip.seconds(name)), strip.place(name).shot + 1
            title = f"## {say('film_frame', time=time, shot=shot)}"
            own = say("film_own") if strip.is_own(name) else ""
            return (name, gr.Column(visible=True), title + own, str(strip.still(name)), None)

    async def _open_frame(self, key: str, name: str, session: str) -> dict[Any, Any]:
        """Show a key frame on the stage."""
        with mistakes_told():
            if not name:
                return {}
            return await self._colors.open(session, self._desk.find(key), name)

    async def _keep_colors(self, key: str, name: str, session: str) -> None:
        with mistakes_told():
            await self._colors.give(session, self._desk.find(key), name)

    async def _add_frame(self, key: str, seconds: float | None) -> str:
        with mistakes_told():
            job = self._desk.find(key)

            def work(_: Ticket) -> str:
                return self._desk.add(job, seconds or 0.0)

            return await self._studio.do(work)

    def _give(self, key: str, name: str, file: str) -> None:
        with mistakes_told(self._studio.folder):
            job = self._desk.find(key)
            strip_of(job).give(name, Path(file), job.settings.saturation)

    def _take_back(self, key: str, name: str) -> None:
        with mistakes_told():
            strip_of(self._desk.find(key)).take_back(name)


def _opened(job: FilmJob) -> tuple[Any, ...]:
    """A session's job, whose number the browser keeps; nothing of an earlier one is shown."""
    return (job.key, job.key, job.key, "", "", 0)


def _no_frame() -> tuple[Any, ...]:
    return ("", gr.Column(visible=False), "", None, None)


def _status_of(status: FilmStatus) -> str:
    """How far a job is, as HTML that is read out when it changes."""
    value = "" if status.share is None else f' value="{status.share:.3f}"'
    bar = f'<progress max="1"{value} aria-label="{html.escape(status.words)}"></progress>'
    role = "alert" if status.failed else "status"
    return (
        f'<div role="{role}" class="film-status{" failed" if status.failed else ""}">'
        f"<p>{html.escape(status.words)}</p>{bar if status.busy else ''}</div>"
    )


def _result_of(job: FilmJob, here: str) -> str:
    if job.result is None:
        return ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in job.notes)
    return (
        f'<p><a class="film-download" href="{here}/result" download>'
        f"{html.escape(job.result.name)}</a></p><ul>{notes}</ul>"
    )


def _clip_of(job: FilmJob, here: str) -> str:
    assert job.preview is not None
    try:
        version = job.preview.stat().st_mtime_ns  # another one is not taken for it
    except OSError:
        return ""
    return (
        f'<video src="{here}/preview?{version}" controls loop muted autoplay playsinline'
        f' aria-label="{say("film_doing_preview")}"></video>'
    )
