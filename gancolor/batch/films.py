"""Films of a batch: each is coloured with one set of settings, and becomes a Record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gancolor.batch.input_files import Item
from gancolor.batch.records import Record
from gancolor.batch.worker import LEFT_ALONE
from gancolor.coloring.colorizer import Colorizer
from gancolor.video import film
from gancolor.video.film_settings import FilmSettings


def color_film(
    colorizer: Colorizer,
    item: Item,
    settings: FilmSettings,
    *,
    progress: Callable[[int, int | None], None],
    skip_colored: bool = False,
    idle: Sequence[str] = (),
) -> Record:
    """Colour one film; returns what became of it. DataError and ConfigError as `film.color_film`.

    progress: called with the frames that are done, and with their number where it is known.
    skip_colored: leave a film alone that is in colour already. idle: options that were given and do
    nothing for a film, of which a note is made.
    """
    if skip_colored and film.has_colors(item.source):
        return Record(str(item.source), kind="film", status="left", notes=[LEFT_ALONE])
    result = film.color_film(colorizer, item.source, item.target, settings, progress=progress)
    notes = [*result.notes, *result.damaged]
    if idle:
        notes.append(f"{', '.join(idle)} {'does' if len(idle) == 1 else 'do'} nothing for a film")
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
