"""Which pictures lie in and below a folder; folders that did not change since they were listed are not read again."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from gancolor.errors import DataError, shown
from gancolor.photographs import kinds
from gancolor.photographs.kinds import is_litter

SETTLED = 2 * 10**9  # nanoseconds: two changes may fall on one tick of a file system's clock, up to 2 s apart

log = logging.getLogger("gancolor")


class Listed(NamedTuple):
    """A folder as it was when it was listed: its stamp, and its folders and links to follow, by name.

    `stamp` is None for a folder that had changed only just before: it must be listed again.
    """

    stamp: list[int] | None
    folders: list[str]
    links: list[str]


@dataclass(frozen=True, slots=True)
class Scan:
    """All `folders` by relative path, and the names of the pictures in those that were read, relative to the root."""

    folders: dict[str, Listed]
    fresh: dict[str, list[str]]


def scan(root: Path, known: Mapping[str, Listed]) -> Scan:
    """List a folder and all below it, but for those that are still as they were in `known`.

    Hidden files and folders are skipped. Links to folders are followed, each folder once, so that loops end and no
    picture appears twice. DataError if the folder cannot be listed.
    """
    if not root.is_dir():
        raise DataError(
            f"dataset must be a folder of pictures, got {shown(root)}; it does not exist or is not a folder"
        )
    found = Scan({}, {})
    seen: set[tuple[int, int]] = set()
    folders, links = [""], deque[str]()
    while folders or links:
        linked = not folders  # real folders first: a link never renames their pictures
        path = links.popleft() if linked else folders.pop()
        place, prefix = os.path.join(root, path), path and f"{path}/"
        if linked and not os.path.isdir(place):  # a link to nothing or to some file; it may change
            continue
        try:
            began, status = time.time_ns(), os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            stamp = stamp_of(status, began)
            if path not in known or known[path].stamp != stamp or stamp is None:
                found.folders[path], found.fresh[path] = _list(place, prefix, stamp)
            else:
                found.folders[path] = known[path]
        except OSError as error:
            if not path:
                raise DataError(f"dataset must be a readable folder, got {shown(root)}: {error.strerror}") from None
            log.warning("folder %s left out: %s", shown(place), error.strerror)
            continue
        folders += [prefix + name for name in found.folders[path].folders]
        links += [prefix + name for name in found.folders[path].links]
    return found


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "missing", "other"]:
    """What an entry of a folder is, or what it leads to.

    "missing": a link to nothing, to itself, or to where nobody may look. "other": a pipe, a device, a socket.
    """
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:
        return "missing"
    return "other"


def stamp_of(status: os.stat_result, now: int) -> list[int] | None:
    """What changes whenever a folder or file does; None if it had changed only just before `now`, nanoseconds.

    The time of the last change of its data can be set back, as tar and rsync do; that of its record cannot.
    """
    if now - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:
        return None
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size]


def _list(place: str, prefix: str, stamp: list[int] | None) -> tuple[Listed, list[str]]:
    listed, found = Listed(stamp, [], []), []
    with os.scandir(place) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or is_litter(name):
                continue
            kind = kind_of(entry)
            if kind == "folder":
                (listed.links if entry.is_symlink() else listed.folders).append(name)
            elif name[name.rfind(".") :].lower() not in kinds.SUFFIXES:
                if entry.is_symlink():
                    listed.links.append(name)
            elif kind != "other":  # a missing one is a broken picture
                found.append(prefix + name)
    listed.folders.sort()
    listed.links.sort()
    return listed, found
