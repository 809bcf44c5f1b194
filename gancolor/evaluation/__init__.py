"""Evaluation: `evaluate` measures runs on the same pictures, `write` keeps the figures in files, and
`compare` puts the runs side by side on a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancolor.evaluation.comparison import compare
    from gancolor.evaluation.measurement import evaluate
    from gancolor.evaluation.results import Evaluation, write

__all__ = ["Evaluation", "compare", "evaluate", "write"]


def __getattr__(name: str) -> Any:  # the command line names this package before it needs torch
    if name in __all__:
        from gancolor.evaluation import comparison, measurement

        return getattr(comparison if name == "compare" else measurement, name)
    raise AttributeError(f"module 'gancolor.evaluation' has no attribute {name!r}")
