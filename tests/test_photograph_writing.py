"""Photographs written and read back with other readers: depth, alpha, metadata, limits, and nothing
half-written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from gancolor.errors import ConfigError, DataError
from gancolor.images import png, reader, tiff, writer
from gancolor.images.metadata import Metadata
from gancolor.images.photograph import Photograph
from gancolor.images.writer import FORMATS, target_suffix, write

NOTE = "colorized by gancolor 0.1.0, model 0007-gan-food step 3000"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="wedding"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
DEPTHS: list[type[np.generic]] = [np.uint8, np.uint16, np.float32]


def exif(endian: str = "<") -> bytes:
    block = Image.Exif()
    block.endian = endian
    block[271], block[274] = "Kodak", 1
    block.get_ifd(0x8769)[0x9003] = "1931:05:02 11:00:00"
    block.get_ifd(0x8825)[1] = "N"
    return block.tobytes().removeprefix(b"Exif\0\0")


def pixels(dtype: Any = np.uint8, height: int = 37, width: int = 53, seed: int = 0) -> NDArray[Any]:
    """Smooth on the left, noise on the right: every filter of PNG has its turn."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack((x / width, y / height, (x + y) / (width + height)), axis=2)
    noise = np.random.default_rng(seed).random((height, width, 3))
    mixed = np.where((x > width / 2)[..., None], noise, smooth)
    return (
        mixed.astype(dtype)
        if np.dtype(dtype).kind == "f"
        else (mixed * np.iinfo(dtype).max).astype(dtype)
    )


def photograph(rgb: NDArray[Any], *, alpha: bool = False, **metadata: Any) -> Photograph:
    covered = pixels(rgb.dtype, rgb.shape[0], rgb.shape[1], seed=1)[..., 0] if alpha else None
    return Photograph(pixels=rgb, alpha=covered, metadata=Metadata(**metadata))


def read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read with OpenCV: RGB and alpha at full depth; but TIFF with tifffile, for OpenCV multiplies
    8 bits by alpha.
    """
    if path.suffix == ".tif":
        found: NDArray[Any] | None = tifffile.imread(path)
        assert found is not None
        return found[..., :3], found[..., 3] if found.shape[-1] == 4 else None
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found[..., 2::-1], found[..., 3] if found.shape[2] == 4 else None


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", 0), (".png", 1), (".tif", 0), (".tif", 1), (".tif", 2)]
)
@pytest.mark.parametrize("endian", ["<", ">"])
def test_lossless_formats_hold_every_bit(
    tmp_path: Path, suffix: str, dtype: int, alpha: bool, endian: str
) -> None:
    rgb, path = pixels(DEPTHS[dtype]), tmp_path / f"a{suffix}"
    wanted = photograph(rgb, alpha=alpha, exif=exif(endian))
    assert write(path, rgb, wanted) == []
    found, covered = read(path)
    assert found.dtype == rgb.dtype
    assert np.array_equal(found, rgb)
    assert (covered is not None) == alpha
    assert covered is None or wanted.alpha is None or np.array_equal(covered, wanted.alpha)
    assert np.array_equal(rgb, pixels(DEPTHS[dtype]))  # the caller's own stays


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", DEPTHS)
def test_tiff_is_what_other_readers_take_it_for(tmp_path: Path, dtype: Any, alpha: bool) -> None:
    rgb = pixels(dtype)
    wanted = photograph(rgb, alpha=alpha, dpi=(300.0, 150.5))
    write(tmp_path / "a.tiff", rgb, wanted)
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        page = file.pages.first
        assert np.array_equal(page.asarray()[..., :3], rgb)
        assert wanted.alpha is None or np.array_equal(page.asarray()[..., 3], wanted.alpha)
        assert tuple(page.extrasamples) == ((2,) if alpha else ())  # unassociated
        assert page.tags["XResolution"].value == (300, 1)
        assert page.tags["YResolution"].value == (301, 2)
        assert page.tags["ResolutionUnit"].value == 2
    if dtype == np.uint8:
        with Image.open(tmp_path / "a.tiff") as image:
            assert np.array_equal(np.asarray(image)[..., :3], rgb)
    else:
        found = cv2.imread(str(tmp_path / "a.tiff"), cv2.IMREAD_UNCHANGED)
        assert found is not None and np.array_equal(found[..., 2::-1], rgb)


def test_tiff_of_many_strips_and_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "STRIP", 1000)
    rgb = pixels(np.uint16)
    content = photograph(rgb, alpha=True, exif=exif(), xmp=XMP)
    write(tmp_path / "small.tif", rgb, content)
    monkeypatch.setattr(tiff, "CLASSIC_LIMIT", 0)
    write(tmp_path / "big.tif", rgb, content)
    for name, is_big in (("small.tif", False), ("big.tif", True)):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.is_bigtiff == is_big
            assert len(file.pages.first.dataoffsets) == 19
            assert (
                file.pages.first.tags["ExifTag"].value["DateTimeOriginal"] == "1931:05:02 11:00:00"
            )
            assert file.pages.first.tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert np.array_equal(read(tmp_path / name)[0], rgb)
        found = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert found is not None and np.array_equal(found[..., 2::-1], rgb)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 700), (700, 2)])
@pytest.mark.parametrize("name", FORMATS)
def test_any_size_is_kept(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    rgb = pixels(np.uint8, *size)
    path = tmp_path / f"a{FORMATS[name]}"
    write(path, rgb, photograph(rgb), quality=100)
    found = read(path)[0]
    assert found.shape == rgb.shape
    assert np.abs(found.astype(int) - rgb).max() <= (4 if name == "jpeg" else 0)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "webp"])
def test_metadata_is_kept_and_stamped(tmp_path: Path, name: str, endian: str) -> None:
    rgb, path = pixels(), tmp_path / f"a{FORMATS[name]}"
    content = photograph(rgb, exif=exif(endian), xmp=XMP, dpi=(300.0, 300.0))
    assert write(path, rgb, content, provenance=NOTE) == []
    with Image.open(path) as image:
        found = image.getexif()
        assert (found[271], found[274], found[305]) == ("Kodak", 1, NOTE)
        assert found.get_ifd(0x8769)[0x9003] == "1931:05:02 11:00:00"
        assert found.get_ifd(0x8825)[1] == "N"
        if name == "webp":
            assert (found[282], found[296]) == (300, 2)
        else:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        packet = image.info["xmp"]
        assert (
            b"wedding" in packet and NOTE.encode() in packet and b"compositeWithTrained" in packet
        )
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "webp"])
def test_without_provenance_nothing_is_added(tmp_path: Path, name: str) -> None:
    rgb, path = pixels(), tmp_path / f"a{FORMATS[name]}"
    write(path, rgb, photograph(rgb, xmp=XMP))
    assert b"gancolor" not in path.read_bytes()
    with Image.open(path) as image:
        assert image.info["xmp"] == XMP
        assert 305 not in image.getexif()
    write(path, rgb, photograph(rgb))
    with Image.open(path) as image:
        assert "xmp" not in image.info and "exif" not in image.info


def test_the_same_picture_gives_the_same_file(tmp_path: Path) -> None:
    rgb = pixels()
    for name, suffix in FORMATS.items():
        contents = []
        for _ in range(2):
            writer._srgb_profile.cache_clear()
            write(tmp_path / f"a{suffix}", rgb, photograph(rgb, exif=exif()), provenance=NOTE)
            contents.append((tmp_path / f"a{suffix}").read_bytes())
        assert contents[0] == contents[1], name


def test_jpeg_keeps_the_full_resolution_of_colour(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, ::2, 0] = 255  # stripes of one pixel
    write(tmp_path / "a.jpg", rgb, photograph(rgb), quality=98)
    write(tmp_path / "b.jpg", rgb, photograph(rgb), quality=30)
    assert np.abs(read(tmp_path / "a.jpg")[0].astype(int) - rgb).max() < 12
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size


@pytest.mark.parametrize("large", [0, 10**9])
def test_webp_is_lossless_at_100_and_keeps_alpha(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(writer, "LARGE_WEBP", large)
    rgb = pixels()
    content = photograph(rgb, alpha=True)
    assert content.alpha is not None
    content.alpha[:9] = 0  # what is under it stays as well
    write(tmp_path / "a.webp", rgb, content, quality=100)
    write(tmp_path / "b.webp", rgb, content, quality=60)
    found, covered = read(tmp_path / "a.webp")
    assert np.array_equal(found, rgb)
    assert covered is not None and np.array_equal(covered, content.alpha)
    assert (tmp_path / "b.webp").stat().st_size < (tmp_path / "a.webp").stat().st_size


@pytest.mark.parametrize(
    ("suffix", "dtype", "notes"),
    [
        (".jpg", 0, ["JPEG holds no alpha: left out"]),
        (".jpg", 1, ["JPEG holds no alpha: left out", "JPEG holds 8 bits: 16 bits were rounded"]),
        (".webp", 1, ["WebP holds 8 bits: 16 bits were rounded"]),
        (".png", 2, ["PNG holds 16 bits: floating-point values were rounded"]),
        (".bmp", 0, ["BMP holds no alpha: left out", "BMP holds no metadata: left out"]),
    ],
)
def test_what_a_format_cannot_hold_is_said(
    tmp_path: Path, suffix: str, dtype: int, notes: list[str]
) -> None:
    rgb = pixels(DEPTHS[dtype])
    assert (
        write(
            tmp_path / f"a{suffix}", rgb, photograph(rgb, alpha=True), provenance=NOTE, quality=100
        )
        == notes
    )
    found = read(tmp_path / f"a{suffix}")[0]
    limit = np.iinfo(found.dtype).max
    scale = 1 if dtype == 2 else np.iinfo(DEPTHS[dtype]).max  # type: ignore[type-var]
    tolerance = 4 if suffix == ".jpg" else 0.501
    assert np.abs(found - rgb.astype(np.float64) / scale * limit).max() <= tolerance


def test_an_opaque_alpha_is_not_missed(tmp_path: Path) -> None:
    rgb = pixels()
    content = Photograph(pixels=rgb, alpha=np.full(rgb.shape[:2], 255, np.uint8))
    assert write(tmp_path / "a.jpg", rgb, content) == []


def test_bmp_holds_the_resolution(tmp_path: Path) -> None:
    rgb = pixels()
    assert write(tmp_path / "a.bmp", rgb, photograph(rgb, dpi=(600.0, 600.0))) == []
    with Image.open(tmp_path / "a.bmp") as image:
        assert image.info["dpi"] == pytest.approx((600, 600), abs=0.1)


def test_jpeg_leaves_out_what_is_too_long_but_is_stamped(tmp_path: Path) -> None:
    rgb = pixels()
    block = Image.Exif()
    block[270] = "a" * 64_000
    long = XMP.replace(b"wedding", b"w" * 64_000)
    content = photograph(rgb, exif=block.tobytes(), xmp=long)
    notes = write(tmp_path / "a.jpg", rgb, content, provenance=NOTE)
    assert notes == ["JPEG holds 64 KB of EXIF: left out", "JPEG holds 64 KB of XMP: left out"]
    with Image.open(tmp_path / "a.jpg") as image:
        assert dict(image.getexif()) == {305: NOTE}
        assert NOTE.encode() in image.info["xmp"]
    assert write(tmp_path / "a.png", rgb, content, provenance=NOTE) == []
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[270] == "a" * 64_000


@pytest.mark.parametrize(
    ("suffix", "longest", "title"),
    [(".jpg", 65_500, "JPEG"), (".webp", 16_383, "WebP")],
    ids=["jpeg", "webp"],
)
def test_sides_too_long_for_the_format(
    tmp_path: Path, suffix: str, longest: int, title: str
) -> None:
    rgb = np.zeros((1, longest + 1, 3), np.uint8)
    with pytest.raises(
        DataError, match=f"at most {longest} pixels as {title}, got {longest + 1}x1 .*--format png"
    ):
        write(tmp_path / f"a{suffix}", rgb, photograph(rgb))
    assert os.listdir(tmp_path) == []
    write(tmp_path / f"a{suffix}", rgb[:, :-1], photograph(rgb[:, :-1]))
    assert read(tmp_path / f"a{suffix}")[0].shape == (1, longest, 3)


def test_bmp_beyond_4_gib_is_refused(tmp_path: Path) -> None:
    rgb = np.broadcast_to(np.zeros(3, np.uint8), (40_000, 40_000, 3))
    with pytest.raises(DataError, match="at most 4 GiB as BMP, got 40000x40000 .*--format png"):
        write(tmp_path / "a.bmp", rgb, Photograph(pixels=rgb))


def test_too_long_rows_for_one_strip_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "STRIP", 1)
    rgb = pixels(np.uint16)
    write(tmp_path / "a.png", rgb, photograph(rgb))
    assert np.array_equal(read(tmp_path / "a.png")[0], rgb)


class _Full:
    """A disk with room for some bytes."""

    def __init__(self, stream: Any, room: int, error: BaseException) -> None:
        self.stream, self.room, self.error = stream, room, error

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise self.error
        return int(self.stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()],
    ids=lambda e: repr(e),
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    path, rgb = tmp_path / f"a{FORMATS[name]}", pixels(np.uint8, 100, 100)
    path.write_bytes(b"old")
    whole = writer.written

    @contextlib.contextmanager
    def full(path: Path) -> Iterator[Any]:
        with whole(path) as stream:
            yield _Full(stream, 2000, error)

    monkeypatch.setattr(writer, "written", full)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError
    with pytest.raises(expected) as caught:
        write(path, rgb, photograph(rgb))
    if isinstance(error, OSError):
        assert str(caught.value) == f"picture must be writable, got {path}: No space left on device"
        assert caught.value.__cause__ is error
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_size_limit_met_by_the_real_system(tmp_path: Path, name: str) -> None:
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    rgb = pixels(np.uint8, 300, 300)
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(DataError, match="picture must be writable, got .*: File too large"):
            write(tmp_path / f"a{FORMATS[name]}", rgb, photograph(rgb))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    rgb = pixels()
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="picture must be writable, got .*: Not a directory"):
        write(tmp_path / "file" / "a" / "b.png", rgb, photograph(rgb))
    with pytest.raises(DataError, match="picture must be writable, got .*: Is a directory"):
        write(tmp_path / "folder.png", rgb, photograph(rgb))
    with pytest.raises(DataError, match="File name too long"):
        write(tmp_path / ("a" * 300 + ".png"), rgb, photograph(rgb))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_no_permission(tmp_path: Path) -> None:
    rgb = pixels()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            write(tmp_path / "a.png", rgb, photograph(rgb))
    finally:
        tmp_path.chmod(0o700)


def test_no_permission_said_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    rgb = pixels()
    with pytest.raises(DataError, match="picture must be writable, got .*a.png: Permission denied"):
        write(tmp_path / "a.png", rgb, photograph(rgb))


def test_names_of_every_kind_and_missing_folders(tmp_path: Path) -> None:
    rgb = pixels()
    for name in ("a b.png", "-rf.png", "할머니.png", "line\nbreak.png"):
        path = tmp_path / "new folder" / "deep" / name
        write(path, rgb, photograph(rgb))
        assert np.array_equal(np.asarray(Image.open(path)), rgb)
    with pytest.raises(DataError, match=r"line\\nbreak.xyz") as caught:
        write(tmp_path / "line\nbreak.xyz", rgb, photograph(rgb))
    assert "\n" not in str(caught.value)


def test_format_wins_over_the_suffix(tmp_path: Path) -> None:
    rgb = pixels()
    write(tmp_path / "a.xyz", rgb, photograph(rgb), format="tiff")
    with Image.open(tmp_path / "a.xyz") as image:
        assert image.format == "TIFF"


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    rgb = pixels()
    with pytest.raises(
        ConfigError,
        match="format must be one of jpeg png tiff webp bmp, got heic; give another --format",
    ):
        write(tmp_path / "a.png", rgb, photograph(rgb), format="heic")
    with pytest.raises(ConfigError, match="quality must be in 1 to 100, got 0"):
        write(tmp_path / "a.png", rgb, photograph(rgb), quality=0)
    with pytest.raises(DataError, match="suffix of a picture must be one of .*; rename the output"):
        write(tmp_path / "a.heic", rgb, photograph(rgb))
    with pytest.raises(ValueError, match="picture must be"):
        write(tmp_path / "a.png", rgb.astype(np.float64), photograph(rgb))
    with pytest.raises(ValueError, match="alpha must be"):
        write(tmp_path / "a.png", rgb, Photograph(pixels=rgb, alpha=np.zeros((2, 2), np.uint8)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "format", "suffix"),
    [
        (".JPG", None, ".JPG"),
        (".jpeg", "jpeg", ".jpeg"),
        (".jpg", "png", ".png"),
        (".tiff", None, ".tiff"),
        (".png", "tiff", ".tif"),
        (".heic", None, ".png"),
        (".heic", "jpeg", ".jpg"),
        (".gif", None, ".png"),
        ("", None, ".png"),
        ("JPEG", None, ".jpg"),
        ("HEIC", None, ".png"),
        ("TIFF", "TIFF", ".tif"),
    ],
)
def test_suffix_of_the_output(source: str, format: str | None, suffix: str) -> None:
    assert target_suffix(source, format) == suffix
    assert suffix.lower() in (*FORMATS.values(), ".jpeg", ".tiff")


def test_what_is_no_number_becomes_black(tmp_path: Path) -> None:
    rgb = pixels(np.float32)
    rgb[0, 0] = (np.nan, np.inf, -1)
    write(tmp_path / "a.png", rgb, photograph(rgb))
    assert read(tmp_path / "a.png")[0][0, 0].tolist() == [0, 65535, 0]


def test_texts_of_png_files_are_kept_in_png_and_said_elsewhere(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Title", "Market")
    info.add_text("Author", "Zoë Müller", zip=True)
    info.add_itxt("Copyright", "été 青", "fr", "droits")
    info.add_text("Comment", "a comment")
    info.add_text("Raw profile type exif", "old")
    info.add_text("Thumb::MTime", "17")
    Image.fromarray(pixels()).save(tmp_path / "a.png", pnginfo=info)
    found = reader.read(tmp_path / "a.png")
    assert [text.keyword for text in found.metadata.texts] == ["Title", "Author", "Copyright"]
    assert write(tmp_path / "b.png", found.pixels, found) == []
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        told = {key: str(image.info[key]) for key in ("Title", "Author", "Copyright", "Comment")}  # type: ignore[index]
    assert told == {
        "Title": "Market",
        "Author": "Zoë Müller",
        "Copyright": "été 青",
        "Comment": "a comment",
    }
    assert reader.read(tmp_path / "b.png").metadata.texts == found.metadata.texts
    for suffix, title in ((".jpg", "JPEG"), (".tif", "TIFF"), (".webp", "WebP")):
        notes = write(tmp_path / f"c{suffix}", found.pixels, found)
        assert notes == [
            f"{title} holds no texts of PNG files (Title, Author, Copyright): left out"
        ]
    deep = Photograph(pixels=pixels(np.uint16), metadata=found.metadata)
    write(tmp_path / "deep.png", deep.pixels, deep)
    assert reader.read(tmp_path / "deep.png").metadata.texts == found.metadata.texts


@pytest.mark.parametrize("alpha", [False, True])
def test_webp_without_loss_stays_so(alpha: bool, tmp_path: Path) -> None:
    rgb = pixels()
    original = np.dstack((rgb, pixels(seed=3)[..., 0])) if alpha else rgb
    Image.fromarray(original).save(tmp_path / "a.webp", lossless=True, exact=True)
    found = reader.read(tmp_path / "a.webp")
    assert found.lossless and np.array_equal(found.pixels, rgb)
    write(tmp_path / "b.webp", found.pixels, found)
    again = reader.read(tmp_path / "b.webp")
    assert again.lossless and np.array_equal(again.pixels, rgb)
    Image.fromarray(original).save(tmp_path / "c.webp", quality=95)
    assert not reader.read(tmp_path / "c.webp").lossless


def test_suffixes_of_jpeg_files_that_are_not_written() -> None:
    assert target_suffix(".mpo") == target_suffix(".JIF") == ".jpg"
    assert [target_suffix(suffix) for suffix in (".psd", ".jp2", ".nef", ".hif", ".tga")] == [
        ".png"
    ] * 5
