"""Pictures as a network sees them: small, in 8 bits. Needs no network, so that any process can
prepare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import hints as known_hints
from gancolor.errors import ConfigError
from gancolor.hints import Hint
from gancolor.images import arrays

_LARGEST = 8  # a view has at most this many times the area size x size: bounds very long pictures
_LARGE = 1 << 24  # pixels: what is larger is averaged in two goes, so that no large copy is made


@dataclass(frozen=True)
class Sight:
    """All that one must know of a network to prepare pictures for it; picklable.

    `size`: the shorter side of its training pictures. `condition`: 'gray' or 'edges'.
    `embedding_size`: side of the square copy that a fusion network's embedding sees, None without
    one, brought to it as `embedding_fit` says (see `arrays.square`). `distribution`: whether it
    gives a distribution of colours. `hints`: whether it takes known ones. `features`: whether what
    it sees can be compared.
    """

    size: int
    condition: str = "gray"
    embedding_size: int | None = None
    embedding_fit: str = "crop"
    distribution: bool = False
    hints: bool = False
    features: bool = False

    @property
    def variants(self) -> bool:
        """Whether colours can be drawn from the distribution, each known before the next."""
        return self.distribution and self.hints


class Draw(NamedTuple):
    """Which colours are drawn from a network's distribution: those of variant `number`, from 1, of
    all that `seed` gives; `diversity`: see `bins.draw`.
    """

    seed: int
    number: int
    diversity: float


@dataclass
class View:
    """One look at a picture, ready for the network.

    `rgb`: uint8 (h, w, 3), of which only the lightness counts. `copy`: uint8 (E, E, 3) for the
    embedding, or None. `flip`: the network is shown the mirror image, and its colours are mirrored
    back. `hints`: a map (h, w, 3) of known colours (`hints.draw`), or None. `temperature`: at which
    colours are taken from a distribution, None for the network's own. `draw`: which other plausible
    colours are drawn from it, or None for the likely ones.
    """

    rgb: NDArray[np.uint8]
    copy: NDArray[np.uint8] | None = None
    flip: bool = False
    hints: NDArray[np.float32] | None = None
    temperature: float | None = None
    draw: Draw | None = None


def look(
    sight: Sight,
    pixels: NDArray[Any],
    size: int | None = None,
    *,
    flip: bool = False,
    tone: float = 1.0,
    temperature: float | None = None,
    hints: Sequence[Hint] = (),
) -> View:
    """Look at a picture with its shorter side at most `size` (default: the training size).

    `pixels`: (H, W) or (H, W, 3); uint8, uint16 or float32 in [0, 1]. The aspect is kept, nothing
    is enlarged, and the area stays within 8 times size x size. `tone`: exponent of the gray values,
    below 1 brightens. What is large is averaged in its own type before anything is converted: a
    100-megapixel array costs little memory beside it. `hints`: in pixels of this picture.
    """
    height, width = fit(pixels.shape[0], pixels.shape[1], sight.size if size is None else size)
    small = shrink(pixels, height, width)
    copy = None
    if sight.embedding_size is not None:
        copy = arrays.square(
            _for_embedding(pixels, sight.embedding_size), sight.embedding_size, sight.embedding_fit
        )
    if tone != 1:
        small, copy = _bend(small, tone), None if copy is None else _bend(copy, tone)
    known = None
    if hints:
        known = known_hints.draw(hints, pixels.shape[0], pixels.shape[1], (height, width))
    return View(small, copy, flip, known, temperature)


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width at which a network looks at a picture of height x width; see `look`.
    ConfigError below 1.
    """
    if size < 1:
        raise ConfigError(f"the size must be at least 1, got {size}")
    scale = min(1.0, size / min(height, width), (_LARGEST * size * size / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink(pixels: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    """The picture averaged down to height x width, uint8 (height, width, 3); shares memory if
    nothing changes.
    """
    if pixels.shape[:2] != (height, width):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    small = to_bytes(pixels)
    return np.repeat(small[..., None], 3, axis=2) if small.ndim == 2 else small


def to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The values rounded to 8 bits; uint8, uint16, or float in [0, 1] (not-a-number counts as
    black).
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    rounded: NDArray[np.uint8] = np.rint(np.nan_to_num(pixels, nan=0.0).clip(0, 1) * 255).astype(
        np.uint8
    )
    return rounded


def _for_embedding(pixels: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """The picture in 8 bits, a large one averaged to a few times `side` first."""
    height, width = pixels.shape[:2]
    scale = 1.0 if height * width <= _LARGE else min(1.0, 8 * side / min(height, width))
    return shrink(pixels, max(1, round(height * scale)), max(1, round(width * scale)))


def _bend(rgb: NDArray[np.uint8], tone: float) -> NDArray[np.uint8]:
    table = np.rint((np.arange(256) / 255) ** tone * 255).astype(np.uint8)
    bent: NDArray[np.uint8] = table[rgb]
    return bent
