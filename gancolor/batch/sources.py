"""Which files to colour and where each result goes: files, folders, patterns and lists, found as they are needed."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gancolor.errors import ConfigError, shown
from gancolor.photographs import reading, writing
from gancolor.training import distributed
from gancolor.video.encoding import film_suffix

FILM_SUFFIXES = frozenset(f".{name}" for name in "mp4 m4v mov mkv avi webm mpg mpeg ts wmv flv ogv 3gp".split())
"""Suffixes of the files that count as films, in lower case."""

STANDARD_INPUT = "-"
"""The input that stands for a list of paths on standard input."""

_BLOCK = 1 << 16  # bytes of a list that are read at once


@dataclass(frozen=True)
class Item:
    """A file to colour and where its result goes.

    `film`: a film by its suffix, else a picture. `problem`: why it cannot be done, in one line, known already here.
    """

    source: Path
    target: Path
    film: bool = False
    problem: str | None = None


def expand(
    inputs: Sequence[str], out: Path, *, format: str | None = None, listing: BinaryIO | None = None
) -> Iterator[Item]:
    """Find the files that `inputs` name, lazily; each comes with its target below the folder `out`.

    A file goes to `out` under its own name, whatever its suffix. Of a folder every picture and film is taken, sorted,
    its tree mirrored in `out`, or in a folder of its name where several folders are given; hidden files and `out`
    itself are left out, links are followed, each real folder once. A pattern (`*`, `?`, `[...]`, `**`) that is no
    file's name stands for the files that match, mirrored from where it begins to vary. `-` stands for the paths on
    standard input (or `listing`), a line each or separated by NUL; they keep their folders below `out`.
    format: of the pictures, a key of `photographs.writing.FORMATS`; None keeps each file's own.

    ConfigError at once if `out` is a file or an input folder. What is missing, unreadable or empty comes as an Item
    with a problem. Under torchrun the leader's standard input is everyone's.
    """
    plan = _Plan(inputs, out, format)
    names: Iterable[str] | None = None
    if STANDARD_INPUT in inputs:
        names = _names(sys.stdin.buffer if listing is None else listing)
        if distributed.share().world > 1:  # every process would get other lines of the same pipe
            names = distributed.from_leader(list(names) if distributed.current().leads else [])
    return plan.items(inputs, names)


def count(inputs: Sequence[str], out: Path) -> int | None:
    """How many files `expand` finds, by walking the folders once; None with a list on standard input."""
    if STANDARD_INPUT in inputs:
        return None
    return sum(1 for _ in expand(inputs, out))


class _Plan:
    """What is known of all inputs when each one is looked at."""

    def __init__(self, inputs: Sequence[str], out: Path, format: str | None) -> None:
        if os.path.lexists(out) and not os.path.isdir(out):
            raise ConfigError(f"--out must be a folder, got the file {shown(out)}; choose another name")
        self.out, self.format = out, format
        self.real_out = os.path.realpath(out)
        folders = [name for name in inputs if os.path.isdir(name)]
        self.several = len(folders) > 1
        self.real_folders = {os.path.realpath(name) for name in folders}
        self.real_files = {os.path.realpath(name) for name in inputs if os.path.isfile(name)}
        if self.real_out in self.real_folders:
            raise ConfigError(
                f"--out must not be the input folder, got {shown(out)}; choose another, for example --out colored"
            )
        self._safe: dict[str, bool] = {}

    def items(self, inputs: Sequence[str], names: Iterable[str] | None) -> Iterator[Item]:
        for name in inputs:
            if name == STANDARD_INPUT:
                for line in names or ():
                    yield from self._listed(line)
            elif os.path.isdir(name):
                path = Path(name)
                inside = self.out / Path(os.path.realpath(name)).name if self.several else self.out
                yield from self._folder(path, inside)
            elif glob.has_magic(name) and not os.path.lexists(name):
                yield from self._pattern(name)
            else:
                yield self._file(Path(name), self.out)

    def _listed(self, name: str) -> Iterator[Item]:
        path = Path(name)
        kept = [part for part in path.parts if part not in (path.anchor, os.pardir)]
        if not os.path.isdir(name):
            yield self._file(path, self.out.joinpath(*kept[:-1]))
        elif os.path.realpath(name) == self.real_out:
            yield self._trouble(path, "input must not be the folder of --out, got {}")
        else:
            yield from self._folder(path, self.out.joinpath(*kept))

    def _folder(self, root: Path, inside: Path) -> Iterator[Item]:
        """The pictures and films under a folder; one Item with a problem if there are none."""
        empty = True
        for found in _walk(root, self.real_out):
            if isinstance(found, _Unreadable):
                yield self._trouble(found.folder, f"folder must be readable, got {{}}: {found.reason}")
            elif _is_known(found):
                yield self._item(root / found, (inside / found).parent)
            else:
                continue
            empty = False
        if empty:
            yield self._trouble(root, "folder must hold pictures or films, got {} without one that gancolor reads")

    def _pattern(self, pattern: str) -> Iterator[Item]:
        base, parts = _split_pattern(pattern)
        suffix = os.path.splitext(parts[-1])[1]
        wanted: Callable[[Path], bool] = _is_known if not suffix or glob.has_magic(suffix) else lambda path: True
        matched = False
        for found in _match(base, parts, self.real_out):
            if os.path.isdir(base / found):
                yield from self._folder(base / found, self.out / found)
            elif wanted(found):
                yield self._item(base / found, (self.out / found).parent)
            else:
                continue
            matched = True
        if not matched:
            yield self._trouble(Path(pattern), "pattern must match pictures or films, got {} without a match")

    def _file(self, path: Path, inside: Path) -> Item:
        """A file that is named: taken if it is one."""
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self._trouble(path, f"input must be a file or folder, got {{}}: {reason}")
        if not stat.S_ISREG(mode):  # a pipe would be waited for
            return self._trouble(path, "input must be a file or folder, got {}, which is neither")
        return self._item(path, inside)

    def _item(self, source: Path, inside: Path) -> Item:
        stem, suffix = os.path.splitext(source.name)
        film = suffix.lower() in FILM_SUFFIXES
        if film:
            target = inside / (stem + film_suffix(source))
        else:
            target = inside / (stem + writing.target_suffix(suffix, self.format))
        if not self._is_safe(target):
            problem = f"output must not lie among the inputs, got {shown(target)} for {shown(source)}; change --out"
            return Item(source, target, film, problem)
        return Item(source, target, film)

    def _is_safe(self, target: Path) -> bool:
        """Whether a result is no input file and does not land in an input folder, where it would become one."""
        parent = str(target.parent)
        if parent not in self._safe:
            if len(self._safe) > 1000:  # a folder's files come one after another: no need to remember all folders
                self._safe.clear()
            real = os.path.realpath(parent)
            inputs = [folder for folder in self.real_folders if not _is_below(self.real_out, folder)]
            self._safe[parent] = not any(_is_below(real, folder) for folder in inputs)
        if not self._safe[parent]:
            return False
        return not self.real_files or os.path.realpath(target) not in self.real_files

    def _trouble(self, path: Path, words: str) -> Item:
        return Item(path, self.out / path.name, problem=words.format(shown(path)))


@dataclass(frozen=True)
class _Unreadable:
    folder: Path
    reason: str


def _walk(root: Path, leave_out: str = "") -> Iterator[Path | _Unreadable]:
    """Yield the files under a folder by their relative paths, sorted in each folder, without hidden ones.

    Links to folders are followed after the real folders, and each real folder is seen once: loops end, and a link
    never renames what has a place of its own. The real folder `leave_out` is not entered.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [Path()], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen or os.path.realpath(root / folder) == leave_out:
                continue
            seen.add((status.st_dev, status.st_ino))
            names = _list(root / folder)
        except OSError as error:  # also a folder that vanished since its parent was listed
            yield _Unreadable(root / folder, error.strerror or str(error))
            continue
        for name, kind in names:
            if kind == "file":
                yield folder / name
            elif kind == "link":
                links.append(folder / name)
        folders += [folder / name for name, kind in reversed(names) if kind == "folder"]


def _list(folder: Path) -> list[tuple[str, str]]:
    """Names and kinds of a folder's entries, sorted; pipes, devices and hidden names are left out."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".part"):
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


def _split_pattern(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first part that varies, and the parts from there on."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), list(parts[first:])


def _match(base: Path, parts: list[str], leave_out: str) -> Iterator[Path]:
    """Relative paths that match; folders only where the pattern has no `**`, whose own walk enters them."""
    if "**" not in parts:
        for name in sorted(glob.glob(os.path.join(*parts), root_dir=base)):
            if os.path.realpath(base / name) != leave_out:
                yield Path(name)
        return
    for found in _walk(base, leave_out):  # not glob's: that follows a loop of links for ever
        if isinstance(found, Path) and _fits(found.parts, parts):
            yield found


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[skip:], parts[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _names(listing: BinaryIO) -> Iterator[str]:
    """The paths of a list, as they come; NUL separates them if there is one before the first line's end."""
    separator, rest = b"", b""
    while block := (listing.read1(_BLOCK) if hasattr(listing, "read1") else listing.read(_BLOCK)):
        rest += block
        if not separator and (b"\0" in rest or b"\n" in rest):
            separator = b"\0" if b"\0" in rest else b"\n"
        if separator:
            *whole, rest = rest.split(separator)
            yield from _decoded(whole, separator)
    yield from _decoded([rest], separator or b"\n")


def _decoded(names: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for name in names:
        if separator == b"\n":
            name = name.removesuffix(b"\r")
        if name:
            yield os.fsdecode(name)


def _is_known(path: Path) -> bool:
    suffix = os.path.splitext(path.name)[1].lower()
    return suffix in reading.SUFFIXES or suffix in FILM_SUFFIXES


def _is_below(path: str, folder: str) -> bool:
    """Whether a real path is a real folder or lies in it."""
    return path == folder or path.startswith(os.path.join(folder, ""))
