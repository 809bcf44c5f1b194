"""What is known of a set as a whole: its name, where it comes from, and under what terms it may be used."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.data import catalog
from gancolor.data.shards import listing
from gancolor.errors import DataError, MissingExtra, shown
from gancolor.texts import json_of

FILES = (listing.LISTING, "set.json")
"""Files that say what a set is, beside shards and beside the manifest; the first that is there counts."""

UNKNOWN = "unknown"
"""The licence of a set that nothing is known of."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a set. `folder`: where its own files are, None if it has none here; `made`: a date."""

    name: str
    title: str
    folder: Path | None
    made: str
    licence: str
    sources: tuple[str, ...]
    troubles: tuple[str, ...]  # what is wrong with its files, in sentences


def find(dataset: str, datasets_root: Path | str | None = None) -> Facts:
    """The facts of a set by its own files, else by the catalog. `dataset` as for `dataset.open_source`."""
    named = catalog.find(dataset, datasets_root) if dataset in catalog.names(datasets_root) else None
    folder = None if named and named.generated else _folder(dataset, datasets_root)
    held, troubles = _ask(dataset) if listing.is_remote(dataset) else _read(folder)
    sources = held.get("sources") or ([named.source] if named else [])
    return Facts(
        name=str(held.get("name") or (dataset if named else _call(dataset, folder))),
        title=str(held.get("title") or (named.title if named else "")),
        folder=folder,
        made=str(held.get("made") or ""),
        licence=str(held.get("licence") or (named.licence if named else UNKNOWN)),
        sources=tuple(map(str, sources)) if isinstance(sources, list) else (str(sources),),
        troubles=troubles,
    )


def _folder(dataset: str, datasets_root: Path | str | None) -> Path | None:
    try:
        return catalog.locate(dataset, datasets_root)
    except DataError:
        beside = Path(dataset).expanduser().parent  # of a pattern of shards
        return beside if (beside / listing.LISTING).is_file() else None


def _call(dataset: str, folder: Path | None) -> str:
    if folder is None and listing.is_shards(dataset) and not listing.is_remote(dataset):
        folder = Path(dataset).expanduser().parent
    return dataset if folder is None else folder.resolve().name


@functools.lru_cache(maxsize=8)
def _ask(address: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the `shards.json` of remote shards says."""
    try:
        found = listing.find(address)
    except (DataError, MissingExtra) as error:
        return {}, (str(error),)
    return {"name": found.name, "licence": found.licence}, ()


def _read(folder: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    for path in [folder / name for name in FILES] if folder else []:
        try:
            held = json_of(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return {}, (f"{shown(path)} cannot be read: {error}",)
        return (held, ()) if isinstance(held, dict) else ({}, (f"{shown(path)} holds no JSON object",))
    return {}, ()
