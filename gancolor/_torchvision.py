"""Makes `import torchvision` work beside a torch whose compiled operators torchvision cannot load.

Import this module before torchvision anywhere: `import gancolor._torchvision  # noqa: F401`.

A torchvision built for CUDA next to a CPU-only torch cannot load its library of operators. `import
torchvision` then stops with "operator torchvision::nms does not exist", although models and
transforms need none of those operators. Declaring the two schemas that it looks for is enough.
Where the library loads, nothing is declared.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")


def _operators_load() -> bool:
    """Say whether torchvision's own library gives the operators (loading it twice is harmless)."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # no torchvision: its own ImportError says more than we could
    for library in sorted(Path(spec.submodule_search_locations[0]).glob("_C*")):
        try:
            torch.ops.load_library(str(library))
        except (OSError, ImportError):
            continue
        return True
    return False


def _declare_operators() -> torch.library.Library | None:
    """Declare the schemas that are missing; the returned library must stay alive, it takes them
    along when it dies.
    """
    if "torchvision" in sys.modules or _operators_load():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)
    return library


_library = _declare_operators()
