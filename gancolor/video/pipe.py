"""Films on pipes, frame by frame: raw frames and Y4M, as FFmpeg, VapourSynth and the like have them.

Y4M (YUV4MPEG2, of mjpegtools) is a line of text about the film, and before each frame a line FRAME.
Samples of more than 8 bits are 16-bit numbers, the low byte first.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import DataError, shown
from gancolor.video.film_settings import RAW_PIXELS, PipeSettings
from gancolor.video.planes import DEPTHS

_MAGIC, _FRAME = b"YUV4MPEG2", b"FRAME"
_LONGEST = 256  # bytes of a line of text: mjpegtools allows no more
_MOST_SIDE = 32767  # pixels
_UNKNOWN = 2  # AVCOL_SPC: pipes do not say the matrix
_CHROMA = {  # how many columns and rows of pixels a sample of chroma stands for
    **dict.fromkeys(("420", "420jpeg", "420mpeg2", "420paldv"), (2, 2)),
    **{"422": (2, 1), "444": (1, 1), "411": (4, 1), "440": (1, 2), "410": (4, 4)},
}
_FIELDS = {"p": None, "?": None, "t": "tff", "b": "bff", "m": "mixed"}
_LEAST_ROWS = 4  # of a frame that is taken for two fields
_NAP = 100  # milliseconds after which whoever waits for a pipe looks whether it is to stop
_GRACE = 1.0  # seconds in which a frame that is half written may be ended when all is to stop
_READ_AT_ONCE = 1 << 20  # bytes
_WRITTEN_AT_ONCE = 4096  # bytes that a pipe with room takes without waiting (PIPE_BUF)


@dataclass(frozen=True, kw_only=True)
class PipeFormat:
    """What the frames on a pipe are.

    `layout`: gray, rgb, or how chroma is sampled, such as 420. `depth`: bits of a sample. `rate`:
    frames a second. `full_range`: luma has all codes. `fields`: which field of an interlaced frame
    is shown first, "tff", "bff" or "mixed"; None where frames are shown whole. `frames`: how many
    come, where that is said. `tags`: what a Y4M header says of the rate, the fields and the pixels'
    aspect, word by word; None for raw frames.
    """

    width: int
    height: int
    layout: str
    depth: int
    full_range: bool
    rate: Fraction | None = None
    fields: str | None = None
    frames: int | None = None
    tags: tuple[str, ...] | None = None

    @property
    def color_space(self) -> int:
        """The number of the matrix in ITU-T H.273: it is not said."""
        return _UNKNOWN

    @property
    def channels(self) -> int:
        """How many numbers a pixel has in the first plane."""
        return 3 if self.layout == "rgb" else 1

    @property
    def type(self) -> np.dtype[Any]:
        """The type of a sample."""
        return np.dtype("<u2" if self.depth > 8 else "u1")

    @property
    def first_bytes(self) -> int:
        """The bytes of a frame's first plane: luma, or RGB."""
        return self.width * self.height * self.channels * self.type.itemsize

    @property
    def rest_bytes(self) -> int:
        """The bytes of a frame behind its first plane: chroma."""
        if self.layout not in _CHROMA:
            return 0
        across, down = _CHROMA[self.layout]
        return 2 * -(-self.width // across) * -(-self.height // down) * self.type.itemsize

    def words(self) -> str:
        """What a user calls it."""
        kind = {"gray": "gray", "rgb": "rgb24" if self.depth == 8 else "rgb48"}.get(
            self.layout, f"yuv{self.layout[:3]}p"
        )
        if self.depth > 8:
            kind += "le" if self.layout == "rgb" else f"{self.depth}le"
        rate = "" if self.rate is None else f", {float(self.rate):.6g} frames/s"
        span = "full" if self.full_range else "limited"
        return f"{'raw' if self.tags is None else 'Y4M'} {kind} {self.width}x{self.height}{rate}, {span} range"


class PipedFrame(NamedTuple):
    """A frame as it came: the first plane, (H, W) or (H, W, 3), and of Y4M the line before it."""

    pixels: NDArray[Any]
    tag: bytes = b"FRAME\n"


class PipeReader:
    """The frames that come on a file descriptor, one at a time: iterate over it once.

    Chroma is read and dropped. `format` is known from the start, for which a Y4M header is waited
    for. `failure`: why there are no more frames, where the end is not in order; the frames before
    it are whole. DataError for a header that is damaged or tells of what cannot be read.
    """

    def __init__(self, descriptor: int, settings: PipeSettings) -> None:
        self.failure: DataError | None = None
        self.frames = 0
        self._file = descriptor
        self._stopped = threading.Event()
        size = settings.size
        if size is None:
            self.format = _parsed(self._header(), settings.raw_range)
        else:
            layout, depth = RAW_PIXELS[settings.raw_pixels or "gray"]
            full = layout != "420" if settings.raw_range is None else settings.raw_range == "full"
            self.format = PipeFormat(
                width=size.width,
                height=size.height,
                layout=layout,
                depth=depth,
                full_range=full,
                rate=size.rate,
            )

    def stop(self) -> None:
        """Let the iteration end soon, also where it waits for a frame."""
        self._stopped.set()

    def __iter__(self) -> Iterator[PipedFrame]:
        form = self.format
        shape = (form.height, form.width, 3)[: 3 if form.layout == "rgb" else 2]
        rest = memoryview(bytearray(form.rest_bytes))
        try:
            while not self._stopped.is_set():
                tag = b"" if form.tags is None else self._tag()
                if tag is None:
                    return
                plane = bytearray(form.first_bytes)
                got = self._fill(memoryview(plane))
                if got == len(plane):
                    got += self._fill(rest)
                if got == 0 and not tag:
                    return
                if self.frames == 0 and not tag and plane.startswith(_MAGIC + b" W"):
                    raise DataError("standard input holds Y4M, not raw frames; say --raw y4m")
                if got < len(plane) + len(rest):
                    self._check_whole(got, len(plane) + len(rest))
                    return
                pixels = np.frombuffer(plane, form.type).reshape(shape)
                if form.depth % 8 and int(pixels.max()) >> form.depth:
                    raise DataError(
                        f"standard input must hold samples of {form.depth} bits, low byte first,"
                        f" got {int(pixels.max())} in frame {self.frames + 1}; check what writes it"
                    )
                self.frames += 1
                yield PipedFrame(pixels, tag or b"FRAME\n")
        except DataError as error:
            self.failure = error

    def _check_whole(self, got: int, size: int) -> None:
        """Raise a DataError: the input ends in the middle of a frame. Not where all is to stop."""
        if self._stopped.is_set():
            return
        advice = (
            "check --raw and --raw-pixels, and the program that writes it"
            if self.format.tags is None
            else "look at the program that writes it"
        )
        raise DataError(
            f"standard input must end after a whole frame, got {got:,} of {size:,} bytes of frame"
            f" {self.frames + 1}; {advice}"
        )

    def _header(self) -> bytes:
        """The first line of a Y4M film. DataError for anything else."""
        line = self._line(len(_MAGIC))
        if not line:
            raise DataError("standard input must hold a Y4M film, got nothing")
        if not line.startswith(_MAGIC) or line[len(_MAGIC) : len(_MAGIC) + 1] not in (b" ", b"\n"):
            raise DataError(
                "standard input must begin with YUV4MPEG2, as Y4M does, got"
                f" {_quoted(line)}; for raw frames say --raw WIDTHxHEIGHT"
            )
        if not line.endswith(b"\n"):
            raise DataError(
                f"a Y4M header must be a line of at most {_LONGEST} bytes, got one without an end"
            )
        return line

    def _tag(self) -> bytes | None:
        """The line before a frame of Y4M; None at the end. DataError for anything else."""
        line = self._line(len(_FRAME) + 1)
        if not line or self._stopped.is_set():
            return None
        if _FRAME.startswith(line):
            self._check_whole(0, self.format.first_bytes + self.format.rest_bytes)
        if not re.fullmatch(rb"FRAME( [^\n]*)?\n", line):
            raise DataError(
                f"frame {self.frames + 1} on standard input must begin with FRAME, as those of Y4M"
                f" do, got {_quoted(line)}; the film is damaged there, or frames have another size"
            )
        return line

    def _line(self, least: int) -> bytes:
        """A line of text with its end, which has at least so many bytes; shorter at the end of the
        input, and without an end if it is too long.
        """
        line = bytearray(least)
        del line[self._fill(memoryview(line)) :]
        if len(line) < least or b"\n" in line or not line.startswith((_MAGIC, _FRAME)):
            return bytes(line)
        letter = bytearray(1)
        while len(line) < _LONGEST and not line.endswith(b"\n") and self._fill(memoryview(letter)):
            line += letter
        return bytes(line)

    def _fill(self, view: memoryview) -> int:
        """Read until `view` is full; returns how many bytes came before the end of the input."""
        done = 0
        while done < len(view):
            if not _ready(self._file, self._stopped):
                break
            try:
                part = os.read(self._file, min(len(view) - done, _READ_AT_ONCE))
            except OSError as error:
                raise DataError(
                    f"standard input must be readable, got an error ({error.strerror})"
                ) from error
            if not part:
                break
            view[done : done + len(part)] = part
            done += len(part)
        return done


class PipeWriter:
    """Writes frames to a file descriptor. DataError where that cannot be, also when nobody reads
    them any more.

    `frames`: how many were written as a whole.
    """

    def __init__(self, descriptor: int, form: PipeFormat) -> None:
        self.format, self.frames = form, 0
        self._file = descriptor
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let a write that waits for its reader end soon: the frame is ended if the reader takes it."""
        self._stopped.set()

    def write(self, planes: Sequence[NDArray[Any]], tag: bytes = b"FRAME\n") -> None:
        """Write a frame: its planes, and for Y4M the line before it, the header before the first."""
        if self.format.tags is not None:
            if self.frames == 0:
                self._send(_header_of(self.format))
            self._send(tag)
        for plane in planes:
            self._send(np.ascontiguousarray(plane, self.format.type))
        self.frames += 1

    def _send(self, data: bytes | NDArray[Any]) -> None:
        view = memoryview(data if isinstance(data, bytes) else data.data).cast("B")
        try:
            while view:
                if not _ready(self._file, self._stopped, write=True):
                    raise DataError("standard output must be read, got a reader that waits")
                view = view[os.write(self._file, view[:_WRITTEN_AT_ONCE]) :]
        except BrokenPipeError:
            raise DataError(
                "standard output must be read to the end, got closed after"
                f" {self.frames} frame{'s' * (self.frames != 1)}; look at the program that reads it"
            ) from None
        except OSError as error:
            raise DataError(
                f"standard output must be writable, got an error ({error.strerror}) after"
                f" {self.frames} frame{'s' * (self.frames != 1)}"
            ) from error


def written_format(read: PipeFormat, settings: PipeSettings) -> PipeFormat:
    """What goes out for frames that come in: Y4M and planar YUV as they came, and RGB for gray and
    RGB, unless `settings` say otherwise.
    """
    out = settings.raw_out
    if out is None:
        out = "y4m" if read.tags is not None else "yuv" if read.layout == "420" else "rgb"
    tags = None
    if out == "y4m":
        rate = read.rate
        tags = read.tags
        if tags is None:
            assert rate is not None  # `PipeSettings` asks for it
            tags = (f"F{rate.numerator}:{rate.denominator}", "Ip", "A0:0")
    layout = "rgb" if out == "rgb" else "420"
    full = read.full_range or layout == "rgb"
    return PipeFormat(
        width=read.width,
        height=read.height,
        layout=layout,
        depth=16 if out == "rgb" and read.depth > 8 else read.depth,
        full_range=full,
        rate=read.rate,
        fields=read.fields,
        tags=tags,
    )


def _header_of(form: PipeFormat) -> bytes:
    """The header of a Y4M film of 4:2:0, whose chroma lies in the middle of four pixels."""
    kind = "420jpeg" if form.depth == 8 else f"420p{form.depth}"
    span = "FULL" if form.full_range else "LIMITED"
    tags = " ".join((f"W{form.width}", f"H{form.height}", *(form.tags or ())))
    return f"YUV4MPEG2 {tags} C{kind} XCOLORRANGE={span}\n".encode("ascii")


def _parsed(line: bytes, value_range: str | None) -> PipeFormat:
    """Read a Y4M header. DataError for one that is damaged or tells of what cannot be coloured."""
    found = dict[str, str]()
    for word in line.split()[1:]:
        text = word.decode("ascii", "backslashreplace")
        found["XCOLORRANGE" if text.startswith("XCOLORRANGE=") else text[0]] = text
        if text.startswith("XLENGTH="):
            found["length"] = text
    sides = [_number(found, side) for side in "WH"]
    rate, fields = _ratio(found, "F"), found.get("I", "Ip")
    _ratio(found, "A")
    if fields[1:] not in _FIELDS:
        raise DataError(f"a Y4M header must say Ip, It, Ib or Im, got {shown(fields)}")
    layout, depth = _layout(found.get("C", "C420jpeg")[1:])
    said = found.get("XCOLORRANGE", "").partition("=")[2].lower()
    if said not in ("", "limited", "full"):
        raise DataError(f"a Y4M header must say LIMITED or FULL, got {shown(said)}")
    if said and value_range not in (None, said):
        raise DataError(
            f"--raw-range must be left out or be {said}, as the Y4M header says, got {value_range}"
        )
    said = said or value_range or ("full" if layout == "gray" else "limited")
    length = found.get("length", "").partition("=")[2]
    return PipeFormat(
        width=sides[0],
        height=sides[1],
        layout=layout,
        depth=depth,
        full_range=said == "full",
        rate=rate,
        fields=_FIELDS[fields[1:]] if sides[1] >= _LEAST_ROWS else None,
        frames=int(length) if re.fullmatch("[0-9]{1,9}", length) else None,
        tags=tuple(found[letter] for letter in "FIA" if letter in found),
    )


def _number(found: dict[str, str], letter: str) -> int:
    """A side of the frames in pixels."""
    word = found.get(letter, "")
    if not re.fullmatch("[WH][0-9]{1,9}", word) or not 0 < int(word[1:]) <= _MOST_SIDE:
        raise DataError(
            f"a Y4M header must say {letter}1 to {letter}{_MOST_SIDE}, got {shown(word) or 'none'}"
        )
    return int(word[1:])


def _ratio(found: dict[str, str], letter: str) -> Fraction | None:
    """The rate, or the pixels' aspect; None where it is not known."""
    word = found.get(letter)
    if word is None:
        return None
    ratio = re.fullmatch("[FA]([0-9]{1,10}):([0-9]{1,10})", word)
    if ratio is None:
        example = {"F": "F25:1", "A": "A1:1"}[letter]
        raise DataError(f"a Y4M header must say it as in {example}, got {shown(word)}")
    over, under = int(ratio[1]), int(ratio[2])
    return Fraction(over, under) if over and under else None


def _layout(name: str) -> tuple[str, int]:
    """How the samples lie, and their bits, by Y4M's name. DataError for what cannot be read."""
    found = re.fullmatch("(mono|[0-9]{3}(?:jpeg|mpeg2|paldv)?)(?:p?([0-9]{1,2}))?", name)
    layout, depth = (found[1], int(found[2] or 8)) if found else ("", 0)
    if (layout != "mono" and layout not in _CHROMA) or depth not in DEPTHS:
        raise DataError(
            "a Y4M film must be mono or 420, 422, 444, 411, 440 or 410 of 8, 9, 10, 12, 14 or 16 bits, without"
            f" transparency, got {shown(name) or 'none'}; convert it before (FFmpeg: -pix_fmt"
            " yuv420p)"
        )
    return ("gray" if layout == "mono" else layout), depth


def _quoted(line: bytes) -> str:
    """The beginning of what came, for a message."""
    return repr(line[:40].decode("ascii", "backslashreplace")) if line else "nothing"


def _ready(file: int, stopped: threading.Event, *, write: bool = False) -> bool:
    """Wait until a pipe has something, or room to `write`; False when all is to stop instead."""
    if not hasattr(select, "poll"):  # Windows: reading and writing wait by themselves
        return not stopped.is_set()
    poll, since = select.poll(), time.monotonic()
    poll.register(file, select.POLLOUT if write else select.POLLIN)
    while not poll.poll(_NAP):
        if not stopped.is_set():
            since = time.monotonic()
        elif not write or time.monotonic() - since > _GRACE:
            return False
    return True
