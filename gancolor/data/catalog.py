"""The named datasets: what each is, where its pictures come from, and the folder they are expected
in.

Each dataset is a `*.toml` file beside this module; those of the datasets root, of the same form,
join them (and win).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from gancolor.errors import DataError, shown
from gancolor.runtime.files import toml_of

ROOT_VARIABLE = "GANCOLOR_DATASETS"

STATUSES = ("checked", "not verified", "by hand", "dead", "painted")
"""What is known of an address: it and its checksum agree in several public sources | its makers
published it, but no checksum is known | an account or a form is asked for | it is known to answer
no more | none is needed.
"""

_CHECKSUMS = {"sha256": 64, "sha1": 40, "md5": 32}  # hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class CatalogFile:
    """One file of a dataset: its name, its addresses (mirrors in order), and what to do with it
    once it is here.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str = ""
    sha1: str = ""
    md5: str = ""
    bytes: int = 0  # 0: not known
    unpack: bool = True  # an archive; else it is put into the dataset's folder as it is
    into: str = ""  # subfolder of the dataset's folder
    keep: tuple[str, ...] = ()  # globs over the archive's names; none: all of it

    @property
    def checksum(self) -> str | None:
        """The best checksum known, as `download.fetch` takes it; None if there is none."""
        return next(
            (f"{kind}:{value}" for kind in _CHECKSUMS if (value := getattr(self, kind))), None
        )


@dataclass(frozen=True, kw_only=True)
class OfficialSplit:
    """How the makers of a dataset split it.

    `lists`: for a split, a file inside the dataset that names its pictures (JSON, or one name a
    line), of which `form` makes paths. `globs`: for a split, a glob over the paths.
    """

    lists: Mapping[str, str]
    form: str = "{}"
    globs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """One named dataset. `folder` is relative to the datasets root; empty for the dataset that is
    generated.
    """

    name: str
    title: str
    what: str
    source: str
    licence: str
    folder: str = ""
    pictures: int = 0  # 0: not known
    bytes: int = 0  # to download, about; 0: not known
    citation: str = ""
    status: str = "not verified"
    note: str = ""  # one sentence: what is known of the address, or how to get the pictures by hand
    files: tuple[CatalogFile, ...] = ()
    split: OfficialSplit | None = None

    @property
    def generated(self) -> bool:
        """Whether the pictures are painted by gancolor and no folder is needed."""
        return not self.folder


def names(root: Path | str | None = None) -> list[str]:
    """Names of all datasets, sorted; those with a `*.toml` file in the datasets root (None:
    `default_root()`) too.
    """
    return sorted(_shipped().keys() | _added(root_folder(root)).keys())


def find(name: str, root: Path | str | None = None) -> CatalogEntry:
    """The dataset of that name. DataError names the known ones, or what is wrong in the user's own
    `*.toml` file.
    """
    added = _added(root_folder(root))
    if name in added:
        return _read(added[name])
    if name not in _shipped():
        known = ", ".join(names(root))
        raise DataError(f"name of a set must be one of {known}, got {name!r}; check the spelling")
    return _shipped()[name]


def default_root() -> Path:
    """Where named datasets live unless told otherwise: $GANCOLOR_DATASETS, else ./datasets."""
    return Path(os.environ.get(ROOT_VARIABLE) or "datasets").expanduser()


def root_folder(root: Path | str | None) -> Path:
    """The datasets root that is meant: `root`, where that is None `default_root()`."""
    return default_root() if root is None else Path(root).expanduser()


def locate(dataset: str, root: Path | str | None = None) -> Path:
    """Folder of a dataset (by name) or of pictures (by path).

    A catalog name comes first (write ./food for a folder of that name here), then a path, then any
    folder of that name under `root`. `root`: the datasets root, None for `default_root()`.
    DataError says how to get the pictures.
    """
    base = root_folder(root)
    if dataset in names(base):
        return _locate_named(find(dataset, base), base)
    for folder in (Path(dataset).expanduser(), base / dataset):
        if dataset and folder.is_dir():
            return folder
        if folder.is_file():
            raise DataError(
                f"dataset must be a folder of pictures, got the file {folder}; name its folder"
            )
    raise DataError(
        f"dataset must be a known name ({', '.join(names(base))}), a folder under {base}, or the"
        f" path of a folder, got {dataset!r}; check the spelling or the working directory"
    )


def _locate_named(entry: CatalogEntry, base: Path) -> Path:
    if entry.generated:
        raise DataError(
            f"the dataset {entry.name} has no folder, its pictures are generated; use it by its"
            " name"
        )
    folder = base / entry.folder
    if folder.is_dir():
        return folder
    known = ", ".join(names(base))
    way = f"get them with: gancolor data download {entry.name}, or " if entry.files else ""
    raise DataError(
        f"the dataset {entry.name} must be in the folder {folder.absolute()}, which does not exist;"
        f" {way}put the pictures there ({entry.source}), or say where your datasets are with"
        f" --datasets-root DIR or ${ROOT_VARIABLE}, or train on a folder of your own with --dataset"
        f" PATH (known names: {known})"
    )


def _added(base: Path) -> dict[str, Path]:
    """The user's own entries, unread: a mistake in one does not stand in the way of the others."""
    try:
        return {path.stem: path for path in base.glob("*.toml") if not path.name.startswith(".")}
    except OSError:  # the folder cannot be listed; what needs it will say so
        return {}


@functools.cache
def _shipped() -> dict[str, CatalogEntry]:
    items = resources.files("gancolor.data").iterdir()
    texts = {
        item.name[:-5]: item.read_text(encoding="utf-8")
        for item in items
        if item.name.endswith(".toml")
    }
    return {name: _entry(name, toml_of(text)) for name, text in texts.items()}


def _read(path: Path) -> CatalogEntry:
    try:
        table = toml_of(path.read_text(encoding="utf-8"))
        return _entry(path.stem, {"folder": path.stem, **table})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown(path)} must describe a dataset, got: {error}; see docs/data.md"
        ) from None


def _entry(name: str, table: dict[str, Any]) -> CatalogEntry:
    """An entry from its TOML table. ValueError or TypeError says what is wrong."""
    for item in fields(CatalogEntry):
        kind = int if item.name in ("pictures", "bytes") else str
        if item.name not in ("files", "split") and not isinstance(
            table.get(item.name, kind()), kind
        ):
            raise TypeError(f"{item.name} must be {'a number' if kind is int else 'a string'}")
    if table.get("status", "not verified") not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {table['status']!r}")
    _check_inside(table.get("folder", ""), "folder")
    unknown = table.keys() - {item.name for item in fields(CatalogEntry)}
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
    files = tuple(_file(item) for item in table.get("files", ()))
    return CatalogEntry(
        **{
            **table,
            "name": name,
            "files": files,
            "split": _split(table["split"]) if "split" in table else None,
        }
    )


def _split(table: dict[str, Any]) -> OfficialSplit:
    split = OfficialSplit(**{"lists": {}, "globs": {}, **table})
    for part in (*split.lists, *split.globs):
        if part not in ("train", "val", "test"):
            raise ValueError(f"split must be train, val or test, not {part!r}")
    for place in split.lists.values():
        _check_inside(place, "list of a split")
    return split


def _file(table: dict[str, Any]) -> CatalogFile:
    for key in ("urls", "keep"):
        if not all(isinstance(text, str) for text in [*table.get(key, [])]) or isinstance(
            table.get(key), str
        ):
            raise TypeError(f"{key} must be a list of strings")
    item = CatalogFile(
        **{**table, "urls": tuple(table.get("urls", ())), "keep": tuple(table.get("keep", ()))}
    )
    if not item.urls:
        raise ValueError(f"the file {item.name} must have urls")
    if not item.name or PurePosixPath(item.name).name != item.name or item.name.startswith("."):
        raise ValueError(f"name of a file must be a plain name, not {item.name!r}")
    _check_inside(item.into, "into")
    for kind, digits in _CHECKSUMS.items():
        value = getattr(item, kind)
        if value and not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
            raise ValueError(f"{kind} must have {digits} hexadecimal digits, not {value!r}")
    return item


def _check_inside(path: str, what: str) -> None:
    parts = PurePosixPath(path).parts
    if any(
        part == ".." or part.startswith((".", "/")) or "\\" in part or ":" in part for part in parts
    ):
        raise ValueError(f"{what} must be a relative path that is not hidden, not {path!r}")
