"""What is said against hints: contradictions, colours that cannot be, places that are not coloured."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gancolor.coloring import objections
from gancolor.hints import Hint

RED, BLUE = (200, 60, 50), (40, 70, 190)


def notes_of(
    *known: Hint, pixels: NDArray[np.uint8] | None = None, mask: NDArray[np.uint8] | None = None
) -> list[str]:
    """What is said of hints, by default on two gray fields that meet at x=200."""
    if pixels is None:
        pixels = np.random.default_rng(1).integers(126, 131, (300, 400), np.uint8)
        pixels[:, 200:] += 70
    return objections.find(known, pixels, (64, 85), mask)


def test_hints_that_contradict_each_other_are_said() -> None:
    pale = (160, 105, 105)
    first, near = Hint(100, 150, (128, 128, 128)), Hint(115, 150, BLUE)
    (note,) = notes_of(Hint(20, 20, RED), first, near)
    assert note == (
        "hints contradict each other: #808080 at x=100, y=150 and #2846be at x=115, y=150 lie close"
        " together on what looks alike"
    )
    assert notes_of(first, dataclasses.replace(near, rgb=(110, 120, 140))) == []  # much the same
    assert notes_of(first, dataclasses.replace(near, x=180)) == []  # far apart
    across = (Hint(195, 150, (128, 128, 128)), Hint(206, 150, pale), Hint(206, 60, (128, 128, 128)))
    assert notes_of(*across) == []  # an edge between them
    (note,) = notes_of(first, near, dataclasses.replace(near, y=160))
    assert note.endswith("; and 1 more pairs")
    assert "contradict" in notes_of(first, dataclasses.replace(first, rgb=BLUE))[0]  # one place


def test_a_colour_that_cannot_be_is_said() -> None:
    dark = np.full((300, 400), 20, np.uint8)
    (note,) = notes_of(Hint(30, 40, RED), Hint(300, 200, (128, 128, 128)), pixels=dark)
    assert note.startswith("1 of 2 hints is paler than given") and note.endswith(
        "#c83c32 at x=30, y=40 becomes #290b00"
    )


def test_a_hint_outside_the_mask_is_said() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[:, 200:] = 255
    given = (Hint(30, 40, (120, 130, 128)), Hint(300, 200, (120, 130, 128)))
    (note,) = notes_of(*given, mask=mask)
    assert note == (
        "1 of 2 hints is outside the mask, where nothing is coloured: #788280 at x=30, y=40"
    )
