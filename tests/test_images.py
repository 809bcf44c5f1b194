from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gancolor.errors import DataError
from gancolor.images import arrays


@pytest.fixture(scope="module")
def rgb() -> arrays.Picture:
    """A smooth picture of 40 x 56 pixels whose three channels and four corners differ."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    smooth += (
        np.linspace(-60, 60, 56)[None, :, None] * [1, 0, -1]
        + np.linspace(-50, 50, 40)[:, None, None]
    )
    return smooth.clip(0, 255).astype(np.uint8)


def encode(picture: np.ndarray, form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def decode_reference(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode_deep(suffix: str, rgb: np.ndarray) -> bytes:
    good, data = cv2.imencode(suffix, rgb[..., ::-1] if rgb.ndim == 3 else rgb)
    assert good
    return data.tobytes()


def error_of(data: bytes) -> float:
    return float(np.abs(arrays.decode_rgb(data, "x").astype(float) - decode_reference(data)).mean())


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "1", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "L", {}),
        ("TIFF", "P", {}),
        ("TIFF", "RGBA", {}),
        ("TIFF", "CMYK", {}),
    ],
)
def test_every_kind_becomes_rgb(
    rgb: arrays.Picture, form: str, mode: str, options: dict[str, Any]
) -> None:
    data = encode(rgb, form, mode, **options)
    picture = arrays.decode_rgb(data, "x")
    assert picture.shape == rgb.shape and picture.dtype == np.uint8 and picture.flags.c_contiguous
    assert error_of(data) < 0.5
    if mode not in ("1", "L", "LA", "P"):
        assert np.abs(picture.astype(float) - rgb).mean() < 6  # and Pillow's reading is the picture


def test_alpha_is_dropped_not_composited(rgb: arrays.Picture) -> None:
    clear = np.dstack((rgb, np.zeros(rgb.shape[:2], np.uint8)))
    assert np.array_equal(arrays.decode_rgb(encode(clear, "PNG", "RGBA"), "x"), rgb)


def test_cmyk_jpeg(rgb: arrays.Picture) -> None:
    picture = arrays.decode_rgb(encode(rgb, "JPEG", "CMYK", quality=95), "x")
    assert np.abs(picture.astype(float) - rgb).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_become_8(rgb: arrays.Picture, suffix: str) -> None:
    assert np.array_equal(
        arrays.decode_rgb(encode_deep(suffix, rgb.astype(np.uint16) * 257), "x"), rgb
    )
    gray = arrays.decode_rgb(encode_deep(suffix, rgb[..., 0].astype(np.uint16) * 257), "x")
    assert np.array_equal(gray, np.repeat(rgb[..., :1], 3, axis=2))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_float_tiff_counts_from_0_to_1(rgb: arrays.Picture, kind: type) -> None:
    assert np.array_equal(arrays.decode_rgb(encode_deep(".tiff", rgb.astype(kind) / 255), "x"), rgb)
    odd: np.ndarray = np.array([[0.0, 0.5, 1.0, 7.0, -3.0, np.nan]], kind)
    assert arrays.decode_rgb(encode_deep(".tiff", odd), "x")[0, :, 1].tolist() == [
        0,
        18,
        36,
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(rgb: arrays.Picture, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1]}
    turned = rgb.transpose(1, 0, 2)
    turns |= {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}
    picture = arrays.decode_rgb(encode(rgb, "JPEG", quality=95, subsampling=0, exif=exif), "x")
    assert picture.shape == turns[orientation].shape
    assert np.abs(picture.astype(float) - turns[orientation]).mean() < 2


CUT: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]
CUT += [("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]


@pytest.mark.parametrize(("form", "options"), CUT)
def test_cut_off_files_are_found(
    rgb: arrays.Picture, form: str, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(rgb, form, **options)
    lengths = [int(len(data) * part) for part in (0.1, 0.3, 0.5, 0.7, 0.9)] + [len(data) - 3]
    for length in lengths:
        with pytest.raises(DataError, match=r"got some/cut\.x: "):
            arrays.decode_rgb(data[:length], "some/cut.x")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("form", "options"), CUT[:2])
def test_own_check_finds_the_cut_whatever_opencv_does(
    rgb: arrays.Picture, form: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: rgb)
    data = encode(rgb, form, **options)
    assert arrays.decode_rgb(data, "x") is rgb
    # a download that was set aside at full length ends in zeros
    for rest in (
        b"",
        b"\0" * (len(data) // 2),
    ):
        with pytest.raises(DataError, match="cut off"):
            arrays.decode_rgb(data[: len(data) // 2] + rest, "x")


def test_thumbnail_does_not_hide_the_cut(rgb: arrays.Picture) -> None:
    thumbnail = encode(rgb, "JPEG")
    block = b"Exif\0\0" + thumbnail
    data = encode(rgb, "JPEG", quality=95)
    whole = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    assert arrays.decode_rgb(whole, "x").shape == rgb.shape
    with pytest.raises(DataError, match="cut off"):
        arrays.decode_rgb(whole[: len(whole) - 300], "x")


def test_bytes_behind_the_end_do_no_harm(rgb: arrays.Picture) -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        data = encode(rgb, form)
        assert np.array_equal(
            arrays.decode_rgb(data + b"more \xff\xda bytes", "x"), arrays.decode_rgb(data, "x")
        )


def test_damaged_png_is_found_in_silence(
    rgb: arrays.Picture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(encode(rgb, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="damaged"):
        arrays.decode_rgb(bytes(data), "x")
    assert capfd.readouterr().err == ""


def test_what_is_no_picture_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.jpg").write_text("not a picture\n" * 40)
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "start.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "two\nlines.jpg").write_bytes(b"x")
    reasons = {
        "text.jpg": "no picture",
        "empty.png": "empty",
        "folder.jpg": "directory",
        "start.jpg": "cut off",
        "missing.jpg": "No such file",
        "two\nlines.jpg": r"two\\nlines",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as caught:
            arrays.read_rgb(tmp_path / name)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_whole_number_tiff_of_32_bits_is_scaled(rgb: arrays.Picture) -> None:
    buffer = io.BytesIO()
    numbers = rgb[..., 0].astype(np.int32) * 16
    Image.fromarray(numbers).save(buffer, "TIFF")
    expected = numbers / numbers.max() * 255
    assert np.abs(arrays.decode_rgb(buffer.getvalue(), "x")[..., 1] - expected).max() <= 1


@pytest.mark.parametrize(
    "name", ["with spaces.png", "grün 青い été.png", "UPPER.PNG", "a.b.c.tif", "new/folder/x.bmp"]
)
def test_lossless_files_read_back(rgb: arrays.Picture, tmp_path: Path, name: str) -> None:
    arrays.write_rgb(tmp_path / name, rgb)
    assert np.array_equal(arrays.read_rgb(str(tmp_path / name)), rgb)
    assert np.array_equal(np.asarray(Image.open(tmp_path / name).convert("RGB")), rgb)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_quality_sets_size_and_error(rgb: arrays.Picture, tmp_path: Path, suffix: str) -> None:
    sizes, errors = [], []
    for quality in (20, 95):
        path = tmp_path / f"{quality}{suffix}"
        arrays.write_rgb(path, rgb, quality)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(arrays.read_rgb(path).astype(float) - rgb).mean())
    assert sizes[0] < sizes[1] and errors[0] > errors[1] and errors[1] < 3


def test_every_suffix_can_be_written(rgb: arrays.Picture, tmp_path: Path) -> None:
    for suffix in arrays.WRITTEN:
        arrays.write_rgb(tmp_path / f"x{suffix}", rgb)
        assert arrays.read_rgb(tmp_path / f"x{suffix}").shape == rgb.shape


def test_failed_write_leaves_the_old_file(
    rgb: arrays.Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(DataError, match="x.png: No space left on device"):
        arrays.write_rgb(path, rgb)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.png"]


def test_bad_targets_are_refused(rgb: arrays.Picture, tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").touch()
    for name, reason in {
        "x.gif": "suffix",
        "x": "suffix",
        "taken.png": "directory",
        "file/x.png": "file",
    }.items():
        with pytest.raises(DataError, match=reason):
            arrays.write_rgb(tmp_path / name, rgb)
    with pytest.raises(ValueError, match="uint8"):
        arrays.write_rgb(tmp_path / "x.png", rgb.astype(np.float32))
    with pytest.raises(DataError, match="encode"):
        arrays.write_rgb(tmp_path / "wide.webp", np.zeros((1, 20000, 3), np.uint8))
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.png"]


def test_files_have_the_usual_permissions(rgb: arrays.Picture, tmp_path: Path) -> None:
    arrays.write_rgb(tmp_path / "x.png", rgb)
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x.png", "plain")]
    assert modes[0] == modes[1]


def test_resize_averages_when_it_shrinks() -> None:
    checks = np.indices((16, 16)).sum(0, dtype=np.uint8) % 2 * 200
    assert (arrays.resize(np.repeat(checks[..., None], 3, axis=2), 8) == 100).all()


@pytest.mark.parametrize("size", [(20, 28), (80, 112), (20, 112), (80, 28), (1, 1), (40, 56)])
def test_resize_keeps_the_mean_and_gives_the_size(
    rgb: arrays.Picture, size: tuple[int, int]
) -> None:
    resized = arrays.resize(rgb, size)
    assert resized.shape == (*size, 3) and resized.dtype == np.uint8
    assert np.abs(resized.mean((0, 1)) - rgb.mean((0, 1))).max() < 1.5
    assert arrays.resize(rgb[..., 0], 7).shape == (7, 7)
    with pytest.raises(ValueError, match="0x5"):
        arrays.resize(rgb, (0, 5))


def test_center_square_takes_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    for picture in (wide, wide.transpose(1, 0, 2)):
        for size in (5, 10, 25):
            square = arrays.center_square(picture, size)
            assert square.shape == (size, size, 3) and square.min() > 250


def test_edges_mark_the_contour_alone() -> None:
    picture = np.full((32, 32, 3), 60, np.uint8)
    picture[8:24, 8:24] = 200
    marked = arrays.edges(picture)
    assert marked.shape == (32, 32) and set(np.unique(marked)) == {0, 255}
    rows, columns = np.nonzero(marked)
    distance = np.minimum.reduce(
        [np.abs(line - edge) for line in (rows, columns) for edge in (8, 23)]
    )
    assert distance.max() <= 1 and len(rows) > 50
    assert not arrays.edges(np.full((16, 16, 3), 90, np.uint8)).any()
    noise = np.random.default_rng(0).integers(0, 6, (32, 32, 3), dtype=np.uint8)
    assert not arrays.edges(noise).any()  # nearly black: no edges from noise


def test_sheet_lays_out_cells() -> None:
    red, blue = (np.full((20, 30, 3), shade, np.uint8) for shade in ((255, 0, 0), (0, 0, 255)))
    sheet = arrays.sheet([[red, blue], [blue]], gap=4)
    assert sheet.shape == (4 + 2 * 24, 4 + 2 * 34, 3)
    assert (
        (sheet[4:24, 4:34] == red).all()
        and (sheet[4:24, 38:68] == blue).all()
        and (sheet[28:48, 4:34] == blue).all()
    )
    assert (sheet[:4] == 255).all() and (sheet[28:48, 38:68] == 255).all()


def test_sheet_fits_other_sizes_into_the_middle() -> None:
    large, tall = np.zeros((20, 30, 3), np.uint8), np.full((40, 10), 90, np.uint8)
    sheet = arrays.sheet([[large, tall]], gap=2)
    cell = sheet[2:42, 34:64]
    assert sheet.shape == (44, 66, 3)
    assert (
        (cell[:, 10:20] == 90).all() and (cell[:, :10] == 255).all() and (cell[:, 20:] == 255).all()
    )
    assert (sheet[12:32, 2:32] == 0).all()


def test_titles_stay_above_their_columns() -> None:
    cell = np.zeros((40, 60, 3), np.uint8)
    plain, titled = (arrays.sheet([[cell] * 2], titles) for titles in (None, ["a long title", ""]))
    head = titled.shape[0] - plain.shape[0]
    assert head > 8 and np.array_equal(titled[head:], plain)
    ink = titled[:head].min(2) < 128
    assert ink[:, 8:68].sum() > 20 and not ink[:, 69:].any()
    with pytest.raises(ValueError, match="at least one"):
        arrays.sheet([[]])


def test_real_photographs_agree_with_pillow(shared: Path) -> None:
    paths = sorted((shared / "data" / "food").glob("*.jpg"))[:5]
    assert paths
    for path in paths:
        assert error_of(path.read_bytes()) < 0.5


# --- square ---


@pytest.mark.parametrize("fit", ["crop", "center", "white", "reflect", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1), (10, 300), (300, 10), (31, 32), (64, 64)])
def test_square_has_the_size_whatever_the_picture(fit: str, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 200, (*shape, 3), np.uint8)
    found = arrays.square(picture, 48, fit)
    assert found.shape == (48, 48, 3) and found.dtype == np.uint8


def test_square_crops_the_centre() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(arrays.square(picture, 40, "crop"), picture[:, 10:50])
    assert np.array_equal(arrays.square(picture, 40, "center"), arrays.center_square(picture, 40))


def test_square_keeps_the_aspect_between_white_bars() -> None:
    picture = np.full((40, 80, 3), (200, 10, 60), np.uint8)
    found = arrays.square(picture, 40, "white")
    assert (found[:10] == 255).all() and (found[30:] == 255).all()
    assert (found[10:30] == (200, 10, 60)).all()
    tall = arrays.square(picture.transpose(1, 0, 2), 40, "white")
    assert np.array_equal(tall, found.transpose(1, 0, 2))


@pytest.mark.parametrize(
    "shape", [(1, 1), (10, 300), (300, 10), (31, 97), (97, 31), (1, 500), (64, 64)]
)
@pytest.mark.parametrize("size", [7, 48, 97])
def test_square_fills_up_what_rounding_leaves_of_extreme_shapes(
    shape: tuple[int, int], size: int
) -> None:
    picture = np.random.default_rng(3).integers(0, 200, (*shape, 3), np.uint8)
    small = arrays.resize(picture, (_side(shape[0], shape, size), _side(shape[1], shape, size)))
    rows, columns = size - small.shape[0], size - small.shape[1]
    around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    white = np.pad(small, around, constant_values=255)
    assert np.array_equal(arrays.square(picture, size, "white"), white)
    # The mirror image is mirrored again where the picture is thinner than its bars; one line of
    # pixels repeats itself.
    assert np.array_equal(
        arrays.square(picture, size, "reflect"), np.pad(small, around, mode="reflect")
    )


def _side(side: int, shape: tuple[int, int], size: int) -> int:
    return max(1, round(side * size / max(shape)))


def test_square_reflects_without_a_seam() -> None:
    ramp = np.repeat(np.linspace(0, 250, 24).astype(np.uint8)[:, None, None], 96, axis=1).repeat(
        3, axis=2
    )
    found = arrays.square(ramp, 96, "reflect")[:, 0, 0].astype(int)
    assert found.min() == 0 and found.max() == 250
    assert 0 < np.abs(np.diff(found)).max() <= 11  # no step is larger than the ramp's own


def test_square_knows_no_other_fit() -> None:
    with pytest.raises(ValueError, match="got zoom"):
        arrays.square(np.zeros((4, 5, 3), np.uint8), 8, "zoom")


def test_square_reflects_at_the_border() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (20, 40, 3), np.uint8)
    found = arrays.square(picture, 40, "reflect")
    assert np.array_equal(found[10:30], picture)
    assert np.array_equal(found[:10], picture[1:11][::-1]) and np.array_equal(
        found[30:], picture[9:19][::-1]
    )


def test_square_stretches_all_of_the_picture() -> None:
    picture = np.zeros((20, 80, 3), np.uint8)
    picture[:, 40:] = 255
    found = arrays.square(picture, 40, "stretch")
    assert (found[:, :20] == 0).all() and (found[:, 20:] == 255).all()
