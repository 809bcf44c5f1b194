"""Captions of old scans: IPTC and comments read, carried over, read back by others; damage is told,
never fatal.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, IptcImagePlugin, PngImagePlugin, TiffImagePlugin
from scans import DEEP, RGB, SMOOTH, chunk, png

from gancolor.images import captions, reader
from gancolor.images.metadata import Metadata, refresh
from gancolor.images.photograph import Photograph
from gancolor.images.writer import write

CAPTION = "할머니, Incheon 1931".encode()
COMMENT = "Scanned by Håkan".encode()


def dataset(number: int, data: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, 2, number, len(data)) + data


RECORD = dataset(120, CAPTION) + dataset(80, b"Kim")


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    head = bytes([len(name)]) + name
    padded = head + bytes(len(head) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + padded
        + struct.pack(">L", len(data))
        + data
        + bytes(len(data) % 2)
    )


THUMBNAIL = resource(1036, b"\xff\xd8gray picture\xff\xd9")
COPYRIGHT = resource(1034, b"\1", b"mark")
BLOCK = THUMBNAIL + resource(1028, RECORD) + COPYRIGHT
KEPT = resource(1028, RECORD) + COPYRIGHT


def app13(*pieces: bytes) -> bytes:
    marked = (b"Photoshop 3.0\0" + piece for piece in pieces)
    return b"".join(b"\xff\xed" + struct.pack(">H", 2 + len(piece)) + piece for piece in marked)


def jpeg(path: Path, *pieces: bytes, **options: Any) -> Path:
    Image.fromarray(SMOOTH).save(path, extra=app13(*pieces), **options)
    return path


def tiff(
    path: Path, pixels: np.ndarray[Any, Any], *tags: tuple[int, int, int, bytes], **options: Any
) -> Path:
    extra = [(tag, kind, count, value, True) for tag, kind, count, value in tags]
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, extratags=extra, **options)
    return path


def converted(source: Path, target: Path) -> list[str]:
    """Read and write as colouring does; returns all notes."""
    photograph = reader.read(source)
    pixels = photograph.pixels
    colored = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return photograph.notes + write(target, colored, photograph)


def iptc_of(path: Path) -> bytes | None:
    with Image.open(path) as image:
        found = IptcImagePlugin.getiptcinfo(image)
    caption = found.get((2, 120)) if found else None
    assert caption is None or isinstance(caption, bytes)
    return caption


def photograph(**metadata: Any) -> Photograph:
    return Photograph(pixels=RGB, metadata=Metadata(**metadata))


def test_a_jpeg_keeps_caption_and_comment_but_not_the_gray_thumbnail(tmp_path: Path) -> None:
    source, target = jpeg(tmp_path / "a.jpg", BLOCK, comment=COMMENT), tmp_path / "b.jpg"
    assert reader.read(source).metadata.iptc == BLOCK
    assert converted(source, target) == []
    assert iptc_of(target) == CAPTION
    with Image.open(target) as image:
        assert image.info["photoshop"] == {1028: RECORD, 1034: b"\1"}
        assert image.info["comment"] == COMMENT
    assert b"gray picture" in source.read_bytes() and b"gray picture" not in target.read_bytes()


@pytest.mark.parametrize("pixels", [RGB, DEEP[..., :3].copy()], ids=["8", "16"])
@pytest.mark.parametrize(
    "options", [{"byteorder": "<"}, {"byteorder": ">"}, {"byteorder": ">", "bigtiff": True}]
)
@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_a_tiff_keeps_its_caption(
    tmp_path: Path, pixels: Any, options: dict[str, Any], suffix: str
) -> None:
    old = resource(1028, dataset(120, b"an older record"))
    resources = THUMBNAIL + old + COPYRIGHT
    tags = (
        (captions.RECORD_TAG, 7, len(RECORD), RECORD),
        (captions.RESOURCES_TAG, 1, len(resources), resources),
    )
    source, target = tiff(tmp_path / "a.tif", pixels, *tags, **options), tmp_path / f"b{suffix}"
    notes = converted(source, target)
    assert not [note for note in notes if "IPTC" in note]
    assert iptc_of(target) == CAPTION
    if suffix == ".tif":
        with tifffile.TiffFile(target) as file:
            assert bytes(file.pages.first.tags[captions.RECORD_TAG].value) == RECORD
        with Image.open(target) as image:
            assert isinstance(image, TiffImagePlugin.TiffImageFile)
            assert image.tag_v2[captions.RESOURCES_TAG] == KEPT
        assert cv2.imread(str(target), cv2.IMREAD_UNCHANGED) is not None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_record_that_calls_itself_numbers(tmp_path: Path, order: str, swapped: bool) -> None:
    padded = RECORD + bytes(-len(RECORD) % 4)
    data = (
        b"".join(padded[place : place + 4][::-1] for place in range(0, len(padded), 4))
        if swapped
        else padded
    )
    tag = (captions.RECORD_TAG, 4, len(data) // 4, data)
    source = tiff(tmp_path / "a.tif", RGB, tag, byteorder=order)
    assert converted(source, tmp_path / "b.jpg") == []
    assert iptc_of(tmp_path / "b.jpg") == CAPTION


def test_more_than_a_segment_holds_is_divided(tmp_path: Path) -> None:
    # Of a resource that is too long itself the second segment holds the rest.
    long = resource(1050, bytes(range(256)) * 400)
    many = b"".join(resource(2000 + number, bytes([number]) * 30_001) for number in range(5))
    content = photograph(iptc=KEPT + long + many)
    assert write(tmp_path / "a.jpg", RGB, content) == []
    found = reader.read(tmp_path / "a.jpg").metadata.iptc
    assert found == content.metadata.iptc
    with Image.open(tmp_path / "a.jpg") as image:
        assert sum(name == "APP13" for name, _ in image.applist) == 6  # type: ignore[attr-defined]
        assert image.info["photoshop"][2004] == b"\4" * 30_001  # whole ones stay in one piece
    assert iptc_of(tmp_path / "a.jpg") == CAPTION


def test_segments_without_padding_are_joined(tmp_path: Path) -> None:
    odd = resource(1028, RECORD + dataset(25, b"odd" if len(RECORD) % 2 else b"even")).rstrip(b"\0")
    assert len(odd) % 2
    source = jpeg(tmp_path / "a.jpg", odd, COPYRIGHT)
    assert converted(source, tmp_path / "b.jpg") == []
    with Image.open(tmp_path / "b.jpg") as image:
        assert set(image.info["photoshop"]) == {1028, 1034}


@pytest.mark.parametrize(
    ("block", "kept", "note"),
    [
        (KEPT + BLOCK[:20], KEPT, ["IPTC was damaged: part of it left out"]),
        (KEPT + b"8BIM", KEPT, ["IPTC was damaged: part of it left out"]),
        (KEPT + b"8BIM\4\4\0\0\0", KEPT, ["IPTC was damaged: part of it left out"]),
        (
            resource(1028, RECORD[:-1]) + COPYRIGHT,
            resource(1028, dataset(120, CAPTION)) + COPYRIGHT,
            None,
        ),
        (resource(1028, b"\x1c\2"), None, ["IPTC was damaged: left out"]),
        (resource(1028, b"nothing of IPTC"), None, ["IPTC was damaged: left out"]),
        (b"\xff" * 99, None, ["IPTC was damaged: left out"]),
        (KEPT + bytes(7), KEPT, []),
        (KEPT + resource(1028, RECORD), KEPT, []),
        (THUMBNAIL, None, []),
        (resource(1028, RECORD + b"\0\0"), resource(1028, RECORD + b"\0\0"), []),
        (
            resource(1028, b"\x1c\2\x78\x80\4\0\0\0\5hello"),
            resource(1028, b"\x1c\2\x78\x80\4\0\0\0\5hello"),
            [],
        ),
    ],
)
def test_of_damaged_blocks_what_is_whole_is_kept(
    block: bytes, kept: bytes | None, note: list[str] | None
) -> None:
    metadata, notes = refresh(Metadata(iptc=block), 24, 32)
    assert metadata.iptc == kept
    assert notes == (["IPTC was damaged: part of it left out"] if note is None else note)


def test_any_damage_leaves_a_picture(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        block = bytearray(BLOCK)
        for place in random.integers(0, len(block), 3):
            block[place] = random.integers(0, 256)
        cleaned, _ = captions.refreshed(bytes(block[: random.integers(1, len(block) + 1)]))
        assert cleaned is None or captions.refreshed(cleaned) == (cleaned, False)
    jpeg(tmp_path / "a.jpg", b"8BIM\4\4\0\0\xff\xff\xff\xff")
    assert converted(tmp_path / "a.jpg", tmp_path / "b.jpg") == ["IPTC was damaged: left out"]


@pytest.mark.parametrize("pixels", [RGB, DEEP[..., :3].copy()], ids=["8", "16"])
def test_a_tag_that_points_out_of_its_file(tmp_path: Path, pixels: Any) -> None:
    source = tiff(tmp_path / "a.tif", pixels, (captions.RECORD_TAG, 7, len(RECORD), RECORD))
    data = source.read_bytes()
    place = data.index(struct.pack("<HHL", captions.RECORD_TAG, 7, len(RECORD)))
    source.write_bytes(data[: place + 8] + struct.pack("<L", len(data) + 5) + data[place + 12 :])
    assert converted(source, tmp_path / "b.tif") == ["the IPTC block is damaged: left out"]
    assert iptc_of(tmp_path / "b.tif") is None


@pytest.mark.parametrize(
    ("suffix", "notes"),
    [
        (".png", ["PNG holds no IPTC captions: left out"]),
        (".webp", ["WebP holds no IPTC captions: left out"]),
        (".bmp", ["BMP holds no metadata: left out"]),
        (".tif", []),
        (".jpg", []),
    ],
)
def test_what_a_format_cannot_hold_is_said_once(
    tmp_path: Path, suffix: str, notes: list[str]
) -> None:
    target = tmp_path / f"a{suffix}"
    assert write(target, RGB, photograph(iptc=KEPT, comment=COMMENT)) == notes
    with Image.open(target) as image:
        if suffix == ".png":
            assert image.info["Comment"] == COMMENT.decode()
        elif suffix == ".jpg":
            assert image.info["comment"] == COMMENT
        elif suffix != ".bmp":
            assert image.getexif()[270].encode("latin-1") == COMMENT  # as Pillow takes it


def test_a_comment_gives_way_to_a_description(tmp_path: Path) -> None:
    block = Image.Exif()
    block[270] = "Wedding"
    for comment, notes in (
        (COMMENT, ["WebP holds no IPTC captions and one description, so no comment: left out"]),
        (b"Wedding\0", ["WebP holds no IPTC captions: left out"]),
    ):
        content = photograph(exif=block.tobytes(), comment=comment, iptc=KEPT)
        assert write(tmp_path / "a.webp", RGB, content) == notes
        with Image.open(tmp_path / "a.webp") as image:
            assert image.getexif()[270] == "Wedding"


def test_a_comment_too_long_for_jpeg(tmp_path: Path) -> None:
    assert write(tmp_path / "a.jpg", RGB, photograph(comment=b"a" * 65_533)) == []
    assert reader.read(tmp_path / "a.jpg").metadata.comment == b"a" * 65_533
    notes = write(tmp_path / "a.jpg", RGB, photograph(comment=b"a" * 65_534))
    assert notes == ["JPEG holds 64 KB of comment: left out"]
    assert reader.read(tmp_path / "a.jpg").metadata.comment is None


@pytest.mark.parametrize(
    "kind", ["gif", "tEXt", "iTXt", "deep", "deep and late", "deep and late iTXt"]
)
def test_comments_of_gif_and_png_arrive_in_png(tmp_path: Path, kind: str) -> None:
    source, late = tmp_path / "a.png", chunk(b"tEXt", b"Comment\0Summer 1931")
    if kind == "gif":
        source = tmp_path / "a.gif"
        Image.fromarray(RGB[..., 0]).save(source, comment=b"Summer 1931")
    elif kind.startswith("deep"):
        if kind.endswith("iTXt"):
            late = chunk(b"iTXt", b"Comment\0\0\0\0\0Summer 1931")
        source.write_bytes(
            png(DEEP[..., :3], 2, b"" if "late" in kind else late, late if "late" in kind else b"")
        )
    else:
        texts = PngImagePlugin.PngInfo()
        (texts.add_text if kind == "tEXt" else texts.add_itxt)("Comment", "Summer 1931")
        Image.fromarray(RGB).save(source, pnginfo=texts)
    assert converted(source, tmp_path / "b.png") == []
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["Comment"] == "Summer 1931"


def test_comments_of_unknown_encoding_are_text(tmp_path: Path) -> None:
    assert captions.text("Håkan".encode("latin-1")) == "Håkan" == captions.text("Håkan\0".encode())
    source = jpeg(tmp_path / "a.jpg", comment="Håkan".encode("latin-1"))
    converted(source, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["Comment"] == "Håkan"


def test_several_comments_are_joined(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "a.jpg", comment=b"first")
    data = source.read_bytes()
    more = b"".join(
        b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text
        for text in (b"second", b"first", b"\0")
    )
    source.write_bytes(data[:2] + more + data[2:])
    assert reader.read(source).metadata.comment == b"second\nfirst"


def test_the_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def fsync(number: int) -> None:
        if stat.S_ISREG(os.fstat(number).st_mode):  # else it is the folder's turn
            assert not (tmp_path / "a.png").exists()
            sizes.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "a.png", RGB, photograph())
    assert sizes == [(tmp_path / "a.png").stat().st_size]
