"""What the loader hands out of a source of pictures, with few settings."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from gancolor.data import loader
from gancolor.data.loader import Batch
from gancolor.data.source import PictureSource


def settings(**changes: Any) -> Any:
    """The settings of a training that a loader looks at, without those of its networks."""
    values: dict[str, Any] = {
        "zoom": 0.5,
        "flip": True,
        "condition": "gray",
        "seed": 1,
        "workers": 0,
        "device": "cpu",
        "framing": "random",
        "cache": "none",
        "old_photos": 0.0,
        "hints": 0.0,
    }
    return SimpleNamespace(**values | changes)


def take(
    count: int,
    source: PictureSource,
    *,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    embedding_size: int | None = None,
    **changes: Any,
) -> list[Batch]:
    """The first batches of a loader."""
    made = loader.batches(
        source,
        config=settings(**changes),
        start_step=start_step,
        rank=rank,
        world=world,
        embedding_size=embedding_size,
    )
    return list(itertools.islice(made, count))
