"""The models that a command colours with: chosen, said, and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gancolor.cli.options import leads, say

if TYPE_CHECKING:
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.hub.choice import Choice


def choose(runs: Sequence[str], runs_root: str | None, *, newest: bool = False) -> list[Choice]:
    """The models that are meant; where none is named, the one for photographs, or the newest run."""
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    root = checkpoint.runs_root(runs_root)
    if runs:
        return [choice.find(run, root) for run in runs]
    return [choice.newest_run(root) if newest else choice.choose(None, root)]


def load(models: Sequence[Choice], device: str, precision: str) -> Colorizer:
    """The one that the models are together; says which they are and why."""
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.hub import choice

    if leads():
        for model in models:
            say(model.sentence())
    loaded = [Colorizer.load(model.path, device=device, precision=precision) for model in models]
    colorizer = loaded[0] if len(loaded) == 1 else Colorizer.mean(loaded)
    known = [model.name for model in models] == [choice.GENERAL]  # and it is known to colour
    if leads() and not known and (warning := colorizer.self_test()):
        say(warning, err=True)
    return colorizer
