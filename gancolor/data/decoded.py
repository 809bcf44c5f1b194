"""Pictures decoded and reduced to what a training needs of them, and kept so that an epoch reads no files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import images
from gancolor.data import store_folder
from gancolor.data.folder import FolderSource
from gancolor.data.source import PictureSource
from gancolor.data.still_life import StillLife
from gancolor.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gancolor.data.picture_store import Store

FORMAT = 2  # raised when the pixels of a reduced picture, or of a generated one, change


def open_reduced(source: PictureSource, side: int, cache: str) -> PictureSource:
    """The pictures of `source`, their shorter side reduced to `side` pixels; smaller ones are as they are.

    `cache`: "ram" or "disk" keeps what was decoded for all processes that open the same set, "none" decodes each time.
    The pixels are the same with all three. Where nothing can be kept, the log says so. ConfigError for pictures that
    are neither a folder's nor generated.
    """
    store_folder.remove_leftovers()
    if cache == "none":
        return Reduced(source, side)
    files = _of_files(source, cache)
    from gancolor.data import picture_store  # LMDB, which is needed here alone

    store = picture_store.open_store(_store_name(files, side), in_memory=cache == "ram")
    return Reduced(source, side) if store is None else Kept(files, side, store)


def flush(source: PictureSource) -> None:
    """Write what this process has decoded and not yet kept."""
    if isinstance(source, Kept):
        source.store.flush()


def describe_need(source: PictureSource, side: int, cache: str) -> str:
    """One line: about how much `cache`, "ram" or "disk", would take, and how much there is. Errors of `open_reduced`.

    A few pictures are read for it.
    """
    from gancolor.data import picture_store

    need = _expected_bytes(_of_files(source, cache), side)
    room = picture_store.room(in_memory=cache == "ram")
    where = "in memory" if cache == "ram" else "on disk"
    fits = "" if need <= room else "; the rest is read from files in every epoch"
    return (
        f"about {need / 2**30:.2f} GiB of decoded pictures {where}, of {max(room, 0) / 2**30:.2f} GiB free for it{fits}"
    )


class Reduced:
    """A source whose pictures have a shorter side of at most `side` pixels."""

    def __init__(self, source: PictureSource, side: int) -> None:
        self.source, self.side = source, side

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """What the source calls the picture."""
        return self.source.name(index)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""
        return reduce(self.source.read(index), self.side)


class Kept(Reduced):
    """The same, and a picture that was read once comes from `store` until its file changes."""

    def __init__(self, source: FolderSource | StillLife, side: int, store: Store) -> None:
        super().__init__(source, side)
        self.files, self.store = source, store

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture as uint8 RGB (H, W, 3), an array of its own. DataError if it is broken."""
        name = self.name(index)
        try:
            made_of = _state(self.files, name)
        except OSError:  # the source has the words
            return super().read(index)
        key = _digest(name)
        stamp = _digest(repr((name, made_of, self.side, FORMAT, cv2.__version__)))
        picture = self.store.get(key, stamp)
        if picture is None:
            picture = super().read(index)
            self.store.put(key, stamp, picture)
        return picture


def reduce(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture, uint8 RGB (H, W, 3), whose shorter side is at most `side` pixels; areas are averaged."""
    height, width = rgb.shape[:2]
    if min(height, width) <= side:
        return rgb
    scale = side / min(height, width)
    return images.resize(rgb, (max(side, round(height * scale)), max(side, round(width * scale))))


def _of_files(source: PictureSource, cache: str) -> FolderSource | StillLife:
    if not isinstance(source, FolderSource | StillLife):
        raise ConfigError(f"--cache must be none with shards, got {cache}; leave it out")
    return source


def _expected_bytes(source: PictureSource, side: int, looked_at: int = 16) -> int:
    sizes = []
    for index in range(0, len(source), max(1, len(source) // looked_at)):
        with contextlib.suppress(DataError):
            sizes.append(reduce(source.read(index), side).size)
    return round(len(source) * sum(sizes) / max(1, len(sizes)))


def _store_name(source: FolderSource | StillLife, side: int) -> str:
    """A folder's name for the pictures of a set at that side."""
    if isinstance(source, StillLife):
        return f"still-life-{side}"
    root = str(source.root.resolve())
    label = re.sub(r"[^\w.-]+", "_", os.path.basename(root), flags=re.ASCII)[:40]
    return f"{label or 'set'}-{_digest(root).hex()[:8]}-{side}"


def _state(source: FolderSource | StillLife, name: str) -> tuple[object, ...]:
    """What changes when the picture does. OSError if its file is not there."""
    if isinstance(source, StillLife):
        return (source.seed, source.size)
    status = os.stat(source.root / name)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
