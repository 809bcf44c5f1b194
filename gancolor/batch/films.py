"""Films of a batch: each is coloured with one set of settings, and becomes a Record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from gancolor.batch.input_files import Item
from gancolor.batch.mirror import Mirror
from gancolor.batch.records import Record
from gancolor.batch.worker import LEFT_ALONE
from gancolor.coloring.colorizer import Colorizer
from gancolor.runtime.files import Progress
from gancolor.video import film
from gancolor.video.film import Spread
from gancolor.video.film_settings import FilmSettings


@dataclass(frozen=True)
class Films:
    """Colours films, all with one set of settings.

    progress: makes, for a film, what is called with the frames that are done, and with their number
    where it is known. skip_colored: leave a film alone that is in colour already. idle: options
    that were given and do nothing for a film, of which a note is made. mirror: where films lie that
    come from an address or go to one. held: another process keeps all others from these films.
    """

    colorizer: Colorizer
    settings: FilmSettings
    progress: Callable[[Item], AbstractContextManager[Progress]]
    skip_colored: bool = False
    idle: Sequence[str] = ()
    mirror: Mirror | None = None
    held: bool = False

    def color(
        self, item: Item, shares: int = 1, spread: Spread | None = None, again: bool = False
    ) -> Record:
        """Colour one film; returns what became of it. DataError and ConfigError as
        `film.color_film`, whose `shares` and `spread` these are. again: go on with what another
        process has left of it.
        """
        if self.mirror is not None:
            self.mirror.bring_film(item)
        if self.skip_colored and film.has_colors(item.source):
            return Record(str(item.source), kind="film", status="left", notes=[LEFT_ALONE])
        settings = replace(self.settings, resume=self.settings.resume or again)
        with self.progress(item) as progress:
            result = film.color_film(
                self.colorizer,
                item.source,
                item.target,
                settings,
                progress=progress,
                shares=shares,
                spread=spread,
                held=self.held,
            )
        if self.mirror is not None:
            self.mirror.send_film(item)
        notes = [*result.notes, *result.damaged]
        if self.idle:
            does = "does" if len(self.idle) == 1 else "do"
            notes.append(f"{', '.join(self.idle)} {does} nothing for a film")
        shots = f", {result.shots} shot{'s' * (result.shots != 1)}" if result.shots else ""
        frames = f"{result.frames} frame{'s' * (result.frames != 1)}"
        notes.append(f"{frames}{shots}, {result.frames / result.seconds:.1f} frames/s")
        return Record(
            source=str(item.source),
            targets=[str(item.target)],
            kind="film",
            width=result.width,
            height=result.height,
            seconds=result.seconds,
            notes=notes,
        )

    def take_share(self, item: Item, number: int, most: int) -> int:
        """Colour one of the shares of a film that others colour meanwhile; returns how many there
        are, 1 for a film that is coloured as a whole. DataError and ConfigError as
        `film.take_share`.
        """
        if self.skip_colored and film.has_colors(item.source):
            return 1
        with self.progress(item) as progress:
            return film.take_share(
                self.colorizer, item.source, item.target, self.settings, number, most, progress
            )

    def color_share(self, item: Item, number: int, shares: int) -> None:
        """Colour one of the shares of a film that another process has begun. DataError as
        `film.make_share`.
        """
        if self.mirror is not None:
            self.mirror.bring_film(item)
        with self.progress(item) as progress:
            film.make_share(
                self.colorizer, item.source, item.target, self.settings, number, shares, progress
            )
