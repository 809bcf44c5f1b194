"""What is optimized: the adversarial and the regression objective as lists of phases that one engine runs.

poster: the discriminator maximizes log D(x) + log(1 - D(G(z))), the generator minimizes -log D(G(z)) + λ‖G(z) - y‖₁.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from gancolor import color, losses, models
from gancolor.config import TrainConfig
from gancolor.models import Discriminator, FusionNetwork, Generator


@dataclass
class Pictures:
    """A batch on the device: the truth as `lightness` and `ab`, and what the generator sees: `condition` (B, 1, H, W)
    (`models.see`, or edges in [0, 1]) and, for a fusion network, an `embedding` (B, width).
    """

    lightness: Tensor
    ab: Tensor
    condition: Tensor
    embedding: Tensor | None = None

    @classmethod
    def of(
        cls, config: TrainConfig, rgb: Tensor, edges: Tensor | None = None, embedding: Tensor | None = None
    ) -> Pictures:
        """From uint8 `rgb` (B, 3, H, W) and, for the edge condition, uint8 `edges` (B, 1, H, W) of 0 and 255."""
        lightness, ab = color.split(rgb)
        condition = models.see(config, lightness) if edges is None else edges.float() / 255
        return cls(lightness, ab, condition.contiguous(memory_format=torch.channels_last), embedding)

    @property
    def seen(self) -> tuple[Tensor, ...]:
        """The generator's arguments."""
        return (self.condition,) if self.embedding is None else (self.condition, self.embedding)


@dataclass
class Context:
    """What the phases of one step share; each property is computed once, when first asked for."""

    config: TrainConfig
    step: int
    pictures: Pictures
    generator: Generator | FusionNetwork
    discriminator: Discriminator | None
    autocast: Callable[[], contextlib.AbstractContextManager[object]]
    generator_trains: bool  # whether the generator's graph is needed
    statistics: dict[str, Tensor] = field(default_factory=dict)  # detached scalars for the log and the health check

    @cached_property
    def prediction(self) -> tuple[Tensor, Tensor]:
        """Lightness (the truth's unless it is predicted) and ab of the generator."""
        with torch.set_grad_enabled(self.generator_trains), self.autocast():
            output = self.generator(*self.pictures.seen)
        output = output.float()
        if self.config.condition == "edges":
            return output[:, :1], output[:, 1:]
        return self.pictures.lightness, output

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
    def fake_features(self) -> Tensor:
        """With the graph back to the picture when the generator trains; the discriminator's phase detaches them."""
        return self._features(self.fake_rgb, self.generator_trains)

    @cached_property
    def real_features(self) -> Tensor:
        return self._features(self.real_rgb, False)

    def judge(self, *, detached: bool) -> tuple[Tensor, Tensor]:
        """Logits (B,) of the real and of the fake pictures, float32.

        `detached`: without the graph back to the generator. One batch holds both: normalized apart, their means would
        be equal after every unit's BatchNorm whatever the pictures are, and the discriminator could not learn
        (docs/architecture.md).
        """
        assert self.discriminator is not None
        fakes = self.fake_features.detach() if detached else self.fake_features
        with self.autocast():
            logits = self.discriminator.judge(torch.cat([self.real_features, fakes])).float()
        real, fake = logits.chunk(2)
        return real, fake

    def _features(self, rgb: Tensor, grad: bool) -> Tensor:
        assert self.discriminator is not None
        noise = instance_noise(self.config, self.step)
        if noise > 0:
            rgb = rgb + noise * torch.randn_like(rgb)
        with torch.set_grad_enabled(grad), self.autocast():
            return self.discriminator.features(rgb)


@dataclass
class Phase:
    """One optimizer update inside a training step, in the steps `first` <= step < `last`."""

    name: str  # prefix of its terms in the log
    optimizer: Optimizer
    losses: Callable[[Context], dict[str, Tensor]]  # named, weighted terms; their sum is minimized
    every: int = 1
    first: int = 0
    last: int | None = None

    def due(self, step: int) -> bool:
        """Whether the phase runs in this step."""
        return self.first <= step and (self.last is None or step < self.last) and step % self.every == 0

    def parameters(self) -> list[Tensor]:
        """What its optimizer trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def adversarial_weight(config: TrainConfig, step: int) -> float:
    """0 during the warm-ups, then rising linearly to its full value over `ramp_steps`."""
    begin = config.warmup_steps + config.discriminator_warmup_steps
    if step < begin:
        return 0.0
    return config.adversarial_weight * min(1.0, (step - begin + 1) / max(1, config.ramp_steps))


def instance_noise(config: TrainConfig, step: int) -> float:
    """Standard deviation of the noise at this step, decaying linearly to zero once the discriminator trains."""
    return config.instance_noise * max(0.0, 1 - max(0, step - config.warmup_steps) / config.instance_noise_steps)


def build(
    config: TrainConfig, generator: Generator | FusionNetwork, discriminator: Discriminator | None
) -> list[Phase]:
    """The phases of the config's objective, with fresh Adam optimizers."""
    if config.objective == "regression" or discriminator is None:
        return regression(config, generator)
    return adversarial(config, generator, discriminator)


def regression(config: TrainConfig, generator: Generator | FusionNetwork) -> list[Phase]:
    """The generator with λ·L1, or λ·MSE, alone."""
    return [Phase("generator", _adam(config, generator, config.lr), _reconstruction)]


def adversarial(config: TrainConfig, generator: Generator | FusionNetwork, discriminator: Discriminator) -> list[Phase]:
    """Generator alone, then discriminator alone (both may be 0 steps), then both, the discriminator's update first.

    The generator's two phases share one optimizer: its moments go on where the warm-up left them.
    """
    alone, joint = config.warmup_steps, config.warmup_steps + config.discriminator_warmup_steps
    optimizer = _adam(config, generator, config.lr)
    judge = _adam(config, discriminator.head, config.discriminator_lr or config.lr)
    return [
        Phase("generator", optimizer, _reconstruction, last=alone),
        Phase("discriminator", judge, _tell_apart, first=alone),
        Phase("generator", optimizer, _deceive, first=joint),
    ]


def _reconstruction(context: Context) -> dict[str, Tensor]:
    lightness, ab = context.prediction
    truth = context.pictures
    _observe(context, lightness, ab)
    config = context.config
    between = losses.mse if config.loss == "mse" else losses.l1
    if config.l1_space == "rgb":
        distance = between(2 * context.fake_rgb, 2 * context.real_rgb)  # RGB in [-1, 1]: the offset cancels
    elif config.condition == "edges":
        distance = between(torch.cat([lightness, ab], 1), torch.cat([truth.lightness, truth.ab], 1))
    else:
        scale = color.SCALES[config.color_scale]
        distance = between(scale.encode(ab), scale.encode(truth.ab))
    return {config.loss: config.l1_weight * distance}


def _tell_apart(context: Context) -> dict[str, Tensor]:
    real, fake = context.judge(detached=True)
    with torch.no_grad():
        statistics = {
            "d_real": real.sigmoid().mean(),
            "d_fake": fake.sigmoid().mean(),
            "d_accuracy": 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean()),
        }
    context.statistics.update(statistics)
    real_term, fake_term = losses.discriminator_loss(real, fake, context.config.label_smoothing)
    return {"real": real_term, "fake": fake_term}


def _deceive(context: Context) -> dict[str, Tensor]:
    assert context.discriminator is not None
    with _frozen(context.discriminator.head):
        _, fake = context.judge(detached=False)
    weight = adversarial_weight(context.config, context.step)
    return {"adversarial": weight * losses.generator_loss(fake), **_reconstruction(context)}


def _observe(context: Context, lightness: Tensor, ab: Tensor) -> None:
    """`mae`: the poster's, on RGB in [-1, 1]. Of ab, in CIE units: `spread` around the mean colour, whose distance from
    gray is `offset`."""
    with torch.no_grad():
        painted = context.__dict__.get("fake_rgb")  # computed already where the discriminator sees it
        if painted is None:
            painted = color.merge(lightness.detach(), ab.detach())
        context.statistics["mae"] = 2 * (painted.detach().clamp(0, 1) - context.real_rgb).abs().mean()
        for name, values in (("ab", ab.detach()), ("ab_truth", context.pictures.ab)):
            centre = values.mean((0, 2, 3), keepdim=True)
            context.statistics[f"{name}_spread"] = color.AB_SCALE * (values - centre).square().mean().sqrt()
            context.statistics[f"{name}_offset"] = color.AB_SCALE * centre.norm()


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
        parameters, lr=lr, betas=(config.beta1, config.beta2), fused=parameters[0].device.type in ("cpu", "cuda")
    )
