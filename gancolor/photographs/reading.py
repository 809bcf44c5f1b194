"""Read a photograph's file: any depth, alpha, orientation and profile, by what it is and not by its name.

Pillow decodes what has eight bits, OpenCV PNG files of 16, `deep_tiff` TIFF files of 16 bits and floats, pi_heif HEIC.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
from PIL import UnidentifiedImageError

from gancolor.errors import DataError, GancolorError, shown
from gancolor.photographs import deep_png, heif, plain, tiff
from gancolor.photographs.contents import Photograph
from gancolor.photographs.stored import Header, develop

_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".avif": "AVIF",
}
SUFFIXES = frozenset(_FORMATS)
"""Suffixes of the files that count as photographs, in lower case."""

MAX_PIXELS = 500_000_000

# First bytes -> format. Those of HEIC and AVIF name their brands behind "ftyp".
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
}
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEAD = 64  # bytes that tell the format


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read a picture file: upright, in sRGB, with the depth, alpha and metadata that it has.

    Gray stays (H, W). Eight bits and less are uint8, up to 32 bits uint16, floats float32; CMYK is uint8. Of several
    pages or frames it is the first; that and whatever else the user should know stands in `notes`. While it is
    read, a file of 8 bits takes up to 4 bytes a pixel beside the pixels, a 16-bit PNG file as much again as its pixels,
    a TIFF file of 16 bits next to nothing unless all of it is one compressed strip.

    Raises DataError naming the file and the reason if it is missing, empty, cut off, damaged, no picture, has more
    than `max_pixels` or does not fit into memory; MissingExtra for HEIC without pi_heif.
    """
    path = Path(path)
    with _opened(path) as file:
        header = _header(file, path)
        if header.width * header.height > max_pixels:
            got = f"{header.width * header.height / 1e6:.6g} ({header.width}x{header.height})"
            raise DataError(
                f"picture must have at most {max_pixels / 1e6:.6g} megapixels, got {got} in {shown(path)}; "
                "raise --max-megapixels"
            )
        photograph = develop(header.decode())
    expected = _FORMATS.get(path.suffix.lower())
    if expected is not None and expected != photograph.format:
        photograph.notes.insert(0, f"a {photograph.format} file, though its name ends in {path.suffix}")
    return photograph


def probe(path: str | Path) -> tuple[int, int, str]:
    """Return width, height (upright) and format from the file's header alone. Raises what `read` does."""
    path = Path(path)
    with _opened(path) as file:
        header = _header(file, path)
    sides = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    return (*sides, header.format)


def _header(file: BinaryIO, path: Path) -> Header:
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    kind = _format(head)
    if kind is None:
        raise ValueError("it is no picture of a kind that can be read")
    if kind == "HEIC":
        return heif.header(file)
    if kind == "TIFF":
        return tiff.header(file)
    if kind == "PNG" and deep_png.is_deep(head):
        return deep_png.header(file, path)
    return plain.header(file)


def _format(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        return "HEIC" if brands & _HEIF_BRANDS else None
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file; whatever its decoding raises becomes one line."""
    try:
        # Libraries warn of what is odd in a file; what matters is in the notes.
        with warnings.catch_warnings(), plain.unlimited:
            warnings.simplefilter("ignore")
            if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
                raise ValueError("it is no regular file")  # reading a pipe would wait for its other end
            with path.open("rb") as file:
                yield file
    except GancolorError:
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(path, "the file is cut off or damaged") from error
    except MemoryError as error:
        raise _too_large(path) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _too_large(path) from error
        raise _unreadable(path, error.err or "OpenCV cannot decode it") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or f"the file is cut off or damaged ({error})") from error
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    except Exception as error:  # on damaged files the libraries raise almost anything
        raise _unreadable(path, f"the file is cut off or damaged ({error!r})") from error


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"picture must be readable, got {shown(path)}: {' '.join(reason.split())}")


def _too_large(path: Path) -> DataError:
    return DataError(f"picture must fit into memory, got {shown(path)}; close other programs or shrink the picture")
