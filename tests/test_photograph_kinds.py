"""The table of kinds, and pictures of all kinds read by what they are."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from campaign_pictures import pictures, psd, scene
from PIL import Image

from gancolor.data.doctor import examination
from gancolor.errors import DataError
from gancolor.images import arrays, formats, reader
from gancolor.images.formats import by_suffix, is_excluded, is_litter, kind_of, passed_over
from gancolor.runtime import files

RGB = scene()
MADE = pictures()
TITLES = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000", "ppm": "PNM", "pgm": "PNM"}


@pytest.mark.parametrize("name", MADE)
def test_every_kind_is_told_by_its_content_and_read_alike(name: str) -> None:
    suffix = name.rpartition(".")[2]
    title = TITLES.get(suffix, suffix.upper())
    photograph = reader.decode(MADE[name], "picture" if suffix != "tga" else name)
    assert photograph.format == title == by_suffix(name).title and not photograph.damage  # type: ignore[union-attr]
    turned = name.startswith("told")  # by its EXIF orientation
    assert photograph.size == ((96, 72) if turned else (72, 96))
    rgb = arrays.decode_rgb(MADE[name], name)
    found = examination.examine(MADE[name], name)
    assert (found.height, found.width, found.problem) == (*photograph.size, "") and rgb.shape == (
        *photograph.size,
        3,
    )
    if photograph.pixels.ndim == 3 and "palette" not in name and suffix not in ("gif", "bmp"):
        expected = np.rot90(RGB, -1) if turned else RGB
        assert np.abs(rgb.astype(int) - expected).mean() < 8 or name == "colors.png"
    assert photograph.pixels.dtype == {
        "deep": np.uint16,
        "float": np.float32,
        "planes": np.uint16,
        "lzw16": np.uint16,
    }.get(name.partition(".")[0], np.uint8)


@pytest.mark.parametrize("top", [1023, 65535])
def test_deep_pnm_is_scaled_to_sixteen_bits(top: int) -> None:
    numbers = (RGB.astype(np.int64) * top + 127) // 255
    for data, expected in (
        (b"P6\n96 72\n%d\n" % top + numbers.astype(">u2").tobytes(), numbers),
        (
            b"P5\n# a word\n96 72\n%d\n" % top + numbers[..., 0].astype(">u2").tobytes(),
            numbers[..., 0],
        ),
    ):
        found = reader.decode(data, "a").pixels
        assert found.dtype == np.uint16 and np.abs(found - expected * 65535 / top).max() <= 1


def test_ten_bits_of_avif_are_kept() -> None:
    deep = np.repeat(np.arange(64, 960, 14, dtype=np.uint16)[None], 64, axis=0)
    deep = np.repeat(deep[..., None], 3, axis=2)
    good, data = cv2.imencode(
        ".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100]
    )
    assert good
    photograph = reader.decode(data.tobytes(), "a.avif")
    assert photograph.pixels.dtype == np.uint16 and np.unique(photograph.pixels).size > 60
    assert np.abs(photograph.pixels / 65535 - deep / 1023).max() < 0.004


def test_photoshop_files_are_their_flattened_picture() -> None:
    photograph = reader.decode(psd(RGB), "a.psd")
    assert np.array_equal(photograph.pixels, RGB) and photograph.format == "PSD"
    with pytest.raises(DataError, match="without its flattened picture is not supported"):
        reader.decode(psd(RGB, flattened=False), "a.psd")


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("a.psb", b"8BPS\0\2", "PSB files"),
        ("a.jxl", b"\xff\x0a", "JPEG XL files"),
        ("a.exr", b"v/1\1", "OpenEXR files"),
        ("a.hdr", b"#?RADIANCE\n", "Radiance HDR files"),
        ("a.pfm", b"PF\n9 9\n-1\n", "PFM files"),
        ("a.pdf", b"%PDF-1.7", "PDF files"),
        ("a.xcf", b"gimp xcf v011", "GIMP files"),
        ("a.ico", b"\0\0\1\0\1\0", "icon files"),
    ],
)
def test_other_kinds_are_refused_by_name(name: str, head: bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        reader.decode(head + bytes(200), name)
    assert words in str(caught.value) and "are not read; convert it" in str(caught.value)
    assert "damaged" not in str(caught.value) and not by_suffix(name).readable  # type: ignore[union-attr]


def hand_made_tiff(strip: bytes, compression: int, *, fill: int = 1, bits: int = 8) -> bytes:
    """A TIFF file of 72 x 96 RGB pixels in one strip."""
    numbers = {
        256: 96,
        257: 72,
        259: compression,
        262: 2,
        266: fill,
        273: 8,
        277: 3,
        278: 72,
        279: len(strip),
    }
    start = 8 + len(strip) + len(strip) % 2
    triple = start + 2 + 12 * (len(numbers) + 1) + 4
    entries = [(tag, 4, 1, value) for tag, value in numbers.items()] + [(258, 3, 3, triple)]
    directory = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
    body = b"II*\0" + struct.pack("<L", start) + strip.ljust(start - 8, b"\0")
    return (
        body
        + struct.pack("<H", len(entries))
        + directory
        + bytes(4)
        + struct.pack("<3H", bits, bits, bits)
    )


def test_what_is_not_supported_is_not_called_damaged() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "WEBP", lossless=True)
    bmp = struct.pack("<LLLHHLLLLLL", 40, 4, 4, 1, 64, 0, 0, 0, 0, 0, 0)
    masks = struct.pack("<4L", 0xF00, 0xF0, 0xF, 0xF000)
    small = struct.pack("<LllHHLLLLLL", 108, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0) + masks + bytes(52)
    cases = {
        "webp.tif": hand_made_tiff(buffer.getvalue(), 50001),
        "other.tif": hand_made_tiff(bytes(100), 34892),
        "float.bmp": b"BM" + struct.pack("<LHHL", 182, 0, 0, 54) + bmp + bytes(128),
        "4444.bmp": b"BM" + struct.pack("<LHHL", 154, 0, 0, 122) + small + bytes(32),
    }
    for name, data in cases.items():
        for read in (reader.decode, arrays.decode_rgb):
            with pytest.raises(DataError, match="not supported") as caught:
                read(data, name)
            assert "damaged" not in str(caught.value), name
        assert "not supported" in examination.examine(data, name).problem


@pytest.mark.parametrize("bits", [8, 16])
def test_bits_the_other_way_round(bits: int) -> None:
    numbers = RGB if bits == 8 else RGB.astype("<u2") * 257
    mirrored = numbers.tobytes().translate(
        bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
    )
    assert np.array_equal(
        arrays.decode_rgb(hand_made_tiff(mirrored, 1, fill=2, bits=bits), "a.tif"), RGB
    )


def test_few_bytes_tell_nothing_against_the_suffix() -> None:
    assert kind_of(b"P5\n4 4\n255\n").name == "pnm"  # type: ignore[union-attr]
    assert kind_of(b"P5\n4 4\n255\n", "a.txt").name == "pnm"  # type: ignore[union-attr]
    assert kind_of(b"P5 is a name", "a.txt") is None and kind_of(b"PNG is a format") is None
    assert (
        kind_of(b"\0\0\1\0", "a.jpg") is None
        and kind_of(b"BM, dear diary") is None
        and kind_of(b"") is None
    )
    assert kind_of(b"II*\0" + bytes(60), "a.NEF").name == "raw"  # type: ignore[union-attr]
    assert kind_of(b"II*\0\x10\0\0\0CR\2\0" + bytes(52)).name == "raw"  # type: ignore[union-attr]
    assert kind_of(b"II*\0" + bytes(60), "a.tif").name == "tiff"  # type: ignore[union-attr]
    heads = {name: kind_of(data[:64], name) for name, data in MADE.items()}
    assert all(kind is not None and kind.readable for kind in heads.values())


def test_each_suffix_belongs_to_one_kind() -> None:
    suffixes = [suffix for kind in formats.KINDS.values() for suffix in kind.suffixes]
    assert len(suffixes) == len(set(suffixes)) and all(
        suffix == suffix.lower() for suffix in suffixes
    )


def test_words_for_what_was_passed_over() -> None:
    assert passed_over({".txt": 1, ".psd": 3, "": 2}) == "3 .psd, 2 without a suffix, 1 .txt"
    assert passed_over({".\x1b[2J": 1}) == "1 '.\\x1b[2J'"
    assert passed_over({f".{number:02}": 1 for number in range(14)}).endswith(
        "1 .11, 2 of other suffixes"
    )


def test_litter_and_patterns() -> None:
    assert all(
        map(is_litter, ("@eaDir", "Thumbs.db", "._a.jpg", "#recycle", "SYNOPHOTO_THUMB_M.jpg"))
    )
    assert not any(map(is_litter, ("a.jpg", "thumbs", "eaDir", ".hidden.jpg")))
    assert is_excluded("a/private/b.jpg", ["private"]) and is_excluded(
        "a/b-thumb.jpg", ["*-thumb.*"]
    )
    assert (
        is_excluded("a/b.jpg", ["a/*"])
        and not is_excluded("a/b.jpg", ["b", "*.png"])
        and not is_excluded("a", [])
    )


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        for read in (reader.read, arrays.read_rgb, files.read_regular):
            with pytest.raises((DataError, ValueError), match="not a regular file"):
                read(tmp_path / name)
        assert files.read_head(tmp_path / name, 10) == b""
    (tmp_path / "long").write_bytes(bytes(3 << 20))
    with pytest.raises(ValueError, match="it has more than 2 MiB"):
        files.read_regular(tmp_path / "long", 2 << 20)
    assert len(files.read_regular(tmp_path / "long", 3 << 20)) == 3 << 20


def test_pixels_are_counted_before_they_are_decoded() -> None:
    bomb = bytearray(MADE["bit.png"])
    bomb[16:24] = struct.pack(">LL", 31_000, 31_000)
    bomb[29:33] = struct.pack(">L", zlib.crc32(bomb[12:29]))
    large = bytearray(MADE["plain.jpg"])
    place = large.index(b"\xff\xc0") + 5
    large[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    for data in (bytes(bomb), bytes(large)):
        with pytest.raises(DataError, match="pixels, more than 250 megapixels"):
            arrays.decode_rgb(data, "a")
        assert "more than 250 megapixels" in examination.examine(data, "a").problem
