"""Training: `train` runs a `TrainConfig` from its pictures to a run directory with checkpoints and
a report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancolor.training.run import Interrupted, train

__all__ = ["Interrupted", "train"]


def __getattr__(name: str) -> Any:  # who needs a part of this package waits for no other
    if name in __all__:
        from gancolor.training import run

        return getattr(run, name)
    raise AttributeError(f"module 'gancolor.training' has no attribute {name!r}")
