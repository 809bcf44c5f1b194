"""Films that the server colours: a job each, on the thread that owns the network, which lets pictures
go first between two frames.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Literal

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError, GancolorError
from gancolor.runtime.files import read_head
from gancolor.server import problems, request_options
from gancolor.server.line import RequestLine, Ticket
from gancolor.server.picture_tasks import FAULT
from gancolor.server.problems import Problem
from gancolor.server.request_options import PROVENANCE, schema_of, taken
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import PartRule, Upload
from gancolor.video import film, frame_colors, opening, probe
from gancolor.video.encoding import Encoding, film_name
from gancolor.video.film_settings import EncoderSettings, FilmSettings

_log = logging.getLogger("gancolor")

_OF_FILM = (
    *("size", "upsample", "temperature", "saturation"),
    *("strength", "key_interval", "start", "end"),
)
# What an error says of parts that a command could go on with; a job cannot.
_KEPT = re.compile(r"; \d+ frames? (is|are) kept in .*$")

FILM_PARTS = {
    "film": PartRule(1, opening.SUFFIXES | opening.UNSURE),
    "options": PartRule(),
}
"""The parts of a request to colour a film."""

FILM_OPTIONS: dict[str, Any] = {
    **schema_of(FilmSettings, _OF_FILM),
    **schema_of(EncoderSettings),
    "provenance": PROVENANCE,
}
"""The JSON schemas of its options."""

JobState = Literal["waiting", "running", "done", "failed"]


class FilmJob:
    """A film on its way. `frames`: those that are done, and their number where it is known. `ended`:
    when, by the monotonic clock.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.key, self.ticket = secrets.token_urlsafe(16), ticket
        self.state: JobState = "waiting"
        self.frames: tuple[int, int | None] = (0, None)
        self.started = 0.0
        self.ended: float | None = None
        self.result: Path | None = None
        self.notes: list[str] = []
        self.problem: Problem | None = None

    def told(self, root: str) -> dict[str, Any]:
        """The job as JSON. `root`: the path that the server is under."""
        done, frames = self.frames
        left = None
        if self.state == "running" and done and frames:
            passed = time.monotonic() - self.started
            left = round(passed / done * max(0, frames - done), 1)
        progress = 1.0 if self.state == "done" else min(1.0, done / frames) if frames else None
        here = f"{root}/v1/jobs/{self.key}"
        return {
            "id": self.key,
            "state": self.state,
            "progress": progress,
            "frames_done": done,
            "frames": frames,
            "seconds_left": left,
            "self": here,
            "result": f"{here}/result" if self.state == "done" else None,
            "notes": self.notes,
            "error": None if self.problem is None else self.problem.content(),
        }


class FilmJobs:
    """The films of a server, by their keys, which nobody can guess."""

    def __init__(self, colorizer: Colorizer, settings: ServerSettings, line: RequestLine) -> None:
        self.colorizer, self.settings, self.line = colorizer, settings, line
        self._jobs: dict[str, FilmJob] = {}
        self._lock = threading.Lock()

    def add(self, ticket: Ticket, upload: Upload) -> FilmJob:
        """A job for a film that came. Problem when it cannot be coloured, as far as can be seen at
        once.
        """
        source = upload.files["film"][0]
        try:
            options = request_options.parse(upload.texts.get("options"), list(FILM_OPTIONS))
            target = ticket.folder / "results" / film_name(source.with_stem("colored"))
            settings = FilmSettings(
                **request_options.without_auto(taken(FilmSettings, options, _OF_FILM)),
                encoding=Encoding(**taken(EncoderSettings, options)),
                provenance=request_options.provenance(options, self.colorizer.name),
            )
            frame_colors.check_able(self.colorizer, settings)
            opening.load_av()
            if not opening.may_be_film(read_head(source, opening.HEAD)):
                raise DataError(f"film must be of a kind that is read, got {source.name}")
            info = probe.probe(source)
            assert settings.encoding is not None
            settings.encoding.resolved(target, info)
        except GancolorError as error:
            raise problems.of_error(error, ticket.folder) from error
        if info.width * info.height > self.settings.max_pixels:
            raise Problem(
                413,
                f"film must have at most {self.settings.max_megapixels:g} megapixels, got"
                f" {info.width}x{info.height}; raise --max-megapixels",
            )
        job = FilmJob(ticket)
        with self._lock:
            self._jobs[job.key] = job
        self.line.submit(ticket, lambda _: self._make(job, source, target, settings))
        return job

    def find(self, key: str) -> FilmJob:
        """The job of that key. Problem when there is none."""
        self.purge()
        with self._lock:
            if (job := self._jobs.get(key)) is None:
                raise Problem(404, "a job must be one that is there, got another; it may be over")
            return job

    def remove(self, job: FilmJob) -> None:
        """End a job, and remove its files."""
        with self._lock:
            self._jobs.pop(job.key, None)
        self.line.leave(job.ticket)

    def purge(self) -> None:
        """Remove jobs that ended too long ago."""
        oldest = time.monotonic() - 3600 * self.settings.keep_hours
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if job.ended is not None and job.ended < oldest:
                self.remove(job)

    def _make(self, job: FilmJob, source: Path, target: Path, settings: FilmSettings) -> None:
        """Colour a film; on the thread that owns the network."""
        job.state, job.started = "running", time.monotonic()
        end = job.started + 60 * self.settings.max_film_minutes

        def progress(done: int, frames: int | None) -> None:
            job.frames = done, frames
            job.ticket.check()
            if time.monotonic() > end:
                raise DataError(
                    f"film must be coloured within {self.settings.max_film_minutes:g} minutes, it"
                    " took longer; colour it in parts (from, to)"
                )
            self.line.serve_others()

        try:
            target.parent.mkdir()
            made = film.color_film(self.colorizer, source, target, settings, progress=progress)
        except GancolorError as error:
            found = problems.of_error(error, job.ticket.folder)
            job.problem, job.state = Problem(found.status, _KEPT.sub("", found.detail)), "failed"
        except Exception:
            _log.exception("a film could not be coloured")
            job.problem, job.state = Problem(500, FAULT), "failed"
        else:
            notes = [*made.notes, *made.damaged]
            job.notes = [problems.without_folder(note, job.ticket.folder) for note in notes]
            job.frames = made.frames, made.frames
            job.result, job.state = target, "done"
        source.unlink(missing_ok=True)  # only the result is wanted from now on
        if job.result is None:
            shutil.rmtree(target.parent, ignore_errors=True)
        job.ended = time.monotonic()
