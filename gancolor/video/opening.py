"""Opening films: PyAV when it is there, and one line for the user where a film cannot be read or
written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gancolor.errors import DataError, MissingExtra, shown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# A list of other files or addresses is not followed, and text is no film although FFmpeg can draw
# it.
LISTS = frozenset({"hls", "dash", "concat", "sdp", "rtsp", "imf", "ffmetadata"})
TEXTS = frozenset({"tty", "bin", "srt", "webvtt", "ass", "lrc", "mpl2"})
PICTURES = frozenset({"image2", "ico", "apng", "fits", "dds", "avif"})

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
HEAD = 1024  # bytes that tell what a file is
SYNC = 0x47  # the first byte of each packet of a transport stream
SHORT = 1 << 16  # bytes below which FFmpeg takes one for something else
GENERATE_TIMES = 1  # AVFMT_FLAG_GENPTS
NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS
MAY_JUMP = 0x200  # AVFMT_TS_DISCONT: the clock of such a format may be set anew at any place


def load_av() -> ModuleType:
    """Import PyAV; MissingExtra holds the line that installs it."""
    os.environ.setdefault("SVT_LOG", "1")  # its AV1 encoder would report on stderr
    try:
        import av
    except ImportError as error:
        raise MissingExtra(
            "films need PyAV, which is not installed; run: pip install 'gancolor[video]'"
        ) from error
    return av


def address(path: Path) -> str:
    """Return the path as FFmpeg takes it: without `file:`, a colon in a name would be read as a
    protocol.
    """
    return f"file:{path}"


def unreadable(path: Path, reason: str) -> DataError:
    """Return the error for a film that cannot be read."""
    return DataError(f"film must be readable, got {shown(path)}: {' '.join(reason.split())}")


def unwritable(path: Path, reason: str) -> DataError:
    """Return the error for a film that cannot be written."""
    return DataError(f"film must be writable, got {shown(path)}: {' '.join(reason.split())}")


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a film for reading. DataError if it is missing, empty, not to be read, cut off, a
    picture or no film.
    """
    av = load_av()
    head = _look(path)
    kind = "mpegts" if is_transport(head) and path.stat().st_size < SHORT else None
    try:
        # Only this file: nothing that it names is opened, least of all over a network.
        container = av.open(
            address(path),
            format=kind,
            options={"protocol_whitelist": "file"},
            metadata_errors="surrogateescape",
            mode="r",
        )
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        raise unreadable(path, _why(path, error)) from error
    with container:
        kinds = set(container.format.name.split(","))
        if kinds & LISTS or kinds & TEXTS:
            raise unreadable(path, "it is text, no film")
        if kinds & PICTURES or any(kind.endswith("_pipe") for kind in kinds):
            raise unreadable(path, "it is a picture, no film")
        # An AVI holds no times of display, and FFmpeg's guess for these codecs is one frame late;
        # where a clock is set anew, it guesses from what lies on the other side.
        late = "avi" in kinds and any(_is_reordered(stream) for stream in container.streams.video)
        if late or container.format.flags & MAY_JUMP:
            container.flags &= ~GENERATE_TIMES
        yield container


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that counts: no cover picture. DataError if there is none or nothing
    decodes it.
    """
    found = [stream for stream in container.streams.video if not is_cover(stream)]
    best = container.streams.best("video")
    stream = next(
        (stream for stream in found if best is not None and stream.index == best.index), None
    )
    stream = stream or (found[0] if found else None)
    if stream is None:
        raise unreadable(path, "it holds no video stream")
    # PyAV has no context where FFmpeg has no decoder, and its types do not say so.
    if getattr(stream, "codec_context", None) is None or not stream.time_base:
        raise unreadable(path, "its video stream is in a form that FFmpeg cannot decode")
    return stream


def is_transport(head: bytes) -> bool:
    """Say whether a file that begins with these `HEAD` bytes is a transport stream (TS, MTS, M2TS)."""
    return any(
        all(
            at + number * length < len(head) and head[at + number * length] == SYNC
            for number in range(4)
        )
        for length in (188, 192, 204)
        for at in range(length)
    )


def rate_of(stream: VideoStream) -> Fraction | None:
    """Return a stream's frames a second; None if nothing is known of them.

    Where the average is the tick of the clock (raw DV), it was not measured: FFmpeg's guess is
    better. Of a few frames there is no average, and a guess may count fields.
    """
    average, guessed = stream.average_rate, stream.guessed_rate
    if (
        average
        and guessed
        and stream.time_base
        and average * stream.time_base == 1
        and guessed * 2 < average
    ):
        average = guessed
    known = (guessed, stream.base_rate, stream.codec_context.framerate)
    rate = average or min((rate for rate in known if rate), default=None)
    return Fraction(rate) if rate else None


def has_times(container: InputContainer) -> bool:
    """Say whether a file tells when its frames are shown: AVI and bare streams leave that to be
    counted from the start.

    FFmpeg seeks in them by guessing, and what it then says of frames that are shown in another
    order than they are stored in (B-frames) is wrong by any number of frames.
    """
    return "avi" not in container.format.name.split(",") and not container.format.flags & NO_TIMES


def hides_alpha(stream: VideoStream) -> bool:
    """Say whether a stream's alpha is a second picture beside the first (VP8 and VP9), which only
    libvpx decodes.
    """
    said = {key.lower(): value for key, value in stream.metadata.items()}
    return stream.codec_context.name in ALPHA_DECODERS and said.get("alpha_mode") == "1"


def is_cover(stream: VideoStream) -> bool:
    """Say whether a video stream is a picture that goes with the file, as a record's cover."""
    return bool(int(stream.disposition) & 0x400)  # AV_DISPOSITION_ATTACHED_PIC


def reason_of(error: BaseException) -> str:
    """Return an error of FFmpeg or of the system in words."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) or number in (
        errno.ENOSPC,
        errno.EIO,
        errno.EFBIG,
        errno.EACCES,
        errno.EDQUOT,
    ):
        return os.strerror(number) if number else str(error)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_reordered(stream: VideoStream) -> bool:
    context = getattr(stream, "codec_context", None)
    return context is not None and context.name in ("h264", "hevc")


def _look(path: Path) -> bytes:
    """Return a file's first bytes; raise what the system says of it before FFmpeg says it in its
    own words.
    """
    try:
        if path.is_dir():
            raise unreadable(path, "it is a folder")
        if not path.is_file() and path.exists():
            raise unreadable(path, "it is a pipe or a device")
        with path.open("rb") as file:
            head = file.read(HEAD)
        if not head:
            raise unreadable(path, "the file is empty")
        return head
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def _why(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return (
            "it is cut off or damaged: its table of frames, which is at the end of such files,"
            " cannot be read"
        )
    if isinstance(error, EOFError):
        return "it holds no frames or is cut off"
    if head[:4] == b"#EXT" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return "it is damaged or cut off" if head[:1] != b"#" else "it is a list of files, no film"
    return "it is no film that FFmpeg knows, or damaged"
