"""Copies of kept pictures: their size, orientation, colours, and that they are whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from scenes import file, scene

from gancolor.data.doctor import examination
from gancolor.data.doctor.copies import copy_one
from gancolor.data.doctor.examination import to_jpeg
from gancolor.errors import DataError
from gancolor.images import arrays

SCENE = scene(0)


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def header(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def psnr(
    left: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    right: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> float:
    return float(10 * np.log10(255**2 / np.square(left.astype(float) - right).mean()))


def test_a_copy_is_reduced_and_described(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "é" / "a.png.jpg"
    copied = copy_one(file(SCENE, "PNG"), "png", target, 96)
    assert (copied.width, copied.height) == (128, 96)
    assert copied.sha256 == hashlib.sha256(target.read_bytes()).digest()
    assert copied.colorfulness == examination.examine(target.read_bytes(), "a.jpg").colorfulness
    assert psnr(arrays.read_rgb(target), arrays.resize(SCENE, (96, 128))) > 35
    assert os.listdir(target.parent) == ["a.png.jpg"]


def test_a_copy_has_all_its_colours(tmp_path: Path) -> None:
    copy_one(file(SCENE, "PNG"), "png", tmp_path / "a.jpg", 96)
    found = header(tmp_path / "a.jpg")
    assert found.format == "JPEG" and found.mode == "RGB"
    assert [layer[1:3] for layer in found.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert "icc_profile" not in found.info and "exif" not in found.info


def test_large_jpegs(tmp_path: Path) -> None:
    rgb = arrays.resize(SCENE, (1536, 2048))
    copied = copy_one(file(rgb), "jpeg", tmp_path / "a.jpg", 100)
    assert (copied.width, copied.height) == (133, 100)
    assert psnr(arrays.read_rgb(tmp_path / "a.jpg"), arrays.resize(rgb, (100, 133))) > 30


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(format: str, tmp_path: Path) -> None:
    data = file(np.ascontiguousarray(np.rot90(SCENE)), format, exif=with_orientation(6), quality=95)
    copied = copy_one(data, format.lower(), tmp_path / "a.jpg", 500)
    assert (copied.width, copied.height) == (256, 192)
    assert psnr(arrays.read_rgb(tmp_path / "a.jpg"), SCENE) > 25
    assert header(tmp_path / "a.jpg").getexif().get(274, 1) == 1


def test_profiles_are_applied(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    stream = io.BytesIO()
    converted = ImageCms.applyTransform(Image.fromarray(SCENE), to_lab)
    assert converted is not None
    converted.save(stream, "TIFF")
    copy_one(stream.getvalue(), "tiff", tmp_path / "a.jpg", 500)
    assert psnr(arrays.read_rgb(tmp_path / "a.jpg"), SCENE) > 25


def test_cmyk_alpha_and_sixteen_bits(tmp_path: Path) -> None:
    for mode, format in (("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("RGB", "AVIF")):
        stream = io.BytesIO()
        Image.fromarray(SCENE).convert(mode).save(stream, format)
        target = tmp_path / f"{mode}.jpg"
        copied = copy_one(
            stream.getvalue(), examination.kind_of(stream.getvalue()[:16]), target, 96
        )
        assert (copied.width, copied.height) == (128, 96)
        assert header(target).mode == "RGB"
        assert psnr(arrays.read_rgb(target), arrays.resize(SCENE, (96, 128))) > 25, mode


def test_a_plain_small_jpeg_stays_as_it_is(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (
        file(SCENE, quality=40),
        file(SCENE, exif=with_orientation(1)),
        file(SCENE, icc_profile=srgb),
    ):
        assert to_jpeg(data, "jpeg", 192) == data
        copied = copy_one(data, "jpeg", tmp_path / "a.jpg", 192)
        assert (tmp_path / "a.jpg").read_bytes() == data
        assert (copied.width, copied.height) == (256, 192)


@pytest.mark.parametrize(
    "data",
    [file(SCENE, exif=with_orientation(3)), file(SCENE[..., 0]), file(arrays.resize(SCENE, 200))],
    ids=["turned", "gray", "large"],
)
def test_other_jpegs_are_written_anew(data: bytes) -> None:
    copy = to_jpeg(data, "jpeg", 192)
    assert copy != data
    assert to_jpeg(copy, "jpeg", 192) == copy


def test_nothing_is_enlarged(tmp_path: Path) -> None:
    copied = copy_one(file(SCENE, "BMP"), "bmp", tmp_path / "a.jpg", 1000)
    assert (copied.width, copied.height) == (256, 192)


def test_without_a_size_the_bytes_stay(tmp_path: Path) -> None:
    data = file(arrays.resize(SCENE, (300, 600)), "WEBP")
    copied = copy_one(data, "webp", tmp_path / "a.webp", None)
    assert (tmp_path / "a.webp").read_bytes() == data
    assert (copied.sha256, copied.width, copied.height) == (hashlib.sha256(data).digest(), 600, 300)


@pytest.mark.parametrize("resize", [None, 96])
def test_broken_pictures_leave_nothing(resize: int | None, tmp_path: Path) -> None:
    data = file(SCENE)
    with pytest.raises(DataError, match="cut off"):
        copy_one(data[: len(data) // 2], "jpeg", tmp_path / "a.jpg", resize)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.jpg"
    copy_one(file(SCENE), "jpeg", target, 96)
    before = target.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        DataError, match="file must be writable, got .*a.jpg: No space left on device"
    ):
        copy_one(file(scene(1)), "jpeg", target, 96)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.jpg"]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(DataError, match="file must be writable"):
        copy_one(file(SCENE), "jpeg", tmp_path / "a.jpg", 96)
    assert os.listdir(tmp_path) == ["a.jpg"]
