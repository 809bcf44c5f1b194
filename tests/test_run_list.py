"""Runs as the server's page shows them, the models that it compares, and the folder of films."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_models

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays
from gancolor.server.film_folder import FilmFolder
from gancolor.server.run_list import COLUMNS, RunList
from gancolor.server.run_models import RunModels

MEASURES = {
    "ciede2000": 12.345,
    "mae_ab": 9.5,
    "psnr": 21.0,
    "colorfulness": 20.04,
    "colorfulness_truth": 31.0,
    "spread_a": 0.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, one in the middle, and one whose files are broken; read only."""
    root = tmp_path_factory.mktemp("runs")
    done = small_models.make_run(root, "0001-done", dataset="/secret/place/food")
    report = {"step": 40, "seconds": 90.0, "val": MEASURES, "gray": {"ciede2000": 15.0}}
    (done / "report.json").write_text(json.dumps(report))
    lines = [{"step": 10 * k, "epoch": k, "G_loss": 2.0 / k, "D_loss": 1.4} for k in (1, 2, 3, 4)]
    (done / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (20, 40):
        grid = np.full((6, 9, 3), step, np.uint8)
        arrays.write_rgb(done / "preview" / f"step-{step:06d}.png", grid)
    (done / "preview" / "other.png").write_bytes(b"")
    begun = small_models.make_run(root, "0002-<b>begun", seed=1)
    validation = {"step": 20, "val": MEASURES | {"ciede2000": 14.0}, "gray": {"ciede2000": 15.0}}
    (begun / "log.jsonl").write_text(
        "\n".join(map(json.dumps, [lines[0], validation, lines[2]])) + '\n{"cut'
    )
    broken = root / "0010-broken"
    broken.mkdir()
    for name in ("config.json", "report.json", "log.jsonl"):
        (broken / name).write_text("[")
    (root / "notes").mkdir()
    return root


def test_each_run_has_its_figures(root: Path) -> None:
    rows = RunList(root).rows()
    assert all(tuple(row) == COLUMNS for row in rows)
    broken, begun, done = rows
    assert list(done.values())[:7] == ["0001-done", "regression", "food", 32, "done", 40, 1.5]
    assert list(done.values())[7:] == [12.35, 15.0, 9.5, 21.0, 20.0, 31.0, 0.5]
    assert (begun["state"], begun["step"], begun["CIEDE2000"]) == ("not at its end", 30, 14.0)
    assert begun["minutes"] is None
    assert (broken["run"], broken["preset"], broken["step"]) == (
        "0010-broken",
        "not readable",
        None,
    )


def test_a_run_is_named_by_what_is_listed(root: Path) -> None:
    runs = RunList(root)
    assert runs.names() == ["0010-broken", "0002-<b>begun", "0001-done"]
    assert runs.trained() == ["0002-<b>begun", "0001-done"]
    for name in ("", "..", "notes", "1", "../runs/0001-done", str(root / "0001-done")):
        with pytest.raises(DataError, match="must be one that is listed"):
            runs.find(name)
    assert RunList(root / "nothing").rows() == []


def test_grids_are_shown_by_their_steps(root: Path) -> None:
    runs = RunList(root)
    assert [grid.step for grid in runs.grids("0001-done")] == [20, 40]
    picture, step = runs.grid("0001-done", 1)
    assert step == 40 and (picture == 40).all() and runs.grids("0010-broken") == []
    for number in (-1, 2):
        with pytest.raises(DataError, match="one of the run's 2"):
            runs.grid("0001-done", number)


@pytest.mark.slow
def test_curves_are_drawn_in_the_colours_of_the_page(root: Path) -> None:
    drawn = RunList(root).curves(["0001-done", "0002-<b>begun"])
    assert drawn is not None and drawn.startswith("<svg") and "currentColor" in drawn
    assert "0001-done" in drawn and "<b>" not in drawn
    assert RunList(root).curves(["0010-broken"]) is None and RunList(root).curves([]) is None


def test_two_models_color_one_picture_and_one_is_kept_beside_the_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Colorizer.load(root / "0001-done")
    loaded: list[Path] = []
    load = Colorizer.load

    def note(path: Path, **how: str) -> Colorizer:
        loaded.append(path)
        return load(path, **how)

    monkeypatch.setattr(Colorizer, "load", note)
    models = RunModels(own, RunList(root))
    assert models.names() == [models.own, "general", "0002-<b>begun", "0001-done"]
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    arrays.write_rgb(tmp_path / "a.png", rgb)

    def compare(*names: str) -> list[np.ndarray]:
        return models.compare(tmp_path / "a.png", (names[0], names[1]), 10_000)

    first, second = compare(models.own, "0002-<b>begun")
    assert (first == own(rgb)).all() and (first != second).any() and len(loaded) == 1
    compare("0002-<b>begun", "0001-done")
    assert len(loaded) == 2  # what was kept was asked first
    assert (compare("0001-done", models.own)[0] == first).all() and len(loaded) == 2
    assert (compare("0001-done", "0001-done")[1] == first).all() and len(loaded) == 2
    for names in ((models.own, str(root / "0001-done")), ("0010-broken", models.own)):
        with pytest.raises(DataError, match="must be one that is listed"):
            compare(*names)
    with pytest.raises(DataError, match="at most"):
        models.compare(tmp_path / "a.png", (models.own, models.own), 100)


def test_what_is_compared_has_the_precision_of_the_servers_own_model(
    root: Path, tmp_path: Path
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    arrays.write_rgb(tmp_path / "a.png", rgb)
    own = Colorizer.load(root / "0001-done", device="cpu", precision="bf16")
    models = RunModels(own, RunList(root), "bf16")
    own_picture, other = models.compare(tmp_path / "a.png", (models.own, "0001-done"), 10_000)
    assert (own_picture == other).all()
    whole = Colorizer.load(root / "0001-done", device="cpu", precision="fp32")
    assert (whole(rgb) != other).any()


def test_films_are_chosen_from_one_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "films", tmp_path / "outside"
    (folder / "a" / ".hidden").mkdir(parents=True)
    outside.mkdir()
    for path in ("b.mkv", "a/c.MP4", "a/.d.mkv", "a/.hidden/e.mkv", "text.txt", "a/bell\a.mkv"):
        (folder / path).write_bytes(b"x")
    (outside / "f.mkv").write_bytes(b"x")
    (folder / "link.mkv").symlink_to(outside / "f.mkv")
    (folder / "out").symlink_to(outside)
    films = FilmFolder(folder)
    assert films.names() == ["a/c.MP4", "b.mkv"]
    assert films.find("a/c.MP4") == folder / "a" / "c.MP4"
    for name in (
        *("../outside/f.mkv", "link.mkv", "out/f.mkv", "text.txt", "a/.d.mkv", "", ".", "a"),
        *("a/../b.mkv", "./b.mkv", str(folder / "b.mkv"), "b.mkv\0"),
    ):
        with pytest.raises(DataError, match="the server's folder holds"):
            films.find(name)
    with pytest.raises(ConfigError, match="--films must be a folder"):
        FilmFolder(folder / "b.mkv")
