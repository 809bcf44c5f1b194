"""Named settings: each row says what differs from `TrainConfig`'s defaults, which are the preset
`gan`.
"""

from __future__ import annotations

from typing import Any

from gancolor.config import TrainConfig
from gancolor.errors import ConfigError

# What no paper had: colours as a distribution, hints, a schedule.
_PLAIN: dict[str, Any] = {
    "head": "ab",
    "hints": 0.0,
    "perceptual_weight": 0.0,
    "warmup": 0.0,
    "lr_schedule": "constant",
    "lr_warmup": 0.0,
}

# The paper's objective and nothing beside it (poster).
_POSTER: dict[str, Any] = {
    **_PLAIN,
    "frozen_blocks": 5,
    "levels": 1,
    "width": 24,
    "train_backbone": False,
    "discriminator": "units",
    "discriminator_units": (512, 256, 128),
    "discriminator_size": 0,
    "discriminator_taps": "last",
    "dropout": 0.5,
    "l1_space": "rgb",
    "l1_weight": 100.0,
    "adversarial_weight": 1.0,
    "lr": 2e-4,
    "discriminator_lr": 0.0,
    "beta1": 0.5,
    "beta2": 0.999,
    "clip": 0.0,
    "ema": 0.0,
    "discriminator_warmup": 0.0,
    "ramp": 0.0,
    "label_smoothing": 0.0,
    "instance_noise": 0.0,
    "rescue": False,
}

# L1 alone on the poster's generator.
_REGRESSION: dict[str, Any] = {
    **_PLAIN,
    "objective": "regression",
    "adversarial_weight": 0.0,
    "lr": 2e-4,
}

# What the fusion papers share: MSE on a*b* with Adam, and pictures as they are.
_FUSION: dict[str, Any] = {
    **_PLAIN,
    "objective": "regression",
    "adversarial_weight": 0.0,
    "loss": "mse",
    "l1_space": "ab",
    "l1_weight": 1.0,
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "clip": 0.0,
    "ema": 0.0,
    "framing": "center",
    "flip": False,
    "color_scale": "ab127",
}
_KOALARIZATION: dict[str, Any] = {
    **_FUSION,
    "network": "koalarization",
    "embedding": "inception-resnet-v2",
    "embedding_output": "scores",
    "embedding_fit": "white",
    "framing": "white",
    "image_size": 224,
    "batch_size": 100,
}
_PORTRAIT: dict[str, Any] = {
    **_FUSION,
    "network": "portrait",
    "embedding_output": "softmax",
    "image_size": 256,
    "batch_size": 50,
}

# For machines without a GPU: a small encoder and decoder, judged as `gan` is.
_FAST: dict[str, Any] = {
    "backbone": "efficientnet-lite0",
    "levels": 0,
    "width": 12,
}

# To start from another run's network (--init), with few pictures: no adversary, so that no VGG16 is
# needed.
_TUNING: dict[str, Any] = {
    "objective": "regression",
    "adversarial_weight": 0.0,
    "perceptual_weight": 0.0,
    "train_norm": False,
    "lr": 3e-5,
    "batch_size": 8,
}

PRESETS: dict[str, dict[str, Any]] = {
    "gan": {},
    "fast": _FAST,
    "poster": _POSTER,
    "regression": _REGRESSION,
    "tune-5": {**_TUNING, "steps": 60},
    "tune-25": {**_TUNING, "steps": 150},
    "tune-200": {**_TUNING, "steps": 600},
    "koalarization": _KOALARIZATION,
    "face": {
        **_FUSION,
        "network": "face",
        "embedding": "vgg16",
        "dropout": 0.5,
        "color_scale": "unit",
        "image_size": 224,
        "batch_size": 16,
    },
    "portrait-vggface": {**_PORTRAIT, "embedding": "vggface"},
    "portrait-vgg19": {**_PORTRAIT, "embedding": "vgg19"},
    "portrait-inception": {**_PORTRAIT, "embedding": "inception-resnet-v2"},
    "deep-cnn": {
        **_KOALARIZATION,
        "framing": "random",
        "zoom": 0.5,
        "flip": True,
        "image_size": 256,
        "batch_size": 16,
    },
}

TUNING = tuple(name for name in PRESETS if name.startswith("tune-"))
"""Presets that have no network of their own: they take that of `--init`."""

SUMMARIES: dict[str, str] = {
    "gan": "a GAN whose two networks stand on VGG16, with what helped on real photographs",
    "fast": "the same with a small encoder and decoder, for machines without a GPU",
    "poster": "the GAN of the poster as published: non-saturating loss and λ·L1 on RGB",
    "regression": "the poster's generator without a discriminator: L1 only",
    "tune-5": (
        "fine-tuning of --init with about 5 pictures, for a minute, without a discriminator"
    ),
    "tune-25": "the same with about 25 pictures",
    "tune-200": "the same with 200 pictures or more",
    "koalarization": "a paper's fusion network with an Inception-ResNet-v2 embedding; mean squared error",
    "face": "a paper's fusion network like it, with a VGG16 embedding and dropout",
    "portrait-vggface": "a paper's smaller fusion network with BatchNorm and a VGG-Face embedding",
    "portrait-vgg19": "the same with a VGG19 embedding",
    "portrait-inception": "the same with an Inception-ResNet-v2 embedding",
    "deep-cnn": "koalarization at 256 pixels, with random crops and mirrored pictures",
}


def build(preset: str, **overrides: Any) -> TrainConfig:
    """The preset's settings with `overrides`. ConfigError names the known presets."""
    if preset not in PRESETS:
        raise ConfigError(f"--preset must be one of {', '.join(PRESETS)}, got {preset}")
    if preset in TUNING and overrides.get("init") is None:
        raise ConfigError(
            f"--preset {preset} must start from a run, got no --init; for example --init general"
        )
    return TrainConfig(**{**PRESETS[preset], **overrides, "preset": preset})
