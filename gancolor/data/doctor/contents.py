"""What a picture set holds: what its manifest lists, and the pictures of each split."""

from __future__ import annotations

import csv
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gancolor.data.dataset import open_source
from gancolor.data.doctor.rules import REASONS
from gancolor.data.folder import MANIFEST
from gancolor.data.shards.reading import ShardSource
from gancolor.data.source import SPLITS, PictureSource, Split
from gancolor.errors import DataError, shown
from gancolor.files import regular

_PAINTED = 128  # pixels: side of pictures that are painted to be looked at


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a manifest lists: `rejected` pictures by reason, kept ones by split ("" for those with none).

    `sizes`: (N, 2) width and height of the kept ones in pixels; none unless every row has them.
    """

    rejected: dict[str, int]
    splits: Counter[str]
    sizes: NDArray[np.int64]


def open_split(dataset: str, split: Split, datasets_root: Path | str | None) -> PictureSource:
    """Open a set as training does; generated pictures are small."""
    return open_source(dataset, split, datasets_root=datasets_root, image_size=_PAINTED)


def read_manifest(root: Path | None) -> Listed:
    """Count what the manifest of a folder lists; nothing without one. DataError if it cannot be read.

    Row by row: each costs 16 bytes of memory.
    """
    rejected, splits, sides = Counter[str](), Counter[str](), array("q")
    path = root / MANIFEST if root else None
    try:
        if path and os.path.lexists(path) and not path.is_dir():
            regular(path)
            with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
                for split, reject, width, height in _cells(csv.reader(file)):
                    if reject:
                        rejected[reject] += 1
                    else:
                        splits[split] += 1
                        sides.extend((int(width or 0), int(height or 0)))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{shown(str(path))} must be a readable CSV file, got: {error}; mend or remove it") from None
    sizes = np.array(sides, np.int64).reshape(-1, 2)
    order = [*REASONS, *sorted(set(rejected) - set(REASONS))]
    return Listed(
        rejected={reason: rejected[reason] for reason in order if rejected[reason]},
        splits=splits,
        sizes=sizes if sizes.all() else sizes[:0],
    )


def _cells(table: Iterator[list[str]]) -> Iterator[list[str]]:
    """Split, reject, width and height of each row; "" for what is not there. Plain lists: there may be millions."""
    head = next(table, [])
    places = [head.index(name) if name in head else -1 for name in ("split", "reject", "width", "height")]
    for row in table:
        yield [row[place].strip() if 0 <= place < len(row) else "" for place in places]


def count_splits(dataset: str, datasets_root: Path | str | None, listed: Listed) -> dict[str, int]:
    """Pictures of each split; one that only borrows another's pictures has none of its own."""
    counts, firsts = dict.fromkeys(SPLITS, 0), set[str]()
    splits: list[Split] = ["train", "val", "test"]
    # One that the manifest lists no pictures of is the one that borrows: it comes later.
    for split in sorted(splits, key=lambda split: (split != "train", not listed.splits[split])):
        try:
            source = open_split(dataset, split, datasets_root)
        except DataError:  # nothing to train on: told by the count
            continue
        if isinstance(source, ShardSource):  # a name would have to be fetched
            counts[split] = len(source) * (source.split == split)
            continue
        if source.name(0) not in firsts:
            counts[split] = len(source)
        firsts.add(source.name(0))
    return counts
