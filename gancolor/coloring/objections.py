"""What is to be said against hints: colours that cannot be kept where they are wanted, and
contradictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gancolor.color import AB_SCALE, LIGHTNESS_SCALE, merge, reduce_to_gamut
from gancolor.coloring import painting, spreading
from gancolor.coloring.mask_files import Mask
from gancolor.hints import Hint, ab_of
from gancolor.metrics import ciede2000

_KEPT = 2.0  # CIEDE2000 within which a hint counts as kept


def find(
    hints: Sequence[Hint],
    pixels: NDArray[Any],
    size: tuple[int, int],
    mask: Mask | None = None,
) -> list[str]:
    """Notes, a sentence each, on hints for a picture (H, W) or (H, W, 3) that the network sees at
    `size` = (h, w): those that cannot be kept, lie outside the mask, or contradict each other.
    """
    height, width = pixels.shape[:2]
    rows = np.array([min(max(round(hint.y), 0), height - 1) for hint in hints])
    columns = np.array([min(max(round(hint.x), 0), width - 1) for hint in hints])
    notes = []
    lightness = torch.from_numpy(painting.lightness_at(pixels, rows, columns)).view(-1, 1, 1, 1)
    wanted = torch.from_numpy(ab_of(hints)).view(-1, 2, 1, 1)
    held = reduce_to_gamut(lightness, wanted)
    light = (lightness + 1) * LIGHTNESS_SCALE
    off = ciede2000(
        torch.cat((light, wanted * AB_SCALE), 1), torch.cat((light, held * AB_SCALE), 1)
    )
    paler = np.flatnonzero(off.flatten().numpy() > _KEPT)
    if len(paler):
        at = int(paler[0])
        rgb = (merge(lightness[at : at + 1], held[at : at + 1]) * 255).round().flatten().tolist()
        notes.append(
            f"{_some(len(paler), len(hints))} paler than given, for there is no such colour that is"
            f" as light or dark as the photograph there: {_called(hints[at])} becomes {_hex(rgb)}"
        )
    if mask is not None and len(outside := np.flatnonzero(mask[rows, columns] == 0)):
        notes.append(
            f"{_some(len(outside), len(hints))} outside the mask, where nothing is coloured:"
            f" {_called(hints[int(outside[0])])}"
        )
    guide = painting.guide_of(pixels, size)
    if pairs := spreading.contradictions(hints, height, width, guide):
        first, second = (_called(hints[at]) for at in pairs[0])
        more = f"; and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        notes.append(
            f"hints contradict each other: {first} and {second} lie close together on what looks"
            f" alike{more}"
        )
    return notes


def _some(count: int, whole: int) -> str:
    """The subject of a sentence: so many of all hints."""
    return f"{count} of {whole} hints {'is' if count == 1 else 'are'}"


def _called(hint: Hint) -> str:
    return f"{_hex(hint.rgb)} at x={hint.x:g}, y={hint.y:g}"


def _hex(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{round(value):02x}" for value in rgb)
