"""Batches of real files with a made-up network: what is done, what fails, what a kill leaves."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import forkserver
import numpy as np
import pytest
from support import TORCHRUN

from gancolor import fields
from gancolor.batch import dispatch, pool, worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item, expand
from gancolor.batch.records import Record, Report, Summary
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.runtime import workers
from gancolor.runtime.signals import StoppedBySignal, Stopper


class Network:
    """Everything is reddish; `before(view, calls)` may do something first."""

    sight = Sight(32, distribution=True, hints=True)

    def __init__(self, before: Callable[[View, int], object] = lambda view, calls: None) -> None:
        self.before, self.calls = before, 0

    def predict_view(self, view: View) -> Prediction:
        self.calls += 1
        self.before(view, self.calls)
        return Prediction(np.full((*view.rgb.shape[:2], 2), (0.3, 0.1), np.float32))


def make(folder: Path, *names: str, size: tuple[int, int] = (40, 30)) -> Path:
    """Gray pictures, each of a shade of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((size[1], size[0]), 60 + number % 120, np.uint8))
    return folder


def go(inputs: list[Path], out: Path, network: Network | None = None, **options: Any) -> Summary:
    settings = BatchSettings(
        **{"workers": 0, **{k: v for k, v in options.items() if k not in ("progress", "film")}}
    )
    with Report(out) as report:
        return dispatch.run(
            network or Network(),
            expand([str(path) for path in inputs], out, format=settings.format),
            settings,
            report=report,
            progress=options.get("progress", lambda record: None),
            color_film=options.get("film"),
        )


def files(folder: Path) -> list[str]:
    """Everything there, hidden or not, but the report."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != "report.jsonl")


def report_of(out: Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return {Path(record["source"]).name: record for record in records}


def counts(summary: Summary) -> tuple[int, int, int]:
    return summary.done, summary.skipped, summary.failed


def test_a_file_that_is_named_twice_is_coloured_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "a.png", "b.png")
    summary = go([folder / "a.png", folder / "a.png", folder], tmp_path / "out")
    assert counts(summary) == (2, 0, 0)
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_a_folder_in_this_process(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg", "sub/b.png"), tmp_path / "new"
    seen: list[Record] = []
    summary = go([old], new, progress=seen.append)
    assert counts(summary) == (2, 0, 0)
    assert files(new) == ["a.jpg", "sub/b.png"]
    colored = cv2.imread(str(new / "sub" / "b.png"))
    assert colored is not None and colored.shape == (30, 40, 3)
    assert int(colored[..., 2].min()) > int(colored[..., 0].max()) + 20  # red above blue
    assert [record.source for record in seen] == [str(old / "a.jpg"), str(old / "sub" / "b.png")]
    record = report_of(new)["b.png"]
    assert (record["width"], record["height"], record["size"]) == (40, 30, [30, 40])
    assert record["targets"] == [str(new / "sub" / "b.png")] and record["seconds"] > 0


def test_variants_and_confidence(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg"), tmp_path / "new"
    assert counts(go([old], new, coloring=PhotographSettings(variants=3, confidence=True))) == (
        1,
        0,
        0,
    )
    assert files(new) == ["a-2.jpg", "a-3.jpg", "a-confidence.png", "a.jpg"]
    sure = cv2.imread(str(new / "a-confidence.png"))
    # all views say the same
    assert sure is not None and sure.shape == (30, 40, 3) and int(sure.min()) > 250
    assert len(report_of(new)["a.jpg"]["targets"]) == 4


@pytest.mark.slow
def test_pictures_in_colour_are_told_or_left_alone(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "gray.png", "sepia.png", "vivid.png", size=(96, 96))
    rows, columns = np.mgrid[0:96, 0:96].astype(np.float32)
    shade = 60 + 120 * columns / 96
    sepia = np.dstack((shade * 0.7, shade * 0.85, shade))
    vivid = np.dstack((shade, 255 - shade, 2 * rows))
    for name, bgr in (("sepia", sepia), ("vivid", vivid)):
        assert cv2.imwrite(str(old / f"{name}.png"), bgr.astype(np.uint8))
    assert counts(go([old], tmp_path / "all")) == (3, 0, 0)
    told = {
        name
        for name, record in report_of(tmp_path / "all").items()
        if "--skip-colored" in str(record["notes"])
    }
    assert told == {"vivid.png"}
    assert counts(go([old], tmp_path / "kept", coloring=PhotographSettings(keep_color=0.5))) == (
        3,
        0,
        0,
    )
    assert "--skip-colored" not in (tmp_path / "kept" / "report.jsonl").read_text()
    for count in (0, 1):
        new = tmp_path / f"new{count}"
        summary = go([old], new, skip_colored=True, workers=count)
        assert (*counts(summary), summary.left) == (2, 0, 0, 1)
        assert files(new) == ["gray.png", "sepia.png"]
        record = report_of(new)["vivid.png"]
        assert (record["status"], record["targets"]) == (
            "left",
            [],
        ) and "colours of its own" in str(record["notes"])


def test_what_is_broken_does_not_stop_the_others(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "cut.jpg", "z.png", size=(200, 200))
    (old / "cut.jpg").write_bytes((old / "cut.jpg").read_bytes()[:400])
    (old / "empty.jpg").write_bytes(b"")
    (old / "text.jpg").write_text("dear diary")
    (old / "gone.jpg").symlink_to("nowhere")
    summary = go([old, tmp_path / "missing.jpg"], tmp_path / "new")
    assert counts(summary) == (2, 0, 5)
    assert files(tmp_path / "new") == ["a.jpg", "z.png"]
    failed = [Path(record.source).name for record in summary.failures]
    assert failed == ["cut.jpg", "empty.jpg", "gone.jpg", "text.jpg", "missing.jpg"]
    for record in summary.failures:
        assert record.error is not None and "\n" not in record.error
        assert Path(record.source).name in record.error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ValueError("odd\nshape"), "ValueError: odd shape"),
        (MemoryError(), "memory"),
        (math.nan, "finite"),
    ],
)
def test_a_network_that_fails_fails_the_file(
    tmp_path: Path, answer: Exception | float, words: str
) -> None:
    class Broken(Network):
        def predict_view(self, view: View) -> Prediction:
            if int(view.rgb[0, 0, 0]) != 60:
                return super().predict_view(view)
            if isinstance(answer, Exception):
                raise answer
            return Prediction(np.full((*view.rgb.shape[:2], 2), answer, np.float32))

    summary = go([make(tmp_path / "old", "a.png", "b.png")], tmp_path / "new", Broken())
    assert counts(summary) == (1, 0, 1) and files(tmp_path / "new") == ["b.png"]
    assert summary.failures[0].error is not None and words in summary.failures[0].error


def test_existing_results(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg", "b.jpg"), tmp_path / "new"
    new.mkdir()
    (new / "a.jpg").write_bytes(b"mine")
    refused = go([old], new)
    assert counts(refused) == (1, 0, 1) and (new / "a.jpg").read_bytes() == b"mine"
    assert refused.failures[0].error is not None
    assert (
        "--overwrite" in refused.failures[0].error
        and "--skip-existing" in refused.failures[0].error
    )
    network = Network()
    assert counts(go([old], new, network, existing="skip")) == (0, 2, 0) and network.calls == 0
    assert report_of(new)["a.jpg"]["status"] == "skipped"
    assert counts(go([old], new, existing="overwrite")) == (2, 0, 0)
    assert (new / "a.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize("letters", ["a" * 251, "é" * 125 + "a", "a" * 249])
def test_the_longest_names_are_coloured_with_all_that_is_asked_for(
    tmp_path: Path, letters: str
) -> None:
    old, new = make(tmp_path / "old", f"{letters}.png", "b.png"), tmp_path / "new"
    summary = go([old], new, coloring=PhotographSettings(variants=2, confidence=True), sheet=True)
    assert counts(summary) == (2, 0, 0)
    assert len(files(new)) == 8 and all(len(os.fsencode(name)) <= 255 for name in files(new))
    assert f"{letters}.png" in files(new)
    assert counts(
        go(
            [old],
            new,
            coloring=PhotographSettings(variants=2, confidence=True),
            sheet=True,
            existing="skip",
        )
    ) == (0, 2, 0)


@pytest.mark.slow
def test_a_sheet_shows_gray_and_all_variants(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.png", size=(900, 700)), tmp_path / "new"
    assert counts(go([old], new, coloring=PhotographSettings(variants=3), sheet=True)) == (1, 0, 0)
    assert files(new) == ["a-2.png", "a-3.png", "a-sheet.png", "a.png"]
    sheet = cv2.imread(str(new / "a-sheet.png"))
    assert sheet is not None and sheet.shape[1] == 4 * 640 + 5 * 8
    gray, *colored = (sheet[300, 8 + 320 + place * 648].astype(int) for place in range(4))
    assert np.ptp(gray) == 0 and all(int(cell[2]) > int(cell[0]) + 20 for cell in colored)
    (new / "a-sheet.png").unlink()
    before = (new / "a-2.png").stat().st_mtime_ns
    assert counts(
        go([old], new, coloring=PhotographSettings(variants=3), sheet=True, existing="skip")
    ) == (1, 0, 0)
    # though no variant was written anew
    assert np.array_equal(cv2.imread(str(new / "a-sheet.png")), sheet)
    assert (new / "a-2.png").stat().st_mtime_ns == before


def test_a_limit_takes_the_next_ones_each_time(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", *(f"{number}.png" for number in range(5))), tmp_path / "new"
    (old / "0.png").write_text("no picture")
    (old / "2.mkv").write_bytes(b"film")

    def film(item: Item) -> Record:
        item.target.write_bytes(b"coloured")
        return Record(str(item.source), [str(item.target)], kind="film")

    told: list[tuple[int, int, int]] = []
    for _ in range(4):
        told.append(counts(go([old], new, limit=2, existing="skip", film=film)))
    assert told == [(1, 0, 1), (1, 1, 1), (1, 2, 1), (1, 3, 1)]  # what fails is tried again
    assert files(new) == ["1.png", "2.mkv", "2.png", "3.png"]


def test_a_preview_touches_nothing(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.png", "b.png", "c.jpg"), tmp_path / "new"
    (old / "d.mkv").write_bytes(b"film")
    make(new, "b.png")
    half = new / ".1-0123abcd.part"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    told: list[Record] = []
    items = expand([str(old), str(tmp_path / "gone.png")], new)
    found = list(dispatch.preview(items, BatchSettings(existing="skip"), told.append))
    assert [item.source.name for item in found] == ["a.png", "c.jpg", "d.mkv"]
    assert [record.status for record in told] == ["skipped", "failed"]
    assert files(new) == [half.name, "b.png"] and not (new / "report.jsonl").exists()


def test_skipping_wants_all_variants(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg", "b.jpg"), tmp_path / "new"
    go([old], new, coloring=PhotographSettings(variants=2))
    whole = (new / "b-2.jpg").read_bytes()
    (new / "b-2.jpg").unlink()
    (new / "b.jpg").write_bytes(b"mine")
    look = PhotographSettings(variants=2, confidence=True)
    assert counts(go([old], new, coloring=PhotographSettings(variants=2), existing="skip")) == (
        1,
        1,
        0,
    )
    assert (new / "b-2.jpg").read_bytes() == whole and (
        new / "b.jpg"
    ).read_bytes() == b"mine"  # only what is missing
    assert report_of(new)["b.jpg"]["targets"] == [str(new / "b-2.jpg")]
    assert counts(go([old], new, coloring=look, existing="skip")) == (2, 0, 0)
    assert (new / "b.jpg").read_bytes() == b"mine"
    assert report_of(new)["b.jpg"]["targets"] == [str(new / "b-confidence.png")]


@pytest.mark.parametrize("existing", ["refuse", "skip", "overwrite"])
def test_output_onto_itself_through_links(tmp_path: Path, existing: str) -> None:
    old, new = make(tmp_path / "old", "hard.jpg", "soft.jpg", "z.jpg"), tmp_path / "new"
    new.mkdir()
    os.link(old / "hard.jpg", new / "hard.jpg")
    (new / "soft.jpg").symlink_to(old / "soft.jpg")
    before = {name: (old / name).read_bytes() for name in ("hard.jpg", "soft.jpg")}
    summary = go([old], new, existing=existing)
    assert counts(summary) == (1, 0, 2)
    assert all("input itself" in str(record.error) for record in summary.failures)
    assert {name: (old / name).read_bytes() for name in before} == before
    assert (new / "soft.jpg").is_symlink()


def test_two_sources_with_one_result(tmp_path: Path) -> None:
    make(tmp_path, "x/a.jpg", "y/a.jpg", "y/b-2.jpg", "y/b.jpg")
    inputs = [tmp_path / name for name in ("x/a.jpg", "y/a.jpg", "y/b.jpg", "y/b-2.jpg")]
    # b-2.jpg is also the second variant of b.jpg
    summary = go(inputs, tmp_path / "new", coloring=PhotographSettings(variants=2))
    assert counts(summary) == (2, 0, 2)
    assert [record.source for record in summary.failures] == [str(inputs[1]), str(inputs[3])]
    assert files(tmp_path / "new") == ["a-2.jpg", "a.jpg", "b-2.jpg", "b.jpg"]


def test_odd_names_are_coloured(tmp_path: Path) -> None:
    names = ["-rf.jpg", "two words.png", "写真.jpg", "line\nbreak.jpg"]
    assert counts(go([make(tmp_path / "old", *names)], tmp_path / "new")) == (4, 0, 0)
    assert files(tmp_path / "new") == sorted(names)


def test_a_folder_that_changes_while_it_runs(tmp_path: Path) -> None:
    old = make(tmp_path / "old", *(f"{number}.png" for number in range(4)), "sub/a.png")

    def change(record: Record) -> None:
        if record.source.endswith("0.png"):
            (old / "2.png").unlink()
            (old / "3.png").write_bytes(b"now something else")
            make(old, "sub/b.png", "9.png")

    summary = go([old], tmp_path / "new", progress=change)
    assert [Path(record.source).name for record in summary.failures] == ["2.png", "3.png"]
    assert files(tmp_path / "new") == ["0.png", "1.png", "sub/a.png", "sub/b.png"]


@pytest.fixture
def small_files() -> Any:
    """Nothing can write a file above 4 KB: what a disk that is full looks like to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(folder: Path, *names: str) -> None:
    """Pictures whose results are large."""
    for name in names:
        assert cv2.imwrite(
            str(folder / name), np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
        )


def test_a_disk_that_fills_up_leaves_no_half_files(
    tmp_path: Path, small_files: Callable[[], None]
) -> None:
    old = make(tmp_path / "old", "a.png", "c.png")
    noise(old, "b.png", "d.png")
    small_files()
    summary = go([old], tmp_path / "new")
    assert counts(summary) == (2, 0, 2)
    assert files(tmp_path / "new") == ["a.png", "c.png"]
    assert all("b.png" in str(r.error) or "d.png" in str(r.error) for r in summary.failures)


def test_a_disk_that_stays_full_stops_the_batch(
    tmp_path: Path, small_files: Callable[[], None]
) -> None:
    old = make(tmp_path / "old", "z.png")
    noise(old, *(f"{number}.png" for number in range(9)))
    small_files()
    with pytest.raises(DataError, match="5 results in a row found it full; free some"):
        go([old], tmp_path / "new")
    assert [record["status"] for record in report_of(tmp_path / "new").values()] == ["failed"] * 5
    assert files(tmp_path / "new") == []


def test_a_disk_that_fills_up_between_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = worker.writer.write

    def full(path: Path, *rest: Any, **options: Any) -> list[str]:
        if path.name == "a-3.png":
            raise DataError("no room") from OSError(errno.ENOSPC, "No space left on device")
        return write(path, *rest, **options)

    monkeypatch.setattr(worker.writer, "write", full)
    summary = go(
        [make(tmp_path / "old", "a.png")], tmp_path / "new", coloring=PhotographSettings(variants=3)
    )
    assert counts(summary) == (0, 0, 1) and summary.failures[0].full
    assert files(tmp_path / "new") == []


def test_an_error_takes_back_what_was_new_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = worker.writer.write

    def full(path: Path, *rest: Any, **options: Any) -> list[str]:
        if path.name == "a-3.png":
            raise DataError("no room") from OSError(errno.ENOSPC, "No space left on device")
        return write(path, *rest, **options)

    old, new = make(tmp_path / "old", "a.png"), make(tmp_path / "new", "a.png", "a-3.png")
    before = (new / "a-3.png").read_bytes()
    monkeypatch.setattr(worker.writer, "write", full)
    assert counts(
        go([old], new, coloring=PhotographSettings(variants=3), existing="overwrite")
    ) == (0, 0, 1)
    assert files(new) == ["a-3.png", "a.png"] and (new / "a-3.png").read_bytes() == before
    assert cv2.imread(str(new / "a.png")) is not None
    assert report_of(new)["a.png"]["targets"] == []


def test_a_photographs_memory_is_free_when_the_last_variant_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = worker.reader.read, worker.writer.write
    pixels: list[weakref.ref[Any]] = []
    held: list[tuple[str, bool]] = []

    def note(*path: Path, **options: Any) -> Any:
        photograph = read(*path, **options)
        pixels.append(weakref.ref(photograph.pixels))
        return photograph

    def look(path: Path, *rest: Any, **options: Any) -> list[str]:
        held.append((path.name, pixels[0]() is not None))
        return write(path, *rest, **options)

    monkeypatch.setattr(worker.reader, "read", note)
    monkeypatch.setattr(worker.writer, "write", look)
    go(
        [make(tmp_path / "old", "a.png")],
        tmp_path / "new",
        coloring=PhotographSettings(variants=3, confidence=True),
    )
    assert held == [
        ("a.png", True),
        ("a-2.png", True),
        ("a-3.png", False),
        ("a-confidence.png", False),
    ]


@pytest.mark.slow
def test_variants_take_no_memory_beside_the_first(tmp_path: Path) -> None:
    def peak(variants: int) -> int:
        tracemalloc.start()
        try:
            go([old], tmp_path / f"{variants}", coloring=PhotographSettings(variants=variants))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    old = make(tmp_path / "old", "a.png", size=(900, 700))
    peak(1)  # modules and tables
    assert peak(5) - peak(2) < 900 * 700 * 3 // 2  # half a picture


@pytest.mark.parametrize("options", [{}, {"coloring": PhotographSettings(variants=2)}])
def test_a_source_is_never_overwritten(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = make(tmp_path / "scans", "a.jpg", "a.png", "a-2.png", "b.jpg")
    before = {path: path.read_bytes() for path in scans.iterdir()}
    monkeypatch.chdir(tmp_path)
    for inputs in (["scans/*"], ["scans/a.jpg"], ["scans/**/*"], ["scans/a.jpg", "scans/a.png"]):
        summary = go(
            [Path(name) for name in inputs], scans, format="png", existing="overwrite", **options
        )
        (scans / "report.jsonl").unlink()
        assert summary.done == 0 and all(
            "change --out" in str(record.error) for record in summary.failures
        )
    assert {path: path.read_bytes() for path in scans.iterdir()} == before


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_and_the_batch_goes_on_later(
    tmp_path: Path, kind: signal.Signals
) -> None:
    old, new = make(tmp_path / "old", *(f"{number}.jpg" for number in range(5))), tmp_path / "new"
    stop = Network(lambda view, calls: os.kill(os.getpid(), kind) if calls == 3 else None)
    with pytest.raises(StoppedBySignal, match="--skip-existing") as caught:
        go([old], new, stop)
    assert caught.value.exit_code == 128 + kind
    assert signal.getsignal(kind) in (signal.SIG_DFL, signal.default_int_handler)
    assert files(new) == ["0.jpg", "1.jpg"] and len(report_of(new)) == 2
    assert counts(go([old], new, existing="skip")) == (3, 2, 0)


def test_leftovers_of_a_killed_batch_are_removed(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg"), tmp_path / "new"
    new.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [
        f".{gone.pid}-0123abcd.part",
        f".{gone.pid}-89ab4567.part",
        f".{os.getpid()}-0123abcd.part",
        ".own.part",
    ]
    for name in names:
        (new / name).write_bytes(b"half")
        os.utime(new / name, (time.time() - 25 * 3600,) * 2)
    # perhaps of another machine, whose disk is slow
    os.utime(new / names[1], (time.time() - 3600,) * 2)
    go([old], new)
    assert files(new) == sorted([*names[1:], "a.jpg"])


def test_films_come_last_and_fail_alone(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.jpg", "z.jpg"), tmp_path / "new"
    for name in ("b.mp4", "c.wmv", "d.mkv"):
        (old / name).write_bytes(b"film")
    new.mkdir()
    (new / "d.mkv").write_bytes(b"done")

    def film(item: Item) -> Record:
        if item.source.name == "b.mp4":
            raise DataError("film must have a video stream, got b.mp4")
        return Record(str(item.source), [str(item.target)], kind="film", notes=["interlaced"])

    seen: list[Record] = []
    summary = go([old], new, existing="skip", film=film, progress=seen.append)
    assert counts(summary) == (3, 1, 1)
    assert [(Path(r.source).name, r.kind, r.status) for r in seen] == [
        ("a.jpg", "picture", "done"),
        ("z.jpg", "picture", "done"),
        ("b.mp4", "film", "failed"),
        ("c.wmv", "film", "done"),
        ("d.mkv", "film", "skipped"),
    ]
    assert seen[-2].targets == [str(new / "c.mkv")]
    assert "must be a picture here" in str(go([old / "b.mp4"], new).failures[0].error)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 0},
        {"quality": 101},
        {"format": "gif"},
        {"workers": -1},
        {"max_megapixels": 0},
        {"deadline": 0},
        {"limit": 0},
    ],
)
def test_settings_out_of_bounds(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options)).replace("_", "-")):
        BatchSettings(**options)


def test_every_format_that_is_written_can_be_chosen() -> None:
    assert fields.declared(BatchSettings)["format"].choices == tuple(worker.writer.FORMATS)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    old = make(tmp_path / "old", *(f"{number:04d}.png" for number in range(120)), size=(8, 8))
    held: list[int] = []
    ours = tracemalloc.Filter(True, "*/gancolor/*")

    def note(record: Record) -> None:
        if record.source.endswith("0019.png"):  # what comes once has come
            tracemalloc.start()
        elif record.source.endswith(("0069.png", "0119.png")):
            traces = tracemalloc.take_snapshot().filter_traces((ours,))  # without other threads'
            held.append(sum(trace.size for trace in traces.statistics("filename")))

    try:
        go([old], tmp_path / "new", progress=note)
    finally:
        tracemalloc.stop()
    assert held[0] > 0  # it was measured
    # Some 200 bytes for each of the 50: hashes. Pixels or records would be more.
    assert held[1] - held[0] < 50 * 400


def test_large_pictures_wait_for_each_other() -> None:
    class End:
        """Our end of a pipe: notes that something was sent."""

        def __init__(self) -> None:
            self.sent = 0

        def send(self, content: object) -> None:
            self.sent += 1

    crew = pool.Pool(3, Network(), BatchSettings(), Stopper("go on"))
    one, two, three = (workers.Worker(None, End()) for _ in range(3))  # type: ignore[arg-type]
    item = Item(Path("a.png"), Path("new/a.png"))

    def sent() -> list[int]:
        return [each.connection.sent for each in (one, two, three)]  # type: ignore[attr-defined]

    def hear(each: workers.Worker[Any], kind: str, content: object) -> None:
        crew._answer([workers.Message(each, kind, content, item)])

    for each, pixels in ((one, 60_000_000), (two, 300_000_000), (three, 10_000_000)):
        hear(each, "permit", pixels)
    # the second would be too much beside the first, and the third waits its turn
    assert sent() == [
        1,
        0,
        0,
    ]
    hear(one, "done", Record("a.png"))
    assert sent() == [1, 1, 0]  # alone, whatever its size
    hear(two, "done", Record("a.png"))
    assert sent() == [1, 1, 1]


@pytest.mark.slow
def test_a_worker_process_does_the_same(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "b.png")
    (old / "text.png").write_text("no picture")
    assert counts(go([old], tmp_path / "new", workers=1)) == (2, 0, 1)
    assert counts(go([old], tmp_path / "alone")) == (2, 0, 1)
    assert files(tmp_path / "new") == ["a.jpg", "b.png"]
    assert all(
        (tmp_path / "new" / n).read_bytes() == (tmp_path / "alone" / n).read_bytes()
        for n in ("a.jpg", "b.png")
    )
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_process_may_be_killed(tmp_path: Path) -> None:
    """It is replaced; the file that it was at fails, and nothing is left of it."""
    old = make(tmp_path / "old", *(f"{number}.png" for number in range(6)))
    (tmp_path / "new").mkdir()

    def kill(view: View, calls: int) -> None:
        if calls == 3:
            (child,) = multiprocessing.active_children()
            (tmp_path / "new" / f".{child.pid}-0123abcd.part").write_bytes(b"half")
            child.kill()
            child.join()

    summary = go([old], tmp_path / "new", Network(kill), workers=1)
    assert counts(summary) == (5, 0, 1)
    assert "2.png: the process that read it died" in str(summary.failures[0].error)
    assert files(tmp_path / "new") == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert multiprocessing.active_children() == []


class Treacherous(Sight):
    """Arrives in another process with decoders that hang at some pictures there and crash at
    others.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (dataclasses.astuple(self), os.getpid())


def _arrive(fields: tuple[Any, ...], sender: int) -> Sight:
    if os.getpid() != sender:
        probe = worker.reader.probe

        def treacherous(path: Path) -> tuple[int, int, str]:
            if "hanging" in path.name:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                time.sleep(1000)
            if "deadly" in path.name:
                os.kill(os.getpid(), signal.SIGSEGV)
            return probe(path)

        worker.reader.probe = treacherous
    return Sight(*fields)


@pytest.mark.slow
def test_a_decoder_that_hangs_or_crashes_costs_its_picture_alone(tmp_path: Path) -> None:
    network = Network()
    network.sight = Treacherous(32)
    old = make(tmp_path / "old", "0.png", "1 hanging.png", "2.png", "3 deadly.png", "4.png")
    summary = go([old], tmp_path / "new", network, workers=1, deadline=12.0)
    assert counts(summary) == (3, 0, 2)
    hanging, deadly = (str(record.error) for record in summary.failures)
    assert hanging.endswith(
        "1 hanging.png: it took longer than 12 s; raise --deadline if it is whole"
    )
    assert deadly.endswith("3 deadly.png: the process that read it died; out of memory?")
    assert files(tmp_path / "new") == ["0.png", "2.png", "4.png"]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_large_picture_asks_for_its_room(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.png", "b.png", size=(2900, 2800))
    assert 2900 * 2800 > pool.FREE_PIXELS
    assert counts(go([old], tmp_path / "new", workers=2)) == (2, 0, 0)


@pytest.mark.slow
def test_processes_that_keep_dying_stop_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(view: View, calls: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    monkeypatch.setattr(workers, "MOST_DEATHS", 3)
    old = make(tmp_path / "old", *(f"{number}.png" for number in range(5)))
    with pytest.raises(DataError, match="worker processes must live, got 3 .* --workers 0"):
        go([old], tmp_path / "new", Network(kill), workers=1)
    assert files(tmp_path / "new") == []


@pytest.mark.slow
def test_a_network_that_fails_fails_a_process_file(tmp_path: Path) -> None:
    def fail(view: View, calls: int) -> None:
        if calls == 1:
            raise RuntimeError("broken")
        if calls == 2:
            raise DataError("not finite")

    summary = go(
        [make(tmp_path / "old", *"abc.png def.png ghi.png jkl.png".split())],
        tmp_path / "new",
        Network(fail),
        workers=2,
    )
    assert counts(summary) == (2, 0, 2)
    assert sorted(str(r.error).split(": ", 1)[1] for r in summary.failures)[0].startswith(
        "not finite"
    )


@pytest.mark.slow
def test_a_signal_ends_the_processes(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", *(f"{number}.jpg" for number in range(8))), tmp_path / "new"
    stop = Network(lambda view, calls: os.kill(os.getpid(), signal.SIGTERM) if calls == 4 else None)
    with pytest.raises(StoppedBySignal) as caught:
        go([old], new, stop, workers=2)
    assert caught.value.exit_code == 143 and multiprocessing.active_children() == []
    there = files(new)
    assert 2 <= len(there) < 8 and not any(name.endswith(".part") for name in there)
    assert counts(go([old], new, existing="skip")) == (8 - len(there), len(there), 0)


SCRIPT = """
import os, sys, time
from pathlib import Path
import numpy as np
from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.records import Report
from gancolor.batch.input_files import expand
from gancolor.coloring.full_size import Prediction
from gancolor.runtime import processes
from gancolor.coloring.views import Sight

class Network:
    sight = Sight(32)
    def predict_view(self, view):
        time.sleep(float(sys.argv[4]))
        return Prediction(np.full((*view.rgb.shape[:2], 2), (0.3, 0.1), np.float32))

if __name__ == "__main__":
    out = Path(sys.argv[2])
    settings = BatchSettings(workers=int(sys.argv[3]), existing="skip")
    with Report(out) as report:
        summary = dispatch.run(Network(), expand(sys.argv[5:] or [sys.argv[1]], out), settings, report=report)
        counts = [processes.current().rank, summary.done, summary.skipped, summary.failed, len(summary.failures)]
        os.write(1, (" ".join(map(str, counts)) + "\\n").encode())  # at once: the processes share the terminal
"""


@pytest.mark.slow
def test_a_killed_batch_goes_on(tmp_path: Path, repository: Path) -> None:
    old = make(tmp_path / "old", *(f"{number:02d}.png" for number in range(30)), size=(300, 300))
    new, script = tmp_path / "new", tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [str(script), str(old), str(new), "2", "0.05"]
    paths = {**os.environ, "PYTHONPATH": str(repository)}
    process = forkserver.Popen(command, env=paths, stdout=subprocess.PIPE)
    try:
        while process.poll() is None and not (new.is_dir() and len(files(new)) >= 5):
            time.sleep(0.02)
    finally:
        process.kill()
        # until its worker processes, which have the same output, have ended too
        process.communicate(timeout=60)
    there = files(new)
    assert 5 <= len(there) < 30
    assert all(
        cv2.imread(str(new / name)) is not None for name in there if not name.endswith(".part")
    )
    whole = [name for name in there if not name.endswith(".part")]
    assert counts(go([old], new, existing="skip")) == (30 - len(whole), len(whole), 0)
    assert counts(go([old], tmp_path / "at once")) == (30, 0, 0)
    for number in range(30):
        name = f"{number:02d}.png"
        assert (new / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, True])
def test_two_processes_share_a_folder(tmp_path: Path, repository: Path, listed: bool) -> None:
    old = make(tmp_path / "old", *(f"{number:02d}.png" for number in range(24)))
    (old / "text.png").write_text("no picture")
    new, script = tmp_path / "new", tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [*TORCHRUN, str(script), str(old), str(new), "0", "0", *(["-"] if listed else [])]
    lines = "".join(f"{old}/{name}\n" for name in os.listdir(old)) if listed else ""
    paths = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, input=lines, env=paths
    )
    assert done.returncode == 0, done.stderr
    # both know of everything
    assert sorted(done.stdout.splitlines()) == [
        "0 24 0 1 1",
        "1 24 0 1 1",
    ]
    records = [json.loads(line) for line in (new / "report.jsonl").read_text().splitlines()]
    # each file once
    assert sorted(Path(record["source"]).name for record in records) == sorted(os.listdir(old))
    assert sum(name.endswith(".png") for name in files(new)) == 24
    assert not list(new.glob("report.rank*"))


_UNEQUAL = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.records import Report
from gancolor.batch.input_files import expand
from gancolor.coloring.full_size import Prediction
from gancolor.runtime import handout, processes
from gancolor.coloring.views import Sight

handout.SILENCE = 3.0  # of a process that is gone; the others show signs of life all the time
rank, old, new = processes.current().rank, Path(sys.argv[1]), Path(sys.argv[2])

class Network:
    sight, calls = Sight(32), 0
    def predict_view(self, view):
        self.calls += 1
        if rank == 1 and self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        while rank == 2 and len(list(new.glob("*.png"))) < 23:  # until all others are done
            time.sleep(0.02)
        while rank == 0 and self.calls == 1 and not (new / "report.rank1.jsonl").exists():
            time.sleep(0.02)
        while rank == 0 and not list(new.glob("*.png")):  # the one that dies
            time.sleep(0.02)
        return Prediction(np.full((*view.rgb.shape[:2], 2), (0.3, 0.1), np.float32))

with Report(new) as report:
    summary = dispatch.run(Network(), expand([str(old)], new), BatchSettings(workers=0), report=report)
print(rank, summary.done, summary.failed, Network.calls, flush=True)
"""


@pytest.mark.slow
def test_a_slow_and_a_dead_process_hold_nobody_up(tmp_path: Path) -> None:
    old = make(tmp_path / "old", *(f"{number:02d}.png" for number in range(24)))
    new, script = tmp_path / "new", tmp_path / "script.py"
    script.write_text(_UNEQUAL)
    done = forkserver.run_ranks([str(script), str(old), str(new)], world=3)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Both that live know of all; the slow one did one, and all others were done meanwhile.
    assert sorted(line.split()[:3] for line in done.stdout.splitlines()) == [
        ["0", "24", "0"],
        ["2", "24", "0"],
    ]
    assert "the process that had it is gone; it is tried again" in done.stderr
    records = [json.loads(line) for line in (new / "report.jsonl").read_text().splitlines()]
    assert sorted(Path(record["source"]).name for record in records) == sorted(os.listdir(old))
    assert {record["status"] for record in records} == {"done"}
    assert files(new) == sorted(os.listdir(old))  # and no report of one process


def test_results_keep_the_dates_of_their_sources(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old", "a.png", "sub/b.jpg"), tmp_path / "new"
    for number, name in enumerate(("a.png", "sub/b.jpg")):
        os.utime(old / name, ns=(1_000_000_000 * (number + 1), 2_000_000_000 * (number + 1)))
    look = PhotographSettings(variants=2)
    assert go([old], new, coloring=look, keep_dates=True).done == 2
    times = {path.name: path.stat().st_mtime_ns for path in new.rglob("*.*g")}
    assert times == {
        "a.png": 2 * 10**9,
        "a-2.png": 2 * 10**9,
        "b.jpg": 4 * 10**9,
        "b-2.jpg": 4 * 10**9,
    }
    assert go([old / "a.png"], tmp_path / "other").done == 1
    assert (tmp_path / "other" / "a.png").stat().st_mtime_ns > 10**18


def test_films_keep_their_dates(tmp_path: Path) -> None:
    film, out = tmp_path / "a.mkv", tmp_path / "out"
    film.write_bytes(b"film")
    os.utime(film, ns=(10**9, 3 * 10**9))

    def color_film(item: Item) -> Record:
        item.target.write_bytes(b"coloured")
        return Record(str(item.source), targets=[str(item.target)], kind="film")

    assert go([film], out, film=color_film, keep_dates=True).done == 1
    assert (out / "a.mkv").stat().st_mtime_ns == 3 * 10**9


def test_a_damaged_jpeg_is_coloured_and_said(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "whole.jpg")
    picture = cv2.resize(np.random.default_rng(1).integers(0, 255, (9, 9), np.uint8), (90, 90))
    data = bytearray(cv2.imencode(".jpg", picture)[1].tobytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(100)
    (old / "hole.jpg").write_bytes(data)
    (old / "ended.jpg").write_bytes((old / "whole.jpg").read_bytes()[:-2])
    assert go([old], tmp_path / "new").done == 3
    lines = [
        json.loads(line) for line in (tmp_path / "new" / "report.jsonl").read_text().splitlines()
    ]
    notes = {Path(line["source"]).name: " ".join(line["notes"]) for line in lines}
    assert (
        "the file is damaged, parts of the picture are made up (Corrupt JPEG data"
        in notes["hole.jpg"]
    )
    assert "the end mark of the file is missing, but all pixels are there" in notes["ended.jpg"]
    assert "damaged" not in notes["whole.jpg"]
