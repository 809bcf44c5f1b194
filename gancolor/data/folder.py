"""Pictures in folders: finding them, splitting them into train, val and test, and reading them."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gancolor import images
from gancolor.data import catalog
from gancolor.data.still_life import StillLife
from gancolor.errors import DataError

Split = Literal["train", "val", "test", "all"]

MANIFEST = "manifest.csv"
SPLITS = ("train", "val", "test")
# Where the pictures of a split come from when it has none that can be read: never val or test pictures in training.
_BORROW = {"train": ("train",), "val": ("val", "test", "train"), "test": ("test", "val", "train")}

log = logging.getLogger("gancolor")


class PictureSource(Protocol):
    """A list of pictures that are read one at a time."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """What to call the picture: for files, the path relative to the root."""

    def read(self, index: int, /) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""


class FolderSource:
    """Pictures under a folder, by their relative paths."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Path relative to the root, with forward slashes."""
        return self.paths[index]

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""
        return images.read_rgb(self.root / self.paths[index])


def find_pictures(root: Path) -> list[str]:
    """Sorted relative paths (forward slashes) of all pictures under a folder.

    Hidden files and folders are skipped. Links to folders are followed, each folder once, so that loops end and no
    picture appears twice. DataError if the folder cannot be listed.
    """
    if not root.is_dir():
        raise DataError(f"dataset must be a folder of pictures, got {root}; it does not exist or is not a folder")
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)  # real folders first: a link never renames their pictures
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise DataError(f"dataset must be a readable folder, got {root}: {error.strerror}") from None
            log.warning("folder %s left out: %s", _printable(str(folder)), error.strerror)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif os.path.splitext(entry.name)[1].lower() in images.SUFFIXES and (entry.is_file() or entry.is_symlink()):
                found.append(Path(entry.path).relative_to(root).as_posix())  # a dangling link is a broken picture
    return sorted(found)


def position_of(relative: str) -> float:
    """Where in [0, 1) a relative path falls by its SHA-256: what decides its split.

    Accented letters count the same however the file system spells them (Unicode NFC).
    """
    spelled = unicodedata.normalize("NFC", relative)
    return int.from_bytes(hashlib.sha256(spelled.encode("utf-8", "surrogateescape")).digest()[:7], "big") / 2**56


def split_of(relative: str, val: float = 0.1, test: float = 0.1) -> Literal["train", "val", "test"]:
    """Split of a relative path; it depends on nothing else, so it is stable when pictures are added.

    `val`, `test`: their shares in [0, 1].
    """
    place = position_of(relative)
    return "test" if place < test else "val" if place < test + val else "train"


def divide(paths: Sequence[str], assigned: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Paths of each split: as `assigned` (by the manifest), else by hash.

    A split that the hash leaves empty takes one picture from the largest one, train before val before test (only in
    sets of a few dozen pictures; the one exception to "stable when pictures are added").
    """
    assigned = assigned or {}
    groups: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in paths:
        groups[assigned.get(path) or split_of(path)].append(path)
    for split in SPLITS:
        others = {name: [path for path in group if path not in assigned] for name, group in groups.items()}
        donor = max(SPLITS, key=lambda name: (len(others[name]), len(groups[name])))
        if not groups[split] and others[donor] and (split == "train" or len(groups[donor]) > 1):
            moved = min(others[donor], key=position_of)
            groups[donor].remove(moved)
            groups[split].append(moved)
    return groups


def open_source(
    dataset: str, split: Split, *, datasets_root: Path | str | None = None, seed: int = 0, image_size: int = 256
) -> PictureSource:
    """Pictures of one split of a dataset: catalog name or path. Only the generated set uses `seed` and `image_size`.

    DataError if the dataset is missing, empty, or holds only broken pictures.
    """
    if dataset in catalog.names() and catalog.find(dataset).generated:
        return StillLife(seed, split, image_size)
    root = catalog.locate(dataset, datasets_root)
    return open_folder(root, split)


def open_folder(root: Path, split: Split) -> FolderSource:
    """Pictures of one split of a folder. See `open_source`."""
    paths, assigned = _apply_manifest(root, find_pictures(root))
    if not paths:
        kinds = ", ".join(sorted(images.SUFFIXES))
        raise DataError(f"dataset must hold at least one picture ({kinds}), got none in {root}; put pictures there")
    groups = {"all": paths} if split == "all" else divide(paths, assigned)
    wanted = ("all",) if split == "all" else _BORROW[split] if len(paths) > 1 else SPLITS
    if not any(groups[name] for name in wanted):
        raise DataError(f"split {split} must have a picture, got none in {root}; add pictures or mend its {MANIFEST}")
    broken: list[str] = []
    for name in wanted:
        source = FolderSource(root, groups[name])
        if len(source) and _has_good_picture(source, broken):
            if name != split:
                log.warning("%s holds too few good pictures for a %s split: it uses those of %s", root, split, name)
            return source
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    raise DataError(
        f"dataset must hold at least one picture that can be read, got only broken ones in the split {split} "
        f"of {root}: {'; '.join(broken[:3])}{more}; replace them"
    )


def _has_good_picture(source: FolderSource, broken: list[str]) -> bool:
    for index in range(len(source)):
        try:
            source.read(index)
            return True
        except DataError as error:
            broken.append(_printable(str(error)))
    return False


def _apply_manifest(root: Path, paths: list[str]) -> tuple[list[str], dict[str, str]]:
    """Pictures not rejected by the folder's manifest, and the splits that it assigns."""
    rows = _read_manifest(root / MANIFEST)
    rejected = {path for path, row in rows.items() if row.get("reject")}
    kept = [path for path in paths if path not in rejected]
    if paths and not kept:
        raise DataError(f"{root / MANIFEST} must leave at least one picture, got all {len(paths)} rejected; mend it")
    return kept, {path: row["split"] for path in kept if (row := rows.get(path)) and row.get("split")}


def _read_manifest(path: Path) -> dict[str, dict[str, str]]:
    """Rows by relative path; empty without a manifest."""
    if not path.is_file():
        return {}
    rows = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if "path" not in (table.fieldnames or ()):
                columns = ", ".join(table.fieldnames or ["none"])
                raise DataError(f"{path} must have a column named path, got the columns: {columns}; mend it")
            for row in table:
                cells = {key: (row[key] or "").strip() for key in ("path", "split", "reject") if key in row}
                if cells.get("split") and cells["split"] not in SPLITS:
                    place = f"line {table.line_num} of {path}"
                    raise DataError(f"split must be train, val or test, got {cells['split']!r}; mend {place}")
                rows[cells["path"]] = cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be a readable CSV file in UTF-8, got: {error}; mend or remove it") from None
    return rows


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
