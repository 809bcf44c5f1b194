"""gancolor trains and uses image colorizers: a VGG16-backed GAN and the regression baselines it is
compared with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.config import TrainConfig
    from gancolor.errors import GancolorError
    from gancolor.training import train

__version__ = "0.1.0"
__all__ = ["Colorizer", "GancolorError", "TrainConfig", "__version__", "train"]

_HOMES = {
    "Colorizer": "coloring.colorizer",
    "GancolorError": "errors",
    "TrainConfig": "config",
    "train": "training",
}


def __getattr__(name: str) -> Any:  # loads torch only when something that needs it is used
    if name in _HOMES:
        return getattr(importlib.import_module(f"gancolor.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gancolor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
