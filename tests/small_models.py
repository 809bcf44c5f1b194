"""A model of a few kilobytes that any command can colour with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gancolor import models, presets
from gancolor.config import TrainConfig
from gancolor.models.backbones import ENCODERS
from gancolor.storage import checkpoint, model_file

SMALL: dict[str, Any] = {
    "image_size": 32,
    "width": 4,
    "levels": 1,
    "frozen_blocks": 5,
    "backbone_weights": "none",
}


def content(dataset: str = "pictures", seed: int = 0, **settings: Any) -> dict[str, Any]:
    """What a best.pt holds, with random weights."""
    config: TrainConfig = presets.build("regression", **{**SMALL, **settings}, dataset=dataset)
    torch.manual_seed(seed)
    generator = models.build_generator(
        config, ENCODERS[config.backbone].build(config.frozen_blocks).freeze()
    )
    told = {"origin": "random, never trained (not ImageNet)", "step": 7, "seen": 28}
    return {"config": config, "generator": generator.state_dict(), **told}


def write(
    path: Path,
    dataset: str = "pictures",
    seed: int = 0,
    card: str | None = "# A card\n",
    **settings: Any,
) -> Path:
    """A model as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = content(dataset, seed, **settings)
    model_file.write(path, made, made["config"], card=card)
    return path


def make_run(root: Path, name: str, dataset: str = "pictures", seed: int = 0) -> Path:
    """A run directory with config.json and best.pt."""
    run = root / name
    run.mkdir(parents=True)
    made = content(dataset, seed)
    config = made.pop("config")
    checkpoint.save(run / "best.pt", made, config)
    (run / "config.json").write_text(json.dumps({"settings": config.to_json()}))
    return run
