"""Which pictures look alike: near hashes first, then their small gray copies side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancolor.data.doctor import examination, hamming
from gancolor.data.doctor.examination import SIGNATURE
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.rules import Rules

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

# So many pictures of one hash are compared each with each. More are first gathered round a few, from
# which they differ by at most this share of what rules.near_likeness allows.
_CROWD, _CROWD_LIKENESS = 32, 0.25
# The splits that a source may state, in the order of precedence.
_GIVEN = ("test", "val", "train", "")
_BLOCK = 1 << 14  # pictures, or pairs of them, that are handled at a time
_FREE = f"examined = 1 AND reject = '' AND twin IS NULL AND LENGTH(signature) = {SIGNATURE}"


def order(journal: Journal, ids: Iterable[int]) -> list[int]:
    """Sort pictures by which of several duplicates is kept.

    Those of the other sets come first, then test, val and train, as given by the sources, then the
    larger one, then the smaller name.
    """
    query = (
        "SELECT s.other, p.given, p.width * p.height, s.label, p.name, p.id FROM pictures p JOIN"
        " sources s ON s.id = p.source WHERE p.id IN (SELECT value FROM json_each(?))"
    )
    rows = [
        row
        for block in _blocks(sorted(ids))
        for row in journal.connection.execute(query, (json.dumps(block),))
    ]
    return [row[-1] for row in sorted(rows, key=_precedence)]


def _precedence(row: tuple[int, str, int, str, str, int]) -> tuple[int, int, int, str, int]:
    other, given, area, label, name, number = row
    return -other, _GIVEN.index(given), -area, name_in_set(label, name), number


def name_in_set(label: str, name: str) -> str:
    """What a picture is called among those of all sources; its hash decides the split."""
    return f"{label}/{name}" if label else name


def gather_crowds(journal: Journal, rules: Rules) -> set[int]:
    """Find hashes that many pictures have, and note all but a few of these as near-duplicates of
    those few.

    So the work grows with the number of pictures and not with its square where one picture is there
    100,000 times. Returns those noted and those few.
    """
    gathered: set[int] = set()
    limit = 1 - (1 - rules.near_likeness) * _CROWD_LIKENESS
    crowds = journal.connection.execute(
        f"SELECT hash FROM pictures WHERE {_FREE} GROUP BY hash HAVING COUNT(*) > {_CROWD}"
    ).fetchall()
    for (value,) in crowds:
        found = journal.connection.execute(
            f"SELECT id FROM pictures WHERE hash = ? AND {_FREE}", (value,)
        )
        ids = order(journal, (row[0] for row in found))
        leaders = _leaders(_vectors(_signatures(journal, ids)), limit)
        twins = [
            (ids[leader], one)
            for one, leader in zip(ids, leaders, strict=True)
            if ids[leader] != one
        ]
        journal.write("UPDATE pictures SET reject = 'near-duplicate', twin = ? WHERE id = ?", twins)
        gathered.update(*twins)
    return gathered


def near_pictures(
    journal: Journal, rules: Rules, scratch: Path
) -> Iterator[tuple[Ids, Ids, NDArray[np.bool_]]]:
    """All pairs of pictures without a fault that must fall into one split, and which are
    near-duplicates, in blocks.

    `scratch`: a folder for files of about 30 bytes a picture, and 256 more for each with a near
    hash; the caller removes it. OSError if there is no room for them.
    """
    groups = _Groups(journal, scratch)
    involved = np.zeros(groups.size, np.bool_)
    with (scratch / "pairs.bin").open("wb") as file:
        for left, right, mirrored in groups.candidates(rules.near_distance, scratch):
            involved[left] = involved[right] = True
            np.stack((left, right, mirrored), axis=1).astype(np.int32).tofile(file)
        size = file.tell() // 12
    if not size:
        return
    pairs = np.memmap(scratch / "pairs.bin", np.int32, "r", shape=(size, 3))
    places = np.flatnonzero(involved)
    signatures = hamming.allocated(scratch / "signatures.bin", (len(places), SIGNATURE), np.uint8)
    # By rising ids, as they lie in the journal.
    for block in _blocks(np.argsort(groups.ids[places])):
        signatures[block] = _signatures(journal, groups.ids[places[block]].tolist())
    for start in range(0, size, _BLOCK):
        left, right, mirrored = pairs[start : start + _BLOCK].T
        first = signatures[np.searchsorted(places, left)]
        second = signatures[np.searchsorted(places, right)]
        likeness = correlation(first, second, mirrored.astype(np.bool_))
        alike = likeness >= min(rules.side_likeness, rules.near_likeness)
        if alike.any():
            yield (
                groups.ids[left[alike]],
                groups.ids[right[alike]],
                likeness[alike] >= rules.near_likeness,
            )


def correlation(
    first: NDArray[np.uint8], second: NDArray[np.uint8], mirrored: NDArray[np.bool_]
) -> Vectors:
    """Correlation in [-1, 1] of signatures, row by row, (N, 256) each; where `mirrored` (N), with
    the mirrored one.
    """
    second = np.where(mirrored[:, None], examination.mirrored(second), second)
    return np.asarray(np.einsum("ij,ij->i", _vectors(first), _vectors(second)), np.float32)


class _Groups:
    """Pictures without a fault in the order of their hashes: equal ones side by side."""

    def __init__(self, journal: Journal, scratch: Path) -> None:
        found = journal.connection.execute(
            f"SELECT hash, id FROM pictures WHERE {_FREE} ORDER BY hash, id"
        )
        names = [scratch / f"{name}.bin" for name in ("ids", "hashes", "starts")]
        self.size, last = 0, None
        with (
            names[0].open("wb") as ids,
            names[1].open("wb") as hashes,
            names[2].open("wb") as starts,
        ):
            while rows := found.fetchmany(_BLOCK):
                block = np.array(rows, np.int64)
                new = np.diff(block[:, 0], prepend=block[0, 0]) != 0
                new[0] = last is None or block[0, 0] != last
                block[:, 1].tofile(ids)
                block[new, 0].tofile(hashes)
                (np.flatnonzero(new) + self.size).tofile(starts)
                self.size, last = self.size + len(block), block[-1, 0]
            np.array([self.size]).tofile(starts)
        self.ids, self._hashes, self._starts = (_mapped(path) for path in names)

    def candidates(self, distance: int, scratch: Path) -> Iterator[hamming.Pairs]:
        """Pairs of positions in `ids` whose hashes are near, plain or mirrored, in blocks."""
        count = len(self._hashes)
        for start in range(0, count, _BLOCK):
            groups = np.arange(start, min(start + _BLOCK, count))
            yield from self._members(groups, groups, np.zeros(len(groups), np.bool_))
        hashes = self._hashes.view(np.uint64)
        for left, right, mirrored in hamming.near_pairs(
            hashes, distance, examination.MIRROR, scratch
        ):
            yield from self._members(left, right, mirrored)

    def _members(
        self, left: Ids, right: Ids, mirrored: NDArray[np.bool_]
    ) -> Iterator[hamming.Pairs]:
        """Every picture of the left group with every one of the right; within one group, with those
        behind it.
        """
        for number, first in hamming.expanded(
            np.arange(len(left)), self._starts[left], self._starts[left + 1]
        ):
            begins = np.where(left[number] == right[number], first + 1, self._starts[right[number]])
            ends = self._starts[right[number] + 1]
            for index, second in hamming.expanded(np.arange(len(number)), begins, ends):
                yield first[index], second, mirrored[number[index]]


def _mapped(path: Path) -> Ids:
    return np.memmap(path, np.int64, "r") if path.stat().st_size else np.empty(0, np.int64)


def _signatures(journal: Journal, ids: Sequence[int]) -> NDArray[np.uint8]:
    """Signatures of the pictures, in the order of `ids`: uint8 (N, 256)."""
    found: dict[int, bytes] = {}
    for block in _blocks(ids):
        query = "SELECT id, signature FROM pictures WHERE id IN (SELECT value FROM json_each(?))"
        found.update(journal.connection.execute(query, (json.dumps(block),)))
    return np.frombuffer(b"".join(found[one] for one in ids), np.uint8).reshape(-1, SIGNATURE)


def _blocks(ids: Any) -> Iterator[Any]:
    return (ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK))


def _vectors(signatures: NDArray[np.uint8]) -> Vectors:
    """Signatures as vectors of length 1 whose product is their correlation; flat ones are like each
    other alone.
    """
    vectors = signatures.astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = lengths[:, 0] < 1e-3
    vectors[flat], lengths[flat] = SIGNATURE**-0.5, 1
    return np.asarray(vectors / lengths, np.float32)


def _leaders(vectors: Vectors, limit: float) -> Ids:
    """For each row the first leader that it is like (correlation of at least `limit`); rows like
    none lead.
    """
    leaders = np.full(len(vectors), -1, np.int64)
    found: list[int] = []
    for start in range(0, len(vectors), 1024):
        block = np.arange(start, min(start + 1024, len(vectors)))
        for part in _blocks(found):
            alike = vectors[block] @ vectors[part].T >= limit
            open_ = (leaders[block] < 0) & alike.any(axis=1)
            leaders[block[open_]] = np.asarray(part)[alike[open_].argmax(axis=1)]
        for row in block:
            if leaders[row] >= 0:
                continue
            leaders[row] = row
            found.append(int(row))
            rest = np.arange(row + 1, block[-1] + 1)
            alike_rest = rest[(leaders[rest] < 0) & (vectors[rest] @ vectors[row] >= limit)]
            leaders[alike_rest] = row
    return leaders
