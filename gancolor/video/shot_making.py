"""A film made shot by shot, with key frames of the user's own: a shot is made anew only where
something changed that decides its colours.
"""

from __future__ import annotations

import hashlib
import json
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor import __version__
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError, shown
from gancolor.runtime.files import Progress
from gancolor.video import frame_colors, shot_search
from gancolor.video.cursor import FilmCursor
from gancolor.video.encoding import WITH_ALPHA
from gancolor.video.key_frames import (
    KeyFile,
    check_file,
    digest,
    key_files,
    known_frame,
    matched,
)
from gancolor.video.parts import Share
from gancolor.video.planes import DeepPlane, Plane
from gancolor.video.share import Maker, Span
from gancolor.video.shot_keys import ShotKeys
from gancolor.video.shots import Shots

if TYPE_CHECKING:
    from gancolor.video.film_settings import FilmSettings
    from gancolor.video.probe import FilmInfo

_NAME = 24  # hex digits of a shot's name


@dataclass(frozen=True)
class _Shot:
    """The frames from the time `begin` (pts) on and before `end`, its key frames, and its parts."""

    begin: int
    end: int | None
    frames: int
    files: Mapping[int, KeyFile]
    share: Share

    @property
    def done(self) -> bool:
        """Whether all its parts are there."""
        return self.share.checkpoint is not None and self.share.checkpoint.done


class ShotMaker:
    """Makes the shots of a film in `folder`, as `making` says, which is plain JSON.

    `settings.keys` names the folder of the key frames, if there are any. `size`: the shorter side at
    which the network sees frames. `shares`: the parts of all shots, in order, as soon as these are known.
    `notes`: what the user should know. DataError for key frames that do not fit the film.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        source: Path,
        settings: FilmSettings,
        size: int,
        folder: Path,
        info: FilmInfo,
        making: Mapping[str, Any],
    ) -> None:
        assert settings.encoding is not None
        self._colorizer, self._source, self._settings = colorizer, source, settings
        self._size, self._folder, self._info = size, folder, info
        self._making = {
            key: value for key, value in making.items() if key not in ("--keys", "--from", "--to")
        }
        self.shares: list[Share] = []
        self._files, self.notes = ([], []) if settings.keys is None else key_files(settings.keys)
        for file in self._files:
            check_file(file, info)

    def run(self, progress: Progress) -> dict[str, float]:
        """Make the shots; returns the seconds that each part of the work took."""
        start = time.perf_counter()
        shots = self._shots(progress)
        busy = Counter[str]({"read": time.perf_counter() - start})
        encoding = self._settings.encoding
        alpha = encoding is not None and encoding.codec in WITH_ALPHA
        with self._cursor() as cursor:
            grays = self._checked(shots, cursor)
        total, done = sum(shot.frames for shot in shots), 0
        with (
            self._cursor(alpha=alpha) as cursor,
            self._cursor() as ahead,
        ):
            for shot in shots:
                if not shot.done:
                    shot.share.clear()
                    busy.update(self._make(shot, cursor, ahead, grays, progress, done, total))
                done += shot.frames
                progress(done, total)
        return dict(busy)

    def _make(
        self,
        shot: _Shot,
        cursor: FilmCursor,
        ahead: FilmCursor,
        grays: Mapping[int, Plane],
        progress: Progress,
        before: int,
        total: int,
    ) -> dict[str, float]:
        settings = self._settings
        with ShotKeys(
            shot.files,
            grays,
            ahead,
            size=self._size,
            interval=settings.key_interval,
            saturation=settings.saturation,
            folder=self._folder,
        ) as keys:
            return Maker(
                self._colorizer,
                self._source,
                settings,
                self._size,
                Span(shot.begin, shot.end, frames=shot.frames),
                shot.share,
                lambda done, _: progress(before + done, total),
                keys=keys,
                cursor=cursor,
            ).run()

    def _shots(self, progress: Progress) -> list[_Shot]:
        """The film's shots with their key frames; notes how many are made anew."""
        found = self._find(progress)
        part = (self._settings.start, self._settings.end) != (None, None)
        files = matched(self._files, found.times, self._info, part=part)
        if left := len(self._files) - len(files):
            self.notes.append(f"key frames outside --from and --to left out: {left}")
        if files and not self._colorizer.sight.hints:
            self.notes.append(
                f"{self._colorizer.name} takes no hints: colours of key frames are carried along"
                " the motion, but tell it nothing of the rest"
            )
        times = sorted(files)
        shots = []
        for begin, end, frames in found.spans():
            own = times[
                bisect_left(times, begin) : None if end is None else bisect_left(times, end)
            ]
            inside = {pts: files[pts] for pts in own}
            share = Share(self._folder, self._name(begin, end, inside))
            shots.append(_Shot(begin, end, frames, inside, share))
        self.shares += [shot.share for shot in shots]
        keyed, made = sum(bool(shot.files) for shot in shots), sum(not shot.done for shot in shots)
        many = f"{len(files)} key frame{'s' * (len(files) != 1)}"
        self.notes.append(f"{many} in {keyed} of {len(shots)} shots; {made} made anew")
        return shots

    def _find(self, progress: Progress) -> Shots:
        settings = self._settings
        return shot_search.search(
            self._source,
            self._folder,
            size=self._size,
            start=settings.start,
            end=settings.end,
            progress=progress,
        )

    def _checked(self, shots: Sequence[_Shot], cursor: FilmCursor) -> dict[int, Plane]:
        """What the network sees of the frames of all key frames that are needed, which fit."""
        grays: dict[int, Plane] = {}
        for shot in shots:
            if shot.done:
                continue
            for pts, file in sorted(shot.files.items()):
                frame = next(cursor.frames(pts, pts + 1), None)
                if frame is None:
                    raise DataError(
                        f"the frame of {shown(file.path)} must be readable, got none there"
                    )
                grays[pts] = self._seen(frame.luma, cursor)
                known_frame(file, pts, grays[pts], self._settings.saturation)
        return grays

    def _cursor(self, *, alpha: bool = False) -> FilmCursor:
        settings = self._settings
        return FilmCursor(self._source, start=settings.start, end=settings.end, alpha=alpha)

    def _seen(self, luma: DeepPlane, cursor: FilmCursor) -> Plane:
        return frame_colors.small_gray(luma, self._size, cursor.info)

    def _name(self, begin: int, end: int | None, files: Mapping[int, KeyFile]) -> str:
        """A hash of all that decides what a shot's parts hold."""
        keys = [(pts, digest(file)) for pts, file in sorted(files.items())]
        about = json.dumps([__version__, self._making, begin, end, keys], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:_NAME]
