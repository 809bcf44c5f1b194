"""What somebody does with a film on the page: opened, its key frames given colours, a part of it shown,
all of it made. The job stays when the browser goes; its number finds it again.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import NamedTuple

from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import auto_size
from gancolor.errors import DataError
from gancolor.images.formats import suffix_of
from gancolor.runtime.files import Progress
from gancolor.server import film_requests, film_tasks
from gancolor.server.film_folder import FilmFolder
from gancolor.server.film_jobs import FilmJob, FilmJobs, strip_of
from gancolor.server.film_strip import FilmStrip
from gancolor.server.line import LineFull, RequestLine, Ticket
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.server.wording import say, written
from gancolor.video import opening, parts
from gancolor.video.damage import clock

_BEFORE = 1.5  # seconds of a preview before its key frame


class FilmStatus(NamedTuple):
    """How far a job is: in words, as a share from 0 to 1 where that is known, whether something is
    done or waits to be done, and whether it failed.
    """

    words: str
    share: float | None
    busy: bool
    failed: bool


class FilmDesk:
    """The films of a server, as its page works at them."""

    def __init__(
        self, colorizer: Colorizer, settings: ServerSettings, line: RequestLine, films: FilmJobs
    ) -> None:
        self._colorizer, self._settings, self._line = colorizer, settings, line
        self._films = films
        self._folder = None if settings.films is None else FilmFolder(settings.films)

    def names(self) -> list[str]:
        """The films of the folder that the server allows."""
        return [] if self._folder is None else self._folder.names()

    def take(self, uploaded: Path) -> FilmJob:
        """Begin with a film that was uploaded, which moves to its job. Problem when it cannot be
        coloured or there are too many films.
        """
        ticket = self._enter()
        try:
            size = uploaded.stat().st_size
            if size > self._settings.max_film_bytes:
                most = f"{self._settings.max_film_megabytes:g}"
                raise Problem(413, say("film_large", most=most))
            suffix = suffix_of(uploaded.name)
            known = suffix if suffix in opening.SUFFIXES | opening.UNSURE else ""
            source = ticket.folder / f"film{known}"
            shutil.move(uploaded, source)
            return self._begin(ticket, source)
        except BaseException:
            self._line.leave(ticket)
            raise

    def choose(self, name: str) -> FilmJob:
        """Begin with a film of the server's folder. DataError for another name; else as `take`."""
        if self._folder is None:
            raise DataError("the server must be started with --films, got no folder of films")
        if not name:
            raise DataError(say("film_unchosen"))
        source = self._folder.find(name)
        ticket = self._enter()
        try:
            return self._begin(ticket, source)
        except BaseException:
            self._line.leave(ticket)
            raise

    def find(self, number: str) -> FilmJob:
        """The job of that number, which is used again and stays. Problem when there is none."""
        try:
            return self._films.find(number.strip())
        except Problem as problem:
            raise Problem(problem.status, say("film_unknown")) from problem

    def gather(self, job: FilmJob) -> None:
        """Look for the key frames, or for those that are missing."""
        strip = strip_of(job)
        self._films.start(
            job, "keys", lambda progress: strip.gather(self._colorizer, job.settings, progress)
        )

    def add(self, job: FilmJob, seconds: float) -> str:
        """Put the frame of that time into the strip; returns its name. On the line's thread."""
        return strip_of(job).add(seconds, self._colorizer, job.settings).name

    def preview(self, job: FilmJob, name: str | None) -> None:
        """Make a preview around a key frame, or of the film's beginning."""
        begin = 0.0 if name is None else strip_of(job).seconds(name) - _BEFORE

        def work(progress: Progress) -> None:
            job.preview = None
            film_tasks.make_preview(self._colorizer, job, begin, progress)

        self._films.start(job, "preview", work)

    def make(self, job: FilmJob) -> None:
        """Colour all of the film."""
        strip_of(job)
        self._films.start(
            job,
            "film",
            lambda progress: film_tasks.color_by_shots(self._colorizer, job, progress),
        )

    def set_up(self, job: FilmJob, saturation: float, strength: float) -> None:
        """Say how the film is coloured from now on. Problem while it is."""
        if (saturation, strength) != (job.settings.saturation, job.settings.strength):
            if job.is_busy:
                raise Problem(409, say("film_busy"))
            job.settings = dataclasses.replace(
                job.settings, saturation=saturation, strength=strength
            )

    def stop(self, job: FilmJob) -> None:
        """End what is done with a film; what was made stays."""
        self._films.stop(job)

    def remove(self, job: FilmJob) -> None:
        """Forget a film with all its files."""
        self._films.remove(job)

    def status(self, job: FilmJob) -> FilmStatus:
        """How far a job is."""
        doing = say(f"film_doing_{job.task}")
        if job.problem is not None:
            stopped = say("film_stopped", doing=doing)
            words = stopped if job.stopped else f"{doing}: {job.problem.detail}"
            return FilmStatus(words, None, False, True)
        if not job.is_busy:
            return FilmStatus(say("film_done", doing=doing), 1.0, False, False)
        if job.state == "waiting":
            return FilmStatus(say("film_waits", doing=doing), None, True, False)
        done, frames = job.frames
        many = {"doing": doing, "done": written(done)}
        if frames is None:
            return FilmStatus(say("film_frames", **many), None, True, False)
        words, left = say("film_frames_of", frames=written(frames), **many), job.seconds_left
        if left is not None:
            words += say("film_left", time=clock(math.ceil(left)).removesuffix(".00"))
        return FilmStatus(words, min(1.0, done / frames) if frames else None, True, False)

    def _enter(self) -> Ticket:
        self._films.purge()
        try:
            return self._line.enter(long=True)
        except LineFull as full:
            raise Problem(429, say("films_full", most=self._settings.max_films)) from full

    def _begin(self, ticket: Ticket, source: Path) -> FilmJob:
        job, info = film_requests.job_of(ticket, source, {}, self._colorizer, self._settings)
        job.strip = FilmStrip(
            *(source, ticket.folder, parts.folder_of(job.target), info),
            auto_size(self._colorizer.sight),
        )
        self._films.add(job)
        self.gather(job)
        return job
