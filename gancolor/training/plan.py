"""What a run would be, for `--dry-run`: settings, parameters, pictures, and time and memory by a few real steps."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gancolor.config import TrainConfig
from gancolor.data import augment, decoded
from gancolor.data.loader import Batch
from gancolor.devices import pick_device
from gancolor.models.backbones import load_backbone
from gancolor.models.embeddings import load_embedding
from gancolor.models.encoders import ENCODERS
from gancolor.training import engine
from gancolor.training.preparation import count_parameters, embedding_size, needs_sample, open_pictures, planned_steps
from gancolor.training.state import State


def describe(config: TrainConfig) -> str:
    """Several lines for people. Errors are those of `train`; nothing is downloaded or written.

    Time and memory are those of two steps of the run's last phases on made-up pictures, on the device it would use.
    """
    device = pick_device(config.device)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    if config.backbone_weights not in ("imagenet", "none"):  # an unfit file is reported now
        if config.network == "unet":
            load_backbone(config.backbone_weights)
        else:
            load_embedding(config.embedding, config.backbone_weights)
    if config.encoder_weights not in ("imagenet", "none"):
        ENCODERS[config.backbone].load(config.encoder_weights)
    state = _made_up_state(config, device)
    trainable, frozen = count_parameters(state)
    seconds, memory = _measure(state)
    total = planned_steps(config, len(train))
    if total is None:
        duration = (
            f"until the time limit of {config.time_limit} s: about {(config.time_limit or 0) / seconds:.0f} steps"
        )
    else:
        duration = f"{total} steps, about {_words(total * seconds)}" + (
            f" or the time limit of {config.time_limit} s" if config.time_limit else ""
        )
    note = "; embeddings come on top in the first epoch, then from the cache" if _caches(config) else ""
    lines = [
        json.dumps(config.to_json(), indent=2),
        f"pictures: {len(train)} to train on, {min(len(val), config.val_pictures)} of {len(val)} held out",
        f"parameters: {trainable:,} trainable, {frozen:,} frozen",
        f"device: {device}, {str(state.dtype).removeprefix('torch.')}",
        f"a step of {config.batch_size}: {seconds:.2f} s ({config.batch_size / seconds:.1f} images/s)",
        f"training: {duration}; validation and reading pictures come on top{note}",
        f"memory: {memory / 2**30:.2f} GiB",
    ]
    if config.cache != "none":
        side = augment.needed_side(config.image_size, config.zoom, config.framing, embedding_size(config))
        lines.append(f"cache: {decoded.describe_need(train, side, config.cache)}")
    return "\n".join(lines)


def _made_up_state(config: TrainConfig, device: torch.device) -> State:
    """The run's networks with random weights, in its last phases."""
    logger = logging.getLogger("gancolor")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "random weights" is not news about the run
    try:
        random: dict[str, Any] = {"backbone_weights": "none"} | (
            {} if config.backbone == "vgg16" else {"encoder_weights": "none"}
        )
        state = State(replace(config, **random), device)
    finally:
        logger.setLevel(level)
    state.progress = 1.0
    if needs_sample(config):
        state.calibrate(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    return state


def _measure(state: State) -> tuple[float, float]:
    """Seconds of a step and peak bytes: of the process on the CPU, of the device's allocator on CUDA."""
    config = state.config
    shape = (config.batch_size, 1, config.image_size, config.image_size)
    rgb = torch.randint(0, 256, shape, dtype=torch.uint8).expand(-1, 3, -1, -1)
    edges = torch.randint(0, 2, shape, dtype=torch.uint8) * 255 if config.condition == "edges" else None
    squares = torch.randint(0, 2, shape, dtype=torch.uint8) if config.hints > 0 else None
    batch = Batch(rgb=rgb.contiguous(), edges=edges, squares=squares)
    times = []
    embedding = _embed(state)
    for _ in range(3):  # the first warms up
        start = time.perf_counter()
        if not _caches(config):
            embedding = _embed(state)
        engine.train_step(state, batch, embedding=embedding)  # ends with a transfer from the device
        times.append(time.perf_counter() - start)
    if state.device.type == "cuda":
        return min(times), float(torch.cuda.max_memory_allocated(state.device))
    try:
        import resource
    except ImportError:  # Windows
        return min(times), float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return min(times), float(peak * (1 if sys.platform == "darwin" else 1024))


def _caches(config: TrainConfig) -> bool:
    return config.network != "unet" and config.embedding_cache and config.framing != "random"


def _embed(state: State) -> Tensor | None:
    if state.embedder is None:
        return None
    shape = (state.config.batch_size, 3, state.embedder.size, state.embedder.size)
    return state.embed(torch.randint(0, 256, shape, dtype=torch.uint8), ())


def _words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
