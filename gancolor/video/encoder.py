"""Films out: frames encoded into parts, each a file that appears when it is whole."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gancolor.video.chroma import Plane
from gancolor.video.encoding import Encoding as Encoding
from gancolor.video.encoding import film_suffix as film_suffix
from gancolor.video.encoding import timed
from gancolor.video.mux import assemble as assemble
from gancolor.video.opening import address, load_av, reason_of, unwritable
from gancolor.video.probe import FilmInfo

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame

ANY_SIZE = ("libvpx-vp9", "ffv1")  # codecs that hold odd sizes at half-size chroma
PRORES = "yuv422p10le"
WITH_ALPHA = {"prores_ks": "yuva444p10le", "ffv1": "yuva420p", "libvpx-vp9": "yuva420p"}


def holds_alpha(encoding: Encoding, info: FilmInfo) -> bool:
    """Say whether a film has alpha, and this encoding keeps it."""
    return info.alpha and encoding.codec in WITH_ALPHA


def pixels_of(codec: str, width: int, height: int, *, alpha: bool = False) -> str:
    """Return the pixel format in which a codec holds frames of this size, none cropped or padded."""
    if alpha:
        return WITH_ALPHA[codec]
    if codec == "prores_ks":
        return PRORES
    odd = width % 2 or height % 2
    return "yuv444p" if odd and codec not in ANY_SIZE else "yuv420p"


def encoding_notes(info: FilmInfo, encoding: Encoding) -> list[str]:
    """Say what a player may stumble over in a film encoded so."""
    notes = []
    if info.alpha and not holds_alpha(encoding, info):
        notes.append(
            f"alpha left out: {encoding.codec} cannot hold it; --codec prores_ks in a .mov does,"
            " ffv1 in an .mkv, libvpx-vp9 in a .webm"
        )
    elif pixels_of(encoding.codec, info.width, info.height) == "yuv444p":
        notes.append(
            f"of odd size, {info.width}x{info.height}: chroma is kept at full size, which not all"
            " players show"
        )
    return notes


class PartWriter:
    """Encodes frames into a part, a NUT file whatever its name (MOV for ProRes).

    A context manager: `close` makes the part appear, an error removes it. Size, colour tags, pixel
    aspect and time base are those of `info`; `encoding` should be resolved for the final file, else
    it counts as for an .mkv. DataError if the disk is full or the encoder refuses the size.
    """

    def __init__(self, path: str | Path, info: FilmInfo, encoding: Encoding) -> None:
        self.path, self.info = Path(path), info
        self.encoding = encoding = encoding if encoding.complete else encoding.resolved("film.mkv")
        self._alpha = holds_alpha(encoding, info)
        self._pixels = pixels_of(encoding.codec, info.width, info.height, alpha=self._alpha)
        self._aside = self.path.with_name(
            f".{self.path.name}-{os.getpid()}-{secrets.token_hex(4)}.part"
        )
        self._last: int | None = None
        self._container: OutputContainer | None = None
        av = load_av()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Its times must stay as they are; pictures stored ahead of their turn are decoded
            # before time 0.
            keeping = {"avoid_negative_ts": "disabled"}
            # NUT does not take ProRes, nor VP9's second picture.
            kind = {"prores_ks": "mov", "libvpx-vp9": "matroska" if self._alpha else "nut"}.get(
                encoding.codec, "nut"
            )
            self._container = av.open(
                address(self._aside), "w", format=kind, container_options=keeping
            )
            self._stream = self._open_stream(self._container)
            self._container.start_encoding()  # what an encoder refuses shows here
        except BaseException as error:
            self._drop()
            if isinstance(error, (av.error.FFmpegError, OSError, ValueError)):
                raise self._refused(error) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._drop()

    def write(self, pts: int, y: Plane, u: Plane, v: Plane, alpha: Plane | None = None) -> None:
        """Encode a frame: Y' and alpha (H, W), Cb and Cr (ceil(H / 2), ceil(W / 2)), uint8.

        Without alpha a frame is opaque, and where the codec cannot hold it (`holds_alpha`) it is
        left out.

        `pts` is in the film's time base and grows. ValueError for other shapes or times.
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
        frame.pts, frame.time_base = (
            pts - min(0, info.start_pts),
            info.time_base,
        )  # NUT holds no negative times
        self._mux(frame)

    def close(self) -> None:
        """Finish the part and give it its name. DataError if that fails; the part is then gone."""
        if self._container is None:
            return
        av = load_av()
        try:
            self._mux(None)
            self._container.close()
            self._container = None
            self._aside.replace(self.path)
        except BaseException as error:
            self._drop()
            if isinstance(error, (av.error.FFmpegError, OSError)):
                raise unwritable(self.path, reason_of(error)) from error
            raise

    def _open_stream(self, container: OutputContainer) -> Any:
        info, encoding = self.info, self.encoding
        rate = (info.rate or Fraction(25)).limit_denominator(1001)
        options = encoding.options()
        if encoding.codec == "libx264" and not encoding.reordered:
            options |= timed(info.width, info.height, rate)
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
        context.gop_size = max(
            2, round(rate * 5)
        )  # seconds between key frames, so that players can seek
        context.thread_type, context.thread_count = "AUTO", 0
        if self._alpha and encoding.codec == "libvpx-vp9":
            stream.metadata["alpha_mode"] = "1"
        return stream

    def _mux(self, frame: VideoFrame | None) -> None:
        av = load_av()
        assert self._container is not None, "the part is closed"
        try:
            self._container.mux(self._stream.encode(frame))
        except BaseException as error:
            self._drop()
            if isinstance(error, (av.error.FFmpegError, OSError)):
                raise unwritable(self.path, reason_of(error)) from error
            raise

    def _refused(self, error: BaseException) -> Exception:
        size = f"{self.info.width}x{self.info.height}"
        if isinstance(error, OSError):
            return unwritable(self.path, reason_of(error))
        return unwritable(
            self.path, f"{self.encoding.codec} does not take {size} ({reason_of(error)})"
        )

    def _drop(self) -> None:
        """Close and remove what was written, whatever state it is in."""
        container, self._container = self._container, None
        with suppress(Exception):
            if container is not None:
                container.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)


def _frame(
    y: Plane, u: Plane, v: Plane, alpha: Plane | None, pixels: str, info: FilmInfo
) -> VideoFrame:
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
