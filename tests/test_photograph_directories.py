"""TIFF files of several directories: which one is the picture; cameras' raw files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from campaign_pictures import scene

from gancolor.errors import DataError, MissingExtra
from gancolor.images import arrays, formats, reader

RGB = scene()
SMALL = cv2.resize(RGB, (24, 18))
_REDUCED = 1


def tiff(*pages: tuple[np.ndarray, int, int], deep: bool = False) -> bytes:
    """A TIFF file of pages: pixels, NewSubfileType, and how many of the next ones are its
    subdirectories.
    """
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for pixels, kind, inside in pages:
            numbers = pixels.astype(np.uint16) * 257 if deep else pixels
            writer.write(
                numbers,
                photometric="rgb",
                subfiletype=kind,
                subifds=inside,
                metadata=None,
                rowsperstrip=8,
            )
    return buffer.getvalue()


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_a_reduced_first_page_is_not_taken(deep: bool) -> None:
    smaller = "the first page is a reduced copy: the picture itself was taken"
    for data, notes in (
        (tiff((SMALL, _REDUCED, 0), (RGB, 0, 0), deep=deep), [smaller]),
        (
            tiff((SMALL, _REDUCED, 0), (RGB, 0, 0), (RGB, 0, 0), deep=deep),
            ["the first of 2 pages", smaller],
        ),
        (tiff((SMALL, _REDUCED, 1), (RGB, 0, 0), deep=deep), [smaller]),
        (tiff((RGB, 0, 0), (SMALL, _REDUCED, 0), deep=deep), []),
        (tiff((RGB, 0, 1), (SMALL, _REDUCED, 0), deep=deep), []),
        (tiff((RGB, 2, 0), (SMALL, 2, 0), deep=deep), ["the first of 2 pages"]),
    ):
        photograph = reader.decode(data, "a.tif")
        assert photograph.size == (72, 96) and photograph.notes == notes
        assert np.array_equal(arrays.decode_rgb(data, "a.tif"), RGB)
    alone = reader.decode(tiff((SMALL, _REDUCED, 0), deep=deep), "a.tif")
    assert alone.size == (18, 24) and alone.notes == [
        "there is only a reduced copy of the picture in the file"
    ]


def test_the_size_is_that_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff((SMALL, _REDUCED, 0), (RGB, 0, 0)))
    assert reader.probe(tmp_path / "a.tif") == (96, 72, "TIFF")


def dng(rgb: np.ndarray) -> bytes:
    """A raw file as DNG lays it out: a thumbnail, and the mosaic of a camera with sRGB's colours in
    a subdirectory.
    """
    light = (rgb / 255) ** 2.2 * 4095
    mosaic = np.empty(rgb.shape[:2], np.uint16)
    for (row, column), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        mosaic[row::2, column::2] = light[row::2, column::2, channel]
    to_light = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    matrix = [round(number * 10_000) for number in np.linalg.inv(np.array(to_light)).ravel()]
    first = [
        (50706, 1, 4, bytes((1, 4, 0, 0)), True),
        (50708, 2, 0, "Made Camera", True),
        (271, 2, 0, "Made", True),
        (272, 2, 0, "Camera", True),
        (50721, 10, 9, tuple(part for number in matrix for part in (number, 10_000)), True),
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),
        (50778, 3, 1, 21, True),
    ]
    inside = [
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes((0, 1, 1, 2)), True),
        (50717, 4, 1, 4095, True),
    ]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        thumbnail = cv2.resize(rgb, (64, 48))
        writer.write(
            thumbnail, photometric="rgb", subfiletype=1, subifds=1, metadata=None, extratags=first
        )
        writer.write(mosaic, photometric="cfa", subfiletype=0, metadata=None, extratags=inside)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.dng", "a.tif", "a"])
def test_a_raw_file_is_developed(name: str) -> None:
    pytest.importorskip("rawpy")
    rgb = cv2.resize(RGB, (384, 288))
    photograph = reader.decode(dng(rgb), name)
    assert (
        photograph.format == "RAW"
        and photograph.pixels.dtype == np.uint16
        and photograph.size == (288, 384)
    )
    assert any("raw file holds linear light" in note for note in photograph.notes)
    assert np.abs(photograph.pixels[8:-8, 8:-8] / 257 - rgb[8:-8, 8:-8]).mean() < 4
    assert arrays.decode_rgb(dng(rgb), name).shape == (288, 384, 3)


@pytest.mark.parametrize("name", ["a.dng", "a.tif"])
def test_without_the_library_a_raw_file_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(
        MissingExtra, match=r"raw files are not read without rawpy; pip install 'gancolor\[raw\]'"
    ):
        reader.decode(dng(RGB), name)
    with pytest.raises(DataError, match=r"a\.\w+: cameras' raw files are not read without rawpy"):
        arrays.decode_rgb(dng(RGB), name)


@pytest.mark.parametrize("name", ["a.nef", "b.cr2", "c.raf", "d.cr3"])
def test_a_damaged_raw_file(name: str) -> None:
    pytest.importorskip("rawpy")
    head = {"a": b"II*\0\x08\0\0\0", "b": b"II*\0\x10\0\0\0CR\2\0", "c": b"FUJIFILMCCD-RAW "}.get(
        name[0], b""
    )
    head = head or b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"
    assert formats.kind_of(head.ljust(64, b"\0"), name).name == "raw"  # type: ignore[union-attr]
    with pytest.raises(DataError):
        reader.decode(head + bytes(500), name)
