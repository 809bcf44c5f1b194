"""Films are told by what they hold: in a folder, by name, and without asking FFmpeg about every
text.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import clips

from gancolor.batch.input_files import expand
from gancolor.images.arrays import write_rgb
from gancolor.video import opening
from gancolor.video.decoding import FilmReader
from gancolor.video.encoding import film_name
from gancolor.video.opening import is_film, may_be_film

FILMS: list[tuple[str, dict[str, Any]]] = [
    ("mpegts", {}),
    ("mpeg", {"codec": "mpeg2video"}),
    ("vob", {"codec": "mpeg2video"}),
    ("dv", {"codec": "dvvideo", "width": 720, "height": 576}),
    ("3gp", {"codec": "mpeg4"}),
    ("asf", {"codec": "wmv2"}),
    ("flv", {"codec": "flv1"}),
    ("ogg", {"codec": "libvpx"}),
    ("matroska", {"codec": "ffv1"}),
    ("avi", {"codec": "mpeg4", "b_frames": 0}),
    ("mov", {"codec": "libx264"}),
    ("mxf", {"codec": "mpeg2video", "width": 720, "height": 576}),
    ("nut", {"codec": "ffv1"}),
    ("h264", {"codec": "libx264"}),
    ("m4v", {"codec": "mpeg4"}),
    ("mpeg2video", {"codec": "mpeg2video"}),
]


@pytest.mark.parametrize(("format", "options"), FILMS, ids=[format for format, _ in FILMS])
def test_films_are_told_by_what_they_hold(
    format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = clips.film(
        tmp_path / "film.dat", frames=4, format=format, **{"codec": "mpeg2video", **options}
    )
    assert path.suffix not in opening.SUFFIXES
    assert is_film(path)
    (path.with_suffix("")).symlink_to(path)
    assert is_film(path.with_suffix(""))


def test_a_transport_stream_with_times_before_its_packets(tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.ts", frames=4).read_bytes()
    packets = [film[at : at + 188] for at in range(0, len(film), 188)]
    for name, length, data in (
        ("a.MTS", 192, b"".join(b"\0\0\0\0" + packet for packet in packets)),
        ("b.bin", 188, b"\x12" * 71 + film),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_film(tmp_path / name), length
        with FilmReader(tmp_path / name) as reader:
            assert len(list(reader)) == 4


def test_what_is_no_film(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.png", clips.picture(0))
    (tmp_path / "program.ts").write_text("export const G = 1;\n" * 200)
    (tmp_path / "music.mod").write_bytes(b"a tune".ljust(1084, b"\0") + b"M.K." + bytes(3000))
    (tmp_path / "short").write_bytes(b"G")
    (tmp_path / "empty.dat").write_bytes(b"")
    (tmp_path / "like.dat").write_bytes(b"\0\0\1\xba" + b"no film at all " * 100)
    (tmp_path / "G.dat").write_bytes(b"G" * 4000)
    clips.sound_only(tmp_path / "sound.mkv").rename(tmp_path / "sound.mka")
    clips.sound_only(tmp_path / "sound.mp4").rename(tmp_path / "sound.m4a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_film(path)] == []
    assert not is_film(tmp_path / "none") and not is_film("a\0b")


def test_a_broken_film_of_a_sure_suffix_is_told_as_a_film(tmp_path: Path) -> None:
    (tmp_path / "film.VOB").write_bytes(b"nothing")
    assert is_film(tmp_path / "film.VOB")


def test_only_what_begins_as_a_film_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(opening, "opened", lambda path: opened.append(path))
    for number in range(50):
        (tmp_path / f"{number}.txt").write_text("The quick brown fox\n" * 100)
    assert not any(is_film(path) for path in tmp_path.iterdir())
    assert opened == []


@pytest.mark.parametrize(
    "brand",
    [b"heic", b"mif1", b"avif", b"avis", b"crx ", b"jp2 ", b"jxl "],
    ids=lambda brand: brand.decode().strip(),
)
def test_pictures_in_the_box_of_films_are_none(brand: bytes) -> None:
    assert not may_be_film(b"\0\0\0\x18ftyp" + brand + bytes(100))
    assert may_be_film(b"\0\0\0\x18ftypqt  " + bytes(100))


def test_without_pyav_a_beginning_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.film(tmp_path / "film.dat", frames=4, format="mpegts", codec="mpeg2video")
    monkeypatch.setitem(sys.modules, "av", None)
    assert is_film(path)


def test_films_of_any_suffix_in_a_folder_and_by_name(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name, format in (
        ("00001.MTS", "mpegts"),
        ("MOV001.MOD", "vob"),
        ("M2U.TOD", "mpegts"),
        ("VTS_01_1.VOB", "vob"),
    ):
        clips.film(old / name, frames=4, format=format, codec="mpeg2video")
    clips.film(old / "no suffix", frames=4, format="matroska", codec="ffv1")
    (old / "VTS_01_0.IFO").write_bytes(b"DVDVIDEO-VTS" + bytes(2000))
    write_rgb(old / "photo.png", np.zeros((4, 4, 3), np.uint8))
    found = {
        item.source.name: (item.film, item.target.name)
        for item in expand([str(old)], tmp_path / "new")
    }
    assert found == {
        "00001.MTS": (True, "00001.mkv"),
        "M2U.TOD": (True, "M2U.mkv"),
        "MOV001.MOD": (True, "MOV001.mkv"),
        "VTS_01_1.VOB": (True, "VTS_01_1.mkv"),
        "no suffix": (True, "no suffix.mkv"),
        "photo.png": (False, "photo.png"),
    }
    named = list(expand([str(old / "MOV001.MOD"), str(old / "*.VOB")], tmp_path / "new"))
    assert [(item.film, item.target.name) for item in named] == [
        (True, "MOV001.mkv"),
        (True, "VTS_01_1.mkv"),
    ]


def test_names_of_results(tmp_path: Path) -> None:
    for name in ("a.mpg", "a.mkv", "b.VOB", "b.mts", "c.ts", "d.mp4", "d.flv"):
        (tmp_path / name).touch()
    names = {path.name: film_name(path) for path in tmp_path.iterdir()}
    assert names == {
        "a.mpg": "a.mpg.mkv",
        "a.mkv": "a.mkv",
        "b.VOB": "b.VOB.mkv",
        "b.mts": "b.mts.mkv",
        "c.ts": "c.mkv",
        "d.mp4": "d.mp4",
        "d.flv": "d.mkv",
    }


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    name = film_name(tmp_path / ("é" * 126 + ".ts"))
    assert name == "é" * 125 + ".mkv"
