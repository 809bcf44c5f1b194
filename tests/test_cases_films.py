"""Films that broke something once, in ../shared/cases: what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import test_film

from gancolor.batch.input_files import expand
from gancolor.video.decoding import FilmReader
from gancolor.video.encoding import Encoding
from gancolor.video.film import FilmResult
from gancolor.video.planes import rescaled
from gancolor.video.probe import probe


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("there is no ../shared/cases")
    return shared / "cases"


def color(source: Path, target: Path, **settings: Any) -> FilmResult:
    return test_film.run(source, target, **settings)


@pytest.mark.parametrize("name", ["VTS_01_1.VOB", "00001.MTS"])
def test_films_of_discs_and_cameras(name: str, cases: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / name).symlink_to(cases / name)
    for given in (tmp_path / "old", cases / name):
        (item,) = expand([str(given)], tmp_path / "new")
        assert item.film and item.problem is None and item.target.suffix == ".mkv"
    result = color(cases / name, tmp_path / "out.mkv")
    before, after = test_film.show(cases / name), test_film.show(tmp_path / "out.mkv")
    assert result.frames == len(before.luma) and np.array_equal(before.luma, after.luma)
    assert probe(tmp_path / "out.mkv").audio == probe(cases / name).audio


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "flac"), (".mp4", "aac")])
def test_sound_that_few_containers_hold(
    suffix: str, codec: str, cases: Path, tmp_path: Path
) -> None:
    source, target = cases / "sound_nellymoser.flv", tmp_path / f"out{suffix}"
    result = color(source, target, encoding=Encoding("libx264"))
    with av.open(str(target)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == [codec]
    assert [note.split(":")[0] for note in result.notes] == [
        f"sound stream 0 (nellymoser) encoded anew as {codec}"
    ]


@pytest.mark.parametrize(
    ("name", "suffix", "codec", "kept"),
    [
        ("alpha_qtrle.mov", ".mov", "prores_ks", True),
        ("alpha_qtrle.mov", ".mkv", "ffv1", True),
        ("alpha_qtrle.mov", ".mov", "libx264", False),
        ("alpha_vp9.webm", ".webm", "libvpx-vp9", True),
        ("alpha_vp9.webm", ".mkv", "libx264", False),
    ],
)
def test_alpha(name: str, suffix: str, codec: str, kept: bool, cases: Path, tmp_path: Path) -> None:
    result = color(cases / name, tmp_path / f"out{suffix}", encoding=Encoding(codec))
    assert any(note.startswith("alpha left out") for note in result.notes) != kept
    with (
        FilmReader(cases / name, alpha=True) as before,
        FilmReader(tmp_path / f"out{suffix}", alpha=True) as after,
    ):
        pairs = list(zip(before, after, strict=True))
    bits = after.info.depth
    for one, other in pairs:
        assert one.alpha is not None and (other.alpha is not None) == kept
        if other.alpha is not None:
            alpha = rescaled(other.alpha, bits, 8, full_range=True)
            assert np.abs(one.alpha.astype(int) - alpha).mean() < 2


def test_place_and_date_of_a_phone(cases: Path, tmp_path: Path) -> None:
    source = cases / "phone_with_place_and_date.mov"
    color(source, tmp_path / "out.mov", encoding=Encoding("libx264"))
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mov")) as after:
        keys = {
            key: value for key, value in before.metadata.items() if key.startswith("com.apple.")
        }
        assert len(keys) == 2 and keys.items() <= after.metadata.items()
