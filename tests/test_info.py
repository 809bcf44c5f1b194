"""What is said of a picture set: counts, sizes, colours, licence, warnings; in words and as a
picture.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from gancolor import charts
from gancolor.data import folder, info_page, information, shard_packer
from gancolor.data.doctor import report
from gancolor.data.info_page import look_at
from gancolor.data.shard_listing import Shard
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import SPLITS, split_of
from gancolor.errors import DataError
from gancolor.images import arrays
from gancolor.images.arrays import Picture

RED, RED_LAB = (255, 0, 0), (53.24, 80.09, 67.20)  # CIE Lab of sRGB's red, D65


def colourful(seed: int, height: int = 140, width: int = 160) -> Picture:
    """Patches of any colour."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(
        cv2.resize(patches, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
    )


def gray(seed: int) -> Picture:
    return np.repeat(colourful(seed)[..., :1], 3, axis=2)


def sepia(seed: int) -> Picture:
    return np.asarray(gray(seed) * np.array([1.0, 0.85, 0.65]), np.uint8)


def fill(root: Path, count: int, paint: Callable[[int], Picture] = colourful) -> Path:
    for number in range(count):
        arrays.write_rgb(root / f"{number:03d}.png", paint(number))
    return root


def write_manifest(root: Path, rows: list[dict[str, object]]) -> None:
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(
            file, ["path", "sha256", "width", "height", "colorfulness", "split", "reject"]
        )
        table.writeheader()
        table.writerows(rows)


class Source:
    """Pictures in memory; None is a broken one."""

    def __init__(self, *pictures: Picture | None) -> None:
        self.pictures, self.asked = pictures, list[int]()

    def __len__(self) -> int:
        return len(self.pictures)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> Picture:
        self.asked.append(index)
        picture = self.pictures[index]
        if picture is None:
            raise DataError("broken")
        return picture


def plain(colour: tuple[int, int, int], height: int = 20, width: int = 30) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


def test_figures_of_one_colour() -> None:
    sample = look_at(Source(plain(RED)), 10)
    assert sample.lab[0] == pytest.approx(RED_LAB, abs=0.05)
    assert sample.center == pytest.approx(RED_LAB[1:], abs=0.05)
    assert sample.chroma[0] == pytest.approx(np.hypot(*RED_LAB[1:]), abs=0.05)
    # no deviation, only a mean
    assert sample.colorfulness[0] == pytest.approx(0.3 * np.hypot(255, 127.5), abs=0.1)
    assert sample.reach == pytest.approx(0, abs=1e-6)
    assert sample.sizes.tolist() == [[30, 20]]
    assert len(sample.weights) == 0


def test_density_and_reach_of_two_colours() -> None:
    halves = plain(RED, 96, 96)
    halves[:48] = 0
    sample = look_at(Source(halves), 10)
    # bins of two units from -110 on
    assert np.argwhere(sample.density).tolist() == [
        [55, 55],
        [95, 88],
    ]
    assert sample.density.sum() == pytest.approx(1)
    assert sample.reach == pytest.approx(np.hypot(*RED_LAB[1:]) / 2, abs=1)


def test_every_picture_counts_the_same_in_the_density() -> None:
    sample = look_at(Source(plain(RED, 300, 200), plain((0, 0, 0), 20, 20)), 10)
    assert sorted(sample.density[sample.density > 0]) == pytest.approx([1, 1])


def test_only_evenly_chosen_pictures_are_read() -> None:
    source = Source(*[plain((at, 0, 0)) for at in range(31)])
    sample = look_at(source, 4)
    assert source.asked == [0, 10, 20, 30]
    assert len(sample) == len(sample.shown) == 4
    assert [int(picture[0, 0, 0]) for picture in sample.shown] == [0, 10, 20, 30]


def test_broken_pictures_are_counted() -> None:
    sample = look_at(Source(None, plain(RED), None), 10)
    assert (sample.broken, len(sample)) == (2, 1)
    with pytest.raises(DataError, match="must be readable, got none: broken"):
        look_at(Source(None, None), 10)


def test_of_remote_shards_one_is_fetched() -> None:
    shards = [
        Shard(file=f"https://x/{n}.tar", split="train", pictures=5 + n, bytes=9) for n in range(3)
    ]
    assert list(info_page._choose(ShardSource(shards, "all"), 100)) == [0, 1, 2, 3, 4]
    here = [dataclasses.replace(shard, file="here.tar") for shard in shards]
    assert list(info_page._choose(ShardSource(here, "all"), 100)) == list(range(5 + 6 + 7))


@pytest.mark.parametrize(("count", "most"), [(1, 8), (8, 8), (9, 8), (1000, 7), (5, 1)])
def test_spread_evenly(count: int, most: int) -> None:
    places = list(report.spread_evenly(count, most))
    assert len(places) == len(set(places)) == min(count, most)
    assert places == sorted(places)
    assert places[0] == 0 and places[-1] == (count - 1 if most > 1 else 0)


def test_prepared_set(tmp_path: Path) -> None:
    root = fill(tmp_path / "mine", 8)
    splits = ["train"] * 5 + ["val", "test", "test"]
    rejects = ["", "", "near-duplicate", "gray", "gray", "", "", ""]
    write_manifest(
        root,
        [
            {
                "path": f"{n:03d}.png",
                "width": 100 + n,
                "height": 200,
                "split": splits[n],
                "reject": rejects[n],
            }
            for n in range(8)
        ],
    )
    facts = {
        "gancolor set": 1,
        "name": "mine",
        "title": "My pictures",
        "licence": "CC0",
        "made": "2026-01-02",
    }
    (root / "set.json").write_text(json.dumps(facts | {"sources": ["/a", "/b.zip"]}))
    found = information.describe(str(root))
    assert found.splits == {"train": 2, "val": 1, "test": 2}
    assert found.pictures == 5
    # in the order of the reasons
    assert list(found.rejected.items()) == [
        ("gray", 2),
        ("near-duplicate", 1),
    ]
    assert found.sizes.tolist() == [[100 + n, 200] for n in (0, 1, 5, 6, 7)]
    assert found.weight == sum((root / f"{n:03d}.png").stat().st_size for n in (0, 1, 5, 6, 7))
    text = found.text()
    for words in (
        "mine: My pictures",
        "sources  /a, /b.zip",
        "licence  CC0",
        "made     2026-01-02",
    ):
        assert words in text
    assert "warning: 2 pictures to train on are few" in text


def test_folder_without_manifest(tmp_path: Path) -> None:
    root = fill(tmp_path / "plain", 30)
    found = information.describe(str(root), pictures=6)
    names = folder.find_pictures(root)
    assert found.splits == {split: sum(split_of(n) == split for n in names) for split in SPLITS}
    assert min(found.splits.values()) > 0
    assert found.rejected == {}
    assert (found.sizes == (160, 140)).all() and len(found.sizes) == 6
    assert (found.facts.name, found.facts.licence) == ("plain", "unknown")
    assert "of 6 evenly chosen pictures" in found.text()


@pytest.mark.parametrize(
    "given", [("train", "val"), ("train", "test"), ("train",), ("val", "test")]
)
def test_a_split_that_borrows_has_no_pictures(tmp_path: Path, given: tuple[str, ...]) -> None:
    root = fill(tmp_path / "set", 6)
    write_manifest(
        root, [{"path": f"{n:03d}.png", "split": given[n % len(given)]} for n in range(6)]
    )
    found = information.describe(str(root))
    assert found.splits == {
        s: 6 // len(given) if s in given else 0 for s in ("train", "val", "test")
    }


def test_sizes_of_a_manifest_that_lacks_some_come_from_the_pictures(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", 2)
    write_manifest(root, [{"path": "000.png", "width": 7, "height": 7}, {"path": "001.png"}])
    assert information.describe(str(root)).sizes.tolist() == [[160, 140]] * 2


def test_manifest_that_cannot_be_counted(tmp_path: Path) -> None:
    write_manifest(tmp_path, [{"path": "a", "width": "wide"}])
    with pytest.raises(DataError, match="must be a readable CSV file, got: invalid literal"):
        information.read_manifest(tmp_path)


def test_gray_pictures_are_counted_and_warned_of(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", 10, lambda n: gray(n) if n < 2 else colourful(n))
    found = information.describe(str(root))
    assert found.gray.tolist() == [True] * 2 + [False] * 8
    assert "20 % of the pictures are gray or nearly" in "\n".join(found.warnings)
    assert "gray or nearly  20.0 %" in found.text()


def test_a_set_of_one_tone_is_warned_of(tmp_path: Path) -> None:
    found = information.describe(str(fill(tmp_path / "sepia", 6, sepia)))
    a, b = found.sample.center
    assert b > 10
    assert any(f"lie around one tone (a* {a:.0f}, b* {b:.0f})" in line for line in found.warnings)
    for paint in (colourful, gray):
        other = information.describe(str(fill(tmp_path / paint.__name__, 6, paint))).warnings
        assert not any("one tone" in line for line in other)


def test_nothing_is_warned_of_in_a_good_set(tmp_path: Path) -> None:
    assert (
        information.describe(
            str(fill(tmp_path / "good", 140, lambda n: colourful(n, 128, 128))), pictures=20
        ).warnings
        == ()
    )


def test_small_and_broken_pictures_are_warned_of(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", 4, lambda n: colourful(n, 60, 200))
    (root / "x.jpg").write_bytes(b"no picture")
    warnings = information.describe(str(root)).warnings
    assert any("shorter side below 128 pixels" in line for line in warnings)
    assert any(line.startswith("1 of 5 evenly chosen pictures cannot be read") for line in warnings)


def test_damaged_facts_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", 2)
    (root / "set.json").write_text("{")
    found = information.describe(str(root))
    assert any("set.json cannot be read" in line for line in found.warnings)
    (root / "set.json").write_text("[]")
    assert any("holds no JSON object" in line for line in information.describe(str(root)).warnings)


def test_named_set(tmp_path: Path) -> None:
    fill(tmp_path / "food", 3)
    found = information.describe("food", tmp_path)
    assert found.facts.name == "food"
    assert found.facts.title and "Food-101" in found.facts.licence
    assert found.facts.folder == tmp_path / "food"


def test_shards(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", 30)
    shard_packer.pack(str(root), tmp_path / "packed", shard_pictures=10)
    found = information.describe(str(tmp_path / "packed"))
    assert found.splits == information.describe(str(root)).splits
    assert (found.facts.name, len(found.sizes)) == ("set", 30)
    assert found.weight == sum(path.stat().st_size for path in (tmp_path / "packed").glob("*.tar"))
    one = information.describe(str(tmp_path / "packed" / "0000.tar"))
    assert one.splits == {"train": 10, "val": 0, "test": 0}
    assert one.weight == (tmp_path / "packed" / "0000.tar").stat().st_size


@pytest.mark.slow
def test_painted_set() -> None:
    found = information.describe("still-life", pictures=3)
    assert found.splits == {"train": 4000, "val": 400, "test": 400}
    assert len(found.sizes) == 0 and found.weight == 0
    assert "painted at any size" in found.text()
    assert found.picture().startswith(b"\x89PNG")


@pytest.mark.slow
def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "$x_1$", 9, lambda n: gray(n) if n == 4 else colourful(n))
    (root / "manifest.csv").write_text("path,reject\n000.png,blank\n")
    found = information.describe(str(root))
    page = arrays.decode_rgb(found.picture(), "it")
    assert page.shape[1] == 960
    quiet = dataclasses.replace(found, warnings=())
    monkeypatch.setattr(charts, "to_png", lambda figure, dpi: round(figure.get_figheight() * dpi))
    assert found.picture() == page.shape[0] > quiet.picture()  # warnings are written below
    orange = np.abs(page.astype(int) - (200, 76, 0)).max(axis=2) < 30
    # bars
    assert orange.any() and (np.abs(page.astype(int) - (0, 114, 178)).max(axis=2) < 3).sum() > 1000


@pytest.mark.parametrize(("widest", "scale"), [(700, "linear"), (9000, "log")])
def test_sizes_of_a_wide_range_have_logarithmic_axes(widest: int, scale: str) -> None:
    axes = Figure().add_subplot()
    info_page._draw_sizes(axes, np.array([[100, 150], [widest, 300]]))
    assert axes.get_xscale() == axes.get_yscale() == scale
    low, high = axes.get_xlim()
    assert low < 100 and high > widest and axes.get_ylim() == (low, high)


def test_words_of_the_histogram_cover_all_pictures(tmp_path: Path) -> None:
    lines = information.describe(str(fill(tmp_path / "set", 7))).text().splitlines()
    start = next(
        at
        for at, line in enumerate(lines)
        if line.startswith("colorfulness  ") and line.endswith("%")
    )
    shares = [float(line.split(")")[1].split()[0]) for line in lines[start + 2 : start + 9]]
    assert sum(shares) == pytest.approx(100, abs=0.4)


def test_real_photographs(shared: Path) -> None:
    found = information.describe(str(shared / "data" / "food"), pictures=60)
    assert found.pictures == 1200
    assert 40 < found.sample.colorfulness.mean() < 70
    assert found.warnings == ()
    old = information.describe(str(shared / "data" / "historical"))
    assert old.gray.mean() > 0.8 and any("gray or nearly" in line for line in old.warnings)
