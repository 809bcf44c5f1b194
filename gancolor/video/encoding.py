"""How films are encoded: the choice of codec, quality and effort, and the writer of a part.

A film is encoded in parts, each a file that appears when it is whole; `mux.assemble` joins them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from gancolor.errors import ConfigError
from gancolor.runtime.files import fitted, written
from gancolor.video.film_settings import EncoderSettings
from gancolor.video.opening import SUFFIXES, UNSURE, address, load_av, reason_of, unwritable
from gancolor.video.planes import DEPTHS, DeepPlane, pixels_of, rescaled

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame

    from gancolor.video.probe import FilmInfo


@dataclass(frozen=True)
class Codec:
    """What can be chosen of a codec.

    `quality`: the default, which is visually lossless, out of 0 (best) to `worst`. `preset`: the
    default effort. None where there is nothing to choose. `depths`: the bits that its samples may
    have. `fields`: it marks interlaced frames as such.
    """

    quality: int | None
    worst: int
    preset: str | None
    depths: tuple[int, ...]
    fields: bool = False


CODECS = {
    "libx264": Codec(17, 51, "faster", (8, 10), fields=True),
    "libx265": Codec(18, 51, "fast", (8, 10, 12)),
    "libsvtav1": Codec(20, 63, "7", (8, 10)),
    "libvpx-vp9": Codec(18, 63, "5", (8,)),
    "ffv1": Codec(None, 0, None, DEPTHS, fields=True),
    "prores_ks": Codec(None, 0, None, (10,), fields=True),
}
FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".avi": "avi",
    ".webm": "webm",
}
"""Suffixes of the films that can be written, with FFmpeg's names of their containers."""

CONTAINERS = {
    ".mp4": ("libx264", "libx265", "libsvtav1", "libvpx-vp9"),
    ".m4v": ("libx264", "libx265"),
    ".mov": ("libx264", "libx265", "prores_ks"),
    ".mkv": ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks"),
    ".avi": ("libx264", "ffv1"),
    ".webm": ("libvpx-vp9", "libsvtav1"),
}
"""The same suffixes with the codecs that such films may have; "auto" takes the first, and for films
of more than 8 bits one of `_DEEP`.
"""

# What "auto" takes for more than 8 bits, in turn, if the file holds it: HEVC's Main 10 is what
# phones and televisions play with 10 bits; few of them play H.264 so.
_DEEP = ("libx265", "libx264", "libsvtav1")
_MOST_PLAYED = 10  # bits: more are shown by few players, and written only by a codec that is chosen

WITH_ALPHA = {
    "prores_ks": ("yuva444p", (10,)),
    "ffv1": ("yuva420p", (8, 10, 16)),
    "libvpx-vp9": ("yuva420p", (8,)),
}
"""Codecs that hold alpha, and the layout and the bits with which they do."""

FIELD_ORDER = {None: 0, "tff": 2, "bff": 3}
"""FFmpeg's numbers of the orders of fields that `FilmInfo.fields` names."""

_X26_PRESETS = "ultrafast superfast veryfast faster fast medium slow slower veryslow".split()
_NUMBERS = {"libsvtav1": 13, "libvpx-vp9": 8}  # presets are whole numbers from 0 (slow) to this
_ANY_SIZE = ("libvpx-vp9", "ffv1")  # codecs that hold odd sizes at half-size chroma
_INTERLACED = 0x40000 | 0x20000000  # AV_CODEC_FLAG_INTERLACED_DCT and _ME
_AVX2, _AVX_512F = 11, 13  # OpenCV's numbers of what a processor can do


@dataclass(frozen=True)
class Encoding(EncoderSettings):
    """Settings of the encoder. ConfigError if a value is unknown to the codec.

    `codec`: a name of `CODECS`, or auto: by the file (see `CONTAINERS`). `quality`: the codec's
    constant rate factor, lower is better; None is visually lossless. `preset`: the effort, a word
    from ultrafast to veryslow for libx264 and libx265, a number for libsvtav1 and libvpx-vp9; None
    is the default. `reordered`: frames may be stored out of order, which makes smaller files
    (`resolved` turns it off for AVI, which has no times for it). `deepest`: a film of more bits is
    written with so many (`resolved` sets it to 10 where it chooses a codec with losses).
    """

    reordered: bool = True
    deepest: int = DEPTHS[-1]

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
        most = _NUMBERS.get(self.codec)
        known = _X26_PRESETS if most is None else [str(number) for number in range(most + 1)]
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

    def resolved(self, target: str | Path, info: FilmInfo | None = None) -> Encoding:
        """Return the settings for a file, with everything chosen that was left open.

        The codec also goes by the film: one of 8 bits if `info` is not given. ConfigError if the
        suffix is unknown or its files do not hold the codec.
        """
        suffix = Path(target).suffix.lower()
        if suffix not in CONTAINERS:
            raise ConfigError(
                f"suffix of a film must be one of {' '.join(CONTAINERS)}, got"
                f" {suffix or Path(target).name}; rename the output"
            )
        held = CONTAINERS[suffix]
        automatic = self.codec == "auto"
        name = _chosen(held, info) if automatic else self.codec
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
            deepest=min(self.deepest, _MOST_PLAYED) if automatic else self.deepest,
        )

    def options(self) -> dict[str, str]:
        """Return the options of the codec, which `resolved` must have chosen, as FFmpeg has them."""
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


def film_suffix(source: str | Path) -> str:
    """Return the suffix of the output for a film: its own, as it is spelt, or .mkv where such files
    cannot be written.
    """
    suffix = Path(source).suffix
    return suffix if suffix.lower() in CONTAINERS else ".mkv"


def film_name(source: str | Path) -> str:
    """Return the name of the output for a film: its own, with the suffix of `film_suffix`.

    If that is another suffix and a film beside this one may get the same name, the suffix is added
    to the whole name: of `a.mpg` and `a.mkv` come `a.mpg.mkv` and `a.mkv`.
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


def _chosen(held: tuple[str, ...], info: FilmInfo | None) -> str:
    """Return the codec that fits a film best, of those that its file may have.

    More than 8 bits are kept, but not at the price of alpha, of fields, or of the size.
    """
    first = held[0]
    if info is None or info.depth == 8 or (info.alpha and first in WITH_ALPHA):
        return first
    odd = info.width % 2 or info.height % 2
    for codec in _DEEP:
        refused = (info.fields and CODECS[first].fields and not CODECS[codec].fields) or (
            odd and codec == "libsvtav1"
        )
        if codec in held and not refused:
            return codec
    return first


def _holds_alpha(encoding: Encoding, info: FilmInfo) -> bool:
    """Say whether a film has alpha, and this encoding keeps it."""
    return info.alpha and encoding.codec in WITH_ALPHA


def _depth_of(encoding: Encoding, info: FilmInfo) -> int:
    """Return the bits with which a film's samples are written: no fewer than it has if it can be."""
    held = CODECS[encoding.codec].depths
    if _holds_alpha(encoding, info):
        held = WITH_ALPHA[encoding.codec][1]
    wanted = min(info.depth, encoding.deepest)
    return next((depth for depth in held if depth >= wanted), held[-1])


def _layout_of(encoding: Encoding, info: FilmInfo) -> str:
    """Return how the planes lie in which a codec holds frames of this size whole, as FFmpeg's names
    of pixel formats begin.
    """
    codec = encoding.codec
    if _holds_alpha(encoding, info):
        return WITH_ALPHA[codec][0]
    if codec == "prores_ks":
        return "yuv422p"
    if (info.width % 2 or info.height % 2) and codec not in _ANY_SIZE:
        return "yuv444p"
    # Two fields with chroma of half their height: only x264 asks for as many rows in both.
    return "yuv422p" if codec == "libx264" and info.fields and info.height % 4 else "yuv420p"


def encoding_notes(info: FilmInfo, encoding: Encoding) -> list[str]:
    """Return notes on what is lost in a film that is encoded so, or on what few players show."""
    notes, codec, size = [], encoding.codec, f"{info.width}x{info.height}"
    depth = _depth_of(encoding, info)
    if depth < info.depth:
        most = max(CODECS[codec].depths)
        reason = f"{codec} holds no more" if most <= depth else "few players show more"
        notes.append(
            f"of {info.depth} bits: written with {depth}, {reason}; --codec ffv1 in an .mkv keeps"
            " them all"
        )
    if info.fields and not CODECS[codec].fields:
        notes.append(
            f"interlaced: its fields stay, but {codec} does not mark them, so that players show"
            " them as combs; --codec libx264 or ffv1 marks them, or deinterlace it first"
        )
    if info.alpha and not _holds_alpha(encoding, info):
        notes.append(
            f"alpha left out: {codec} cannot hold it; --codec prores_ks in a .mov does,"
            " ffv1 in an .mkv, libvpx-vp9 in a .webm"
        )
    elif _layout_of(encoding, info) == "yuv444p":
        notes.append(
            f"of odd size, {size}: chroma is kept at full size, which not all players show"
        )
    elif _layout_of(encoding, info) == "yuv422p" and codec != "prores_ks":
        notes.append(
            f"interlaced and {size}: chroma is kept at full height, which not all players show"
        )
    return notes


class PartWriter:
    """Encodes frames into a part: a NUT file whatever its name, MOV or Matroska where NUT cannot
    hold the codec.

    A context manager: `close` makes the part appear, an error removes it. Size, colour tags, pixel
    aspect and time base are those of `info`; `encoding` should be resolved for the final file, else
    it counts as for an .mkv. DataError if the disk is full or the encoder refuses the size.
    """

    def __init__(self, path: str | Path, info: FilmInfo, encoding: Encoding) -> None:
        self.path, self.info = Path(path), info
        if not encoding.complete:
            encoding = encoding.resolved("film.mkv", info)
        self.encoding = encoding
        self._alpha = _holds_alpha(encoding, info)
        self._depth = _depth_of(encoding, info)
        self._pixels = pixels_of(_layout_of(encoding, info), self._depth)
        self._last: int | None = None
        self._marker: Any = None
        self._stack = ExitStack()
        self._container: OutputContainer | None = None
        av = load_av()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # FFmpeg opens the new file by its name.
            aside = Path(self._stack.enter_context(written(self.path)).name)
            # Times stay as they are, also those of decoding that lie before 0.
            keeping = {"avoid_negative_ts": "disabled"}
            # NUT does not take ProRes, nor VP9's second picture.
            kind = {"prores_ks": "mov", "libvpx-vp9": "matroska" if self._alpha else "nut"}.get(
                encoding.codec, "nut"
            )
            self._container = av.open(address(aside), "w", format=kind, container_options=keeping)
            self._stream = self._open_stream(self._container)
            self._container.start_encoding()  # what an encoder refuses shows here
        except BaseException as error:
            self.abandon()
            if isinstance(error, OSError):
                raise unwritable(self.path, reason_of(error)) from error
            if isinstance(error, (av.error.FFmpegError, ValueError)):
                size = f"{info.width}x{info.height}"
                refusal = f"{encoding.codec} does not take {size} ({reason_of(error)})"
                raise unwritable(self.path, refusal) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def write(
        self,
        pts: int,
        y: DeepPlane,
        u: DeepPlane,
        v: DeepPlane,
        alpha: DeepPlane | None = None,
    ) -> None:
        """Encode a frame: Y' and alpha (H, W), Cb and Cr (ceil(H / 2), ceil(W / 2)), of the film's
        depth.

        In an interlaced film, the rows of Cb and Cr belong to both fields in turn. A frame without
        alpha is opaque; alpha that the codec cannot hold is left out. `pts` is in the film's time
        base and grows. ValueError for other shapes or times.
        """
        info = self.info
        half = ((info.height + 1) // 2, (info.width + 1) // 2)
        if (y.shape, u.shape, v.shape) != ((info.height, info.width), half, half):
            raise ValueError(
                f"planes must be of {info.width}x{info.height}, got {y.shape} {u.shape} {v.shape}"
            )
        if self._last is not None and pts <= self._last:
            raise ValueError(f"pts must grow, got {pts} after {self._last}")
        self._last = pts
        planes = [rescaled(y, info.depth, self._depth, full_range=info.full_range)]
        planes += [rescaled(plane, info.depth, self._depth) for plane in (u, v)]
        if self._alpha:
            alpha = np.full_like(y, (1 << info.depth) - 1) if alpha is None else alpha
            planes.append(rescaled(alpha, info.depth, self._depth, full_range=True))
        frame = self._marked(_frame(planes, self._pixels, self._depth, info))
        frame.pts = pts - min(0, info.start_pts)  # NUT holds no negative times
        frame.time_base = info.time_base
        with self._abandoned_on_error():
            self._mux(frame)

    def close(self) -> None:
        """Finish the part and give it its name. DataError if that fails; the part is then gone."""
        if self._container is None:
            return
        with self._abandoned_on_error():
            self._mux(None)
            self._container.close()
            self._container = None
            self._stack.close()

    def abandon(self) -> None:
        """Remove what was written of the part, in whatever state it is; a closed part stays."""
        container, self._container = self._container, None
        with suppress(Exception):
            if container is not None:
                container.close()
        self._stack.__exit__(_Abandoned, _Abandoned(), None)

    def _open_stream(self, container: OutputContainer) -> Any:
        info, encoding = self.info, self.encoding
        rate = (info.rate or Fraction(25)).limit_denominator(1001)
        options = encoding.options()
        if encoding.codec == "libx264" and not encoding.reordered:
            options |= _timed(info.width, info.height, rate)
        if self._alpha:
            options |= {"prores_ks": {"profile": "4"}, "libvpx-vp9": {"auto-alt-ref": "0"}}.get(
                encoding.codec, {}
            )
        stream: Any = container.add_stream(encoding.codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, self._pixels
        context = stream.codec_context
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.pixel_aspect
        context.color_range, context.colorspace = info.color_range, info.color_space
        context.color_primaries, context.color_trc = info.color_primaries, info.color_transfer
        context.gop_size = max(2, round(rate * 5))  # 5 seconds between key frames, for seeking
        context.thread_type, context.thread_count = "AUTO", 0
        if info.fields and CODECS[encoding.codec].fields:
            context.flags |= _INTERLACED
            context.field_order = FIELD_ORDER[info.fields]
        if self._alpha and encoding.codec == "libvpx-vp9":
            stream.metadata["alpha_mode"] = "1"
        return stream

    def _marked(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame of an interlaced film marked as one, with the order of its fields.

        PyAV cannot mark it, but FFmpeg's filter `setfield` does.
        """
        if not self.info.fields or not CODECS[self.encoding.codec].fields:
            return frame
        if self._marker is None:
            graph = self._marker = load_av().filter.Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format.name,
                time_base=self.info.time_base,
            )
            marking, sink = graph.add("setfield", self.info.fields), graph.add("buffersink")
            source.link_to(marking)
            marking.link_to(sink)
            graph.configure()
        self._marker.push(frame)
        marked: VideoFrame = self._marker.pull()
        return marked

    def _mux(self, frame: VideoFrame | None) -> None:
        assert self._container is not None, "the part is closed"
        self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """Abandon the part on any error; one of FFmpeg or of the system is a DataError."""
        av = load_av()
        try:
            yield
        except BaseException as error:
            self.abandon()
            if isinstance(error, (av.error.FFmpegError, OSError)):
                raise unwritable(self.path, reason_of(error)) from error
            raise


class _Abandoned(Exception):
    """Why a part is not written."""


def _timed(width: int, height: int, rate: Fraction) -> dict[str, str]:
    """Return options by which libx264 writes each frame's time into its stream too (HRD).

    AVI holds no times, and without them FFmpeg may guess for H.264 in an AVI that frames are shown
    one later than they are decoded. These options need a bound on the bit rate: 2 bits a pixel, 1
    for large films, which is several times what visually lossless films take.
    """
    pixels = round(width * height * rate)
    # 60 million bits a second is what most players' H.264 ends at (level 4.1).
    most = str(min(240_000_000, max(10_000_000, pixels, min(2 * pixels, 60_000_000))))
    return {"nal-hrd": "vbr", "maxrate": most, "bufsize": most}


def _repeatable() -> dict[str, str]:
    """Return options by which libx264 gives the same stream each time.

    Its code for AVX-512 does not: measured on a film of 432x320, 8 encodings gave 5 streams, up to
    24 levels apart. Without that code, 10 encodings gave one, as fast.
    """
    both = all(cv2.checkHardwareSupport(feature) for feature in (_AVX2, _AVX_512F))
    return {"x264-params": "asm=avx2,fma3,bmi2"} if both else {}


def _frame(planes: Sequence[DeepPlane], pixels: str, depth: int, info: FilmInfo) -> VideoFrame:
    """Return a frame of FFmpeg's in the pixel format `pixels`, with the film's colour tags, from Y',
    Cb, Cr and perhaps alpha, all with `depth` bits.
    """
    y, *chroma = planes[:3]
    height, width = y.shape
    layout = "yuva420p" if len(planes) == 4 else "yuv420p"
    # Each colour of the half-size planes belongs to four pixels.
    if pixels.startswith("yuv444p"):
        layout, chroma = "yuv444p", [_wide(_high(plane, info), width) for plane in chroma]
    elif info.fields and "420p" not in pixels:
        layout, chroma = layout.replace("420", "422"), [_high(plane, info) for plane in chroma]
    held = pixels_of(layout, depth)
    frame: VideoFrame = load_av().VideoFrame(width, height, held)
    for plane, values in zip(frame.planes, (y, *chroma, *planes[3:]), strict=True):
        rows = np.frombuffer(memoryview(plane), values.dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = values
    frame.color_range, frame.colorspace = info.color_range, info.color_space
    frame.color_primaries, frame.color_trc = info.color_primaries, info.color_transfer
    if pixels != held:
        tags = {"src_colorspace": info.color_space, "dst_colorspace": info.color_space}
        value_range = 2 if info.full_range else 1
        frame = frame.reformat(
            format=pixels, src_color_range=value_range, dst_color_range=value_range, **tags
        )
    return frame


def _high(plane: DeepPlane, info: FilmInfo) -> DeepPlane:
    """Chroma at full height: each row for two of the frame's, in an interlaced film of one field."""
    rows = np.arange(info.height)
    rows = rows // 4 * 2 + rows % 2 if info.fields else rows // 2
    return plane[np.where(rows < len(plane), rows, rows - 2)]


def _wide(plane: DeepPlane, width: int) -> DeepPlane:
    """Chroma at full width."""
    wide: DeepPlane = np.repeat(plane, 2, axis=1)[:, :width]
    return wide
