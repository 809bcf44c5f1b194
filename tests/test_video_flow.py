"""Motion between frames: known shifts, what is hidden, frames of any size."""

from __future__ import annotations

import numpy as np
import panning
import pytest

from gancolor.video.flow import MotionEstimator, chain, resemblance, warp


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 1), (0, -4)])
def test_shift_is_found_both_ways(dx: int, dy: int) -> None:
    gray = panning.scene(1)[0]
    # things move by (dx, dy)
    first, second = (
        gray[8:40, 40:112],
        gray[8 - dy : 40 - dy, 40 - dx : 112 - dx],
    )
    motion = MotionEstimator().between(np.ascontiguousarray(first), np.ascontiguousarray(second))
    assert np.abs(np.median(motion.forward, axis=(0, 1)) - (dx, dy)).max() < 0.25
    assert np.abs(np.median(motion.backward, axis=(0, 1)) + (dx, dy)).max() < 0.25
    assert (
        motion.seen_again[6:-6, 6:-6].mean() > 0.8 and motion.seen_before[6:-6, 6:-6].mean() > 0.8
    )


@pytest.mark.parametrize("shape", [(32, 43), (32, 32), (20, 46), (40, 80)])
def test_motion_of_small_frames_is_found_whatever_came_before(shape: tuple[int, int]) -> None:
    """Frames smaller than DIS can search in would get what it found last."""
    gray = panning.scene(3)[0]
    frames = [
        np.ascontiguousarray(gray[4 : 4 + shape[0], 8 + 2 * step : 8 + 2 * step + shape[1]])
        for step in range(4)
    ]
    used = MotionEstimator()
    for first, second in zip(frames[:-1], frames[1:], strict=True):
        found, alone = used.between(first, second), MotionEstimator().between(first, second)
        assert np.array_equal(found.forward, alone.forward)
        assert np.array_equal(found.seen_before, alone.seen_before)
        assert abs(float(np.median(found.forward[..., 0])) + 2) < 0.5


def test_what_left_or_entered_the_frame_is_not_trusted() -> None:
    before, after = panning.pan(panning.scene(2)[0], 2, speed=6)
    motion = MotionEstimator().between(before, after)
    assert motion.seen_again[:, :4].max() < 0.1  # left on the left side
    assert motion.seen_before[:, -4:].max() < 0.1  # entered on the right side
    assert motion.seen_before[:, 4:-8].mean() > 0.8


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_what_was_hidden_is_not_trusted(seed: int) -> None:
    ground, thing = (
        panning.scene(seed)[0][:, : panning.WIDTH],
        panning.scene(seed + 50)[0][:24, :24],
    )
    frames = [ground.copy() for _ in range(2)]
    for frame, left in zip(frames, (20, 26), strict=True):
        frame[12:36, left : left + 24] = thing
    motion = MotionEstimator().between(*frames)
    seen = motion.seen_before * resemblance(*frames, motion.backward)
    assert seen[14:34, 20:25].mean() < 0.2  # the ground that came to light
    assert seen[16:32, 30:46].mean() > 0.6  # the thing that moved
    assert seen[:, 60:].mean() > 0.99


def test_something_else_on_a_flat_surface_does_not_resemble() -> None:
    sky = np.full((40, 60), 200, np.uint8)
    sign = sky.copy()
    sign[5:15, 20:40] = 90
    still = np.zeros((40, 60, 2), np.float32)
    alike = resemblance(sign, sky, still)
    assert alike[6:14, 22:38].max() < 0.01 and alike[22:].min() > 0.99


def test_change_of_the_whole_light_is_no_difference() -> None:
    gray = panning.scene(5)[0][:, :60] // 2 + 40
    still = np.zeros((*gray.shape, 2), np.float32)
    assert resemblance(gray, gray + 25, still).min() > 0.9


def test_warp_follows_the_flow() -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    flow = np.zeros((4, 5, 2), np.float32)
    flow[..., 0], flow[..., 1] = 1, -0.5
    moved = warp(values, flow)
    assert moved[2, 1] == pytest.approx(values[1:3, 2].mean()) and moved.shape == (4, 5)
    pair = warp(np.dstack((values, -values)), flow)
    assert pair.shape == (4, 5, 2) and np.array_equal(pair[..., 1], -moved)
    assert moved[2, 4] == moved[2, 3]  # edges are repeated


def test_chained_flows_add_up() -> None:
    near, far = np.full((6, 9, 2), 1.5, np.float32), np.full((6, 9, 2), -0.5, np.float32)
    assert np.allclose(chain(near, far), 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (11, 300), (64, 1)])
def test_frames_of_any_size(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    motion = MotionEstimator().between(first, second)
    assert motion.forward.shape == motion.backward.shape == (*shape, 2)
    assert motion.seen_before.shape == motion.seen_again.shape == shape
    assert (
        np.isfinite(motion.forward).all()
        and 0 <= motion.seen_before.min() <= motion.seen_before.max() <= 1
    )


def test_frames_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        MotionEstimator().between(np.zeros((20, 20), np.uint8), np.zeros((20, 21), np.uint8))
