"""Colours that are carried along the motion: films of known motion and colours, with cuts, flashes,
fades and stops.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import panning
import pytest
from panning import Floats, Gray

from gancolor.errors import ConfigError
from gancolor.video.flow import warp
from gancolor.video.propagation import ColoredFrame, Stabilizer

FRAMES = 20


class Network:
    """Says the given colours of each frame; counts how often it is asked."""

    def __init__(self, grays: Sequence[Gray], colors: Sequence[Floats]) -> None:
        self.known = {gray.tobytes(): ab for gray, ab in zip(grays, colors, strict=True)}
        self.passes = 0

    def __call__(self, gray: Gray) -> Floats:
        self.passes += 1
        return self.known[gray.tobytes()]


def run(stabilizer: Stabilizer, grays: Sequence[Gray], start: int = 0) -> list[ColoredFrame]:
    done = [
        colors for index, gray in enumerate(grays, start) for colors in stabilizer.feed(index, gray)
    ]
    return done + stabilizer.flush()


def stabilize(
    grays: Sequence[Gray], colors: Sequence[Floats], strength: float, interval: int
) -> list[ColoredFrame]:
    done = run(Stabilizer(Network(grays, colors), strength=strength, key_interval=interval), grays)
    assert [one.index for one in done] == list(range(len(grays)))
    return done


def noisy(colors: Sequence[Floats], amount: float = 0.05) -> list[Floats]:
    """Each frame's colours with an error of its own: smooth spots, as networks make them."""
    random = np.random.default_rng(0)
    height, width = colors[0].shape[:2]
    spots = [
        np.kron(random.normal(size=(height // 8, width // 8, 2)), np.ones((8, 8, 1)))
        for _ in colors
    ]
    return [
        np.asarray(ab + amount * spot, np.float32) for ab, spot in zip(colors, spots, strict=True)
    ]


def film(seed: int = 1, frames: int = FRAMES) -> tuple[list[Gray], list[Floats]]:
    gray, ab = panning.scene(seed)
    return panning.pan(gray, frames), panning.pan(ab, frames)


def test_strength_zero_is_the_network_alone() -> None:
    grays, truth = film()
    done = stabilize(grays, noisy(truth), 0, 6)
    assert all(one.key and not one.cut for one in done)
    assert all(np.array_equal(one.ab, ab) for one, ab in zip(done, noisy(truth), strict=True))


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 7, 13])
@pytest.mark.parametrize("interval", [1, 5])
def test_frames_come_back_in_order_with_their_key_frames(frames: int, interval: int) -> None:
    grays, truth = film(frames=frames)
    network = Network(grays, truth)
    stabilizer = Stabilizer(network, strength=0.8, key_interval=interval)
    returned: list[ColoredFrame] = []
    for index, gray in enumerate(grays):
        returned += stabilizer.feed(index, gray)
        assert index + 1 - len(returned) < interval + 2  # what is held back is bounded
        assert stabilizer.state()["next"] == len(returned)
    returned += stabilizer.flush()
    assert [one.index for one in returned] == list(range(frames))
    assert [one.index for one in returned if one.cut] == [0]
    assert [one.index for one in returned if one.key] == sorted(
        {*range(0, frames, interval), frames - 1}
    )
    assert network.passes == sum(one.key for one in returned)
    assert all(one.ab.dtype == np.float32 and one.ab.shape == (48, 72, 2) for one in returned)


@pytest.mark.parametrize("interval", [1, 6])
def test_flicker_is_halved_and_colours_are_nearer_to_the_truth(interval: int) -> None:
    grays, truth = film(frames=30)
    said = noisy(truth)
    done = [one.ab for one in stabilize(grays, said, 0.9, interval)]

    def change(colors: Sequence[Floats]) -> float:
        moved = [
            warp(before, np.full((48, 72, 2), (panning.SPEED, 0), np.float32))
            for before in colors[:-1]
        ]
        return float(
            np.mean(panning.distance([x[:, :66] for x in moved], [x[:, :66] for x in colors[1:]]))
        )

    assert change(done) < 0.4 * change(said)
    assert np.mean(panning.distance(done, truth)) < 0.8 * np.mean(panning.distance(said, truth))


@pytest.mark.parametrize("interval", [1, 6, 50])
@pytest.mark.parametrize("cut", [1, 2, 9, 18])
def test_cut_is_found_and_nothing_is_carried_over_it(interval: int, cut: int) -> None:
    grays = [*film(1)[0][:cut], *film(2)[0][cut:]]
    colors = [panning.flat((0.4, 0.0) if index < cut else (-0.4, 0.1)) for index in range(FRAMES)]
    done = stabilize(grays, colors, 0.9, interval)
    assert [one.index for one in done if one.cut] == [0, cut]
    assert max(panning.distance([one.ab for one in done], colors)) < 1e-5


def test_cut_is_found_in_an_old_film() -> None:
    random = np.random.default_rng(5)
    clean = [*film(3)[0][:10], *film(4)[0][10:]]
    grays = [
        (gray * random.uniform(0.85, 1.15) + 8 * random.normal(size=gray.shape))
        .clip(0, 255)
        .astype(np.uint8)
        for gray in clean
    ]
    colors = [panning.flat((0.4, 0.0) if index < 10 else (-0.4, 0.1)) for index in range(FRAMES)]
    done = stabilize(grays, colors, 0.9, 6)
    assert [one.index for one in done if one.cut] == [0, 10]
    assert max(panning.distance([one.ab for one in done], colors)) < 1e-5


@pytest.mark.parametrize("length", [1, 2])
def test_flash_is_stepped_over(length: int) -> None:
    grays, truth = film()
    said = noisy(truth)
    for index in range(8, 8 + length):
        grays[index] = np.full_like(grays[index], 250 + index % 8)
        said[index] = panning.flat((0.0, 0.0))
    done = stabilize(grays, said, 0.9, 6)
    assert [one.index for one in done if one.cut] == [0]
    assert all(not done[index].ab.any() for index in range(8, 8 + length))
    after = panning.distance([done[14].ab], [truth[14]])[0]
    # what was known before still counts
    assert after < 0.7 * panning.distance([said[14]], [truth[14]])[0]


def test_other_scene_behind_black_has_its_own_colours() -> None:
    first, second = film(5)[0][:10], film(6)[0][:10]
    fades = [gray * np.float32(1 - i / 9) for i, gray in enumerate(first)]
    fades += [gray * np.float32(i / 9) for i, gray in enumerate(second)]
    grays = [(fade + i % 2).astype(np.uint8) for i, fade in enumerate(fades)]
    colors = [panning.flat((0.4, 0.0) if index < 10 else (-0.4, 0.1)) for index in range(FRAMES)]
    done = [one.ab for one in stabilize(grays, colors, 0.9, 6)]
    assert panning.distance(done[-3:], colors[-3:]) == pytest.approx([0] * 3, abs=0.02)
    assert panning.distance(done[:6], colors[:6]) == pytest.approx([0] * 6, abs=1e-5)


@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_what_moves_leaves_no_ghost(interval: int, seed: int) -> None:
    ground, thing = panning.scene(seed, 144, 96)[0], panning.scene(seed + 50, 48, 48)[0]
    grays, colors = [], []
    for left in range(8, 88, 4):
        gray, ab = ground.copy(), np.zeros((96, 144, 2), np.float32)
        gray[24:72, left : left + 48], ab[24:72, left : left + 48] = thing, (0.3, 0.3)
        grays.append(gray)
        colors.append(ab)
    errors = [
        np.abs(one.ab - truth).mean(axis=2) / 0.3
        for one, truth in zip(stabilize(grays, colors, 0.9, interval), colors, strict=True)
    ]
    behind = [
        error[28:68, 4 * number - 8 : 4 * number + 6].mean()
        for number, error in enumerate(errors)
        if number > 1
    ]
    inside = [
        error[32:64, 4 * number + 16 : 4 * number + 48].mean()
        for number, error in enumerate(errors)
    ]
    assert np.mean(behind) < 0.01 and np.max(inside) < 0.01


def test_frame_that_the_last_key_frame_hardly_shows_becomes_one() -> None:
    gray, ab = panning.scene(8, width=400)
    grays = panning.pan(gray, FRAMES, speed=6)
    done = stabilize(grays, panning.pan(ab, FRAMES, speed=6), 0.9, 50)
    keys = [one.index for one in done if one.key]
    assert 4 < len(keys) < FRAMES and [one.index for one in done if one.cut] == [0]


def with_cut_and_flash() -> tuple[list[Gray], list[Floats]]:
    grays, truth = film(1)
    other = film(2)
    grays, said = [*grays[:9], *other[0][9:]], noisy([*truth[:9], *other[1][9:]])
    grays[14] = np.full_like(grays[14], 255)
    return grays, said


@pytest.mark.parametrize("strength", [0, 0.8, 1])
def test_stopped_film_goes_on_as_if_never_stopped(strength: float) -> None:
    grays, said = with_cut_and_flash()
    whole = stabilize(grays, said, strength, 4)

    def make() -> Stabilizer:
        return Stabilizer(Network(grays, said), strength=strength, key_interval=4)

    stabilizer, stops = make(), 0
    for index, gray in enumerate(grays):
        if stabilizer.feed(index, gray):
            file = io.BytesIO()
            np.savez(file, **{key: np.asarray(value) for key, value in stabilizer.state().items()})
            file.seek(0)
            state, resumed = dict(np.load(file)), make()
            resumed.restore(state)
            start = int(state["next"])
            rest = run(resumed, grays[start:], start)
            assert [one.index for one in rest] == list(range(start, FRAMES))
            for one, other in zip(rest, whole[start:], strict=True):
                assert np.array_equal(one.ab, other.ab) and (one.key, one.cut) == (
                    other.key,
                    other.cut,
                )
            stops += 1
    assert stops >= 5


@pytest.mark.parametrize(
    "make",
    [np.zeros_like, lambda gray: np.random.default_rng(gray[0, 0]).integers(0, 256, gray.shape)],
)
def test_blank_frames_and_snow_come_back_too(make: Callable[[Gray], Gray]) -> None:
    grays = [np.asarray(make(np.full((20, 30), index, np.uint8)), np.uint8) for index in range(9)]
    stabilizer = Stabilizer(
        lambda gray: np.zeros((*gray.shape, 2), np.float32), strength=0.9, key_interval=4
    )
    done = run(stabilizer, grays)
    assert [one.index for one in done] == list(range(9)) and all(
        np.isfinite(one.ab).all() for one in done
    )


def test_change_of_the_frame_size_is_a_cut() -> None:
    grays = [np.full((1, 1), 9, np.uint8)] * 4 + [np.full((2, 3), 9, np.uint8)] * 4
    stabilizer = Stabilizer(
        lambda gray: np.zeros((*gray.shape, 2), np.float32), strength=0.9, key_interval=3
    )
    done = run(stabilizer, grays)
    assert [one.ab.shape[:2] for one in done] == [gray.shape for gray in grays]
    assert [one.index for one in done if one.cut] == [0, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 1.1}, "--strength must be at most 1, got 1.1"),
        ({"strength": float("nan")}, "--strength must be a finite number, got nan"),
        ({"key_interval": 0}, "--key-interval must be at least 1, got 0"),
    ],
)
def test_settings_out_of_bounds_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Stabilizer(lambda gray: np.zeros((*gray.shape, 2), np.float32), **options)  # type: ignore[arg-type]
