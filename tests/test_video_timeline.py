"""Times of films: recordings joined end to end, jumps of the clock, wrong times, packed frames;
order kept by each.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import clips

from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.encoding import Encoding, PartWriter
from gancolor.video.mux import assemble
from gancolor.video.probe import shortfall
from gancolor.video.timeline import Follower, Mender, Order, Recording, Timeline, timeline

BROADCAST = Fraction(1, 90000)


def decoded(path: Path) -> list[np.ndarray]:
    """The luma of all frames as the decoder hands them out: what FFmpeg's own tool shows, in its
    order.
    """
    with av.open(f"file:{path}") as container:
        return [frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]


def read(path: Path, **options: Any) -> tuple[list[Frame], FilmReader]:
    with FilmReader(path, **options) as reader:
        return list(reader), reader


def check(path: Path, count: int, steps: set[Fraction] | None = None) -> FilmReader:
    """All frames that are decoded are there, in that order, each as long as it should be."""
    frames, reader = read(path)
    wanted = decoded(path)
    assert len(frames) == len(wanted) == count
    assert all(np.array_equal(frame.luma, luma) for frame, luma in zip(frames, wanted, strict=True))
    times = [frame.pts * reader.info.time_base for frame in frames]
    assert {after - before for before, after in zip(times, times[1:], strict=False)} == (
        steps or {Fraction(1, 25)}
    )
    assert reader.damaged == []
    assert shortfall(path, reader.info, None, None, len(frames)) is None
    return reader


def again(source: Path, target: Path, **options: Any) -> list[str]:
    """Write a film once more with what else it holds; returns the notes."""
    with FilmReader(source, chroma=True, **options) as reader:
        encoding = Encoding("ffv1").resolved(target)
        with PartWriter(target.with_suffix(".part"), reader.info, encoding) as writer:
            for frame in reader:
                assert frame.chroma is not None
                writer.write(frame.pts, frame.luma, *frame.chroma)
    return assemble([target.with_suffix(".part")], source, target, **options)


@pytest.mark.parametrize("frames", [9, 40])
def test_packed_frames_of_an_avi_come_in_order(frames: int, tmp_path: Path) -> None:
    # DivX and Xvid: a B-frame in the packet of the frame decoded before it.
    film = clips.film(tmp_path / "film.avi", frames=frames, b_frames=1)
    path = clips.packed(film, tmp_path / "packed.avi")

    check(path, frames)
    pairs = zip(read(film)[0], read(path)[0], strict=True)
    assert all(
        np.array_equal(one.luma, other.luma) and one.pts == other.pts for one, other in pairs
    )


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [
        (".ts", "libx264", 2),
        (".ts", "mpeg2video", 0),
        (".ts", "mpeg2video", 2),
        (".mpg", "mpeg2video", 2),
    ],
)
def test_recordings_joined_end_to_end(
    suffix: str, codec: str, b_frames: int, interlaced: bool, tmp_path: Path
) -> None:
    options = {"codec": codec, "b_frames": b_frames, "interlaced": interlaced, "key_every": 12}
    first = clips.film(tmp_path / f"a{suffix}", frames=40, **options)  # type: ignore[arg-type]
    second = clips.film(tmp_path / f"b{suffix}", frames=50, **options)  # type: ignore[arg-type]
    path = clips.joined(tmp_path / f"film{suffix}", first, second, first)

    reader = check(path, 130)

    said = (
        "the clock jumps at 0:01.60, 0:03.60: what follows goes on there without a break, sound"
        " beside it"
    )
    assert said in reader.info.notes
    assert reader.info.frames == 130 and reader.info.duration == pytest.approx(5.2)


def test_recordings_of_other_kinds_of_frames_join_without_a_gap(tmp_path: Path) -> None:
    parts = [
        clips.film(
            tmp_path / f"{count}.ts", frames=40, codec="libx264", b_frames=count, key_every=12
        )
        for count in (2, 0, 3, 0)
    ]
    check(clips.joined(tmp_path / "film.ts", *parts), 160)


@pytest.mark.parametrize("jump", [1000, -3])
def test_a_jump_of_the_clock_is_no_pause(jump: int, tmp_path: Path) -> None:
    begins = 10 * 90000
    first, second = (
        clips.film(
            tmp_path / f"{begin}.ts",
            codec="libx264",
            frames=50,
            pts=[begin + 3600 * number for number in range(50)],
            time_base=BROADCAST,
        )
        for begin in (begins, begins + (2 + jump) * 90000)
    )
    check(clips.joined(tmp_path / "film.ts", first, second), 100)


def test_a_pause_shorter_than_a_jump_stays(tmp_path: Path) -> None:
    times = [3600 * number + (5 * 90000 if number > 30 else 0) for number in range(60)]
    path = clips.film(
        tmp_path / "film.ts", codec="libx264", frames=60, pts=times, time_base=BROADCAST
    )
    frames, reader = read(path)
    assert len(frames) == 60
    assert (frames[31].pts - frames[30].pts) * reader.info.time_base == Fraction(126, 25)
    assert timeline(path).simple


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_sound_stays_beside_its_pictures(suffix: str, tmp_path: Path) -> None:
    first, second = (
        clips.film(
            tmp_path / f"{frames}{suffix}", frames=frames, sound=True, b_frames=2, key_every=12
        )
        for frames in (50, 75)
    )
    path, target = clips.joined(tmp_path / f"film{suffix}", first, second), tmp_path / "out.mkv"

    notes = again(path, target)

    assert not any("damaged" in note for note in notes)
    opening = clips.packets(second, "audio")[2][1]
    heard = [time for time, data in clips.packets(target, "audio") if data == opening]
    shown = [time for time, _ in clips.packets(target)]
    assert heard[1] - heard[0] == pytest.approx(2.0, abs=0.002) and len(heard) == 2
    assert shown == pytest.approx([shown[0] + number / 25 for number in range(125)], abs=0.001)
    assert clips.packets(target, "audio")[-1][0] == pytest.approx(shown[-1], abs=0.1)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_clock_that_begins_anew_after_a_day_keeps_pictures_and_sound(
    suffix: str, tmp_path: Path
) -> None:
    film, path = clips.film(tmp_path / "film.ts", frames=50, sound=True), tmp_path / "day.ts"
    with av.open(str(film)) as source, av.open(str(path), "w") as output:
        streams = {
            stream.index: output.add_stream_from_template(stream, opaque=True)
            for stream in source.streams
        }
        for packet in source.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = (
                    packet.pts + 2**33 - 3 * 90000,
                    packet.dts + 2**33 - 3 * 90000,
                )
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    target = tmp_path / f"out{suffix}"

    with FilmReader(path, chroma=True) as reader:
        assert reader.info.start_pts < 0
        encoding = Encoding("libx264").resolved(target)
        with PartWriter(tmp_path / "part", reader.info, encoding) as writer:
            for frame in reader:
                assert frame.chroma is not None
                writer.write(frame.pts, frame.luma, *frame.chroma)
    assemble([tmp_path / "part"], path, target)

    shown, heard = clips.packets(target), clips.packets(target, "audio")
    assert len(shown) == 50 and shown[-1][0] - shown[0][0] == pytest.approx(49 / 25, abs=0.001)
    assert len(heard) == len(clips.packets(film, "audio"))
    apart = clips.packets(film)[0][0] - clips.packets(film, "audio")[0][0]
    assert shown[0][0] - heard[0][0] == pytest.approx(apart, abs=0.002)


def test_a_part_behind_a_jump(tmp_path: Path) -> None:
    film = clips.film(tmp_path / "a.ts", frames=50, sound=True)
    path, target = clips.joined(tmp_path / "film.ts", film, film), tmp_path / "out.mkv"
    whole, _ = read(path)

    again(path, target, start=1.8, end=2.6)

    part, _ = read(target)
    assert len(part) == 20
    assert all(
        np.array_equal(one.luma, other.luma) for one, other in zip(part, whole[45:65], strict=True)
    )
    heard = clips.packets(target, "audio")
    assert 0 <= heard[0][0] < 0.03 and heard[-1][0] == pytest.approx(0.78, abs=0.03)
    assert len(heard) == pytest.approx(0.8 * 44100 / 1152, abs=2)


@pytest.mark.parametrize("resumed", [10, 60, 99])
def test_a_joined_film_is_resumed_where_it_stopped(resumed: int, tmp_path: Path) -> None:
    film = clips.film(tmp_path / "a.ts", frames=50, b_frames=2)
    path = clips.joined(tmp_path / "film.ts", film, film)
    whole, _ = read(path)
    behind, _ = read(path, from_pts=whole[resumed].pts)
    assert [frame.pts for frame in behind] == [frame.pts for frame in whole[resumed:]]
    assert all(np.array_equal(a.luma, b.luma) for a, b in zip(behind, whole[resumed:], strict=True))


def test_single_wrong_times_are_mended_and_said(tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.ts", codec="libx264", frames=60, b_frames=0)
    pieces = []
    # FFmpeg writes no time that goes back
    for first, last, ahead in (
        (0, 30, 0),
        (30, 31, 500 * 90000),
        (31, 60, 0),
    ):
        pieces.append(tmp_path / f"{first}.ts")
        with av.open(str(film)) as source, av.open(str(pieces[-1]), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in [packet for packet in source.demux(video=0) if packet.size][first:last]:
                assert packet.dts is not None
                packet.pts = packet.dts = packet.dts + ahead
                packet.stream = stream
                target.mux(packet)
    path = clips.joined(tmp_path / "wrong.ts", *pieces)
    frames, reader = read(path)
    assert len(frames) == 60 and timeline(path).strange == {30}
    times = [(frame.pts - frames[0].pts) * reader.info.time_base for frame in frames]
    assert times == [Fraction(number, 25) for number in range(60)]


def test_a_long_pause_of_a_film_that_is_no_broadcast_stays(tmp_path: Path) -> None:
    times = [40 * number for number in range(60)]
    film = clips.film(
        tmp_path / "film.mkv", frames=60, pts=times, time_base=Fraction(1, 1000), codec="ffv1"
    )
    path = tmp_path / "ahead.mkv"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(
            [packet for packet in source.demux(video=0) if packet.size]
        ):
            packet.stream = stream
            packet.pts = packet.dts = (packet.dts or 0) + (500_000 if number >= 30 else 0)
            target.mux(packet)
    assert timeline(path).simple
    frames, _ = read(path)
    assert len(frames) == 60 and frames[30].pts - frames[29].pts == 500_040


@pytest.mark.parametrize("seconds", [5, 20])
def test_pictures_that_stand_long_are_no_jumps(seconds: int, tmp_path: Path) -> None:
    times = [1000 * seconds * number for number in range(20)]
    path = clips.film(
        tmp_path / "film.mkv", frames=20, pts=times, time_base=Fraction(1, 1000), codec="ffv1"
    )
    frames, _ = read(path)
    assert timeline(path).simple and [frame.pts for frame in frames] == times


# Below: the parts by themselves.


def ordered(
    frames: list[tuple[int, str]], **options: Any
) -> tuple[list[tuple[int, str]], Order[str]]:
    order: Order[str] = Order(2, Fraction(50), **options)
    return list(order.put(iter(frames), lambda: False)), order


def test_frames_are_put_in_order_by_their_times() -> None:
    found, order = ordered([(0, "a"), (4, "c"), (2, "b"), (6, "d")])
    assert found == [(0, "a"), (2, "b"), (4, "c"), (6, "d")] and not order.moved and not order.jumps


def test_times_are_put_in_order_where_the_decoder_knows_that_of_the_frames() -> None:
    found, _ = ordered([(0, "a"), (4, "b"), (2, "c"), (8, "d"), (6, "e")], by_decoder=True)
    assert found == [(0, "a"), (2, "b"), (4, "c"), (6, "d"), (8, "e")]


def test_a_time_that_came_before_is_set_between_its_neighbours() -> None:
    found, order = ordered([(0, "a"), (10, "b"), (10, "c"), (20, "d")])
    assert found == [(0, "a"), (10, "b"), (15, "c"), (20, "d")] and order.moved == [15]


def test_where_there_is_no_room_all_frames_stay_in_order() -> None:
    found, _ = ordered([(number // 3, str(number)) for number in range(30)])
    assert [name for _, name in found] == [str(number) for number in range(30)]
    assert all(before < after for (before, _), (after, _) in zip(found, found[1:], strict=False))


def test_a_clock_that_is_set_back_moves_what_follows() -> None:
    frames = [(time, f"{time}") for time in range(0, 400, 2)] + [
        (time, f"again {time}") for time in range(0, 40, 2)
    ]
    found, order = ordered(frames, by_decoder=False)
    kept = [name for _, name in found]
    assert sorted(kept) == sorted(name for _, name in frames)
    assert all(before < after for (before, _), (after, _) in zip(found, found[1:], strict=False))
    assert found[-1] == (438, "again 38") and len(order.jumps) == 1


class Packet:
    def __init__(self, time: int) -> None:
        self.size, self.pts, self.dts = 1, time, time


@pytest.fixture
def known() -> Timeline:
    recordings = (
        Recording(0, Fraction(0), Fraction(1), Fraction(11)),
        Recording(250, Fraction(10), Fraction(1), Fraction(6)),
    )
    return Timeline(recordings, frozenset({3}))


def test_packets_of_pictures_are_moved_by_their_number(known: Timeline) -> None:
    mender = Mender(known, Fraction(1, 25))
    times = []
    for number in range(252):
        packet = Packet(25 + number if number < 250 else 25)
        mender.mend(packet)  # type: ignore[arg-type]
        times.append(packet.pts)
    assert times[3] is None and times[:3] == [25, 26, 27] and times[249:] == [274, 275, 275]
    assert known.end == 16 and known.borders == [11]


def test_sound_follows_where_its_own_clock_jumps(known: Timeline) -> None:
    def shifts(times: list[float]) -> Iterator[Fraction]:
        follower = Follower(known)
        for time in times:
            yield follower.shift(Fraction(time), Fraction(1))

    assert list(shifts([1, 2, 3, 10, 11, 1, 2])) == [0, 0, 0, 0, 0, 10, 10]
    # a pause, and a packet that comes a little early
    assert list(shifts([2, 9, 9.99])) == [
        0,
        0,
        0,
    ]
