"""The measures of a film: numbers that follow from how the film was made."""

from __future__ import annotations

import math

import numpy as np
import panning
import pytest
import torch
from flicker import color_error, film_motion, still_variance, warping_error

from gancolor import color

FRAMES = 10


def test_colours_that_move_with_the_scene_have_next_to_no_error() -> None:
    gray, ab = panning.scene(1)
    grays, colors = panning.pan(gray, FRAMES), panning.pan(ab, FRAMES)
    motions = film_motion(grays)
    assert len(motions) == FRAMES - 1 and None not in motions
    stuck = [colors[0]] * FRAMES
    assert warping_error(colors, motions) < 0.3 * warping_error(stuck, motions)


def test_flicker_is_measured_in_cie_units() -> None:
    grays = [panning.pan(panning.scene(2)[0], 1)[0]] * FRAMES
    colors = [panning.flat((0.1 if i % 2 else 0.0, 0.0)) for i in range(FRAMES)]
    motions = film_motion(grays)
    assert warping_error(colors, motions) == pytest.approx(11, abs=0.01)
    assert still_variance(colors, motions) == pytest.approx(5.5**2, abs=0.01)
    steady = [panning.flat((0.1, 0.2))] * FRAMES
    assert warping_error(steady, motions) == pytest.approx(0, abs=1e-4)
    assert still_variance(steady, motions) == pytest.approx(0, abs=1e-4)


def test_cuts_do_not_count() -> None:
    grays = [panning.pan(panning.scene(seed)[0], 1)[0] for seed in (3, 4) for _ in range(FRAMES)]
    colors = [panning.flat(value) for value in ((0.3, 0.0), (-0.3, 0.0)) for _ in range(FRAMES)]
    motions = film_motion(grays)
    assert [i for i, motion in enumerate(motions) if motion is None] == [FRAMES - 1]
    assert warping_error(colors, motions) == pytest.approx(0, abs=1e-4)
    assert still_variance(colors, motions) == pytest.approx(0, abs=1e-4)


def test_what_moves_is_not_still() -> None:
    still, moving = (
        panning.pan(panning.scene(5)[0], 1)[0],
        panning.pan(panning.scene(6)[0], FRAMES, speed=3),
    )
    grays, colors = [], []
    for index in range(FRAMES):
        grays.append(np.hstack((still, moving[index])))
        colors.append(np.hstack((panning.flat((0.1, 0.1)), panning.flat((0.3 * (index % 2), 0.0)))))
    assert np.stack(colors).var(axis=0).sum(axis=2).mean() * 110**2 > 100
    assert still_variance(colors, film_motion(grays)) < 10


def test_color_error_is_zero_for_the_truth() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
    ab = color.split(torch.from_numpy(rgb).permute(0, 3, 1, 2))[1].permute(0, 2, 3, 1).numpy()
    assert color_error(list(rgb), list(ab)) < 0.05
    assert color_error(list(rgb), list(ab * 0)) > 10


def test_nothing_to_measure_is_nan() -> None:
    one = [panning.flat((0, 0))]
    assert math.isnan(warping_error(one, [])) and math.isnan(still_variance(one, []))
    assert math.isnan(color_error([], []))
