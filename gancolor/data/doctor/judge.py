"""Decide for every examined picture whether it belongs into the set, and into which split."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gancolor.data.doctor import likeness
from gancolor.data.doctor.examination import Findings
from gancolor.data.doctor.journal import OWN, Journal
from gancolor.data.doctor.likeness import Ids, name_in_set
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.source import SPLITS, donor_of, position_of, split_of
from gancolor.errors import DataError, shown
from gancolor.images import formats

# As the fields of Findings; neither hash nor signature is needed to judge.
_FINDINGS = "sha256, kind, width, height, colorfulness, chroma, spread, contrast, 0, x'', problem"
_EXAMINED = f"examined = 1 AND {OWN}"
_KEPT = f"{_EXAMINED} AND reject = ''"
_THEIRS = f"COALESCE(twin IN (SELECT id FROM pictures WHERE NOT {OWN}), 0)"
_USELESS = frozenset(("broken", "blank"))  # what cannot be compared with other pictures


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, in numbers of pictures; those of other sets are not counted.

    `reasons`: rejected ones by reason, in the order of REASONS, without zeros. `splits`: kept ones
    of train, val and test. `crossings`: those that the sources gave to one split and that count in
    another one, as they are the same as or much like a picture there, by (split given, split of the
    other). `against`: rejected because another set has them.
    """

    pictures: int
    reasons: dict[str, int]
    splits: dict[str, int]
    crossings: dict[tuple[str, str], int]
    against: int

    @property
    def kept(self) -> int:
        """How many pictures remain."""
        return sum(self.splits.values())


def decide(
    journal: Journal, rules: Rules, *, splits: tuple[float, float] = (0.1, 0.1), resized: bool
) -> Decision:
    """Set `reject`, `split` and `twin` of every examined picture; nothing is read but the journal.

    `splits`: shares of val and test in [0, 1], for pictures whose split the source does not give.
    `resized`: training gets copies. Near-duplicates and what is much like those have one split:
    also pictures that the source gives to two, of which the first by `likeness.order` decides. Of
    duplicates the first is kept; the others have it as `twin`. An interrupted call leaves a journal
    on which the next call starts over. DataError if the disk is full.
    """
    scratch = journal.path.parent / "duplicates"
    shutil.rmtree(scratch, ignore_errors=True)  # of a call that was killed
    try:
        scratch.mkdir(parents=True)
        _judge_each(journal, rules, splits, resized)
        _mark_same_files(journal)
        crowds = likeness.gather_crowds(journal, rules)
        bound = _settle(journal, rules, scratch)
        if "near-duplicate" in rules.keep:
            bound |= crowds
        _follow_twins(journal, rules)
        _fill_empty_splits(journal, splits, bound)
    except OSError as error:
        raise DataError(
            f"set's folder must have room for temporary files, got {shown(scratch)}:"
            f" {error.strerror or error}; make room and run the same command again"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return count(journal)


def judge(findings: Findings, name: str, rules: Rules, resized: bool) -> str:
    """Return the first reason (a key of REASONS) against a picture by itself, "" if there is none.

    `name` is its file name, for the suffix. `resized`: training gets a copy with another suffix.
    What `rules.keep` has is never returned; a picture kept though it is blank or gray is not asked
    for more colours.
    """
    width, height = findings.width, findings.height
    if findings.problem and not width:
        return "broken"
    told = formats.by_suffix(name)
    misnamed = told is not None and told.name != findings.kind
    found = {
        "extension": misnamed or not (resized or formats.suffix_of(name) in formats.SUFFIXES),
        "small": min(width, height) < rules.min_size,
        "shape": max(width, height) > rules.max_aspect * min(width, height),
        "blank": findings.contrast < rules.blank_contrast
        and findings.spread < rules.blank_contrast,
        "gray": rules.is_gray(findings.chroma, findings.colorfulness),
        "single-tone": rules.is_single_tone(findings.chroma, findings.spread),
    }
    first = next(
        (reason for reason, holds in found.items() if holds and reason not in rules.keep), ""
    )
    bare = "blank" if found["blank"] else "gray" if found["gray"] else ""
    return "" if bare in rules.keep and first in ("gray", "single-tone") else first


def _judge_each(journal: Journal, rules: Rules, splits: tuple[float, float], resized: bool) -> None:
    """Judge every picture by itself, and give it the split of its name. Duplicates of an earlier
    call are forgotten.
    """
    sources = {
        row[0]: row[1:]
        for row in journal.connection.execute("SELECT id, label, other FROM sources")
    }
    rules_of = (rules, replace(rules, keep=frozenset(REASONS) - _USELESS))
    for block in journal.blocks(
        f"source, name, given, reject, split, twin, {_FINDINGS}", "examined = 1", size=10_000
    ):
        changed = []
        for row in block:
            number, source, name, given = row[:4]
            label, other = sources[source]
            reason = judge(Findings(*row[7:]), name, rules_of[other], resized)
            split = given or split_of(name_in_set(label, name), *splits)
            if row[4:7] != (reason, split, None):
                changed.append((reason, split, number))
        journal.write(
            "UPDATE pictures SET reject = ?, split = ?, twin = NULL WHERE id = ?", changed
        )


def _mark_same_files(journal: Journal) -> None:
    """Note all but the first of equal files as duplicates, also where rules.keep has these: then
    `_follow_twins` takes the reason back.
    """
    found = journal.connection.execute(
        "SELECT sha256, id FROM pictures WHERE examined = 1 AND reject = '' AND sha256 IN (SELECT"
        " sha256 FROM pictures WHERE examined = 1 AND reject = '' GROUP BY sha256 HAVING COUNT(*) >"
        " 1) ORDER BY sha256"
    ).fetchall()
    order = likeness.order(journal, [row[1] for row in found])
    place = {number: place for place, number in enumerate(order)}
    twins = []
    for _, rows in itertools.groupby(found, lambda row: row[0]):
        first, *rest = sorted((row[1] for row in rows), key=place.__getitem__)
        twins += [(first, number) for number in rest]
    journal.write("UPDATE pictures SET reject = 'duplicate', twin = ? WHERE id = ?", twins)


def _settle(journal: Journal, rules: Rules, scratch: Path) -> set[int]:
    """Reject near-duplicates, and give one split to the pictures of each side.

    A side holds a picture and all that is near to it, to those, and so on. Returns the kept pictures
    that have another kept one on their side: they must stay in its split.
    """
    pairs = list(likeness.near_pictures(journal, rules, scratch))
    if not pairs:
        return set()
    left, right, same = (np.concatenate(side) for side in zip(*pairs, strict=True))
    # A picture's place in this list is its rank.
    ids = likeness.order(journal, np.unique((left, right)).tolist())
    known = _known(journal, ids)
    others = sum(known[number][1] for number in ids)  # they come first
    # The pairs as ranks, the lower one first.
    numbers = np.array(ids)
    sorter = np.argsort(numbers)
    first, second = (
        sorter[np.searchsorted(numbers, side, sorter=sorter)] for side in (left, right)
    )
    low, high = np.minimum(first, second), np.maximum(first, second)
    between_own = high >= others
    low, high, same = low[between_own], high[between_own], same[between_own]
    twins = _first_kept(low[same], high[same], len(ids)).tolist()
    if "near-duplicate" in rules.keep:
        twins = [-1] * len(ids)
    sides = _sides(low, high, len(ids))
    own = range(others, len(ids))
    side_splits: dict[int, str] = {}
    for rank in sorted(own, key=lambda rank: (twins[rank] >= 0, rank)):  # kept ones first
        side_splits.setdefault(sides[rank], known[ids[rank]][0])
    rejected = [(ids[twins[rank]], ids[rank]) for rank in own if twins[rank] >= 0]
    journal.write("UPDATE pictures SET reject = 'near-duplicate', twin = ? WHERE id = ?", rejected)
    # Also those of other sets: their twins follow them.
    split = (
        (side_splits[side], number)
        for side, number in zip(sides, ids, strict=True)
        if side in side_splits
    )
    journal.write("UPDATE pictures SET split = ? WHERE id = ?", split)
    kept = Counter(sides[rank] for rank in own if twins[rank] < 0)
    return {ids[rank] for rank in own if kept[sides[rank]] > 1}


def _known(journal: Journal, ids: list[int]) -> dict[int, tuple[str, int]]:
    """Split of each picture, and 1 if it is of another set."""
    query = (
        "SELECT p.id, p.split, s.other FROM pictures p JOIN sources s ON s.id = p.source "
        "WHERE p.id IN (SELECT value FROM json_each(?))"
    )
    return {row[0]: row[1:] for row in journal.connection.execute(query, (json.dumps(ids),))}


def _first_kept(low: Ids, high: Ids, count: int) -> Ids:
    """For each rank the lowest kept one that it is near to; -1 for those that are near to none and
    thus kept.
    """
    order = np.argsort(low, kind="stable")
    high = high[order]
    starts = np.searchsorted(low[order], np.arange(count + 1))
    twins = np.full(count, -1, np.int64)
    for rank in range(count):
        if twins[rank] < 0:
            near = high[starts[rank] : starts[rank + 1]]
            twins[near[twins[near] < 0]] = rank
    return twins


def _sides(low: Ids, high: Ids, count: int) -> list[int]:
    """For each rank the lowest one of its side, which stands for the side."""
    parents = list(range(count))
    for first, second in zip(low.tolist(), high.tolist(), strict=True):
        while parents[first] != first:
            parents[first] = first = parents[parents[first]]
        while parents[second] != second:
            parents[second] = second = parents[parents[second]]
        parents[max(first, second)] = min(first, second)
    for rank in range(count):  # a parent has a lower rank, so it is settled already
        parents[rank] = parents[parents[rank]]
    return parents


def _follow_twins(journal: Journal, rules: Rules) -> None:
    """Let what was noted as the same as one picture share what became of that one.

    Near-duplicates come first: a duplicate's first picture may be gathered in a crowd itself.
    """
    for reason in ("near-duplicate", "duplicate"):
        fate = (
            "reject = t.reject, twin = t.twin"
            if reason in rules.keep
            else "twin = COALESCE(t.twin, t.id)"
        )
        with journal.connection:
            journal.connection.execute(
                f"UPDATE pictures SET split = t.split, {fate} FROM pictures AS t "
                "WHERE t.id = pictures.twin AND pictures.reject = ?",
                (reason,),
            )


def _fill_empty_splits(journal: Journal, splits: tuple[float, float], bound: set[int]) -> None:
    """Move one picture into a split that the hash left empty (`source.donor_of`), which happens in
    sets of a few dozen pictures. `bound`: pictures that must stay on their side.
    """
    shares = {"train": 1 - sum(splits), "val": splits[0], "test": splits[1]}
    for split in SPLITS:
        donor = donor_of(split, _kept(journal), _kept(journal, "AND given = ''"))
        if donor is None or shares[split] <= 0:
            continue
        labels = dict(journal.connection.execute("SELECT id, label FROM sources"))
        rows = (
            (position_of(name_in_set(labels[source], name)), number)
            for block in journal.blocks(
                "source, name", f"{_KEPT} AND given = '' AND split = ?", (donor,)
            )
            for number, source, name in block
            if number not in bound
        )
        if moved := min(rows, default=None):
            with journal.connection:
                journal.connection.execute(
                    "UPDATE pictures SET split = ? WHERE id = ? OR twin = ? "
                    "OR (examined = 1 AND sha256 = (SELECT sha256 FROM pictures WHERE id = ?))",
                    (split, *(moved[1],) * 3),
                )


def _kept(journal: Journal, more: str = "") -> dict[str, int]:
    """Kept pictures by split."""
    query = f"SELECT split, COUNT(*) FROM pictures WHERE {_KEPT} {more} GROUP BY split"
    return dict.fromkeys(SPLITS, 0) | dict(journal.connection.execute(query).fetchall())


def count(journal: Journal) -> Decision:
    """Count what the journal says now: copying may have found more broken pictures."""
    reasons: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    crossings: Counter[tuple[str, str]] = Counter()
    against = 0
    query = (
        f"SELECT reject, given, split, {_THEIRS}, COUNT(*) FROM pictures WHERE {_EXAMINED} GROUP BY 1,"
        " 2, 3, 4"
    )
    for reason, given, split, theirs, pictures in journal.connection.execute(query):
        reasons[reason] += pictures
        splits[split] += pictures * (reason == "")
        against += pictures * theirs
        crossings[given, split] += pictures * (given not in ("", split) and not theirs)
    return Decision(
        pictures=reasons.total(),
        reasons={reason: reasons[reason] for reason in REASONS if reasons[reason]},
        splits={split: splits[split] for split in SPLITS},
        crossings={
            crossing: pictures for crossing, pictures in sorted(crossings.items()) if pictures
        },
        against=against,
    )
