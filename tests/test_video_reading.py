"""Films of every kind read back frame by frame, and what is said of those that are broken."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import av
import clips

from gancolor.errors import ConfigError, DataError, MissingExtra
from gancolor.video.decoding import FilmReader, Frame, span
from gancolor.video.probe import FilmInfo, probe


def read(path: Path, **options: object) -> tuple[list[Frame], FilmReader]:
    with FilmReader(path, **options) as reader:  # type: ignore[arg-type]
        return list(reader), reader


def expected_luma(index: int, info: FilmInfo, **options: object) -> np.ndarray:
    """The luma that a frame should have: BT.601, in the film's range."""
    rgb = clips.picture(index, info.width, info.height, **options).astype(np.float32)  # type: ignore[arg-type]
    luma = rgb @ np.asarray([0.299, 0.587, 0.114], np.float32)
    return luma if info.full_range else 16 + luma * 219 / 255


def error_of(frame: Frame, info: FilmInfo, index: int) -> float:
    return float(np.abs(frame.luma - expected_luma(index, info)).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".nut"])
def test_every_container_gives_the_same_frames(suffix: str, tmp_path: Path) -> None:
    path = clips.film(tmp_path / f"film{suffix}")

    frames, reader = read(path)

    info = reader.info
    assert (info.width, info.height, info.rate) == (64, 48, 25)
    assert [frame.index for frame in frames] == list(range(12))
    steps = [(frame.pts - frames[0].pts) * info.time_base for frame in frames]
    assert steps == [Fraction(number, 25) for number in range(12)]
    assert reader.damaged == [] and info.notes == [] and not info.variable
    assert info.frames is not None and abs(info.frames - 12) <= 1  # an estimate
    assert info.duration == pytest.approx(0.48, abs=0.05)
    for number, frame in enumerate(frames):
        assert (
            frame.luma.dtype == np.uint8 and frame.luma.shape == (48, 64) and frame.chroma is None
        )
        errors = {near: error_of(frame, info, near) for near in (number - 1, number, number + 1)}
        assert min(errors, key=errors.__getitem__) == number and errors[number] < 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_probe_counts_the_other_streams(suffix: str, tmp_path: Path) -> None:
    path = clips.film(tmp_path / f"film{suffix}", sound=True, subtitles=True)

    info = probe(path)

    assert (info.audio, info.subtitles, info.start_pts, info.codec) == (1, 1, 0, "h264")
    assert not info.interlaced and info.rotation == 0 and info.pixel_aspect == 1


def test_a_film_without_sound(tmp_path: Path) -> None:
    info = probe(clips.film(tmp_path / "silent.mp4"))

    assert (info.audio, info.subtitles) == (0, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_keeps_its_times(suffix: str, tmp_path: Path) -> None:
    times = [0, 40, 90, 100, 400, 410]
    path = clips.film(tmp_path / f"film{suffix}", pts=times, time_base=Fraction(1, 1000))

    frames, reader = read(path)

    assert [frame.pts * reader.info.time_base * 1000 for frame in frames] == times
    assert reader.info.variable


def test_a_constant_rate_rounded_to_milliseconds_is_not_variable(tmp_path: Path) -> None:
    info = probe(clips.film(tmp_path / "film.mkv", frames=30, rate=Fraction(30000, 1001)))

    assert not info.variable
    assert float(info.rate or 0) == pytest.approx(30000 / 1001, rel=1e-3)


def test_h264_in_avi_begins_at_its_first_frame(tmp_path: Path) -> None:
    path = clips.film(tmp_path / "film.avi", codec="libx264")

    frames, _ = read(path)

    assert [frame.pts for frame in frames] == list(range(12))


def test_one_frame(tmp_path: Path) -> None:
    frames, reader = read(clips.film(tmp_path / "film.mp4", frames=1))

    assert len(frames) == 1 and reader.damaged == []


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_come_upright(rotation: int, flipped: bool, tmp_path: Path) -> None:
    stored = read(
        clips.film(tmp_path / "stored.mp4", frames=3, aspect=Fraction(4, 3)), chroma=True
    )[0]
    path = clips.film(
        tmp_path / "turned.mp4", frames=3, rotation=rotation, flipped=flipped, aspect=Fraction(4, 3)
    )

    turned, reader = read(path, chroma=True)

    for before, after in zip(stored, turned, strict=True):
        assert before.chroma is not None and after.chroma is not None
        pairs = zip((before.luma, *before.chroma), (after.luma, *after.chroma), strict=True)
        for plane, upright in pairs:
            wanted = np.rot90(plane, rotation // 90)
            np.testing.assert_array_equal(upright, wanted[:, ::-1] if flipped else wanted)
    sideways = rotation % 180 == 90
    assert (reader.info.width, reader.info.height) == ((48, 64) if sideways else (64, 48))
    assert reader.info.pixel_aspect == (Fraction(3, 4) if sideways else Fraction(4, 3))


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "note"),
    [
        ("rgb.mkv", "libx264rgb", "rgb24", "stored as RGB"),
        ("bottom-up.avi", "rawvideo", "bgr24", "stored as RGB"),
        ("packed.avi", "rawvideo", "yuyv422", None),
        ("full.mkv", "ffv1", "yuv444p", None),
        ("gray.mp4", "libx264", "gray", None),
        ("half.mkv", "ffv1", "yuv422p", None),
    ],
)
def test_other_pixel_formats_become_luma_of_8_bits(
    name: str, codec: str, pixels: str, note: str | None, tmp_path: Path
) -> None:
    path = clips.film(tmp_path / name, codec=codec, pixels=pixels, frames=4, gray="gray" in pixels)

    frames, reader = read(path, chroma=True)

    assert len(frames) == 4
    assert (
        [note] == [said[: len(note)] for said in reader.info.notes]
        if note
        else reader.info.notes == []
    )
    for index, frame in enumerate(frames):
        wanted = expected_luma(index, reader.info, gray="gray" in pixels)
        assert np.abs(frame.luma - wanted).mean() < 3
        assert frame.chroma is not None
        assert frame.chroma[0].shape == frame.chroma[1].shape == (24, 32)


def test_chroma_is_the_films_own(tmp_path: Path) -> None:
    frames, _ = read(clips.film(tmp_path / "film.mkv", codec="ffv1", frames=2), chroma=True)
    grays, _ = read(
        clips.film(tmp_path / "gray.mkv", codec="ffv1", frames=2, pixels="gray", gray=True),
        chroma=True,
    )

    rgb = clips.picture(0).astype(np.float32)
    luma = rgb @ np.asarray([0.299, 0.587, 0.114], np.float32)
    blue = 128 + (rgb[..., 2] - luma) / 1.772 * 224 / 255
    assert frames[0].chroma is not None and grays[0].chroma is not None
    half = blue.reshape(24, 2, 32, 2).mean((1, 3))
    assert np.abs(frames[0].chroma[0] - half).mean() < 3
    assert all((plane == 128).all() for plane in grays[0].chroma)


def test_color_tags(tmp_path: Path) -> None:
    tags = {"color_range": 2, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    info = probe(clips.film(tmp_path / "film.mp4", color=tags))
    untagged = probe(clips.film(tmp_path / "untagged.mp4"))

    assert info.full_range
    assert (info.color_range, info.color_space, info.color_primaries, info.color_transfer) == (
        2,
        1,
        1,
        1,
    )
    assert not untagged.full_range
    assert (untagged.color_space, untagged.color_primaries, untagged.color_transfer) == (2, 2, 2)


@pytest.mark.parametrize(("width", "height"), [(63, 47), (2, 2), (1, 1), (64, 1)])
def test_odd_sizes(width: int, height: int, tmp_path: Path) -> None:
    frames, reader = read(
        clips.film(tmp_path / "film.mkv", codec="ffv1", width=width, height=height), chroma=True
    )

    assert (reader.info.width, reader.info.height) == (width, height)
    assert frames[0].luma.shape == (height, width) and frames[0].chroma is not None
    assert frames[0].chroma[0].shape == ((height + 1) // 2, (width + 1) // 2)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm", ".ts"])
def test_a_part_holds_the_same_frames_as_the_whole(suffix: str, tmp_path: Path) -> None:
    path = clips.film(tmp_path / f"film{suffix}", frames=60, key_every=12)
    whole, reader = read(path)

    before, _ = read(path, end=1.48)
    behind, _ = read(path, start=1.48)
    resumed, _ = read(path, from_pts=whole[41].pts, end=2.0)

    assert [frame.pts for frame in before + behind] == [frame.pts for frame in whole]
    assert len(before) == 37
    for one, other in zip(before + behind, whole, strict=True):
        np.testing.assert_array_equal(one.luma, other.luma)
    assert [frame.index for frame in behind] == list(range(23))
    assert [frame.pts for frame in resumed] == [frame.pts for frame in whole[41:50]]
    np.testing.assert_array_equal(resumed[0].luma, whole[41].luma)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("film.avi", "libx264"),
        ("film.avi", "mpeg4"),
        ("film.m4v", "mpeg4"),
        ("film.mkv", "libx264"),
    ],
)
def test_a_part_of_a_film_with_b_frames_is_the_right_one(
    name: str, codec: str, tmp_path: Path
) -> None:
    bare = {"format": "m4v"} if name.endswith(".m4v") else {}  # a stream without times
    path = clips.film(tmp_path / name, codec=codec, frames=60, key_every=8, b_frames=2, **bare)
    whole, reader = read(path)
    info = reader.info
    assert len(whole) == 60 and all(
        error_of(frame, info, index) < 6 for index, frame in enumerate(whole)
    )

    for number in (1, 7, 12, 49, 58):
        behind, again = read(path, from_pts=whole[number - 1].pts + 1)
        start = float(whole[number].pts * info.time_base - info.origin)
        part, _ = read(path, start=start, end=start + 0.39)
        assert again.damaged == []
        for found, wanted in ((behind, whole[number:]), (part, whole[number : number + 10])):
            assert [frame.pts for frame in found] == [frame.pts for frame in wanted]
            assert all(
                np.array_equal(one.luma, other.luma)
                for one, other in zip(found, wanted, strict=True)
            )


def test_damage_before_a_part_is_not_the_parts(tmp_path: Path) -> None:
    whole = clips.film(tmp_path / "whole.mp4", frames=60, key_every=10)
    path = clips.damaged(whole, tmp_path / "damaged.mp4", range(30, 40))

    assert read(path)[1].damaged != []
    assert read(path, start=1.8)[1].damaged == []  # reading begins a second before it


def test_a_part_in_the_middle_counts_damage_by_the_film(tmp_path: Path) -> None:
    whole = clips.film(tmp_path / "whole.mp4", frames=100, key_every=10)
    path = clips.damaged(whole, tmp_path / "damaged.mp4", range(80, 90))

    lines = [read(path, start=start)[1].damaged for start in (0, 2.8)]

    assert lines[0] == lines[1] and len(lines[0]) > 0


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (-1.0, None, "--from must be at least 0"),
        (9.0, None, "--from must lie inside"),
        (0.3, 0.2, "--to must be"),
    ],
)
def test_parts_that_cannot_be(start: float, end: float | None, said: str, tmp_path: Path) -> None:
    info = probe(clips.film(tmp_path / "film.mp4"))

    with pytest.raises(ConfigError, match=said):
        span(info, start, end)


def test_seconds_count_from_the_films_beginning(tmp_path: Path) -> None:
    times = [3600 * number + 900000 for number in range(12)]
    path = clips.film(tmp_path / "film.mkv", pts=times, time_base=Fraction(1, 90000))

    frames, reader = read(path, start=0.2, end=0.32)

    assert reader.info.origin == 10
    assert [float(frame.pts * reader.info.time_base) for frame in frames] == [10.2, 10.24, 10.28]


@pytest.mark.parametrize("fill", [0, 255])
def test_a_damaged_middle_is_told_and_the_film_goes_on(fill: int, tmp_path: Path) -> None:
    whole = clips.film(tmp_path / "whole.mp4", frames=60, key_every=12)
    path = clips.damaged(whole, tmp_path / "damaged.mp4", range(20, 26), fill=fill)

    frames, reader = read(path)

    shown = [int(frame.pts * reader.info.time_base * 25) for frame in frames]
    assert shown == sorted(set(shown)) and shown[0] == 0 and shown[-1] == 59
    assert 45 <= len(shown) < 60
    missing = sorted(set(range(60)) - set(shown))
    lost = [line for line in reader.damaged if "could not be decoded" in line]
    told = [number for line in lost for number in _numbers(line)]
    assert told == missing
    assert all(clips_time in reader.damaged[0] for clips_time in ("0:00.", "frame"))
    assert error_of(frames[-1], reader.info, 59) < 4


def test_frames_behind_a_loss_are_told_until_the_next_key_frame(tmp_path: Path) -> None:
    whole = clips.film(
        tmp_path / "whole.mp4", frames=60, key_every=20, options={"bf": "0", "sc_threshold": "0"}
    )
    path = clips.damaged(whole, tmp_path / "damaged.mp4", [25, 26, 27])

    frames, reader = read(path)

    shown = {int(frame.pts * reader.info.time_base * 25): frame for frame in frames}
    mended = [line for line in reader.damaged if "mended by the decoder" in line]
    told = [number for line in mended for number in _numbers(line)]
    assert told == [number for number in shown if 25 <= number < 40]
    assert len(told) > 0
    assert all(
        error_of(shown[number], reader.info, number) < 4 for number in shown if number not in told
    )


@pytest.mark.parametrize("key_every", [10, 60])
def test_what_the_file_does_not_hold_any_more_is_told(key_every: int, tmp_path: Path) -> None:
    whole = clips.film(
        tmp_path / "whole.mkv",
        frames=60,
        key_every=key_every,
        options={"bf": "0", "sc_threshold": "0"},
    )
    path, count = tmp_path / "holed.mkv", 0
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and not 23 <= (count := count + 1) - 1 < 47:
                packet.stream = stream
                target.mux(packet)

    frames, reader = read(path)

    shown = [int(frame.pts * reader.info.time_base * 25) for frame in frames]
    told = [number for line in reader.damaged if "mended" not in line for number in _numbers(line)]
    assert told == sorted(set(range(60)) - set(shown)) and len(told) >= 24
    mended = [number for line in reader.damaged if "mended" in line for number in _numbers(line)]
    assert mended == [number for number in shown if 47 <= number < (50 if key_every == 10 else 60)]


def _numbers(line: str) -> list[int]:
    first, _, last = line.split()[1].rstrip(",").partition("-")
    return list(range(int(first), int(last or first) + 1))


def test_a_whole_film_has_no_damage_and_a_cut_one_says_so(tmp_path: Path) -> None:
    whole = clips.film(tmp_path / "whole.mkv", frames=60)
    path = clips.cut_off(whole, tmp_path / "cut.mkv", 0.6)

    frames, reader = read(path)

    assert read(whole)[1].damaged == []
    assert 10 < len(frames) < 50
    assert any("its header promises 0:02.40: it is cut off" in line for line in reader.damaged)


def test_a_cut_mp4_cannot_be_read(tmp_path: Path) -> None:
    path = clips.cut_off(clips.film(tmp_path / "whole.mp4"), tmp_path / "cut.mp4", 0.6)

    with pytest.raises(DataError, match="cut off or damaged: its table of frames"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_no_frames(suffix: str, tmp_path: Path) -> None:
    path = clips.no_frames(tmp_path / f"none{suffix}")

    with pytest.raises(
        DataError, match="film must be readable, got .*: it holds no (frames|video stream)"
    ):
        probe(path)


def test_no_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds no video stream"):
        FilmReader(clips.sound_only(tmp_path / "sound.mp4"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.mp4", b"dear diary\n" * 40, "it is no film"),
        ("empty.mp4", b"", "the file is empty"),
        ("noise.mkv", bytes(range(256)) * 40, "it is no film"),
        (
            "list.mp4",
            b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:film.ts\n#EXT-X-ENDLIST\n",
            "no film",
        ),
    ],
)
def test_files_that_are_no_films(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=said) as caught:
        probe(tmp_path / name)

    assert str(caught.value).count("\n") == 0


def test_a_list_of_films_is_not_followed(tmp_path: Path) -> None:
    clips.film(tmp_path / "film.ts")
    lines = (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.ts\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.m3u8").write_text(lines)

    with pytest.raises(DataError, match="no film"):
        probe(tmp_path / "list.m3u8")


def test_a_picture_is_no_film(tmp_path: Path) -> None:
    from gancolor.images.arrays import write_rgb

    write_rgb(tmp_path / "picture.png", clips.picture(0))
    (tmp_path / "picture.png").rename(tmp_path / "picture.mp4")

    with pytest.raises(DataError, match="it is a picture, no film"):
        probe(tmp_path / "picture.mp4")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="it is a folder"):
        probe(tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_no_permission(tmp_path: Path) -> None:
    path = clips.film(tmp_path / "film.mp4")
    path.chmod(0)

    with pytest.raises(DataError, match="Permission denied"):
        probe(path)


@pytest.mark.parametrize(
    "name", ["a: b.mp4", "-film.mp4", "Фильм ü 映画.mp4", "50%03d.mp4", "https:x.mkv"]
)
def test_names(name: str, tmp_path: Path) -> None:
    assert len(read(clips.film(tmp_path / name))[0]) == 12


def test_a_line_break_in_a_name_stays_out_of_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        probe(tmp_path / "two\nlines.mp4")

    assert "\n" not in str(caught.value)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = clips.film(tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[video\]'"):
        probe(path)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = clips.film(tmp_path / "whole.mp4", frames=30)
    read(clips.damaged(whole, tmp_path / "damaged.mp4", range(10, 16)))

    assert capfd.readouterr() == ("", "")


def test_real_films(shared: Path) -> None:
    frames, reader = read(shared / "data" / "video" / "historical_bw_film.mp4", start=3, end=4)

    assert (reader.info.width, reader.info.height, reader.info.frames) == (432, 320, 360)
    assert len(frames) == 29 and reader.damaged == []
