"""Files that go with photographs: one for a single photograph, or a folder in which each is named
like its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from gancolor.batch.input_files import Item
from gancolor.errors import ConfigError, DataError, shown


def check(given: Path, flag: str, suffixes: Collection[str]) -> None:
    """Raise ConfigError unless what an option names is a file, or a folder that holds a file of one
    of these suffixes.
    """
    if not given.exists():
        raise ConfigError(f"{flag} must name a file or a folder, got {shown(given)}: nothing there")
    if given.is_dir() and not any(
        os.path.splitext(name)[1].lower() in suffixes
        for _, _, names in os.walk(given)
        for name in names
    ):
        kinds = " ".join(sorted(suffixes))
        raise ConfigError(
            f"{flag} must name a folder with files of its kinds ({kinds}), got {shown(given)}"
            " without one"
        )


def find(given: Path, item: Item, flag: str, suffixes: Collection[str]) -> Path | None:
    """The file that goes with a photograph: `given`, or in a folder that of the photograph's name.

    In a folder it lies as the result does below --out, and is called by the photograph's name,
    whole or without its suffix: of `a/b.jpg` `a/b.jpg.png` or `a/b.png`. None if there is none.
    DataError, naming the option `flag`, if there are several.
    """
    if not given.is_dir():
        return given
    name = item.source.name
    for stem in dict.fromkeys((name, os.path.splitext(name)[0])):
        found = _spelled(given / item.folder / stem, suffixes)
        with suppress(OSError):
            found = [path for path in found if not os.path.samefile(path, item.source)]
        if len(found) > 1:
            names = ", ".join(shown(path) for path in found)
            raise DataError(
                f"{flag} must hold one file for {shown(item.source)}, got {names}; keep one of them"
            )
        if found:
            return found[0]
    return None


def _spelled(stem: Path, suffixes: Collection[str]) -> list[Path]:
    """The files that are called so with one of these suffixes, in small or capital letters."""
    found: dict[tuple[int, int], Path] = {}
    for suffix in sorted(suffixes):
        for ending in (suffix, suffix.upper()):
            path = stem.with_name(stem.name + ending)
            with suppress(OSError):
                status = path.stat()
                found.setdefault(
                    (status.st_dev, status.st_ino), path
                )  # one where case is no matter
    return list(found.values())
