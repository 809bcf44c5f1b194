"""A film coloured from pipe to pipe: frames in, coloured frames out, a bounded number behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import auto_size
from gancolor.errors import DataError
from gancolor.runtime.files import Progress
from gancolor.video import frame_colors
from gancolor.video.flow import FloatMap
from gancolor.video.pipe import PipedFrame, PipeReader, PipeWriter
from gancolor.video.planes import DeepPlane, Plane
from gancolor.video.propagation import ColoredFrame, Stabilizer
from gancolor.video.threads import Ahead, PipelineStage

if TYPE_CHECKING:
    from gancolor.video.film_settings import FilmSettings


@dataclass
class StreamResult:
    """What was made of a film on a pipe; see `film.FilmResult`."""

    frames: int = 0
    seconds: float = 0.0
    shots: int = 0
    network_passes: int = 0
    chroma: float = 0.0
    notes: list[str] = field(default_factory=list)


class _Seen(NamedTuple):
    """A frame that came, its luma (H, W), and what the network sees of it, (h, w)."""

    frame: PipedFrame
    luma: DeepPlane
    gray: Plane


class _Ready(NamedTuple):
    """A frame with its colours (h, w, 2), to be painted."""

    seen: _Seen
    ab: FloatMap


def color_stream(
    colorizer: Colorizer,
    reader: PipeReader,
    writer: PipeWriter,
    settings: FilmSettings,
    *,
    progress: Progress,
) -> StreamResult:
    """Colour the frames of `reader` into `writer`, as `film.color_film` does those of a file.

    A frame goes out at the latest when `settings.key_interval` + 1 more have come in, at once with
    strength 0, whether or not others follow; so memory does not grow with the film. `progress` is
    called with the frames that were written, and how many come where that is known. Of the settings
    those of a file do nothing.

    ConfigError for settings that cannot work. DataError where frames cannot be read or written, and
    where the input does not end behind a whole frame: what came before it is coloured and written
    first.
    """
    frame_colors.check_able(colorizer, settings)
    stream = _Stream(colorizer, reader, writer, settings, progress)
    try:
        stream.run()
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{writer.frames} frames were written") from stop
    if reader.failure is not None:
        many = writer.frames
        raise DataError(f"{reader.failure}; {many} frame{'s' * (many != 1)} before it written")
    if writer.frames == 0:
        raise DataError("standard input must hold frames, got none")
    return stream.result


class _Stream:
    """One run of `color_stream`."""

    def __init__(
        self,
        colorizer: Colorizer,
        reader: PipeReader,
        writer: PipeWriter,
        settings: FilmSettings,
        progress: Progress,
    ) -> None:
        self.result = StreamResult()
        self._colorizer, self._settings, self._progress = colorizer, settings, progress
        self._reader, self._writer = reader, writer
        self._size = auto_size(colorizer.sight) if settings.size is None else settings.size
        self._waiting: deque[_Seen] = deque()  # fed to the stabilizer, not yet back

    def run(self) -> None:
        """Read, colour and write all frames."""
        settings, start = self._settings, time.perf_counter()
        stabilizer = Stabilizer(
            self._predict, strength=settings.strength, key_interval=settings.key_interval
        )
        with ExitStack() as stack:
            ahead = stack.enter_context(Ahead(self._look()))
            paint = PipelineStage(
                "pipe-painter", self._paint, PipelineStage("pipe-writer", self._write)
            )
            stack.callback(paint.stop)
            stack.callback(self._reader.stop)
            stack.callback(self._writer.stop)
            for index, seen in enumerate(ahead):
                self._waiting.append(seen)
                self._hand_on(stabilizer.feed(index, seen.gray), paint)
            self._hand_on(stabilizer.flush(), paint)
            paint.finish()
        self.result.frames = self._writer.frames
        self.result.seconds = time.perf_counter() - start
        self.result.notes += frame_colors.pale(self.result.chroma, self.result.network_passes)

    def _look(self) -> Iterator[_Seen]:
        """The frames with what the network sees of them; runs in the reader's thread."""
        for frame in self._reader:
            luma = (
                frame_colors.luma_of_rgb(frame.pixels) if frame.pixels.ndim == 3 else frame.pixels
            )
            yield _Seen(frame, luma, frame_colors.small_gray(luma, self._size, self._reader.format))

    def _predict(self, gray: Plane) -> FloatMap:
        found, result = (
            frame_colors.predict(self._colorizer, gray, self._settings.temperature),
            self.result,
        )
        result.network_passes += 1
        result.chroma += (found.chroma - result.chroma) / result.network_passes
        result.notes += [note for note in found.notes if note not in result.notes]
        return found.ab

    def _hand_on(self, done: Iterable[ColoredFrame], paint: PipelineStage) -> None:
        """Pair colours with their frames, which go on to be painted."""
        for colors in done:
            self.result.shots += colors.cut
            paint.put(_Ready(self._waiting.popleft(), colors.ab))
        self._progress(self._writer.frames, self._reader.format.frames)

    def _paint(self, item: _Ready) -> tuple[list[NDArray[Any]], bytes]:
        """What goes out for a frame; runs in the painter's thread."""
        form, seen = self._reader.format, item.seen
        if self._writer.format.layout == "rgb":
            return [frame_colors.rgb(seen.luma, item.ab, form, self._settings)], seen.frame.tag
        planes = frame_colors.chroma_planes(seen.luma, seen.gray, item.ab, form, self._settings)
        return [seen.luma, *planes], seen.frame.tag

    def _write(self, item: tuple[list[NDArray[Any]], bytes]) -> None:
        """Write a frame; runs in the writer's thread."""
        self._writer.write(*item)
