"""Make a set of any pictures: look at each, decide which belong, copy where asked, write the manifest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gancolor import images
from gancolor.data.doctor import copies, deciding, engine, finding, manifest_writing, planning, reporting
from gancolor.data.doctor.copies import Copies
from gancolor.data.doctor.deciding import Decision
from gancolor.data.doctor.engine import FOLDER, Tally
from gancolor.data.doctor.entries import Source
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.manifest_writing import SET
from gancolor.data.doctor.planning import Plan
from gancolor.data.folder import MANIFEST
from gancolor.data.manifest import UNFINISHED
from gancolor.errors import DataError, shown

__all__ = ["Plan", "Prepared", "prepare"]

EARLIER = "manifest-before.csv"
"""Where a manifest that somebody else wrote goes when a set is prepared in its own folder."""

Progress = Callable[[str, int, int], None]  # what is being done, pictures done, of how many (0: not known yet)

log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    `compared`: pictures of the sets and folders that it was held against. `table`: the findings as text. `sheet`:
    where the examples are, None if nothing was rejected.
    """

    folder: Path
    tally: Tally
    compared: int
    decision: Decision
    copies: Copies | None
    table: str
    sheet: Path | None


def prepare(plan: Plan, progress: Progress) -> Prepared:
    """Prepare a set. The sources are only read; stopped at any moment, the same call goes on where it was.

    DataError if a source cannot be read, there is no picture in them, or the set's folder holds what prepare has not
    put there; ConfigError if the plan does not fit what is there.
    """
    paths, others = planning.locate(plan)
    with engine.lock(plan.folder), Journal(plan.folder / FOLDER / "journal.sqlite") as journal:
        if plan.folder in paths:
            planning.check_no_copies(plan, journal)
        else:
            copies.adopt(journal, plan.folder)
        sources = _open_sources(plan, journal, paths, others)
        tally = engine.examine_all(
            journal,
            sources,
            workers=plan.workers,
            deadline=plan.deadline,
            progress=lambda done, total: progress("looking", done, total),
        )
        if plan.by_folder:
            _check_sorted(journal, sources.values())
        decision = deciding.decide(journal, plan.rules, splits=(plan.val, plan.test), resized=plan.resize is not None)
        if not decision.pictures:
            raise DataError(f"sources must hold at least one picture, got none in {', '.join(map(shown, paths))}")
        copied = _copy(plan, journal, sources, progress)
        decision = deciding.count(journal)  # copying may have found another broken one
        _write(plan, journal, paths, decision)
        (plan.folder / UNFINISHED).unlink(missing_ok=True)
        sheet = _write_sheet(plan, journal, sources)
        table = reporting.table(journal, plan.rules, decision)
        compared = journal.count("source IN (SELECT id FROM sources WHERE other)")
    if decision.kept and not decision.splits["train"]:
        log.warning("nothing is left to train on: all %s that are kept count as val or test", f"{decision.kept:,}")
    made = copied if copied.made or copied.kept or copied.removed or copied.failed else None
    return Prepared(plan.folder, tally, compared, decision, made, table, sheet)


def _check_sorted(journal: Journal, sources: Iterable[Source]) -> None:
    """Hold the sources against what --split folders needs. DataError if no picture lies as it should."""
    own = [source for source in sources if source.by_folder]
    loose, found = sum(source.loose for source in own), sum(source.sorted_in for source in own)
    if not loose:
        return
    if not found:
        query = (
            "SELECT DISTINCT SUBSTR(name, 1, INSTR(name, '/') - 1) FROM pictures WHERE INSTR(name, '/') > 1 "
            "AND source NOT IN (SELECT id FROM sources WHERE other) ORDER BY 1 LIMIT 6"
        )
        tops = ", ".join(shown(top) for (top,) in journal.connection.execute(query)) or "none"
        raise DataError(
            "--split folders must find pictures in top folders named train, val (valid, validation) or test, got the "
            f"top folders: {tops}; rename them, or give the folder above, or leave --split folders out"
        )
    log.warning(
        "%s outside of folders named train, val and test: the hash of the name decides on the split",
        f"{loose:,} pictures lie" if loose > 1 else "1 picture lies",
    )


def _copy(plan: Plan, journal: Journal, sources: dict[int, Source], progress: Progress) -> Copies:
    """Copy what is to be copied. Until the manifest is written the set is marked as one that must not be read."""
    moves = journal.connection.execute(
        "SELECT EXISTS (SELECT 1 FROM sources WHERE NOT other AND kind IN ('zip', 'tar', 'stream')) "
        "OR EXISTS (SELECT 1 FROM pictures WHERE copy IS NOT NULL) OR EXISTS (SELECT 1 FROM leftovers)"
    ).fetchone()[0]
    if moves or plan.resize is not None:
        images.write_file(plan.folder / UNFINISHED, b"")
    return copies.copy_all(
        journal,
        sources,
        plan.folder,
        plan.resize,
        workers=plan.workers,
        deadline=plan.deadline,
        progress=lambda done, total: progress("copying", done, total),
    )


def _open_sources(plan: Plan, journal: Journal, paths: Sequence[Path], others: Sequence[Path]) -> dict[int, Source]:
    opened = []
    for path in paths:
        # In its own folder the manifest is what prepare wrote before; only one of somebody else's counts.
        manifest = _keep_earlier(plan.folder) if path == plan.folder else MANIFEST
        without = None if path == plan.folder else plan.folder
        opened.append(
            finding.open_source(
                path, by_folder=plan.by_folder, manifest=manifest, without=without, exclude=plan.exclude
            )
        )
    opened += [finding.open_source(path) for path in others]
    labels = _labels(paths) + [""] * len(others)
    rows = [
        (os.path.abspath(path), label, source.kind, index >= len(paths))
        for index, (path, label, source) in enumerate(zip([*paths, *others], labels, opened, strict=True))
    ]
    _say_what_changes(journal, {path for path, _, _, other in rows if not other})
    return dict(zip(journal.set_sources(rows), opened, strict=True))


def _keep_earlier(folder: Path) -> str:
    """Name of a copy of somebody else's manifest in a set's own folder; "" for none. The manifest stays in force."""
    manifest, earlier = folder / MANIFEST, folder / EARLIER
    try:
        if not (folder / SET).is_file() and manifest.is_file():
            content = manifest.read_bytes()
            # Stopped between the two files, a call leaves a manifest of prepare's own without set.json.
            if not (earlier.exists() and content.startswith(",".join(manifest_writing.COLUMNS).encode())):
                images.write_file(earlier, content)
                log.info("%s is kept as %s; its splits and rejections count", shown(manifest), EARLIER)
    except OSError as error:
        raise DataError(f"manifest must be readable, got {shown(manifest)}: {error.strerror}") from None
    return EARLIER if earlier.is_file() else ""


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
        licence=plan.licence or str(planning.read_about(plan.folder).get("licence", "")),
        rules=plan.rules,
        resize=plan.resize,
        decision=decision,
    )


def _write_sheet(plan: Plan, journal: Journal, sources: dict[int, Source]) -> Path | None:
    path = plan.sheet or plan.folder / FOLDER / "rejected.png"
    content = reporting.sheet(journal, sources, plan.rules)
    if not content:
        if plan.sheet is None:
            path.unlink(missing_ok=True)  # of an earlier time
        return None
    images.write_file(path, content)
    return path
