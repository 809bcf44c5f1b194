"""The files of a batch: which are coloured and where each result goes, found as they are needed.

They are named one by one, by a folder, by a pattern, or in a list on standard input; the results of
an earlier batch among them are left out.
"""

from __future__ import annotations

import codecs
import fnmatch
import functools
import glob
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gancolor.errors import ConfigError, shown
from gancolor.images import formats, writer
from gancolor.images.formats import is_litter
from gancolor.runtime import handout
from gancolor.runtime.files import read_head, stat_regular
from gancolor.runtime.remote_files import is_address
from gancolor.video.encoding import film_name
from gancolor.video.opening import is_film

STANDARD_INPUT = "-"
"""The input that stands for a list of paths on standard input."""
LONGEST = 1 << 15
"""Characters of a name in a list: more than any system takes, so what is longer is no list."""
_BLOCK = 1 << 16  # bytes that are read at once
_MARKS = {  # the longer ones first: one begins with another
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

# of what may lie beside a file
_SPELLINGS = sorted(formats.SUFFIXES | {suffix.upper() for suffix in formats.SUFFIXES})


@dataclass(frozen=True)
class Item:
    """A file to colour and where its result goes.

    `film`: as `is_film` says, else a picture. `problem`: why it cannot be done, in one
    line, known already here. `folder`: of the target, below --out. `series`: the first pictures of
    its folder, in order, itself too if it is one of them; where they share colours. `origin`: the
    address that the source is fetched from, None where it lies here.
    """

    source: Path
    target: Path
    film: bool = False
    problem: str | None = None
    folder: Path = Path()
    series: tuple[Item, ...] = ()
    origin: str | None = None


def expand(
    inputs: Sequence[str],
    out: Path,
    *,
    format: str | None = None,
    listed: BinaryIO | None = None,
    null: bool = False,
    folders: bool = False,
    exclude: Sequence[str] = (),
    passed: Counter[str] | None = None,
    several: bool = False,
    from_address: Callable[[str], Item] | None = None,
) -> Iterator[Item]:
    """Find the files that `inputs` name, lazily; each comes with its target below the folder `out`.

    A file goes to `out` under its own name, whatever its suffix. Of a folder every picture and film
    is taken, sorted, its tree mirrored in `out`, or in a folder of its name where several folders
    are given; hidden files and `out` itself are left out, links are followed, each real folder
    once. A pattern (`*`, `?`, `[...]`, `**`) that is no file's name stands for the files that
    match, mirrored from where it begins to vary. `-` stands for the paths on standard input (or
    `listed`), a line each or with `null` separated by NUL; they keep their folders below `out`.
    format: of the pictures, a key of `images.writer.FORMATS`; None keeps each file's own.
    folders: take folders in a list as what is in them; without it each is a problem, so that no
    slip in a list asks for a whole disk. exclude: patterns of names that are left out of folders
    and patterns (`formats.is_excluded`). passed: counts, by suffix, the files there that are neither
    pictures nor films. several: put what is in a folder into a folder of its name in any case.
    from_address: makes Items of addresses in a list, which are a problem without it.

    Where a result takes another suffix and a file beside its source becomes one of that name, it is
    called by all of the source's name: of `a.gif` and `a.png` come `a.gif.png` and `a.png`.
    ConfigError at once if `out` is a file or an input folder. What is missing, unreadable or empty
    comes as an Item with a problem. Under torchrun the leader's standard input is everyone's.
    """
    plan = _Plan(
        inputs, out, format, folders, tuple(exclude), Counter() if passed is None else passed
    )
    plan.several, plan.from_address = plan.several or several, from_address
    names: Iterable[str | Unusable] | None = None
    if STANDARD_INPUT in inputs:
        names = listed_names(sys.stdin.buffer if listed is None else listed, null)
        # Every process would get other lines of the same pipe.
        names = handout.leaders_list(names)
    return plan.items(inputs, names)


def count(inputs: Sequence[str], out: Path, exclude: Sequence[str] = ()) -> int | None:
    """How many files `expand` finds, by walking the folders once; None with a list on standard
    input.
    """
    if STANDARD_INPUT in inputs:
        return None
    return sum(1 for _ in expand(inputs, out, exclude=exclude))


class _Plan:
    """What is known of all inputs when each one is looked at."""

    def __init__(
        self,
        inputs: Sequence[str],
        out: Path,
        format: str | None,
        takes_folders: bool,
        exclude: tuple[str, ...],
        passed: Counter[str],
    ) -> None:
        if os.path.lexists(out) and not os.path.isdir(out):
            raise ConfigError(
                f"--out must be a folder, got the file {shown(out)}; choose another name"
            )
        self.out, self.format, self.takes_folders = out, format, takes_folders
        self.exclude, self.passed = exclude, passed
        self.real_out = os.path.realpath(out)
        folders = [name for name in inputs if os.path.isdir(name)]
        self.several = len(folders) > 1
        self.from_address: Callable[[str], Item] | None = None
        self.real_folders = {os.path.realpath(name) for name in folders}
        patterns = [name for name in inputs if _is_pattern(name)]
        self.bases = self.real_folders | {
            os.path.realpath(split_pattern(name)[0]) for name in patterns
        }
        self.file_folders = {
            folder for name in inputs if os.path.isfile(name) for folder in _folders_of(Path(name))
        }
        if self.real_out in self.real_folders:
            raise ConfigError(
                f"--out must not be the input folder, got {shown(out)}; choose another, for example"
                " --out colored"
            )
        self.working_folder = os.path.realpath(os.curdir)
        # A folder's files come one after another: there is no need to remember all folders.
        self._is_safe_folder = functools.lru_cache(1000)(self._is_no_source_folder)

    def items(
        self, inputs: Sequence[str], names: Iterable[str | Unusable] | None
    ) -> Iterator[Item]:
        for name in inputs:
            if name == STANDARD_INPUT:
                yield from self._list(names or ())
            elif os.path.isdir(name):
                path = Path(name)
                inside = self.out / Path(os.path.realpath(name)).name if self.several else self.out
                yield from self._folder(path, inside)
            elif _is_pattern(name):
                yield from self._pattern(name)
            else:
                yield self._file(Path(name), self.out)

    def _list(self, names: Iterable[str | Unusable]) -> Iterator[Item]:
        """What a list names, without the results of an earlier run that it holds."""
        inside = is_below(self.working_folder, self.real_out)  # then sources are there too
        left_out = named = False
        for name in names:
            if isinstance(name, Unusable):
                named = True
                yield Item(Path(STANDARD_INPUT), self.out / STANDARD_INPUT, problem=name.reason)
            elif not inside and self._is_result(name):
                left_out = True
            else:
                named = True
                yield from self._listed(name)
        if left_out and not named:
            yield self._trouble(
                self.out, "list must name files outside --out, got only what lies in {}"
            )

    def _is_result(self, name: str) -> bool:
        real = os.path.realpath(name.replace("\0", ""))  # no file's name has one
        return real != self.real_out and is_below(real, self.real_out)

    def _listed(self, name: str) -> Iterator[Item]:
        path = Path(name)
        if is_address(name) and not os.path.lexists(name):
            words = "list must name files, got the address {}; use --list-addresses to fetch it"
            yield self._trouble(path, words) if not self.from_address else self.from_address(name)
            return
        kept = [part for part in path.parts if part not in (path.anchor, os.pardir)]
        if not os.path.isdir(name):
            yield self._file(path, self.out.joinpath(*kept[:-1]), listed=True)
        elif os.path.realpath(name) == self.real_out:
            yield self._trouble(path, "input must not be the folder of --out, got {}")
        elif not self.takes_folders:
            yield self._trouble(
                path,
                "list must name files, got the folder {}; use --list-folders to take all in it",
            )
        else:
            yield from self._folder(path, self.out.joinpath(*kept), self._list_bases(path))

    def _list_bases(self, path: Path) -> tuple[str, ...]:
        """The real folders from which a listed path, and others like it, are mirrored."""
        up = max(
            (number for number, part in enumerate(path.parts, 1) if part == os.pardir), default=0
        )
        base = os.path.realpath(Path(path.anchor, *path.parts[:up]))
        return (base,) if path.is_absolute() else (base, self.working_folder)

    def _folder(self, root: Path, inside: Path, bases: tuple[str, ...] = ()) -> Iterator[Item]:
        """The pictures and films under a folder; one Item with a problem if there are none."""
        empty, bases = True, (*bases, os.path.realpath(root))
        for found in walk(root, self.real_out):
            if isinstance(found, Unreadable):
                yield self._trouble(
                    found.folder, f"folder must be readable, got {{}}: {found.reason}"
                )
            elif self._takes(root, found):
                yield self._item(root / found, (inside / found).parent, bases)
            else:
                continue
            empty = False
        if empty:
            yield self._trouble(
                root, "folder must hold a picture or film that gancolor reads, got none in {}"
            )

    def _pattern(self, pattern: str) -> Iterator[Item]:
        base, parts = split_pattern(pattern)
        suffix = os.path.splitext(parts[-1])[1]
        any_suffix = not suffix or glob.has_magic(suffix)
        matched = False
        for found in match(base, parts, self.real_out):
            if os.path.isdir(base / found):
                yield from self._folder(base / found, self.out / found)
            elif self._takes(base, found, any_kind=not any_suffix):
                yield self._item(base / found, (self.out / found).parent)
            else:
                continue
            matched = True
        if not matched:
            yield self._trouble(
                Path(pattern), "pattern must match a picture or film, got no match for {}"
            )

    def _takes(self, root: Path, found: Path, *, any_kind: bool = False) -> bool:
        """Whether a file that was found is to be coloured; one that is of no known kind is counted."""
        if formats.is_excluded(found.as_posix(), self.exclude):
            return False
        if any_kind or _is_known(root / found):
            return True
        self.passed[found.suffix.lower()] += 1
        return False

    def _file(self, path: Path, inside: Path, *, listed: bool = False) -> Item:
        """A file that is named: taken if it is one."""
        try:
            stat_regular(path)
        except OSError as error:
            return self._trouble(
                path, f"input must be a file or folder, got {{}}: {error.strerror}"
            )
        return self._item(path, inside, self._list_bases(path) if listed else ())

    def _item(self, source: Path, inside: Path, bases: tuple[str, ...] = ()) -> Item:
        film = is_film(source)
        if film:
            target = inside / film_name(source)
        else:
            target = inside / result_name(
                source.name, self.format, lambda name: os.path.lexists(source.with_name(name))
            )
        if not self._is_safe(source, inside, bases):
            problem = (
                f"output must not lie among the inputs, got {shown(target)} for {shown(source)};"
                " change --out"
            )
            return Item(source, target, film, problem)
        return Item(source, target, film, folder=inside.relative_to(self.out))

    def _is_safe(self, source: Path, inside: Path, bases: tuple[str, ...]) -> bool:
        """Whether nothing that is written to a folder, variants too, can be a source or become one.

        `bases`: real folders that sources come from, beside those that are known of the inputs.
        """
        real = os.path.realpath(inside)
        if real in _folders_of(source) or any(self._is_among(real, base) for base in bases):
            return False
        return self._is_safe_folder(real)

    def _is_no_source_folder(self, real: str) -> bool:
        return real not in self.file_folders and not any(
            self._is_among(real, base) for base in self.bases
        )

    def _is_among(self, real: str, base: str) -> bool:
        """Whether a folder lies in `base`, where sources are, and not in an --out inside it, which
        is left out.
        """
        if not is_below(real, base):
            return False
        out = self.real_out
        return out == base or not is_below(out, base) or not is_below(real, out)

    def _trouble(self, path: Path, words: str) -> Item:
        return Item(path, self.out / path.name, problem=words.format(shown(path)))


def result_name(name: str, format: str | None, has: Callable[[str], bool]) -> str:
    """The name of a picture's result; see `expand` for those that would clash. `has`: whether the
    picture's folder holds a file of a name.
    """
    stem, suffix = os.path.splitext(name)
    ending = writer.target_suffix(suffix, format)
    if ending == suffix:
        return name
    for other in _SPELLINGS:
        if other == suffix or writer.target_suffix(other, format) != ending:
            continue
        if (other == ending or stem + other < name) and has(stem + other):
            return name + ending
    return stem + ending


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def _folders_of(path: Path) -> set[str]:
    """The real folder that a file is in, and for a link also that of the file it leads to."""
    return {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}


def _is_known(path: Path) -> bool:
    """Whether a file is a picture or a film: by its suffix, or where that tells nothing by what it
    holds.
    """
    kind = formats.by_suffix(path.name) or formats.kind_of(read_head(path, formats.HEAD), path.name)
    return (kind is not None and kind.readable) or is_film(path)


@dataclass(frozen=True)
class Unreadable:
    """A folder that cannot be listed, and why."""

    folder: Path
    reason: str


def walk(root: Path, out: str) -> Iterator[Path | Unreadable]:
    """Yield the files under a folder by their relative paths, sorted in each folder, without hidden
    ones.

    Links to folders are followed after the real folders, and each real folder is seen once: loops
    end, and a link never renames what has a place of its own. The real folder `out` is not entered,
    see `_is_result`.
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
    """Names and kinds of a folder's entries, sorted; pipes, devices, hidden names and litter are
    left out.
    """
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
    """Relative paths that match; folders only where the pattern has no `**`, whose own walk enters
    them.

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
    """Tells of what is found from `root` on whether it is in the real folder `out`: results, that
    is.

    Where `root` itself lies in it, what it holds are sources, and only `out` as a whole is none;
    where it is `out`, nothing is left out here, for each of its files is refused with a reason.
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


@dataclass(frozen=True)
class Unusable:
    """The rest of a list cannot be used, and why."""

    reason: str


def listed_names(listing: BinaryIO, null: bool = False) -> Iterator[str | Unusable]:
    """The names in a list, as they come: one a line, or with `null` separated by NUL.

    A byte-order mark says how it is encoded; without one its bytes are the file system's. Names
    that are no text keep their bytes.
    """
    separator, rest = "\0" if null else "\n", ""
    try:
        for text in _texts(listing):
            if not null and "\0" in text:
                fix = "use --null for names that NUL separates, or write the list in UTF-8"
                yield Unusable(f"list must have a name a line, got a NUL; {fix}")
                return
            *whole, rest = (rest + text).split(separator)
            for name in whole:
                if len(name) <= LONGEST:
                    yield from _line(name, null)
            if max(map(len, (*whole, rest))) > LONGEST:
                yield Unusable(
                    f"list must have names of at most {LONGEST} characters, got a longer one; is it"
                    " a list?"
                )
                return
    except UnicodeDecodeError as error:
        fix = "write the list in UTF-8"
        yield Unusable(
            f"list must be {error.encoding} as its first bytes say, got others ({error.reason});"
            f" {fix}"
        )
        return
    yield from _line(rest, null)


def _line(name: str, null: bool) -> Iterator[str]:
    if not null:
        name = name.removesuffix("\r")
    if name:
        yield name


def _texts(listing: BinaryIO) -> Iterator[str]:
    """What is in a list, decoded, in pieces of any length; UnicodeDecodeError where a mark promised
    another thing.
    """
    read = listing.read1 if hasattr(listing, "read1") else listing.read
    head, more = b"", True
    while more and any(len(head) < len(mark) and mark.startswith(head) for mark in _MARKS):
        block = read(_BLOCK)
        head, more = head + block, bool(block)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    encoding = _MARKS.get(mark, sys.getfilesystemencoding())
    exact = encoding.startswith(("utf-16", "utf-32"))
    decoder = codecs.getincrementaldecoder(encoding)("strict" if exact else "surrogateescape")
    yield decoder.decode(head[len(mark) :])
    while more and (block := read(_BLOCK)):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)
