"""The terms that training minimizes: pure functions on tensors, in float32 whatever comes in."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu, softplus


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0, kind: str = "non-saturating"
) -> tuple[Tensor, Tensor]:
    """Return (real term, fake term) of the discriminator from logits of the same shape; scalars out.

    "non-saturating": the poster's L_D = -E[log D(y)] - E[log(1 - D(G(x)))] with D = sigmoid(logit), chance is ln 2
    each. `smoothing` in [0, 1) lowers the target of real pictures to 1 - smoothing; that of fakes stays 0 (one-sided).
    "hinge": max(0, 1 - real) and max(0, 1 + fake). "relativistic" (Jolicoeur-Martineau 2018, as R3GAN pairs it): how
    much more real a true picture looks than its own colouring, half of softplus(fake - real) in each term.
    """
    real, fake = real_logits.float(), fake_logits.float()
    if kind == "hinge":
        return relu(1 - real).mean(), relu(1 + fake).mean()
    if kind == "relativistic":
        half = 0.5 * softplus(fake - real).mean()
        return half, half
    # (1 - s) softplus(-x) + s softplus(x), and softplus(x) = x + softplus(-x)
    real_term = softplus(-real).mean() + smoothing * real.mean()
    return real_term, softplus(fake).mean()


def generator_loss(fake_logits: Tensor, real_logits: Tensor | None = None, kind: str = "non-saturating") -> Tensor:
    """Return the generator's loss, a scalar: the non-saturating -E[log D(G(x))] (chance is ln 2), or `kind`'s.

    "hinge": -E[fake]; "relativistic", which needs the real pictures' logits: E[softplus(real - fake)].
    """
    fake = fake_logits.float()
    if kind == "hinge":
        return -fake.mean()
    if kind == "relativistic":
        if real_logits is None:
            raise ValueError("real_logits must be given for the relativistic loss, got None")
        return softplus(real_logits.float() - fake).mean()
    return softplus(-fake).mean()


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
