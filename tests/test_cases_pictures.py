"""Pictures that broke something once, from the shared folder: what is right is done with each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gancolor import color
from gancolor.data.doctor import examination
from gancolor.errors import DataError
from gancolor.images import arrays, reader, writer

FOLDER = (
    Path(os.environ.get("GANCOLOR_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    / "cases"
)

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"needs the shared cases; there is no {FOLDER}"
)


def problems(name: str) -> dict[str, str]:
    """What is said against a file in training, by `prepare`, and when it is coloured; "" for
    nothing.
    """

    def of(read: Callable[[Path], Any]) -> str:
        try:
            read(FOLDER / name)
            return ""
        except DataError as error:
            return str(error)

    examined = examination.examine((FOLDER / name).read_bytes(), name)
    return {"training": of(arrays.read_rgb), "prepare": examined.problem, "sample": of(reader.read)}


@pytest.mark.parametrize(
    "name", ["accepted1111_lzw16.tif", "accepted4209_rle.bmp", "cut50_multi.tif"]
)
def test_damaged_files_are_refused_by_all(name: str) -> None:
    assert all(problems(name).values())


def test_a_damaged_jpeg_is_coloured_with_a_note_only() -> None:
    said = problems("jpegdamage2197_mpo.jpg")
    assert not said["sample"] and "damaged" in said["training"] and "damaged" in said["prepare"]
    photograph = reader.read(FOLDER / "jpegdamage2197_mpo.jpg")
    assert photograph.damage and any(
        "parts of the picture are made up" in note for note in photograph.notes
    )


def test_a_missing_end_mark_is_said() -> None:
    assert not any(problems("last_two_bytes_missing.jpg").values())
    notes = reader.read(FOLDER / "last_two_bytes_missing.jpg").notes
    assert notes == ["the end mark of the file is missing, but all pixels are there"]


def test_what_is_not_supported_is_not_called_damaged() -> None:
    for words in problems("valid_4444.bmp").values():
        assert "not supported" in words and "damaged" not in words


def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "develop", lambda _: pytest.fail("it must not be decoded"))
    said = problems("bomb31000_1bit.png")
    assert "31000x31000 pixels, more than 250 megapixels" in said["training"]
    assert (
        "more than 250 megapixels" in said["prepare"]
        and "at most 500 megapixels, got 961" in said["sample"]
    )


def test_gamma_is_obeyed() -> None:
    import torch

    rgb = torch.from_numpy(arrays.read_rgb(FOLDER / "gamma_1.0.png")).permute(2, 0, 1)[None]
    lightness, _ = color.split(rgb)
    # as it is, it would be 31
    assert 50 * (lightness.mean().item() + 1) == pytest.approx(56.6, abs=0.2)


def test_ten_bits_are_kept(tmp_path: Path) -> None:
    photograph = reader.read(FOLDER / "ten_bits.avif")
    assert photograph.pixels.dtype == np.uint16
    target = tmp_path / f"a{writer.target_suffix('.avif')}"
    rgb = (
        photograph.pixels
        if photograph.pixels.ndim == 3
        else np.repeat(photograph.pixels[..., None], 3, axis=2)
    )
    writer.write(target, rgb, photograph)
    assert target.suffix == ".png" and reader.read(target).pixels.dtype == np.uint16


def test_webp_without_loss_stays_so(tmp_path: Path) -> None:
    photograph = reader.read(FOLDER / "lossless.webp")
    writer.write(tmp_path / "a.webp", photograph.pixels, photograph)
    assert np.array_equal(reader.read(tmp_path / "a.webp").pixels, photograph.pixels)


def test_promises_of_a_gain_map_are_taken_out_and_said(tmp_path: Path) -> None:
    photograph = reader.read(FOLDER / "ultra_hdr.jpg")
    notes = writer.write(tmp_path / "a.jpg", photograph.pixels, photograph)
    assert "the gain map of an Ultra HDR picture was left out" in notes
    written = reader.read(tmp_path / "a.jpg").metadata.xmp or b""
    assert b"hdrgm:Version" not in written and b"Container:Directory" not in written


def test_control_characters_are_shown_escaped() -> None:
    notes = reader.read(FOLDER / "icc_escape.png").notes
    assert notes and all(note.isprintable() for note in notes)


def test_the_control_works() -> None:
    assert not any(problems("plain.jpg").values()) and reader.read(FOLDER / "plain.jpg").notes == []
