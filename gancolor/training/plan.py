"""What a run needs before its first step, and what can be said of it before it is trained.

The pictures of each split, whether they are those that a resumed run began with, the sample on which
things are measured once, and how long the run will be. `describe` says it all for `--dry-run`, with
time and memory by a few real steps.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gancolor import color
from gancolor.config import CROPPING, TrainConfig
from gancolor.data import dataset, example, loader, picture_cache, shard_stream
from gancolor.data.facts import Identity
from gancolor.data.loader import Batch, HeldOut
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import PictureSource, Split
from gancolor.data.still_life.composition import StillLife
from gancolor.errors import CheckpointError, DataError, shown
from gancolor.images import arrays
from gancolor.models import bins, count_parameters
from gancolor.models.backbones import ENCODERS, load_backbone
from gancolor.models.embeddings import EMBEDDINGS, load_embedding
from gancolor.runtime.devices import peak_memory, pick_device
from gancolor.runtime.remote_files import is_remote
from gancolor.training import loop
from gancolor.training.state import State
from gancolor.training.validation import Validation

_log = logging.getLogger("gancolor")
_DEFAULT_EPOCHS = 20.0
LOOKED_AT = 64  # pictures, for whether there are colours
SAMPLE = 1000  # pictures on which things are measured once
_PAINTED = 200  # of those that have to be painted first, which differ less
_SAMPLE_SIDE = 128  # pixels


def open_pictures(config: TrainConfig, split: Split) -> PictureSource:
    """The config's pictures of a split. DataError when there are none; also shards that
    cannot be trained on so (`stream.check`).
    """
    root = Path(config.datasets_root) if config.datasets_root else None
    about: dict[str, Any] = {
        "datasets_root": root,
        "seed": config.seed,
        "image_size": config.image_size,
    }
    source = dataset.open_source(config.dataset, split, **about)
    if split == "train" and isinstance(source, ShardSource):
        shard_stream.check(config)
    return source


def open_again(config: TrainConfig, saved: dict[str, Any]) -> PictureSource:
    """`open_pictures` to train on, of a run that goes on from `saved`. DataError says where they
    were.
    """
    try:
        return open_pictures(config, "train")
    except DataError as error:
        before, place = saved["config"], str(saved.get("set", {}).get("place", ""))
        if (config.dataset, config.datasets_root) != (before.dataset, before.datasets_root):
            raise
        if is_remote(config.dataset) or os.path.exists(place or os.path.expanduser(config.dataset)):
            raise
        raise DataError(
            "the run's pictures must be where they were, got nothing at"
            f" {shown(place or config.dataset)}; if they lie elsewhere now, go on with --dataset"
            " PATH"
        ) from error


def check_identity(found: Identity, saved: dict[str, Any], config: TrainConfig) -> None:
    """Raise CheckpointError unless `found` are the pictures that a run has been trained on,
    wherever they lie now.

    Where they lie elsewhere, or the set in their place has changed, the log says so.
    """
    known, before = saved.get("set"), saved["config"]
    elsewhere = (config.dataset, config.datasets_root) != (before.dataset, before.datasets_root)
    if known is None:
        if elsewhere:
            raise CheckpointError(
                "a resumed run must keep its pictures, and its checkpoint does not tell which they"
                " are (it is of an earlier version); put them where they were, --dataset"
                f" {shown(before.dataset)}, or start a new run from it with --init"
            )
        return
    place = str(known.get("place", ""))
    same = known.get("fingerprint") == found.fingerprint
    if same and place != found.place:
        _log.info(
            "the run's pictures lie in %s now, not in %s: they are the same",
            shown(found.place),
            shown(place),
        )
    elif not same and (elsewhere or place != found.place):
        raise CheckpointError(
            f"a resumed run must keep its pictures, got others: {found.pictures} in"
            f" {shown(found.place)}, not the {shown(known.get('pictures'), 20)} of"
            f" {shown(place or before.dataset)}; start a new run from it with --init instead of"
            " --resume"
        )
    elif not same:
        _log.warning(
            "the pictures in %s are no longer those that the run began with (%s, now %d): it goes"
            " on with these",
            shown(found.place),
            shown(known.get("pictures"), 20),
            found.pictures,
        )


def read_held_out(config: TrainConfig) -> HeldOut:
    """The config's held-out pictures for validation. DataError when there are none."""
    source = open_pictures(config, "val")
    return loader.held_out(
        source, config.image_size, config.val_pictures, config.condition, embedding_size(config)
    )


def open_validation(state: State, held_out: HeldOut) -> Validation:
    """Validation on those pictures; a fusion network's embeddings of them are computed here, once."""
    embedding = state.embed(held_out.copies, held_out.keys)
    return Validation(
        state.config, held_out.rgb, held_out.edges, embedding, state.device, state.autocast
    )


def needs_sample(config: TrainConfig) -> bool:
    """Whether something is measured on training pictures before the first step (`State.calibrate`)."""
    patches = config.discriminator == "patches" and config.objective == "adversarial"
    return measures_colors(config) or (
        not config.takes_embedding and (patches or config.perceptual_weight > 0)
    )


def measures_colors(config: TrainConfig) -> bool:
    """Whether that tells how common colours are, and so whether there are any."""
    return config.says_distribution


def look_for_colors(config: TrainConfig, source: PictureSource) -> None:
    """Warn where the training pictures, a few of them looked at, are gray: only painting gray is
    learned from them.
    """
    colored = bins.share_colored(color.split(read_sample(config, source, LOOKED_AT))[1])
    if colored < bins.LEAST_COLORED:
        _log.warning(
            "the training pictures hardly have colours (%.2f %% that are not gray), and from them a"
            " network learns to paint gray; choose pictures in colour with --dataset",
            100 * colored,
        )


def read_sample(config: TrainConfig, source: PictureSource, most: int | None = None) -> Tensor:
    """Training pictures spread evenly over the set, uint8 (N, 3, S, S), for what is measured before
    the first step.

    Of remote shards, which are fetched whole for it, over the first. Broken pictures are left out,
    and named when the loader meets them; DataError when there are no others.
    """
    if isinstance(source, ShardSource) and is_remote(source.shards[0].file):
        source = ShardSource(source.shards[:1], source.split, source.origin)
    side = min(config.image_size, _SAMPLE_SIDE)
    if most is None:
        most = min(SAMPLE, _PAINTED) if isinstance(source, StillLife) else SAMPLE
    count = min(len(source), most)
    squares = []
    for index in (i * len(source) // count for i in range(count)):
        with contextlib.suppress(DataError):
            squares.append(
                torch.from_numpy(arrays.center_square(source.read(index), side)).permute(2, 0, 1)
            )
    if not squares:
        raise DataError(
            f"training pictures must include one that can be read, got {count} broken ones; replace"
            " them"
        )
    return torch.stack(squares)


def embedding_size(config: TrainConfig) -> int | None:
    """Side of the copies that the config's embedding sees; None for a network without one."""
    return EMBEDDINGS[config.embedding].size if config.takes_embedding else None


def planned_steps(config: TrainConfig, pictures: int) -> int | None:
    """Where the run ends: the first of `steps` and `epochs`, 20 epochs by default, None with a time
    limit only.
    """
    epochs = config.epochs
    if config.steps is None and epochs is None and config.time_limit is None:
        epochs = _DEFAULT_EPOCHS
    ends = [config.steps] if config.steps is not None else []
    if epochs is not None:
        ends.append(max(1, round(epochs * pictures / config.batch_size)))
    return min(ends) if ends else None


def describe(config: TrainConfig) -> str:
    """Several lines for people. Errors are those of `train`; nothing is downloaded or written.

    Time and memory are those of two steps of the run's last phases on made-up pictures, on the
    device it would use.
    """
    device = pick_device(config.device)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    if config.backbone_weights not in ("imagenet", "none"):  # an unfit file is reported now
        if config.takes_embedding:
            load_embedding(config.embedding, config.backbone_weights)
        else:
            load_backbone(config.backbone_weights)
    if config.encoder_weights not in ("imagenet", "none"):
        ENCODERS[config.backbone].load(config.encoder_weights)
    state = _made_up_state(config, device)
    trainable, frozen = count_parameters(state.generator, state.discriminator)
    seconds, memory = _measure(state)
    total = planned_steps(config, len(train))
    if total is None:
        duration = (
            f"until the time limit of {config.time_limit} s: about"
            f" {(config.time_limit or 0) / seconds:.0f} steps"
        )
    else:
        duration = f"{total} steps, about {_words(total * seconds)}" + (
            f" or the time limit of {config.time_limit} s" if config.time_limit else ""
        )
    note = (
        "; embeddings come on top in the first epoch, then from the cache"
        if _caches(config)
        else ""
    )
    lines = [
        json.dumps(config.to_json(), indent=2),
        (
            f"pictures: {len(train)} to train on, {min(len(val), config.val_pictures)} of"
            f" {len(val)} held out"
        ),
        f"parameters: {trainable:,} trainable, {frozen:,} frozen",
        f"device: {device}, {str(state.dtype).removeprefix('torch.')}",
        (
            f"a step of {config.batch_size}: {seconds:.2f} s ({config.batch_size / seconds:.1f}"
            " images/s)"
        ),
        f"training: {duration}; validation and reading pictures come on top{note}",
        f"memory: {memory / 2**30:.2f} GiB",
    ]
    if config.cache != "none":
        side = example.needed_side(
            config.image_size, config.zoom, config.framing, embedding_size(config)
        )
        lines.append(f"cache: {picture_cache.describe_need(train, side, config.cache)}")
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
    """Seconds of a step on average, and peak bytes: of the process on the CPU, of the device's
    allocator on CUDA and XPU. A step with the largest pictures is measured.
    """
    config = state.config
    shape = example.largest_shape(config.image_size, config.framing)
    maps = (config.batch_size, 1, *shape)
    rgb = torch.randint(0, 256, maps, dtype=torch.uint8).expand(-1, 3, -1, -1)
    edges = (
        torch.randint(0, 2, maps, dtype=torch.uint8) * 255 if config.condition == "edges" else None
    )
    squares = torch.randint(0, 2, maps, dtype=torch.uint8) if config.hints > 0 else None
    batch = Batch(rgb=rgb.contiguous(), edges=edges, squares=squares)
    times = []
    embedding = _embed(state)
    for _ in range(3):  # the first warms up
        start = time.perf_counter()
        if not _caches(config):
            embedding = _embed(state)
        loop.train_step(state, batch, embedding=embedding)  # ends with a transfer from the device
        times.append(time.perf_counter() - start)
    seconds = min(times) * config.image_size**2 / math.prod(shape)
    if (taken := peak_memory(state.device)) is not None:
        return seconds, taken
    try:
        import resource
    except ImportError:  # Windows
        return seconds, float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, float(peak * (1 if sys.platform == "darwin" else 1024))


def _caches(config: TrainConfig) -> bool:
    return config.takes_embedding and config.embedding_cache and config.framing not in CROPPING


def _embed(state: State) -> Tensor | None:
    if state.embedder is None:
        return None
    shape = (state.config.batch_size, 3, state.embedder.size, state.embedder.size)
    return state.embed(torch.randint(0, 256, shape, dtype=torch.uint8), ())


def _words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
