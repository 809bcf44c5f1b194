"""Draws from a made-up network's distribution: coherent, seeded, beside the user's own hints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gancolor import color
from gancolor.coloring import sampling
from gancolor.coloring.views import Draw
from gancolor.models import Output, bins

COUNT = len(bins.centers())
INSIDE = (slice(0, 64), slice(0, 96))


def nearest(a: float, b: float) -> int:
    """The bin of a colour in CIE units."""
    away = bins.centers() * color.AB_SCALE - torch.tensor([a, b])
    return int(away.norm(dim=1).argmin())


RED, GREEN, BLUE = nearest(60, 40), nearest(-60, 40), nearest(20, -80)


class Network:
    """The left half of its pictures is red or green, the right half blue; it believes all hints."""

    def __init__(self, red: float = 0.5, height: int = 64, width: int = 96) -> None:
        self.asked: list[Tensor | None] = []
        self.logits = torch.full((1, COUNT, -(-height // 4), -(-width // 4)), -20.0)
        half = self.logits.shape[3] // 2
        self.logits[:, RED, :, :half] = torch.tensor(red).log()
        self.logits[:, GREEN, :, :half] = torch.tensor(1 - red).log()
        self.logits[:, BLUE, :, half:] = 0

    def __call__(self, hints: Tensor | None) -> Output:
        self.asked.append(None if hints is None else hints.clone())
        return Output(bins.decode(self.logits, 0.38), self.logits)

    def draw(self, wish: Draw, hints: Tensor | None = None) -> Tensor:
        """The last hint map."""
        shape = (self.logits.shape[2] * 4, self.logits.shape[3] * 4)
        sampling.draw(self, shape, INSIDE, hints, wish, 0.38)
        last = self.asked[-1]
        assert last is not None and last.shape == (1, 3, *shape)
        return last


def told(known: Tensor, part: slice) -> list[int]:
    """The bins of what a part of a hint map's columns is told."""
    part_of = known[0, :, :, part]
    colors = part_of[:2, part_of[2] > 0].T
    return sorted(set(torch.cdist(colors, bins.centers()).argmin(1).tolist()))


def test_one_thing_has_one_colour_and_what_is_sure_keeps_its_own() -> None:
    seen = set()
    for number in range(1, 9):
        network = Network()
        known = network.draw(Draw(0, number, 1.0))
        (left,) = told(known, slice(0, 48))
        seen.add(left)
        assert told(known, slice(48, None)) in ([], [BLUE])
        mask = known[0, 2]
        assert set(mask.unique().tolist()) == {0.0, 1.0} and 0.02 < float(mask.mean()) < 0.3
        assert (known[0, :2, mask == 0] == 0).all()
        assert (
            network.asked[0] is None and len(network.asked) == 3
        )  # two things, then all is settled
    assert seen == {RED, GREEN}


@pytest.mark.slow
@pytest.mark.parametrize(("diversity", "reds"), [(1.0, 0.8), (0.5, 0.64 / 0.68), (0.0, 1.0)])
def test_colours_are_as_frequent_as_the_network_holds_them_likely(
    diversity: float, reds: float
) -> None:
    first = [told(Network(0.8).draw(Draw(4, k, diversity)), slice(0, 48)) for k in range(1, 41)]
    assert {tuple(found) for found in first} <= {(RED,), (GREEN,)}
    assert first.count([RED]) / 40 == pytest.approx(reds, abs=0.03)


def test_a_draw_is_its_seed_and_number() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [told(Network().draw(Draw(seed, k, 1.0)), slice(0, 48)) for k in range(1, 9)]

    before = torch.get_rng_state()
    assert drawn(1) == drawn(1) and drawn(1) != drawn(2)
    assert torch.equal(before, torch.get_rng_state())


def test_the_users_hints_stay_and_are_not_drawn_over() -> None:
    hints = torch.zeros(1, 3, 64, 96)
    hints[:, :, 8:40, 8:40] = torch.tensor([0.1, -0.2, 1.0])[:, None, None]
    network = Network()
    known = network.draw(Draw(0, 1, 1.0), hints)
    assert network.asked[0] is not None and torch.equal(network.asked[0], hints)
    assert torch.equal(known[:, :, 8:40, 8:40], hints[:, :, 8:40, 8:40])
    assert float(known[0, 2].sum()) > float(hints[0, 2].sum())
    everywhere = torch.ones(1, 3, 64, 96)
    network = Network()
    assert torch.equal(network.draw(Draw(0, 1, 1.0), everywhere), everywhere)
    assert len(network.asked) == 1  # nothing is left to be drawn


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (70, 41)])
def test_pictures_of_any_shape_in_padded_views(shape: tuple[int, int]) -> None:
    height, width = shape
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    inside = tuple(
        slice((whole - part) // 2, (whole - part) // 2 + part)
        for whole, part in zip(padded, shape, strict=True)
    )
    logits, asked = torch.randn(1, COUNT, padded[0] // 4, padded[1] // 4), []

    def answer(hints: Tensor | None) -> Output:
        asked.append(hints)
        return Output(torch.zeros(1, 2, *shape), logits)

    sampling.draw(answer, shape, (inside[0], inside[1]), None, Draw(0, 1, 1.0), 0.38)
    assert 2 <= len(asked) <= sampling.POINTS + 1 and asked[0] is None
    assert all(known is not None and known.shape == (1, 3, *shape) for known in asked[1:])


def test_large_views_compare_a_bounded_number_of_places() -> None:
    grid = sampling._Grid((400, 3000), (slice(0, 400), slice(0, 3000)), None)
    assert grid.size[1] <= sampling._MOST and grid.size[0] * grid.cell >= 400
