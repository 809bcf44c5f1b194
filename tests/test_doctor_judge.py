"""What is rejected, what is kept, and which split it gets."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import add, blended

from gancolor.data import folder
from gancolor.data.doctor import judge, likeness
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.rules import Rules
from gancolor.data.source import SPLITS, split_of
from gancolor.errors import DataError
from gancolor.images import arrays

RULES = Rules(near_distance=6, near_likeness=0.97)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return an empty journal with the sources 1 and, of another set, 2."""
    with Journal(tmp_path / ".prepare" / "journal.sqlite") as journal:
        assert journal.set_sources(
            [("/mine", "", "folder", False), ("/theirs", "theirs", "folder", True)]
        ) == [1, 2]
        yield journal


def decided(journal: Journal, rules: Rules = RULES, **options: Any) -> Decision:
    """Decide as for pictures that are not copied."""
    return judge.decide(journal, rules, resized=False, **options)


def column(journal: Journal, name: str, where: str = "1") -> dict[int, Any]:
    """One column of all pictures, by their ids."""
    return dict(journal.connection.execute(f"SELECT id, {name} FROM pictures WHERE {where}"))


def split_names(split: str, count: int) -> list[str]:
    """Names whose hash puts them into a split."""
    names = (f"{number}.jpg" for number in itertools.count())
    return list(itertools.islice((name for name in names if split_of(name) == split), count))


def test_single_picture_reasons_come_first_and_are_not_compared(journal: Journal) -> None:
    good = add(journal, "good.jpg", like="x")
    gray = add(journal, "gray.jpg", like="x", chroma=0.1, colorfulness=0.1)
    twice = [
        add(journal, f"gray{number}.jpg", like="g", chroma=0.1, colorfulness=0.1, sha256=b"g")
        for number in (1, 2)
    ]
    broken = add(
        journal, "broken.jpg", sha256=None, width=0, height=0, signature=b"", problem="cut off"
    )
    small, named = add(journal, "small.jpg", width=20), add(journal, "wrong.png")
    decision = decided(journal)
    expected = {good: "", gray: "gray", broken: "broken", small: "small", named: "extension"}
    assert column(journal, "reject") == expected | dict.fromkeys(twice, "gray")
    assert decision.reasons == {"broken": 1, "extension": 1, "small": 1, "gray": 3}
    assert list(decision.reasons) == ["broken", "extension", "small", "gray"]
    assert (decision.pictures, decision.kept, decision.against, decision.crossings) == (7, 1, 0, {})


def test_other_rules_decide_anew_without_reading(journal: Journal) -> None:
    gray = add(journal, "gray.jpg", like="x", chroma=0.1, colorfulness=0.1)
    good = add(journal, "hood.jpg", like="x")
    decided(journal)
    assert column(journal, "reject") == {gray: "gray", good: ""}
    decided(journal, Rules(keep=frozenset({"gray"})))
    assert column(journal, "reject") == {gray: "", good: "near-duplicate"}
    assert column(journal, "twin") == {gray: None, good: gray}
    decided(journal)
    assert (column(journal, "reject"), column(journal, "twin")) == (
        {gray: "gray", good: ""},
        {gray: None, good: None},
    )


def test_what_is_not_examined_is_left_alone(journal: Journal) -> None:
    new = add(journal, "new.jpg", examined=0)
    add(journal, "old.jpg")
    assert decided(journal).pictures == 1
    assert column(journal, "reject")[new] is None


def test_of_equal_files_the_smallest_name_stays(journal: Journal) -> None:
    c, a, b = (add(journal, f"{name}.jpg", like="x", sha256=b"x") for name in "cab")
    decision = decided(journal)
    assert column(journal, "reject") == {a: "", b: "duplicate", c: "duplicate"}
    assert column(journal, "twin") == {a: None, b: a, c: a}
    assert len(set(column(journal, "split").values())) == 1
    assert decision.reasons == {"duplicate": 2}


def test_of_near_ones_the_largest_stays(journal: Journal) -> None:
    small, large = add(journal, "a.jpg", like="x"), add(journal, "b.jpg", like="x", width=120)
    decided(journal)
    assert column(journal, "twin") == {small: large, large: None}


def test_a_chain_keeps_its_ends_on_one_side(journal: Journal) -> None:
    names = iter(split_names("test", 1) + split_names("train", 20))
    first = add(journal, next(names), like="x", hash=0, width=150)
    ids = [first]
    for number in range(1, 5):  # each is near to the one before, and to no other
        ids.append(
            add(journal, next(names), like="x", hash=(1 << 5 * number) - 1, width=150 - number)
        )
    for _ in range(10):
        add(journal, next(names))
    decided(journal)
    twins = column(journal, "twin")
    assert [twins[number] for number in ids] == [None, ids[0], None, ids[2], None]
    assert {column(journal, "split")[number] for number in ids} == {"test"}


@pytest.mark.parametrize(
    ("share", "rejected", "together"), [(0.02, 1, True), (0.12, 0, True), (0.4, 0, False)]
)
def test_a_burst_is_kept_on_one_side(
    journal: Journal, share: float, rejected: int, together: bool
) -> None:
    looks = [(f"a{number}.jpg", f"b{number}.jpg") for number in range(40)]
    for number, (one, other) in enumerate(looks):
        add(journal, one, hash=number << 32)
        add(journal, other, hash=number << 32 | 3, signature=blended(one, other, share))
    assert decided(journal, Rules()).reasons.get("near-duplicate", 0) == 40 * rejected
    splits = dict(journal.connection.execute("SELECT name, split FROM pictures"))
    assert all(splits[one] == splits[other] for one, other in looks) is together


def test_twins_are_always_kept_and_near(journal: Journal) -> None:
    """A random crowd of near hashes: the rule itself, checked from outside."""
    random = np.random.default_rng(0)
    hashes = {}
    for number in range(150):
        value = sum(
            1 << int(place) for place in random.choice(64, random.integers(6), replace=False) % 20
        )
        look = str(random.integers(2))
        hashes[
            add(
                journal, f"{number}.jpg", like=look, hash=value, width=100 + int(random.integers(3))
            )
        ] = (
            value,
            look,
        )
    decided(journal)
    rejects, twins, splits = (column(journal, name) for name in ("reject", "twin", "split"))

    def near(one: int, other: int) -> bool:
        return (
            hashes[one][1] == hashes[other][1]
            and (hashes[one][0] ^ hashes[other][0]).bit_count() <= 6
        )

    kept = [number for number in hashes if not rejects[number]]
    assert 2 < len(kept) < 100
    for number, twin in twins.items():
        assert (twin is None) == (number in kept)
        assert twin is None or (twin in kept and near(number, twin))
    assert not [pair for pair in itertools.combinations(kept, 2) if near(*pair)]
    assert all(splits[i] == splits[j] for i, j in itertools.combinations(hashes, 2) if near(i, j))


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("train", "test", "test"),
        ("val", "train", "val"),
        ("test", "val", "test"),
        ("train", "", "train"),
    ],
)
def test_given_splits_decide_which_one_stays(
    journal: Journal, first: str, second: str, kept: str
) -> None:
    add(journal, "a.jpg", like="x", given=first)
    add(journal, "b.jpg", like="x", given=second)
    decision = decided(journal)
    assert column(journal, "given", "reject = ''").popitem()[1] == kept
    assert set(column(journal, "split").values()) == {kept}
    other = {first, second} - {kept, ""}
    assert decision.crossings == {(split, kept): 1 for split in other}


def test_crossings_count_every_kind_of_duplicate(journal: Journal) -> None:
    add(journal, "a.jpg", like="x", given="test", sha256=b"x")
    for number in range(3):
        add(journal, f"b{number}.jpg", like="x", given="train", sha256=b"x")
    add(journal, "c.jpg", like="x", given="train")
    # e is near to both
    for name, hash, given in (
        ("d", 0, "val"),
        ("e", 31, "val"),
        ("f", 1023, "train"),
    ):
        add(journal, f"{name}.jpg", like="y", hash=hash, given=given)
    add(journal, "g.jpg", like="y", hash=31, given="")
    assert decided(journal).crossings == {("train", "test"): 4, ("train", "val"): 1}


def test_another_set_is_searched_and_never_rejected(journal: Journal) -> None:
    theirs = add(journal, "t.jpg", source=2, like="x", width=70)
    again = add(journal, "u.jpg", source=2, like="x", sha256=b"u")
    gray = add(journal, "g.jpg", source=2, like="g", chroma=0.1, colorfulness=0.1)
    broken = add(journal, "b.jpg", source=2, width=0, height=0, signature=b"", problem="cut off")
    near = add(journal, "near.jpg", like="x", width=300)
    same = add(journal, "same.jpg", like="x", sha256=b"u", given="test")
    colour = add(journal, "colour.jpg", like="g")
    fine = add(journal, "fine.jpg")
    decision = decided(journal)
    rejects, twins = column(journal, "reject"), column(journal, "twin")
    assert (rejects[theirs], rejects[again], rejects[gray], rejects[broken]) == (
        "",
        "",
        "",
        "broken",
    )
    assert (rejects[near], rejects[same], rejects[colour]) == (
        "near-duplicate",
        "duplicate",
        "near-duplicate",
    )
    assert twins[near] in (theirs, again)
    assert (twins[same], twins[colour]) == (again, gray)
    assert (decision.pictures, decision.kept, decision.against, decision.crossings) == (4, 1, 3, {})
    assert rejects[fine] == ""


def test_the_side_of_what_another_set_connects_is_that_of_the_first_own(journal: Journal) -> None:
    add(journal, "t.jpg", source=2, like="x", hash=0b11111)
    names = [*split_names("val", 1), *split_names("train", 3)]
    middle = add(journal, names[1], like="x", hash=0b1111111111)
    far = add(journal, names[0], like="x", hash=0b111111111111111, width=200)
    add(journal, names[2]), add(journal, names[3])
    decided(journal)
    assert column(journal, "reject")[middle] == "near-duplicate"
    assert {column(journal, "split")[number] for number in (middle, far)} == {"val"}


def test_kept_duplicates_stay_on_one_side(journal: Journal) -> None:
    names = split_names("train", 40) + split_names("test", 5)
    same = [add(journal, name, like="x", sha256=b"x") for name in (names[0], names[-1])]
    near = [add(journal, name, like="y") for name in (names[1], names[-2])]
    for name in names[2:-2]:
        add(journal, name)
    decision = decided(
        journal, Rules(keep=frozenset({"duplicate", "near-duplicate"})), splits=(0.0, 0.1)
    )
    assert decision.reasons == {}
    assert set(column(journal, "twin").values()) == {None}
    splits = column(journal, "split")
    assert splits[same[0]] == splits[same[1]]
    assert splits[near[0]] == splits[near[1]]


def test_a_kept_duplicate_of_a_near_duplicate_is_near_too(journal: Journal) -> None:
    large = add(journal, "a.jpg", like="x", width=300)
    same = [add(journal, f"b{number}.jpg", like="x", sha256=b"x") for number in range(2)]
    decided(journal, Rules(keep=frozenset({"duplicate"})))
    assert column(journal, "reject") == {
        large: "",
        same[0]: "near-duplicate",
        same[1]: "near-duplicate",
    }
    assert column(journal, "twin") == {large: None, same[0]: large, same[1]: large}
    decided(journal)
    assert column(journal, "reject") == {large: "", same[0]: "near-duplicate", same[1]: "duplicate"}
    assert column(journal, "twin") == {large: None, same[0]: large, same[1]: large}


@pytest.mark.parametrize("keep", [frozenset[str](), frozenset({"near-duplicate"})])
def test_a_crowd_shares_the_fate_of_its_first(journal: Journal, keep: frozenset[str]) -> None:
    add(journal, "lone.jpg", given="val")
    add(journal, "lone too.jpg", given="test")  # no split is empty
    crowd = [add(journal, f"{number:03}.jpg", like="x", hash=0) for number in range(60)]
    copy = add(journal, "copy.jpg", like="x", hash=0, sha256=_sha(journal, crowd[30]))
    larger = add(journal, "large.jpg", like="x", hash=0b11, width=300)
    decided(journal, Rules(keep=keep))
    twins = column(journal, "twin")
    if keep:
        assert {twins[number] for number in crowd} == {None}
        assert (twins[copy], twins[larger]) == (crowd[30], None)
    else:
        assert {twins[number] for number in [*crowd, copy]} == {larger}
    assert len({column(journal, "split")[number] for number in [*crowd, copy, larger]}) == 1


def by_split(journal: Journal) -> dict[str, list[str]]:
    """The sorted names of each split."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, split in journal.connection.execute("SELECT name, split FROM pictures ORDER BY name"):
        found[split].append(name)
    return found


def plain_splits(place: Path, names: list[str]) -> dict[str, list[str]]:
    """The splits of a folder with pictures of these names."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    for name in names:
        arrays.write_rgb(place / name, pixel)
    return {split: list(folder.open_folder(place, split).paths) for split in SPLITS}


def test_splits_are_those_of_the_plain_folder(journal: Journal, tmp_path: Path) -> None:
    names = [f"some/{number}.jpg" for number in range(200)]
    for name in names:
        add(journal, name)
    decided(journal)
    assert by_split(journal) == plain_splits(tmp_path / "plain", names)
    decision = decided(journal, splits=(0.3, 0.0))
    assert decision.splits["test"] == 0
    assert 40 < decision.splits["val"] < 80


@pytest.mark.parametrize("count", [2, 3, 10])
def test_no_split_of_a_small_set_is_empty(journal: Journal, tmp_path: Path, count: int) -> None:
    names = split_names("test", count)
    for name in names:
        add(journal, name)
    decided(journal)
    found = by_split(journal)
    assert len(found["train"]) == 1 and found["test"]
    if count > 2:  # with two pictures the folder's val borrows one
        assert found == plain_splits(tmp_path / "plain", names)


def test_filling_a_split_moves_no_near_pictures_apart(journal: Journal) -> None:
    names = split_names("train", 6)
    for number, name in enumerate(names[:5]):
        add(journal, name, like="x", hash=(1 << 5 * number) - 1, width=200 - number)
    add(journal, names[5], sha256=b"z")
    again = add(journal, "z.jpg", like=names[5], sha256=b"z")
    decided(journal)
    splits = column(journal, "split")
    assert [splits[number] for number in range(1, 6)] == ["train"] * 5
    assert splits[6] == splits[again] == "val"


def test_labels_are_part_of_the_name(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.set_sources([("/a", "a", "folder", False), ("/b", "b", "zip", False)])
        for source, number in itertools.product((1, 2), range(100)):
            add(
                journal,
                f"{number}.jpg",
                source=source,
                like=f"{source} {number}",
                sha256=bytes((source, number)),
            )
        decided(journal)
        for label, name, split in journal.connection.execute(
            "SELECT label, name, split FROM pictures p JOIN sources s ON s.id = source"
        ):
            assert split == split_of(f"{label}/{name}")


def test_names_of_any_bytes(journal: Journal) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    odd, even = add(journal, name, like="x"), add(journal, "a.jpg", like="x")
    decided(journal)
    assert column(journal, "twin") == {odd: even, even: None}


def test_nothing_is_left_beside_the_journal(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        add(journal, f"{name}.jpg", like="x")
    stale = journal.path.parent / "duplicates" / "pairs.bin"
    stale.parent.mkdir()
    stale.write_bytes(b"left by a killed process")
    decided(journal)
    assert not stale.parent.exists()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(judge, "_sides", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decided(journal)
    assert not stale.parent.exists()


def test_a_full_disk_is_one_line(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        add(journal, f"{name}.jpg", like="x")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(likeness, "allocated", full)
    with pytest.raises(
        DataError, match="must have room for temporary files, got .*duplicates: No space left"
    ) as caught:
        decided(journal)
    assert "\n" not in str(caught.value) and not (journal.path.parent / "duplicates").exists()


def test_an_empty_journal(journal: Journal) -> None:
    assert decided(journal) == Decision(0, {}, {"train": 0, "val": 0, "test": 0}, {}, 0)


def _sha(journal: Journal, number: int) -> bytes:
    return bytes(column(journal, "sha256")[number])
