"""`gancolor data list`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gancolor.cli.data.bars import root_option
from gancolor.cli.saying import say


@click.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as JSON.")
def command(names: tuple[str, ...], datasets_root: Path | None, as_json: bool) -> None:
    """List the sets that have a name; with NAME all that is known of it: where from, licence, citation.

    A file NAME.toml in the datasets root adds a set of your own (docs/data.md).
    """
    from gancolor import tables
    from gancolor.data import catalog, obtaining

    if names:
        known = catalog.names(datasets_root)
        for name in names:
            if name not in known:
                catalog.find(name, datasets_root)  # raises, with the names that there are
    rows = [row for row in obtaining.rows(datasets_root) if not names or row["name"] in names]
    if as_json:
        say(json.dumps(rows, indent=2))
    elif names:
        say("\n\n".join(map(_describe, rows)))
    else:
        say(tables.terminal(list(map(_short, rows))))
        say("\ngancolor data list NAME says more; gancolor data download NAME fetches it.")


def _short(row: dict[str, Any]) -> dict[str, object]:
    how = "painted" if not row["path"] else "download" if row["addresses"] else "by hand"
    return {
        "name": row["name"],
        "pictures": f"{row['pictures']:,}" if row["pictures"] else None,
        "size": _size(row["bytes"]),
        "how": how,
        "address": row["status"] if row["path"] else None,
        "here": "yes" if row["there"] else "",
        "what": _first(row["what"]),
    }


def _first(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:69].rsplit(' ', 1)[0]}…"


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
    return "\n".join(lines + [f"  {key + ':':<11} {value}" for key, value in facts.items() if value])
