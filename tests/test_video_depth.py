"""Films of more than 8 bits keep them, interlaced films keep their fields, and high dynamic range is
refused.
"""

from __future__ import annotations

import dataclasses
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import clips
from test_film import Fake, run

from gancolor.errors import DataError
from gancolor.video import display, mux
from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.encoding import Encoding, PartWriter, encoding_notes
from gancolor.video.planes import depth_of, luma_of
from gancolor.video.probe import FilmInfo, probe

QUICK = {"libx264": "ultrafast", "libx265": "ultrafast", "libsvtav1": "13", "libvpx-vp9": "8"}
BT709 = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
PQ, HLG = 16, 18
MASTERING = (
    "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
    "L(10000000,1)"
)


def read(path: Path, **options: Any) -> tuple[list[Frame], FilmInfo]:
    with FilmReader(path, chroma=True, **options) as reader:
        return list(reader), reader.info


def quick(target: Path, info: FilmInfo, codec: str = "auto") -> Encoding:
    chosen = Encoding(codec).resolved(target, info)
    return Encoding(chosen.codec, preset=QUICK.get(chosen.codec), deepest=chosen.deepest).resolved(
        target, info
    )


def pixels_in(path: Path) -> str:
    """The pixel format of a film's first frame."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).format.name


# More than 8 bits


@pytest.mark.parametrize(
    ("pixels", "codec", "depth"),
    [
        ("gray10le", "ffv1", 10),
        ("gray16le", "ffv1", 16),
        ("yuv420p9le", "ffv1", 9),
        ("yuv420p10le", "ffv1", 10),
        ("yuv422p10le", "ffv1", 10),
        ("yuv444p12le", "ffv1", 12),
        ("yuv420p16le", "ffv1", 16),
        ("yuv420p10be", "rawvideo", 10),
    ],
)
def test_luma_is_read_bit_for_bit(pixels: str, codec: str, depth: int, tmp_path: Path) -> None:
    path = tmp_path / "film.nut"
    written = clips.deep_film(path, pixels, codec=codec, frames=2)

    frames, info = read(path)

    assert info.depth == depth and info.notes == []
    for luma, frame in zip(written, frames, strict=True):
        assert frame.luma.dtype == np.uint16
        np.testing.assert_array_equal(frame.luma, luma)
        assert frame.chroma is not None and frame.chroma[0].shape == (24, 32)
        assert all((plane == 1 << (depth - 1)).all() for plane in frame.chroma)


@pytest.mark.parametrize(("pixels", "shift"), [("p010le", 6), ("p016le", 0), ("p210le", 6)])
def test_bits_at_the_top_of_16_are_found(pixels: str, shift: int) -> None:
    codes = np.arange(64, dtype="<u2") + 400
    frame = av.VideoFrame(64, 48, pixels)
    rows = np.frombuffer(memoryview(frame.planes[0]), "<u2").reshape(48, -1)
    rows[:, :64] = codes << shift

    luma = luma_of(frame, 1, 1, 16 - shift)

    assert depth_of(frame) == 16 - shift
    np.testing.assert_array_equal(luma, np.tile(codes, (48, 1)))


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv420p12le", "gray16le"])
def test_a_deep_film_keeps_luma_bit_for_bit_and_gets_colours_of_its_depth(
    pixels: str, tmp_path: Path
) -> None:
    written = clips.deep_film(tmp_path / "in.mkv", pixels)

    result = run(tmp_path / "in.mkv", tmp_path / "out.mkv")

    frames, info = read(tmp_path / "out.mkv")
    depth = probe(tmp_path / "in.mkv").depth
    assert (result.notes, info.depth, pixels_in(tmp_path / "out.mkv")) == (
        [],
        depth,
        f"yuv420p{depth}le",
    )
    for luma, frame in zip(written, frames, strict=True):
        np.testing.assert_array_equal(frame.luma, luma)
        assert frame.chroma is not None
        for plane in frame.chroma:
            # of 8 bits, only one code in 2 ** (depth - 8) would occur
            assert plane.std() > 1 << (depth - 8)
            assert (plane % (1 << (depth - 8)) != 0).mean() > 0.5


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "libx265"),
        (".mov", "libx265"),
        (".mkv", "libx265"),
        (".avi", "libx264"),
        (".webm", "libsvtav1"),
    ],
)
def test_the_default_of_every_container_keeps_10_bits(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    written = clips.deep_film(tmp_path / "in.mkv", "yuv420p10le")
    target = tmp_path / f"out{suffix}"
    encoding = quick(target, probe(tmp_path / "in.mkv"))

    result = run(tmp_path / "in.mkv", target, encoding=encoding)

    frames, info = read(target)
    assert (encoding.codec, info.depth, pixels_in(target)) == (codec, 10, "yuv420p10le")
    assert result.notes == [] and len(frames) == 4
    first = target.read_bytes()
    run(tmp_path / "in.mkv", target, encoding=encoding)
    assert target.read_bytes() == first
    for luma, frame in zip(written, frames, strict=True):
        assert np.abs(frame.luma.astype(int) - luma).mean() < 8  # 2 of 8 bits
    if codec == "libx265" and suffix != ".mkv":
        with av.open(str(target)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_what_comes_of_more_bits_is_chosen_by_the_film(tmp_path: Path) -> None:
    info = {}
    for pixels, width in (("yuv420p10le", 64), ("yuv444p12le", 64), ("gray16le", 63)):
        clips.deep_film(tmp_path / "in.mkv", pixels, frames=1, width=width)
        info[pixels] = probe(tmp_path / "in.mkv")

    def notes(pixels: str, codec: str, suffix: str) -> list[str]:
        return encoding_notes(info[pixels], Encoding(codec).resolved(f"a{suffix}", info[pixels]))

    keeps = "--codec ffv1 in an .mkv keeps them all"
    assert notes("yuv420p10le", "libvpx-vp9", ".webm") == [
        f"of 10 bits: written with 8, libvpx-vp9 holds no more; {keeps}"
    ]
    assert notes("yuv444p12le", "auto", ".mp4") == [
        f"of 12 bits: written with 10, few players show more; {keeps}"
    ]
    assert notes("yuv444p12le", "libx265", ".mp4") == []
    assert notes("yuv444p12le", "prores_ks", ".mov") == [
        f"of 12 bits: written with 10, prores_ks holds no more; {keeps}"
    ]
    assert notes("gray16le", "ffv1", ".mkv") == []
    assert Encoding().resolved("a.webm", info["gray16le"]).codec == "libvpx-vp9"  # of odd size
    assert notes("gray16le", "auto", ".mkv")[0].startswith("of 16 bits: written with 10, few")


@pytest.mark.parametrize(
    ("pixels", "depth", "wanted"),
    [("gray16le", 16, "yuv420p12le"), ("yuv420p9le", 9, "yuv420p10le"), ("gray", 8, "yuv420p")],
)
def test_bits_are_rounded_or_filled_up(
    pixels: str, depth: int, wanted: str, tmp_path: Path
) -> None:
    written = clips.deep_film(tmp_path / "in.mkv", pixels, frames=2, color={"color_range": 1})
    _, info = read(tmp_path / "in.mkv")
    encoding = Encoding("libx265", quality=0, preset="ultrafast").resolved("a.mkv", info)

    with PartWriter(tmp_path / "part.nut", info, encoding) as writer:
        half = np.full((24, 32), 1 << (depth - 1), written[0].dtype)
        for index, luma in enumerate(written):
            writer.write(40 * index, luma, half, half)

    frames, told = read(tmp_path / "part.nut")
    assert pixels_in(tmp_path / "part.nut") == wanted and info.depth == depth
    expected = written[0].astype(float) * 2.0 ** (told.depth - depth)
    assert np.abs(frames[0].luma - expected).mean() < 2.5


def test_rgb_and_alpha_keep_their_bits(tmp_path: Path) -> None:
    codes = np.linspace(100, 900, 64).astype("<u2")
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gbrap10le"
        frame = av.VideoFrame(64, 48, "gbrap10le")
        for plane in frame.planes:
            np.frombuffer(memoryview(plane), "<u2").reshape(48, -1)[:, :64] = codes
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    frames, info = read(tmp_path / "in.mkv", alpha=True)
    result = run(tmp_path / "in.mkv", tmp_path / "out.mkv")
    again, told = read(tmp_path / "out.mkv", alpha=True)

    assert info.depth == told.depth == 10 and "of 10 bits" in result.notes[0]
    assert len(result.notes) == 1 and pixels_in(tmp_path / "out.mkv") == "yuva420p10le"
    assert frames[0].alpha is not None and again[0].alpha is not None
    np.testing.assert_array_equal(frames[0].alpha[5], codes)
    np.testing.assert_array_equal(again[0].alpha, frames[0].alpha)
    np.testing.assert_array_equal(again[0].luma, frames[0].luma)
    assert np.abs(frames[0].luma[5] - (64 + codes * (876 / 1023))).max() < 3  # FFmpeg's


# Fields


@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("film.mkv", "libx264", "yuv420p"),
        ("film.ts", "mpeg2video", "yuv420p"),
        ("film.mov", "prores_ks", "yuv422p10le"),
        ("film.avi", "ffv1", "gray10le"),
    ],
)
def test_the_order_of_the_fields_is_found(
    name: str, codec: str, pixels: str, fields: str, tmp_path: Path
) -> None:
    clips.deep_film(tmp_path / name, pixels, codec=codec, fields=fields)

    info = probe(tmp_path / name)

    assert info.interlaced and info.fields == fields and info.notes == []


@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        (".mp4", "auto", "yuv420p"),
        (".mkv", "auto", "yuv420p10le"),
        (".avi", "auto", "yuv420p"),
        (".mov", "prores_ks", "yuv422p10le"),
        (".mkv", "ffv1", "yuv420p10le"),
    ],
)
def test_an_interlaced_film_keeps_its_fields(
    suffix: str, codec: str, pixels: str, fields: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    gray = "gray" if pixels == "yuv420p" else "gray10le"
    written = clips.deep_film(source, gray, fields=fields, color={"color_range": 1})

    result = run(source, target, encoding=quick(target, probe(source), codec))

    frames, info = read(target)
    assert (info.interlaced, info.fields, result.notes) == (True, fields, [])
    assert pixels_in(target) == pixels
    if suffix in (".mkv", ".mov") and codec != "auto":
        with av.open(str(target)) as container:
            order = container.streams.video[0].codec_context.field_order
        assert order == (2 if fields == "tff" else 3)
    for luma, frame in zip(written, frames, strict=True):
        assert np.abs(frame.luma.astype(int) - luma).mean() < (2 << (info.depth - 8))


def test_no_colour_of_one_field_is_made_of_the_others_light(tmp_path: Path) -> None:
    class Bright(Fake):
        """Colours only what is bright, everywhere the same."""

        def predict_view(self, view: Any) -> Any:
            prediction = super().predict_view(view)
            prediction.colors[:] = (0.2, 0.2)
            return prediction

    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    written = clips.deep_film(source, "gray10le", fields="tff", color={"color_range": 1})
    run(source, target, Bright(), upsample="bilinear")

    for parity in (0, 1):  # a film that shows one of the two fields in both places
        single = tmp_path / f"single{parity}.mkv"
        _store(single, [np.repeat(luma[parity::2], 2, axis=0) for luma in written])
        run(single, tmp_path / "alone.mkv", Bright(), upsample="bilinear")
        for frame, alone in zip(read(target)[0], read(tmp_path / "alone.mkv")[0], strict=True):
            assert frame.chroma is not None and alone.chroma is not None
            for plane, wanted in zip(frame.chroma, alone.chroma, strict=True):
                np.testing.assert_array_equal(plane[parity::2], wanted[parity::2])


def _store(path: Path, lumas: list[Any]) -> None:
    """Write lumas of 10 bits as an interlaced film."""
    info = probe(path.with_name("in.mkv"))
    neutral = np.full((24, 32), 512, np.uint16)
    with PartWriter(path, info, Encoding("ffv1").resolved("a.mkv")) as writer:
        for index, luma in enumerate(lumas):
            writer.write(40 * index, luma, neutral, neutral)


@pytest.mark.parametrize("codec", ["libx264", "ffv1", "prores_ks"])
def test_fields_of_unequal_height(codec: str, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    clips.deep_film(source, "gray10le", height=50, fields="bff")
    result = run(
        source, tmp_path / "out.mkv", encoding=quick(tmp_path / "out.mkv", probe(source), codec)
    )

    info = probe(tmp_path / "out.mkv")
    assert (info.height, info.fields) == (50, "bff")
    assert pixels_in(tmp_path / "out.mkv") == ("yuv420p10le" if codec == "ffv1" else "yuv422p10le")
    assert ["chroma is kept at full height" in note for note in result.notes] == (
        [True] if codec == "libx264" else []
    )


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libsvtav1", "libx265"])
def test_codecs_without_fields_are_told_once(codec: str, tmp_path: Path) -> None:
    clips.deep_film(tmp_path / "in.mkv", "gray", fields="tff", frames=1)
    info = probe(tmp_path / "in.mkv")

    notes = encoding_notes(info, Encoding(codec).resolved("a.mkv", info))

    assert [note.split(";")[0] for note in notes] == [
        "interlaced: its fields stay, but "
        + codec
        + (" does not mark them, so that players show them as combs")
    ]


def test_turned_fields(tmp_path: Path) -> None:
    options = {"codec": "mpeg2video", "interlaced": True, "frames": 3}
    plain, over, aside = (
        probe(clips.film(tmp_path / f"{rotation}.mov", rotation=rotation, **options))
        for rotation in (0, 180, 90)
    )

    assert plain.fields == "bff" and over.fields == "tff" and aside.fields is None
    assert plain.notes == over.notes == [] and aside.interlaced
    assert [note.split(":")[0] for note in aside.notes] == ["interlaced and turned"]


def test_a_film_that_becomes_interlaced_is_told_once(tmp_path: Path) -> None:
    for name, fields in (("whole.ts", None), ("fields.ts", "tff")):
        clips.deep_film(tmp_path / name, "yuv420p", codec="mpeg2video", frames=8, fields=fields)
    film = clips.joined(tmp_path / "film.ts", tmp_path / "whole.ts", tmp_path / "fields.ts")

    frames, info = read(film)

    assert len(frames) >= 15 and info.fields is None
    assert [note for note in info.notes if "interlaced" in note] == [
        "interlaced from 0:00.32 on, but not from the beginning: these frames are coloured and"
        " written whole; deinterlace the film first"
    ]


# High dynamic range


@pytest.mark.parametrize(
    ("color", "codec", "pixels", "options", "kind"),
    [
        (PQ, "libx265", "yuv420p10le", "log-level=none", "PQ"),
        (HLG, "libx265", "yuv420p10le", "log-level=none", "HLG"),
        (PQ, "ffv1", "gray16le", None, "PQ"),
        (2, "libx265", "yuv420p10le", MASTERING, "the metadata of HDR10"),
    ],
)
def test_high_dynamic_range_is_refused_in_one_line(
    color: int, codec: str, pixels: str, options: str | None, kind: str, tmp_path: Path
) -> None:
    tags = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": color}
    given = {"x265-params": options, "preset": "ultrafast"} if options else None
    source = tmp_path / "in.mkv"
    clips.deep_film(source, pixels, codec=codec, frames=2, color=tags, options=given)

    with pytest.raises(DataError, match=f"standard dynamic range, got {kind}.*ffmpeg -i") as raised:
        run(source, tmp_path / "out.mkv")

    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_dolby_vision_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    options = {"x265-params": "log-level=none", "preset": "ultrafast"}
    clips.deep_film(source, "yuv420p10le", codec="libx265", frames=1, options=options)
    source.write_bytes(source.read_bytes().replace(b"hev1", b"dvh1"))

    with pytest.raises(DataError, match="got Dolby Vision in .*libplacebo"):
        probe(source)


def test_the_metadata_of_a_display_alone_are_no_high_dynamic_range(tmp_path: Path) -> None:
    options = {"x265-params": MASTERING, "preset": "ultrafast"}
    clips.deep_film(
        tmp_path / "in.mkv", "yuv420p10le", codec="libx265", frames=2, color=BT709, options=options
    )

    assert probe(tmp_path / "in.mkv").color_transfer == 1


def test_high_dynamic_range_behind_another_film_is_refused(tmp_path: Path) -> None:
    for name, curve in (("sdr.ts", 1), ("hdr.ts", PQ)):
        clips.deep_film(tmp_path / name, "yuv420p10le", codec="libx264", color={"color_trc": curve})
    film = clips.joined(tmp_path / "film.ts", tmp_path / "sdr.ts", tmp_path / "hdr.ts")

    with pytest.raises(DataError, match="standard dynamic range, got PQ"):
        run(film, tmp_path / "out.mkv")

    assert not (tmp_path / "out.mkv").exists()


# The shape of pixels


@pytest.mark.parametrize("aspect", [Fraction(16, 15), Fraction(8, 9)])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "libx265"),
        (".mp4", "libvpx-vp9"),
        (".mov", "prores_ks"),
        (".mkv", "libx264"),
        (".mkv", "libsvtav1"),
        (".mkv", "prores_ks"),
        (".webm", "libvpx-vp9"),
        (".webm", "libsvtav1"),
        (".avi", "libx264"),
    ],
)
def test_the_shape_of_pixels_is_kept(
    suffix: str, codec: str, aspect: Fraction, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    clips.deep_film(source, "yuv420p", codec="libx264", width=90, frames=2, aspect=aspect)

    result = run(source, target, encoding=quick(target, probe(source), codec))

    assert (probe(target).pixel_aspect, result.notes) == (aspect, [])
    data, width = target.read_bytes(), round(90 * aspect)
    ratio, webm = aspect * Fraction(90, 48), (96, 48) if aspect > 1 else (80, 48)
    shown = {
        ".mkv": bytes([0x54, 0xB0, 0x81, ratio.numerator, 0x54, 0xBA, 0x81, ratio.denominator]),
        ".webm": bytes([0x54, 0xB0, 0x81, *webm[:1], 0x54, 0xBA, 0x81, *webm[1:]]),
        ".mp4": (width << 16).to_bytes(4, "big") + (48 << 16).to_bytes(4, "big"),
    }
    assert shown.get(suffix, b"") in data and display.ROOM.encode() not in data


@pytest.mark.parametrize(
    ("suffix", "title"), [(".mkv", "Reel 2, é"), (".webm", ""), (".mkv", "t" * 200)]
)
def test_what_stands_beside_the_display_size_stays(suffix: str, title: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    plain = tmp_path / f"plain{suffix}"
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    clips.film(plain, codec=codec, sound=True, frames=4)
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        streams[0].metadata.update({"title": title, "language": "deu"})
        streams[0].codec_context.sample_aspect_ratio = Fraction(16, 15)
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    info = dataclasses.replace(probe(source), pixel_aspect=Fraction(16, 15))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mux, "probe", lambda path: info)
        run(source, target, encoding=quick(target, info, codec))

    with av.open(str(target)) as film:
        stream = film.streams.video[0]
        assert stream.sample_aspect_ratio == Fraction(16, 15)
        assert (stream.metadata.get("title", ""), stream.metadata["language"]) == (title, "deu")
        assert len(film.streams.audio) == 1 and len(list(film.decode(video=0))) == 4
    tracks = target.read_bytes().split(b"\x16\x54\xae\x6b", 2)[-1]
    count = 9 - tracks[0].bit_length()
    length = int.from_bytes(tracks[:count], "big") & ((1 << 7 * count) - 1)
    content = tracks[count : count + length]
    assert (content[:2] == b"\xbf\x84") == (suffix == ".mkv")  # WebM has no checksum
    assert suffix == ".webm" or int.from_bytes(content[2:6], "little") == zlib.crc32(content[6:])


def test_a_file_without_tracks_is_refused(tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.mkv", frames=2)
    before = film.read_bytes()
    for data in (before[:100], b""):
        film.write_bytes(data)
        with pytest.raises(ValueError, match="the file must have tracks"):
            display.show_at(film, "matroska", (64, 48), Fraction(4, 3))
        assert film.read_bytes() == data


@pytest.mark.parametrize(
    ("size", "aspect", "width", "height"),
    [
        ((64, 48), Fraction(16, 15), 64, 45),
        ((720, 576), Fraction(12, 11), 780, 572),
        ((720, 480), Fraction(8, 9), 640, 480),
        ((1440, 1080), Fraction(4, 3), 1920, 1080),
        ((719, 31), Fraction(12, 11), 784, 31),
    ],
)
def test_webm_is_shown_at_the_next_size_of_the_very_ratio(
    size: tuple[int, int], aspect: Fraction, width: int, height: int
) -> None:
    def element(name: bytes, value: int) -> bytes:
        data = value.to_bytes(2 if value > 255 else 1, "big")
        return name + bytes([0x80 + len(data)]) + data

    wanted = element(b"\x54\xb0", width) + element(b"\x54\xba", height)
    assert display._shown_size(size, aspect, exact=False) == wanted
