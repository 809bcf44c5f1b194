"""Films on pipes: raw frames and Y4M in and out, the colours of a film's file, and every end that is
not in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import clips
import forkserver
import numpy as np
import pytest
import small_models
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.video import share
from gancolor.video.film_settings import FilmSettings, PipeSettings
from gancolor.video.pipe import PipeReader, PipeWriter, written_format
from gancolor.video.streaming import StreamResult, color_stream

if TYPE_CHECKING:
    from click.testing import Result

Planes = list[NDArray[Any]]
Command = Callable[..., "Result"]

WIDTH, HEIGHT = 64, 48
HEADER = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2"


class Fake:
    """A colorizer whose colours follow the gray."""

    name = "fake step 1"
    condition = "gray"
    sight = Sight(32)

    def predict_view(self, view: View) -> Prediction:
        gray = view.rgb[..., :1].astype(np.float32) / 255
        return Prediction(np.concatenate((0.3 * gray, 0.2 - 0.4 * gray), axis=2))


def luma(count: int, width: int = WIDTH, height: int = HEIGHT, cut: int = 0) -> Planes:
    """Frames of one shot, or of two from the frame `cut` on."""
    return [
        clips.picture(index, width, height, gray=True, shot=int(0 < cut <= index))[..., 0]
        for index in range(count)
    ]


def y4m(frames: Sequence[NDArray[Any]], header: str = HEADER, rest: int | None = None) -> bytes:
    """A film in Y4M; `rest`: bytes of chroma behind each luma, of 4:2:0 unless said."""
    height, width = frames[0].shape
    behind = 2 * -(-height // 2) * -(-width // 2) if rest is None else rest
    parts = [header.encode() + b"\n"]
    behind *= frames[0].itemsize
    parts += [b"FRAME\n" + frame.tobytes() + bytes([1]) * behind for frame in frames]
    return b"".join(parts)


class Film(NamedTuple):
    """What was written: the header's words and, of each frame, luma and chroma."""

    header: list[str]
    frames: list[Planes]


def parsed(data: bytes, depth: int = 8) -> Film:
    """Read Y4M of 4:2:0 by itself."""
    line, _, body = data.partition(b"\n")
    words = line.decode().split()
    width, height = (int(next(w for w in words if w[0] == side)[1:]) for side in "WH")
    shapes = [(height, width)] + [(-(-height // 2), -(-width // 2))] * 2
    frames = []
    while body:
        tag, _, body = body.partition(b"\n")
        assert tag.startswith(b"FRAME")
        planes = []
        for shape in shapes:
            kind = np.dtype("u1" if depth == 8 else "<u2")
            size = shape[0] * shape[1] * kind.itemsize
            assert len(body) >= size, "the output must end behind a whole frame"
            planes.append(np.frombuffer(body[:size], kind).reshape(shape))
            body = body[size:]
        frames.append(planes)
    return Film(words, frames)


@contextlib.contextmanager
def source(data: bytes, folder: Path) -> Iterator[int]:
    """A file descriptor to read `data` from."""
    path = folder / "in.raw"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        yield file.fileno()


def stream(
    data: bytes, folder: Path, settings: PipeSettings | None = None, **of_films: Any
) -> tuple[bytes, StreamResult]:
    """Colour a film in this process."""
    settings = settings or PipeSettings(raw="y4m")
    with source(data, folder) as file, (folder / "out.raw").open("wb", buffering=0) as out:
        reader = PipeReader(file, settings)
        writer = PipeWriter(out.fileno(), written_format(reader.format, settings))
        try:
            result = color_stream(
                Fake(),  # type: ignore[arg-type]
                reader,
                writer,
                FilmSettings(**{"key_interval": 3} | of_films),
                progress=lambda done, total: None,
            )
        finally:
            written = (folder / "out.raw").read_bytes()
    return written, result


def failing(data: bytes, folder: Path, settings: PipeSettings | None = None) -> tuple[str, bytes]:
    """What is said of a film that cannot be coloured as a whole, and what was written."""
    with pytest.raises(DataError) as error:
        stream(data, folder, settings)
    out = folder / "out.raw"
    return str(error.value), out.read_bytes() if out.exists() else b""


# --- frames ---


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (1, 1), (40, 130)])
def test_y4m_keeps_its_luma_and_gets_colours(tmp_path: Path, width: int, height: int) -> None:
    frames = luma(7, width, height)
    header = HEADER.replace("W64 H48", f"W{width} H{height}")
    written, result = stream(y4m(frames, header), tmp_path)
    film = parsed(written)
    words = f"W{width} H{height} F25:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED"
    assert film.header == ["YUV4MPEG2", *words.split()]
    assert len(film.frames) == 7 == result.frames
    assert all((y == gray).all() for (y, _, _), gray in zip(film.frames, frames, strict=True))
    assert width == 1 or any((u != 128).any() for _, u, _ in film.frames)


@pytest.mark.parametrize(
    ("pixels", "strength", "interlaced"),
    [("yuv420p", 0.8, False), ("yuv420p", 0.0, True), ("yuv420p10le", 0.8, False)],
    ids=["8-bits", "interlaced", "10-bits"],
)
def test_colours_equal_those_of_the_films_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: str, strength: float, interlaced: bool
) -> None:
    pytest.importorskip("av")
    from gancolor.video.decoding import FilmReader
    from gancolor.video.encoding import Encoding
    from gancolor.video.film import color_film

    monkeypatch.setattr(share, "PART_FRAMES", 8)  # a file is coloured in parts, a pipe at once
    options = {"codec": "libx264"} if interlaced else {"codec": "ffv1"}
    film = clips.film(
        tmp_path / "film.mkv",
        frames=23,
        shots=[10],
        pixels=pixels,
        interlaced=interlaced,
        **options,  # type: ignore[arg-type]
    )
    settings = FilmSettings(
        key_interval=3, strength=strength, saturation=1.2, encoding=Encoding("ffv1")
    )
    target = tmp_path / "target.mkv"
    color_film(Fake(), film, target, settings, progress=lambda done, total: None)  # type: ignore[arg-type]
    depth = 10 if pixels.endswith("10le") else 8
    with FilmReader(film) as reader:
        assert reader.info.depth == depth and (reader.info.fields is not None) == interlaced
        header = HEADER.replace("C420mpeg2", "C420jpeg" if depth == 8 else "C420p10")
        header = header.replace("Ip", "It") if interlaced else header
        data = y4m([frame.luma for frame in reader], header)
    written, result = stream(data, tmp_path, strength=strength, saturation=1.2)
    piped = parsed(written, depth)
    assert ("C420jpeg" if depth == 8 else "C420p10") in piped.header
    with FilmReader(target, chroma=True) as reader:
        for planes, frame in zip(piped.frames, reader, strict=True):
            assert frame.chroma is not None
            for one, two in zip(planes, (frame.luma, *frame.chroma), strict=True):
                assert np.array_equal(one, two)
    assert result.shots == (2 if strength else 0)


def test_gray_frames_become_rgb_of_the_same_lightness(tmp_path: Path) -> None:
    frames = luma(5, 63, 47)
    data = b"".join(frame.tobytes() for frame in frames)
    written, _ = stream(data, tmp_path, PipeSettings(raw="63x47@25"))
    rgb = np.frombuffer(written, np.uint8).reshape(5, 47, 63, 3)
    for colored, gray in zip(rgb, frames, strict=True):
        wanted, _ = color.split(color.to_tensor(np.repeat(gray[..., None], 3, axis=2)))
        found, ab = color.split(color.to_tensor(colored))
        assert float((found - wanted).abs().max()) * 50 < 0.8  # L*, rounded to 8 bits
        assert float(ab.abs().mean()) > 0.03


@pytest.mark.parametrize("depth", [10, 16])
def test_more_bits_become_rgb_of_16_bits(tmp_path: Path, depth: int) -> None:
    rows = np.linspace(0, (1 << depth) - 1, 32 * 32).reshape(32, 32).round().astype(np.uint16)
    ours = PipeSettings(raw="32x32", raw_pixels=f"gray{depth}le")
    rgb = np.frombuffer(stream(rows.tobytes(), tmp_path, ours)[0], "<u2").reshape(32, 32, 3)
    whole = torch.from_numpy((rgb / 65535).astype(np.float32)).permute(2, 0, 1)[None]
    light, ab = color.split(whole)
    gray = torch.from_numpy((rows / ((1 << depth) - 1)).astype(np.float32))
    wanted, _ = color.split(gray.expand(1, 3, 32, 32))
    assert float((light - wanted).abs().max()) * 50 < 0.02  # L*: a hundredth of what 8 bits hold
    assert float(ab.abs().mean()) > 0.02


def test_samples_beyond_their_bits_end_the_film(tmp_path: Path) -> None:
    """As where the high byte comes first."""
    frames = [np.full((48, 64), value, np.uint16) for value in (100, 200, 2000)]
    said, written = failing(y4m(frames, HEADER.replace("C420mpeg2", "C420p10")), tmp_path)
    assert "samples of 10 bits, low byte first, got 2000 in frame 3" in said
    assert len(parsed(written, 10).frames) == 2


def test_gray_rgb_is_as_good_as_gray(tmp_path: Path) -> None:
    frames = luma(5)
    gray, _ = stream(b"".join(x.tobytes() for x in frames), tmp_path, PipeSettings(raw="64x48"))
    data = b"".join(np.repeat(x[..., None], 3, axis=2).tobytes() for x in frames)
    rgb, _ = stream(data, tmp_path, PipeSettings(raw="64x48", raw_pixels="rgb24"))
    assert gray == rgb


def test_raw_planes_equal_those_of_y4m(tmp_path: Path) -> None:
    data = y4m(luma(7))
    planes = b"".join(data.split(b"FRAME\n")[1:])
    ours = PipeSettings(raw="64x48", raw_pixels="yuv420p")
    raw, _ = stream(planes, tmp_path, ours)
    colored, _ = stream(data, tmp_path)
    assert raw == b"".join(colored.split(b"FRAME\n")[1:])
    named = PipeSettings(raw="64x48@30000/1001", raw_pixels="yuv420p", raw_out="y4m")
    as_y4m, _ = stream(planes, tmp_path, named)
    assert b"".join(as_y4m.split(b"FRAME\n")[1:]) == raw
    assert b"F30000:1001 Ip A0:0 C420jpeg XCOLORRANGE=LIMITED" in as_y4m


def test_the_range_decides_how_luma_looks(tmp_path: Path) -> None:
    data = b"".join(frame.tobytes() for frame in luma(3))
    full, _ = stream(data, tmp_path, PipeSettings(raw="64x48@25", raw_out="y4m"))
    limited, _ = stream(
        data, tmp_path, PipeSettings(raw="64x48@25", raw_out="y4m", raw_range="limited")
    )
    assert b"XCOLORRANGE=FULL" in full and b"XCOLORRANGE=LIMITED" in limited
    one, two = parsed(full).frames[0], parsed(limited).frames[0]
    assert (one[0] == two[0]).all() and (one[1] != two[1]).any()


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("mono", 0),
        ("420", None),
        ("420paldv", None),
        ("422", 2 * 32 * 48),
        ("444", 2 * 64 * 48),
        ("411", 2 * 16 * 48),
        ("440", 2 * 64 * 24),
        ("410", 2 * 16 * 12),
    ],
)
def test_every_kind_of_chroma_is_read_past(tmp_path: Path, kind: str, rest: int | None) -> None:
    frames = luma(3)
    header = f"YUV4MPEG2 W64 H48 F25:1 C{kind} XCOLORRANGE=FULL"
    film = parsed(stream(y4m(frames, header, rest), tmp_path)[0])
    assert [y.tolist() for y, _, _ in film.frames] == [frame.tolist() for frame in frames]
    assert "XCOLORRANGE=FULL" in film.header


def test_what_a_header_says_is_handed_on(tmp_path: Path) -> None:
    header = "YUV4MPEG2 H48 XLENGTH=3 W64 F24000:1001 It A10:11"
    data = y4m(luma(3), header).replace(b"FRAME\n", b"FRAME Ippp\n")
    written, _ = stream(data, tmp_path)
    assert written.startswith(
        b"YUV4MPEG2 W64 H48 F24000:1001 It A10:11 C420jpeg XCOLORRANGE=LIMITED\n"
    )
    assert written.count(b"FRAME Ippp\n") == 3
    with source(data, tmp_path) as file:
        form = PipeReader(file, PipeSettings(raw="y4m")).format
    assert form.frames == 3 and form.fields == "tff" and form.rate == Fraction(24000, 1001)


# --- streaming ---


@pytest.mark.parametrize(("strength", "behind"), [(0.8, 4), (0.0, 0)])
def test_a_frame_comes_out_after_few_others(tmp_path: Path, strength: float, behind: int) -> None:
    """While the input stays open, all frames are out but the last few."""
    frames, ours = luma(14, cut=9), PipeSettings(raw="64x48", raw_pixels="gray", raw_out="rgb")
    read, write = os.pipe()
    out_read, out_write = os.pipe()
    reader = PipeReader(read, ours)
    writer = PipeWriter(out_write, written_format(reader.format, ours))
    settings = FilmSettings(key_interval=3, strength=strength)
    work = threading.Thread(
        target=color_stream,
        args=(Fake(), reader, writer, settings),
        kwargs={"progress": lambda done, total: None},
    )
    work.start()
    with os.fdopen(out_read, "rb") as out, os.fdopen(write, "wb", buffering=0) as feed:
        for index, frame in enumerate(frames):
            feed.write(frame.tobytes())
            if index >= behind:  # blocks for ever where more frames are needed
                assert len(out.read(WIDTH * HEIGHT * 3)) == WIDTH * HEIGHT * 3
        feed.close()
        work.join(60)
        assert not work.is_alive()
        os.close(out_write)
        assert len(out.read()) == WIDTH * HEIGHT * 3 * behind
    os.close(read)


@pytest.mark.slow
def test_a_slow_reader_holds_the_input_back(tmp_path: Path) -> None:
    """However long the film is, few of its frames are in memory at once."""
    frames = luma(20, 16, 16)
    ours = PipeSettings(raw="16x16")
    waiting = []
    with source(b"".join(x.tobytes() for x in frames * 8), tmp_path) as file:
        reader = PipeReader(file, ours)

        class Slow(PipeWriter):
            def write(self, *frame: Any) -> None:
                threading.Event().wait(0.001)
                super().write(*frame)
                waiting.append(reader.frames - self.frames)

        with (tmp_path / "out.raw").open("wb") as out:
            writer = Slow(out.fileno(), written_format(reader.format, ours))
            result = color_stream(
                Fake(),  # type: ignore[arg-type]
                reader,
                writer,
                FilmSettings(strength=0.0),
                progress=lambda done, total: None,
            )
    assert result.frames == 160 and max(waiting) <= 18


# --- ends that are not in order ---


def test_whole_frames_before_a_torn_one_are_written(tmp_path: Path) -> None:
    frames = luma(8)
    whole, _ = stream(y4m(frames[:7]), tmp_path)
    said, written = failing(y4m(frames)[:-1], tmp_path)
    assert written == whole
    assert said == (
        "standard input must end after a whole frame, got 4,607 of 4,608 bytes of frame 8; look at"
        " the program that writes it; 7 frames before it written"
    )
    said, written = failing(y4m(frames[:7]) + b"FRA", tmp_path)
    assert "got 0 of 4,608 bytes of frame 8; look" in said and written == whole
    said, written = failing(luma(1)[0].tobytes() * 2 + b"x", tmp_path, PipeSettings(raw="64x48"))
    assert "got 1 of 3,072 bytes of frame 3; check --raw and --raw-pixels" in said
    assert len(written) == 2 * 3 * 3072


def test_a_frame_without_its_mark_ends_the_film(tmp_path: Path) -> None:
    data = y4m(luma(4))
    place = data.rindex(b"FRAME")
    said, written = failing(data[:place] + b"MARF!" + data[place + 5 :], tmp_path)
    assert "frame 4 on standard input must begin with FRAME" in said and "'MARF!" in said
    assert len(parsed(written).frames) == 3


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "got nothing"),
        ("RIFF....AVI LIST", "must begin with YUV4MPEG2"),
        ("YUV4MPEG3 W64 H48", "must begin with YUV4MPEG2"),
        (f"YUV4MPEG2 W64 H48 X{'x' * 300}", "a line of at most 256 bytes"),
        ("YUV4MPEG2 W64 F25:1", "must say H1 to H32767, got none"),
        ("YUV4MPEG2 W0 H48", "must say W1 to W32767, got W0"),
        ("YUV4MPEG2 W99999999 H48", "got W99999999"),
        ("YUV4MPEG2 W-64 H48", "got W-64"),
        ("YUV4MPEG2 W64 H48 Ffast", "as in F25:1, got Ffast"),
        ("YUV4MPEG2 W64 H48 A1", "as in A1:1, got A1"),
        ("YUV4MPEG2 W64 H48 Iz", "must say Ip, It, Ib or Im, got Iz"),
        ("YUV4MPEG2 W64 H48 C444alpha", "without transparency, got 444alpha"),
        ("YUV4MPEG2 W64 H48 C420ps", "got 420ps"),
        ("YUV4MPEG2 W64 H48 C420p99", "got 420p99"),
        ("YUV4MPEG2 W64 H48 C420p11", "got 420p11"),
        ("YUV4MPEG2 W64 H48 C", "got none"),
        ("YUV4MPEG2 W64 H48 XCOLORRANGE=BRIGHT", "LIMITED or FULL, got bright"),
        ("YUV4MPEG2 W64 H48 C\x1b[2J", "got '\\x1b[2J'"),
    ],
)
def test_headers_that_cannot_be_read_are_refused(tmp_path: Path, header: str, said: str) -> None:
    data = (header + "\n").encode() if header else b""
    message, written = failing(data, tmp_path)
    assert said in message and "\n" not in message and written == b""


def test_bytes_of_the_other_kind_are_recognized(tmp_path: Path) -> None:
    said, written = failing(y4m(luma(3)), tmp_path, PipeSettings(raw="64x48"))
    assert "say --raw y4m" in said and not written


def test_no_frames_are_an_error(tmp_path: Path) -> None:
    for data, ours in ((HEADER.encode() + b"\n", None), (b"", PipeSettings(raw="64x48"))):
        said, written = failing(data, tmp_path, ours)
        assert said == "standard input must hold frames, got none" and written == b""


def test_a_header_against_the_range_that_is_asked_for(tmp_path: Path) -> None:
    data = y4m(luma(1), HEADER + " XCOLORRANGE=FULL")
    said, _ = failing(data, tmp_path, PipeSettings(raw="y4m", raw_range="limited"))
    assert "--raw-range must be left out or be full" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"raw": "640"}, "--raw must be y4m, or the size"),
        ({"raw": "0x48@25"}, "sides of 1 to 32767"),
        ({"raw": "64x99999@25"}, "got 64x99999@25"),
        ({"raw": "64x48@0"}, "a rate above 0"),
        ({"raw": "64x48@1/0"}, "got 1/0"),
        ({"raw": "64x48@fast"}, "got 64x48@fast"),
        ({"raw": "64x48", "raw_out": "y4m"}, "--raw must say the rate"),
        ({"raw": "y4m", "raw_pixels": "gray"}, "--raw-pixels must be left out with --raw y4m"),
        ({"raw": "64x48", "raw_pixels": "nv12"}, "--raw-pixels must be one of gray"),
        ({"raw": "64x48", "raw_pixels": "rgb24", "raw_range": "full"}, "RGB is always full"),
        ({"raw_out": "rgb"}, "--raw-out must be used with --raw"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _ = PipeSettings(**settings).size


# --- the command ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.write(tmp_path_factory.mktemp("model") / "small.safetensors")


def started(model: Path, *options: object, **pipes: Any) -> Any:
    command = ["-m", "gancolor", "sample", "-", "--run", model, "--device", "cpu", *options]
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
    return forkserver.Popen([str(word) for word in command], **ends)


def ended(process: Any, data: bytes | None = None) -> tuple[int, bytes, list[str]]:
    """The exit code, what was written, and the lines that were said."""
    with process:
        try:
            written, said = process.communicate(data, timeout=120)
        except BaseException:
            process.kill()
            raise
    lines = (said or b"").decode().splitlines()
    assert not any("Traceback" in line for line in lines)
    return process.returncode, written, lines


def test_frames_alone_go_to_standard_output(model: Path, tmp_path: Path) -> None:
    frames = luma(9)
    code, written, said = ended(started(model, "--raw", "y4m", "--strength", 0.5), y4m(frames))
    film = parsed(written)
    assert code == 0
    assert [y.tolist() for y, _, _ in film.frames] == [frame.tolist() for frame in frames]
    assert said[0].startswith("Y4M yuv420p 64x48, 25 frames/s, limited range in, Y4M yuv420p")
    assert any("small" in line for line in said)  # the model
    assert said[-1].startswith("9 frames coloured, 1 shot, ")


def test_a_torn_frame_makes_the_exit_code_1(model: Path) -> None:
    code, written, said = ended(started(model, "--raw", "64x48@25"), bytes(3072 * 2 + 5))
    assert code == 1 and len(written) == 2 * 3072 * 3
    assert said[-1].startswith("Error: standard input must end after a whole frame, got 5 of 3,072")


def test_a_closed_output_ends_in_one_line(model: Path) -> None:
    process = started(model, "--raw", "64x48")
    process.stdout.close()
    process.stdout = None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(bytes(3072 * 40))
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdin = None
    code, _, said = ended(process)
    assert code == 1
    assert said[-1] == (
        "Error: standard output must be read to the end, got closed after 0 frames; look at the"
        " program that reads it"
    )


def test_a_stop_ends_in_one_line_behind_a_whole_frame(model: Path) -> None:
    """Also where no more frames come, and nobody closes the input."""
    process = started(model, "--raw", "64x48", "--strength", 0)
    process.stdin.write(bytes(3072 * 3))
    process.stdin.flush()
    size = 3 * 3072 * 3
    assert len(process.stdout.read(size)) == size
    process.send_signal(signal.SIGINT)
    stdin, process.stdin = process.stdin, None
    code, written, said = ended(process)
    stdin.close()
    assert code == 130 and written == b""
    assert said[-1] == "Error: stopped by a signal; the pipe ends here; 3 frames were written"


def test_terminals_are_refused(model: Path) -> None:
    for end, name in (("stdin", "input"), ("stdout", "output")):
        ours, theirs = os.openpty()
        code, _, said = ended(started(model, "--raw", "y4m", **{end: theirs}))
        for file in (ours, theirs):
            os.close(file)
        assert code == 2
        assert said[-1].startswith(
            f"Error: standard {name} must be a pipe or a file with --raw, got a terminal; "
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-", "film.mkv", "--raw", "y4m"], "--raw must be used with - alone as INPUT, got - film"),
        (["--raw", "y4m"], "with - alone as INPUT, got none"),
        (["-", "--raw", "y4m", "--out", "new"], "--out must be left out with --raw"),
        (["-", "--raw", "y4m", "--crf", "20"], "--crf must be left out with --raw"),
        (["-", "--raw", "y4m", "--variants", "2"], "--variants must be left out with --raw"),
        (["-", "--raw", "y4m", "--from", "2"], "--from must be left out with --raw"),
        (["-", "--raw", "y4m", "-0"], "--raw, got both; it does nothing there"),
        (["-", "--raw", "y4m", "--dry-run"], "--dry-run must be left out with --raw"),
        (["-", "--raw-out", "rgb"], "--raw-out must be used with --raw"),
    ],
)
def test_options_that_do_nothing_for_a_pipe_are_refused(
    cli: Command, options: list[str], said: str
) -> None:
    result = cli("sample", *options, input="")
    assert result.exit_code == 2 and said in result.output and result.output.count("\n") == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the command ffmpeg")
def test_ffmpeg_before_and_behind(model: Path, tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.mkv", frames=9, codec="ffv1")
    out = tmp_path / "out.mkv"
    before = ["ffmpeg", "-v", "error", "-i", str(film), "-f", "yuv4mpegpipe", "-"]
    behind = ["ffmpeg", "-v", "error", "-i", "-", "-c:v", "ffv1", str(out)]
    with (
        subprocess.Popen(before, stdout=subprocess.PIPE) as first,
        subprocess.Popen(behind, stdin=subprocess.PIPE) as last,
    ):
        code, _, said = ended(started(model, "--raw", "y4m", stdin=first.stdout, stdout=last.stdin))
        assert last.stdin is not None
        last.stdin.close()
    assert code == 0 and first.returncode == 0 and last.returncode == 0
    assert said[-1].startswith("9 frames coloured")
    from gancolor.video.decoding import FilmReader

    with FilmReader(film) as one, FilmReader(out) as two:
        for before_it, behind_it in zip(one, two, strict=True):
            assert np.array_equal(before_it.luma, behind_it.luma)
