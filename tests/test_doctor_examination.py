"""One picture: formats, damage, statistics, hashes, and what is said against it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from scenes import SEPIA, file, gray, scene

from gancolor import metrics
from gancolor.data.doctor import examination
from gancolor.data.doctor.examination import MIRROR, Findings, examine
from gancolor.data.doctor.judge import judge
from gancolor.data.doctor.rules import Rules
from gancolor.errors import DataError
from gancolor.images import arrays, reader
from gancolor.images.formats import KINDS

RULES = Rules()
SCENE = scene(0)
GOOD = examine(file(SCENE), "a.jpg")


def verdict(data: bytes, name: str = "a.jpg", resized: bool = False, rules: Rules = RULES) -> str:
    return judge(examine(data, name), name, rules, resized)


def bits(left: int, right: int) -> int:
    return (left ^ right).bit_count()


def likeness(left: bytes, right: bytes) -> float:
    return float(np.corrcoef(np.frombuffer(left, np.uint8), np.frombuffer(right, np.uint8))[0, 1])


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_formats_are_told_by_content(format: str) -> None:
    data = file(SCENE, format)
    found = examine(data, "no-suffix")
    assert found.kind == format.lower() == examination.kind_of(data[:16])
    assert (found.width, found.height, found.problem) == (256, 192, "")
    assert found.sha256 == hashlib.sha256(data).digest()
    assert found.chroma == pytest.approx(GOOD.chroma, rel=0.1)
    assert bits(found.hash, GOOD.hash) <= 4


def test_colorfulness_is_that_of_metrics() -> None:
    smooth = cv2.resize(np.random.default_rng(1).integers(0, 255, (4, 4, 3), np.uint8), (96, 96))
    rgb = torch.from_numpy(smooth).permute(2, 0, 1)[None] / 255
    assert examine(file(smooth, "PNG"), "a.png").colorfulness == pytest.approx(
        metrics.colorfulness(rgb).item(), rel=1e-5
    )


def test_statistics_hold_at_any_size() -> None:
    large = examine(file(arrays.resize(SCENE, (1536, 2048))), "a.jpg")
    assert (large.width, large.height) == (2048, 1536)
    for name in ("colorfulness", "chroma", "contrast"):
        assert getattr(large, name) == pytest.approx(getattr(GOOD, name), rel=0.02), name
    assert bits(large.hash, GOOD.hash) <= 2
    assert likeness(large.signature, GOOD.signature) > 0.999


@pytest.mark.parametrize("side", [100, 800])  # decoded as a whole, and reduced
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied(side: int, orientation: int) -> None:
    rgb = arrays.resize(SCENE, (side, side * 2))
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # counterclockwise, from upright to stored
    stored = np.ascontiguousarray(np.rot90(rgb, turns))
    found = examine(file(stored, exif=with_orientation(orientation)), "a.jpg")
    assert (found.width, found.height) == (side * 2, side)
    assert bits(found.hash, examine(file(rgb), "a.jpg").hash) <= 3


def test_profiles_are_applied() -> None:
    # Red and blue exchanged by the profile: what is stored as blue means red.
    exchanged = _exchanging_profile()
    plain = examine(file(SCENE), "a.jpg")
    meant = examine(file(SCENE[..., ::-1], icc_profile=exchanged), "a.jpg")
    ignored = examine(file(SCENE[..., ::-1]), "a.jpg")
    assert meant.colorfulness == pytest.approx(plain.colorfulness, rel=0.02)
    assert likeness(ignored.signature, plain.signature) < 0.97
    assert likeness(meant.signature, plain.signature) > 0.999


def _exchanging_profile() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):
        name = bytes(data[entry : entry + 4])
        data[entry : entry + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(data)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits(suffix: str) -> None:
    _, data = cv2.imencode(suffix, SCENE[..., ::-1].astype(np.uint16) * 257)
    found = examine(data.tobytes(), f"a{suffix}")
    assert (found.width, found.height, found.problem) == (256, 192, "")
    assert found.colorfulness == pytest.approx(GOOD.colorfulness, rel=0.02)
    assert judge(found, f"a{suffix}", RULES, False) == ""


def test_cmyk() -> None:
    data = _cmyk()
    found = examine(data, "a.jpg")
    assert (found.width, found.height, found.problem) == (256, 192, "")
    assert found.chroma == pytest.approx(GOOD.chroma, rel=0.1)


def _cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(SCENE).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.98])
def test_cut_files_are_broken(format: str, share: float) -> None:
    data = file(SCENE, format)
    found = examine(data[: int(len(data) * share)], "a")
    assert (
        found.problem and "\n" not in found.problem and tempfile.gettempdir() not in found.problem
    )
    assert (found.width, found.height, found.signature) == (0, 0, b"")
    assert judge(found, f"a{KINDS[format.lower()].suffixes[0]}", RULES, True) == "broken"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 3000,
        b"no picture at all",
        b"BM is how this begins",
        b"\xff\xd8\xff",
        b"<html></html>",
    ],
)
def test_other_files_are_broken(data: bytes) -> None:
    found = examine(data, "a.jpg")
    assert found.problem and found.width == 0
    assert judge(found, "a.jpg", RULES, False) == "broken"


@pytest.mark.parametrize("side", [100, 800])
def test_holes_in_a_jpeg_are_heard(side: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(file(arrays.resize(SCENE, side)))
    data[len(data) // 2 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 2)
    buffer = np.frombuffer(bytes(data), np.uint8)
    assert cv2.imdecode(buffer, cv2.IMREAD_COLOR).shape == (side, side, 3)  # OpenCV itself takes it
    with pytest.raises(DataError, match="the file is damaged"):
        arrays.decode_rgb(bytes(data), "it")
    capfd.readouterr()
    found = examine(bytes(data), "a.jpg")
    assert found.problem == "the file is damaged (Corrupt JPEG data: premature end of data segment)"
    assert verdict(bytes(data)) == "broken"
    assert capfd.readouterr().err == ""


def test_bytes_behind_the_picture_are_no_damage() -> None:
    data = file(SCENE)
    assert verdict(data + b"some camera's own") == ""
    assert verdict(data[:-2] + b"\1\2\3\4" + data[-2:]) == ""


def test_bombs_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "develop", lambda *_: pytest.fail("it must not be decoded"))
    found = examine(_huge_png(100_000), "a.png")
    assert found.problem == "it has 100000x100000 pixels, more than 250 megapixels"
    assert judge(found, "a.png", RULES, False) == "broken"


def _huge_png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_findings_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(GOOD)) == GOOD


def test_worker_processes_do_not_load_torch() -> None:
    code = "import sys; import gancolor.data.doctor.copies; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


# What is said against a picture.


def test_a_colour_picture_is_good() -> None:
    assert [verdict(file(scene(seed))) for seed in range(8)] == [""] * 8


def with_colour_noise(rgb: np.ndarray[Any, Any]) -> bytes:
    return file(gray(rgb) + np.random.default_rng(2).normal(0, 8, rgb.shape), quality=75)


def with_stamp(rgb: np.ndarray[Any, Any]) -> bytes:
    stamped = gray(rgb)
    stamped[170:182, 190:245] = (255, 140, 0)  # a date
    return file(stamped)


GRAYS: dict[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    "compressed": lambda rgb: file(gray(rgb), quality=30),
    "of one channel": lambda rgb: file(gray(rgb)[..., 0]),
    "colour noise": with_colour_noise,
    "yellowish scan": lambda rgb: file(gray(rgb) + np.array((4, 0, -4))),
    "coloured stamp": with_stamp,
    "one twentieth of its colours": lambda rgb: file(gray(rgb) * 0.95 + rgb * 0.05),
}


@pytest.mark.parametrize("change", GRAYS)
def test_gray_is_found(change: str) -> None:
    assert [verdict(GRAYS[change](scene(seed))) for seed in range(8)] == ["gray"] * 8


TONES: dict[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    "sepia": lambda rgb: file(rgb @ SEPIA.T, quality=90),
    "cream paper": lambda rgb: file(gray(rgb) * np.array((1, 0.96, 0.8))),
    "cyanotype": lambda rgb: file(
        np.array((0, 20, 60)) + gray(rgb) / 255 * np.array((230, 225, 190)), quality=85
    ),
    "red": lambda rgb: file(gray(rgb) * np.array((1, 0.2, 0.1))),
}


@pytest.mark.parametrize("change", TONES)
def test_single_tones_are_found(change: str) -> None:
    found = [verdict(TONES[change](arrays.resize(scene(seed), (384, 512)))) for seed in range(8)]
    assert found == ["single-tone"] * 8


def test_two_colours_that_follow_lightness_are_no_single_tone() -> None:
    ramp = np.linspace(0, 1, 256)[None, :, None] * np.ones((192, 1, 1))
    sand_and_sky = (1 - ramp) * np.array((150, 110, 60)) + ramp * np.array((150, 190, 250))
    assert verdict(file(sand_and_sky)) == ""


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 30, 60)])
@pytest.mark.parametrize("noise", [0, 6])
def test_blank_is_found(color: tuple[int, int, int], noise: int) -> None:
    rgb = np.full((192, 256, 3), color) + np.random.default_rng(3).normal(0, noise, (192, 256, 3))
    assert verdict(file(rgb, quality=60)) == "blank"


@pytest.mark.parametrize(
    ("height", "width", "reason"),
    [
        (63, 100, "small"),
        (64, 100, ""),
        (100, 401, "shape"),
        (400, 100, ""),
        (100, 63, "small"),
        (60, 600, "small"),
    ],
)
def test_size_and_shape(height: int, width: int, reason: str) -> None:
    assert verdict(file(scene(1, height, width))) == reason


@pytest.mark.parametrize(
    ("format", "name", "found", "found_resized"),
    [
        ("JPEG", "a.JPG", "", ""),
        ("JPEG", "a.jpeg", "", ""),
        ("JPEG", "a.jfif", "", ""),
        ("JPEG", "a", "extension", ""),
        ("JPEG", "a.dat", "extension", ""),
        ("JPEG", "a.png", "extension", "extension"),
        ("PNG", "a.jpg", "extension", "extension"),
        ("TIFF", "a.tif", "", ""),
        ("GIF", "a.gif", "", ""),
        ("AVIF", "a.avif", "", ""),
        ("WEBP", "a.jpg", "extension", "extension"),
    ],
)
def test_extension(format: str, name: str, found: str, found_resized: str) -> None:
    data = file(SCENE, format)
    assert verdict(data, name) == found
    assert verdict(data, name, resized=True) == found_resized
    keeping = Rules(keep=frozenset({"extension"}))
    assert verdict(data, name, rules=keeping) == ""


def test_first_reason_wins_and_kept_ones_do_not_count() -> None:
    bad = replace(
        GOOD, width=600, height=60, chroma=0.0, colorfulness=0.0, spread=0.0, contrast=0.0
    )
    order = ["small", "shape", "blank"]
    for count, reason in enumerate(order):
        assert judge(bad, "a.jpg", Rules(keep=frozenset(order[:count])), False) == reason
    assert judge(bad, "a.jpg", Rules(keep=frozenset(order)), False) == ""
    assert (
        judge(
            replace(bad, width=0, problem="damaged"), "a.jpg", Rules(keep=frozenset(order)), False
        )
        == "broken"
    )


def test_what_is_kept_without_colours_is_not_asked_for_several() -> None:
    blank = replace(GOOD, chroma=0.0, colorfulness=0.0, spread=0.0, contrast=0.0)
    gray, toned = (
        replace(blank, contrast=80.0),
        replace(blank, contrast=80.0, chroma=20.0, colorfulness=20.0),
    )

    def judged(*keep: str) -> list[str]:
        return [
            judge(found, "a.jpg", Rules(keep=frozenset(keep)), False)
            for found in (blank, gray, toned)
        ]

    assert judged() == ["blank", "gray", "single-tone"]
    assert judged("blank") == ["", "gray", "single-tone"]
    assert judged("gray") == ["blank", "", "single-tone"]
    assert judged("single-tone") == ["blank", "gray", ""]


# What pictures look like.


@pytest.mark.parametrize("flip", [False, True])
def test_hash_of_the_same_picture(flip: bool) -> None:
    for seed in range(6):
        rgb = scene(seed)
        first, other = examine(file(rgb), "a"), np.ascontiguousarray(rgb[:, ::-1]) if flip else rgb
        changed = [
            file(other, quality=30),
            file(arrays.resize(other, (58, 77)), quality=75),
            file(arrays.resize(other, (384, 512))),
            file(other * 1.1 - 13),
            file(other * 0.9),
        ]
        for data in changed:
            found = examine(data, "a")
            hash = found.hash ^ MIRROR if flip else found.hash
            signature = np.frombuffer(found.signature, np.uint8)
            signature = examination.mirrored(signature) if flip else signature
            assert bits(hash, first.hash) <= RULES.near_distance
            assert likeness(signature.tobytes(), first.signature) > 0.99


def test_hashes_of_other_pictures_are_far() -> None:
    hashes = [examine(file(scene(seed)), "a").hash for seed in range(12)]
    for index, left in enumerate(hashes):
        for right in hashes[:index]:
            assert min(bits(left, right), bits(left, right ^ MIRROR)) > 10


def test_signature() -> None:
    signature = np.frombuffer(GOOD.signature, np.uint8).reshape(16, 16)
    small = arrays.resize(gray(SCENE), 16)[..., 0]
    assert np.abs(signature.astype(int) - small).max() <= 3
    both = np.stack((signature.ravel(), signature[::-1].ravel()))
    assert np.array_equal(examination.mirrored(both)[0].reshape(16, 16), signature[:, ::-1])
    assert np.array_equal(examination.mirrored(both[1]), signature[::-1, ::-1].ravel())
    assert MIRROR.bit_count() == 32


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_signed_numbers(value: int) -> None:
    signed = examination.to_signed(value)
    assert -(2**63) <= signed < 2**63
    assert examination.to_unsigned(signed) == value


def test_version_tells_of_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    before = examination.version()
    found = importlib.util.find_spec("pi_heif")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None if found else object())
    assert examination.version() != before


@pytest.mark.parametrize(
    "name", ["photo.jpg", "a.png", "b.tiff", "c.avif", "d.webp", "e.gif", "f.bmp"]
)
def test_sniffing(name: str) -> None:
    format = {"jpg": "JPEG"}.get(name.split(".")[1], name.split(".")[1].upper())
    assert examination.kind_of(file(SCENE, format)[:64]) == format.lower()
    assert not examination.kind_of(name.encode())


# Real photographs.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["food", "natural", "people"])
def test_real_photographs_are_good(shared: Path, name: str) -> None:
    paths = sorted((shared / "data" / name).glob("*.jpg"))
    assert len(paths) >= 900
    rejected = {
        path.name: reason for path in paths if (reason := verdict(path.read_bytes(), path.name))
    }
    assert rejected == {}


def test_historical_photographs_are_gray(shared: Path) -> None:
    paths = sorted((shared / "data" / "historical").glob("*.jpg"))
    assert len(paths) == 28
    assert {verdict(path.read_bytes(), path.name) for path in paths} == {"gray"}


def test_real_photographs_in_one_tone(shared: Path) -> None:
    paths = sorted((shared / "data").glob("[fnp]*/*.jpg"))[::66]
    found = [
        verdict(file(arrays.read_rgb(path) @ SEPIA.T, quality=90), path.name) for path in paths
    ]
    assert len(found) == 50
    assert found.count("single-tone") >= 45
    assert set(found) <= {"single-tone", ""}


def test_types() -> None:
    assert isinstance(GOOD, Findings)
    assert len(GOOD.sha256) == 32 and len(GOOD.signature) == 256 and 0 <= GOOD.hash < 2**64
