"""Everything a training run is at one step: networks, average, optimizers, scaler, counters; saved as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gancolor import models
from gancolor.config import TrainConfig
from gancolor.devices import pick_autocast, pick_dtype
from gancolor.errors import CheckpointError
from gancolor.models.backbones import VGG16, describe, load_backbone
from gancolor.training import objectives
from gancolor.training.ema import Ema
from gancolor.training.health import Health


class State:
    """Networks and counters of a run.

    `saved` is a checkpoint's content to go on from; then neither weights file nor network is needed. The random
    numbers of a step come from (seed, step, rank) alone (`engine.seed_step`), as the loader's do, so no random state
    has to be kept.
    """

    def __init__(self, config: TrainConfig, device: torch.device, saved: dict[str, Any] | None = None) -> None:
        self.config, self.device = config, device
        self.dtype = pick_dtype(config.precision, device)
        self.autocast = pick_autocast(self.dtype, device)
        torch.manual_seed(config.seed)
        self.origin: str = saved.get("origin", "not known") if saved else describe(config.backbone_weights)
        self.trunk = self._place(_trunk(config, saved))
        self.encoder = self.trunk
        if config.train_backbone:
            self.encoder = self._place(VGG16())
            self.encoder.load_state_dict(self.trunk.state_dict())
        if self.dtype != torch.float32:  # frozen weights are cast once, not at every call
            self.trunk.to(self.dtype)
        self.generator = self._place(models.build_generator(config, self.encoder))
        self.discriminator = None
        if config.objective == "adversarial":
            self.discriminator = self._place(models.build_discriminator(config, self.trunk))
        self.ema = Ema(self.generator, config.ema) if config.ema > 0 else None
        self.phases = objectives.build(config, self.generator, self.discriminator)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.health = Health(rescue=config.rescue)
        self.step, self.seen, self.seconds, self.best = 0, 0, 0.0, float("inf")
        if saved is not None:
            self._restore(saved)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """By the name of the network they train."""
        return {phase.name: phase.optimizer for phase in self.phases}

    @property
    def averaged(self) -> Any:
        """The generator that is validated and kept: the average, or the live one without."""
        return self.ema.module if self.ema else self.generator

    def state_dict(self) -> dict[str, Any]:
        """All that `__init__` needs as `saved` to go on exactly."""
        content: dict[str, Any] = {
            "origin": self.origin,
            "backbone": self.trunk.state_dict(),
            "generator": _own(self.generator, self.config),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
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
        return content

    def colorizer_dict(self) -> dict[str, Any]:
        """What colouring needs and nothing else: the averaged generator with the VGG16 blocks that it uses."""
        return {"generator": self.averaged.state_dict(), "origin": self.origin, "step": self.step, "seen": self.seen}

    def _place(self, module: Any) -> Any:
        return module.to(device=self.device, memory_format=torch.channels_last)

    def _restore(self, saved: dict[str, Any]) -> None:
        try:
            _load_own(self.generator, saved["generator"])
            if self.ema:
                _load_own(self.ema.module, saved["ema"])
                self.ema.updates = saved["ema_updates"]
            if self.discriminator is not None:
                self.discriminator.head.load_state_dict(saved["head"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
            if saved["scaler"]:  # empty unless it was saved under fp16
                self.scaler.load_state_dict(saved["scaler"])
            self.health.load_state_dict(saved["health"])
            self.step, self.seen = saved["step"], saved["seen"]
            self.seconds, self.best = saved["seconds"], saved["best"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit its own config ({str(error).splitlines()[0][:160]})"
            ) from error


def _trunk(config: TrainConfig, saved: dict[str, Any] | None) -> VGG16:
    if saved is None:
        return load_backbone(config.backbone_weights, seed=config.seed)
    trunk = VGG16()
    try:
        trunk.load_state_dict(saved["backbone"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint must hold a whole run, got one without its VGG16 ({str(error).splitlines()[0][:160]}); "
            "best.pt is for colouring only"
        ) from error
    return trunk.freeze()


def _own(module: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """The module's state without a frozen encoder, which the checkpoint holds once as `backbone`."""
    state = module.state_dict()
    return {k: v for k, v in state.items() if config.train_backbone or not k.startswith("encoder.")}


def _load_own(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Strict, but for the shared encoder."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [k for k in missing if not k.startswith("encoder.")]
    if missing or unexpected:
        raise KeyError(f"missing {missing[:3]}, unexpected {list(unexpected)[:3]}")
