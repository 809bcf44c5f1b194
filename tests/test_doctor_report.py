"""What the doctor found, as a table and as a contact sheet."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor import charts
from gancolor.data.doctor import examination, judge, readers, report
from gancolor.data.doctor.journal import Journal, encoded
from gancolor.data.doctor.judge import Decision
from gancolor.data.doctor.readers import Candidate, Reader
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.doctor.sources import Source, open_source
from gancolor.images import arrays

Picture = NDArray[np.uint8]
PITCH, ACROSS, TOP, LEFT, SIDE = 24 + 150 + 44, 160, 30 + 24, 10, 150  # of a sheet, in pixels
EMPTY = Decision(
    pictures=0, reasons={}, splits={"train": 0, "val": 0, "test": 0}, crossings={}, against=0
)


def colourful(seed: int) -> Picture:
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(cv2.resize(patches, (150, 120), interpolation=cv2.INTER_CUBIC), np.uint8)


def cell(sheet: bytes, row: int, column: int) -> Picture:
    """The picture in a cell of a contact sheet."""
    page = arrays.decode_rgb(sheet, "sheet")
    top, left = TOP + row * PITCH, LEFT + column * ACROSS
    return page[top : top + SIDE, left : left + SIDE]


def shows(sheet: bytes, row: int, column: int, seed: int) -> bool:
    """Whether a cell shows a picture, as wide as the cell, in its frame."""
    found = cell(sheet, row, column)[15:135]
    is_framed = bool((found[:, [0, -1]] == 150).all())
    return is_framed and np.array_equal(found[:, 1:-1], colourful(seed)[:, 1:-1])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


@pytest.fixture
def note(journal: Journal) -> Callable[..., int]:
    """Return a function that examines a picture and notes it with a reason; it returns its id."""

    def noted(
        source: int,
        reader: Reader,
        entry: Candidate,
        reject: str = "",
        twin: int | None = None,
    ) -> int:
        found = examination.examine(reader.read(entry), entry.name)
        values = {
            "source": source, "size": entry.size, "stamp": entry.stamp, "given": entry.given, "offset": entry.offset,
            "generation": 1, "examined": 1, "sha256": found.sha256, "kind": found.kind, "width": found.width,
            "height": found.height, "colorfulness": found.colorfulness, "chroma": found.chroma, "spread": found.spread,
            "contrast": found.contrast, "hash": examination.to_signed(found.hash), "signature": found.signature,
            "problem": found.problem, "reject": reject, "split": "train", "twin": twin,
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        cursor = journal.connection.execute(
            f"INSERT INTO pictures (name, {', '.join(values)}) VALUES (CAST(? AS TEXT), {marks})",
            [encoded(entry.name), *values.values()],
        )
        return int(cursor.lastrowid or 0)

    return noted


def add(
    journal: Journal, note: Callable[..., int], folder: Path, files: dict[str, str]
) -> dict[int, Source]:
    """Note the files of a folder, each with its reason; a reason `duplicate of NAME` names one
    further up.
    """
    source = open_source(folder)
    [id] = journal.set_sources([(str(folder), "", "folder", False)])
    found = {one.name: one for one in source.walk()}
    ids: dict[str, int] = {}
    for name, words in files.items():
        reason, _, twin = words.partition(" of ")
        ids[name] = note(id, source.reader(), found[name], reason, ids.get(twin))
    return {id: source}


def test_table(tmp_path: Path, journal: Journal, note: Callable[..., int]) -> None:
    files = {"b.png": "gray", "a.png": "gray", "good.png": "", "same.png": "duplicate of good.png"}
    for name in files:
        arrays.write_rgb(tmp_path / "in" / name, colourful(1))
    add(journal, note, tmp_path / "in", files)
    decision = Decision(
        pictures=2000,
        reasons={"gray": 500, "duplicate": 1},
        splits={"train": 1400, "val": 90, "test": 9},
        crossings={("train", "test"): 12},
        against=1,
    )
    lines = report.table(journal, Rules(keep=frozenset({"small"})), decision).splitlines()
    rows = {line.split()[0]: line.split() for line in lines[2 : 2 + len(REASONS) + 2]}
    assert list(rows) == [*REASONS, "kept", "all"]
    assert rows["gray"][1:3] == ["500", "25.0"] and rows["gray"][-1] == "a.png"  # the first by name
    assert rows["duplicate"][1:3] == ["1", "0.1"] and rows["duplicate"][-1] == "same.png"
    assert rows["broken"][1:3] == ["0", "0.0"]
    assert rows["kept"][1:3] == ["1499", "75.0"]
    assert rows["all"][1:3] == ["2000", "100.0"]
    assert "not asked: these are kept" in " ".join(rows["small"])
    assert lines[-3:] == [
        "kept: train 1,400, val 90, test 9",
        (
            "12 of the pictures given as train are the same as or much like pictures of test, and"
            " count there"
        ),
        "1 of the duplicates is a picture of another set",
    ]
    lines = report.table(
        journal, Rules(), replace(decision, crossings={("val", "test"): 1}, against=3)
    ).splitlines()
    assert lines[-2:] == [
        (
            "1 of the pictures given as val is the same as or much like a picture of test, and"
            " counts there"
        ),
        "3 of the duplicates are pictures of another set",
    ]


def test_table_of_nothing(journal: Journal) -> None:
    text = report.table(journal, Rules(), EMPTY)
    assert text.splitlines()[-1] == "kept: train 0, val 0, test 0"


def test_conditions_hold_every_threshold() -> None:
    rules = Rules(
        min_size=71, max_aspect=3.7, blank_contrast=1.9, gray_chroma=2.3, gray_colorfulness=4.7, single_tone_spread=1.3,
        single_tone_share=0.23, near_distance=5, near_likeness=0.93,
    )  # fmt: skip
    words = rules.conditions()
    assert list(words) == list(REASONS)
    text = " ".join(words.values())
    for value in ("71", "3.7", "1.9", "2.3", "4.7", "1.3", "0.23", "5 of 64", "0.93"):
        assert f" {value} " in f" {text} ", value


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("small", ({"width": 100, "height": 63},)),
        ("shape", ({"width": 401, "height": 100},)),
        ("blank", ({"contrast": 0.1}, {"spread": 0.1})),
        ("gray", ({"chroma": 0.1}, {"colorfulness": 0.1})),
    ],
)
def test_conditions_are_those_of_the_judge(
    reason: str, changes: tuple[dict[str, float], ...]
) -> None:
    """Where the words say `and`, one number alone does not reject; where they say `or`, it does."""
    good = examination.Findings(b"", "png", 300, 300, 50.0, 30.0, 20.0, 90.0, 0, b"", "")
    assert judge.judge(good, "a.png", Rules(), False) == ""
    alone = [
        judge.judge(replace(good, **change), "a.png", Rules(), False) == reason
        for change in changes
    ]  # type: ignore[arg-type]
    both = {key: value for change in changes for key, value in change.items()}
    assert judge.judge(replace(good, **both), "a.png", Rules(), False) == reason  # type: ignore[arg-type]
    assert all(alone) if " and " not in Rules().conditions()[reason] else not any(alone)


def test_sheet(tmp_path: Path, journal: Journal, note: Callable[..., int]) -> None:
    folder = tmp_path / "in"
    for number in range(3):
        arrays.write_rgb(folder / f"{number}.png", colourful(number))
    arrays.write_rgb(folder / "half.png", arrays.resize(colourful(1)[:, ::-1].copy(), (60, 75)))
    arrays.write_rgb(folder / "tiny.png", colourful(0)[:10, :20])
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    files = {
        "0.png": "gray", "1.png": "", "2.png": "gray", "half.png": "near-duplicate of 1.png", "tiny.png": "small",
        "cut.jpg": "broken",
    }  # fmt: skip
    sources = add(journal, note, folder, files)
    page = report.sheet(journal, sources, Rules())
    # Rows: broken, small, gray, near-duplicate, what was kept; as wide as the longest, two
    # pictures.
    assert arrays.decode_rgb(page, "sheet").shape[:2] == (30 + 5 * PITCH + 10, 10 + 2 * ACROSS)
    broken = cell(page, 0, 0)
    assert (broken[-1, -1] == 205).all() and broken.min() < 90  # words on gray
    # small ones keep their size
    assert np.array_equal(cell(page, 1, 0)[70:80, 65:85], colourful(0)[:10, :20])
    frame = cell(page, 1, 0)[69:81, 64:86]
    assert (frame[[0, -1]] == 150).all() and (frame[:, [0, -1]] == 150).all()
    for column, number in enumerate((0, 2)):
        assert shows(page, 2, column, number)
        assert (cell(page, 2, column)[:14] == 232).all()
    assert np.array_equal(
        cell(page, 3, 0)[45:105, 37:112], arrays.resize(colourful(1)[:, ::-1].copy(), (60, 75))
    )
    assert shows(page, 4, 0, 1)


def test_sheet_without_rejected_pictures(
    tmp_path: Path, journal: Journal, note: Callable[..., int]
) -> None:
    arrays.write_rgb(tmp_path / "in" / "a.png", colourful(1))
    assert report.sheet(journal, add(journal, note, tmp_path / "in", {"a.png": ""}), Rules()) == b""


def test_examples_are_spread_over_all(
    tmp_path: Path, journal: Journal, note: Callable[..., int]
) -> None:
    names = [f"{number:02d}.png" for number in range(11)]
    for number, name in enumerate(names):
        arrays.write_rgb(tmp_path / "in" / name, colourful(number))
    # the order is the names'
    sources = add(journal, note, tmp_path / "in", dict.fromkeys(reversed(names), "blank"))
    page = report.sheet(journal, sources, Rules(), most=3)
    for column, number in enumerate((0, 5, 10)):
        assert shows(page, 0, column, number)


def test_a_file_that_changed_since_is_a_tile(
    tmp_path: Path, journal: Journal, note: Callable[..., int]
) -> None:
    names = ["gone.png", "damaged.png", "odd\udcff.png"]
    for number, name in enumerate(names):
        arrays.write_rgb(tmp_path / "in" / "picture.png", colourful(number))
        (tmp_path / "in" / "picture.png").rename(tmp_path / "in" / name)
    sources = add(
        journal, note, tmp_path / "in", dict(zip(names, ("gray", "gray", "blank"), strict=True))
    )
    (tmp_path / "in" / "gone.png").unlink()
    (tmp_path / "in" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = report.sheet(journal, sources, Rules())
    assert all((cell(page, 1, column)[-1, -1] == 205).all() for column in (0, 1))
    assert shows(page, 0, 0, 2)  # its name is no UTF-8
    assert "'odd\\udcff.png'" in report.table(journal, Rules(), EMPTY)


def test_other_sets_are_shown_only_as_what_was_kept(
    tmp_path: Path, journal: Journal, note: Callable[..., int]
) -> None:
    mine, theirs = journal.set_sources(
        [("mine", "", "folder", False), ("theirs", "", "folder", True)]
    )
    sources = {}
    for id, name in ((mine, "mine"), (theirs, "theirs")):
        arrays.write_rgb(tmp_path / name / "a.png", colourful(id))
        arrays.write_rgb(tmp_path / name / "b.png", colourful(9))
        sources[id] = open_source(tmp_path / name)
    found = {
        id: sorted(source.walk(), key=lambda entry: entry.name) for id, source in sources.items()
    }
    note(theirs, sources[theirs].reader(), found[theirs][0], "broken")
    twin = note(theirs, sources[theirs].reader(), found[theirs][1])
    note(mine, sources[mine].reader(), found[mine][1], "duplicate", twin)
    page = report.sheet(journal, sources, Rules())
    assert arrays.decode_rgb(page, "sheet").shape[0] == 30 + 2 * PITCH + 10
    assert shows(page, 0, 0, 9)
    assert shows(page, 1, 0, 9)


def test_a_compressed_archive_is_read_once(
    tmp_path: Path, journal: Journal, note: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as archive:
        for number in range(4):
            arrays.write_rgb(tmp_path / f"{number}.png", colourful(number))
            archive.add(tmp_path / f"{number}.png", f"{number}.png")
    source = open_source(tmp_path / "in.tar.gz")
    [id] = journal.set_sources([(str(source.path), "", "stream", False)])
    found = list(source.walk())
    kept = note(id, source.reader(), found[0])
    note(id, source.reader(), found[3], "duplicate", kept)
    note(id, source.reader(), found[2], "gray")
    walks: list[Path] = []
    members = readers.tar_members

    def counted(path: Path, mode: readers.TarMode) -> Iterator[readers.TarMember]:
        walks.append(path)
        return members(path, mode)

    monkeypatch.setattr(readers, "tar_members", counted)
    page = report.sheet(journal, {id: source}, Rules())
    assert shows(page, 0, 0, 2)
    assert shows(page, 1, 0, 3)
    assert shows(page, 2, 0, 0)
    assert len(walks) == 1


@pytest.fixture
def captions(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that gives the words below all pictures of the sheet, which is not drawn."""
    drawn: list[str] = []

    def draw(heads: list[str], lines: list[tuple[str, list[tuple[Picture, str]]]]) -> Any:
        drawn.extend(words for _, cells in lines for _, words in cells)
        return SimpleNamespace(dpi=1)

    monkeypatch.setattr(charts, "draw_sheet", draw)
    monkeypatch.setattr(charts, "to_png", lambda figure, dpi: b"")

    def of(sources: dict[int, Source]) -> list[str]:
        drawn.clear()
        report.sheet(journal, sources, Rules())
        return list(drawn)

    return of


def test_numbers_below_pictures(
    tmp_path: Path,
    journal: Journal,
    note: Callable[..., int],
    captions: Callable[..., list[str]],
) -> None:
    arrays.write_rgb(tmp_path / "in" / "a.png", colourful(3))
    arrays.write_rgb(tmp_path / "in" / "m.png", colourful(3)[:, ::-1].copy())
    sources = add(journal, note, tmp_path / "in", {"a.png": "", "m.png": "near-duplicate of a.png"})
    assert captions(sources) == ["m.png\n0 bits, 1.000, mirrored", "a.png\n150 x 120"]
    measured = "chroma = 1.234, colorfulness = 0.87, spread = 2.06, contrast = 3.14"
    for reason, figures in (
        ("small", "150 x 120"),
        ("duplicate", "150 x 120"),
        ("extension", "PNG inside"),
        ("gray", "chroma 1.2, M 0.9"),
        ("single-tone", "spread 2.1"),
        ("blank", "L* range 3.1"),
    ):
        journal.connection.execute(
            f"UPDATE pictures SET reject = ?, {measured} WHERE name = 'm.png'", [reason]
        )
        assert captions(sources)[0] == f"m.png\n{figures}"


def test_long_names_are_cut_in_the_middle(
    tmp_path: Path,
    journal: Journal,
    note: Callable[..., int],
    captions: Callable[..., list[str]],
) -> None:
    name = "a" * 40 + "b" * 40 + ".png"
    arrays.write_rgb(tmp_path / "in" / name, colourful(3))
    [words] = captions(add(journal, note, tmp_path / "in", {name: "small"}))
    first, _, last = words.splitlines()[0].partition("…")
    assert 8 <= len(first) < 20 and set(first) == {"a"}
    assert 8 <= len(last) < 20 and last.endswith("b.png") and set(last[:-4]) == {"b"}
