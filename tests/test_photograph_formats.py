"""Reading photographs: formats, modes, orientation, profiles, metadata, several frames."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from scans import DEEP, GRAY, RANDOM, RGB, RGBA, SMOOTH, chunk, png

from gancolor.images.formats import SUFFIXES
from gancolor.images.reader import probe, read


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x112], block[0x10F] = orientation, "Voigtlaender"
    return block.tobytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.bmp", {}), ("a.tif", {}), ("a.webp", {"lossless": True}), ("a.gif", {})],
)
def test_lossless_formats(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    pixels = RGB // 128 * 255 if name == "a.gif" else RGB  # eight colours
    Image.fromarray(pixels).save(tmp_path / name, **options)
    photograph = read(tmp_path / name)
    assert (
        (photograph.pixels == pixels).all() and photograph.alpha is None and photograph.notes == []
    )
    assert photograph.pixels.dtype == np.uint8 and photograph.pixels.flags.c_contiguous
    assert photograph.format == {"tif": "TIFF"}.get(name[2:], name[2:].upper())
    assert probe(str(tmp_path / name)) == (32, 24, photograph.format)
    assert Path(name).suffix in SUFFIXES


@pytest.mark.parametrize("name", ["a.jpg", "a.jpe", "a.webp", "a.avif"])
@pytest.mark.parametrize("progressive", [False, True])
def test_lossy_formats(tmp_path: Path, name: str, progressive: bool) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / name, quality=95, progressive=progressive)
    photograph = read(tmp_path / name)
    assert np.abs(photograph.pixels.astype(int) - SMOOTH).max() <= 6
    assert probe(tmp_path / name) == (32, 24, photograph.format) and photograph.notes == []


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_gray_stays_gray(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(SMOOTH[..., 0]).save(path)
    pixels = read(path).pixels
    assert pixels.shape == (24, 32) and np.abs(pixels.astype(int) - SMOOTH[..., 0]).max() <= 2


def test_modes_of_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for bits in (1, 2, 4):
        steps = GRAY >> (8 - bits)
        indexed = Image.fromarray(steps).convert("P") if bits > 1 else Image.fromarray(GRAY > 127)
        if bits > 1:
            indexed.putpalette(
                [round(value * 255 / (2**bits - 1)) for value in range(2**bits) for _ in range(3)]
            )
        indexed.save(path, bits=bits)
        photograph = read(path)
        assert (
            photograph.pixels == np.round(steps * (255 / (2**bits - 1))).astype(np.uint8)
        ).all(), bits
    Image.fromarray(RGBA).save(path)
    photograph = read(path)
    assert (photograph.pixels == RGB).all() and (photograph.alpha == RGBA[..., 3]).all()
    Image.fromarray(RGBA[..., :2]).save(path)
    photograph = read(path)
    assert (photograph.pixels == GRAY).all() and (photograph.alpha == RGBA[..., 1]).all()


def test_transparent_colors(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    palette = Image.fromarray(RANDOM.integers(0, 3, (24, 32), dtype=np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for transparency, opacity in ((1, [255, 0, 255]), (bytes((9, 200, 255)), [9, 200, 255])):
        palette.save(path, transparency=transparency)
        photograph = read(path)
        assert (photograph.alpha == np.array(opacity)[np.asarray(palette)]).all()
        assert (photograph.pixels[np.asarray(palette) == 2] == (0, 0, 255)).all()
    Image.fromarray(GRAY).save(path, transparency=int(GRAY[3, 4]))
    photograph = read(path)
    assert photograph.pixels.shape == (24, 32)
    assert (photograph.alpha == np.where(GRAY == GRAY[3, 4], 0, 255)).all()
    Image.fromarray(RGB).save(path, transparency=tuple(int(value) for value in RGB[3, 4]))
    assert (read(path).alpha == np.where((RGB == RGB[3, 4]).all(axis=2), 0, 255)).all()


def test_sixteen_bit_png(tmp_path: Path) -> None:
    path = tmp_path / "ünïcode -name.png"
    key = struct.pack(">H", int(DEEP[1, 1, 0]))
    for pixels, color_type, early, alpha in (
        (DEEP[..., 0], 0, b"", None),
        (DEEP[..., 0], 0, chunk(b"tRNS", key), np.where(DEEP[..., 0] == DEEP[1, 1, 0], 0, 65535)),
        (DEEP[..., :3], 2, b"", None),
        (DEEP[..., :2], 4, b"", DEEP[..., 1]),
        (DEEP, 6, b"", DEEP[..., 3]),
    ):
        path.write_bytes(png(pixels, color_type, early))
        photograph = read(path)
        expected = (
            pixels if pixels.ndim == 2 else pixels[..., 0] if color_type == 4 else pixels[..., :3]
        )
        assert photograph.pixels.dtype == np.uint16 and (photograph.pixels == expected).all()
        assert photograph.alpha is None if alpha is None else (photograph.alpha == alpha).all()
        assert probe(path) == (32, 24, "PNG")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_metadata_of_png_before_and_behind_the_pixels(
    tmp_path: Path, deep: bool, late: bool
) -> None:
    blocks = chunk(b"eXIf", exif()[6:]) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>")
    blocks = b"" if late else blocks, blocks if late else b""
    early = chunk(b"pHYs", struct.pack(">IIB", 11811, 23622, 1)) + blocks[0]
    data = png(DEEP[..., :3], 2, early, blocks[1])
    if not deep:
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, "PNG")
        data = buffer.getvalue()
        data = data[:33] + early + data[33:-12] + blocks[1] + data[-12:]
    (tmp_path / "a.png").write_bytes(data)
    photograph = read(tmp_path / "a.png")
    assert (photograph.pixels == np.rot90(DEEP[..., :3] if deep else RGB, -1)).all()
    assert photograph.metadata.xmp == b"<x:xmpmeta/>"
    assert photograph.metadata.dpi == pytest.approx((300, 600), rel=1e-3)
    found = Image.Exif()
    found.load(photograph.metadata.exif)
    assert not photograph.metadata.exif.startswith(b"Exif")
    assert found[0x112] == 1 and found[0x10F] == "Voigtlaender"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(np.arange(24 * 32, dtype=np.float32).reshape(24, 32) / 3).convert("L")
    image.save(tmp_path / "a.jpg", exif=exif(orientation), quality=98, dpi=(300, 300))
    from PIL import ImageOps

    with Image.open(tmp_path / "a.jpg") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    photograph = read(tmp_path / "a.jpg")
    assert (photograph.pixels == expected).all() and photograph.pixels.flags.c_contiguous
    assert probe(tmp_path / "a.jpg") == (*expected.shape[::-1], "JPEG")
    found = Image.Exif()
    found.load(photograph.metadata.exif)
    assert found[0x112] == 1 and photograph.metadata.dpi == (300, 300)


def test_damaged_exif_is_not_fatal(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\0\0")
    photograph = read(tmp_path / "a.jpg")
    assert photograph.pixels.shape == (24, 32, 3)


def test_the_profile_is_applied_and_srgb_is_not(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Its red and blue swapped: a profile that no picture can be meant with, and whose effect is
    # plain.
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    for deep in (False, True):
        pixels = DEEP[..., :3] if deep else RGB
        for profile, expected in ((srgb, pixels), (swapped, pixels[..., ::-1])):
            block = chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))
            data = io.BytesIO()
            Image.fromarray(RGB).save(data, "PNG", icc_profile=profile)
            (tmp_path / "a.png").write_bytes(png(pixels, 2, block) if deep else data.getvalue())
            photograph = read(tmp_path / "a.png")
            error = np.abs(photograph.pixels.astype(int) - expected).max()
            assert (
                error <= (0 if profile == srgb else 200 if deep else 1) and photograph.notes == []
            )
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg", icc_profile=b"no profile")
    assert read(tmp_path / "a.jpg").notes == ["the colour profile is damaged: sRGB assumed"]


def test_inks_of_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 24), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    photograph = read(tmp_path / "a.jpg")
    assert np.abs(photograph.pixels.astype(int) - (0, 255, 255)).max() <= 2
    assert photograph.notes == ["CMYK without a colour profile: converted by the plain formula"]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_the_first_frame_of_several(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.full((24, 32, 3), value, np.uint8)) for value in (0, 120, 255)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    photograph = read(tmp_path / f"a.{suffix}")
    assert photograph.pixels.max() == 0 and photograph.notes == ["the first of 3 frames"]


def test_several_pictures_in_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((24, 32, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    photograph = read(tmp_path / "a.jpg")
    assert photograph.pixels.max() < 3 and photograph.format == "JPEG"
    assert photograph.notes == ["the first of 2 pictures"]


def test_read_by_content(tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    Image.fromarray(RGB).save(path, "PNG")
    photograph = read(path)
    assert (photograph.pixels == RGB).all() and photograph.format == "PNG"
    assert photograph.notes == ["a PNG file, though its name ends in .jpg"]
    unnamed = path.rename(tmp_path / "-scan")
    assert (read(unnamed).pixels == RGB).all() and read(unnamed).notes == []
