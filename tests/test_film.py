"""Whole films: luma bit for bit, times kept, stopped and resumed, shared by processes, and nothing
left behind.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import forkserver
import numpy as np
import pytest
import torch

pytest.importorskip("av")

import clips

from gancolor.coloring.full_size import Prediction
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.video import share
from gancolor.video.decoding import FilmReader
from gancolor.video.encoding import Encoding, PartWriter
from gancolor.video.film import FilmResult, color_film, has_colors
from gancolor.video.film_settings import FilmSettings
from gancolor.video.parts import folder_of, lock_of
from gancolor.video.planes import rescaled

LOSSLESS = Encoding("ffv1")


class Fake:
    """A colorizer whose colours follow the gray; `stop_at` raises KeyboardInterrupt at that look.

    Before that it waits until `whole` parts of out.mkv in `folder` are written, which other threads
    do.
    """

    name = "fake step 1"
    condition = "gray"
    sight = Sight(32)

    def __init__(self, stop_at: int | None = None, folder: Path = Path(), whole: int = 0) -> None:
        self.looks, self.stop_at, self.folder, self.whole = 0, stop_at, folder, whole

    def predict_view(self, view: View) -> Prediction:
        self.looks += 1
        if self.looks == self.stop_at:
            wait_for_parts(self.folder, self.whole)
            raise KeyboardInterrupt
        gray = view.rgb[..., :1].astype(np.float32) / 255
        return Prediction(np.concatenate((0.3 * gray, 0.2 - 0.4 * gray), axis=2))


def wait_for_parts(folder: Path, count: int) -> None:
    """Return when `count` parts of out.mkv are whole; fail after a minute."""
    wait_for_parts_of(folder / "out.mkv", count)


def wait_for_parts_of(target: Path, count: int) -> None:
    """Return when `count` parts of a film are whole; fail after a minute."""
    for _ in range(600):
        if len(list(folder_of(target).glob("*.npz"))) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"{count} parts must be written by now")


class Shown(NamedTuple):
    pts: list[float]
    luma: list[Any]
    u: list[Any]
    v: list[Any]


def show(path: Path) -> Shown:
    with FilmReader(path, chroma=True) as reader:
        base = reader.info.time_base
        frames = list(reader)
        planes = [frame.chroma for frame in frames if frame.chroma is not None]
        times = [float((frame.pts - frames[0].pts) * base) for frame in frames]
        return Shown(
            times, [frame.luma for frame in frames], [u for u, _ in planes], [v for _, v in planes]
        )


def same(one: Shown, two: Shown) -> bool:
    return one.pts == two.pts and all(
        np.array_equal(a, b) for a, b in zip(one[1:], two[1:], strict=True)
    )


def run(source: Path, target: Path, colorizer: Any = None, **settings: Any) -> FilmResult:
    settings = {"encoding": LOSSLESS, "key_interval": 3} | settings
    return color_film(
        colorizer or Fake(),
        source,
        target,
        FilmSettings(**settings),
        progress=lambda done, total: None,
    )


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "PART_FRAMES", 8)


@pytest.mark.parametrize(
    ("frames", "width", "height", "options"),
    [
        (20, 64, 48, {}),
        (5, 63, 47, {"codec": "ffv1"}),
        (1, 64, 48, {}),
        (3, 40, 130, {"gray": True}),
        (7, 64, 48, {"color": {"color_range": 2, "colorspace": 1}}),
        (7, 64, 48, {"pts": [0, 1, 5, 6, 20, 21, 40]}),
    ],
    ids=["even", "odd", "one", "tall-gray", "full-range-709", "variable"],
)
def test_a_film_keeps_luma_and_times_and_gets_colours(
    tmp_path: Path, frames: int, width: int, height: int, options: dict[str, Any]
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=frames, width=width, height=height, **options)
    calls: list[tuple[int, int | None]] = []
    result = color_film(
        Fake(),  # type: ignore[arg-type]
        source,
        tmp_path / "out.mkv",
        FilmSettings(encoding=LOSSLESS, key_interval=3),
        progress=lambda done, total: calls.append((done, total)),
    )
    before, after = show(source), show(tmp_path / "out.mkv")
    assert len(after.luma) == frames == result.frames
    assert np.array_equal(before.luma, after.luma)  # bit for bit
    assert before.pts == after.pts
    assert (result.width, result.height) == (width, height)
    assert min(plane.std() for plane in after.u) > 1
    assert not np.array_equal(before.u, after.u)
    assert (result.shots, result.damaged) == (1, [])
    assert 1 <= result.network_passes <= frames // 3 + 2
    assert calls[-1] == (frames, frames)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert set(result.busy) == {"read", "network", "flow", "paint", "encode", "join"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


@pytest.mark.parametrize("gray", [True, False])
def test_whether_a_film_is_in_colour(tmp_path: Path, gray: bool) -> None:
    assert has_colors(clips.film(tmp_path / "in.mkv", frames=12, gray=gray)) is not gray


def test_the_colours_are_the_networks(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=2)

    class Red(Fake):
        def predict_view(self, view: View) -> Prediction:
            return Prediction(np.full((*view.rgb.shape[:2], 2), (0.25, 0.15), np.float32))

    for saturation, least, most in ((1.0, 15, 60), (0.5, 7, 30), (0.0, 0, 0)):
        run(source, tmp_path / "out.mkv", Red(), saturation=saturation)
        v = np.mean(show(tmp_path / "out.mkv").v) - 128
        assert least <= v <= most


def test_strength_0_asks_the_network_about_every_frame(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=12)
    colorizer = Fake()
    result = run(source, tmp_path / "out.mkv", colorizer, strength=0.0)
    assert result.network_passes == colorizer.looks == 12
    assert result.shots == 0  # none were looked for


def test_a_part_of_a_film_is_cut_out(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=30)
    result = run(source, tmp_path / "out.mkv", start=0.4, end=0.8)
    before, after = show(source), show(tmp_path / "out.mkv")
    assert result.frames == len(after.luma) == 10
    assert np.array_equal(before.luma[10:20], after.luma)
    assert after.pts == pytest.approx([index / 25 for index in range(10)], abs=2e-3)


def test_a_film_shorter_than_from_is_told(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=10)
    with pytest.raises((DataError, ConfigError)) as raised:
        run(source, tmp_path / "out.mkv", start=0.9)
    assert "--from" in str(raised.value) and "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 7, 9])
def test_stopped_and_resumed_is_the_uninterrupted_film(
    tmp_path: Path, short_parts: None, stop_at: int
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=40, shots=(21,), sound=True)
    whole = run(source, tmp_path / "whole.mkv")
    parts = {2: 0, 7: 1, 9: 2}[stop_at]
    stopped, target = Fake(stop_at, tmp_path, parts), tmp_path / "out.mkv"
    with pytest.raises(KeyboardInterrupt) as raised:
        run(source, target, stopped)
    assert ("--resume goes on" in str(raised.value)) == (parts > 0)
    left = (
        sorted(path.suffix for path in folder_of(target).iterdir())
        if folder_of(target).exists()
        else []
    )
    assert left == sorted([".json", *[".npz", ".nut"] * (left.count(".npz"))]) or left == []
    assert left.count(".npz") == parts
    assert not target.exists()
    colorizer = Fake()
    result = run(source, target, colorizer, resume=True)
    assert target.read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert (result.frames, result.shots, result.network_passes) == (40, 2, whole.network_passes)
    assert colorizer.looks < whole.network_passes or stop_at == 2  # not all was done again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "whole.mkv"]


def test_a_film_that_was_not_joined_is_only_joined(
    tmp_path: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=20)
    with monkeypatch.context() as patch:
        patch.setattr("gancolor.video.film.assemble", _full_disk)
        with pytest.raises(DataError, match="No space left"):
            run(source, tmp_path / "out.mkv")
    colorizer = Fake()
    result = run(source, tmp_path / "out.mkv", colorizer, resume=True)
    assert (colorizer.looks, result.frames) == (0, 20)
    assert np.array_equal(show(source).luma, show(tmp_path / "out.mkv").luma)


@pytest.fixture
def stopped(tmp_path: Path, short_parts: None) -> Path:
    """Return a film that was stopped after two parts; its target is out.mkv beside it."""
    source = clips.film(tmp_path / "in.mkv", frames=40)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.mkv", Fake(9, tmp_path, 2))
    return source


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"key_interval": 4},
            r"--key-interval must be .*begun with when it is resumed \(3\), got 4",
        ),
        ({"size": 16}, r"--size must be .*\(None\), got 16"),
        ({"end": 1.2}, r"--to must be .*\(None\), got 1.2"),
        ({"encoding": Encoding("libx264")}, r"the encoding must be .*ffv1.*got .*libx264"),
    ],
)
def test_other_settings_are_refused_when_resumed(
    stopped: Path, settings: dict[str, Any], words: str
) -> None:
    target = stopped.with_name("out.mkv")
    kept = sorted(folder_of(target).iterdir())
    with pytest.raises(ConfigError, match=words) as raised:
        run(stopped, target, resume=True, **settings)
    assert "leave out --resume" in str(raised.value) and "\n" not in str(raised.value)
    assert sorted(folder_of(target).iterdir()) == kept  # the right settings can still go on


def test_another_film_or_model_is_refused_when_resumed(stopped: Path) -> None:
    target = stopped.with_name("out.mkv")
    other = Fake()
    other.name = "other step 2"
    with pytest.raises(ConfigError, match=r"the model must be .*\(fake step 1\), got other step 2"):
        run(stopped, target, other, resume=True)
    os.utime(stopped, ns=(1, 1))
    with pytest.raises(ConfigError, match="the film's size and date must be"):
        run(stopped, target, resume=True)


def test_another_model_of_the_same_name_is_refused_when_resumed(
    tmp_path: Path, short_parts: None
) -> None:
    source, target = clips.film(tmp_path / "in.mkv", frames=40), tmp_path / "out.mkv"

    def trained(seed: int, **stop: Any) -> Fake:
        colorizer = Fake(**stop)
        colorizer.generator = torch.nn.Conv2d(1, 2, 3)  # type: ignore[attr-defined]
        with torch.no_grad():
            colorizer.generator.weight.copy_(torch.arange(18.0).view(2, 1, 3, 3) + seed)  # type: ignore[attr-defined]
            colorizer.generator.bias.zero_()  # type: ignore[attr-defined]
        return colorizer

    with pytest.raises(KeyboardInterrupt):
        run(source, target, trained(1, stop_at=9, folder=tmp_path, whole=2))
    with pytest.raises(
        ConfigError,
        match=r"the model's weights must be .*\([0-9a-f]{16}\), got [0-9a-f]{16}; leave",
    ):
        run(source, target, trained(2), resume=True)
    half = trained(1)
    half.generator.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[attr-defined]
    assert run(source, target, half, resume=True).frames == 40  # as another device may hold it


@pytest.mark.parametrize(("strength", "hardly"), [(0.002, True), (0.02, False)])
def test_a_film_that_came_out_gray_is_told(
    tmp_path: Path, short_parts: None, strength: float, hardly: bool
) -> None:
    class Pale(Fake):
        def predict_view(self, view: View) -> Prediction:
            super().predict_view(view)
            return Prediction(np.full((*view.rgb.shape[:2], 2), (strength, 0), np.float32))

    source, target = clips.film(tmp_path / "in.mkv", frames=40), tmp_path / "out.mkv"
    with pytest.raises(KeyboardInterrupt):
        run(source, target, Pale(9, tmp_path, 2))
    result = run(source, target, Pale(), resume=True)
    assert result.chroma == pytest.approx(strength * 110, rel=0.02)  # of both runs
    said = [
        note
        for note in result.notes
        if note.startswith("hardly coloured: mean chroma 0.22, less than 1; try")
    ]
    assert len(said) == hardly and any("hardly" in note for note in result.notes) == hardly


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ValueError("odd\nframe"),
            "in.mkv must be coloured without an error, got ValueError: odd frame",
        ),
        (MemoryError(), "in.mkv must fit into memory"),
    ],
)
def test_any_error_is_one_line(tmp_path: Path, error: Exception, words: str) -> None:
    class Broken(Fake):
        def predict_view(self, view: View) -> Prediction:
            raise error

    with pytest.raises(DataError) as raised:
        run(clips.film(tmp_path / "in.mkv", frames=3), tmp_path / "out.mkv", Broken())
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("whole", [True, False])
def test_frames_that_go_missing_without_an_error_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=30)
    frames = FilmReader.__iter__
    if not whole:
        monkeypatch.setattr(FilmReader, "__iter__", lambda self: itertools.islice(frames(self), 5))
    result = run(source, tmp_path / "out.mkv", start=0.4, end=0.8)
    assert result.frames == (10 if whole else 5)
    assert ["frames are missing: 5 came of the 10" in note for note in result.notes] == (
        [] if whole else [True]
    )


@pytest.mark.slow
def test_resuming_h264_in_avi_is_the_uninterrupted_film(tmp_path: Path, short_parts: None) -> None:
    source = clips.film(tmp_path / "in.avi", codec="libx264", frames=90, key_every=4, b_frames=2)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.mkv", Fake(22, tmp_path, 5))
    run(source, tmp_path / "out.mkv", resume=True)
    before, after = show(source), show(tmp_path / "out.mkv")
    assert (
        len(before.luma) == 90
        and np.array_equal(before.luma, after.luma)
        and before.pts == after.pts
    )


def test_without_resume_the_film_begins_anew(stopped: Path) -> None:
    target = stopped.with_name("out.mkv")
    (folder_of(target) / "part-000-00009.nut").write_bytes(b"old")
    colorizer = Fake()
    run(stopped, target, colorizer)
    assert colorizer.looks >= 13
    assert not folder_of(target).exists()
    assert np.array_equal(show(stopped).luma, show(target).luma)


@pytest.mark.slow
def test_torn_leftovers_of_a_killed_process_are_passed_over(stopped: Path) -> None:
    target = stopped.with_name("out.mkv")
    folder = folder_of(target)
    whole = stopped.with_name("whole.mkv")
    run(stopped, whole)
    (folder / "part-000-00002.nut").write_bytes(b"whole, but its end is not known")
    (folder / ".1-ab.part").write_bytes(b"torn")
    ends = sorted(folder.glob("*.npz"))
    ends[-1].write_bytes(ends[-1].read_bytes()[:100])
    colorizer = Fake()
    run(stopped, target, colorizer, resume=True)
    assert same(show(target), show(whole))
    assert not folder.exists()


@pytest.mark.parametrize("frames", [1, 30])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_colours_that_are_no_numbers_are_an_error(
    tmp_path: Path, value: float, frames: int
) -> None:
    class Broken(Fake):
        def predict_view(self, view: View) -> Prediction:
            return Prediction(np.full((*view.rgb.shape[:2], 2), value, np.float32))

    source = clips.film(tmp_path / "in.mkv", frames=frames)
    with pytest.raises(DataError, match="fake step 1 must give finite colours"):
        run(source, tmp_path / "out.mkv", Broken())
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("method", ["__init__", "write", "close"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=30)
    monkeypatch.setattr(PartWriter, method, _full_disk)
    with pytest.raises(
        DataError, match=r"out\.mkv must be writable, got an error \(No space left on device\)"
    ) as e:
        run(source, tmp_path / "out.mkv")
    assert "\n" not in str(e.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_full_disk_after_a_part_keeps_what_is_whole(
    tmp_path: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = clips.film(tmp_path / "in.mkv", frames=30), tmp_path / "out.mkv"
    write, count = PartWriter.write, iter(range(100))

    def fill(self: PartWriter, *planes: Any) -> None:
        if next(count) >= 12:
            _full_disk()
        write(self, *planes)

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "write", fill)
        with pytest.raises(
            DataError, match=r"No space left.*; 10 frames are kept in .*out\.mkv\.parts; --resume"
        ) as e:
            run(source, target)
    assert "\n" not in str(e.value)
    names = sorted(path.name for path in folder_of(target).iterdir())
    assert names == ["film.json", "part-000-00000.npz", "part-000-00000.nut"]
    assert run(source, target, resume=True).frames == 30


def test_a_damaged_film_goes_on_and_says_which_frames(tmp_path: Path) -> None:
    whole = clips.film(tmp_path / "whole.mp4", frames=30, options={"bf": "0"})
    source = clips.damaged(whole, tmp_path / "in.mp4", [8, 9])
    with FilmReader(source) as reader:
        expected = [frame.pts for frame in reader]
        lost = list(reader.damaged)
    assert lost
    result = run(source, tmp_path / "out.mkv")
    assert (result.frames, result.damaged) == (len(expected), lost)


def test_notes_of_the_film_and_of_the_network_are_told_once(tmp_path: Path) -> None:
    class Small(Fake):
        def predict_view(self, view: View) -> Prediction:
            colors = super().predict_view(view).colors
            return Prediction(colors[::2, ::2], ("out of memory: seen smaller",))

    source = clips.film(tmp_path / "in.mkv", frames=9, codec="libx264rgb", pixels="rgb24")
    result = run(source, tmp_path / "out.mkv", Small())
    assert [note for note in result.notes if "out of memory" in note] == [
        "out of memory: seen smaller"
    ]
    assert sum("stored as RGB" in note for note in result.notes) == 1
    assert min(plane.std() for plane in show(tmp_path / "out.mkv").u) > 1


def test_a_film_is_never_written_onto_itself(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=3)
    before = source.read_bytes()
    (tmp_path / "link.mkv").symlink_to(source)
    for target in (source, tmp_path / "link.mkv"):
        with pytest.raises(ConfigError, match="must be another file than the film itself"):
            run(source, target)
    (tmp_path / "folder.mkv").mkdir()
    with pytest.raises(ConfigError, match="got a folder"):
        run(source, tmp_path / "folder.mkv")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mkv", "in.mkv", "link.mkv"]


@pytest.mark.slow
@pytest.mark.parametrize("length", [245, 249, 255])
def test_long_names(tmp_path: Path, short_parts: None, length: int) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=40)
    target = tmp_path / ("é" * ((length - 4) // 2) + "x" * (length % 2) + ".mkv")
    assert len(os.fsencode(target.name)) == length

    class Stopped(Fake):
        def predict_view(self, view: View) -> Prediction:
            if self.looks == 9:
                wait_for_parts_of(target, 1)
                raise KeyboardInterrupt
            return super().predict_view(view)

    with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
        run(source, target, Stopped())
    assert run(source, target, resume=True).frames == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.mkv", target.name])


def test_long_names_that_begin_alike_have_parts_of_their_own(tmp_path: Path) -> None:
    one, other = tmp_path / ("a" * 249 + "1.mkv"), tmp_path / ("a" * 249 + "2.mkv")
    assert folder_of(one) != folder_of(other) and lock_of(one) != lock_of(other)
    assert max(len(path(one).name) for path in (folder_of, lock_of)) <= 255


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_a_film_is_made_by_one_process_at_a_time(
    tmp_path: Path, short_parts: None, resume: bool
) -> None:
    source, target = clips.film(tmp_path / "in.mkv", frames=40), tmp_path / "out.mkv"
    said: list[str] = []

    class Meanwhile(Fake):
        def predict_view(self, view: View) -> Prediction:
            if self.looks == 9:
                with pytest.raises(DataError) as raised:
                    run(source, target, resume=resume)
                said.append(str(raised.value))
                run(source, tmp_path / "other.mkv")
            return super().predict_view(view)

    assert run(source, target, Meanwhile()).frames == 40
    assert said == [
        f"{target} must be made by one process at a time, got another that makes it; wait for it"
    ]
    assert same(show(target), show(tmp_path / "other.mkv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "other.mkv", "out.mkv"]


@pytest.mark.slow
def test_two_films_are_equal_byte_for_byte(tmp_path: Path) -> None:
    source = clips.film(
        tmp_path / "in.mkv",
        frames=20,
        sound=True,
        subtitles=True,
        chapters=True,
        attachment=b"note",
    )
    for suffix in (".mkv", ".mp4", ".mov", ".avi", ".webm"):
        codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
        files = [tmp_path / f"{number}{suffix}" for number in range(2)]
        for file in files:
            run(source, file, encoding=Encoding(codec, preset="8" if suffix == ".webm" else None))
        assert files[0].read_bytes() == files[1].read_bytes(), suffix


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mkv", "ffv1"), ("out.mov", "prores_ks"), ("out.webm", "libvpx-vp9")]
)
@pytest.mark.parametrize("source", ["qtrle", "ffv1", "vp9"])
def test_alpha_is_kept(tmp_path: Path, source: str, name: str, codec: str) -> None:
    film, alphas = _transparent(tmp_path, source)
    result = run(film, tmp_path / name, encoding=Encoding(codec))
    with FilmReader(tmp_path / name, alpha=True) as reader:
        kept = [
            rescaled(frame.alpha, reader.info.depth, 8, full_range=True)
            for frame in reader
            if frame.alpha is not None
        ]
    assert not any("alpha" in note for note in result.notes) and reader.info.alpha
    assert len(kept) == len(alphas) == 6
    for alpha, wanted in zip(kept, alphas, strict=True):
        error = np.abs(alpha.astype(int) - wanted).mean()
        assert error < (8 if "vp9" in (source, codec[-3:]) else 2)


def test_alpha_that_a_codec_cannot_hold_is_said(tmp_path: Path) -> None:
    film, _ = _transparent(tmp_path, "qtrle")
    result = run(film, tmp_path / "out.mov", encoding=Encoding("libx264"))
    said = [note for note in result.notes if "alpha" in note]
    assert len(said) == 1 and said[0].startswith(
        "alpha left out: libx264 cannot hold it; --codec prores_ks in a .mov"
    )


def _transparent(folder: Path, kind: str) -> tuple[Path, list[Any]]:
    """A film of six frames through which one sees more and more from left to right, and its alpha."""
    import av

    name, codec, pixels = {
        "qtrle": ("in.mov", "qtrle", "argb"),
        "ffv1": ("in.mkv", "ffv1", "yuva444p"),
        "vp9": ("in.webm", "libvpx-vp9", "yuva420p"),
    }[kind]
    options = (
        {"crf": "10", "b": "0", "auto-alt-ref": "0", "deadline": "realtime"}
        if kind == "vp9"
        else {}
    )
    alphas = []
    with av.open(str(folder / name), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        if kind == "vp9":
            stream.metadata["alpha_mode"] = "1"
        for index in range(6):
            alphas.append(
                np.tile(np.linspace(20 * index, 255, 64), (48, 1)).round().astype(np.uint8)
            )
            rgba = np.dstack((clips.picture(index), alphas[-1]))
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pixels))
            )
        container.mux(stream.encode(None))
    return folder / name, alphas


def test_a_network_of_edges_is_refused(tmp_path: Path) -> None:
    colorizer = Fake()
    colorizer.condition = "edges"
    with pytest.raises(ConfigError, match="needs a network that sees gray, got edges"):
        run(clips.film(tmp_path / "in.mkv", frames=1), tmp_path / "out.mkv", colorizer)


@pytest.mark.parametrize("make", [clips.sound_only, clips.no_frames], ids=["no-video", "no-frames"])
def test_what_is_no_film_leaves_nothing(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path / "in.mkv")
    with pytest.raises(DataError) as raised:
        run(source, tmp_path / "out.mkv")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strength": 1.5}, "--strength must be at most 1, got 1.5"),
        ({"strength": float("nan")}, "--strength"),
        ({"key_interval": 0}, "--key-interval must be at least 1, got 0"),
        ({"saturation": 5.0}, "--saturation must be at most 4, got 5"),
        ({"temperature": 0.0}, "--temperature must be at least 0.01, got 0"),
        ({"temperature": 2.5}, "--temperature .* got 2.5"),
        ({"temperature": float("nan")}, "--temperature .* got nan"),
        ({"size": 0}, "--size must be at least 16, got 0"),
        ({"upsample": "best"}, "--upsample must be one of guided, bilinear, got best"),
        ({"start": -1.0}, "--from must be at least 0, got -1"),
        ({"start": 3.0, "end": 2.0}, "--to must be behind --from"),
    ],
)
def test_settings_out_of_bounds(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FilmSettings(**settings)


# Below: whole processes. The script colours in.mkv to out.mkv in the working folder with the class
# above.
_SCRIPT = """
import contextlib, os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import test_film as tests
from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.films import Films
from gancolor.batch.input_files import Item
from gancolor.batch.records import Report
from gancolor.runtime import handout, processes
from gancolor.video.film_settings import FilmSettings
from gancolor.video import share
from gancolor.coloring.views import View

share.PART_FRAMES = 8
if any(name.startswith("KILL_") for name in os.environ):  # else a busy one must not be thought dead
    handout.SILENCE = 5.0
rank = processes.current().rank

class Colorizer(tests.Fake):
    def predict_view(self, view: View):
        if self.looks == int(os.environ.get(f"KILL_{{rank}}", -1)):
            tests.wait_for_parts(Path(), int(os.environ["PARTS"]))
            os.kill(os.getpid(), signal.SIGKILL)
        if self.looks == int(os.environ.get(f"FAIL_{{rank}}", -1)):
            raise getattr(tests, os.environ["ERROR"], ValueError)(f"broken in {{rank}}")
        return super().predict_view(view)

settings = FilmSettings(encoding=tests.LOSSLESS, key_interval=3, resume="RESUME" in os.environ)
shown = lambda item: contextlib.nullcontext(lambda done, frames: None)
team, own = Films(Colorizer(), settings, shown), []
items = [Item(Path("in.mkv"), Path("out.mkv"), film=True)]
options = BatchSettings(workers=0, existing="overwrite")
with Report(Path("report")) as report:
    summary = dispatch.run(
        team.colorizer, items, options, report=report, progress=own.append, team=team
    )
errors = "".join(f"error: {{record.error}}\\n" for record in own if record.error)
words = f"{{rank}} {{summary.done}} {{summary.failed}} {{team.colorizer.looks > 0}}\\n"
print(words + errors, end="", flush=True)  # at one go
"""


def process(
    folder: Path, *, world: int = 1, **variables: object
) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(_SCRIPT.format(paths=[str(place) for place in Path(__file__).parents[:2]]))
    environment = os.environ | {key: str(value) for key, value in variables.items()}
    return forkserver.run_ranks([str(script)], world, environment, cwd=folder)


@pytest.mark.slow
def test_killed_and_resumed_is_the_uninterrupted_film(tmp_path: Path, short_parts: None) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=40, shots=(21,))
    run(source, tmp_path / "whole.mkv")
    for looks, parts in ((5, 1), (6, 2)):
        killed = process(tmp_path, KILL_0=looks, PARTS=parts, RESUME=1)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(folder_of(tmp_path / "out.mkv").glob("*.npz"))
    done = process(tmp_path, RESUME=1)
    assert done.returncode == 0, done.stderr
    assert same(show(tmp_path / "out.mkv"), show(tmp_path / "whole.mkv"))
    assert not folder_of(tmp_path / "out.mkv").exists()


@pytest.mark.slow
def test_two_processes_share_a_film(tmp_path: Path, short_parts: None) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=60, shots=(21,))
    done = process(tmp_path, world=2)
    assert done.returncode == 0, done.stderr
    # Both know of the film, and both have coloured some of it.
    assert sorted(done.stdout.splitlines()) == ["0 1 0 True", "1 1 0 True"], done.stdout
    before, after = show(source), show(tmp_path / "out.mkv")
    assert np.array_equal(before.luma, after.luma) and before.pts == after.pts
    assert not folder_of(tmp_path / "out.mkv").exists()
    run(source, tmp_path / "alone.mkv")
    alone = show(tmp_path / "alone.mkv")
    assert np.array_equal(alone.u[:27], after.u[:27])  # until the first process's key frames end
    difference = np.abs(np.asarray(alone.u, np.float32) - np.asarray(after.u, np.float32))
    assert difference.mean() < 1.5 and difference[30:33].mean() < 3  # no seam


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("DataError", "broken in {}"),
        ("ValueError", "in.mkv must be coloured without an error, got ValueError: broken in {}"),
    ],
)
def test_an_error_in_one_process_fails_the_film_and_any_number_resumes_it(
    tmp_path: Path, kind: str, words: str
) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=60)
    failed = process(tmp_path, world=2, FAIL_1=9, ERROR=kind)
    assert failed.returncode == 0, failed.stderr
    assert {"0 0 1", "1 0 1"} == {
        line[:5] for line in failed.stdout.splitlines() if "error" not in line
    }
    (line,) = (line for line in failed.stdout.splitlines() if "error" in line)
    assert words.format(1) in line and line.endswith("kept in .out.mkv.parts; --resume goes on")
    folder = folder_of(tmp_path / "out.mkv")
    assert not list(folder.glob(".*")) and list(folder.glob("part-*.npz"))
    done = process(tmp_path, RESUME=1)  # by one process, in the two shares that it was begun with
    assert done.stdout == "0 1 0 True\n", done.stdout + done.stderr
    before, after = show(source), show(tmp_path / "out.mkv")
    assert np.array_equal(before.luma, after.luma) and before.pts == after.pts


@pytest.mark.slow
def test_the_share_of_a_dead_process_is_made_by_another(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=60)
    done = process(tmp_path, world=2, KILL_1=9, PARTS=1)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "0 1 0 True\n", done.stdout + done.stderr
    before, after = show(source), show(tmp_path / "out.mkv")
    assert np.array_equal(before.luma, after.luma) and before.pts == after.pts
    assert not folder_of(tmp_path / "out.mkv").exists()


@pytest.mark.slow
def test_more_processes_than_frames(tmp_path: Path) -> None:
    source = clips.film(tmp_path / "in.mkv", frames=1)
    done = process(tmp_path, world=2)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(show(source).luma, show(tmp_path / "out.mkv").luma)
