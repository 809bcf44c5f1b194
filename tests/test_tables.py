from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from gancolor import tables

ROWS: list[dict[str, Any]] = [
    {"run": "0001-gan", "ciede2000": 9.456789, "steps": 1200},
    {"run": "gray", "ciede2000": 11.8, "note": "base|line"},
]


def test_terminal_aligns_numbers_to_the_right() -> None:
    assert tables.terminal(ROWS, digits=2).splitlines() == [
        "run       ciede2000  steps  note",
        "--------  ---------  -----  ---------",
        "0001-gan       9.46   1200  -",
        "gray          11.80      -  base|line",
    ]


def test_markdown_rules_the_columns_and_escapes_bars() -> None:
    assert tables.markdown(ROWS, digits=1).splitlines() == [
        "| run      | ciede2000 | steps | note       |",
        "| -------- | --------: | ----: | ---------- |",
        "| 0001-gan |       9.5 |  1200 | -          |",
        "| gray     |      11.8 |     - | base\\|line |",
    ]


def test_csv_reads_back() -> None:
    text = tables.csv([{"name": 'a, "b"', "value": 0.5}, {"name": "two\nlines"}])
    assert text.endswith("\n") and "\r" not in text
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "value"],
        ['a, "b"', "0.5"],
        ["two lines", ""],
    ]


def test_columns_can_be_chosen() -> None:
    assert tables.csv(ROWS, ["steps", "run", "seconds"]).splitlines() == [
        "steps,run,seconds",
        "1200,0001-gan,",
        ",gray,",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (-0.0004, "0.000"),
        (-0.5, "-0.500"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (True, "True"),
    ],
)
def test_values_as_text(value: object, text: str) -> None:
    assert tables.terminal([{"x": value}], digits=3).splitlines()[-1].strip() == text


@pytest.mark.parametrize("value", [5e-7, 1 / 3, 0.1 + 0.2, -0.0004, 1e22, 26.0])
def test_floats_in_csv_are_exact(value: float) -> None:
    for given in (value, np.float64(value)):
        assert tables.csv([{"x": given}]).splitlines() == ["x", repr(value)]


def test_wide_characters_take_two_places() -> None:
    assert tables.terminal([{"a": "青い", "b": "x"}, {"a": "blue", "b": "y"}]).splitlines()[2:] == [
        "青い  x",
        "blue  y",
    ]


def test_no_rows_make_a_bare_head() -> None:
    assert tables.terminal([], ["a"]).splitlines() == ["a", "-"]
    assert tables.markdown([], ["a"]).splitlines() == ["| a   |", "| --- |"]
    assert tables.csv([], ["a"]) == "a\n"
