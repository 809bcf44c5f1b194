"""Going through a film's frames from place to place: what is just ahead is read on to, so that films
that cannot be sought in are read once, and the rest is sought.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from gancolor.video.decoding import FilmReader, Frame
from gancolor.video.probe import FilmInfo, probe

_NEAR = 250  # frames that are rather read and dropped than sought past


class FilmCursor:
    """The frames of a film in any stretches, best in order: a context manager.

    `start`, `end`, `alpha`: as for `FilmReader`. `info`: of the film, with the notes of what was
    read. `damaged`: what was lost so far, a line each. Raises what `FilmReader` does.
    """

    def __init__(
        self, path: Path, *, start: float | None, end: float | None, alpha: bool = False
    ) -> None:
        self.info: FilmInfo = probe(path)
        self._path, self._start, self._end, self._alpha = path, start, end, alpha
        self._stack = ExitStack()
        self._reader: FilmReader | None = None
        self._frames: Iterator[Frame] = iter(())
        self._held: Frame | None = None  # read, and behind the last stretch
        self._position = 0  # all frames of the reader before this time are through
        self._lost: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def damaged(self) -> list[str]:
        """What was lost so far, one line a stretch, as `Ledger.lines` has them."""
        return [*self._lost, *([] if self._reader is None else self._reader.damaged)]

    def frames(self, begin: int, end: int | None) -> Iterator[Frame]:
        """Yield the frames from the time `begin` (pts) on and before `end`; None is the film's end."""
        frame = self._reach(begin)
        while frame is not None:
            if end is not None and frame.pts >= end:
                self._held = frame
                return
            self._position = frame.pts + 1
            yield frame
            frame = next(self._frames, None)
        self._end_reached()

    def _reach(self, begin: int) -> Frame | None:
        """The first frame at or behind a time; None if there is none."""
        if self._reader is not None and self._position <= begin:
            for _ in range(_NEAR):
                frame, self._held = self._held or next(self._frames, None), None
                if frame is None or frame.pts >= begin:
                    return frame
                self._position = frame.pts + 1
        self._open(begin)
        return next(self._frames, None)

    def _open(self, begin: int) -> None:
        self._end_reached()
        self._reader = self._stack.enter_context(
            FilmReader(
                self._path, start=self._start, end=self._end, from_pts=begin, alpha=self._alpha
            )
        )
        self._frames, self._held, self._position = iter(self._reader), None, begin

    def _end_reached(self) -> None:
        """Close the reader, and keep what it said."""
        if self._reader is not None:
            self._lost = list(dict.fromkeys([*self._lost, *self._reader.damaged]))
            self.info.notes.extend(
                note for note in self._reader.info.notes if note not in self.info.notes
            )
        self._stack.close()
        self._reader, self._frames, self._held = None, iter(()), None
