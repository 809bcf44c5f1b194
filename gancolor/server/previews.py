"""A photograph as the page shows it: reduced to a screen's size once, and painted anew after each
click. It runs on the thread that owns the network.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from gancolor import hints as known_hints
from gancolor.coloring import (
    full_size,
    hint_files,
    mask_files,
    objections,
    references,
    views,
)
from gancolor.coloring.colorizer import Colorizer, Suggestion
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.mask_files import Mask
from gancolor.coloring.references import Exemplar
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.hints import Hint
from gancolor.images import arrays, reader
from gancolor.images.arrays import Picture
from gancolor.images.photograph import Photograph
from gancolor.server.editing import Edit, Mark, Path2D, draw_path, hex_of, rgb_of

LONGEST_SIDE = 1200
"""Pixels of a preview's longer side at most: as much as a screen shows, and a click allows."""

VARIANTS = 6
"""Variants that are shown to choose from, the likely one among them."""

SUGGESTIONS = 8
"""Colours that are suggested at a place at most."""

_QUALITY = 88
_REGIONS_KEPT = 16  # each of at most a preview's size
_VEIL = 0.55  # how dark; that of the brush is in stage.js
_SMALL_SIDE = 320  # of what is shown to choose from


@dataclass
class Preview:
    """A photograph of `height` x `width` pixels, reduced to `rgb`, uint8 (h, w, 3). `seen`: what the
    network sees of the photograph itself, so that a download has the preview's colours. `notes`:
    what the user should know of its file.
    """

    rgb: Picture
    seen: Picture
    height: int
    width: int
    notes: list[str]
    _plain: dict[bytes, Prediction] = field(default_factory=dict)
    _exemplar: Exemplar | None = None

    @property
    def scale(self) -> float:
        """Pixels of the preview for one of the photograph."""
        return float(self.rgb.shape[1] / self.width)

    def hints(self, hints: Sequence[Hint]) -> tuple[Hint, ...]:
        """Hints of the photograph in pixels of the preview."""
        down = self.rgb.shape[0] / self.height
        return tuple(
            Hint(
                (hint.x + 0.5) * self.scale - 0.5,
                (hint.y + 0.5) * down - 0.5,
                hint.rgb,
                hint.radius * self.scale,
            )
            for hint in hints
        )

    def read_region(self, path: Path, height: int, width: int) -> Mask:
        """The picture of where to colour, at the preview's size. Errors as `mask_files.read`."""
        return _read_region(path, (self.height, self.width), (height, width))

    def veil(self, region: Path | None) -> str:
        """An address of a picture that is dark where a region leaves the photograph as it is."""
        if region is None:
            return ""
        return _veil(region, (self.height, self.width), self.rgb.shape[:2])


@dataclass
class Painted:
    """A preview in colour, and where its colours are sure, uint8 (h, w), if that was asked for."""

    rgb: Picture
    confidence: Picture | None
    notes: list[str]


def open_preview(path: Path, sight: Sight, max_pixels: int, side: int = LONGEST_SIDE) -> Preview:
    """Decode a photograph and reduce it. DataError for one that cannot be read, or is too large."""
    photograph = reader.read(path, max_pixels=max_pixels)
    height, width = photograph.size
    scale = min(1.0, side / max(height, width))
    rgb = views.shrink(
        photograph.pixels, max(1, round(height * scale)), max(1, round(width * scale))
    )
    seen = views.look(sight, photograph.pixels).rgb
    return Preview(rgb.copy(), seen.copy(), height, width, photograph.notes)


def paint(
    colorizer: Colorizer,
    preview: Preview,
    edit: Edit,
    exemplars: Sequence[Exemplar] = (),
    *,
    confidence: bool = False,
) -> Painted:
    """Colour a preview. What the network says without hints is asked for once and kept."""
    settings, notes = _settings(colorizer, preview, edit, exemplars)
    settings = dataclasses.replace(settings, confidence=confidence)
    done = full_size.color(
        Photograph(pixels=preview.rgb),
        settings,
        colorizer.sight,
        lambda view: _remember(colorizer, preview, view),
    )
    return Painted(done.pictures[0], done.confidence, [*notes, *done.notes])


def variants(
    colorizer: Colorizer, preview: Preview, edit: Edit, exemplars: Sequence[Exemplar] = ()
) -> list[Picture]:
    """The variants of a photograph, small, the likely one first. ConfigError where the network gives
    none.
    """
    settings, _ = _settings(colorizer, preview, edit, exemplars)
    small = thumbnail(preview.rgb)
    scale = small.shape[1] / preview.rgb.shape[1]
    hints = tuple(
        Hint(hint.x * scale, hint.y * scale, hint.rgb, hint.radius * scale)
        for hint in settings.hints
    )
    settings = dataclasses.replace(settings, variants=VARIANTS, only=None, hints=hints, mask=None)
    done = full_size.color(
        Photograph(pixels=small),
        settings,
        colorizer.sight,
        lambda view: _remember(colorizer, preview, view),
    )
    return list(done.pictures)


def suggest(
    colorizer: Colorizer, preview: Preview, x: float, y: float, hints: Sequence[Hint]
) -> list[Suggestion]:
    """The most probable colours at a place of the photograph, given hints elsewhere; none of a
    network that gives no distribution. ConfigError for a place outside.
    """
    known_hints.check(
        [Hint(x, y, (0, 0, 0))], preview.height, preview.width, name="place {}".format
    )
    if not colorizer.sight.distribution:
        return []
    place = preview.hints([Hint(x, y, (0, 0, 0))])[0]
    others = [hint for hint in hints if (hint.x, hint.y) != (x, y)]
    return colorizer.suggest(
        preview.rgb, place.x, place.y, count=SUGGESTIONS, hints=preview.hints(others)
    )


def describe(colorizer: Colorizer, path: Path, max_pixels: int) -> Exemplar:
    """A reference, looked at. DataError for one that cannot be read or is gray, ConfigError where
    the network cannot compare pictures.
    """
    references.check_able(colorizer.sight)
    preview = open_preview(path, colorizer.sight, max_pixels, references.SIDE * 2)
    references.check_colors(preview.rgb, path.name)
    return references.describe(preview.rgb, path.name, colorizer.describe_view)


def point(sight_size: int, preview: Preview, x: float, y: float, color: str) -> Mark:
    """A mark at a place, as large as a few of the pixels that the network sees."""
    shorter = min(preview.height, preview.width)
    radius = round(shorter / min(shorter, sight_size), 2)
    return Mark((Hint(round(x, 2), round(y, 2), rgb_of(color), radius),))


def stroke(sight_size: int, preview: Preview, path: Path2D, radius: float, color: str) -> Mark:
    """The mark of a brush's stroke: hints along it, as of a layer that is opaque there.
    DataError for one that lies outside the photograph.
    """
    height, width = preview.rgb.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    draw_path(alpha, path, radius, 255, preview.scale)
    red, green, blue = rgb_of(color)
    layer = np.empty((height, width, 3), np.uint8)
    layer[:] = red, green, blue
    seen = views.fit(height, width, sight_size)
    found = hint_files.points_of(
        Photograph(pixels=layer, alpha=alpha), preview.rgb, seen=seen, name="the stroke"
    )
    across, down = preview.width / width, preview.height / height
    hints = tuple(
        Hint(
            round((hint.x + 0.5) * across - 0.5, 2),
            round((hint.y + 0.5) * down - 0.5, 2),
            (red, green, blue),
            round(hint.radius * min(across, down), 2),
        )
        for hint in found.hints
    )
    return Mark(hints, path, radius)


def read_hints(path: Path, preview: Preview, sight_size: int) -> list[Mark]:
    """A file of hints for a photograph, a mark for each. Errors as `hint_files.read`."""
    stand_in = np.broadcast_to(np.uint8(0), (preview.height, preview.width))
    pixels = preview.rgb if hint_files.is_layer(path) else stand_in
    seen = views.fit(pixels.shape[0], pixels.shape[1], sight_size)
    found = hint_files.read(path, pixels, seen=seen)
    across = preview.width / pixels.shape[1]
    return [
        Mark(
            (
                Hint(
                    (hint.x + 0.5) * across - 0.5,
                    (hint.y + 0.5) * across - 0.5,
                    rgb_of(hex_of(hint.rgb)),
                    hint.radius * across,
                ),
            )
        )
        for hint in found.hints
    ]


@functools.lru_cache(maxsize=_REGIONS_KEPT)
def _read_region(path: Path, own: tuple[int, int], small: tuple[int, int]) -> Mask:
    """The picture of where to colour a photograph of a size, at that of its preview; kept for the next
    click.
    """
    mask = mask_files.read(path, *own)
    return np.asarray(cv2.resize(mask, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)


@functools.lru_cache(maxsize=_REGIONS_KEPT)
def _veil(path: Path, own: tuple[int, int], small: tuple[int, int]) -> str:
    dark = np.zeros((*small, 4), np.uint8)
    dark[..., 3] = np.rint((255 - _read_region(path, own, small)) * _VEIL)
    done, data = cv2.imencode(".png", dark)
    assert done
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def address_of(rgb: Picture) -> str:
    """A picture, uint8 (h, w, 3) or (h, w), as an address that holds it."""
    whole = np.repeat(rgb[..., None], 3, 2) if rgb.ndim == 2 else rgb
    data = base64.b64encode(arrays.encode_jpeg(np.ascontiguousarray(whole), _QUALITY)).decode()
    return f"data:image/jpeg;base64,{data}"


def heat(confidence: Picture) -> Picture:
    """Where colours are sure, uint8 (h, w), as a picture (h, w, 3) to lay over another: from blue
    for what is guessed to yellow for what is sure.
    """
    colors = cv2.applyColorMap(confidence, cv2.COLORMAP_CIVIDIS)
    return np.ascontiguousarray(colors[..., ::-1], np.uint8)


def thumbnail(rgb: Picture) -> Picture:
    """A picture, small enough to be one of many."""
    scale = min(1.0, _SMALL_SIDE / max(rgb.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return views.shrink(rgb, height, width)


def _settings(
    colorizer: Colorizer, preview: Preview, edit: Edit, exemplars: Sequence[Exemplar]
) -> tuple[PhotographSettings, list[str]]:
    """What an edit means for a preview, and notes on it."""
    height, width = preview.rgb.shape[:2]
    hints, mask = (
        preview.hints(edit.hints),
        edit.mask(height, width, preview.scale, preview.read_region),
    )
    full_size.check_able(colorizer.sight, hints=hints)
    notes: list[str] = []
    if edit.hints:
        seen = views.fit(height, width, full_size.auto_size(colorizer.sight))
        notes += objections.find(hints, preview.rgb, seen, mask)
    if exemplars:
        if preview._exemplar is None:
            preview._exemplar = references.describe(
                preview.rgb, "photograph", colorizer.describe_view
            )
        matches = references.match(preview._exemplar, exemplars, hints)
        if not matches:
            notes.append("nothing of it was found in its reference: coloured without")
        hints = (*hints, *(match.hint for match in matches))
    settings = PhotographSettings(
        saturation=edit.saturation, hints=hints, mask=mask, only=edit.variant
    )
    return settings, notes


def _remember(colorizer: Colorizer, preview: Preview, view: View) -> Prediction:
    """What the network says of a view; of one that has no hints, what it has said of it before."""
    if view.rgb.shape == preview.seen.shape and not view.flip:
        view = dataclasses.replace(view, rgb=preview.seen)
    if view.hints is not None or view.draw is not None or view.flip:
        return colorizer.predict_view(view)
    key = view.rgb.tobytes()
    if key not in preview._plain:
        preview._plain = {key: colorizer.predict_view(view)}
    return preview._plain[key]
