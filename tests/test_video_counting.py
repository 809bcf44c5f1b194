"""Frames that went missing without an error are told, and a whole film gives no false alarm."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

import clips

from gancolor.video.decoding import FilmReader
from gancolor.video.probe import probe, shortfall

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("film.mp4", {}),
    ("film.mkv", {"b_frames": 2}),
    ("film.avi", {"codec": "mpeg4", "b_frames": 2}),
    ("film.avi", {"codec": "libx264", "b_frames": 2}),
    ("film.webm", {}),
    ("film.ts", {}),
    ("film.mkv", {"codec": "libvpx"}),
]


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_whole_film_and_its_parts_give_no_warning(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = clips.film(tmp_path / name, frames=60, **options)
    with FilmReader(path) as reader:
        times = [frame.pts for frame in reader]
    assert len(times) == 60
    assert shortfall(path, reader.info, None, None, 60) is None
    for first, until in ((times[20], None), (times[1], times[13]), (None, times[31])):
        shown = sum(
            (first is None or time >= first) and (until is None or time < until) for time in times
        )
        assert shortfall(path, reader.info, first, until, shown) is None


@pytest.mark.parametrize(("name", "options"), KINDS[:-1])
def test_missing_frames_are_told(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = clips.film(tmp_path / name, frames=60, **options)
    with FilmReader(path) as reader:
        times = [frame.pts for frame in reader]
    line = shortfall(path, reader.info, None, None, 59)
    assert (
        line is not None
        and line.startswith("WARNING: frames are missing: 59 came of the 60")
        and "\n" not in line
    )
    assert shortfall(path, reader.info, times[20], None, 30) is not None
    assert shortfall(path, reader.info, times[20], times[40], 12) is not None


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_missing_frames_of_an_interlaced_film_are_told(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    path = clips.film(
        tmp_path / f"film{suffix}", codec=codec, frames=40, interlaced=True, b_frames=2
    )
    info = probe(path)
    assert info.interlaced
    assert shortfall(path, info, None, None, 40) is None
    assert "frames are missing: 37 came of the 40" in (shortfall(path, info, None, None, 37) or "")


@pytest.mark.parametrize("rate", [25, 50])
def test_two_fields_in_packets_of_their_own_are_one_frame(
    rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.film(tmp_path / "film.ts", codec="libx264", frames=40, interlaced=True)
    info = dataclasses.replace(probe(path), rate=Fraction(rate))  # FFmpeg may count fields
    fields = [info.start_pts + 1800 * number for number in range(80)]
    monkeypatch.setattr("gancolor.video.probe._times", lambda path, info: (fields, False))
    assert shortfall(path, info, None, None, 40) is None
    assert shortfall(path, info, None, None, 39) is not None
