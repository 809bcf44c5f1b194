from __future__ import annotations

import itertools

import numpy as np
import pytest
import skimage.color
import torch
from colors import lab_to_rgb
from torch import Tensor

from gancolor import color
from gancolor.images import srgb

CORNERS = list(itertools.product((0, 255), repeat=3))


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    """Random colours, all corners of the cube, dark colours around the knee: (2, 3, 32, 32) uint8."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pictures[0, 0, :8] = CORNERS
    pictures[0, 1, :] = np.arange(32)[:, None]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def wild() -> tuple[Tensor, Tensor]:
    """Lightness and ab all over their ranges, most of it outside sRGB, with black and white: (2, .,
    32, 32).
    """
    random = torch.Generator().manual_seed(0)
    lightness = torch.rand(2, 1, 32, 32, generator=random) * 2 - 1
    lightness[0, 0, 0, :4] = torch.tensor([-1.0, 1.0, -0.999, 0.999])
    return lightness, torch.rand(2, 2, 32, 32, generator=random) * 2 - 1


def channels_last(x: Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def test_lab_agrees_with_scikit_image(rgb: Tensor) -> None:
    expected = skimage.color.rgb2lab(channels_last(rgb))
    assert np.abs(channels_last(color.rgb_to_lab(rgb.float() / 255)) - expected).max() < 1e-3
    assert np.abs(channels_last(color.rgb_to_lab(rgb)) - expected).max() < 1e-3
    for picture, wanted in zip(channels_last(rgb), expected, strict=True):
        assert np.abs(srgb.lab(picture) - wanted).max() < 1e-3


def test_rgb_agrees_with_scikit_image(rgb: Tensor) -> None:
    lab = skimage.color.rgb2lab(channels_last(rgb).astype(np.float64) / 255)
    expected = skimage.color.lab2rgb(lab)
    got = channels_last(lab_to_rgb(torch.from_numpy(lab).float().permute(0, 3, 1, 2)))
    assert np.abs(got - expected).max() < 1e-4
    # Lab is steep near black, and got is float32
    assert np.abs(skimage.color.rgb2lab(got) - lab).max() < 1e-2


def test_round_trip_in_both_directions(rgb: Tensor) -> None:
    lightness, ab = color.split(rgb)
    assert (color.merge(lightness, ab) * 255 - rgb).abs().max() < 0.01
    assert torch.equal((color.merge_in_gamut(lightness, ab) * 255).round().to(torch.uint8), rgb)
    lab = color.rgb_to_lab(rgb)
    assert (color.rgb_to_lab(lab_to_rgb(lab)) - lab).abs().max() < 5e-3


def test_lab_of_any_colour_survives_without_clip(wild: tuple[Tensor, Tensor]) -> None:
    lightness, ab = (x.double() for x in wild)
    lightness2, ab2 = color.split(color.merge(lightness, ab, clip=False))
    assert (lightness2 - lightness).abs().max() < 1e-6
    assert (ab2 - ab).abs().max() < 1e-5


def test_split_scales_lab(rgb: Tensor) -> None:
    lab = color.rgb_to_lab(rgb)
    lightness, ab = color.split(rgb)
    assert lightness.shape == (2, 1, 32, 32) and ab.shape == (2, 2, 32, 32)
    assert torch.allclose(lightness, lab[:, :1] / 50 - 1, atol=1e-6)
    assert torch.allclose(ab, lab[:, 1:] / 110, atol=1e-6)
    assert -1 <= lightness.min() and lightness.max() <= 1 + 1e-6 and ab.abs().max() <= 1


def test_table_agrees_with_the_curve(rgb: Tensor) -> None:
    for from_table, from_curve in zip(
        color.split(rgb), color.split(rgb.float() / 255), strict=True
    ):
        assert (from_table - from_curve).abs().max() * 110 < 1e-4


def test_table_made_in_inference_mode_serves_training(rgb: Tensor) -> None:
    color._linear_table.cache_clear()
    with torch.inference_mode():
        color.split(rgb)
    lightness, ab = color.split(rgb)
    ab.requires_grad_()
    color.merge(lightness, ab).sum().backward()
    assert ab.grad is not None and ab.grad.isfinite().all()


@pytest.mark.parametrize("clip", [True, False])
def test_gradients_are_finite_for_every_colour(wild: tuple[Tensor, Tensor], clip: bool) -> None:
    lightness, ab = (x.clone().requires_grad_() for x in wild)
    color.merge(lightness, ab, clip=clip).sum().backward()
    assert lightness.grad is not None and lightness.grad.isfinite().all()
    assert ab.grad is not None and ab.grad.isfinite().all()

    levels = (-0.5, 0.0, 0.04045, 0.5, 1.0, 1.5)
    rgb = (
        torch.tensor(list(itertools.product(levels, repeat=3)))
        .reshape(-1, 3, 1, 1)
        .requires_grad_()
    )
    for part in color.split(rgb):
        (gradient,) = torch.autograd.grad(part.sum(), rgb, retain_graph=True)
        assert gradient.isfinite().all()


def test_gradient_lives_outside_the_gamut_without_clip() -> None:
    lightness, ab = torch.zeros(1, 1, 1, 1), torch.full((1, 2, 1, 1), 0.95)
    for clip, alive in ((True, 0), (False, 3)):  # red above 1, green and blue below 0
        ab.requires_grad_()
        rows = [
            torch.autograd.grad(color.merge(lightness, ab, clip=clip)[0, i].sum(), ab)[0]
            for i in range(3)
        ]
        assert sum(bool(row.abs().sum() > 0.01) for row in rows) == alive


def test_gradients_agree_with_differences() -> None:
    random = torch.Generator().manual_seed(1)
    rgb = torch.rand(1, 3, 3, 3, generator=random, dtype=torch.float64) * 1.4 - 0.2
    lab = torch.rand(1, 3, 3, 3, generator=random, dtype=torch.float64) * 200 - 100
    assert torch.autograd.gradcheck(color.rgb_to_lab, rgb.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: lab_to_rgb(x, clip=False), lab.requires_grad_())


def test_gamut_reduction_keeps_lightness_and_hue(wild: tuple[Tensor, Tensor]) -> None:
    lightness, ab = wild
    reduced = color.reduce_to_gamut(lightness, ab)
    rgb = color.merge_in_gamut(lightness, ab)
    assert rgb.min() >= 0 and rgb.max() <= 1
    lightness2, ab2 = color.split(rgb)
    assert (lightness2 - lightness).abs().max() * 50 < 0.05
    assert (ab2 - reduced).abs().max() * 110 < 0.05
    cross = ab[:, 0] * reduced[:, 1] - ab[:, 1] * reduced[:, 0]
    assert cross.abs().max() < 1e-6
    assert ((ab * reduced).sum(1) >= 0).all()


def test_gamut_reduction_goes_no_further_than_needed(wild: tuple[Tensor, Tensor]) -> None:
    lightness, ab = wild
    reduced = color.reduce_to_gamut(lightness, ab)
    moved = (reduced != ab).any(1, keepdim=True)
    assert 0.5 < moved.float().mean() < 1
    assert (reduced.norm(dim=1) <= ab.norm(dim=1)).all()
    beyond = color.merge(lightness, reduced + 2e-3 * ab, clip=False)
    outside = ((beyond < 0) | (beyond > 1)).any(1, keepdim=True)
    assert outside[moved].all()


def test_colours_inside_come_back_bit_for_bit(rgb: Tensor) -> None:
    lightness, ab = color.split(rgb)
    assert torch.equal(color.reduce_to_gamut(lightness, ab), ab)
    # also beside one that has to move
    lightness, ab = (
        torch.cat((lightness, torch.zeros_like(lightness))),
        torch.cat((ab, torch.ones_like(ab))),
    )
    reduced = color.reduce_to_gamut(lightness, ab)
    assert torch.equal(reduced[:2], ab[:2]) and not torch.equal(reduced[2:], ab[2:])


def test_gradient_passes_the_gamut_reduction(wild: tuple[Tensor, Tensor]) -> None:
    ab = wild[1].clone().requires_grad_()
    color.reduce_to_gamut(wild[0], ab).sum().backward()
    assert ab.grad is not None and ab.grad.isfinite().all()
    assert ab.grad.min() >= 0 and ab.grad.max() == 1


def test_gray_has_the_lightness(wild: tuple[Tensor, Tensor]) -> None:
    lightness = wild[0]
    gray = color.gray(lightness)
    assert gray.shape == lightness.shape and gray.min() >= 0 and gray.max() <= 1
    lightness2, ab = color.split(gray.repeat(1, 3, 1, 1))
    assert (lightness2 - lightness).abs().max() * 50 < 1e-3
    assert ab.abs().max() * 110 < 0.01
    assert color.gray(torch.tensor([[[[-3.0, 3.0]]]])).flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "lightness", "ab"),  # of L* = 0, 50, 100 and a* = -110, 0, 127
    [
        ("ab110", (-1, 0, 1), (-1, 0, 127 / 110)),
        ("ab127", (-1, 0, 1), (-110 / 127, 0, 1)),
        ("unit", (0, 0.5, 1), (18 / 255, 128 / 255, 1)),
    ],
)
def test_scales_by_hand(name: str, lightness: tuple[float, ...], ab: tuple[float, ...]) -> None:
    scale = color.SCALES[name]
    given = torch.tensor([-110.0, 0.0, 127.0]) / 110
    torch.testing.assert_close(
        scale.lightness(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor(lightness).float()
    )
    torch.testing.assert_close(scale.encode(given), torch.tensor(ab).float())
    torch.testing.assert_close(scale.decode(scale.encode(given)), given)
    assert scale.signed == (name != "unit")


def test_half_precision_and_autocast_change_nothing(rgb: Tensor) -> None:
    lightness, ab = color.split(rgb)
    expected = color.merge(lightness, ab)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(color.merge(lightness=lightness, ab=ab), expected)
        assert torch.equal(color.split(rgb)[1], ab)
    coarse = ab.bfloat16()
    assert color.merge(lightness, coarse).dtype == torch.float32
    assert torch.equal(color.merge(lightness, coarse), color.merge(lightness, coarse.float()))
