"""Which pictures look alike: near hashes first, then their small gray copies side by side.

`near_pairs` finds all pairs among millions of perceptual hashes that differ in few bits, exactly
and in little memory; `near_pictures` asks of each pair how much the copies correlate.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancolor.data.doctor import examination
from gancolor.data.doctor.examination import SIGNATURE
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.rules import Rules

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]
Pairs = tuple[Positions, Positions, NDArray[np.bool_]]

# The 64 bits are cut into three chunks, lowest first: (width, bits that may differ). Hashes that
# differ in at most `distance` bits in all keep to the second number in at least one chunk, because
# those numbers plus one add up to distance + 1. -1: the chunk is not needed. The widths balance the
# work for about ten million hashes.
_CHUNKS = (
    ((22, 0), (21, -1), (21, -1)),
    ((22, 0), (21, 0), (21, -1)),
    ((22, 0), (21, 0), (21, 0)),
    ((22, 1), (21, 0), (21, 0)),
    ((22, 1), (21, 1), (21, 0)),
    ((22, 1), (21, 1), (21, 1)),
    ((24, 2), (20, 1), (20, 1)),
    ((22, 2), (22, 2), (20, 1)),
)
MAX_DISTANCE = len(_CHUNKS) - 1
"""Largest distance in bits that can be asked for."""

ROWS, CANDIDATES = 1 << 16, 1 << 20
"""Handled at a time: so many rows fit into the processor's cache, so many candidates into memory."""


class _Chunk(NamedTuple):
    """Some neighbouring bits of a hash: the lowest one's place, how many they are, and in how many of
    them near hashes may differ (-1: the chunk is not needed).
    """

    shift: int
    width: int
    bits: int


def near_pairs(
    hashes: Hashes, distance: int, mirror: int = 0, scratch: Path | None = None
) -> Iterator[Pairs]:
    """All pairs that differ in at most `distance` bits, and those that do when one is mirrored,
    each pair once.

    `hashes`: uint64 (N,), which may be a memory map; best without repetitions, for N equal ones are
    N * N / 2 pairs. `distance`: 0 to 7. `mirror`: the bits in which a mirrored picture's hash
    differs; 0 looks for no mirrored ones. Yields (i, j, mirrored) in blocks, i and j int64
    positions, i < j. `scratch`: a folder for two files of 8 N bytes each instead of memory, which
    are removed at the end.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance must be 0 to {MAX_DISTANCE}, got {distance}")
    if len(hashes) < 2:
        return
    chunks = _chunks(distance, len(hashes))
    for number, chunk in enumerate(chunks):
        if chunk.bits < 0:
            continue
        with _Sorted(hashes, chunk, scratch) as table:
            for flip in (0, mirror) if mirror else (0,):
                flipped = flip >> chunk.shift & (1 << chunk.width) - 1
                masks = sorted(flipped ^ mask for mask in _masks(chunk))
                for left, right in table.candidates(masks):
                    yield from _near(table, left, right, distance, flip, chunks[:number])


def _chunks(distance: int, count: int) -> list[_Chunk]:
    """The chunks for `count` hashes."""
    # Few hashes need only some of a chunk's bits: the table that leads to them is then small, and
    # no pair is lost, for some of the bits never differ more than all.
    most = count.bit_length() + 1
    widths = [width for width, _ in _CHUNKS[distance]]
    shifts = [0, *itertools.accumulate(widths)]
    return [
        _Chunk(shift, min(width, most), bits)
        for shift, (width, bits) in zip(shifts, _CHUNKS[distance], strict=False)
    ]


def _masks(chunk: _Chunk) -> list[int]:
    """In which of a chunk's bits two near hashes can differ: every choice of them as a number."""
    return [
        sum(1 << place for place in places)
        for count in range(chunk.bits + 1)
        for places in itertools.combinations(range(chunk.width), count)
    ]


def _near(
    table: _Sorted,
    left: Positions,
    right: Positions,
    distance: int,
    flip: int,
    before: list[_Chunk],
) -> Iterator[Pairs]:
    """Those of the candidates (pairs of rows of the table) that are near, without those that a chunk
    `before` this one has found.
    """
    differing = table.hashes[left] ^ table.hashes[right]
    if flip:
        differing ^= np.uint64(flip)
    hits = np.flatnonzero(np.bitwise_count(differing) <= distance)
    for chunk in before:
        part = differing[hits] >> np.uint64(chunk.shift) & np.uint64((1 << chunk.width) - 1)
        hits = hits[np.bitwise_count(part).astype(np.int64) > chunk.bits]
    if len(hits):
        first, second = table.positions(left[hits]), table.positions(right[hits])
        yield np.minimum(first, second), np.maximum(first, second), np.full(len(hits), flip != 0)


class _Sorted:
    """Hashes sorted by the bits of one chunk, the key, with a table of where each key begins."""

    def __init__(self, hashes: Hashes, chunk: _Chunk, scratch: Path | None) -> None:
        self._files: list[Path] = []
        self._shift, self._mask = np.uint64(chunk.shift), np.uint64((1 << chunk.width) - 1)
        count = len(hashes)
        # Key and position in one number, so that it can be sorted where it lies.
        self._order = self._array("order", count, scratch)
        for start in range(0, count, CANDIDATES):
            keys = self._keys(hashes[start : start + CANDIDATES])
            self._order[start : start + len(keys)] = keys << np.uint64(32) | np.arange(
                start, start + len(keys), dtype=np.uint64
            )
        self._order.sort()
        self.hashes = self._array("hashes", count, scratch)
        for start in range(0, count, CANDIDATES):
            self.hashes[start : start + CANDIDATES] = hashes[
                self.positions(slice(start, start + CANDIDATES))
            ]
        self._starts = np.empty((1 << chunk.width) + 1, np.uint32)
        for start in range(0, len(self._starts), CANDIDATES):
            keys = np.arange(start, min(start + CANDIDATES, len(self._starts)), dtype=np.uint64)
            self._starts[start : start + len(keys)] = np.searchsorted(
                self._order, keys << np.uint64(32)
            )

    def __enter__(self) -> _Sorted:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._files:
            path.unlink(missing_ok=True)

    def positions(self, rows: Positions | slice) -> Positions:
        """Where the hashes of these rows stood before they were sorted."""
        return (self._order[rows] & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def candidates(self, masks: list[int]) -> Iterator[tuple[Positions, Positions]]:
        """Pairs of rows whose keys differ exactly by one of the masks, which are sorted; in blocks."""
        count = len(self.hashes)
        for start in range(0, count, ROWS):
            rows = np.arange(start, min(start + ROWS, count))
            keys = self._keys(self.hashes[start : start + ROWS]).astype(np.int64)
            for highest, group in itertools.groupby(masks, int.bit_length):
                if highest == 0:  # in the same list: with those that come after it
                    yield from expanded(rows, rows + 1, self._starts[keys + 1].astype(np.int64))
                    continue
                # The other key is to be the larger one, so that each pair is found once.
                lower = np.flatnonzero(keys >> highest - 1 & 1 == 0)
                keys_lower = keys[lower]
                for mask in group:
                    others = keys_lower ^ mask
                    begins, ends = self._starts[others], self._starts[others + 1]
                    met = np.flatnonzero(ends > begins)
                    yield from expanded(
                        rows[lower[met]], begins[met].astype(np.int64), ends[met].astype(np.int64)
                    )

    def _keys(self, hashes: Hashes) -> Hashes:
        return hashes >> self._shift & self._mask

    def _array(self, name: str, count: int, scratch: Path | None) -> Hashes:
        if scratch is None:
            return np.empty(count, np.uint64)
        path = scratch / f"near-{name}.bin"
        self._files.append(path)
        return allocated(path, (count,), np.uint64)


def allocated(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """A new mapped file of zeros. OSError if it has no room: a hole, found full later, would kill
    the process.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with path.open("wb") as file:
        for start in range(0, size, CANDIDATES):
            file.write(bytes(min(CANDIDATES, size - start)))
    return np.memmap(path, dtype, "r+", shape=shape)


def expanded(
    rows: Positions, begins: Positions, ends: Positions
) -> Iterator[tuple[Positions, Positions]]:
    """Every row with each of its begin, ..., end - 1, as two arrays, about a million pairs at a
    time.
    """
    totals = np.cumsum(ends - begins)
    first, done = 0, 0
    while first < len(rows):
        last = max(first + 1, int(np.searchsorted(totals, done + CANDIDATES)))
        counts = ends[first:last] - begins[first:last]
        size = int(totals[last - 1]) - done
        if size:
            shifts = begins[first:last] - (totals[first:last] - counts - done)
            yield np.repeat(rows[first:last], counts), np.arange(size) + np.repeat(shifts, counts)
        first, done = last, int(totals[last - 1])


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
    signatures = allocated(scratch / "signatures.bin", (len(places), SIGNATURE), np.uint8)
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

    def candidates(self, distance: int, scratch: Path) -> Iterator[Pairs]:
        """Pairs of positions in `ids` whose hashes are near, plain or mirrored, in blocks."""
        count = len(self._hashes)
        for start in range(0, count, _BLOCK):
            groups = np.arange(start, min(start + _BLOCK, count))
            yield from self._members(groups, groups, np.zeros(len(groups), np.bool_))
        hashes = self._hashes.view(np.uint64)
        for left, right, mirrored in near_pairs(hashes, distance, examination.MIRROR, scratch):
            yield from self._members(left, right, mirrored)

    def _members(self, left: Ids, right: Ids, mirrored: NDArray[np.bool_]) -> Iterator[Pairs]:
        """Every picture of the left group with every one of the right; within one group, with those
        behind it.
        """
        for number, first in expanded(
            np.arange(len(left)), self._starts[left], self._starts[left + 1]
        ):
            begins = np.where(left[number] == right[number], first + 1, self._starts[right[number]])
            ends = self._starts[right[number] + 1]
            for index, second in expanded(np.arange(len(number)), begins, ends):
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
