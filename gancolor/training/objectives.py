"""What training minimizes: the losses, and the objectives as lists of phases that one loop runs.

The losses are pure functions on tensors that give a float32 scalar whatever comes in. The
adversarial objective is the poster's: the discriminator maximizes log D(x) + log(1 - D(G(z))), the
generator minimizes -log D(G(z)) + λ‖G(z) - y‖₁. The regression objective is the second term alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus
from torch.optim import Adam, Optimizer

from gancolor import color, metrics, models
from gancolor.config import TrainConfig
from gancolor.models import (
    Discriminator,
    FusionNetwork,
    Generator,
    Output,
    PatchDiscriminator,
    Seen,
    bins,
)
from gancolor.runtime.devices import can_fuse

R1_EVERY = 16
"""Steps from one R1 penalty to the next; each counts that much more ("lazy regularization", Karras
et al., 2020).
"""


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0, kind: str = "non-saturating"
) -> tuple[Tensor, Tensor]:
    """Return (real term, fake term) of the discriminator from logits of the same shape; scalars
    out.

    "non-saturating": the poster's L_D = -E[log D(y)] - E[log(1 - D(G(x)))] with D = sigmoid(logit),
    chance is ln 2 each. `smoothing` in [0, 1) lowers the target of real pictures to 1 - smoothing;
    that of fakes stays 0 (one-sided). "hinge": max(0, 1 - real) and max(0, 1 + fake).
    "relativistic" (Jolicoeur-Martineau 2018, as R3GAN pairs it): how much more real a true picture
    looks than its own colouring, half of softplus(fake - real) in each term.
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


def generator_loss(
    fake_logits: Tensor, real_logits: Tensor | None = None, kind: str = "non-saturating"
) -> Tensor:
    """Return the generator's loss, a scalar: the non-saturating -E[log D(G(x))] (chance is ln 2),
    or `kind`'s.

    "hinge": -E[fake]; "relativistic", which needs the real pictures' logits: E[softplus(real -
    fake)].
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
    metrics.check_shapes(predicted, truth)
    return (predicted.float() - truth.float()).abs().mean()


def mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared difference, a scalar; ValueError unless the shapes agree.

    Of a*b* it is koalarization's 1 / (2 H W) sum (X - X')^2, averaged over the batch.
    """
    metrics.check_shapes(predicted, truth)
    return (predicted.float() - truth.float()).square().mean()


@dataclass
class DeviceBatch:
    """A batch on the device: the true pictures, and what the generator sees of them."""

    lightness: Tensor  # (B, 1, H, W), the truth's
    ab: Tensor  # (B, 2, H, W), the truth's
    condition: Tensor  # (B, 1, H, W), what `models.see` makes of the lightness, or edges in [0, 1]
    embedding: Tensor | None = None  # (B, width), for a fusion network
    hints: Tensor | None = None  # (B, 3, H, W): ab and mask

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        rgb: Tensor,
        edges: Tensor | None = None,
        embedding: Tensor | None = None,
        squares: Tensor | None = None,
        aged: Tensor | None = None,
        is_aged: Tensor | None = None,
    ) -> DeviceBatch:
        """From uint8 `rgb` (B, 3, H, W), for the edge condition uint8 `edges` (B, 1, H, W) of 0 and
        255, the places of hints, uint8 `squares` (B, 1, H, W) (`data.example.draw_squares`), and
        what the generator sees instead of some pictures' own gray, uint8 `aged` (B, 1, H, W) where
        `is_aged` (B,).
        """
        lightness, ab = color.split(rgb)
        condition = models.see(config, lightness) if edges is None else edges.float() / 255
        if aged is not None and is_aged is not None:
            condition = torch.where(is_aged[:, None, None, None], aged.float() / 255, condition)
        hints = None if squares is None else _reveal(ab, squares)
        return cls(
            lightness, ab, condition.contiguous(memory_format=torch.channels_last), embedding, hints
        )

    @property
    def seen(self) -> tuple[Tensor, ...]:
        """The arguments of a fusion network."""
        return (self.condition,) if self.embedding is None else (self.condition, self.embedding)


def _reveal(ab: Tensor, squares: Tensor) -> Tensor:
    """The hint map (B, 3, H, W) of a batch: each numbered square has the mean of the true colours
    below it.
    """
    count = len(ab)
    number = squares.flatten(1).long()  # (B, H * W), 0 where there is none
    number = number + 256 * torch.arange(count, device=ab.device)[:, None]
    flat = number.flatten()  # (B * H * W,), in 256 numbers of each picture
    # (B * H * W, 3): ab, and 1 to count the pixels
    values = torch.cat([ab, torch.ones_like(ab[:, :1])], 1).permute(0, 2, 3, 1).reshape(-1, 3)
    sums = torch.zeros(256 * count, 3, device=ab.device).index_add_(0, flat, values)
    means = (sums / sums[:, 2:].clamp_min(1)).view(count, 256, 3)
    means[:, 0] = 0  # (B, 256, 3); number 0 is no hint: neither colour nor mask
    height, width = ab.shape[2:]
    hints = means.view(-1, 3)[flat].view(count, height, width, 3).permute(0, 3, 1, 2)
    return hints.contiguous(memory_format=torch.channels_last)


@dataclass
class Context:
    """What the phases of one step share; each property is computed once, when first asked for."""

    config: TrainConfig
    step: int
    progress: float  # share of the run that is over
    pictures: DeviceBatch
    generator: Generator | FusionNetwork
    discriminator: Discriminator | PatchDiscriminator | None
    class_weights: Tensor | None  # of the bins
    drawn: Tensor  # random numbers of each picture, (B, 4) in [0, 1), on the CPU
    autocast: Callable[[], contextlib.AbstractContextManager[object]]
    generator_trains: bool  # whether the generator's graph is needed
    # Detached scalars for the log and the health check.
    statistics: dict[str, Tensor] = field(default_factory=dict)
    # Detached scalars, by what they are of, without which no optimizer may go on: losses, norms.
    checked: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def output(self) -> Output:
        """All that the generator says."""
        with torch.set_grad_enabled(self.generator_trains), self.autocast():
            if isinstance(self.generator, Generator):
                return self.generator.say(self.pictures.condition, self.pictures.hints)
            return Output(self.generator(*self.pictures.seen))

    @cached_property
    def prediction(self) -> tuple[Tensor, Tensor]:
        """Lightness (the truth's unless it is predicted) and ab of the generator."""
        colors = self.output.colors.float()
        if self.config.condition == "edges":
            return colors[:, :1], colors[:, 1:]
        return self.pictures.lightness, colors

    @cached_property
    def fake_rgb(self) -> Tensor:
        """Not clipped, so that colours out of gamut keep a gradient."""
        return color.merge(*self.prediction, clip=False)

    @cached_property
    def real_rgb(self) -> Tensor:
        """Through the same Lab -> RGB path as the fake, so that the path is no cue."""
        with torch.no_grad():
            return color.merge(self.pictures.lightness, self.pictures.ab, clip=False)

    @cached_property
    def pairs(self) -> tuple[Seen, Seen]:
        """Real and fake as the discriminator gets them: distorted alike, with noise where that is
        asked for.
        """
        real = Seen(self.real_rgb, torch.cat([self.pictures.lightness, self.pictures.ab], 1))
        fake = Seen(self.fake_rgb, torch.cat(self.prediction, 1))
        if isinstance(self.discriminator, PatchDiscriminator):
            real, fake = self.discriminator.distort(real, fake, self.drawn)
        noise = instance_noise(self.config, self.progress)
        if noise > 0:
            real, fake = (
                Seen(*(x + noise * torch.randn_like(x) for x in seen)) for seen in (real, fake)
            )
        return real, fake

    @cached_property
    def fake_features(self) -> list[Tensor]:
        """With the graph back to the picture when the generator trains; the discriminator's phase
        detaches them.
        """
        return self._features(self.pairs[1], self.generator_trains)

    @cached_property
    def real_features(self) -> list[Tensor]:
        return self._features(self.pairs[0], False)

    def judge(self, *, detached: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of logits of the real and of the fake pictures, float32; `detached`: no graph back
        to the generator.
        """
        assert self.discriminator is not None
        fakes = [x.detach() for x in self.fake_features] if detached else self.fake_features
        with self.autocast():
            return self.discriminator.judge(self.real_features, fakes)

    def judge_fake(self) -> list[Tensor]:
        """Maps of logits of the fake pictures alone, for a discriminator that judges each by
        itself.
        """
        assert isinstance(self.discriminator, PatchDiscriminator)
        with self.autocast():
            return self.discriminator.judge_alone(self.fake_features)

    def _features(self, seen: Seen, grad: bool) -> list[Tensor]:
        assert self.discriminator is not None
        with torch.set_grad_enabled(grad), self.autocast():
            return self.discriminator.features(seen)


@dataclass
class Phase:
    """One optimizer update inside a training step, while the run's progress is in [`first`,
    `last`).
    """

    name: str  # prefix of its terms in the log
    optimizer: Optimizer
    losses: Callable[[Context], dict[str, Tensor]]  # named, weighted terms; their sum is minimized
    first: float = 0.0
    last: float | None = None

    def due(self, progress: float) -> bool:
        """Whether the phase runs when this share of the run is over."""
        return self.first <= progress and (self.last is None or progress < self.last)

    def parameters(self) -> list[Tensor]:
        """What its optimizer trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def build(
    config: TrainConfig,
    generator: Generator | FusionNetwork,
    discriminator: Discriminator | PatchDiscriminator | None,
) -> list[Phase]:
    """The phases of the config's objective, with fresh Adam optimizers."""
    if config.objective == "regression" or discriminator is None:
        return regression(config, generator)
    return adversarial(config, generator, discriminator)


def regression(config: TrainConfig, generator: Generator | FusionNetwork) -> list[Phase]:
    """The generator with its distance to the true colours alone."""
    return [Phase("generator", _adam(config, generator, config.lr), _approach)]


def adversarial(
    config: TrainConfig,
    generator: Generator | FusionNetwork,
    discriminator: Discriminator | PatchDiscriminator,
) -> list[Phase]:
    """Generator alone, then discriminator alone (both may be nothing), then both, the
    discriminator's update first.

    The generator's two phases share one optimizer: its moments go on where the warm-up left them.
    """
    alone, joint = config.warmup, config.warmup + config.discriminator_warmup
    optimizer = _adam(config, generator, config.lr)
    judge = _adam(config, discriminator.head, config.discriminator_lr or config.lr)
    return [
        Phase("generator", optimizer, _reconstruct, last=alone),
        Phase("discriminator", judge, _tell_apart, first=alone),
        Phase("generator", optimizer, _deceive, first=joint),
    ]


def adversarial_weight(config: TrainConfig, progress: float) -> float:
    """0 during the warm-ups, then rising linearly to its full value over the share `ramp` of the
    run.
    """
    over = progress - config.warmup - config.discriminator_warmup
    if over < 0:
        return 0.0
    return config.adversarial_weight * (1.0 if config.ramp == 0 else min(1.0, over / config.ramp))


def instance_noise(config: TrainConfig, progress: float) -> float:
    """Standard deviation of the noise, decaying linearly to zero once the discriminator trains."""
    return config.instance_noise * max(
        0.0, 1 - max(0.0, progress - config.warmup) / config.instance_noise_decay
    )


def _approach(context: Context) -> dict[str, Tensor]:
    return {**_reconstruct(context), **_perceive(context)}


def _reconstruct(context: Context) -> dict[str, Tensor]:
    """λ·L1 (or MSE), and the cross-entropy of the head `bins`."""
    lightness, ab = context.prediction
    truth = context.pictures
    _observe(context, lightness, ab)
    config = context.config
    between = mse if config.loss == "mse" else l1
    if config.l1_space == "rgb":
        # Of RGB in [-1, 1]: the offset cancels.
        distance = between(2 * context.fake_rgb, 2 * context.real_rgb)
    elif config.condition == "edges":
        distance = between(torch.cat([lightness, ab], 1), torch.cat([truth.lightness, truth.ab], 1))
    else:
        scale = color.SCALES[config.color_scale]
        distance = between(scale.encode(ab), scale.encode(truth.ab))
    terms = {config.loss: config.l1_weight * distance}
    if context.output.logits is not None and config.bins_weight > 0:
        assert isinstance(context.generator, Generator) and context.class_weights is not None
        at_logits = bins.at_centers(context.generator.pad(truth.ab)[0], context.generator.finest)
        encoded = bins.encode(at_logits.permute(0, 2, 3, 1).flatten(0, 2))
        terms["bins"] = config.bins_weight * bins.cross_entropy(
            context.output.logits, encoded, context.class_weights
        )
    return terms


def _perceive(context: Context) -> dict[str, Tensor]:
    """The distance of real and fake on the taps that the discriminator sees, normalized as they are
    for it.
    """
    if context.config.perceptual_weight == 0:
        return {}
    distances = [
        l1(*pair) for pair in zip(context.fake_features[1:], context.real_features[1:], strict=True)
    ]
    return {"perceptual": context.config.perceptual_weight * torch.stack(distances).mean()}


def _tell_apart(context: Context) -> dict[str, Tensor]:
    config = context.config
    real, fake = context.judge(detached=True)
    _observe_verdicts(context, real, fake)
    terms = [
        torch.stack(discriminator_loss(*pair, config.label_smoothing, config.adversarial_loss))
        for pair in zip(real, fake, strict=True)
    ]
    real_term, fake_term = torch.stack(terms).mean(0).unbind()
    named = {"real": real_term, "fake": fake_term}
    if config.r1 > 0 and context.step % R1_EVERY == 0:
        named["r1"] = config.r1 / 2 * R1_EVERY * _slope(context)
    return named


def _slope(context: Context) -> Tensor:
    """R1 (Mescheder et al., 2018): the squared gradient of the logits with regard to the real
    pictures' features.
    """
    assert isinstance(context.discriminator, PatchDiscriminator)
    features = [x.detach().float().requires_grad_() for x in context.real_features]
    logits = context.discriminator.judge_alone(features)
    total = torch.stack([x.sum(0).mean() for x in logits]).sum()
    gradients = torch.autograd.grad(total, features, create_graph=True)
    return torch.stack([x.square().flatten(1).sum(1).mean() for x in gradients]).sum()


def _deceive(context: Context) -> dict[str, Tensor]:
    assert context.discriminator is not None
    kind = context.config.adversarial_loss
    with _frozen(context.discriminator.head):
        if kind == "relativistic" or not isinstance(context.discriminator, PatchDiscriminator):
            real, fake = context.judge(detached=False)
            terms = [generator_loss(*pair, kind) for pair in zip(fake, real, strict=True)]
        else:
            terms = [generator_loss(x, kind=kind) for x in context.judge_fake()]
    weight = adversarial_weight(context.config, context.progress)
    return {"adversarial": weight * torch.stack(terms).mean(), **_approach(context)}


def _observe(context: Context, lightness: Tensor, ab: Tensor) -> None:
    """`mae`: the poster's, on RGB in [-1, 1]. Of ab, in CIE units: `spread` around the mean colour,
    whose distance from gray is `offset`.
    """
    with torch.no_grad():
        # Computed already where the discriminator sees it.
        painted = context.__dict__.get("fake_rgb")
        if painted is None:
            painted = color.merge(lightness.detach(), ab.detach())
        context.statistics["mae"] = (
            2 * (painted.detach().clamp(0, 1) - context.real_rgb).abs().mean()
        )
        for name, values in (("ab", ab.detach()), ("ab_truth", context.pictures.ab)):
            centre = values.mean((0, 2, 3), keepdim=True)
            context.statistics[f"{name}_spread"] = (
                color.AB_SCALE * (values - centre).square().mean().sqrt()
            )
            context.statistics[f"{name}_offset"] = color.AB_SCALE * centre.norm()


@torch.no_grad()
def _observe_verdicts(context: Context, real: list[Tensor], fake: list[Tensor]) -> None:
    """How sure the discriminator is, over all its maps, and how often each map alone is right."""

    def accuracy(real: Tensor, fake: Tensor) -> Tensor:
        if context.config.adversarial_loss == "relativistic":
            return (real > fake).float().mean()
        return 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())

    rights = [accuracy(*pair) for pair in zip(real, fake, strict=True)]
    context.statistics["d_real"] = torch.stack([x.sigmoid().mean() for x in real]).mean()
    context.statistics["d_fake"] = torch.stack([x.sigmoid().mean() for x in fake]).mean()
    context.statistics["d_accuracy"] = torch.stack(rights).mean()
    if isinstance(context.discriminator, PatchDiscriminator):
        context.statistics |= {
            f"d_accuracy/{name}": right
            for name, right in zip(context.discriminator.names, rights, strict=True)
        }


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through `module` but none is kept for its parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _adam(config: TrainConfig, module: nn.Module, lr: float) -> Adam:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return Adam(
        # From `initial_lr` the loop sets the rate of each step (`loop.follow`).
        [{"params": parameters, "initial_lr": lr}],
        lr=lr,
        betas=(config.beta1, config.beta2),
        fused=can_fuse(parameters[0].device),
    )
