"""Pictures in folders: finding them, splitting them into train, val and test, and reading them."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gancolor.data import manifest, shard_listing, walk
from gancolor.data.manifest import MANIFEST
from gancolor.data.source import BORROWS, SPLITS, Split, donor_of, position_of, split_of
from gancolor.data.walk import scan
from gancolor.errors import DataError, shown
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.remote_files import is_address

log = logging.getLogger("gancolor")


class FolderSource:
    """Pictures under a folder by their relative paths, pictures elsewhere by absolute ones."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Path relative to the root, with forward slashes; absolute for pictures elsewhere."""
        return self.paths[index]

    def read(self, index: int) -> Picture:
        """The picture as uint8 RGB (H, W, 3). DataError if it is broken."""
        return arrays.read_rgb(self.root / self.paths[index])


def find_pictures(root: Path) -> list[str]:
    """Sorted relative paths (forward slashes) of all pictures under a folder.

    Hidden files and folders are skipped. Links to folders are followed, each folder once, so that
    loops end and no picture appears twice. DataError if the folder cannot be listed.
    """
    return scan(root, {}).names()


def open_folder(root: Path, split: Split) -> FolderSource:
    """Pictures of one split of a folder. See `dataset.open_source`."""
    if (root / manifest.UNFINISHED).exists():
        raise DataError(
            f"set must be whole, got {shown(root)}, whose preparing was stopped; run the same"
            " command again"
        )
    groups = walk.open_names(root, functools.partial(assign_splits, root))
    if not groups["all"]:
        raise DataError(
            "dataset must hold at least one picture (JPEG, PNG, TIFF or another kind that can be"
            f" read), got none in {shown(root)}; {_way_out(root)}"
        )
    wanted = SPLITS if len(groups["all"]) == 1 and split != "all" else BORROWS[split]
    if not any(groups[name] for name in wanted):
        raise DataError(
            f"split {split} must have a picture, got none in {shown(root)}; add some or mend its"
            f" {MANIFEST}"
        )
    broken: list[str] = []
    for name in wanted:
        source = FolderSource(root, groups[name])
        if len(source) and _has_good_picture(source, broken):
            if name != split:
                log.warning(
                    "%s holds too few good pictures for a %s split: it uses those of %s",
                    shown(root),
                    split,
                    name,
                )
            return source
    count = sum(len(groups[name]) for name in wanted)
    more = f" and {count - len(broken)} more" if count > len(broken) else ""
    raise DataError(
        "dataset must hold at least one picture that can be read, got only broken ones in the"
        f" split {split} of {shown(root)}: {'; '.join(broken)}{more}; replace them"
    )


def assign_splits(root: Path, found: list[str]) -> tuple[list[str], NDArray[np.uint8]]:
    """The names of a dataset's pictures, sorted, and for each the number of its split in SPLITS, or
    manifest.REJECTED.

    `found`: the sorted names of those in its folder. Those that its manifest names elsewhere join
    them; rejected ones that lie in the folder are among them. The manifest decides, else the hash
    of a name. DataError for a manifest that cannot be understood, or rejects all.
    """
    rows = manifest.read(root / MANIFEST)
    lost = [name for name in manifest.match(rows, found) if not _explains(root, name, rows[name])]
    if lost:
        _warn(
            f"{shown(root / MANIFEST)} has {len(lost)} row(s) that name no picture in its folder"
            f" and so decide nothing, for example {shown(lost[0])}"
        )
    outside = {name: code for name, code in rows.items() if os.path.isabs(name)}
    elsewhere = [name for name, code in outside.items() if code != manifest.REJECTED]
    names = sorted(found + elsewhere) if elsewhere else found
    count = len(found) + len(outside)
    given = np.fromiter(
        (rows.get(name, manifest.UNDECIDED) for name in names), np.uint8, len(names)
    )
    if count and (given == manifest.REJECTED).all():
        raise DataError(
            f"{shown(root / MANIFEST)} must leave at least one picture, got all {count} rejected;"
            " mend it"
        )
    return names, _decide(names, given)


def _decide(names: Sequence[str], given: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The number of each picture's split: as `given`, else by hash. A rejected one stays rejected.

    A split that the hash leaves empty takes one picture from another one (`source.donor_of`). That
    happens only in datasets of a few dozen pictures, and is the one exception to the rule that
    splits are stable when pictures are added.
    """
    free = given == manifest.UNDECIDED
    codes = given.copy()
    codes[free] = [SPLITS.index(split_of(names[place])) for place in np.flatnonzero(free).tolist()]
    for number, split in enumerate(SPLITS):
        sizes, spare = (
            dict(zip(SPLITS, np.bincount(some, minlength=3).tolist(), strict=False))
            for some in (codes, codes[free])
        )
        if donor := donor_of(split, sizes, spare):
            candidates = np.flatnonzero(free & (codes == SPLITS.index(donor))).tolist()
            codes[min(candidates, key=lambda place: position_of(names[place]))] = number
    return codes


def _way_out(root: Path) -> str:
    """What to do with a folder without pictures."""
    if (root / shard_listing.STATE).exists():
        return "packing was stopped, run the same gancolor data pack again"
    tars = sorted(path.name for path in root.glob("*.tar"))
    if not tars:
        return "put pictures there"
    first, last = tars[0].removesuffix(".tar"), tars[-1].removesuffix(".tar")
    start = re.sub(r"\d+$", "", first)
    begin, end = first[len(start) :], last[len(start) :]
    known = (
        begin
        and last.startswith(start)
        and end.isdecimal()
        and int(end) - int(begin) + 1 == len(tars) > 1
    )
    name = f"{start}{{{begin}..{end}}}.tar" if known else tars[0]
    return f"name its shards: --dataset '{shown(root / name)}'"


def _has_good_picture(source: FolderSource, broken: list[str]) -> bool:
    """Whether a picture can be read; the reasons of those that cannot are added to `broken`, up to
    three.
    """
    for place in range(len(source)):
        try:
            source.read(place)
            return True
        except DataError as error:
            if len(broken) < 3:
                broken.append(str(error))
    return False


def _explains(root: Path, name: str, code: int) -> bool:
    """Whether a row may well name no picture: it rejects a file that training would not take
    anyway, or that lies in object storage.
    """
    return code == manifest.REJECTED and (is_address(name) or os.path.lexists(root / name))


@functools.lru_cache(maxsize=64)
def _warn(words: str) -> None:
    """Say it once, not for every split."""
    log.warning("%s", words)
