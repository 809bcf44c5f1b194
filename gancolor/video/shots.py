"""The shots of a film, found in a pass of their own before anything is coloured, and kept."""

from __future__ import annotations

import contextlib
import zipfile
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gancolor.runtime.files import written
from gancolor.video.grouping import GroupedFrame, Grouper
from gancolor.video.planes import Plane

_INTERVAL = 6  # frames of a group; the cuts do not depend on it


@dataclass(frozen=True)
class Shots:
    """`times`: those of all frames (pts), growing. `begins`: those of the first frames of shots."""

    times: tuple[int, ...]
    begins: tuple[int, ...]

    def spans(self) -> list[tuple[int, int | None, int]]:
        """Each shot's first time, the next one's (None at the end), and how many frames it has."""
        places = [*(bisect_left(self.times, begin) for begin in self.begins), len(self.times)]
        ends: list[int | None] = [*self.begins[1:], None]
        counts = [after - before for before, after in zip(places, places[1:], strict=False)]
        return list(zip(self.begins, ends, counts, strict=True))


def find_shots(frames: Iterable[tuple[int, Plane]]) -> Shots:
    """Find the shots of frames, each with its time (pts), and as the network sees it, (h, w)."""
    grouper, times, begins = Grouper(_INTERVAL), list[int](), list[int]()
    for index, (pts, gray) in enumerate(frames):
        times.append(pts)
        groups = grouper.take(GroupedFrame(index, gray))
        begins += [times[group.frames[0].index] for group in groups if group.cut]
    begins += [times[group.frames[0].index] for group in grouper.flush() if group.cut]
    return Shots(tuple(times), tuple(begins))


def save_shots(path: Path, shots: Shots, film: str) -> None:
    """Keep the shots; `film` says what they were found in. OSError if that fails."""
    with written(path) as file:
        np.savez(
            file,
            film=np.array(film),
            times=np.array(shots.times, np.int64),
            begins=np.array(shots.begins, np.int64),
        )


def load_shots(path: Path, film: str) -> Shots | None:
    """The shots that are kept of that `film`; None if there are none."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            if str(content["film"]) == film:
                return Shots(tuple(content["times"].tolist()), tuple(content["begins"].tolist()))
    return None
