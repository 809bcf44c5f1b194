"""The papers' tables as data, and what follows from them for rows of ours."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gancolor.errors import ConfigError, WeightsError
from gancolor.papers import PAPERS, tasks
from gancolor.papers.published import find
from gancolor.papers.reproduction import logged
from gancolor.papers.tasks import RowFacts, contradictions, differences, select

FACTS = RowFacts(trained_on=900, tested_on=100, step=1000, seconds=600.0, embedding_width=1000)


def plan(
    name: str, tmp_path: Path, *, smoke: bool = False, weights: Any = None, **overrides: Any
) -> Any:
    """The planned rows on still-life, which needs no folder."""
    overrides.setdefault("dataset", "still-life")
    return tasks.plan(name, overrides=overrides, weights=weights or {}, out=tmp_path, smoke=smoke)


# --- the data ---


def test_every_row_is_a_valid_config_and_every_figure_has_a_column() -> None:
    assert list(PAPERS) == ["poster", "koalarization", "face", "portrait", "deep-cnn"]
    for paper in PAPERS.values():
        keys = {column.key for column in paper.columns}
        for row in paper.rows:
            assert row.config().preset == row.preset
            assert all(set(figures) <= keys for figures in row.reported.values())
        assert set(paper.truth) <= keys
        assert paper.stated <= set(paper.rows[0].config().to_json())


def test_the_posters_table() -> None:
    rows = {row.name: row for row in PAPERS["poster"].rows}
    assert list(rows) == [
        "lr-2e-4-beta1-0.5",
        "lr-2e-3-beta1-0.5",
        "lr-2e-4-beta1-0.05",
        "lr-2e-4-beta1-0.9",
    ]
    config = rows["lr-2e-4-beta1-0.05"].config()
    assert (config.lr, config.beta1, config.l1_weight, config.objective) == (
        2e-4,
        0.05,
        100,
        "adversarial",
    )
    assert rows["lr-2e-3-beta1-0.5"].figures("natural") == {
        "D_loss": 0.69,
        "G_loss": 23.90,
        "mae": 0.22,
    }
    assert rows["lr-2e-4-beta1-0.9"].figures("food") == {
        "D_loss": 1.16,
        "G_loss": 21.60,
        "mae": 0.69,
    }
    assert rows["lr-2e-4-beta1-0.9"].figures("people") == {}


def test_every_figure_of_the_posters_table() -> None:
    table = """
        natural 0.99 19.70 0.0002 0.50 0.19
        natural 0.69 23.90 0.0020 0.50 0.22
        natural 1.04 20.30 0.0002 0.05 0.19
        natural 1.01 19.20 0.0002 0.90 0.18
        food    1.14 20.90 0.0002 0.50 0.70
        food    0.59 26.50 0.0020 0.50 0.86
        food    1.18 21.80 0.0002 0.05 0.66
        food    1.16 21.60 0.0002 0.90 0.69
    """
    expected = {}
    for line in table.split("\n")[1:-1]:
        dataset, *values = line.split()
        d_loss, g_loss, lr, beta1, mae = map(float, values)
        expected[dataset, lr, beta1] = {"D_loss": d_loss, "G_loss": g_loss, "mae": mae}
    found = {}
    for row in PAPERS["poster"].rows:
        config = row.config()
        assert set(row.reported) == {"natural", "food"}
        for dataset, figures in row.reported.items():
            found[dataset, config.lr, config.beta1] = figures
    assert found == expected and len(expected) == 8


def test_every_figure_of_the_portraits_tables() -> None:
    keys = ("colorfulness", "mse_rgb", "mae_rgb", "delta_colorfulness")  # table V, then table VI
    expected = {
        "inception-resnet-v2": (22.09, 374.23, 12.06, -19.78),
        "vgg19": (28.89, 387.15, 12.71, -12.98),
        "vggface": (25.10, 368.57, 11.88, -16.77),
    }
    paper = PAPERS["portrait"]
    assert {row.name: row.figures("people") for row in paper.rows} == {
        name: dict(zip(keys, values, strict=True)) for name, values in expected.items()
    }
    assert paper.truth == {"colorfulness": 41.87}
    assert not any(
        row.reported for name in ("koalarization", "face", "deep-cnn") for row in PAPERS[name].rows
    )


def test_the_portraits_tables_agree_with_each_other() -> None:
    paper = PAPERS["portrait"]
    for row in paper.rows:
        figures = row.figures("anything")
        assert figures["delta_colorfulness"] == pytest.approx(
            figures["colorfulness"] - paper.truth["colorfulness"]
        )
        assert row.config().embedding == row.name
    assert (paper.epochs, paper.steps) == (21, 21 * 2000 // 50)


def test_only_the_food_rows_of_the_poster_cannot_be_true() -> None:
    found = [
        line for line in contradictions(PAPERS["poster"], ("natural", "food")) if "λ·L1" in line
    ]
    assert len(found) == 4 and all(line.startswith("food, lr ") for line in found)
    first = (
        "food, lr 2e-4, beta1 0.5: with λ = 100 its MAE of 0.70 makes λ·L1 70, its G_loss is"
        " 20.90, "
    )
    assert found[0] == first + "which leaves room for an L1 of about 0.20"
    assert not any("λ·L1" in line for line in contradictions(PAPERS["poster"], ("natural",)))


def test_the_noted_contradictions_are_there() -> None:
    words = {
        name: " | ".join(contradictions(paper, paper.datasets)) for name, paper in PAPERS.items()
    }
    assert "512" in words["koalarization"] and "1257 = 256 + 1001" in words["koalarization"]
    assert "1001 outputs of VGG16" in words["face"]
    assert "800" in words["portrait"] and "799" in words["portrait"]
    assert "1001" in words["deep-cnn"] and "224 x 224" in words["deep-cnn"]
    assert "45.87 %" in PAPERS["koalarization"].not_measurable[0]


def test_an_unknown_paper() -> None:
    with pytest.raises(
        ConfigError,
        match="must be one of poster, koalarization, face, portrait, deep-cnn, got pix2pix",
    ):
        find("pix2pix")


# --- which rows ---


def test_given_values_choose_rows() -> None:
    poster = PAPERS["poster"]
    assert [row.name for row in select(poster, {"lr": [2e-3]})] == ["lr-2e-3-beta1-0.5"]
    assert len(select(poster, {"lr": [2e-4], "beta1": [0.5, 0.9]})) == 2
    assert [row.name for row in select(PAPERS["portrait"], {"embedding": ["vgg19"]})] == ["vgg19"]
    with pytest.raises(
        ConfigError, match=r"--lr must be one of the paper's 2e-4, 2e-3, got 1e-3; train another"
    ):
        select(poster, {"lr": [1e-3]})
    with pytest.raises(
        ConfigError, match=r"must leave a row of the paper's table, got --lr 2e-3 --beta1 0.9"
    ):
        select(poster, {"lr": [2e-3], "beta1": [0.9]})


def test_the_eight_runs_of_the_poster(tmp_path: Path) -> None:
    for name in ("natural", "food"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    paper, grid = (
        PAPERS["poster"],
        ("lr-2e-4-beta1-0.5", "lr-2e-3-beta1-0.5", "lr-2e-4-beta1-0.05", "lr-2e-4-beta1-0.9"),
    )
    configs = [config for _, config in tasks.configs(paper, {}, {}, smoke=False)]
    assert [config.name for config in configs] == [
        f"{name}-{row}" for name in ("natural", "food") for row in grid
    ]
    assert [config.dataset for config in configs] == ["natural"] * 4 + ["food"] * 4
    assert {config.backbone_weights for config in configs} == {"imagenet"}
    assert {(config.image_size, config.epochs, config.steps) for config in configs} == {
        (256, None, None)
    }


def test_settings_of_the_rows(tmp_path: Path) -> None:
    rows = plan(
        "portrait", tmp_path, weights={"vggface": "face.pt", "": "none"}, lr=(5e-4,), image_size=128
    )
    assert [item.name for item in rows] == ["vggface", "vgg19", "inception-resnet-v2"]
    assert [item.config.backbone_weights for item in rows] == ["face.pt", "none", "none"]
    assert {(item.config.epochs, item.config.lr, item.config.image_size) for item in rows} == {
        (21, 5e-4, 128)
    }
    assert {item.state for item in rows} == {"to be trained"}
    timed = plan("portrait", tmp_path, time_limit=60.0)  # an end of one's own replaces the paper's
    assert {(item.config.epochs, item.config.time_limit) for item in timed} == {(None, 60.0)}


@pytest.mark.parametrize("name", list(PAPERS))
def test_smoke_is_small_and_gives_way(tmp_path: Path, name: str) -> None:
    rows = tasks.plan(name, overrides={"batch_size": 2}, weights={}, out=tmp_path, smoke=True)
    assert len(rows) == len(PAPERS[name].rows)
    for item in rows:
        config = item.config
        assert (config.dataset, config.image_size, config.batch_size, config.steps) == (
            "still-life",
            64,
            2,
            12,
        )
        assert (config.backbone_weights, config.epochs) == ("none", None)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("poster", {"network": "face"}, "--network must be left to the paper's rows, got face"),
        ("portrait", {"lr": (1e-3, 1e-4)}, "--lr must be given once, got 2 values"),
        (
            "face",
            {"dataset": ("still-life", "food")},
            "--dataset must be given once for this paper",
        ),
        (
            "poster",
            {"dataset": ("a/food", "b/food")},
            "--dataset must name folders of different names",
        ),
        ("poster", {"image_size": 8}, "--image-size must be at least 32, got 8"),
    ],
)
def test_options_that_no_row_can_have(
    tmp_path: Path, name: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.plan(name, overrides=overrides, weights={}, out=tmp_path)
    assert message in str(caught.value)


def test_weights_that_no_row_can_have(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="weights must be of inception-resnet-v2, vgg19, vggface, got some of vgg16",
    ):
        plan("portrait", tmp_path, weights={"vgg16": "none"})
    rows = plan("portrait", tmp_path, weights={"": "none", "vgg19": str(tmp_path / "gone.pt")})
    with pytest.raises(WeightsError, match="gone.pt"):
        tasks.check_weights(rows, download=False)
    with pytest.raises(
        WeightsError, match="VGG-Face's weights must be a file or none, got imagenet"
    ):
        tasks.check_weights(plan("portrait", tmp_path), download=False)


# --- what differs ---


def test_differences_are_those_of_the_settings() -> None:
    paper = PAPERS["portrait"]
    row = paper.rows[1]
    config = row.config(dataset="people", image_size=64, beta1=0.5, device="cpu", seed=3, steps=840)
    lines = differences(
        paper, row, config, FACTS._replace(trained_on=2000, tested_on=799, step=840)
    )
    assert lines == [
        "data: 2000 of portraits of the Helen set; here 2000 of people",
        "--image-size: 256; here 64",
        "--beta1: not said, the preset has 0.9; here 0.5",
    ]


def test_differences_in_length_pictures_and_weights() -> None:
    paper = PAPERS["koalarization"]
    config = paper.rows[0].config(dataset="natural", backbone_weights="none", batch_size=9)
    lines = differences(paper, paper.rows[0], config, FACTS)
    assert lines == [
        "data: 54000 of a subset of ImageNet, 10 % held out; here 900 of natural",
        "measured on: 6000 pictures; here 100",
        "length: about 23 hours on a Tesla K80; here 1000 steps of 9 (10 epochs)",
        "weights of the frozen network: from ImageNet; here random, never trained",
        "outputs of the embedding: 1001; here 1000",
        "--batch-size: 100; here 9",
    ]
    from_file = replace(config, backbone_weights="somewhere/net.pth")
    assert "here the file net.pth" in differences(paper, paper.rows[0], from_file, FACTS)[3]


def test_logged_figures_are_means_of_the_last_tenth(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"step": step, "images_per_second": 1.0, "D_loss": float(step), "G_loss": None}
        for step in range(5, 105, 5)
    ]
    lines.append({"step": 100, "val": {"mae_rgb": 1}})
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 10')
    assert logged(tmp_path) == {"step": 97.5, "images_per_second": 1.0, "D_loss": 97.5}


@pytest.mark.parametrize(
    "text", [None, "", '{"step": 1', '[3]\n{"step": 5, "val": {}}\n{"images_per_second": 1}\n']
)
def test_a_log_without_usable_lines_has_no_figures(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    assert logged(tmp_path) == {}
    (message,) = set(caplog.messages)
    assert "log.jsonl must hold lines of training steps, got none" in message


def test_a_run_that_ended_by_its_steps_is_not_finished_by_its_time(tmp_path: Path) -> None:
    """5 steps or an hour, ended after 5 steps: for 9 steps or an hour there are 4 left; one that
    the hour ended is.
    """
    run = tmp_path / "0001-vgg19"
    run.mkdir()
    saved = PAPERS["portrait"].rows[1].config(steps=5, epochs=None, time_limit=3600.0)
    (item,) = plan("portrait", tmp_path, embedding=("vgg19",), steps=9, time_limit=3600.0)
    item.run = run
    for step, done in ((5, False), (4, True)):
        (run / "report.json").write_text(json.dumps({"step": step}))
        assert tasks._is_done(item, saved) is done
