"""The strip of a film's key frames: small pictures of frames worth one, and those of them that a user
has given colours.
"""

from __future__ import annotations

import os
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np

from gancolor import color
from gancolor.coloring import painting
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError, shown
from gancolor.images import arrays, formats, writer
from gancolor.images.arrays import Picture
from gancolor.images.photograph import Photograph
from gancolor.runtime.files import Progress
from gancolor.video import chroma, frame_colors, key_frames, key_places, shot_search
from gancolor.video.cursor import FilmCursor
from gancolor.video.decoding import Frame
from gancolor.video.film_settings import FilmSettings
from gancolor.video.flow import FloatMap
from gancolor.video.key_frames import KeyFile
from gancolor.video.key_places import KeyPlace
from gancolor.video.planes import Plane
from gancolor.video.probe import FilmInfo
from gancolor.video.shots import Shots

MOST = 400
"""Frames that a strip shows by itself."""

_MOST_ADDED = 400  # and those that are asked for


class FilmStrip:
    """Key frames of the film `source`.

    `folder`: for their pictures. `parts`: where the film's parts will lie, and what is known of its
    shots. `size`: the shorter side at which the network sees frames. `keys`: the folder that
    `--keys` takes, with what the user changed alone.
    """

    def __init__(self, source: Path, folder: Path, parts: Path, info: FilmInfo, size: int) -> None:
        self._source, self._parts, self._info, self._size = source, parts, info, size
        self._pictures = folder / "strip"
        self.keys = folder / "keys"
        self._shots: Shots | None = None
        self._places: dict[str, KeyPlace] = {}
        self._lock = threading.Lock()  # of what a frame is given

    @property
    def places(self) -> list[KeyPlace]:
        """The frames whose pictures are there, in order."""
        return sorted(self._places.copy().values())

    @property
    def shots(self) -> int:
        """How many shots the film has; 0 as long as it is not known."""
        return 0 if self._shots is None else len(self._shots.begins)

    def place(self, name: str) -> KeyPlace:
        """The frame of that name. DataError when it is not in the strip."""
        if name not in self._places:
            raise DataError(f"a key frame must be one of the strip, got {shown(name, 40)}")
        return self._places[name]

    def seconds(self, name: str) -> float:
        """When a frame is shown, in seconds from the film's beginning."""
        return float(self.place(name).pts * self._info.time_base - self._info.origin)

    def gather(self, colorizer: Colorizer, settings: FilmSettings, progress: Progress) -> None:
        """Find the shots, and colour some frames of each; on the thread that owns the network."""
        for folder in (self._pictures, self.keys, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self._shots = shot_search.search(
            self._source, self._parts, size=self._size, progress=progress
        )
        places = key_places.choose_places(self._shots, self._info, most=MOST)
        with self._cursor() as cursor:
            for number, place in enumerate(places):
                if place.name not in self._places:
                    self._show(place, cursor, colorizer, settings)
                progress(number + 1, len(places))

    def add(self, seconds: float, colorizer: Colorizer, settings: FilmSettings) -> KeyPlace:
        """Put the frame of that time into the strip; on the thread that owns the network."""
        if self._shots is None:
            raise DataError("the film's shots must be known before a frame is added, got none yet")
        place = key_places.place_near(self._shots, self._info, seconds)
        if place.name not in self._places:
            if len(self._places) >= MOST + _MOST_ADDED:
                raise DataError(f"a strip must have at most {MOST + _MOST_ADDED} frames, got more")
            with self._cursor() as cursor:
                self._show(place, cursor, colorizer, settings)
        return place

    def picture(self, name: str) -> Path:
        """The small picture of a frame, as it is coloured now."""
        own = self._pictures / f"{self.place(name).name}-own.jpg"
        return own if self.is_own(name) else own.with_name(f"{name}.jpg")

    def still(self, name: str) -> Path:
        """A frame as a gray picture of the film's size and depth, to be coloured."""
        place, info = self.place(name), self._info
        path = self._pictures / f"{place.name}-gray.png"
        if not path.exists():
            grays = chroma.grays if info.depth == 8 else chroma.deep_grays
            gray = grays(self._frame(place).luma, info.full_range, info.depth)
            bare = Photograph(pixels=np.empty((0, 0), np.uint8))
            writer.write(path, np.repeat(gray[..., None], 3, axis=2), bare)
        return path

    def is_own(self, name: str) -> bool:
        """Whether the user gave a frame colours."""
        return self._file(name) is not None

    def own(self) -> list[str]:
        """The names of the frames that the user gave colours."""
        return [place.name for place in self.places if self.is_own(place.name)]

    def give(self, name: str, picture: Path, saturation: float) -> None:
        """Take a picture as what a frame is to look like. DataError, in the words of `--keys`, for
        one that is no key frame of this film.
        """
        place = self.place(name)
        kind = formats.by_suffix(picture.name)
        if kind is None or not kind.readable:
            raise DataError(
                f"a key frame must be a picture of a kind that is read, got {shown(picture.name)}"
            )
        suffix = formats.suffix_of(picture.name)
        tried = self._pictures / f"{place.name}{suffix}.tried{suffix}"
        time = Fraction(place.name)
        shutil.copyfile(picture, tried)
        try:
            file = KeyFile(tried, time, len(place.name.partition(".")[2]))
            key_frames.check_file(file, self._info)
            gray = self._seen(self._frame(place))
            known = key_frames.known_frame(file, place.pts, gray, saturation)
            guess = self._guess(place, gray.shape, saturation)
            ab = known.colors + guess * (1 - known.alpha[..., None])
            small = painting.paint(gray, np.asarray(ab, np.float32), saturation=saturation)
            with self._lock:
                self.take_back(name)
                arrays.write_rgb(self._pictures / f"{place.name}-own.jpg", self._square(small))
                os.replace(tried, self.keys / f"{place.name}{suffix}")
        except DataError as error:
            raise DataError(str(error).replace(str(tried), picture.name)) from error
        finally:
            tried.unlink(missing_ok=True)

    def take_back(self, name: str) -> None:
        """Leave a frame to the network again."""
        if (file := self._file(name)) is not None:
            file.unlink()

    def _file(self, name: str) -> Path | None:
        place = self.place(name)
        found = self.keys.glob(f"{place.name}.*") if self.keys.is_dir() else iter(())
        return next(found, None)

    def _cursor(self) -> FilmCursor:
        return FilmCursor(self._source, start=None, end=None)

    def _frame(self, place: KeyPlace) -> Frame:
        with self._cursor() as cursor:
            frame = next(cursor.frames(place.pts, place.pts + 1), None)
        if frame is None:
            raise DataError(f"the frame at {place.name} must be readable, got none there")
        return frame

    def _seen(self, frame: Frame) -> Plane:
        return frame_colors.small_gray(frame.luma, self._size, self._info)

    def _show(
        self, place: KeyPlace, cursor: FilmCursor, colorizer: Colorizer, settings: FilmSettings
    ) -> None:
        """Colour a frame, and put its picture into the strip."""
        frame = next(cursor.frames(place.pts, place.pts + 1), None)
        if frame is None:
            return  # damaged: the film is coloured without it
        gray = self._seen(frame)
        ab = frame_colors.predict(colorizer, gray, settings.temperature).ab
        small = painting.paint(gray, ab, saturation=settings.saturation)
        arrays.write_rgb(self._pictures / f"{place.name}.jpg", self._square(small))
        self._places[place.name] = place

    def _square(self, small: Picture) -> Picture:
        """A picture as it is shown, with pixels that are square."""
        height, width = small.shape[:2]
        return arrays.resize(small, (height, max(1, round(width * self._info.pixel_aspect))))

    def _guess(self, place: KeyPlace, shape: tuple[int, int], saturation: float) -> FloatMap:
        """What the network said of a frame, ab (h, w, 2), by its picture in the strip."""
        rgb = arrays.read_rgb(self._pictures / f"{place.name}.jpg")
        _, ab = color.split(color.to_tensor(arrays.resize(rgb, shape)))
        divided = ab[0].permute(1, 2, 0).numpy() / (saturation or 1)
        return np.asarray(divided, np.float32)
