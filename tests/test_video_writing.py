"""Films written: nothing of the pictures' size, time and tags lost, everything else of the source
still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import clips
import cv2

from gancolor.errors import ConfigError, DataError
from gancolor.video import mux
from gancolor.video.companions import Companion
from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.encoding import Encoding, PartWriter, encoding_notes, film_suffix
from gancolor.video.mux import assemble
from gancolor.video.planes import rescaled
from gancolor.video.probe import FilmInfo, probe

QUICK = {"libx264": "veryfast", "libx265": "ultrafast", "libsvtav1": "12", "libvpx-vp9": "8"}


def frames_of(path: Path, **options: Any) -> tuple[list[Frame], FilmInfo]:
    with FilmReader(path, chroma=True, **options) as reader:
        return list(reader), reader.info


def encode(
    folder: Path, frames: Sequence[Frame], info: FilmInfo, encoding: Encoding, count: int = 1
) -> list[Path]:
    """Encode frames into `count` parts."""
    parts = [folder / f"part-{number:05d}.nut" for number in range(count)]
    borders = np.linspace(0, len(frames), count + 1).astype(int)
    for part, first, last in zip(parts, borders, borders[1:], strict=False):
        with PartWriter(part, info, encoding) as writer:
            for frame in frames[first:last]:
                assert frame.chroma is not None
                writer.write(frame.pts, frame.luma, *frame.chroma)
    return parts


def copy(
    source: Path, target: Path, *, count: int = 2, codec: str = "auto", **options: Any
) -> list[str]:
    """Write a film once more, its pictures encoded anew; returns the notes."""
    encoding = Encoding(codec).resolved(target)
    encoding = Encoding(encoding.codec, preset=QUICK.get(encoding.codec)).resolved(target)
    span = {key: value for key, value in options.items() if key in ("start", "end")}
    frames, info = frames_of(source, **span)
    folder = target.parent / "parts"
    folder.mkdir(exist_ok=True)
    return assemble(encode(folder, frames, info, encoding, count), source, target, **options)


def metadata_of(path: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """The metadata in lower case, the titles of the chapters, the streams' kinds."""
    with av.open(f"file:{path}") as container:
        titles = [chapter["metadata"]["title"] for chapter in container.chapters()]
        kinds = [stream.type for stream in container.streams]
        return {key.lower(): value for key, value in container.metadata.items()}, titles, kinds


@contextmanager
def full_disk(kilobytes: int) -> Iterator[None]:
    """Let no file grow beyond this size."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Encoding


def test_auto_chooses_by_the_file() -> None:
    chosen = {
        suffix: Encoding().resolved(f"film{suffix}").codec
        for suffix in (".mp4", ".mov", ".MKV", ".avi", ".webm")
    }

    assert chosen.pop(".webm") == "libvpx-vp9"
    assert set(chosen.values()) == {"libx264"}


def test_resolved_fills_in_the_defaults() -> None:
    plain = Encoding().resolved("film.mp4")
    own = Encoding("libx265", quality=25, preset="fast").resolved("film.mp4")

    assert (plain.codec, plain.quality, plain.preset, plain.reordered) == (
        "libx264",
        17,
        "faster",
        True,
    )
    assert (own.codec, own.quality, own.preset) == ("libx265", 25, "fast")
    assert not Encoding().resolved("film.avi").reordered
    assert (
        plain.resolved("film.mp4") == plain and plain.complete and not Encoding("libx264").complete
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"codec": "divx"}, "codec must be one of auto libx264"),
        (
            {"codec": "libx264", "quality": 52},
            r"quality of libx264 must be 0 \(best\) to 51, got 52",
        ),
        ({"codec": "ffv1", "quality": 3}, "quality of ffv1 cannot be chosen"),
        ({"codec": "libx264", "preset": "brisk"}, "preset of libx264 must be one of ultrafast"),
        ({"codec": "libsvtav1", "preset": "14"}, "preset of libsvtav1 must be one of 0 1"),
        ({"codec": "prores_ks", "preset": "slow"}, "preset of prores_ks cannot be chosen"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Encoding(**settings)


def test_files_that_do_not_hold_a_codec() -> None:
    with pytest.raises(
        ConfigError,
        match=r"codec of a \.webm file must be one of auto libvpx-vp9 libsvtav1, got libx264",
    ):
        Encoding("libx264").resolved("film.webm")
    with pytest.raises(ConfigError, match=r"suffix of a film must be one of \.mp4"):
        Encoding().resolved("film.wmv")
    with pytest.raises(ConfigError, match="quality of libvpx-vp9"):
        Encoding(quality=80).resolved("film.webm")


def test_film_suffix() -> None:
    assert [film_suffix(name) for name in ("a.MP4", "a.mkv", "a.wmv", "a")] == [
        ".MP4",
        ".mkv",
        ".mkv",
        ".mkv",
    ]


# Parts


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (62, 47), (1, 1)])
def test_lossless_parts_hold_every_bit(width: int, height: int, tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mkv", codec="ffv1", width=width, height=height)
    frames, info = frames_of(source)

    part = encode(tmp_path, frames, info, Encoding("ffv1").resolved("film.mkv"))[0]

    again, told = frames_of(part)
    assert len(again) == 12
    for one, other in zip(frames, again, strict=True):
        assert one.chroma is not None and other.chroma is not None
        for before, after in zip((one.luma, *one.chroma), (other.luma, *other.chroma), strict=True):
            np.testing.assert_array_equal(before, after)
    assert (told.width, told.height) == (width, height)


@pytest.mark.parametrize(
    "codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks"]
)
def test_every_codec_keeps_pictures_times_and_tags(codec: str, tmp_path: Path) -> None:
    times = [3 * 90000 + number * 3003 + number % 3 for number in range(12)]
    tags = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = clips.film(
        tmp_path / "film.mp4",
        pts=times,
        time_base=Fraction(1, 90000),
        color=tags,
        aspect=Fraction(8, 9),
    )
    frames, info = frames_of(source)

    part = encode(tmp_path, frames, info, Encoding(codec, preset=QUICK.get(codec)))[0]

    again, told = frames_of(part)
    assert [frame.pts * told.time_base * 90000 for frame in again] == times
    assert (told.width, told.height, told.full_range) == (64, 48, False)
    notes = assemble([part], source, tmp_path / "out.mkv")
    final = probe(tmp_path / "out.mkv")
    assert (final.color_range, final.color_space, final.color_primaries, final.color_transfer) == (
        1,
        1,
        1,
        1,
    )
    assert final.duration == pytest.approx(0.4, abs=0.05)
    assert final.pixel_aspect == Fraction(8, 9) and notes == []
    for one, other in zip(frames, again, strict=True):
        assert one.chroma is not None and other.chroma is not None
        luma, u = (rescaled(plane, told.depth, 8) for plane in (other.luma, other.chroma[0]))
        assert np.abs(one.luma.astype(int) - luma).mean() < 3
        assert np.abs(one.chroma[0].astype(int) - u).mean() < 4


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "ffv1", "prores_ks"])
def test_odd_sizes_keep_their_size(codec: str, tmp_path: Path) -> None:
    frames, info = frames_of(clips.film(tmp_path / "film.mkv", codec="ffv1", width=67, height=49))
    encoding = Encoding(codec, preset=QUICK.get(codec)).resolved("film.mkv")

    part = encode(tmp_path, frames, info, encoding)[0]

    again, told = frames_of(part)
    assert (told.width, told.height) == (67, 49)
    luma = rescaled(again[5].luma, told.depth, 8)
    assert np.abs(frames[5].luma.astype(int) - luma).mean() < 3
    assert bool(encoding_notes(info, encoding)) == (codec in ("libx264", "libx265"))


def test_prores_in_mov_keeps_the_shape_of_pixels(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", aspect=Fraction(8, 9))

    assert copy(source, tmp_path / "out.mov", codec="prores_ks") == []

    assert probe(tmp_path / "out.mov").pixel_aspect == Fraction(8, 9)
    assert clips.times(tmp_path / "out.mov") == clips.times(source)


def test_full_range_stays_full(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", color={"color_range": 2, "colorspace": 5})
    frames, info = frames_of(source)

    told = probe(encode(tmp_path, frames, info, Encoding("libx264").resolved("a.mp4"))[0])

    assert info.full_range and told.full_range and told.color_space == 5


def test_wrong_planes_and_times_are_refused(tmp_path: Path) -> None:
    frames, info = frames_of(clips.film(tmp_path / "film.mp4"))
    u, v = frames[0].chroma or (frames[0].luma, frames[0].luma)

    with PartWriter(tmp_path / "part.nut", info, Encoding("ffv1")) as writer:
        with pytest.raises(ValueError, match="planes must be of 64x48"):
            writer.write(0, frames[0].luma[:-1], u, v)
        writer.write(5, frames[0].luma, u, v)
        with pytest.raises(ValueError, match="pts must grow, got 5 after 5"):
            writer.write(5, frames[0].luma, u, v)

    assert len(frames_of(tmp_path / "part.nut")[0]) == 1


def test_a_part_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    frames, info = frames_of(clips.film(tmp_path / "film.mp4"))
    folder = tmp_path / "parts"
    u, v = frames[0].chroma or (frames[0].luma, frames[0].luma)

    with (
        pytest.raises(KeyboardInterrupt),
        PartWriter(folder / "part.nut", info, Encoding()) as writer,
    ):
        writer.write(0, frames[0].luma, u, v)
        hidden = [path.name for path in folder.iterdir()]
        raise KeyboardInterrupt

    assert len(hidden) == 1 and hidden[0].startswith(".") and hidden[0].endswith(".part")
    assert list(folder.iterdir()) == []


def test_a_full_disk_while_encoding(tmp_path: Path) -> None:
    frames, info = frames_of(clips.film(tmp_path / "film.mp4", width=256, height=192, frames=30))
    folder = tmp_path / "parts"

    with (
        full_disk(64),
        pytest.raises(
            DataError, match="film must be writable, got .*part-00000.nut: File too large"
        ),
    ):
        encode(folder, frames, info, Encoding("ffv1"))

    assert list(folder.iterdir()) == []


def test_a_size_that_the_encoder_refuses(tmp_path: Path) -> None:
    info = probe(clips.film(tmp_path / "film.mkv", codec="ffv1", width=1, height=1, frames=2))
    folder = tmp_path / "parts"

    with pytest.raises(DataError, match="libsvtav1 does not take 1x1"):
        PartWriter(folder / "part.nut", info, Encoding("libsvtav1"))

    assert list(folder.iterdir()) == []


def test_encoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frames, info = frames_of(clips.film(tmp_path / "film.mp4", frames=3))
    capfd.readouterr()
    for codec, preset in QUICK.items():
        encode(tmp_path, frames, info, Encoding(codec, preset=preset).resolved("film.mkv"))

    assert capfd.readouterr() == ("", "")


# Whole films


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_a_film_keeps_its_frames_sound_and_all_else(suffix: str, tmp_path: Path) -> None:
    rich = suffix != ".avi"
    source = clips.film(
        tmp_path / f"film{suffix}",
        frames=30,
        sound=True,
        subtitles=rich,
        chapters=rich,
        metadata={"title": "A film", "comment": "old"},
        attachment=b"a note" if suffix == ".mkv" else None,
    )
    target = tmp_path / f"out{suffix}"

    notes = copy(source, target, count=3, provenance="colorized by us")

    assert notes == []
    assert clips.times(target) == clips.times(source)
    assert clips.packets(target, "audio") == clips.packets(source, "audio")
    assert len(clips.packets(target, "audio")) > 10
    if rich:
        lines = [
            [text for text in clips.packets(path, "subtitle") if len(text[1]) > 2]
            for path in (source, target)
        ]
        assert lines[0] == lines[1] and len(lines[0]) == 2
    metadata, titles, kinds = metadata_of(target)
    assert metadata["title"] == "A film" and metadata["comment"] == "colorized by us; old"
    assert titles == (["part 1", "part 2"] if rich else [])
    assert kinds == metadata_of(source)[2]
    before, after = frames_of(source)[0], frames_of(target)[0]
    for one, other in zip(before, after, strict=True):
        assert np.abs(one.luma.astype(int) - other.luma).mean() < 4
    told = probe(target)
    assert (told.rate, told.duration) == (25, pytest.approx(1.2)) and not told.variable


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_variable_rate_stays(suffix: str, tmp_path: Path) -> None:
    times = [0, 40, 90, 100, 400, 410, 480, 700, 710, 720]
    source = clips.film(
        tmp_path / f"film{suffix}", pts=times, time_base=Fraction(1, 1000), sound=True
    )

    copy(source, tmp_path / f"out{suffix}", count=3)

    assert [time * 1000 for time in clips.times(tmp_path / f"out{suffix}")] == times


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(50)])
def test_broken_rates_stay_exact(rate: Fraction, tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", rate=rate, frames=20)

    copy(source, tmp_path / "out.mp4", count=4)

    assert (
        clips.times(tmp_path / "out.mp4")
        == clips.times(source)
        == [number / rate for number in range(20)]
    )
    assert probe(tmp_path / "out.mp4").rate == rate


def test_a_film_that_begins_late_does_so_still(tmp_path: Path) -> None:
    times = [90000 + 3600 * number for number in range(12)]
    source = clips.film(tmp_path / "film.mkv", pts=times, time_base=Fraction(1, 90000), sound=True)

    copy(source, tmp_path / "out.mkv")

    assert clips.times(tmp_path / "out.mkv") == [1 + Fraction(number, 25) for number in range(12)]
    assert clips.packets(tmp_path / "out.mkv", "audio") == clips.packets(source, "audio")


def test_a_turned_film_becomes_an_upright_one(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", rotation=90, aspect=Fraction(4, 3))

    copy(source, tmp_path / "out.mp4")

    told = probe(tmp_path / "out.mp4")
    assert (told.width, told.height, told.rotation, told.pixel_aspect) == (
        48,
        64,
        0,
        Fraction(3, 4),
    )


def test_frames_stored_out_of_order_are_joined_in_order(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", frames=60)

    copy(source, tmp_path / "out.mp4", count=3)

    with av.open(f"file:{tmp_path / 'out.mp4'}") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    decoded, shown = [packet.dts for packet in packets], [packet.pts for packet in packets]
    assert decoded == sorted(set(decoded)) and shown != sorted(shown)
    assert all(first <= second for first, second in zip(decoded, shown, strict=True))


@pytest.mark.parametrize(
    ("source", "target", "left_out"),
    [
        (".mp4", ".mkv", ["subtitle stream 2 (mov_text) left out"]),
        (".mkv", ".mp4", ["subtitle stream 2 (srt) left out"]),
        (".mp4", ".avi", ["subtitle stream 2 (mov_text) left out"]),
        (
            ".mp4",
            ".webm",
            [
                "sound stream 1 (aac) encoded anew as libopus",
                "subtitle stream 2 (mov_text) left out",
            ],
        ),
    ],
)
def test_what_a_file_cannot_hold_is_said(
    source: str, target: str, left_out: list[str], tmp_path: Path
) -> None:
    film = clips.film(tmp_path / f"film{source}", frames=20, sound=True, subtitles=True)
    result = tmp_path / f"out{target}"

    notes = copy(film, result)

    assert [note.split(":")[0] for note in notes] == left_out
    assert len(frames_of(result)[0]) == 20
    assert frames_of(result)[0][0].pts == 0  # the sound's run-in before time 0 moves nothing
    assert probe(result).audio == 1


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_an_avi_begins_with_its_first_frame_for_every_reader(codec: str, tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mkv", sound=True)

    copy(source, tmp_path / "out.avi", codec=codec)

    with av.open(str(tmp_path / "out.avi")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(
            [n / 25 for n in range(12)]
        )


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_same_frames_give_the_same_bytes(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scene = (
        cv2.GaussianBlur(rng.integers(0, 256, (300, 400)).astype(np.float32), (0, 0), 3) * 4 - 384
    )
    info = probe(clips.film(tmp_path / "film.mkv", frames=1, width=208, height=160))
    half = np.full((80, 104), 128, np.uint8)
    grain = rng.normal(0, 6, (40, 160, 208))
    found = set()
    for number in range(3):
        part = tmp_path / f"{number}.nut"
        with PartWriter(part, info, Encoding(codec)) as writer:
            for index in range(40):
                luma = scene[index : index + 160, 2 * index : 2 * index + 208] + grain[index]
                writer.write(index * 40, luma.clip(0, 255).astype(np.uint8), half, half)
        found.add(tuple(data for _, data in clips.packets(part)))
    assert len(found) == 1


def test_avi_of_a_variable_rate_says_so(tmp_path: Path) -> None:
    times = [0, 40, 90, 100, 400, 410]
    source = clips.film(tmp_path / "film.mp4", pts=times, time_base=Fraction(1, 1000))

    notes = copy(source, tmp_path / "out.avi")

    assert any("AVI holds a constant rate only" in note for note in notes)
    shown = [float(time) * 1000 for time in clips.times(tmp_path / "out.avi")]
    assert shown == pytest.approx(times, abs=5)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_of_a_film(suffix: str, tmp_path: Path) -> None:
    source = clips.film(
        tmp_path / f"film{suffix}", frames=50, sound=True, subtitles=True, chapters=True
    )
    target = tmp_path / f"out{suffix}"

    copy(source, target, start=0.4, end=1.6)

    assert clips.times(target) == [Fraction(number, 25) for number in range(30)]
    whole, cut = clips.packets(source, "audio"), clips.packets(target, "audio")
    kept = [(time, data) for time, data in whole if 0.4 <= time < 1.6]
    assert [data for _, data in cut] == [data for _, data in kept]
    assert [time for time, _ in cut] == pytest.approx([time - 0.4 for time, _ in kept], abs=0.002)
    lines = [time for time, text in clips.packets(target, "subtitle") if len(text) > 2]
    assert lines == pytest.approx([0, 0.6], abs=0.002)  # one had begun, the other came later
    assert probe(target).duration == pytest.approx(1.2, abs=0.05)
    with av.open(f"file:{target}") as container:
        bounds = [
            (chapter["start"] * chapter["time_base"], chapter["end"] * chapter["time_base"])
            for chapter in container.chapters()
        ]
    assert [(float(begin), float(end)) for begin, end in bounds] == [(0, 0.6), (0.6, 1.2)]


def test_the_end_alone_cuts_without_moving(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", frames=50, sound=True)

    copy(source, tmp_path / "out.mp4", end=1.0)

    assert clips.times(tmp_path / "out.mp4") == [Fraction(number, 25) for number in range(25)]
    sound = clips.packets(tmp_path / "out.mp4", "audio")
    assert sound == [packet for packet in clips.packets(source, "audio") if packet[0] < 1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_is_kept(suffix: str, tmp_path: Path) -> None:
    import cv2

    picture = cv2.imencode(".png", clips.picture(0))[1].tobytes()
    plain = clips.film(tmp_path / "plain.mp4", sound=True)
    source = tmp_path / "film.mp4"
    with av.open(f"file:{plain}") as old, av.open(f"file:{source}", "w") as new:
        streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        cover = new.add_mux_stream("png", width=64, height=48)
        cover.disposition, cover.time_base = 0x400, Fraction(1, 90000)
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
        packet = av.Packet(picture)
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        new.mux(packet)

    notes = copy(source, tmp_path / f"out{suffix}")

    assert notes == []
    with av.open(f"file:{tmp_path / f'out{suffix}'}") as container:
        covers = [stream for stream in container.streams.video if int(stream.disposition) & 0x400]
        assert len(covers) == 1
        assert bytes(next(container.demux(covers[0]))) == picture
    assert len(frames_of(tmp_path / f"out{suffix}")[0]) == 12


def test_damaged_sound_is_left_out(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mp4", frames=20, sound=True)
    target = tmp_path / "out.mp4"
    with av.open(f"file:{source}") as old, av.open(f"file:{target}", "w") as new:
        stream = old.streams.audio[0]
        companion = Companion(stream, new.add_stream_from_template(stream, opaque=True), "sound")
        packets = [packet for packet in old.demux(stream) if packet.size]
        packets.insert(5, packets.pop(9))  # it comes too early, and those behind it too late
        for packet in packets:
            packet.stream = companion.output
            companion.mux(new, packet)

    assert companion.lost == 4
    assert len(clips.packets(target, "audio")) == len(packets) - 4


def test_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mkv", codec="ffv1")
    frames, info = frames_of(source)
    one = encode(tmp_path / "one", frames, info, Encoding("ffv1"))
    other = encode(tmp_path / "other", frames, info, Encoding("libx264"))

    with pytest.raises(DataError, match="parts of a film must be encoded alike"):
        assemble([*one, *other], source, tmp_path / "out.mkv")
    with pytest.raises(DataError, match="parts of a film must not overlap"):
        assemble([*one, *one], source, tmp_path / "out.mkv")
    with pytest.raises(DataError, match="film must have frames"):
        assemble([], source, tmp_path / "out.mkv")
    with pytest.raises(ConfigError, match="codec must be one that webm files hold, got h264"):
        assemble(other, source, tmp_path / "out.webm")
    with pytest.raises(ConfigError, match="suffix of a film"):
        assemble(one, source, tmp_path / "out.txt")
    one[0].write_bytes(one[0].read_bytes()[:40])
    with pytest.raises(DataError, match="must be readable"):
        assemble(one, source, tmp_path / "out.mkv")

    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["film.mkv"]


def test_a_full_disk_while_joining_leaves_what_was_there(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mkv", width=256, height=192, frames=30)
    frames, info = frames_of(source)
    parts = encode(tmp_path / "parts", frames, info, Encoding("ffv1"))
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "out.mkv").write_bytes(b"before")

    with (
        full_disk(64),
        pytest.raises(DataError, match="film must be writable, got .*out.mkv: File too large"),
    ):
        assemble(parts, source, folder / "out.mkv")

    assert [path.name for path in folder.iterdir()] == ["out.mkv"]
    assert (folder / "out.mkv").read_bytes() == b"before"


def test_an_interrupt_while_joining_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.film(tmp_path / "film.mkv", codec="ffv1")
    frames, info = frames_of(source)
    parts = encode(tmp_path / "parts", frames, info, Encoding("ffv1"))
    folder = tmp_path / "results"

    def interrupt(*_: object) -> None:
        assert len(list(folder.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(mux, "add_metadata", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assemble(parts, source, folder / "out.mkv")

    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.mkv", codec="ffv1", frames=2)
    frames, info = frames_of(source)
    parts = encode(tmp_path / "parts", frames, info, Encoding("ffv1"))
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="film must be writable"):
        assemble(parts, source, tmp_path / "file" / "out.mkv")
    with pytest.raises(DataError, match="film must be writable"):
        PartWriter(tmp_path / "file" / "part.nut", info, Encoding("ffv1"))


def _phone(path: Path) -> dict[str, str]:
    """Make a film as a phone does, place and local date under QuickTime's keys."""
    keys = {
        "com.apple.quicktime.location.ISO6709": "+48.1370+011.5750+519.000/",
        "com.apple.quicktime.creationdate": "2021-07-01T18:30:00+0200",
    }
    source = clips.film(path.with_name("plain.mov"), frames=6, sound=True)
    with (
        av.open(str(source)) as film,
        av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container,
    ):
        streams = {
            stream.index: container.add_stream_from_template(stream, opaque=True)
            for stream in film.streams
        }
        container.metadata.update(keys)
        for packet in film.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    return keys


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".mp4"])
def test_place_and_local_date_of_a_phone(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / "phone.mov", tmp_path / f"out{suffix}"
    keys = _phone(source)

    notes = copy(source, target, provenance="coloured")

    found = metadata_of(target)[0]
    kept = {key.lower(): value for key, value in keys.items()}
    if suffix == ".mp4":
        assert [note for note in notes if "QuickTime" in note] == [
            "metadata of QuickTime left out (creationdate, location.ISO6709): mp4 files cannot hold"
            " them; a .mov or .mkv can"
        ]
    else:
        assert kept.items() <= found.items() and notes == []
    assert found["comment"] == "coloured"


def test_metadata_that_are_no_text_are_kept(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "film.avi", metadata={"title": "caf?"})
    source.write_bytes(source.read_bytes().replace(b"caf?", b"caf\xe9"))

    copy(source, tmp_path / "out.avi")

    assert b"caf\xe9" in (tmp_path / "out.avi").read_bytes()


@pytest.mark.parametrize("name", ["-out: put.mp4", "Фильм ü 映画.mkv"])
def test_names(name: str, tmp_path: Path) -> None:
    source = clips.film(tmp_path / f"film{Path(name).suffix}")

    copy(source, tmp_path / name)

    assert len(frames_of(tmp_path / name)[0]) == 12


@pytest.mark.slow
def test_the_real_clip_keeps_its_sound(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "video" / "road_solidWhiteRight.mp4"

    notes = copy(source, tmp_path / "out.mp4", start=1, end=2)

    assert notes == []
    assert clips.times(tmp_path / "out.mp4") == [Fraction(number, 25) for number in range(25)]
    assert probe(tmp_path / "out.mp4").audio == 1
