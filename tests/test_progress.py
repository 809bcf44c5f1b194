"""How far something is, where there is no terminal."""

from __future__ import annotations

import time

import pytest

from gancolor.cli import progress
from gancolor.cli.progress import ProgressDisplay, duration


def wait_for(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    told = ""
    while words not in told:
        time.sleep(0.005)
        told += capsys.readouterr().err
    return told


def test_a_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = ProgressDisplay("file")
    assert lines.line() == "0 files"
    lines.show("looking", 0, 1000)
    clock[0] += 120
    lines.show("looking", 50, 1000)
    assert lines.line() == "looking: 50 of 1,000 files, 25 a minute, about 38 min left"
    lines.show("copying", 10, None)
    assert lines.line() == "copying: 10 files"
    bytes_ = ProgressDisplay("B")
    bytes_.show("", 0, 5_000_000)
    clock[0] += 60
    bytes_.show("", 2_000_000, 5_000_000)
    assert bytes_.line() == "2 of 5 MB, 2 a minute, about 90 s left"


def test_lines_come_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with ProgressDisplay("file") as lines:
        lines.show("", 3, 9)
        wait_for("3 of 9 files", capsys)
    with ProgressDisplay("picture") as bars:
        bars.show("looking", 2, 4)
        wait_for("looking: 2 of 4 pictures", capsys)
    capsys.readouterr()
    with ProgressDisplay("file", speaks=False) as lines:
        lines.show("", 3, 9)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (36_000, "10.0 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
