"""Studies with people: the page holds what its protocol says, and scoring recovers what is known."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_models
from participants import PROTOCOL, simulate

from gancolor.errors import ConfigError, DataError
from gancolor.evaluation import study_answers, study_page
from gancolor.evaluation.study_answers import StudyProtocol
from gancolor.images import arrays

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]


def test_known_fool_rates_are_recovered(tmp_path: Path) -> None:
    rates = {"gray": 0.02, "a": 0.2, "b": 0.45}
    hits = dict.fromkeys(rates, 0)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        files = [simulate(tmp_path / f"{number}.json", rates, rng) for number in range(25)]
        found = study_answers.score(files, resamples=1000)
        assert found.participants == 25
        for row in found.rows:
            assert row["trials"] == 250
            hits[row["system"]] += row["low"] <= 100 * rates[row["system"]] <= row["high"]
        (better,) = (row for row in found.preferences if row["P(row > column)"] == "b")
        assert better["a"] > 0.95 and better["gray"] > 0.99 and better["b"] is None
    assert min(hits.values()) >= 8  # of 95 % intervals


def test_people_who_differ_widen_the_interval(tmp_path: Path) -> None:
    def width(rates: list[float]) -> float:
        rng = np.random.default_rng(0)
        files = [
            simulate(tmp_path / f"{n}.json", dict.fromkeys(("gray", "a", "b"), rate), rng)
            for n, rate in enumerate(rates)
        ]
        row = study_answers.score(files, resamples=1000).rows[1]
        return float(row["high"] - row["low"])

    assert width([0.0, 0.6] * 10) > 1.5 * width([0.3] * 20)


def test_the_interval_by_its_definition(tmp_path: Path) -> None:
    """One person, one trial each way: resampling the trials gives a half-half coin twice."""
    protocol = replace(PROTOCOL, systems=("a",), practice=0, vigilance=0, scored=2)
    path = simulate(tmp_path / "x.json", {"a": 0}, np.random.default_rng(0), protocol=protocol)
    content = json.loads(path.read_text())
    trial = content["trials"][0]
    trial["answer"] = {"first": "second", "second": "first"}[trial["fake"]]
    path.write_text(json.dumps(content))
    (row,) = study_answers.score([path]).rows
    assert (row["fool rate %"], row["low"], row["high"]) == (50.0, 0.0, 100.0)


def test_a_real_picture_alone_is_its_own_row(tmp_path: Path) -> None:
    protocol = replace(PROTOCOL, form="single")
    rates = {"gray": 0.0, "a": 1.0, "b": 0.0, study_answers.TRUTH: 1.0}
    path = simulate(tmp_path / "x.json", rates, np.random.default_rng(0), protocol=protocol)
    found = study_answers.score([path])
    assert {row["system"]: row["fool rate %"] for row in found.rows} == {
        "gray": 0.0,
        "a": 100.0,
        "b": 0.0,
        "truth": 100.0,
    }
    assert found.pictures[0]["a"] == "1 of 1"


def test_who_does_not_count_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rates = {"gray": 0.0, "a": 0.5, "b": 0.5}
    good = simulate(tmp_path / "good.json", rates, rng)
    again = simulate(tmp_path / "again.json", rates, rng, participant="good")
    asleep = simulate(tmp_path / "asleep.json", rates, rng, attentive=False)
    short = simulate(tmp_path / "short.json", rates, rng)
    content = json.loads(short.read_text())
    short.write_text(json.dumps(content | {"trials": content["trials"][:20]}))
    slow = simulate(tmp_path / "slow.json", rates, rng)
    content = json.loads(slow.read_text())
    content["trials"][-1]["shown_ms"] = [1000, 1300]
    slow.write_text(json.dumps(content))
    found = study_answers.score([good, again, asleep, short, slow])
    assert found.participants == 2
    assert sum(row["trials"] for row in found.rows) == 2 * PROTOCOL.scored - 1
    text = "\n".join(found.notes)
    for words in (
        "again.json left out: the same participant",
        "0% of the obvious fakes",
        "20 of 36 trials were answered",
        "1 trials left out",
    ):
        assert words in text
    with pytest.raises(DataError, match="got none.*asleep.json left out"):
        study_answers.score([asleep])


@pytest.mark.parametrize("name", ["wait_ms", "show_ms", "gap_ms", "size", "seed"])
def test_everything_is_part_of_the_protocols_digest(name: str) -> None:
    assert replace(PROTOCOL, **{name: 77}).digest != PROTOCOL.digest


def test_answers_that_are_none(tmp_path: Path, cli: Command) -> None:
    rng = np.random.default_rng(0)
    rates = {"gray": 0.0, "a": 0.5, "b": 0.5}
    good = simulate(tmp_path / "good.json", rates, rng)
    other = simulate(tmp_path / "other.json", rates, rng, protocol=replace(PROTOCOL, show_ms=500))
    with pytest.raises(DataError, match="one protocol, got .* in .*good.json and .* in .*other"):
        study_answers.score([good, other])
    bad = tmp_path / "bad.json"
    trial = json.loads(good.read_text())["trials"][0]
    for content in (
        b"\xff",
        b"{}",
        b"[" * 100_000,
        json.dumps({"gancolor_study": 1, "protocol": {"form": "x"}}).encode(),
        json.dumps(
            {
                **json.loads(good.read_text()),
                "trials": [trial | {"system": "never heard of"}],
            }
        ).encode(),
    ):
        bad.write_bytes(content)
        result = cli("study", "score", bad)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1 and "bad.json must hold answers" in result.stderr
    bad.write_text(json.dumps({"gancolor_study": 9}))
    with pytest.raises(DataError, match="must be of version 1"):
        study_answers.score([bad])
    assert "No such file" in cli("study", "score", tmp_path / "gone.json").stderr
    assert ".md or .json" in cli("study", "score", good, "--out", "x.txt").stderr


def test_scores_in_files(tmp_path: Path, cli: Command) -> None:
    rates = {"gray": 0.0, "a": 0.5, "b": 0.5}
    good = simulate(tmp_path / "good.json", rates, np.random.default_rng(0))
    result = cli("study", "score", good, "--out", tmp_path / "s.md")
    assert result.exit_code == 0, result.stderr
    assert "45.87" in result.stdout and "fool rate %" in result.stdout
    assert "| a" in (tmp_path / "s.md").read_text()
    assert cli("study", "score", good, "--out", tmp_path / "s.json").exit_code == 0
    content = json.loads((tmp_path / "s.json").read_text())
    assert [row["system"] for row in content["systems"]] == ["gray", "a", "b"]
    assert content["digest"] == PROTOCOL.digest


def test_the_page(tmp_path: Path, painted: Path, cli: Command) -> None:
    model = small_models.write(tmp_path / "tiny.safetensors")
    out = tmp_path / "new" / "study.html"
    shape = ("--trials", 4, "--practice", 1, "--vigilance", 1, "--size", 32, "--split", "all")
    result = cli("study", "make", model, "--dataset", painted, "--out", out, *shape)
    assert result.exit_code == 0, result.stderr
    text = out.read_text()
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)
    assert found is not None
    content = json.loads(found[1])
    about = content["protocol"]
    protocol = StudyProtocol(**{**about, "systems": tuple(about["systems"])})
    assert protocol.digest == content["digest"] and protocol.digest in result.stdout
    assert protocol.systems == ("gray", "tiny") and protocol.trials == 6
    assert len(content["pictures"]) >= 6
    assert str(painted) not in text  # folders are not told
    for picture in content["pictures"]:
        uris = [picture["truth"], picture["obvious"], *picture["fakes"].values()]
        for uri in uris:
            data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
            assert arrays.decode_rgb(data, "x").shape == (32, 32, 3)
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing from elsewhere


def test_pages_that_cannot_be_made(tmp_path: Path, painted: Path, cli: Command) -> None:
    model = small_models.write(tmp_path / "tiny.safetensors")
    own = ("study", "make", model, "--dataset", painted, "--size", 32)
    result = cli(*own, "--trials", 900)
    assert result.exit_code == 1 and "as many pictures in colour, got" in result.stderr
    assert not Path("study.html").exists()
    assert "ends in .html" in cli(*own, "--out", tmp_path / "x.txt").stderr
    with pytest.raises(ConfigError, match="--trials must be at least 3"):
        replace(PROTOCOL, scored=2)


def test_an_obvious_fake_keeps_lightness_and_loses_the_colours() -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    fake = study_page.spoil(gray, np.random.default_rng(0)).astype(int)
    spread = np.ptp(fake, axis=2)
    assert spread.mean() > 60  # vivid everywhere
    assert len(np.unique(fake.argmax(2))) == 3  # and of all hues
