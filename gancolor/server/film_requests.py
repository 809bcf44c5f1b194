"""What is asked of a film: the parts and options of a request, and the job that they become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError, GancolorError
from gancolor.images import formats
from gancolor.runtime.files import read_head
from gancolor.server import problems, request_options
from gancolor.server.film_jobs import FilmJob
from gancolor.server.line import Ticket
from gancolor.server.problems import Problem
from gancolor.server.request_options import PROVENANCE, schema_of, taken
from gancolor.server.server_settings import ServerSettings
from gancolor.server.uploads import PartRule
from gancolor.video import frame_colors, key_frames, opening, probe
from gancolor.video.encoding import Encoding
from gancolor.video.film_settings import EncoderSettings, FilmSettings
from gancolor.video.probe import FilmInfo

_OF_FILM = (
    *("size", "upsample", "temperature", "saturation"),
    *("strength", "key_interval", "start", "end"),
)
_MOST_KEYS = 1000

FILM_PARTS = {
    "film": PartRule(1, opening.SUFFIXES | opening.UNSURE),
    "keys": PartRule(_MOST_KEYS, formats.SUFFIXES, named=key_frames.is_name),
    "options": PartRule(),
}
"""The parts of a request to colour a film."""

FILM_OPTIONS: dict[str, Any] = {
    **schema_of(FilmSettings, _OF_FILM),
    **schema_of(EncoderSettings),
    "provenance": PROVENANCE,
}
"""The JSON schemas of its options."""


def job_of(
    ticket: Ticket,
    source: Path,
    options: Mapping[str, Any],
    colorizer: Colorizer,
    limits: ServerSettings,
    keys: Path | None = None,
) -> tuple[FilmJob, FilmInfo]:
    """A job for a film, and what the film holds. Problem when it cannot be coloured, as far as can
    be seen at once.

    `keys`: the folder of its key frames.
    """
    try:
        settings = FilmSettings(
            **request_options.without_auto(taken(FilmSettings, options, _OF_FILM)),
            keys=keys,
            encoding=Encoding(**taken(EncoderSettings, options)),
            provenance=request_options.provenance(options, colorizer.name),
        )
        frame_colors.check_able(colorizer, settings)
        opening.load_av()
        if not opening.may_be_film(read_head(source, opening.HEAD)):
            raise DataError(f"film must be of a kind that is read, got {source.name}")
        info = probe.probe(source)
        job = FilmJob(ticket, source, settings)
        assert settings.encoding is not None
        settings.encoding.resolved(job.target, info)
        for file in [] if keys is None else key_frames.key_files(keys)[0]:
            key_frames.check_file(file, info)
    except GancolorError as error:
        raise problems.of_error(error, source.parent) from error
    if info.width * info.height > limits.max_pixels:
        raise Problem(
            413,
            f"film must have at most {limits.max_megapixels:g} megapixels, got"
            f" {info.width}x{info.height}; raise --max-megapixels",
        )
    return job, info
