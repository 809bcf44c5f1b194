"""Coherent colourings drawn from a network's distribution: the colours of a few places in turn,
each known to the network before the next one is drawn; the rest follows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gancolor.coloring.views import Draw
from gancolor.models import Output, bins
from gancolor.models.generator import BINS_STRIDE

POINTS = 4
"""Places whose colours are drawn at most."""

_STEPS = ((1 + 5**0.5) / 2, 2**0.5, 3**0.5, 7**0.5)  # irrational
_MOST = 48  # places that are compared along the longer side: all pairs of them are held in memory
_NARROW = 8  # power of how alike two distributions are: what belongs to a place, and what does not
_BELONGS = 0.4  # of that likeness, from which a place is told the colour that was drawn
_SETTLED = 0.3  # of what is left of a place to be decided, below which it is told nothing more
_APART = 3  # places between two that are told: the network fills what lies between them


def draw(
    answer: Callable[[Tensor | None], Output],
    shape: tuple[int, int],
    inside: tuple[slice, slice],
    hints: Tensor | None,
    wish: Draw,
    temperature: float,
) -> Output:
    """Return what a network says when colours of a few places have been drawn and told to it.

    `answer`: its answer to a hint map (1, 3, h, w) or None, with logits. `shape`: h and w.
    `inside`: the rows and columns of the padded view, to which the logits belong, that hold the
    view. `hints`: the user's own, which stay as they are. `wish`: which draw. `temperature`: at
    which colours are taken from the distribution.

    The place is the one that stands for most of what is undecided: the sum of the entropies of all
    places whose distributions are like its own. The colour is drawn from their mean distribution.
    Those that belong together are told it as far as each holds it possible: each takes the colour
    of its own distribution that lies near the drawn one. So a coat does not become two coats, and
    its buttons keep their own colour.
    """
    grid = _Grid(shape, inside, hints)
    output = answer(hints)
    for place in _spread_evenly(wish):
        known = grid.decide(output, wish.diversity, place, temperature)
        if known is None:
            break
        output = answer(known)
    return output


class _Grid:
    """Places of a view, spread evenly, and what the network was told at each."""

    def __init__(
        self, shape: tuple[int, int], inside: tuple[slice, slice], hints: Tensor | None
    ) -> None:
        self.shape, self.hints = shape, hints
        self.cell = max(BINS_STRIDE, -(-max(shape) // _MOST))  # pixels of the side of a place
        middles = [
            torch.arange(self.cell // 2, side + self.cell // 2, self.cell).clamp(max=side - 1)
            for side in shape
        ]
        self.rows, self.columns = (
            (part.start + middle) // BINS_STRIDE
            for part, middle in zip(inside, middles, strict=True)
        )
        self.size = len(self.rows), len(self.columns)
        self.told = torch.zeros(3, *self.size)
        self.open = torch.ones(self.size)  # what is left to be decided of each place, in [0, 1]
        if hints is not None:
            taken = F.max_pool2d(hints[:, 2:], self.cell, ceil_mode=True)[0, 0]
            self.told, self.open = self.told.to(hints.device), 1 - taken

    def decide(
        self, output: Output, diversity: float, place: float, temperature: float
    ) -> Tensor | None:
        """Draw the next colour; returns the hint map (1, 3, h, w) with it, or None when all is
        decided.
        """
        assert output.logits is not None
        logits = output.logits.float()[:, :, self.rows][..., self.columns]  # (1, Q, ny, nx)
        self.told, self.open = self.told.to(logits.device), self.open.to(logits.device)
        free = self.open.flatten()
        if float(free.max()) < _SETTLED:
            return None
        share = logits[0].flatten(1).softmax(0).sqrt()
        alike = (share.T @ share).clamp(max=1) ** _NARROW  # (n, n): Bhattacharyya's coefficient
        chosen = int(((alike @ (bins.entropy(logits).flatten() * free)) * free).argmax())
        belongs = alike[chosen]
        mean = (logits[0].flatten(1) * belongs).sum(1) / belongs.sum()
        leaning = bins.lean(logits, bins.draw(mean, diversity, place))
        colors = bins.decode(leaning, temperature)[0]  # (2, ny, nx)

        row, column = divmod(chosen, self.size[1])
        spaced = torch.zeros_like(self.open, dtype=torch.bool)
        spaced[row % _APART :: _APART, column % _APART :: _APART] = True
        now = spaced & (belongs.view(self.size) > _BELONGS) & (self.open > _SETTLED)
        self.told = torch.where(now, torch.cat([colors, torch.ones_like(colors[:1])]), self.told)
        self.open = self.open * (1 - belongs.view(self.size))
        return self._drawn()

    def _drawn(self) -> Tensor:
        """What was told, as a hint map, with the user's own hints over it."""
        height, width = self.shape
        whole = self.told.repeat_interleave(self.cell, 1).repeat_interleave(self.cell, 2)
        known = whole[None, :, :height, :width]
        return (
            known if self.hints is None else torch.where(self.hints[:, 2:] > 0, self.hints, known)
        )


def _spread_evenly(wish: Draw) -> list[float]:
    """Where in its distribution each colour of a variant is drawn, in [0, 1).

    Each is drawn evenly, but those of one seed's variants lie apart from each other, however many
    there are: multiples of irrational numbers from a random beginning (Richtmyer 1951, "The
    Evaluation of Definite Integrals, and a Quasi-Monte-Carlo Method").
    """
    begin = np.random.default_rng(wish.seed).random(POINTS)
    places: list[float] = ((begin + wish.number * np.array(_STEPS[:POINTS])) % 1).tolist()
    return places
