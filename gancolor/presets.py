"""Named settings: each row says what differs from `TrainConfig`'s defaults, which are the preset `gan`."""

from __future__ import annotations

from typing import Any

from gancolor.config import TrainConfig
from gancolor.errors import ConfigError

# The paper's objective and nothing beside it (poster).
_POSTER: dict[str, Any] = {
    "frozen_blocks": 5,
    "levels": 1,
    "width": 24,
    "train_backbone": False,
    "discriminator_units": (512, 256, 128),
    "dropout": 0.5,
    "beta2": 0.999,
    "clip": 0.0,
    "l1_space": "rgb",
    "l1_weight": 100.0,
    "adversarial_weight": 1.0,
    "lr": 2e-4,
    "discriminator_lr": 0.0,
    "beta1": 0.5,
    "ema": 0.0,
    "warmup_steps": 0,
    "discriminator_warmup_steps": 0,
    "ramp_steps": 0,
    "label_smoothing": 0.0,
    "instance_noise": 0.0,
    "discriminator_size": 0,
    "discriminator_taps": "last",
    "rescue": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    "gan": {},
    "poster": _POSTER,
    "regression": {"objective": "regression", "adversarial_weight": 0.0, "warmup_steps": 0},
}

SUMMARIES: dict[str, str] = {
    "gan": "the poster's networks with what helped on real photographs (docs/training.md)",
    "poster": "the paper: non-saturating GAN + λ·L1 on RGB in [-1, 1]",
    "regression": "the same generator with L1 only",
}


def build(preset: str, **overrides: Any) -> TrainConfig:
    """The preset's settings with `overrides`. ConfigError names the known presets."""
    if preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, got {preset}")
    return TrainConfig(**{**PRESETS[preset], **overrides, "preset": preset})
