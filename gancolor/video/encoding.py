"""The containers that films are written to, and the way round by which Matroska gets the sound of
Windows.

How a film is encoded: codecs, their quality and effort, and which file holds which.

Which files are films: told by their first bytes and FFmpeg's look at them, not by a list of names
alone.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from gancolor.errors import ConfigError, GancolorError, MissingExtra
from gancolor.runtime.files import fitted
from gancolor.video.opening import HEAD, address, film_stream, is_transport, load_av, opened

if TYPE_CHECKING:
    from av.container import OutputContainer


FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".avi": "avi",
    ".webm": "webm",
}
REPEATABLE = "+bitexact"  # no random numbers and no version of FFmpeg in the file

_KEPT: dict[str, Any] = {"metadata_errors": "surrogateescape"}


@contextmanager
def open_output(
    path: Path, kind: str, options: Mapping[str, str], *, teed: bool
) -> Iterator[OutputContainer]:
    """Open a container of this `kind` to write, with the muxer's `options`; `teed`: through
    FFmpeg's `tee`.
    """
    av, options = load_av(), {"fflags": REPEATABLE, **options}
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
    """A container that is written to nowhere."""
    av = load_av()
    if teed:
        output = av.open(
            _tee_address(kind, address(Path(os.devnull)), f"fflags={REPEATABLE}"), "w", format="tee"
        )
    else:
        output = av.open(io.BytesIO(), "w", format=kind, **_KEPT)
    try:
        yield output
    finally:
        _close_quietly(output)


def _tee_address(kind: str, path: str, options: str) -> str:
    """Return the name under which FFmpeg's `tee` writes one file."""
    escaped = "".join(f"\\{letter}" if letter in "\\'|[] \t" else letter for letter in path)
    return f"[f={kind}:{options}]{escaped}"


def _close_quietly(output: OutputContainer) -> None:
    with suppress(Exception):
        output.close()


X26_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
NUMBERS = {"libsvtav1": 13, "libvpx-vp9": 8}  # presets are whole numbers from 0 (slow) to this
AVX2, AVX_512F = 11, 13  # OpenCV's numbers of what a processor can do


@dataclass(frozen=True)
class Codec:
    """`quality`: the default, visually lossless, out of 0..`worst` (0 is best); None where there is
    nothing to choose. `preset`: the default effort.
    """

    quality: int | None
    worst: int
    preset: str | None


CODECS = {
    "libx264": Codec(17, 51, "faster"),
    "libx265": Codec(18, 51, "fast"),
    "libsvtav1": Codec(20, 63, "7"),
    "libvpx-vp9": Codec(18, 63, "5"),
    "ffv1": Codec(None, 0, None),
    "prores_ks": Codec(None, 0, None),
}
CONTAINERS = {
    ".mp4": ("libx264", "libx265", "libsvtav1", "libvpx-vp9"),
    ".m4v": ("libx264", "libx265"),
    ".mov": ("libx264", "libx265", "prores_ks"),
    ".mkv": ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks"),
    ".avi": ("libx264", "ffv1"),
    ".webm": ("libvpx-vp9", "libsvtav1"),
}
"""Suffixes of the films that can be written, with their codecs, what "auto" takes first."""


@dataclass(frozen=True)
class Encoding:
    """Settings of the encoder. ConfigError if a value is unknown to the codec.

    `codec`: a name of CODECS, or auto: by the file (see CONTAINERS). `quality`: the codec's
    constant rate factor, lower is better; None is visually lossless. `preset`: effort, of libx264
    and libx265 a word from ultrafast to veryslow, of libsvtav1 and libvpx-vp9 a number; None is the
    default. `reordered`: frames may be stored out of order, which is smaller (`resolved` turns it
    off for AVI, which has no times for it).
    """

    codec: str = "auto"
    quality: int | None = None
    preset: str | None = None
    reordered: bool = True

    def __post_init__(self) -> None:
        if self.codec == "auto":
            return
        if self.codec not in CODECS:
            raise ConfigError(f"codec must be one of auto {' '.join(CODECS)}, got {self.codec}")
        codec = CODECS[self.codec]
        if self.quality is not None:
            if codec.quality is None:
                raise ConfigError(
                    f"quality of {self.codec} cannot be chosen, got {self.quality}; leave it out"
                )
            if not 0 <= self.quality <= codec.worst:
                raise ConfigError(
                    f"quality of {self.codec} must be 0 (best) to {codec.worst}, got"
                    f" {self.quality}; {codec.quality} is visually lossless"
                )
        if self.preset is not None:
            self._check_preset(codec)

    def _check_preset(self, codec: Codec) -> None:
        if codec.preset is None:
            raise ConfigError(
                f"preset of {self.codec} cannot be chosen, got {self.preset}; leave it out"
            )
        most = NUMBERS.get(self.codec)
        known = (
            [str(number) for number in range(most + 1)] if most is not None else list(X26_PRESETS)
        )
        if self.preset not in known:
            raise ConfigError(
                f"preset of {self.codec} must be one of {' '.join(known)}, got {self.preset}"
            )

    @property
    def complete(self) -> bool:
        """Whether everything is chosen, as `resolved` does it."""
        codec = CODECS.get(self.codec)
        return codec is not None and all(
            (chosen is None) == (default is None)
            for chosen, default in ((self.quality, codec.quality), (self.preset, codec.preset))
        )

    def resolved(self, target: str | Path) -> Encoding:
        """Return the settings for a file, its codec chosen if it was auto, everything filled in.

        ConfigError if the suffix is unknown or its files do not hold the codec.
        """
        suffix = Path(target).suffix.lower()
        if suffix not in CONTAINERS:
            raise ConfigError(
                f"suffix of a film must be one of {' '.join(CONTAINERS)}, got"
                f" {suffix or Path(target).name}; rename the output"
            )
        held = CONTAINERS[suffix]
        name = held[0] if self.codec == "auto" else self.codec
        if name not in held:
            raise ConfigError(
                f"codec of a {suffix} file must be one of auto {' '.join(held)}, got {name}"
            )
        codec = CODECS[name]
        chosen = replace(self, codec=name)  # checks quality and preset against it
        quality = codec.quality if self.quality is None else self.quality
        return replace(
            chosen,
            quality=quality,
            preset=self.preset or codec.preset,
            reordered=self.reordered and suffix != ".avi",
        )

    def options(self) -> dict[str, str]:
        """Return the codec's options as FFmpeg names them; `resolved` must have chosen the codec."""
        crf = {} if self.quality is None else {"crf": str(self.quality)}
        frames = {} if self.reordered else {"bf": "0"}
        preset = self.preset or ""
        if self.codec == "libx264":
            return crf | frames | {"preset": preset} | _repeatable()
        if self.codec == "libx265":
            return crf | frames | {"preset": preset, "x265-params": "log-level=none"}
        if self.codec == "libsvtav1":
            return crf | {"preset": preset}
        if self.codec == "libvpx-vp9":
            return crf | {"b": "0", "deadline": "good", "cpu-used": preset, "row-mt": "1"}
        if self.codec == "ffv1":
            return {"level": "3", "slicecrc": "1", "g": "1"}
        return {"profile": "3", "vendor": "apl0"}


def timed(width: int, height: int, rate: Fraction) -> dict[str, str]:
    """Return options by which libx264 writes each frame's time into its stream too (HRD), for AVI,
    which holds none.

    Without, FFmpeg may guess for H.264 in an AVI that frames are shown one later than they are
    decoded. They need a bound on the bit rate: 2 bits a pixel, 1 for large films, several times
    what visually lossless films take.
    """
    pixels = round(width * height * rate)
    # 60 million bits a second is what most players' H.264 ends at (level 4.1).
    most = str(min(240_000_000, max(10_000_000, pixels, min(2 * pixels, 60_000_000))))
    return {"nal-hrd": "vbr", "maxrate": most, "bufsize": most}


def _repeatable() -> dict[str, str]:
    """Return options by which libx264 gives the same stream each time: its code for AVX-512 does
    not.

    Measured on a film of 432x320: 8 encodings gave 5 streams, up to 24 levels apart; without it 10
    gave one, as fast.
    """
    both = all(cv2.checkHardwareSupport(feature) for feature in (AVX2, AVX_512F))
    return {"x264-params": "asm=avx2,fma3,bmi2"} if both else {}


def film_suffix(source: str | Path) -> str:
    """Return the suffix of the output for a film: its own as it is spelt if such files can be
    written, else .mkv.
    """
    suffix = Path(source).suffix
    return suffix if suffix.lower() in CONTAINERS else ".mkv"


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
    (
        ".ts",
        ".mts",
        ".mod",
        ".tod",
        ".dv",
        ".dat",
        ".tp",
        ".trp",
        ".m1v",
        ".m4s",
        ".ivf",
        ".gxf",
        ".amv",
    )
)
"""Suffixes of films, and of programs, music and anything: their files are known by what they hold,
as all others.
"""

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
_PICTURES = (
    b"hei",
    b"hev",
    b"mif1",
    b"msf1",
    b"avif",
    b"avis",
    b"crx ",
    b"jp",
    b"jxl",
)  # brands behind "ftyp"
_RIFF = (b"AVI ", b"AVIX", b"AMV ")


def is_film(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a film: by a suffix of `SUFFIXES`, else by what it holds; False if it
    cannot be read.

    Only what begins as films do is opened by FFmpeg. Where PyAV is missing, such a beginning is
    enough.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return False
        with path.open("rb") as file:
            begins_so = may_be_film(file.read(HEAD))
        return begins_so and _holds_film(path, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return False


def film_name(source: str | Path) -> str:
    """Return the name of the output for a film: its own, with the suffix of `film_suffix`.

    Where that is another and a file of the new name may come of another film beside it, the suffix
    is added to the whole name: of `a.mpg` and `a.mkv` come `a.mpg.mkv` and `a.mkv`.
    """
    source = Path(source)
    suffix = film_suffix(source)
    if suffix == source.suffix:
        return source.name
    others = {known for small in SUFFIXES | UNSURE for known in (small, small.upper())} - {
        source.suffix
    }
    clash = any(
        os.path.lexists(source.with_suffix(other))
        for other in others
        if film_suffix(f"film{other}").lower() == suffix
    )
    return fitted(source.name if clash else source.stem, suffix)


def may_be_film(head: bytes) -> bool:
    """Say whether a file that begins with these `HEAD` bytes may be a film."""
    if head[4:8] == b"ftyp":
        return not head[8:12].startswith(_PICTURES)
    if head[:4] in (b"RIFF", b"RIFX"):
        return head[8:12] in _RIFF
    if head.startswith(_STARTS) or head[4:8] in _BOXES or head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return True
    return is_transport(head)


@functools.lru_cache(1000)  # a folder is walked twice, for the count
def _holds_film(path: Path, *_: int) -> bool:
    try:
        with opened(path) as container:
            return bool(film_stream(container, path).width)
    except MissingExtra:
        return True
    except GancolorError:
        return False
