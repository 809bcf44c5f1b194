"""`gancolor models list`."""

from __future__ import annotations

import json
from typing import Any

import click

from gancolor.cli.places import runs_root_option
from gancolor.cli.saying import say


@click.command("list")
@runs_root_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(runs_root: str | None, as_json: bool) -> None:
    """List the models that are here; --run takes their names.

    The model that comes with gancolor, the runs under the runs root, and those that were fetched, which are kept in
    $GANCOLOR_CACHE.
    """
    from gancolor import checkpoint, inventory, tables

    rows = inventory.rows(checkpoint.runs_root(runs_root))
    say(json.dumps(rows, indent=2) if as_json else tables.terminal(list(map(_short, rows))))


def _short(row: dict[str, Any]) -> dict[str, object]:
    size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] is not None else None
    what = row["what"] if len(row["what"]) <= 70 else f"{row['what'][:69]}…"
    return {"name": row["name"], "what": what, "step": row["step"], "size": size, "where": row["where"]}
