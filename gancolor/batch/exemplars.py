"""The pictures that a batch takes colours from: given, named like a photograph, or the first of its
series.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gancolor.batch import partners
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item
from gancolor.coloring import references, views
from gancolor.coloring.references import Exemplar, Features
from gancolor.coloring.views import View
from gancolor.data.doctor.examination import SIDE, has_colors
from gancolor.errors import ConfigError, DataError, GancolorError, shown
from gancolor.images import formats, reader

MOST = 32
"""References of all photographs at most."""

LEADERS = 8
"""So many pictures of a series at most are tried until one can be coloured."""

_KEPT = 2 * MOST  # pictures that are remembered with what the network sees of them

Paint = Callable[[Item, bool], NDArray[Any]]
"""Colours a picture as the batch does, with the files that go with it or without; returns its
pixels.
"""


def check(settings: BatchSettings) -> None:
    """Raise ConfigError or DataError unless every reference that is given can be used."""
    if len(settings.reference) > MOST:
        raise ConfigError(
            f"--reference must be given at most {MOST} times, got {len(settings.reference)}; choose"
            " those that show most"
        )
    if settings.show_matches and not settings.refers:
        raise ConfigError(
            "--show-matches must be used with --reference or --consistent, got neither; leave it out"
        )
    for given in settings.reference:
        partners.check(given, "--reference", formats.SUFFIXES)
        if not given.is_dir():
            _read(given, settings)


def _read(path: Path, settings: BatchSettings) -> NDArray[Any] | None:
    """A reference's pixels; None of a gray or toned one that is to be coloured first. DataError for
    a gray one else, and for one that cannot be read.
    """
    try:
        pixels = reader.read(path, max_pixels=settings.max_pixels).pixels
    except DataError as error:
        raise DataError(f"--reference must be a picture that can be read: {error}") from error
    if settings.consistent:
        return pixels if has_colors(views.shrink(pixels, SIDE, SIDE)) else None
    try:
        references.check_colors(pixels, shown(path))
    except DataError as error:
        fix = "choose another --reference, or add --consistent to have it coloured first"
        raise DataError(f"{error}; {fix}") from error
    return pixels


def files(item: Item, settings: BatchSettings) -> list[Path]:
    """The references that were given for a photograph. DataError where a folder holds several."""
    found = [
        partners.find(given, item, "--reference", formats.SUFFIXES) for given in settings.reference
    ]
    return [path for path in found if path is not None]


class Library:
    """The references of a batch, each looked at once in a process.

    look: what the network sees of a view (`Colorizer.describe_view`).
    """

    def __init__(self, settings: BatchSettings, look: Callable[[View], Features]) -> None:
        self.settings, self.look = settings, look
        self._kept: OrderedDict[Path, Exemplar | GancolorError] = OrderedDict()

    def pixels(self, item: Item) -> int:
        """How many pixels must be read, at most at once, before a photograph is coloured."""
        paths = [*files(item, self.settings), *(each.source for each in item.series)]
        sizes = [0]
        for path in paths:
            with suppress(DataError):  # it is told when it is read
                if path not in self._kept and path != item.source:
                    width, height, _ = reader.probe(path)
                    sizes.append(width * height)
        return max(sizes)

    def find(self, item: Item, paint: Paint) -> tuple[list[Exemplar], list[str]]:
        """The references of a photograph, and notes. DataError for one that cannot be used."""
        notes = []
        paths = files(item, self.settings)
        if self.settings.reference and not paths:
            folders = ", ".join(shown(given) for given in self.settings.reference)
            notes.append(f"{folders} has no file for it: coloured without --reference")
        found = []
        for path in paths:
            own = Item(path, path)
            exemplar = self._remember(path, lambda own=own: self._open(own, paint))  # type: ignore[misc]
            if isinstance(exemplar, GancolorError):
                raise exemplar
            found.append(exemplar)
        if not self.settings.reference:
            found += self._leader(item, paint)
        return found, notes

    def _open(self, item: Item, paint: Paint) -> NDArray[Any]:
        pixels = _read(item.source, self.settings)
        return paint(item, False) if pixels is None else pixels

    def _leader(self, item: Item, paint: Paint) -> Sequence[Exemplar]:
        """The first picture of a photograph's series that can be coloured; none for that itself."""
        for first in item.series:
            if first.source == item.source:
                return []
            exemplar = self._remember(first.source, lambda first=first: paint(first, True))  # type: ignore[misc]
            if isinstance(exemplar, Exemplar):
                return [exemplar]
        return []

    def _remember(self, path: Path, pixels: Callable[[], NDArray[Any]]) -> Exemplar | GancolorError:
        if path not in self._kept:
            try:
                self._kept[path] = references.describe(pixels(), path.name, self.look)
            except GancolorError as error:
                self._kept[path] = error
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]
