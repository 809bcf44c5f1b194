"""Write photographs: exact depth, alpha and metadata as far as the format holds them, whole or not
at all.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms

from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import captions, png, tiff
from gancolor.images.exif import PREFIX
from gancolor.images.metadata import Metadata, refresh, stamp, with_description, with_resolution
from gancolor.images.photograph import Photograph
from gancolor.images.pixels import Pixels, strips
from gancolor.runtime.files import written

FORMATS: dict[str, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "tiff": ".tif",
    "webp": ".webp",
    "bmp": ".bmp",
}
"""The formats written, and the suffix of each."""

_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".bmp", ".dib"), "bmp"),
    **{".png": "png", ".webp": "webp"},
}


_OTHER_JPEG = (".jif", ".mpo")  # suffixes of JPEG files that are not written


class _Limits(NamedTuple):
    """What a format holds: pixels on a side, bits, alpha, bytes of EXIF and XMP (0: it has no place
    for them), IPTC.
    """

    title: str
    side: int
    bits: int
    alpha: bool
    exif: int
    xmp: int
    iptc: bool


_UNBOUNDED = 2**31 - 1
_SEGMENT = 65_533  # bytes of one of JPEG's segments
_LIMITS = {
    # The file format has 16 bits for a side, the codec that everyone uses stops at 65,500. A
    # segment is 64 KB.
    "jpeg": _Limits("JPEG", 65_500, 8, False, _SEGMENT - len(PREFIX), _SEGMENT - 29, True),
    "png": _Limits("PNG", _UNBOUNDED, 16, True, _UNBOUNDED, _UNBOUNDED, False),
    "tiff": _Limits("TIFF", _UNBOUNDED, 32, True, _UNBOUNDED, _UNBOUNDED, True),
    "webp": _Limits("WebP", 16_383, 8, True, _UNBOUNDED, _UNBOUNDED, False),
    "bmp": _Limits("BMP", _UNBOUNDED, 8, False, 0, 0, False),
}
_BMP_BYTES = 2**32 - 1
_LOSSLESS = 100  # the quality at which WebP is lossless
LARGE_WEBP = 32_000_000
"""Pixels from which WebP is packed with less effort, and so less memory: 9 instead of 13 bytes a
pixel, and 25 instead of 41 where it is lossless or has alpha.
"""


def target_suffix(source: str, format: str | None = None) -> str:
    """Return the suffix of the output for an input's suffix (".JPG", "") or Photograph.format
    ("JPEG").

    Without `format` a suffix that is written stays as it is; all others (.heic .heif .avif .gif,
    none) become .png, which loses nothing of 10 bits or alpha. With it, a suffix of that format
    stays. Raises ConfigError for an unknown format.
    """
    suffix = source if source.startswith(".") else FORMATS.get(source.lower(), "")
    name = _SUFFIXES.get(suffix.lower())
    if format is None:
        return (
            suffix if name else FORMATS["jpeg"] if suffix.lower() in _OTHER_JPEG else FORMATS["png"]
        )
    wanted = _known(format)
    return suffix if name == wanted else FORMATS[wanted]


def write(
    path: str | Path,
    rgb: Pixels,
    photograph: Photograph,
    *,
    format: str | None = None,
    quality: int = 95,
    provenance: str | None = None,
) -> list[str]:
    """Write sRGB pixels with the photograph's alpha and metadata and an sRGB profile.

    `rgb` is (H, W, 3) uint8, uint16 or float32 [0, 1]; alpha takes its depth.

    `format` is a name of FORMATS; without it the suffix decides. `quality` 1-100 is that of JPEG
    (colour at full resolution) and WebP (half resolution; 100 is lossless, and so is a photograph
    that was a WebP file without loss). `provenance` is noted in EXIF and XMP (see `stamp`). Missing
    folders are made. Returns notes of what the format could not hold. Beside the arrays, PNG and
    TIFF take next to no memory, JPEG and BMP 4 bytes a pixel, WebP 10 to 40.

    The file appears whole or not at all. DataError with the reason (suffix, permission, disk, sides
    too long for the format; an OSError is its __cause__), ConfigError for an unknown format or
    quality, ValueError for other arrays.
    """
    path = Path(path)
    _check(rgb, photograph.alpha)
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality must be in 1 to 100, got {quality}; give another --quality")
    name = _known(format) if format else _by_suffix(path)
    limits = _LIMITS[name]
    _check_sides(path, name, rgb)
    alpha, notes = _held_alpha(photograph.alpha, limits)
    dtype, note = _held_depth(rgb.dtype, limits)
    metadata, more = _held_metadata(photograph.metadata, rgb.shape[:2], name, provenance)
    notes += note + more
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as stream:
            _encode(
                stream,
                name,
                rgb,
                alpha,
                metadata,
                dtype,
                _LOSSLESS if photograph.lossless else quality,
            )
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    except MemoryError as error:
        raise _unwritable(
            path, f"memory ran out; use --format png instead of {limits.title}"
        ) from error
    return notes


def _known(format: str) -> str:
    name = format.lower()
    if name not in FORMATS:
        raise ConfigError(
            f"format must be one of {' '.join(FORMATS)}, got {format}; give another --format"
        )
    return name


def _by_suffix(path: Path) -> str:
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None:
        known = " ".join(sorted(_SUFFIXES))
        raise DataError(
            f"suffix of a picture must be one of {known}, got {shown(path)}; rename the output"
        )
    return name


def _unwritable(path: Path, reason: str) -> DataError:
    return DataError(f"picture must be writable, got {shown(path)}: {' '.join(reason.split())}")


def _check(rgb: Pixels, alpha: Pixels | None) -> None:
    if (
        rgb.dtype not in (np.uint8, np.uint16, np.float32)
        or rgb.ndim != 3
        or rgb.shape[2] != 3
        or rgb.size == 0
    ):
        raise ValueError(
            f"picture must be uint8, uint16 or float32 (H, W, 3), got {rgb.dtype} {rgb.shape}"
        )
    if alpha is not None and alpha.shape != rgb.shape[:2]:
        raise ValueError(f"alpha must be {rgb.shape[:2]} as the picture is, got {alpha.shape}")


def _check_sides(path: Path, name: str, rgb: Pixels) -> None:
    height, width = rgb.shape[:2]
    limits = _LIMITS[name]
    if max(height, width) > limits.side:
        rule = f"sides of at most {limits.side} pixels as {limits.title}"
    elif name == "bmp" and 54 + (3 * width + 3) // 4 * 4 * height > _BMP_BYTES:
        rule = "at most 4 GiB as BMP"
    else:
        return
    raise DataError(
        f"picture must have {rule}, got {width}x{height} pixels for {shown(path)}; use --format png"
    )


def _held_alpha(alpha: Pixels | None, limits: _Limits) -> tuple[Pixels | None, list[str]]:
    if alpha is None or limits.alpha:
        return alpha, []
    opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    return None, [f"{limits.title} holds no alpha: left out"] if alpha.min() < opaque else []


def _held_depth(dtype: np.dtype[Any], limits: _Limits) -> tuple[np.dtype[Any], list[str]]:
    if 8 * dtype.itemsize <= limits.bits:
        return dtype, []
    held = np.dtype(np.uint8 if limits.bits == 8 else np.uint16)
    was = "floating-point values" if dtype.kind == "f" else f"{8 * dtype.itemsize} bits"
    return held, [f"{limits.title} holds {limits.bits} bits: {was} were rounded"]


def _held_metadata(
    metadata: Metadata, size: tuple[int, ...], name: str, provenance: str | None
) -> tuple[Metadata, list[str]]:
    """Bring metadata up to date, stamp it, and leave out what the format has no room for."""
    limits = _LIMITS[name]
    if not limits.exif:
        told = any(
            (
                metadata.exif,
                metadata.xmp,
                metadata.iptc,
                metadata.comment,
                metadata.texts,
                provenance,
            )
        )
        kept, _ = refresh(Metadata(dpi=metadata.dpi), size[0], size[1])
        return kept, [f"{limits.title} holds no metadata: left out"] if told else []
    metadata, notes = refresh(metadata, size[0], size[1])
    metadata, more = _held_captions(metadata, name)
    notes += more
    room = 4_000  # for what the stamp adds
    if metadata.exif is not None and len(metadata.exif) + room > limits.exif:
        metadata = replace(metadata, exif=None)
        notes.append(f"{limits.title} holds 64 KB of EXIF: left out")
    if metadata.xmp is not None and len(metadata.xmp) + room > limits.xmp:
        metadata = replace(metadata, xmp=None)
        notes.append(f"{limits.title} holds 64 KB of XMP: left out")
    if provenance is not None:
        metadata = stamp(metadata, provenance[:500])
    return with_resolution(metadata) if name == "webp" else metadata, notes


def _held_captions(metadata: Metadata, name: str) -> tuple[Metadata, list[str]]:
    limits, lost = _LIMITS[name], []
    if metadata.texts and name != "png":
        words = ", ".join(dict.fromkeys(shown(text.keyword) for text in metadata.texts))
        metadata = replace(metadata, texts=())
        lost.append(f"no texts of PNG files ({words})")
    if metadata.iptc is not None and not limits.iptc:
        metadata = replace(metadata, iptc=None)
        lost.append("no IPTC captions")
    if name in ("tiff", "webp"):
        metadata, held = with_description(metadata)
        lost += [] if held else ["one description, so no comment"]
    elif name == "jpeg" and metadata.comment is not None and len(metadata.comment) > _SEGMENT:
        metadata = replace(metadata, comment=None)
        lost.append("64 KB of comment")
    return metadata, [f"{limits.title} holds {' and '.join(lost)}: left out"] if lost else []


def _encode(
    stream: IO[bytes],
    name: str,
    rgb: Pixels,
    alpha: Pixels | None,
    metadata: Metadata,
    dtype: np.dtype[Any],
    quality: int,
) -> None:
    if name == "png":
        png.write(stream, rgb, alpha, metadata, _srgb_profile(), 8 * dtype.itemsize)
        return
    if name == "tiff":
        tiff.write(stream, rgb, alpha, metadata, _srgb_profile(), dtype)
        return
    settings: dict[str, Any] = {"icc_profile": _srgb_profile()}
    if metadata.exif is not None:
        settings["exif"] = PREFIX + metadata.exif
    if metadata.xmp is not None:
        settings["xmp"] = metadata.xmp
    # As Pillow writes them, pixels per inch fit into 16 bits.
    if metadata.dpi and max(metadata.dpi) < 65_535:
        settings["dpi"] = metadata.dpi
    if name == "jpeg":
        settings |= {"quality": quality, "subsampling": "4:4:4"}
        settings["extra"] = captions.segments(metadata.iptc, metadata.comment)
    elif name == "webp":
        # For lossless files `quality` is effort. `exact` keeps the colours where alpha is 0.
        lossless = quality == _LOSSLESS
        settings |= {"quality": 50 if lossless else quality, "lossless": lossless, "exact": True}
        if rgb.shape[0] * rgb.shape[1] > LARGE_WEBP:
            settings["method"] = 2 if alpha is None and not lossless else 0
    _pillow_image(rgb, alpha).save(cast(IO[bytes], _Sink(stream)), format=name, **settings)


class _Sink:
    """A stream without a file number: given one, Pillow's encoders write past Python and miss a
    disk that fills up.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.write = stream.write
        self.flush = stream.flush


def _pillow_image(rgb: Pixels, alpha: Pixels | None) -> Image.Image:
    """Build Pillow's own copy of the picture, 8 bits, strip by strip."""
    mode = "RGB" if alpha is None else "RGBA"
    image = Image.new(mode, (rgb.shape[1], rgb.shape[0]))
    for start, rows in strips(rgb, alpha, np.uint8):
        image.paste(Image.fromarray(rows), (0, start))
    return image


@functools.cache
def _srgb_profile() -> bytes:
    """The ICC profile of sRGB; its date of making is a fixed one, so that the same picture gives
    the same file.
    """
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place, number in zip(range(24, 36, 2), (2000, 1, 1, 0, 0, 0), strict=True):
        data[place : place + 2] = number.to_bytes(2, "big")
    return bytes(data)
