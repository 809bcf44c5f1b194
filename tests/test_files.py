"""What may be opened, and names that fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gancolor.runtime.files import LONGEST_NAME, fitted, stat_regular, write_whole, written


def test_only_regular_files_may_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"four")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert (
        stat_regular(tmp_path / "a.jpg").st_size
        == stat_regular(str(tmp_path / "link.jpg")).st_size
        == 4
    )
    for name, words in (
        ("pipe.jpg", "it is a pipe, not a regular file"),
        ("zero.jpg", "it is a device, not a regular file"),
        (".", "Is a directory"),
        ("gone.jpg", "No such file or directory"),
        ("a\0b.jpg", "its name cannot be one of a file"),
    ):
        with pytest.raises(OSError) as raised:
            stat_regular(tmp_path / name)
        assert words in str(raised.value.strerror)


@pytest.mark.parametrize("letter", ["a", "é", "写", "\U0001f600", "\udce9"])
def test_a_long_name_is_cut_between_letters(letter: str) -> None:
    name = fitted(letter * 300, "-2.jpg")
    assert name.endswith("-2.jpg") and name.startswith(letter)
    assert LONGEST_NAME - 4 < len(os.fsencode(name)) <= LONGEST_NAME
    assert set(name[:-6]) == {letter}
    assert fitted("photo", "-2.jpg") == "photo-2.jpg"


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "a.txt", tmp_path / "before.txt"
    write_whole(path, "first é")
    assert path.read_bytes() == "first é".encode()
    with written(path, keep=before) as file:
        file.write(b"second")
        assert path.read_bytes() == "first é".encode()
    assert (path.read_bytes(), before.read_bytes()) == (b"second", "first é".encode())
    with pytest.raises(KeyboardInterrupt), written(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"third")
    assert path.read_bytes() == b"second"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.txt", "before.txt"]
