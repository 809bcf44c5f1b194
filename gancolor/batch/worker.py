"""The work of one photograph of a batch, in the main process or in one of its own."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancolor import color
from gancolor.batch import partners
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.exemplars import Library
from gancolor.batch.input_files import Item
from gancolor.batch.records import Record
from gancolor.coloring import full_size, hint_files, mask_files, objections, references, views
from gancolor.coloring.full_size import Colored, Prediction
from gancolor.coloring.references import Exemplar
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.data.doctor.examination import SIDE, has_colors
from gancolor.errors import DataError, GancolorError, memory_ran_out, shown
from gancolor.images import arrays, formats, reader, writer
from gancolor.images.arrays import Picture
from gancolor.images.photograph import Photograph
from gancolor.images.pixels import convert
from gancolor.runtime.files import fitted

LEFT_ALONE = "left alone: it has colours of its own"
"""The note of what `skip_colored` leaves alone."""

PAINTED_OVER = (
    "it has colours of its own, others are painted over them; --skip-colored leaves it alone"
)
"""The note of what has colours of its own and is coloured all the same."""

_NO_SPACE = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)
)

# The name of a file that a process is writing, as `runtime.files.written` makes it.
_PART = re.compile(r"\.(\d+)-[0-9a-f]{8}\.part")
# Seconds without a byte after which such a file is a leftover, unless that process is there. The
# name does not say on which machine: what is not here may be writing to a shared disk there, and
# slowly.
_ABANDONED = 24 * 3600.0

_CELL = 640  # pixels of the longer side of a cell in a sheet at most
_WIDTH = 8192  # pixels of a sheet at most
# what these files' names end with
_CONFIDENCE, _HINTS, _MATCHES, _SHEET = (
    f"-{what}.png" for what in ("confidence", "hints", "matches", "sheet")
)

PARTNERS = {"--hints": hint_files.SUFFIXES, "--mask": formats.SUFFIXES}
"""The suffixes of the files that go with photographs, by the option that names them."""


def targets(item: Item, settings: BatchSettings) -> list[Path]:
    """The files that an item becomes: name.ext, name-2.ext, ... for its variants,
    name-confidence.png, name-hints.png, name-matches.png, name-sheet.png.

    What would be too long for a file's name is cut before the ending.
    """
    if item.film:
        return [item.target]
    stem, suffix = os.path.splitext(item.target.name)
    endings = [
        suffix,
        *(f"-{number}{suffix}" for number in range(2, settings.coloring.variants + 1)),
    ]
    endings += [_CONFIDENCE] * settings.coloring.confidence
    endings += [_HINTS] * settings.coloring.show_hints + [_MATCHES] * settings.show_matches
    endings += [_SHEET] * settings.sheet
    return [item.target.with_name(fitted(stem, ending)) for ending in endings]


def partners_of(item: Item, settings: BatchSettings) -> dict[str, Path | None]:
    """The files that go with a photograph, by the options that were given; None where a folder holds
    none for it. DataError where it holds several.
    """
    return {
        flag: partners.find(given, item, flag, PARTNERS[flag])
        for flag, given in settings.partners.items()
    }


def color_file(
    item: Item,
    settings: BatchSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
    permit: Callable[[int], None] = lambda pixels: None,
    tell_busy: Callable[[], None] = lambda: None,
    library: Library | None = None,
) -> Record:
    """Read, colour and write one picture; whatever is wrong with it becomes a failed Record.

    predict: asks the network. permit: called with the number of pixels before they are read; it may
    wait for memory. tell_busy: called between two results. library: the pictures that colours are
    taken from. Results appear whole or not at all; on an error those of this item are taken back,
    but where they replaced older ones. Where results that exist are skipped, only the others are
    written.
    """
    if settings.mirror is None or not settings.mirror.is_far(item):
        return _color(item, item, settings, sight, predict, permit, tell_busy, library)
    start = time.monotonic()
    try:
        with settings.mirror.brought(item, tell_busy) as near:
            record = _color(near, item, settings, sight, predict, permit, tell_busy, library)
            settings.mirror.send(item, near, record, settings.existing, tell_busy)
    except Exception as error:  # of the transfer
        record = Record(str(item.source))
        _fail(record, error, item.source)
    record.seconds = time.monotonic() - start
    return record


def _color(
    item: Item,
    named: Item,
    settings: BatchSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
    permit: Callable[[int], None],
    tell_busy: Callable[[], None],
    library: Library | None,
) -> Record:
    """`color_file` of a picture that lies here; `named`: what the batch calls it."""
    start = time.monotonic()
    record = Record(str(item.source))
    try:
        paths = targets(item, settings)
        for target in paths:
            with suppress(FileNotFoundError):
                if os.path.samefile(item.source, target):
                    raise DataError(
                        f"output must not be the input itself, got {shown(target)}; choose another"
                        " --out"
                    )
        found = partners_of(item, settings)
        pixels = sum(map(_pixels, [item.source, *filter(None, found.values())]))
        permit(pixels + (0 if library is None else library.pixels(named)))
        exemplars: list[Exemplar] = []
        about: list[str] = []
        if library is not None:
            paint = functools.partial(_paint, settings=settings, sight=sight, predict=predict)
            exemplars, about = library.find(named, paint)
            tell_busy()
        photograph = reader.read(item.source, max_pixels=settings.max_pixels)
        record.height, record.width = photograph.size
        in_color = has_colors(views.shrink(photograph.pixels, SIDE, SIDE))
        if in_color and settings.skip_colored:
            record.status, record.notes = "left", [*photograph.notes, LEFT_ALONE]
        else:
            coloring, notes = _informed(settings, found, photograph, sight)
            notes += about
            matches = None
            if library is not None:
                coloring, matches = _matched(coloring, photograph, exemplars, library, notes)
            colored = full_size.color(photograph, coloring, sight, predict)
            record.size = colored.size
            kept = coloring.keep_color or coloring.mask is not None
            covers = [PAINTED_OVER] * (in_color and not kept)
            record.notes = [*photograph.notes, *covers, *notes, *colored.notes]
            _write(paths, colored, photograph, settings, tell_busy, record, matches)
    except Exception as error:  # also a fault of ours: the other files must not suffer for it
        _fail(record, error, item.source)
    record.seconds = time.monotonic() - start
    return record


def _fail(record: Record, error: Exception, source: Path) -> None:
    record.status, record.targets = "failed", []
    record.error, record.full = explain(error, source), is_full(error)
    record.starved = memory_ran_out(error)
    record.fault = not isinstance(error, GancolorError)


def _pixels(path: Path) -> int:
    """How many a picture has; 0 of what is none."""
    if path.suffix.lower() in (".csv", ".json"):
        return 0
    width, height, _ = reader.probe(path)
    return width * height


def check_partners(item: Item, settings: BatchSettings) -> dict[str, Path | None]:
    """What `partners_of` finds. DataError or ConfigError where it cannot be for this photograph, as
    far as can be told without decoding pixels.
    """
    found = partners_of(item, settings)
    width, height, _ = reader.probe(item.source)
    for flag, check in (("--hints", hint_files.check), ("--mask", mask_files.check)):
        if (path := found.get(flag)) is not None:
            check(path, height, width)
    return found


def _informed(
    settings: BatchSettings,
    found: dict[str, Path | None],
    photograph: Photograph,
    sight: Sight,
) -> tuple[PhotographSettings, list[str]]:
    """The settings for a photograph with what the files that go with it say, and notes."""
    coloring = settings.coloring
    notes = [
        f"{shown(settings.partners[flag])} has no file for it: coloured without {flag}"
        for flag, path in found.items()
        if path is None
    ]
    height, width = photograph.size
    seen = views.fit(height, width, coloring.size or full_size.auto_size(sight))
    if (path := found.get("--hints")) is not None:
        file = hint_files.read(path, photograph.pixels, seen=seen, max_pixels=settings.max_pixels)
        coloring = dataclasses.replace(coloring, hints=file.hints)
        notes += file.notes
    mask = None
    if (path := found.get("--mask")) is not None:
        mask = mask_files.read(path, height, width, max_pixels=settings.max_pixels)
        coloring = dataclasses.replace(coloring, mask=mask)
    if coloring.hints:
        notes += objections.find(coloring.hints, photograph.pixels, seen, mask)
    return coloring, notes


def _matched(
    coloring: PhotographSettings,
    photograph: Photograph,
    exemplars: Sequence[Exemplar],
    library: Library,
    notes: list[str],
) -> tuple[PhotographSettings, Picture | None]:
    """The settings for a photograph with its references' colours, and these drawn if that is wanted;
    adds to the notes.
    """
    if not exemplars and not library.settings.show_matches:
        return coloring, None
    own = references.describe(photograph.pixels, "photograph", library.look)
    matches = references.match(own, exemplars, coloring.hints)
    if exemplars and not matches:
        notes.append("nothing of it was found in its reference: coloured without")
    known = (*coloring.hints, *(match.hint for match in matches))
    drawn = references.show(own, exemplars, matches) if library.settings.show_matches else None
    return dataclasses.replace(coloring, hints=known), drawn


def _paint(
    item: Item,
    with_partners: bool,
    *,
    settings: BatchSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
) -> NDArray[Any]:
    """The pixels of what a picture that others take colours from becomes in this batch."""
    if settings.mirror is not None and item.origin is not None:
        with settings.mirror.brought(item, lambda: None) as near:
            own = dataclasses.replace(near, origin=None)
            return _paint(own, with_partners, settings=settings, sight=sight, predict=predict)
    photograph = reader.read(item.source, max_pixels=settings.max_pixels)
    if settings.skip_colored and has_colors(views.shrink(photograph.pixels, SIDE, SIDE)):
        return photograph.pixels
    found = partners_of(item, settings) if with_partners else {}
    coloring, _ = _informed(settings, found, photograph, sight)
    plain = dataclasses.replace(coloring, variants=1, confidence=False, show_hints=False)
    return full_size.color(photograph, plain, sight, predict).pictures[0]


def explain(error: Exception, source: Path) -> str:
    """What went wrong with a file, in one line that names it."""
    if isinstance(error, GancolorError):
        words = str(error)
    elif isinstance(error, MemoryError):
        words = (
            "memory must hold the picture, it ran out; close other programs or use fewer --workers"
        )
    elif isinstance(error, OSError):
        words = error.strerror or str(error)
    else:
        words = f"{type(error).__name__}: {error}"
    words = " ".join(words.split())
    return words if shown(source) in words else f"{shown(source)}: {words}"


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def keep_dates(source: Path, result: Path) -> None:
    """Give a result the times of its source: of the last access and the last change. OSError if
    that is refused.
    """
    status = os.stat(source)
    os.utime(result, ns=(status.st_atime_ns, status.st_mtime_ns))


def sweep(folder: Path, process: int | None = None) -> None:
    """Remove what a killed process left half written: `process`'s, or what was abandoned by any
    that is gone.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := _PART.fullmatch(entry.name)) is None:
                continue
            owner = int(match[1])
            with suppress(OSError):
                if owner == process or (
                    process is None and _is_abandoned(owner, entry.stat().st_mtime)
                ):
                    os.unlink(entry.path)


def _is_abandoned(process: int, written: float) -> bool:
    if time.time() - written < _ABANDONED or os.name != "posix":
        return False
    try:
        os.kill(process, 0)  # asks whether it is there
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _cell(picture: NDArray[Any], cells: int) -> Picture:
    """A picture (H, W, 3) of any depth as one of so many cells beside each other: uint8 RGB, small."""
    side = min(_CELL, max(1, _WIDTH // cells))
    scale = min(1.0, side / max(picture.shape[:2]))
    height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
    return arrays.resize(convert(picture, np.uint8), (height, width))


def _sheet(cells: list[Picture]) -> Picture:
    """The gray of the first cell, then all cells, in a row with their numbers above."""
    lightness, _ = color.split(color.to_tensor(cells[0]))
    gray = (color.gray(lightness)[0, 0] * 255).round().byte().numpy()
    return arrays.sheet(
        [[gray, *cells]], ["gray", *(str(number) for number in range(1, len(cells) + 1))]
    )


def _write(
    paths: list[Path],
    colored: Colored,
    photograph: Photograph,
    settings: BatchSettings,
    tell_busy: Callable[[], None],
    record: Record,
    matches: Picture | None,
) -> None:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    older = {path for path in paths if os.path.lexists(path)}
    wanted = [path for path in paths if settings.existing != "skip" or not path.is_file()]
    pictures = paths[: len(colored.pictures)]
    cells: list[Picture] | None = [] if settings.sheet and paths[-1] in wanted else None
    painted = pictures if cells is not None else [path for path in pictures if path in wanted]
    write = functools.partial(
        writer.write,
        format=settings.format,
        quality=settings.quality,
        provenance=settings.provenance,
    )
    bare = functools.partial(write, photograph=Photograph(pixels=np.empty((0, 0))), format="png")
    beside = [
        None if colored.confidence is None else _as_rgb(colored.confidence),
        colored.told,
        matches,
    ]
    shown_beside = dict(
        zip(paths[len(pictures) :], [each for each in beside if each is not None], strict=False)
    )
    done: list[Path] = []
    try:
        for path in dict.fromkeys([*painted, *wanted]):
            tell_busy()
            notes: list[str] = []
            if path in painted:
                picture = _painted(colored, photograph, pictures.index(path), path == painted[-1])
                if cells is not None:
                    cells.append(_cell(picture, len(pictures) + 1))
                if path in wanted:
                    notes = write(path, picture, photograph)
                del picture  # before the next one is painted
            elif cells is not None and path == paths[-1]:
                notes = bare(path, _sheet(cells))
            else:
                notes = bare(path, shown_beside[path])
            if path not in wanted:
                continue
            record.notes += (note for note in notes if note not in record.notes)
            done.append(path)
            if settings.keep_dates:
                keep_dates(Path(record.source), path)
    except BaseException:
        for path in done:
            if path not in older:  # what replaced a file is whole, and all that is left of it
                path.unlink(missing_ok=True)
        raise
    record.targets = [str(path) for path in done]


def _painted(colored: Colored, photograph: Photograph, number: int, last: bool) -> NDArray[Any]:
    """A variant; after the last one a large picture's memory is better used for encoding."""
    picture = colored.pictures[number]
    if last:
        colored.pictures.close()
        photograph.pixels = np.empty((0, 0), picture.dtype)  # an empty slice would keep all of it
    return picture


def _as_rgb(gray: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))
