"""Colours of other pictures: where a photograph and a reference show the same thing, the
reference's colour becomes a hint.

Welsh, Ashikhmin and Mueller ("Transferring Color to Greyscale Images", SIGGRAPH 2002) find the
place of a reference that looks like each place of a gray picture by lightness; here, as by He et
al. ("Deep Exemplar-based Colorization", SIGGRAPH 2018), both pictures are compared by what a
network for classification sees in their lightness. Nothing is learned for it: the features are
those of the colorizer's own backbone, and the colours spread as a user's hints do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.coloring import views
from gancolor.coloring.views import Sight, View
from gancolor.data.doctor import examination
from gancolor.errors import ConfigError, DataError
from gancolor.hints import Hint
from gancolor.images import arrays
from gancolor.images.arrays import Picture

MOST = 64
"""Matches of one picture at most, of all its references together."""

STRIDE = 8
"""Pixels of the view that is compared per position of its features, both ways."""

SIDE = 256
"""Views that are compared have about this many pixels squared, whatever their shape."""

CONFIDENCE = 0.6
"""From here on a match is sure: mean cosine of the features of 3 x 3 positions, in [-1, 1]."""

_FEWEST = 4  # sure matches of one reference: fewer are chance
_MANY = 24  # sure matches from which on a reference shows the same scene, and less sure ones count
_LOWER = 0.1  # by how much these may be less sure
_APART = 3  # positions that matches are apart at least
_TONE = 0.08  # of lightness in [-1, 1]: how different pixels may be to share a colour
_AROUND = 6  # pixels around a match that are looked through for its lightness
_SHARE = 0.1  # of these at least that must have it
_WIDEST = 10  # pixels that a match's colour reaches at most to each side, where both are even
_EVEN_TONE, _EVEN_COLOR = 0.1, 0.05  # deviation of lightness, and of ab, in [-1, 1], that is even
_SHOWN = 2  # times the size at which pictures are compared are they shown
_DOT = 9  # pixels from the middle to the edge of a match that is shown


class Features(NamedTuple):
    """What a network sees of a view: two of its taps, float32 (h, w, C) each, at the same
    positions.

    `rows`, `columns`: the positions' centres, in shares of the view's height and width.
    """

    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


@dataclass(frozen=True)
class Exemplar:
    """A picture that is compared: of `height` x `width` pixels, but here small, uint8 (h, w, 3),
    with what a network sees of its lightness.
    """

    name: str
    height: int
    width: int
    rgb: Picture
    features: Features

    @functools.cached_property
    def lab(self) -> NDArray[np.float32]:
        """Lightness and ab of `rgb`, float32 (h, w, 3) in [-1, 1]."""
        lightness, ab = color.split(color.to_tensor(self.rgb))
        lab: NDArray[np.float32] = torch.cat([lightness, ab], 1)[0].permute(1, 2, 0).numpy()
        return lab


class Match(NamedTuple):
    """A place of a photograph that a reference shows too.

    `hint`: the place in pixels of the photograph, and the reference's colour. `reference`: its
    number, from 0; `x` and `y`: the place there, in shares of its width and height. `confidence`:
    in [-1, 1].
    """

    hint: Hint
    reference: int
    x: float
    y: float
    confidence: float


def describe(pixels: NDArray[Any], name: str, look: Callable[[View], Features]) -> Exemplar:
    """Look at a picture, (H, W) or (H, W, 3), uint8, uint16 or float32 in [0, 1]; see `match`.

    look: what a network sees of a view (`Colorizer.describe_view`).
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / (height * width) ** 0.5)
    rgb = views.shrink(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return Exemplar(name, height, width, rgb, look(View(rgb)))


def check_able(sight: Sight, what: str = "a reference") -> None:
    """Raise ConfigError, naming `what` asks for it, unless a network can compare pictures and follow
    hints.
    """
    if not sight.hints:
        raise ConfigError(
            f"{what} must be left out with a network that takes no hints; use a run trained with"
            " --hints, or general"
        )
    if not sight.features:
        raise ConfigError(
            f"{what} must be left out with an ONNX model, whose features cannot be read; use the run"
            " itself"
        )


def check_colors(pixels: NDArray[Any], name: str) -> None:
    """Raise DataError for a reference (H, W) or (H, W, 3) that is gray."""
    if examination.is_gray(views.shrink(pixels, examination.SIDE, examination.SIDE)):
        raise DataError(f"a reference must be a picture in colour, got {name} in gray")


def match(
    photograph: Exemplar,
    references: Sequence[Exemplar],
    known: Sequence[Hint] = (),
) -> list[Match]:
    """Find where a photograph shows what one of the references shows, the surest first.

    Two positions match if the features of both and of those around them are nearest to each other
    mutually, alike enough (`CONFIDENCE`; somewhat less will do where a reference has many such
    matches), and if the reference has the photograph's lightness there. Where several matches are
    near each other, also of several references, the surest counts, and none counts near a hint that
    is `known`. At most `MOST`.
    """
    found = [
        each
        for number, reference in enumerate(references)
        for each in _compare(photograph, reference, number)
    ]
    found.sort(key=lambda each: -each.confidence)
    rows, columns = len(photograph.features.rows), len(photograph.features.columns)
    apart = np.array([_APART * photograph.width / columns, _APART * photograph.height / rows])
    places = [(hint.x, hint.y) for hint in known]
    around = [(apart + hint.radius).tolist() for hint in known]
    chosen: list[Match] = []
    for each in found:
        place = (each.hint.x, each.hint.y)
        if places and (np.abs(np.subtract(places, place)) < around).all(1).any():
            continue
        chosen.append(each)
        places.append(place)
        around.append(apart.tolist())
        if len(chosen) == MOST:
            break
    return chosen


def show(photograph: Exemplar, references: Sequence[Exemplar], matches: Sequence[Match]) -> Picture:
    """Draw the gray photograph and the references side by side, uint8 RGB, with the matches as
    numbered dots in their colours.
    """
    lightness = torch.from_numpy(photograph.lab[..., :1]).permute(2, 0, 1)[None]
    gray = (color.gray(lightness)[0, 0] * 255).round().byte().numpy()
    cells = [
        cv2.resize(rgb, None, fx=_SHOWN, fy=_SHOWN, interpolation=cv2.INTER_CUBIC)
        for rgb in (np.repeat(gray[..., None], 3, 2), *(each.rgb for each in references))
    ]
    for number, (hint, reference, x, y, _) in enumerate(matches, start=1):
        share = ((hint.x + 0.5) / photograph.width, (hint.y + 0.5) / photograph.height)
        for cell, place in ((cells[0], share), (cells[1 + reference], (x, y))):
            _draw_dot(cell, place, hint.rgb, str(number))
    titles = ["gray", *(reference.name for reference in references)]
    return arrays.sheet([[np.asarray(cell, np.uint8) for cell in cells]], titles)


def _draw_dot(
    cell: NDArray[Any], place: tuple[float, float], rgb: tuple[float, ...], text: str
) -> None:
    middle = (int(place[0] * cell.shape[1]), int(place[1] * cell.shape[0]))
    ink = (0, 0, 0) if sum(rgb) > 330 else (255, 255, 255)
    cv2.circle(cell, middle, _DOT + 1, ink, -1, cv2.LINE_AA)
    cv2.circle(cell, middle, _DOT, rgb, -1, cv2.LINE_AA)
    corner = (middle[0] - 4 * len(text), middle[1] + 4)
    cv2.putText(cell, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, 1, cv2.LINE_AA)


def _compare(photograph: Exemplar, reference: Exemplar, number: int) -> list[Match]:
    """All matches with one reference; none if there are too few to trust them."""
    seen, others = photograph.features, reference.features
    alike = _similarity(seen, others).reshape(seen.fine[..., 0].size, -1)
    nearest = alike.argmax(1)
    places = np.arange(len(alike))
    sure = alike[places, nearest]
    mutual = alike.argmax(0)[nearest] == places
    found: list[tuple[float, float, float, float, float, int]] = []
    colors: list[NDArray[np.float32]] = []
    many = (mutual & (sure >= CONFIDENCE)).sum() >= _MANY
    least = CONFIDENCE - _LOWER if many else CONFIDENCE
    for here in np.flatnonzero(mutual & (sure >= least)).tolist():
        row, column = divmod(here, len(seen.columns))
        other_row, other_column = divmod(int(nearest[here]), len(others.columns))
        y, x = float(seen.rows[row]), float(seen.columns[column])
        other_y, other_x = float(others.rows[other_row]), float(others.columns[other_column])
        lab = _color_of(photograph, (y, x), reference, (other_y, other_x))
        if lab is not None:
            reach = _reach(photograph, (y, x), reference, (other_y, other_x))
            found.append((x, y, other_x, other_y, float(sure[here]), reach))
            colors.append(lab)
    if len(found) < _FEWEST:
        return []
    lightness, ab = torch.from_numpy(np.stack(colors))[..., None, None].split((1, 2), 1)
    rgb = (color.merge_in_gamut(lightness, ab)[..., 0, 0] * 255).tolist()
    pixel = photograph.width / photograph.rgb.shape[1]  # of the photograph for one of its view
    return [
        Match(
            Hint(
                x * photograph.width - 0.5,
                y * photograph.height - 0.5,
                (red, green, blue),
                max(0.0, (reach + 0.5) * pixel - 0.5),
            ),
            number,
            other_x,
            other_y,
            confidence,
        )
        for (x, y, other_x, other_y, confidence, reach), (red, green, blue) in zip(
            found, rgb, strict=True
        )
    ]


def _similarity(first: Features, second: Features) -> NDArray[np.float32]:
    """How alike all positions of two pictures are, (h, w, h', w') in [-1, 1]: the mean over 3 x 3
    positions around both.

    Of each tap the mean of both pictures is taken off, which all positions share, and both taps
    count the same.
    """
    sums = np.zeros((*first.fine.shape[:2], *second.fine.shape[:2]), np.float32)
    for one, other in ((first.fine, second.fine), (first.coarse, second.coarse)):
        a, b = one.reshape(-1, one.shape[2]), other.reshape(-1, other.shape[2])
        mean = np.concatenate([a, b]).mean(0)
        a, b = _normalize(a - mean), _normalize(b - mean)
        sums += (a @ b.T / 2).reshape(sums.shape)
    total, count = np.zeros_like(sums), np.zeros_like(sums)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            here = (_shifted(down), _shifted(right)) * 2
            there = (_shifted(-down), _shifted(-right)) * 2
            total[here] += sums[there]
            count[here] += 1
    total /= count
    return total


def _shifted(step: int) -> slice:
    return slice(max(0, step), None if step >= 0 else step)


def _normalize(features: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = features / np.maximum(length, 1e-6)
    return unit


def _color_of(
    photograph: Exemplar,
    here: tuple[float, float],
    reference: Exemplar,
    there: tuple[float, float],
) -> NDArray[np.float32] | None:
    """The photograph's lightness at a place (row, column in shares), and the ab, (3,) in all, that
    the reference has for that lightness about its place; None where it has no such lightness.
    """
    tone = float(_around(photograph.lab, here, 1)[..., 0].mean())
    around = _around(reference.lab, there, _AROUND).reshape(-1, 3)
    weights = np.exp(-((around[:, 0] - tone) ** 2) / (2 * _TONE**2))
    if weights.mean() < _SHARE:
        return None
    ab = weights @ around[:, 1:] / weights.sum()
    return np.array([tone, *ab], np.float32)


def _reach(
    photograph: Exemplar,
    here: tuple[float, float],
    reference: Exemplar,
    there: tuple[float, float],
) -> int:
    """How many pixels around a match have its colour too: as long as the photograph's lightness and
    the reference's colour stay even.
    """
    widest = 0
    for reach in range(2, _WIDEST + 1, 2):
        tone = _around(photograph.lab, here, reach)[..., 0]
        ab = _around(reference.lab, there, reach)[..., 1:].reshape(-1, 2)
        if tone.std() > _EVEN_TONE or np.hypot(*ab.std(0)) > _EVEN_COLOR:
            break
        widest = reach
    return widest


def _around(
    maps: NDArray[np.float32], place: tuple[float, float], reach: int
) -> NDArray[np.float32]:
    """The part of a map (h, w, C) within `reach` pixels of a place in shares of it."""
    row, column = (
        min(length - 1, int(share * length))
        for share, length in zip(place, maps.shape[:2], strict=True)
    )
    return maps[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
