"""Films with key frames of the user's own: named, checked, carried over their shots, and made anew
only where they changed.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import panning
import pytest

pytest.importorskip("av")

import clips
import test_film as tests

from gancolor import color
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays, writer
from gancolor.images.photograph import Photograph
from gancolor.video import share
from gancolor.video.cursor import FilmCursor
from gancolor.video.decoding import FilmReader
from gancolor.video.film import FilmResult, color_film
from gancolor.video.film_settings import FilmSettings
from gancolor.video.flow import FloatMap
from gancolor.video.grouping import GroupedFrame
from gancolor.video.key_export import export_keys
from gancolor.video.key_frames import key_files, matched, name_of
from gancolor.video.parts import folder_of
from gancolor.video.probe import probe
from gancolor.video.propagation import ColoredFrame, Stabilizer
from gancolor.video.tracking import Known, KnownFrame, TracksAhead, Truth

FRAMES, CUT = 24, 12


class Fake(tests.Fake):
    """A colorizer that takes hints and keeps them; without any, everything is a little green."""

    sight = Sight(48, hints=True)

    def __init__(self, *stop: Any) -> None:
        super().__init__(*stop)
        self.hints: list[Any] = []

    def predict_view(self, view: View) -> Prediction:
        super().predict_view(view)
        self.hints.append(view.hints)
        return Prediction(np.full((*view.rgb.shape[:2], 2), (-0.05, 0.05), np.float32))


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a film of two shots; read only."""
    folder = tmp_path_factory.mktemp("filmed")
    return clips.film(folder / "in.mkv", frames=FRAMES, shots=(CUT,), codec="ffv1")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a folder with a true key frame in the middle of the first shot."""
    return with_keys(tmp_path / "keys", [6])


def picture(index: int) -> Any:
    return clips.picture(index, shot=int(index >= CUT))


def with_keys(folder: Path, frames: Iterable[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for index in frames:
        arrays.write_rgb(folder / f"{index / 25:010.3f}.png", picture(index))
    return folder


def run(source: Path, target: Path, colorizer: Any = None, **settings: Any) -> FilmResult:
    given: dict[str, Any] = {"encoding": tests.LOSSLESS, "key_interval": 3} | settings
    return color_film(
        colorizer or Fake(),
        source,
        target,
        FilmSettings(**given),
        progress=lambda done, total: None,
    )


def errors(film: Path, frames: Iterable[int]) -> list[float]:
    """How far the chroma planes are from the true ones, on the average, by frame."""
    shown, found = tests.show(film), []
    for index in frames:
        rgb = picture(index).astype(np.float64)
        luma = rgb @ (0.299, 0.587, 0.114)
        u, v = (rgb[..., 2] - luma) / 1.772, (rgb[..., 0] - luma) / 1.402
        made = (shown.u[index], shown.v[index])
        found.append(
            np.mean(
                [
                    np.abs(x.reshape(24, 2, 32, 2).mean((1, 3)) * 224 / 255 + 128 - y).mean()
                    for x, y in zip((u, v), made, strict=True)
                ]
            )
        )
    return found


# --- names ---


def names(*times: float) -> list[str]:
    exact = [Fraction(time).limit_denominator(10**6) for time in times]
    around = [None, *exact, None]
    return [name_of(*each) for each in zip(exact, around[:-2], around[2:], strict=True)]


def test_names_sort_as_times_and_tell_neighbours_apart() -> None:
    assert names(0, 0.04, 12.48, 3600.5) == [
        "000000.000",
        "000000.040",
        "000012.480",
        "003600.500",
    ]
    close = names(12.48, 12.4801, 12.4802, 12.6)
    assert close == ["000012.4800", "000012.4801", "000012.4802", "000012.600"]
    assert sorted(close) == close
    assert names(1001 / 30000) == ["000000.033"]


@pytest.fixture
def ntsc(tmp_path: Path) -> tuple[Any, list[int]]:
    info = probe(clips.film(tmp_path / "ntsc.mkv", frames=2))
    info = dataclasses.replace(info, time_base=Fraction(1, 30000), start_pts=0, duration=1.0)
    return info, [1001 * index for index in range(30)]


def files(folder: Path, *names: str) -> Any:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return key_files(folder)[0]


def test_a_name_means_the_frame_whose_time_is_rounded_to_it(
    tmp_path: Path, ntsc: tuple[Any, list[int]]
) -> None:
    info, times = ntsc
    given = files(tmp_path / "keys", "0.367.png", "000000.10.tif", "0.00000.png", "0.03337.webp")
    found = matched(given, times, info, part=False)
    assert {pts // 1001: file.path.name for pts, file in found.items()} == {
        0: "0.00000.png",
        1: "0.03337.webp",
        3: "000000.10.tif",
        11: "0.367.png",
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["0.350.png"],
            r"must be named by a frame's time, got .*0\.350\.png; the nearest frame is",
        ),
        (
            ["0.2.png"],
            r"must mean one frame, got .*0\.2\.png for 3 from 000000\.167 on; write more",
        ),
        (["0.367.png", "0.3670.png"], "a frame must have one key frame, got .*0.367.* and .*0.367"),
    ],
)
def test_names_that_mean_no_frame_or_several_are_refused(
    tmp_path: Path, ntsc: tuple[Any, list[int]], names: list[str], words: str
) -> None:
    info, times = ntsc
    with pytest.raises(DataError, match=words):
        matched(files(tmp_path / "keys", *names), times, info, part=False)


# --- carried ---


@pytest.mark.slow
def test_colours_are_carried_both_ways_and_end_at_the_cut(
    tmp_path: Path, filmed: Path, keys: Path
) -> None:
    run(filmed, tmp_path / "auto.mkv")
    result = run(filmed, tmp_path / "out.mkv", keys=keys)
    assert (result.frames, result.shots) == (FRAMES, 2)
    assert "1 key frame in 1 of 2 shots; 2 made anew" in result.notes
    before, after = (
        errors(tmp_path / "auto.mkv", range(CUT)),
        errors(tmp_path / "out.mkv", range(CUT)),
    )
    assert after[6] < 1  # the key frame itself, to its last pixel
    assert np.mean(after) < 0.3 * np.mean(before) and max(after) < 0.6 * np.mean(before)
    auto, made = tests.show(tmp_path / "auto.mkv"), tests.show(tmp_path / "out.mkv")
    assert np.array_equal(auto.luma, made.luma) and auto.pts == made.pts
    assert np.array_equal(auto.u[CUT:], made.u[CUT:])  # the other shot is as without key frames


def test_the_network_gets_hints_of_what_is_known(tmp_path: Path, filmed: Path, keys: Path) -> None:
    colorizer = Fake()
    run(filmed, tmp_path / "out.mkv", colorizer, keys=keys)
    shapes = [None if hints is None else hints.shape for hints in colorizer.hints]
    assert shapes == [*[(48, 64, 3)] * 5, *[None] * 5]  # frames 0, 3, 6, 9, 11, and the other shot
    truth = color.split(color.to_tensor(picture(6)))[1][0].permute(1, 2, 0).numpy()
    told = colorizer.hints[2]
    there = told[..., 2] > 0
    assert 5 <= there.sum() / 9 <= 30  # squares of three pixels, spread
    assert np.abs(told[there][:, :2] - truth[there]).mean() < 0.05


def test_a_network_without_hints_is_told(tmp_path: Path, filmed: Path, keys: Path) -> None:
    colorizer = Fake()
    colorizer.sight = Sight(48)
    result = run(filmed, tmp_path / "out.mkv", colorizer, keys=keys)
    assert colorizer.hints == [None] * 10 and errors(tmp_path / "out.mkv", [6])[0] < 1
    assert any("fake step 1 takes no hints" in note for note in result.notes)


@pytest.mark.slow
def test_transparent_pixels_are_the_networks(tmp_path: Path, filmed: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, :32] = 255
    red = np.full((48, 64, 3), (200, 40, 40), np.uint8)
    red[..., :] = (red * (picture(3).mean(2, keepdims=True) / 255)).astype(np.uint8)
    writer.write(folder / "0.12.png", red, Photograph(pixels=red, alpha=alpha))
    run(filmed, tmp_path / "auto.mkv")
    run(filmed, tmp_path / "out.mkv", keys=folder)
    auto, made = tests.show(tmp_path / "auto.mkv"), tests.show(tmp_path / "out.mkv")
    assert np.array_equal(auto.v[3][:, 18:], made.v[3][:, 18:])
    assert (made.v[3][:, :16].mean() - 128) > 10 + (auto.v[3].mean() - 128)


def test_saturation_is_the_networks_alone(tmp_path: Path, filmed: Path, keys: Path) -> None:
    run(filmed, tmp_path / "out.mkv", keys=keys, saturation=0.5)
    assert errors(tmp_path / "out.mkv", [6])[0] < 1  # as strong as it was given


@pytest.mark.slow
@pytest.mark.parametrize("frames", [[4, 9, 20], [0, 1, 2, 23]])
def test_what_is_stopped_and_what_is_made_at_once_are_equal(
    tmp_path: Path, filmed: Path, monkeypatch: pytest.MonkeyPatch, frames: list[int]
) -> None:
    monkeypatch.setattr(share, "PART_FRAMES", 4)
    folder = with_keys(tmp_path / "keys", frames)
    whole = run(filmed, tmp_path / "whole.mkv", keys=folder)
    for look, parts in ((6, 2), (4, 3)):  # with the file of the shots; the second goes on
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            run(filmed, tmp_path / "out.mkv", Fake(look, tmp_path, parts), keys=folder)
    result = run(filmed, tmp_path / "out.mkv", keys=folder)
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert (result.frames, result.network_passes) == (FRAMES, whole.network_passes)


@pytest.mark.slow
def test_only_shots_whose_key_frames_changed_are_made_anew(tmp_path: Path, filmed: Path) -> None:
    keys, target = with_keys(tmp_path / "keys", [6, 18]), tmp_path / "out.mkv"
    first = Fake()
    run(filmed, target, first, keys=keys)
    left = {path.name for path in folder_of(target).glob("*.nut")}
    assert len(left) == 2
    arrays.write_rgb(keys / "000000.720.png", picture(18)[..., ::-1].copy())
    again = Fake()
    result = run(filmed, target, again, keys=keys)
    assert again.looks == first.looks / 2
    assert "2 key frames in 2 of 2 shots; 1 made anew" in result.notes
    assert len({path.name for path in folder_of(target).glob("*.nut")} & left) == 1
    run(filmed, tmp_path / "whole.mkv", keys=keys)
    assert target.read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    shutil.rmtree(keys)
    with_keys(keys, [6])
    assert "1 made anew" in " ".join(run(filmed, target, keys=keys).notes)  # where it was deleted
    none = Fake()
    result = run(filmed, target, none, keys=keys)
    assert none.looks == 0 and any(
        note.startswith(f"parts kept in {folder_of(target)} (") for note in result.notes
    )


def test_a_part_of_a_film_takes_the_key_frames_inside(
    tmp_path: Path, filmed: Path, keys: Path
) -> None:
    with_keys(keys, [20])
    result = run(filmed, tmp_path / "out.mkv", keys=keys, start=0.2, end=0.4)
    assert result.frames == 5
    assert "key frames outside --from and --to left out: 1" in result.notes


@pytest.mark.slow
def test_exported_key_frames_give_the_automatic_film(tmp_path: Path, filmed: Path) -> None:
    folder, source = tmp_path / "keys", filmed
    made = export_keys(
        Fake(),  # type: ignore[arg-type]
        source,
        folder,
        FilmSettings(key_interval=3),
        progress=lambda done, total: None,
    )
    found = [0, 3, 6, 9, 11, 12, 15, 18, 21, 23]
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"{index / 25:010.3f}.png" for index in found
    ]
    assert (made.keys, made.frames, made.shots) == (10, FRAMES, 2)
    assert made.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert arrays.read_rgb(folder / "000000.120.png").shape == (48, 64, 3)
    run(source, tmp_path / "auto.mkv")
    run(source, tmp_path / "out.mkv", keys=folder)
    auto, out = tests.show(tmp_path / "auto.mkv"), tests.show(tmp_path / "out.mkv")
    for one, other in zip(auto.u + auto.v, out.u + out.v, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 0.6  # rounding to RGB of 8 bits
    assert {path.name for path in tmp_path.iterdir()} == {
        *("keys", "auto.mkv", "out.mkv", ".out.mkv.parts")
    }


@pytest.mark.parametrize("kind", ["file", "full"])
def test_nothing_is_exported_over_what_is_there(tmp_path: Path, filmed: Path, kind: str) -> None:
    folder = tmp_path / "keys"
    if kind == "file":
        folder.write_bytes(b"")
    else:
        with_keys(folder, [6])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="--export-keys must name a new or an empty folder, got"):
        export_keys(Fake(), filmed, folder, FilmSettings(), progress=lambda done, total: None)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_that_stops_leaves_nothing(tmp_path: Path, filmed: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export_keys(
            Fake(3, tmp_path, 0),  # type: ignore[arg-type]
            filmed,
            tmp_path / "keys",
            FilmSettings(),
            progress=lambda done, total: None,
        )
    assert list(tmp_path.iterdir()) == []


# --- what is refused ---


def _gray(folder: Path) -> None:
    arrays.write_rgb(folder / "000000.080.png", clips.picture(2, gray=True))


def _clear(folder: Path) -> None:
    nothing = Photograph(pixels=picture(2), alpha=np.zeros((48, 64), np.uint8))
    writer.write(folder / "000000.080.png", picture(2), nothing)


def _of_size(folder: Path) -> None:
    arrays.write_rgb(folder / "000000.080.png", clips.picture(2, 32, 24))


def _other(folder: Path) -> None:
    gray, _ = panning.scene(5, 64)
    arrays.write_rgb(folder / "000000.080.png", np.dstack((gray, gray // 2, gray // 3)))


def _named(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            shutil.copy(folder / "000000.240.png", folder / name)

    return make


def _remove(folder: Path) -> None:
    (folder / "000000.240.png").unlink()
    (folder / "notes.txt").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_gray, r"must have colours, got a gray picture in .*000000\.080\.png"),
        (_clear, r"must have opaque pixels, got none in .*000000\.080\.png; delete it"),
        (_of_size, r"must be of the film's size 64x48, got 32x24 in .*000000\.080\.png"),
        (_other, r"must show the film's frame at its time, got another picture in .*080\.png"),
        (
            _named("000002.000.png"),
            r"must lie inside the film, which lasts 0\.960 seconds, got .*2\.0",
        ),
        (_named("000001.000.png"), r"named by a frame's time.* nearest frame is 000000\.920"),
        (
            _named("0.13.png"),
            r"named by a frame's time, got .*0\.13\.png; the nearest .* 000000\.120",
        ),
        (_named("0.240.png"), "a frame must have one key frame, got .*240.png and .*0.240.png"),
        (_named("frame 3.png"), r"named by their time in seconds, such as 000012\.480\.png, got"),
        (lambda folder: (folder / "1.png").write_bytes(b"no picture"), r"1\.png"),
        (_remove, "--keys must hold pictures named by their time, got none in"),
        (shutil.rmtree, "--keys must be a folder of key frames, got .*keys: No such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_key_frames_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, filmed: Path, keys: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(keys)
    with pytest.raises(DataError, match=words) as raised:
        run(filmed, tmp_path / "out.mkv", keys=keys)
    assert "\n" not in str(raised.value)
    # At most the shots are left, so that they need not be found again when the mistake is mended.
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} - {"keys"}
    assert {path for path in left if not path.startswith("keys/")} <= {
        *(".out.mkv.parts", ".out.mkv.parts/film.json", ".out.mkv.parts/shots.npz")
    }


def test_what_lies_beside_key_frames_is_passed_over(
    tmp_path: Path, filmed: Path, keys: Path
) -> None:
    (keys / "000000.240.xcf").write_bytes(b"")
    (keys / "Thumbs.db").write_bytes(b"")
    notes = run(filmed, tmp_path / "out.mkv", keys=keys).notes
    assert f"passed over in {keys}: 1 .xcf" in notes


def test_settings_that_carry_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="--strength must be above 0 with --keys"):
        FilmSettings(keys=Path("keys"), strength=0.0)


def test_several_shares_are_refused(tmp_path: Path, filmed: Path, keys: Path) -> None:
    settings = FilmSettings(keys=keys)
    with pytest.raises(ConfigError, match="--keys must be used in one process, got 2"):
        color_film(
            Fake(),  # type: ignore[arg-type]
            filmed,
            tmp_path / "out.mkv",
            settings,
            progress=lambda done, total: None,
            shares=2,
        )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_film_that_allows_no_seeking_is_read_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = clips.film(tmp_path / f"in{suffix}", frames=FRAMES, shots=(6, CUT, 18))
    keys, opened = with_keys(tmp_path / "keys", []), list[int]()
    for index, shot in ((4, 0), (8, 1), (16, 2), (20, 3)):
        arrays.write_rgb(keys / f"{index / 25:.2f}.png", clips.picture(index, shot=shot))
    decode = FilmReader._decoded
    monkeypatch.setattr(
        FilmReader, "_decoded", lambda self, seek: opened.append(1) or decode(self, seek)
    )
    assert run(source, tmp_path / "out.mkv", keys=keys).shots == 4
    assert len(opened) <= 6  # for the shots, the checks, the making, and looking ahead


def test_a_cursor_goes_on_and_back(filmed: Path) -> None:
    with FilmReader(filmed) as reader:
        times = [frame.pts for frame in reader]
    stretches = [(0, 3), (3, 5), (8, 9), (7, 24), (2, 4), (23, None)]
    with FilmCursor(filmed, start=None, end=None) as cursor:
        for first, last in stretches:
            end = None if last is None or last == 24 else times[last]
            assert [frame.pts for frame in cursor.frames(times[first], end)] == times[first:last]


# --- the engine ---


def known(gray: panning.Gray, ab: FloatMap, alpha: float = 1.0, pts: int = 0) -> KnownFrame:
    cover = np.full(gray.shape, alpha, np.float32)
    return KnownFrame(pts, gray, ab * np.float32(alpha), cover, ab, cover)


def test_known_colours_reach_a_panning_shot_from_its_middle(tmp_path: Path) -> None:
    gray, ab = panning.scene(1)
    grays, truth = panning.pan(gray, 30), panning.pan(ab, 30)
    middle = known(grays[15], truth[15])

    def network(gray: panning.Gray, hints: Any = None) -> FloatMap:
        return panning.flat((0.3, 0.3))

    frames = [GroupedFrame(index, grays[index], index == 15) for index in range(16)]
    stabilizer = Stabilizer(network, strength=0.8, key_interval=6)
    with TracksAhead(middle, frames, None, 6, tmp_path) as ahead:
        stabilizer.expect([ahead])
        done: list[ColoredFrame] = []
        for index, each in enumerate(grays):
            done += stabilizer.feed(index, each, middle if index == 15 else None)
        done += stabilizer.flush()
    assert list(tmp_path.iterdir()) == []
    for index, one in enumerate(done):
        shown = slice(max(0, 2 * (15 - index)) + 4, 72 - max(0, 2 * (index - 15)) - 4)
        error = np.linalg.norm(one.ab - truth[index], axis=2)[4:-4, shown]
        assert error.mean() < 0.02, index  # what the known frame shows; the network is off by 0.4


def test_a_newer_known_frame_hides_the_older_only_where_it_is_opaque() -> None:
    gray, _ = panning.scene(2)
    still = [np.ascontiguousarray(gray[:, :72])] * 14
    first, second = known(still[0], panning.flat((0.2, 0.0))), panning.flat((-0.2, 0.0))
    alpha = np.zeros((48, 72), np.float32)
    alpha[:, :36] = 1
    layer = KnownFrame(7, still[7], second * alpha[..., None], alpha, second, alpha)
    stabilizer = Stabilizer(lambda gray, hints=None: panning.flat((0.0, 0.3)), key_interval=3)
    done = [
        one
        for index, each in enumerate(still)
        for one in stabilizer.feed(index, each, {0: first, 7: layer}.get(index))
    ] + stabilizer.flush()
    for index, one in enumerate(done):
        left = 0.2 if index < 7 else -0.2
        assert np.allclose(one.ab[4:-4, 4:32, 0], left, atol=0.02), index
        assert np.allclose(one.ab[4:-4, 40:-4, 0], 0.2, atol=0.02), index


def test_hints_are_few_and_only_where_colours_are_sure() -> None:
    cover = np.zeros((48, 72), np.float32)
    cover[:24] = 0.9
    cover[24:] = 0.3
    colors = np.full((48, 72, 2), 0.2, np.float32) * cover[..., None]
    hints = Known(colors, cover, ()).hints()
    assert hints is not None and not hints[26:].any()
    there = hints[..., 2] > 0
    assert there[:24].any() and there.mean() < 0.1
    assert np.allclose(hints[there][:, :2], 0.2)
    assert Known(colors * 0, cover * 0, ()).hints() is None


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_what_is_lost_beside_known_places_is_mended(alpha: float) -> None:
    gray = np.full((48, 72), 100, np.uint8)
    gray[:, 40:] = 220  # another thing, of which nothing is known
    cover = np.zeros((48, 72), np.float32)
    cover[:, :20] = 1
    colors = panning.flat((0.2, 0.0)) * cover[..., None]
    frame = known(gray, panning.flat((0.2, 0.0)), alpha)
    said = panning.flat((0.1, 0.1))
    truths = (Truth(frame, np.zeros((48, 72, 2), np.float32), cover),)
    made = Known(colors, cover, truths).mended(said, gray)
    if alpha < 1:
        assert np.array_equal(made, said)  # beside a layer the network's colours are wanted
        return
    assert np.allclose(made[:, 20:30], (0.2, 0.0), atol=0.02)
    assert np.allclose(made[:, 42:], said[:, 42:], atol=0.01)
