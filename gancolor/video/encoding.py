"""How films are encoded: the choice of codec, quality and effort, and the writer of a part.

A film is encoded in parts, each a file that appears when it is whole; `mux.assemble` joins them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame

    from gancolor.video.planes import Plane
    from gancolor.video.probe import FilmInfo


@dataclass(frozen=True)
class Codec:
    """What can be chosen of a codec.

    `quality`: the default, which is visually lossless, out of 0 (best) to `worst`. `preset`: the
    default effort. None where there is nothing to choose.
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
"""The same suffixes with the codecs that such films may have; "auto" takes the first."""

WITH_ALPHA = {"prores_ks": "yuva444p10le", "ffv1": "yuva420p", "libvpx-vp9": "yuva420p"}
"""Codecs that hold alpha, and the pixel format in which they do."""

_X26_PRESETS = "ultrafast superfast veryfast faster fast medium slow slower veryslow".split()
_NUMBERS = {"libsvtav1": 13, "libvpx-vp9": 8}  # presets are whole numbers from 0 (slow) to this
_ANY_SIZE = ("libvpx-vp9", "ffv1")  # codecs that hold odd sizes at half-size chroma
_AVX2, _AVX_512F = 11, 13  # OpenCV's numbers of what a processor can do


@dataclass(frozen=True)
class Encoding(EncoderSettings):
    """Settings of the encoder. ConfigError if a value is unknown to the codec.

    `codec`: a name of `CODECS`, or auto: by the file (see `CONTAINERS`). `quality`: the codec's
    constant rate factor, lower is better; None is visually lossless. `preset`: the effort, a word
    from ultrafast to veryslow for libx264 and libx265, a number for libsvtav1 and libvpx-vp9; None
    is the default. `reordered`: frames may be stored out of order, which makes smaller files
    (`resolved` turns it off for AVI, which has no times for it).
    """

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

    def resolved(self, target: str | Path) -> Encoding:
        """Return the settings for a file, with everything chosen that was left open.

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


def _holds_alpha(encoding: Encoding, info: FilmInfo) -> bool:
    """Say whether a film has alpha, and this encoding keeps it."""
    return info.alpha and encoding.codec in WITH_ALPHA


def _pixels_of(codec: str, width: int, height: int, *, alpha: bool = False) -> str:
    """Return FFmpeg's name of the pixel format in which a codec holds frames of this size whole."""
    if alpha:
        return WITH_ALPHA[codec]
    if codec == "prores_ks":
        return "yuv422p10le"
    odd = width % 2 or height % 2
    return "yuv444p" if odd and codec not in _ANY_SIZE else "yuv420p"


def encoding_notes(info: FilmInfo, encoding: Encoding) -> list[str]:
    """Return notes on what is lost in a film that is encoded so, or on what few players show."""
    notes = []
    if info.alpha and not _holds_alpha(encoding, info):
        notes.append(
            f"alpha left out: {encoding.codec} cannot hold it; --codec prores_ks in a .mov does,"
            " ffv1 in an .mkv, libvpx-vp9 in a .webm"
        )
    elif _pixels_of(encoding.codec, info.width, info.height) == "yuv444p":
        notes.append(
            f"of odd size, {info.width}x{info.height}: chroma is kept at full size, which not all"
            " players show"
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
        self.encoding = encoding = encoding if encoding.complete else encoding.resolved("film.mkv")
        self._alpha = _holds_alpha(encoding, info)
        self._pixels = _pixels_of(encoding.codec, info.width, info.height, alpha=self._alpha)
        self._last: int | None = None
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

    def write(self, pts: int, y: Plane, u: Plane, v: Plane, alpha: Plane | None = None) -> None:
        """Encode a frame: Y' and alpha (H, W), Cb and Cr (ceil(H / 2), ceil(W / 2)), uint8.

        A frame without alpha is opaque; alpha that the codec cannot hold is left out. `pts` is in
        the film's time base and grows. ValueError for other shapes or times.
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
        if self._alpha and alpha is None:
            alpha = np.full_like(y, 255)
        frame = _frame(y, u, v, alpha if self._alpha else None, self._pixels, info)
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
        if self._alpha and encoding.codec == "libvpx-vp9":
            stream.metadata["alpha_mode"] = "1"
        return stream

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


def _frame(
    y: Plane, u: Plane, v: Plane, alpha: Plane | None, pixels: str, info: FilmInfo
) -> VideoFrame:
    """Return a frame of FFmpeg's in the pixel format `pixels`, with the film's colour tags."""
    av = load_av()
    height, width = y.shape
    held = "yuva420p" if alpha is not None else "yuv444p" if pixels == "yuv444p" else "yuv420p"
    frame: VideoFrame = av.VideoFrame(width, height, held)
    if held == "yuv444p":  # each colour of the half-size planes belongs to four pixels
        u, v = (
            np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1)[:height, :width] for plane in (u, v)
        )
    for plane, values in zip(
        frame.planes, (y, u, v) if alpha is None else (y, u, v, alpha), strict=True
    ):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
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
