"""The shots of a film's file: found in a pass over what the network would see, and kept in a folder
for whoever asks again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from gancolor import __version__
from gancolor.errors import DataError, shown
from gancolor.runtime.files import Progress
from gancolor.video import frame_colors
from gancolor.video.cursor import FilmCursor
from gancolor.video.parts import SHOTS
from gancolor.video.planes import Plane
from gancolor.video.shots import Shots, find_shots, load_shots, save_shots


def search(
    source: Path,
    folder: Path,
    *,
    size: int,
    start: float | None = None,
    end: float | None = None,
    progress: Progress,
) -> Shots:
    """The shots of a film from `start` to `end`, in seconds, or those that `folder` keeps of it.

    `size`: the shorter side at which the network sees frames. `progress` is called with the frames
    that are read and their estimated number. DataError for a film without frames there, and what
    `FilmReader` raises.
    """
    status = source.stat()
    film = json.dumps([__version__, [status.st_size, status.st_mtime_ns], size, start, end])
    path = folder / SHOTS
    if (kept := load_shots(path, film)) is not None:
        return kept
    with FilmCursor(source, start=start, end=end) as cursor:

        def grays() -> Iterator[tuple[int, Plane]]:
            for number, frame in enumerate(cursor.frames(-(1 << 62), None)):
                progress(number, cursor.info.frames)
                yield frame.pts, frame_colors.small_gray(frame.luma, size, cursor.info)

        found = find_shots(grays())
    if not found.times:
        raise DataError(
            f"{shown(source)} must have frames between --from and --to, got none; choose others"
        )
    save_shots(path, found, film)
    return found
