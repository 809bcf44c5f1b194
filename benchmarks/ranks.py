"""Whether 64 processes and 1,000 shards share a set as they should: every picture once an epoch, how
long a start takes, and what the plan of it all needs in memory.

    python benchmarks/ranks.py

No process is started: the streams of all ranks are read one after another in this one, from real
shards (--shards) of tiny pictures (--pictures in each), which are written first and removed at the
end. A start is the time that one rank takes to open the set (each shard's size is compared with
shards.json) and to have its first batch of 16 pictures of 32 pixels, without imports. The plan's
memory is that of the list of shards and of one rank's stream after 2,000 steps, without pictures:
shards.json is made up for it, and pictures of no bytes are read, so that sets of any size can be
looked at (--planned: pictures in each shard).
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import io
import itertools
import json
import os
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

from gancolor import presets, tables
from gancolor.data import loader, shard_stream
from gancolor.data.shard_listing import LISTING, STRIDE, Listing, Shard
from gancolor.data.shard_lookup import ShardSource, open_shards
from gancolor.data.shard_stream import PackedPicture, ShardStream, StreamKeys

STEPS = 2000  # of a rank, for the plan's memory


def main() -> None:
    options = parse_options()
    plan_memory(1, 100, options.ranks)  # what is imported at the first time
    rows = [
        {"shards": f"{options.shards:,}", "pictures": f"{options.shards * each:,}"}
        | {"plan, MB": plan_memory(options.shards, each, options.ranks) / 1e6}
        for each in options.planned
    ]
    print(tables.markdown(rows, digits=2), "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=options.scratch) as place:
        folder = write_shards(Path(place), options.shards, options.pictures)
        start(folder, 0, options.ranks)  # imports
        times = [start(folder, rank, options.ranks) for rank in range(0, options.ranks, 8)]
        median = sorted(times)[len(times) // 2]
        print(f"start of a rank: {median:.2f} s, at most {max(times):.2f} s of {len(times)}")
        source = open_shards(str(folder), "train")
        began = time.perf_counter()
        seen = collections.Counter(read_epochs(source, options.ranks, options.epochs))
        seconds = time.perf_counter() - began
        counts = collections.Counter(seen.values())
        print(
            f"{len(source):,} pictures, {options.ranks} ranks, {options.epochs} epochs:"
            f" {counts[options.epochs]:,} came {options.epochs} times,"
            f" {sum(counts.values()) - counts[options.epochs]:,} another number of times;"
            f" {len(source) * options.epochs / seconds:,.0f} pictures/s read by one process"
        )


def parse_options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=96, help="in each shard")
    parser.add_argument("--ranks", type=int, default=64, help="processes of the training")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--planned", type=int, nargs="+", default=[100, 1000, 10_000], help="see above"
    )
    parser.add_argument("--scratch", type=Path, help="where the shards are written")
    return parser.parse_args()


def write_shards(folder: Path, shards: int, pictures: int) -> Path:
    """Shards as `data pack` writes them: one file under many names, its pictures told by shard and
    key.
    """
    rgb = np.full((16, 16, 3), (200, 120, 40), np.uint8)
    jpeg = cv2.imencode(".jpg", rgb)[1].tobytes()
    text = json.dumps({"width": 16, "height": 16, "sha256": hashlib.sha256(jpeg).hexdigest()})
    first, starts = folder / "0000.tar", []
    with tarfile.open(first, "w:", format=tarfile.USTAR_FORMAT) as tar:
        for place in range(pictures):
            if place % STRIDE == 0:
                starts.append(tar.offset)
            for suffix, data in (("jpg", jpeg), ("json", text.encode())):
                member = tarfile.TarInfo(f"{place:08d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    one = Shard(
        file=first.name,
        split="train",
        pictures=pictures,
        bytes=first.stat().st_size,
        sha256=hashlib.sha256(first.read_bytes()).hexdigest(),
        starts=tuple(starts),
    )
    names = [f"{number:04d}.tar" for number in range(shards)]
    for name in names[1:]:
        os.link(first, folder / name)
    listed = tuple(dataclasses.replace(one, file=name) for name in names)
    listing = Listing(name="ranks", licence="", shards=listed)
    (folder / LISTING).write_text(listing.to_json(), encoding="utf-8")
    return folder


def start(folder: Path, rank: int, world: int) -> float:
    """Seconds until one of the ranks has its first batch."""
    settings: dict[str, Any] = dict(image_size=32, batch_size=16 * world, workers=0, device="cpu")
    config = presets.build("regression", **settings, dataset=str(folder))
    began = time.perf_counter()
    source = open_shards(str(folder), "train")
    made = loader.batches(source, config=config, rank=rank, world=world)
    assert len(next(made).rgb) == 16
    seconds = time.perf_counter() - began
    made.close()  # type: ignore[attr-defined]
    return seconds


def read_epochs(source: ShardSource, world: int, epochs: int) -> Iterator[str]:
    """The names of the pictures that all ranks read, rank after rank."""
    for rank in range(world):
        stream = ShardStream(source, 1, rank, world)
        lanes = stream.lanes * world
        if len(source) % lanes:
            raise SystemExit(f"pictures must be a multiple of the {lanes} lanes to be counted so")
        for index in range(epochs * len(source) // world):
            yield stream.read(index).name


def planned(shards: int, pictures: int) -> ShardSource:
    """A made-up list of shards."""
    starts = tuple(range(0, pictures, STRIDE))
    return ShardSource(
        [
            Shard(
                file=f"{number:04d}.tar",
                split="train",
                pictures=pictures,
                bytes=pictures * 40_000,
                starts=starts,
            )
            for number in range(shards)
        ],
        "train",
    )


def without_files(shard: Shard, first: int) -> Iterator[PackedPicture]:
    """What `shard_stream` reads of a shard from a picture on, but for its bytes."""
    for place in range(first, shard.pictures):
        yield PackedPicture(f"{shard.file}/{place}", b"", "")


def plan_memory(shards: int, pictures: int, world: int) -> int:
    """Most bytes that one rank's plan took in `STEPS` steps, each of 16 pictures."""
    with mock.patch.object(shard_stream, "_pictures", without_files):
        tracemalloc.start()
        stream = ShardStream(planned(shards, pictures), 1, world // 2, world)
        keys_of_steps = iter(StreamKeys(stream.lanes, 16 * world, 0, world // 2, world))
        for keys in itertools.islice(keys_of_steps, STEPS):
            for _, index in keys:
                stream.read(index)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


if __name__ == "__main__":
    main()
