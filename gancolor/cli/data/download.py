"""`gancolor data download`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gancolor.cli.data.bars import Bars, root_option
from gancolor.cli.places import refuse_torchrun
from gancolor.cli.saying import say

if TYPE_CHECKING:
    from gancolor.data.obtaining import Report


@click.command("download")
@click.argument("name")
@root_option
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, from where, and how much; fetch nothing.")
@click.option("--keep-archives", is_flag=True, help="Keep the archives after they are unpacked.")
def command(name: str, datasets_root: Path | None, dry_run: bool, keep_archives: bool) -> None:
    """Fetch a set of the catalog, check it and unpack it into the datasets root.

    \b
    gancolor data list                       what there is
    gancolor data download food --dry-run    5 GB: where from, under what licence
    gancolor data download food

    An interrupted download goes on where it was.
    """
    refuse_torchrun("data download")
    from gancolor.data import obtaining

    plan = obtaining.obtain(name, datasets_root, dry_run=True)
    _say_plan(plan)
    if dry_run:
        return
    if plan.state == "there":
        say(f"it is there: {plan.folder}")
        return
    with Bars("B") as bars:
        report = obtaining.obtain(name, datasets_root, keep_archives=keep_archives, progress=bars.show)
    splits = ", ".join(f"{split} {count:,}" for split, count in report.splits.items()) or "by hash"
    say(f"{report.pictures:,} pictures in {report.folder}; split: {splits}")
    say(f"Look through them first: gancolor data prepare {report.folder} --name {name}-clean")


def _say_plan(plan: Report) -> None:
    entry = plan.entry
    say(f"{entry.title}: {entry.what}")
    say(f"licence: {entry.licence}")
    if entry.note:
        say(f"address {entry.status}: {entry.note}")
    for item in plan.files:
        known = f"{item.file.bytes / 1e6:,.0f} MB" if item.file.bytes else "size not known"
        here = ", here already" if item.whole else f", {item.here / 1e6:,.0f} MB of it here" if item.here else ""
        checksum = item.file.checksum
        check = f"checked by {checksum.split(':')[0].upper()}" if checksum else "no checksum is known"
        say(f"  {item.file.urls[0]} ({known}{here}; {check})")
        for mirror in item.file.urls[1:]:
            say(f"    or {mirror}")
    needed = f"about {plan.needed / 1e9:.1f} GB" if plan.needed else "an unknown amount"
    say(f"to {plan.folder}; it needs {needed} of disk, {plan.free / 1e9:.1f} GB are free")
