"""What a run needs before its first step, and what can be known of it then."""

from __future__ import annotations

from pathlib import Path

import torch

from gancolor.config import TrainConfig
from gancolor.data import folder, loader
from gancolor.data.folder import PictureSource, Split
from gancolor.devices import pick_autocast, pick_dtype
from gancolor.training.state import State
from gancolor.training.validation import Validation

_DEFAULT_EPOCHS = 20.0


def open_pictures(config: TrainConfig, split: Split) -> PictureSource:
    """The config's pictures of a split. DataError when there are none."""
    root = Path(config.datasets_root) if config.datasets_root else None
    return folder.open_source(config.dataset, split, datasets_root=root, seed=config.seed, image_size=config.image_size)


def open_validation(config: TrainConfig, device: torch.device) -> Validation:
    """The config's held-out pictures for validation."""
    source = open_pictures(config, "val")
    rgb, edges, _ = loader.held_out(source, config.image_size, config.val_pictures, config.condition)
    return Validation(rgb, edges, device, pick_autocast(pick_dtype(config.precision, device), device))


def planned_steps(config: TrainConfig, pictures: int) -> int | None:
    """Where the run ends: the first of `steps` and `epochs`, 20 epochs by default, None with a time limit only."""
    epochs = config.epochs
    if config.steps is None and epochs is None and config.time_limit is None:
        epochs = _DEFAULT_EPOCHS
    ends = [config.steps] if config.steps is not None else []
    if epochs is not None:
        ends.append(max(1, round(epochs * pictures / config.batch_size)))
    return min(ends) if ends else None


def count_parameters(state: State) -> tuple[int, int]:
    """Trainable and frozen parameters of a run's networks; shared ones count once."""
    modules = [state.generator, *([state.discriminator] if state.discriminator is not None else [])]
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return trainable, sum(p.numel() for p in parameters) - trainable
