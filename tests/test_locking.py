"""One process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import forkserver
import pytest

from gancolor.errors import DataError
from gancolor.runtime.files import locked

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="processes are not kept apart there"
)

HOLD = """
import sys, pathlib
from gancolor.runtime.files import locked
with locked(pathlib.Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_and_the_file_goes_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with locked(path, "first"):
        assert path.is_file()
        with pytest.raises(DataError, match="^second$"), locked(path, "second"):
            raise AssertionError("two at once")
        assert path.is_file()  # the one that was refused takes nothing away
    assert list(path.parent.iterdir()) == []
    with locked(path, "again"):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = ["-c", HOLD, str(path)]
    with forkserver.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="taken"), locked(path, "taken"):
            raise AssertionError("two at once")
        holder.kill()
        holder.wait()
        assert path.is_file()
        with locked(path, "taken"):
            pass
    assert not path.exists()


def test_a_file_that_its_holder_has_just_removed_locks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancolor.runtime import files

    path, real = tmp_path / "lock", files.fcntl.flock
    waits = []

    def lock(file: object, how: int) -> None:
        if not waits:  # between opening and locking
            path.unlink()
            waits.append(1)
        real(file, how)

    monkeypatch.setattr(files.fcntl, "flock", lock)
    with locked(path, "first"):
        with pytest.raises(DataError, match="second"), locked(path, "second"):
            raise AssertionError("two at once")


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock", "taken"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
