"""Make a set of any pictures: look at each, decide which belong, copy where asked, write the
manifest. Whatever speaks against the plan is said before anything is written.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gancolor.data import catalog
from gancolor.data.doctor import copies, judge, report, set_files, survey
from gancolor.data.doctor.copies import Copies
from gancolor.data.doctor.journal import ARCHIVED, FOLDER, OWN, Journal, lock
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_files import EARLIER, SET, read_set
from gancolor.data.doctor.sources import Source, open_source
from gancolor.data.doctor.survey import Elsewhere, Tally
from gancolor.data.manifest import COLUMNS, MANIFEST, UNFINISHED, read_rows
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import arrays
from gancolor.runtime.files import StageProgress
from gancolor.runtime.workers import DEADLINE

log = logging.getLogger("gancolor")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to prepare. ConfigError for settings that contradict each other.

    `sources`: paths of folders, archives and lists, or names of sets under `root`, the datasets
    root. `against`: sets and folders whose pictures are left out. `resize`: shorter side of the
    copies, None to refer to the pictures where they are. `val`, `test`: shares of the splits;
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


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    `compared`: pictures of the sets and folders that it was held against. `table`: the findings as
    text. `sheet`: where the examples are, None if nothing was rejected.
    """

    folder: Path
    tally: Tally
    compared: int
    decision: Decision
    copies: Copies | None
    table: str
    sheet: Path | None


def prepare(plan: Plan, progress: StageProgress, elsewhere: Elsewhere | None = None) -> Prepared:
    """Prepare a set. The sources are only read; stopped at any moment, the same call goes on where
    it was. `elsewhere`: as for `examine_all`.

    DataError if a source cannot be read, there is no picture in them, or the set's folder holds
    what prepare has not put there; ConfigError if the plan does not fit what is there.
    """
    paths, others = locate(plan)
    with lock(plan.folder), Journal(plan.folder / FOLDER / "journal.sqlite") as journal:
        if plan.folder in paths:
            check_no_copies(plan, journal)
        else:
            copies.adopt(journal, plan.folder)
        sources = _open_sources(plan, journal, paths, others)
        tally = survey.examine_all(
            journal,
            sources,
            workers=plan.workers,
            deadline=plan.deadline,
            elsewhere=elsewhere,
            progress=lambda done, total: progress("looking", done, total),
        )
        if plan.by_folder:
            _check_sorted(journal, sources.values())
        decision = judge.decide(
            journal, plan.rules, splits=(plan.val, plan.test), resized=plan.resize is not None
        )
        if not decision.pictures:
            raise DataError(
                "sources must hold at least one picture, got none in"
                f" {', '.join(map(shown, paths))}"
            )
        copied = _copy(plan, journal, sources, progress, elsewhere)
        decision = judge.count(journal)  # copying may have found another broken one
        _write(plan, journal, paths, decision)
        (plan.folder / UNFINISHED).unlink(missing_ok=True)
        sheet = _write_sheet(plan, journal, sources)
        table = report.table(journal, plan.rules, decision)
        compared = journal.count(f"NOT {OWN}")
    if decision.kept and not decision.splits["train"]:
        log.warning(
            "nothing is left to train on: all %s that are kept count as val or test",
            f"{decision.kept:,}",
        )
    made = copied if copied.made or copied.kept or copied.removed or copied.failed else None
    return Prepared(plan.folder, tally, compared, decision, made, table, sheet)


def locate(plan: Plan) -> tuple[list[Path], list[Path]]:
    """The paths of the sources and of what they are compared with; the set's own folder is called
    `plan.folder`.

    DataError if one is not there; ConfigError where they overlap or `plan.name` cannot be used for
    them.
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


def check_no_copies(plan: Plan, journal: Journal) -> None:
    """ConfigError if the set, whose own folder is the source, has copies there: remade, it would
    lose them.
    """
    query = (
        "SELECT EXISTS (SELECT 1 FROM leftovers) OR EXISTS (SELECT 1 FROM pictures WHERE copy IS"
        " NOT NULL)"
    )
    if journal.connection.execute(query).fetchone()[0]:
        raise ConfigError(
            f"SOURCE must be what the set was made of, got its own folder {shown(plan.folder)},"
            " whose pictures are copies; give the sources again, or choose another --name"
        )


def _locate(source: str, root: Path, what: str) -> Path:
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


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve() it takes links that lead to themselves


def _check_apart(plan: Plan, paths: Sequence[Path], others: Sequence[Path]) -> None:
    own, real = _real(plan.folder), [_real(path) for path in [*paths, *others]]
    if twice := [path for index, path in enumerate(real) if path in real[:index]]:
        raise ConfigError(
            f"each SOURCE and --against must be another one, got {shown(twice[0])} twice"
        )
    if own in real[len(paths) :]:
        raise ConfigError(
            f"--against must be another set than the one that is prepared, got {plan.name}"
        )
    if inside := [path for path in real if own in path.parents]:
        raise ConfigError(
            "SOURCE and --against must not lie inside the set's own folder, got"
            f" {shown(inside[0])}; choose another --name"
        )
    folders = [path for path in real[: len(paths)] if path.is_dir()]
    for path in folders:
        if outer := next((folder for folder in folders if folder in path.parents), None):
            raise ConfigError(
                f"no SOURCE must lie inside another, got {shown(path)} in {shown(outer)}; leave"
                " it out"
            )


def _check_in_place(plan: Plan, paths: Sequence[Path]) -> None:
    if plan.resize is not None:
        raise ConfigError(
            f"--name must be another than the source's with --resize, got {plan.name}"
        )
    if len(paths) > 1:
        raise ConfigError(
            f"a set must be prepared in its own folder alone, got {len(paths)} sources; choose"
            " another --name"
        )


def _check_name(plan: Plan, paths: Sequence[Path]) -> None:
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


def _check_sorted(journal: Journal, sources: Iterable[Source]) -> None:
    """Hold the sources against what --split folders needs. DataError if no picture lies as it
    should.
    """
    own = [source for source in sources if source.by_folder]
    loose, found = sum(source.loose for source in own), sum(source.sorted_in for source in own)
    if not loose:
        return
    if not found:
        query = (
            "SELECT DISTINCT SUBSTR(name, 1, INSTR(name, '/') - 1) FROM pictures"
            f" WHERE INSTR(name, '/') > 1 AND {OWN} ORDER BY 1 LIMIT 6"
        )
        tops = ", ".join(shown(top) for (top,) in journal.connection.execute(query)) or "none"
        raise DataError(
            "--split folders must find pictures in top folders named train, val (valid,"
            f" validation) or test, got the top folders: {tops}; rename them, or give the folder"
            " above, or leave --split folders out"
        )
    log.warning(
        "%s outside of folders named train, val and test: the hash of the name decides on the"
        " split",
        f"{loose:,} pictures lie" if loose > 1 else "1 picture lies",
    )


def _copy(
    plan: Plan,
    journal: Journal,
    sources: dict[int, Source],
    progress: StageProgress,
    elsewhere: Elsewhere | None,
) -> Copies:
    """Copy what is to be copied. Until the manifest is written the set is marked as one that must
    not be read.
    """
    moves = journal.connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM sources WHERE NOT other AND {ARCHIVED})"
        " OR EXISTS (SELECT 1 FROM pictures WHERE copy IS NOT NULL) OR EXISTS (SELECT 1 FROM"
        " leftovers)"
    ).fetchone()[0]
    if moves or plan.resize is not None:
        arrays.write_file(plan.folder / UNFINISHED, b"")
    return copies.copy_all(
        journal,
        sources,
        plan.folder,
        plan.resize,
        workers=plan.workers,
        deadline=plan.deadline,
        elsewhere=elsewhere,
        progress=lambda done, total: progress("copying", done, total),
    )


def _open_sources(
    plan: Plan, journal: Journal, paths: Sequence[Path], others: Sequence[Path]
) -> dict[int, Source]:
    opened = []
    for path in paths:
        # In its own folder the manifest is what prepare wrote before; only one of somebody else's
        # counts.
        in_place = path == plan.folder
        opened.append(
            open_source(
                path,
                by_folder=plan.by_folder,
                manifest=_keep_earlier(path) if in_place else MANIFEST,
                without=None if in_place else plan.folder,
                exclude=plan.exclude,
            )
        )
    opened += [open_source(path) for path in others]
    labels = _labels(paths) + [""] * len(others)
    rows = [
        (os.path.abspath(path), label, source.kind, index >= len(paths))
        for index, (path, label, source) in enumerate(
            zip([*paths, *others], labels, opened, strict=True)
        )
    ]
    _say_what_changes(journal, {path for path, _, _, other in rows if not other})
    return dict(zip(journal.set_sources(rows), opened, strict=True))


def _keep_earlier(folder: Path) -> str:
    """The name under which somebody else's manifest is kept in a set's own folder, where it stays in
    force; "" for none.
    """
    manifest, earlier = folder / MANIFEST, folder / EARLIER
    try:
        if not (folder / SET).is_file() and manifest.is_file():
            content = manifest.read_bytes()
            # Stopped between the two files, a call leaves a manifest of prepare's own without
            # set.json.
            if not (earlier.exists() and content.startswith(",".join(COLUMNS).encode())):
                arrays.write_file(earlier, content)
                log.info(
                    "%s is kept as %s; its splits and rejections count", shown(manifest), EARLIER
                )
    except OSError as error:
        raise DataError(
            f"manifest must be readable, got {shown(manifest)}: {error.strerror}"
        ) from None
    return EARLIER if earlier.is_file() else ""


def _labels(paths: Sequence[Path]) -> list[str]:
    """What the names of each source's pictures begin with in the set; nothing where there is one
    source.
    """
    if len(paths) == 1:
        return [""]
    labels: list[str] = []
    for path in paths:
        stem = path.resolve().name
        if path.is_file():
            stem = re.sub(r"(\.tar)?\.\w+$", "", stem)
        name, number = stem or "pictures", 2
        while name in labels:
            name, number = f"{stem}-{number}", number + 1
        labels.append(name)
    return labels


def _say_what_changes(journal: Journal, paths: set[str]) -> None:
    before = {
        path for (path,) in journal.connection.execute("SELECT path FROM sources WHERE NOT other")
    }
    if gone := sorted(before - paths):
        log.warning(
            "the set was made of other sources before; it loses %s", ", ".join(map(shown, gone))
        )


def _write(plan: Plan, journal: Journal, paths: Sequence[Path], decision: Decision) -> None:
    earlier = plan.folder / EARLIER
    before = read_rows(earlier, foreign=True) if earlier.is_file() else iter(())
    rejected = ((name, reject) for name, _, reject in before if reject)
    set_files.write_manifest(journal, plan.folder / MANIFEST, rejected)
    set_files.write_set(
        plan.folder / SET,
        name=plan.name,
        title=plan.name,
        sources=[os.path.abspath(path) for path in paths],
        licence=plan.licence or str(read_set(plan.folder).get("licence", "")),
        rules=plan.rules,
        resize=plan.resize,
        counts=decision.splits | decision.reasons,
    )


def _write_sheet(plan: Plan, journal: Journal, sources: dict[int, Source]) -> Path | None:
    path = plan.sheet or plan.folder / FOLDER / "rejected.png"
    content = report.sheet(journal, sources, plan.rules)
    if not content:
        if plan.sheet is None:
            path.unlink(missing_ok=True)  # of an earlier time
        return None
    arrays.write_file(path, content)
    return path
