"""TIFF files: which of a file's pictures is the one, who decodes it, what its samples mean, and
writing.

Pillow decodes what has up to 12 bits. Files of 16 bits and more, floats too, and those that Pillow
has no mode for are decoded here, a few strips or tiles at a time. tifffile reads the directory. The
compressed bytes are undone by libtiff through Pillow: wrapped into a TIFF file of plain gray bytes,
so that no library's idea of depth and colour comes between. What remains, the difference to the
left neighbour (TIFF 6.0, section 14) or that of floats (Adobe's technical note 3), is undone here.
"""

from __future__ import annotations

import io
import itertools
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Literal, NamedTuple

import numpy as np
import tifffile
from numpy.typing import DTypeLike
from PIL import Image, UnidentifiedImageError

from gancolor.images import captions, exif, pillow, raw
from gancolor.images.formats import KINDS
from gancolor.images.metadata import Metadata, as_bytes, as_orientation, set_resolution, tiff_exif
from gancolor.images.photograph import Band, Header, Stored
from gancolor.images.pixels import Pixels, convert, sixteen_bits, strips
from gancolor.runtime.stderr import Meanwhile, stderr_closed

_MIN_IS_WHITE, _SEPARATED = 0, 5
_SPACES = {0: ("gray", 1), 1: ("gray", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}  # by photometric code
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of extra samples that are alpha
_XMP, _PROFILE = 700, 34675  # tags
_UNITS = {2: 1.0, 3: 2.54}  # inch, centimetre: factor to pixels per inch
_PLAIN_BITS = (1, 2, 4, 8, 12)
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _DNG_VERSION = 254, 255, 50706
_REDUCED, _MASK = 1, 4  # bits of the former
_RAW_PHOTOMETRICS = (32803, 34892)  # of a mosaic of colours, and of linear light
_MOST_PAGES = 100_000
_FULL = 1 << 24  # numbers of 32 bits that pass this use all of them
_COUNTED = 64  # pages that are looked at, to see which are pictures of their own
_SMALLER = "the first page is a reduced copy: the picture itself was taken"

_NONE = 1
_COMPRESSIONS = (_NONE, 5, 8, 32773, 32946, 34925, 50000)
"""Bare, LZW, deflate, PackBits, deflate, LZMA, Zstandard."""
_KINDS = {1: "u", 2: "i", 3: "f"}  # by sample format
# The bits of each byte the other way round.
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_CHUNK = 2**22  # bytes that are decoded at a time, where strips are small

# Of compression: 6 takes twice the time for 1.5 % less, and floats hardly shrink at any level.
_LEVEL, _FLOAT_LEVEL = 4, 1
STRIP = 1 << 19  # bytes before compression
CLASSIC_LIMIT = 4_000_000_000  # bytes of pixels up to which 32-bit offsets surely do

# Keeps tifffile from logging to stderr: what matters travels in the error.
_silenced = Meanwhile(logging.getLogger("tifffile"), "disabled", True)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a TIFF file lays its samples out. A segment is a strip or a tile of `rows` x `columns`,
    the last strip of a plane may be shorter; `samples` of each pixel lie in one of `planes`.
    `dtype` is in the file's byte order; `mirrored`: the bits of each byte are the other way round
    (FillOrder 2).
    """

    width: int
    height: int
    samples: int
    planes: int
    rows: int
    columns: int
    tiled: bool
    dtype: np.dtype[Any]
    compression: int
    mirrored: bool
    predictor: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a segment's row."""
        return self.columns * self.samples * self.dtype.itemsize


class _Chosen(NamedTuple):
    """The directory that holds the picture: its page, its number among the pages (None: a
    subdirectory), and notes.
    """

    page: tifffile.TiffPage
    number: int | None
    notes: list[str]


def header(file: BinaryIO) -> Header:
    """Read a TIFF file's header, or that of a raw file that is built as one.

    ValueError, or what Pillow raises, if it is damaged or not supported; MissingExtra for raw files
    without rawpy.
    """
    with _silenced, tifffile.TiffFile(file) as tiff:
        if _is_raw(tiff):
            return raw.header(file)
        _check_whole(file, tiff)
        page, number, notes = _choose(tiff)
        width, height = page.imagewidth, page.imagelength
        orientation = as_orientation(page.tags.valueof(exif.ORIENTATION))
        if number is not None and page.bitspersample in _PLAIN_BITS and page.sampleformat in (1, 4):
            file.seek(0)
            try:
                return pillow.header(file, KINDS["tiff"], number, notes)
            except UnidentifiedImageError:  # an uncommon number of extra samples
                file.seek(0)
    return Header(
        width=width,
        height=height,
        format="TIFF",
        orientation=orientation,
        decode=lambda: _decode(file, orientation),
    )


def write(
    stream: IO[bytes],
    rgb: Pixels,
    alpha: Pixels | None,
    metadata: Metadata,
    profile: bytes,
    dtype: DTypeLike,
) -> None:
    """Write (H, W, 3) with alpha (H, W) or None, deflated, as uint8, uint16 or float32; `profile`
    is an ICC profile.

    The byte order is that of the EXIF block, whose directories come first so that the maker's note
    keeps its place; alpha is an unassociated extra sample. Beyond 4 GB it is a BigTIFF.
    """
    block = exif.Block() if metadata.exif is None else exif.parse(metadata.exif)
    height, width = rgb.shape[:2]
    channels = 3 if alpha is None else 4
    big = height * width * channels * np.dtype(dtype).itemsize > CLASSIC_LIMIT
    order, mark = block.order, b"II" if block.order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HL", 42, 0)
    stream.write(mark + head)
    for tag, child in block.top.children.items():
        start = _even(stream)
        laid, offset = exif.lay_out(child, order, start, big=big)
        stream.write(laid)
        block.top.fields[tag] = block.numbers(exif.LONG, offset)
    block.top.children = {}
    rows, offsets, sizes = _write_pixels(stream, rgb, alpha, dtype, order)
    _describe(block, (height, width, channels), np.dtype(dtype), rows)
    wide = exif.LONG8 if big else exif.LONG
    block.top.fields |= {273: block.numbers(wide, *offsets), 279: block.numbers(wide, *sizes)}
    block.top.fields[_PROFILE] = exif.Field(exif.UNDEFINED, profile)
    if metadata.xmp is not None:
        block.top.fields[_XMP] = exif.Field(exif.BYTE, metadata.xmp)
    if metadata.iptc is not None:
        block.top.fields |= _captions(metadata.iptc)
    if metadata.dpi:
        set_resolution(block, metadata.dpi)
    laid, offset = exif.lay_out(block.top, order, _even(stream), big=big)
    stream.write(laid)
    stream.seek(8 if big else 4)
    stream.write(struct.pack(order + ("Q" if big else "L"), offset))


def layout(page: tifffile.TiffPage, byteorder: str) -> Layout:
    """Return a page's layout. ValueError if it is of a kind that is not supported, or cannot be."""
    bits, kind = page.bitspersample, _KINDS.get(int(page.sampleformat))
    if kind is None or bits not in ((16, 32, 64) if kind == "f" else (8, 16, 32)):
        raise ValueError(
            f"samples of {bits} bits in the format {int(page.sampleformat)} are not supported"
        )
    if int(page.compression) not in _COMPRESSIONS:
        raise ValueError(
            f"TIFF compression {int(page.compression)} of such samples is not supported"
        )
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    tiled = bool(page.is_tiled)
    rows = (
        page.tilelength if tiled else min(page.rowsperstrip or page.imagelength, page.imagelength)
    )
    found = Layout(
        width=page.imagewidth,
        height=page.imagelength,
        samples=page.samplesperpixel // planes,
        planes=planes,
        rows=rows,
        columns=page.tilewidth if tiled else page.imagewidth,
        tiled=tiled,
        dtype=np.dtype(f"{byteorder}{kind}{bits // 8}"),
        compression=int(page.compression),
        mirrored=int(page.fillorder) == 2,
        predictor=int(page.predictor),
        offsets=tuple(page.dataoffsets),
        counts=tuple(page.databytecounts),
    )
    if min(found.width, found.height, found.samples, found.rows, found.columns) < 1:
        raise ValueError("the file is damaged: a side of 0")
    across, down = -(-found.width // found.columns), -(-found.height // found.rows)
    if min(len(found.offsets), len(found.counts)) < across * down * planes:
        raise ValueError("the file is damaged: strips are missing")
    return _split(found) if down == 1 and not tiled and found.compression == _NONE else found


def read_bands(file: BinaryIO, of: Layout) -> Iterator[Pixels]:
    """Yield rows from the top: (n, width, samples of all planes), native byte order. ValueError if
    cut off.
    """
    across, down = -(-of.width // of.columns), -(-of.height // of.rows)
    group = 1 if of.tiled else max(1, _CHUNK // (of.rows * of.row_bytes))
    for row in range(0, down, group):
        band = min(group, down - row)
        rows = min(band * of.rows, of.height - row * of.rows)
        planes = []
        for plane in range(of.planes):
            first = (plane * down + row) * across
            total = of.rows * across if of.tiled else rows
            values = _values(_bytes(file, of, first, band * across, total), of)
            if of.tiled:
                values = values.reshape(across, of.rows, of.columns, of.samples).swapaxes(0, 1)
                values = values.reshape(of.rows, -1, of.samples)[:rows, : of.width]
            planes.append(values)
        yield planes[0] if of.planes == 1 else np.concatenate(planes, axis=2)


def _check_whole(file: BinaryIO, tiff: tifffile.TiffFile) -> None:
    """ValueError if the chain of directories, or the pixels of a page, go on behind the file's end."""
    length = file.seek(0, 2)
    wide = tiff.is_bigtiff
    number, following, entry = ("Q", "Q", 20) if wide else ("H", "L", 12)
    offset, seen = tiff.pages.first.offset, set[int]()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        count = _number(file, offset, tiff.byteorder + number)
        offset = _number(
            file, offset + (8 if wide else 2) + entry * count, tiff.byteorder + following
        )
    for page in _pages(tiff):
        if page is tiff.pages.first and int(page.compression) == 1:
            # bare samples are counted when they are read: some writers state too many bytes
            continue
        if any(
            start + size > length
            for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            raise ValueError("the file is cut off: a page's pixels are not all there")


def _number(file: BinaryIO, offset: int, form: str) -> int:
    file.seek(offset)
    try:
        return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])
    except struct.error:
        raise ValueError("the file is cut off: a page is not there") from None


def _is_raw(tiff: tifffile.TiffFile) -> bool:
    first = tiff.pages.first
    return _DNG_VERSION in first.tags or any(
        page.tags.valueof(262) in _RAW_PHOTOMETRICS for page in [first, *_subdirectories(first)]
    )


def _choose(tiff: tifffile.TiffFile) -> _Chosen:
    """Find the first directory that is neither a reduced copy nor a mask of another; the first
    where all are.
    """
    first = tiff.pages.first
    pages = _pages(tiff)
    own = [number for number, page in enumerate(pages) if _is_own(page)]
    if own:
        left_out = own[0]
        count = len(own) + len(tiff.pages) - len(pages) if len(pages) == _COUNTED else len(own)
        notes = [f"the first of {count} pages"] if count > 1 else []
        return _Chosen(pages[left_out], left_out, notes + ([_SMALLER] if left_out else []))
    inside = next((page for page in _subdirectories(first) if _is_own(page)), None)
    if inside is not None:
        return _Chosen(inside, None, [_SMALLER])
    return _Chosen(first, 0, ["there is only a reduced copy of the picture in the file"])


def _pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages, up to the first that is damaged, or up to as many as are looked at."""
    found = [tiff.pages.first]
    try:
        for number in range(1, min(len(tiff.pages), _COUNTED)):
            if isinstance(page := tiff.pages[number], tifffile.TiffPage):
                found.append(page)
    except Exception:  # of what it finds in a damaged directory, tifffile raises almost anything
        pass
    return found


def _subdirectories(page: tifffile.TiffPage) -> list[tifffile.TiffPage]:
    try:
        inside = page.pages if page.subifds else None
        return (
            []
            if inside is None
            else [each for each in inside if isinstance(each, tifffile.TiffPage)]
        )
    except Exception:  # see above
        return []


def _is_own(page: tifffile.TiffPage) -> bool:
    kind = page.tags.valueof(_SUBFILE_TYPE)
    if isinstance(kind, int):
        return not int(kind) & (_REDUCED | _MASK)
    return bool(page.tags.valueof(_OLD_SUBFILE_TYPE) != 2)


def _decode(file: BinaryIO, orientation: int) -> Stored:
    with _silenced:
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page, _, notes = _choose(tiff)
            of = layout(page, tiff.byteorder)
            photometric = 1 if page.photometric is None else int(page.photometric)
            extra = tuple(int(kind) for kind in page.extrasamples)
            profile, xmp = page.tags.valueof(_PROFILE), page.tags.valueof(_XMP)
            dpi = _dpi(page)
    if photometric not in _SPACES or of.samples * of.planes < _SPACES[photometric][1]:
        raise ValueError(
            f"TIFF photometric interpretation {photometric} of such samples is not supported"
        )
    space, channels = _SPACES[photometric]
    alpha = extra[0] if extra and extra[0] in (_ASSOCIATED, _UNASSOCIATED) else None
    iptc, damaged = captions.of_tiff(file)
    notes += damaged
    if space == "rgb" and not extra and of.samples * of.planes == channels + 1:
        # as OpenCV writes it
        alpha = _UNASSOCIATED
        notes.append("the fourth channel has no name: taken for alpha")
    if of.samples * of.planes > channels + (alpha is not None):
        notes.append(
            f"{of.samples * of.planes - channels - (alpha is not None)} extra channels left out"
        )
    scale = None
    if of.dtype.kind != "f" and of.dtype.itemsize == 4:
        scale, words = _measure(file, of, channels)
        notes.append(words)
    if space == "cmyk" and of.dtype.itemsize > 1:
        notes.append("deep CMYK read as 8 bits")
    return Stored(
        width=of.width,
        height=of.height,
        format="TIFF",
        space=space,
        dtype=np.dtype(np.uint8) if space == "cmyk" else _target(of.dtype),
        has_alpha=alpha is not None,
        bands=_bands(file, of, photometric, channels, alpha, scale),
        orientation=orientation,
        profile=as_bytes(profile),
        metadata=Metadata(exif=tiff_exif(file), xmp=as_bytes(xmp), dpi=dpi, iptc=iptc),
        notes=notes,
    )


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    factor = _UNITS.get(page.tags.valueof(exif.RESOLUTION_UNIT, 2))
    values = [page.tags.valueof(tag) for tag in (exif.RESOLUTION_X, exif.RESOLUTION_Y)]
    if factor is None or not all(
        isinstance(value, tuple) and len(value) == 2 and all(value) for value in values
    ):
        return None
    across, down = (factor * value[0] / value[1] for value in values)
    return (across, down)


def _target(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)


def _measure(file: BinaryIO, of: Layout, channels: int) -> tuple[tuple[int, int], str]:
    """What is black and what is white of whole numbers of 32 bits, which seldom use all of them;
    and a note.
    """
    least, largest = 0, 0
    for values in read_bands(file, of):
        least = min(least, int(values[..., :channels].min()))
        largest = max(largest, int(values[..., :channels].max()))
    info = np.iinfo(of.dtype)
    if max(largest, -least) >= _FULL or least == largest:
        return (int(info.min), int(info.max)), "32 bits read as 16"
    words = "the least is black" if least else "0 is black"
    return (
        least,
        largest,
    ), f"32-bit numbers from {least} to {largest} read as 16 bits: {words}, the largest white"


def _bands(
    file: BinaryIO,
    of: Layout,
    photometric: int,
    channels: int,
    alpha: int | None,
    scale: tuple[int, int] | None,
) -> Iterator[Band]:
    for values in read_bands(file, of):
        samples = _brought(values) if scale is None else _scaled(values, *scale)
        colors = samples[..., :channels]
        opacity = None if alpha is None else samples[..., channels]
        if opacity is not None and alpha == _ASSOCIATED:
            colors = _unmultiplied(colors, opacity)
        if photometric == _MIN_IS_WHITE:
            colors = (1 if colors.dtype.kind == "f" else np.iinfo(colors.dtype).max) - colors
        if photometric == _SEPARATED:
            colors, opacity = (
                convert(colors, np.uint8),
                None if opacity is None else convert(opacity, np.uint8),
            )
        yield colors[..., 0] if channels == 1 else colors, opacity


def _brought(values: Pixels) -> Pixels:
    """Numbers of 8 and 16 bits and floats to uint8, uint16 or float32; of signed ones the least is
    black.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite: white
            return values.astype(np.float32, copy=False)
    if values.dtype.kind == "i":
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        values = values.view(unsigned) ^ unsigned.type(1 << (8 * values.dtype.itemsize - 1))
    return values


def _scaled(values: Pixels, least: int, largest: int) -> Pixels:
    """Whole numbers of 32 bits to uint16."""
    shifted = np.clip(values.astype(np.int64) - least, 0, largest - least)
    if largest - least == 2**32 - 1:  # bit for bit, as numbers of 16 bits were brought to 32
        return (shifted >> 16).astype(np.uint16)
    return sixteen_bits(shifted, largest - least)


def _unmultiplied(colors: Pixels, opacity: Pixels) -> Pixels:
    """Colours that were multiplied by alpha, as they were before."""
    top = 1.0 if colors.dtype.kind == "f" else float(np.iinfo(colors.dtype).max)
    share = opacity[..., None].astype(np.float32) / np.float32(top)
    with np.errstate(divide="ignore", invalid="ignore"):
        before = np.where(share > 0, colors / share, 0)
    if colors.dtype.kind == "f":
        return before.astype(np.float32)
    return np.clip(before + 0.5, 0, top).astype(colors.dtype)


def _split(of: Layout) -> Layout:
    """Cut a picture of one bare strip into small ones, or all of it would be in memory twice."""
    rows = min(of.height, max(1, _CHUNK // of.row_bytes))
    starts = range(0, of.height, rows)
    lengths = [min(rows, of.height - start) * of.row_bytes for start in starts]
    for count in of.counts[: of.planes]:
        if count < of.height * of.row_bytes:
            raise ValueError("the file is damaged: a strip is too short")
    offsets = tuple(
        of.offsets[plane] + start * of.row_bytes for plane in range(of.planes) for start in starts
    )
    values = {**vars(of), "rows": rows, "offsets": offsets, "counts": tuple(lengths * of.planes)}
    return Layout(**values)


def _bytes(file: BinaryIO, of: Layout, first: int, count: int, rows: int) -> Pixels:
    """Decode segments that lie below each other: uint8 (rows, row_bytes)."""
    blobs = []
    for index in range(first, first + count):
        file.seek(of.offsets[index])
        blob = file.read(of.counts[index])
        blobs.append(blob.translate(_MIRRORED) if of.mirrored else blob)
        if len(blobs[-1]) < of.counts[index] or not blobs[-1]:
            raise ValueError("the file is cut off")
    if of.compression == _NONE:
        size = of.rows * of.row_bytes
        joined = b"".join(blob[:size] for blob in blobs)
        if len(joined) < rows * of.row_bytes:
            raise ValueError("the file is cut off")
        return np.frombuffer(joined, np.uint8, rows * of.row_bytes).reshape(rows, of.row_bytes)
    with (
        stderr_closed(),
        Image.open(io.BytesIO(_wrapped(of, blobs, rows)), formats=("TIFF",)) as image,
    ):
        return np.asarray(image)


def _wrapped(of: Layout, blobs: list[bytes], rows: int) -> bytes:
    """A TIFF file in memory that says of the strips: gray bytes, compressed like this."""
    count = len(blobs)
    sizes = [len(blob) for blob in blobs]
    start = 8 + 2 + 10 * 12 + 4  # behind the directory
    begin = start + 8 * count
    offsets = list(itertools.accumulate(sizes[:-1], initial=begin))
    long_tags = {256: of.row_bytes, 257: rows, 278: of.rows}
    short_tags = {258: 8, 259: of.compression, 262: 1, 277: 1, 284: 1}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in long_tags.items()]
    entries += [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short_tags.items()]
    for tag, values, place in ((273, offsets, start), (279, sizes, start + 4 * count)):
        entries.append(struct.pack("<HHII", tag, 4, count, values[0] if count == 1 else place))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    tables = struct.pack(f"<{count}I{count}I", *offsets, *sizes)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"".join((b"II*\0\x08\0\0\0", directory, tables, *blobs))


def _values(rows: Pixels, of: Layout) -> Pixels:
    """Undo the predictor: from bytes to samples (n, columns, samples) in the machine's byte order."""
    native = of.dtype.newbyteorder("=")
    if of.predictor == 3 and of.dtype.kind == "f":
        sums = np.cumsum(rows.reshape(len(rows), -1, of.samples), axis=1, dtype=np.uint8)
        # Of a row, first come the highest bytes of all samples, whatever the file's byte order.
        bytes_ = sums.reshape(len(rows), of.dtype.itemsize, -1).swapaxes(1, 2)
        values = np.ascontiguousarray(bytes_).view(of.dtype.newbyteorder(">"))
        return values.reshape(len(rows), of.columns, of.samples).astype(native)
    values = np.ascontiguousarray(rows).view(of.dtype).reshape(len(rows), of.columns, of.samples)
    if of.predictor == 2:
        # Sums wrap around; those of floats are of their bits.
        whole = np.dtype(f"u{of.dtype.itemsize}")
        return np.cumsum(values.astype(native, copy=False).view(whole), axis=1, dtype=whole).view(
            native
        )
    if of.predictor != 1:
        raise ValueError(f"TIFF predictor {of.predictor} is not supported")
    return values.astype(native, copy=False)


def _captions(resources: bytes) -> dict[int, exif.Field]:
    """The IPTC record stands twice: each of its two places is the only one that some readers know."""
    fields = {captions.RESOURCES_TAG: exif.Field(exif.BYTE, resources)}
    record = captions.record(resources)
    if record is not None:
        fields[captions.RECORD_TAG] = exif.Field(exif.UNDEFINED, record)
    return fields


def _even(stream: IO[bytes]) -> int:
    """Go on to the next even place, as directories want it."""
    if stream.tell() % 2:
        stream.write(b"\0")
    return stream.tell()


def _write_pixels(
    stream: IO[bytes],
    rgb: Pixels,
    alpha: Pixels | None,
    dtype: DTypeLike,
    order: Literal["<", ">"],
) -> tuple[int, list[int], list[int]]:
    """Write the strips; returns rows in a strip, and the offsets and sizes of the strips."""
    rows, offsets, sizes = 0, [], []
    level = _FLOAT_LEVEL if np.dtype(dtype).kind == "f" else _LEVEL
    for _, strip in strips(rgb, alpha, dtype, size=STRIP):
        if strip.dtype.kind != "f":
            # Differences of neighbours; for floats few readers know the like.
            strip = np.concatenate((strip[:, :1], strip[:, 1:] - strip[:, :-1]), axis=1)
        piece = zlib.compress(
            strip.astype(strip.dtype.newbyteorder(order), copy=False).tobytes(), level
        )
        rows = max(rows, len(strip))
        offsets.append(stream.tell())
        sizes.append(len(piece))
        stream.write(piece)
    return rows, offsets, sizes


def _describe(
    block: exif.Block, shape: tuple[int, int, int], dtype: np.dtype[Any], rows: int
) -> None:
    """Set the fields that say how the pixels are stored."""
    height, width, channels = shape
    is_float = dtype.kind == "f"
    fields = {
        256: block.numbers(exif.LONG, width),
        257: block.numbers(exif.LONG, height),
        258: block.numbers(exif.SHORT, *[8 * dtype.itemsize] * channels),
        259: block.numbers(exif.SHORT, 8),  # deflate
        262: block.numbers(exif.SHORT, 2),  # RGB
        277: block.numbers(exif.SHORT, channels),
        278: block.numbers(exif.LONG, rows),
        284: block.numbers(exif.SHORT, 1),  # the samples of a pixel lie together
        339: block.numbers(exif.SHORT, *[3 if is_float else 1] * channels),
    }
    if not is_float:
        fields[317] = block.numbers(exif.SHORT, 2)
    if channels == 4:
        fields[338] = block.numbers(exif.SHORT, 2)  # alpha that the colours are not multiplied by
    block.top.fields |= fields
