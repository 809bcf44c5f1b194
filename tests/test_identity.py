"""A run keeps its pictures, wherever they lie: they are known by their names and a few bytes. They
have colours.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.data import dataset, walk
from gancolor.data.facts import identify
from gancolor.errors import CheckpointError, DataError
from gancolor.storage import checkpoint
from gancolor.training import rundir, train

SMALL = (
    "image_size",
    "batch_size",
    "backbone_weights",
    "val_pictures",
    "workers",
    "device",
    "precision",
    "steps",
)


def identity(root: Path) -> Any:
    return identify(dataset.open_source(str(root), "train"))


def test_a_set_keeps_its_fingerprint_when_it_moves_and_no_other_has_it(
    pictures: Path, tmp_path: Path
) -> None:
    first = identity(pictures)
    assert (first.pictures, first.place) == (
        len(dataset.open_source(str(pictures), "train")),
        str(pictures),
    )
    moved = pictures.rename(tmp_path / "moved")
    assert identity(moved).fingerprint == first.fingerprint and identity(moved).place == str(moved)
    some = sorted(moved.rglob("*.jpg"))
    shutil.copy(some[0], moved / "one more.jpg")
    (moved / "manifest.csv").write_text("path,split\none more.jpg,train\n")
    assert identity(moved).fingerprint != first.fingerprint
    (moved / "one more.jpg").unlink()
    (moved / "manifest.csv").unlink()
    assert identity(moved).fingerprint == first.fingerprint
    for path in moved.rglob("*.jpg"):  # the same names, other pictures
        shutil.copy(some[0], path) if path != some[0] else None
    assert identity(moved).fingerprint != first.fingerprint


def test_pictures_that_a_manifest_names_elsewhere_may_move_together(
    pictures: Path, tmp_path: Path
) -> None:
    def listed(where: Path) -> str:
        here = tmp_path / "set"
        here.mkdir(exist_ok=True)
        rows = "".join(f"{path},train\n" for path in sorted(where.rglob("*.*")))
        (here / "manifest.csv").write_text(f"path,split\n{rows}")
        return identity(here).fingerprint

    first = listed(pictures)
    assert listed(pictures.rename(tmp_path / "moved")) == first


def test_a_pipe_among_the_pictures_is_not_waited_for(pictures: Path) -> None:
    import os

    source = dataset.open_source(str(pictures), "train")
    (pictures / source.name(0)).unlink()
    os.mkfifo(pictures / source.name(0))
    assert identify(source).pictures == len(source)


def test_names_of_an_index_come_in_blocks_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "BLOCK", 3)
    names = sorted(f"{number:02d}-\udcff{'x' * number}.jpg" for number in range(11))
    codes = np.arange(11, dtype=np.uint8) % 4
    (tmp_path / "a.names").write_bytes(walk.pack_names(names, codes))
    for part in walk.PARTS:
        found = walk.Names(tmp_path / "a.names", part)
        assert list(found) == [found[place] for place in range(len(found))]
    assert list(walk.Names(tmp_path / "a.names", "train")) == names[::4]


# --- going on ---


@pytest.fixture
def run(pictures: Path, tiny: TrainConfig, tmp_path: Path) -> Path:
    """Two of four steps on the pictures; they lie in `pictures`."""
    return train(replace(tiny, dataset=str(pictures), steps=2), runs_root=tmp_path / "runs")


def go_on(run: Path, **changes: Any) -> dict[str, Any]:
    config = rundir.merge_settings(rundir.read_config(run), {"steps": 4, **changes})
    return checkpoint.load(train(config, resume=run) / "last.pt")


@pytest.mark.slow
def test_moved_pictures_are_said_and_the_run_goes_on_as_it_would_have(
    run: Path, pictures: Path, tiny: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twin = shutil.copytree(run, tmp_path / "twin")
    stayed = go_on(twin)
    moved = pictures.rename(tmp_path / "moved")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="gancolor"):
        content = go_on(run, dataset=str(moved))
    assert (
        f"the run's pictures lie in {moved} now, not in {pictures}: they are the same"
        in caplog.messages
    )
    assert content["step"] == 4 and content["set"]["place"] == str(moved)
    assert all(
        torch.equal(content["generator"][key], value) for key, value in stayed["generator"].items()
    )
    assert rundir.read_config(run).dataset == str(moved)
    caplog.clear()
    go_on(run, steps=5)  # from now on it is there
    assert not [words for words in caplog.messages if "pictures lie in" in words]


def test_pictures_that_are_gone_are_asked_for(run: Path, pictures: Path, tmp_path: Path) -> None:
    pictures.rename(tmp_path / "moved")
    with pytest.raises(
        DataError,
        match=f"got nothing at {pictures}; if they lie elsewhere now, go on with --dataset",
    ):
        go_on(run)
    with pytest.raises(DataError, match="got '/not/there'"):
        go_on(run, dataset="/not/there")


def test_other_pictures_are_a_new_run(
    run: Path, pictures: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    others = shutil.copytree(pictures, tmp_path / "others")
    shutil.rmtree(others / "lakes")
    before = {path.name: path.read_bytes() for path in run.glob("*.*t*") if path.is_file()}
    done = cli("train", "--resume", run, "--steps", 4, "--dataset", others)
    assert (
        done.exit_code == 1
        and done.output.count("\n") == 1
        and "--init instead of --resume" in done.output
    )
    assert f"in {others}, not the " in done.output
    with pytest.raises(CheckpointError, match="got others"):
        go_on(run, dataset="still-life")
    assert before == {path.name: path.read_bytes() for path in run.glob("*.*t*") if path.is_file()}


def test_a_relative_path_that_leads_elsewhere_is_noticed(
    pictures: Path, tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(replace(tiny, dataset="pictures", steps=2), runs_root=tmp_path / "runs")
    others = shutil.copytree(pictures, tmp_path / "elsewhere" / "pictures")
    shutil.rmtree(others / "lakes")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"in {others}, not the [0-9]+ of {pictures}"):
        go_on(run)


@pytest.mark.slow
def test_a_set_that_grew_in_its_place_is_said(
    run: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        shutil.copy(pictures / "fields" / "01.jpg", pictures / f"more-{number}.jpg")
    assert go_on(run)["step"] == 4
    assert any("are no longer those that the run began with" in words for words in caplog.messages)


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_goes_on_where_it_was(
    run: Path, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in run.glob("last*.pt"):
        content = torch.load(path, weights_only=True)
        del content["set"]
        torch.save(content, path)
    moved = shutil.copytree(pictures, tmp_path / "moved")
    with pytest.raises(CheckpointError, match="does not tell which they are .* --init"):
        go_on(run, dataset=str(moved))
    assert go_on(run)["set"]["pictures"] > 0


@pytest.mark.slow
def test_gray_pictures_are_said_where_the_network_does_not_find_it_out(
    pictures: Path, tiny: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that learns the distribution of colours refuses them."""
    import cv2

    small = {name: getattr(tiny, name) for name in SMALL}

    def said() -> list[str]:
        caplog.clear()
        train(
            presets.build("regression", dataset=str(pictures), **small), runs_root=tmp_path / "runs"
        )
        return [words for words in caplog.messages if "hardly have colours" in words]

    assert said() == []
    for path in pictures.rglob("*.*"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    (words,) = said()
    assert "(0.00 % that are not gray)" in words and "--dataset" in words
    with pytest.raises(DataError, match="training pictures must have colours"):
        train(presets.build("gan", dataset=str(pictures), **small), runs_root=tmp_path / "gan")
    assert not (tmp_path / "gan").exists()
