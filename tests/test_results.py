"""Means, intervals, tables and files of made-up figures."""

from __future__ import annotations

import csv
import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gancolor.errors import DataError
from gancolor.evaluation import results
from gancolor.evaluation.protocol import Protocol
from gancolor.evaluation.results import Evaluation, Result, complete, summarize


def make_row(
    name: str, colorfulness: list[float], truth: list[float], **more: list[float]
) -> Result:
    delta = [one - other for one, other in zip(colorfulness, truth, strict=True)]
    figures = {
        "colorfulness": colorfulness,
        "colorfulness_truth": truth,
        "delta_colorfulness": delta,
    }
    return Result(name, pictures=figures | more)


@pytest.fixture
def evaluation() -> Evaluation:
    """Return two rows of four pictures without LPIPS, FID and KID."""
    truth = [40.0, 20.0, 30.0, 50.0]
    rows = [
        make_row("gray", [0.0, 0.0, 0.0, 0.0], truth, psnr=[20.0, 21.0, 22.0, 23.0]),
        make_row("0001-a|b", [45.0, 4.0, 32.0, 39.0], truth, psnr=[24.0, 25.0, 26.0, 29.0]),
    ]
    summarize(rows)
    for row in rows:
        complete(row, {"lpips": "no weights", "fid": "no weights", "kid": "no weights"})
    protocol = Protocol(
        "natural", "test", 64, "crop", True, "cpu", "float32", pictures=4, digest="ab" * 32
    )
    return Evaluation(protocol, ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b,2.jpg"], rows)


def test_means_by_hand(evaluation: Evaluation) -> None:
    gray, run = evaluation.rows
    assert run.values["psnr"] == pytest.approx(26)
    assert run.values["colorfulness"] == pytest.approx(30)
    assert run.values["delta_colorfulness"] == pytest.approx(-5)  # 5, -16, 2, -11
    assert run.values["abs_difference_of_means"] == pytest.approx(5)
    assert run.values["mean_abs_difference"] == pytest.approx(34 / 4)
    assert run.values["gray_rate"] == pytest.approx(0.25)
    assert gray.values["gray_rate"] == 1
    assert (
        gray.values["abs_difference_of_means"]
        == gray.values["mean_abs_difference"]
        == pytest.approx(35)
    )


def test_intervals_hold_the_mean_and_repeat_themselves(evaluation: Evaluation) -> None:
    run = evaluation.rows[1]
    for key in run.low:
        value = run.values[key]
        assert value is not None and run.low[key] <= value <= run.high[key]
    assert run.low["psnr"] < 26 < run.high["psnr"]
    assert 0 <= run.low["abs_difference_of_means"] < 5 < run.high["abs_difference_of_means"]
    assert evaluation.rows[0].low["gray_rate"] == evaluation.rows[0].high["gray_rate"] == 1
    again = Result("again", pictures=run.pictures)
    summarize([again])
    assert again.low == run.low and again.high == run.high


def test_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(30, 8, 400).tolist()
    row = make_row("run", values, [0.0] * 400)
    summarize([row])
    width = row.high["colorfulness"] - row.low["colorfulness"]
    assert width == pytest.approx(2 * 1.96 * float(np.std(values)) / math.sqrt(400), rel=0.1)


def test_a_spread_is_resampled_as_a_whole() -> None:
    """The interval is that of the pooled ratio over resampled pictures, computed here one resample
    after another.
    """
    random = np.random.default_rng(5)
    a, true = random.normal(0, 6, 30), random.normal(2, 12, 30)  # pictures of one a* each
    moments = {f"{of}_b": [1.0] * 30 for of in ("mean", "square", "truth_mean", "truth_square")}
    moments |= {"mean_a": a.tolist(), "square_a": (a**2).tolist()}
    moments |= {"truth_mean_a": true.tolist(), "truth_square_a": (true**2).tolist()}
    row = make_row("run", [10.0] * 30, [20.0] * 30, **moments)
    summarize([row])
    complete(row, {})
    assert (
        row.values["spread_a"] == pytest.approx(a.std() / true.std())
        and row.values["spread_b"] == 1
    )
    drawn = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, results.RESAMPLES)
    ratios = [np.repeat(a, times).std() / np.repeat(true, times).std() for times in drawn]
    assert (row.low["spread_a"], row.high["spread_a"]) == pytest.approx(
        tuple(np.percentile(ratios, (2.5, 97.5)))
    )
    assert not set(row.values) & set(moments)


def test_one_picture_has_no_interval() -> None:
    row = make_row("run", [10.0], [12.0])
    summarize([row])
    complete(row, {})
    assert row.values["delta_colorfulness"] == -2 and row.low == {} == row.high


def test_every_column_is_a_number_or_has_a_reason(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        assert set(row.values) >= set(results.KEYS)
        assert {key for key in results.KEYS if row.values[key] is None} == set(row.empty)
        assert row.empty["fid"] == "no weights" and row.empty["ssim"] == "not measured"


def test_a_figure_that_is_no_number_is_empty() -> None:
    row = make_row("run", [10.0, 11.0], [12.0, 12.0])
    row.values["fid"] = math.nan
    summarize([row])
    complete(row, {})
    assert row.values["fid"] is None and row.empty["fid"] == "it came out as nan"


def test_files_hold_every_figure(evaluation: Evaluation, tmp_path: Path) -> None:
    results.write(evaluation, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(results.FILES)
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["run"] for line in lines] == ["gray", "0001-a|b"]
    assert lines[1]["psnr"] == 26 and lines[1]["psnr_low"] < 26 < lines[1]["psnr_high"]
    assert (
        lines[1]["fid"] is None
        and lines[1]["fid_low"] is None
        and lines[1]["empty"]["fid"] == "no weights"
    )
    assert (lines[1]["pictures"], lines[1]["list"], lines[1]["size"]) == (4, "ab" * 32, 64)
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["run"] for row in table] == ["gray", "0001-a|b"]
    assert (
        float(table[1]["delta_colorfulness"]) == -5
        and table[1]["lpips"] == "" == table[1]["fid_low"]
    )
    assert {key for key in table[1] if not key.endswith(("_low", "_high"))} == {
        "run",
        *results.KEYS,
    }
    with (tmp_path / "out" / "pictures.csv").open(newline="") as file:
        each = list(csv.DictReader(file))
    assert [(row["picture"], row["run"]) for row in each[-2:]] == [
        ("b,2.jpg", "gray"),
        ("b,2.jpg", "0001-a|b"),
    ]
    assert len(each) == 8 and float(each[-1]["colorfulness"]) == 39


def test_page_has_the_protocol_first_and_tables_that_markdown_reads(evaluation: Evaluation) -> None:
    page = results.markdown(evaluation)
    assert page.index("sha256 of the list abab") < page.index("CIEDE2000")
    assert "0001-a\\|b" in page and "\\|diff. of means\\|" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("| run")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "26.00 [24." in page and "MAE a\\*b\\*" in page
    assert "empty: LPIPS, FID, KID: no weights" in page
    assert "Other variants" not in page  # nothing was measured there


def test_terminal_tables_are_readable(evaluation: Evaluation) -> None:
    text = results.terminal(evaluation)
    assert max(len(line) for line in text.splitlines() if not line.startswith("empty: ")) < 120
    assert "-5.00 ±" in text
    assert (
        text.index("Distance")
        < text.index("Colorfulness")
        < text.index("empty: LPIPS, FID, KID: no weights")
    )


def test_an_interval_that_lies_askew_is_shown_by_its_ends(evaluation: Evaluation) -> None:
    gray, run = evaluation.rows
    for row in evaluation.rows:
        row.values |= {
            "psnr": 26.0,
            "colorfulness": 30.0,
            "abs_difference_of_means": 1.41,
            "delta_colorfulness": -2.0,
        }
        row.low |= {
            "psnr": 25.0,
            "colorfulness": 28.0,
            "abs_difference_of_means": 0.05,
            "delta_colorfulness": -4.1,
        }
        row.high |= {
            "psnr": 27.1,
            "colorfulness": 32.0,
            "abs_difference_of_means": 4.22,
            "delta_colorfulness": -0.0,
        }
    run.low["colorfulness"] = 10.0
    text = results.terminal(evaluation)
    assert text.count("26.00 ±1.05") == 2  # one arm longer, but not by much
    assert text.count("1.41 [0.05, 4.22]") == 2 and "1.41 ±" not in text
    # a column is of one kind
    assert "30.00 [28.00, 32.00]" in text and "30.00 [10.00, 32.00]" in text
    assert text.count("-2.00 [-4.10, 0.00]") == 2  # -2.00 ±2.05 would cross zero
    assert gray.low["psnr"] == 25


def test_without_truth_its_columns_are_left_out(evaluation: Evaluation) -> None:
    evaluation.protocol.has_truth = False
    assert not evaluation.has_truth
    for row in evaluation.rows:
        row.pictures = {"colorfulness": row.pictures["colorfulness"]}
        row.values, row.low, row.high, row.empty = {}, {}, {}, {}
    summarize(evaluation.rows)
    for row in evaluation.rows:
        complete(
            row, {column.key: "no colours" for column in results.COLUMNS if column.needs_truth}
        )
    text = results.terminal(evaluation)
    heads = [line.split("  ") for line in text.splitlines() if line.startswith("run ")]
    assert [[head.strip() for head in line if head.strip()] for line in heads] == [
        ["run", "M", "gray rate"]
    ]
    assert "| M true" not in results.markdown(evaluation)
    assert "M true, mean dM, |diff. of means|" in text and ": no colours" in text  # why


def test_csv_is_exact_and_empty_where_there_is_nothing(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluation.rows[1].values["kid"] = 5e-7
    evaluation.rows[1].pictures["psnr"][0] = 1 / 3
    del evaluation.rows[0].pictures["psnr"]
    results.write(evaluation, tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [(row["kid"], row["kid_low"]) for row in csv.DictReader(file)] == [
            ("", ""),
            ("5e-07", ""),
        ]
    with (tmp_path / "pictures.csv").open(newline="") as file:
        assert [row["psnr"] for row in csv.DictReader(file)][:2] == ["", repr(1 / 3)]


def test_tables_without_any_figure_are_left_out(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        row.values["psnr"] = None
        row.empty["psnr"] = "no truth"
    assert "Distance" not in results.terminal(evaluation)
    assert "empty: PSNR: no truth" in results.terminal(evaluation)


def test_reason_of_one_row_names_it(evaluation: Evaluation) -> None:
    evaluation.rows[0].values["psnr"] = None
    evaluation.rows[0].empty["psnr"] = "lost"
    assert "empty: PSNR of gray: lost" in results.terminal(evaluation)


def test_place_that_cannot_be_written_is_named_and_left_as_it_was(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for attempt in (lambda out: results.write(evaluation, out), results.prepare):
        with pytest.raises(DataError, match="must be a writable folder.*--out"):
            attempt(tmp_path / "file")
    (tmp_path / "out" / "pictures.csv").mkdir(parents=True)  # the last file cannot be put in place
    with pytest.raises(DataError, match="writable"):
        results.write(evaluation, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_trying_a_place_leaves_nothing(tmp_path: Path) -> None:
    results.prepare(tmp_path / "new")
    results.prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_when_not_all_can_be_written(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.write(evaluation, tmp_path)
    before = (tmp_path / "metrics.md").read_text()
    evaluation.protocol.dataset = "food"
    whole = results.written

    def full(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.name == "pictures.csv":
            raise OSError(28, "No space left on device")
        return whole(path)

    monkeypatch.setattr(results, "written", full)
    with pytest.raises(DataError, match="No space left"):
        results.write(evaluation, tmp_path)
    assert (tmp_path / "metrics.md").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(results.FILES)


def test_protocol_says_its_conditions_a_line_each() -> None:
    protocol = Protocol(
        "natural", "test", 64, "stretch", False, "cpu", "bfloat16", pictures=4, digest="ab" * 32
    )
    protocol.left_out, protocol.notes, protocol.runs = (
        ["a.jpg: cut\noff"],
        ["x was trained on 1"],
        ["x: best.pt"],
    )
    lines = protocol.lines()
    text = "\n".join(lines)
    assert lines[0].startswith("pictures: 4 of natural, split test; sha256 of the list abab")
    for words in (
        "64 x 64",
        "stretch",
        "signed",
        "'abs'",
        "bootstrap",
        "bfloat16",
        "left out: a.jpg: cut off",
    ):
        assert words in text
    assert (
        "truth: none" in text
        and "run x: best.pt" in lines
        and lines[-1] == "NOTE: x was trained on 1"
    )
