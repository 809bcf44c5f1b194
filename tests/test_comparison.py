"""The page of a comparison: what is kept while pictures go by, what the page says, and that it is
written whole.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor import charts, metrics
from gancolor.errors import ConfigError, DataError
from gancolor.evaluation import comparison, page, results
from gancolor.evaluation.measurement import GRAY, MEAN, Evaluation, Result, Shown, measure_all
from gancolor.evaluation.page import THUMBNAIL, Gathering, read_curves
from gancolor.evaluation.protocol import Protocol
from gancolor.evaluation.results import complete, summarize
from gancolor.images import arrays

EVIL = "<script>alert('x')</script>"


def make_shown(
    index: int, runs: Sequence[str], side: int = 24, truth: bool = True, name: str | None = None
) -> Shown:
    """One made-up picture: each run keeps a share of the colours, the later runs and pictures less."""
    import torch

    generator = np.random.default_rng(index)
    rgb = arrays.resize(generator.integers(30, 226, (3, 3, 3), np.uint8), side)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    gray = (metrics.gray_picture(tensor)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    shares = {run: 0.9 - 0.3 * at - 0.02 * index for at, run in enumerate(runs)}
    colored = {
        run: (gray + share * (rgb.astype(float) - gray)).astype(np.uint8)
        for run, share in shares.items()
    }
    tensors = {
        n: torch.from_numpy(p).permute(2, 0, 1)[None]
        for n, p in ({GRAY: gray, MEAN: gray} | colored).items()
    }
    shown_truth = rgb if truth else gray
    values = measure_all(torch.from_numpy(shown_truth).permute(2, 0, 1)[None], tensors, truth)
    return Shown(index, name or f"pictures/{index:02d}.png", shown_truth, gray, colored, values)


def make_evaluate(
    runs: Sequence[str], count: int = 8, truth: bool = True, **kinds: Any
) -> Callable[..., Evaluation]:
    """A stand-in for `evaluate` on made-up pictures."""

    def evaluate(
        paths: Sequence[Path], *, see: Callable[[Shown], None], **options: Any
    ) -> Evaluation:
        protocol = Protocol(
            "made-up", "test", 24, "crop", truth, "cpu", "float32", count, notes=["made up"]
        )
        rows = {name: Result(name) for name in (GRAY, MEAN, *runs)}
        names = []
        for index in range(count):
            shown = make_shown(index, runs, truth=truth, **kinds)
            names.append(shown.name)
            for name, values in shown.values.items():
                for key, value in values.items():
                    rows[name].pictures.setdefault(key, []).append(value)
            see(shown)
        summarize(list(rows.values()))
        reasons = {
            c.key: "no colours to compare with"
            for c in results.COLUMNS
            if c.needs_truth and not truth
        }
        for row in rows.values():
            complete(
                row, reasons | {"fid": "fewer than two pictures", "kid": "fewer than two pictures"}
            )
        return Evaluation(protocol, names, list(rows.values()))

    return evaluate


@pytest.fixture
def made(undrawn: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Compare made-up runs; returns the page at tmp_path/new/report.html."""

    def make(runs: Sequence[str] = ("first", "second"), **kinds: Any) -> str:
        monkeypatch.setattr(comparison, "evaluate", make_evaluate(runs, **kinds))
        return compare_in(tmp_path, runs)

    return make


def compare_in(folder: Path, runs: Sequence[str]) -> str:
    """Compare as many runs, which have a log alone."""
    paths = []
    for at, _ in enumerate(runs):
        paths.append(folder / f"run-{at}")
        paths[-1].mkdir(exist_ok=True)
        lines = [
            {"step": s, "epoch": s / 2, "generator/l1": 9 - s, "G_loss": 10 - s} for s in range(4)
        ]
        (paths[-1] / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = folder / "new" / "report.html"
    comparison.compare(paths, out=out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page that was drawn in earnest, of runs and pictures with odd names; read
    only.
    """
    folder = tmp_path_factory.mktemp("drawn")
    runs = [EVIL, "_a & b"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "evaluate", make_evaluate(runs, name=f"a/{EVIL}漢字.png"))
        compare_in(folder, runs)
    return folder / "new"


def decode(uri: str) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return np.asarray(picture, np.uint8)


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, and the text outside of styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.text.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


# --- the page ---


@pytest.mark.slow
def test_the_page_is_one_file_that_asks_for_nothing(drawn: Path) -> None:
    text = (drawn / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "image"}
    for _, attributes in found.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "srcset", "poster", "data"):
                assert value is not None and value.startswith(("data:image/", "#"))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http:" not in without_names and "https:" not in without_names and "@import" not in text
    assert "default-src 'none'" in text
    assert (
        len(found.all("h1")) == 1
        and "prefers-color-scheme: dark" in text
        and "@media print" in text
    )


@pytest.mark.slow
def test_sheets_show_gray_runs_and_original_with_figures(made: Callable[..., str]) -> None:
    found = Page(made())
    pictures = found.all("img")
    # fixed, best, worst; of eight pictures none is at both ends
    assert len(pictures) == (6 + 4 + 4) * 4
    first = [str(picture["alt"]) for picture in pictures[:4]]
    for alt, words in zip(
        first, ("in gray", "coloured by first", "coloured by second", "the original"), strict=True
    ):
        assert alt.startswith(f"pictures/00.png, {words}: ")
    shown = make_shown(0, ["first", "second"])
    value = shown.values["second"]
    dm = f"{value['delta_colorfulness']:+.1f}".replace("-", "−")
    assert first[2].endswith(
        f"CIEDE2000 {value['ciede2000']:.2f}, M {value['colorfulness']:.1f} · dM {dm}"
    )
    assert f"CIEDE2000 {value['ciede2000']:.2f}" in found.text
    decoded = decode(str(pictures[2]["src"]))
    assert np.abs(decoded.astype(int) - shown.colored["second"]).mean() < 6


def test_the_table_marks_the_best_in_words_and_explains_what_is_empty(
    made: Callable[..., str],
) -> None:
    text = made()
    found = Page(text)
    assert found.text.index("Protocol") < found.text.index("Figures") < found.text.index("Pictures")
    assert "NOTE: made up" in found.text
    # `first` keeps more of the true colours: best in all that can be better, and only there.
    rows = re.findall(r'<tr[^>]*><th scope="row">(\w[\w ]*)</th>(.*?)</tr>', text, flags=re.S)
    best = {
        name: sum(cells.count("best of the runs") for row, cells in rows if row == name)
        for name, _ in rows
    }
    assert best[GRAY] == best[MEAN] == best["second"] == 0 and best["first"] >= 8
    assert text.count('class="best"') == best["first"] == text.count("★ </span>")
    assert "FID, KID: fewer than two pictures" in found.text
    assert set(re.findall(r'href="(#note-\d+)"', text)) == {
        f"#{found}" for found in re.findall(r'id="(note-\d+)"', text)
    }


def test_the_best_spread_is_the_nearest_to_one() -> None:
    rows = [
        Result(name, {"spread_a": value, "told_apart": value})
        for name, value in (("pale", 0.7), ("gaudy", 1.2))
    ]
    rows.append(Result(MEAN, {"spread_a": 1.0, "told_apart": 0.1}))  # no run
    columns = {column.key: column for column in results.COLUMNS}
    assert page._find_best(rows, columns["spread_a"]) == "1.200"
    assert page._find_best(rows, columns["told_apart"]) == "0.7"


def test_a_single_run_is_not_the_best(made: Callable[..., str]) -> None:
    assert "★ </span>" not in made(["only"], count=2)


@pytest.mark.slow
def test_names_are_escaped_everywhere(drawn: Path) -> None:
    text = (drawn / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert "<script" not in text and not found.all("script")
    assert found.text.count(EVIL) >= 3 * 2  # column heads and rows
    assert any(f"a/{EVIL}漢字.png" in str(picture["alt"]) for picture in found.all("img"))
    assert "_a & b" in found.text


def test_a_name_that_is_no_text_does_not_stop_the_page(made: Callable[..., str]) -> None:
    assert "b\\udcff.png" in made(["run"], count=1, name="b\udcff.png")


def test_without_truth_there_is_no_column_of_it(made: Callable[..., str], tmp_path: Path) -> None:
    found = Page(made(truth=False))
    heads = [text for text in found.text if text in ("gray", "first", "second", "original")]
    assert "original" not in heads and len(found.all("img")) == (6 + 4 + 4) * 3
    assert "Most colourful pictures" in found.text and "Best pictures" not in found.text
    assert not any(
        "dM" in str(picture["alt"]) or "CIEDE2000" in str(picture["alt"])
        for picture in found.all("img")
    )
    columns = re.findall(
        r"<thead>.*?</thead>", (tmp_path / "new" / "report.html").read_text(), flags=re.S
    )
    assert not any("PSNR" in head or "M true" in head for head in columns)
    assert any("no colours to compare with" in text and "PSNR" in text for text in found.text)
    assert files(tmp_path / "new" / "report-sheets") == [
        *("channels.png", "fixed.png", "least-colourful.png", "losses.png", "most-colourful.png")
    ]


def test_one_picture_has_no_ends(made: Callable[..., str]) -> None:
    found = Page(made(count=1))
    assert (
        len(found.all("img")) == 4
        and "Fixed pictures" in found.text
        and "Best pictures" not in found.text
    )


def test_many_pictures_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    whole = page.to_uris([noise] * 4)
    assert decode(whole[0]).shape == (256, 256, 3)
    monkeypatch.setattr(page, "BUDGET", sum(map(len, whole)) // 3)
    small = page.to_uris([noise] * 4)
    assert 100 < decode(small[0]).shape[0] < 150 and sum(map(len, small)) <= page.BUDGET
    monkeypatch.setattr(page, "BUDGET", 1)
    # what can still be seen
    assert decode(page.to_uris([noise, noise[:40, :40]])[0]).shape[0] == 64


def test_flat_pictures_are_lossless() -> None:
    flat = np.full((64, 64, 3), (200, 30, 90), np.uint8)
    uri = page.to_uris([flat])[0]
    assert uri.startswith("data:image/png") and np.array_equal(decode(uri), flat)


# --- what is kept ---


@pytest.mark.slow
def test_fixed_pictures_are_spread_over_a_list_of_any_length() -> None:
    for total in (1, 6, 7, 24, 60):
        gathering = Gathering(count=6)
        for index in range(total):
            gathering(make_shown(index % 30, ["run"], side=12, name=str(index)))
        chosen = [int(kept.name) for kept in gathering.sheets()[0].pictures]
        assert len(chosen) == min(6, total) and chosen == sorted(set(chosen)) and chosen[0] == 0
        if total > 6:
            assert chosen[-1] >= 0.6 * total and max(np.diff(chosen)) <= 2 * total / 6


def test_best_and_worst_are_by_the_mean_of_the_runs() -> None:
    gathering = Gathering(count=2)
    scores = {}
    for index in range(10):
        shown = make_shown(index, ["one", "two"])
        gathering(shown)
        scores[shown.name] = np.mean([shown.values[run]["ciede2000"] for run in ("one", "two")])
    order = sorted(scores, key=lambda name: scores[name])
    _, best, worst = gathering.sheets()
    assert [kept.name for kept in best.pictures] == order[:2]
    assert [kept.name for kept in worst.pictures] == order[-1:-3:-1]


@pytest.mark.slow
def test_what_is_held_does_not_grow_with_the_pictures() -> None:
    gathering = Gathering(count=3)
    shown = [make_shown(index, ["run"], side=300) for index in range(2)]
    for index in range(24):
        picture = shown[index % 2]
        gathering(
            Shown(index, str(index), picture.truth, picture.gray, picture.colored, picture.values)
        )
    held = {id(kept): kept for *_, kept in (*gathering._high, *gathering._low)} | {
        id(k): k for k in gathering._even
    }
    assert len(held) <= 3 + 3 + 6
    assert all(kept.truth.shape == (THUMBNAIL, THUMBNAIL, 3) for kept in held.values())
    assert gathering.truth["red"].sum() == 24 * 300 * 300


def test_histograms_count_every_pixel_where_it_is() -> None:
    gathering = Gathering()
    shown = make_shown(0, ["run"], side=12)
    shown.truth = np.full((12, 12, 3), (255, 0, 100), np.uint8)
    shown.colored["run"] = np.full((12, 12, 3), 128, np.uint8)
    gathering(shown)
    assert (
        gathering.truth["red"][63]
        == gathering.truth["green"][0]
        == gathering.truth["blue"][25]
        == 144
    )
    gray = gathering.histograms["run"]
    assert gray["a"][54:56].sum() == gray["b"][54:56].sum() == 144  # a* = b* = 0 is the middle
    assert gathering.truth["a"][55 + 39 : 55 + 42].sum() == 144  # a* about 80


# --- logs ---


def test_a_log_gives_curves(tmp_path: Path) -> None:
    lines: list[Any] = [
        {"step": 10, "epoch": 1.0, "generator/l1": 9.0, "G_loss": 9.5, "D_loss": 1.3},
        {"step": 20, "val": {"ciede2000": 8.0}, "gray": {"ciede2000": 11.0}},
        {"step": 30, "epoch": 3.0, "generator/mse": 7.0, "G_loss": None},
        {"step": 30, "verdict": "fine"},
        [1, 2],
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), '{"step": 40, "epo']))
    curves = read_curves(path)
    assert curves["reconstruction"] == charts.LossCurve([1.0, 3.0], [9.0, 7.0])
    assert curves["G_loss"] == charts.LossCurve([1.0], [9.5]) and curves[
        "D_loss"
    ] == charts.LossCurve([1.0], [1.3])
    assert curves["ciede2000"] == charts.LossCurve([2.0], [8.0])  # step 20 is epoch 2
    assert read_curves(tmp_path / "none.jsonl") == {}


@pytest.mark.slow
def test_a_run_without_a_log_is_named(
    undrawn: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(comparison, "evaluate", make_evaluate(["first", "second"], count=2))
    for name in ("run-0", "run-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-0" / "log.jsonl").write_text('{"step": 1, "epoch": 1, "generator/l1": 2}')
    (tmp_path / "run-1" / "best.pt").write_bytes(b"")
    (tmp_path / "new").mkdir()
    out = tmp_path / "new" / "report.html"
    comparison.compare([tmp_path / "run-0", tmp_path / "run-1" / "best.pt"], out=out)
    page = out.read_text(encoding="utf-8")
    assert "No log of second." in page
    # they share an axis
    assert "compare only between runs with the same loss, λ and colour scale" in page


# --- where it is written ---


@pytest.mark.slow
def test_files_beside_the_page(drawn: Path) -> None:
    names = ("best", "channels", "colorfulness", "fixed", "losses", "worst")
    assert files(drawn) == sorted([*(f"report-sheets/{name}.png" for name in names), "report.html"])
    for name in names:
        assert arrays.read_rgb(drawn / "report-sheets" / f"{name}.png").shape[0] > 300


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Write a page of these words and PNG files to tmp_path/report.html, without the work."""

    def run(words: str, *names: str) -> Path:
        made = (words, {name: words.encode() for name in names})
        monkeypatch.setattr(comparison, "evaluate", lambda *_, **__: Evaluation(None, [], []))  # type: ignore[arg-type]
        monkeypatch.setattr(comparison, "render", lambda *_: made)
        comparison.compare([], out=tmp_path / "report.html")
        return tmp_path / "report.html"

    return run


def test_an_earlier_page_is_replaced_and_foreign_files_stay(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write("earlier", "fixed.png", "best.png")
    (tmp_path / "report-sheets" / "mine.png").write_bytes(b"mine")
    write("later", "fixed.png", "most-colourful.png")
    assert files(tmp_path) == [
        *(
            "report-sheets/fixed.png",
            "report-sheets/mine.png",
            "report-sheets/most-colourful.png",
            "report.html",
        )
    ]
    assert (tmp_path / "report-sheets" / "fixed.png").read_bytes() == b"later"


def refuse(*arguments: object, **options: object) -> None:
    pytest.fail("work was begun")


@pytest.mark.parametrize(
    ("out", "kind", "words"),
    [
        ("report.pdf", ConfigError, "must be a file that ends in .html"),
        ("report", ConfigError, "--out report.html"),
        ("folder.html", DataError, "got a folder"),
        ("file/report.html", DataError, "must be in a writable folder"),
        ("taken.html", DataError, "must be in a writable folder"),
        pytest.param(
            *("/proc/report.html", DataError, "must be in a writable folder"),
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="needs a place that is read-only for everyone"
            ),
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    out: str, kind: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "evaluate", refuse)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "taken-sheets").write_text("in the way")
    before = files(tmp_path)
    with pytest.raises(kind, match=re.escape(words)):
        comparison.compare([tmp_path], out=tmp_path / out)
    assert files(tmp_path) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_read_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "evaluate", refuse)
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        comparison.compare([tmp_path], out=tmp_path / "report.html")


@pytest.mark.parametrize("full", ["fixed.png", "best.png", "report.html"])
def test_a_disk_that_fills_up_leaves_the_earlier_page(
    write: Callable[..., Path], full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("fixed.png", "best.png")
    write("earlier", *names)
    really = results.written

    def fill(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.name == full:
            raise OSError(28, "No space left on device")
        return really(path)

    monkeypatch.setattr(results, "written", fill)
    with pytest.raises(DataError, match="No space left on device"):
        write("later", *names)
    assert files(tmp_path) == ["report-sheets/best.png", "report-sheets/fixed.png", "report.html"]
    assert {(tmp_path / name).read_text() for name in files(tmp_path)} == {"earlier"}
