"""near_pairs against comparing each hash with each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gancolor.data.doctor import examination, likeness
from gancolor.data.doctor.likeness import Hashes, near_pairs

MIRROR = examination.MIRROR


def neighbours(count: int, seed: int = 0, farthest: int = 9) -> Hashes:
    """Make hashes of which each has another that differs in up to `farthest` bits; some are
    mirrored.
    """
    random = np.random.default_rng(seed)
    hashes = np.tile(random.integers(2**64, size=count // 2, dtype=np.uint64), 2)
    for index in range(len(hashes) // 2):
        for place in random.choice(64, random.integers(farthest + 1), replace=False):
            hashes[index] ^= np.uint64(1) << np.uint64(place)
        if index % 3 == 0:
            hashes[index] ^= np.uint64(MIRROR)
    return random.permutation(hashes)


def by_comparing(hashes: Hashes, distance: int, mirror: int) -> set[tuple[int, int, bool]]:
    """All near pairs, by comparing each with each."""
    found = set()
    for flip in (0, mirror) if mirror else (0,):
        near = np.bitwise_count(hashes[:, None] ^ hashes ^ np.uint64(flip)) <= distance
        found |= {
            (int(i), int(j), flip != 0) for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True)
        }
    return found


def listed(
    hashes: Hashes, distance: int, mirror: int = 0, scratch: Path | None = None
) -> list[tuple[int, int, bool]]:
    """What near_pairs yields, in one list."""
    blocks = near_pairs(hashes, distance, mirror, scratch)
    return [
        pair for block in blocks for pair in zip(*(side.tolist() for side in block), strict=True)
    ]


@pytest.mark.parametrize("distance", range(8))
def test_near_pairs_are_those_of_comparing_each_with_each(distance: int) -> None:
    hashes = neighbours(600, seed=distance)
    found = listed(hashes, distance, MIRROR)
    assert set(found) == by_comparing(hashes, distance, MIRROR)
    assert len(found) == len(set(found))
    assert {mirrored for *_, mirrored in found} == {False, True}


@pytest.mark.parametrize("seed", range(20))
def test_seven_bits_are_found_wherever_they_lie(seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(2**64, size=5000, dtype=np.uint64)
    places = random.permuted(np.tile(np.arange(64), (2500, 1)), axis=1)[:, :7].astype(np.uint64)
    hashes[2500:] = hashes[:2500] ^ np.bitwise_or.reduce(np.uint64(1) << places, axis=1)
    assert set(listed(hashes, 7)) >= {(index, index + 2500, False) for index in range(2500)}
    assert not listed(hashes, 6)


@pytest.mark.parametrize("distance", range(8))
def test_chunks_lose_no_pair(distance: int) -> None:
    chunks = likeness._CHUNKS[distance]
    assert sum(width for width, _ in chunks) == 64
    assert sum(bits + 1 for _, bits in chunks) == distance + 1


def test_equal_hashes_are_near_each_other_once() -> None:
    assert sorted(listed(np.full(5, 2**63 + 5, np.uint64), 6, MIRROR)) == [
        (i, j, False) for i in range(5) for j in range(i + 1, 5)
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_hashes_have_no_pairs(count: int) -> None:
    assert listed(np.zeros(count, np.uint64), 7, MIRROR) == []


def test_small_blocks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = neighbours(300)
    expected = sorted(listed(hashes, 7, MIRROR))
    monkeypatch.setattr(likeness, "ROWS", 7)
    monkeypatch.setattr(likeness, "CANDIDATES", 5)
    assert sorted(listed(hashes, 7, MIRROR)) == expected


def test_scratch_files_are_removed_also_when_one_stops_early(tmp_path: Path) -> None:
    hashes = neighbours(300)
    assert sorted(listed(hashes, 6, MIRROR, tmp_path)) == sorted(listed(hashes, 6, MIRROR))
    assert list(tmp_path.iterdir()) == []
    blocks = near_pairs(hashes, 6, MIRROR, tmp_path)
    next(blocks)
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {8 * len(hashes)}
    blocks.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("distance", [-1, 8])
def test_other_distances_are_refused(distance: int) -> None:
    with pytest.raises(ValueError, match=f"distance must be 0 to 7, got {distance}"):
        listed(np.zeros(2, np.uint64), distance)


def test_expanded_lists_every_row_with_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "CANDIDATES", 3)
    rows, begins, ends = (
        np.array(numbers) for numbers in ([4, 9, 6, 7], [0, 5, 2, 1], [2, 5, 8, 2])
    )
    blocks = list(likeness.expanded(rows, begins, ends))
    found = [
        pair for block in blocks for pair in zip(*(side.tolist() for side in block), strict=True)
    ]
    assert found == [(4, 0), (4, 1), (6, 2), (6, 3), (6, 4), (6, 5), (6, 6), (6, 7), (7, 1)]
    assert len(blocks) > 1


def test_scratch_files_have_no_holes(tmp_path: Path) -> None:
    """A file that a full disk has no room for must be refused when it is made, not when it is
    written into.
    """
    made = likeness.allocated(tmp_path / "it.bin", (5000, 256), np.uint8)
    status = (tmp_path / "it.bin").stat()
    assert made.shape == (5000, 256) and not made.any() and status.st_size == 1_280_000
    assert status.st_blocks * 512 >= status.st_size
