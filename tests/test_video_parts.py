"""The parts of a film in the making: what counts, what is passed over, what goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gancolor.errors import ConfigError, DataError
from gancolor.video import parts
from gancolor.video.parts import Checkpoint, Share

MAKING = {
    "--size": 64,
    "--from": None,
    "the encoding": {"codec": "ffv1"},
    "the film's size and date": [1, 2**60],
}
END = Checkpoint(
    frames=9,
    shots=2,
    passes=4,
    seconds=1.5,
    last_pts=9000,
    size=(64, 48),
    notes=("a note",),
    damaged=("frame 3",),
    written=True,
    memory={
        "next": 9,
        "ab": np.full((2, 3, 2), 0.1, np.float32),
        "gray": np.arange(6, dtype=np.uint8).reshape(2, 3),
    },
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = parts.folder_of(tmp_path / "out.mkv")
    parts.prepare(folder, MAKING, resume=False)
    return folder


def add(share: Share, checkpoint: Checkpoint = END) -> Path:
    path = share.next_path
    if checkpoint.written:
        path.write_bytes(b"frames")
    share.save(checkpoint)
    return path


def test_a_share_goes_on_where_it_ended(folder: Path) -> None:
    share = Share(folder, 1)
    assert share.checkpoint is None and share.paths == []
    first = add(share)
    last = add(share, dataclasses.replace(END, frames=20, done=True, memory={}))
    again = Share(folder, 1)
    assert again.paths == share.paths == [first, last]
    assert again.checkpoint == dataclasses.replace(END, frames=20, done=True, memory={})
    assert Share(folder, 0).checkpoint is None


def test_a_checkpoint_comes_back_as_it_was(folder: Path) -> None:
    add(Share(folder, 0))
    found = Share(folder, 0).checkpoint
    assert found is not None
    assert dataclasses.replace(found, memory={}) == dataclasses.replace(END, memory={})
    assert found.memory["next"] == 9 and isinstance(found.memory["next"], int)
    for name in ("ab", "gray"):
        before, after = END.memory[name], found.memory[name]
        assert isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
        assert np.array_equal(before, after) and before.dtype == after.dtype


def test_an_end_without_frames_counts_and_has_no_file(folder: Path) -> None:
    share = Share(folder, 0)
    first = add(share)
    add(share, dataclasses.replace(END, written=False, done=True))
    again = Share(folder, 0)
    assert again.paths == [first]
    assert again.checkpoint is not None and again.checkpoint.done


def test_what_is_torn_does_not_count_and_is_cleared(folder: Path) -> None:
    share, other = Share(folder, 0), Share(folder, 1)
    first, foreign = add(share), add(other)
    torn = add(share)
    torn.with_suffix(".npz").write_bytes(torn.with_suffix(".npz").read_bytes()[:50])
    (folder / ".77-ab.part").write_bytes(b"torn")
    parts.prepare(folder, MAKING, resume=True)
    again = Share(folder, 0)
    assert again.paths == [first] and again.next_path == torn
    again.clear()
    kept = {
        first,
        first.with_suffix(".npz"),
        foreign,
        foreign.with_suffix(".npz"),
        folder / "film.json",
    }
    assert set(folder.iterdir()) == kept


def test_a_missing_file_ends_the_parts(folder: Path) -> None:
    share = Share(folder, 0)
    first, second = add(share), add(share)
    add(share)
    second.unlink()
    assert Share(folder, 0).paths == [first]


def test_resuming_keeps_the_parts_and_beginning_anew_removes_them(folder: Path) -> None:
    add(Share(folder, 0))
    parts.prepare(folder, MAKING, resume=True)
    assert len(Share(folder, 0).paths) == 1
    parts.prepare(folder, MAKING, resume=False)
    assert Share(folder, 0).paths == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("--size", 128, r"--size must be .* resumed \(64\), got 128; leave out --resume"),
        ("the encoding", {"codec": "libx264"}, "the encoding must be"),
        ("--new", 1, r"--new must be .*\(None\), got 1"),
    ],
)
def test_other_settings_are_refused(folder: Path, key: str, value: object, words: str) -> None:
    add(Share(folder, 0))
    with pytest.raises(ConfigError, match=words):
        parts.prepare(folder, MAKING | {key: value}, resume=True)
    assert len(Share(folder, 0).paths) == 1


@pytest.mark.parametrize("content", [None, b"", b'{"--size": 6', b"[]"])
def test_resuming_nothing_begins_anew(folder: Path, content: bytes | None) -> None:
    add(Share(folder, 0))
    (folder / "film.json").unlink()
    if content is not None:
        (folder / "film.json").write_bytes(content)
    parts.prepare(folder, MAKING, resume=True)
    assert Share(folder, 0).paths == []
    parts.prepare(folder, MAKING, resume=True)  # and now it is there


def test_only_a_folder_without_whole_parts_is_removed_as_empty(folder: Path) -> None:
    share = Share(folder, 0)
    add(share)
    parts.remove_if_empty(folder)
    assert folder.exists()
    share.paths[0].unlink()
    parts.remove_if_empty(folder)
    assert not folder.exists()
    parts.remove_if_empty(folder)  # nothing there: nothing to do


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="must be a folder to write in, got an error") as raised:
        parts.prepare(tmp_path / "file" / ".out.mkv.parts", MAKING, resume=False)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_is_written_whole_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    share = Share(folder, 0)
    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(DataError, match="No space left on device"):
        share.save(dataclasses.replace(END, written=False))
    assert [path.name for path in folder.iterdir()] == ["film.json"]
