"""Film files: which files are films, and how one is opened to read or to write.

PyAV is imported when it is needed. Whatever cannot be read or written becomes one line for the
user.
"""

from __future__ import annotations

import errno
import functools
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gancolor.errors import DataError, GancolorError, MissingExtra, shown
from gancolor.runtime.files import read_head, stat_regular

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "mp4 m4v mov qt mkv mk3d avi divx webm mpg mpeg mpe m2v m2p vob evo m2t m2ts wmv asf flv"
        " f4v ogv ogm 3gp 3g2 mxf rm rmvb wtv nut y4m"
    ).split()
)
"""Suffixes, in lower case, of files that are surely meant as films, so that a broken one is told as
such.
"""

UNSURE = frozenset(
    f".{name}" for name in "ts mts mod tod dv dat tp trp m1v m4s ivf gxf amv".split()
)
"""Suffixes that films share with programs, music and anything: such files are known by what they
hold, as all others.
"""

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
HEAD = 1024  # bytes from a file's beginning that tell what it is
MAY_JUMP = 0x200  # AVFMT_TS_DISCONT: the clock of such a format may be set anew at any place

# FFmpeg opens lists of other files and addresses, texts and pictures too; none of them is a film.
_LISTS = frozenset({"hls", "dash", "concat", "sdp", "rtsp", "imf", "ffmetadata"})
_TEXTS = frozenset({"tty", "bin", "srt", "webvtt", "ass", "lrc", "mpl2"})
_PICTURES = frozenset({"image2", "ico", "apng", "fits", "dds", "avif"})

_SYNCS = b"\x47" * 4  # the first bytes of four packets of a transport stream
_SHORT = 1 << 16  # bytes below which FFmpeg takes a transport stream for something else
_GENERATE_TIMES = 1  # AVFMT_FLAG_GENPTS
_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_REPEATABLE = "+bitexact"  # no random numbers and no version of FFmpeg in the file
_KEPT: dict[str, Any] = {"metadata_errors": "surrogateescape"}

_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska and WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    b"\0\0\1\xba",  # MPEG programme streams: MPG, VOB, MOD
    b"\0\0\1\xb3",  # bare MPEG-1, -2, -4, H.264, H.265
    b"\0\0\1\xb0",
    b"\0\0\1\0",
    b"\0\0\0\1",
    b"\0\0\1\x67",
    b"\x1f\x07\0",  # DV
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b".RMF",
    b"nut/multimedia",
    b"YUV4MPEG2",
    b"DKIF",
    b"\0\0\0\0\x01\xbc",  # GXF
    b"\xb7\xd8\0\x20\x37\x49\xda\x11",  # WTV
    b"SMK2",
    b"SMK4",
    b"BIK",
    b"KB2",
    b"NSVf",
)
_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # QuickTime files without "ftyp"
_RIFF = (b"AVI ", b"AVIX", b"AMV ")
# brands behind "ftyp"
_PICTURE_BRANDS = (b"hei", b"hev", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp", b"jxl")


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
    """Return the path as FFmpeg takes it.

    Without `file:`, FFmpeg would read a colon in the name as the end of a protocol.
    """
    return f"file:{path}"


def unreadable(path: Path, reason: str) -> DataError:
    """Return the error for a film that cannot be read."""
    return DataError(f"film must be readable, got {shown(path)}: {' '.join(reason.split())}")


def unwritable(path: Path, reason: str) -> DataError:
    """Return the error for a film that cannot be written."""
    return DataError(f"film must be writable, got {shown(path)}: {' '.join(reason.split())}")


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


def is_film(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a film: by a suffix of `SUFFIXES`, else by what it holds.

    Only what begins as films do is opened by FFmpeg; where PyAV is missing, such a beginning is
    enough. False for a file that cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        status = stat_regular(path)
    except OSError:
        return False
    begins_so = may_be_film(read_head(path, HEAD))
    return begins_so and _holds_film(path, status.st_size, status.st_mtime_ns)


def may_be_film(head: bytes) -> bool:
    """Say whether a file that begins with these `HEAD` bytes may be a film."""
    if head[4:8] == b"ftyp":
        return not head[8:12].startswith(_PICTURE_BRANDS)
    if head[:4] in (b"RIFF", b"RIFX"):
        return head[8:12] in _RIFF
    if head.startswith(_STARTS) or head[4:8] in _BOXES or head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return True
    return _is_transport(head)


def _is_transport(head: bytes) -> bool:
    """Say whether a file of this head (see `HEAD`) is a transport stream (TS, MTS, M2TS)."""
    return any(
        head[at : at + 3 * length + 1 : length] == _SYNCS
        for length in (188, 192, 204)
        for at in range(length)
    )


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a film for reading.

    DataError if it is missing, empty, cut off, no film, or may not be read.
    """
    av = load_av()
    head = _look(path)
    kind = "mpegts" if _is_transport(head) and path.stat().st_size < _SHORT else None
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
        raise unreadable(path, _why(head, error)) from error
    with container:
        kinds = set(container.format.name.split(","))
        if kinds & (_LISTS | _TEXTS):
            raise unreadable(path, "it is text, no film")
        if kinds & _PICTURES or any(kind.endswith("_pipe") for kind in kinds):
            raise unreadable(path, "it is a picture, no film")
        # An AVI holds no times of display, and FFmpeg's guess for these codecs is one frame late;
        # where a clock is set anew, it guesses from what lies on the other side.
        late = "avi" in kinds and any(_is_reordered(stream) for stream in container.streams.video)
        if late or container.format.flags & MAY_JUMP:
            container.flags &= ~_GENERATE_TIMES
        yield container


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that counts, which is never a cover picture.

    DataError if there is none or nothing decodes it.
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
    """Say whether a file tells when its frames are shown.

    AVI and bare streams do not: their frames must be counted from the start. FFmpeg seeks in them
    by guessing, and the times that it then gives to frames which are shown in another order than
    they are stored in (B-frames) are wrong by any number of frames.
    """
    return "avi" not in container.format.name.split(",") and not container.format.flags & _NO_TIMES


def hides_alpha(stream: VideoStream) -> bool:
    """Say whether a stream's alpha is a second picture beside the first.

    VP8 and VP9 keep it so, and only libvpx decodes it (see `ALPHA_DECODERS`).
    """
    said = {key.lower(): value for key, value in stream.metadata.items()}
    return stream.codec_context.name in ALPHA_DECODERS and said.get("alpha_mode") == "1"


def is_cover(stream: VideoStream) -> bool:
    """Say whether a video stream is one picture that goes with the file, like an album's cover."""
    return bool(int(stream.disposition) & _ATTACHED_PICTURE)


@contextmanager
def open_output(
    path: Path, kind: str, options: Mapping[str, str], *, teed: bool
) -> Iterator[OutputContainer]:
    """Open a container of this `kind` (FFmpeg's name of the format) to write.

    `options` are the muxer's. `teed`: write through FFmpeg's `tee`, see `companions.is_teed`.
    """
    av, options = load_av(), {"fflags": _REPEATABLE, **options}
    if teed:
        said = ":".join(f"{key}={value}" for key, value in options.items())
        output = av.open(_tee_address(kind, address(path), said), "w", format="tee", **_KEPT)
    else:
        output = av.open(address(path), "w", format=kind, container_options=dict(options), **_KEPT)
    try:
        yield output
    finally:
        _close_quietly(output)


@contextmanager
def trial(kind: str, *, teed: bool = False) -> Iterator[OutputContainer]:
    """Open a container of this `kind` whose content goes nowhere, to try what it can hold."""
    av = load_av()
    if teed:
        output = av.open(
            _tee_address(kind, address(Path(os.devnull)), f"fflags={_REPEATABLE}"),
            "w",
            format="tee",
        )
    else:
        output = av.open(io.BytesIO(), "w", format=kind, **_KEPT)
    try:
        yield output
    finally:
        _close_quietly(output)


@functools.lru_cache(1000)  # a folder is walked twice: first to count its files
def _holds_film(path: Path, *_: int) -> bool:
    """Say whether FFmpeg finds a video stream in a file; the numbers tell its state from others."""
    try:
        with opened(path) as container:
            return bool(film_stream(container, path).width)
    except MissingExtra:
        return True
    except GancolorError:
        return False


def _is_reordered(stream: VideoStream) -> bool:
    """Say whether a stream's frames may be stored in another order than they are shown in."""
    context = getattr(stream, "codec_context", None)
    return context is not None and context.name in ("h264", "hevc")


def _look(path: Path) -> bytes:
    """Return a file's first bytes.

    DataError with the system's reason if there are none, which is plainer than FFmpeg's.
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


def _why(head: bytes, error: Exception) -> str:
    """Return the reason why FFmpeg did not open a file that begins with `head`."""
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return (
            "it is cut off or damaged: its table of frames, which is at the end of such files,"
            " cannot be read"
        )
    if isinstance(error, EOFError):
        return "it holds no frames or is cut off"
    if head.startswith(b"#EXT"):
        return "it is a list of files, no film"
    if head.startswith((b"\x1aE\xdf\xa3", b"RIFF")):
        return "it is damaged or cut off"
    return "it is no film that FFmpeg knows, or damaged"


def _tee_address(kind: str, path: str, options: str) -> str:
    """Return the address by which FFmpeg's `tee` writes one file."""
    escaped = "".join(f"\\{letter}" if letter in "\\'|[] \t" else letter for letter in path)
    return f"[f={kind}:{options}]{escaped}"


def _close_quietly(output: OutputContainer) -> None:
    with suppress(Exception):
        output.close()
