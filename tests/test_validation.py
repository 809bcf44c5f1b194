"""Validation: the rule for best.pt, the gray baseline, the measures and the grid."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancolor import color, metrics
from gancolor.config import TrainConfig
from gancolor.data.still_life import composition
from gancolor.images import arrays
from gancolor.models import Discriminator, PatchDiscriminator, Seen, load_backbone
from gancolor.training import validation
from gancolor.training.validation import Validation, score

SIZE = 32


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    """Ten still lifes, uint8."""
    return torch.stack(
        [
            torch.from_numpy(composition.paint(1, index, SIZE)).permute(2, 0, 1)
            for index in range(10)
        ]
    )


def held_out(rgb: Tensor, edges: Tensor | None = None) -> Validation:
    return Validation(TrainConfig(), rgb, edges, None, torch.device("cpu"), contextlib.nullcontext)


class Painter(nn.Module):
    """Gives the same output for every picture and notes what it was given."""

    def __init__(self, channels: int = 2, value: float = 0.0) -> None:
        super().__init__()
        self.channels, self.value = channels, value
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, condition: Tensor) -> Tensor:
        self.seen.append(condition)
        self.modes.append(self.training)
        return torch.full((len(condition), self.channels, *condition.shape[2:]), self.value)


class Oracle(nn.Module):
    """Knows the true ab of pictures by their gray."""

    def __init__(self, rgb: Tensor) -> None:
        super().__init__()
        lightness, self.ab = color.split(rgb)
        self.gray = color.gray(lightness)

    def forward(self, condition: Tensor) -> Tensor:
        found = [(self.gray - one).abs().amax((1, 2, 3)).argmin() for one in condition]
        return self.ab[torch.stack(found)]


def test_score_rule() -> None:
    for delta in (-20.0, 20.0):
        assert score(
            {"ciede2000": 10.0, "delta_colorfulness": delta, "spread_a": 1.0}
        ) == pytest.approx(12.0)
    missing = {"ciede2000": 10.0, "delta_colorfulness": 0.0, "spread_a": 0.5}
    assert score(missing) == score(missing | {"spread_a": 1.5}) == pytest.approx(11.0)
    # ten points
    assert score(missing) == score({"ciede2000": 10.0, "delta_colorfulness": 10.0, "spread_a": 1.0})
    assert "CIEDE2000 + 0.1" in validation.RULE and "2 |1 - spread of a*|" in validation.RULE


def test_reds_and_greens_beat_blue_and_yellow_alone(rgb: Tensor) -> None:
    """Of two painters as far from the truth, the rule prefers the one that paints along a* too."""
    held, measured = held_out(rgb), []
    for channel in (0, 1):
        oracle = Oracle(rgb)
        oracle.ab = oracle.ab.clone()
        oracle.ab[:, channel] = 0
        measured.append(held.measure(oracle))  # type: ignore[arg-type]
    blind, other = measured
    assert (
        blind["spread_a"] < 0.2 < 0.8 < blind["spread_b"]
        and other["spread_b"] < 0.2 < 0.8 < other["spread_a"]
    )
    same = {"ciede2000": 10.0, "delta_colorfulness": 0.0}
    assert score(blind | same) > score(other | same) + 1.2


def test_score_prefers_truth_to_gray_and_to_gaudy(rgb: Tensor) -> None:
    held = held_out(rgb)
    truth = score(held.measure(Oracle(rgb)))  # type: ignore[arg-type]
    gaudy = score(held.measure(Painter(value=0.9)))  # type: ignore[arg-type]
    assert truth < 1.0 < score(held.gray()) < gaudy


def test_gray_is_the_measure_of_the_gray_picture(rgb: Tensor) -> None:
    truth = rgb.float() / 255
    measured = metrics.measure(metrics.gray_picture(truth), truth)
    expected = {
        key: float(values.double().mean())
        for key, values in measured.items()
        if key in metrics.KEYS
    }
    expected |= {"spread_a": 0, "spread_b": 0}
    gray = held_out(rgb).gray()
    assert tuple(gray) == metrics.KEYS
    assert gray == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert gray["colorfulness"] == pytest.approx(0, abs=0.1) and gray["colorfulness_truth"] > 20


def test_a_generator_of_no_colour_measures_as_gray(rgb: Tensor) -> None:
    held = held_out(rgb)
    assert held.measure(Painter()) == pytest.approx(held.gray(), rel=1e-2, abs=0.05)  # type: ignore[arg-type]


def test_the_truth_measures_as_nothing_wrong(rgb: Tensor) -> None:
    values = held_out(rgb).measure(Oracle(rgb))  # type: ignore[arg-type]
    assert (
        values["ciede2000"] < 0.3
        and values["mae_ab"] < 0.3
        and values["mae_rgb"] < 0.5
        and values["psnr"] > 45
    )
    assert values["delta_colorfulness"] == pytest.approx(0, abs=0.5)


def test_parts_do_not_change_the_mean(rgb: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = held_out(rgb).measure(Painter(value=0.2))  # type: ignore[arg-type]
    monkeypatch.setattr(validation, "PIXELS_AT_ONCE", 3 * SIZE * SIZE)  # 3 + 3 + 3 + 1 pictures
    painter = Painter(value=0.2)
    assert held_out(rgb).measure(painter) == pytest.approx(whole, rel=1e-5)  # type: ignore[arg-type]
    assert [len(seen) for seen in painter.seen] == [3, 3, 3, 1]


@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_in_eval_meanwhile_and_its_mode_restored(
    rgb: Tensor, training: bool
) -> None:
    painter = Painter().train(training)
    held_out(rgb).measure(painter)  # type: ignore[arg-type]
    assert painter.modes == [False] and painter.training is training


def test_the_generator_sees_gray(rgb: Tensor) -> None:
    painter = Painter()
    held_out(rgb).measure(painter)  # type: ignore[arg-type]
    assert torch.equal(painter.seen[0], color.gray(color.split(rgb)[0]))


def test_edges_predict_lightness_too(rgb: Tensor) -> None:
    edges = torch.stack(
        [
            torch.from_numpy(arrays.edges(composition.paint(1, index, SIZE)))[None]
            for index in range(10)
        ]
    )
    painter = Painter(channels=3)  # mid gray everywhere
    held = held_out(rgb, edges)
    values = held.measure(painter)  # type: ignore[arg-type]
    assert set(painter.seen[0].unique().tolist()) == {0.0, 1.0}
    middle = color.gray(torch.zeros(10, 1, SIZE, SIZE)).repeat(1, 3, 1, 1)
    expected = float((middle - rgb.float() / 255).abs().mean()) * 255
    assert values["mae_rgb"] == pytest.approx(expected, rel=1e-3)
    cells = cells_of(held.grid(painter), len(rgb))  # type: ignore[arg-type]
    assert set(np.unique(cells[0][0])) == {0, 255}  # the first column shows the edges


def cells_of(grid: Any, count: int) -> list[list[Any]]:
    """The pictures in a grid, found by the layout of one whose cells are white."""
    rows = min(count, 8)
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    titles = ["gray", "predicted", "original"]
    marked = []
    for row in range(rows):
        line = []
        for column in range(3):
            shown = [[blank] * 3 for _ in range(rows)]
            shown[row][column] = blank + 255
            difference = arrays.sheet(shown, titles) != arrays.sheet([[blank] * 3] * rows, titles)
            ys, xs = np.where(difference.any(-1))
            line.append(grid[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
        marked.append(line)
    assert grid.shape == arrays.sheet([[blank] * 3] * rows, titles).shape
    return marked


@pytest.mark.parametrize("count", [1, 3, 10])
def test_grid_is_gray_predicted_original_of_at_most_eight(rgb: Tensor, count: int) -> None:
    some = rgb[:count]
    grid = held_out(some).grid(Painter(value=0.3))  # type: ignore[arg-type]
    assert (
        grid.dtype == np.uint8
        and grid.shape[1] >= 3 * SIZE
        and grid.shape[0] >= min(count, 8) * SIZE
    )
    cells = cells_of(grid, count)
    truth = some.permute(0, 2, 3, 1).numpy()
    lightness, _ = color.split(some)
    painted = color.merge_in_gamut(lightness, torch.full((count, 2, SIZE, SIZE), 0.3))
    gray = color.gray(lightness).expand(-1, 3, -1, -1)
    for place in range(min(count, 8)):
        row = place * count // min(count, 8)  # spread over all
        shown = [cell.astype(int) for cell in cells[place]]
        assert all(cell.shape == (SIZE, SIZE, 3) for cell in shown)
        assert np.array_equal(shown[2], truth[row])
        for cell, expected in ((shown[0], gray), (shown[1], painted)):
            assert np.abs(cell - expected[row].permute(1, 2, 0).numpy() * 255).max() <= 1


# --- where the discriminator tells the prediction ---


@pytest.fixture(scope="module")
def patches(rgb: Tensor) -> PatchDiscriminator:
    discriminator = PatchDiscriminator(load_backbone("none"), size=SIZE)
    lightness, ab = color.split(rgb)
    discriminator.measure(Seen(color.merge(lightness, ab), torch.cat([lightness, ab], 1)))
    return discriminator


def test_patches_show_where_they_tell_the_prediction(
    rgb: Tensor, patches: PatchDiscriminator
) -> None:
    patches.train()
    before = {k: v.clone() for k, v in patches.head.state_dict().items()}
    held, painter = held_out(rgb), Painter(value=0.3)
    plain = held.grid(painter)  # type: ignore[arg-type]
    for bias, expected in {
        6.0: (0, 51, 255),
        -6.0: (255, 51, 0),
    }.items():  # it takes all for real; for fake
        with torch.no_grad():
            for head in patches.head.maps:
                head[-1].bias.fill_(bias)
        grid = held.grid(painter, patches)  # type: ignore[arg-type]
        assert grid.shape[0] == plain.shape[0] and grid.shape[1] >= plain.shape[1] + SIZE
        told = (np.abs(grid.astype(int) - expected) < (30, 2, 30)).all(-1)
        assert told.sum() == 8 * SIZE * SIZE and not told[:, : plain.shape[1]].all(0).any()
    assert patches.training  # its mode is restored
    after = patches.head.state_dict()
    # looking changes nothing
    assert all(torch.equal(after[k], v) for k, v in before.items() if "bias" not in k)


def test_units_judge_whole_pictures_and_show_no_places(rgb: Tensor) -> None:
    units = Discriminator(load_backbone("none"), size=SIZE, units=(8,))
    held = held_out(rgb)
    assert np.array_equal(held.grid(Painter(), units), held.grid(Painter()))  # type: ignore[arg-type]
