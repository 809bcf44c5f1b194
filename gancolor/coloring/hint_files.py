"""Hints as users write them down: a layer painted over the photograph, a table of points, or JSON.

An opaque stroke becomes a few points: in its middle, spread along it and over what is lighter and
darker beneath it, each as large as the stroke allows.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gancolor import color, fields
from gancolor import hints as known_hints
from gancolor.coloring import mask_files, painting
from gancolor.errors import DataError, shown
from gancolor.hints import Hint
from gancolor.images import reader
from gancolor.images.formats import KINDS
from gancolor.images.photograph import Photograph
from gancolor.images.pixels import Pixels, convert
from gancolor.runtime.files import read_regular

_LAYERS = ("png", "webp", "tiff", "gif", "psd", "tga", "avif", "heif", "jp2")
SUFFIXES = frozenset(
    [".csv", ".json", *(suffix for name in _LAYERS for suffix in KINDS[name].suffixes)]
)
"""Of the files that may hold hints."""

MOST_POINTS, MOST_STROKES = 32, 512
"""Of a stroke, and strokes of a layer: of more the largest count, and a note says so."""

MOST_OF_LAYER = 2048
"""Points of a layer: where there are many strokes each has fewer."""

_MOST_BYTES = 1 << 22  # of a table
_LAYER_PIXELS = 1 << 22  # of a larger layer the most opaque pixel of each block is looked at
_ALIKE = 8.0  # CIE units of ab within which colours count as one
_BETWEEN = 12.0  # and within which one is a mixture of two others
_HALF = 4.5  # half a side of the squares that a network is trained with at most, in its pixels
_SPACING = 6.0  # pixels of the network between two points of a stroke, where nothing else differs
_TONE = 10.0  # of L*: as good a reason for another point as that distance
_NEAREST = 0.34  # of that distance there is between any two
_CANDIDATES = 4096  # places of a stroke that are compared
_ROW = "x,y,#rrggbb or x,y,#rrggbb,radius"
_HEADERS = (["x", "y", "color"], ["x", "y", "color", "radius"])

_Whole = NDArray[np.int32]


class HintFile(NamedTuple):
    """What a file says: hints in pixels of the photograph, and what the user should know, a sentence
    each.
    """

    hints: tuple[Hint, ...]
    notes: tuple[str, ...] = ()


def read(
    path: Path, pixels: Pixels, *, seen: tuple[int, int], max_pixels: int = reader.MAX_PIXELS
) -> HintFile:
    """Read the hints for a photograph, upright (H, W) or (H, W, 3).

    A `.csv` file has a line `x,y,#rrggbb` or `x,y,#rrggbb,radius` for each point, in pixels of the
    photograph, with or without a line of these names above; a `.json` file a list of objects with
    these keys. Any other file is a picture with transparency, of the photograph's shape: what is
    opaque is known there. `seen`: height and width at which the network sees the photograph.

    DataError or ConfigError, naming the file and the line, for what cannot be read, is wrong, lies
    outside, or says nothing.
    """
    height, width = pixels.shape[:2]
    if is_layer(path):
        layer = reader.read(path, max_pixels=max_pixels)
        _check_shape(path, *layer.size, height, width)
        return points_of(layer, pixels, seen=seen, name=shown(path))
    return HintFile(_read_points(path, height, width))


def points_of(layer: Photograph, pixels: Pixels, *, seen: tuple[int, int], name: str) -> HintFile:
    """The hints of a layer with alpha, of the shape of a photograph (H, W) or (H, W, 3), in its
    pixels; `seen` as in `read`. DataError, calling the layer `name`, for one that says nothing.
    """
    _check_opacity(name, layer.alpha)
    height, width = pixels.shape[:2]
    return _points_of(layer, pixels, min(height / seen[0], width / seen[1]))


def check(path: Path, height: int, width: int) -> None:
    """Raise what `read` does of a photograph of that size, as far as can be told without decoding a
    layer's pixels.
    """
    if is_layer(path):
        own_width, own_height, _ = reader.probe(path)
        _check_shape(path, own_height, own_width, height, width)
    else:
        _read_points(path, height, width)


def is_layer(path: Path) -> bool:
    """Whether hints come as a picture, by the name of their file."""
    return path.suffix.lower() not in (".csv", ".json")


def _read_points(path: Path, height: int, width: int) -> tuple[Hint, ...]:
    """The hints of a table or of JSON, all in a photograph of that size."""
    hints, names = (_read_table if path.suffix.lower() == ".csv" else _read_json)(path)
    if not hints:
        raise DataError(f"hints must be at least one point, got none in {shown(path)}")
    known_hints.check(hints, height, width, name=lambda number: names[number - 1])
    return tuple(hints)


# --- tables ---


def _read_text(path: Path) -> str:
    with reader.guarded(path):
        data = read_regular(path, _MOST_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"hints must be text in UTF-8, got other bytes in {shown(path)} ({error.reason})"
        ) from error


def _read_table(path: Path) -> tuple[list[Hint], list[str]]:
    """The hints of a CSV file, and what each is called in a message."""
    hints, names = [], []
    first = True
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        parts = [part.strip().strip('"') for part in line.split(",")]
        if not any(parts):
            continue
        if first and [part.lower() for part in parts] in _HEADERS:
            first = False
            continue
        first, name = False, f"line {number} of {shown(path)}"
        try:
            if not 3 <= len(parts) <= 4:
                raise ValueError(len(parts))
            x, y, radius = float(parts[0]), float(parts[1]), float([*parts, "0"][3])
            hints.append(Hint(x, y, _rgb(parts[2]), radius))
        except ValueError as error:
            raise DataError(f"{name} must be {_ROW}, got {fields.shorten(line.strip())}") from error
        names.append(name)
    return hints, names


def _read_json(path: Path) -> tuple[list[Hint], list[str]]:
    """The hints of a JSON file, and what each is called in a message."""
    example = '[{"x": 412, "y": 305, "color": "#963228", "radius": 4}]'
    try:
        found = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(path)} must be JSON like {example}, got something else"
            f" ({fields.shorten(str(error))})"
        ) from error
    if not isinstance(found, list):
        raise DataError(
            f"{shown(path)} must be a list like {example}, got a {type(found).__name__}"
        )
    hints, names = [], []
    for number, entry in enumerate(found, start=1):
        name = f"hint {number} of {shown(path)}"
        try:
            if not {"x", "y", "color"} <= set(entry) <= {"x", "y", "color", "radius"}:
                raise ValueError(entry)
            x, y, radius = (_number(entry.get(key, 0)) for key in ("x", "y", "radius"))
            hints.append(Hint(x, y, _rgb(entry["color"]), radius))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            words = fields.shorten(json.dumps(entry))
            raise DataError(f"{name} must be like those in {example}, got {words}") from error
        names.append(name)
    return hints, names


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)


def _rgb(text: str) -> tuple[int, int, int]:
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(text)
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


# --- layers ---


def _check_shape(path: Path, own_height: int, own_width: int, height: int, width: int) -> None:
    """DataError unless a layer has the photograph's shape."""
    if not mask_files.is_shape(own_height, own_width, height, width):
        raise DataError(
            f"hints must have the photograph's shape, which is {width}x{height} pixels upright, got"
            f" {own_width}x{own_height} in {shown(path)}; save the layer with the whole picture's size"
        )


def _check_opacity(name: str, opacity: Pixels | None) -> None:
    """DataError unless a layer is opaque somewhere, and not everywhere."""
    if opacity is None or not (opacity < _half(opacity)).any():
        raise DataError(
            "hints must be transparent where nothing is known, got"
            f" {name}, opaque everywhere; save the layer alone, with transparency"
        )
    if not (opacity >= _half(opacity)).any():
        raise DataError(
            f"hints must be opaque where a colour is known, got {name}, transparent everywhere"
        )


def _half(values: Pixels) -> float:
    return 0.5 if values.dtype.kind == "f" else np.iinfo(values.dtype).max / 2


class _Layer:
    """A layer, looked at in blocks of pixels where it is large.

    `rgb`: uint8 (h, w, 3) of the most opaque pixel of each block. `groups`: of like colours, their
    numbers (h, w), -1 where it is transparent. `centers`: the ab of each group, (N, 2), in CIE
    units. `block`: pixels of a block's side.
    """

    def __init__(self, layer: Photograph) -> None:
        assert layer.alpha is not None
        height, width = layer.size
        self.block = math.ceil(math.sqrt(height * width / _LAYER_PIXELS))
        opacity = convert(layer.alpha, np.uint8)
        self._first, most = _most_opaque(opacity, self.block)  # of each block: which of its pixels
        rows, columns = self.place(*np.indices(most.shape, sparse=True))
        colors = convert(layer.pixels[rows, columns], np.uint8)
        self.rgb = np.repeat(colors[..., None], 3, 2) if colors.ndim == 2 else colors
        self.groups, self.centers = _group(self.rgb, most >= 128)

    def place(self, row: Any, column: Any) -> tuple[Any, Any]:
        """Row and column of the layer's own pixel that stands for a block."""
        inside = self._first[row, column]
        return row * self.block + inside // self.block, column * self.block + inside % self.block


def _most_opaque(opacity: NDArray[np.uint8], block: int) -> tuple[NDArray[np.intp], Any]:
    """Of each block of block x block pixels the most opaque one, counted in rows, and its opacity."""
    height, width = (math.ceil(side / block) for side in opacity.shape)
    whole = np.zeros((height * block, width * block), np.uint8)
    whole[: opacity.shape[0], : opacity.shape[1]] = opacity
    blocks = whole.reshape(height, block, width, block).swapaxes(1, 2).reshape(height, width, -1)
    first = blocks.argmax(2)
    return first, np.take_along_axis(blocks, first[..., None], 2)[..., 0]


def _group(rgb: NDArray[np.uint8], opaque: NDArray[np.bool_]) -> tuple[_Whole, NDArray[np.float32]]:
    """Groups of opaque pixels whose hue and saturation are alike, the commonest colours first."""
    packed = rgb[opaque].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    unique, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    values = torch.from_numpy(np.stack([unique >> 16, unique >> 8 & 255, unique & 255]))
    _, ab = color.split(values.to(torch.uint8)[None, :, None])
    own = ab[0, :, 0].numpy().T * np.float32(color.AB_SCALE)  # (M, 2)
    numbers = np.full(len(own), -1, np.int32)
    centers: list[NDArray[np.float32]] = []
    while (free := numbers < 0).any():
        center = own[np.where(free, counts, 0).argmax()]
        numbers[free & (np.linalg.norm(own - center, axis=1) <= _ALIKE)] = len(centers)
        centers.append(center)
    groups = np.full(opaque.shape, -1, np.int32)
    groups[opaque] = numbers[inverse.ravel()]
    return groups, np.stack(centers)


class _Stroke(NamedTuple):
    """Connected pixels of one group: their number in the map of strokes, how many, where."""

    number: int
    area: int
    rows: slice
    columns: slice


def _find_strokes(groups: _Whole, count: int) -> tuple[_Whole, list[_Stroke]]:
    """The strokes of `count` groups, the largest first, and a map of their numbers."""
    numbers = np.zeros(groups.shape, np.int32)
    strokes: list[_Stroke] = []
    for group in range(count):
        left, top, width, height = cv2.boundingRect((groups == group).view(np.uint8))
        window = np.s_[top : top + height, left : left + width]
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (groups[window] == group).astype(np.uint8), connectivity=8
        )
        numbers[window] += np.where(labels > 0, labels + len(strokes), 0).astype(np.int32)
        for label, (x, y, wide, high, area) in enumerate(stats[1:].tolist(), len(strokes) + 1):
            rows, columns = slice(top + y, top + y + high), slice(left + x, left + x + wide)
            strokes.append(_Stroke(label, area, rows, columns))
    return numbers, sorted(strokes, key=lambda stroke: -stroke.area)


def _points_of(layer: Photograph, pixels: Pixels, pixel: float) -> HintFile:
    """The points of a layer's strokes, in pixels of the photograph."""
    height, width = pixels.shape[:2]
    seen = _Layer(layer)
    across, down = width / layer.size[1], height / layer.size[0]  # photograph's to layer's pixels
    unit = pixel / (
        max(across, down) * seen.block
    )  # blocks that one of the network's pixels covers
    side = max(1, round(unit))
    # L* as the network sees it
    tone = cv2.blur(painting.samples_of(pixels, seen.groups.shape), (side, side)) * np.float32(50)
    numbers, strokes = _find_strokes(seen.groups, len(seen.centers))
    kept: list[tuple[_Stroke, NDArray[np.float32]]] = []
    notes: tuple[str, ...] = ()
    for at, stroke in enumerate(strokes):
        thickness = _thickness(numbers, stroke)
        if thickness.max() <= 1 and _is_mixture(seen, numbers, stroke):
            continue
        if len(kept) == MOST_STROKES:
            left = len(strokes) - at
            notes = (
                f"the layer of hints has more than {MOST_STROKES} strokes: the {left} smallest were"
                " left out",
            )
            break
        kept.append((stroke, thickness))
    most = min(MOST_POINTS, MOST_OF_LAYER // len(kept))
    hints: list[Hint] = []
    for stroke, thickness in kept:
        beneath = tone[stroke.rows, stroke.columns]
        for row, column, reach in _spread(thickness, beneath, unit, most):
            own_row, own_column = row + stroke.rows.start, column + stroke.columns.start
            square = np.s_[
                own_row - reach : own_row + reach + 1, own_column - reach : own_column + reach + 1
            ]
            red, green, blue = seen.rgb[square].reshape(-1, 3).mean(0).tolist()
            y, x = seen.place(own_row, own_column)
            half = (reach + 0.5) * seen.block
            hints.append(
                Hint(
                    (int(x) + 0.5) * across - 0.5,
                    (int(y) + 0.5) * down - 0.5,
                    (red, green, blue),
                    max(0.0, half * min(across, down) - 0.5) if reach else 0.0,
                )
            )
    return HintFile(tuple(hints), notes)


def _thickness(numbers: _Whole, stroke: _Stroke) -> NDArray[np.float32]:
    """How far each pixel of a stroke's window is from what is none of it, straight or diagonally: 1
    at its border, 0 outside.
    """
    own = (numbers[stroke.rows, stroke.columns] == stroke.number).astype(np.uint8)
    padded = cv2.copyMakeBorder(own, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    return np.asarray(inside, np.float32)


def _is_mixture(seen: _Layer, numbers: _Whole, stroke: _Stroke) -> bool:
    """Whether a thin stroke is but the smooth edge between two others, or of one that an editor has
    mixed with the black or white beneath: its colour lies between theirs.
    """
    rows = slice(max(0, stroke.rows.start - 2), stroke.rows.stop + 2)
    columns = slice(max(0, stroke.columns.start - 2), stroke.columns.stop + 2)
    own = (numbers[rows, columns] == stroke.number).astype(np.uint8)
    near = (cv2.dilate(own, np.ones((5, 5), np.uint8)) > 0) & (own == 0)
    groups = seen.groups[rows, columns]
    (mine,) = np.unique(groups[own > 0])
    around = [int(each) for each in np.unique(groups[near]) if each != mine]
    gray = np.zeros(2, np.float32)  # what is transparent has no colour
    others = [gray if each == -1 else seen.centers[each] for each in around[:16]]
    center = seen.centers[mine]
    for begin, end in itertools.combinations(others, 2):
        way = end - begin
        share = float(np.clip((center - begin) @ way / max(float(way @ way), 1e-6), 0, 1))
        if np.linalg.norm(begin + share * way - center) <= _BETWEEN:
            return True
    return False


def _spread(
    thickness: NDArray[np.float32], tone: NDArray[np.float32], unit: float, count: int
) -> list[tuple[int, int, int]]:
    """Row, column and reach of a stroke's points, `count` at most: each as far as can be from those before it, in
    place and in the lightness beneath, and rather where the stroke is thick.

    `thickness`, `tone` (L*): (h, w), of its window. `unit`: pixels that one of the network's covers.
    """
    most = max(0, math.floor(_HALF * unit - 0.5))  # the reach of a square, beside its middle
    ridge = thickness >= np.asarray(cv2.dilate(thickness, np.ones((3, 3), np.uint8)))
    rows, columns = np.nonzero((thickness > 1) | (ridge & (thickness > 0)))
    step = math.ceil(len(rows) / _CANDIDATES)
    rows, columns = rows[::step], columns[::step]
    deep = np.minimum(thickness[rows, columns], most + 1)
    away = np.hypot(rows - rows.mean(), columns - columns.mean())
    at = int(np.lexsort((away, -deep))[0])
    least = np.full(len(rows), np.inf)
    points: list[tuple[int, int, int]] = []
    while True:
        points.append((int(rows[at]), int(columns[at]), int(deep[at]) - 1))
        space = np.hypot(rows - rows[at], columns - columns[at]) / (_SPACING * unit)
        other = np.minimum(np.abs(tone[rows, columns] - tone[rows[at], columns[at]]) / _TONE, 1)
        least = np.minimum(least, np.where(space < _NEAREST, 0, np.hypot(space, other)))
        if least.max() < 1 or len(points) == count:
            return points
        at = int(np.where(least < 1, 0, least * (1 + deep / (most + 1))).argmax())
