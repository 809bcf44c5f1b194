"""The list of pictures behind an evaluation, and what is said of it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor import presets
from gancolor.config import TrainConfig
from gancolor.data.dataset import open_source
from gancolor.data.folder import FolderSource
from gancolor.data.shard_packer import pack
from gancolor.data.source import Split
from gancolor.errors import DataError
from gancolor.evaluation import protocol
from gancolor.evaluation.protocol import Squares
from gancolor.images import arrays


def source_of(folder: Path) -> FolderSource:
    return FolderSource(
        folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    )


def make_gray(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        rgb = arrays.read_rgb(path)
        arrays.write_rgb(
            path, np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        )


def runs(**configs: TrainConfig) -> Any:
    return {name: SimpleNamespace(config=config) for name, config in configs.items()}


def config_of(dataset: object, **changes: Any) -> TrainConfig:
    return presets.build("regression", dataset=str(dataset), image_size=32, **changes)


def test_squares_are_cut_at_full_size_and_resized(pictures: Path) -> None:
    source = source_of(pictures)
    squares = list(Squares(source, 32, "crop", None))
    assert [square.name for square in squares] == source.paths
    for index in (0, 9):
        rgb = source.read(index)  # 60 x 80
        assert np.array_equal(squares[index].full, rgb[:, 10:70])
        assert np.array_equal(
            squares[index].truth, arrays.resize(np.ascontiguousarray(rgb[:, 10:70]), 32)
        )
    stretched = next(iter(Squares(source, 32, "stretch", None)))
    assert stretched.full.shape == (60, 60, 3) and not np.array_equal(
        stretched.truth, squares[0].truth
    )


def test_hash_is_of_names_and_pixels(pictures: Path) -> None:
    def digest(source: FolderSource, size: int = 32, fit: str = "crop") -> str:
        listed = Squares(source, size, fit, None)
        assert len(list(listed)) == len(source)
        return listed.digest

    source = source_of(pictures)
    first = digest(source)
    assert len(first) == 64 and digest(source) == first
    others = {
        digest(source, 40),
        digest(source, fit="stretch"),
        digest(FolderSource(pictures, source.paths[::-1])),
    }
    (pictures / source.paths[0]).rename(pictures / "renamed.png")
    others.add(digest(FolderSource(pictures, ["renamed.png", *source.paths[1:]])))
    rgb: NDArray[np.uint8] = arrays.read_rgb(pictures / "renamed.png")
    (pictures / "renamed.png").rename(pictures / source.paths[0])
    rgb[20:40, 30:50] ^= 4
    arrays.write_rgb(pictures / "changed.png", rgb)
    (pictures / "changed.png").rename(pictures / source.paths[0])
    others.add(digest(source))
    assert len(others) == 5 and first not in others


def test_broken_pictures_are_left_out_and_named(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(pictures)
    (pictures / source.paths[3]).write_bytes(b"no picture")
    listed = Squares(source, 32, "crop", None)
    with caplog.at_level(logging.WARNING, "gancolor"):
        names = [square.name for square in listed]
    assert names == [name for name in source.paths if name != source.paths[3]]
    assert len(listed.broken) == 1 and source.paths[3] in listed.broken[0]
    assert source.paths[3] in caplog.text


def test_only_broken_pictures_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="got 1 broken"):
        list(Squares(FolderSource(tmp_path, ["a.jpg"]), 32, "crop", None))


def test_limit_spreads_evenly(pictures: Path) -> None:
    source = source_of(pictures)
    assert Squares(source, 32, "crop", 6).indices == [0, 4, 8, 12, 16, 20]
    assert Squares(source, 32, "crop", 100).indices == list(range(24))


def test_color_is_looked_for_until_it_is_found(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, colour = (
        source_of(pictures),
        arrays.read_rgb(source_of(pictures).root / source_of(pictures).paths[0]),
    )
    make_gray(pictures)
    assert not Squares(source, 32, "crop", None).has_color()
    (pictures / source.paths[1]).write_bytes(b"no picture")
    arrays.write_rgb(pictures / "colour.png", colour)
    (pictures / "colour.png").rename(pictures / source.paths[2])
    read: list[int] = []
    whole = FolderSource.read
    monkeypatch.setattr(
        FolderSource, "read", lambda self, index: (read.append(index), whole(self, index))[1]
    )
    assert Squares(source, 32, "crop", None).has_color()
    assert read == [0, 1, 2]


def test_small_and_gray_pictures_are_said(pictures: Path) -> None:
    source = source_of(pictures)
    gray = np.full((40, 40, 3), 90, np.uint8)
    arrays.write_rgb(pictures / "gray.png", gray)
    listed = Squares(FolderSource(pictures, [*source.paths[:3], "gray.png"]), 48, "crop", None)
    assert len(list(listed)) == 4
    small, pale = listed.notes(True)
    assert small.startswith("1 of 4 pictures are smaller than 48") and pale.startswith(
        "1 of 4 pictures are themselves"
    )
    assert len(listed.notes(False)) == 1


def test_a_borrowed_split_is_said(pictures: Path) -> None:
    few = pictures / "few"
    few.mkdir()
    for number in (1, 2):
        arrays.write_rgb(
            few / f"{number}.png", arrays.read_rgb(pictures / source_of(pictures).paths[number])
        )
    handlers = list(logging.getLogger("gancolor").handlers)
    own, said = protocol.open_listed(str(few), "all", None, 0, 32)
    assert len(own) == 2 and said == []
    opened = {
        split: protocol.open_listed(str(few), split, None, 0, 32) for split in ("val", "test")
    }
    words = [" ".join(said) for _, said in opened.values()]
    assert any("uses those of" in said for said in words)
    logger = logging.getLogger("gancolor")
    assert not logger.filters and logger.handlers == handlers  # nobody listens any longer


def test_pictures_that_a_run_was_trained_on_are_said(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(pictures)
    splits = {split: open_source(str(pictures), split) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    said = {}
    for split, source in [*splits.items(), ("all", open_source(str(pictures), "all"))]:
        listed = Squares(source, 32, "crop", None)
        assert list(listed)
        said[split] = protocol.notes_on_seen(listed, runs(mine=config), None)
    trained, chosen = len(splits["train"]), len(splits["val"])
    assert said["test"] == []
    assert said["train"] == [f"mine was trained on {trained} of these {trained} pictures"]
    assert (
        len(said["val"]) == 1
        and f"{chosen} of these {chosen} pictures are of the split" in said["val"][0]
    )
    assert len(said["all"]) == 2 and f"was trained on {trained} of these 24" in said["all"][0]
    assert "say little of new pictures" in caplog.text


def test_runs_of_other_pictures_have_seen_none(pictures: Path, tmp_path: Path) -> None:
    listed = Squares(open_source(str(pictures), "all"), 32, "crop", None)
    assert list(listed)
    painted = config_of("still-life")
    gone = config_of(tmp_path / "gone")
    notes = protocol.notes_on_seen(listed, runs(painted=painted, gone=gone), None)
    assert (
        len(notes) == 1
        and notes[0].startswith("gone: its training pictures")
        and "not known" in notes[0]
    )


def test_pictures_are_known_again_in_a_set_that_only_names_them(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(pictures)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    trained = open_source(str(pictures), "train")
    rows = "".join(f"{tmp_path}/link/{trained.name(place)},test\n" for place in range(5))
    (prepared / "manifest.csv").write_text(f"path,split\n{rows}")
    listed = Squares(open_source(str(prepared), "test"), 32, "crop", None)
    assert len(list(listed)) == 5
    notes = protocol.notes_on_seen(listed, runs(mine=config_of(pictures)), None)
    assert notes == ["mine was trained on 5 of these 5 pictures"]


@pytest.fixture
def packs(pictures: Path, tmp_path: Path) -> dict[str, Path]:
    """The pictures packed twice in different ways, and a part of them as others write shards."""
    found = {"one": tmp_path / "one", "two": tmp_path / "two", "theirs": tmp_path / "theirs"}
    pack(str(pictures), found["one"], shard_pictures=4)
    pack(str(pictures), found["two"], shard_pictures=5)
    found["theirs"].mkdir()
    for name in ("0000.tar", "0001.tar"):
        (found["theirs"] / name).write_bytes((found["one"] / name).read_bytes())
    return found


def seen(dataset: object, split: Split, config: TrainConfig) -> list[str]:
    limit = 3 if dataset == "still-life" else None  # painting them all takes long
    listed = Squares(open_source(str(dataset), split), 32, "crop", limit)
    assert list(listed)
    return protocol.notes_on_seen(listed, runs(mine=config), None)


def test_pictures_in_shards_are_known_again_in_all_splits(
    pictures: Path, packs: dict[str, Path]
) -> None:
    trained, chosen = (len(open_source(str(packs["one"]), split)) for split in ("train", "val"))
    config = config_of(packs["one"])
    assert seen(packs["one"], "train", config) == [
        f"mine was trained on {trained} of these {trained} pictures"
    ]
    assert seen(packs["one"], "test", config) == []
    notes = seen(packs["one"], "all", config)
    assert (
        notes[0] == f"mine was trained on {trained} of these 24 pictures"
        and f"{chosen} of these 24" in notes[1]
    )
    part = config_of(f"{packs['one']}/{{0000..0001}}.tar")
    assert seen(packs["one"], "all", part)[0] == "mine was trained on 8 of these 24 pictures"
    theirs = config_of(f"{packs['theirs']}/{{0000..0001}}.tar")
    assert "mine was trained on" in seen(packs["theirs"] / "0000.tar", "all", theirs)[0]


def test_whether_pictures_were_seen_in_other_shards_is_not_known(
    pictures: Path, packs: dict[str, Path]
) -> None:
    whole = f"{packs['theirs']}/{{0000..0001}}.tar"
    pairs: list[tuple[object, object]] = [
        *((pictures, packs["one"]), (packs["one"], pictures)),
        *((packs["one"], packs["two"]), (packs["one"], "still-life")),
        *((packs["theirs"] / "0000.tar", whole), (packs["one"], whole)),
    ]
    for trained, evaluated in pairs:
        (note,) = seen(evaluated, "test", config_of(trained))
        assert "not of the same shards; whether it has seen these pictures is not known" in note


def test_named_sets_are_found_where_they_were_and_where_they_are(
    pictures: Path, tmp_path: Path
) -> None:
    listed = Squares(open_source(str(pictures), "all"), 32, "crop", None)
    assert list(listed)
    for own, given in ((pictures.parent, tmp_path / "other"), (tmp_path / "gone", pictures.parent)):
        config = config_of("pictures", datasets_root=str(own))
        assert "was trained on" in protocol.notes_on_seen(listed, runs(mine=config), given)[0]
    assert "not known" in protocol.notes_on_seen(listed, runs(mine=config), None)[0]


def test_generated_pictures_are_told_apart_by_their_seed() -> None:
    source, _ = protocol.open_listed("still-life", "train", None, 3, 32)
    listed = Squares(source, 32, "crop", 4)
    assert len(list(listed)) == 4
    notes = protocol.notes_on_seen(
        listed, runs(same=config_of("still-life", seed=3), other=config_of("still-life")), None
    )
    assert notes == ["same was trained on 4 of these 4 pictures"]
