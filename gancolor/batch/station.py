"""What an actor of a Ray cluster colours with: the model, processes that read and write, and the
settings of the batch, all as on a single machine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gancolor.batch import worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.film_sharing import FilmSharing, Task
from gancolor.batch.films import Films
from gancolor.batch.input_files import Item
from gancolor.batch.pool import Pool
from gancolor.batch.records import Record
from gancolor.coloring.colorizer import Colorizer
from gancolor.hub import choice
from gancolor.hub.choice import Choice
from gancolor.runtime.files import Progress
from gancolor.runtime.handout import Handout, Left
from gancolor.runtime.processes import Process
from gancolor.runtime.signals import Stopper
from gancolor.runtime.workers import JobDesk
from gancolor.video.film_settings import FilmSettings

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Station:
    """How an actor colours; called on its machine it makes what colours there.

    models: what `Colorizer.load` takes, `general` being the machine's own. idle: as for `Films`.
    """

    models: tuple[Choice, ...]
    device: str
    precision: str
    settings: BatchSettings
    films: FilmSettings
    idle: tuple[str, ...] = ()

    def __call__(self, cpus: int) -> ColoringDesk:
        """Load the model, and begin the processes. Raises what `Colorizer.load` does."""
        known = [
            choice.find(choice.GENERAL, Path()) if model.name == choice.GENERAL else model
            for model in self.models
        ]
        loaded = [
            Colorizer.load(model.path, device=self.device, precision=self.precision)
            for model in known
        ]
        colorizer = loaded[0] if len(loaded) == 1 else Colorizer.mean(loaded)
        count = cpus if colorizer.device.type != "cpu" else max(1, cpus // 4)
        settings = replace(self.settings, workers=self.settings.workers or count)
        return ColoringDesk(colorizer, settings, self.films, self.idle)


class ColoringDesk:
    """Colours lists of photographs and films, one after another."""

    def __init__(
        self,
        colorizer: Colorizer,
        settings: BatchSettings,
        films: FilmSettings,
        idle: tuple[str, ...],
    ) -> None:
        assert settings.workers
        if settings.mirror is not None:
            settings.mirror.sweep(whole=False)  # what actors before this one left on its machine
        self._settings = settings
        pool = Pool(settings.workers, colorizer, settings, Stopper(""))
        self._pictures = JobDesk[Item](pool.rounds)
        self._films = Films(colorizer, films, _untold, settings.skip_colored, idle, settings.mirror)

    def __call__(self, jobs: list[Task]) -> list[Record | None]:
        """What became of each file, in the files' order; None for a share of a film."""
        records = iter(self._pictures([task.item for task in jobs if not task.item.film]))
        return [self._film(task) if task.item.film else next(records) for task in jobs]

    def _film(self, task: Task) -> Record | None:
        """Colour a film with what is there of its shares, or one of these."""
        films = self._films
        if task.share is not None:
            films = replace(films, held=True)
            try:
                count = films.take_share(task.item, task.share, task.most)
            except Exception as error:  # the film's own task meets it too, and tells it
                _log.warning("%s", worker.explain(error, task.item.source))
                return None
            if count > 1 or task.share > 0:
                return None
        made: list[Record] = []
        sharing = FilmSharing(
            Handout(None, Process()),
            made.append,
            lambda film: False,
            contextlib.nullcontext,
            self._settings.keep_dates,
            None,
            films,
        )
        mirror = self._settings.mirror
        if mirror is not None and mirror.is_far(task.item):
            sharing.color([task.item])
        else:  # whole parts are this batch's, or those of one that is gone on with
            sharing.color_left(Left("", Task(task.item), 0))
        return made[0]


@contextlib.contextmanager
def _untold(film: Item) -> Iterator[Progress]:
    yield lambda done, total: None
