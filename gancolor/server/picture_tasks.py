"""What is done with a picture that came: coloured by the code of `gancolor sample`, or asked for the
colours of a place. It runs on the thread that owns the network.
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from gancolor.batch import exemplars, worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.exemplars import Library
from gancolor.batch.input_files import Item
from gancolor.coloring import full_size, hint_files, references
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import View
from gancolor.errors import ConfigError, GancolorError
from gancolor.images import arrays, formats, reader, writer
from gancolor.server import problems, request_options
from gancolor.server.line import Ticket
from gancolor.server.problems import Problem
from gancolor.server.request_options import HINTS, PROVENANCE, schema_of, taken
from gancolor.server.uploads import PartRule, Upload

_log = logging.getLogger("gancolor")

_OF_BATCH = ("format", "quality", "sheet", "show_matches")
_COUNT = "count"
_MOST_SUGGESTIONS = 64

COLOR_PARTS = {
    "picture": PartRule(1, formats.SUFFIXES),
    "reference": PartRule(exemplars.MOST, formats.SUFFIXES),
    "mask": PartRule(1, formats.SUFFIXES),
    "hints": PartRule(1, hint_files.SUFFIXES),
    "options": PartRule(),
}
"""The parts of a request to colour a picture."""

SUGGEST_PARTS = {
    "picture": PartRule(1, formats.SUFFIXES),
    **dict.fromkeys(("x", "y", "options"), PartRule()),
}
"""The parts of a request for suggestions."""

COLOR_OPTIONS: dict[str, Any] = {
    **schema_of(PhotographSettings),
    **schema_of(BatchSettings, _OF_BATCH),
    "provenance": PROVENANCE,
    "hints": HINTS,
}
"""The JSON schemas of the options of a request to colour a picture."""

SUGGEST_OPTIONS: dict[str, Any] = {
    _COUNT: {
        "type": "integer",
        "minimum": 1,
        "maximum": _MOST_SUGGESTIONS,
        "default": 8,
        "description": "How many colours at most.",
    },
    **schema_of(PhotographSettings, ("size",)),
    "hints": HINTS,
}
"""The JSON schemas of the options of a request for suggestions."""

_MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "webp": "image/webp",
    "bmp": "image/bmp",
}


class ColoredFile(NamedTuple):
    """A result: its file, its media type, notes for the user, and the picture's pixels."""

    path: Path
    media_type: str
    notes: list[str]
    pixels: int


def color(
    colorizer: Colorizer,
    upload: Upload,
    options: dict[str, Any],
    max_pixels: int,
    ticket: Ticket,
    *,
    only: int | None = None,
) -> ColoredFile:
    """Colour a picture; several results become a ZIP archive. `only`: a variant's number, where it
    alone is wanted (see `PhotographSettings`). Problem for what cannot be done.
    """
    folder = ticket.folder
    try:
        return _color(colorizer, upload, options, max_pixels, ticket, only)
    except GancolorError as error:
        raise problems.of_error(error, folder) from error


def _color(
    colorizer: Colorizer,
    upload: Upload,
    options: dict[str, Any],
    max_pixels: int,
    ticket: Ticket,
    only: int | None,
) -> ColoredFile:
    ticket.check()
    hints = _hints_file(upload, options, ticket.folder)
    if hints is not None and not colorizer.sight.hints:
        raise ConfigError(
            f"--hints must be left out with a model that takes none, got {colorizer.name}; use a run"
            " trained with --hints"
        )
    settings = BatchSettings(
        **taken(BatchSettings, options, _OF_BATCH),
        coloring=PhotographSettings(**_coloring(options), only=only),
        hints=hints,
        mask=upload.file("mask"),
        reference=tuple(upload.files.get("reference", ())),
        max_megapixels=max_pixels / 1e6,
        provenance=request_options.provenance(options, colorizer.name),
    )
    for path in [each for files in upload.files.values() for each in files]:
        if path.suffix not in (".csv", ".json"):
            _refuse_large(path, max_pixels)
    coloring = settings.coloring
    full_size.check_able(
        colorizer.sight, temperature=coloring.temperature, variants=coloring.variants
    )
    library = None
    if settings.refers or settings.show_matches:
        references.check_able(colorizer.sight, "--reference")
        exemplars.check(settings)
        library = Library(settings, colorizer.describe_view)
    source = upload.files["picture"][0]
    width, height, title = reader.probe(source)
    suffix = writer.target_suffix(source.suffix or title, settings.format)
    item = Item(source, ticket.folder / "results" / f"colored{suffix}")

    def predict(view: View) -> Prediction:
        ticket.check()
        return colorizer.predict_view(view)

    record = worker.color_file(
        item, settings, colorizer.sight, predict, tell_busy=ticket.check, library=library
    )
    ticket.check()
    if record.error is not None:
        if record.full:
            raise Problem(507, "the server has no room for the result")
        if record.starved or record.fault:
            _log.error("a picture could not be coloured: %s", record.error)
            raise problems.starved() if record.starved else problems.fault()
        raise Problem(422, problems.without_folder(record.error, ticket.folder))
    notes = [problems.without_folder(note, ticket.folder) for note in record.notes]
    results = [Path(target) for target in record.targets]
    if len(results) == 1:
        kind = formats.by_suffix(results[0].name)
        assert kind is not None
        return ColoredFile(results[0], _MEDIA_TYPES[kind.name], notes, width * height)
    archive = item.target.with_name("colored.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for result in results:
            file.write(result, result.name)
    return ColoredFile(archive, "application/zip", notes, width * height)


def suggest(
    colorizer: Colorizer, upload: Upload, options: dict[str, Any], max_pixels: int, ticket: Ticket
) -> dict[str, Any]:
    """The most probable colours at a place, as JSON. Problem for what cannot be done."""
    try:
        ticket.check()
        source = upload.files["picture"][0]
        _refuse_large(source, max_pixels)
        x, y = (_number(upload, name) for name in ("x", "y"))
        count = options.get(_COUNT, 8)
        if (
            isinstance(count, bool)
            or not isinstance(count, int)
            or not 1 <= count <= _MOST_SUGGESTIONS
        ):
            raise ConfigError(
                f"count must be a whole number from 1 to {_MOST_SUGGESTIONS}, got {count!r:.40}"
            )
        coloring = PhotographSettings(**_coloring(options))
        rgb = arrays.read_rgb(source)
        hints = _hints_file(upload, options, ticket.folder)
        known = () if hints is None else hint_files.read(hints, rgb, seen=rgb.shape[:2]).hints
        found = colorizer.suggest(rgb, x, y, count=count, size=coloring.size, hints=known)
    except GancolorError as error:
        raise problems.of_error(error, ticket.folder) from error
    height, width = rgb.shape[:2]
    suggestions = [
        {"color": "#{:02x}{:02x}{:02x}".format(*each.rgb), "probability": each.probability}
        for each in found
    ]
    return {"x": x, "y": y, "width": width, "height": height, "suggestions": suggestions}


def _coloring(options: dict[str, Any]) -> dict[str, Any]:
    return request_options.without_auto(taken(PhotographSettings, options))


def _hints_file(upload: Upload, options: dict[str, Any], folder: Path) -> Path | None:
    """The file of hints: one that came, or what the options say."""
    given = upload.file("hints")
    if "hints" not in options:
        return given
    if given is not None:
        raise ConfigError("hints must be given as a file or among the options, got both")
    path = folder / "hints.json"
    path.write_text(json.dumps(options["hints"]), encoding="utf-8")
    return path


def _number(upload: Upload, name: str) -> float:
    text = upload.texts.get(name, "")
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{name} must be a number of pixels from 0, got {text[:40] or 'nothing'}"
        ) from None


def _refuse_large(path: Path, max_pixels: int) -> None:
    """Problem for a picture with too many pixels, by its header."""
    width, height, _ = reader.probe(path)
    if width * height <= max_pixels:
        return
    try:
        reader.probe(path, max_pixels=max_pixels)
    except GancolorError as error:
        raise Problem(413, problems.without_folder(str(error), path.parent)) from error
