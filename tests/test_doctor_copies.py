"""Copies of the kept pictures: which are made, where they go, and which are removed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import signal
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from gancolor.data.doctor import copies, examination
from gancolor.data.doctor.copies import Copies, adopt, copy_all
from gancolor.data.doctor.journal import Journal
from gancolor.data.doctor.set_files import write_manifest
from gancolor.data.doctor.sources import open_source
from gancolor.data.doctor.survey import examine_all
from gancolor.data.folder import find_pictures
from gancolor.errors import DataError
from gancolor.images import arrays


def picture(seed: int, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    good, data = cv2.imencode(suffix, cv2.resize(pixels, (50, 40), interpolation=cv2.INTER_CUBIC))
    assert good
    return data.tobytes()


FILES = {
    "a.jpg": picture(1),
    "b.png": picture(2, ".png"),
    "deep/c.jpg": picture(3),
    "bad.jpg": picture(4),
}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tgz(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


class Bench:
    """A journal, its sources and a set's folder."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.set, self.journal = folder / "set", journal

    def look(self, *paths: Path, rejected: str = "bad.jpg") -> None:
        opened = [open_source(path) for path in paths]
        rows = [
            (str(each.path), each.path.name[:3] * (len(paths) > 1), each.kind, False)
            for each in opened
        ]
        self.sources = dict(zip(self.journal.set_sources(rows), opened, strict=True))
        examine_all(self.journal, self.sources, workers=0, progress=lambda done, total: None)
        with self.journal.connection:
            self.journal.connection.execute(
                "UPDATE pictures SET reject = CASE WHEN name = ? THEN 'gray' ELSE '' END",
                (rejected,),
            )

    def copy(self, resize: int | None, workers: int = 0) -> Copies:
        self.told: list[tuple[int, int]] = []
        return copy_all(
            self.journal,
            self.sources,
            self.set,
            resize,
            workers=workers,
            progress=lambda *done: self.told.append(done),
        )

    def files(self) -> list[str]:
        return sorted(
            path.relative_to(self.set).as_posix() for path in self.set.rglob("*") if path.is_file()
        )


@pytest.fixture
def bench(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Journal(tmp_path / "journal") as journal:
        (tmp_path / "set").mkdir()
        yield Bench(tmp_path, journal)


@pytest.mark.slow
def test_kept_pictures_are_copied_once(bench: Bench, tmp_path: Path) -> None:
    bench.look(fill(tmp_path / "files", FILES))
    assert bench.copy(20) == Copies(made=3, kept=0, removed=0, failed=0)
    assert bench.files() == ["a.jpg", "b.png.jpg", "deep/c.jpg"]
    assert bench.told[-1] == (3, 3)
    for copy, sha256, width, height in bench.journal.connection.execute(
        "SELECT copy, copy_sha256, copy_width, copy_height FROM pictures WHERE reject = ''"
    ):
        assert hashlib.sha256((bench.set / copy).read_bytes()).digest() == sha256
        assert arrays.read_rgb(bench.set / copy).shape == (height, width, 3) == (20, 25, 3)
    times = {name: (bench.set / name).stat().st_mtime_ns for name in bench.files()}
    assert bench.copy(20, workers=2) == Copies(made=0, kept=3, removed=0, failed=0)
    assert bench.told[-1] == (3, 3)
    assert {name: (bench.set / name).stat().st_mtime_ns for name in bench.files()} == times


@pytest.mark.slow
def test_without_resize_only_archives_are_copied(bench: Bench, tmp_path: Path) -> None:
    paths = [
        fill(tmp_path / "files", FILES),
        zipped(tmp_path / "zip.zip", FILES),
        tgz(tmp_path / "tar.tgz", FILES),
    ]
    bench.look(*paths)
    assert bench.copy(None, workers=2) == Copies(made=6, kept=0, removed=0, failed=0)
    assert bench.files() == [
        f"{top}/{name}" for top in ("tar", "zip") for name in ("a.jpg", "b.png", "deep/c.jpg")
    ]
    for top in ("tar", "zip"):
        assert (bench.set / top / "b.png").read_bytes() == FILES["b.png"]
    assert bench.copy(None) == Copies(made=0, kept=6, removed=0, failed=0)


def test_only_what_is_missing_or_changed_is_copied_again(bench: Bench, tmp_path: Path) -> None:
    source = fill(tmp_path / "files", FILES)
    bench.look(source)
    bench.copy(20)
    good = (bench.set / "a.jpg").read_bytes()
    (bench.set / "a.jpg").write_bytes(b"damaged")
    (bench.set / "b.png.jpg").unlink()
    assert bench.copy(20) == Copies(made=2, kept=1, removed=0, failed=0)
    assert (bench.set / "a.jpg").read_bytes() == good
    fill(source, {"a.jpg": picture(77)})
    os.utime(source / "a.jpg", ns=(1, 1))
    bench.look(source)
    assert bench.copy(20) == Copies(made=1, kept=2, removed=0, failed=0)
    assert (bench.set / "a.jpg").read_bytes() != good
    assert bench.copy(10) == Copies(made=3, kept=0, removed=0, failed=0)
    assert arrays.read_rgb(bench.set / "b.png.jpg").shape == (10, 12, 3)


def test_copies_that_are_not_wanted_are_removed(bench: Bench, tmp_path: Path) -> None:
    source = fill(tmp_path / "files", FILES | {"e/f.jpg": picture(5)})
    bench.look(source)
    bench.copy(20)
    (source / "deep" / "c.jpg").unlink()
    (source / "e" / "f.jpg").unlink()
    (bench.set / "e" / "f.jpg").write_bytes(b"somebody's own work")
    bench.look(source, rejected="a.jpg")
    assert bench.copy(20) == Copies(made=1, kept=1, removed=2, failed=0)
    assert bench.files() == ["b.png.jpg", "bad.jpg", "e/f.jpg"]  # what was changed by hand stays
    assert not (bench.set / "deep").exists()
    assert bench.copy(None) == Copies(made=0, kept=0, removed=2, failed=0)
    assert bench.files() == ["e/f.jpg"]


@pytest.mark.parametrize("resize", [20, 10])
def test_what_somebody_changed_is_moved_aside(
    bench: Bench, tmp_path: Path, resize: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.look(fill(tmp_path / "files", FILES))
    bench.copy(20)
    (bench.set / "deep" / "c.jpg").write_bytes(b"somebody's own work")
    with caplog.at_level(logging.WARNING, "gancolor"):
        made = 3 if resize == 10 else 1
        assert bench.copy(resize) == Copies(made=made, kept=3 - made, removed=0, failed=0)
    assert (tmp_path / "changed" / "deep" / "c.jpg").read_bytes() == b"somebody's own work"
    assert min(arrays.read_rgb(bench.set / "deep" / "c.jpg").shape[:2]) == resize
    assert (
        "1 of the copies were changed since they were made" in caplog.text
        and "c.jpg" in caplog.text
    )


def test_with_another_size_changed_copies_are_not_removed(bench: Bench, tmp_path: Path) -> None:
    source = fill(tmp_path / "files", FILES)
    bench.look(source)
    bench.copy(20)
    (bench.set / "a.jpg").write_bytes(b"somebody's own work")
    bench.look(source, rejected="a.jpg")
    assert bench.copy(10) == Copies(made=3, kept=0, removed=0, failed=0)
    assert (bench.set / "a.jpg").read_bytes() == b"somebody's own work"


@pytest.mark.parametrize("listed", [False, True])
def test_copies_that_become_the_source_are_not_removed(
    bench: Bench, tmp_path: Path, listed: bool
) -> None:
    bench.look(zipped(tmp_path / "a.zip", FILES))
    bench.copy(None)
    names = bench.files()
    source = bench.set
    if listed:
        source = tmp_path / "some.csv"
        source.write_text("path\n" + "".join(f"set/{name}\n" for name in names))
    bench.look(source)
    assert bench.copy(None) == Copies(made=0, kept=0, removed=0, failed=0)
    assert bench.files() == names


def lose_journal(bench: Bench, about: Mapping[str, object], folder: Path) -> Journal:
    """Write a set's manifest and set.json and return a new journal for it."""
    write_manifest(bench.journal, bench.set / "manifest.csv")
    (bench.set / "set.json").write_text(json.dumps(about))
    return Journal(folder / "new journal")


def test_a_set_outlives_its_journal(bench: Bench, tmp_path: Path) -> None:
    source = fill(tmp_path / "files", FILES)
    bench.look(source)
    bench.copy(20)
    (source / "deep" / "c.jpg").unlink()
    with lose_journal(bench, {"sources": [str(source)], "resize": 20}, tmp_path) as journal:
        other = Bench(tmp_path, journal)
        adopt(journal, bench.set)
        other.look(source)
        assert other.copy(20) == Copies(made=2, kept=0, removed=3, failed=0)
        assert other.files() == ["a.jpg", "b.png.jpg", "manifest.csv", "set.json"]
        adopt(journal, bench.set)  # it is not new any more
        assert journal.connection.execute("SELECT * FROM leftovers").fetchall() == []


@pytest.mark.parametrize("moved", [False, True])
def test_nothing_is_removed_from_a_set_prepared_in_place(
    bench: Bench, tmp_path: Path, moved: bool
) -> None:
    fill(bench.set, FILES)
    bench.look(bench.set)
    about = {"sources": [str(tmp_path / "before" if moved else bench.set)], "resize": None}
    with lose_journal(bench, about, tmp_path) as journal:
        adopt(journal, bench.set)
        assert journal.connection.execute("SELECT * FROM leftovers").fetchall() == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"sources": 3, "resize": 20}', '{"sources": [], "resize": 20}']
)
def test_a_damaged_set_is_not_adopted(bench: Bench, content: str) -> None:
    (bench.set / "set.json").write_text(content)
    adopt(bench.journal, bench.set)
    assert bench.journal.connection.execute("SELECT * FROM leftovers").fetchall() == []


def test_a_picture_called_as_another_ones_folder(bench: Bench, tmp_path: Path) -> None:
    files = {
        "a.jpg": picture(1),
        "a.jpg/b.jpg": picture(2),
        "b.PNG/c.png": picture(3, ".png"),
        "b.PNG_/c.png": picture(4),
    }
    bench.look(zipped(tmp_path / "a.zip", files))
    assert bench.copy(30) == Copies(made=4, kept=0, removed=0, failed=0)
    assert bench.files()[:2] == ["a.jpg", "a.jpg_/b.jpg"] and len(bench.files()) == 4
    assert bench.copy(30) == Copies(made=0, kept=4, removed=0, failed=0)


def test_a_second_source_moves_the_copies_under_labels(bench: Bench, tmp_path: Path) -> None:
    first, second = fill(tmp_path / "one", FILES), fill(tmp_path / "two", {"a.jpg": picture(9)})
    bench.look(first)
    bench.copy(20)
    bench.look(first, second)
    assert bench.copy(20) == Copies(made=4, kept=0, removed=3, failed=0)
    assert bench.files() == ["one/a.jpg", "one/b.png.jpg", "one/deep/c.jpg", "two/a.jpg"]


def test_names_that_meet_are_kept_apart(bench: Bench, tmp_path: Path) -> None:
    files = {
        "x.png": picture(1, ".png"),
        "x.png.jpg": picture(2),
        "../y.jpg": picture(3),
        "_../Y.jpg": picture(4),
    }
    bench.look(zipped(tmp_path / "a.zip", files))
    assert bench.copy(30) == Copies(made=4, kept=0, removed=0, failed=0)
    assert bench.files() == find_pictures(bench.set)
    assert len({name.lower() for name in bench.files()}) == 4
    assert all(path.is_relative_to(bench.set) for path in tmp_path.rglob("*.jpg"))
    assert bench.copy(30) == Copies(made=0, kept=4, removed=0, failed=0)


def test_foreign_files_are_not_overwritten(bench: Bench, tmp_path: Path) -> None:
    bench.look(fill(tmp_path / "files", FILES))
    fill(bench.set, {"deep/c.jpg": b"mine"})
    with pytest.raises(
        DataError, match=r"must not hold files that prepare has not written, got .*c\.jpg where"
    ):
        bench.copy(20)
    assert (bench.set / "deep" / "c.jpg").read_bytes() == b"mine"


def test_a_picture_that_changed_meanwhile_is_broken(bench: Bench, tmp_path: Path) -> None:
    source = fill(tmp_path / "files", FILES)
    bench.look(source)
    fill(source, {"a.jpg": picture(50)})
    (source / "b.png").unlink()
    assert bench.copy(20) == Copies(made=1, kept=0, removed=0, failed=2)
    assert bench.files() == ["deep/c.jpg"]
    assert bench.told[-1] == (3, 3)
    broken = dict(
        bench.journal.connection.execute(
            "SELECT name, problem FROM pictures WHERE reject = 'broken'"
        ).fetchall()
    )
    assert (
        "changed while the set was prepared" in broken["a.jpg"]
        and "No such file" in broken["b.png"]
    )
    # They count as broken ones at once, without what was known of them.
    assert (
        bench.journal.count("examined AND reject = 'broken' AND sha256 IS NULL AND width = 0") == 2
    )
    assert write_manifest(bench.journal, bench.set / "manifest.csv") == len(FILES)
    (bench.set / "manifest.csv").unlink()
    bench.look(source)  # looks at it again
    assert bench.copy(20) == Copies(made=1, kept=1, removed=0, failed=0)


def test_a_picture_whose_file_did_not_change_is_looked_at_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "files", FILES)
    bench.look(source)
    bench.copy(20)

    def unreadable(data: bytes, kind: str, resize: int) -> bytes:
        raise DataError("no memory")

    monkeypatch.setattr(examination, "to_jpeg", unreadable)
    assert bench.copy(10) == Copies(made=0, kept=0, removed=3, failed=3)
    assert bench.files() == []  # no copy stays that the manifest would not name
    monkeypatch.undo()
    bench.look(source)
    assert bench.copy(10) == Copies(made=3, kept=0, removed=0, failed=0)


def test_a_compressed_archive_that_lost_a_picture(bench: Bench, tmp_path: Path) -> None:
    bench.look(tgz(tmp_path / "a.tgz", FILES))
    tgz(tmp_path / "a.tgz", {name: data for name, data in FILES.items() if name != "deep/c.jpg"})
    assert bench.copy(None) == Copies(made=2, kept=0, removed=0, failed=1)
    assert bench.files() == ["a.jpg", "b.png"]


def test_a_folder_that_cannot_be_written_is_one_error(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look(fill(tmp_path / "files", FILES))

    def full(path: Path, data: bytes) -> None:
        raise DataError("copy must be writable: No space left on device") from OSError(
            28, "No space left on device"
        )

    monkeypatch.setattr(arrays, "write_file", full)
    with pytest.raises(DataError, match="No space left"):
        bench.copy(20)
    monkeypatch.undo()
    # nothing was called broken
    assert bench.copy(20) == Copies(made=3, kept=0, removed=0, failed=0)


class _Deadly(copies.Copier):
    def __call__(self, work: copies.CopyJob) -> copies.Copied | str | DataError:
        if work.target == "a.jpg":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(work)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_only_the_culprit_fails_when_a_process_dies(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look(fill(tmp_path / "files", FILES))
    monkeypatch.setattr(copies, "Copier", _Deadly)
    assert bench.copy(20, workers=1) == Copies(made=2, kept=0, removed=0, failed=1)
    assert bench.files() == ["b.png.jpg", "deep/c.jpg"]
