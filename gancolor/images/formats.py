"""The one table of picture kinds: how each is told by its content, its suffixes, and whether it can
be read.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gancolor.errors import shown

HEAD = 64
"""Bytes of a file's start that tell its kind."""

_NAMED = 12  # suffixes in a line
RAW_ADVICE = "pip install 'gancolor[raw]', or develop it to a TIFF file first"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of picture.

    `name`: in lower case, as in manifests and journals. `title`: for messages and
    `Photograph.format`. `suffixes`: the first one is the usual. `readable`: by sampling, preparing
    and training alike. `advice`: what to do with a kind that is not.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    readable: bool = True
    advice: str = "convert it to PNG or TIFF first"


def _kinds() -> dict[str, Kind]:
    readable = {
        "jpeg": ("JPEG", ".jpg .jpeg .jpe .jfif .jif .mpo"),
        "png": ("PNG", ".png .apng"),
        "webp": ("WEBP", ".webp"),
        "bmp": ("BMP", ".bmp .dib"),
        "tiff": ("TIFF", ".tif .tiff"),
        "gif": ("GIF", ".gif"),
        "heif": ("HEIC", ".heic .heif .hif"),
        "avif": ("AVIF", ".avif .avifs"),
        "jp2": ("JPEG2000", ".jp2 .j2k .j2c .jpc .jpf .jpx .jpt"),
        "pnm": ("PNM", ".pgm .ppm .pbm .pnm"),
        "tga": ("TGA", ".tga .icb .vda .vst"),
        "psd": ("PSD", ".psd"),
        "pcx": ("PCX", ".pcx"),
        "sgi": ("SGI", ".sgi"),
        "qoi": ("QOI", ".qoi"),
    }
    refused = {
        "psb": ("PSB", ".psb"),
        "jxl": ("JPEG XL", ".jxl"),
        "jxr": ("JPEG XR", ".jxr .wdp .hdp"),
        "exr": ("OpenEXR", ".exr"),
        "hdr": ("Radiance HDR", ".hdr .rgbe"),
        "pfm": ("PFM", ".pfm"),
        "pam": ("PAM", ".pam"),
        "dds": ("DDS", ".dds"),
        "ico": ("icon", ".ico .cur .icns"),
        "xcf": ("GIMP", ".xcf"),
        "djvu": ("DjVu", ".djvu .djv"),
        "fits": ("FITS", ".fits .fit .fts"),
        "dicom": ("DICOM", ".dcm"),
        "sun": ("Sun raster", ".ras .sun"),
        "bpg": ("BPG", ".bpg"),
        "flif": ("FLIF", ".flif"),
        "pdf": ("PDF", ".pdf"),
        "eps": ("PostScript", ".eps .ps"),
        "svg": ("SVG", ".svg"),
    }
    raw = (
        ".dng .nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .raf .orf .rw2 .rwl .pef .srw .x3f .3fr .iiq"
        " .mrw .kdc .dcr .erf"
    )
    kinds = {
        name: Kind(name=name, title=title, suffixes=tuple(ends.split()))
        for name, (title, ends) in readable.items()
    }
    for name, (title, ends) in refused.items():
        kinds[name] = Kind(name=name, title=title, suffixes=tuple(ends.split()), readable=False)
    kinds["raw"] = Kind(
        name="raw",
        title="RAW",
        suffixes=tuple(raw.split()),
        readable=has_rawpy(),
        advice=RAW_ADVICE,
    )
    return kinds


def has_rawpy() -> bool:
    """Whether the optional library that develops cameras' raw files is installed."""
    import importlib.util

    return importlib.util.find_spec("rawpy") is not None


KINDS = _kinds()
"""All kinds by their names."""

SUFFIXES = frozenset(suffix for kind in KINDS.values() if kind.readable for suffix in kind.suffixes)
"""Suffixes of the files that count as pictures, in lower case."""

_BY_SUFFIX = {suffix: kind for kind in KINDS.values() for suffix in kind.suffixes}

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51\0", "jp2"),
    (b"8BPS\0\1", "psd"),
    (b"8BPS\0\2", "psb"),
    (b"qoif", "qoi"),
    (b"IIRO", "raw"),
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"IIU\0", "raw"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"FOVb", "raw"),
    (b"\0MRM", "raw"),
    (b"II\x1a\0\0\0HEAPCCDR", "raw"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"II\xbc", "jxr"),
    (b"v/1\1", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"PF\n", "pfm"),
    (b"Pf\n", "pfm"),
    (b"P7\n", "pam"),
    (b"DDS ", "dds"),
    (b"\0\0\1\0", "ico"),
    (b"\0\0\2\0", "ico"),
    (b"icns", "ico"),
    (b"gimp xcf ", "xcf"),
    (b"AT&TFORM", "djvu"),
    (b"SIMPLE  =", "fits"),
    (b"\x59\xa6\x6a\x95", "sun"),
    (b"BPG\xfb", "bpg"),
    (b"FLIF", "flif"),
    (b"%PDF-", "pdf"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
# Few bytes tell them: the suffix must too, where it is another's.
_WEAK = ("ico", "jxl", "sgi", "pcx", "pnm", "tga")
_PNM = re.compile(rb"P[1-6]\s+(#|\d+\s)", re.DOTALL)
_PCX = re.compile(rb"\n[\x00\x02-\x05]\x01[\x01\x02\x04\x08]")
_SGI = re.compile(rb"\x01\xda[\x00\x01][\x01\x02]\x00[\x01-\x03]")

# Left beside pictures by network drives, phones and systems: small copies and lists, no pictures of
# anybody.
_LITTER = frozenset(
    ("@eadir", "#recycle", "@recycle", "$recycle.bin", "__macosx", "thumbs.db", "ehthumbs.db")
)
_LITTER_FILE = re.compile(r"SYNO(PHOTO|FILE|INDEX|VIDEO)_|SYNO@\.fileindexdb", re.IGNORECASE)


def kind_of(head: bytes, name: str = "") -> Kind | None:
    """Return the kind that a file's first `HEAD` bytes tell; None for no picture.

    `name`: the file's. Only for what few bytes tell does the suffix count too, and for cameras' raw
    files that begin as TIFF files do.
    """
    suffix = suffix_of(name)
    told = _told(head)
    if told == "tiff" and suffix in KINDS["raw"].suffixes or head[8:10] == b"CR" and told == "tiff":
        told = "raw"
    if told is None and suffix in KINDS["tga"].suffixes and _is_tga(head):
        told = "tga"
    if told in _WEAK and suffix in _BY_SUFFIX and suffix not in KINDS[told].suffixes:
        told = None
    return None if told is None else KINDS[told]


def by_suffix(name: str) -> Kind | None:
    """Return the kind that a file's name tells; None for no picture's."""
    return _BY_SUFFIX.get(suffix_of(name))


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name holds what network drives, phones and systems leave
    beside pictures.
    """
    return name.lower() in _LITTER or name.startswith("._") or _LITTER_FILE.match(name) is not None


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path with forward slashes, or one of its parts, matches one of the patterns (`*`,
    `?`, `[...]`).
    """
    return any(
        fnmatch.fnmatchcase(part, pattern)
        for pattern in patterns
        for part in (name, *name.split("/"))
    )


def passed_over(counts: Mapping[str, int]) -> str:
    """Words for what was passed over, by suffix, the most frequent first: "3 .psd, 1 .txt"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [
        f"{count:,} {shown(suffix) if suffix else 'without a suffix'}"
        for suffix, count in ordered[:_NAMED]
    ]
    more = sum(count for _, count in ordered[_NAMED:])
    return ", ".join(words + ([f"{more:,} of other suffixes"] if more else []))


def refusal(kind: Kind) -> str:
    """Why a kind cannot be read, and what to do."""
    if kind.name == "raw":
        return f"cameras' raw files are not read without rawpy; {kind.advice}"
    return f"{kind.title} files are not read; {kind.advice}"


def _told(head: bytes) -> str | None:
    """The name of the kind that the first bytes alone tell; "tiff" for raw files that begin so."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    # Two letters alone could be a text.
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:16] == b"\0":
        return "bmp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))}
        if b"crx " in brands:
            return "raw"
        return "avif" if brands & _AVIF_BRANDS else "heif" if brands & _HEIF_BRANDS else None
    if head.startswith(_TIFF):
        return "tiff"
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    checks: dict[str, Callable[[bytes], object]] = {
        "pnm": _PNM.match,
        "pcx": _PCX.match,
        "sgi": _SGI.match,
    }
    return next((name for name, fits in checks.items() if fits(head)), None)


def _is_tga(head: bytes) -> bool:
    """Whether these may be the first bytes of a TGA file, which has no mark of its own."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    return head[16] in (8, 15, 16, 24, 32) and any(head[12:14]) and any(head[14:16])
