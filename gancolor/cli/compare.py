"""`gancolor compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gancolor.cli import evaluate
from gancolor.cli.options import find_models, refuse_torchrun, say

_OTHERS = ("out", "save_pictures", "hints")  # options of evaluate that have no place here


@click.command(
    "compare", params=[option for option in evaluate.command.params if option.name not in _OTHERS]
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison.html"),
    show_default=True,
    help=(
        "The page; sheets and charts go into NAME-sheets/ beside it. An earlier page there is"
        " replaced."
    ),
)
def command(runs: tuple[str, ...], runs_root: str | None, out: Path, **options: Any) -> None:
    """Put runs side by side on one page: sheets of pictures, the table of figures, charts.

    \b
    gancolor compare 7 12 --out report.html          two runs on the held-out pictures of their dataset
    gancolor compare 7 12 --dataset food --limit 50  on fifty pictures of another
    gancolor compare 7 12 --dataset old/ --split all a folder of black and white photographs: no truth needed

    RUN is a path, a name or a number, a checkpoint file, general, or an address (hf://owner/name, https://...). The
    page needs nothing but a browser: no other file, no network, no script.
    """
    refuse_torchrun("compare")
    from gancolor.evaluation import comparison, results

    measured = comparison.compare(find_models(runs, runs_root), out=out, **options)
    say(
        f"{results.terminal(measured)}\n\nthe page is {out}, its pictures are in"
        f" {comparison.sheets_folder(out)}"
    )
