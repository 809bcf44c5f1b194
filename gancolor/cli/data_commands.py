"""`gancolor data`: sets of training pictures are made, looked at, fetched and packed.

The group stands at the end; each command imports what it needs when it is called.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor import fields
from gancolor.cli import LazyGroup
from gancolor.cli.options import (
    PLACE,
    check_deadline,
    check_ray,
    datasets_root_option,
    deadline_option,
    options_of,
    ray_option,
    refuse_torchrun,
    say,
)
from gancolor.cli.progress import ProgressDisplay
from gancolor.data.doctor.rules import Rules
from gancolor.errors import DataError

if TYPE_CHECKING:
    from gancolor.data.acquisition import Acquisition
    from gancolor.data.doctor.set_plan import Plan
    from gancolor.data.doctor.survey import Elsewhere


_KEEP = {  # for each reason, the option that keeps such pictures, and its help
    "gray": ("--keep-grayscale", "Keep black-and-white pictures."),
    "single-tone": ("--keep-single-tone", "Keep sepia and other toned pictures."),
    "blank": ("--keep-blank", "Keep blank pictures, which show one colour only."),
    "small": ("--keep-small", "Keep small pictures."),
    "shape": ("--keep-shape", "Keep very long and very tall pictures."),
    "extension": ("--keep-extension", "Keep pictures whose name says another format."),
    "duplicate": ("--keep-duplicates", "Keep files that are equal byte for byte."),
    "near-duplicate": (
        "--keep-near-duplicates",
        "Keep pictures that are nearly the same; those of one group stay in one split.",
    ),
}


def _keep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for reason, (flag, words) in reversed(_KEEP.items()):
        function = click.option(flag, _keeps(reason), is_flag=True, help=words)(function)
    return function


def _keeps(reason: str) -> str:
    return f"keep_{reason}".replace("-", "_")


@click.command("prepare")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--name",
    required=True,
    help="Name of the set, and of its folder among the named sets.",
)
@datasets_root_option
@click.option(
    "--resize",
    type=click.IntRange(min=16),
    help="Copy the pictures into the set, with their shorter side reduced to N pixels.",
)
@click.option(
    "--against",
    multiple=True,
    help=(
        "Leave out pictures that this set or folder, also at an address, has too. May be given"
        " several times."
    ),
)
@click.option(
    "--split",
    "splits",
    type=click.Choice(["hash", "folders"]),
    default="hash",
    show_default=True,
    help=(
        "How pictures are divided into training, validation and test: by a hash of their names, or"
        " by the folders train, val (valid, validation) and test at the top of a source."
    ),
)
@click.option(
    "--val",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the pictures that is held out for validation.",
)
@click.option(
    "--test",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the pictures that is held out for the test.",
)
@click.option(
    "--licence", default="", help="Terms under which the pictures may be used. The set keeps them."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help=(
        "Leave out files and folders with names like this, for example '*-thumb.jpg' or private."
        " May be given several times."
    ),
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that read pictures (default: one per core).",
)
@deadline_option
@options_of(Rules)
@_keep_options
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    help=(
        "Where to write the sheet with examples of what was left out, a PNG file (default:"
        " .prepare/rejected.png in the set)."
    ),
)
@ray_option
@click.pass_context
def prepare_command(context: click.Context, /, sources: tuple[str, ...], **chosen: Any) -> None:
    """Make a clean training set of any folders, archives (zip, tar) and lists (CSV), and of folders in object storage.

    \b
    gancolor data prepare photos/ --name mine               list the good pictures in datasets/mine/manifest.csv
    gancolor data prepare photos/ a.zip --name mine --resize 420    copy them, too, smaller and upright
    gancolor data prepare datasets/mine --name mine         look through a set that is there
    gancolor data prepare new/ --name new --against mine    leave out what the set mine has too
    gancolor data prepare s3://bucket/photos --name mine --resize 420    fetch, look at and copy what lies in storage
    gancolor data prepare photos/ --name mine --ray=head:6379       look at the pictures on a Ray cluster
    gancolor train --dataset mine                           train on the set

    Broken, gray, toned, blank, small, long, doubled and wrongly named pictures are left out. The sources are only
    read. A SOURCE may also be the name of a set. If the command is stopped, the same command goes on. Given again
    later, it reads only what is new.
    """
    refuse_torchrun("data prepare")
    check_deadline(context)
    check_ray("gancolor data prepare", chosen["ray"], chosen["workers"])
    from gancolor.data import catalog
    from gancolor.data.doctor import preparation
    from gancolor.data.doctor.set_plan import Plan
    from gancolor.data.doctor.sources import OTHER
    from gancolor.images import formats

    rules = {name: chosen[name] for name in fields.declared(Rules) if chosen[name] is not None}
    keep = frozenset(reason for reason in _KEEP if chosen[_keeps(reason)])
    plan = Plan(
        name=chosen["name"],
        sources=sources,
        root=chosen["datasets_root"] or catalog.default_root(),
        rules=Rules(**rules, keep=keep),
        against=chosen["against"],
        resize=chosen["resize"],
        val=chosen["val"],
        test=chosen["test"],
        by_folder=chosen["splits"] == "folders",
        licence=chosen["licence"],
        sheet=chosen["sheet"],
        workers=chosen["workers"],
        deadline=chosen["deadline"],
        exclude=chosen["exclude"],
    )
    with ProgressDisplay("picture") as progress, _elsewhere(plan, chosen["ray"]) as elsewhere:
        made = preparation.prepare(plan, progress.show, elsewhere)
    known = f", {made.tally.known:,} known from before" if made.tally.known else ""
    gone = f", {made.tally.gone:,} gone" if made.tally.gone else ""
    compared = (
        f" ({made.decision.pictures:,} to prepare, {made.compared:,} of --against)"
        if made.compared
        else ""
    )
    say(f"{_pictures(made.tally.new)} looked at{known}{gone}{compared}\n")
    say(made.table)
    for words, count in made.tally.others.items():
        passed = (
            f", passed over: {formats.passed_over(made.tally.passed)}" if words == OTHER else ""
        )
        say(f"{count:,} {words}{passed if made.tally.passed else ''}")
    say()
    if made.copies:
        there = "was" if made.copies.kept == 1 else "were"
        say(
            f"{_pictures(made.copies.made)} copied to {made.folder}, {made.copies.kept:,} {there}"
            " there"
        )
    if made.sheet:
        say(f"Examples of what was left out: {made.sheet}")
    say(f"All of them: {made.folder / 'manifest.csv'}")
    if not made.decision.kept:
        raise DataError(
            f"set must keep at least one picture, got all {made.decision.pictures} rejected; see"
            " the table"
        )
    if made.decision.splits["train"]:
        say(f"Train on it: gancolor train --dataset {_dataset(plan)}")


@contextlib.contextmanager
def _elsewhere(plan: Plan, address: str | None) -> Iterator[Elsewhere | None]:
    """Who looks at the pictures: the cluster at an address, or nobody else for None."""
    if address is None:
        yield None
        return
    from gancolor.data.doctor.journal import FOLDER
    from gancolor.data.doctor.set_plan import locate
    from gancolor.runtime.cluster import Cluster

    paths, others = locate(plan)
    places = [("SOURCE", path) for path in paths] + [("--against", path) for path in others]
    with Cluster(address) as cluster:
        seen = [(what, place) for what, place in places if isinstance(place, Path)]
        cluster.check(seen, plan.folder / FOLDER)
        yield lambda station, chunks: cluster.spread(station, chunks)


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _dataset(plan: Plan) -> str:
    """What to write behind --dataset for the set: its name where that leads there, else its path."""
    from gancolor.data import catalog

    try:
        found = catalog.locate(plan.name)
    except DataError:
        found = None
    is_it = found is not None and os.path.realpath(found) == os.path.realpath(plan.folder)
    return shlex.quote(plan.name if is_it else str(plan.folder.absolute()))


@click.command("info")
@click.argument("dataset")
@datasets_root_option
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="How many pictures are read for the figures about colours, at most; they are chosen evenly.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write the picture, a PNG file (default: NAME-info.png).",
)
@click.option("--no-picture", is_flag=True, help="Print the text only.")
def info_command(
    dataset: str, datasets_root: Path | None, pictures: int, out: Path | None, no_picture: bool
) -> None:
    """Show a set's counts, sizes, colours, split and licence, as text and as a picture.

    \b
    gancolor data info mine                          a set by its name
    gancolor data info ~/pictures                    any folder
    gancolor data info 'shards/{0000..0099}.tar'     shards
    """
    refuse_torchrun("data info")
    from gancolor.data import information
    from gancolor.images.arrays import write_file

    found = information.describe(dataset, datasets_root, pictures)
    say(found.text())
    if not no_picture:
        target = out or Path(f"{_stem(dataset)}-info.png")
        write_file(target, found.picture())
        say(f"\nThe same as a picture: {target}")


def _stem(dataset: str) -> str:
    """What files about a set are called that nobody has named."""
    return re.sub(r"[^\w.+-]+", "-", Path(dataset).name) or "set"


@click.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@datasets_root_option
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, as JSON.")
def list_command(names: tuple[str, ...], datasets_root: Path | None, as_json: bool) -> None:
    """List the sets that can be named, or say all that is known of one: its source, licence and citation.

    A file NAME.toml in the folder of the named sets adds one of your own (docs/data.md).
    """
    from gancolor import tables
    from gancolor.data import acquisition, catalog

    if names:
        known = catalog.names(datasets_root)
        for name in names:
            if name not in known:
                catalog.find(name, datasets_root)  # raises, with the names that there are
    rows = [
        row
        for row in acquisition.describe_catalog(datasets_root)
        if not names or row["name"] in names
    ]
    if as_json:
        say(json.dumps(rows, indent=2))
    elif names:
        say("\n\n".join(map(_describe, rows)))
    else:
        say(tables.terminal(list(map(_short, rows))))
        say("\ngancolor data list NAME says more; gancolor data download NAME fetches it.")


def _short(row: dict[str, Any]) -> dict[str, object]:
    what = row["what"]
    how = "painted" if not row["path"] else "download" if row["addresses"] else "by hand"
    return {
        "name": row["name"],
        "pictures": f"{row['pictures']:,}" if row["pictures"] else None,
        "size": _size(row["bytes"]),
        "how": how,
        "address": row["status"] if row["path"] else None,
        "here": "yes" if row["there"] else "",
        "what": what if len(what) <= 70 else f"{what[:69].rsplit(' ', 1)[0]}…",
    }


def _size(count: int) -> str | None:
    if not count:
        return None
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _describe(row: dict[str, Any]) -> str:
    lines = [f"{row['name']}: {row['title']}", f"  {row['what']}"]
    facts = {
        "pictures": f"{row['pictures']:,}" if row["pictures"] else "",
        "size": _size(row["bytes"]),
        "licence": row["licence"],
        "from": row["source"],
        "addresses": " ".join(row["addresses"]),
        "checked": row["status"],
        "note": row["note"],
        "citation": row["citation"],
        "folder": row["path"] + (" (there)" if row["there"] else "") if row["path"] else "",
    }
    return "\n".join(
        lines + [f"  {key + ':':<11} {value}" for key, value in facts.items() if value]
    )


@click.command("download")
@click.argument("name")
@datasets_root_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be downloaded, from where, and how much; download nothing.",
)
@click.option("--keep-archives", is_flag=True, help="Keep the archives after they are unpacked.")
def download_command(
    name: str, datasets_root: Path | None, dry_run: bool, keep_archives: bool
) -> None:
    """Download a set, check it and unpack it into the folder of the named sets.

    \b
    gancolor data list                       which sets there are
    gancolor data download food --dry-run    say how large it is, where it comes from, and under what licence
    gancolor data download food              download it (5 GB)

    An interrupted download continues when the command is given again.
    """
    refuse_torchrun("data download")
    from gancolor.data import acquisition

    plan = acquisition.obtain(name, datasets_root, dry_run=True)
    _say_plan(plan)
    if dry_run:
        return
    if plan.state == "there":
        say(f"it is there: {plan.folder}")
        return
    with ProgressDisplay("B") as progress:
        report = acquisition.obtain(
            name, datasets_root, keep_archives=keep_archives, progress=progress.show
        )
    splits = ", ".join(f"{split} {count:,}" for split, count in report.splits.items()) or "by hash"
    say(f"{report.pictures:,} pictures in {report.folder}; split: {splits}")
    say(f"Look through them first: gancolor data prepare {report.folder} --name {name}-clean")


def _say_plan(plan: Acquisition) -> None:
    entry = plan.entry
    say(f"{entry.title}: {entry.what}")
    say(f"licence: {entry.licence}")
    if entry.note:
        say(f"address {entry.status}: {entry.note}")
    for item in plan.files:
        known = f"{item.file.bytes / 1e6:,.0f} MB" if item.file.bytes else "size not known"
        here = (
            ", here already"
            if item.whole
            else f", {item.here / 1e6:,.0f} MB of it here"
            if item.here
            else ""
        )
        checksum = item.file.checksum
        check = (
            f"checked by {checksum.split(':')[0].upper()}" if checksum else "no checksum is known"
        )
        say(f"  {item.file.urls[0]} ({known}{here}; {check})")
        for mirror in item.file.urls[1:]:
            say(f"    or {mirror}")
    needed = f"about {plan.needed / 1e9:.1f} GB" if plan.needed else "an unknown amount"
    say(f"to {plan.folder}; it needs {needed} of disk, {plan.free / 1e9:.1f} GB are free")


@click.command("pack")
@click.argument("dataset", metavar="NAME")
@click.option("--out", type=PLACE, help="Folder or address for the shards (default: NAME-shards).")
@datasets_root_option
@click.option(
    "--resize", type=click.IntRange(min=16), help="Reduce the pictures' shorter side to N pixels."
)
@click.option(
    "--shard-size",
    type=click.FloatRange(min=0, min_open=True),
    default=1000,
    show_default=True,
    help="Size of a shard in MB.",
)
@click.option(
    "--shard-pictures", type=click.IntRange(min=1), help="Largest number of pictures in a shard."
)
def pack_command(
    dataset: str,
    out: Path | str | None,
    datasets_root: Path | None,
    resize: int | None,
    shard_size: float,
    shard_pictures: int | None,
) -> None:
    """Pack a set or folder into shards: tar files in WebDataset's convention, which are read as a stream.

    \b
    gancolor data pack mine --resize 320 --out shards     write shards/0000.tar, 0001.tar, ... and shards.json
    gancolor train --dataset shards                       train on all of them
    gancolor train --dataset 'shards/{0000..0099}.tar'    train on some of them
    gancolor train --dataset https://example.org/shards   train on shards that lie on a server
    gancolor data pack mine --out s3://bucket/shards      write them to object storage, and train on them there

    Training, validation and test pictures get shards of their own. If the command is stopped, the same command goes on.
    """
    refuse_torchrun("data pack")
    from gancolor.data import shard_packer

    folder = out or Path(f"{_stem(dataset)}-shards")
    with ProgressDisplay("picture") as progress:
        packed = shard_packer.pack(
            dataset,
            folder,
            datasets_root=datasets_root,
            resize=resize,
            shard_bytes=round(shard_size * 1e6),
            shard_pictures=shard_pictures,
            progress=lambda done, total: progress.show("packing", done, total),
        )
    for reason in packed.broken:
        say(f"broken picture left out: {reason}", err=True)
    shards = packed.listing.shards
    by_split = {
        split: [shard for shard in shards if shard.split == split]
        for split in ("train", "val", "test")
    }
    for split, group in by_split.items():
        say(
            f"{split}: {sum(shard.pictures for shard in group):,} pictures in {len(group):,} shards"
        )
    before = len(shards) - packed.made
    say(f"{packed.made:,} shards written" + (f", {before:,} were there" if before else ""))
    say(f"Train on them: gancolor train --dataset {shlex.quote(str(folder))}")


_COMMANDS = {
    "prepare": (
        "gancolor.cli.data_commands:prepare_command",
        "Make a clean training set of any pictures.",
    ),
    "info": (
        "gancolor.cli.data_commands:info_command",
        "Show a set's counts, sizes, colours, split and licence.",
    ),
    "list": (
        "gancolor.cli.data_commands:list_command",
        "List the sets that can be named, with their sizes, sources and licences.",
    ),
    "download": ("gancolor.cli.data_commands:download_command", "Download a set of that list."),
    "pack": (
        "gancolor.cli.data_commands:pack_command",
        "Pack a set into shards: tar files that are read as a stream (WebDataset).",
    ),
}


@click.group("data", cls=LazyGroup, modules=_COMMANDS)
def command() -> None:
    """Make, inspect, download and pack sets of training pictures.

    \b
    gancolor data prepare photos/ scans.zip --name mine    make a clean set of a folder and an archive: datasets/mine
    gancolor data info mine                                see what is in it
    gancolor train --dataset mine                          train on it
    """
