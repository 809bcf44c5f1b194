"""Films on the server: a job each, whose work is done on the thread that owns the network, which lets
pictures go first between two frames.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from gancolor.errors import DataError, GancolorError
from gancolor.runtime.files import Progress
from gancolor.server import problems
from gancolor.server.film_strip import FilmStrip
from gancolor.server.line import RequestLine, Ticket
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.video.encoding import film_name
from gancolor.video.film_settings import FilmSettings

_log = logging.getLogger("gancolor")

JobState = Literal["waiting", "running", "done", "failed"]
TaskName = Literal["keys", "preview", "film"]

# What an error says of parts that a command could go on with; who asks a server knows of none.
_KEPT = re.compile(r"; \d+ frames? (is|are) kept in .*$")
_LEAP = 16  # frames: that come at once were made before


class FilmJob:
    """A film, its files, and what is done with it, one `task` after another.

    `frames`: those that are done, and their number where it is known. `ended`: when, by the
    monotonic clock. `result`: the film, as soon as it was made. `preview`: a part of it, for
    browsers. `strip`: its key frames, of a film that is worked at on the page.
    """

    def __init__(self, ticket: Ticket, source: Path, settings: FilmSettings) -> None:
        self.key, self.ticket = secrets.token_urlsafe(16), ticket
        self.source, self.settings = source, settings
        self.target = ticket.folder / "results" / film_name(source.with_stem("colored"))
        self.state: JobState = "waiting"
        self.task: TaskName = "film"
        self.frames: tuple[int, int | None] = (0, None)
        self.ended: float | None = None
        self.result: Path | None = None
        self.preview: Path | None = None
        self.strip: FilmStrip | None = None
        self.notes: list[str] = []
        self.problem: Problem | None = None
        self.stopped = False
        self._since, self._before = 0.0, 0  # when counting began, and the frames that do not count

    @property
    def is_busy(self) -> bool:
        """Whether something is done with it, or will be."""
        return self.ticket.state in ("waiting", "running")

    @property
    def seconds_left(self) -> float | None:
        """How long the task will take, as far as that can be told."""
        done, frames = self.frames
        if self.state != "running" or frames is None or done <= self._before:
            return None
        passed = time.monotonic() - self._since
        return round(passed / (done - self._before) * max(0, frames - done), 1)

    def plain(self, words: str) -> str:
        """A text without the names of the server's folders."""
        words = problems.without_folder(words, self.ticket.folder)
        return problems.without_folder(words, self.source.parent)

    def begin(self, task: TaskName) -> None:
        """Say that a task waits for its turn."""
        self.state, self.task, self.frames = "waiting", task, (0, None)
        self.ended, self.problem, self.stopped = None, None, False

    def count(self, done: int, frames: int | None) -> None:
        """Say how far the task is."""
        leap = done - self.frames[0]
        if leap < 0 or done == 0:  # another step of it
            self._since, self._before = time.monotonic(), 0
        elif leap > _LEAP:
            self._before += leap
        self.frames = done, frames

    def told(self, root: str) -> dict[str, Any]:
        """The job as JSON. `root`: the path that the server is under."""
        done, frames = self.frames
        progress = 1.0 if self.state == "done" else min(1.0, done / frames) if frames else None
        here = f"{root}/v1/jobs/{self.key}"
        return {
            "id": self.key,
            "state": self.state,
            "task": self.task,
            "progress": progress,
            "frames_done": done,
            "frames": frames,
            "seconds_left": self.seconds_left,
            "self": here,
            "result": None if self.result is None else f"{here}/result",
            "notes": self.notes,
            "error": None if self.problem is None else self.problem.content(),
        }


class FilmJobs:
    """The films of a server, by their keys, which nobody can guess."""

    def __init__(self, settings: ServerSettings, line: RequestLine) -> None:
        self.settings, self.line = settings, line
        self._jobs: dict[str, FilmJob] = {}
        self._lock = threading.Lock()

    def add(self, job: FilmJob) -> None:
        """Take a job in, which keeps its ticket until it is removed."""
        with self._lock:
            self._jobs[job.key] = job

    def start(self, job: FilmJob, task: TaskName, work: Callable[[Progress], None]) -> None:
        """Let the line's thread do something with a film; `work` is given whom to tell how far it
        is. Problem when something is done with it already, and when it is over.
        """
        with self._lock:
            if self._jobs.get(job.key) is not job:
                raise _gone()
            if job.is_busy:
                raise Problem(409, "a job must be at rest before more is asked of it, got it busy")
            job.begin(task)
            try:
                self.line.submit(job.ticket, lambda _: self._do(job, work))
            except GancolorError as error:
                raise _gone() from error

    def stop(self, job: FilmJob) -> None:
        """End what is done with a film; it stays, with all that was made so far."""
        job.stopped = True
        if self.line.withdraw(job.ticket):
            _fail(job, Problem(409, _STOPPED))

    def find(self, key: str) -> FilmJob:
        """The job of that key. Problem when there is none."""
        self.purge()
        with self._lock:
            if (job := self._jobs.get(key)) is None:
                raise _gone()
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

    def _do(self, job: FilmJob, work: Callable[[Progress], None]) -> None:
        """Do a task; on the thread that owns the network."""
        job.state = "running"
        job.count(0, None)
        end = time.monotonic() + 60 * self.settings.max_film_minutes

        def progress(done: int, frames: int | None) -> None:
            job.count(done, frames)
            job.ticket.check()
            if job.stopped:
                raise DataError(_STOPPED)
            if time.monotonic() > end:
                raise DataError(
                    f"film must be coloured within {self.settings.max_film_minutes:g} minutes, it"
                    " took longer; colour it in parts (from, to)"
                )
            self.line.serve_others()

        try:
            work(progress)
        except GancolorError as error:
            _fail(job, problems.of_error(error))
        except Exception as error:
            _log.exception("a film could not be coloured")
            _fail(job, problems.of_fault(error))
        else:
            job.state, job.ended = "done", time.monotonic()


_STOPPED = "stopped, as it was asked; start it again to go on"


def _fail(job: FilmJob, problem: Problem) -> None:
    job.problem = Problem(problem.status, _KEPT.sub("", job.plain(problem.detail)))
    job.state, job.ended = "failed", time.monotonic()


def _gone() -> Problem:
    return Problem(404, "a job must be one that is there, got another; it may be over")


def strip_of(job: FilmJob) -> FilmStrip:
    """The key frames of a job. DataError for one that came over the API, and has none."""
    if job.strip is None:
        raise DataError("a film must have been opened on the page, got one of the API")
    return job.strip
