"""The making of one process's share of a film: frames in, whole parts out.

Four threads work at once: one reads frames ahead, this one gives them colours, one paints those
into chroma planes of the full size, and one encodes.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gancolor.coloring.colorizer import Colorizer
from gancolor.runtime.files import Progress
from gancolor.video import frame_colors
from gancolor.video.cursor import FilmCursor
from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.encoding import WITH_ALPHA, PartWriter
from gancolor.video.flow import FloatMap
from gancolor.video.parts import Checkpoint, Share
from gancolor.video.planes import DeepPlane, Plane
from gancolor.video.propagation import ColoredFrame, Stabilizer
from gancolor.video.shot_keys import ShotKeys
from gancolor.video.threads import Ahead, PipelineStage
from gancolor.video.tracking import Truth

if TYPE_CHECKING:
    from gancolor.video.film_settings import FilmSettings

PART_FRAMES = 250
"""Frames of a part. What is not in a whole part yet is lost when the film is stopped."""

WARM_UP_KEYS = 4
"""Key frames before a share that are coloured and not written, so that its colours join on to those
of the share before.
"""


class Span(NamedTuple):
    """The frames from the time `begin` on and before `end`, in the film's time base; None is the
    film's beginning and its end.

    `warm_up`: how long before `begin` colouring starts (see `WARM_UP_KEYS`). `frames`: about how
    many there are.
    """

    begin: int | None = None
    end: int | None = None
    warm_up: int = 0
    frames: int | None = None

    def __contains__(self, pts: object) -> bool:
        return isinstance(pts, int) and not self.is_before(pts) and not self.is_behind(pts)

    def is_before(self, pts: int) -> bool:
        """Whether the share begins after the time `pts`."""
        return self.begin is not None and pts < self.begin

    def is_behind(self, pts: int) -> bool:
        """Whether the share ends before the time `pts`."""
        return self.end is not None and pts >= self.end


class _Small(NamedTuple):
    """A frame, what the network sees of it, and the damage that was known when it was read."""

    frame: Frame
    gray: Plane  # (h, w)
    damage: tuple[str, ...]


class _Colored(NamedTuple):
    """A frame with its colours."""

    small: _Small
    ab: FloatMap  # (h, w, 2)
    truths: tuple[Truth, ...]


class _Planes(NamedTuple):
    """What `PartWriter.write` takes."""

    pts: int
    y: DeepPlane
    u: DeepPlane
    v: DeepPlane
    alpha: DeepPlane | None


class Maker:
    """Colours one share of a film into parts, from where the parts there end.

    `keys`: the key frames of the share, which then is one shot; its frames are read by `cursor`.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        source: Path,
        settings: FilmSettings,
        size: int,
        span: Span,
        share: Share,
        progress: Progress,
        *,
        keys: ShotKeys | None = None,
        cursor: FilmCursor | None = None,
    ) -> None:
        self._keys, self._cursor = keys, cursor
        self._colorizer, self._source = colorizer, source
        self._settings, self._size = settings, size
        self._span, self._share, self._progress = span, share, progress
        self._begun, self._predicting = time.perf_counter(), 0.0
        self._before = self._now = share.checkpoint or Checkpoint()
        self._part_begins = self._written = self._before.frames
        self._waiting: deque[_Small] = deque()  # fed to the stabilizer, not yet back
        self._writer: PartWriter | None = None

    def run(self) -> dict[str, float]:
        """Colour the share; returns the seconds that each part of the work took."""
        settings = self._settings
        encoding = settings.encoding
        assert encoding is not None  # the film has chosen it
        encode = PipelineStage("film-encoder", self._encode)
        paint = PipelineStage("film-painter", self._paint, encode)
        with contextlib.ExitStack() as stack:
            stack.callback(self._abandon)
            stack.callback(paint.stop)
            reader: FilmReader | FilmCursor | None = self._cursor
            if reader is None:
                reader = stack.enter_context(
                    FilmReader(
                        self._source,
                        start=settings.start,
                        end=settings.end,
                        from_pts=self._first_pts(),
                        alpha=encoding.codec in WITH_ALPHA,
                    )
                )
            self._info = reader.info
            ahead = stack.enter_context(Ahead(self._look(reader)))
            flow = self._stabilize(reader, ahead, paint) - self._predicting
            paint.finish()
        self._progress(self._written, self._written)
        busy = {"read": ahead.seconds, "flow": flow, "network": self._predicting}
        return busy | {"paint": paint.seconds, "encode": encode.seconds}

    def _first_pts(self) -> int | None:
        """The time to read from: behind the last whole part, or where the colours warm up."""
        if self._before.last_pts is not None:
            return self._before.last_pts + 1
        return None if self._span.begin is None else self._span.begin - self._span.warm_up

    def _look(self, reader: FilmReader | FilmCursor) -> Iterator[_Small]:
        """The frames with what the network sees of them; runs in the reader's thread."""
        frames = iter(reader) if isinstance(reader, FilmReader) else self._stretch(reader)
        for frame in frames:
            gray = frame_colors.small_gray(frame.luma, self._size, reader.info)
            yield _Small(frame, gray, tuple(reader.damaged))

    def _stretch(self, cursor: FilmCursor) -> Iterator[Frame]:
        """The share's own frames."""
        first = self._first_pts()
        assert first is not None  # a shot has a first frame
        return cursor.frames(first, self._span.end)

    def _stabilize(
        self, reader: FilmReader | FilmCursor, frames: Iterable[_Small], paint: PipelineStage
    ) -> float:
        """Give the frames colours, and hand them on; returns for how many seconds."""
        seconds, coming, again = 0.0, iter(frames), deque[_Small]()
        stabilizer, index = self._stabilizer(self._before.memory)
        while (small := again.popleft() if again else next(coming, None)) is not None:
            self._waiting.append(small)
            start = time.perf_counter()
            pts, known = small.frame.pts, None
            if self._keys is not None:
                if len(self._waiting) == 1:
                    self._keys.look_ahead(stabilizer, index, pts)
                known = self._keys.at(pts)
            done = stabilizer.feed(index, small.gray, known)
            seconds += time.perf_counter() - start
            index += 1
            if done:
                self._hand_on(done, paint)
                if self._now.frames - self._part_begins >= PART_FRAMES:
                    memory = {key: np.array(value) for key, value in stabilizer.state().items()}
                    self._close_part(paint, memory=memory)
                    # Each part begins as it does behind a stop, so that a stop changes nothing.
                    stabilizer, index = self._stabilizer(memory)
                    again.extendleft(reversed(self._waiting))
                    self._waiting.clear()
            # Frames behind the share are read until its own are back, which need the colours of a
            # key frame behind them.
            first = self._waiting[0] if self._waiting else small
            if self._span.is_behind(first.frame.pts):
                break
        else:
            self._hand_on(stabilizer.flush(), paint)
            self._now = replace(self._now, damaged=(*self._before.damaged, *reader.damaged))
        self._now = replace(self._now, notes=(*self._now.notes, *reader.info.notes))
        self._close_part(paint, done=True)
        return seconds

    def _stabilizer(self, memory: dict[str, Any]) -> tuple[Stabilizer, int]:
        """A stabilizer that goes on from `memory`, and the index of the frame to feed it."""
        stabilizer = Stabilizer(
            self._predict,
            strength=self._settings.strength,
            key_interval=self._settings.key_interval,
        )
        if memory and self._keys is not None:
            self._keys.restore(stabilizer, memory)
        elif memory:
            stabilizer.restore(memory)
        return stabilizer, int(memory.get("next", 0))

    def _predict(self, gray: Plane, hints: FloatMap | None = None) -> FloatMap:
        """The network's colours of a frame (h, w), as (h, w, 2), with a map (h, w, 3) of hints."""
        start = time.perf_counter()
        hints = hints if self._colorizer.sight.hints else None
        found = frame_colors.predict(self._colorizer, gray, self._settings.temperature, hints)
        now = self._now
        self._now = replace(
            now,
            passes=now.passes + 1,
            chroma=now.chroma + (found.chroma - now.chroma) / (now.passes + 1),
            notes=(*now.notes, *(note for note in found.notes if note not in now.notes)),
        )
        self._predicting += time.perf_counter() - start
        return found.ab

    def _hand_on(self, done: Sequence[ColoredFrame], paint: PipelineStage) -> None:
        """Pair colours with their frames; those of the share go on to be painted."""
        for colors in done:
            small = self._waiting.popleft()
            if small.frame.pts not in self._span:
                continue
            paint.put(_Colored(small, colors.ab, colors.truths))
            now = self._now
            self._now = replace(
                now,
                frames=now.frames + 1,
                shots=now.shots + colors.cut,
                last_pts=small.frame.pts,
                size=small.frame.luma.shape[::-1],
                damaged=(*self._before.damaged, *small.damage),
            )
        self._progress(self._written, self._span.frames)

    def _close_part(
        self, paint: PipelineStage, *, done: bool = False, memory: dict[str, Any] | None = None
    ) -> None:
        """Let the encoder end its part behind the frames that it has been given."""
        written = self._now.frames > self._part_begins
        seconds = self._before.seconds + time.perf_counter() - self._begun
        paint.put(
            replace(self._now, seconds=seconds, written=written, done=done, memory=memory or {})
        )
        self._part_begins = self._now.frames

    def _paint(self, item: _Colored | Checkpoint) -> _Planes | Checkpoint:
        """A frame's planes, from its luma and its small colours; runs in the painter's thread."""
        if isinstance(item, Checkpoint):
            return item
        frame, info = item.small.frame, self._info
        u, v = frame_colors.chroma_planes(
            frame.luma, item.small.gray, item.ab, info, self._settings, item.truths
        )
        return _Planes(frame.pts, frame.luma, u, v, frame.alpha)

    def _encode(self, item: _Planes | Checkpoint) -> None:
        """Write a frame, or end the part; runs in the encoder's thread."""
        if isinstance(item, Checkpoint):
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._share.save(item)
            return
        if self._writer is None:
            encoding = self._settings.encoding
            assert encoding is not None
            self._writer = PartWriter(self._share.next_path, self._info, encoding)
        self._writer.write(*item)
        self._written += 1

    def _abandon(self) -> None:
        """Remove the part that is not whole."""
        if self._writer is not None:
            self._writer.abandon()
