"""What set is to be made of which pictures, and whatever speaks against it before anything is written."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gancolor.data import catalog
from gancolor.data.doctor.journal import FOLDER
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_files import SET, read_set
from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime import remote_files
from gancolor.runtime.workers import DEADLINE

Place = Path | str
"""A path, or the address of a folder in object storage."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to prepare. ConfigError for settings that contradict each other.

    `sources`: paths of folders, archives and lists, addresses of folders in object storage, or names
    of sets under `root`, the datasets root. `against`: sets and folders, also at addresses, whose
    pictures are left out. `resize`: shorter side of the copies, None to refer to the pictures where
    they are, or to copy them as they are. `val`, `test`: shares of the splits;
    `by_folder`: top folders called train, val and test decide instead. `sheet`: a PNG file for the
    examples, None for one in the set's hidden folder. `exclude`: patterns of names that are left
    out of the sources. `deadline`: see `examine_all`.
    """

    name: str
    sources: tuple[str, ...]
    root: Path
    rules: Rules
    against: tuple[str, ...] = ()
    resize: int | None = None
    val: float = 0.1
    test: float = 0.1
    by_folder: bool = False
    licence: str = ""
    sheet: Path | None = None
    workers: int | None = None
    deadline: float = DEADLINE
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-][\w.+ -]*", self.name) or len(os.fsencode(self.name)) > 255:
            rule = "the name of a folder (letters, digits, . _ + -; up to 255 bytes)"
            raise ConfigError(f"--name must be {rule}, got {self.name!r}")
        if self.name.lower().endswith(".tar") or self.name == "shards.json":
            raise ConfigError(
                f"--name must not look like shards, got {self.name}; leave the ending out"
            )
        # Asked for what is right, so that NaN is refused, too.
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise ConfigError(
                f"--val and --test must leave a share to train on, got {self.val:g} and"
                f" {self.test:g}"
            )
        if not self.deadline > 0:
            raise ConfigError(f"--deadline must be above 0, got {self.deadline:g}")
        if self.sheet is not None and self.sheet.suffix.lower() != ".png":
            raise ConfigError(f"--sheet must be a file that ends in .png, got {shown(self.sheet)}")

    @property
    def folder(self) -> Path:
        """The set's folder."""
        return self.root / self.name


def locate(plan: Plan) -> tuple[list[Place], list[Place]]:
    """The places of the sources and of what they are compared with; the set's own folder is called
    `plan.folder`.

    DataError if one is not there, or its storage may not be looked into; ConfigError where they
    overlap, `plan.name` cannot be used for them, or an address is of another kind.
    """
    paths = [_locate(source, plan.root, "SOURCE") for source in plan.sources]
    others = [_locate(source, plan.root, "--against") for source in plan.against]
    own = _real(plan.folder)
    paths = [plan.folder if _real(path) == own else path for path in paths]
    _check_apart(plan, paths, others)
    if plan.folder in paths:
        _check_in_place(plan, paths)
    elif _was_in_place(plan.folder):
        raise ConfigError(
            f"--name must be another one, got {plan.name}: that set was prepared in its own folder"
            " and is made of what lies there; choose another --name, or give its folder as the"
            " only SOURCE"
        )
    elif _is_strange(plan.folder):
        raise DataError(
            f"--name must be a new set or one that prepare has made, got {plan.name}:"
            f" {shown(plan.folder)} is there already; choose another name, or give that folder as"
            " the SOURCE"
        )
    _check_name(plan, paths)
    return paths, others


def spelled(place: Place) -> str:
    """A place as the journal and set.json have it."""
    return place if isinstance(place, str) else os.path.abspath(place)


def labels_of(places: Sequence[Place]) -> list[str]:
    """What the names of each source's pictures begin with in the set; nothing where there is one
    source.
    """
    if len(places) == 1:
        return [""]
    labels: list[str] = []
    for place in places:
        stem = posixpath.basename(place) if isinstance(place, str) else place.resolve().name
        if isinstance(place, Path) and place.is_file():
            stem = re.sub(r"(\.tar)?\.\w+$", "", stem)
        name, number = stem or "pictures", 2
        while name in labels:
            name, number = f"{stem}-{number}", number + 1
        labels.append(name)
    return labels


def _locate(source: str, root: Path, what: str) -> Place:
    if remote_files.is_address(source):
        return _locate_address(source, what)
    path = Path(os.path.expanduser(source))
    if source and os.path.exists(path):
        return path
    if source and (source in catalog.names(root) or os.path.isdir(root / source)):
        return catalog.locate(source, root)
    raise DataError(
        f"{what} must be a folder, an archive, a list (.csv) or the name of a set under"
        f" {shown(root)}, got {shown(source)}, which does not exist; check the spelling or the"
        " working directory"
    )


def _locate_address(source: str, what: str) -> str:
    remote_files.check(source, what)
    if remote_files.is_web(source):
        raise ConfigError(
            f"{what} must be a path, or a folder in object storage (s3://, gs://, hf://datasets/),"
            f" got {shown(source)}; download it, and give its path"
        )
    address = source.rstrip("/")
    found = remote_files.find(address)
    if found is None or not found.is_folder:
        what_is_there = (
            "nothing is there" if found is None else "a file; fetch it, and give its path"
        )
        raise DataError(
            f"{what} must be the address of a folder, got {shown(source)}: {what_is_there}"
        )
    return address


def _real(place: Place) -> Place:
    if isinstance(place, str):
        return place
    return Path(os.path.realpath(place))  # unlike resolve() it takes links that lead to themselves


def _lies_in(place: Place, outer: Place) -> bool:
    if isinstance(place, str):
        return isinstance(outer, str) and place.startswith(f"{outer}/")
    return outer in place.parents


def _check_apart(plan: Plan, paths: Sequence[Place], others: Sequence[Place]) -> None:
    own, real = _real(plan.folder), [_real(path) for path in [*paths, *others]]
    if twice := [path for index, path in enumerate(real) if path in real[:index]]:
        raise ConfigError(
            f"each SOURCE and --against must be another one, got {shown(twice[0])} twice"
        )
    if own in real[len(paths) :]:
        raise ConfigError(
            f"--against must be another set than the one that is prepared, got {plan.name}"
        )
    if inside := [path for path in real if _lies_in(path, own)]:
        raise ConfigError(
            "SOURCE and --against must not lie inside the set's own folder, got"
            f" {shown(inside[0])}; choose another --name"
        )
    folders = [path for path in real[: len(paths)] if isinstance(path, str) or path.is_dir()]
    for path in folders:
        if outer := next((folder for folder in folders if _lies_in(path, folder)), None):
            raise ConfigError(
                f"no SOURCE must lie inside another, got {shown(path)} in {shown(outer)}; leave"
                " it out"
            )


def _check_in_place(plan: Plan, paths: Sequence[Place]) -> None:
    if plan.resize is not None:
        raise ConfigError(
            f"--name must be another than the source's with --resize, got {plan.name}"
        )
    if len(paths) > 1:
        raise ConfigError(
            f"a set must be prepared in its own folder alone, got {len(paths)} sources; choose"
            " another --name"
        )


def _check_name(plan: Plan, paths: Sequence[Place]) -> None:
    """Refuse a name that already stands for other pictures."""
    if plan.name not in catalog.names(plan.root):
        return
    folder = catalog.find(plan.name, plan.root).folder
    if not folder or plan.folder not in paths or _real(plan.root / folder) != _real(plan.folder):
        raise ConfigError(
            f"--name must not be that of a set that gancolor data list tells of, got {plan.name};"
            " choose another"
        )


def _was_in_place(folder: Path) -> bool:
    sources = read_set(folder).get("sources")
    named = sources if isinstance(sources, list) else []
    return _real(folder) in [_real(Path(source)) for source in named if isinstance(source, str)]


def _is_strange(folder: Path) -> bool:
    """Whether the folder holds something, and not of prepare's."""
    try:
        ours = (folder / SET).is_file() or (folder / FOLDER).is_dir()
        return not ours and any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(
            f"set's folder must be a readable folder, got {shown(folder)}: {error.strerror}"
        ) from None
