"""The named picture sets: what each is, where its pictures come from, and the folder they are expected in.

Each set is a `*.toml` file beside this module.
"""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gancolor.errors import DataError

STILL_LIFE = "still-life"
ROOT_VARIABLE = "GANCOLOR_DATASETS"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named set. `folder` is relative to the datasets root; empty for the set that is generated."""

    name: str
    title: str
    what: str
    source: str
    licence: str
    folder: str = ""

    @property
    def generated(self) -> bool:
        """Whether the pictures are painted by gancolor and no folder is needed."""
        return not self.folder


def names() -> list[str]:
    """Names of all sets, sorted."""
    return sorted(_entries())


def find(name: str) -> Entry:
    """The set of that name. DataError names the known ones."""
    entries = _entries()
    if name not in entries:
        raise DataError(f"dataset must be one of {', '.join(sorted(entries))} or the path of a folder, got {name!r}")
    return entries[name]


def default_root() -> Path:
    """Where named sets live unless told otherwise: $GANCOLOR_DATASETS, else ./datasets."""
    return Path(os.environ.get(ROOT_VARIABLE) or "datasets").expanduser()


def locate(dataset: str, root: Path | str | None = None) -> Path:
    """Folder of a set (by name) or of pictures (by path).

    A catalog name comes first (write ./food for a folder of that name here), then a path, then any folder of that name
    under `root`. `root`: the datasets root, None for `default_root()`. DataError says how to get the pictures.
    """
    base = default_root() if root is None else Path(root).expanduser()
    if dataset in _entries():
        return _locate_named(find(dataset), base)
    for folder in (Path(dataset).expanduser(), base / dataset):
        if dataset and folder.is_dir():
            return folder
        if folder.is_file():
            raise DataError(f"dataset must be a folder of pictures, got the file {folder}; name its folder")
    known = ", ".join(names())
    raise DataError(
        f"dataset must be a known name ({known}), a folder under {base}, or the path of a folder, got {dataset!r}; "
        "check the spelling or the working directory"
    )


def _locate_named(entry: Entry, base: Path) -> Path:
    if entry.generated:
        raise DataError(f"the dataset {entry.name} has no folder, its pictures are generated; use it by its name")
    folder = base / entry.folder
    if folder.is_dir():
        return folder
    raise DataError(
        f"the dataset {entry.name} must be in the folder {folder.absolute()}, which does not exist; "
        f"put the pictures there ({entry.source}), or say where your datasets are with --datasets-root DIR or "
        f"${ROOT_VARIABLE}, or train on a folder of your own with --dataset PATH (known names: {', '.join(names())})"
    )


@functools.cache
def _entries() -> dict[str, Entry]:
    found = {}
    for item in resources.files("gancolor.data").iterdir():
        if item.name.endswith(".toml"):
            entry = Entry(name=item.name.removesuffix(".toml"), **tomllib.loads(item.read_text(encoding="utf-8")))
            found[entry.name] = entry
    return found
