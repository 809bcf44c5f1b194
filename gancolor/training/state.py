"""Everything a training run is at one step: networks, their average, optimizers and counters.

It is saved as one, and a run that goes on from it takes the steps that it would have taken. The
average of the generator's weights over the steps (`Ema`) is steadier than the weights themselves,
and is what colours pictures afterwards.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gancolor import color, models
from gancolor.config import NETWORK_SETTINGS, TrainConfig, flag_of
from gancolor.errors import CheckpointError, is_out_of_memory, reason_of, shown
from gancolor.models import Discriminator, FusionNetwork, Generator, PatchDiscriminator, Seen, bins
from gancolor.models.backbones import ENCODERS, VGG16, Backbone, describe, load_backbone
from gancolor.models.embeddings import Embedder
from gancolor.models.generator import BINS_STRIDE, widen
from gancolor.runtime.devices import can_fuse, pick_autocast, pick_dtype, pick_scaler
from gancolor.training import objectives
from gancolor.training.health import Health

_log = logging.getLogger("gancolor")
_AT_ONCE = 16  # pictures whose colours are put into bins together
_FOR_TAPS = 32  # pictures on which VGG16's features are measured


class State:
    """Networks and counters of a run.

    `saved` is a checkpoint's content to go on from; then neither weights file nor network is
    needed. `init` is one whose networks are started from, with fresh optimizers: `check_init` says
    whether it fits. The random numbers of a step come from (seed, step, rank) alone
    (`loop.seed_step`), as the loader's do, so no random state has to be kept.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        init: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.head_is_known = False  # whether the discriminator's constants came with its weights
        self.starts_anew = saved is None and init is None
        self.progress = 0.0  # share of the run that is over; the loop moves it
        self.dtype = pick_dtype(config.precision, device)
        self.autocast = pick_autocast(self.dtype, device)
        torch.manual_seed(config.seed)
        known = saved or init
        self.trunk: VGG16 | None = None
        if _needs_trunk(config):
            self.trunk = self._place(_trunk(config, saved, init))
        self.encoder = None if config.takes_embedding else self._open_encoder(known)
        self.embedder = (
            _embedder(config, device, self.dtype, saved) if config.takes_embedding else None
        )
        self.origin: str
        if self.embedder is not None:
            self.origin = self.embedder.origin
        else:
            self.origin = known.get("origin", "not known") if known else _describe(config)
        self.generator = self._place(models.build_generator(config, self.encoder))
        if init is not None:
            self._start_from(init)
        self.discriminator: Discriminator | PatchDiscriminator | None = None
        if self.trunk is not None and (
            config.objective == "adversarial" or config.perceptual_weight > 0
        ):
            self.discriminator = self._place(models.build_discriminator(config, self.trunk))
        if init is not None and self.discriminator is not None:
            self._take_head(init)
        self._class_weights: Tensor | None = None
        self.shares: Tensor | None = None  # of the bins among the training pictures' colours
        self.ema = Ema(self.generator, config.ema) if config.ema > 0 else None
        self.phases = objectives.build(config, self.generator, self.discriminator)
        self.scaler = pick_scaler(self.dtype, device)
        self.health = Health(rescue=config.rescue)
        self.step, self.seen, self.seconds, self.best = 0, 0, 0.0, float("inf")
        if saved is not None:
            self._restore(saved)

    def calibrate(self, rgb: Tensor) -> None:
        """Take from training pictures, uint8 (N, 3, H, W), what is measured once: how common
        colours are, and the size of VGG16's features. DataError for pictures without colours.
        """
        if self.config.says_distribution:
            total = torch.zeros(len(bins.centers()), dtype=torch.float64)
            for part in rgb.split(_AT_ONCE):
                ab = bins.at_centers(color.split(part.to(self.device))[1], BINS_STRIDE)
                total += bins.frequencies(bins.encode(ab.permute(0, 2, 3, 1).flatten(0, 2))) * len(
                    part
                )
            self.shares = total / total.sum()
            tempered = bins.tempered(self.shares, self.config.rebalance)
            if tempered > self.config.rebalance:
                _log.info(
                    "the pictures are pale: --rebalance %g becomes %.2f",
                    self.config.rebalance,
                    tempered,
                )
            if self.starts_anew:
                for generator in {self.generator, self.averaged}:
                    generator.last.expect(self.shares)
        if isinstance(self.discriminator, PatchDiscriminator) and not self.head_is_known:
            lightness, ab = color.split(rgb[:: -(-len(rgb) // _FOR_TAPS)].to(self.device))
            with self.autocast():
                self.discriminator.measure(
                    Seen(color.merge(lightness, ab), torch.cat([lightness, ab], 1))
                )

    @property
    def class_weights(self) -> Tensor | None:
        """Of the bins in the cross-entropy, (Q,), on the device; None without bins."""
        if self._class_weights is None and self.shares is not None:
            tempered = bins.tempered(self.shares, self.config.rebalance)
            self._class_weights = bins.class_weights(self.shares, tempered).to(self.device)
        return self._class_weights

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """By the name of the network they train."""
        return {phase.name: phase.optimizer for phase in self.phases}

    @property
    def averaged(self) -> Any:
        """The generator that is validated and kept: the average, or the live one without."""
        return self.ema.module if self.ema else self.generator

    @property
    def weights(self) -> str:
        """Which frozen network the run looks through, and where its weights come from."""
        if self.embedder is not None:
            return f"embedding weights: {self.origin}"
        init = self.config.init
        begun = f"those of {init}, which began with {self.origin}" if init else self.origin
        words = f"{ENCODERS[self.config.backbone].title} weights: {begun}"
        if self.config.backbone == "vgg16" or self.trunk is None:
            return words
        return f"{words}; judged through VGG16, weights: {describe(self.config.backbone_weights)}"

    def embed(self, copies: Tensor | None, keys: Sequence[str]) -> Tensor | None:
        """The embedding (B, width) of pictures' `copies`, uint8 (B, 3, E, E); None for a network
        without one.
        """
        return None if self.embedder is None or copies is None else self.embedder(copies, keys)

    def state_dict(self) -> dict[str, Any]:
        """All that `__init__` needs as `saved` to go on exactly."""
        content: dict[str, Any] = {
            "origin": self.origin,
            **self._frozen_dict(),
            "generator": _own(self.generator, self.config),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.optimizers.items()
            },
            "scaler": self.scaler.state_dict(),
            "health": self.health.state_dict(),
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
            "best": self.best,
        }
        if self.ema:
            content |= {"ema": _own(self.ema.module, self.config), "ema_updates": self.ema.updates}
        if self.discriminator is not None:
            content["head"] = self.discriminator.head.state_dict()
        if self.shares is not None:
            content["shares"] = self.shares
        return content

    def colorizer_dict(self) -> dict[str, Any]:
        """What colouring needs and nothing else: the averaged generator with the VGG16 blocks that
        it uses.
        """
        content = {
            "generator": self.averaged.state_dict(),
            "origin": self.origin,
            "step": self.step,
            "seen": self.seen,
        }
        return content | ({} if self.embedder is None else {"embedding": self.embedder.state()})

    def _frozen_dict(self) -> dict[str, Any]:
        """The frozen networks, so that going on needs no weights file."""
        if self.embedder is not None:
            return {"embedding": self.embedder.state()}
        content = {"backbone": self.trunk.state_dict()} if self.trunk is not None else {}
        if self.config.backbone != "vgg16" and not self.config.train_backbone:
            content["encoder"] = self.generator.encoder.state_dict()
        return content

    def _open_encoder(self, known: dict[str, Any] | None) -> Backbone:
        """The trunk, cast once instead of at every call, or a copy of it that trains, or a backbone
        of its own.
        """
        config = self.config
        encoder: Backbone
        if config.backbone != "vgg16":
            encoder = self._place(_encoder(config, known))
        elif config.train_backbone:
            assert self.trunk is not None
            encoder = self._place(VGG16())
            encoder.load_state_dict(self.trunk.state_dict())
        else:
            assert self.trunk is not None
            encoder = self.trunk
        if self.dtype != torch.float32:
            for part in (self.trunk, encoder):
                if part is not None and part.frozen:
                    part.to(self.dtype)
        return encoder

    def _place(self, module: Any) -> Any:
        return module.to(device=self.device, memory_format=torch.channels_last)

    def _start_from(self, init: dict[str, Any]) -> None:
        """Take the generator's weights, averaged where there are such. An encoder that was frozen
        and is now to train may be missing: it has been opened with the backbone.
        """
        state = {
            k: v
            for k, v in (init.get("ema") or init["generator"]).items()
            if not _is_shared(k, self.config)
        }
        if self.config.train_backbone and not any(k.startswith("encoder.") for k in state):
            state |= {
                k: v for k, v in self.generator.state_dict().items() if k.startswith("encoder.")
            }
        try:
            if isinstance(self.generator, Generator):
                state = widen(state, self.generator)
            _load_own(self.generator, state, self.config)
        except (LookupError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                "--init must hold a generator that fits its settings, got another"
                f" ({reason_of(error)})"
            ) from error

    def _take_head(self, init: dict[str, Any]) -> None:
        """Take the discriminator's weights where they fit; else it starts anew, and that is said."""
        assert self.discriminator is not None
        reason = "the checkpoint has none"
        if "head" in init:
            try:
                self.discriminator.head.load_state_dict(init["head"])
                self.head_is_known = True
                return
            except RuntimeError as error:
                reason = "it is another: " + shown(str(error).splitlines()[-1].strip(), 120)
        _log.info("the discriminator starts anew (%s)", reason)

    def _restore(self, saved: dict[str, Any]) -> None:
        try:
            _load_own(self.generator, saved["generator"], self.config)
            if self.ema:
                _load_own(self.ema.module, saved["ema"], self.config)
                self.ema.updates = saved["ema_updates"]
            if self.discriminator is not None:
                self.discriminator.head.load_state_dict(saved["head"])
            for name, optimizer in self.optimizers.items():
                _check_optimizer(optimizer, saved["optimizers"][name])
                optimizer.load_state_dict(saved["optimizers"][name])
                for group in optimizer.param_groups:  # it may have been saved on another device
                    group["fused"] = can_fuse(self.device)
            if saved["scaler"]:  # empty unless it was saved under fp16
                self.scaler.load_state_dict(saved["scaler"])
            self.health.load_state_dict(saved["health"])
            self.step, self.seen = saved["step"], saved["seen"]
            self.seconds, self.best = saved["seconds"], saved["best"]
            self.shares = self._shares_of(saved)
        except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"the checkpoint does not fit its own config ({reason_of(error)})"
            ) from error

    def _shares_of(self, saved: dict[str, Any]) -> Tensor | None:
        if not self.config.says_distribution:
            return None
        shares: Tensor = saved["shares"]
        if shares.shape != (len(bins.centers()),) or not (
            shares.isfinite().all() and shares.is_floating_point()
        ):
            raise ValueError(f"shares of shape {tuple(shares.shape)}")
        return shares


class Ema:
    """Keeps `module`, a copy of a generator whose weights follow the live ones with the given
    decay.

    The decay warms up as (1 + n) / (10 + n), so that the first updates are not held back by the
    initialization. BatchNorm's statistics are copied, not averaged: they are averages already. A
    frozen encoder is shared, not copied.
    """

    def __init__(self, generator: Generator | FusionNetwork, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        frozen = not any(p.requires_grad for p in generator.encoder.parameters())
        memo = {id(generator.encoder): generator.encoder} if frozen else {}
        self.module = copy.deepcopy(generator, memo).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Move towards the live weights by 1 - decay."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live: list[Tensor] = [p for p in generator.parameters() if p.requires_grad]
        names = {name for name, p in generator.named_parameters() if p.requires_grad}
        own: list[Tensor] = [p for name, p in self.module.named_parameters() if name in names]
        torch._foreach_lerp_(own, live, 1 - decay)
        for mine, theirs in zip(self.module.buffers(), generator.buffers(), strict=True):
            if mine is not theirs:
                mine.copy_(theirs)


def check_init(config: TrainConfig, given: TrainConfig) -> None:
    """Raise CheckpointError, naming the first setting, unless a checkpoint of settings `given` can
    start `config`.
    """
    for name in NETWORK_SETTINGS:
        wanted, got = getattr(config, name), getattr(given, name)
        if name == "hints":
            wanted, got = wanted > 0, got > 0
        elif name == "width" and config.network == "unet":
            got = max(wanted, got)  # a decoder can be widened (`widen`), not narrowed
        if wanted != got:
            raise CheckpointError(
                f"--init must have the network that is to be trained, got {flag_of(name)}"
                f" {getattr(given, name)} instead of {getattr(config, name)}; leave out --preset"
                " and what shapes the network to take its own"
            )
    if given.backbone == "vgg16" and given.train_backbone and not config.train_backbone:
        raise CheckpointError("--init's VGG16 was trained: add --train-backbone")


def _needs_trunk(config: TrainConfig) -> bool:
    """Whether the run looks through VGG16: as the generator's backbone, or to judge."""
    judges = config.objective == "adversarial" or config.perceptual_weight > 0
    return not config.takes_embedding and (config.backbone == "vgg16" or judges)


def _describe(config: TrainConfig) -> str:
    """Where the weights of the generator's backbone come from."""
    weights = config.backbone_weights if config.backbone == "vgg16" else config.encoder_weights
    return ENCODERS[config.backbone].describe(weights)


def _encoder(config: TrainConfig, known: dict[str, Any] | None) -> Backbone:
    """A backbone other than VGG16, of the blocks that the generator uses."""
    kind = ENCODERS[config.backbone]
    if known is None:
        return kind.load(config.encoder_weights, seed=config.seed, trainable=config.train_backbone)
    own = known.get("encoder") or {
        key.removeprefix("encoder."): value
        for key, value in (known.get("ema") or known.get("generator", {})).items()
        if key.startswith("encoder.")
    }
    encoder = kind.build(config.frozen_blocks)
    try:
        encoder.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint must hold its {kind.title}, got another network ({reason_of(error)})"
        ) from error
    return encoder if config.train_backbone else encoder.freeze()


def _trunk(config: TrainConfig, saved: dict[str, Any] | None, init: dict[str, Any] | None) -> VGG16:
    if (known := saved or init) is None:
        return load_backbone(config.backbone_weights, seed=config.seed)
    frozen = known.get("backbone", {})
    if saved is None and not frozen and config.backbone != "vgg16":
        # A best.pt to start from has none.
        return load_backbone(config.backbone_weights, seed=config.seed)
    if saved is None and not frozen and not config.train_backbone:
        # A best.pt to start from: its generator has the blocks that it uses.
        own = known.get("generator", {})
        frozen = {k.removeprefix("encoder."): v for k, v in own.items() if k.startswith("encoder.")}
    trunk = VGG16()
    try:
        trunk.load_state_dict(frozen)
    except RuntimeError as error:
        way = "best.pt is for colouring only" if saved else "name the run or its last.pt"
        raise CheckpointError(
            f"the checkpoint must hold a whole run, got one without its VGG16; {way}"
        ) from error
    return trunk.freeze()


def _embedder(
    config: TrainConfig, device: torch.device, dtype: torch.dtype, saved: dict[str, Any] | None
) -> Embedder:
    if saved is not None and "embedding" not in saved:
        raise CheckpointError("the checkpoint must hold a whole run, got one without its embedding")
    return Embedder(config, device, dtype, None if saved is None else saved["embedding"])


def _check_optimizer(optimizer: Optimizer, saved: Any) -> None:
    """ValueError unless what was saved of an optimizer is of the kind of its own; torch finds out
    at the next step.
    """
    own = optimizer.state_dict()["param_groups"]
    for group, known in zip(own, saved["param_groups"], strict=True):
        if wrong := [
            key for key, value in group.items() if key in known and not _is_alike(value, known[key])
        ]:
            raise ValueError(f"{', '.join(wrong)} of an optimizer")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for at, kept in saved["state"].items():
        shape = parameters[at].shape
        if kept.keys() != {"step", "exp_avg", "exp_avg_sq"} or any(
            not isinstance(value, Tensor) or value.shape != (() if key == "step" else shape)
            for key, value in kept.items()
        ):
            raise ValueError(f"moments of the parameter {at}")


def _is_alike(own: Any, value: Any) -> bool:
    """Whether a value may stand where an optimizer has its own; None stands for one not chosen."""
    if isinstance(own, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(own)
            and all(map(_is_alike, own, value))
        )
    if own is None or isinstance(own, bool):
        return value is None or isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_shared(key: str, config: TrainConfig) -> bool:
    """Whether a generator's tensor belongs to the frozen encoder, which the checkpoint holds once,
    apart.
    """
    return key.startswith("encoder.") and not (config.takes_embedding or config.train_backbone)


def _own(module: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if not _is_shared(k, config)}


def _load_own(module: nn.Module, state: dict[str, Tensor], config: TrainConfig) -> None:
    """Strict, but for the shared encoder."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [k for k in missing if not _is_shared(k, config)]
    if missing or unexpected:
        raise ValueError(f"missing {missing[:3]}, unexpected {list(unexpected)[:3]}")
