"""Old photographs: each defect does what it says, at every size alike, and the same numbers give
the same picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from gancolor import color
from gancolor.data import aging
from gancolor.images import arrays

SIZES = [32, 64, 96, 256, 512]
NAMES = [defect.__name__ for _, defect in aging.DEFECTS]


def numbers(*seed):
    return np.random.default_rng(seed or 0)


@pytest.fixture(scope="module")
def scene():
    """A colourful picture with smooth parts, edges and texture, as a function of its side."""
    rows, columns = np.mgrid[0:512, 0:512].astype(np.float32) / 512
    hue = (180 * columns + 40 * np.sin(9 * rows)) % 180
    shade = 150 + 60 * np.sin(14 * rows) * np.cos(11 * columns)
    large = cv2.cvtColor(
        np.stack([hue, 140 + 80 * rows, shade], axis=2).astype(np.uint8), cv2.COLOR_HSV2RGB
    )
    for center, radius, colour in [
        ((150, 180), 90, (230, 40, 30)),
        ((370, 330), 110, (20, 60, 220)),
    ]:
        cv2.circle(large, center, radius, colour, -1, cv2.LINE_AA)
    cv2.rectangle(large, (300, 40), (460, 170), (240, 240, 235), -1)
    cv2.rectangle(large, (40, 330), (200, 480), (15, 15, 20), -1)
    return lambda side: arrays.resize(large, side)


@pytest.fixture(scope="module")
def gray(scene):
    """That picture as the eye sees its grays."""
    return lambda side: aging.mix(scene(side), aging.EYE)


def flat(level, side=128):
    return np.full((side, side), level, np.float32)


def constant(colour, side=64):
    return np.full((side, side, 3), colour, np.uint8)


def fine(plane):
    """Mean size of what is finer than three pixels."""
    return float(np.abs(plane - cv2.GaussianBlur(plane, (0, 0), 1)).mean())


# --- whole pictures ---


@pytest.mark.parametrize("side", SIZES)
def test_a_picture_of_any_size_becomes_gray_of_that_size(scene, side):
    picture = scene(side)
    before = picture.copy()
    for seed in range(12):
        aged = aging.age(picture, numbers(seed))
        assert aged.shape == (side, side) and aged.dtype == np.uint8 and aged.flags.c_contiguous
    assert np.array_equal(picture, before)


def test_the_same_numbers_give_the_same_picture(scene):
    picture = scene(64)
    first = [aging.age(picture, numbers(seed)) for seed in range(30)]
    again = [aging.age(picture, numbers(seed)) for seed in range(30)]
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert len({aged.tobytes() for aged in first}) == 30


def test_no_picture_becomes_black_or_white(scene):
    for seed in range(150):
        aged = aging.age(scene(48), numbers(seed))
        assert 15 < aged.mean() < 240 and aged.std() > 12, seed
        assert np.mean(aged == 0) < 0.4 and np.mean(aged == 255) < 0.4, seed


@pytest.mark.parametrize(
    "colour", [0, 40, 128, 215, 255, (255, 0, 0), (0, 255, 0), (0, 0, 255)], ids=str
)
@pytest.mark.parametrize("side", [32, 512])
def test_a_picture_of_one_colour_ages_too(colour, side):
    picture = constant(colour, side)
    level = float(aging.mix(picture, aging.EYE).mean())
    for seed in range(20 if side == 32 else 4):
        aged = aging.age(picture, numbers(seed))
        assert aged.shape == (side, side)
        if colour in (40, 128, 215):
            assert 0.2 * level < aged.mean() / 255 < 0.35 + 0.65 * level


def test_most_pictures_get_a_few_defects(monkeypatch, scene):
    counts = []

    def counted(defect):
        def run(*args):
            counts[-1] += 1
            return defect(*args)

        return run

    monkeypatch.setattr(
        aging, "DEFECTS", tuple((chance, counted(defect)) for chance, defect in aging.DEFECTS)
    )
    for seed in range(400):
        counts.append(0)
        aging.age(scene(32), numbers(seed))
    share = np.bincount(counts, minlength=8) / len(counts)
    assert share[0] < 0.08 and share[2:5].sum() > 0.6 and share[6:].sum() < 0.05


@pytest.mark.parametrize("side", [64, 256])
def test_nothing_moves(scene, side):
    picture = scene(side)
    plain = aging.mix(picture, aging.EYE)

    def likeness(aged, down, along):
        shifted = np.roll(plain, (down, along), (0, 1))[2:-2, 2:-2]
        return float(np.corrcoef(shifted.ravel(), aged[2:-2, 2:-2].ravel())[0, 1])

    for seed in range(25):
        aged = aging.age(picture, numbers(seed)).astype(np.float32)
        moved = [likeness(aged, *shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        assert likeness(aged, 0, 0) > max(moved), seed


def test_pictures_age_alike_at_every_size(scene):
    """A large one that is reduced afterwards looks as the small one does: the same defects, as
    large and as strong.
    """
    plain = aging.mix(scene(64), aging.EYE) * 255
    apart, changed = [], []
    for seed in range(40):
        small = aging.age(scene(64), numbers(seed)).astype(np.float32)
        large = arrays.resize(aging.age(scene(512), numbers(seed)), 64).astype(np.float32)
        apart.append(np.abs(small - large).mean())
        changed.append(np.abs(small - plain).mean())
    assert np.mean(apart) < 4 < 15 < np.mean(changed)


# --- plates ---


def test_the_eyes_mix_is_the_lightness(scene):
    rgb = torch.from_numpy(scene(64).transpose(2, 0, 1)[None].copy())
    wanted = color.gray(color.split(rgb)[0])[0, 0].numpy() * 255
    assert np.abs(aging.mix(scene(64), aging.EYE) * 255 - wanted).max() < 0.6


@pytest.mark.parametrize("plate", aging.PLATES)
def test_grays_stay_on_every_plate(plate):
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    weights = aging.PLATES[plate]
    assert sum(weights) == pytest.approx(1)
    seen = aging.mix(ramp, weights)
    assert seen.dtype == np.float32
    assert np.array_equal(np.rint(seen * 255).astype(np.uint8), ramp[..., 0])


def test_plates_see_blue_light_and_red_dark():
    def seen(colour):
        return [
            float(aging.mix(constant(colour), aging.PLATES[plate]).mean()) for plate in aging.PLATES
        ]

    ordinary, orthochromatic, panchromatic = seen((40, 80, 220))  # blue
    assert ordinary > orthochromatic + 0.1 > panchromatic + 0.15
    ordinary, orthochromatic, panchromatic = seen((210, 40, 35))  # red
    assert ordinary < panchromatic - 0.3 and orthochromatic < panchromatic - 0.25
    ordinary, orthochromatic, panchromatic = seen((70, 170, 40))  # green
    assert ordinary < panchromatic - 0.15 < orthochromatic - 0.15


def test_a_plate_that_sees_little_is_exposed_longer(monkeypatch):
    monkeypatch.setattr(aging, "PLATE_CHANCES", (1.0, 0.0, 0.0))
    monkeypatch.setattr(aging, "PURITY", (1.0, 1.0))
    warm = constant((220, 140, 60))
    unexposed = aging.mix(warm, aging.PLATES["ordinary"]).mean()
    developed = aging.develop(warm, numbers()).mean()
    assert unexposed + 0.1 < developed < aging.mix(warm, aging.EYE).mean()


def test_light_beyond_white_is_white():
    assert aging.mix(constant(200), aging.EYE, exposure=4).max() == pytest.approx(1)


# --- defects ---


@pytest.mark.parametrize("name", NAMES)
def test_every_defect_keeps_shape_and_kind_and_its_own_input(gray, name):
    defect = getattr(aging, name)
    for side in (64, 128):
        plane = gray(side)
        before = plane.copy()
        made = [defect(plane, numbers(seed)) for seed in range(8)]
        assert all(one.shape == plane.shape and one.dtype == np.float32 for one in made)
        assert np.array_equal(plane, before)
        assert any(not np.array_equal(one, plane) for one in made)
        assert all(
            np.array_equal(defect(plane, numbers(seed)), one) for seed, one in enumerate(made)
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_that_are_drawn_do_not_depend_on_the_size(gray, name):
    for seed in range(5):
        states = []
        for side in (32, 128):
            rng = numbers(seed)
            getattr(aging, name)(gray(side), rng)
            states.append(rng.bit_generator.state)
        assert states[0] == states[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_defect_is_as_strong_at_every_size(gray, name):
    def changed(side):  # as it is seen in a small copy
        changes = [
            getattr(aging, name)(gray(side), numbers(seed)) - gray(side) for seed in range(16)
        ]
        return np.mean(
            [
                np.abs(cv2.resize(plane, (64, 64), interpolation=cv2.INTER_AREA)).mean()
                for plane in changes
            ]
        )

    assert changed(128) == pytest.approx(changed(512), rel=0.2)


def test_blur_takes_what_is_fine_and_not_the_light(gray):
    plane = gray(256)
    for seed in range(6):
        softened = aging.blur(plane, numbers(seed))
        assert fine(softened) < 0.9 * fine(plane)
        assert softened.mean() == pytest.approx(plane.mean(), abs=2e-3)


def test_grain_is_strongest_in_the_mid_tones_and_darkens_nothing():
    for seed in range(6):
        middle, black, white = (
            aging.grain(flat(level), numbers(seed)) - level for level in (0.5, 0.0, 1.0)
        )
        assert 0.001 < middle.std() < 0.08
        assert black.std() == pytest.approx(aging.GRAIN_FLOOR * middle.std(), rel=0.01)
        assert white.std() == pytest.approx(aging.GRAIN_FLOOR * middle.std(), rel=0.01)
        assert abs(middle.mean()) < 0.1 * middle.std()


def test_grain_lies_elsewhere_in_every_picture():
    first, second = (aging.grain(flat(0.5), numbers(seed)) for seed in range(2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("size", "low", "high"), [(1 / 500, -0.05, 0.05), (1 / 60, 0.6, 0.9)])
def test_large_grains_cover_neighbouring_pixels(monkeypatch, size, low, high):
    monkeypatch.setattr(aging, "GRAIN_SIZE", (size, size))
    noise = aging.grain(flat(0.5), numbers(3)) - 0.5
    assert low < np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] < high


def test_a_hard_print_has_more_contrast_about_the_same_gray(gray):
    plane = gray(96)
    for seed in range(6):
        hard = aging.harden(plane, numbers(seed))
        assert 1.1 * plane.std() < hard.std() < aging.CONTRAST[1] * plane.std()
        assert hard.mean() == pytest.approx(plane.mean(), abs=0.03)
        assert hard.min() >= 0 and hard.max() <= 1
    assert aging.harden(flat(0.03), numbers()).mean() == pytest.approx(0.03)


def test_a_faded_print_has_raised_blacks_and_lowered_whites_in_the_same_order():
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    faded = [aging.fade(ramp, numbers(seed)) for seed in range(200)]
    assert all((np.diff(plane, axis=1) > 0).all() for plane in faded)
    blacks, whites = (np.array([plane[0, end] for plane in faded]) for end in (0, -1))
    assert 0 <= blacks.min() < 0.01 and 0.2 < blacks.max() <= 0.3
    assert 0.6 <= whites.min() < 0.7 and 0.99 < whites.max() <= 1
    middles = np.array(
        [(plane[0, 32] - plane[0, 0]) / (plane[0, -1] - plane[0, 0]) for plane in faded]
    )
    assert middles.min() < 0.4 and middles.max() > 0.6


@pytest.mark.parametrize("side", SIZES[1:])  # at 32 pixels hardly a speck can be seen
def test_dust_is_small_and_scattered(side):
    marks = np.stack(
        [np.abs(aging.dust(flat(0.5, side), numbers(seed)) - 0.5) for seed in range(20)]
    )
    covered = (marks > 0.02).mean(axis=(1, 2))
    assert 0.0003 < covered.mean() and covered.max() < 0.06
    assert 0.1 < marks.max() <= 0.5
    halves = (slice(side // 2), slice(side // 2, None))
    quarters = [(marks > 0.02)[:, down, along].any() for down in halves for along in halves]
    assert all(quarters)


@pytest.mark.parametrize("name", ["dust", "scratch"])
def test_marks_are_light_dark_or_both(monkeypatch, name):
    monkeypatch.setattr(aging, "CRACKED", 0.0)

    def ends(*chances):
        monkeypatch.setattr(aging, "LIGHT_CHANCES", chances)
        marked = [getattr(aging, name)(flat(0.5), numbers(seed)) for seed in range(30)]
        return min(plane.min() for plane in marked), max(plane.max() for plane in marked)

    assert ends(1, 0, 0)[1] == 0.5 and ends(1, 0, 0)[0] < 0.4
    assert ends(0, 0, 1)[0] == 0.5 and ends(0, 0, 1)[1] > 0.6
    assert ends(0, 1, 0)[0] < 0.4 and ends(0, 1, 0)[1] > 0.6


def test_scratches_are_long_thin_and_nearly_upright(monkeypatch):
    monkeypatch.setattr(aging, "CRACKED", 0.0)
    monkeypatch.setattr(aging, "SCRATCHES", (1, 2))
    monkeypatch.setattr(aging, "SCRATCH_LENGTH", (0.6, 1.0))
    for seed in range(20):
        marks = np.abs(aging.scratch(flat(0.5, 256), numbers(seed)) - 0.5) > 0.02
        rows = marks.any(axis=1)
        if rows.sum() < 80:
            continue  # most of it lies outside
        assert 1 <= marks.sum(axis=1)[rows].mean() <= 5
        assert marks.any(axis=0).sum() < rows.sum() / 2
        assert rows.sum() == np.ptp(np.flatnonzero(rows)) + 1  # without gaps


def test_cracks_are_light_and_run_at_any_angle(monkeypatch):
    monkeypatch.setattr(aging, "CRACKED", 1.0)
    cracked = [aging.scratch(flat(0.5, 128), numbers(seed)) for seed in range(20)]
    assert all(plane.min() == 0.5 and plane.max() > 0.55 for plane in cracked)
    marks = [plane > 0.52 for plane in cracked]
    lying = [mask.any(axis=0).sum() > mask.any(axis=1).sum() for mask in marks]
    assert 3 < sum(lying) < 17


def test_cracks_begin_at_every_edge(monkeypatch):
    monkeypatch.setattr(aging, "CRACKED", 1.0)
    monkeypatch.setattr(aging, "CRACKS", (1, 2))
    marks = [aging.scratch(flat(0.5, 128), numbers(seed)) > 0.51 for seed in range(60)]
    touched = np.array(
        [[mask[0].any(), mask[-1].any(), mask[:, 0].any(), mask[:, -1].any()] for mask in marks]
    )
    for edge in range(4):
        assert np.sum(touched[:, edge] & (touched.sum(axis=1) == 1)) >= 4  # this one and no other


@pytest.mark.parametrize("name", ["dust", "scratch"])
def test_a_mark_lies_in_the_same_place_at_every_size(monkeypatch, name):
    changes = {"SPECKS": (1, 2), "SPECK_RADIUS": (0.06, 0.06), "HAIRS": (0, 1)}
    changes |= {"CRACKED": 0.0, "SCRATCHES": (1, 2), "SCRATCH_WIDTH": (0.05, 0.05)}
    for constant_name, value in changes.items():
        monkeypatch.setattr(aging, constant_name, value)

    def middle(side, seed):
        marks = np.abs(getattr(aging, name)(flat(0.5, side), numbers(seed)) - 0.5)
        places = (np.arange(side) + 0.5) / side
        return np.array([marks.sum(axis=0) @ places, marks.sum(axis=1) @ places]) / marks.sum()

    apart = np.array([middle(96, seed) - middle(384, seed) for seed in range(12)])
    assert np.abs(apart.mean(axis=0)).max() < 0.002 and np.abs(apart).max() < 0.008


@pytest.mark.parametrize("name", ["dust", "scratch"])
def test_marks_cover_as_much_at_every_size(name):
    def covered(side):
        defect = getattr(aging, name)
        return np.mean(
            [np.abs(defect(flat(0.5, side), numbers(seed)) - 0.5).mean() for seed in range(40)]
        )

    assert 0.8 < covered(64) / covered(512) < 1.25


def test_a_small_file_has_blocks_and_lost_what_is_fine(monkeypatch, gray):
    monkeypatch.setattr(aging, "FILE_SIDE", (256, 256))
    monkeypatch.setattr(aging, "QUALITY", (12, 13))
    plane = np.clip(gray(256) + numbers(1).normal(0, 0.03, (256, 256)).astype(np.float32), 0, 1)
    made = aging.compress(plane, numbers())
    assert 0.005 < np.abs(made - plane).mean() < 0.04 and fine(made) < 0.7 * fine(plane)
    steps = np.abs(np.diff(made, axis=1)).mean(axis=0)  # between columns
    assert steps[7::8].mean() > 1.3 * np.delete(steps, np.arange(7, 255, 8)).mean()
    assert np.abs(aging.compress(flat(0.5), numbers()) - 0.5).max() < 0.01


def test_a_larger_file_of_better_quality_keeps_more(monkeypatch, gray):
    plane = gray(256)

    def lost(side, quality):
        monkeypatch.setattr(aging, "FILE_SIDE", (side, side))
        monkeypatch.setattr(aging, "QUALITY", (quality, quality + 1))
        return float(np.abs(aging.compress(plane, numbers()) - plane).mean())

    assert lost(400, 60) < lost(256, 30) < lost(180, 12)


# --- which pictures ---


def test_the_seed_and_the_position_decide_which_picture_is_aged_and_how(scene):
    picture = scene(32)
    drawn = [aging.draw(picture, 0.3, 5, position) for position in range(300)]
    assert 60 < sum(aged is not None for aged in drawn) < 120
    for position, aged in enumerate(drawn[:20]):
        again = aging.draw(picture, 0.3, 5, position)
        assert (again is None) == (aged is None) and (aged is None or np.array_equal(again, aged))
    others = [aging.draw(picture, 0.3, 6, position) is None for position in range(300)]
    assert others != [aged is None for aged in drawn]


def test_none_and_all_are_shares_too(scene):
    picture = scene(32)
    assert all(aging.draw(picture, 0.0, 0, position) is None for position in range(20))
    made = [aging.draw(picture, 1.0, 0, position) for position in range(20)]
    assert all(aged is not None for aged in made) and len({aged.tobytes() for aged in made}) == 20


def test_a_larger_share_ages_the_same_pictures_the_same_way(scene):
    for position in range(40):
        few, many = (aging.draw(scene(32), share, 0, position) for share in (0.3, 0.7))
        assert few is None or np.array_equal(few, many)
