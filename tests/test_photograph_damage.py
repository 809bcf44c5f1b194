"""Damage: what is cut off or broken is found alike by all who read pictures, and what is whole is
not refused.
"""

from __future__ import annotations

import io
from pathlib import Path

import campaign_pictures
import numpy as np
import pytest
from campaign_pictures import pictures, scene
from PIL import Image

from gancolor.data.doctor import examination
from gancolor.errors import DataError
from gancolor.images import arrays, jpeg, reader

MADE = pictures()
END_MISSING = "the end mark of the file is missing, but all pixels are there"


def with_hole(data: bytes) -> bytes:
    """A JPEG file with zeros in the middle of its scan."""
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


@pytest.mark.parametrize(
    "name", ["plain.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg", "restart.jpg"]
)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_its_end_mark_alone_is_whole(name: str, missing: int) -> None:
    whole, cut = MADE[name], MADE[name][:-missing]
    photograph = reader.decode(cut, name)
    assert np.array_equal(photograph.pixels, reader.decode(whole, name).pixels)
    assert END_MISSING in photograph.notes and not photograph.damage
    assert np.array_equal(arrays.decode_rgb(cut, name), arrays.decode_rgb(whole, name))
    assert examination.examine(cut, name).problem == ""


@pytest.mark.parametrize("name", ["plain.jpg", "progressive.jpg", "cmyk.jpg"])
def test_a_jpeg_that_lacks_more_is_cut_off(name: str) -> None:
    for missing in (20, 200, 500):
        for read in (reader.decode, arrays.decode_rgb):
            with pytest.raises(DataError, match="cut off"):
                read(MADE[name][:-missing], name)
        assert "cut off" in examination.examine(MADE[name][:-missing], name).problem


def test_a_progressive_jpeg_cut_between_its_scans_is_cut_off() -> None:
    data = MADE["progressive.jpg"]
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)  # of the last scan
    for cut in (data[:last], data[:tables]):
        assert jpeg.decode(cut + b"\xff\xd9")[1] == ""  # libjpeg sees nothing amiss
        with pytest.raises(DataError, match="the file is cut off"):
            arrays.decode_rgb(cut, "a.jpg")


@pytest.mark.parametrize("name", ["plain.jpg", "cmyk.jpg", "two.mpo.jpg"])
def test_holes_are_said_and_refused_for_training(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (
        with_hole(MADE[name])
        if name != "two.mpo.jpg"
        else with_hole(MADE["plain.jpg"]) + MADE["plain.jpg"]
    )
    photograph = reader.decode(data, name)
    assert photograph.damage.startswith("Corrupt JPEG data")
    assert (
        f"the file is damaged, parts of the picture are made up ({photograph.damage})"
        in photograph.notes
    )
    with pytest.raises(DataError, match=r"the file is damaged \(Corrupt JPEG data"):
        arrays.decode_rgb(data, name)
    assert "the file is damaged (Corrupt JPEG data" in examination.examine(data, name).problem
    assert capfd.readouterr() == ("", "")


def test_a_tiff_file_cut_behind_its_first_page_is_cut_off() -> None:
    data = MADE["multi.tif"]
    for length in (len(data) - 100, len(data) // 2):
        for read in (reader.decode, arrays.decode_rgb):
            with pytest.raises(DataError, match="the file is cut off: a page"):
                read(data[:length], "a.tif")


@pytest.mark.parametrize("name", ["strips.tif", "planes.tif", "tiles.tif", "lzw16.tif", "raw.tif"])
def test_tiff_files_of_which_strips_are_missing(name: str) -> None:
    whole = MADE[name]
    with pytest.raises(DataError):
        arrays.decode_rgb(whole[: len(whole) * 2 // 3], name)
    zeros = bytearray(whole)  # a download that was set aside at full length
    zeros[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    if name in ("tiles.tif", "lzw16.tif"):  # of bare samples nobody can tell
        with pytest.raises(DataError):
            arrays.decode_rgb(bytes(zeros), name)


def test_runs_that_end_too_soon() -> None:
    data = MADE["rle.bmp"]
    assert np.abs(arrays.decode_rgb(data, "a.bmp")[..., 0].astype(int) - scene()[..., 0]).max() < 16
    early = bytearray(data)
    start = int.from_bytes(data[10:14], "little")
    early[start + 100 : start + 102] = b"\0\1"  # the end of the picture
    for read in (reader.decode, arrays.decode_rgb):
        with pytest.raises(DataError):
            read(bytes(early), "a.bmp")


def test_hearing_is_not_confused_by_other_words(capfd: pytest.CaptureFixture[str]) -> None:
    data = MADE["plain.jpg"]
    # some cameras' bytes behind the picture
    assert jpeg.decode(data[:-2] + b"\1\2\3\4" + data[-2:])[1] == ""
    assert jpeg.decode(b"\xff\xd8\xff")[0] is None
    assert capfd.readouterr() == ("", "")


def test_the_rest_of_a_sets_pictures_is_trained_on(tmp_path: Path) -> None:
    from gancolor.data.folder import open_folder

    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(MADE["plain.jpg"])
    (tmp_path / "0.jpg").write_bytes(with_hole(MADE["plain.jpg"]))
    (tmp_path / "notes.gif").write_bytes(MADE["plain.gif"])
    source = open_folder(tmp_path, "all")
    assert len(source) == 9 and source.read(8).shape == (72, 96, 3)
    with pytest.raises(DataError, match="the file is damaged"):
        source.read(0)


def test_the_reason_of_a_header_that_cannot_be_read() -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "BMP")
    with pytest.raises(DataError, match="the file is cut off or damaged"):
        reader.decode(buffer.getvalue()[:30], "a.bmp")


def test_a_list_of_further_pictures_that_is_cut_leaves_the_first() -> None:
    data = bytearray(MADE["two.mpo.jpg"])
    count = data.index(b"\x01\xb0\x04\x00\x01\x00\x00\x00")  # two pictures, say its tags
    data[count + 8] = 9
    photograph = reader.decode(bytes(data), "two.mpo.jpg")
    whole = reader.decode(MADE["two.mpo.jpg"], "two.mpo.jpg")
    assert np.array_equal(photograph.pixels, whole.pixels)


@pytest.mark.slow
def test_a_small_campaign() -> None:
    counts, findings = campaign_pictures.run(90, seed=5)
    assert findings == [] and counts["refused"] > 30 and counts["taken"] > 10


@pytest.mark.slow
def test_a_campaign() -> None:
    counts, findings = campaign_pictures.run(3000, seed=2)
    assert findings == [] and counts["refused"] > 1000 and counts["taken"] > 500
