"""The terms that training minimizes: pure functions on tensors, in float32 whatever comes in."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return (real term, fake term) of the discriminator: cross-entropy from logits; chance is ln 2 each.

    The poster's L_D = -E[log D(y)] - E[log(1 - D(G(x)))] with D = sigmoid(logit). `smoothing` in [0, 1) lowers the
    target of real pictures to 1 - smoothing; that of fakes stays 0 (one-sided). Logits of any shape; scalars out.
    """
    real, fake = real_logits.float(), fake_logits.float()
    # (1 - s) softplus(-x) + s softplus(x), and softplus(x) = x + softplus(-x)
    real_term = softplus(-real).mean() + smoothing * real.mean()
    return real_term, softplus(fake).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the non-saturating generator loss -E[log D(G(x))], a scalar; chance is ln 2."""
    return softplus(-fake_logits.float()).mean()


def l1(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference, a scalar; ValueError unless the shapes agree."""
    if predicted.shape != truth.shape:
        raise ValueError(f"truth must have the shape of predicted {tuple(predicted.shape)}, got {tuple(truth.shape)}")
    return (predicted.float() - truth.float()).abs().mean()


def mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared difference, a scalar; ValueError unless the shapes agree.

    Of a*b* it is koalarization's 1 / (2 H W) sum (X - X')^2, averaged over the batch.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"truth must have the shape of predicted {tuple(predicted.shape)}, got {tuple(truth.shape)}")
    return (predicted.float() - truth.float()).square().mean()
