"""What is done with a film's job, one at a time: its key frames gathered, a part of it shown, all of
it coloured. Everything here runs on the thread that owns the network.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from gancolor.coloring.colorizer import Colorizer
from gancolor.runtime.files import Progress
from gancolor.server.film_jobs import FilmJob
from gancolor.video import excerpt, film, parts
from gancolor.video.encoding import Encoding
from gancolor.video.film_settings import FilmSettings

PREVIEW_SECONDS = 4.0
"""Of a preview."""

_PREVIEW_SIDE = 360
_KEPT = "parts kept in "  # how a note begins that is not meant for who asks a server


def color_once(colorizer: Colorizer, job: FilmJob, progress: Progress) -> None:
    """Colour a film of which only the result is wanted from then on."""
    try:
        _color(colorizer, job, job.settings, progress)
    finally:
        job.source.unlink(missing_ok=True)
        parts.remove(parts.folder_of(job.target))
        for folder in (job.target.parent,) if job.result is None else ():
            shutil.rmtree(folder, ignore_errors=True)


def color_by_shots(colorizer: Colorizer, job: FilmJob, progress: Progress) -> None:
    """Colour a film with the key frames of its strip; shots whose key frames are as before stay."""
    settings = dataclasses.replace(job.settings, by_shots=True, keys=_keys_now(job, "film"))
    _color(colorizer, job, settings, progress)


def make_preview(colorizer: Colorizer, job: FilmJob, begin: float, progress: Progress) -> None:
    """Colour a few seconds from `begin` on with the key frames of the strip, as a small film that
    browsers play.
    """
    target = job.target.with_name("preview.mp4")
    whole = target.with_suffix(".mkv")
    settings = dataclasses.replace(
        job.settings,
        start=max(0.0, begin),
        end=max(0.0, begin) + PREVIEW_SECONDS,
        by_shots=True,
        keys=_keys_now(job, "preview"),
        encoding=Encoding(codec="libx264", preset="ultrafast"),
    )
    target.parent.mkdir(exist_ok=True)
    try:
        film.color_film(colorizer, job.source, whole, settings, progress=progress)
        excerpt.write_excerpt(whole, target, side=_PREVIEW_SIDE)
        job.preview = target
    finally:
        whole.unlink(missing_ok=True)
        parts.remove(parts.folder_of(whole))


def _color(colorizer: Colorizer, job: FilmJob, settings: FilmSettings, progress: Progress) -> None:
    job.target.parent.mkdir(exist_ok=True)
    made = film.color_film(colorizer, job.source, job.target, settings, progress=progress)
    notes = [note for note in (*made.notes, *made.damaged) if not note.startswith(_KEPT)]
    job.notes = [job.plain(note) for note in notes]
    job.count(made.frames, made.frames)
    job.result = job.target


def _keys_now(job: FilmJob, what: str) -> Path | None:
    """A copy of the key frames of a job's strip, which may be changed meanwhile; None if there are
    none.
    """
    copy = job.ticket.folder / f"keys-of-{what}"
    shutil.rmtree(copy, ignore_errors=True)
    if job.strip is None or not job.strip.own():
        return None
    shutil.copytree(job.strip.keys, copy)
    return copy
