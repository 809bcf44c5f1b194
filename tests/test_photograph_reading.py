"""Reading photographs: odd sizes, limits, files that are cut off, damaged or no pictures, real
scans.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scans import DEEP, RGB, png

from gancolor.errors import DataError
from gancolor.images import reader
from gancolor.images.formats import SUFFIXES
from gancolor.images.reader import probe, read


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (20_000, 30), (30, 20_000)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_odd_sizes(
    tmp_path: Path, size: tuple[int, int], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gancolor.images.pillow.BAND_PIXELS", 5000)
    image = Image.new("L", size, 77)
    image.putpixel((size[0] - 1, size[1] - 1), 78)
    image.save(tmp_path / f"a.{suffix}", quality=100)
    pixels = read(tmp_path / f"a.{suffix}").pixels
    assert (
        pixels.shape == size[::-1]
        and abs(int(pixels[-1, -1]) - 78) <= 1
        and abs(int(pixels[0, 0]) - 77) <= 1
    )
    with pytest.raises(DataError, match="--max-megapixels"):
        read(tmp_path / f"a.{suffix}", max_pixels=size[0] * size[1] - 1)


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_decompression_bomb(tmp_path: Path, deep: bool) -> None:
    data = bytearray(png(DEEP[..., 0], 0, size=(60_000, 50_000)))
    if not deep:
        data[24] = 8
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    assert probe(tmp_path / "a.png") == (60_000, 50_000, "PNG")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.png")
    assert (
        str(caught.value) == "picture must have at most 500 megapixels, got 3000 (60000x50000) in"
        f" {tmp_path / 'a.png'}; raise --max-megapixels"
    )


def test_pillows_limit_is_lifted_meanwhile_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    found: list[np.ndarray] = []

    def add(path: Path) -> None:
        found.append(read(path).pixels)

    for name, options in (
        ("a.png", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
    ):
        Image.fromarray(RGB).save(tmp_path / name, **options)
        found.clear()
        threads = [threading.Thread(target=add, args=(tmp_path / name,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3 and all((pixels == RGB).all() for pixels in found)
        assert Image.MAX_IMAGE_PIXELS == 100


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    format_, _, how = kind.partition(" ")
    if format_ == "DEEP":
        buffer.write(png(DEEP[..., :3], 2))
    else:
        Image.fromarray(RGB).save(
            buffer, format_, **({"lossless": True} if format_ == "WEBP" else {})
        )
    whole = buffer.getvalue()
    if how == "flipped":
        middle = len(whole) // 2
        return whole[:middle] + bytes((whole[middle] ^ 255,)) + whole[middle + 1 :]
    return whole[: {"head": 30, "half": len(whole) // 2, "end": len(whole) - 60}[how]]


CUTS = [
    f"{kind} {how}"
    for kind in ("JPEG", "PNG", "DEEP", "WEBP", "BMP", "GIF", "AVIF")
    for how in ("head", "half", "end")
]


@pytest.mark.parametrize("kind", [*CUTS, "PNG flipped", "DEEP flipped", "GIF flipped"])
def test_cut_off_and_damaged(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(damaged(kind))
    with pytest.raises(DataError, match=r"^picture must be readable, got .*a.jpg: [^\n]{5,}$"):
        read(tmp_path / "a.jpg")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("function", [read, probe])
def test_what_is_no_picture(tmp_path: Path, function: object) -> None:
    assert callable(function)
    path = tmp_path / "no\npicture.jpg"
    for content, reason in (
        (b"", "the file is empty"),
        (b"Dear diary,\n" * 20, "it is no picture of a kind that can be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            function(path)
        assert str(caught.value) == f"picture must be readable, got {ascii(str(path))}: {reason}"
    with pytest.raises(DataError, match="got .*missing.png: No such file or directory"):
        function(tmp_path / "missing.png")
    with pytest.raises(DataError, match="Is a directory"):
        function(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="it is a .*, not a regular file"):
        function(tmp_path / "pipe.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep")], ids=["memory", "other"])
def test_what_libraries_raise_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(stored: object) -> None:
        warnings.warn("odd file", stacklevel=1)
        raise error

    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(reader, "develop", fail)
    with pytest.raises(
        DataError, match="fit into memory" if isinstance(error, MemoryError) else "damaged .*deep"
    ):
        read(tmp_path / "a.png")


def test_real_scans(shared: Path) -> None:
    paths = sorted(
        path
        for path in (shared / "data" / "historical").rglob("*")
        if path.suffix.lower() in SUFFIXES
    )[:12]
    assert paths
    for path in paths:
        photograph = read(path)
        assert photograph.size == probe(path)[1::-1] and photograph.pixels.std() > 5
