"""The results of a study that participants send: checked against its page, and kept as files that
`gancolor study score` reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gancolor.errors import ConfigError, DataError, shown
from gancolor.evaluation import study_answers, study_page
from gancolor.evaluation.study_answers import Participant
from gancolor.evaluation.study_page import StudyPage
from gancolor.runtime.files import write_whole
from gancolor.server import problems
from gancolor.server.line import LineFull
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings

_SENDING = "study/results"  # where the page sends to, from its own address
_HEAD_BYTES, _TRIAL_BYTES = 20_000, 1000  # of results: what they hold beside trials, and for each
_BUSY_SECONDS = 2


class StudyResults:
    """The page of a study and the folder of its results, a file for each participant.

    ConfigError for a folder that cannot be written.
    """

    def __init__(self, settings: ServerSettings, page: StudyPage, folder: Path) -> None:
        self.protocol, self.pictures = page.protocol, page.pictures
        self.page = page.sending_to(_SENDING).encode()
        self.most_bytes = _HEAD_BYTES + _TRIAL_BYTES * page.protocol.trials
        self.folder = folder
        self._most, self._most_at_once = settings.max_participants, settings.concurrency
        self._present = 0
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(None, "not allowed to write there")
        except OSError as error:
            raise ConfigError(
                f"--study-results must be a folder that can be written, got {shown(self.folder)}:"
                f" {error.strerror or error}; choose another"
            ) from error

    @classmethod
    def of(cls, settings: ServerSettings) -> StudyResults | None:
        """Those of the study that the settings name, None if they name none. DataError for a file
        that is no page of a study.
        """
        if settings.study is None or settings.results_folder is None:
            return None
        return cls(settings, study_page.read(settings.study), settings.results_folder)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """While results are received. LineFull when as many as `--concurrency` are already."""
        with self._lock:
            if self._present >= self._most_at_once:
                raise LineFull(_BUSY_SECONDS)
            self._present += 1
        try:
            yield
        finally:
            with self._lock:
                self._present -= 1

    def take(self, data: bytes) -> bool:
        """Keep what the page sends; False where the same was kept before, so that it is safe to send
        again. Problem for what is not of this page or not whole, for other results of the same
        participant, and when there is no room.
        """
        person = self._checked(data)
        key = hashlib.sha256(person.name.encode("utf-8", "replace")).hexdigest()[:32]
        path = self.folder / f"answers-{self.protocol.digest}-{key}.json"
        with self._lock:
            try:
                if path.exists():
                    if path.read_bytes() == data:
                        return False
                    raise Problem(
                        409,
                        "results must be the first of a participant, got others of the same one;"
                        " load the page anew to take part again",
                    )
                if self._kept() >= self._most:
                    raise Problem(
                        507,
                        f"the study must have a place, got results of {self._most} participants"
                        " already; save yours as a file",
                    )
                write_whole(path, data)
            except OSError as error:
                raise Problem(
                    507, f"the server cannot keep the results: {error.strerror}"
                ) from error
        return True

    def _kept(self) -> int:
        return sum(1 for _ in self.folder.glob(f"answers-{self.protocol.digest}-*.json"))

    def _checked(self, data: bytes) -> Participant:
        try:
            person = study_answers.parse(data, "a request")
        except DataError as error:
            raise problems.of_error(error) from error
        if person.protocol != self.protocol:
            raise Problem(
                422,
                f"results must be of the study {self.protocol.digest}, got"
                f" {person.protocol.digest}; load the page anew",
            )
        found = Counter(trial.phase for trial in person.trials)
        for phase in study_answers.PHASES:
            if found[phase] != (wanted := getattr(self.protocol, phase)):
                raise Problem(
                    422,
                    f"results must hold {wanted} trials of the kind {phase}, got {found[phase]}",
                )
        named = {trial.picture for trial in person.trials}
        if len(named) < len(person.trials) or not named <= self.pictures:
            raise Problem(
                422, "results must be of pictures of the page, each once at most, got others"
            )
        return person
