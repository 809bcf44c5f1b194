"""What a user has told of a photograph on the page, and how it is taken back: immutable, in pixels of
the photograph at its full size.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import hints as known_hints
from gancolor.coloring import mask_files
from gancolor.coloring.mask_files import Mask
from gancolor.errors import ConfigError
from gancolor.hints import Hint

Path2D = tuple[tuple[float, float], ...]
"""The places that a brush went through, columns and rows."""

MOST_STEPS = 200
"""Steps that can be undone."""

MOST_PLACES = 5000
"""Places of a stroke."""

_SCALE_BITS = 4  # of OpenCV's places between pixels


@dataclass(frozen=True)
class Mark:
    """A colour that a user gave: one hint for a point, several along a stroke, whose `path` is shown."""

    hints: tuple[Hint, ...]
    path: Path2D = ()
    radius: float = 0.0

    @property
    def place(self) -> tuple[float, float]:
        """Column and row of its first hint."""
        return self.hints[0].x, self.hints[0].y

    @property
    def color(self) -> str:
        """#rrggbb."""
        return hex_of(self.hints[0].rgb)

    def moved(self, x: float, y: float) -> Mark:
        """The mark with its first hint at another place, and the rest with it."""
        right, down = x - self.place[0], y - self.place[1]
        return Mark(
            tuple(
                dataclasses.replace(each, x=each.x + right, y=each.y + down) for each in self.hints
            ),
            tuple((column + right, row + down) for column, row in self.path),
            self.radius,
        )

    def recolored(self, color: str) -> Mark:
        """The mark in another colour."""
        rgb = rgb_of(color)
        return dataclasses.replace(
            self, hints=tuple(dataclasses.replace(each, rgb=rgb) for each in self.hints)
        )


@dataclass(frozen=True)
class Sweep:
    """A stroke of the brush that says where to colour; `erases`: where not to."""

    path: Path2D
    radius: float
    erases: bool = False


@dataclass(frozen=True)
class Edit:
    """All that a user has told of a photograph. `region`: a picture of where to colour, as `--mask` takes
    it, on which `sweeps` paint. `variant`: the one that was taken, 0 the likely one.
    """

    marks: tuple[Mark, ...] = ()
    region: Path | None = None
    sweeps: tuple[Sweep, ...] = ()
    saturation: float = 1.0
    variant: int = 0

    @property
    def hints(self) -> tuple[Hint, ...]:
        """The hints of all marks."""
        return tuple(hint for mark in self.marks for hint in mark.hints)

    def with_mark(self, mark: Mark) -> Edit:
        """Add a mark."""
        return dataclasses.replace(self, marks=(*self.marks, mark))

    def replaced(self, number: int, *marks: Mark) -> Edit:
        """Put `marks`, which may be none, where the mark of a number, from 0, is. ConfigError when
        there is no such mark.
        """
        if not 0 <= number < len(self.marks):
            raise ConfigError(
                f"a hint must be one of the {len(self.marks)} that are there, got {number + 1}"
            )
        before, behind = self.marks[:number], self.marks[number + 1 :]
        return dataclasses.replace(self, marks=(*before, *marks, *behind))

    def mark(self, number: int) -> Mark:
        """The mark of a number, from 0. ConfigError when there is none."""
        self.replaced(number)
        return self.marks[number]

    def checked(self, height: int, width: int) -> Edit:
        """The same. ConfigError unless all hints lie in a photograph of that size."""
        known_hints.check(self.hints, height, width)
        return self

    def mask(
        self,
        height: int,
        width: int,
        scale: float = 1.0,
        read: Callable[[Path, int, int], Mask] = mask_files.read,
    ) -> Mask | None:
        """Where to colour, (height, width), of a photograph whose own pixels are 1 / scale as large;
        None for everywhere. `read`: reads the region's picture for that size.
        """
        if self.region is None and not self.sweeps:
            return None
        if self.region is None:
            base = 255 if self.sweeps[0].erases else 0
            mask: Mask = np.full((height, width), base, np.uint8)
        else:
            mask = read(self.region, height, width).copy()
        for sweep in self.sweeps:
            draw_path(mask, sweep.path, sweep.radius, 0 if sweep.erases else 255, scale)
        return mask


@dataclass(frozen=True)
class History:
    """An edit with what was before it, and what was undone."""

    present: Edit = Edit()
    past: tuple[Edit, ...] = ()
    future: tuple[Edit, ...] = ()

    def done(self, edit: Edit) -> History:
        """Go on with another edit; nothing changes for an equal one."""
        if edit == self.present:
            return self
        return History(edit, (*self.past, self.present)[-MOST_STEPS:])

    def undone(self) -> History:
        """Go back a step, if there is one."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redone(self) -> History:
        """Take back the last `undone`, if there is one."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:])


def hex_of(rgb: Sequence[float]) -> str:
    """#rrggbb of red, green and blue from 0 to 255."""
    return "#{:02x}{:02x}{:02x}".format(*(round(value) for value in rgb))


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, or of rgb(r, g, b) or rgba(r, g, b, a) as colour pickers say
    it. ConfigError for another text.
    """
    text = color.strip()
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
        else:
            name, _, rest = text.partition("(")
            if name not in ("rgb", "rgba"):
                raise ValueError(text)
            parts = [float(part) for part in rest.rstrip(")").split(",")[:3]]
            red, green, blue = (min(255, max(0, round(part))) for part in parts)
    except ValueError as error:
        raise ConfigError(f"a colour must be like #963228, got {text[:40]}") from error
    return red, green, blue


def path_of(said: Any) -> Path2D:
    """The places of a stroke that a browser tells. ConfigError for something else."""
    try:
        path = tuple((float(x), float(y)) for x, y in said)
    except (TypeError, ValueError) as error:
        raise ConfigError("a stroke must be a list of places x, y, got something else") from error
    if not 1 <= len(path) <= MOST_PLACES or not np.isfinite(path).all():
        raise ConfigError(f"a stroke must have 1 to {MOST_PLACES} places, got {len(path)}")
    return path


def draw_path(
    picture: NDArray[np.uint8], path: Path2D, radius: float, value: Any, scale: float
) -> None:
    """Draw a stroke with round ends into an array (H, W) or (H, W, C), `scale` times as large as the
    photograph that the path and the radius count in.
    """
    places = (np.array(path) + 0.5) * scale - 0.5
    places = np.rint(places.clip(-1e4, 1e5) * (1 << _SCALE_BITS)).astype(np.int32)
    thick = max(1, round(2 * radius * scale))
    if len(places) > 1:
        cv2.polylines(picture, [places], False, value, thick, cv2.LINE_8, _SCALE_BITS)
    for place in (places[0], places[-1]):
        reach = max(1, round(thick / 2 * (1 << _SCALE_BITS)))
        cv2.circle(picture, place.tolist(), reach, value, -1, cv2.LINE_8, _SCALE_BITS)


def text_of(hints: Sequence[Hint]) -> str:
    """Hints as a JSON file that `--hints` reads."""
    told = [
        {"x": hint.x, "y": hint.y, "color": hex_of(hint.rgb), "radius": hint.radius}
        for hint in hints
    ]
    return json.dumps(told, indent=1) + "\n"
