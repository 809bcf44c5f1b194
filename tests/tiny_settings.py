"""Settings of trainings that are as small as a test can have them, in one place."""

from __future__ import annotations

from typing import Any

RUN: dict[str, Any] = {
    "batch_size": 2,
    "backbone_weights": "none",
    "val_pictures": 2,
    "workers": 0,
    "device": "cpu",
    "precision": "fp32",
}
"""What every tiny training has, whatever its network."""

UNET: dict[str, Any] = {"image_size": 32, "width": 4, "frozen_blocks": 3}
"""A U-Net of few channels, for pictures of 32 x 32."""

TINY: dict[str, Any] = {**RUN, **UNET}
"""A training of that U-Net."""

PHASES: dict[str, Any] = {
    "steps": 6,
    "warmup": 1 / 6,
    "discriminator_warmup": 1 / 6,
    "ramp": 1 / 3,
    "log_every": 1,
}
"""Six steps that go through every phase of an adversarial training."""

LOUD: dict[str, Any] = {**TINY, "batch_size": 4, "frozen_blocks": 2, "ema": 0.0}
"""A training that colours loudly after few steps."""
