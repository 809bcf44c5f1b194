"""What a run leaves to read: log.jsonl, TensorBoard, previews, report.json, card.md."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_settings import PHASES, TINY

from gancolor import metrics, presets
from gancolor.config import TrainConfig
from gancolor.images import arrays
from gancolor.training import loop, train
from gancolor.training.logbook import Logbook

REPORT = {"step", "seen", "seconds", "images_per_second", "val", "gray"}
TERMS = {
    "discriminator/real",
    "discriminator/fake",
    "generator/adversarial",
    "generator/l1",
    "generator/bins",
    "generator/perceptual",
}
SPEED = {"images_per_second", "waiting", "seen", "epoch"}
MAPS = {f"d_accuracy/{name}" for name in ("ab", "relu2_2", "relu3_3", "relu4_3")}
HEALTH = {
    "d_real",
    "d_fake",
    "d_accuracy",
    *MAPS,
    "ab_spread",
    "ab_offset",
    "ab_truth_spread",
    "ab_truth_offset",
}
NORMS = {"grad_norm_generator", "grad_norm_discriminator"}


def settings(**changes: Any) -> TrainConfig:
    quick = {
        **TINY,
        **PHASES,
        "val_pictures": 3,
        "checkpoint_every": 3,
        "validate_every": 2,
    }
    return presets.build(changes.pop("preset", "gan"), **{**quick, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    return train(settings(), runs_root=tmp_path_factory.mktemp("runs"))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def events(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    return board


def steps_of(board: EventAccumulator, tag: str) -> list[int]:
    """Sorted: files that were begun within the same second are read in the order of their names."""
    return sorted(event.step for event in board.Scalars(tag))


def test_log_has_a_line_for_each_interval_and_validation(run: Path) -> None:
    told = lines(run)
    assert [line["step"] for line in told if "val" not in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in told if "val" in line] == [2, 4, 6]
    last = [line for line in told if "val" not in line][-1]
    expected = (
        TERMS
        | SPEED
        | HEALTH
        | NORMS
        | {"D_loss", "G_loss", "MAE", "lr/generator", "lr/discriminator", "step"}
    )
    assert set(last) == expected
    assert last["D_loss"] == pytest.approx(last["discriminator/real"] + last["discriminator/fake"])
    terms = ("generator/adversarial", "generator/l1", "generator/bins", "generator/perceptual")
    assert last["G_loss"] == pytest.approx(sum(last[term] for term in terms))
    assert 0 < last["MAE"] < 1
    rate = loop.learning_rate(settings(), 5 / 6)
    assert last["lr/generator"] == pytest.approx(rate * settings().lr) and 0.01 < rate < 0.1
    assert last["images_per_second"] > 0 and 0 <= last["waiting"] <= 1
    assert last["seen"] == 12 and last["epoch"] == pytest.approx(12 / 4000)
    for line in told:
        if "val" in line:
            assert tuple(line["val"]) == tuple(line["gray"]) == metrics.KEYS


@pytest.mark.slow
def test_lines_are_means_over_the_interval(run: Path, tmp_path: Path) -> None:
    single = [line for line in lines(run) if "val" not in line]
    coarse = [
        line
        for line in lines(train(settings(log_every=3), runs_root=tmp_path))
        if "val" not in line
    ]
    assert [line["step"] for line in coarse] == [3, 6]
    for name in TERMS | HEALTH:
        values = [line[name] for line in single[3:]]
        assert coarse[1][name] == pytest.approx(sum(values) / 3, rel=1e-5), name


def test_paper_names_of_the_poster(tmp_path: Path) -> None:
    config = settings(preset="poster", steps=1, warmup=0.0, discriminator_warmup=0.0)
    line = lines(train(config, runs_root=tmp_path))[0]
    # which is not clipped
    assert line["MAE"] == pytest.approx(line["generator/l1"] / 100, rel=0.05)


def test_tensorboard_has_the_scalars(run: Path) -> None:
    board = events(run)
    tags = set(board.Tags()["scalars"])
    expected = TERMS | MAPS | {"lr/generator", "lr/discriminator"}
    expected |= {
        f"train/{name}" for name in SPEED | (HEALTH - MAPS) | NORMS | {"D_loss", "G_loss", "MAE"}
    }
    expected |= {f"{kind}/{key}" for kind in ("val", "gray", "final") for key in metrics.KEYS}
    assert tags == expected
    assert steps_of(board, "generator/l1") == [1, 3, 4, 5, 6]  # step 2 is the discriminator's
    assert steps_of(board, "val/ciede2000") == [2, 4, 6]
    told = [line for line in lines(run) if "val" in line]
    values = [event.value for event in board.Scalars("val/ciede2000")]
    assert values == pytest.approx([line["val"]["ciede2000"] for line in told], rel=1e-6)


def test_tensorboard_has_the_config_the_pictures_and_the_hparams(run: Path) -> None:
    board = events(run)
    text = board.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == settings().to_json()
    shown = board.Images("validation")
    assert [picture.step for picture in shown] == [2, 4, 6]
    last = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(shown[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR),
        cv2.COLOR_BGR2RGB,
    )
    assert np.array_equal(last, arrays.read_rgb(run / "preview" / "step-000006.png"))
    hparams = board.summary_metadata
    assert {tag for tag in hparams if tag.startswith("_hparams_")} == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    start = HParamsPluginData.FromString(
        hparams["_hparams_/session_start_info"].plugin_data.content
    )
    given = start.session_start_info.hparams
    assert (
        given["l1_weight"].number_value == settings().l1_weight
        and given["preset"].string_value == "gan"
    )
    assert (
        given["lr"].number_value == settings().lr
        and given["discriminator_units"].string_value == "512,256,128"
    )
    experiment = HParamsPluginData.FromString(hparams["_hparams_/experiment"].plugin_data.content)
    assert {info.name.tag for info in experiment.experiment.metric_infos} == {
        f"final/{k}" for k in metrics.KEYS
    }


@pytest.mark.slow
def test_previews_are_the_fixed_grid(run: Path) -> None:
    names = sorted(path.name for path in (run / "preview").iterdir())
    assert names == ["step-000002.png", "step-000004.png", "step-000006.png"]
    shapes = {arrays.read_rgb(run / "preview" / name).shape for name in names}
    assert len(shapes) == 1 and min(shapes.pop()[:2]) >= 3 * 32


def test_report_has_exactly_these_keys(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert set(report) == REPORT
    assert set(report["val"]) == set(report["gray"]) == set(metrics.KEYS)
    assert (report["step"], report["seen"]) == (6, 12)
    assert report["seconds"] > 0 and report["images_per_second"] > 0
    last = lines(run)[-1]
    assert (last["val"], last["gray"]) == (report["val"], report["gray"])
    assert report["gray"]["colorfulness_truth"] == report["val"]["colorfulness_truth"]


def test_card_tells_what_the_model_is(run: Path) -> None:
    card = (run / "card.md").read_text()
    report = json.loads((run / "report.json").read_text())
    assert card.startswith("# 0001-gan-still-life\n")
    for words in (
        "preset `gan`, 6 steps, 12 pictures at 32 px",
        "4000 to train on; 0 broken",
        "Condition: gray",
    ):
        assert words in card
    assert "not ImageNet" in card and "Licence" in card and "best.pt" in card
    for key in metrics.KEYS:
        assert f"| {key} | {report['val'][key]:.4g} | {report['gray'][key]:.4g} |" in card


def test_config_json_holds_settings_versions_and_machine(run: Path) -> None:
    written = json.loads((run / "config.json").read_text())
    assert TrainConfig.from_json(written["settings"]) == settings()
    assert written["versions"]["torch"] == torch.__version__ and "cores" in written["machine"]


@pytest.mark.slow
def test_resumed_logs_have_no_doubles(tmp_path: Path) -> None:
    run = train(settings(steps=4), runs_root=tmp_path)
    train(settings(steps=8), resume=run)
    told = lines(run)
    assert [line["step"] for line in told if "val" not in line] == list(range(1, 9))
    assert [line["step"] for line in told if "val" in line] == [2, 4, 6, 8]
    board = events(run)
    assert steps_of(board, "train/seen") == list(range(1, 9))
    assert steps_of(board, "val/psnr") == [2, 4, 6, 8]
    assert sorted(picture.step for picture in board.Images("validation")) == [2, 4, 6, 8]
    assert json.loads((run / "report.json").read_text())["seen"] == 16


@pytest.mark.slow
def test_a_kill_after_the_checkpoint_leaves_no_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Logbook, step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Logbook, "advance", fail)
    # steps 4 and 5 are logged, but step 3 is the last that was saved
    with pytest.raises(KeyboardInterrupt):
        train(settings(), runs_root=tmp_path)
    run = tmp_path / "0001-gan-still-life"
    with open(run / "log.jsonl", "a") as file:
        file.write('{"step": 6, "generator/l1": 1.')  # the line that was being written
    monkeypatch.undo()
    train(settings(), resume=run)
    assert [line["step"] for line in lines(run) if "val" not in line] == list(range(1, 7))
    assert [line["step"] for line in lines(run) if "val" in line] == [2, 4, 6]
    assert steps_of(events(run), "train/seen") == list(range(1, 7))


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing_but_tells_again(tmp_path: Path) -> None:
    run = train(settings(steps=2), runs_root=tmp_path)
    before = lines(run)
    report = json.loads((run / "report.json").read_text())
    train(settings(steps=2), resume=run)
    assert lines(run) == before
    again = json.loads((run / "report.json").read_text())
    assert set(again) == REPORT and again["val"] == report["val"] and again["step"] == 2


def test_verdicts_are_written_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)
    said: list[str] = []
    monkeypatch.setattr(
        "gancolor.training.logbook._log.warning", lambda words, *values: said.append(words % values)
    )
    book = Logbook(tmp_path, settings(), 0, 10)
    book.verdict(3, "the generator paints gray")
    book.close()
    assert lines(tmp_path) == [{"step": 3, "verdict": "the generator paints gray"}]
    assert said == ["step 3: the generator paints gray"]
    board = events(tmp_path)
    assert board.Tensors("health/text_summary")[0].tensor_proto.string_val == [
        b"the generator paints gray"
    ]


def test_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = Logbook(tmp_path, settings(), 0, 10)
    book.scalars(4, {"x": 1.0}, "x 1.000")
    book.say("hello")
    book.close()
    assert capsys.readouterr().err == "step 4/10  x 1.000\nhello\n"


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    kept = [{"step": 1}, {"step": 2, "val": {}}]
    text = (
        "".join(json.dumps(line) + "\n" for line in [*kept, {"step": 3}, {"other": 1}])
        + '{"step": 2, "x"'
    )
    (tmp_path / "log.jsonl").write_text(text)
    Logbook(tmp_path, settings(), 2, 10).close()
    assert lines(tmp_path) == kept
