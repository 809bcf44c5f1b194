"""Key frames written to a folder: those that the network would be asked about, coloured as in the
film, to be changed by hand and given back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import auto_size
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import writer
from gancolor.images.photograph import Photograph
from gancolor.runtime.files import Progress
from gancolor.video import frame_colors
from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.film_settings import FilmSettings
from gancolor.video.flow import FloatMap
from gancolor.video.key_frames import name_of
from gancolor.video.planes import Plane
from gancolor.video.probe import FilmInfo
from gancolor.video.propagation import ColoredFrame, Stabilizer
from gancolor.video.threads import Ahead, PipelineStage


@dataclass(frozen=True)
class KeyExport:
    """What was written: `keys` of `frames` frames in `shots` shots, in so many `bytes`. `notes`:
    what the user should know, `damaged`: what could not be decoded.
    """

    keys: int
    frames: int
    shots: int
    bytes: int
    notes: list[str]
    damaged: list[str]


class _Key(NamedTuple):
    """A frame, its colours (h, w, 2), and its name."""

    frame: Frame
    ab: FloatMap
    name: str


def export_keys(
    colorizer: Colorizer,
    source: Path,
    folder: Path,
    settings: FilmSettings,
    *,
    progress: Progress,
) -> KeyExport:
    """Write a film's key frames as PNG files of its size into `folder`, named as in `key_frames`.

    The folder must be missing or empty, and appears when all of them are whole. `progress` is
    called with the frames that are done and their estimated number. ConfigError for settings that
    cannot work, DataError for what cannot be read or written.
    """
    frame_colors.check_able(colorizer, settings)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"--export-keys must name a new or an empty folder, got {shown(folder)}; choose"
                " another"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        scratch.mkdir()
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        made = _Exporter(colorizer, source, scratch, settings, progress).run()
        try:
            size = sum(path.stat().st_size for path in scratch.iterdir())
            if folder.exists():
                folder.rmdir()
            scratch.rename(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return KeyExport(made.keys, made.frames, made.shots, size, made.notes, made.damaged)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Exporter:
    """Colours a film and writes its key frames alone."""

    def __init__(
        self,
        colorizer: Colorizer,
        source: Path,
        folder: Path,
        settings: FilmSettings,
        progress: Progress,
    ) -> None:
        self._colorizer, self._source, self._folder = colorizer, source, folder
        self._settings, self._progress = settings, progress
        self._size = auto_size(colorizer.sight) if settings.size is None else settings.size
        self._notes: list[str] = []
        self._waiting: deque[Frame] = deque()  # fed to the stabilizer, not yet back
        self._before: Fraction | None = None  # the time of the frame before those
        self._last: tuple[Frame, FloatMap] | None = None  # a key frame that waits for the next one
        self._keys = self._shots = self._frames = 0

    def run(self) -> KeyExport:
        """Write all key frames; the size is left at 0."""
        settings = self._settings
        stabilizer = Stabilizer(
            self._predict, strength=settings.strength, key_interval=settings.key_interval
        )
        with contextlib.ExitStack() as stack:
            write = PipelineStage("film-keys", self._write)
            stack.callback(write.stop)
            reader = stack.enter_context(
                FilmReader(self._source, start=settings.start, end=settings.end)
            )
            self._info = reader.info
            for index, (frame, gray) in enumerate(stack.enter_context(Ahead(self._look(reader)))):
                self._waiting.append(frame)
                self._hand_on(stabilizer.feed(index, gray), write)
                self._frames = index + 1
                self._progress(self._frames, reader.info.frames)
            self._hand_on(stabilizer.flush(), write)
            self._put(None, write)
            write.finish()
        if not self._frames:
            raise DataError(
                f"{shown(self._source)} must have frames between --from and --to, got none; choose"
                " others"
            )
        notes = list(dict.fromkeys([*reader.info.notes, *self._notes]))
        return KeyExport(self._keys, self._frames, self._shots, 0, notes, reader.damaged)

    def _look(self, reader: FilmReader) -> Iterator[tuple[Frame, Plane]]:
        """The frames with what the network sees of them; runs in the reader's thread."""
        for frame in reader:
            yield frame, frame_colors.small_gray(frame.luma, self._size, reader.info)

    def _predict(self, gray: Plane) -> FloatMap:
        found = frame_colors.predict(self._colorizer, gray, self._settings.temperature)
        self._notes += [note for note in found.notes if note not in self._notes]
        return found.ab

    def _hand_on(self, done: list[ColoredFrame], write: PipelineStage) -> None:
        """Put by the key frames among the frames that are done."""
        for colors in done:
            frame = self._waiting.popleft()
            self._put(frame, write)
            self._shots += colors.cut
            if colors.key:
                self._last = (frame, colors.ab)
            else:
                self._before = self._time(frame)

    def _put(self, after: Frame | None, write: PipelineStage) -> None:
        """Write the key frame that waits, now that the frame `after` it is known."""
        if self._last is not None:
            (frame, ab), self._last = self._last, None
            time = self._time(frame)
            next_time = None if after is None else self._time(after)
            write.put(_Key(frame, ab, name_of(time, self._before, next_time)))
            self._before, self._keys = time, self._keys + 1

    def _time(self, frame: Frame) -> Fraction:
        """When a frame is shown, in seconds from the film's beginning."""
        info: FilmInfo = self._info
        return frame.pts * info.time_base - info.origin

    def _write(self, key: _Key) -> None:
        """Paint and write a key frame; runs in a thread of its own."""
        pixels = frame_colors.rgb(key.frame.luma, key.ab, self._info, self._settings)
        bare = Photograph(pixels=np.empty((0, 0), np.uint8))
        writer.write(
            self._folder / f"{key.name}.png",
            pixels,
            bare,
            format="png",
            provenance=self._settings.provenance,
        )


def _unwritable(folder: Path, error: OSError) -> DataError:
    reason = error.strerror or type(error).__name__
    return DataError(
        f"--export-keys must name a folder to write in, got {shown(folder)} ({reason}); make room or"
        " choose another"
    )
