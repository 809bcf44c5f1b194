"""Frames that are worth a key frame, films made by shots without one, and excerpts for browsers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

import clips
import test_film_keys as tests

from gancolor.errors import DataError
from gancolor.video import key_places, shot_search
from gancolor.video.excerpt import write_excerpt
from gancolor.video.key_frames import key_files, matched
from gancolor.video.parts import folder_of
from gancolor.video.probe import FilmInfo, probe
from gancolor.video.shots import Shots


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two shots; read only."""
    folder = tmp_path_factory.mktemp("filmed")
    return clips.film(folder / "in.mkv", frames=24, shots=(12,), codec="ffv1")


@pytest.fixture(scope="module")
def info(filmed: Path) -> FilmInfo:
    return probe(filmed)


def shots_of(info: FilmInfo, *counts: int) -> Shots:
    """Shots of so many frames each, in the film's time base."""
    step = round(Fraction(1, 25) / info.time_base)
    begins = [sum(counts[:number]) * step for number in range(len(counts))]
    return Shots(tuple(step * index for index in range(sum(counts))), tuple(begins))


def test_each_shot_has_its_middle_and_a_long_one_several(info: FilmInfo) -> None:
    found = key_places.choose_places(shots_of(info, 20, 4, 600), info, most=10)
    assert [place.shot for place in found] == [0, 1, 2, 2, 2]
    assert [place.name for place in found] == [
        "000000.400",
        "000000.880",
        *("000004.960", "000012.960", "000020.960"),
    ]


def test_there_are_never_more_than_so_many(info: FilmInfo) -> None:
    many = shots_of(info, 2000, 10, 1000)
    assert len(key_places.choose_places(many, info, most=5)) in (4, 5)
    short = key_places.choose_places(shots_of(info, 5, 9, 7), info, most=2)
    assert [place.shot for place in short] == [1, 2]


def test_a_frame_is_found_by_its_time(info: FilmInfo) -> None:
    shots = shots_of(info, 10, 10)
    for seconds, name, shot in (
        (-1, "000000.000", 0),
        (0.05, "000000.040", 0),
        (0.4, "000000.400", 1),
        (99, "000000.760", 1),
    ):
        place = key_places.place_near(shots, info, seconds)
        assert (place.name, place.shot) == (name, shot)


def test_its_name_is_what_a_film_takes(filmed: Path, info: FilmInfo, tmp_path: Path) -> None:
    progress: list[Any] = []
    shots = shot_search.search(filmed, tmp_path, size=48, progress=lambda *x: progress.append(x))
    assert len(shots.times) == 24 and len(shots.begins) == 2 and len(progress) == 24
    for place in key_places.choose_places(shots, info, most=10):
        (tmp_path / f"{place.name}.png").write_bytes(b"")
    named = matched(key_files(tmp_path)[0], shots.times, info, part=False)
    assert [shots.times.index(pts) for pts in named] == [6, 18]
    again = shot_search.search(filmed, tmp_path, size=48, progress=lambda *x: pytest.fail())
    assert again == shots


@pytest.mark.slow
def test_a_film_made_by_shots_is_the_same_and_only_a_keyed_shot_is_made_anew(
    filmed: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "out.mkv"
    tests.run(filmed, tmp_path / "plain.mkv")
    target.parent.mkdir()
    made = tests.run(filmed, target, by_shots=True)
    assert any("0 key frames in 0 of 2 shots; 2 made anew" in note for note in made.notes)
    assert target.read_bytes() == (tmp_path / "plain.mkv").read_bytes()
    again = tests.Fake()
    keyed = tests.run(filmed, target, again, keys=tests.with_keys(tmp_path / "keys", [6]))
    assert any("1 key frame in 1 of 2 shots; 1 made anew" in note for note in keyed.notes)
    assert folder_of(target).is_dir() and again.hints
    assert max(tests.errors(target, [6])) < 1.5 < min(tests.errors(target, [18]))


def test_an_excerpt_is_small_and_lasts_as_long(tmp_path: Path) -> None:
    made = clips.film(
        tmp_path / "in.mkv",
        frames=10,
        width=160,
        height=120,
        pts=[0, 1, 2, 4, 8, 9, 10, 11, 12, 20],
        aspect=Fraction(3, 2),
        sound=True,
    )
    write_excerpt(made, tmp_path / "out.mp4", side=60)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.codec, info.pixels) == (120, 60, "h264", "yuv420p")
    assert info.audio == 0 and info.frames == 10
    assert clips.times(tmp_path / "out.mp4") == clips.times(made)
    with pytest.raises(DataError, match="must be readable"):
        write_excerpt(tmp_path / "missing.mkv", tmp_path / "none.mp4", side=60)
    with pytest.raises(DataError, match="must be writable"):
        write_excerpt(made, tmp_path / "no" / "folder.mp4", side=60)
    assert not (tmp_path / "none.mp4").exists()
