"""Read a photograph's file: any depth, alpha, orientation and profile, by what it is and not by its
name.

Pillow decodes what has eight bits, OpenCV PNG, AVIF, JPEG 2000 and PNM files of more, `tiff` TIFF
files of 16 bits and floats, pi_heif HEIC, rawpy cameras' raw files. What is damaged is judged here
alone, for all who read pictures.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
from PIL import UnidentifiedImageError

from gancolor.errors import DataError, GancolorError, shown
from gancolor.images import heif, opencv, pillow, png, raw, tiff
from gancolor.images.formats import HEAD, Kind, by_suffix, kind_of, refusal
from gancolor.images.metadata import upright_sides
from gancolor.images.photograph import Header, Photograph, develop
from gancolor.runtime.files import open_regular
from gancolor.runtime.stderr import Meanwhile

MAX_PIXELS = 500_000_000

# Keeps Pillow from logging to stderr what it raises anyway.
_silenced = Meanwhile(logging.getLogger("PIL.TiffImagePlugin"), "disabled", True)


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read a picture file: upright, in sRGB, with the depth, alpha and metadata that it has.

    Gray stays (H, W). Eight bits and less are uint8, up to 32 bits uint16, floats float32; CMYK is
    uint8. Of several pages or frames it is the first; that and whatever else the user should know
    stands in `notes`. While it is read, a file of 8 bits takes up to 4 bytes a pixel beside the
    pixels, a 16-bit PNG file as much again as its pixels, a TIFF file of 16 bits next to nothing
    unless all of it is one compressed strip.

    Raises DataError naming the file and the reason if it is missing, no regular file, empty, cut
    off, damaged, of a kind that is not read, has more than `max_pixels` or does not fit into
    memory; MissingExtra for HEIC without pi_heif and raw files without rawpy.
    """
    path = Path(path)
    with guarded(path), open_regular(path) as file:
        header = _header(file, path)
        _refuse_large(header, path, max_pixels)
        return _develop(header, path)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read the bytes of a picture file as `read` does; `name` is for errors, and for what `formats.kind_of`
    needs it for.
    """
    path = Path(name)
    with guarded(path), io.BytesIO(data) as file:
        header = _header(file, path)
        check_pixels(header.width, header.height, max_pixels)
        return _develop(header, path)


def probe(path: str | Path, *, max_pixels: int | None = None) -> tuple[int, int, str]:
    """Return width, height (upright) and format from the file's header alone. Raises what `read`
    does.

    Without `max_pixels`, a picture may have any number of them.
    """
    path = Path(path)
    with guarded(path), open_regular(path) as file:
        header = _header(file, path)
    if max_pixels is not None:
        _refuse_large(header, path, max_pixels)
    return (*upright_sides(header.width, header.height, header.orientation), header.format)


def check_pixels(width: int, height: int, most: int) -> None:
    """ValueError for more than `most` pixels."""
    if width * height > most:
        raise ValueError(f"it has {width}x{height} pixels, more than {most / 1e6:.6g} megapixels")


def _refuse_large(header: Header, path: Path, most: int) -> None:
    if header.width * header.height > most:
        got = f"{header.width * header.height / 1e6:.6g} ({header.width}x{header.height})"
        raise DataError(
            f"picture must have at most {most / 1e6:.6g} megapixels, got {got} in {shown(path)};"
            " raise --max-megapixels"
        )


def _develop(header: Header, path: Path) -> Photograph:
    photograph = develop(header.decode())
    expected = by_suffix(path.name)
    if expected is not None and expected.title != photograph.format:
        photograph.notes.insert(
            0, f"a {photograph.format} file, though its name ends in {shown(path.suffix)}"
        )
    return photograph


def _header(file: BinaryIO, path: Path) -> Header:
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    kind = kind_of(head, path.name)
    if kind is None:
        raise ValueError("it is no picture of a kind that can be read")
    if kind.name == "raw":
        return raw.header(file)
    if not kind.readable:
        raise ValueError(refusal(kind))
    return _header_of(kind, file, head)


def _header_of(kind: Kind, file: BinaryIO, head: bytes) -> Header:
    if kind.name == "heif":
        return heif.header(file)
    if kind.name == "tiff":
        return tiff.header(file)
    if kind.name == "png" and png.is_deep(head):
        return png.header(file)
    if (
        kind.name in ("avif", "jp2", "pnm")
        and (deep := opencv.header(file, kind.name, kind.title)) is not None
    ):
        return deep
    return pillow.header(file, kind)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Whatever opening and decoding a file raises becomes one line."""
    try:
        # Libraries warn of what is odd in a file; what matters is in the notes.
        with warnings.catch_warnings(), pillow.unlimited, _silenced:
            warnings.simplefilter("ignore")
            yield
    except GancolorError:
        raise
    except UnidentifiedImageError as error:
        raise unreadable(path, "the file is cut off or damaged") from error
    except MemoryError as error:
        raise _too_large(path) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _too_large(path) from error
        raise unreadable(path, error.err or "OpenCV cannot decode it") from error
    except OSError as error:
        raise unreadable(path, error.strerror or _words(str(error))) from error
    except ValueError as error:
        raise unreadable(path, str(error)) from error
    except Exception as error:  # on damaged files the libraries raise almost anything
        raise unreadable(path, f"the file is cut off or damaged ({error!r})") from error


def _words(reason: str) -> str:
    """What a library says of a file that it cannot decode."""
    if pillow.is_unsupported(reason):
        return f"this kind of picture is not supported ({reason})"
    return f"the file is cut off or damaged ({reason})"


def unreadable(path: Path, reason: str) -> DataError:
    """The error of a file that cannot be read."""
    return DataError(f"picture must be readable, got {shown(path)}: {' '.join(reason.split())}")


def _too_large(path: Path) -> DataError:
    return DataError(
        f"picture must fit into memory, got {shown(path)}; close other programs or shrink the"
        " picture"
    )
