"""Make a set of any pictures: look at each, decide which belong, copy where asked, write the
manifest.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gancolor.data.doctor import copies, judge, report, set_files, survey
from gancolor.data.doctor.copies import Copies
from gancolor.data.doctor.journal import COPIED, FOLDER, OWN, Journal, lock
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.reserve import Reserve
from gancolor.data.doctor.set_files import EARLIER, SET, read_set
from gancolor.data.doctor.set_plan import Place, Plan, labels_of, locate, spelled
from gancolor.data.doctor.sources import Source, open_source
from gancolor.data.doctor.stored_folder import StoredFolder
from gancolor.data.doctor.survey import Elsewhere, Tally
from gancolor.data.manifest import COLUMNS, MANIFEST, UNFINISHED, read_rows
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import arrays
from gancolor.runtime.files import StageProgress

_BYTES_A_PIXEL = 0.45  # of photographs reduced to 420 pixels, at the quality of our copies

log = logging.getLogger("gancolor")


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
        stored = "SELECT id FROM sources WHERE kind = 'stored' AND NOT other"
        ours = frozenset(id for (id,) in journal.connection.execute(stored))
        reserve = Reserve(plan.folder / FOLDER / "fetched", ours, plan.resize)
        tally = survey.examine_all(
            journal,
            sources,
            workers=plan.workers,
            deadline=plan.deadline,
            elsewhere=elsewhere,
            reserve=reserve,
            begin=lambda: _announce(plan, journal),
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
        copied = _copy(plan, journal, sources, progress, elsewhere, reserve)
        decision = judge.count(journal)  # copying may have found another broken one
        _write(plan, journal, paths, decision)
        (plan.folder / UNFINISHED).unlink(missing_ok=True)
        sheet = _write_sheet(plan, journal, sources, reserve)
        reserve.clear()
        table = report.table(journal, plan.rules, decision)
        compared = journal.count(f"NOT {OWN}")
    if decision.kept and not decision.splits["train"]:
        log.warning(
            "nothing is left to train on: all %s that are kept count as val or test",
            f"{decision.kept:,}",
        )
    made = copied if copied.made or copied.kept or copied.removed or copied.failed else None
    return Prepared(plan.folder, tally, compared, decision, made, table, sheet)


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


def _announce(plan: Plan, journal: Journal) -> None:
    """Say how much is to be fetched from addresses, and the room for it. DataError where there is
    none.
    """
    coming = "NOT examined"
    if copies.is_rule_new(journal, plan.resize):
        coming += " OR COALESCE(reject, '') = '' AND NOT other"
    most = -1 if plan.resize is None else round(_BYTES_A_PIXEL * plan.resize**2 * 4 / 3)
    count, size, room = journal.connection.execute(
        "SELECT COUNT(*), SUM(size), SUM(IIF(other, 0, IIF(? < 0, size, MIN(size, ?)))) FROM"
        " pictures JOIN sources ON sources.id = source"
        f" WHERE sources.kind = 'stored' AND ({coming})",
        (most, most),
    ).fetchone()
    if not count:
        return
    free = shutil.disk_usage(plan.folder).free
    if plan.resize is None and room > free:
        raise DataError(
            f"set's folder must have room for {_sized(room)} of pictures from addresses, got"
            f" {_sized(free)} free in {shown(plan.folder)}; make room, or reduce the pictures with"
            " --resize"
        )
    log.info(
        "%s (%s) to fetch from object storage; the copies take %s %s in %s, where %s are free",
        f"{count:,} pictures" if count > 1 else "1 picture",
        _sized(size),
        "at most" if plan.resize is None else "about",
        _sized(room),
        shown(plan.folder),
        _sized(free),
    )


def _sized(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


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
    reserve: Reserve,
) -> Copies:
    """Copy what is to be copied. Until the manifest is written the set is marked as one that must
    not be read.
    """
    moves = journal.connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM sources WHERE NOT other AND {COPIED})"
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
        reserve=reserve,
        progress=lambda done, total: progress("copying", done, total),
    )


def _open_sources(
    plan: Plan, journal: Journal, paths: Sequence[Place], others: Sequence[Place]
) -> dict[int, Source]:
    opened: list[Source] = []
    for path in paths:
        # In its own folder the manifest is what prepare wrote before; only one of somebody else's
        # counts.
        in_place = path == plan.folder
        opened.append(
            StoredFolder(path, plan.by_folder, plan.exclude)
            if isinstance(path, str)
            else open_source(
                path,
                by_folder=plan.by_folder,
                manifest=_keep_earlier(path) if in_place else MANIFEST,
                without=None if in_place else plan.folder,
                exclude=plan.exclude,
            )
        )
    opened += [
        StoredFolder(path) if isinstance(path, str) else open_source(path) for path in others
    ]
    labels = labels_of(paths) + [""] * len(others)
    rows = [
        (spelled(path), label, source.kind, index >= len(paths))
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


def _say_what_changes(journal: Journal, paths: set[str]) -> None:
    before = {
        path for (path,) in journal.connection.execute("SELECT path FROM sources WHERE NOT other")
    }
    if gone := sorted(before - paths):
        log.warning(
            "the set was made of other sources before; it loses %s", ", ".join(map(shown, gone))
        )


def _write(plan: Plan, journal: Journal, paths: Sequence[Place], decision: Decision) -> None:
    earlier = plan.folder / EARLIER
    before = read_rows(earlier, foreign=True) if earlier.is_file() else iter(())
    rejected = ((name, reject) for name, _, reject in before if reject)
    set_files.write_manifest(journal, plan.folder / MANIFEST, rejected)
    set_files.write_set(
        plan.folder / SET,
        name=plan.name,
        title=plan.name,
        sources=list(map(spelled, paths)),
        licence=plan.licence or str(read_set(plan.folder).get("licence", "")),
        rules=plan.rules,
        resize=plan.resize,
        counts=decision.splits | decision.reasons,
    )


def _write_sheet(
    plan: Plan, journal: Journal, sources: dict[int, Source], reserve: Reserve
) -> Path | None:
    path = plan.sheet or plan.folder / FOLDER / "rejected.png"
    content = report.sheet(journal, sources, plan.rules, reserve=reserve)
    if not content:
        if plan.sheet is None:
            path.unlink(missing_ok=True)  # of an earlier time
        return None
    arrays.write_file(path, content)
    return path
