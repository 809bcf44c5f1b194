"""Pictures as uint8 RGB arrays, as networks are trained on them: read and write files, resize,
edges, contact sheets.

A picture is (H, W, 3) uint8 in the order red, green, blue, upright and in sRGB, everywhere here;
OpenCV's BGR does not leave this module. Which files are damaged, `reader` says. JPEG files go
through OpenCV, which can decode large ones to a fraction of their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.errors import DataError, MissingExtra, shown
from gancolor.images import jpeg, profiles, reader
from gancolor.images.formats import HEAD, kind_of
from gancolor.images.opencv import codecs_silenced
from gancolor.images.pixels import convert
from gancolor.runtime.files import read_regular, written

Picture = NDArray[np.uint8]
"""A picture (H, W, 3), or (H, W) where a function takes gray ones too."""

WRITTEN = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of the files that are written here, in lower case."""

MAX_PIXELS = 250_000_000
"""Pictures with more are refused: decoded, they would not fit into the memory of every process that
reads.
"""

_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
_BORDERS = {"white": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101}
_PAPER, _INK = 255, (30, 30, 30)  # colours of a contact sheet


class Decoded(NamedTuple):
    """Pixels (H, W, 3), uint8, and the sides of the whole picture, upright."""

    pixels: Picture
    width: int
    height: int


def read_rgb(path: str | Path) -> Picture:
    """Read a picture file as uint8 RGB (H, W, 3), upright and in sRGB.

    Gray, palette and CMYK become RGB, alpha is dropped, 16 bits become 8, float TIFF counts as [0,
    1]. Raises DataError naming the file and the reason if it is missing, no regular file, empty,
    cut off, damaged, of a kind that cannot be read, or too large: more than 512 MiB or
    `MAX_PIXELS`.
    """
    with reader.guarded(Path(path)):
        data = read_regular(path)
    return decode_rgb(data, str(path))


def decode_rgb(data: bytes, name: str) -> Picture:
    """Decode the bytes of a picture file as `read_rgb` does; `name` is for the DataError."""
    return decode_sized(data, name).pixels


def decode_sized(data: bytes, name: str, least: int | None = None) -> Decoded:
    """Decode the bytes of a picture file as `read_rgb` does, and tell the sides of all of it.

    With `least`, large JPEG files come reduced, their shorter side not below so many pixels.
    """
    try:
        with reader.guarded(Path(name)):
            kind = kind_of(data[:HEAD], name)
            if (
                kind is not None
                and kind.name == "jpeg"
                and (found := _decode_jpeg(data, least)) is not None
            ):
                return found
        photograph = reader.decode(data, name, max_pixels=MAX_PIXELS)
    except MissingExtra as error:
        raise reader.unreadable(Path(name), str(error).split(": ", 1)[-1]) from error
    if photograph.damage:
        raise reader.unreadable(Path(name), f"the file is damaged ({photograph.damage})")
    pixels = convert(photograph.pixels, np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Decoded(np.ascontiguousarray(pixels), pixels.shape[1], pixels.shape[0])


def write_rgb(path: str | Path, rgb: Picture, quality: int = 95) -> None:
    """Write uint8 RGB (H, W, 3) in the format of the suffix; missing folders are made.

    `quality` in 1-100 is that of JPEG and WebP. The file appears whole or not at all. Raises
    DataError with the reason (suffix, permission, disk), ValueError for another kind of array.
    """
    path = Path(path)
    _check(rgb)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        known = " ".join(sorted(WRITTEN))
        raise DataError(
            f"suffix of a picture must be one of {known}, got {shown(path)}; rename the output"
        )
    # Full chroma resolution: the colour is what the file is for.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_WEBP_QUALITY, quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    with codecs_silenced():
        try:
            good, data = cv2.imencode(
                suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _settings_of(suffix, settings)
            )
        except cv2.error as error:
            raise _unwritable(path, error.err or "OpenCV cannot encode it") from error
    if not good:
        raise _unwritable(
            path, f"OpenCV cannot encode {rgb.shape[1]}x{rgb.shape[0]} pixels as {suffix}"
        )
    write_file(path, data.tobytes())


def encode_jpeg(rgb: Picture, quality: int) -> bytes:
    """A picture (H, W, 3) as a JPEG file with its colours at full resolution."""
    how = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), how)[1].tobytes()


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; missing folders are made. DataError with the reason.

    The disk is not waited for: a picture that a power cut takes away can be made again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path, durable=False) as file:
            file.write(data)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def resize(rgb: Picture, size: int | tuple[int, int]) -> Picture:
    """Resize to `size` = (height, width), or to a square; (H, W) or (H, W, 3) uint8.

    Averages areas where it shrinks, interpolates cubically where it grows.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1x1, got {height}x{width}")
    small = (min(width, rgb.shape[1]), min(height, rgb.shape[0]))
    if small != (rgb.shape[1], rgb.shape[0]):
        rgb = np.asarray(cv2.resize(rgb, small, interpolation=cv2.INTER_AREA), np.uint8)
    if small != (width, height):
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return rgb


def center_square(rgb: Picture, size: int) -> Picture:
    """Return the largest square from the centre, resized to `size` x `size`."""
    return square(rgb, size, "crop")


def square(rgb: Picture, size: int, fit: str) -> Picture:
    """Bring a picture to `size` x `size`, uint8 RGB. ValueError for an unknown `fit`.

    `fit`: "crop" or "center" takes the largest square from the centre, "stretch" changes the
    aspect; "white" and "reflect" keep all of the picture and fill the rest evenly on both sides,
    with white or its mirror image.
    """
    height, width = rgb.shape[:2]
    if fit == "stretch":
        return resize(rgb, size)
    if fit in ("crop", "center"):
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return resize(np.ascontiguousarray(rgb[top : top + side, left : left + side]), size)
    if fit not in _BORDERS:
        raise ValueError(f"fit must be one of crop center stretch white reflect, got {fit}")
    scale = size / max(height, width)
    small = resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
    rows, columns = size - small.shape[0], size - small.shape[1]
    around = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    return np.asarray(
        cv2.copyMakeBorder(small, *around, _BORDERS[fit], value=(255, 255, 255)), np.uint8
    )


def edges(rgb: Picture) -> Picture:
    """Return Canny edges of the lightly blurred gray picture: (H, W) uint8, 0 or 255.

    The thresholds lie a third (sigma 0.33) below and above the median gray.
    """
    _check(rgb)
    gray = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    # On nearly black or white paper the bare median would mark all the noise or nothing.
    median = float(np.clip(np.median(gray), 32, 192))
    return np.asarray(cv2.Canny(gray, 0.67 * median, 1.33 * median), np.uint8)


def sheet(
    rows: Sequence[Sequence[Picture]], titles: Sequence[str] | None = None, gap: int = 8
) -> Picture:
    """Lay pictures out as a contact sheet with column titles, uint8 RGB.

    All cells have the size of the largest height and width; other pictures are fitted into the
    middle of theirs. Rows may have different lengths; (H, W) pictures count as gray. `gap` is in
    pixels. ValueError if there is none.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise ValueError("rows must hold at least one picture, got none")
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = max(len(row) for row in rows)
    head = _title_height(height) + gap if titles else 0
    canvas = np.full(
        (head + gap + len(rows) * (height + gap), gap + columns * (width + gap), 3),
        _PAPER,
        dtype=np.uint8,
    )
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            fitted = _fit(picture, height, width)
            top = head + gap + line * (height + gap) + (height - fitted.shape[0]) // 2
            left = gap + column * (width + gap) + (width - fitted.shape[1]) // 2
            canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    if not titles:
        return canvas
    scale, thickness, base = _fit_titles(titles, width, head - gap)
    for column, title in enumerate(titles[:columns]):
        place = (gap + column * (width + gap), gap + base)
        cv2.putText(
            canvas, title, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, thickness, cv2.LINE_AA
        )
    return canvas


def _decode_jpeg(data: bytes, least: int | None) -> Decoded | None:
    """Decode what OpenCV reads as it is meant; None for another. ValueError if it is cut off,
    damaged or too large.
    """
    of = jpeg.outline(data)
    reader.check_pixels(of.width, of.height, MAX_PIXELS)
    if of.bits != 8 or of.components not in (1, 3) or (of.components == 1 and of.profile):
        return None
    data, mended = jpeg.ended(data, of)
    flag: int = cv2.IMREAD_COLOR_RGB
    if least is not None:
        small = min(of.width, of.height)
        flag = next((each for factor, each in _REDUCED.items() if small >= factor * least), flag)
    pixels, damage = jpeg.decode(data, flag)
    if damage:
        raise ValueError(f"the file is {'cut off' if mended else 'damaged'} ({damage})")
    if pixels is None:
        return None
    if flag != cv2.IMREAD_COLOR_RGB:  # it cannot reduce and give RGB at once
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    turned = (
        (pixels.shape[0] > pixels.shape[1]) != (of.height > of.width)
        if of.width != of.height
        else False
    )
    to_srgb = (
        profiles.conversion(of.profile, "rgb", np.dtype(np.uint8)).apply if of.profile else None
    )
    if to_srgb is not None:
        pixels = np.ascontiguousarray(to_srgb(pixels))
    return Decoded(pixels, *((of.height, of.width) if turned else (of.width, of.height)))


def _check(rgb: Picture) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"picture must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")


def _unwritable(path: Path, reason: str) -> DataError:
    return DataError(f"file must be writable, got {shown(path)}: {' '.join(reason.split())}")


def _settings_of(suffix: str, settings: list[int]) -> list[int]:
    """Keep the pairs that the format knows: OpenCV warns of the others."""
    if suffix in (".jpg", ".jpeg"):
        return settings[:2] + settings[4:]
    return settings[2:4] if suffix == ".webp" else []


def _fit(picture: Picture, height: int, width: int) -> Picture:
    """Scale to fit into height x width, as RGB."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    return resize(
        picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    )


def _title_height(cell_height: int) -> int:
    return round(min(max(cell_height * 0.08, 14), 48))


def _fit_titles(titles: Sequence[str], width: int, height: int) -> tuple[float, int, int]:
    """Return scale, thickness and base line with which every title fits into width x height."""
    thickness = max(1, height // 20)
    sizes = [cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 1.0, thickness) for title in titles]
    longest = max(size[0] for size, _ in sizes)
    tallest, below = max(size[1] for size, _ in sizes), max(below for _, below in sizes)
    scale = min(width / max(longest, 1), height / max(tallest + below, 1))
    return scale, thickness, height - round(below * scale)
