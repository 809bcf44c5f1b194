"""JPEG files: what their segments say, whether their end is there, and what libjpeg says of the
data between.

Pictures of up to eight bits, in the formats that Pillow decodes; JPEG is also listened to by way of
OpenCV.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gancolor.images import captions, png, profiles
from gancolor.images.formats import Kind
from gancolor.images.metadata import ORIENTATION, as_bytes, metadata_of, orientation_of, tiff_exif
from gancolor.images.photograph import BAND_PIXELS, Band, Header, Stored
from gancolor.runtime.stderr import Meanwhile, stderr_heard

_END, _SCAN, _START = b"\xff\xd9", b"\xff\xda", b"\xff\xd8"
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_PROFILE, _EXIF = b"ICC_PROFILE\0", b"Exif\0\0"

# What libjpeg says of data that it had to guess at. Of some cameras' bytes behind the picture it
# says the first, too.
_DAMAGE = re.compile(
    "Corrupt JPEG data|Premature end|Inconsistent progression|Bogus|Application transferred too few"
)
_HARMLESS = "extraneous bytes before marker 0xd9"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a file's segments say before the first scan.

    `width`, `height` as stored; `bits` a sample; `components`: 1 gray, 3 colours, 4 CMYK. `scan`:
    where the first scan begins. `exif` without its prefix, `profile`: ICC.
    """

    width: int
    height: int
    bits: int
    components: int
    progressive: bool
    scan: int
    exif: bytes | None
    profile: bytes | None


def outline(data: bytes) -> Outline:
    """Walk the segments up to the first scan. ValueError if they are cut off or say no size."""
    frame, exif, pieces = None, None, dict[int, bytes]()
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN[1]:
            if frame is None:
                break
            bits, height, width, components = frame[1]
            return Outline(
                width=width,
                height=height,
                bits=bits,
                components=components,
                progressive=frame[0] in _PROGRESSIVE,
                scan=position,
                exif=exif,
                profile=b"".join(pieces[number] for number in sorted(pieces)) or None,
            )
        content = data[
            position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        ]
        if marker in _FRAMES and len(content) >= 6 and frame is None:
            sizes = (
                content[0],
                int.from_bytes(content[1:3], "big"),
                int.from_bytes(content[3:5], "big"),
                content[5],
            )
            frame = (marker, sizes)
        elif marker == 0xE1 and content.startswith(_EXIF) and exif is None:
            exif = content[len(_EXIF) :]
        elif marker == 0xE2 and content.startswith(_PROFILE) and len(content) > len(_PROFILE) + 2:
            pieces.setdefault(content[len(_PROFILE)], content[len(_PROFILE) + 2 :])
        position += 4 + len(content)
    raise ValueError("the file is cut off or damaged")


def ended(data: bytes, of: Outline) -> tuple[bytes, bool]:
    """Return the file with its end mark, and whether that was missing. ValueError if the last scans
    are missing.

    Whether data of the last scan that is there are missing, `decode` says.
    """
    if data.find(_END, of.scan) >= 0:  # behind the start of a scan nothing else looks like it
        return data, False
    if of.progressive and not _has_all_scans(data, of):
        raise ValueError("the file is cut off")
    return data.removesuffix(b"\xff") + _END, True


def decode(data: bytes, flag: int = cv2.IMREAD_COLOR_RGB) -> tuple[NDArray[np.uint8] | None, str]:
    """Decode as OpenCV's `flag` says, upright; None if it cannot. With what libjpeg had to guess
    at, "" for nothing.
    """
    level = cv2.utils.logging.setLogLevel(0)
    try:
        with stderr_heard() as said:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise ValueError(error.err or "OpenCV cannot decode it") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    damage = next(
        (line for line in said if _DAMAGE.search(line) and not line.endswith(_HARMLESS)), ""
    )
    return None if pixels is None else np.asarray(pixels, np.uint8), damage


def _has_all_scans(data: bytes, of: Outline) -> bool:
    """Whether each coefficient of each component of a progressive picture was brought to its last
    bit.
    """
    missing = dict[int, set[int]]()
    seen = set[int]()
    position = of.scan
    while position >= 0:
        count = data[position + 4] if position + 4 < len(data) else 0
        head = data[position + 5 : position + 5 + 2 * count + 3]
        if len(head) < 2 * count + 3:
            return False
        first, last, bit = head[-3], head[-2], head[-1] & 15
        for component in head[: 2 * count : 2]:
            seen.add(component)
            if bit == 0:
                missing.setdefault(component, set(range(64))).difference_update(
                    range(first, last + 1)
                )
        position = data.find(_SCAN, position + 5 + 2 * count + 3)
    return len(seen) == of.components and all(not missing.get(component, {0}) for component in seen)


_NAMES = {"jp2": "JPEG2000", "pnm": "PPM"}  # Pillow's names of kinds, where they are others
_PARTS = {"MPO": "pictures"}  # of files that hold several; else they are frames

# Modes of Pillow -> the mode whose arrays are taken, and the space of those. "I;16" is a TIFF file
# of 12 bits: deeper ones do not come here.
_MODES = {
    "1": ("L", "gray"),
    "L": ("L", "gray"),
    "LA": ("LA", "gray"),
    "La": ("LA", "gray"),
    "I;16": ("I;16", "gray"),
    "I;16B": ("I;16B", "gray"),
    "P": ("RGB", "rgb"),
    "PA": ("RGBA", "rgb"),
    "RGB": ("RGB", "rgb"),
    "RGBX": ("RGB", "rgb"),
    "RGBA": ("RGBA", "rgb"),
    "RGBa": ("RGBA", "rgb"),
    "YCbCr": ("RGB", "rgb"),
    "CMYK": ("CMYK", "cmyk"),
    "LAB": ("LAB", "lab"),
}
_VERSION_INFO = (
    1057  # of a PSD file's resources; its fifth byte: whether the flattened picture is there
)
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}

unlimited = Meanwhile(Image, "MAX_IMAGE_PIXELS", None)
"""Lifts Pillow's own limit on pixels, which is the whole process's."""


def header(file: BinaryIO, kind: Kind, page: int = 0, notes: list[str] | None = None) -> Header:
    """Read a file's header. Raises what Pillow raises, ValueError for what it does not support.

    `page`, `notes`: of a TIFF file, the page that holds the picture and what is to be said of the
    others.
    """
    image = _opened(file, kind)
    if page:
        image.seek(page)
    exif = as_bytes(image.info.get("exif"))
    # Pillow turns TIFF files by itself, and gives their size as turned.
    orientation = 1 if exif is None or kind.name == "tiff" else orientation_of(exif)
    return Header(
        width=image.width,
        height=image.height,
        format=kind.title,
        orientation=orientation,
        decode=lambda: _decode(image, file, kind, notes),
    )


def _opened(file: BinaryIO, kind: Kind) -> Image.Image:
    name = _NAMES.get(kind.name, kind.name.upper())
    try:
        return Image.open(file, formats=(name,))
    except UnidentifiedImageError as error:
        # It keeps the reason to itself.
        try:
            file.seek(0)
            Image.OPEN[name][0](file, "")
        except (SyntaxError, OSError, ValueError) as reason:
            if is_unsupported(str(reason)):
                raise ValueError(
                    f"this kind of {kind.title} is not supported ({reason})"
                ) from error
        raise


def is_unsupported(words: str) -> bool:
    """Whether a library's words tell of what it does not know, and not of damage."""
    low = words.lower()
    return any(
        each in low
        for each in (
            "unsupported",
            "not supported",
            "not available",
            "not configured",
            "not implemented",
            "unknown",
        )
    )


def _decode(image: Image.Image, file: BinaryIO, kind: Kind, told: list[str] | None) -> Stored:
    notes = _notes_of_parts(image) if told is None else list(told)
    as_told = _tiff_orientation(image)
    damage = ""
    if kind.name == "jpeg":
        image, damage, more = _checked_jpeg(image, file, kind)
        notes += more
    chunks = png.walk(file) if kind.name == "png" else None
    if kind.name == "webp":
        _check_riff(file)
    if kind.name == "psd":
        _check_composite(image)
    _load(image, kind)  # now: PNG may tell of its orientation behind the pixels
    metadata, orientation, found = metadata_of(image)
    turned = 1
    profile = as_bytes(image.info.get("icc_profile"))
    if kind.name == "tiff":
        orientation, turned = 1, as_told
        iptc, more = captions.of_tiff(file)
        metadata = replace(metadata, exif=tiff_exif(file), iptc=iptc)
        found += more
    if chunks is not None:
        profile, more = profiles.of_png(chunks.colors, profile)
        comment = chunks.comment or metadata.comment
        metadata = replace(
            metadata, texts=tuple(chunks.texts), xmp=metadata.xmp or chunks.xmp, comment=comment
        )
        found += more
    if image.mode not in _MODES:
        raise ValueError(f"pixels of the mode {image.mode} are not supported")
    mode, space = _MODES[image.mode]
    if image.mode == "P" and _has_gray_palette(image):
        mode, space = "L", "gray"
    if image.has_transparency_data:
        mode = _WITH_ALPHA.get(mode, mode)
    return Stored(
        width=image.width,
        height=image.height,
        format=kind.title,
        space=space,
        dtype=np.dtype(np.uint16 if mode.startswith("I;16") else np.uint8),
        has_alpha=mode in ("LA", "RGBA"),
        bands=_bands(image, mode),
        orientation=orientation,
        turned=turned,
        profile=profile,
        metadata=metadata,
        notes=notes + found,
        damage=damage,
        lossless=kind.name == "webp" and _is_lossless(file),
    )


def _load(image: Image.Image, kind: Kind) -> None:
    if kind.name != "tiff":
        image.load()
        return
    with stderr_heard() as said:  # libtiff has its words there
        try:
            image.load()
            return
        except OSError as error:
            failure = error
    words = next((line for line in said if is_unsupported(line)), "")
    if words:
        raise ValueError(f"this kind of TIFF is not supported ({words})") from failure
    raise failure


def _tiff_orientation(image: Image.Image) -> int:
    """What Pillow turns a TIFF file's pixels by when it loads them, and then forgets; 1 for other
    files.
    """
    value = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _checked_jpeg(
    image: Image.Image, file: BinaryIO, kind: Kind
) -> tuple[Image.Image, str, list[str]]:
    """Hear what libjpeg says of a JPEG file; returns it with its end mark, the damage, and notes.

    ValueError if a part of it is missing.
    """
    file.seek(0)
    data = file.read()
    of = outline(data)
    data, mended = ended(data, of)
    # An eighth of the size is enough to hear all that is wrong.
    _, damage = decode(data, cv2.IMREAD_REDUCED_COLOR_8)
    if not mended:
        return (
            image,
            damage,
            [f"the file is damaged, parts of the picture are made up ({damage})"] if damage else [],
        )
    if damage:
        raise ValueError(f"the file is cut off ({damage})")
    note = "the end mark of the file is missing, but all pixels are there"
    return _opened(io.BytesIO(data), kind), "", [note]


def _check_riff(file: BinaryIO) -> None:
    file.seek(0)
    size = int.from_bytes(file.read(8)[4:], "little")
    if file.seek(0, io.SEEK_END) < 8 + size:
        raise ValueError("the file is cut off")


def _is_lossless(file: BinaryIO) -> bool:
    """Whether the first picture of a WebP file is stored without loss."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8L", b"VP8 "):
            return head[:4] == b"VP8L"
        if head[:4] == b"ANMF":  # a frame's own chunks begin behind 16 bytes
            file.seek(16, io.SEEK_CUR)
            continue
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, io.SEEK_CUR)
    return False


def _check_composite(image: Image.Image) -> None:
    """Refuse a PSD file whose flattened picture was not saved: there is nothing but white in its
    place.
    """
    for resource in getattr(image, "resources", ()):
        if resource[0] == _VERSION_INFO and len(resource[2]) > 4 and not resource[2][4]:
            raise ValueError(
                "a PSD file without its flattened picture is not supported; save it for"
                " compatibility"
            )


def _notes_of_parts(image: Image.Image) -> list[str]:
    if image.format == "PSD":  # the flattened picture is that of all layers
        return []
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # the first may be whole where a later one is not
        return ["the first of several frames, of which some are damaged"]
    return [f"the first of {count} {_PARTS.get(image.format or '', 'frames')}"] if count > 1 else []


def _has_gray_palette(image: Image.Image) -> bool:
    if "transparency" in image.info:
        return False
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return bool(len(palette) and (palette == palette[:, :1]).all())


def _bands(image: Image.Image, mode: str) -> Iterator[Band]:
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels = np.asarray(strip if strip.mode == mode else strip.convert(mode))
        if mode.startswith("I;16"):  # 12 bits
            yield ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16), None
        elif mode == "LA":
            yield pixels[..., 0], pixels[..., 1]
        elif mode == "RGBA":
            yield pixels[..., :3], pixels[..., 3]
        else:
            yield pixels, None
