"""Files of the version before the packages were rearranged are read as they were: a run, a set, shards and a journal.

`old_files.tar.xz` was written by that version on a machine where the folders were called /old and /photos.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import narrow
import numpy as np
import pytest
from click.testing import Result

from gancolor.coloring.colorizer import Colorizer
from gancolor.data.dataset import open_source
from gancolor.data.doctor.journal import Journal
from gancolor.images import arrays

ARCHIVE = Path(__file__).with_name("old_files.tar.xz")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the old files, as the working folder; networks are as narrow as they were."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    narrow.narrow_networks(monkeypatch)  # a second time: an eighth of an eighth
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_old_run_colours(old: Path) -> None:
    picture = arrays.read_rgb(old / "datasets/mine/0.png.jpg")
    for name in ("runs/0001-old", "runs/0001-old/best.pt", "runs/0001-old/last.pt"):
        colored = Colorizer.load(name, precision="fp32")(picture)
        assert colored.shape == picture.shape and np.ptp(colored) > 0


def test_an_old_run_goes_on(cli: Callable[..., Result], old: Path) -> None:
    result = cli("train", "--resume", "runs/0001-old", "--steps", 6, "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert json.loads((old / "runs/0001-old/report.json").read_text())["step"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_old_set_is_trained_on_and_prepared_again(cli: Callable[..., Result], old: Path) -> None:
    assert [len(open_source("./datasets/mine", split)) for split in ("train", "val", "test")] == [
        4,
        1,
        3,
    ]
    with Journal(old / "datasets/mine/.prepare/journal.sqlite") as journal:
        count = journal.connection.execute("SELECT COUNT(*) FROM pictures WHERE examined = 1")
        assert count.fetchone() == (8,)
    info = cli("data", "info", "mine", "--datasets-root", "datasets")
    assert info.exit_code == 0 and "8" in info.stdout
    shutil.copytree(
        old / "datasets/mine",
        old / "photos",
        ignore=shutil.ignore_patterns(".*", "*.csv", "*.json"),
    )
    again = (
        "data",
        "prepare",
        "photos",
        "--name",
        "mine",
        "--datasets-root",
        "datasets",
        "--resize",
        32,
    )
    result = cli(*again, "--min-size", 16, "--keep-near-duplicates", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert len(open_source("./datasets/mine", "all")) == 8


def test_old_shards_are_read(old: Path) -> None:
    sources = {split: open_source("shards", split) for split in ("train", "val", "test")}
    assert {split: len(source) for split, source in sources.items()} == {
        "train": 4,
        "val": 1,
        "test": 3,
    }
    assert sources["test"].read(2).shape[2] == 3
