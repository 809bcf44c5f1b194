"""The losses by hand: chance, smoothing, each kind of adversary, L1 and MSE."""

from __future__ import annotations

import math

import pytest
import torch

from gancolor.training import objectives


def test_chance_is_ln_2() -> None:
    zeros = torch.zeros(4)
    real, fake = objectives.discriminator_loss(zeros, zeros)
    assert real.item() == pytest.approx(math.log(2)) and fake.item() == pytest.approx(math.log(2))
    assert objectives.generator_loss(zeros).item() == pytest.approx(math.log(2))


def test_values_by_hand() -> None:
    real, fake = objectives.discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 3.0]))
    assert real.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    assert fake.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2)
    expected = (math.log1p(math.exp(1)) + math.log1p(math.exp(-3))) / 2
    assert objectives.generator_loss(torch.tensor([-1.0, 3.0])).item() == pytest.approx(expected)


def test_smoothing_moves_the_target_of_real_pictures_only() -> None:
    logits = torch.tensor([1.5, -0.5])
    target = torch.full((2,), 0.9)
    real, fake = objectives.discriminator_loss(logits, logits, smoothing=0.1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert real.item() == pytest.approx(expected.item())
    assert fake.item() == objectives.discriminator_loss(logits, logits)[1].item()
    # the best logit is the target's
    best = torch.tensor([math.log(9.0)], requires_grad=True)
    objectives.discriminator_loss(best, best.detach(), smoothing=0.1)[0].backward()
    assert best.grad is not None and abs(best.grad.item()) < 1e-6


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.5])
    real_term, fake_term = objectives.discriminator_loss(real, fake, kind="hinge")
    assert real_term.item() == pytest.approx((0 + 0.5 + 2) / 3)  # sure enough of the first
    assert fake_term.item() == pytest.approx((0 + 1 + 1.5) / 3)
    assert objectives.generator_loss(fake, real, "hinge").item() == pytest.approx(2.5 / 3)


def test_relativistic_by_hand() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])
    expected = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(2.0))) / 2
    terms = objectives.discriminator_loss(real, fake, kind="relativistic")
    assert (
        sum(term.item() for term in terms) == pytest.approx(expected)
        and terms[0].item() == terms[1].item()
    )
    backward = (math.log1p(math.exp(1.5)) + math.log1p(math.exp(-2.0))) / 2
    assert objectives.generator_loss(fake, real, "relativistic").item() == pytest.approx(backward)
    # only the difference counts
    shifted = objectives.discriminator_loss(real + 5, fake + 5, kind="relativistic")
    assert shifted[0].item() == pytest.approx(terms[0].item())
    with pytest.raises(ValueError, match="real_logits must be given"):
        objectives.generator_loss(fake, kind="relativistic")


@pytest.mark.parametrize("kind", ["non-saturating", "hinge", "relativistic"])
def test_each_kind_pulls_real_up_and_fake_down_and_the_generator_back(kind: str) -> None:
    real, fake = (torch.zeros(2, 1, 3, 3, requires_grad=True) for _ in range(2))
    torch.stack(objectives.discriminator_loss(real, fake, kind=kind)).sum().backward()
    assert real.grad is not None and fake.grad is not None
    assert bool((real.grad < 0).all()) and bool((fake.grad > 0).all())
    (back,) = torch.autograd.grad(objectives.generator_loss(fake, real.detach(), kind), fake)
    assert bool((back < 0).all())


def test_generator_still_learns_when_the_discriminator_is_sure() -> None:
    logits = torch.tensor([-100.0], requires_grad=True)
    objectives.generator_loss(logits).backward()
    assert logits.grad is not None and logits.grad.item() == pytest.approx(-1)


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([1e4, -1e4])
    for kind in ("non-saturating", "hinge", "relativistic"):
        terms = (
            *objectives.discriminator_loss(logits, -logits, 0.1, kind),
            objectives.generator_loss(logits, -logits, kind),
        )
        assert all(term.isfinite() for term in terms)


def test_l1_by_hand_and_shapes() -> None:
    assert objectives.l1(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])).item() == 2
    with pytest.raises(ValueError, match=r"shape of predicted \(2, 1\), got \(2,\)"):
        objectives.l1(torch.zeros(2, 1), torch.zeros(2))


def test_mse_by_hand_and_shapes() -> None:
    # koalarization: 1 / (2 H W) of the sum over a* and b*, averaged over the batch
    predicted, truth = torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3)
    predicted[0, 0, 0, 0], truth[1, 1, 0, 2] = 3.0, 1.0
    assert objectives.mse(predicted, truth).item() == pytest.approx(
        (9 / (2 * 1 * 3) + 1 / (2 * 1 * 3)) / 2
    )
    with pytest.raises(ValueError, match=r"shape of predicted \(2, 1\), got \(2,\)"):
        objectives.mse(torch.zeros(2, 1), torch.zeros(2))


def test_half_precision_comes_out_as_float32() -> None:
    half = torch.full((8,), 0.3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = [
            *objectives.discriminator_loss(half, half),
            objectives.generator_loss(half),
            objectives.l1(half, half * 2),
        ]
        for kind in ("hinge", "relativistic"):
            terms += [
                *objectives.discriminator_loss(half, half, kind=kind),
                objectives.generator_loss(half, half, kind),
            ]
    assert [term.dtype for term in terms] == [torch.float32] * 10
    assert terms[0].item() == objectives.discriminator_loss(half.float(), half.float())[0].item()
