"""Training batches and held-out pictures as uint8 tensors.

Every picture of a run is decided by the seed and its position in the run alone, so that any number
of worker processes, a resumed run, and several training processes see the same pictures.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gancolor.config import TrainConfig
from gancolor.data import picture_cache
from gancolor.data.example import Augment, TrainingPictures, content_key, needed_side, to_tensor
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.shard_stream import open_stream
from gancolor.data.source import PictureSource
from gancolor.errors import ConfigError, DataError
from gancolor.images import arrays
from gancolor.runtime import devices, processes
from gancolor.runtime.signals import interrupts_held

PREFETCH = 4  # batches that each worker holds ready

log = logging.getLogger("gancolor.pictures")


@dataclass(frozen=True)
class Batch:
    """Training pictures. `rgb`: uint8 (B, 3, H, W). `edges`: uint8 (B, 1, H, W), 0 or 255, under
    `condition="edges"`.

    `squares`: uint8 (B, 1, H, W), where colour hints are, for a network that takes them
    (`example.draw_squares`). `copies`: uint8 (B, 3, E, E), the same parts of the pictures for
    a fusion network's embedding; `keys`: what tells their contents apart (`content_key`). `aged`:
    uint8 gray (B, 1, H, W), under `old_photos`, what the network sees instead of the gray of `rgb`
    where `is_aged`, bool (B,), says so; zeros elsewhere. `broken`: names of the pictures that could
    not be read and were replaced; `reasons`: why, in the same order.
    """

    rgb: Tensor
    edges: Tensor | None = None
    squares: Tensor | None = None
    copies: Tensor | None = None
    aged: Tensor | None = None
    is_aged: Tensor | None = None
    keys: tuple[str, ...] | list[str] = ()
    broken: tuple[str, ...] | list[str] = ()
    reasons: tuple[str, ...] | list[str] = ()

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by torch's loader)."""
        pinned: dict[str, Any] = {
            k: value.pin_memory() for k, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **pinned)


@dataclass(frozen=True)
class HeldOut:
    """Held-out pictures: as in `Batch`, with the `names` of the N pictures."""

    rgb: Tensor
    edges: Tensor | None
    names: list[str]
    copies: Tensor | None = None
    keys: tuple[str, ...] | list[str] = ()


def batches(
    source: PictureSource,
    *,
    config: TrainConfig,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    embedding_size: int | None = None,
) -> Iterator[Batch]:
    """Endless training batches from `start_step` on; every pass visits each picture once, in its
    own random order.

    `config.batch_size` counts the pictures of a step over all processes; process `rank` of `world`
    gets its part of them. `embedding_size`: side of the copies for an embedding, None for none.
    Dropping the iterator ends its workers. ConfigError if the batch cannot be divided; DataError
    when no picture can be read any more.
    """
    if config.batch_size % world:
        raise ConfigError(
            f"--batch-size must be a multiple of the {world} processes, got {config.batch_size}"
        )
    augmentation = Augment(
        config.image_size,
        config.zoom,
        config.flip,
        config.framing,
        embedding_size,
        config.batch_size,
    )
    side = needed_side(config.image_size, config.zoom, config.framing, embedding_size)
    workers = config.workers
    if workers is None:
        workers = max(1, processes.default_workers(devices.pick_device(config.device)))
    if not isinstance(source, ShardSource):
        reduced = picture_cache.open_reduced(source, side, config.cache)
        pictures = TrainingPictures(reduced, augmentation, config)
        keys: Iterable[Any] = _Keys(
            len(source), config.seed, config.batch_size, start_step, rank, world
        )
    else:
        pictures, keys, workers = open_stream(
            source, augmentation, side, config, start_step, rank, world, workers
        )
    assembler = _Assembler(pictures)
    made = (
        map(assembler.__getitem__, keys)
        if workers == 0
        else _from_workers(assembler, keys, workers, config.device)
    )
    named: set[str] = set()
    try:
        for batch in _mend_worker_errors(made):
            if isinstance(batch, DataError):
                raise batch
            for name, reason in zip(batch.broken, batch.reasons, strict=True):
                if name not in named:
                    named.add(name)
                    log.warning("broken picture left out: %s", reason)
            yield batch
    finally:
        # Ends the workers. An error's traceback holds this frame, and whoever keeps the error would
        # keep them.
        del made
        picture_cache.flush(pictures.source)  # with workers, each does so at its end


def held_out(
    source: PictureSource,
    size: int,
    limit: int | None = None,
    condition: str = "gray",
    embedding_size: int | None = None,
) -> HeldOut:
    """Centre squares of pictures spread evenly over the source; `limit`: most pictures, None for
    all.

    With an `embedding_size` also copies of that side, made from the full-size centre squares.
    Broken pictures are logged and left out. DataError if none is left.
    """
    count = len(source) if limit is None else min(limit, len(source))
    squares, edges, names, copies = [], [], [], []
    for index in (i * len(source) // count for i in range(count)):
        try:
            picture = source.read(index)
        except DataError as error:
            log.warning("broken picture left out: %s", error)
            continue
        square = arrays.center_square(picture, size)
        squares.append(to_tensor(square))
        names.append(source.name(index))
        if condition == "edges":
            edges.append(to_tensor(arrays.edges(square)))
        if embedding_size is not None:
            copies.append(arrays.center_square(picture, embedding_size))
    if not squares:
        raise DataError(
            f"held-out pictures must include one that can be read, got {count} broken ones; replace"
            " them"
        )
    return HeldOut(
        rgb=torch.stack(squares),
        edges=torch.stack(edges) if edges else None,
        names=names,
        copies=torch.stack([to_tensor(copy) for copy in copies]) if copies else None,
        keys=[content_key(copy) for copy in copies],
    )


class _Keys:
    """For each step from `start` on, endlessly: the (position, index) pairs of one process."""

    def __init__(
        self, count: int, seed: int, batch_size: int, start: int, rank: int, world: int
    ) -> None:
        self.count, self.seed, self.start = count, seed, start
        self.batch_size, self.share, self.offset = (
            batch_size,
            batch_size // world,
            batch_size // world * rank,
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = functools.lru_cache(maxsize=2)(self._order)
        for step in itertools.count(self.start):
            first = step * self.batch_size + self.offset
            yield [
                (p, int(order(p // self.count)[p % self.count]))
                for p in range(first, first + self.share)
            ]

    def _order(self, epoch: int) -> NDArray[Any]:
        order = np.arange(self.count, dtype=np.int32 if self.count < 2**31 else np.int64)
        # As its `permutation` does, in half the memory.
        np.random.default_rng([self.seed, epoch, 1]).shuffle(order)
        return order


class _Assembler(Dataset["Batch | DataError"]):
    """Whole batches by their keys. Users' errors are returned, not raised: torch would add a
    worker's traceback.
    """

    def __init__(self, pictures: TrainingPictures) -> None:
        self.pictures = pictures

    def __getitem__(self, keys: list[tuple[int, int]]) -> Batch | DataError:
        try:
            items = [self.pictures[key] for key in keys]
        except DataError as error:
            return error
        parts = {name: name for name in ("rgb", "edges", "squares", "aged", "is_aged")} | {
            "copies": "copy"
        }
        tensors = {
            k: torch.stack([item[part] for item in items])
            for k, part in parts.items()
            if part in items[0]
        }
        return Batch(
            **tensors,
            keys=[item["key"] for item in items if "key" in item],
            broken=[name for item in items for name in item["broken"]],
            reasons=[reason for item in items for reason in item["reasons"]],
        )


def _from_workers(
    assembler: _Assembler, keys: Iterable[Any], workers: int, device: str
) -> Iterator[Batch | DataError]:
    with interrupts_held(), warnings.catch_warnings():
        # Of more workers than cores, and in Python 3.12 and later of forking with threads.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        loader: DataLoader[Any] = DataLoader(
            assembler,
            batch_size=None,  # the keys are whole batches already
            sampler=keys,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            pin_memory=device != "cpu" and torch.cuda.is_available(),
            worker_init_fn=_begin_worker,
            # its own: the run's random numbers must not depend on the number of workers
            generator=torch.Generator(),
        )
        return iter(loader)


def _mend_worker_errors(made: Iterator[Batch | DataError]) -> Iterator[Batch | DataError]:
    try:
        yield from made
        return
    except RuntimeError as error:
        death = worker_death(error)
        if death is None:
            raise
    raise death  # without torch's error, whose traceback holds the other workers


def worker_death(error: BaseException) -> DataError | None:
    """What torch says of a reading process that died, as an error for the user; None for anything
    else.

    It is raised wherever the main process is at that time, so it may stand behind another error
    that it has caused there.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and "DataLoader worker" in str(cause):
            first = str(cause).splitlines()[0].strip().rstrip(".")
            return DataError(
                f"reading pictures stopped: {first}; memory or /dev/shm may be full, try --workers"
                " 0"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _begin_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    if hasattr(os, "setpgrp"):
        # and SIGTERM sent to the whole group, as `timeout` does: the last step still needs its
        # pictures
        os.setpgrp()
    cv2.setNumThreads(0)
    information: Any = get_worker_info()
    Finalize(None, picture_cache.flush, (information.dataset.pictures.source,), exitpriority=0)


def _unchanged(batch: Any) -> Any:
    return batch
