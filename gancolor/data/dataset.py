"""Opens a dataset, whatever it is: the generated one, a named one, a folder, or shards."""

from __future__ import annotations

from pathlib import Path

from gancolor.data import catalog, shard_lookup
from gancolor.data.folder import open_folder
from gancolor.data.shard_listing import is_shards
from gancolor.data.source import PictureSource, Split
from gancolor.data.still_life.composition import StillLife


def open_source(
    dataset: str,
    split: Split,
    *,
    datasets_root: Path | str | None = None,
    seed: int = 0,
    image_size: int = 256,
) -> PictureSource:
    """Pictures of one split of a dataset: catalog name, path, or shards; only the generated dataset
    uses the last two.

    DataError if the dataset is missing, empty, or holds only broken pictures.
    """
    named = dataset in catalog.names(datasets_root)
    if named and catalog.find(dataset, datasets_root).generated:
        return StillLife(seed, split, image_size)
    if not named and is_shards(dataset):
        return shard_lookup.open_shards(dataset, split)
    root = catalog.locate(dataset, datasets_root)
    if is_shards(str(root)):
        return shard_lookup.open_shards(str(root), split)
    return open_folder(root, split)
