"""Old photographs made of new ones: what a picture might look like on a black-and-white print after
many years.

The emulsion sees other colours than the eye does; the lens is soft, the film has grain, the print
is hard or faded, dust and scratches lie on it, and a small file is all that is left of it. Nothing
moves: a pixel shows what it showed.

Lengths are shares of the picture's side, so that a picture ages alike at 64 and at 512 pixels.
Every number comes from the generator that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor.images import arrays, srgb
from gancolor.images.arrays import Picture

Tones = NDArray[np.float32]
"""A gray picture (H, W), encoded as sRGB, black at 0 and white at 1."""

Weights = tuple[float, float, float]
"""Shares of linear red, green and blue in a gray."""

Range = tuple[float, float]
"""Least and most of what is drawn at random."""

EYE: Weights = (0.2126, 0.7152, 0.0722)  # of linear red, green and blue in luminance
PLATES: dict[str, Weights] = {
    "ordinary": (0.02, 0.13, 0.85),  # before 1900 and long after: blue only
    "orthochromatic": (0.04, 0.56, 0.40),  # until about 1930: green too
    "panchromatic": (0.33, 0.40, 0.27),  # since then: all, but more blue and red than the eye
}
"""Shares of linear red, green and blue in what an emulsion sees; each adds up to 1, so that grays
stay.
"""

PLATE_CHANCES = (0.2, 0.3, 0.5)  # of the plates, in their order
PURITY: Range = (0.2, 1.0)  # how far towards its plate from the eye's mix a picture goes
EXPOSURE = 0.5
"""How much of the light that a plate misses a longer exposure makes good, as an exponent."""
EXPOSURES: Range = (0.6, 2.5)  # limits of that factor

BLUR: Range = (0.0015, 0.007)  # standard deviation
GRAIN: Range = (0.012, 0.07)  # standard deviation of the mid tones over an area as large as a grain
GRAIN_SIZE: Range = (1 / 500, 1 / 90)  # diameter
GRAIN_FLOOR = 0.3  # of the mid tones' grain that black and white have
CONTRAST: Range = (1.15, 1.6)  # of a hard print
BLACK, WHITE = (0.0, 0.3), (1.0, 0.6)  # of a faded print; mostly near the former
GAMMA: Range = (0.65, 1.5)
SPECKS, SPECK_RADIUS = (6, 60), (0.0015, 0.008)
HAIRS, HAIR_LENGTH, HAIR_WIDTH = (0, 4), (0.03, 0.14), (0.001, 0.004)
SCRATCHES, SCRATCH_LENGTH, SCRATCH_WIDTH = (1, 6), (0.1, 1.4), (0.0008, 0.006)
LIGHT_SHARES = (0.0, 0.5, 1.0)  # of a picture's marks that are light rather than dark
LIGHT_CHANCES = (0.15, 0.35, 0.5)  # of these shares, in their order
CRACKED = 0.25  # of the scratched pictures have cracks instead: jagged light lines at any angle
CRACKS, CRACK_WIDTH = (1, 4), (0.003, 0.012)
STRENGTH: Range = (0.35, 1.0)  # opacity of a scratch, speck or hair
LIGHT, DARK = (0.8, 1.0), (0.0, 0.2)  # their grays
FILE_SIDE: Range = (180, 400)  # pixels of the small file, whatever the picture's own side
QUALITY = (12, 60)  # of its JPEG

SUBPIXEL = 4  # bits of OpenCV's fixed-point coordinates
# What OpenCV's smooth strokes cover, in pixels (measured): ovals have half a pixel more around
# them, and the smallest covers `LEAST_SPOT`; a line of thickness t is `LINE_SLOPE` t -
# `LINE_OFFSET` wide.
LEAST_SPOT, LINE_SLOPE, LINE_OFFSET = 0.6, 2.13, 0.74
_STEPS = 1 << 14  # of the table back, fine enough for the darkest of the 256 levels
_ENCODED = srgb.from_light(np.linspace(0, 1, _STEPS + 1, dtype=np.float32))


def age(rgb: Picture, rng: np.random.Generator) -> Picture:
    """What an old photograph of a picture might look like: uint8 gray (H, W) of uint8 RGB (H, W,
    3).

    Every picture is seen by some plate; most get two to four of the `DEFECTS`, a few none or all of
    them.
    """
    gray = develop(rgb, rng)
    for chance, defect in DEFECTS:
        if rng.random() < chance:
            gray = defect(gray, rng)
    return _rounded(gray)


def draw(rgb: Picture, share: float, seed: int, position: int) -> Picture | None:
    """`age` of a picture if it is one of the `share` in [0, 1] that are aged, else None.

    `seed` and `position`, the number of the picture since the start of the run, decide that and
    how, and nothing else.
    """
    rng = np.random.default_rng([seed, position, 7])  # crop and flip have [seed, position]
    return age(rgb, rng) if rng.random() < share else None


def mix(rgb: Picture, weights: Weights, exposure: float = 1.0) -> Tones:
    """What a plate of these `weights` (see `PLATES`) sees of uint8 RGB (H, W, 3), mixed in linear
    light.

    `exposure`: factor of the light. Returns gray in [0, 1].
    """
    row = np.array([weights], np.float32) * np.float32(exposure * _STEPS)
    light = cv2.transform(cv2.LUT(rgb, srgb.LIGHT), row).reshape(rgb.shape[:2])
    return np.asarray(_ENCODED[np.minimum(light + 0.5, _STEPS).astype(np.int32)], np.float32)


def develop(rgb: Picture, rng: np.random.Generator) -> Tones:
    """Gray in [0, 1] of uint8 RGB (H, W, 3), as a plate drawn at random sees it, exposed for the
    picture.
    """
    plate = np.array(list(PLATES.values())[int(rng.choice(len(PLATES), p=PLATE_CHANCES))])
    purity = rng.uniform(*PURITY)
    weights = (1 - purity) * np.array(EYE) + purity * plate
    means = np.array(cv2.mean(cv2.LUT(rgb, srgb.LIGHT))[:3]) + 1e-4  # of linear red, green and blue
    exposure = (means @ EYE / (means @ weights)) ** EXPOSURE
    red, green, blue = weights.tolist()
    return mix(rgb, (red, green, blue), float(np.clip(exposure, *EXPOSURES)))


def blur(gray: Tones, rng: np.random.Generator) -> Tones:
    """Soften the picture as an old lens does."""
    return _soften(gray, _log_uniform(rng, BLUR) * gray.shape[0])


def grain(gray: Tones, rng: np.random.Generator) -> Tones:
    """Add grains of one size, strongest in the mid tones."""
    size = _log_uniform(rng, GRAIN_SIZE) * gray.shape[0]  # in pixels
    # Its own generator: however many pixels there are, what follows gets the same numbers.
    noise = np.random.default_rng(int(rng.integers(2**63))).standard_normal(gray.shape, np.float32)
    # Averages over many grains have less noise.
    noise *= np.float32(_log_uniform(rng, GRAIN) * size)
    noise = _soften(noise, size / 2)
    middle = gray * (1 - gray)
    middle *= np.float32(4 * (1 - GRAIN_FLOOR))
    middle += np.float32(GRAIN_FLOOR)
    return gray + noise * middle


def harden(gray: Tones, rng: np.random.Generator) -> Tones:
    """Print the picture with more contrast about its own mean; shadows and lights are lost."""
    contrast = rng.uniform(*CONTRAST)
    mean = float(gray.mean())
    return np.asarray(
        np.clip((gray - np.float32(mean)) * np.float32(contrast) + np.float32(mean), 0, 1)
    )


def fade(gray: Tones, rng: np.random.Generator) -> Tones:
    """Raise the black, lower the white, and bend what lies between."""
    black, white = (first + (last - first) * rng.random() ** 2 for first, last in (BLACK, WHITE))
    gamma = _log_uniform(rng, GAMMA)
    bent = cv2.pow(np.clip(gray, 0, 1), gamma)
    return np.asarray(bent * np.float32(white - black) + np.float32(black), np.float32)


def dust(gray: Tones, rng: np.random.Generator) -> Tones:
    """Lay specks and a few hairs on the picture, light ones (on the negative), dark ones (on the
    print), or both.
    """
    marks = _Marks(gray, rng)
    marks.specks(int(rng.integers(*SPECKS)))
    for _ in range(int(rng.integers(*HAIRS))):
        marks.line(_hair(rng), _log_uniform(rng, HAIR_WIDTH))
    return marks.on(gray)


def scratch(gray: Tones, rng: np.random.Generator) -> Tones:
    """Draw thin lines, light or dark and nearly upright, as film gets them; or cracks, light and at
    any angle.
    """
    if rng.random() < CRACKED:
        marks = _Marks(gray, rng, light=1.0)
        for _ in range(int(rng.integers(*CRACKS))):
            marks.line(_crack(rng), _log_uniform(rng, CRACK_WIDTH))
        return marks.on(gray)
    marks = _Marks(gray, rng)
    for _ in range(int(rng.integers(*SCRATCHES))):
        marks.line(_upright(rng), _log_uniform(rng, SCRATCH_WIDTH))
    return marks.on(gray)


def compress(gray: Tones, rng: np.random.Generator) -> Tones:
    """Write the picture as a small JPEG of low quality and read it again."""
    height, width = gray.shape
    scale = _log_uniform(rng, FILE_SIDE) / height
    quality = int(rng.integers(*QUALITY))
    small = arrays.resize(
        _rounded(gray), (max(1, round(height * scale)), max(1, round(width * scale)))
    )
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    read = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    return arrays.resize(read, (height, width)) * np.float32(1 / 255)


DEFECTS: tuple[tuple[float, Callable[[Tones, np.random.Generator], Tones]], ...] = (
    (0.45, blur),
    (0.6, grain),
    (0.2, harden),
    (0.5, fade),
    (0.35, dust),
    (0.25, scratch),
    (0.4, compress),
)
"""What happens to a picture, in the order in which it does, and in how many of them."""


class _Marks:
    """Light and dark marks as they are drawn: how much of each pixel they cover. `light`: share of
    the light ones.
    """

    def __init__(self, gray: Tones, rng: np.random.Generator, light: float | None = None) -> None:
        self.rng, self.side = rng, gray.shape[0]
        self.light = float(rng.choice(LIGHT_SHARES, p=LIGHT_CHANCES)) if light is None else light
        self.masks = [np.zeros(gray.shape, np.uint8) for _ in range(2)]
        self.size = np.array(gray.shape[::-1])

    def line(self, points: NDArray[Any], width: float) -> None:
        """Draw a line through (N, 2) points x, y in [0, 1] (what lies outside is cut)."""
        pixels = width * self.side
        fixed = self._fixed(points)
        thickness = max(1, round((pixels + LINE_OFFSET) / LINE_SLOPE))
        mask, cover = self._choose(pixels / (LINE_SLOPE * thickness - LINE_OFFSET))
        cv2.polylines(mask, [fixed], False, cover, thickness, cv2.LINE_AA, SUBPIXEL)

    def specks(self, count: int) -> None:
        """Draw oval spots anywhere."""
        low, high = SPECK_RADIUS
        longer = self.side * low * (high / low) ** self.rng.random(count)
        shorter = longer * self.rng.uniform(0.4, 1, count)
        shares = np.pi * longer * shorter / LEAST_SPOT
        axes = np.rint((np.stack([longer, shorter], axis=1) - 0.5) * (1 << SUBPIXEL)).astype(int)
        centers = self._fixed(self.rng.random((count, 2)))
        angles = self.rng.uniform(0, 180, count)
        spots = (centers, np.maximum(axes, 1), angles, shares)
        for center, radii, angle, share in zip(
            *(numbers.tolist() for numbers in spots), strict=True
        ):
            mask, cover = self._choose(share)
            cv2.ellipse(mask, center, radii, angle, 0, 360, cover, -1, cv2.LINE_AA, SUBPIXEL)

    def on(self, gray: Tones) -> Tones:
        """The picture with the marks on it."""
        for mask, levels in zip(self.masks, (DARK, LIGHT), strict=True):
            level = np.float32(self.rng.uniform(*levels))
            gray = gray + (level - gray) * (mask * np.float32(1 / 255))
        return gray

    def _fixed(self, points: NDArray[Any]) -> NDArray[np.int32]:
        """(N, 2) points x, y in [0, 1] in OpenCV's coordinates, where whole numbers are the pixels'
        middles.
        """
        return np.asarray(np.rint((points * self.size - 0.5) * (1 << SUBPIXEL)), np.int32)

    def _choose(self, share: float) -> tuple[Picture, float]:
        """The mask to draw on, and the level: what is smaller than the stroke covers a `share` of
        it.
        """
        mask = self.masks[int(self.rng.random() < self.light)]
        return mask, 255 * min(1.0, share) * self.rng.uniform(*STRENGTH)


def _upright(rng: np.random.Generator) -> NDArray[Any]:
    """Points of a scratch: nearly upright, its ends anywhere."""
    length, lean = rng.uniform(*SCRATCH_LENGTH), rng.normal(0, 0.03)
    top = rng.uniform(-length / 2, 1 - length / 2)
    down = np.linspace(0, 1, 6)
    sway = rng.normal(0, 0.003, 6).cumsum()
    return np.stack([rng.random() + lean * down + sway, top + length * down], axis=1)


def _crack(rng: np.random.Generator) -> NDArray[Any]:
    """Points of a crack: jagged, from an edge to anywhere."""
    start = np.array([rng.random(), float(rng.integers(2))])
    if rng.random() < 0.5:
        start = start[::-1]
    steps = 24
    along = (rng.uniform(0.1, 0.9, 2) - start) * rng.uniform(0.6, 1.6)
    path = start + np.linspace(0, 1, steps)[:, None] * along
    return np.asarray(path + rng.normal(0, 0.008, (steps, 2)).cumsum(axis=0))


def _hair(rng: np.random.Generator) -> NDArray[Any]:
    """Points of a hair: an arc."""
    length, turn = _log_uniform(rng, HAIR_LENGTH), rng.uniform(-3, 3)
    angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, turn, 8)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / 8)
    return np.asarray(rng.random(2) + steps.cumsum(axis=0))


def _soften(plane: Tones, deviation: float) -> Tones:
    """Blur by `deviation` pixels. Where a sampled bell would be too narrow, three taps have its
    variance.
    """
    if deviation > 0.7:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), deviation), np.float32)
    taps = np.array([deviation**2 / 2, 1 - deviation**2, deviation**2 / 2], np.float32)
    return np.asarray(cv2.sepFilter2D(plane, -1, taps, taps), np.float32)


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    low, high = bounds
    return float(low * (high / low) ** rng.random())


def _rounded(gray: Tones) -> Picture:
    return np.asarray(np.clip(gray * np.float32(255) + np.float32(0.5), 0, 255), np.uint8)
