"""Make a set of any pictures: look at each, decide which belong, copy where asked, write the manifest."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gancolor import images
from gancolor.data import catalog
from gancolor.data.doctor import copies, deciding, engine, finding, manifest_writing, reporting
from gancolor.data.doctor.copies import Copies
from gancolor.data.doctor.deciding import Decision
from gancolor.data.doctor.engine import FOLDER, Tally
from gancolor.data.doctor.entries import Source
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.manifest_writing import SET
from gancolor.data.doctor.rules import Rules
from gancolor.data.folder import MANIFEST
from gancolor.errors import ConfigError, DataError, shown

EARLIER = "manifest-before.csv"
"""Where a manifest that somebody else wrote goes when a set is prepared in its own folder."""

Progress = Callable[[str, int, int], None]  # what is being done, pictures done, of how many (0: not known yet)

log = logging.getLogger("gancolor")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to prepare. ConfigError for settings that contradict each other.

    `sources`: paths of folders, archives and lists, or names of sets under `root`, the datasets root. `against`: sets
    and folders whose pictures are left out. `resize`: shorter side of the copies, None to refer to the pictures where
    they are. `val`, `test`: shares of the splits; `by_folder`: top folders called train, val and test decide instead.
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-][\w.+ -]*", self.name):
            raise ConfigError(f"--name must be the name of a folder (letters, digits, . _ + -), got {self.name!r}")
        if self.val + self.test >= 1:
            raise ConfigError(f"--val and --test must leave a share to train on, got {self.val:g} and {self.test:g}")

    @property
    def folder(self) -> Path:
        """The set's folder."""
        return self.root / self.name


@dataclass(frozen=True)
class Prepared:
    """What came of it. `table`: the findings as text; `sheet`: where the examples are, None if nothing was rejected."""

    folder: Path
    tally: Tally
    decision: Decision
    copies: Copies | None
    table: str
    sheet: Path | None


def prepare(plan: Plan, progress: Progress) -> Prepared:
    """Prepare a set. The sources are only read; stopped at any moment, the same call goes on where it was.

    DataError if a source cannot be read, there is no picture in them, none is kept, or the set's folder holds what
    prepare has not put there.
    """
    paths = [_locate(source, plan.root) for source in plan.sources]
    others = [_locate(source, plan.root) for source in plan.against]
    _check_apart(plan, paths, others)
    with engine.lock(plan.folder), Journal(plan.folder / FOLDER / "journal.sqlite") as journal:
        sources = _open_sources(plan, journal, paths, others)
        tally = engine.examine_all(
            journal, sources, workers=plan.workers, progress=lambda done, total: progress("looking", done, total)
        )
        decision = deciding.decide(journal, plan.rules, splits=(plan.val, plan.test), resized=plan.resize is not None)
        if not decision.pictures:
            raise DataError(f"sources must hold at least one picture, got none in {', '.join(map(shown, paths))}")
        copied = copies.copy_all(
            journal,
            sources,
            plan.folder,
            plan.resize,
            workers=plan.workers,
            progress=lambda done, total: progress("copying", done, total),
        )
        decision = deciding.count(journal)  # copying may have found another broken one
        _write(plan, journal, paths, decision)
        sheet = _write_sheet(plan, journal, sources)
        table = reporting.table(journal, plan.rules, decision)
    made = copied if copied.made or copied.kept or copied.removed or copied.failed else None
    return Prepared(plan.folder, tally, decision, made, table, sheet)


def _locate(source: str, root: Path) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source in catalog.names(root) or (root / source).is_dir():
        return catalog.locate(source, root)
    raise DataError(
        f"SOURCE must be a folder, an archive, a list (.csv) or the name of a set under {shown(root)}, "
        f"got {shown(source)}, which does not exist; check the spelling or the working directory"
    )


def _check_apart(plan: Plan, paths: Sequence[Path], others: Sequence[Path]) -> None:
    """Refuse what would mix the set with other things, before anything is written."""
    real = [path.resolve() for path in [*paths, *others]]
    if twice := [path for index, path in enumerate(real) if path in real[:index]]:
        raise ConfigError(f"each SOURCE and --against must be another one, got {shown(twice[0])} twice")
    own = plan.folder.resolve()
    if own in [path.resolve() for path in others]:
        raise ConfigError(f"--against must be another set than the one that is prepared, got {plan.name}")
    if own in [path.resolve() for path in paths]:
        if plan.resize is not None:
            raise ConfigError(f"--name must be another than the source's with --resize, got {plan.name}")
        if len(paths) > 1:
            raise ConfigError(
                f"a set must be prepared in its own folder alone, got {len(paths)} sources; choose another --name"
            )
    elif _is_strange(plan.folder):
        raise DataError(
            f"--name must be a new set or one that prepare has made, got {plan.name}: {shown(plan.folder)} is there "
            "already; choose another name, or give that folder as the SOURCE"
        )


def _is_strange(folder: Path) -> bool:
    """Whether the folder holds something, and not of prepare's."""
    if (folder / SET).is_file() or (folder / FOLDER).is_dir():
        return False
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"set's folder must be a readable folder, got {shown(folder)}: {error.strerror}") from None


def _open_sources(plan: Plan, journal: Journal, paths: Sequence[Path], others: Sequence[Path]) -> dict[int, Source]:
    own = plan.folder.resolve()
    opened = []
    for path in paths:
        # In its own folder the manifest is what prepare wrote before; only one of somebody else's counts.
        manifest = _keep_earlier(plan.folder) if path.resolve() == own else MANIFEST
        without = None if path.resolve() == own else own
        opened.append(finding.open_source(path, by_folder=plan.by_folder, manifest=manifest, without=without))
    opened += [finding.open_source(path) for path in others]
    labels = _labels(paths) + [""] * len(others)
    rows = [
        (os.path.abspath(path), label, source.kind, index >= len(paths))
        for index, (path, label, source) in enumerate(zip([*paths, *others], labels, opened, strict=True))
    ]
    _say_what_changes(journal, {path for path, _, _, other in rows if not other})
    return dict(zip(journal.set_sources(rows), opened, strict=True))


def _keep_earlier(folder: Path) -> str:
    """Name of somebody else's manifest in a set's own folder, moved aside so that it is not lost; "" for none."""
    if not (folder / SET).is_file() and (folder / MANIFEST).is_file() and not (folder / EARLIER).exists():
        (folder / MANIFEST).rename(folder / EARLIER)
        log.info("%s is kept as %s; its splits and rejections count", shown(folder / MANIFEST), EARLIER)
    return EARLIER if (folder / EARLIER).is_file() else ""


def _labels(paths: Sequence[Path]) -> list[str]:
    """What the names of each source's pictures begin with in the set; nothing where there is one source."""
    if len(paths) == 1:
        return [""]
    labels: list[str] = []
    for path in paths:
        stem = re.sub(r"(\.tar)?\.\w+$", "", path.resolve().name) if path.is_file() else path.resolve().name
        name, number = stem or "pictures", 2
        while name in labels:
            name, number = f"{stem}-{number}", number + 1
        labels.append(name)
    return labels


def _say_what_changes(journal: Journal, paths: set[str]) -> None:
    before = {path for (path,) in journal.connection.execute("SELECT path FROM sources WHERE NOT other")}
    if gone := sorted(before - paths):
        log.warning("the set was made of other sources before; it loses %s", ", ".join(map(shown, gone)))


def _write(plan: Plan, journal: Journal, paths: Sequence[Path], decision: Decision) -> None:
    earlier = plan.folder / EARLIER
    before = finding.read_rows(earlier) if earlier.is_file() else iter(())
    rejected = ((row.path, row.reject) for row in before if row.reject)
    manifest_writing.write_manifest(journal, plan.folder / MANIFEST, rejected)
    manifest_writing.write_set(
        plan.folder / SET,
        name=plan.name,
        title=plan.name,
        sources=[os.path.abspath(path) for path in paths],
        licence=plan.licence or _licence_before(plan.folder),
        rules=plan.rules,
        resize=plan.resize,
        decision=decision,
    )


def _licence_before(folder: Path) -> str:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads((folder / SET).read_text(encoding="utf-8")).get("licence", ""))
    return ""


def _write_sheet(plan: Plan, journal: Journal, sources: dict[int, Source]) -> Path | None:
    path = plan.sheet or plan.folder / FOLDER / "rejected.png"
    content = reporting.sheet(journal, sources, plan.rules)
    if not content:
        if plan.sheet is None:
            path.unlink(missing_ok=True)  # of an earlier time
        return None
    images.write_file(path, content)
    return path
