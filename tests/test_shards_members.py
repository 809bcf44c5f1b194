"""Where pictures lie in a shard."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shard_sets import jpeg, write_tar

from gancolor.data.shard_listing import find_members
from gancolor.errors import DataError


def test_a_damaged_header_does_not_end_a_shard_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, [(f"{number}.jpg", jpeg(number)) for number in range(4)])
    whole = path.read_bytes()
    assert [member.key for member in find_members(path)] == ["0", "1", "2", "3"]
    header = whole.index(b"2.jpg")
    for damaged in (whole[: header + 110] + b"x" + whole[header + 111 :], whole[: header + 200]):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match="shard must be a readable tar file, got .*0.tar: .*header is damaged"
        ):
            find_members(path)


@pytest.mark.skipif(os.name == "nt", reason="pipes in folders")
def test_a_shard_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.tar")
    with pytest.raises(
        DataError, match="shard must be a readable tar file, got .*0.tar: .*it is a pipe"
    ):
        find_members(tmp_path / "0.tar")
