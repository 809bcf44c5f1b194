"""TIFF files: depths, layouts, compressions, alpha, white as 0, floats; each against the array that
was written.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from gancolor.errors import DataError
from gancolor.images import tiff
from gancolor.images.reader import probe, read

RANDOM = np.random.default_rng(0)
EIGHT = RANDOM.integers(0, 256, (37, 53, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (37, 53, 4), dtype=np.uint16)
FLOAT = RANDOM.random((37, 53, 4)).astype(np.float32)


def write(path: Path, pixels: np.ndarray, photometric: str, **options: object) -> Path:
    tifffile.imwrite(path, pixels, photometric=photometric, metadata=None, **options)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.tif"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 5},
        {"compression": "deflate", "predictor": True, "rowsperstrip": 8},
        {"compression": "deflate", "rowsperstrip": 1},
        {"compression": "lzma"},
        {"tile": (16, 32)},
        {"tile": (32, 16), "compression": "deflate", "predictor": True},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "deflate", "predictor": True},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()) or "bare",
)
def test_sixteen_bits_in_all_layouts(path: Path, options: dict[str, object]) -> None:
    rgb = DEEP[..., :3]
    photograph = read(write(path, rgb, "rgb", **options))
    assert photograph.pixels.dtype == np.uint16 and photograph.pixels.flags.c_contiguous
    assert (photograph.pixels == rgb).all() and photograph.alpha is None and photograph.notes == []
    assert probe(path) == (53, 37, "TIFF")
    gray = read(write(path, DEEP[..., 0].copy(), "minisblack", **options)).pixels
    assert gray.shape == (37, 53) and (gray == DEEP[..., 0]).all()


@pytest.mark.parametrize("pixels", [EIGHT, DEEP], ids=["8", "16"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_planes_apart(path: Path, pixels: np.ndarray, compression: str | None) -> None:
    planes = np.moveaxis(pixels[..., :3], 2, 0).copy()
    write(path, planes, "rgb", planarconfig="separate", compression=compression, rowsperstrip=9)
    assert (read(path).pixels == pixels[..., :3]).all()
    write(path, planes, "rgb", planarconfig="separate", compression=compression)
    assert (read(path).pixels == pixels[..., :3]).all()


@pytest.mark.parametrize("pixels", [EIGHT, DEEP, FLOAT], ids=["8", "16", "float"])
def test_alpha(path: Path, pixels: np.ndarray) -> None:
    write(path, pixels, "rgb", extrasamples=["unassalpha"])
    photograph = read(path)
    assert (photograph.pixels == pixels[..., :3]).all() and (
        photograph.alpha == pixels[..., 3]
    ).all()
    write(
        path,
        pixels[..., :2].copy(),
        "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    photograph = read(path)
    assert (photograph.pixels == pixels[..., 0]).all() and (
        photograph.alpha == pixels[..., 1]
    ).all()
    assert photograph.pixels.dtype == photograph.alpha.dtype == pixels.dtype


def test_multiplied_alpha_is_undone(path: Path) -> None:
    alpha = np.array([[0, 13107, 32768, 65535]], np.uint16)
    colors = np.array([[[0, 0, 0], [60000, 5, 0], [60000, 1000, 0], [60000, 1, 0]]], np.uint16)
    multiplied = (colors * (alpha[..., None] / 65535)).round().astype(np.uint16)
    write(path, np.dstack([multiplied, alpha]), "rgb", extrasamples=["assocalpha"])
    photograph = read(path)
    assert (photograph.alpha == alpha).all()
    assert np.abs(photograph.pixels.astype(int) - colors).max() <= 3


def test_extra_channels_are_noted(path: Path) -> None:
    write(path, DEEP, "rgb", extrasamples=["unspecified"])
    photograph = read(path)
    assert (photograph.pixels == DEEP[..., :3]).all() and photograph.alpha is None
    assert photograph.notes == ["1 extra channels left out"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8", "16"])
def test_white_as_zero(path: Path, dtype: type) -> None:
    gray = (DEEP[..., 0] >> (8 if dtype == np.uint8 else 0)).astype(dtype)
    assert (read(write(path, gray, "miniswhite")).pixels == np.iinfo(dtype).max - gray).all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "group4", "packbits"])
def test_one_bit(path: Path, compression: str | None) -> None:
    Image.fromarray(EIGHT[..., 0] > 127).save(path, compression=compression)
    photograph = read(path)
    assert photograph.pixels.dtype == np.uint8
    assert (photograph.pixels == np.where(EIGHT[..., 0] > 127, 255, 0)).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_eight_bits_compressed(path: Path, compression: str) -> None:
    smooth = cv2.resize(EIGHT[:3, :4, :3], (53, 37), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(
        path, compression=compression, **({"quality": 100} if compression == "jpeg" else {})
    )
    error = np.abs(read(path).pixels.astype(int) - smooth)
    assert error.mean() < 2 if compression == "jpeg" else error.max() == 0


def test_compressions_of_libtiff_and_predictors(path: Path) -> None:
    lzw, packbits, none, horizontal, of_floats = 5, 32773, 1, 2, 3
    deep, floats = DEEP[..., :3], FLOAT[..., :3]
    for pixels, compression, predictor in (
        (deep, lzw, horizontal),
        (deep, packbits, none),
        (floats, lzw, of_floats),
        (floats, lzw, horizontal),
    ):
        settings = [
            cv2.IMWRITE_TIFF_COMPRESSION,
            compression,
            cv2.IMWRITE_TIFF_PREDICTOR,
            predictor,
        ]
        cv2.imwrite(str(path), pixels[..., ::-1], settings)
        with tifffile.TiffFile(path) as tiff:
            assert (tiff.pages.first.compression, tiff.pages.first.predictor) == (
                compression,
                predictor,
            )
        found = read(path).pixels
        assert found.dtype == pixels.dtype and (found == pixels).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=["16", "32", "64"])
def test_floats(path: Path, dtype: type) -> None:
    photograph = read(write(path, FLOAT[..., :3].astype(dtype), "rgb"))
    assert photograph.pixels.dtype == np.float32 and photograph.notes == []
    assert (photograph.pixels == FLOAT[..., :3].astype(dtype).astype(np.float32)).all()


def test_floats_beyond_their_range(path: Path) -> None:
    values = np.array([[np.nan, -1.0, 0.5, 2.0], [np.inf, -np.inf, 4.0, 1.0]], np.float32)
    photograph = read(write(path, values, "minisblack"))
    assert photograph.pixels.tolist() == [[0, 0, 0.125, 0.5], [1, 0, 1, 0.25]]
    assert photograph.notes == ["values above 1: the largest, 4, counts as white"]


def test_other_whole_numbers(path: Path) -> None:
    wide = DEEP[..., 0].astype(np.uint32) << 16 | 77
    photograph = read(write(path, wide, "minisblack"))
    assert (photograph.pixels == DEEP[..., 0]).all() and photograph.notes == ["32 bits read as 16"]
    signed = np.array([[-32768, 0, 32767]], np.int16)
    assert read(write(path, signed, "minisblack")).pixels.tolist() == [[0, 32768, 65535]]


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_inks(path: Path, deep: bool) -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 255, 255, 255], [255, 0, 0, 0]]], np.uint8)
    photograph = read(write(path, ink.astype(np.uint16) * 257 if deep else ink, "separated"))
    assert photograph.pixels.tolist() == [[[255, 255, 255], [0, 0, 0], [0, 255, 255]]]
    assert (
        photograph.notes[-1].startswith("CMYK without a colour profile")
        and len(photograph.notes) == 1 + deep
    )


def test_lab(path: Path) -> None:
    Image.frombytes("LAB", (2, 1), bytes((255, 0, 0, 136, 80, 67))).save(path)
    white, red = read(path).pixels[0].astype(int)
    assert white.min() >= 253 and red[0] > 245 and red[1:].max() < 40


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_the_first_of_several_pages(path: Path, deep: bool) -> None:
    pixels = DEEP[..., 0] if deep else EIGHT[..., 0]
    with tifffile.TiffWriter(path) as writer:
        for page in (pixels, 255 - pixels, pixels):
            writer.write(page, photometric="minisblack", metadata=None)
    photograph = read(path)
    assert (photograph.pixels == pixels).all() and photograph.notes == ["the first of 3 pages"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_orientation(path: Path, deep: bool, orientation: int) -> None:
    """The letter F, as EXIF draws it, in a file that holds it turned."""
    upright = np.array([[9, 9, 9], [9, 0, 0], [9, 9, 0], [9, 0, 0]], np.uint8) * 20
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    if deep:
        stored, upright = stored.astype(np.uint16), upright.astype(np.uint16)
    write(
        path, np.ascontiguousarray(stored), "minisblack", extratags=[(274, 3, 1, orientation, True)]
    )
    assert probe(path) == (3, 4, "TIFF")
    photograph = read(path)
    assert photograph.pixels.tolist() == upright.tolist()


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_metadata(path: Path, deep: bool) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[315], tags[700] = "Aunt Erna", "A. Photographer", b"<x:xmpmeta/>"
    tags[0x8769] = {0x9003: "1911:02:03 04:05:06"}
    gray = DEEP[..., 0] if deep else EIGHT[..., 0]
    Image.fromarray(gray).save(path, tiffinfo=tags, dpi=(600, 300))
    found = read(path).metadata
    assert found.xmp == b"<x:xmpmeta/>" and found.dpi == pytest.approx((600, 300))
    exif = Image.Exif()
    exif.load(found.exif)
    assert (exif[270], exif[315]) == ("Aunt Erna", "A. Photographer")
    assert exif.get_ifd(0x8769)[0x9003] == "1911:02:03 04:05:06"
    assert not {256, 257, 273, 279} & set(exif)  # the old file's layout


@pytest.mark.parametrize(
    "options", [{}, {"compression": "deflate"}, {"tile": (16, 16)}, {"rowsperstrip": 4}], ids=str
)
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_cut_off_and_damaged(
    path: Path, deep: bool, options: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    write(path, (DEEP if deep else EIGHT)[..., :3], "rgb", **options)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 800, 9, 6):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"picture must be readable, got .*scan.tif: [^\n]+$"):
            read(path)
    for seed in range(40):  # whatever is in it, it is a picture or an error of one line
        random = np.random.default_rng(seed)
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(0, len(whole), 8)] = random.integers(0, 256, 8)
        damaged[random.integers(0, 200, 2)] = random.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        try:
            read(path, max_pixels=10**6)
        except DataError as error:
            assert "\n" not in str(error)
    os.write(2, b"audible\n")
    assert capfd.readouterr() == ("", "audible\n") and not logging.getLogger("tifffile").disabled


def test_unsupported(path: Path) -> None:
    write(path, DEEP[..., :3], "rgb")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["Compression"].valueoffset
    data[place : place + 2] = (34712).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="TIFF compression 34712 of such samples is not supported"):
        read(path)


def test_twelve_bits_reach_white(path: Path) -> None:
    packed = np.array([[0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00]], np.uint8)  # 0, 4095, 2048, 0
    write(path, packed, "minisblack")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(4)
        tiff.pages.first.tags["BitsPerSample"].overwrite(12)
    assert read(path).pixels.tolist() == [[0, 65535, 32776, 0]]


def test_threads_leave_the_log_as_it_was() -> None:
    logger = logging.getLogger("tifffile")
    first = second = tiff._silenced
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # one thread is done before the other
    assert logger.disabled
    second.__exit__(None, None, None)
    assert not logger.disabled


def test_a_fourth_channel_without_a_name_is_alpha(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bgra = random.integers(0, 65536, (6, 9, 4), np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.tif"), bgra)
    photograph = read(tmp_path / "a.tif")
    assert photograph.alpha is not None and np.array_equal(photograph.alpha, bgra[..., 3])
    assert np.array_equal(photograph.pixels, bgra[..., 2::-1])
    assert photograph.notes == ["the fourth channel has no name: taken for alpha"]
