"""What is known of a set as a whole: its name, where it comes from, and under what terms it may be used."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancolor.data import catalog
from gancolor.errors import DataError, shown

FILES = ("set.json", "shards.json")
"""Files that say what a set is, beside the manifest and beside shards."""

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
    """The facts of a set by its own files, else by the catalog. `dataset` as for `folder.open_source`."""
    named = catalog.find(dataset, datasets_root) if dataset in catalog.names(datasets_root) else None
    folder = None if named and named.generated else _folder(dataset, datasets_root)
    held, troubles = _read(folder)
    sources = held.get("sources") or ([named.source] if named else [])
    return Facts(
        name=str(held.get("name") or (dataset if named or folder is None else folder.resolve().name)),
        title=str(held.get("title") or (named.title if named else "")),
        folder=folder,
        made=str(held.get("made") or ""),
        licence=str(held.get("licence") or (named.licence if named else UNKNOWN)),
        sources=tuple(map(str, sources)) if isinstance(sources, list) else (str(sources),),
        troubles=troubles,
    )


def _folder(dataset: str, datasets_root: Path | str | None) -> Path | None:
    beside = Path(dataset).expanduser().parent  # of a pattern of shards
    with contextlib.suppress(DataError):
        return catalog.locate(dataset, datasets_root)
    return beside if (beside / FILES[1]).is_file() else None


def _read(folder: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    for path in [folder / name for name in FILES] if folder else []:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return {}, (f"{shown(path)} cannot be read: {error}",)
        return (held, ()) if isinstance(held, dict) else ({}, (f"{shown(path)} holds no JSON object",))
    return {}, ()
