"""The key frames of one shot, as the making of it needs them: read when their time comes, with the
tracks that lead to them.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gancolor.video.cursor import FilmCursor
from gancolor.video.frame_colors import small_gray
from gancolor.video.grouping import GroupedFrame
from gancolor.video.key_frames import KeyFile, known_frame
from gancolor.video.planes import Plane
from gancolor.video.propagation import MOST_TRACKS, Stabilizer
from gancolor.video.tracking import KnownFrame, TracksAhead


class ShotKeys:
    """The key frames of a shot: a context manager.

    `files`: by the times (pts) of their frames. `grays`: what the network sees of these frames.
    `cursor`: looks ahead in the film. `size`: the shorter side at which the network sees frames.
    `interval`: frames from one of the network's key frames to the next. `folder`: for what is kept
    meanwhile.
    """

    def __init__(
        self,
        files: Mapping[int, KeyFile],
        grays: Mapping[int, Plane],
        cursor: FilmCursor,
        *,
        size: int,
        interval: int,
        saturation: float,
        folder: Path,
    ) -> None:
        self._files, self._grays, self._cursor = files, grays, cursor
        self._size, self._interval, self._saturation = size, interval, saturation
        self._folder = folder
        self._times = sorted(files)
        self._read: dict[int, KnownFrame] = {}
        self._stack = contextlib.ExitStack()
        self._ahead: list[TracksAhead] = []
        self._until: int | None = None  # the time of the next key frame that was looked for

    def __enter__(self) -> ShotKeys:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def restore(self, stabilizer: Stabilizer, memory: Mapping[str, Any]) -> None:
        """Let a stabilizer go on from `memory`."""
        carried = [pts for pts, _ in memory["known"].tolist()] if "known" in memory else []
        stabilizer.restore(memory, {pts: self._known(pts) for pts in carried})
        stabilizer.expect(self._ahead)

    def at(self, pts: int) -> KnownFrame | None:
        """The key frame at a time, if there is one."""
        return self._known(pts) if pts in self._files else None

    def look_ahead(self, stabilizer: Stabilizer, index: int, pts: int) -> None:
        """Find the tracks to the next key frames, where that is due.

        `index` and `pts`: of the frame to feed to the stabilizer, which waits for no other.
        """
        if self._until is not None and pts <= self._until:
            return
        self._stack.close()
        self._ahead, targets = [], self._targets(pts)
        self._until = targets[0].pts if targets else 1 << 62
        state = stabilizer.state()
        start = (index - 1, state["gray"]) if "gray" in state else None
        for known in targets:
            frames = self._frames(index, pts, known.pts)
            ahead = TracksAhead(known, frames, start, self._interval, self._folder)  # type: ignore[arg-type]  # "gray" is an array
            self._ahead.append(self._stack.enter_context(ahead))
        stabilizer.expect(self._ahead)
        kept = {known.pts for known in targets}
        self._read = {pts: known for pts, known in self._read.items() if pts in kept}

    def _targets(self, pts: int) -> list[KnownFrame]:
        """The next key frames behind a time: up to one that hides those behind it."""
        found: list[KnownFrame] = []
        for time in self._times[bisect_right(self._times, pts) :][:MOST_TRACKS]:
            found.append(self._known(time))
            if found[-1].opaque:
                break
        return found

    def _frames(self, index: int, begin: int, last: int) -> Iterator[GroupedFrame]:
        for number, frame in enumerate(self._cursor.frames(begin, last + 1), index):
            gray = small_gray(frame.luma, self._size, self._cursor.info)
            yield GroupedFrame(number, gray, frame.pts in self._files)

    def _known(self, pts: int) -> KnownFrame:
        if pts not in self._read:
            self._read[pts] = known_frame(self._files[pts], pts, self._grays[pts], self._saturation)
        return self._read[pts]
