"""Whether two frames show one scene, through motion, grain, flicker, fades and blank frames."""

from __future__ import annotations

import numpy as np
import panning
import pytest

from gancolor.video.flow import CUT, MotionEstimator, likeness
from gancolor.video.planes import Plane


def like(first: Plane, second: Plane) -> float:
    return likeness(first, second, MotionEstimator().between(first, second))


def grainy(gray: Plane, seed: int, grain: float = 10) -> Plane:
    random = np.random.default_rng(seed)
    light = 1 + 0.15 * random.uniform(-1, 1)  # flicker of an old film
    return (gray * light + grain * random.normal(size=gray.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("speed", [0, 2, 6])
@pytest.mark.parametrize("seed", range(4))
def test_scene_that_moves_is_the_same(speed: int, seed: int) -> None:
    before, after = panning.pan(panning.scene(seed)[0], 2, speed)
    assert like(before, after) > CUT + 0.2
    assert like(grainy(before, 1), grainy(after, 2)) > CUT


@pytest.mark.parametrize("seed", range(8))
def test_other_scene_is_another(seed: int) -> None:
    before, after = (panning.pan(panning.scene(number)[0], 1)[0] for number in (seed, seed + 100))
    assert like(before, after) < CUT - 0.05
    assert like(grainy(before, 1), grainy(after, 2)) < CUT - 0.05


def test_brighter_frame_is_the_same() -> None:
    gray = panning.pan(panning.scene(7)[0], 1)[0]
    assert like(gray // 3, gray) > 0.7


def test_blank_frames_are_alike_and_unlike_all_else() -> None:
    gray = panning.pan(panning.scene(8)[0], 1)[0]
    black, white = np.zeros_like(gray), np.full_like(gray, 255)
    assert like(black, white) == 1
    assert like(black, gray) == like(gray, white) == 0
