"""How far hints reach: kept at their places, spread to what is alike, ended by strong edges."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gancolor import color, hints, metrics
from gancolor.coloring import full_size, painting, spreading
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.hints import Hint
from gancolor.images.photograph import Photograph

RED, BLUE = (200, 60, 50), (40, 70, 190)
SIGHT = Sight(size=64, distribution=True, hints=True)


def ab_of(rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    return hints.ab_of([Hint(0, 0, rgb)])[0]


# --- held at their places ---


def hold(
    given: list[Hint], guide: NDArray[np.float32] | None = None, rows: int = 30, reach: float = 2.0
) -> NDArray[np.float32]:
    """Colours of 0.1 all over 30 x 40 pixels with hints held in them, in strips of so many rows."""
    guide = np.zeros((30, 40), np.float32) if guide is None else guide
    colors = np.full((30, 40, 2), 0.1, np.float32)
    strips = [
        (start, guide[start : start + rows], colors[start : start + rows])
        for start in range(0, 30, rows)
    ]
    holder = spreading.Holder(given, (30, 40), reach, strips)
    held = colors.copy()
    for start in range(0, 30, rows):
        holder.hold(start, guide[start : start + rows], held[start : start + rows])
    return held


def test_each_hint_is_kept_at_its_place_and_what_is_far_away_is_left_alone() -> None:
    held = hold([Hint(10, 12, RED), Hint(30, 20, BLUE, 2)])
    np.testing.assert_allclose(held[12, 10], ab_of(RED), atol=1e-5)
    np.testing.assert_allclose(held[18:23, 28:33].mean((0, 1)), ab_of(BLUE), atol=1e-5)
    assert (held[:, 19:20] == np.float32(0.1)).all() and (held[27:, :20] == np.float32(0.1)).all()
    way = np.linalg.norm(held[12, 10:17] - 0.1, axis=1)
    assert (np.diff(way) < 0).all() and way[2] > 0.5 * way[0]  # no dot: it falls off around


def test_a_wider_reach_spreads_a_correction_further() -> None:
    near, far = (
        np.linalg.norm(hold([Hint(10, 12, RED)], reach=reach)[12, 15] - 0.1) for reach in (2.0, 6.0)
    )
    assert far > 1.5 * near


def test_strips_change_nothing() -> None:
    given = [Hint(10, 12, RED), Hint(11, 13, BLUE, 3), Hint(39, 29, RED, 1)]
    for rows in (1, 7):
        np.testing.assert_allclose(hold(given, rows=rows), hold(given), atol=1e-6)


def test_neighbouring_hints_are_both_kept_and_the_mean_of_those_at_one_place() -> None:
    held = hold([Hint(10, 10, RED), Hint(11, 10, BLUE), Hint(10, 11, (90, 90, 90), 0)])
    for (row, column), rgb in {(10, 10): RED, (10, 11): BLUE, (11, 10): (90, 90, 90)}.items():
        np.testing.assert_allclose(held[row, column], ab_of(rgb), atol=1e-5)
    held = hold([Hint(10, 10, RED), Hint(10, 10, BLUE)])
    np.testing.assert_allclose(held[10, 10], (ab_of(RED) + ab_of(BLUE)) / 2, atol=1e-5)


def test_a_correction_stops_at_an_edge_of_the_lightness() -> None:
    guide = np.zeros((30, 40), np.float32)
    guide[:, 12:] = 1.0
    held = hold([Hint(11, 10, RED)], guide)
    np.testing.assert_allclose(held[10, 11], ab_of(RED), atol=1e-5)
    same, other = (np.linalg.norm(held[10, at] - 0.1) for at in (10, 12))
    assert other < 1e-3 < 0.1 < same


# --- edges ---


def parted(kind: str, height: int = 60, width: int = 80) -> NDArray[np.float32]:
    """Lightness in [-1, 1] of two regions, left and right, with a little noise."""
    light = np.zeros((height, width), np.float32)
    half = width // 2
    if kind == "step":
        light[:, half:] = 0.5
    elif kind == "soft step":  # over two pixels of a view
        light[:, half:] = 0.5
        light[:, half - 1] = 0.25
    elif kind == "line":
        light[:, half - 1 : half + 1] = -0.7
    elif kind == "slope":
        light += np.linspace(-0.5, 0.5, width, dtype=np.float32)
    elif kind == "foliage":
        leaves = np.random.default_rng(5).uniform(-0.6, 0.6, (height, width)).astype(np.float32)
        light += cv2.GaussianBlur(leaves, (0, 0), 0.8)
    return light + np.random.default_rng(2).normal(0, 0.01, light.shape).astype(np.float32)


def reached_from(guide: NDArray[np.float32], row: int, column: int) -> NDArray[np.float32]:
    begin = np.zeros(guide.shape, bool)
    begin[row, column] = True
    return spreading.reached(spreading.permeability(guide), guide, begin)


@pytest.mark.parametrize("kind", ["step", "soft step", "line"])
def test_what_is_known_ends_at_a_strong_edge(kind: str) -> None:
    share = reached_from(parted(kind), 30, 15)
    assert share[:, :38].min() > 0.9  # all of its side, up to the edge
    assert share[:, 42:].max() < 0.1


@pytest.mark.parametrize("kind", ["flat", "slope", "foliage"])
def test_what_is_known_reaches_all_that_no_strong_edge_parts(kind: str) -> None:
    share = reached_from(parted(kind), 30, 15)
    assert np.median(share) > 0.9 and np.quantile(share, 0.1) > 0.6


def test_what_is_known_goes_round_the_end_of_an_edge() -> None:
    guide = parted("line")
    guide[45:] = 0
    assert reached_from(guide, 30, 15)[30, 60] > 0.9


def test_where_a_hint_lies_on_an_edge_both_sides_have_it() -> None:
    guide = parted("step")
    begin = np.zeros(guide.shape, bool)
    begin[30, 34:46] = True
    share = spreading.reached(spreading.permeability(guide), guide, begin)
    assert share[:, :30].min() > 0.9 and share[:, 50:].min() > 0.9


class Bleeding:
    """A network that gives everything the mean of its hints, whatever lies between."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def __call__(self, view: View) -> Prediction:
        self.views.append(view)
        ab = np.full((*view.rgb.shape[:2], 2), (0.05, -0.1), np.float32)
        if view.hints is not None:
            ab[:] = view.hints[view.hints[..., 2] > 0][:, :2].mean(0)
        return Prediction(ab, ("with",) if view.hints is not None else ("without",))


def gray_of(light: NDArray[np.float32], scale: int, dtype: str = "uint8") -> NDArray[Any]:
    """A gray picture `scale` times as large."""
    values = color.gray(torch.from_numpy(light)[None, None])[0, 0].numpy()
    values = values.repeat(scale, 0).repeat(scale, 1)
    white = {"uint8": 255, "uint16": 65535}[dtype]
    return np.rint(values * white).astype(dtype)


def lab(rgb: NDArray[Any]) -> torch.Tensor:
    white = 255 if rgb.dtype == np.uint8 else 65535
    tensor = torch.from_numpy(rgb.astype(np.float32).transpose(2, 0, 1).copy())[None] / white
    return color.rgb_to_lab(tensor)


def misses(colored: NDArray[Any], hint: Hint) -> float:
    """CIEDE2000 at the place of a hint, from its colour at the lightness there."""
    row, column = round(hint.y), round(hint.x)
    found = lab(colored[row : row + 1, column : column + 1])
    ab = torch.from_numpy(hints.ab_of([hint])).view(1, 2, 1, 1) * color.AB_SCALE
    return float(metrics.ciede2000(found, torch.cat((found[:, :1], ab), 1)))


@pytest.mark.parametrize("kind", ["step", "soft step", "line"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_photograph_beyond_an_edge_hardly_changes_and_hints_are_kept(
    kind: str, dtype: str
) -> None:
    pixels = gray_of(parted(kind), 5, dtype)
    known = (Hint(60, 150, RED), Hint(185, 60, RED, 4))  # far from the edge, and beside it
    network = Bleeding()
    told, plain = (
        full_size.color(Photograph(pixels=pixels), PhotographSettings(hints=given), SIGHT, network)
        for given in (known, ())
    )
    (with_hints,), (without,) = told.pictures, plain.pictures
    assert with_hints.dtype == pixels.dtype
    for hint in known:
        assert misses(with_hints, hint) < 2
    change = metrics.ciede2000(lab(with_hints), lab(without))[0].numpy()
    most = 0.15 if kind == "soft step" else 0.05  # soft edges are weaker ones
    assert change[:, 213:].max() < most * np.median(change[:, :185])  # beyond the edge
    assert change[:, 30:185].min() > 5
    assert told.notes == ["with", "without"]  # asked both ways, once each
    assert [view.hints is None for view in network.views] == [False, True, True]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "STRIP", 1 << 14)
    pixels = np.random.default_rng(4).integers(0, 256, (1200, 800, 3), np.uint8)
    mask = np.full(pixels.shape[:2], 200, np.uint8)
    known = [Hint(100 * at, 150 * at, RED, 5) for at in range(5)]
    colors = np.full((60, 40, 2), 0.1, np.float32)
    tracemalloc.start()
    try:
        result = painting.paint(pixels, colors, hints=known, mask=mask)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 0.25 * pixels.nbytes + 1_500_000


def test_a_correction_goes_to_what_is_alike_and_not_across_a_line() -> None:
    guide = parted("line")
    plain = np.zeros((60, 80, 2), np.float32)
    change = spreading.correct([Hint(350, 300, RED)], 600, 800, guide, plain)
    size = np.linalg.norm(change, axis=2)
    assert size[30, 35] == pytest.approx(np.linalg.norm(ab_of(RED)), abs=1e-3)
    assert size[30, 30] > 0.5 * size[30, 35] and size[:, 42:].max() < 0.05 * size[30, 35]
