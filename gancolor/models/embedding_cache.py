"""Embeddings of pictures, kept on disk: what a frozen network says of a picture never changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import shown
from gancolor.runtime.store import RecordStore

FORMAT = 2  # raised when records or what the scores are of (gray conversion, normalization) change
LARGEST = float(np.finfo(np.float16).max)  # 65504

_DAMAGED = "embeddings in %s: damaged records are left out and computed again"
_BROKEN = (
    "embeddings in %s cannot be kept (%s); going on without, set $GANCOLOR_CACHE to a folder that"
    " can be written"
)

log = logging.getLogger("gancolor")


class EmbeddingCache:
    """The scores, float16 (width,), of pictures by their keys, SHA-256 in hexadecimal.

    `folder` holds the embeddings of one network; any number of processes use it at once. Damaged
    records are left out, which the log says once, until the next `put` of their keys. Where the
    disk cannot be read or written, the log says it once, and the cache goes on without. Not for
    several threads at once.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._store = RecordStore(folder)
        self._readable = self._writable = True
        self._said_damage = False

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        """Return the scores of those of `keys` that are known."""
        if not self._readable:
            return {}
        try:
            found = self._store.get([bytes.fromhex(key) for key in keys])
        except OSError as error:
            self._readable = False
            self._give_up(error)
            return {}
        if self._store.damaged and not self._said_damage:
            self._said_damage = True
            log.warning(_DAMAGED, shown(self.folder))
        size = 2 * self.width
        return {
            key.hex(): np.frombuffer(record, "<f2").astype(np.float16)
            for key, record in found.items()
            if len(record) == size
        }

    def put(self, scores: Mapping[str, NDArray[Any]]) -> None:
        """Keep scores (width,) by key. ValueError for those that float16 cannot hold."""
        with np.errstate(over="ignore"):
            rounded = {key: np.asarray(row).astype("<f2") for key, row in scores.items()}
        if not all(np.isfinite(row).all() for row in rounded.values()):
            raise ValueError(f"scores to be cached must be finite and at most {LARGEST:.0f}")
        if not self._writable:
            return
        try:
            self._store.put({bytes.fromhex(key): row.tobytes() for key, row in rounded.items()})
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Write nothing more; the log has said why."""
        if self._writable:
            log.warning(_BROKEN, shown(self.folder), error.strerror or str(error))
        self._writable = False
