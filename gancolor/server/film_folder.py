"""The folder of films that its server lets a page choose from; nothing outside it is ever opened."""

from __future__ import annotations

import os
from pathlib import Path

from gancolor.errors import ConfigError, DataError, shown
from gancolor.images.formats import suffix_of
from gancolor.video import opening

_MOST = 1000  # films that are listed
_MOST_LOOKED_AT = 100_000  # files


class FilmFolder:
    """The films below `root`. ConfigError unless it is a folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"--films must be a folder, got {shown(root)}; choose another")
        self._root = root

    def names(self) -> list[str]:
        """The films in the folder and in those below it, by their paths from there with /, sorted.

        Files are known by their suffixes. Hidden ones, links, and what lies behind links are left
        out.
        """
        found: list[str] = []
        looked_at = 0
        for folder, below, files in os.walk(self._root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            looked_at += len(files)
            here = Path(folder)
            for name in sorted(files):
                if (
                    suffix_of(name) in opening.SUFFIXES
                    and not name.startswith(".")
                    and name.isprintable()
                    and not (here / name).is_symlink()
                ):
                    found.append((here / name).relative_to(self._root).as_posix())
            if len(found) >= _MOST or looked_at >= _MOST_LOOKED_AT:
                break
        return sorted(found[:_MOST])

    def find(self, name: str) -> Path:
        """The film of a name that `names` lists. DataError for any other name."""
        if name not in self.names():
            raise DataError(
                f"a film must be one that the server's folder holds, got {shown(name, 80)!r}"
            )
        return self._root / name
