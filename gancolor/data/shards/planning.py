"""What is packed into shards: the pictures of a set's splits, their order, and what tells packs from one another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from gancolor.data import manifest
from gancolor.data.dataset import open_source
from gancolor.data.folder import FolderSource
from gancolor.data.shards.encoding import Jpeg, to_jpeg
from gancolor.data.shards.reading import ShardSource
from gancolor.data.source import SPLITS, PictureSource, Split, split_of
from gancolor.errors import DataError, shown


class Pictures:
    """The pictures of a split in the order in which they are packed."""

    def __init__(self, source: PictureSource, split: str) -> None:
        self.source, self.split = source, split
        self.order = np.random.default_rng([0, SPLITS.index(split)]).permutation(len(source)).astype(np.int32)

    def path(self, place: int) -> str:
        """What others see of where the picture came from: no folders of this computer."""
        name = self.source.name(int(self.order[place]))
        return PurePath(name).name if os.path.isabs(name) else name

    def stamp(self, place: int) -> list[Any]:
        """What changes when the picture does."""
        index = int(self.order[place])
        if not isinstance(self.source, FolderSource):
            return [self.source.name(index)]
        try:
            status = (self.source.root / self.source.paths[index]).stat()
            return [self.source.paths[index], status.st_size, status.st_mtime_ns]
        except OSError:
            return [self.source.paths[index]]  # it will be left out as broken

    def jpeg(self, place: int, resize: int | None) -> Jpeg | str:
        """The picture as a JPEG file, or why it is left out."""
        index = int(self.order[place])
        try:
            if not isinstance(self.source, FolderSource):
                _, lossless = cv2.imencode(".png", cv2.cvtColor(self.source.read(index), cv2.COLOR_RGB2BGR))
                return to_jpeg(lossless.tobytes(), self.source.name(index), resize)
            path = self.source.root / self.source.paths[index]
            try:
                data = path.read_bytes()
            except OSError as error:
                return f"picture must be readable, got {shown(path)}: {error.strerror}"
            return to_jpeg(data, str(path), resize)
        except DataError as error:
            return str(error)


def open_splits(dataset: str, root: Path | str | None) -> list[Pictures]:
    """The splits of a set that have pictures of their own. DataError for one that is in shards already."""
    found: list[tuple[Split, PictureSource]] = []
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        with contextlib.suppress(DataError) if found else contextlib.nullcontext():
            source = open_source(dataset, split, datasets_root=root)
            if isinstance(source, ShardSource):
                raise DataError(
                    f"dataset to pack must be pictures, got shards, {shown(dataset)}; pack the set they were made of"
                )
            same = [place for place, (_, other) in enumerate(found) if other.name(0) == source.name(0)]
            if not same:
                found.append((split, source))
            elif _own_split(source) == split:  # the other one has borrowed it
                found[same[0]] = (split, source)
    return [Pictures(source, split) for split, source in found]


def _own_split(source: PictureSource) -> str:
    assert isinstance(source, FolderSource)  # generated sets have pictures of all splits
    code = manifest.read(source.root / manifest.FILE).get(source.name(0), manifest.UNDECIDED)
    return SPLITS[code] if code < len(SPLITS) else split_of(source.name(0))


def fingerprint(splits: Sequence[Pictures], how: list[Any]) -> str:
    """What is the same only for the same pictures, packed in the same way."""
    plan = hashlib.sha256(json.dumps(how).encode())
    for pictures in splits:
        for place in range(len(pictures.order)):
            plan.update(json.dumps([pictures.split, *pictures.stamp(place)]).encode())
    return plan.hexdigest()
