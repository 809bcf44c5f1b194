"""Find all pairs among millions of perceptual hashes that differ in few bits, exactly, in little
memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

# Handled at a time: so many rows fit into the processor's cache, so many candidates into memory.
_ROWS, _CANDIDATES = 1 << 16, 1 << 20


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
        for start in range(0, count, _CANDIDATES):
            keys = self._keys(hashes[start : start + _CANDIDATES])
            self._order[start : start + len(keys)] = keys << np.uint64(32) | np.arange(
                start, start + len(keys), dtype=np.uint64
            )
        self._order.sort()
        self.hashes = self._array("hashes", count, scratch)
        for start in range(0, count, _CANDIDATES):
            self.hashes[start : start + _CANDIDATES] = hashes[
                self.positions(slice(start, start + _CANDIDATES))
            ]
        self._starts = np.empty((1 << chunk.width) + 1, np.uint32)
        for start in range(0, len(self._starts), _CANDIDATES):
            keys = np.arange(start, min(start + _CANDIDATES, len(self._starts)), dtype=np.uint64)
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
        for start in range(0, count, _ROWS):
            rows = np.arange(start, min(start + _ROWS, count))
            keys = self._keys(self.hashes[start : start + _ROWS]).astype(np.int64)
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
        for start in range(0, size, _CANDIDATES):
            file.write(bytes(min(_CANDIDATES, size - start)))
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
        last = max(first + 1, int(np.searchsorted(totals, done + _CANDIDATES)))
        counts = ends[first:last] - begins[first:last]
        size = int(totals[last - 1]) - done
        if size:
            shifts = begins[first:last] - (totals[first:last] - counts - done)
            yield np.repeat(rows[first:last], counts), np.arange(size) + np.repeat(shifts, counts)
        first, done = last, int(totals[last - 1])
