"""Getting a dataset of the catalog: its files are downloaded, checked and unpacked, its official
split is written down as a manifest, and its folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gancolor.data import catalog, manifest
from gancolor.data.archives import BadArchive, unpack
from gancolor.data.catalog import CatalogEntry, CatalogFile, OfficialSplit
from gancolor.data.folder import find_pictures
from gancolor.data.source import position_of
from gancolor.errors import DataError, shown
from gancolor.runtime.download import fetch
from gancolor.runtime.files import Progress, StageProgress, json_of, locked

DOWNLOADS = ".downloads"  # in the datasets root: archives on their way
RECORD = ".download.json"  # in a finished dataset's folder: what it was made of
VAL = 0.1  # share of the official training pictures that validates where the split has no val


@dataclass(frozen=True)
class PlannedFile:
    """One file to download: what the catalog knows of it, and how many of its bytes are here
    already.
    """

    file: CatalogFile
    here: int
    whole: bool


@dataclass(frozen=True)
class Acquisition:
    """What `obtain` did or would do.

    `state`: planned | there (it was before) | done. `downloads`: where the archives are kept.
    `needed`: bytes of disk, about, for what is still to download and for the unpacked pictures, 0
    if that is not known; `free`: bytes of disk that are free. `pictures`: how many were found, once
    it is done; `splits`: those of each split by the manifest, empty where a hash decides.
    """

    entry: CatalogEntry
    folder: Path
    downloads: Path
    state: str
    files: tuple[PlannedFile, ...]
    needed: int
    free: int
    pictures: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)


def obtain(
    name: str,
    root: Path | str | None = None,
    *,
    dry_run: bool = False,
    keep_archives: bool = False,
    progress: StageProgress | None = None,
) -> Acquisition:
    """Download the catalog dataset `name` into its folder under `root` (None: the default datasets
    root).

    The folder appears when it is whole; until then archives stay in `root/.downloads`, from where
    an interrupted call goes on. A dataset that is there already is left as it is. A `manifest.csv`
    is written where there is an official split (its columns about each picture are left empty).
    `dry_run`: only say what would be done. DataError or DownloadError, in one line, if the dataset
    must be got by hand, its folder holds other files, the disk is too small, another process is at
    it, or a file cannot be had or is bad.
    """
    base = catalog.root_folder(root)
    entry = catalog.find(name, base)
    if not entry.files:
        raise DataError(_by_hand(entry, base))
    try:
        report = _plan(entry, base)
        if dry_run or report.state == "there":
            return report
        if report.needed > report.free:
            raise DataError(
                f"disk under {shown(base)} must have {report.needed / 1e9:.1f} GB free for {name},"
                f" got {report.free / 1e9:.1f} GB; make room, or choose another place with"
                " --datasets-root DIR"
            )
        alone = (
            f"only one process at a time must download {name}, got a second one; wait for the first"
        )
        with locked(base / DOWNLOADS / f"{name}.lock", alone):
            report = _plan(entry, base)  # another process may just have finished it
            report = (
                report
                if report.state == "there"
                else _get(report, keep_archives, progress or _silent)
            )
        with contextlib.suppress(OSError):  # it holds another dataset's archives
            (base / DOWNLOADS).rmdir()
        return report
    except OSError as error:
        raise DataError(
            f"cannot write {entry.name} to {shown(base / entry.folder)}: {error}"
        ) from error


def describe_catalog(root: Path | str | None = None) -> list[dict[str, Any]]:
    """A dict for each dataset of the catalog: the fields of `CatalogEntry`, `addresses`, `path` and
    whether it is `there`.
    """
    base = catalog.root_folder(root)
    entries = [catalog.find(name, base) for name in catalog.names(base)]
    return [
        {
            **{key: value for key, value in asdict(entry).items() if key not in ("files", "split")},
            "addresses": [url for item in entry.files for url in item.urls],
            "path": "" if entry.generated else str(base / entry.folder),
            "there": entry.generated or (base / entry.folder).is_dir(),
        }
        for entry in entries
    ]


def _by_hand(entry: CatalogEntry, base: Path) -> str:
    if entry.generated:
        return f"the dataset {entry.name} needs no download: {entry.source}; use it by its name"
    return (
        f"the dataset {entry.name} must be got by hand, into"
        f" {shown((base / entry.folder).absolute())}: {entry.note}"
    )


def _plan(entry: CatalogEntry, base: Path) -> Acquisition:
    folder = base / entry.folder
    folder = folder.resolve() if folder.is_symlink() else folder  # it may be on another disk
    there = (folder / RECORD).is_file()
    if (
        not there
        and folder.exists()
        and (other := next(iter(sorted(os.listdir(folder))), None)) is not None
    ):
        raise DataError(
            f"folder of {entry.name} must be empty or missing, got {shown(folder)} with files that"
            f" gancolor did not download ({shown(other)}); move them, or use them as they are with"
            f" --dataset {entry.name}"
        )
    downloads = base / DOWNLOADS / entry.name
    files = tuple(_look(item, downloads) for item in entry.files)
    # pictures hardly shrink in archives
    unpacked = entry.bytes or sum(item.bytes for item in entry.files)
    if all(item.bytes for item in entry.files):
        left = sum(max(item.file.bytes - item.here, 0) for item in files)
    else:
        left = max(unpacked - sum(item.here for item in files), 0)
    disk = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    state, needed = ("there", 0) if there else ("planned", left + unpacked)
    return Acquisition(entry, folder, downloads, state, files, needed, shutil.disk_usage(disk).free)


def _look(item: CatalogFile, downloads: Path) -> PlannedFile:
    for name, whole in ((item.name, True), (item.name + ".part", False)):
        with contextlib.suppress(OSError):
            return PlannedFile(item, (downloads / name).stat().st_size, whole)
    return PlannedFile(item, 0, False)


def _get(report: Acquisition, keep_archives: bool, progress: StageProgress) -> Acquisition:
    entry, folder, downloads = report.entry, report.folder, report.downloads
    for item in entry.files:
        fetch(
            item.urls,
            downloads / item.name,
            item.checksum,
            progress=_named(progress, f"downloading {item.name}"),
        )
    staged = folder.with_name(f".{folder.name}.incoming")
    shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
    try:
        whole = staged / "whole"
        for item in entry.files:
            _stage(item, downloads / item.name, staged, whole, progress)
        pictures = find_pictures(whole)
        if not pictures:
            raise BadArchive(
                f"files of {entry.name} must hold a picture, got none; see {entry.source}"
            )
        splits = _write_manifest(whole, pictures, entry.split)
        _write_record(whole, entry)
        if folder.exists():
            folder.rmdir()  # it is empty
        os.rename(whole, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if not keep_archives:
        shutil.rmtree(downloads, ignore_errors=True)
    return replace(report, state="done", pictures=len(pictures), splits=splits)


def _stage(
    item: CatalogFile, archive: Path, staged: Path, whole: Path, progress: StageProgress
) -> None:
    """Put the contents of one file where they belong under `whole`."""
    target = whole / item.into
    target.mkdir(parents=True, exist_ok=True)
    if not item.unpack:
        shutil.copyfile(archive, target / item.name)
        return
    part = staged / "part"
    try:
        unpack(archive, part, keep=item.keep, progress=_named(progress, f"unpacking {item.name}"))
    except BadArchive as error:
        if item.checksum is not None:
            raise
        # Without a checksum nothing else would ever replace it: a page of regrets instead of the
        # archive, for example.
        aside = archive.with_name(archive.name + ".unreadable")
        os.replace(archive, aside)
        raise BadArchive(f"{error}; what {item.urls[0]} sent is kept as {shown(aside)}") from None
    _merge(part, target)
    shutil.rmtree(part)


def _merge(source: Path, target: Path) -> None:
    """Move everything in one folder into another; no file may be in both."""
    for child in source.iterdir():
        other = target / child.name
        if not other.exists():
            os.rename(child, other)
        elif child.is_dir() and other.is_dir():
            _merge(child, other)
        else:
            raise BadArchive(
                f"archives of a set must not hold the same file twice, got {shown(child.name)}"
            )


def _write_manifest(
    folder: Path, pictures: list[str], split: OfficialSplit | None
) -> dict[str, int]:
    """Write down the official split, if there is one; return how many pictures each part has."""
    if split is None:
        return {}
    listed = {
        split.form.replace("{}", name): part
        for part, place in split.lists.items()
        for name in _read_list(folder / place)
    }
    parts = {path: listed.get(path) or _by_glob(path, split) for path in pictures}
    if "val" not in {*split.lists, *split.globs}:
        parts |= {
            path: "val"
            for path, part in parts.items()
            if part == "train" and position_of(path) < VAL
        }
    manifest.write(
        folder / manifest.MANIFEST,
        ([path, "", "", "", "", part, ""] for path, part in parts.items()),
    )
    return dict(Counter(part or "by hash" for part in parts.values()))


def _by_glob(path: str, split: OfficialSplit) -> str:
    return next((part for part, glob in split.globs.items() if fnmatch.fnmatchcase(path, glob)), "")


def _read_list(path: Path) -> list[str]:
    """Names in a list: of JSON, also in lists under keys; else one a line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text.split("\n")
        found = json_of(text)
        return (
            [name for group in found.values() for name in group]
            if isinstance(found, dict)
            else list(found)
        )
    except (OSError, ValueError, TypeError) as error:
        raise BadArchive(
            f"list of the official split must be readable, got {path.name}: {error}"
        ) from None


def _write_record(folder: Path, entry: CatalogEntry) -> None:
    files = [
        {"name": item.name, "url": item.urls[0], "checksum": item.checksum} for item in entry.files
    ]
    made = datetime.date.today().isoformat()
    record = {
        "gancolor download": 1,
        "name": entry.name,
        "made": made,
        "licence": entry.licence,
        "files": files,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _named(progress: StageProgress, what: str) -> Progress:
    return lambda done, total: progress(what, done, total)


def _silent(what: str, done: int, total: int | None) -> None:
    """Report nothing."""
