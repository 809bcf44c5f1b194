"""Jobs handed out by a common store: each to one process, and what a dead one held to others."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from gancolor.errors import DataError
from gancolor.runtime import handout
from gancolor.runtime.handout import Handout
from gancolor.runtime.processes import Process


@pytest.fixture
def three() -> list[Handout]:
    """What three processes have in common, here in one."""
    store = HashStore()
    each = [Handout(store, Process(rank, 3, rank)) for rank in range(3)]
    for one in each:
        one.__enter__()
    return each


def live(each: Handout) -> None:
    """A sign of life of a process."""
    assert each._store is not None
    each._store.add(f"beat/{each.process.rank}", 1)


def test_each_job_is_one_process_s_and_nobody_waits_for_another(three: list[Handout]) -> None:
    first, second, third = three
    assert first.take("0", "job 0")  # and is at it for long
    mine = [number for number in range(40) if second.take(str(number), number)]
    others = [number for number in range(40) if third.take(str(number), number)]
    assert mine == list(range(1, 40)) and not others
    assert not first.claim("7") and not second.claim("0")


def test_a_process_without_a_sign_of_life_is_gone(
    three: list[Handout], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(handout.time, "monotonic", lambda: clock)
    first, second, _ = three
    live(first)
    assert not second.is_gone(0)
    clock += handout.SILENCE - 1
    assert not second.is_gone(0)
    live(first)
    assert not second.is_gone(0)
    clock += handout.SILENCE - 1
    assert not second.is_gone(0)
    clock += 2
    assert second.is_gone(0)
    live(first)  # it only slept
    assert not second.is_gone(0)


def test_what_a_process_holds_that_is_gone_is_inherited_once(three: list[Handout]) -> None:
    first, second, third = three
    assert first.take("a", "job a") and first.take("b", "job b")
    first.settle("a", "one done")
    first.__exit__(DataError, DataError("broken"), None)
    assert second.inherited({"elsewhere"}) == []
    left = next(second.leftovers())
    assert left == [("b", "job b", 1)]
    assert third.inherited({"a", "b"}) == []
    # It ends with it, too: the next one knows that two have.
    second.__exit__(DataError, DataError("broken"), None)
    assert next(third.leftovers()) == [("b", "job b", 2)]
    third.settle("b", "two done")
    assert list(third.leftovers()) == []
    assert third.told() == ["two done", "one done"]


def test_the_last_ones_wait_for_who_is_at_work(three: list[Handout]) -> None:
    first, second, third = three
    assert first.take("a", "job a")
    looks = 0

    class Waiting:
        def __enter__(self) -> None:
            nonlocal looks
            looks += 1
            for each in three:
                live(each)
            if looks == 3:
                first.settle("a")
                first._state.idle = third._state.idle = True
                first._publish()
                third._publish()

        def __exit__(self, *_: object) -> None:
            pass

    assert list(second.leftovers(Waiting)) == [] and looks >= 3


def test_a_store_that_is_gone_is_said_in_a_line() -> None:
    class Gone(HashStore):
        def add(self, key: str, value: int) -> int:
            raise RuntimeError("Connection reset by peer\nand more")

    with pytest.raises(
        DataError, match=r"^the store of torchrun must answer, got Connection reset"
    ):
        Handout(Gone(), Process(0, 2, 0)).claim("a")


def test_one_process_needs_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with handout.begin() as alone:
        assert not alone.shared and alone.take("a", 1) and alone.take("a", 1)
        assert list(alone.leftovers()) == [] and alone.find("a") is None
    assert list(handout.leaders_list(iter("abc"))) == ["a", "b", "c"]


def test_without_torchruns_variables_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(handout, "_stores", {})
    with pytest.raises(DataError, match="MASTER_ADDR and MASTER_PORT must name .* torchrun"):
        handout.begin()
