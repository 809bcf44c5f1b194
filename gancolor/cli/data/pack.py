"""`gancolor data pack`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from gancolor.cli.data.bars import Bars, root_option
from gancolor.cli.places import refuse_torchrun
from gancolor.cli.saying import say


@click.command("pack")
@click.argument("dataset", metavar="NAME")
@click.option("--out", type=click.Path(path_type=Path), help="The shards' folder (default: NAME-shards).")
@root_option
@click.option("--resize", type=click.IntRange(min=16), help="Reduce the pictures' shorter side to N pixels.")
@click.option(
    "--shard-size", type=click.FloatRange(min=0, min_open=True), default=1000, show_default=True, help="MB a shard."
)
@click.option("--shard-pictures", type=click.IntRange(min=1), help="Most pictures a shard.")
def command(
    dataset: str,
    out: Path | None,
    datasets_root: Path | None,
    resize: int | None,
    shard_size: float,
    shard_pictures: int | None,
) -> None:
    """Write a set (its name, or a folder) as sharded tar files in WebDataset's convention.

    \b
    gancolor data pack mine --resize 320 --out shards     shards/0000.tar, 0001.tar, ... and shards.json
    gancolor train --dataset 'shards/{0000..0099}.tar'    reads them as a stream
    gancolor train --dataset https://example.org/shards   from a server, too

    Training, validation and test pictures get shards of their own. Stopped in the middle, the same command goes on.
    """
    refuse_torchrun("data pack")
    from gancolor.data.shards import packing

    stem = re.sub(r"[^\w.+-]+", "-", Path(dataset).name) or "set"
    folder = out or Path(f"{stem}-shards")
    with Bars("picture") as bars:
        packed = packing.pack(
            dataset,
            folder,
            datasets_root=datasets_root,
            resize=resize,
            shard_bytes=round(shard_size * 1e6),
            shard_pictures=shard_pictures,
            progress=lambda done, total: bars.show("packing", done, total),
        )
    for reason in packed.broken:
        say(f"broken picture left out: {reason}", err=True)
    shards = packed.listing.shards
    by_split = {split: [shard for shard in shards if shard.split == split] for split in ("train", "val", "test")}
    for split, group in by_split.items():
        say(f"{split}: {sum(shard.pictures for shard in group):,} pictures in {len(group):,} shards")
    before = len(shards) - packed.made
    say(f"{packed.made:,} shards written" + (f", {before:,} were there" if before else ""))
    say(f"Train on them: gancolor train --dataset {shlex.quote(str(folder))}")
