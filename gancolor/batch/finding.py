"""Walks folders and matches patterns, without the results among what is found."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gancolor.photographs.kinds import is_litter


@dataclass(frozen=True)
class Unreadable:
    """A folder that cannot be listed, and why."""

    folder: Path
    reason: str


def walk(root: Path, out: str) -> Iterator[Path | Unreadable]:
    """Yield the files under a folder by their relative paths, sorted in each folder, without hidden ones.

    Links to folders are followed after the real folders, and each real folder is seen once: loops end, and a link
    never renames what has a place of its own. The real folder `out` is not entered, see `_is_result`.
    """
    is_result = _is_result(root, out)
    seen: set[tuple[int, int]] = set()
    folders, links = [Path()], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen or is_result(root / folder):
                continue
            seen.add((status.st_dev, status.st_ino))
            names = _list(root / folder)
        except OSError as error:  # also a folder that vanished since its parent was listed
            yield Unreadable(root / folder, error.strerror or str(error))
            continue
        for name, kind in names:
            if kind == "file":
                yield folder / name
            elif kind == "link":
                links.append(folder / name)
        folders += [folder / name for name, kind in reversed(names) if kind == "folder"]


def _list(folder: Path) -> list[tuple[str, str]]:
    """Names and kinds of a folder's entries, sorted; pipes, devices, hidden names and litter are left out."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".part") or is_litter(entry.name):
                continue
            link = entry.is_symlink()
            opens = reads = False
            with suppress(OSError):  # of a link to itself
                opens, reads = entry.is_dir(), entry.is_file()
            if opens:
                names.append((entry.name, "link" if link else "folder"))
            elif reads or link:  # a dangling link is a broken picture
                names.append((entry.name, "file"))
    return sorted(names)


def split_pattern(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first part that varies, and the parts from there on."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), list(parts[first:])


def match(base: Path, parts: list[str], out: str) -> Iterator[Path]:
    """Relative paths that match; folders only where the pattern has no `**`, whose own walk enters them.

    What lies in the real folder `out` is left out, see `_is_result`.
    """
    if "**" not in parts:
        is_result = _is_result(base, out)
        for name in sorted(glob.glob(os.path.join(*parts), root_dir=base)):
            if not is_result(base / name) and not any(map(is_litter, Path(name).parts)):
                yield Path(name)
        return
    for found in walk(base, out):  # not glob's: that follows a loop of links for ever
        if isinstance(found, Path) and _fits(found.parts, parts):
            yield found


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[skip:], parts[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _is_result(root: Path, out: str) -> Callable[[Path], bool]:
    """Tells of what is found from `root` on whether it is in the real folder `out`: results, that is.

    Where `root` itself lies in it, what it holds are sources, and only `out` as a whole is none; where it is `out`,
    nothing is left out here, for each of its files is refused with a reason.
    """
    real = os.path.realpath(root)
    if real == out:
        return lambda path: False
    if is_below(real, out):
        return lambda path: os.path.realpath(path) == out
    return lambda path: is_below(os.path.realpath(path), out)


def is_below(path: str, folder: str) -> bool:
    """Whether a real path is a real folder or lies in it."""
    return path == folder or path.startswith(os.path.join(folder, ""))
