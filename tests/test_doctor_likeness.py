"""Pictures that look alike: precedence, correlation, crowds of one hash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from journals import add, blended

from gancolor.data.doctor import examination, likeness
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.rules import Rules

RULES = Rules(near_distance=6, near_likeness=0.97, side_likeness=0.97)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return an empty journal with the sources 1 and, of another set, 2."""
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.set_sources(
            [("/mine", "", "folder", False), ("/theirs", "theirs", "folder", True)]
        ) == [1, 2]
        yield journal


def undecided(journal: Journal) -> None:
    """Call no picture rejected."""
    journal.write("UPDATE pictures SET reject = '', split = 'train'", [()])


def pairs(journal: Journal, tmp_path: Path) -> set[frozenset[int]]:
    """The pairs that look alike; each is found once."""
    blocks = list(likeness.near_pictures(journal, RULES, tmp_path))
    assert all(same.all() for _, _, same in blocks)  # the two thresholds are one in RULES
    found = [
        frozenset(pair)
        for left, right, _ in blocks
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    return set(found)


def test_order_is_other_sets_then_given_splits_then_area_then_name(journal: Journal) -> None:
    hashed = add(journal, "b", width=900)
    large, small_a, small_b = (
        add(journal, "z", given="train", width=200),
        add(journal, "c", given="train"),
        None,
    )
    small_b = add(journal, "d", given="train")
    val, test = add(journal, "e", given="val"), add(journal, "f", given="test", width=10)
    other = add(journal, "z", source=2, width=10)
    expected = [other, test, val, large, small_a, small_b, hashed]
    assert likeness.order(journal, reversed(expected)) == expected


def test_correlation_of_signatures() -> None:
    random = np.random.default_rng(0)
    first = random.integers(20, 200, size=(4, 256), dtype=np.uint8)
    second = first.copy()
    second[1] = first[1] // 2 + 7  # darker, with less contrast
    second[2] = examination.mirrored(first[2])
    second[3] = random.integers(20, 200, size=256)
    plain = likeness.correlation(first, second, np.zeros(4, np.bool_))
    assert plain[:2] == pytest.approx([1, 1], abs=1e-3)
    assert np.abs(plain[2:]).max() < 0.3
    expected = np.corrcoef(first[3].astype(float), second[3].astype(float))[0, 1]
    assert plain[3] == pytest.approx(expected, abs=1e-5)
    assert likeness.correlation(first, second, np.ones(4, np.bool_))[2] == pytest.approx(
        1, abs=1e-5
    )


def test_flat_signatures_are_like_each_other_only() -> None:
    flat, other = np.full((1, 256), 9, np.uint8), np.arange(256, dtype=np.uint8)[None]
    no = np.zeros(1, np.bool_)
    assert likeness.correlation(flat, flat + 30, no) == pytest.approx(1)
    assert likeness.correlation(flat, other, no) == pytest.approx(0, abs=1e-5)


def test_near_duplicates_need_near_hashes_and_like_signatures(
    journal: Journal, tmp_path: Path
) -> None:
    one = add(journal, "one", hash=0)
    near = add(journal, "near", like="one", hash=0b111111)
    add(journal, "far", like="one", hash=0b1111111 << 20)
    add(journal, "unlike", hash=1)
    turned = np.frombuffer(blended("one", "one", 0), np.uint8).reshape(16, 16)[:, ::-1].tobytes()
    mirror = add(journal, "mirrored", hash=examination.MIRROR ^ 1, signature=turned)
    add(journal, "mirrored hash only", like="one", hash=examination.MIRROR)
    undecided(journal)
    assert pairs(journal, tmp_path) == {
        frozenset((one, near)),
        frozenset((one, mirror)),
        frozenset((near, mirror)),
    }


def test_rejected_and_unread_pictures_look_like_none(journal: Journal, tmp_path: Path) -> None:
    add(journal, "good", like="x")
    gray, _ = add(journal, "gray", like="x"), add(journal, "new", like="x", examined=0)
    add(journal, "broken", like="x", signature=b"")
    undecided(journal)
    journal.write("UPDATE pictures SET reject = 'gray' WHERE id = ?", [(gray,)])
    assert pairs(journal, tmp_path) == set()


def test_pictures_of_equal_hash_are_compared_each_with_each(
    journal: Journal, tmp_path: Path
) -> None:
    alike = [add(journal, f"a{number}", like="a") for number in range(4)]
    add(journal, "b", hash=examination.to_unsigned(_hash(journal, alike[0])))
    undecided(journal)
    assert pairs(journal, tmp_path) == {frozenset((i, j)) for i in alike for j in alike if i < j}


def test_a_crowd_gathers_round_its_first(journal: Journal, tmp_path: Path) -> None:
    crowd = [add(journal, f"{number:03}", like="a") for number in range(99)]
    large = add(journal, "x", like="a", width=500)
    value = examination.to_unsigned(_hash(journal, large))
    others = [add(journal, f"other {number}", hash=value) for number in range(3)]
    close = add(journal, "close", hash=value, signature=blended("a", "b", 0.15))
    alone = [add(journal, f"alone {number}", like="alone") for number in range(2)]
    undecided(journal)
    likeness.gather_crowds(journal, RULES)
    twins = dict(
        journal.connection.execute("SELECT id, twin FROM pictures WHERE reject = 'near-duplicate'")
    )
    assert twins == dict.fromkeys(crowd, large)
    # What is left is compared as ever.
    assert pairs(journal, tmp_path) == {frozenset((large, close)), frozenset(alone)}
    assert not {*others, close} & set(twins)


def test_a_crowd_is_gathered_in_blocks() -> None:
    random = np.random.default_rng(0)
    looks = np.linalg.qr(random.normal(size=(256, 256)))[0].astype(np.float32)[:5]
    which = random.integers(5, size=3000)
    leaders = likeness._leaders(looks[which], 0.9)
    first = [int(np.flatnonzero(which == look)[0]) for look in range(5)]
    assert leaders.tolist() == [first[look] for look in which]


def _hash(journal: Journal, number: int) -> int:
    return int(
        journal.connection.execute("SELECT hash FROM pictures WHERE id = ?", (number,)).fetchone()[
            0
        ]
    )
