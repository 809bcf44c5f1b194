"""TIFF files: what their directory says decides who decodes them, and what their samples mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from gancolor.photographs import captions, plain
from gancolor.photographs.contents import Metadata
from gancolor.photographs.deep_tiff import Layout, layout, read_bands
from gancolor.photographs.quiet import Meanwhile
from gancolor.photographs.stored import Band, Header, Stored
from gancolor.photographs.tags import as_bytes, tiff_exif

_MIN_IS_WHITE, _SEPARATED = 0, 5
_SPACES = {0: ("gray", 1), 1: ("gray", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}  # by photometric interpretation
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of extra samples that are alpha
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT, _XMP, _PROFILE = 274, 282, 283, 296, 700, 34675
_UNITS = {2: 1.0, 3: 2.54}  # inch, centimetre: factor to pixels per inch
_PLAIN_BITS = (1, 2, 4, 8, 12)

# Keeps tifffile from logging to stderr: what matters travels in the error.
_silenced = Meanwhile(logging.getLogger("tifffile"), "disabled", True)

Array = NDArray[Any]


def header(file: BinaryIO) -> Header:
    """Read a TIFF file's header. ValueError, or what Pillow raises, if it is damaged or not supported."""
    with _silenced, tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        width, height = page.imagewidth, page.imagelength
        orientation = _orientation(page)
        if page.bitspersample in _PLAIN_BITS and page.sampleformat in (1, 4):
            try:
                return plain.header(file)
            except UnidentifiedImageError:  # an uncommon number of extra samples
                file.seek(0)
    return Header(
        width=width, height=height, format="TIFF", orientation=orientation, decode=lambda: _decode(file, orientation)
    )


def _orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode(file: BinaryIO, orientation: int) -> Stored:
    with _silenced:
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page, pages = tiff.pages.first, len(tiff.pages)
            of = layout(page, tiff.byteorder)
            photometric = 1 if page.photometric is None else int(page.photometric)
            extra = tuple(int(kind) for kind in page.extrasamples)
            profile, xmp = page.tags.valueof(_PROFILE), page.tags.valueof(_XMP)
            dpi = _dpi(page)
    if photometric not in _SPACES or of.samples * of.planes < _SPACES[photometric][1]:
        raise ValueError(f"TIFF photometric interpretation {photometric} of such samples is not supported")
    space, channels = _SPACES[photometric]
    alpha = extra[0] if extra and extra[0] in (_ASSOCIATED, _UNASSOCIATED) else None
    notes = [f"the first of {pages} pages"] if pages > 1 else []
    iptc, damaged = captions.of_tiff(file)
    notes += damaged
    if space == "rgb" and not extra and of.samples * of.planes == channels + 1:  # as OpenCV writes it
        alpha = _UNASSOCIATED
        notes.append("the fourth channel has no name: taken for alpha")
    if of.samples * of.planes > channels + (alpha is not None):
        notes.append(f"{of.samples * of.planes - channels - (alpha is not None)} extra channels left out")
    if of.dtype.kind != "f" and of.dtype.itemsize == 4:
        notes.append("32 bits read as 16")
    if space == "cmyk" and of.dtype.itemsize > 1:
        notes.append("deep CMYK read as 8 bits")
    return Stored(
        width=of.width,
        height=of.height,
        format="TIFF",
        space=space,
        dtype=np.dtype(np.uint8) if space == "cmyk" else _target(of.dtype),
        has_alpha=alpha is not None,
        bands=_bands(file, of, photometric, channels, alpha),
        orientation=orientation,
        profile=as_bytes(profile),
        metadata=Metadata(exif=tiff_exif(file), xmp=as_bytes(xmp), dpi=dpi, iptc=iptc),
        notes=notes,
    )


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    factor = _UNITS.get(page.tags.valueof(_UNIT, 2))
    values = [page.tags.valueof(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if factor is None or not all(isinstance(value, tuple) and len(value) == 2 and all(value) for value in values):
        return None
    across, down = (factor * value[0] / value[1] for value in values)
    return (across, down)


def _target(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)


def _bands(file: BinaryIO, of: Layout, photometric: int, channels: int, alpha: int | None) -> Iterator[Band]:
    for values in read_bands(file, of):
        samples = _brought(values)
        colors = samples[..., :channels]
        opacity = None if alpha is None else samples[..., channels]
        if opacity is not None and alpha == _ASSOCIATED:
            colors = _unmultiplied(colors, opacity)
        if photometric == _MIN_IS_WHITE:
            colors = (1 if colors.dtype.kind == "f" else np.iinfo(colors.dtype).max) - colors
        if photometric == _SEPARATED:
            colors, opacity = _eight_bits(colors), None if opacity is None else _eight_bits(opacity)
        yield colors[..., 0] if channels == 1 else colors, opacity


def _brought(values: Array) -> Array:
    """To uint8, uint16 or float32; signed numbers are shifted, so that the least is black."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite: white
            return values.astype(np.float32, copy=False)
    if values.dtype.kind == "i":
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        values = values.view(unsigned) ^ unsigned.type(1 << (8 * values.dtype.itemsize - 1))
    return (values >> 16).astype(np.uint16) if values.dtype.itemsize == 4 else values


def _unmultiplied(colors: Array, opacity: Array) -> Array:
    """Colours that were multiplied by alpha, as they were before."""
    top = 1.0 if colors.dtype.kind == "f" else float(np.iinfo(colors.dtype).max)
    share = opacity[..., None].astype(np.float32) / np.float32(top)
    with np.errstate(divide="ignore", invalid="ignore"):
        before = np.where(share > 0, colors / share, 0)
    if colors.dtype.kind == "f":
        return before.astype(np.float32)
    return np.clip(before + 0.5, 0, top).astype(colors.dtype)


def _eight_bits(values: Array) -> Array:
    if values.dtype.kind == "f":
        return np.asarray(np.clip(np.nan_to_num(values), 0, 1) * 255 + 0.5, np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8) if values.dtype.itemsize == 2 else values
