"""Which files are films: told by their first bytes and FFmpeg's look at them, not by a list of names alone."""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path

from gancolor.errors import GancolorError, MissingExtra
from gancolor.files import fitted
from gancolor.video.encoding import film_suffix
from gancolor.video.opening import HEAD, film_stream, is_transport, opened

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "mp4 m4v mov qt mkv mk3d avi divx webm mpg mpeg mpe m2v m2p vob evo m2t m2ts wmv asf flv f4v ogv ogm 3gp 3g2 "
        "mxf rm rmvb wtv nut y4m"
    ).split()
)
"""Suffixes, in lower case, of files that are surely meant as films, so that a broken one is told as such."""

UNSURE = frozenset(
    (".ts", ".mts", ".mod", ".tod", ".dv", ".dat", ".tp", ".trp", ".m1v", ".m4s", ".ivf", ".gxf", ".amv")
)
"""Suffixes of films, and of programs, music and anything: their files are known by what they hold, as all others."""

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
_PICTURES = (b"hei", b"hev", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp", b"jxl")  # brands behind "ftyp"
_RIFF = (b"AVI ", b"AVIX", b"AMV ")


def is_film(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a film: by a suffix of `SUFFIXES`, else by what it holds; False if it cannot be read.

    Only what begins as films do is opened by FFmpeg. Where PyAV is missing, such a beginning is enough.
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

    Where that is another and a file of the new name may come of another film beside it, the suffix is added to the
    whole name: of `a.mpg` and `a.mkv` come `a.mpg.mkv` and `a.mkv`.
    """
    source = Path(source)
    suffix = film_suffix(source)
    if suffix == source.suffix:
        return source.name
    others = {known for small in SUFFIXES | UNSURE for known in (small, small.upper())} - {source.suffix}
    clash = any(
        os.path.lexists(source.with_suffix(other)) for other in others if film_suffix(f"film{other}").lower() == suffix
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
